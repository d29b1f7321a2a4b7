"""What a peer sends, one message event at a time, and whether it has asked us to cancel.

Owns the events of one read that have not been used yet. Refuses to read on while payload of the last read waits: its
octets lie in the receive buffer.
"""

from __future__ import annotations

from collections import deque

from dcmsync.errors import RemoteProtocolError
from dcmsync.net.channel import Begun, Channel, Gathered, MessageEvent, Pieces
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse.operations import Conversation


class Inbox:
    """The messages of one association, in order."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._events: deque[MessageEvent] = deque()

    async def next(self) -> MessageEvent:
        """The next event. Raises what `Channel.messages` raises."""
        while not self._events:
            self._events.extend(await self._channel.messages())
        return self._events.popleft()

    async def identifier(self, transfer_limit_octets: int) -> bytes:
        """The data set of the message that has just begun, gathered. Raises RemoteProtocolError beyond the limit."""
        gathered = Gathered(transfer_limit_octets)
        while True:
            whole = gathered.take(await self._pieces())
            if whole is not None:
                return whole

    async def drop_data_set(self) -> None:
        """Passes over the data set of the message that has just begun."""
        while not (await self._pieces()).is_last:
            pass

    async def is_cancelled(self, message_id: int) -> bool:
        """Whether a C-CANCEL of our answers to `message_id` has come. Waits for nothing."""
        if not self._events and self._channel.stream.has_arrived:
            self._events.extend(await self._channel.messages())
        if self._events and _is_cancel(self._events[0], message_id):
            self._events.popleft()
            return True
        return False

    async def reply(self, conversation: Conversation, message_id: int) -> tuple[int, bool]:
        """The status that answers our sub-operation, and whether a C-CANCEL of `message_id` came before it.

        Raises RemoteProtocolError when anything else comes.
        """
        is_cancelled = False
        while True:
            event = await self.next()
            if _is_cancel(event, message_id):
                is_cancelled = True
            elif isinstance(event, Begun) and not event.command.has_data_set:
                return conversation.answer(event.command), is_cancelled
            else:
                raise RemoteProtocolError("sent a message where an answer was due")

    async def _pieces(self) -> Pieces:
        event = await self.next()
        assert isinstance(event, Pieces)  # the assembler lets nothing else in between
        return event


def _is_cancel(event: MessageEvent, message_id: int) -> bool:
    return (
        isinstance(event, Begun)
        and event.command.field == commands.C_CANCEL_RQ
        and event.command.responding_to == message_id
        and not event.command.has_data_set
    )
