"""How to ask again, in parts, for a list that the peer may have cut short.

Owns which counts are suspicious, and how a query is cut: studies by StudyDate, within one day by StudyTime, within
one minute by the first character of PatientID, as patients are at once; series and instances number by number, for
numbers match neither wildcards nor ranges (PS3.4 §C.2.2.2.4, .5; Orthanc refuses such a query). Pure: it is shown what
came, and gives the keys of the parts.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import date, timedelta

from dcmsync.contract import Level

_FIRST_DAY, _LAST_DAY = date(1850, 1, 1), date(9999, 12, 31)
_DAY_MINUTES = 24 * 60
# Without the space: a leading one is padding, and ` *` would ask for everything.
_INITIALS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-.!#$%&'()+,/:;<=>@[]^`{|}~"
NUMBERS = {Level.SERIES: "SeriesNumber", Level.INSTANCE: "InstanceNumber"}
_BEYOND = 3  # how many numbers are asked for beyond the highest that must be there
_MAX_NUMBERS = 10_000


def is_suspicious(count: int) -> bool:
    """Whether a list of this length may have met a limit: 100, 200, 250, 500 and ten, a hundred … times those."""
    while count >= 1000 and count % 10 == 0:
        count //= 10
    return count in (100, 200, 250, 500)


class Spread:
    """How the answers of one ask are spread, in bounded memory: by date, or by minute of one day, or by initial."""

    def __init__(self) -> None:
        self.count = 0
        self.dates: Counter[str] = Counter()
        self.minutes: Counter[int] = Counter()
        self.initials: set[str] = set()
        self.numbers: dict[str, set[int]] = {keyword: set() for keyword in NUMBERS.values()}

    def add(self, answer: Mapping[str, object]) -> None:
        """Counts one answer."""
        self.count += 1
        for keyword, numbers in self.numbers.items():
            number = answer.get(keyword)
            if isinstance(number, int):
                numbers.add(number)
        day = answer.get("StudyDate")
        if isinstance(day, str) and _day(day):
            self.dates[day] += 1
        minute = _minute(answer.get("StudyTime"))
        if minute is not None:
            self.minutes[minute] += 1
        patient = answer.get("PatientID")
        if isinstance(patient, str) and patient:
            self.initials.add(patient[0])


def parts(
    level: Level,
    keys: Mapping[str, str],
    spread: Spread,
    claimed: int | None = None,
    *,
    unusable: Collection[str] = (),
) -> list[dict[str, str]]:
    """The keys of the queries that together ask for the same; empty when it cannot be cut any further.

    Below studies that is a guess: numbers up to the highest that must be there, given what came and what is `claimed`.
    `unusable` are keywords that the peer does not match by.
    """
    if level is Level.PATIENT:
        return [] if "PatientID" in unusable else _by_initial(keys, spread)
    if level is not Level.STUDY:
        number = NUMBERS[level]
        return [] if number in unusable else _by_number(number, keys, spread, claimed or 0)
    ways = (("StudyDate", _by_date), ("StudyTime", _by_time), ("PatientID", _by_initial))
    cuts = (cut(keys, spread) for keyword, cut in ways if keyword not in unusable)
    return next((cut for cut in cuts if cut), [])


def _by_date(keys: Mapping[str, str], spread: Spread) -> list[dict[str, str]]:
    asked = keys.get("StudyDate", "")
    if "\\" in asked or "*" in asked:
        return []
    first, last = _range(asked)
    if first is None or last is None or first >= last:
        return []
    middle = _median(spread.dates, first, last)
    ranges = [(first, middle - timedelta(days=1))] if middle > first else []
    ranges += [(middle, middle)] if middle > first else []
    low = middle + timedelta(days=1) if middle > first else first
    if not ranges:
        ranges = [(first, first)]
        low = first + timedelta(days=1)
    if low <= last:
        ranges.append((low, last))
    return [{**keys, "StudyDate": _written(*pair)} for pair in ranges]


def _by_time(keys: Mapping[str, str], spread: Spread) -> list[dict[str, str]]:
    begin, separator, end = (keys.get("StudyTime") or "000000-235959.999999").partition("-")
    first, last = _minute(begin), _minute(end)
    if not separator or first is None or last is None or first >= last:
        return []
    middle = (first + last) // 2
    if spread.minutes:
        ordered = sorted(spread.minutes.elements())
        middle = min(max(ordered[len(ordered) // 2], first), last - 1)
    after = middle + 1
    halves = (
        f"{begin}-{middle // 60:02}{middle % 60:02}59.999999",
        f"{after // 60:02}{after % 60:02}00-{end}",  # the ends stay as they were asked, to the second
    )
    return [{**keys, "StudyTime": half} for half in halves]


def _by_initial(keys: Mapping[str, str], spread: Spread) -> list[dict[str, str]]:
    if keys.get("PatientID"):
        return []
    initials = dict.fromkeys([*_INITIALS, *sorted(spread.initials - {"*", "?", "\\", " "})])
    return [{**keys, "PatientID": f"{initial}*"} for initial in initials]


def _by_number(keyword: str, keys: Mapping[str, str], spread: Spread, claimed: int) -> list[dict[str, str]]:
    if keys.get(keyword):
        return []
    highest = max(claimed, spread.count, *spread.numbers[keyword], 0)
    return [{**keys, keyword: str(number)} for number in range(min(highest + _BEYOND, _MAX_NUMBERS) + 1)]


def _range(asked: str) -> tuple[date | None, date | None]:
    if not asked:
        return _FIRST_DAY, _LAST_DAY
    begin, separator, end = asked.partition("-")
    if not separator:
        return _day(begin), _day(begin)
    return (_day(begin) if begin else _FIRST_DAY), (_day(end) if end else _LAST_DAY)


def _median(dates: Counter[str], first: date, last: date) -> date:
    inside = sorted(day for day in (_day(text) for text in dates.elements()) if day and first <= day <= last)
    if inside:
        return inside[len(inside) // 2]
    return first + (last - first) // 2


def _written(first: date, last: date) -> str:
    if first == last and first not in (_FIRST_DAY, _LAST_DAY):
        return f"{first:%Y%m%d}"
    begin = "" if first == _FIRST_DAY else f"{first:%Y%m%d}"
    end = "" if last == _LAST_DAY else f"{last:%Y%m%d}"
    return f"{begin}-{end}"


def _day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])) if len(text) == 8 else None
    except ValueError:
        return None


def _minute(value: object) -> int | None:
    if not isinstance(value, str) or len(value) < 2:
        return None
    try:
        minute = int(value[:2]) * 60 + int(value[2:4] or 0)
    except ValueError:
        return None
    return minute if 0 <= minute < _DAY_MINUTES else None
