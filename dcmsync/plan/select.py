"""Choosing among records by more than one key: by age, by size, by chance that repeats, and the first of a ranking.

Owns two kinds of choice. A `Condition` judges each record alone (--max-images, --since, --until, --shard, --sample P%).
A `Ranking` has to see them all (--smallest, --largest, --newest, --sample N): it holds on to no more than it may
still hand out, and hands out in the order of the input. What is not known (a count, a date) is never guessed: such a
record is not chosen, and counted in `unknown`. Refuses to read a clock: `now` is passed in.

The hash of a UID is BLAKE2b with 8 octets of digest over its ASCII characters, read as a big-endian number:
`printf %s 1.2.3 | b2sum -l 64`. Anybody can compute it, on any machine, with the same result.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from dcmsync.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

R = TypeVar("R")
P = TypeVar("P")
Getter = Callable[[R], object]
How = Literal["smallest", "largest", "newest", "sample"]

COUNT_KEYS = ("type", "NumberOfSeriesRelatedInstances", "NumberOfStudyRelatedInstances", "level", "instances")
DATE_KEYS = ("StudyDate", "StudyTime")
NEWEST_KEYS = ("SeriesDate", "SeriesTime", *DATE_KEYS)
UID_KEYS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
GROUP_KEYS: Mapping[str, tuple[str, ...]] = {
    "patient": ("PatientID", "StudyInstanceUID"),
    "study": ("StudyInstanceUID",),
}

_BY_SIZE_OR_DATE: tuple[How, ...] = ("smallest", "largest", "newest")
_HASHES = 2**64
_AGE_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NUMBER_KINDS = (int, float)


class Condition:
    """A choice that each record meets or not, for itself. `keys` are what it asks of a record."""

    def __init__(self, words: str, keys: tuple[str, ...], judge: Callable[..., bool | None], lacking: str) -> None:
        self.words = words
        self.keys = keys
        self.lacking = lacking
        self.unknown = 0
        self._judge = judge

    def bind(self, getter: Callable[[str], Getter[R]]) -> Callable[[R], bool]:
        """A function that judges records; `getter` gives, for a key, the function that gets its value out of one."""
        judge = self.verdict(getter)

        def ask(record: R) -> bool:
            verdict = judge(record)
            if verdict is None:
                self.unknown += 1
            return verdict is True

        return ask

    def verdict(self, getter: Callable[[str], Getter[R]]) -> Callable[[R], bool | None]:
        """As `bind`, but None where it cannot be known, and nothing is counted."""
        getters = [getter(key) for key in self.keys]
        return lambda record: self._judge(*[get(record) for get in getters])


class _Held(NamedTuple, Generic[P]):
    """Something that may be handed out in the end. The smallest of a group is the first to go."""

    rank: int | float | str
    lateness: int
    payload: P


class Ranking(Generic[P]):
    """The first `number` records of each group, by `how`. Of equals, the earlier.

    `offer` takes each record as the values of `keys`, with a `payload` that stands for it; it returns the payload that
    is out for good, if one is. `chosen` gives what stayed, in the order offered.
    """

    def __init__(self, how: How, number: int, per: str | None = None) -> None:
        self.words = f"--{how} {number}" + (f" --per {per}" if per else "")
        self.keys = _RANKS[how][0] + (GROUP_KEYS[per] if per else ())
        self.lacking = _RANKS[how][2]
        self.unknown = 0
        self._how = how
        self._number = number
        self._groups: dict[object, list[_Held[P]]] = {}
        self._offered = 0

    def offer(self, values: Sequence[object], payload: P) -> P | None:
        """Takes one record. Returns what is out now: this payload, an earlier one, or None."""
        from heapq import heappush, heappushpop  # lazy: most filters rank nothing

        keys, rank_of, _ = _RANKS[self._how]
        self._offered += 1
        rank = rank_of(*values[: len(keys)])
        if rank is None:
            self.unknown += 1
            return payload
        group = self._groups.setdefault(_group(values[len(keys) :]), [])
        held = _Held(rank, -self._offered, payload)
        if len(group) < self._number:
            heappush(group, held)
            return None
        return heappushpop(group, held).payload

    def chosen(self) -> list[P]:
        """What stayed, in the order offered."""
        held = [each for group in self._groups.values() for each in group]
        return [each.payload for each in sorted(held, key=lambda each: -each.lateness)]


def choices(asked: Mapping[str, Any], now: "Callable[[], datetime]") -> "tuple[list[Condition], Ranking[Any] | None]":
    """The conditions, and the ranking if there is one, for the options of `filter`; `now` is called at most once.

    `asked`: the values of max_images, since, until, shard, sample, smallest, largest, newest, per; None if not given.
    Raises UsageError.
    """
    given = {option: value for option, value in asked.items() if value is not None}  # "" is given, and wrong
    moment_now = now() if {"since", "until"} & given.keys() else None
    conditions: list[Condition] = []
    if "max_images" in given:
        conditions.append(at_most_images(given["max_images"]))
    if moment_now and "since" in given:
        conditions.append(since(given["since"], moment_now))
    if moment_now and "until" in given:
        conditions.append(until(given["until"], moment_now))
    if "shard" in given:
        conditions.append(shard(given["shard"]))
    rankings = [Ranking[Any](how, given[how], given.get("per")) for how in _BY_SIZE_OR_DATE if how in given]
    if "per" in given and not rankings:
        raise UsageError("--per goes with --smallest, --largest or --newest")
    if "sample" in given:
        sampled = sample(given["sample"])
        if isinstance(sampled, Condition):
            conditions.append(sampled)
        else:
            rankings.append(sampled)
    if len(rankings) > 1:
        raise UsageError(f"{rankings[0].words} and {rankings[1].words} cannot be had at once",
                         advice="Put a second filter behind the first")
    return conditions, rankings[0] if rankings else None


def at_most_images(limit: int) -> Condition:
    """Series and studies whose known count of instances is `limit` at most."""
    def judge(*values: object) -> bool | None:
        count = _count(*values)
        return None if count is None else count <= limit

    return Condition(f"--max-images {limit}", COUNT_KEYS, judge, "a known number of instances")


def since(text: str, now: "datetime") -> Condition:
    """Studies from the moment `text` on."""
    start = moment(text, now)
    return Condition(f"--since {text}", DATE_KEYS, lambda date, time: _compare(date, time, start, 1), "a StudyDate")


def until(text: str, now: "datetime") -> Condition:
    """Studies up to and including the moment `text`, as precise as it is: `20240131` is up to the end of that day."""
    end = moment(text, now)
    return Condition(f"--until {text}", DATE_KEYS, lambda date, time: _compare(date, time, end, -1), "a StudyDate")


def shard(text: str) -> Condition:
    """Part K of N, for `K/N`: the studies whose hash is K - 1 modulo N. Raises UsageError."""
    part, slash, whole = text.partition("/")
    if not (slash and _is_count(part) and _is_count(whole) and int(part) <= int(whole)):
        raise UsageError(f"--shard {text}: no part of a whole", advice="Write K/N, with K from 1 to N: 2/8")
    k, n = int(part) - 1, int(whole)

    def judge(uid: object) -> bool | None:
        number = uid_hash(uid)
        return None if number is None else number % n == k

    return Condition(f"--shard {text}", ("StudyInstanceUID",), judge, "a StudyInstanceUID")


def sample(text: str) -> "Condition | Ranking[Any]":
    """`P%`: the records whose deepest UID has a hash in the lowest P percent. `N`: the N lowest hashes of all.

    Raises UsageError.
    """
    if _is_count(text):
        return Ranking("sample", int(text))
    if not re.fullmatch(r"\d+(\.\d+)?%", text) or not 0 < float(text[:-1]) <= 100:
        raise UsageError(f"--sample {text}: neither a number nor a percentage", advice="Write 50 or 5%")
    bound = float(text[:-1]) / 100 * _HASHES

    def judge(*uids: object) -> bool | None:
        number = _deepest_hash(*uids)
        return None if number is None else number < bound

    return Condition(f"--sample {text}", UID_KEYS, judge, "a UID")


def moment(text: str, now: "datetime") -> str:
    """The digits YYYYMMDDHHMMSS, or the first of them, of `12h`, `2d` (before `now`), `20240131` or `2024-01-31T12:00`.

    Raises UsageError.
    """
    age = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if age:
        from datetime import timedelta  # lazy: only ages need it

        try:
            return (now - timedelta(**{_AGE_UNITS[age[2]]: int(age[1])})).strftime("%Y%m%d%H%M%S")
        except OverflowError:
            raise UsageError(f"{text!r} is before the calendar") from None
    digits = re.sub(r"[-:T ]", "", text)
    if not re.fullmatch(r"\d{4}(\d\d){0,5}", digits):
        raise UsageError(f"{text!r} is no date, time or age", advice="Write 12h, 2d, 20240131 or 2024-01-31T12:00")
    return digits


def uid_hash(uid: object) -> int | None:
    """The hash of a UID, below 2**64; None of what is none."""
    if not isinstance(uid, str) or not (text := uid.rstrip("\0 ")):
        return None
    from hashlib import blake2b  # lazy: most filters hash nothing

    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def warnings(choices: Iterable[Condition | Ranking[Any]]) -> list[str]:
    """What to tell people of records that were left out because something is not known of them."""
    return [f"left out by {each.words} for want of {each.lacking}: {each.unknown}"
            for each in choices if each.unknown]


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0


def _group(values: Sequence[object]) -> object:
    """The first value that is known: where a patient has no ID, the study stands for the patient."""
    for depth, value in enumerate(values):
        if text := _text(value).strip():
            return depth, text
    return None


def _text(value: object) -> str:
    """The text of a value, or the first one of several; empty where there is none."""
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) else ""


def _count(kind: object, of_series: object, of_study: object, level: object, of_outcome: object) -> int | float | None:
    count = of_study if "study" in (kind, level) else of_series
    if kind == "outcome":
        count = of_outcome
    return count if isinstance(count, _NUMBER_KINDS) and not isinstance(count, bool) else None


def _fewest(*values: object) -> int | float | None:
    count = _count(*values)
    return None if count is None else -count


def _moment_of(date: object, time: object) -> str | None:
    """The digits of a date and, where it is known, a time; None without a date."""
    day = re.sub(r"\D", "", _text(date))
    if len(day) < 4:
        return None
    clock = re.sub(r"\D", "", _text(time).partition(".")[0])
    return day[:8] + clock[:6] if len(day) >= 8 else day


def _compare(date: object, time: object, bound: str, sign: int) -> bool | None:
    """Whether a moment is on this side of `bound`, both as precise as the less precise."""
    when = _moment_of(date, time)
    if when is None:
        return None
    digits = min(len(when), len(bound))
    left, right = when[:digits], bound[:digits]
    return left >= right if sign > 0 else left <= right


def _latest(series_date: object, series_time: object, study_date: object, study_time: object) -> str | None:
    return _moment_of(series_date, series_time) or _moment_of(study_date, study_time)


def _deepest_hash(*uids: object) -> int | None:
    return next((number for uid in uids if (number := uid_hash(uid)) is not None), None)


def _lowest_hash(*uids: object) -> int | None:
    number = _deepest_hash(*uids)
    return None if number is None else -number


_RANKS: dict[How, tuple[tuple[str, ...], Callable[..., int | float | str | None], str]] = {
    "smallest": (COUNT_KEYS, _fewest, "a known number of instances"),
    "largest": (COUNT_KEYS, _count, "a known number of instances"),
    "newest": (NEWEST_KEYS, _latest, "a date"),
    "sample": (UID_KEYS, _lowest_hash, "a UID"),
}
