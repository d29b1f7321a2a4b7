"""Records from a blocking stream: in order, a bounded number ahead, and errors in their turn."""

import threading
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from dcmsync.errors import InputError
from dcmsync.transfer import feed
from dcmsync.transfer.feed import Feed


def test_items_come_in_order() -> None:
    async def main() -> list[int]:
        return [item async for item in Feed(range(1000))]

    assert anyio.run(main) == list(range(1000))


def test_an_error_comes_after_what_came_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise InputError("broken")

    async def main() -> list[int]:
        came = []
        try:
            async for item in Feed(items()):
                came.append(item)  # noqa: PERF401  # what came before the error
        except InputError:
            return came
        pytest.fail("the error was swallowed")

    assert anyio.run(main) == [0, 1, 2]


def test_no_more_than_a_few_are_read_ahead() -> None:
    read: list[int] = []
    waiting = threading.Event()

    def items() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            if number == feed._AHEAD:
                waiting.set()  # this one is in hand, and finds no room
            yield number

    async def main() -> None:
        async for _ in Feed(items()):
            await anyio.to_thread.run_sync(waiting.wait)
            assert len(read) <= feed._AHEAD + 3
            return

    anyio.run(main)


def test_a_producer_that_never_ends_keeps_nobody_from_ending() -> None:
    stop = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        stop.wait(10)

    async def main() -> int:
        async for item in Feed(items()):
            return item
        return 0

    assert anyio.run(main) == 1
    stop.set()


def test_an_empty_stream_ends() -> None:
    async def main() -> list[int]:
        return [item async for item in Feed(())]

    assert anyio.run(main) == []
