"""The waiting room: it keeps peers waiting at its bounds, lands in batches, and gives every verdict once."""

import threading
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.to_thread
import pytest

from dcmsync.contract import Arrival, Expected, Landed
from dcmsync.transfer import lander
from dcmsync.transfer.lander import Lander
from tests.fakes.shelf import Parcel, Shelf


def parcel(number: int, size: int = 10) -> Parcel:
    arrival = Arrival(sop_class_uid="1.2", sop_instance_uid=f"1.{number}", transfer_syntax_uid="1.2.1")
    made = Parcel(arrival, Expected(), b"x")
    made.size = size
    return made


def run(shelf: Shelf, use: Callable[[Lander[Parcel]], Awaitable[None]]) -> list[str]:
    """The UIDs in the order of their verdicts."""
    verdicts: list[Landed] = []

    async def main() -> None:
        waiting = Lander(shelf, verdicts.append)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                waiting.start(tasks)
                await use(waiting)
                waiting.stop()

    anyio.run(main)
    return [verdict.arrival.sop_instance_uid for verdict in verdicts]


def test_every_job_gets_its_verdict_in_order() -> None:
    shelf = Shelf()

    async def use(waiting: Lander[Parcel]) -> None:
        for number in range(100):
            waiting.take(parcel(number))
        await waiting.settle()
        assert len(shelf.stored) == 100

    assert run(shelf, use) == [f"1.{number}" for number in range(100)]
    assert max(shelf.batches) == lander.BATCH


async def _three_rounds(waiting: Lander[Parcel], size: int) -> None:
    for number in range(3):
        waiting.take(parcel(number, size))
        await waiting.settle()


@pytest.mark.parametrize(
    ("quick_s", "size", "threads"),
    [
        (0, 1, ["worker", "worker", "worker"]),
        (60, 1, ["worker", "loop", "loop"]),
        (60, lander.QUICK_OCTETS + 1, ["worker", "worker", "worker"]),
    ],
    ids=["slow", "quick", "quick, but large"],
)
def test_only_a_disk_that_has_shown_to_be_quick_is_served_in_the_loop(
    monkeypatch: pytest.MonkeyPatch, quick_s: float, size: int, threads: list[str]
) -> None:
    monkeypatch.setattr(lander, "QUICK_S", quick_s)
    shelf = Shelf()
    run(shelf, lambda waiting: _three_rounds(waiting, size))
    assert shelf.threads == threads


def test_where_peers_wait_for_each_verdict_nothing_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        waiting = Lander(Shelf(), lambda verdict: None, gather_s=0)
        waiting._is_quick = True
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                waiting.start(tasks)
                await _three_rounds(waiting, 1)
                waiting.stop()

    async def never(delay: float) -> None:
        raise AssertionError("it waited for more")

    monkeypatch.setattr(anyio, "sleep", never)
    anyio.run(main)


def test_what_waits_at_the_end_still_lands() -> None:
    async def use(waiting: Lander[Parcel]) -> None:
        waiting.take(parcel(1))

    assert run(Shelf(), use) == ["1.1"]


def test_what_is_abandoned_never_lands_but_has_a_verdict() -> None:
    shelf = Shelf()

    async def use(waiting: Lander[Parcel]) -> None:
        waiting.take(parcel(1))
        waiting.abandon()

    assert run(shelf, use) == ["1.1"]
    assert (shelf.abandoned, shelf.stored) == (["1.1"], {})


@pytest.mark.parametrize(
    ("count", "size"),
    [(lander.IN_FLIGHT_JOBS + 1, 1), (1, lander.IN_FLIGHT_OCTETS + 1), (9, lander.IN_FLIGHT_OCTETS // 8)],
    ids=["many", "one huge", "some large"],
)
def test_there_is_no_room_beyond_the_bounds_until_something_has_landed(count: int, size: int) -> None:
    go_on = threading.Event()

    def landing(parcels: Sequence[Parcel]) -> None:
        go_on.wait(10)

    async def use(waiting: Lander[Parcel]) -> None:
        for number in range(count):
            waiting.take(parcel(number, size))
        has_room = anyio.Event()

        async def wait_for_room() -> None:
            await waiting.room()
            has_room.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_room)
            await anyio.wait_all_tasks_blocked()
            assert not has_room.is_set()
            go_on.set()
            await has_room.wait()

    assert len(run(Shelf(landing=landing), use)) == count


def test_within_the_bounds_there_is_room_at_once() -> None:
    async def use(waiting: Lander[Parcel]) -> None:
        for number in range(lander.IN_FLIGHT_JOBS):
            waiting.take(parcel(number, 1))
        with anyio.fail_after(0):
            await waiting.room()

    run(Shelf(), use)
