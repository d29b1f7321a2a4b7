"""The sessions with one source: how many, whose turn it is, and who brings nothing. The source is counters here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dcmsync.transfer import pace, pool
from dcmsync.transfer.pace import START, TOGETHER
from dcmsync.transfer.pool import Pool

PROBATION_S = 0.05


class Seat:
    """One session: how often it was told to rest. `resting` is awaited then."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rests = 0
        self.resting: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint

    async def rest(self) -> None:
        await self.resting()
        self.rests += 1


class Source:
    """Opens sessions, and keeps them in sight."""

    name = "SOURCE"

    def __init__(self) -> None:
        self.seats: list[Seat] = []

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        self.seats.append(Seat(len(self.seats)))
        yield self.seats[-1]


class Borrowing:
    """Those who have borrowed from a pool, and give back when they are told to."""

    def __init__(self, pool_: Pool[Any], tasks: anyio.abc.TaskGroup) -> None:
        self.seats: list[Seat] = []  # in the order in which they were lent
        self._pool, self._tasks = pool_, tasks
        self._ends: list[anyio.Event] = []

    async def ask(self, count: int = 1) -> int:
        """So many more ask; how many have something now."""
        for _ in range(count):
            self._tasks.start_soon(self._borrow)
        return await self.settled()

    async def settled(self) -> int:
        await anyio.wait_all_tasks_blocked()
        return self._pool.lent

    async def give_back(self, index: int) -> int:
        self._ends[index].set()
        return await self.settled()

    async def _borrow(self) -> None:
        async with self._pool.lend() as retrieval:
            end = anyio.Event()
            self._ends.append(end)
            self.seats.append(retrieval.session)
            await end.wait()


def run(script: Callable[[Pool[Any], Borrowing, Source], Awaitable[None]], most: int = 16) -> None:
    async def main() -> None:
        source = Source()
        with anyio.fail_after(5):
            async with Pool[Any](source, [], most) as made, anyio.create_task_group() as tasks:
                await script(made, Borrowing(made, tasks), source)
                tasks.cancel_scope.cancel()

    anyio.run(main)


def test_no_more_are_lent_than_the_pace_allows_and_who_waits_gets_the_next() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        assert await borrowing.ask(3) == 2
        assert await borrowing.give_back(0) == 2
        assert len(borrowing.seats) == 3 and len(source.seats) == 2
        assert await borrowing.give_back(1) == 1

    run(script, most=2)


def test_the_one_given_back_last_is_lent_first() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        await borrowing.ask(3)
        for index in (0, 2, 1):
            await borrowing.give_back(index)
        await borrowing.ask(3)
        assert [seat.number for seat in borrowing.seats[3:]] == [1, 2, 0]
        assert len(source.seats) == 3 and not any(seat.rests for seat in source.seats)

    run(script)


def test_when_there_are_too_many_they_let_go_of_their_associations() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        assert await borrowing.ask(3) == 3
        made.rejected()  # 2 are granted: 1 is used from now on
        for index in range(3):
            await borrowing.give_back(index)
        assert [seat.rests for seat in source.seats] == [1, 1, 0]
        assert await borrowing.ask(4) == 1

    run(script)


def test_sessions_that_are_to_rest_do_so_even_if_their_tasks_are_cancelled() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        async with anyio.create_task_group() as tasks:
            assert await Borrowing(made, tasks).ask(3) == 3
            made.rejected()
            tasks.cancel_scope.cancel()
        assert [seat.rests for seat in source.seats] == [1, 1, 1]

    run(script)


def test_a_place_that_is_out_of_resources_gets_half() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        async with made.lend() as retrieval:
            retrieval._congested()
        assert await borrowing.ask(4) == 2

    run(script)


def landed(made: Pool[Any], count: int) -> None:
    for _ in range(count):
        made.landed(anyio.CancelScope(), 0)


@pytest.mark.parametrize("waiting", [0, 1])
def test_more_are_lent_while_that_is_faster_and_somebody_waits(waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WINDOW_S", 0.0)

    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        assert await borrowing.ask(START + waiting) == START
        landed(made, TOGETHER * START)
        assert await borrowing.settled() == START
        landed(made, TOGETHER * START)
        assert await borrowing.settled() == START + waiting, "without anything being given back"
        assert await borrowing.ask(3) == (8 if waiting else START)

    run(script)


# Probation


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """One association needs no probation, and the others do not wait long."""
    monkeypatch.setattr(pool, "START", 1)
    monkeypatch.setattr(pool, "PROBATION_S", PROBATION_S)


async def is_ended(made: Pool[Any], first: Callable[[anyio.CancelScope], None] = lambda scope: None) -> bool:
    """Whether who borrows one more, and gets nothing by it but what `first` does, is ended for that."""
    async with made.lend():
        with anyio.move_on_after(4 * PROBATION_S):
            async with made.probation() as scope:
                first(scope)
                await anyio.sleep_forever()
            return True
    return False


@pytest.mark.usefixtures("strict")
@pytest.mark.slow
def test_one_more_than_have_proven_themselves_is_ended_when_it_brings_nothing() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        assert not await is_ended(made), "the first one may take its time"
        await borrowing.ask(1)
        assert await is_ended(made)
        assert await borrowing.ask(1) == 1, "and the place is taken to grant one"

    run(script)


@pytest.mark.usefixtures("strict")
@pytest.mark.slow
def test_who_has_brought_something_is_not_ended_and_nor_are_as_many_from_then_on() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        await borrowing.ask(1)
        assert not await is_ended(made, lambda scope: made.landed(scope, 0))
        assert not await is_ended(made), "two have proven themselves"
        await borrowing.ask(1)
        assert await is_ended(made), "and three have not"

    run(script)


# Rest


def test_who_has_nothing_to_do_rests_unless_it_is_borrowed_meanwhile() -> None:
    async def script(made: Pool[Any], borrowing: Borrowing, source: Source) -> None:
        await borrowing.ask(2)
        for index in (0, 1):
            await borrowing.give_back(index)

        async def meanwhile() -> None:
            await borrowing.ask(1)

        source.seats[0].resting = meanwhile
        await made.rest()
        assert [seat.rests for seat in source.seats] == [1, 0]
        assert borrowing.seats[-1] is source.seats[1]

    run(script)
