"""One series at a time, from a session to the lander: asked for, asked for again, and judged by what landed.

Owns the rounds: first the series as a whole, then what lacks by a list of UIDs, last one by one, so that an instance
that breaks a peer breaks it alone. Takes what was asked for, once, and nothing else. Refuses to judge by statuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import random
from typing import Generic

import anyio
from msgspec.structs import replace

from dcmsync.contract import Arrival, Ask, Ending, Expected, JobT, Landed, Level, Session, Sink, Want
from dcmsync.errors import DcmsyncError, DestinationLost, LocalTrouble, PeerError, Stalled, Unasked, Unreachable
from dcmsync.plan.batch import batches
from dcmsync.quirks import quirks_of
from dcmsync.transfer import retry
from dcmsync.transfer.consignment import Consignment
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.target import Target

_OUT_OF_RESOURCES = 0xA700
_NOT_ASKED_FOR = 0xC000
_LOST_IN_A_ROW = 3  # single instances that may break the association one after another


def _ignore(octets: int) -> None:
    pass


class Retrieval(Generic[JobT]):
    """Retrieves series over one session, each for all targets. `congested` hears that the source is out of means."""

    def __init__(
        self, session: Session, targets: Sequence[Target[JobT]], *, congested: Callable[[], None] = lambda: None
    ) -> None:
        self.session = session
        self._targets = targets
        self._congested = congested
        self._landed: Callable[[int], None] = _ignore

    async def run(self, consignment: Consignment, landed: Callable[[int], None] = _ignore) -> None:
        """Gives every instance its verdict at every target; `landed` hears of each, with its octets.

        Else it raises PeerError, LocalTrouble, DestinationLost.
        """
        self._landed = landed
        ending = Ending()
        stalls = 0
        for attempt in range(1, retry.ROUNDS + 1):
            try:
                if attempt > 1:
                    await anyio.sleep(retry.delay_s(attempt - 1, random()))
                    consignment.candidates = ()
                    await learn_classes(consignment, self.session)
                ending = await self._round(consignment, one_by_one=attempt == retry.ROUNDS)
            except PeerError as error:
                stalls += isinstance(error, Stalled)
                if attempt == retry.ROUNDS or stalls > 1 or not retry.is_worth_it(error):
                    raise
            if not consignment.lacking:
                return
        if ending.status:
            consignment.refuse_rest(f"{consignment.source}: the retrieval failed: {ending.why}", ending)
        else:
            why = ending.why or "the peer reported success, but did not send it"
            consignment.missing_rest(f"{consignment.source}: {why}")

    async def _round(self, consignment: Consignment, *, one_by_one: bool) -> Ending:
        """Asks once for all that lacks. Gives the peer's last word. Raises PeerError, LocalTrouble."""
        ending = Ending()
        lost = 0
        lacking = consignment.lacking
        whole = not consignment.is_selection and len(lacking) == len(consignment.wanted)
        takes_lists = not quirks_of(self.session).no_uid_lists
        for lot, as_whole in batches(lacking, whole=whole, one_by_one=one_by_one, takes_lists=takes_lists):
            try:
                ending = await self._fetch(consignment, lot, whole=as_whole)
                lost = 0
                if ending.status >> 8 == _OUT_OF_RESOURCES >> 8:
                    self._congested()
            except PeerError as error:
                lost += 1
                if not one_by_one or isinstance(error, Unreachable | Stalled) or lost > _LOST_IN_A_ROW:
                    raise
                consignment.fail_one(next(iter(lot)), error)
        return ending

    async def _fetch(self, consignment: Consignment, lot: Mapping[str, str], *, whole: bool) -> Ending:
        reception = Reception(consignment, self._targets, self._landed)
        want = Want(
            study_uid=consignment.study_uid,
            series_uid=consignment.series_uid,
            instances=lot,
            whole=whole,
            classes=consignment.candidates,
            patient_id=consignment.patient_id,
        )
        try:
            return await self.session.fetch(want, reception)
        finally:
            with anyio.CancelScope(shield=True):
                await reception.settle()
            reception.check()


