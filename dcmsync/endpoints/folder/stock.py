"""What a folder holds as of now: its catalogue, brought up to date by reading what changed and nothing else.

Owns which files are read, by whom, and which are forgotten. Refuses to say what a file is.

Theory of operation. A file is the one that is remembered while device, inode, size and modification time are; else it
is read again. What is remembered and not met is forgotten, after one more look. Where more than a few files are to be
read, and there is more than one core, other processes read them.
"""

import os
import stat
from collections.abc import Callable, Iterator
from itertools import chain, islice

from msgspec import Struct

from dcmsync.contract import Catalogue, Holding, Stamp
from dcmsync.endpoints.folder.examination import ReadWhole, examine, read_again
from dcmsync.endpoints.folder.readers import Answer, cores, examine_here, examine_there
from dcmsync.endpoints.folder.scan import Skip
from dcmsync.endpoints.folder.stamp import stamp_from
from dcmsync.endpoints.folder.tree import compared, ignore
from dcmsync.errors import LocalTrouble

BATCH_FILES = 500
FEW_FILES = 2000  # up to this many are read here: starting a reader takes as long as examining 1,500 files

_MAX_ROUNDS = 4  # a catalogue can lose what it has twice


class Stock(Struct, frozen=True, kw_only=True):
    """What taking stock came to: files met, files read, files that are no more."""

    files: int = 0
    read: int = 0
    gone: int = 0


def take_stock(
    root: str,
    catalogue: Catalogue,
    *,
    skipped: Skip = ignore,
    read_whole: ReadWhole | None = None,
    anew: bool = False,
) -> Stock:
    """Brings the catalogue up to date with the folder. A folder that is not there holds nothing.

    `skipped` hears of links and of what cannot be read; sockets, devices and FIFOs, files that vanish meanwhile, and
    our own staging folders are passed by in silence. With `read_whole` every octet of every file is read, and a file
    whose digest is not the recorded one though its stamp is becomes "rotten"; with `anew` every file is examined.
    Raises LocalTrouble when the folder itself cannot be read, or nothing can be remembered.
    """
    for _ in range(_MAX_ROUNDS):
        stock = _Taking(root, catalogue, skipped, read_whole, anew=anew).take()
        if not catalogue.has_lost:
            return stock
    raise LocalTrouble(f"what {root} holds cannot be remembered, not even for this run")


def has_rotted(root: str, catalogue: Catalogue) -> Callable[[str, str], bool]:
    """Tells of a path and a SOP Instance UID whether the file that stands there was that instance, and has rotted."""

    def judge(path: str, sop_instance_uid: str) -> bool:
        known = catalogue.at(path)
        if known is None or known.state != "rotten" or known.sop_instance_uid != sop_instance_uid:
            return False
        return known.stamp == _stamp_at(os.path.join(root, path))

    return judge


class _Taking:
    """One round through the folder."""

    def __init__(
        self, root: str, catalogue: Catalogue, skipped: Skip, read_whole: ReadWhole | None, *, anew: bool
    ) -> None:
        self._root = root
        self._catalogue = catalogue
        self._skipped = skipped
        self._read_whole = read_whole
        self._is_anew = anew or read_whole is not None
        self._files = self._read = self._gone = 0

    def take(self) -> Stock:
        """Reads what changed. Raises LocalTrouble."""
        self._catalogue.remember(self._examined(self._changed()))
        return Stock(files=self._files, read=self._read, gone=self._gone)

    def _changed(self) -> Iterator[str]:
        """The files that must be read; those that are gone are forgotten on the way."""
        gone: list[tuple[str, Stamp]] = []
        for path, stamp, held in compared(self._root, self._catalogue, self._skipped):
            if stamp is not None:
                self._files += 1
                if stamp != held or self._is_anew:
                    yield path
            elif held is not None:
                gone.append((path, held))
                if len(gone) >= BATCH_FILES:
                    self._forget(gone)
        self._forget(gone)

    def _forget(self, gone: list[tuple[str, Stamp]]) -> None:
        """Forgets what is gone, unless it has come back as it was; empties the list."""
        certain = [path for path, stamp in gone if _stamp_at(os.path.join(self._root, path)) != stamp]
        gone.clear()
        self._gone += len(certain)
        if certain:
            self._catalogue.forget(certain)

    def _examined(self, paths: Iterator[str]) -> Iterator[Holding]:
        for path, holding, why in self._answers(paths):
            if why:
                self._skipped(path, why)
            if holding is None:
                self._catalogue.forget([path])
            else:
                self._read += 1
                yield holding

    def _answers(self, paths: Iterator[str]) -> Iterator[Answer]:
        if self._read_whole is not None:
            return examine_here(self._root, paths, self._read_again)
        first = list(islice(paths, FEW_FILES))
        if len(first) < FEW_FILES or cores() == 1:
            return examine_here(self._root, chain(first, paths), examine)
        return examine_there(self._root, chain(first, paths), readers=cores())

    def _read_again(self, root: str, path: str) -> Holding | None:
        assert self._read_whole is not None
        return read_again(root, path, self._catalogue.at(path), self._read_whole)


def _stamp_at(path: str) -> Stamp | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return stamp_from(status) if stat.S_ISREG(status.st_mode) else None
