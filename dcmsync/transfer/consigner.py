"""Instances for a remote destination: from what a source gives to parcels that can be sent.

Owns the octets until a courier takes them over. A file of this machine is not read here: its descriptor is handed on,
so that it goes from the disk to the socket; its catalogue has found it whole. Octets that come otherwise stay in memory
up to KEPT_OCTETS, beyond that in a file without a name, and are judged as a whole before anything is sent. Refuses to
send, and to know what a data set is (who made it hands that in).

A second instance of one UID is never sent: it is compared with the first, of which up to FIRSTS are remembered.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Protocol

from msgspec import Struct

from dcmsync.contract import Arrival, Expected, Landed, Origin, Parcel, Sink
from dcmsync.errors import RemoteProtocolError, local_trouble
from dcmsync.transfer.contents import ContentOf

KEPT_OCTETS = 1 << 20
FIRST_LOOK_OCTETS = 64 << 10  # when an arriving instance is first looked at
FIRSTS = 10_000
_PIECE_OCTETS = 1 << 20
_CANNOT_UNDERSTAND = 0xC000  # PS3.4 Table B.2-1

ReadAt = Callable[[int, int], bytes]
"""Octets at an offset, at most so many."""


class Judge(Protocol):
    """Says of a data set that came from elsewhere whether it is whole, and what was announced."""

    def __call__(self, read_at: ReadAt, size: int, arrival: Arrival, expected: Expected) -> tuple[str, str]:
        """A word for programs, "" when nothing is wrong, and words for people."""


class Hasher(Protocol):
    """A running digest."""

    def update(self, data: memoryview | bytes | bytearray, /) -> None:
        """Takes the next octets."""

    def hexdigest(self) -> str:
        """The digest of all octets so far."""


class Settings(Struct, frozen=True, kw_only=True):
    """How to look at things. `flaw` (octets so far, how many, transfer syntax) tells why they cannot become a data set.

    `hasher` makes digests of octets as they are, `content_of` computes that of a data set. `held` gives the latter, of
    what the destination has under a UID already and is to be compared with; `hashes`: it is wanted of all that is sent.
    """

    completed: Callable[[Parcel], None]
    judge: Judge
    flaw: Callable[[ReadAt, int, str], str]
    hasher: Callable[[], Hasher]
    content_of: ContentOf
    held: Callable[[str], str] = lambda uid: ""
    hashes: bool = False


class Consigner:
    """Takes what comes for one destination (contract.Takes)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._firsts: OrderedDict[str, Arrival | str] = OrderedDict()  # by UID: its file, or the digest of its octets

    @property
    def is_made_at_once(self) -> bool:
        """Each instance has its own verdict."""
        return False

    def receive(self, arrival: Arrival, expected: Expected = Expected()) -> Sink | int:  # noqa: B008 - frozen
        """A sink; the status for an instance that does not say what it is."""
        if not (arrival.sop_class_uid and arrival.sop_instance_uid and arrival.transfer_syntax_uid):
            return _CANNOT_UNDERSTAND
        return _Consigned(self, self._settings, arrival, expected)

    def commit(self) -> None:
        """Nothing is left to do."""

    def remember(self, uid: str, first: Arrival | str) -> None:
        """What the first instance of a UID is known by."""
        self._firsts[uid] = first
        if len(self._firsts) > FIRSTS:
            self._firsts.popitem(last=False)

    def compare(self, arrival: Arrival, digest: Callable[[], str]) -> Landed:
        """The verdict on a second instance of a UID, in a worker thread."""
        first = self._firsts.get(arrival.sop_instance_uid, "")
        try:
            known = first if isinstance(first, str) else _digest_of_file(first, self._settings.hasher)
            is_same = bool(known) and known == digest()
        except OSError:
            is_same = False
        return Landed(arrival=arrival, outcome="present" if is_same else "conflict")