async def learn_classes(consignment: Consignment, session: Session) -> None:
    """Asks for the SOP class of each instance of the series that has not come yet. Raises PeerError."""
    found = await ask_classes(consignment, session, "")
    for uid in consignment.lacking:
        consignment.wanted[uid] = found.get(uid) or consignment.wanted[uid]


async def ask_classes(consignment: Consignment, session: Session, uid: str) -> dict[str, str]:
    """SOP Instance UID -> SOP Class UID, of one instance, or of the whole series for "". Raises PeerError.

    A place that cannot be asked tells none, and needs none.
    """
    above = {"StudyInstanceUID": consignment.study_uid, "SeriesInstanceUID": consignment.series_uid}
    ask = Ask(level=Level.INSTANCE, keys={**above, "SOPInstanceUID": uid}, wanted=("SOPClassUID",))
    found: dict[str, str] = {}
    try:
        async for answer in session.find(ask):
            if not isinstance(answer, Ending) and answer.get("SOPClassUID"):
                found[str(answer.get("SOPInstanceUID", uid))] = str(answer["SOPClassUID"])
    except Unasked:
        return {}
    return found


class Reception(Generic[JobT]):
    """The receiver of one retrieval (contract.Receiver): hands each instance to all targets that lack it."""

    def __init__(
        self, consignment: Consignment, targets: Sequence[Target[JobT]], landed: Callable[[int], None] = _ignore
    ) -> None:
        pairs = zip(consignment.ledgers, targets, strict=True)
        self._parts = [Receiving(consignment, ledger, target, landed) for ledger, target in pairs]

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink for what is wanted and lacking somewhere; a status for anything else."""
        taking: list[tuple[Receiving[JobT], Sink]] = []
        refusal = _NOT_ASKED_FOR
        for part in self._parts:
            sink = part.receive(arrival)
            if isinstance(sink, int):
                refusal = sink
            else:
                taking.append((part, sink))
        if not taking:
            return refusal
        return taking[0][1] if len(self._parts) == 1 else _Fan(taking)

    async def room(self) -> None:
        """Waits for the targets that are behind. Raises LocalTrouble, DestinationLost when all are beyond hope."""
        for part in self._parts:
            if part.trouble is None:
                await part.room()
        self._check_all()

    async def settle(self) -> None:
        """Returns when everything that arrived has its verdict."""
        for part in self._parts:
            await part.settle()

    def check(self) -> None:
        """Fails what lacks at targets in trouble. Raises LocalTrouble, DestinationLost when that is all of them."""
        for part in self._parts:
            if part.trouble is not None:
                part.target.give_up(part.trouble)
                part.ledger.fail_rest(part.trouble)
        self._check_all()

    def _check_all(self) -> None:
        troubles = [part.trouble for part in self._parts]
        if all(troubles) and troubles[0] is not None:
            raise DestinationLost(troubles[0]) if isinstance(troubles[0], PeerError) else troubles[0]


class Receiving(Generic[JobT]):
    """What one target takes of one retrieval."""

    def __init__(
        self, consignment: Consignment, ledger: Ledger, target: Target[JobT], landed: Callable[[int], None]
    ) -> None:
        assert target.takes is not None
        self.ledger = ledger
        self.target = target
        self.trouble: DcmsyncError | None = target.trouble
        self._consignment = consignment
        self._takes = target.takes
        self._tell = landed
        self._came: Counter[str] = Counter()  # how often each UID came
        self._flying: Counter[str] = Counter()  # those whose verdict is still to come
        self._settled = anyio.Event()
        self._expected = Expected(study_uid=ledger.study_uid, series_uid=ledger.series_uid)
        self._second = replace(self._expected, is_second=True)

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink for what is wanted and lacking; a status for anything else."""
        uid = arrival.sop_instance_uid
        if self.trouble is not None:
            return _OUT_OF_RESOURCES
        is_new = uid not in self.target.awaited and self.ledger.lacks(uid)
        if not is_new and self._came[uid] != 1:  # a second one is looked at: it may be another; a third is not
            return _NOT_ASKED_FOR
        is_second = uid in self.target.awaited or self.ledger.is_fine(uid)
        sink = self._takes.receive(arrival, self._second if is_second else self._expected)
        if isinstance(sink, int):
            self.ledger.refused(uid, "its UIDs are longer than the standard allows")
            return sink
        self.target.awaited[uid] = self
        self._came[uid] += 1
        self._flying[uid] += 1
        return _Watched(sink, self, uid)

    async def room(self) -> None:
        """Waits for the target, when it is behind."""
        await self.target.carrier.room()

    def landed(self, verdict: Landed) -> None:
        """One of ours has its verdict."""
        self.trouble = self.trouble or verdict.trouble
        self._consignment.landed(self.ledger, verdict)
        self._tell(verdict.size)
        self.dropped(verdict.arrival.sop_instance_uid)

    async def settle(self) -> None:
        """Returns when everything that arrived has its verdict."""
        while self._flying:
            self._settled = anyio.Event()
            await self._settled.wait()

    def dropped(self, uid: str) -> None:
        """Nothing more is to come of one arrival of this instance."""
        self._flying[uid] -= 1
        if not self._flying[uid]:
            del self._flying[uid], self.target.awaited[uid]
        self._settled.set()


