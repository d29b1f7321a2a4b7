"""Octets are paid for by waiting, on the loop's clock; a stream that is slowed down pays for each."""

import socket
from collections.abc import Callable

import anyio
import pytest

from dcmsync.net.patience import Watch
from dcmsync.net.stream import Stream
from dcmsync.net.throttle import Throttle


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0

        async def sleep(seconds: float) -> None:
            self.now += seconds

        monkeypatch.setattr("dcmsync.net.throttle.anyio.sleep", sleep)
        monkeypatch.setattr("dcmsync.net.throttle.anyio.current_time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def spent(clock: Clock, rate: Callable[[], float | None], *amounts: int) -> float:
    begun = clock.now

    async def main() -> None:
        throttle = Throttle(rate)
        for amount in amounts:
            await throttle.pay(amount)

    anyio.run(main)
    return clock.now - begun


def test_octets_take_their_time(clock: Clock) -> None:
    assert spent(clock, lambda: 1000.0, 5000, 5000) == pytest.approx(10, abs=0.2)


def test_many_small_ones_take_as_long_as_one(clock: Clock) -> None:
    assert spent(clock, lambda: 1000.0, *[10] * 1000) == pytest.approx(10, abs=0.2)


def test_without_a_limit_nothing_waits(clock: Clock) -> None:
    assert spent(clock, lambda: None, 1 << 40) == 0


def test_a_limit_that_is_lifted_frees_who_waits(clock: Clock) -> None:
    assert spent(clock, lambda: 1.0 if clock.now < 103 else None, 1 << 30) <= 4


def test_time_that_nobody_used_is_not_saved_up(clock: Clock) -> None:
    async def main() -> float:
        throttle = Throttle(lambda: 1000.0)
        await throttle.pay(1)
        clock.now += 3600
        begun = clock.now
        await throttle.pay(2000)
        return clock.now - begun

    assert anyio.run(main) == pytest.approx(2, abs=0.2)


class Till(Throttle):
    """Takes note of what is paid, and of whether the peer owed progress meanwhile."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.paid: list[int] = []
        self.stream: Stream | None = None
        self.was_armed: set[bool] = set()

    async def pay(self, octets: int) -> None:
        assert self.stream is not None
        self.paid.append(octets)
        self.was_armed.add(self.stream.guard.armed)


@pytest.mark.parametrize("is_armed", [False, True])
def test_a_stream_pays_for_every_octet_and_holds_nothing_against_the_peer(is_armed: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    octets = 300_000

    async def main() -> Till:
        till = Till()
        with Watch() as watch:
            guard = watch.guard(ours, timeout_s=5, whole_s=5)
            till.stream = stream = Stream(ours, guard, "peer")
            stream.slow_down(till)
            if is_armed:
                guard.arm()
            theirs.setblocking(False)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_give, theirs, octets)
                came = 0
                while came < octets:
                    came += await stream.receive()
                    stream.consume(len(stream.pending))
            await stream.send([bytes(1000), bytes(24)])
            assert guard.armed == is_armed
            watch.forget(guard)
        return till

    till = anyio.run(main)
    assert sum(till.paid) == octets + 1024
    assert max(till.paid) <= 64 << 10
    assert till.was_armed == {False}
    ours.close()
    theirs.close()


async def _give(theirs: socket.socket, octets: int) -> None:
    left = memoryview(bytes(octets))
    while left:
        try:
            left = left[theirs.send(left) :]
        except BlockingIOError:
            await anyio.wait_writable(theirs)
