"""Where the instances of our C-MOVEs arrive, and reports of storage commitment: one listener for a run (PS3.4 §C.4.2).

Owns the listening, and the match of each arriving instance with the C-MOVE that asked for it: by the address it comes
from, the title it calls us by, its SOP Instance UID and, where two wait for the same one, the Move Originator's Message
ID (PS3.7 §9.1.1.1); and of each report with who awaits it, by address, title and Transaction UID (PS3.4 §J.3.3), which
nobody can guess. Refuses everything else, and counts it: with C-MOVE, anyone who can reach the port can send
anything. Where it is secured nobody is heard in plain. Refuses to know what becomes of instances; a claim's receiver
does.

Theory of operation: a C-MOVE lays claim to its instances before it is said, and lets go of them when it is over; while
there is no claim, nobody is admitted. Payload that arrives for a claim is progress of the association that said the
C-MOVE, too, since many peers say nothing on it until the end; and where we make the sender wait for our disk, that
association is not held to its deadline either.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

import anyio
from msgspec import Struct

from dcmsync.contract import Arrival, Receiver, Sink
from dcmsync.errors import DcmsyncError, Insecure, PeerError, RemoteProtocolError
from dcmsync.net.arrivals import Arrivals
from dcmsync.net.channel import Begun, Limits
from dcmsync.net.listener import Listener, Visit
from dcmsync.net.listener import Settings as ListenerSettings
from dcmsync.net.patience import Guard, Watch
from dcmsync.net.reports import Reports
from dcmsync.net.tls import Secure
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.commitment import PUSH_MODEL, Report
from dcmsync.wire.dimse.storage import is_storage
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import AssociateAccept, AssociateReject, AssociateRequest

NOT_ASKED_FOR = 0xC000
UNKNOWN_TRANSACTION = 0x0115  # PS3.7 §C.4.2, invalid argument value
CALLED_NOT_RECOGNISED = AssociateReject(1, 1, 7)  # PS3.8 table 9-21: permanent, service-user
_PLAIN = (contexts.EXPLICIT_LITTLE, contexts.IMPLICIT_LITTLE)
_UNRECOGNISED = 0x0211  # PS3.7 §C.5.9, unrecognised operation
_MAX_ASSOCIATIONS = 64


class Expectation(Struct, frozen=True, kw_only=True):
    """What one C-MOVE will bring: `instances` are SOP Instance UIDs, `hosts` the addresses that may send them.

    `destination_ae` is the Move Destination, `message_id` that of the C-MOVE request.
    """

    hosts: frozenset[str]
    destination_ae: str
    message_id: int
    instances: Collection[str]


class Claim:
    """One C-MOVE in progress, and what has come of it.

    `came`: UIDs of what arrived to its end, or was refused. `trouble`: the receiver's; `scope` is cancelled with it.
    """

    def __init__(self, expectation: Expectation, receiver: Receiver, guard: Guard) -> None:
        self.expectation = expectation
        self.receiver = receiver
        self.came: set[str] = set()
        self.trouble: DcmsyncError | None = None
        self.scope = anyio.CancelScope()
        self.is_answered = False  # the final answer to the C-MOVE has come: its association owes us nothing
        self._guard = guard
        self._pauses = 0
        self._arriving: set[_Parcel] = set()
        self._changed = anyio.Event()

    @property
    def is_arriving(self) -> bool:
        """Whether an instance has begun to arrive, and not ended."""
        return bool(self._arriving)

    async def change(self) -> None:
        """Returns when an instance has begun or ended."""
        self._changed = anyio.Event() if self._changed.is_set() else self._changed
        await self._changed.wait()

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink for an instance, or the status to refuse it with. Raises what the receiver does."""
        taken = self.receiver.receive(arrival)
        if isinstance(taken, int):
            self.came.add(arrival.sop_instance_uid)
            self._changed.set()
            return taken
        parcel = _Parcel(self, taken, arrival.sop_instance_uid)
        self._arriving.add(parcel)
        self._changed.set()
        return parcel

    async def room(self) -> None:
        """Waits for our disk. That is not the peer's time. Raises what the receiver does."""
        if self.is_answered:
            await self.receiver.room()
            return
        self._pauses += 1
        self._guard.pause()
        try:
            await self.receiver.room()
        finally:
            self._pauses -= 1
            if not self._pauses and not self.is_answered:
                self._guard.resume()

    def fail(self, trouble: DcmsyncError) -> None:
        """Who receives is in trouble: the C-MOVE had better end."""
        self.trouble = self.trouble or trouble
        self.scope.cancel()

    def advanced(self, octets: int) -> None:
        """Payload has come."""
        self._guard.octets += octets

    def ended(self, parcel: _Parcel, *, is_whole: bool) -> None:
        """An instance arrived to its end, or will not."""
        self._arriving.discard(parcel)
        if is_whole:
            self.came.add(parcel.sop_instance_uid)
            self._guard.progress()
        self._changed.set()

    def withdraw(self) -> None:
        """Nothing more is taken; what is arriving is discarded."""
        for parcel in tuple(self._arriving):
            parcel.discard("the retrieval ended before the instance did")


