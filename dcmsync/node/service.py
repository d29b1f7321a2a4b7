"""The services of the node on one association: C-ECHO, C-FIND, C-GET, C-MOVE, C-STORE, and storage commitment
(PS3.4 Annexes A, B, C, J).

Owns the order of events: one operation at a time, each read to its end before it is answered. Refuses to decide who
may come (`policy.py`). What commitments came to is told between two operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Struct, structs

from dcmsync.contract import Arrival
from dcmsync.errors import RemoteProtocolError
from dcmsync.net.arrivals import Arrivals
from dcmsync.net.channel import Begun, MessageEvent, Octets
from dcmsync.net.listener import Visit
from dcmsync.node import finding
from dcmsync.node.archive import Archive
from dcmsync.node.committing import RESOURCE_LIMITATION, Commitments, Pledge
from dcmsync.node.getting import Retrieval
from dcmsync.node.inbox import Inbox
from dcmsync.node.index import Depth, Image
from dcmsync.node.moving import Move, Route
from dcmsync.node.policy import FINDS, GETS, MOVES, PATIENT_ROOTS
from dcmsync.node.question import Question, Unanswerable, read
from dcmsync.node.suboperations import MAX_COMMENT
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import commitment, operations, status
from dcmsync.wire.dimse.command import Command

_NO_DESTINATION = 0xA801  # PS3.4 table C.4-2, refused: move destination unknown
_NO_INSTANCE, _NO_CLASS, _NO_ARGUMENT, _NO_ACTION = 0x0112, 0x0118, 0x0115, 0x0123  # PS3.7 §C.5
_GATHERED_OCTETS = 1 << 16
_GATHERED_PIECES = 256
_LOOK_EVERY_S = 0.1  # while something was pledged and not told
_GRACE_S = 1.0  # in which those who want to hear of commitment on another association will have left

Event = Mapping[str, object]


class Tally(Struct):
    """What happened on one association."""

    found: int = 0
    sent: int = 0
    stored: int = 0
    failed: int = 0


class House(Struct, frozen=True, kw_only=True):
    """What the services of all associations have in common. `routes` are by AE title; `tell` hears events."""

    archive: Archive
    own_ae: str
    routes: Mapping[str, Route]
    commitments: Commitments
    tell: Callable[[Event], None]


class Service:
    """Serves one visit."""

    def __init__(self, visit: Visit, house: House) -> None:
        self.tally = Tally()
        self._visit = visit
        self._channel = visit.channel
        self._guard = visit.channel.stream.guard
        self._house = house
        self._archive = house.archive
        self._inbox = Inbox(visit.channel)
        self._arrivals = Arrivals(visit.channel, house.archive, self._settle)
        self._pledges: list[tuple[int, Pledge]] = []  # that nobody was told yet, each with its context
        self._unanswered: list[Pledge] = []  # told here, and the peer has not answered
        self._last_id = 0

    async def run(self) -> None:
        """Answers until the peer leaves, or we are to end. Raises PeerError, LocalTrouble, ReleasedByPeer."""
        try:
            while not self._visit.is_ending:
                self._visit.is_idle = True
                self._guard.arm()
                event = await self._next()
                self._visit.is_idle = False
                self._guard.progress()
                if not isinstance(event, Begun):
                    raise RemoteProtocolError("sent a data set that belongs to nothing")
                await self._operation(event)
        finally:
            self._arrivals.drop("the association ended before the instance did")
            for pledge in (*self._unanswered, *(pledge for _, pledge in self._pledges)):
                self._house.commitments.deliver(pledge)

    async def _next(self) -> MessageEvent:
        """What the peer says next. While it says nothing, it is told what its commitments came to."""
        while self._pledges:
            with anyio.move_on_after(_LOOK_EVERY_S):
                return await self._inbox.next()
            await self._report()
        return await self._inbox.next()

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
                await self._inbox.instance(begun, self._arrivals)
            case commands.C_FIND_RQ if context.abstract_syntax in FINDS and request.has_data_set:
                await self._find(begun, request)
            case commands.C_GET_RQ if context.abstract_syntax in GETS and request.has_data_set:
                await self._get(begun, request)
            case commands.C_MOVE_RQ if context.abstract_syntax in MOVES and request.has_data_set:
                await self._move(begun, request)
            case commands.N_ACTION_RQ if context.abstract_syntax == commitment.PUSH_MODEL and request.has_data_set:
                await self._commit(begun, request)
            case _:
                if request.has_data_set:
                    await self._inbox.drop_data_set()
                await self._channel.say(begun.context_id, operations.respond(request, _plain_status(request.field)))

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
                identifier = finding.answer(index, thing, question, self._house.own_ae, syntax)
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

    async def _move(self, begun: Begun, request: Command) -> None:
        question = await self._question(begun, request, is_retrieval=True)
        if question is None:
            return
        destination = request.move_destination or ""
        route = self._house.routes.get(destination)
        if route is None:
            await self._refuse(begun, request, _NO_DESTINATION, "move destination unknown")
            self._moved(destination, 0, 0, "unknown")
            return
        move = Move(self._visit, self._inbox, self._archive, begun.context_id, request, route)
        images = self._images(question)
        try:
            await move.run(images)
        finally:
            self._moved(destination, move.taken, len(images) - move.taken, move.trouble.reason if move.trouble else "")

    def _moved(self, destination: str, sent: int, failed: int, reason: str) -> None:
        self.tally.sent += sent
        self.tally.failed += failed
        event = {"type": "move", "calling": self._visit.calling_ae, "destination": destination, "sent": sent,
                 "failed": failed}  # fmt: skip
        self._house.tell({**event, "reason": reason} if reason else event)

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
            await self._refuse(begun, request, why.code, why.words)
            return None

    async def _commit(self, begun: Begun, request: Command) -> None:
        """Takes a request for commitment; its result comes later."""
        octets = await self._inbox.identifier(self._channel.limits.max_identifier_octets)
        code, pledge = status.SUCCESS, None
        if request.action_type_id != commitment.REQUEST_COMMITMENT:
            code = _NO_ACTION
        elif request.requested_sop_instance_uid != commitment.PUSH_MODEL_INSTANCE:
            code = _NO_INSTANCE
        else:
            syntax = self._channel.contexts[begun.context_id].transfer_syntax
            try:
                asked = await anyio.to_thread.run_sync(commitment.decode_request, octets, syntax)
            except RemoteProtocolError:
                code = _NO_ARGUMENT
            else:
                pledge = self._house.commitments.begin(asked, self._visit.calling_ae)
                code = status.SUCCESS if pledge is not None else RESOURCE_LIMITATION
        if pledge is not None:
            self._pledges.append((begun.context_id, pledge))
        await self._channel.say(begun.context_id, operations.respond(request, code))

    async def _report(self) -> None:
        """Tells the peer what is ready, unless it can be told elsewhere and has not had the time to leave."""
        is_known = self._house.commitments.is_known(self._visit.calling_ae)
        latest = anyio.current_time() - (_GRACE_S if is_known else 0)
        for context_id, pledge in tuple(self._pledges):
            if pledge.report is None or pledge.asked_at > latest:
                continue
            self._pledges.remove((context_id, pledge))
            self._unanswered.append(pledge)
            self._last_id = self._last_id % 0xFFFF + 1
            conversation = commitment.event_report(self._last_id, pledge.report)
            self._inbox.expect(conversation, partial(self._answered, pledge))
            syntax = self._channel.contexts[context_id].transfer_syntax
            octets = commitment.encode_report(pledge.report, syntax)
            with anyio.CancelScope(shield=True):
                await self._channel.say(context_id, conversation.request, (octets,))

    def _answered(self, pledge: Pledge, code: int) -> None:
        self._unanswered.remove(pledge)
        self._house.commitments.answered(pledge, code)

    async def _refuse(self, begun: Begun, request: Command, code: int, words: str) -> None:
        refusal = structs.replace(operations.respond(request, code), error_comment=words[:MAX_COMMENT])
        await self._channel.say(begun.context_id, refusal)


def _plain_status(field: int) -> int:
    """The status of a request that no service takes up, C-ECHO being the one that needs none."""
    if field == commands.C_ECHO_RQ:
        return status.SUCCESS
    if field in (commands.C_FIND_RQ, commands.C_GET_RQ, commands.C_MOVE_RQ):
        return status.REFUSED_CLASS
    if field == commands.N_ACTION_RQ:
        return _NO_CLASS
    return status.UNRECOGNISED_OPERATION
