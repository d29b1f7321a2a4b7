"""What takes parcels to a remote destination: parcels come in, verdicts come out, memory stays bounded.

Theory of operation. Sinks finish in the event loop and put their parcel here. Up to as many senders as the fleet allows
send what waits, each over a session of its own; a further one begins when more waits than the others can take soon. A
sender makes its session ready before it takes a parcel, so that a place that lets only one association in keeps no
parcel waiting; it prefers parcels that its association can carry, and gives its session back when a question waits.

Two levels of trying again. A parcel that is refused for now (0xA7xx) is tried again after a pause in which nothing is
sent, for the place is short of something. One whose association breaks is tried again on another. One that breaks two
is poison: it is tried last, when nothing else waits, on an association of its own, and fails if that breaks too. When
association after association breaks, or the place is out of resources however long the pause, or cannot be reached,
it is given up: all that waits fails, and so does all that comes.

A place that takes several parcels in one delivery (contract.StoresTogether) gets what waits, as much as fits. Each has
an answer of its own; when a delivery breaks, its parcels are tried again alone, before any of them is called poison.

`room` keeps sources waiting while more is in flight than allowed: octets in memory or in files of ours, and open files.
One thread of control: no locks.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from random import random
from typing import Literal

import anyio
import anyio.abc
import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from dcmsync.contract import Arrival, Ending, Holds, Landed, Parcel, Stores, StoresTogether, Together
from dcmsync.errors import (
    DcmsyncError,
    LocalTrouble,
    OutOfResources,
    PeerError,
    Refused,
    Rejected,
    Stalled,
    Unreachable,
)
from dcmsync.transfer import retry
from dcmsync.transfer.fleet import Fleet

QUICK_OCTETS = 64 << 10  # a parcel up to this size is looked at in the event loop
_LOOK_AHEAD = 64  # how far a sender looks for a parcel that its association can carry
_OVERTAKEN = 1000  # how often a parcel may be overtaken
_KINDS = 1000  # pairs of SOP class and transfer syntax that are remembered


Readiness = Literal["now", "later", "never"]
"""Whether a session can be sent over: at once, after a pause, or not by this sender."""


class Settings(Struct, frozen=True, kw_only=True):
    """How much may be in flight, and how patient to be."""

    octets: int = 64 << 20  # in memory, or in files of ours
    parcels: int = 128  # each may be an open file
    tries: int = 5  # of a parcel that is refused for now
    refusals: int = 9  # in a row, before the place is given up: half a minute
    breaks: int = 30  # associations that broke in a row, likewise
    calls: int = retry.PATIENCE  # of a place that was there, and cannot be reached


class Courier:
    """Sends parcels over the sessions of a fleet. `landed` hears each verdict, in the event loop."""

    def __init__(self, fleet: Fleet, landed: Callable[[Landed], None], settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
        self._fleet = fleet
        self._landed = landed
        self._settings = settings
        self._tasks: anyio.abc.TaskGroup | None = None
        self._waiting: deque[Parcel] = deque()
        self._poison: deque[Parcel] = deque()
        self._idle: list[anyio.Event] = []
        self._senders: set[anyio.CancelScope] = set()
        self._flying: set[str] = set()  # the UIDs of what is in flight
        self._seconds: dict[str, Parcel] = {}  # what waits for the first of its UID
        self._kinds: dict[tuple[str, str], Arrival] = {}  # what has come, the latest last
        self._in_flight_octets = 0
        self._in_flight_parcels = 0
        self._less: anyio.Event | None = None
        self._breaks_of: Counter[str] = Counter()
        self._tries_of: Counter[str] = Counter()
        self._breaks = self._refusals = self._calls = self._overtaken = 0
        self._calm_at = 0.0
        self._carrying = 0  # senders that have an association
        self._trouble: DcmsyncError | None = None

    # For who has parcels

    def take(self, parcel: Parcel) -> None:
        """A parcel has arrived whole."""
        self._in_flight_parcels += 1
        self._in_flight_octets += 0 if parcel.stamp is not None else parcel.size
        kind = parcel.arrival.sop_class_uid, parcel.arrival.transfer_syntax_uid
        if kind not in self._kinds:
            self._kinds[kind] = parcel.arrival
            if len(self._kinds) > _KINDS:
                del self._kinds[next(iter(self._kinds))]
        uid = parcel.arrival.sop_instance_uid
        if parcel.is_second and uid in self._flying:
            self._seconds[uid] = parcel
            return
        self._flying.add(uid)
        if self._trouble is not None:
            self._fail(parcel, self._trouble)
            return
        self._waiting.append(parcel)
        self._call()

    async def room(self) -> None:
        """Returns when there is room for more."""
        if not self._is_full(1):
            return
        while self._is_full(2):  # to wake for each parcel that leaves would cost more than it is worth
            self._less = self._less or anyio.Event()
            await self._less.wait()

    async def settle(self) -> None:
        """Returns when everything that came has its verdict."""
        while self._in_flight_parcels:
            self._less = self._less or anyio.Event()
            await self._less.wait()

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begins to send."""
        self._tasks = tasks

    def stop(self) -> None:
        """Ends the senders. Nothing is in flight, or the run is being aborted."""
        self._tasks = None
        for scope in list(self._senders):
            scope.cancel()

    def abandon(self) -> None:
        """Lets go of what waits, without sending it."""
        while self._waiting or self._poison:
            parcel = (self._waiting or self._poison).popleft()
            self._done(parcel, _lost(parcel.arrival))

    # Senders

    def _call(self) -> None:
        """Has somebody see to what waits."""
        if self._idle:
            self._idle.pop().set()
        elif self._tasks is not None and self._wants_more(len(self._senders)):
            scope = anyio.CancelScope()
            self._senders.add(scope)
            self._tasks.start_soon(self._send, scope)

    def _wants_more(self, senders: int) -> bool:
        """Whether one more sender would be of use, and is allowed."""
        return not senders or (senders < self._fleet.most and len(self._waiting) > 2 * senders)

    async def _send(self, scope: anyio.CancelScope) -> None:
        """One sender."""
        try:
            with scope:
                goes_on = True
                while goes_on and await self._has_work():
                    session = await self._fleet.take()
                    try:
                        goes_on = await self._send_over(session)
                    finally:
                        self._fleet.give(session)
        finally:
            self._senders.discard(scope)
        if not self._senders and (self._waiting or self._poison):
            self._call()

    async def _has_work(self) -> bool:
        while not (self._waiting or self._poison):
            come = anyio.Event()
            self._idle.append(come)
            try:
                await come.wait()
            finally:
                if come in self._idle:
                    self._idle.remove(come)
        return True

    async def _send_over(self, session: Holds) -> bool:
        """Sends while there is something to send, and nobody else needs the session. False to send no more."""
        is_carrying = False
        deliver = partial(self._deliver, session)
        if isinstance(session, StoresTogether):
            deliver = partial(self._deliver_together, session)
        try:
            while (self._waiting or self._poison) and not self._fleet.is_wanted:
                if self._waiting and is_carrying and session.is_ready_for(self._waiting[0].arrival):
                    self._overtaken = 0
                    await deliver(self._waiting.popleft())  # hot: the way of nearly all
                    continue
                if self._calm_at:
                    await self._be_calm()
                    continue
                index = self._ready_ahead(session)
                if index is not None:
                    self._carrying += not is_carrying
                    is_carrying = True
                    await deliver(self._overtaking(index))
                    continue
                self._carrying -= is_carrying
                is_carrying = False
                readiness = await self._prepare(session) if self._waiting else await self._send_poison(session)
                if readiness == "never":
                    return False
                is_carrying = readiness == "now"
                self._carrying += is_carrying
            return self._fleet.lent <= self._fleet.most
        finally:
            self._carrying -= is_carrying

    async def _prepare(self, session: Holds, poison: Parcel | None = None) -> Readiness:
        """Makes a session ready for what waits, or for one parcel; nothing that waits is taken for it."""
        kinds = [parcel.arrival for parcel in ([poison] if poison is not None else self._waiting)]
        try:
            await session.prepare([*kinds, *reversed(self._kinds.values())])
        except PeerError as error:
            is_one_too_many = isinstance(error, Rejected) and error.transient and self._fleet.lent > 1
            if self._carrying or is_one_too_many:  # several that try again together may all be rejected again
                self._fleet.shrink()
                return "never"
            self._calls += 1
            is_hopeless = isinstance(error, Rejected) and not error.transient
            is_hopeless = is_hopeless or (isinstance(error, Unreachable) and not self._fleet.has_worked)
            if is_hopeless or self._calls >= self._settings.calls:
                self._give_up(error)
                return "never"
            await self._fleet.rest()  # an association that nobody uses may be the only one that it grants
            self._pause(self._calls)
            return "later"
        self._calls = 0
        return "now"

    async def _send_poison(self, session: Holds) -> Readiness:
        """Tries a parcel that broke associations once more, on one of its own."""
        parcel: Parcel | None = self._poison.popleft()
        assert parcel is not None
        try:
            await session.rest()
            readiness = await self._prepare(session, parcel)
            if readiness == "now":
                poison, parcel = parcel, None
                await self._deliver(session, poison)
            return "later" if readiness == "now" else readiness
        finally:
            if parcel is not None:
                self._put_back(self._poison, parcel)

    def _overtaking(self, index: int) -> Parcel:
        """Takes a parcel before those that wait in front of it."""
        self._overtaken += 1
        self._waiting.rotate(-index)
        parcel = self._waiting.popleft()
        self._waiting.rotate(index)
        return parcel

    def _put_back(self, queue: deque[Parcel], parcel: Parcel) -> None:
        """A parcel waits again, unless nothing more is sent."""
        if self._trouble is not None:
            self._fail(parcel, self._trouble)
        else:
            queue.appendleft(parcel)

    def _ready_ahead(self, session: Holds) -> int | None:
        """Where a parcel waits that a session can carry now; None too when the first one has waited long enough."""
        if self._overtaken >= _OVERTAKEN:
            return None
        for index, parcel in enumerate(self._waiting):
            if index >= _LOOK_AHEAD:
                return None
            if session.is_ready_for(parcel.arrival):
                return index
        return None

    # One parcel

    async def _deliver(self, session: Stores, parcel: Parcel) -> None:
        """Sends one parcel; it has its verdict afterwards, or waits again."""
        is_settled = False
        try:
            verdict = Landed(arrival=parcel.arrival, outcome="stored", size=parcel.size)
            if parcel.check is not None:
                is_quick = parcel.size <= QUICK_OCTETS
                verdict = parcel.check() if is_quick else await anyio.to_thread.run_sync(parcel.check)
            if verdict.outcome == "stored":
                again, verdict = self._judged(parcel, verdict, await session.store(parcel))
                if again:
                    is_settled = True
                    self._put_back(self._waiting, parcel)
                    return
            is_settled = True
            self._done(parcel, verdict)
        except Refused as error:  # it does not take such instances
            is_settled = True
            self._done(parcel, _failed(parcel.arrival, error))
        except LocalTrouble as error:  # of one file: it was cut, or changed
            is_settled = True
            self._done(parcel, _failed(parcel.arrival, error))
        except PeerError as error:
            is_settled = True
            self._broke(parcel, error)
        finally:
            if not is_settled:  # whoever waits for a verdict must get one, or the run would never end
                self._done(parcel, _lost(parcel.arrival))

    # Several parcels

    async def _deliver_together(self, session: StoresTogether, first: Parcel) -> None:
        """Sends a parcel with those that wait behind it; each has its verdict afterwards, or waits again."""
        if first.arrival.sop_instance_uid in self._breaks_of:  # in company, it broke a delivery
            await self._deliver(session, first)
            return
        unsettled = self._fitting(first, session.together)
        try:
            looked = list(zip(unsettled, await _looked_at(unsettled), strict=True))
            going = [(parcel, verdict) for parcel, verdict in looked if verdict.outcome == "stored"]
            unsettled = [parcel for parcel, _ in going]
            for parcel, verdict in looked:
                if verdict.outcome != "stored":
                    self._done(parcel, verdict)
            answers = await session.store_together(unsettled) if unsettled else ()
            unsettled = []
            self._settle(going, answers)
        except PeerError as error:
            broken, unsettled = unsettled, []
            self._broke_together(broken, error)
        finally:
            for parcel in unsettled:  # as above
                self._done(parcel, _lost(parcel.arrival))

    def _fitting(self, first: Parcel, most: Together) -> list[Parcel]:
        """A parcel, and those behind it that fit the same delivery; what broke one goes alone."""
        parcels, octets = [first], first.size
        while self._waiting and len(parcels) < most.parcels:
            octets += self._waiting[0].size
            if octets > most.octets or self._waiting[0].arrival.sop_instance_uid in self._breaks_of:
                break
            parcels.append(self._waiting.popleft())
        return parcels

    def _settle(self, going: Sequence[tuple[Parcel, Landed]], answers: Sequence[Ending | LocalTrouble]) -> None:
        """Judges each parcel of a delivery by its own answer."""
        again: list[Parcel] = []
        has_complained = False
        for (parcel, verdict), answer in zip(going, answers, strict=True):
            if isinstance(answer, LocalTrouble):
                self._done(parcel, _failed(parcel.arrival, answer))
                continue
            is_tried_again, verdict = self._judged(parcel, verdict, answer, is_same_complaint=has_complained)
            has_complained = has_complained or answer.may_pass
            if is_tried_again:
                again.append(parcel)
            else:
                self._done(parcel, verdict)
        for parcel in reversed(again):
            self._put_back(self._waiting, parcel)

    def _broke_together(self, parcels: Sequence[Parcel], error: PeerError) -> None:
        """A delivery broke: whose fault it is shows when each goes alone."""
        if len(parcels) == 1:
            self._broke(parcels[0], error)
            return
        self._breaks += 1
        for parcel in parcels:
            self._breaks_of[parcel.arrival.sop_instance_uid] += 1
        if self._breaks >= self._settings.breaks or _is_final(error):
            self._give_up(error)
        for parcel in reversed(parcels):
            self._put_back(self._waiting, parcel)
        if self._breaks > 1 and self._trouble is None:
            self._pause(min(self._breaks - 1, 4))

    # Verdicts

    def _judged(
        self, parcel: Parcel, verdict: Landed, ending: Ending, *, is_same_complaint: bool = False
    ) -> tuple[bool, Landed]:
        """What an answer of the place makes of a parcel; true when it is to be tried again.

        `is_same_complaint`: another parcel of this delivery was refused for now, too.
        """
        self._breaks = 0
        self._fleet.has_worked = True
        uid = parcel.arrival.sop_instance_uid
        if not ending.status:
            self._refusals = 0
            if self._fleet.pace.done(parcel.size):
                self._look()
            return False, verdict
        if ending.is_warning:
            self._refusals = 0
            return False, replace(verdict, reason="warning", message=ending.why, status=ending.status)
        if ending.may_pass:
            self._fleet.pace.congested(anyio.current_time())
            self._refusals += not is_same_complaint
            self._tries_of[uid] += 1
            if self._refusals >= self._settings.refusals:
                self._give_up(OutOfResources(ending.why, status=ending.status))
            elif self._trouble is None and self._tries_of[uid] < self._settings.tries:
                self._pause(self._refusals)
                return True, verdict
        failed = Landed(arrival=parcel.arrival, outcome="failed", reason="refused", message=ending.why)
        return False, replace(failed, status=ending.status, may_pass=ending.may_pass, trouble=self._trouble)

    def _look(self) -> None:
        """Sees whether more senders would be of use."""
        pace, size = self._fleet.pace, self._fleet.most
        pace.look(anyio.current_time(), is_busy=self._carrying >= size and len(self._waiting) > 2 * size)
        for _ in range(size, pace.size):
            self._call()

    def _broke(self, parcel: Parcel, error: PeerError) -> None:
        """An association broke while a parcel was sent."""
        uid = parcel.arrival.sop_instance_uid
        self._breaks_of[uid] += 2 if isinstance(error, Stalled) and not self._breaks_of[uid] else 1
        self._breaks += 1
        if self._breaks >= self._settings.breaks or _is_final(error):
            self._give_up(error)
        elif self._breaks_of[uid] == 1:
            self._waiting.appendleft(parcel)
        elif self._breaks_of[uid] == 2:
            self._poison.append(parcel)
        if self._trouble is not None or self._breaks_of[uid] > 2:
            self._done(parcel, replace(_failed(parcel.arrival, error), trouble=self._trouble))
        elif self._breaks > 1:
            self._pause(min(self._breaks - 1, 4))

    def _done(self, parcel: Parcel, verdict: Landed) -> None:
        if parcel.descriptor >= 0:
            os.close(parcel.descriptor)
        self._in_flight_parcels -= 1
        self._in_flight_octets -= 0 if parcel.stamp is not None else parcel.size
        if self._less is not None and (not self._is_full(2) or not self._in_flight_parcels):
            less, self._less = self._less, None
            less.set()
        if self._tries_of or self._breaks_of:
            del self._tries_of[parcel.arrival.sop_instance_uid], self._breaks_of[parcel.arrival.sop_instance_uid]
        self._flying.discard(parcel.arrival.sop_instance_uid)
        self._landed(verdict)
        second = self._seconds.pop(parcel.arrival.sop_instance_uid, None) if self._seconds else None
        if second is not None:
            self._follow(second, verdict)

    def _follow(self, second: Parcel, first: Landed) -> None:
        """The first of a UID has its verdict: the second is looked at, or shares its fate."""
        if first.outcome in ("stored", "present"):
            self._in_flight_parcels -= 1
            self._in_flight_octets -= 0 if second.stamp is not None else second.size
            self.take(second)
        else:
            self._done(second, replace(first, arrival=second.arrival))

    # The place

    def _is_full(self, share: int) -> bool:
        """Whether a part of what may be in flight is: all of it (1), or half (2)."""
        settings = self._settings
        return self._in_flight_parcels > settings.parcels // share or self._in_flight_octets > settings.octets // share

    def _pause(self, attempt: int) -> None:
        """Nothing is sent for a while."""
        self._calm_at = anyio.current_time() + retry.delay_s(attempt, random())

    async def _be_calm(self) -> None:
        until = self._calm_at
        await anyio.sleep(max(0.0, until - anyio.current_time()))
        if self._calm_at == until:
            self._calm_at = 0.0

    def _give_up(self, trouble: DcmsyncError) -> None:
        """The place takes no more."""
        self._trouble = self._trouble or trouble
        while self._waiting or self._poison:
            self._fail((self._waiting or self._poison).popleft(), self._trouble)

    def _fail(self, parcel: Parcel, trouble: DcmsyncError) -> None:
        status = trouble.status if isinstance(trouble, Refused) else 0
        self._done(parcel, replace(_failed(parcel.arrival, trouble), status=status, trouble=trouble))


async def _looked_at(parcels: Sequence[Parcel]) -> list[Landed]:
    """What looking at each parcel says, before any is sent."""
    octets = sum(parcel.size for parcel in parcels if parcel.check is not None)
    if octets <= QUICK_OCTETS:
        return [_look_at(parcel) for parcel in parcels]
    return await anyio.to_thread.run_sync(lambda: [_look_at(parcel) for parcel in parcels])


def _look_at(parcel: Parcel) -> Landed:
    if parcel.check is not None:
        return parcel.check()
    return Landed(arrival=parcel.arrival, outcome="stored", size=parcel.size)


def _is_final(error: PeerError) -> bool:
    """Whether the place said that it lets us deliver nothing."""
    return isinstance(error, Rejected) and not error.transient


def _failed(arrival: Arrival, error: DcmsyncError) -> Landed:
    may_pass = isinstance(error, LocalTrouble | OutOfResources) or not isinstance(error, Refused)
    return Landed(arrival=arrival, outcome="failed", reason=error.reason, message=str(error), may_pass=may_pass)


def _lost(arrival: Arrival) -> Landed:
    return Landed(arrival=arrival, outcome="failed", reason="interrupted", message="the run ended before it was sent")
