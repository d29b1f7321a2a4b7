"""Forwarding: who gets what, how often, in which order, and what a destination that is down does to the others."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import pytest

from dcmsync.errors import DcmsyncError, ExitStatus, Unreachable
from dcmsync.plan.route import Delivery
from dcmsync.records.model import Outcome
from dcmsync.transfer import forwarding
from dcmsync.transfer.forwarding import TRIES, Forwarding, Instance, Keeper, pause_s
from dcmsync.transfer.journal import Journal
from dcmsync.transfer.works import Work

A, B = Delivery("a"), Delivery("b")
DOWN = Unreachable("a: cannot connect")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "LINGER_S", 0.002)
    monkeypatch.setattr(forwarding, "pause_s", lambda attempt, dice: 0.001)


def instance(number: int, series: str = "1") -> Instance:
    return Instance(name=f"{number}.dcm", study_uid="1", series_uid=series, sop_instance_uid=f"1.{number}",
                    sop_class_uid="1.2")  # fmt: skip


class World:
    """Destinations as a test wants them. `fates`: (destination, UID) -> outcomes in turn, then stored."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(str(folder / "journal"))
        self.down: Counter[str] = Counter()  # rounds that a destination is down for
        self.fates: dict[tuple[str, str], list[dict[str, object]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.groups: list[list[str]] = []
        self.released: list[str] = []
        self.retained: list[str] = []
        self.written: list[tuple[str, str, str]] = []
        self.told: list[str] = []
        self.changed = anyio.Event()
        keeper = Keeper(release=self.release, retain=lambda each: self.retained.append(each.name))
        self.forwarding = Forwarding("spool", self.journal, self.deliver, keeper, write=self.write, warn=self.tell)

    def release(self, each: Instance) -> None:
        self.released.append(each.name)
        self.changed.set()

    def tell(self, words: str) -> None:
        self.told.append(words)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.changed = anyio.Event()
            await self.changed.wait()

    def write(self, delivery: Delivery, outcome: Outcome) -> None:
        self.written.append((delivery.to, str(outcome.SOPInstanceUID), outcome.outcome))
        self.changed.set()

    async def deliver(
        self, delivery: Delivery, works: AsyncIterator[Sequence[Work]], heard: Callable[[Outcome], None]
    ) -> DcmsyncError | None:
        is_down = self.down[delivery.to] > 0
        self.down[delivery.to] -= 1
        async for group in works:
            self.groups.append([str(work.attributes["SOPInstanceUID"]) for work in group])
            for work in group:
                uid = str(work.attributes["SOPInstanceUID"])
                self.asked.append((delivery.to, uid))
                fates = self.fates.get((delivery.to, uid))
                fate: dict[str, object] = {"outcome": "stored"}
                if is_down:
                    fate = {"outcome": "failed", "retry": False, "message": "down"}
                elif fates:
                    fate = fates.pop(0)
                heard(Outcome(level="instance", SOPInstanceUID=uid, source=work.source, **fate))  # type: ignore[arg-type]
        return DOWN if is_down else None

    def run(self, then: Callable[[], Awaitable[None]] | None = None) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.forwarding.run)
                with anyio.fail_after(10):
                    await (then or (lambda: self.forwarding.quiet(0.01)))()
                self.forwarding.stop()

        anyio.run(main)
        self.journal.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_all_have_leaves(world: World) -> None:
    for number in range(3):
        world.forwarding.add(instance(number), (A, B))
    world.run()
    assert sorted(world.released) == ["0.dcm", "1.dcm", "2.dcm"]
    assert len(world.written) == 6 and world.forwarding.status is ExitStatus.DONE
    assert world.forwarding.waiting == 0 and not world.journal.entries


def test_instances_of_a_series_are_asked_for_together_and_in_order(world: World) -> None:
    for number, series in enumerate(("1", "1", "2", "2", "1")):
        world.forwarding.add(instance(number, series), (A,))
    world.run()
    assert world.groups == [["1.0", "1.1"], ["1.2", "1.3"], ["1.4"]]


def test_a_destination_that_is_down_keeps_nobody_waiting_and_gets_it_when_it_is_up(world: World) -> None:
    world.down["a"] = 4
    world.forwarding.add(instance(1), (A, B))

    async def b_has_it() -> None:
        await world.until(lambda: ("b", "1.1", "stored") in world.written)
        assert not world.released
        await world.forwarding.quiet(0.01)

    world.run(b_has_it)
    assert world.asked.count(("a", "1.1")) == 5
    assert world.asked.count(("b", "1.1")) == 1
    assert world.released == ["1.dcm"]
    assert len(world.told) == 4 and "1 instance waits" in world.told[0]


def test_what_a_destination_in_trouble_says_of_an_instance_is_not_its_last_word(world: World) -> None:
    world.down["a"] = 1  # then every instance has failed, and not to be tried again
    world.forwarding.add(instance(1), (A,))
    world.run()
    assert world.written == [("a", "1.1", "stored")]


def test_what_is_refused_for_good_is_kept_and_goes_to_the_others_all_the_same(world: World) -> None:
    world.fates["a", "1.1"] = [{"outcome": "failed", "retry": False, "reason": "refused"}]
    world.fates["a", "1.2"] = [{"outcome": "conflict"}]
    for number in (1, 2, 3):
        world.forwarding.add(instance(number), (A, B))
    world.run()
    assert sorted(world.retained) == ["1.dcm", "2.dcm"] and world.released == ["3.dcm"]
    assert ("b", "1.1", "stored") in world.written
    assert world.forwarding.status is ExitStatus.FAILED
    assert not world.told


def test_what_fails_while_others_arrive_comes_last_and_ends(world: World) -> None:
    again = {"outcome": "failed", "retry": True, "reason": "disconnected", "message": "it broke off"}
    world.fates["a", "1.0"] = [again] * 100

    async def feed() -> None:
        for number in range(1, TRIES + 1):
            assert not world.retained
            world.forwarding.add(instance(number), (A,))
            await world.until(lambda: f"{number}.dcm" in world.released)  # noqa: B023  # awaited here
            await world.until(lambda: len(world.told) >= number or bool(world.retained))  # noqa: B023  # likewise
        await world.forwarding.quiet(0.01)

    world.forwarding.add(instance(0), (A,))
    world.run(feed)
    assert world.written.count(("a", "1.0", "failed")) == 1
    assert world.retained == ["0.dcm"]


def test_a_lonely_instance_is_never_given_up(world: World) -> None:
    again = {"outcome": "failed", "retry": True, "reason": "stalled"}
    world.fates["a", "1.1"] = [again] * (3 * TRIES)
    world.forwarding.add(instance(1), (A,))
    world.run()
    assert world.written == [("a", "1.1", "stored")] and world.released == ["1.dcm"]


def test_a_restart_goes_on_from_the_journal_and_not_from_today_s_rules(tmp_path: Path) -> None:
    before = Journal(str(tmp_path / "journal"))
    before.decided("1.dcm", (A, B))
    before.done("1.dcm", A, has_failed=True)
    before.close()
    world = World(tmp_path)
    world.forwarding.add(instance(1), (A, Delivery("c")))
    world.run()
    assert world.asked == [("b", "1.1")]
    assert world.retained == ["1.dcm"]


def test_what_was_done_when_the_last_run_died_leaves_without_being_sent_again(tmp_path: Path) -> None:
    before = Journal(str(tmp_path / "journal"))
    before.decided("1.dcm", (A,))
    before.done("1.dcm", A, has_failed=False)
    before.close()
    world = World(tmp_path)
    world.forwarding.add(instance(1), (A,))
    world.run()
    assert world.released == ["1.dcm"] and not world.asked


def test_what_goes_nowhere_leaves_at_once(world: World) -> None:
    world.forwarding.add(instance(1), ())
    assert world.released == ["1.dcm"] and world.forwarding.waiting == 0
    world.journal.close()


def test_the_same_again_while_it_waits_is_one(world: World) -> None:
    world.forwarding.add(instance(1), (A,))
    world.forwarding.add(instance(1), (A, B))
    world.run()
    assert world.asked == [("a", "1.1")]


def test_stopping_leaves_what_cannot_go_for_the_next_run(world: World, tmp_path: Path) -> None:
    world.down["a"] = 1_000_000
    world.forwarding.add(instance(1), (A, B))

    async def a_while() -> None:
        await world.until(lambda: len(world.told) >= 3)

    world.run(a_while)
    assert world.forwarding.behind() == {"a": 1}
    assert world.forwarding.waiting == 1 and not world.released
    left = Journal(str(tmp_path / "journal"))
    assert left.entries["1.dcm"].done == {B}
    left.close()


def test_pauses_grow_and_stay_bounded() -> None:
    assert [pause_s(attempt, 1.0) for attempt in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert pause_s(1, 0.0) == 0.5
    assert pause_s(10_000, 1.0) == 300
