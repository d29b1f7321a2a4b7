"""What a peer sends, one message event at a time, and whether it has asked us to cancel.

Owns the events of one read that have not been used yet. Refuses to read on while payload of the last read waits: its
octets lie in the receive buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dcmsync.errors import RemoteProtocolError
from dcmsync.net.arrivals import Arrivals
from dcmsync.net.channel import Begun, Channel, Gathered, MessageEvent, Pieces
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse.operations import Conversation


class Inbox:
    """The messages of one association, in order."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._events: deque[MessageEvent] = deque()
        self._aside: dict[int, tuple[Conversation, Callable[[int], None]]] = {}

    def expect(self, conversation: Conversation, answered: Callable[[int], None]) -> None:
        """Lets `answered` hear the status that answers a notification of ours, whatever else is going on by then."""
        assert conversation.request.message_id is not None
        self._aside[conversation.request.message_id] = conversation, answered

    async def next(self) -> MessageEvent:
        """The next event. May be cancelled without loss. Raises what `Channel.messages` raises."""
        while True:
            while not self._events:
                self._events.extend(await self._channel.messages())
            event = self._events.popleft()
            if not self._is_aside(event):
                return event

    async def cancellation(self, message_id: int) -> None:
        """Returns when a C-CANCEL of our answers to `message_id` has come. Raises RemoteProtocolError for all else."""
        if not _is_cancel(await self.next(), message_id):
            raise RemoteProtocolError("sent a message while it was owed an answer")

    async def identifier(self, transfer_limit_octets: int) -> bytes:
        """The data set of the message that has just begun, gathered. Raises RemoteProtocolError beyond the limit."""
        gathered = Gathered(transfer_limit_octets)
        while True:
            whole = gathered.take(await self._pieces())
            if whole is not None:
                return whole

    async def instance(self, begun: Begun, arrivals: Arrivals) -> None:
        """Hands the instance that has just begun over, and its reply to the peer. Raises RemoteProtocolError."""
        arrivals.begin(begun)
        while not arrivals.replies:
            event = await self.next()
            if isinstance(event, Begun):
                raise RemoteProtocolError("sent a message within an instance")
            arrivals.take(event)
        await arrivals.reply()

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

    def _is_aside(self, event: MessageEvent) -> bool:
        """Whether it answers a notification; who waits for that is told."""
        if not isinstance(event, Begun) or event.command.field != commands.N_EVENT_REPORT_RSP:
            return False
        expected = self._aside.pop(event.command.responding_to or 0, None)
        if expected is None or event.command.has_data_set:
            raise RemoteProtocolError("answered a notification that it was not sent")
        conversation, answered = expected
        answered(conversation.answer(event.command))
        return True

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
