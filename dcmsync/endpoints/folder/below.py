"""Folders below a root, opened so that no link leads out of it, and made durable.

Owns opening and creating them component by component, opening files in the same way, and knowing which folders are
durable in their parents. Refuses links in every component below the root; the root itself is the user's word and may
be one.
"""

import os
from threading import Lock
from types import TracebackType
from typing import Self

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_REMEMBERED = 100_000


class Durable:
    """Which folders below a root are known to be durable in their parents. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lock = Lock()

    def __contains__(self, folder: str) -> bool:
        return folder in self._known

    def add(self, folders: set[str]) -> None:
        """Remembers them; forgets all others when there are too many, which costs time and nothing else."""
        with self._lock:
            if len(self._known) > _MAX_REMEMBERED:
                self._known = set()
            self._known |= folders


class Folders:
    """The folders of one batch: each opened once, all synced at once, closed together. For one thread."""

    def __init__(self, root_fd: int, durable: Durable, *, folder_mode: int) -> None:
        self._root_fd = root_fd
        self._durable = durable
        self._mode = folder_mode
        self._open: dict[str, int] = {"": root_fd}
        self._unsynced: set[str] = set()
        self._entered: set[str] = set()  # folders whose entry in their parent a sync makes durable

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path, descriptor in self._open.items():
            if path:
                os.close(descriptor)

    def enter(self, folder: str) -> int:
        """The descriptor of a folder, created with its parents if need be. Raises OSError: ENOTDIR for a link."""
        descriptor = self._open.get(folder)
        if descriptor is not None:
            return descriptor
        parent, _, name = folder.rpartition("/")
        parent_fd = self.enter(parent)
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=parent_fd)
        except FileNotFoundError:
            try:
                os.mkdir(name, self._mode, dir_fd=parent_fd)
            except FileExistsError:  # another thread, just now
                pass
            descriptor = os.open(name, _FOLDER, dir_fd=parent_fd)
        self._open[folder] = descriptor
        if folder not in self._durable:
            self._unsynced.add(parent)
            self._entered.add(folder)
        return descriptor

    def changed(self, folder: str) -> None:
        """Marks an entered folder as having a new entry."""
        self._unsynced.add(folder)

    def sync(self) -> dict[str, OSError]:
        """Makes every new entry durable. Gives the folders where that failed; what is in or below them is in doubt."""
        failed: dict[str, OSError] = {}
        for folder in sorted(self._unsynced):
            try:
                os.fsync(self._open[folder])
            except OSError as trouble:
                failed[folder] = trouble
        if not failed:
            self._durable.add(self._entered)
        self._unsynced.clear()
        self._entered.clear()
        return failed


def open_file(root: str, path: str) -> int:
    """The descriptor of what is at `path` below `root`, for reading; a link on the way leads nowhere, even one that has
    just been put there. Raises OSError: ELOOP or ENOTDIR for a link.
    """
    folder_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *folders, name = path.split("/")
        for folder in folders:
            deeper_fd = os.open(folder, _FOLDER, dir_fd=folder_fd)
            os.close(folder_fd)
            folder_fd = deeper_fd
        return os.open(name, _FILE, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)
