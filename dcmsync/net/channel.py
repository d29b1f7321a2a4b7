"""DIMSE messages over one socket, either side: the pump between `stream` and the sans-IO engine in `wire`.

Theory of operation: `messages` gives everything that one read brought, as message events whose payload is slices of
the receive buffer, valid until it is called again. `say` sends a command and what belongs to it in one gathered
write. Whatever ends the association early raises; `close` ends it by A-RELEASE, else A-ABORT, else the socket.
"""

from collections.abc import Sequence

import anyio
from msgspec import Struct

from dcmsync.errors import Disconnected, PeerError, RemoteProtocolError
from dcmsync.net.stream import Stream
from dcmsync.net.throttle import Throttle
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse.messages import Assembler, Begun, MessageEvent, Pieces
from dcmsync.wire.upperlayer import association as upper
from dcmsync.wire.upperlayer import framing
from dcmsync.wire.upperlayer.contexts import Context
from dcmsync.wire.upperlayer.state import State

_FAREWELL_S = 2.0
_PDUS_PER_CHUNK = 1024  # a peer may ask for PDUs of a few octets; the pieces of a chunk are listed before they are sent

Octets = bytes | memoryview


class Limits(Struct, frozen=True, kw_only=True):
    """What we let a peer do to us. Seconds and octets.

    `max_pdu_octets` is what we advertise: DCMTK peers then send 128 KiB, their own limit; 0 is no limit. `throttle`
    slows all traffic with the peer down.
    """

    timeout_s: float = 60.0
    connect_s: float = 20.0
    association_s: float = 86400.0
    max_pdu_octets: int = 1 << 20
    max_identifier_octets: int = 1 << 24
    max_instance_octets: int = 1 << 36
    max_answers: int = 5_000_000
    throttle: Throttle | None = None


class ReleasedByPeer(Exception):
    """The peer asked to end the association in an orderly way, and we agreed. Not an error for an acceptor."""


