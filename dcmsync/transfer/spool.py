"""Lines put aside until they are wanted: in memory while they are few, in an unnamed file when they are many.

A list that a node gives is read to its end at once, so that no association waits for what is done with it. What is put
aside here is gone with the process, however that ends.
"""

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

MEMORY_OCTETS = 8 << 20


class Spool:
    """Lines, in the order they came."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=MEMORY_OCTETS)  # noqa: SIM115  # closed below

    def add(self, line: bytes) -> None:
        """Puts one aside; it has no newline in it. Raises OSError when the disk for temporary files is full."""
        self._file.write(line + b"\n")

    def take(self) -> Iterator[bytes]:
        """All of them, once; nothing can be added afterwards."""
        with self._file:
            self._file.seek(0)
            for line in self._file:
                yield line.rstrip(b"\n")
