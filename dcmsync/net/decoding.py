"""Content-Encoding: the octets behind gzip (RFC 9110 §8.4, RFC 1952), as they come, in pieces of bounded size.

Owns that a bomb fills no memory: what it makes comes out piece by piece, and whoever takes it has a limit. Refuses
every encoding that was not asked for.
"""

import zlib
from collections.abc import Iterator

from dcmsync.errors import RemoteProtocolError

ACCEPTED = "gzip"
PIECE_OCTETS = 1 << 18
_GZIP = 16 + zlib.MAX_WBITS


class Decoder:
    """Decodes one body. `name` is how messages call the peer."""

    def __init__(self, encoding: str, name: str) -> None:
        """Raises RemoteProtocolError for an encoding that is not accepted."""
        word = encoding.strip().lower()
        if word not in ("", "identity", "gzip", "x-gzip"):
            raise RemoteProtocolError(f"{name}: the answer is encoded as {word[:20]!r}, which was not asked for")
        self._name = name
        self._is_plain = word in ("", "identity")
        self._inflate = zlib.decompressobj(_GZIP)
        self._is_begun = False

    def feed(self, octets: bytes) -> Iterator[bytes]:
        """What the next octets stand for, PIECE_OCTETS at most at a time. Raises RemoteProtocolError."""
        if self._is_plain:
            yield octets
            return
        made = b""
        while octets or len(made) == PIECE_OCTETS:
            if self._inflate.eof:  # RFC 1952 §2.2: members may follow each other
                self._inflate = zlib.decompressobj(_GZIP)
            self._is_begun = True
            try:
                made = self._inflate.decompress(octets, PIECE_OCTETS)
            except zlib.error:
                raise RemoteProtocolError(f"{self._name}: the answer says that it is gzip, and is not") from None
            octets = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if made:
                yield made
            if self._inflate.eof and not octets:
                return

    @property
    def is_complete(self) -> bool:
        """Whether the octets may end here."""
        return self._is_plain or self._inflate.eof or not self._is_begun
