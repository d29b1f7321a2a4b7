"""How fast may octets flow, and when: `--bwlimit RATE`, or a timetable of rates.

    512k                               always 512 KiB a second
    08:00,512k 18:00,10M 23:00,off     each from its time of day on; before the first, the last of the day before
    Mon-08:00,512k Sat-00:00,off       each from its time of the week on

A rate is a number with B, K, M or G (octets, KiB, MiB, GiB a second; K when there is none), or `off`. The grammar is
that of rclone's --bwlimit. Times are local; the clock's word is handed in. Pure.
"""

import re
from datetime import datetime

from msgspec import Struct

_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_RATE = re.compile(r"(\d+(?:\.\d+)?)([BKMG])?", re.IGNORECASE)
_ENTRY = re.compile(r"(?:(Mon|Tue|Wed|Thu|Fri|Sat|Sun)-)?(\d{1,2}):(\d{2}),(\S+)", re.IGNORECASE)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60


class Timetable(Struct, frozen=True):
    """Rates in octets a second, None for no limit, each from its minute of the week on, in order."""

    entries: tuple[tuple[int, float | None], ...]

    def rate(self, now: datetime) -> float | None:
        """The rate that holds at a local time."""
        minute = now.weekday() * _DAY + now.hour * 60 + now.minute
        held = self.entries[-1][1]  # of last week, until the first of this one
        for begins, rate in self.entries:
            if begins > minute:
                break
            held = rate
        return held


def read(text: str) -> Timetable:
    """A rate or a timetable, understood. Raises ValueError with words."""
    words = text.split()
    if len(words) == 1 and "," not in text:
        return Timetable(((0, _rate(words[0], text)),))
    entries: dict[int, float | None] = {}
    for word in words:
        match = _ENTRY.fullmatch(word)
        hour, minute = (int(match[2]), int(match[3])) if match else (24, 0)
        if match is None or hour > 23 or minute > 59:
            raise _wrong(text, f"{word!r} is no time and rate")
        days = [_DAYS.index(match[1].lower())] if match[1] else range(7)
        for day in days:
            entries[day * _DAY + hour * 60 + minute] = _rate(match[4], text)
    if not entries:
        raise _wrong(text, "it is empty")
    return Timetable(tuple(sorted(entries.items())))


def octets(text: str) -> int:
    """A number of octets: 500M, 1.5G, 100 (KiB, as rates are). Raises ValueError with words."""
    match = _RATE.fullmatch(text)
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is no amount of data: write 500M or 1.5G")
    return int(float(match[1]) * _UNITS[(match[2] or "K").upper()])


def _rate(word: str, text: str) -> float | None:
    if word.lower() == "off":
        return None
    match = _RATE.fullmatch(word)
    if match is None or not float(match[1]):
        raise _wrong(text, f"{word!r} is no rate")
    return float(match[1]) * _UNITS[(match[2] or "K").upper()]


def _wrong(text: str, why: str) -> ValueError:
    return ValueError(f"{text!r}: {why}: write 10M, or a timetable such as '08:00,512k 23:00,off'")
