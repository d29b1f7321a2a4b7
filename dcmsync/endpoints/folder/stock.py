"""What a folder holds as of now: its catalogue, brought up to date by reading what changed and nothing else.

Owns going through the tree, comparing it with what is remembered, and deciding who reads. Refuses to follow links, and
to say what a file is.

Theory of operation. Tree and catalogue are both gone through in the order of the octets of their paths, so that
neither is ever held as a whole. A file is the one that is remembered while device, inode, size and modification time
are; else it is read again. What is remembered and not met is forgotten, after one more look. Where more than a few
files are to be read, and there is more than one core, other processes read them.
"""

import os
import stat
from collections.abc import Callable, Iterator
from itertools import chain, islice
from operator import itemgetter

from msgspec import Struct

from dcmsync.contract import Catalogue, Holding, Stamp
from dcmsync.endpoints.folder.examination import ReadWhole, examine, read_again
from dcmsync.endpoints.folder.readers import Answer, cores, examine_here, examine_there
from dcmsync.endpoints.folder.scan import A_LINK, OWN_PREFIX, Skip
from dcmsync.endpoints.folder.stamp import stamp_from
from dcmsync.errors import LocalTrouble

BATCH_FILES = 500
FEW_FILES = 2000  # up to this many are read here: starting a reader takes as long as examining 1,500 files

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_ROUNDS = 4  # a catalogue can lose what it has twice


class Stock(Struct, frozen=True, kw_only=True):
    """What taking stock came to: files met, files read, files that are no more."""

    files: int = 0
    read: int = 0
    gone: int = 0


def ignore(path: str, why: str) -> None:
    """Does nothing about what is passed by."""


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


def forget_gone(root: str, catalogue: Catalogue) -> int:
    """Forgets the files that are no more, without reading any. Gives how many. What is no folder is left alone."""
    if not os.path.isdir(root):
        return 0
    gone = [path for path, _ in catalogue.stamps() if _stamp_at(os.path.join(root, path)) is None]
    catalogue.forget(gone)
    return len(gone)


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
        known = self._catalogue.stamps()
        held = next(known, None)
        gone: list[tuple[str, Stamp]] = []
        for path, stamp in tree(self._root, self._skipped):
            self._files += 1
            while held is not None and held[0] != path and os.fsencode(held[0]) < os.fsencode(path):
                gone.append(held)
                held = next(known, None)
            if len(gone) >= BATCH_FILES:
                self._forget(gone)
            if held is None or held[0] != path:
                yield path
                continue
            if held[1] != stamp or self._is_anew:
                yield path
            held = next(known, None)
        while held is not None:
            gone.append(held)
            if len(gone) >= BATCH_FILES:
                self._forget(gone)
            held = next(known, None)
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


def tree(root: str, skipped: Skip = ignore) -> Iterator[tuple[str, Stamp]]:
    """The regular files below `root` with their stamps, by the octets of their paths. Nothing where `root` is not.

    Raises LocalTrouble when `root` cannot be read.
    """
    try:
        waiting = [iter(_list(root, "", skipped))]
    except FileNotFoundError:
        return
    except OSError as trouble:
        raise LocalTrouble(f"{root} cannot be read: {(trouble.strerror or 'unknown error').lower()}") from trouble
    while waiting:
        for _, path, stamp in waiting[-1]:
            if stamp is None:
                try:
                    waiting.append(iter(_list(root, path, skipped)))
                except FileNotFoundError:
                    continue
                except OSError as trouble:
                    skipped(path, (trouble.strerror or "unreadable").lower())
                    continue
                break
            yield path, stamp
        else:
            waiting.pop()


def _list(root: str, folder: str, skipped: Skip) -> list[tuple[bytes, str, Stamp | None]]:
    """The files and folders of a folder, in the order of their paths' octets; folders have no stamp. Raises OSError."""
    found: list[tuple[bytes, str, Stamp | None]] = []
    descriptor = os.open(os.path.join(root, folder), _FOLDER | (os.O_NOFOLLOW if folder else 0))
    try:
        with os.scandir(descriptor) as listing:
            for entry in listing:
                if entry.name.startswith(OWN_PREFIX):  # what is being written just now
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_file(follow_symlinks=False):
                    try:
                        found.append((os.fsencode(entry.name), path, stamp_from(entry.stat(follow_symlinks=False))))
                    except FileNotFoundError:
                        pass
                elif entry.is_symlink():
                    skipped(path, A_LINK)
                elif entry.is_dir(follow_symlinks=False):
                    found.append((os.fsencode(entry.name) + b"/", path, None))
    finally:
        os.close(descriptor)
    found.sort(key=itemgetter(0))
    return found


def _stamp_at(path: str) -> Stamp | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return stamp_from(status) if stat.S_ISREG(status.st_mode) else None
