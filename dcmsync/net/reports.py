"""Storage commitment, the asking side (PS3.4 §J.3): N-ACTION out, and N-EVENT-REPORTs in, wherever they come.

Owns the order of messages: a report may come on the association that asked, even before the answer to the request, or
on one that the peer opens. Refuses to match reports with requests; `heard` does, and says how each is answered.
"""

from collections.abc import Callable
from contextlib import suppress

from dcmsync.errors import Disconnected, PeerError, RemoteProtocolError
from dcmsync.net.channel import Begun, Channel, Gathered, ReleasedByPeer
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from dcmsync.wire.dimse.commitment import PUSH_MODEL, Report, decode_report
from dcmsync.wire.dimse.messages import Pieces
from dcmsync.wire.dimse.operations import Conversation

Heard = Callable[[Report], int]
"""Takes a report; gives the status that it is answered with."""


class Reports:
    """The N-EVENT-REPORTs of one association."""

    def __init__(self, channel: Channel, heard: Heard) -> None:
        self._channel = channel
        self._heard = heard
        self._gathered = Gathered(channel.limits.max_identifier_octets)
        self._begun: Begun | None = None
        self._replies: list[tuple[int, commands.Command]] = []

    @property
    def is_hearing(self) -> bool:
        """Whether a report has begun, and not ended."""
        return self._begun is not None

    def begin(self, begun: Begun) -> None:
        """A request came. Raises RemoteProtocolError when it is no report of storage commitment."""
        context = self._channel.contexts.get(begun.context_id)
        if context is None or context.abstract_syntax != PUSH_MODEL:
            raise RemoteProtocolError("sent a report on a presentation context that is not for storage commitment")
        if begun.command.message_id is None or not begun.command.has_data_set:
            raise RemoteProtocolError("sent a report of storage commitment that says nothing")
        self._begun = begun

    def take(self, event: Pieces) -> None:
        """Octets of the report came. Raises RemoteProtocolError."""
        octets = self._gathered.take(event)
        if octets is None or self._begun is None:
            return
        begun, self._begun = self._begun, None
        code = self._heard(decode_report(octets, self._channel.contexts[begun.context_id].transfer_syntax))
        self._replies.append((begun.context_id, operations.respond(begun.command, code)))
        self._channel.stream.guard.progress()

    async def reply(self) -> None:
        """Answers what has been heard."""
        waiting, self._replies = self._replies, []
        for context_id, reply in waiting:
            await self._channel.say(context_id, reply)


class Committing:
    """Asks for commitment over one association, and hears what comes of it there."""

    def __init__(self, channel: Channel, heard: Heard) -> None:
        self._channel = channel
        self._reports = Reports(channel, heard)
        self._conversation: Conversation | None = None

    async def ask(self, context_id: int, conversation: Conversation, octets: bytes) -> int:
        """N-ACTION: the peer's status. Raises PeerError."""
        guard = self._channel.stream.guard
        self._conversation = conversation
        code = None
        guard.arm()
        try:
            await self._channel.say(context_id, conversation.request, (octets,))
            while not conversation.finished or self._reports.is_hearing:
                said = await self._hear()
                code = said if said is not None else code
        except ReleasedByPeer:
            name = self._channel.stream.name
            raise Disconnected(f"{name}: the peer released the association during {conversation.name}") from None
        except RemoteProtocolError as error:
            await self._channel.abort()
            name = self._channel.stream.name
            raise RemoteProtocolError(f"{name}: {error.message.removeprefix(name + ': ')}") from error
        finally:
            guard.disarm()
        assert code is not None  # a conversation finishes with a status
        return code

    async def listen(self) -> None:
        """Hears reports until it is cancelled, or the association ends."""
        with suppress(PeerError, ReleasedByPeer):
            try:
                while True:
                    await self._hear()
            except RemoteProtocolError:
                await self._channel.abort()

    async def _hear(self) -> int | None:
        """Takes what one read brought; the status of the answer to the request, where that is among it."""
        code = None
        for event in await self._channel.messages():
            if not isinstance(event, Begun):
                self._reports.take(event)
            elif event.command.field == commands.N_EVENT_REPORT_RQ:
                self._reports.begin(event)
            elif self._conversation is not None:
                code = self._conversation.answer(event.command)
        await self._reports.reply()
        return code
