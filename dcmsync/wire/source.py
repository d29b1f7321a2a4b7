"""Where octets come from: memory, a callable that fetches them, or a deflated stream; and the window upon them.

Owns that memory stays bounded whatever the source is or claims. Refuses to know what the octets mean.
"""

import zlib
from collections.abc import Callable
from mmap import mmap

from msgspec import Struct

WINDOW_OCTETS = 64 << 10
PEEK_OCTETS = 4 << 10  # the window after a jump, when what follows is unlikely to be all wanted
MIN_HEADER_OCTETS = 8
MAX_VALUE_OCTETS = 64 << 10  # a wanted value longer than this is left out
MAX_INFLATED_OCTETS = 256 << 20

Memory = bytes | bytearray | memoryview | mmap
Values = dict[int, tuple[str, bytes]]
"""Tag -> (VR, raw octets); the VR is "" where the encoding doesn't tell it."""


class Distant(Struct, frozen=True):
    """Octets that stay where they are: `read_at(offset, length)` gives at most `length` of the `size` octets."""

    read_at: Callable[[int, int], bytes]
    size: int


Source = Memory | Distant


class Window:
    """The part of a source that is in memory: `octets`, beginning at `base` of it. `end` is where the source ends."""

    __slots__ = ("_read_at", "base", "end", "octets", "source")

    def __init__(self, source: Source, offset: int) -> None:
        self.source = source
        self._read_at: Callable[[int, int], bytes] | None = None
        self.base = 0
        if isinstance(source, Distant):
            self._read_at = source.read_at
            self.end = source.size
            self.octets: Memory = b""
            self._load(offset, WINDOW_OCTETS)
        else:
            self.end = len(source)
            self.octets = source

    def move(self, offset: int) -> bool:
        """Makes room for the header at `offset`, for which the window is too short; false when there is none."""
        if self._read_at is None or offset == self.base or self.end - offset < MIN_HEADER_OCTETS:
            return False
        self._load(offset, WINDOW_OCTETS if offset <= self.base + len(self.octets) else PEEK_OCTETS)
        return True

    def peek(self, offset: int, length: int) -> bytes:
        """At most `length` octets at `offset`, which the window holds."""
        begin = offset - self.base
        return bytes(self.octets[begin : begin + length])

    def take(self, tag: int, vr: str, start: int, length: int, values: Values) -> None:
        """Adds a wanted value to `values`, unless it is too long to be one."""
        if length > MAX_VALUE_OCTETS:
            return
        begin = start - self.base
        if begin + length <= len(self.octets):
            values[tag] = vr, bytes(self.octets[begin : begin + length])
        elif self._read_at is not None:
            values[tag] = vr, self._read_at(start, length)

    def _load(self, offset: int, length: int) -> None:
        assert self._read_at is not None
        self.octets = self._read_at(offset, max(min(length, self.end - offset), 0))
        self.base = offset


class Inflating:
    """Reads forward through a deflated stream: no offset asked for may lie before the one asked for last."""

    def __init__(self, source: Source, offset: int) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._source = source
        self._taken = offset
        self._octets = b""
        self._base = 0

    @property
    def is_complete(self) -> bool:
        """Whether the final block has been seen."""
        return self._stream.eof

    def read_at(self, offset: int, length: int) -> bytes:
        """At most `length` inflated octets from `offset` on; fewer only where the stream ends. Raises zlib.error."""
        kept = bytearray()
        while True:
            kept += self._octets[max(offset - self._base, 0) :]
            if len(kept) >= length or not self._next():
                break
        self._octets, self._base = bytes(kept), offset
        return self._octets[:length]

    def measure(self) -> int:
        """The number of octets up to the end, or more than the limit when there are more. Raises zlib.error."""
        while self._base + len(self._octets) <= MAX_INFLATED_OCTETS and self._next():
            pass
        return self._base + len(self._octets)

    def _next(self) -> bool:
        """Replaces what is held by the octets after it, at most a window of them; false at the end."""
        inflated = b""
        while not inflated and not self._stream.eof:
            deflated = self._stream.unconsumed_tail or self._read()
            inflated = self._stream.decompress(deflated, WINDOW_OCTETS)
            if not deflated:
                break
        self._base += len(self._octets)
        self._octets = inflated
        return bool(inflated)

    def _read(self) -> bytes:
        taken = self._taken
        self._taken += WINDOW_OCTETS
        if isinstance(self._source, Distant):
            return self._source.read_at(taken, WINDOW_OCTETS)
        return bytes(self._source[taken : taken + WINDOW_OCTETS])