class _Parcel:
    """A sink that tells the claim."""

    def __init__(self, claim: Claim, sink: Sink, sop_instance_uid: str) -> None:
        self.sop_instance_uid = sop_instance_uid
        self._claim = claim
        self._sink: Sink | None = sink

    def adopt(self) -> bool:
        """Its octets are needed."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes octets, as the sink does; none once it was discarded. Raises LocalTrouble, RemoteProtocolError."""
        if self._sink is not None:
            self._claim.advanced(sum(map(len, pieces)))
            self._sink.write(pieces)

    def finish(self) -> int:
        """As the sink does."""
        if self._sink is None:
            return NOT_ASKED_FOR
        sink, self._sink = self._sink, None
        code = sink.finish()
        self._claim.ended(self, is_whole=True)
        return code

    def discard(self, why: str) -> None:
        """Discards it, and says so."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.discard(why)
            self._claim.ended(self, is_whole=False)


class Promise:
    """A report that is awaited, of the transaction with that UID; `hosts` are the addresses that it may come from."""

    def __init__(self, transaction_uid: str, *, own_ae: str, hosts: frozenset[str]) -> None:
        self.transaction_uid = transaction_uid
        self.own_ae = own_ae
        self.hosts = hosts
        self.report: Report | None = None
        self._come = anyio.Event()

    def keep(self, report: Report) -> None:
        """It came. One that comes again says nothing new."""
        self.report = self.report or report
        self._come.set()

    async def come(self) -> None:
        """Returns when it has come."""
        await self._come.wait()


class Mailbox:
    """The listener of a run. `refused` counts instances that nobody had asked for, `strangers` calls by address, and
    `misfits` those of peers that do not speak as the port does, by address and fault.
    """

    def __init__(self, host: str, port: int, *, limits: Limits, watch: Watch, secure: Secure | None = None) -> None:
        """Binds; `host` is "" for all addresses of this machine. With `secure` all must speak TLS. Raises LocalTrouble.
        """
        self.refused = 0
        self.strangers: Counter[str] = Counter()
        self.misfits: Counter[str] = Counter()
        self.is_secured = secure is not None
        self._claims: list[Claim] = []
        self._promises: dict[str, Promise] = {}
        self._last_id = 0
        self._max_pdu_octets = limits.max_pdu_octets
        self._listener = Listener(
            ListenerSettings(
                host=host or _everywhere(),
                port=port,
                decide=self._decide,
                admits=self._admits,
                serve=self._serve,
                turned_away=self._turned_away,
                max_associations=_MAX_ASSOCIATIONS,
                secure=secure,
            ),
            limits,
            watch,
        )
        self.port = self._listener.port

    async def run(self) -> None:
        """Listens until it is cancelled."""
        await self._listener.run()

    def close(self) -> None:
        """Closes the socket that listens. Idempotent."""
        self._listener.close()

    def next_id(self) -> int:
        """A Message ID that no other C-MOVE of this run has at this time."""
        self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id

    @contextmanager
    def claim(self, expectation: Expectation, receiver: Receiver, guard: Guard) -> Iterator[Claim]:
        """Admits what is expected, for as long as the body runs. `guard`: of the association that says the C-MOVE."""
        claim = Claim(expectation, receiver, guard)
        self._claims.append(claim)
        try:
            yield claim
        finally:
            self._claims.remove(claim)
            claim.withdraw()

    def expect(self, promise: Promise) -> None:
        """Admits its report, until it is forgotten."""
        self._promises[promise.transaction_uid] = promise

    def forget(self, promise: Promise) -> None:
        """Its report is not awaited any more."""
        self._promises.pop(promise.transaction_uid, None)

    def heard(self, report: Report, address: str, called_ae: str) -> int:
        """Hands a report to who awaits it: the status to answer it with."""
        promise = self._promises.get(report.transaction_uid)
        if promise is None or address not in promise.hosts or called_ae != promise.own_ae:
            return UNKNOWN_TRANSACTION
        promise.keep(report)
        return status.SUCCESS

    def _admits(self, host: str) -> bool:
        address = plain_address(host)
        is_expected = any(address in claim.expectation.hosts for claim in self._claims)
        is_expected = is_expected or any(address in promise.hosts for promise in self._promises.values())
        if not is_expected:
            self.strangers[address] += 1
        return is_expected

    def _decide(self, request: AssociateRequest) -> AssociateAccept | AssociateReject:
        """Whoever was asked may store what it likes to propose, in the syntaxes that it prefers; or report."""
        stores = any(request.called_ae == claim.expectation.destination_ae for claim in self._claims)
        reports = any(request.called_ae == promise.own_ae for promise in self._promises.values())
        if not (stores or reports):
            return CALLED_NOT_RECOGNISED
        syntaxes_of: dict[str, tuple[str, ...]] = {operations.VERIFICATION: _PLAIN}
        if reports:
            syntaxes_of[PUSH_MODEL] = _PLAIN
        for context in request.contexts:
            if stores and is_storage(context.abstract_syntax):
                known = syntaxes_of.get(context.abstract_syntax, ())
                syntaxes_of[context.abstract_syntax] = (*known, *context.transfer_syntaxes)
        results, roles = contexts.answer(request, syntaxes_of)
        return AssociateAccept(
            called_ae=request.called_ae,
            calling_ae=request.calling_ae,
            results=results,
            roles=roles,
            max_pdu_octets=self._max_pdu_octets,
        )

    def _turned_away(self, name: str, why: Exception) -> None:
        """Remembers who came in plain to a port with TLS, or the other way round, or with the wrong certificate."""
        if isinstance(why, Insecure | RemoteProtocolError):
            self.misfits[f"{plain_address(name.rpartition(':')[0])}: {why.message.removeprefix(name + ': ')}"] += 1

    async def _serve(self, visit: Visit) -> None:
        await _Delivery(visit, self._claim_for, self._count_refused, self.heard).run()

    def _claim_for(self, visit: Visit, request: commands.Command) -> Claim | None:
        """The claim that an instance answers; where several wait for it, the one that its Message ID names."""
        address = plain_address(visit.host)
        found = [
            claim
            for claim in self._claims
            if request.sop_instance_uid in claim.expectation.instances
            and address in claim.expectation.hosts
            and visit.request.called_ae == claim.expectation.destination_ae
        ]
        named = [claim for claim in found if claim.expectation.message_id == request.originator_message_id]
        lacking = [claim for claim in found if request.sop_instance_uid not in claim.came]
        return next(iter(named or lacking or found), None)

    def _count_refused(self) -> None:
        self.refused += 1


class _Delivery:
    """One association that brings instances; satisfies `contract.Receiver` for all of its C-STOREs."""

    def __init__(
        self,
        visit: Visit,
        claim_for: Callable[[Visit, commands.Command], Claim | None],
        refused: Callable[[], None],
        heard: Callable[[Report, str, str], int],
    ) -> None:
        self._visit = visit
        self._channel = visit.channel
        self._claim_for = claim_for
        self._refused = refused
        self._claim: Claim | None = None  # of the instance that has begun last
        self._arrivals = Arrivals(visit.channel, self)
        address = plain_address(visit.host)
        self._reports = Reports(visit.channel, lambda report: heard(report, address, visit.request.called_ae))

    async def run(self) -> None:
        """Takes what comes until the peer leaves. Raises PeerError, ReleasedByPeer, what receivers do."""
        try:
            while True:
                for event in await self._channel.messages():
                    if not isinstance(event, Begun):
                        (self._reports if self._reports.is_hearing else self._arrivals).take(event)
                    elif event.command.field == commands.N_EVENT_REPORT_RQ:
                        self._reports.begin(event)
                    elif event.command.field == commands.C_STORE_RQ:
                        self._claim = self._claim_for(self._visit, event.command)
                        self._arrivals.begin(event)
                    else:
                        await self._answer(event)
                await self._reports.reply()
                if self._arrivals.replies:
                    await self._arrivals.reply()
        except DcmsyncError as trouble:
            if self._claim is not None and not isinstance(trouble, PeerError):
                self._claim.fail(trouble)
            raise
        finally:
            self._arrivals.drop("the association ended before the instance did")

    def receive(self, arrival: Arrival) -> Sink | int:
        """Hands the instance to who claims it."""
        if self._claim is None:
            self._refused()
            return NOT_ASKED_FOR
        return self._claim.receive(arrival)

    async def room(self) -> None:
        """Waits for the disk that the last instance goes to."""
        if self._claim is not None:
            await self._claim.room()

    async def _answer(self, begun: Begun) -> None:
        """C-ECHO is answered; nothing else is asked of us here."""
        request = begun.command
        if request.field & 0x8000 or request.message_id is None or request.has_data_set:
            raise RemoteProtocolError("sent a message that is no C-STORE request")
        is_echo = request.field == commands.C_ECHO_RQ
        reply = operations.respond(request, status.SUCCESS if is_echo else _UNRECOGNISED)
        await self._channel.say(begun.context_id, reply)


def plain_address(host: str) -> str:
    """An address in one spelling: an IPv4 address that came by an IPv6 socket is an IPv4 address."""
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _everywhere() -> str:
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # strangers are turned away
