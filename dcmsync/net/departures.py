"""C-STORE, the sending side (PS3.7 §9.1.1): a data set from an open file to the socket, octet for octet.

Used on both ends: to store with a peer, and for the sub-operations of a C-GET that a peer asks of the embedded node.
Refuses to decode, to open files, and to wait for answers.
"""

import os
from collections.abc import Sequence

from dcmsync.errors import LocalTrouble
from dcmsync.net.channel import Channel, Octets
from dcmsync.wire.dimse import command as commands


async def send_file(
    channel: Channel,
    context_id: int,
    request: commands.Command,
    file_descriptor: int,
    offset: int,
    octets: int,
    *,
    before: Sequence[Octets] = (),
) -> None:
    """A C-STORE request with its data set read from an open file; command and first octets in one write.

    `before`: what goes out ahead of it, in that same write. Memory is one chunk. Raises LocalTrouble when the file
    ends early, after aborting: half an instance was sent.
    """
    chunk = memoryview(bytearray(min(channel.chunk_octets, octets)))
    position, end = offset, offset + octets
    first = True
    while position < end or first:
        part = chunk[: min(len(chunk), end - position)]
        filled = 0
        while filled < len(part):
            count = os.preadv(file_descriptor, [part[filled:]], position + filled)
            if not count:
                await channel.abort()
                raise LocalTrouble("a file became shorter while it was sent")
            filled += count
        position += filled
        if first:
            pieces = channel.pieces(context_id, request, (part,), is_last=position >= end)
            await channel.stream.send([*before, *pieces], is_payload=True)
            first = False
        else:
            await channel.say_more(context_id, part, is_last=position >= end)
