"""One series at a time, from a session to the lander: asked for, asked for again, and judged by what landed.

Owns the rounds: first the series as a whole, then what lacks by a list of UIDs, last one by one, so that an instance
that breaks a peer breaks it alone. Takes what was asked for, once, and nothing else. Refuses to judge by statuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import random
from typing import Generic, Protocol

import anyio

from dcmsync.contract import Arrival, Ask, Destination, Ending, Expected, JobT, Landed, Level, Session, Sink, Want
from dcmsync.errors import LocalTrouble, PeerError, Stalled, Unreachable
from dcmsync.plan.batch import batches
from dcmsync.transfer import retry
from dcmsync.transfer.lander import Lander
from dcmsync.transfer.ledger import Ledger

_OUT_OF_RESOURCES = 0xA700
_NOT_ASKED_FOR = 0xC000
_LOST_IN_A_ROW = 3  # single instances that may break the association one after another

Awaited = dict[str, "Waits"]
"""SOP Instance UID -> who took it and waits for its verdict. Shared by all that land on one destination."""


class Waits(Protocol):
    """Who waits for verdicts."""

    def landed(self, verdict: Landed) -> None:
        """One of theirs has its verdict."""


class Retrieval(Generic[JobT]):
    """Retrieves series over one session."""

    def __init__(
        self, session: Session, destination: Destination[JobT], lander: Lander[JobT], awaited: Awaited
    ) -> None:
        self._session = session
        self._destination = destination
        self._lander = lander
        self._awaited = awaited

    async def run(self, ledger: Ledger) -> None:
        """Gives every instance of the ledger its verdict, unless it raises PeerError or LocalTrouble first."""
        ending = Ending()
        stalls = 0
        for attempt in range(1, retry.ROUNDS + 1):
            try:
                if attempt > 1:
                    await anyio.sleep(retry.delay_s(attempt - 1, random()))
                    ledger.candidates = ()
                    await learn_classes(ledger, self._session)
                ending = await self._round(ledger, one_by_one=attempt == retry.ROUNDS)
            except PeerError as error:
                stalls += isinstance(error, Stalled)
                if attempt == retry.ROUNDS or stalls > 1 or not retry.is_worth_it(error):
                    raise
            if not ledger.lacking:
                return
        if ending.status:
            ledger.refuse_rest(f"{ledger.source}: the retrieval failed: {ending.why}", ending)
        else:
            ledger.missing_rest(f"{ledger.source}: the peer reported success, but did not send it")

    async def _round(self, ledger: Ledger, *, one_by_one: bool) -> Ending:
        """Asks once for all that lacks. Gives the peer's last word. Raises PeerError, LocalTrouble."""
        ending = Ending()
        lost = 0
        whole = not ledger.is_selection and len(ledger.lacking) == len(ledger.wanted)
        for lot, as_whole in batches(ledger.lacking, whole=whole, one_by_one=one_by_one):
            try:
                ending = await self._fetch(ledger, lot, whole=as_whole)
                lost = 0
            except PeerError as error:
                lost += 1
                if not one_by_one or isinstance(error, Unreachable | Stalled) or lost > _LOST_IN_A_ROW:
                    raise
                ledger.fail_one(next(iter(lot)), error)
        return ending

    async def _fetch(self, ledger: Ledger, lot: Mapping[str, str], *, whole: bool) -> Ending:
        receiving = Receiving(ledger, self._destination, self._lander, self._awaited)
        want = Want(
            study_uid=ledger.study_uid,
            series_uid=ledger.series_uid,
            instances=lot,
            whole=whole,
            classes=ledger.candidates,
        )
        try:
            return await self._session.fetch(want, receiving)
        finally:
            with anyio.CancelScope(shield=True):
                await receiving.settle()
            if receiving.trouble is not None:
                raise receiving.trouble


async def learn_classes(ledger: Ledger, session: Session) -> None:
    """Asks for the SOP class of each instance of the series that has not come yet. Raises PeerError."""
    found = await ask_classes(ledger, session, "")
    for uid in ledger.lacking:
        ledger.wanted[uid] = found.get(uid) or ledger.wanted[uid]


async def ask_classes(ledger: Ledger, session: Session, uid: str) -> dict[str, str]:
    """SOP Instance UID -> SOP Class UID, of one instance, or of the whole series for "". Raises PeerError."""
    above = {"StudyInstanceUID": ledger.study_uid, "SeriesInstanceUID": ledger.series_uid}
    ask = Ask(level=Level.INSTANCE, keys={**above, "SOPInstanceUID": uid}, wanted=("SOPClassUID",))
    found = {}
    async for answer in session.find(ask):
        if not isinstance(answer, Ending) and answer.get("SOPClassUID"):
            found[str(answer.get("SOPInstanceUID", uid))] = str(answer["SOPClassUID"])
    return found


class Receiving(Generic[JobT]):
    """The receiver of one retrieval (contract.Receiver)."""

    def __init__(
        self, ledger: Ledger, destination: Destination[JobT], lander: Lander[JobT], awaited: Awaited
    ) -> None:
        self.trouble: LocalTrouble | None = None
        self._ledger = ledger
        self._destination = destination
        self._lander = lander
        self._awaited = awaited
        self._came: Counter[str] = Counter()  # how often each UID came
        self._flying: Counter[str] = Counter()  # those whose verdict is still to come
        self._settled = anyio.Event()
        self._expected = Expected(study_uid=ledger.study_uid, series_uid=ledger.series_uid)

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink for what is wanted and lacking; a status for anything else."""
        uid = arrival.sop_instance_uid
        if self.trouble is not None:
            return _OUT_OF_RESOURCES
        is_new = uid not in self._awaited and self._ledger.lacks(uid)
        if not is_new and self._came[uid] != 1:  # a second one is looked at: it may be another; a third is not
            return _NOT_ASKED_FOR
        sink = self._destination.receive(arrival, self._expected)
        if isinstance(sink, int):
            self._ledger.refused(uid, "its UIDs are longer than the standard allows")
            return sink
        self._awaited[uid] = self
        self._came[uid] += 1
        self._flying[uid] += 1
        return _Watched(sink, lambda: self._settle(uid))

    async def room(self) -> None:
        """Waits for the disk, when it is behind. Raises LocalTrouble when it is beyond hope."""
        await self._lander.room()
        if self.trouble is not None:
            raise self.trouble

    def landed(self, verdict: Landed) -> None:
        """One of ours has its verdict."""
        self.trouble = self.trouble or verdict.trouble
        self._ledger.landed(verdict)
        self._settle(verdict.arrival.sop_instance_uid)

    async def settle(self) -> None:
        """Returns when everything that arrived has its verdict."""
        while self._flying:
            self._settled = anyio.Event()
            await self._settled.wait()

    def _settle(self, uid: str) -> None:
        self._flying[uid] -= 1
        if not self._flying[uid]:
            del self._flying[uid], self._awaited[uid]
        self._settled.set()


class _Watched:
    """A sink that tells when its instance was discarded."""

    def __init__(self, sink: Sink, dropped: Callable[[], None]) -> None:
        self._sink = sink
        self._dropped = dropped
        self.adopt = sink.adopt
        self.write = sink.write
        self.finish = sink.finish

    def discard(self, why: str) -> None:
        """Discards it, and says so."""
        self._sink.discard(why)
        self._dropped()
