"""C-STORE, the sending side (PS3.7 §9.1.1): a data set from an open file to the socket, octet for octet.

Used on both ends: to store with a peer, and for the sub-operations of a C-GET that a peer asks of the embedded node.
Refuses to decode, to open files, and to wait for answers.
"""

import os
from collections.abc import Sequence

from dcmsync.contract import Stamp
from dcmsync.errors import LocalTrouble
from dcmsync.net.channel import Channel, Octets
from dcmsync.wire.dimse import command as commands


class Buffer:
    """What files are read into, one after the other; it grows to what is needed and is kept."""

    def __init__(self) -> None:
        self._octets = memoryview(b"")

    def of(self, octets: int) -> memoryview:
        """So many octets, of whatever content."""
        if len(self._octets) < octets:
            self._octets = memoryview(bytearray(octets))
        return self._octets[:octets]


async def send_file(
    channel: Channel,
    context_id: int,
    request: commands.Command | bytes,
    file_descriptor: int,
    offset: int,
    octets: int,
    *,
    before: Sequence[Octets] = (),
    buffer: Buffer | None = None,
    stamp: Stamp | None = None,
) -> None:
    """A C-STORE request with its data set read from an open file; command and first octets in one write.

    `before`: what goes out ahead of it, in that same write. Memory is one chunk. Raises LocalTrouble when the file
    ends early, or is no longer as `stamp` says once it has been read to its end: before its last octets go out, so
    that no mixture ever arrives. If half an instance was sent by then, the association is aborted.
    """
    chunk = (buffer or Buffer()).of(min(channel.chunk_octets, octets))
    position, end = offset, offset + octets
    first = True
    while position < end or first:
        part = chunk[: min(len(chunk), end - position)]
        is_whole = _read(file_descriptor, part, position)
        position += len(part)
        if not is_whole or (position >= end and stamp is not None and not _is_as(file_descriptor, stamp)):
            if not first:
                await channel.abort()
            raise LocalTrouble("a file changed while it was sent", advice="Run the same command again")
        if first:
            pieces = channel.pieces(context_id, request, (part,), is_last=position >= end)
            await channel.stream.send([*before, *pieces] if before else pieces, is_payload=True)
            first = False
        else:
            await channel.say_more(context_id, part, is_last=position >= end)


def _read(file_descriptor: int, part: memoryview, position: int) -> bool:
    """Fills `part` from the file; false when the file ends before."""
    filled = 0
    while filled < len(part):
        count = os.preadv(file_descriptor, [part[filled:] if filled else part], position + filled)
        if not count:
            return False
        filled += count
    return True


def _is_as(file_descriptor: int, stamp: Stamp) -> bool:
    status = os.fstat(file_descriptor)
    return status.st_mtime_ns == stamp.mtime_ns and status.st_size == stamp.size
