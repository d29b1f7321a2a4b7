"""What comes in for a folder: the sink that takes an instance's octets, and the values before and after it lands.

Owns octets from the network until a worker takes over: in memory up to a limit, beyond it in a staging file, written
and hashed where they lie, without a copy. Refuses to choose their name, and looks at them only so far
as to end what cannot become a data set.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from dcmsync.contract import Arrival, Expected, Holding, Origin
from dcmsync.endpoints.folder.staging import Staging
from dcmsync.errors import RemoteProtocolError, local_trouble
from dcmsync.wire.arrived import flaw
from dcmsync.wire.part10 import file_meta
from dcmsync.wire.source import WINDOW_OCTETS, Distant, Source, Values

FIRST_LOOK_OCTETS = 64 << 10  # when an arriving instance is first looked at
MEMORY_OCTETS = 128 << 10  # an instance up to this size stays in memory until it lands
PIECES_AT_ONCE = 1000  # below IOV_MAX (1024) of Linux and macOS

Transfer = Literal["copy", "link", "symlink"]
"""How a file of this machine comes to stand in a folder: as a copy, as a hard link, or as a symbolic link."""


class Hasher(Protocol):
    """What xxh3_128 gives."""

    def update(self, data: memoryview | bytes | bytearray, /) -> None:
        """Takes the next octets."""

    def hexdigest(self) -> str:
        """The digest of all octets so far."""


class Ahead(Protocol):
    """A digest of content that is computed while it arrives."""

    def update(self, data: memoryview | bytes | bytearray, /) -> None:
        """Takes the next octets."""

    def finish(self, size: int) -> str:
        """The digest of the content of so many octets, "" where it cannot be told."""


class Job(Struct, frozen=True, kw_only=True):
    """An instance that has arrived completely. Its data set is in `memory`, or behind `head` in the staging file.

    With an `origin` nothing was written: all of it, head included, is still in that file.
    """

    arrival: Arrival
    expected: Expected
    size: int  # octets of the data set
    head: bytes  # preamble, prefix and group 0002
    memory: bytearray | None
    staged: str = ""
    descriptor: int = -1
    file_digest: str = ""
    content: str = ""  # its digest, where it was computed on the way
    origin: Origin | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """How a destination is written."""

    place: Callable[[Values, Arrival], str]  # raw values of `wanted` -> relative POSIX path; raises nothing
    wanted: frozenset[int]  # what `place` needs
    hasher: Callable[[], Hasher]
    completed: Callable[[Job], None]
    content: Callable[[Source, str, int], str] | None = None  # source, transfer syntax UID, offset -> content digest
    ahead: Callable[[bytes, str], Ahead | None] | None = None  # first octets, transfer syntax UID -> for the rest
    remember: Callable[[Iterable[Holding]], None] | None = None  # told of what was stored, before anybody else
    may_replace: Callable[[str, str], bool] | None = None  # path, SOP Instance UID -> it is there, and has rotted
    force: bool = False
    transfer: Transfer = "copy"
    memory_octets: int = MEMORY_OCTETS
    file_mode: int = 0o600
    folder_mode: int = 0o700


class Sink:
    """Takes one instance's data set (contract.Sink)."""

    def __init__(self, arrival: Arrival, expected: Expected, staging: Staging, settings: Settings) -> None:
        self._arrival = arrival
        self._expected = expected
        self._staging = staging
        self._settings = settings
        self._memory: bytearray | None = bytearray()
        self._head = arrival.head or file_meta(
            arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid
        )
        self._origin: Origin | None = None
        self._size = 0
        self._look_at = FIRST_LOOK_OCTETS
        self._staged = ""
        self._descriptor = -1
        self._file_hash: Hasher | None = None
        self._ahead: Ahead | None = None

    def adopt(self) -> bool:
        """Leaves the octets where they are until it lands. False when the file has no head that could be kept."""
        origin = self._arrival.origin
        if origin is None or not self._arrival.head or self._arrival.head != origin.head:
            return False
        self._origin, self._memory = origin, None
        self._size = origin.stamp.size - len(origin.head)
        return True

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets. Raises LocalTrouble, RemoteProtocolError; the caller then discards."""
        if self._memory is not None:
            for piece in pieces:
                self._memory += piece
            self._size = len(self._memory)
            if self._size >= self._look_at:
                self._look(self._memory)
            if self._size <= self._settings.memory_octets:
                return
            pieces = [memoryview(self._memory)]
            self._look_ahead(pieces[0])
            self._memory = None
            self._stage()
        else:
            self._size += sum(piece.nbytes for piece in pieces)
            if self._ahead is not None:
                for piece in pieces:
                    self._ahead.update(piece)
        self._append(pieces)
        if self._size >= self._look_at:
            self._look(Distant(self._read_at, self._size))

    def finish(self) -> int:
        """Hands the job over. Gives 0: what the instance is worth shows when it lands."""
        self._settings.completed(
            Job(
                arrival=self._arrival,
                expected=self._expected,
                size=self._size,
                head=self._head,
                memory=self._memory,
                staged=self._staged,
                descriptor=self._descriptor,
                file_digest=self._file_hash.hexdigest() if self._file_hash else "",
                content=self._ahead.finish(self._size) if self._ahead else "",
                origin=self._origin,
            )
        )
        self._memory, self._descriptor, self._staged = None, -1, ""
        return 0

    def discard(self, why: str) -> None:
        """Lets go of everything; the staging file, if there is one, is removed. Idempotent."""
        self._memory = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._staging.remove(self._staged)
            self._descriptor = -1

    def _look(self, so_far: Source) -> None:
        """Refuses what cannot become a data set however much of it comes; looks again at four times the size.

        A peer that never ends an instance would else fill the disk. Raises RemoteProtocolError.
        """
        self._look_at = 4 * self._size
        found = flaw(so_far, self._arrival.transfer_syntax_uid)
        if found:
            raise RemoteProtocolError(f"sent octets that are no data set: {found}")

    def _look_ahead(self, so_far: memoryview) -> None:
        """Begins to compute the digest of the content, so that it need not be read again."""
        # hot: copies no more than malloc keeps at hand; 2,000 x 525 kB cost 1.2 s more of page faults with 128 KiB
        if self._settings.ahead is not None:
            self._ahead = self._settings.ahead(bytes(so_far[:WINDOW_OCTETS]), self._arrival.transfer_syntax_uid)
        if self._ahead is not None:
            self._ahead.update(so_far[WINDOW_OCTETS:])

    def _read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, min(length, self._size - offset), len(self._head) + offset)

    def _stage(self) -> None:
        try:
            self._staged, self._descriptor = self._staging.create()
            write_all(self._descriptor, [memoryview(self._head)])
        except OSError as trouble:
            raise local_trouble(trouble) from trouble
        self._file_hash = self._settings.hasher()
        self._file_hash.update(self._head)

    def _append(self, pieces: Sequence[memoryview]) -> None:
        assert self._file_hash is not None
        for piece in pieces:
            self._file_hash.update(piece)
        try:
            write_all(self._descriptor, pieces)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble


def write_all(descriptor: int, pieces: Sequence[memoryview]) -> None:
    """Appends the pieces where they lie, however little the kernel takes at once. Raises OSError."""
    left = [piece.cast("B") if piece.format != "B" or piece.ndim != 1 else piece for piece in pieces if piece.nbytes]
    done = 0
    while done < len(left):
        written = os.writev(descriptor, left[done : done + PIECES_AT_ONCE])
        while done < len(left) and written >= len(left[done]):
            written -= len(left[done])
            done += 1
        if written:
            left[done] = left[done][written:]
