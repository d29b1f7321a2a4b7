"""The octets of a parcel as pieces of a body: head and data set, from memory or from an open file, whole or not at all.

Owns that a file which is cut, or is no longer what it was, ends the body before its last octets go out, so that no
mixture ever arrives. Refuses to frame them: a body is made of them where the protocol is known.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from dcmsync.contract import Parcel, Stamp
from dcmsync.errors import LocalTrouble
from dcmsync.wire.part10 import file_meta

PIECE_OCTETS = 256 << 10
_ALONE_OCTETS = PIECE_OCTETS // 2  # pieces from this size on are not joined with others

Piece = bytes | memoryview


def head_of(parcel: Parcel) -> bytes:
    """All octets of the file before the data set: those that it had, or new ones."""
    arrival = parcel.arrival
    return arrival.head or file_meta(arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid)


def octets_of(parcel: Parcel) -> Iterator[Piece]:
    """The data set. Raises LocalTrouble, before the last piece, when the file was cut or has changed."""
    if parcel.memory is not None:
        octets = memoryview(parcel.memory)
        for at in range(0, parcel.size, PIECE_OCTETS):
            yield octets[at : min(at + PIECE_OCTETS, parcel.size)]
        return
    at, end = parcel.offset, parcel.offset + parcel.size
    while at < end:
        try:
            piece = os.pread(parcel.descriptor, min(PIECE_OCTETS, end - at), at)
        except OSError as trouble:
            raise LocalTrouble(f"a file cannot be read: {(trouble.strerror or 'unknown error').lower()}") from trouble
        at += len(piece)
        if not piece or (at >= end and parcel.stamp is not None and not _is_as(parcel.descriptor, parcel.stamp)):
            raise LocalTrouble("a file changed while it was sent", advice="Run the same command again")
        yield piece


def read_at_of(parcel: Parcel) -> Callable[[int, int], bytes]:
    """Reads the data set: at most so many octets at an offset. What it gives raises OSError."""
    memory = parcel.memory
    if memory is not None:
        return lambda offset, length: bytes(memory[offset : offset + length])
    size, begin, descriptor = parcel.size, parcel.offset, parcel.descriptor
    return lambda offset, length: os.pread(descriptor, max(min(length, size - offset), 0), begin + offset)


async def joined(pieces: Iterable[Piece]) -> AsyncIterator[Piece]:
    """The same octets in fewer pieces: small ones are put together."""
    small: list[Piece] = []
    octets = 0
    for piece in pieces:
        if len(piece) >= _ALONE_OCTETS:
            if small:
                yield b"".join(small)
                small, octets = [], 0
            yield piece
            continue
        small.append(piece)
        octets += len(piece)
        if octets >= _ALONE_OCTETS:
            yield b"".join(small)
            small, octets = [], 0
    if small:
        yield b"".join(small)


def _is_as(descriptor: int, stamp: Stamp) -> bool:
    status = os.fstat(descriptor)
    return status.st_mtime_ns == stamp.mtime_ns and status.st_size == stamp.size
