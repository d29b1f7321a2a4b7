"""The hidden folder in a destination where files are written before they have their names.

Owns its name, its lock, and the removal of those that dead processes left. Refuses to know what the files are.

A destination's final folder may depend on attributes inside the instance, so files are not begun there: each process
has `.dcmsync-<random>` directly below the destination, on the same file system, and holds a lock on the file `lock`
in it for as long as it lives. A staging folder whose lock can be had is nobody's: it goes when the next one comes.
"""

import errno
import fcntl
import os
import secrets
from itertools import count

from dcmsync.endpoints.folder.scan import OWN_PREFIX

_LOCK = "lock"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Staging:
    """One process's staging folder below the folder `root_fd`. Safe to use from several threads."""

    def __init__(self, root_fd: int, *, folder_mode: int, file_mode: int) -> None:
        self._root_fd = root_fd
        self._file_mode = file_mode
        self._names = count(1)
        remove_leftovers(root_fd)
        while True:
            self.name = OWN_PREFIX + secrets.token_hex(8)
            os.mkdir(self.name, folder_mode, dir_fd=root_fd)
            held = _hold(self.name, root_fd)
            if held is not None:
                self.fd, self._lock_fd = held
                return

    def next_name(self) -> str:
        """A name in the folder `fd` that nothing has."""
        return str(next(self._names))

    def create(self) -> tuple[str, int]:
        """A new empty file: its name in the folder `fd`, and its descriptor. Raises OSError."""
        name = self.next_name()
        return name, os.open(name, _CREATE, self._file_mode, dir_fd=self.fd)

    def remove(self, name: str) -> None:
        """Unlinks a file; one that is gone, or a folder that cannot be written, is left to the next run."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except OSError:
            pass

    def close(self) -> None:
        """Removes the folder with what is in it, and lets go of the lock. Idempotent."""
        if self.fd < 0:
            return
        _empty(self.name, self.fd, self._root_fd)
        os.close(self._lock_fd)
        os.close(self.fd)
        self.fd = -1


def remove_leftovers(root_fd: int) -> int:
    """Removes the staging folders that no living process holds. Gives how many."""
    removed = 0
    for name in os.listdir(root_fd):
        if name.startswith(OWN_PREFIX):
            removed += _remove_leftover(name, root_fd)
    return removed


def _remove_leftover(name: str, root_fd: int) -> bool:
    try:
        fd = os.open(name, _FOLDER, dir_fd=root_fd)
    except OSError:  # no folder, or a link: not ours
        return False
    lock_fd = -1
    try:
        lock_fd = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _empty(name, fd, root_fd)
    except FileNotFoundError:  # died, or is still, between its folder and its lock: goes only while it is empty
        return _empty_if_bare(name, root_fd)
    except OSError:  # held by a living process, or on a file system without locks
        return False
    finally:
        os.close(fd)
        if lock_fd >= 0:
            os.close(lock_fd)


def _empty(name: str, fd: int, root_fd: int) -> bool:
    """Removes the files of a staging folder, the lock last, and the folder."""
    try:
        for file in sorted(os.listdir(fd), key=lambda file: file == _LOCK):
            os.unlink(file, dir_fd=fd)
        os.rmdir(name, dir_fd=root_fd)
    except OSError:
        return False
    return True


def _empty_if_bare(name: str, root_fd: int) -> bool:
    try:
        os.rmdir(name, dir_fd=root_fd)
    except OSError:
        return False
    return True


def _hold(name: str, root_fd: int) -> tuple[int, int] | None:
    """Descriptors of a new staging folder and of its lock, held; None when another process took it for a leftover."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=root_fd)
    except FileNotFoundError:
        return None
    lock_fd = -1
    try:
        lock_fd = os.open(_LOCK, _CREATE, 0o600, dir_fd=fd)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock_fd).st_nlink:
            return fd, lock_fd
    except OSError as trouble:
        if trouble.errno in _NO_LOCKS and lock_fd >= 0:
            return fd, lock_fd
        if trouble.errno not in {errno.ENOENT, errno.EWOULDBLOCK}:
            _close(fd, lock_fd)
            raise
    _close(fd, lock_fd)
    return None


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
