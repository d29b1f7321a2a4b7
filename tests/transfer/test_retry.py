"""What is worth another try, and how long to wait for it."""

import pytest

from dcmsync.errors import Disconnected, PeerError, Refused, Rejected, RemoteProtocolError, Stalled, Unreachable
from dcmsync.transfer.retry import DOWN_S, Breaker, delay_s, is_worth_it


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (Stalled("x"), True),
        (Disconnected("x"), True),
        (Unreachable("x"), True),
        (Rejected("x", transient=True), False),
        (Rejected("x"), False),
        (Refused("x", status=0xA900), False),
        (RemoteProtocolError("x"), False),
    ],
)
def test_only_what_may_pass_is_worth_another_try(error: PeerError, worth: bool) -> None:
    assert is_worth_it(error) is worth


@pytest.mark.parametrize(
    ("error", "down"),
    [
        (Unreachable("x"), True),
        (Rejected("x"), True),
        (Stalled("x"), True),
        (Disconnected("x"), False),
        (Refused("x", status=0xA900), False),
    ],
)
def test_a_place_that_does_not_answer_is_down_for_a_while(error: PeerError, down: bool) -> None:
    breaker = Breaker()
    breaker.trip("there", error, 100.0)
    assert breaker.is_down("there", 100.0) is (error if down else None)
    assert breaker.is_down("there", 100.0 + DOWN_S) is (error if down else None)
    assert breaker.is_down("elsewhere", 100.0) is None
    assert breaker.is_down("there", 100.1 + DOWN_S) is None
    assert breaker.is_down("there", 100.0) is None


def test_a_place_that_is_down_stays_so_no_longer_for_failing_again() -> None:
    breaker = Breaker()
    breaker.trip("there", Unreachable("first"), 0.0)
    breaker.trip("there", Unreachable("second"), DOWN_S - 1)
    assert str(breaker.is_down("there", DOWN_S)) == "first"
    assert breaker.is_down("there", DOWN_S + 1) is None


def test_waiting_doubles_up_to_ten_seconds_and_half_of_it_is_chance() -> None:
    assert [delay_s(attempt, 1.0) for attempt in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.6]
    assert [delay_s(attempt, 0.0) for attempt in (1, 2)] == [0.1, 0.2]
    assert delay_s(50, 1.0) == 10.0
