"""The two digests of an instance: the door to xxhash.

Both are XXH3-128, written `xxh3:` and 32 hexadecimal digits. That of a file is over every octet as it stands; that of
its content over the data set in its normal form (`wire.content`; dcmsync-records(5), DIGESTS). Owns computing both in
one pass over the disk. Refuses to say what follows from them.
"""

import os

from msgspec import Struct
from xxhash import xxh3_64_intdigest, xxh3_128

from dcmsync.wire.content import CHUNK_OCTETS, write_beginning, write_normal_form
from dcmsync.wire.elements import Walk
from dcmsync.wire.part10 import Head, walk_file
from dcmsync.wire.source import Distant, Source

hasher = xxh3_128
"""Makes a running digest: `update(octets)`, `hexdigest()`."""

_CHECKSUM_BITS = (1 << 63) - 1  # what SQLite holds as an integer


def checksum(octets: bytes) -> int:
    """XXH3-64 without its highest bit: tells damage, and protects from nobody."""
    return xxh3_64_intdigest(octets) & _CHECKSUM_BITS


class Reading(Struct, frozen=True, kw_only=True):
    """What reading a whole file tells. `content` is "" where its data set is not whole; `walk` says why."""

    digest: str
    content: str
    head: Head
    walk: Walk


def content_of(source: Source, transfer_syntax_uid: str, offset: int) -> str:
    """The digest of the content of the data set that begins at `offset`; "" where that is not whole."""
    digest = hasher()
    return digest.hexdigest() if write_normal_form(source, transfer_syntax_uid, digest.update, offset=offset) else ""


class Ahead:
    """The digest of the content of a data set that still arrives, computed as it does."""

    def __init__(self, digest: xxh3_128, end: int) -> None:
        """`digest` is of the first octets, and those that come go into it, up to `end`."""
        self.update = digest.update
        self._digest = digest
        self._end = end

    def finish(self, size: int) -> str:
        """The digest, of a data set of `size` octets; "" where it does not end with the value that it began in."""
        return self._digest.hexdigest() if size == self._end else ""


def ahead(beginning: bytes, transfer_syntax_uid: str) -> Ahead | None:
    """Begins with the first octets of a data set; None where the digest can be told of a whole one only."""
    digest = hasher()
    end = write_beginning(beginning, transfer_syntax_uid, digest.update)
    return Ahead(digest, end) if end else None


def read_whole(descriptor: int, size: int, *, wanted: frozenset[int] = frozenset()) -> Reading:
    """Both digests of an open file, and its walk with the values of `wanted`. Raises OSError.

    Every octet is read from the disk once, from the first to the last. What is read again comes from the page cache:
    headers, in files beyond a chunk; values beyond a chunk that begin as sequences do in implicit VR; and deflated data
    sets, which are inflated more than once.
    """
    once = _Once(descriptor, size)
    source: Source = once.read_at(0, size) if size <= CHUNK_OCTETS else Distant(once.read_at, size)
    head, walk = walk_file(source if isinstance(source, bytes) else Distant(once.read_again, size), wanted=wanted)
    content = content_of(source, head.transfer_syntax_uid, head.data_set_offset) if walk.is_whole else ""
    return Reading(digest=once.finish(), content=content, head=head, walk=walk)


class _Once:
    """Reads a file forward, no more than a chunk at once, hashes what it reads, and keeps the last two pieces."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._hash = hasher()
        self._base = 0
        self._earlier = b""
        self._latest = b""

    def read_at(self, offset: int, length: int) -> bytes:
        """At most `length` octets, no more than a chunk, at `offset`. Raises OSError."""
        while (lacking := offset + length - self._base - len(self._earlier) - len(self._latest)) > 0:
            if not self._next(min(lacking, CHUNK_OCTETS)):
                break
        begin = offset - self._base
        if begin < 0:
            return self.read_again(offset, length)
        middle = len(self._earlier)
        if begin >= middle:
            return self._latest[begin - middle : begin - middle + length]
        return self._earlier[begin : begin + length] + self._latest[: max(begin + length - middle, 0)]

    def read_again(self, offset: int, length: int) -> bytes:
        """At most `length` octets at `offset`, which are not hashed. Raises OSError."""
        return os.pread(self._descriptor, max(min(length, self._size - offset), 0), offset)

    def finish(self) -> str:
        """The digest, after what is left. Raises OSError."""
        while self._next(CHUNK_OCTETS):
            pass
        return self._hash.hexdigest()

    def _next(self, length: int) -> bool:
        """Reads and hashes what comes next; false at the end."""
        offset = self._base + len(self._earlier) + len(self._latest)
        octets = self.read_again(offset, length)
        self._hash.update(octets)
        if octets:
            self._base, self._earlier, self._latest = self._base + len(self._earlier), self._latest, octets
        return bool(octets)
