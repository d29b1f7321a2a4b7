"""What a folder holds: every regular file below it, walked from its first octet to its last.

Owns finding files and saying of each whether it is a whole instance. Refuses to write, to follow links, to open what is
no regular file, and to remember anything between two scans.
"""

import os
import stat
from collections.abc import Callable, Iterator

from msgspec import Struct

from dcmsync.wire.arrived import IDENTITY, SERIES_INSTANCE_UID, SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from dcmsync.wire.elements import State
from dcmsync.wire.part10 import text, walk_file
from dcmsync.wire.source import WINDOW_OCTETS, Distant, Source, Values

OWN_PREFIX = ".dcmsync-"  # names that are ours: staging folders
A_LINK = "a symbolic link"  # why links are passed by

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

Skip = Callable[[str, str], None]
"""Told the path and why, for what a scan passes by though it may be meant to be read."""


class Found(Struct, frozen=True, kw_only=True):
    """One regular file. `path` is relative to the root; names that are no UTF-8 carry surrogates (PEP 383).

    UIDs are those of the data set, or "" where it has none; `values` are raw, by tag. `reason` says why `state` is not
    "whole". `head_sop_instance_uid` is what group 0002 claims. `data_set_offset` is in octets from the file's start.
    """

    path: str
    size: int
    mtime_ns: int
    device: int
    inode: int
    state: State
    reason: str
    offset: int
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    encoding: str
    values: Values

    @property
    def is_instance(self) -> bool:
        """Whether it is a whole data set that says which instance it is."""
        return self.state == "whole" and bool(self.sop_instance_uid)


def scan(root: str, *, wanted: frozenset[int] = frozenset(), skipped: Skip = lambda path, why: None) -> Iterator[Found]:
    """Every regular file below `root`, folder by folder, in the order of names.

    `skipped` hears of links and of what may not be read; sockets, devices and FIFOs, files that vanish meanwhile, and
    our own staging folders are passed by in silence. Raises OSError when `root` itself cannot be read.
    """
    for path in walk_tree(root, skipped=skipped):
        try:
            found = examine(root, path, wanted=wanted)
        except OSError as trouble:
            skipped(path, trouble.strerror or "unreadable")
            continue
        if found is not None:
            yield found


def walk_tree(root: str, *, skipped: Skip = lambda path, why: None) -> Iterator[str]:
    """The relative paths of the regular files below `root`, as `scan` meets them. Raises OSError for `root` itself."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(os.path.join(root, folder) if folder else root) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            if not folder:
                raise
            continue
        except OSError as trouble:
            if not folder:
                raise
            skipped(folder, trouble.strerror or "unreadable")
            continue
        folders = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_symlink():
                skipped(path, A_LINK)
            elif entry.name.startswith(OWN_PREFIX):
                continue
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path
        waiting.extend(reversed(folders))


def examine(root: str, path: str, *, wanted: frozenset[int] = frozenset()) -> Found | None:
    """One file; None when it is gone, or no regular file any more. Raises OSError when it cannot be read."""
    # hot: 38 µs for a 9 kB MR of 73 elements in the page cache, where pydicom takes 307 µs
    # (2 shared cores, CPython 3.11, 2026-11)
    try:
        descriptor = os.open(os.path.join(root, path), _OPEN)
    except FileNotFoundError:
        return None
    try:
        return examine_open(descriptor, path, wanted=wanted)
    finally:
        os.close(descriptor)


def examine_open(descriptor: int, path: str, *, wanted: frozenset[int] = frozenset()) -> Found | None:
    """The file that is open; None when it is no regular one. Raises OSError when it cannot be read."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    return _found(path, status, source_of(descriptor, status.st_size), wanted)


def source_of(descriptor: int, size: int) -> Source:
    """The octets of an open file: read at once when they fit a window, else from wherever they are wanted."""
    head = os.pread(descriptor, WINDOW_OCTETS, 0)
    if size <= len(head):
        return head

    def read_at(offset: int, length: int) -> bytes:
        if offset + length <= len(head):
            return head[offset : offset + length]
        return os.pread(descriptor, length, offset)

    return Distant(read_at, size)


def present(
    root: str, *, wanted: frozenset[int] = frozenset(), skipped: Skip = lambda path, why: None
) -> dict[str, Found]:
    """The whole instances below `root` by SOP Instance UID; the first in the order of names, where one is there twice.

    A folder that is not there holds nothing.
    """
    held: dict[str, Found] = {}
    if not os.path.isdir(root):
        return held
    for found in scan(root, wanted=wanted, skipped=skipped):
        if found.is_instance:
            held.setdefault(found.sop_instance_uid, found)
    return held


def _found(path: str, status: os.stat_result, source: Source, wanted: frozenset[int]) -> Found:
    head, walk = walk_file(source, wanted=wanted | IDENTITY)
    values = walk.values

    def uid(tag: int) -> str:
        return text(values[tag][1]) if tag in values else ""

    return Found(
        path=path,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        device=status.st_dev,
        inode=status.st_ino,
        state=walk.state,
        reason=walk.reason,
        offset=walk.offset,
        sop_class_uid=uid(SOP_CLASS_UID),
        sop_instance_uid=uid(SOP_INSTANCE_UID),
        series_uid=uid(SERIES_INSTANCE_UID),
        study_uid=uid(STUDY_INSTANCE_UID),
        transfer_syntax_uid=head.transfer_syntax_uid,
        data_set_offset=head.data_set_offset,
        encoding=walk.encoding,
        values=values,
    )
