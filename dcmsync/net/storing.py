"""C-STORE, the requestor's side (PS3.7 §9.1.1): parcels out, the peer's answers in, one at a time.

Owns the context that a parcel travels on, and the buffer that files are read into, once for each association. Refuses
to open files, to transcode, and to judge an answer.
"""

from dcmsync.contract import Arrival, Parcel
from dcmsync.errors import Disconnected, Refused, RemoteProtocolError
from dcmsync.net.channel import Channel, ReleasedByPeer
from dcmsync.net.departures import Buffer, send_file
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations


class Storing:
    """Stores over one association, whose contexts are agreed on."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._buffer = Buffer()
        self._context_ids = {
            (context.abstract_syntax, context.transfer_syntax): context.context_id
            for context in channel.contexts.values()
        }

    async def store(
        self, parcel: Parcel, message_id: int, originator: operations.Originator | None = None
    ) -> commands.Command:
        """Sends one parcel; gives the answer.

        Raises Refused when the peer accepted no context for it, LocalTrouble when its file ends early or has changed
        (the association is then aborted before the last octet has gone out), PeerError.
        """
        channel, arrival = self._channel, parcel.arrival
        context_id = self._context_ids.get((arrival.sop_class_uid, arrival.transfer_syntax_uid))
        if context_id is None:
            raise Refused(_no_context(channel.stream.name, arrival), status=0)
        class_uid, uid = arrival.sop_class_uid, arrival.sop_instance_uid
        if originator is None:
            request: commands.Command | bytes = commands.encode_store(message_id, class_uid, uid)
        else:
            request = operations.store(message_id, class_uid, uid, originator).request
        guard = channel.stream.guard
        guard.arm()
        try:
            if parcel.memory is not None:
                await channel.say(context_id, request, (memoryview(parcel.memory),))
            else:
                await send_file(
                    channel, context_id, request, parcel.descriptor, parcel.offset, parcel.size,
                    buffer=self._buffer, stamp=parcel.stamp,
                )  # fmt: skip
            answer = await channel.answer()
            operations.check_stored(answer, message_id, uid)
            return answer
        except ReleasedByPeer:
            raise Disconnected(f"{channel.stream.name}: the peer released the association during C-STORE") from None
        except RemoteProtocolError as error:
            await channel.abort()
            name = channel.stream.name
            raise RemoteProtocolError(f"{name}: {error.message.removeprefix(name + ': ')}") from error
        finally:
            guard.disarm()


def _no_context(name: str, arrival: Arrival) -> str:
    return (
        f"{name}: the peer does not take SOP class {arrival.sop_class_uid} in transfer syntax "
        f"{arrival.transfer_syntax_uid}"
    )
