"""What is to be remembered of one file of a folder, after its headers or every octet of it were read.

Owns opening it, and the verdict that it rotted. Refuses to open what is no regular file, to follow a link in its place,
and to compute digests (whoever asks for them says how).
"""

import os
import stat
import time
from typing import Protocol

from msgspec.structs import replace

from dcmsync.contract import Holding
from dcmsync.endpoints.folder.scan import source_of
from dcmsync.endpoints.folder.stamp import believable, stamp_from
from dcmsync.wire import kept
from dcmsync.wire.arrived import IDENTITY, SERIES_INSTANCE_UID, SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from dcmsync.wire.elements import Walk
from dcmsync.wire.part10 import Head, text, walk_file

ROTTEN = "its octets changed, and its size and time did not"

_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WANTED = kept.TAGS | IDENTITY


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
        stamp=stamp_from(status),
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
