"""What a folder holds as of now: its catalogue, brought up to date by reading what changed and nothing else.

Owns comparing the tree with what is remembered of it, and what is to be remembered of a file. Refuses to follow links,
to open what is no regular file, and to believe a stamp that a later change might leave as it is.

Theory of operation. Tree and catalogue are both gone through in the order of the octets of their paths, so that
neither is ever held as a whole. A file is the one that is remembered while device, inode, size and modification time
are; else it is read again. What is remembered and not met is forgotten, after one more look.

A clock ticks: what changes a file within the tick in which it was read leaves its time as it was (git calls such files
racy). A file that young is remembered with a time that no file has, so that the next run reads it once more.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from dcmsync.contract import Catalogue, Holding, Stamp
from dcmsync.endpoints.folder.scan import (
    A_LINK,
    IDENTITY,
    OWN_PREFIX,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Skip,
    source_of,
)
from dcmsync.errors import LocalTrouble
from dcmsync.wire import kept
from dcmsync.wire.elements import Walk
from dcmsync.wire.part10 import Head, text, walk_file

BATCH_FILES = 500
TICK_NS = 20_000_000  # no kernel's clock for files ticks slower than 100 times a second
COARSE_TICK_NS = 2_000_000_000  # FAT; a file system that counts seconds shows it by times without a fraction
NO_TIME_NS = -(1 << 63)
ROTTEN = "its octets changed, and its size and time did not"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WANTED = kept.TAGS | IDENTITY
_MAX_ROUNDS = 4  # a catalogue can lose what it has twice


class Reading(Protocol):
    """What reading every octet of a file tells; `content` is "" where its data set is not whole."""

    @property
    def digest(self) -> str: ...
    @property
    def content(self) -> str: ...
    @property
    def head(self) -> Head: ...
    @property
    def walk(self) -> Walk: ...


class ReadWhole(Protocol):
    """Reads an open file of a size to its end. Raises OSError."""

    def __call__(self, descriptor: int, size: int, *, wanted: frozenset[int]) -> Reading: ...


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

    def _examined(self, paths: Iterable[str]) -> Iterator[Holding]:
        for path in paths:
            try:
                holding = self._examine(path)
            except OSError as trouble:
                self._skipped(path, (trouble.strerror or "unreadable").lower())
                holding = None
            if holding is None:
                self._catalogue.forget([path])
            else:
                self._read += 1
                yield holding

    def _examine(self, path: str) -> Holding | None:
        if self._read_whole is None:
            return examine(self._root, path)
        return read_again(self._root, path, self._catalogue.at(path), self._read_whole)


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


def examine(root: str, path: str) -> Holding | None:
    """One file by its headers; None when it is gone, or no regular file. Raises OSError."""
    opened = _open(root, path)
    if opened is None:
        return None
    descriptor, status, now_ns = opened
    try:
        head, found = walk_file(source_of(descriptor, status.st_size), wanted=_WANTED)
    finally:
        os.close(descriptor)
    return believable(_holding(path, status, head, found), now_ns)


def read_again(root: str, path: str, known: Holding | None, read_whole: ReadWhole) -> Holding | None:
    """One file with every octet of it read; None when it is gone, or no regular file. Raises OSError.

    It is "rotten" when it is not what is `known` of it by its digest, though it is by its stamp; then the digests are
    those that were known.
    """
    opened = _open(root, path)
    if opened is None:
        return None
    descriptor, status, now_ns = opened
    try:
        reading = read_whole(descriptor, status.st_size, wanted=_WANTED)
    finally:
        os.close(descriptor)
    fresh = _holding(path, status, reading.head, reading.walk)
    if known is not None and known.stamp == fresh.stamp and known.digest and known.digest != reading.digest:
        return replace(known, state="rotten", reason=ROTTEN, read_ns=now_ns)
    return believable(replace(fresh, digest=reading.digest, content=reading.content, read_ns=now_ns), now_ns)


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return Stamp(
        size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino
    )


def believable(holding: Holding, read_at_ns: int) -> Holding:
    """What may be remembered of a file that was opened at that moment (ns since 1970)."""
    modified_ns = holding.stamp.mtime_ns
    tick_ns = COARSE_TICK_NS if modified_ns % 1_000_000_000 == 0 else TICK_NS
    if modified_ns < read_at_ns - tick_ns:
        return holding
    return replace(holding, stamp=replace(holding.stamp, mtime_ns=NO_TIME_NS))


def _list(root: str, folder: str, skipped: Skip) -> list[tuple[bytes, str, Stamp | None]]:
    """The files and folders of a folder, in the order of their paths' octets; folders have no stamp. Raises OSError."""
    found: list[tuple[bytes, str, Stamp | None]] = []
    descriptor = os.open(os.path.join(root, folder), _FOLDER | (os.O_NOFOLLOW if folder else 0))
    try:
        with os.scandir(descriptor) as listing:
            for entry in listing:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_file(follow_symlinks=False):
                    try:
                        found.append((os.fsencode(entry.name), path, stamp_of(entry.stat(follow_symlinks=False))))
                    except FileNotFoundError:
                        pass
                elif entry.is_symlink():
                    skipped(path, A_LINK)
                elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith(OWN_PREFIX):
                    found.append((os.fsencode(entry.name) + b"/", path, None))
    finally:
        os.close(descriptor)
    found.sort(key=itemgetter(0))
    return found


def _open(root: str, path: str) -> tuple[int, os.stat_result, int] | None:
    """A regular file, open: its descriptor, its status, and the moment before. Raises OSError."""
    now_ns = time.time_ns()
    try:
        descriptor = os.open(os.path.join(root, path), _FILE)
    except FileNotFoundError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return descriptor, status, now_ns


def _holding(path: str, status: os.stat_result, head: Head, found: Walk) -> Holding:
    values = found.values

    def uid(tag: int) -> str:
        return text(values[tag][1]) if tag in values else ""

    return Holding(
        path=path,
        stamp=stamp_of(status),
        state=found.state,
        reason=found.reason,
        study_uid=uid(STUDY_INSTANCE_UID),
        series_uid=uid(SERIES_INSTANCE_UID),
        sop_instance_uid=uid(SOP_INSTANCE_UID),
        sop_class_uid=uid(SOP_CLASS_UID),
        transfer_syntax_uid=head.transfer_syntax_uid,
        data_set_offset=head.data_set_offset,
        attributes=kept.plain_values(values, found.encoding or head.transfer_syntax_uid),
    )


def _stamp_at(path: str) -> Stamp | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return stamp_of(status) if stat.S_ISREG(status.st_mode) else None
