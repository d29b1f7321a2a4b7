"""What comes in for an archive: the sink that takes an instance's octets, and the values before it lands.

Owns octets until a worker packs them: in memory up to a limit, beyond it in a file without a name beside the archive,
which ends with the process. Refuses to choose names, and to pack: an archive takes one member after the other.
"""

import errno
import os
import secrets
from collections.abc import Callable, Sequence

from msgspec import Struct

from dcmsync.contract import Arrival, Catalogue, Expected
from dcmsync.errors import RemoteProtocolError, local_trouble
from dcmsync.wire.arrived import flaw
from dcmsync.wire.digests import Hasher
from dcmsync.wire.part10 import file_meta
from dcmsync.wire.source import Distant, Source, Values

OWN_PREFIX = ".dcmsync-"  # names that are ours
FIRST_LOOK_OCTETS = 64 << 10  # when an arriving instance is first looked at
MEMORY_OCTETS = 4 << 20  # an instance up to this size stays in memory; the lander bounds all of them together

_NO_NAMELESS = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS})
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Job(Struct, frozen=True, kw_only=True):
    """An instance that has arrived completely: the whole file in `memory`, or behind `descriptor`.

    `size` counts the octets of the data set, which begins at `offset`.
    """

    arrival: Arrival
    expected: Expected
    offset: int
    size: int
    memory: bytearray | None
    descriptor: int = -1

    @property
    def source(self) -> Source:
        """All octets of the file."""
        if self.memory is not None:
            return self.memory
        return Distant(lambda offset, length: os.pread(self.descriptor, length, offset), self.offset + self.size)


class Settings(Struct, frozen=True, kw_only=True):
    """How an archive is written. `catalogue` is of that archive; what was in it before is looked up there."""

    place: Callable[[Values, Arrival], str]  # raw values of `wanted` -> relative POSIX path; raises nothing
    wanted: frozenset[int]  # what `place` needs
    hasher: Callable[[], Hasher]
    completed: Callable[[Job], None]
    catalogue: Catalogue
    content: Callable[[Source, str, int], str] | None = None  # source, transfer syntax UID, offset -> content digest
    force: bool = False
    memory_octets: int = MEMORY_OCTETS


class Sink:
    """Takes one instance's data set (contract.Sink). `folder_fd`: where a large one is put meanwhile."""

    def __init__(self, arrival: Arrival, expected: Expected, folder_fd: int, settings: Settings) -> None:
        self._arrival = arrival
        self._expected = expected
        self._folder_fd = folder_fd
        self._settings = settings
        head = arrival.head or file_meta(
            arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid
        )
        self._offset = self._size = len(head)
        self._memory: bytearray | None = bytearray(head)
        self._look_at = FIRST_LOOK_OCTETS
        self._descriptor = -1

    def adopt(self) -> bool:
        """Octets are needed."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets. Raises LocalTrouble, RemoteProtocolError; the caller then discards."""
        if self._memory is not None:
            for piece in pieces:
                self._memory += piece
            self._size = len(self._memory)
            if self._size > self._settings.memory_octets:
                self._spill(self._memory)
                self._memory = None
        else:
            for piece in pieces:
                self._append(piece)
        if self._size >= self._look_at:
            self._look()

    def finish(self) -> int:
        """Hands the job over. Gives 0: what the instance is worth shows when it lands."""
        self._settings.completed(
            Job(
                arrival=self._arrival,
                expected=self._expected,
                offset=self._offset,
                size=self._size - self._offset,
                memory=self._memory,
                descriptor=self._descriptor,
            )
        )
        self._memory, self._descriptor = None, -1
        return 0

    def discard(self, why: str) -> None:
        """Lets go of everything. Idempotent."""
        self._memory = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _look(self) -> None:
        """Refuses what cannot become a data set however much of it comes; looks again at four times the size.

        A peer that never ends an instance would else fill the disk. Raises RemoteProtocolError.
        """
        self._look_at = 4 * self._size
        so_far: Source = self._memory if self._memory is not None else Distant(self._read_at, self._size)
        found = flaw(so_far, self._arrival.transfer_syntax_uid, offset=self._offset)
        if found:
            raise RemoteProtocolError(f"sent octets that are no data set: {found}")

    def _read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def _spill(self, so_far: bytearray) -> None:
        self._size = 0
        try:
            self._descriptor = open_nameless(self._folder_fd)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble
        self._append(memoryview(so_far))

    def _append(self, piece: memoryview) -> None:
        try:
            put(self._descriptor, piece, self._size)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble
        self._size += piece.nbytes


def open_nameless(folder_fd: int) -> int:
    """A new file that nobody else can open, and that is gone when it is closed. Raises OSError."""
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder_fd)
        except OSError as trouble:
            if trouble.errno not in _NO_NAMELESS:
                raise
    name = own_name()
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder_fd)
    os.unlink(name, dir_fd=folder_fd)
    return descriptor


def own_name() -> str:
    """A new name of the kind that the next run sweeps away."""
    return f"{OWN_PREFIX}{secrets.token_hex(8)}.zip"


def put(descriptor: int, octets: memoryview | bytes | bytearray, offset: int) -> None:
    """Writes all octets at `offset`, however little the kernel takes at once. Raises OSError."""
    left = memoryview(octets)
    left = left.cast("B") if left.format != "B" or left.ndim != 1 else left
    while left.nbytes:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
