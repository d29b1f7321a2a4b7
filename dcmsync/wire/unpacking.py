"""The octets of one member of a zip archive, held against what the archive says of them.

Owns inflating in bounded memory, and the proof at the end: as many octets as were said, no more behind them, and the
CRC. Refuses to believe a size: it says when to stop, never how much to hold.
"""

import zlib

from dcmsync.wire.archive import STORED, Damaged, Entry
from dcmsync.wire.source import Distant

PIECE_OCTETS = 256 << 10


class Unpacking:
    """Reads a member once, forward. Its data begins at `begin` of `source`."""

    def __init__(self, source: Distant, entry: Entry, begin: int) -> None:
        self._source = source
        self._entry = entry
        self._at = begin
        self._end = begin + entry.packed
        self._inflating = None if entry.method == STORED else zlib.decompressobj(-zlib.MAX_WBITS)
        self._left = entry.size
        self._crc = 0
        self._is_proven = False

    def read(self, most: int = PIECE_OCTETS) -> bytes:
        """The next octets, at most `most`; none when all have come, and are proven. Raises Damaged."""
        octets = self._next(min(most, self._left)) if self._left else b""
        self._crc = zlib.crc32(octets, self._crc)
        self._left -= len(octets)
        if not self._left and not self._is_proven:
            self._prove()
        return octets

    def read_all(self) -> bytes:
        """All that is left, proven. Raises Damaged."""
        pieces = [self.read()]
        while self._left:
            pieces.append(self.read())
        return b"".join(pieces)

    def _next(self, most: int) -> bytes:
        """At least one octet, and at most `most`. Raises Damaged."""
        octets = b""
        while not octets:
            if self._inflating is None:
                octets = self._packed(most)
                has_ended = not octets
            else:
                octets = self._inflate(self._inflating.unconsumed_tail or self._packed(PIECE_OCTETS), most)
                has_ended = self._inflating.eof or (self._at >= self._end and not self._inflating.unconsumed_tail)
            if has_ended and not octets:
                raise Damaged("it ends before it has as many octets as it says")
        return octets

    def _packed(self, most: int) -> bytes:
        wanted = min(most, self._end - self._at)
        octets = self._source.read_at(self._at, wanted) if wanted else b""
        if len(octets) < wanted:
            raise Damaged("the archive ends within it")
        self._at += wanted
        return octets

    def _inflate(self, packed: bytes, most: int) -> bytes:
        assert self._inflating is not None
        try:
            return self._inflating.decompress(packed, most)
        except zlib.error as trouble:
            raise Damaged("it is not compressed as it says") from trouble

    def _prove(self) -> None:
        """What must hold behind the last octet. Raises Damaged."""
        if self._inflating is not None:
            while not self._inflating.eof:  # the last block may end, or an empty one stand, behind the last octet
                packed = self._inflating.unconsumed_tail or self._packed(PIECE_OCTETS)
                if self._inflate(packed, 1):
                    raise Damaged("it inflates to more octets than it says")
                if not packed:
                    raise Damaged("its compressed data is cut")
        if self._at != self._end or (self._inflating is not None and self._inflating.unused_data):
            raise Damaged("something stands behind its data")
        if self._crc != self._entry.crc:
            raise Damaged("its CRC is wrong: it was damaged after it was packed")
        self._is_proven = True


class Unpacked:
    """A member as a source for a walk: reads forward, and begins anew when it is asked to go back."""

    def __init__(self, source: Distant, entry: Entry, begin: int) -> None:
        self._source = source
        self._entry = entry
        self._begin = begin
        self._stream = Unpacking(source, entry, begin)
        self._octets = b""
        self._base = 0

    def distant(self) -> Distant:
        """The source."""
        return Distant(self.read_at, self._entry.size)

    def read_at(self, offset: int, length: int) -> bytes:
        """At most `length` octets at `offset`. Raises Damaged."""
        if offset < self._base:
            self._stream = Unpacking(self._source, self._entry, self._begin)
            self._octets, self._base = b"", 0
        while self._base + len(self._octets) <= offset and self._advance():
            pass
        octets = self._octets[offset - self._base :]
        self._octets, self._base = octets, offset
        while len(self._octets) < length and self._advance_keeping():
            pass
        return self._octets[:length]

    def _advance(self) -> bool:
        """Replaces what is held by what follows it; false at the end."""
        octets = self._stream.read()
        self._base += len(self._octets)
        self._octets = octets
        return bool(octets)

    def _advance_keeping(self) -> bool:
        octets = self._stream.read()
        self._octets += octets
        return bool(octets)
