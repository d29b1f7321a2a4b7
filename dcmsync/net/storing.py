"""C-STORE, the requestor's side (PS3.7 §9.1.1): parcels out, the peer's answers in, one at a time.

Owns the context that a parcel travels on, and the buffer that files are read into, once for each association. Refuses
to open files, to transcode, and to judge an answer.
"""

from dcmsync.contract import Arrival, Parcel
from dcmsync.errors import Disconnected, Refused, RemoteProtocolError
from dcmsync.net.channel import Begun, Channel, ReleasedByPeer
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
        conversation = operations.store(message_id, arrival.sop_class_uid, arrival.sop_instance_uid, originator)
        guard = channel.stream.guard
        guard.arm()
        try:
            if parcel.memory is not None:
                await channel.say(context_id, conversation.request, (memoryview(parcel.memory),))
            else:
                await send_file(
                    channel, context_id, conversation.request, parcel.descriptor, parcel.offset, parcel.size,
                    buffer=self._buffer, stamp=parcel.stamp,
                )  # fmt: skip
            return await self._answer(conversation)
        finally:
            guard.disarm()

    async def _answer(self, conversation: operations.Conversation) -> commands.Command:
        name = self._channel.stream.name
        try:
            events = await self._channel.messages()
            event = events[0]
            if not isinstance(event, Begun) or len(events) > 1 or event.command.has_data_set:
                raise RemoteProtocolError("answered C-STORE with more than a status")
            conversation.answer(event.command)
            said = event.command.sop_instance_uid
            if said and said != conversation.request.sop_instance_uid:
                raise RemoteProtocolError("answered C-STORE for another instance than was sent")
            return event.command
        except ReleasedByPeer:
            raise Disconnected(f"{name}: the peer released the association during C-STORE") from None
        except RemoteProtocolError as error:
            await self._channel.abort()
            raise RemoteProtocolError(f"{name}: {error.message.removeprefix(name + ': ')}") from error


def _no_context(name: str, arrival: Arrival) -> str:
    return (
        f"{name}: the peer does not take SOP class {arrival.sop_class_uid} in transfer syntax "
        f"{arrival.transfer_syntax_uid}"
    )
