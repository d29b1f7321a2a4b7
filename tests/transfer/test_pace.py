"""How many associations a place gets, by what they bring. Places are made of numbers here: no network, no clock."""

from collections.abc import Callable

import pytest

from dcmsync.transfer.pace import START, TOGETHER, WINDOW_S, Pace


class Made:
    """A place that moves so many instances a second with so many associations, and the pace that is kept there."""

    def __init__(self, rate: Callable[[int], float], most: int = 16) -> None:
        self.pace = Pace(most)
        self.rate = rate
        self.now = 100.0
        self.sizes: list[int] = []

    def run(self, seconds: float, *, is_busy: bool = True, octets: int = 0) -> int:
        """The size after so long."""
        until = self.now + seconds
        while self.now < until:
            self.now += 1 / self.rate(self.pace.size)
            if self.pace.done(octets):
                self.pace.look(self.now, is_busy=is_busy)
            if not self.sizes or self.sizes[-1] != self.pace.size:
                self.sizes.append(self.pace.size)
        return self.pace.size


def test_it_doubles_while_each_association_brings_its_share() -> None:
    made = Made(lambda size: 50 * size)
    assert made.run(3) == 16 and made.sizes == [4, 8, 16]


def test_more_that_bring_nothing_are_taken_back_and_tried_again_ever_more_seldom() -> None:
    made = Made(lambda size: 50 * min(size, 4))
    assert made.run(60) == 4
    trials = made.sizes.count(8) + made.sizes.count(5)
    assert made.sizes[:4] == [4, 8, 4, 5] and 3 <= trials <= 5, made.sizes


def test_it_ends_where_the_place_does_not_get_faster_any_more() -> None:
    made = Made(lambda size: 50 * min(size, 11))
    assert made.run(4) == 16, "more than a third of what it could have brought"
    made = Made(lambda size: 50 * min(size, 10))
    assert made.run(4) == 8
    assert made.run(60) == 10, "by one from then on"


def test_large_instances_count_by_their_octets() -> None:
    made = Made(lambda size: 5 * size)
    assert made.run(10, octets=100 << 20) == 16


def test_nothing_is_learnt_while_there_is_too_little_to_do() -> None:
    made = Made(lambda size: 50 * size)
    assert made.run(5, is_busy=False) == START
    made.run(2)
    assert made.pace.size == 16


@pytest.mark.parametrize(("most", "begins"), [(1, 1), (2, 2), (3, 3), (5, 4)])
def test_it_never_goes_beyond_what_is_allowed(most: int, begins: int) -> None:
    made = Made(lambda size: 50 * size, most)
    assert made.pace.size == begins
    assert made.run(10) == most and max(made.sizes) == most


@pytest.mark.parametrize("granted", [1, 2, 3, 6])
def test_what_a_place_grants_is_remembered(granted: int) -> None:
    made = Made(lambda size: 50 * size)
    made.pace.rejected(granted, made.now)
    assert made.pace.size == (granted + 1) // 2
    assert made.run(600) == granted and max(made.sizes) == granted, "it grows again, and never beyond"


def test_a_limit_that_drops_in_mid_run_is_followed() -> None:
    made = Made(lambda size: 50 * size)
    assert made.run(3) == 16
    made.pace.rejected(3, made.now)
    assert made.pace.size == 2 and made.run(10) == 3
    made.pace.rejected(1, made.now)
    assert made.run(10) == 1
    made.pace.rejected(0, made.now)
    assert made.run(10) == 1, "one is the least"


@pytest.mark.parametrize(("granted", "size"), [(4, 4), (3, 3), (1, 1)])
def test_several_that_are_rejected_together_are_one_complaint(granted: int, size: int) -> None:
    made = Made(lambda size: 50 * size)
    assert made.run(0.6) == 8
    for others in range(7, granted - 1, -1):
        made.pace.rejected(others, made.now)
    assert made.pace.size == size
    assert made.run(10) == granted and max(made.sizes[-3:]) <= 8


def test_a_place_that_is_out_of_resources_gets_half_once_for_each_time() -> None:
    made = Made(lambda size: 50 * size)
    assert made.run(3) == 16
    for _ in range(8):  # all associations hear it
        made.pace.congested(made.now)
    assert made.pace.size == 8
    made.sizes.clear()
    made.run(0.9 * WINDOW_S)
    assert made.sizes == [8]
    assert made.run(20) == 16 and made.sizes == list(range(8, 17)), "by one from then on"


def test_a_look_is_due_after_some_instances_of_each_association() -> None:
    pace = Pace(16)
    assert [pace.done(0) for _ in range(TOGETHER * START)] == [False] * (TOGETHER * START - 1) + [True]


def test_a_place_that_was_out_of_resources_never_gets_more_than_it_complained_of() -> None:
    made = Made(lambda size: 50 * size, 64)
    made.run(3)
    assert made.pace.size == 64
    made.pace = Pace(64, 10)
    made.pace.congested(made.now)
    assert made.run(600) == 10


def test_trials_go_on_however_long_it_takes() -> None:
    made = Made(lambda size: 50 * min(size, 4))
    made.run(1000)
    made.sizes.clear()
    made.run(400)
    assert made.sizes.count(5) >= 4, "every 80 s at the least"


def test_instances_that_get_larger_do_not_look_slower() -> None:
    pace = Pace(16)
    pace.look(0.0, is_busy=True)
    for _ in range(TOGETHER * START):
        pace.done(0)
    pace.look(0.5, is_busy=True)
    assert pace.size == 8
    for _ in range(TOGETHER * 8):
        pace.done(1 << 20)
    pace.look(2.5, is_busy=True)  # half as many a second, and 17 times the work
    assert pace.size == 16


def test_nothing_is_learnt_from_a_few_instances() -> None:
    pace = Pace(16)
    pace.look(0.0, is_busy=True)
    for _ in range(TOGETHER * START - 1):
        pace.done(0)
    pace.look(60.0, is_busy=True)
    assert pace.size == START
    pace.done(0)
    pace.look(60.0, is_busy=True)
    assert pace.size == 8
