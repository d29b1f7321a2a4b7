"""How digests of octets are computed, as told to who reads them: the kind is chosen elsewhere (`cache/digest.py`)."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from dcmsync.wire.source import Source


class Hasher(Protocol):
    """A running digest."""

    def update(self, data: memoryview | bytes | bytearray, /) -> None:
        """Takes the next octets."""

    def hexdigest(self) -> str:
        """The digest of all octets so far."""


class Digests(Struct, frozen=True, kw_only=True):
    """`hasher` begins a digest of all octets of a file. `content` gives that of the data set that begins at an offset
    of a source, in a transfer syntax; "" where it is not whole.
    """

    hasher: Callable[[], Hasher]
    content: Callable[[Source, str, int], str]