class _Consigned:
    """Takes one instance (contract.Sink)."""

    def __init__(self, consigner: Consigner, settings: Settings, arrival: Arrival, expected: Expected) -> None:
        self._consigner = consigner
        self._settings = settings
        self._arrival = arrival
        self._expected = expected
        self._origin: Origin | None = None
        self._memory: bytearray | None = None
        self._file: IO[bytes] | None = None
        self._hash: Hasher | None = None
        self._size = 0
        self._look_at = FIRST_LOOK_OCTETS

    def adopt(self) -> bool:
        """Takes the file itself, which need not be read here."""
        self._origin = self._arrival.origin
        return self._origin is not None

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets. Raises LocalTrouble, RemoteProtocolError; the caller then discards."""
        if self._memory is None:
            self._memory = bytearray()
            self._hash = self._settings.hasher()
        assert self._hash is not None
        for piece in pieces:
            self._hash.update(piece)
            self._size += len(piece)
            if self._file is None:
                self._memory += piece
            else:
                self._append(self._file, piece)
        if self._file is None and self._size > KEPT_OCTETS:
            try:
                self._file = TemporaryFile()  # noqa: SIM115  # `finish` or `discard` ends it
            except OSError as trouble:
                raise local_trouble(trouble) from trouble
            self._append(self._file, memoryview(self._memory))
            self._memory = bytearray()
        if self._size >= self._look_at:
            self._look_at = 4 * self._size
            words = self._settings.flaw(self._read_at, self._size, self._arrival.transfer_syntax_uid)
            if words:
                raise RemoteProtocolError(f"sent octets that are no data set: {words}")

    def finish(self) -> int:
        """Hands the parcel over. Gives 0: what becomes of it shows when it is sent."""
        try:
            self._settings.completed(self._adopted(self._origin) if self._origin is not None else self._gathered())
        except OSError as trouble:
            raise local_trouble(trouble) from trouble
        return 0

    def discard(self, why: str) -> None:
        """Lets go of everything. Idempotent."""
        self._memory = None
        if self._file is not None:
            self._file.close()

    def _adopted(self, origin: Origin) -> Parcel:
        """The file that it is, under a descriptor of our own. Raises OSError."""
        arrival, settings = self._arrival, self._settings
        offset = len(origin.head)
        size = origin.stamp.size - offset
        descriptor = os.dup(origin.descriptor)
        check: Callable[[], Landed] | None = None
        if self._expected.is_second:
            digest = partial(_digest, descriptor, offset, settings.hasher)
            check = partial(self._consigner.compare, arrival, digest)
        else:
            self._consigner.remember(arrival.sop_instance_uid, arrival)
            held = settings.held(arrival.sop_instance_uid)
            if held or settings.hashes:
                check = partial(_hashed, settings, arrival, partial(_read_from, descriptor, offset), size, held)
        return Parcel(
            arrival=arrival, size=size, descriptor=descriptor, offset=offset, stamp=origin.stamp, check=check,
            is_second=self._expected.is_second,
        )  # fmt: skip

    def _gathered(self) -> Parcel:
        """What came, in memory or in a file of ours, under a descriptor that stays. Raises OSError."""
        arrival = self._arrival
        memory = (self._memory or bytearray()) if self._file is None else None
        descriptor = -1
        if self._file is not None:
            self._file.flush()
            descriptor = os.dup(self._file.fileno())
            self._file.close()
        read_at = partial(_read_memory, memory) if memory is not None else partial(_read_from, descriptor, 0)
        digest = self._hash.hexdigest() if self._hash is not None else ""
        return Parcel(
            arrival=arrival, size=self._size, memory=memory, descriptor=descriptor,
            check=partial(self._judge, read_at, digest), is_second=self._expected.is_second,
        )  # fmt: skip

    def _judge(self, read_at: ReadAt, digest: str) -> Landed:
        """Looks at all of it, in a worker thread."""
        arrival, settings = self._arrival, self._settings
        reason, words = settings.judge(read_at, self._size, arrival, self._expected)
        if reason:
            return Landed(arrival=arrival, outcome="failed", reason=reason, message=words)
        if self._expected.is_second:
            return self._consigner.compare(arrival, lambda: digest)
        self._consigner.remember(arrival.sop_instance_uid, digest)
        held = settings.held(arrival.sop_instance_uid)
        if not (held or settings.hashes):
            return Landed(arrival=arrival, outcome="stored", size=self._size)
        return _hashed(settings, arrival, read_at, self._size, held)

    def _append(self, file: IO[bytes], piece: memoryview) -> None:
        try:
            file.write(piece)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble

    def _read_at(self, offset: int, length: int) -> bytes:
        if self._file is None:
            return _read_memory(self._memory or bytearray(), offset, length)
        self._file.flush()
        return os.pread(self._file.fileno(), length, offset)


def _hashed(settings: Settings, arrival: Arrival, read_at: ReadAt, size: int, held: str) -> Landed:
    """The verdict with the digest of the content; nothing is sent that the destination has just so, or otherwise."""
    try:
        content = settings.content_of(read_at, size, arrival.transfer_syntax_uid)
    except OSError:
        content = ""
    if held and content == held:
        return Landed(arrival=arrival, outcome="present", size=size, content=content)
    if held:
        words = "the destination holds other content under this UID; --force sends it all the same"
        return Landed(arrival=arrival, outcome="conflict", reason="differs", message=words)
    return Landed(arrival=arrival, outcome="stored", size=size, content=content)


def _read_memory(memory: bytearray, offset: int, length: int) -> bytes:
    return bytes(memory[offset : offset + length])


def _read_from(descriptor: int, start: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, start + offset)


def _digest(descriptor: int, offset: int, hasher: Callable[[], Hasher]) -> str:
    """The digest of a file's octets from an offset on. Raises OSError."""
    running = hasher()
    while piece := os.pread(descriptor, _PIECE_OCTETS, offset):
        running.update(piece)
        offset += len(piece)
    return running.hexdigest()


def _digest_of_file(first: Arrival, hasher: Callable[[], Hasher]) -> str:
    """The digest of the data set of a file that was sent; "" when it is no longer that file. Raises OSError."""
    assert first.origin is not None
    origin = first.origin
    descriptor = os.open(origin.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        known = origin.stamp
        if (status.st_dev, status.st_ino, status.st_size) != (known.device, known.inode, known.size):
            return ""
        return _digest(descriptor, len(origin.head), hasher)
    finally:
        os.close(descriptor)
