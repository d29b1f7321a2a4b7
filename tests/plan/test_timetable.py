"""Rates and timetables, as rclone's --bwlimit has them."""

from datetime import datetime

import pytest

from dcmsync.plan.timetable import octets, read

MONDAY, SATURDAY, SUNDAY = 16, 21, 22  # November 2026


def at(text: str, day: int, hour: int, minute: int = 0) -> float | None:
    return read(text).rate(datetime(2026, 11, day, hour, minute))


@pytest.mark.parametrize(
    "text, rate",
    [("512", 512 * 1024), ("512k", 512 * 1024), ("10M", 10 << 20), ("1.5G", 1.5 * (1 << 30)), ("100B", 100),
     ("off", None), ("OFF", None)],
)  # fmt: skip
def test_a_rate_holds_always(text: str, rate: float | None) -> None:
    assert at(text, MONDAY, 3) == at(text, SUNDAY, 23, 59) == rate


def test_each_rate_holds_from_its_time_on() -> None:
    text = "08:00,512k 18:00,10M 23:00,off"
    assert at(text, MONDAY, 7, 59) is None  # since 23:00 of the day before
    assert at(text, MONDAY, 8) == at(text, SATURDAY, 17, 59) == 512 << 10
    assert at(text, MONDAY, 18) == at(text, MONDAY, 22, 59) == 10 << 20
    assert at(text, MONDAY, 23) is None


def test_days_of_the_week_have_their_own() -> None:
    text = "Mon-08:00,1M Sat-00:00,off"
    assert at(text, MONDAY, 7) is None
    assert at(text, MONDAY, 8) == at(text, MONDAY + 4, 23) == 1 << 20
    assert at(text, SATURDAY, 0) is None and at(text, SUNDAY, 12) is None


def test_a_day_goes_before_every_day() -> None:
    assert at("10:00,1M Sun-12:00,2M", SUNDAY, 13) == 2 << 20
    assert at("10:00,1M Sun-12:00,2M", MONDAY, 9) == 2 << 20
    assert at("10:00,1M Sun-12:00,2M", MONDAY, 10) == 1 << 20


@pytest.mark.parametrize(
    "text", ["", "fast", "10X", "0", "-1M", "08:00", "08:00,", "24:00,1M", "08:60,1M", "Foo-08:00,1M", "08:00,1M x"]
)
def test_what_is_neither_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="write 10M"):
        read(text)


def test_amounts_of_data() -> None:
    assert (octets("500M"), octets("1.5G"), octets("2")) == (500 << 20, 3 << 29, 2048)
    for text in ("", "much", "0", "5MB"):
        with pytest.raises(ValueError, match="write 500M"):
            octets(text)
