"""The services of the node on one association: C-ECHO, C-FIND, C-GET, C-STORE (PS3.4 Annexes A, B, C).

Owns the order of events: one operation at a time, each read to its end before it is answered. Refuses to move
(C-MOVE opens associations of its own) and to decide who may come (`policy.py`).
"""

from __future__ import annotations

import anyio
import anyio.lowlevel
from msgspec import Struct, structs

from dcmsync.contract import Arrival
from dcmsync.errors import RemoteProtocolError
from dcmsync.net.arrivals import Arrivals
from dcmsync.net.channel import Begun, Octets
from dcmsync.net.listener import Visit
from dcmsync.node import finding
from dcmsync.node.archive import Archive
from dcmsync.node.getting import Retrieval
from dcmsync.node.inbox import Inbox
from dcmsync.node.index import Depth, Image
from dcmsync.node.policy import FINDS, GETS, PATIENT_ROOTS
from dcmsync.node.question import Question, Unanswerable, read
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.command import Command

_UNRECOGNISED = 0x0211  # PS3.7 §C.5.9, unrecognised operation
_GATHERED_OCTETS = 1 << 16
_GATHERED_PIECES = 256
_MAX_COMMENT = 64  # Error Comment is an LO


class Tally(Struct):
    """What happened on one association."""

    found: int = 0
    sent: int = 0
    stored: int = 0
    failed: int = 0


class Service:
    """Serves one visit to an archive."""

    def __init__(self, visit: Visit, archive: Archive, own_ae: str) -> None:
        self.tally = Tally()
        self._visit = visit
        self._channel = visit.channel
        self._guard = visit.channel.stream.guard
        self._archive = archive
        self._own_ae = own_ae
        self._inbox = Inbox(visit.channel)
        self._arrivals = Arrivals(visit.channel, archive, self._settle)

    async def run(self) -> None:
        """Answers until the peer leaves, or we are to end. Raises PeerError, LocalTrouble, ReleasedByPeer."""
        try:
            while not self._visit.is_ending:
                self._visit.is_idle = True
                self._guard.arm()
                event = await self._inbox.next()
                self._visit.is_idle = False
                self._guard.progress()
                if not isinstance(event, Begun):
                    raise RemoteProtocolError("sent a data set that belongs to nothing")
                await self._operation(event)
        finally:
            self._arrivals.drop("the association ended before the instance did")

    async def _operation(self, begun: Begun) -> None:
        request = begun.command
        context = self._channel.contexts.get(begun.context_id)
        if context is None:
            raise RemoteProtocolError("sent a message on a presentation context that was not accepted")
        if request.field == commands.C_CANCEL_RQ and not request.has_data_set:
            return  # of an operation that has ended
        if request.field & 0x8000 or request.message_id is None:
            raise RemoteProtocolError("sent a message that is no request")
        match request.field:
            case commands.C_STORE_RQ:
                await self._store(begun)
            case commands.C_FIND_RQ if context.abstract_syntax in FINDS and request.has_data_set:
                await self._find(begun, request)
            case commands.C_GET_RQ if context.abstract_syntax in GETS and request.has_data_set:
                await self._get(begun, request)
            case _:
                if request.has_data_set:
                    await self._inbox.drop_data_set()
                await self._channel.say(begun.context_id, operations.respond(request, _plain_status(request.field)))

    async def _store(self, begun: Begun) -> None:
        self._arrivals.begin(begun)
        while not self._arrivals.replies:
            event = await self._inbox.next()
            if isinstance(event, Begun):
                raise RemoteProtocolError("sent a message within an instance")
            self._arrivals.take(event)
        await self._arrivals.reply()

    async def _settle(self, arrival: Arrival) -> int:
        code = await self._archive.settle(arrival)
        if code == status.SUCCESS:
            self.tally.stored += 1
        else:
            self.tally.failed += 1
        return code

    async def _find(self, begun: Begun, request: Command) -> None:
        question = await self._question(begun, request, is_retrieval=False)
        if question is None:
            return
        assert request.message_id is not None
        pending = operations.respond(request, status.PENDING[0 if question.knows_all else 1], has_data_set=True)
        syntax = self._channel.contexts[begun.context_id].transfer_syntax
        index = self._archive.index
        gathered: list[Octets] = []
        octets = 0
        code = status.SUCCESS
        for thing in finding.search(index, question):
            if thing is not None:
                identifier = finding.answer(index, thing, question, self._own_ae, syntax)
                gathered += self._channel.pieces(begun.context_id, pending, (identifier,))
                octets += len(identifier)
                self.tally.found += 1
                if octets < _GATHERED_OCTETS and len(gathered) < _GATHERED_PIECES:
                    continue
                await self._channel.stream.send(gathered, is_payload=True)
                gathered, octets = [], 0
            self._guard.progress()  # it is we who were at work
            await anyio.lowlevel.checkpoint()
            if await self._inbox.is_cancelled(request.message_id):
                code = status.CANCELLED
                break
        gathered += self._channel.pieces(begun.context_id, operations.respond(request, code))
        await self._channel.stream.send(gathered, is_payload=True)

    async def _get(self, begun: Begun, request: Command) -> None:
        question = await self._question(begun, request, is_retrieval=True)
        if question is None:
            return
        retrieval = Retrieval(self._visit, self._inbox, self._archive, begun.context_id, request)
        images = self._images(question)
        sent = await retrieval.run(images)
        self.tally.sent += sent
        self.tally.failed += len(images) - sent

    def _images(self, question: Question) -> list[Image]:
        """The instances of what was asked for."""
        below = structs.replace(question, depth=Depth.IMAGE)
        things = finding.search(self._archive.index, below)
        return [thing.image for thing in things if thing is not None and thing.image is not None]

    async def _question(self, begun: Begun, request: Command, *, is_retrieval: bool) -> Question | None:
        """What the identifier asks; None once the peer has been told that it cannot be answered."""
        octets = await self._inbox.identifier(self._channel.limits.max_identifier_octets)
        context = self._channel.contexts[begun.context_id]
        top = Depth.PATIENT if context.abstract_syntax in PATIENT_ROOTS else Depth.STUDY
        try:
            return read(octets, context.transfer_syntax, top=top, is_retrieval=is_retrieval)
        except Unanswerable as why:
            refusal = operations.respond(request, why.code)
            comment = why.words[:_MAX_COMMENT]
            await self._channel.say(begun.context_id, structs.replace(refusal, error_comment=comment))
            return None


def _plain_status(field: int) -> int:
    """The status of a request that no service takes up, C-ECHO being the one that needs none."""
    if field == commands.C_ECHO_RQ:
        return status.SUCCESS
    if field in (commands.C_FIND_RQ, commands.C_GET_RQ, commands.C_MOVE_RQ):
        return status.REFUSED_CLASS
    return _UNRECOGNISED
