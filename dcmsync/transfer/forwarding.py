"""Forwarding: instances that wait in a spool go to each of their destinations, and leave it when all have them.

Owns what waits for whom, when a destination is tried again, and what may leave. Refuses to receive, to decide, and to
know what a destination is: `deliver` runs the engine over what a lane hands it.

Theory of operation. There is a lane for each delivery: a destination with the edits on the way there. A lane gives the
engine what waits, series by series, and goes on as more comes; when nothing has come for a while the engine ends, and
its associations with it. A verdict ends an instance's stay in the lane, unless trying again may help: then it waits
behind all others for the next round. So it does when the destination itself was in trouble, whatever was said of the
instance. A round that got nowhere is followed by a pause, longer each time; there is no last one. But an instance
that failed in many rounds in which others arrived is at fault itself. Lanes do not wait for each other. Verdicts are
written, then noted in the journal, and only then may a file go: whatever is killed when, the spool and its journal say
what is left to do.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import random

import anyio
import anyio.abc
from msgspec import UNSET, Struct

from dcmsync.contract import Level
from dcmsync.errors import DcmsyncError, ExitStatus
from dcmsync.plan.route import Delivery
from dcmsync.records.model import Outcome
from dcmsync.transfer.journal import Journal
from dcmsync.transfer.works import Work

AT_ONCE = 500  # instances of a series that are asked for together
LINGER_S = 1.0  # how long a lane waits for more before its associations end
ROUND_S = 30.0  # after this a round ends, if anything waits for the next
LONGEST_PAUSE_S = 300.0
TRIES = 5  # rounds in which an instance failed, and others arrived, before it is given up


class Instance(Struct, frozen=True, kw_only=True):
    """One instance that waits. `name` is its file in the spool."""

    name: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str


Deliver = Callable[
    [Delivery, AsyncIterator[Sequence[Work]], Callable[[Outcome], None]], Awaitable[DcmsyncError | None]
]
"""Delivers what comes of an iterator, and tells the outcome of each instance; gives why it can deliver no more."""


class Keeper(Struct, frozen=True, kw_only=True):
    """What is done with what does not wait any more: `release` lets an instance go, `retain` keeps what failed."""

    release: Callable[[Instance], None]
    retain: Callable[[Instance], None]


def pause_s(attempt: int, dice: float) -> float:
    """Seconds before a destination is tried again: 1, 2, 4 … at most 300, with half of it jitter."""
    longest: float = min(2.0 ** min(attempt - 1, 20), LONGEST_PAUSE_S)
    return longest * (0.5 + dice / 2)


class Forwarding:
    """What waits, and its lanes. One thread of control."""

    def __init__(
        self,
        source: str,
        journal: Journal,
        deliver: Deliver,
        keeper: Keeper,
        *,
        write: Callable[[Delivery, Outcome], None],
        warn: Callable[[str], None],
    ) -> None:
        """`source`: what work names as the place where instances are; `write` takes the last word on each."""
        self.status = ExitStatus.DONE
        self.source = source
        self._journal = journal
        self._deliver = deliver
        self._keeper = keeper
        self._write = write
        self._warn = warn
        self._lanes: dict[Delivery, _Lane] = {}
        self._waiting: dict[str, Instance] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._changed = anyio.Event()
        self.is_stopping = False

    @property
    def waiting(self) -> int:
        """How many instances are in the spool."""
        return len(self._waiting)

    def behind(self) -> dict[str, int]:
        """How many instances wait for each destination."""
        return {delivery.to: len(lane) for delivery, lane in self._lanes.items() if len(lane)}

    def add(self, instance: Instance, deliveries: tuple[Delivery, ...]) -> None:
        """An instance has come, and goes there. Raises LocalTrouble."""
        if instance.name in self._waiting:
            return
        if instance.name not in self._journal.entries:
            self._journal.decided(instance.name, deliveries)
        self._waiting[instance.name] = instance
        self._changed.set()
        entry = self._journal.entries[instance.name]
        left = [delivery for delivery in entry.deliveries if delivery not in entry.done]
        if not left:
            self._leave(instance)
        for delivery in left:
            if delivery not in self._lanes:
                self._lanes[delivery] = _Lane(self, delivery)
                if self._tasks is not None:
                    self._tasks.start_soon(self._lanes[delivery].run)
            self._lanes[delivery].add(instance)

    async def run(self) -> None:
        """Forwards until `stop`, and then until every lane has done what it can now."""
        async with anyio.create_task_group() as self._tasks:
            for lane in list(self._lanes.values()):
                self._tasks.start_soon(lane.run)
            while not self.is_stopping:
                self._changed = anyio.Event()
                await self._changed.wait()

    def stop(self) -> None:
        """Waits for nobody any more. Idempotent."""
        self.is_stopping = True
        self._changed.set()
        for lane in self._lanes.values():
            lane.come.set()

    async def quiet(self, seconds: float) -> None:
        """Returns when nothing has come, and nothing waited, for so long."""
        while True:
            changed = self._changed
            with anyio.move_on_after(seconds):
                await changed.wait()
                continue
            if not self._waiting:
                return

    async def deliver(self, delivery: Delivery, lane: _Lane) -> DcmsyncError | None:
        """One round of a lane."""
        return await self._deliver(delivery, lane.works(), lane.heard)

    def settled(self, instance: Instance, delivery: Delivery, outcome: Outcome) -> None:
        """The last word on an instance at one destination. Raises LocalTrouble."""
        is_fine = outcome.outcome in ("stored", "present")
        if not is_fine or outcome.reason == "unproven":
            self.status = max(self.status, ExitStatus.FAILED)
        self._write(delivery, outcome)
        if self._journal.done(instance.name, delivery, has_failed=not is_fine):
            self._leave(instance)

    def tell(self, words: str) -> None:
        """Says something to people."""
        self._warn(words)

    def _leave(self, instance: Instance) -> None:
        entry = self._journal.entries[instance.name]
        (self._keeper.retain if entry.has_failed else self._keeper.release)(instance)
        self._journal.forget(instance.name)
        del self._waiting[instance.name]
        self._changed.set()


class _Lane:
    """What waits for one delivery."""

    def __init__(self, forwarding: Forwarding, delivery: Delivery) -> None:
        self.come = anyio.Event()
        self._forwarding = forwarding
        self._delivery = delivery
        self._queue: deque[Instance] = deque()
        self._flying: dict[str, Instance] = {}  # by SOP Instance UID
        self._failed: list[tuple[Instance, Outcome]] = []  # in this round
        self._tries: Counter[str] = Counter()
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._queue) + len(self._flying) + len(self._failed)

    def add(self, instance: Instance) -> None:
        """An instance waits."""
        self._queue.append(instance)
        self.come.set()

    async def run(self) -> None:
        """Round after round."""
        forwarding, attempt = self._forwarding, 0
        while True:
            while not self._queue:
                if forwarding.is_stopping:
                    return
                self.come = anyio.Event()
                await self.come.wait()
            self._arrived = 0
            trouble = await forwarding.deliver(self._delivery, self)
            attempt = 1 if self._arrived else attempt + 1
            again, why = self._judge(trouble)
            if again and not forwarding.is_stopping:
                await self._pause(attempt, len(again), why)
            self._queue.extend(again)
            if again and forwarding.is_stopping:
                return

    async def works(self) -> AsyncIterator[list[Work]]:
        """What waits, series by series, and what comes meanwhile; it ends when nothing has come for a while."""
        ends_at = anyio.current_time() + ROUND_S
        while not (self._failed and anyio.current_time() > ends_at):
            group = self._next()
            if group:
                yield [self._work(instance) for instance in group]
                continue
            if self._forwarding.is_stopping:
                return
            self.come = anyio.Event()
            with anyio.move_on_after(LINGER_S) as lingering:
                await self.come.wait()
            if lingering.cancelled_caught:
                return

    def heard(self, outcome: Outcome) -> None:
        """What became of one of them."""
        instance = self._flying.pop(str(outcome.SOPInstanceUID), None)
        if instance is None:
            return
        if outcome.outcome == "failed":
            self._failed.append((instance, outcome))
        else:
            self._arrived += outcome.outcome != "conflict"
            self._settle(instance, outcome)

    def _judge(self, trouble: DcmsyncError | None) -> tuple[list[Instance], str]:
        """What of this round is to be tried again, and why in words. The rest has its last word."""
        failed, self._failed = self._failed, []
        again, self._flying = list(self._flying.values()), {}
        why = str(trouble) if trouble is not None else ""
        for instance, outcome in failed:
            may_pass = trouble is not None or outcome.retry is True
            self._tries[instance.name] += bool(self._arrived)
            if may_pass and self._tries[instance.name] < TRIES:
                again.append(instance)
                why = why or str(outcome.message or outcome.reason)
            else:
                self._settle(instance, outcome)
        return again, why or "the round was broken off"

    def _settle(self, instance: Instance, outcome: Outcome) -> None:
        self._tries.pop(instance.name, None)
        self._forwarding.settled(instance, self._delivery, outcome)

    def _next(self) -> list[Instance]:
        """Instances of one series that wait; they fly then."""
        group: list[Instance] = []
        while self._queue and len(group) < AT_ONCE:
            instance = self._queue[0]
            if group and (instance.study_uid, instance.series_uid) != (group[0].study_uid, group[0].series_uid):
                break
            self._flying[instance.sop_instance_uid] = self._queue.popleft()
            group.append(instance)
        return group

    def _work(self, instance: Instance) -> Work:
        return Work(level=Level.INSTANCE, source=self._forwarding.source, attributes={
            "StudyInstanceUID": instance.study_uid, "SeriesInstanceUID": instance.series_uid,
            "SOPInstanceUID": instance.sop_instance_uid, "SOPClassUID": instance.sop_class_uid,
        })  # fmt: skip

    async def _pause(self, attempt: int, failed: int, why: str) -> None:
        seconds = pause_s(attempt, random())
        waiting = failed + len(self)
        what = f"{waiting:,} instances wait" if waiting > 1 else "1 instance waits"
        self._forwarding.tell(f"{self._delivery.to}: {why}. {what}; trying again in {seconds:.0f} s")
        until = anyio.current_time() + seconds
        while not self._forwarding.is_stopping and anyio.current_time() < until:
            self.come = anyio.Event()
            with anyio.move_on_after(until - anyio.current_time()):
                await self.come.wait()


def skipped(instance: Instance, source: str) -> Outcome:
    """The outcome of an instance that goes nowhere."""
    return Outcome(
        level="instance", outcome="skipped", StudyInstanceUID=instance.study_uid or UNSET,
        SeriesInstanceUID=instance.series_uid or UNSET, SOPInstanceUID=instance.sop_instance_uid, source=source,
        reason="route",
    )  # fmt: skip
