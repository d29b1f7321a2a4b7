"""`--since` and `--until` of a query: the StudyDate to ask for, and which answers lie inside.

A server matches days; hours are judged here, on the answers. Pure: the clock's word is handed in.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from dcmsync.plan import select

Judge = Callable[[Mapping[str, object]], bool]


def study_date(since: str | None, until: str | None, now: datetime) -> str:
    """The range of StudyDate that contains the window. Raises UsageError when a bound is no moment."""
    first = select.moment(since, now)[:8] if since else ""
    last = select.moment(until, now)[:8] if until else ""
    return f"{_filled(first, '0101')}-{_filled(last, '1231')}"


def judge(since: str | None, until: str | None, now: datetime) -> Judge:
    """Whether an answer lies inside. One whose date is not known does: the server said that it matches."""
    conditions = []
    if since:
        conditions.append(select.since(since, now))
    if until:
        conditions.append(select.until(until, now))
    verdicts = [condition.verdict(_getter) for condition in conditions]
    return lambda answer: all(verdict(answer) is not False for verdict in verdicts)


def _getter(key: str) -> Callable[[Mapping[str, object]], object]:
    return lambda answer: answer.get(key)


def _filled(digits: str, rest: str) -> str:
    """`2024` -> `20240101` or `20241231`: a cut date stands for all of it. Day 31 of any month is late enough."""
    if not digits:
        return ""
    return (digits + rest[-(8 - len(digits)) :]) if len(digits) < 8 else digits
