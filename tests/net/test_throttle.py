"""Octets are paid for by waiting, on the loop's clock."""

from collections.abc import Callable

import anyio
import pytest

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