class _Watched(Generic[JobT]):
    """A sink that tells when it is in trouble, and when its instance was discarded."""

    def __init__(self, sink: Sink, receiving: Receiving[JobT], uid: str) -> None:
        self._sink = sink
        self._receiving = receiving
        self._uid = uid
        self.finish = sink.finish

    def adopt(self) -> bool:
        """As the sink does."""
        try:
            return self._sink.adopt()
        except LocalTrouble as trouble:
            self._receiving.trouble = trouble
            raise

    def write(self, pieces: Sequence[memoryview]) -> None:
        """As the sink does."""
        try:
            self._sink.write(pieces)
        except LocalTrouble as trouble:
            self._receiving.trouble = trouble
            raise

    def discard(self, why: str) -> None:
        """Discards it, and says so."""
        self._sink.discard(why)
        self._receiving.dropped(self._uid)


class _Fan(Generic[JobT]):
    """One instance for several targets. Trouble at one of them ends it there, and nowhere else."""

    def __init__(self, taking: list[tuple[Receiving[JobT], Sink]]) -> None:
        self._taking = taking
        self._adopted: list[tuple[Receiving[JobT], Sink]] = []

    def adopt(self) -> bool:
        """Whether all of them could take it from its origin; those that could need no octets."""
        for part, sink in list(self._taking):
            try:
                if sink.adopt():
                    self._adopted.append((part, sink))
                    self._taking.remove((part, sink))
            except LocalTrouble as trouble:
                self._drop(part, sink, trouble)
        return not self._taking

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets. Raises LocalTrouble when no target takes any."""
        for part, sink in list(self._taking):
            try:
                sink.write(pieces)
            except LocalTrouble as trouble:
                self._drop(part, sink, trouble)
                if not (self._taking or self._adopted):
                    raise

    def finish(self) -> int:
        """The worst of their statuses."""
        return max((sink.finish() for _, sink in (*self._adopted, *self._taking)), default=_OUT_OF_RESOURCES)

    def discard(self, why: str) -> None:
        """Discards it everywhere. Idempotent."""
        for _, sink in (*self._adopted, *self._taking):
            sink.discard(why)
        self._adopted, self._taking = [], []

    def _drop(self, part: Receiving[JobT], sink: Sink, trouble: LocalTrouble) -> None:
        self._taking.remove((part, sink))
        sink.discard(trouble.message)
