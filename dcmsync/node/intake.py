"""The way into a spool: what peers store lands in a folder, and somebody hears of it before the peer does.

Owns the promise that a status of success means durable, and known to whoever forwards it. Refuses to answer anything
but C-ECHO and C-STORE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.abc

from dcmsync.contract import Arrival, Landed, Sink
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.errors import LocalTrouble, RemoteProtocolError
from dcmsync.net.arrivals import Arrivals
from dcmsync.net.channel import Begun
from dcmsync.net.listener import Visit
from dcmsync.node.archive import DUPLICATE, Queue
from dcmsync.node.inbox import Inbox
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations, status

_UNRECOGNISED = 0x0211  # PS3.7 §C.5.9, unrecognised operation
_FAILURES = {"local": status.OUT_OF_RESOURCES, "mismatch": status.DOES_NOT_MATCH_CLASS}


class Intake:
    """Takes instances (contract.Receiver). `landed` hears of each one that is durable; what it raises is told by it."""

    def __init__(
        self,
        landing: Landing,
        make_queue: Callable[[Landing, Callable[[Landed], None]], Queue],
        *,
        landed: Callable[[Landed], None],
        warn: Callable[[str], None],
    ) -> None:
        self._landing = landing
        self._tell = landed
        self._warn = warn
        self._verdicts: dict[int, tuple[Arrival, anyio.Event, list[int]]] = {}
        self.queue = make_queue(landing, self._landed)

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink that lands what arrives; `settle` tells what became of it."""
        sink = self._landing.receive(arrival)
        if isinstance(sink, int):
            return sink
        self._verdicts[id(arrival)] = (arrival, anyio.Event(), [])
        return _Guarded(sink, lambda: self._verdicts.pop(id(arrival), None), self._warn)

    async def room(self) -> None:
        """Returns when more instances may come."""
        await self.queue.room()

    async def settle(self, arrival: Arrival) -> int:
        """The status of an instance whose sink has taken it all."""
        _, come, codes = self._verdicts[id(arrival)]
        try:
            await come.wait()
        finally:
            del self._verdicts[id(arrival)]
        return codes[0]

    def _landed(self, landed: Landed) -> None:
        code = _status(landed)
        if code == status.SUCCESS:
            try:
                self._tell(landed)
            except LocalTrouble as trouble:
                self._warn(f"an instance could not be taken: {trouble.message}")
                code = status.OUT_OF_RESOURCES
        elif landed.trouble is not None:
            self._warn(f"an instance could not be stored: {landed.trouble.message}")
        waiting = self._verdicts.get(id(landed.arrival))
        if waiting is not None:
            waiting[2].append(code)
            waiting[1].set()


class _Guarded:
    """A sink whose trouble is a status for the peer, and no end of the association."""

    def __init__(self, sink: Sink, forget: Callable[[], object], warn: Callable[[str], None]) -> None:
        self._sink = sink
        self._forget = forget
        self._warn = warn
        self._is_lost = False

    def adopt(self) -> bool:
        """Octets are needed."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes octets; after trouble it drops them. Raises RemoteProtocolError."""
        if not self._is_lost:
            try:
                self._sink.write(pieces)
            except LocalTrouble as trouble:
                self._is_lost = True
                self.discard(trouble.message)
                self._warn(f"an instance could not be stored: {trouble.message}")

    def finish(self) -> int:
        """Success, or out of resources."""
        return status.OUT_OF_RESOURCES if self._is_lost else self._sink.finish()

    def discard(self, why: str) -> None:
        """Lets go of everything. Idempotent."""
        self._sink.discard(why)
        self._forget()


class Taking:
    """What is done on one association: C-ECHO is answered, and what is stored is taken in."""

    def __init__(self, visit: Visit, intake: Intake) -> None:
        self.stored = self.failed = 0
        self._visit = visit
        self._channel = visit.channel
        self._intake = intake
        self._inbox = Inbox(visit.channel)
        self._arrivals = Arrivals(visit.channel, intake, self._settle)

    async def run(self) -> None:
        """Answers until the peer leaves, or we are to end. Raises PeerError, LocalTrouble, ReleasedByPeer."""
        try:
            while not self._visit.is_ending:
                self._visit.is_idle = True
                self._channel.stream.guard.arm()
                event = await self._inbox.next()
                self._visit.is_idle = False
                self._channel.stream.guard.progress()
                if not isinstance(event, Begun):
                    raise RemoteProtocolError("sent a data set that belongs to nothing")
                await self._answer(event)
        finally:
            self._arrivals.drop("the association ended before the instance did")

    async def _answer(self, begun: Begun) -> None:
        request = begun.command
        if request.field == commands.C_CANCEL_RQ and not request.has_data_set:
            return
        if request.field & 0x8000 or request.message_id is None or begun.context_id not in self._channel.contexts:
            raise RemoteProtocolError("sent a message that is no request, or on no presentation context")
        if request.field == commands.C_STORE_RQ:
            await self._inbox.instance(begun, self._arrivals)
            return
        if request.has_data_set:
            await self._inbox.drop_data_set()
        code = status.SUCCESS if request.field == commands.C_ECHO_RQ else _UNRECOGNISED
        await self._channel.say(begun.context_id, operations.respond(request, code))

    async def _settle(self, arrival: Arrival) -> int:
        code = await self._intake.settle(arrival)
        if code == status.SUCCESS:
            self.stored += 1
        else:
            self.failed += 1
        return code


def _status(landed: Landed) -> int:
    """The DIMSE status that says what became of an instance (PS3.4 table B.2-1)."""
    if landed.outcome in ("stored", "present"):
        return status.SUCCESS
    if landed.outcome == "conflict":
        return DUPLICATE
    return _FAILURES.get(landed.reason, status.CANNOT_UNDERSTAND)