class Channel:
    """One association's messages. Made with an association that is being negotiated."""

    def __init__(self, stream: Stream, machine: upper.Association, limits: Limits) -> None:
        self.stream = stream
        self.stream.slow_down(limits.throttle)
        self.machine = machine
        self.limits = limits
        self.contexts: dict[int, Context] = {}
        self._assembler = Assembler()
        self._trouble: Exception | None = None

    @property
    def is_open(self) -> bool:
        """Whether messages may go out, as far as is known."""
        return self.machine.state is State.READY and self._trouble is None

    async def wire_events(self) -> list[upper.WireEvent]:
        """What the next octets mean to the upper layer; what follows a PDU that changes the state comes with the next
        call. Raises Stalled, Disconnected.
        """
        await self.stream.breathe()
        while True:
            while len(self.stream.pending):
                consumed, events = self.machine.receive(self.stream.pending)
                self.stream.consume(consumed)
                if events:
                    await self._flush()
                    return events
                if not consumed:
                    break
            await self._flush()
            self.stream.quick_ack()
            if not await self.stream.receive():
                return self.machine.receive_eof()

    async def messages(self) -> list[MessageEvent]:
        """The message events of one read; their payload is valid until the next call.

        Raises Stalled, Disconnected, RemoteProtocolError, ReleasedByPeer; messages that came before are given first.
        """
        if self._trouble is not None:
            raise self._trouble
        found: list[MessageEvent] = []
        while not found:
            for event in await self.wire_events():
                try:
                    if isinstance(event, upper.Data):
                        found += self._assembler.feed(event.fragments)
                        continue
                    await self._ended(event)
                except (PeerError, ReleasedByPeer) as trouble:
                    self._trouble = trouble
                    if isinstance(trouble, RemoteProtocolError):
                        await self.abort()
                    break
            if self._trouble is not None and not found:
                raise self._trouble
            if self._assembler.is_mid_message:
                self.stream.quick_ack()
        return found

    async def answer(self) -> commands.Command:
        """The next message, which is to be a command alone: the answer to what has just been sent.

        Raises as `messages` does, and RemoteProtocolError for anything else.
        """
        if self._trouble is None and not self._assembler.is_mid_message and not len(self.stream.pending):
            self.stream.quick_ack()
            is_early = True
            while await self.stream.receive(is_early=is_early):
                found = self.machine.receive_command(self.stream.pending)
                if found is None:
                    break
                if found[0]:
                    self.stream.consume(len(self.stream.pending))
                    return commands.decode(found[1])
                self.stream.quick_ack()
                is_early = False
        events = await self.messages()
        if not isinstance(events[0], Begun) or len(events) > 1:
            raise RemoteProtocolError("answered with more than a status")
        return events[0].command

    async def say(
        self, context_id: int, command: commands.Command | bytes, data: Sequence[Octets] = (), *, is_last: bool = True
    ) -> None:
        """Sends a command, with its data set (or the front of it) in the same write."""
        await self.stream.send(self.pieces(context_id, command, data, is_last=is_last), is_payload=bool(data))

    def pieces(
        self, context_id: int, command: commands.Command | bytes, data: Sequence[Octets] = (), *, is_last: bool = True
    ) -> list[bytes | memoryview]:
        """The buffers that `say` writes, for callers that gather several messages in one write.

        `command` may be encoded already. Raises what ended the association, when it has ended.
        """
        if self._trouble is not None:
            raise self._trouble
        self.machine.may_send_data()
        octets = command if isinstance(command, bytes) else commands.encode(command)
        pieces = self._pack(context_id, octets, is_command=True, is_last=True)
        for index, part in enumerate(data):
            ends = is_last and index == len(data) - 1
            pieces += self._pack(context_id, part, is_command=False, is_last=ends)
        return pieces

    async def say_more(self, context_id: int, data: memoryview, *, is_last: bool) -> None:
        """Sends the next octets of a data set that `say` began."""
        pieces = self._pack(context_id, data, is_command=False, is_last=is_last)
        await self.stream.send(pieces, is_payload=True)

    def _pack(
        self, context_id: int, payload: Octets, *, is_command: bool, is_last: bool
    ) -> list[bytes | memoryview]:
        return framing.packed(
            context_id, payload, is_command=is_command, is_last=is_last,
            max_pdu_octets=self.machine.peer_max_pdu_octets,
        )

    @property
    def chunk_octets(self) -> int:
        """How much of a file to read and send at a time: whole PDUs, about 1 MiB, fewer where those are tiny."""
        step = framing.payload_octets(self.machine.peer_max_pdu_octets)
        return step * max(1, min((1 << 20) // step, _PDUS_PER_CHUNK))

    async def abort(self) -> None:
        """Sends A-ABORT, as far as the kernel takes it now."""
        self.machine.abort()
        self.stream.send_now(self.machine.data_to_send())

    async def close(self) -> None:
        """Ends the association: A-RELEASE when it is ready for it, else A-ABORT; then the socket. Idempotent."""
        try:
            if self.machine.state is State.READY and self._trouble is None and not self._assembler.is_mid_message:
                with anyio.move_on_after(min(_FAREWELL_S, self.limits.timeout_s)):
                    await self._release()
            await self.abort()
        finally:
            self.stream.close()

    async def _release(self) -> None:
        self.machine.release()
        try:
            while self.machine.state not in (State.IDLE, State.AWAITING_CLOSE):
                for event in await self.wire_events():
                    if isinstance(event, upper.ReleaseRequested | upper.Released) and self.machine.owes_release_reply:
                        self.machine.release_reply()
        except PeerError:
            return  # the work is done; how the peer leaves does not change it

    async def _flush(self) -> None:
        out = self.machine.data_to_send()
        if out:
            await self.stream.send(out)

    async def _ended(self, event: upper.WireEvent) -> None:
        name = self.stream.name
        if isinstance(event, upper.PeerFault):
            self.stream.send_now(self.machine.data_to_send())
            raise RemoteProtocolError(f"{name}: {event.error.message}")
        if isinstance(event, upper.Aborted):
            raise Disconnected(f"{name}: the peer aborted the association")
        if isinstance(event, upper.ReleaseRequested):
            self.machine.release_reply()
            await self._flush()
            raise ReleasedByPeer
        raise Disconnected(f"{name}: the peer closed the connection")


class Gathered:
    """Gathers a small data set, such as an identifier, up to a cap."""

    def __init__(self, limit_octets: int) -> None:
        self._limit_octets = limit_octets
        self._octets = bytearray()

    def take(self, event: Pieces) -> bytes | None:
        """Takes pieces; the whole data set once the last came. Raises RemoteProtocolError beyond the cap."""
        if len(self._octets) + event.octets > self._limit_octets:
            raise RemoteProtocolError(f"sent an identifier of more than {self._limit_octets:,} octets")
        for piece in event.pieces:
            self._octets += piece
        if not event.is_last:
            return None
        whole = bytes(self._octets)
        self._octets.clear()
        return whole


__all__ = ["Begun", "Channel", "Gathered", "Limits", "MessageEvent", "Pieces", "ReleasedByPeer"]
