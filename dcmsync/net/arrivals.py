"""C-STORE, the receiving side (PS3.7 §9.1.1): from message events to sinks, and the replies that go back.

Used on both ends: for the sub-operations of a C-GET that we asked for, and for what a peer stores with the embedded
node. Owns the order of things: request, octets, verdict, reply. Refuses to know where instances go; a receiver does.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from dcmsync.contract import Arrival, Receiver, Sink
from dcmsync.errors import RemoteProtocolError
from dcmsync.net.channel import Begun, Channel, Pieces
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations, status

Settle = Callable[[Arrival], Awaitable[int]]
"""Gives the status of an instance that was taken, once it is known; for those who promise durability by it."""


class Reply(Struct, frozen=True):
    """One C-STORE that has been received to its end, and is to be answered."""

    context_id: int
    request: commands.Command
    arrival: Arrival
    status: int


class Arrivals:
    """The instances that arrive on one association. Without `settle`, what the sink says on its end is the status."""

    def __init__(self, channel: Channel, receiver: Receiver, settle: Settle | None = None) -> None:
        self.replies: list[Reply] = []
        self._channel = channel
        self._receiver = receiver
        self._settle = settle
        self._event: Begun | None = None
        self._arrival: Arrival | None = None
        self._sink: Sink | None = None
        self._status = 0
        self._octets = 0

    def begin(self, event: Begun) -> None:
        """A C-STORE request came. Raises RemoteProtocolError when it breaks the rules."""
        context = self._channel.contexts.get(event.context_id)
        if context is None:
            raise RemoteProtocolError("sent an instance on a presentation context that was not accepted")
        sop_class_uid, sop_instance_uid = operations.check_store(event.command, context.abstract_syntax)
        arrival = Arrival(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=context.transfer_syntax,
        )
        taken = self._receiver.receive(arrival)
        self._event, self._arrival, self._octets = event, arrival, 0
        self._sink, self._status = (None, taken) if isinstance(taken, int) else (taken, 0)

    def take(self, event: Pieces) -> None:
        """Octets of the instance came. Raises LocalTrouble, RemoteProtocolError."""
        assert self._event is not None and self._arrival is not None
        self._octets += event.octets
        if self._octets > self._channel.limits.max_instance_octets:
            limit = self._channel.limits.max_instance_octets
            raise RemoteProtocolError(f"sent an instance of more than {limit:,} octets")
        if self._sink is not None:
            self._channel.stream.guard.octets += event.octets
            self._sink.write(event.pieces)
        if event.is_last:
            if self._sink is not None:
                sink, self._sink = self._sink, None
                self._status = sink.finish()
                self._channel.stream.guard.progress()
            self.replies.append(Reply(self._event.context_id, self._event.command, self._arrival, self._status))

    async def reply(self) -> None:
        """Sends the replies that wait, once their statuses are known and there is room for what they will bring."""
        guard = self._channel.stream.guard
        waiting, self.replies = self.replies, []
        pieces: list[bytes | memoryview] = []
        guard.pause()
        for one in waiting:
            code = one.status
            if self._settle is not None and code == status.SUCCESS:
                code = await self._settle(one.arrival)
            pieces += self._channel.pieces(one.context_id, operations.respond(one.request, code))
        await self._receiver.room()
        guard.resume()
        await self._channel.stream.send(pieces)

    def drop(self, why: str) -> None:
        """Discards what was arriving."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.discard(why)
