"""Everything that one `filter` asks of a record, put together: its clauses, the keys they need, the words about them.

Owns how expressions and conditions join (every clause must hold), which clause is to blame for a dropped record, and
the warnings at the end. Refuses to know lines and streams. Words carry keys and expressions, never values, unless
values are asked for.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, TypeVar

from msgspec import Struct

from dcmsync.plan.expression import Branch, Expression, Getter, Question, Selectors, bind, join, parse, questions
from dcmsync.plan.select import Condition, Ranking, warnings

R = TypeVar("R")


class Clause(Struct, frozen=True):
    """One thing that must hold of a record, and how people wrote it."""

    words: str
    must: Expression | Condition

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys it asks for, in the order written, each once."""
        if isinstance(self.must, Condition):
            return self.must.keys
        return tuple(dict.fromkeys(question.key for question in questions(self.must)))


class Sift:
    """One filter. Raises UsageError when an expression cannot be understood.

    `expressions` are joined by `all` or `any`, and the whole of them turned round when `is_negated`; `conditions` and
    `ranking` come on top.
    """

    def __init__(self, expressions: Sequence[str], *, selectors: Selectors | None = None,
                 joined_by: Literal["all", "any"] = "all", is_negated: bool = False,
                 conditions: Sequence[Condition] = (), ranking: Ranking[Any] | None = None) -> None:
        self._clauses = _clauses(expressions, [parse(text, selectors) for text in expressions], joined_by, is_negated)
        self._clauses += [Clause(condition.words, condition) for condition in conditions]
        self._choices: list[Condition | Ranking[Any]] = [*conditions, *([ranking] if ranking else [])]
        self.ranking = ranking
        self.keys = frozenset(key for clause in self._clauses for key in clause.keys) | frozenset(
            ranking.keys if ranking else ())

    def bind(self, getter: Callable[[str], Getter[R]]) -> Callable[[Sequence[R]], Iterable[bool]]:
        """A function that tells, of each record, whether it stays (or may be ranked); `getter` as for an expression."""
        if len(self._clauses) == 1 and isinstance(only := self._clauses[0].must, Question):
            return only.bind_all(getter(only.key))
        judge = join("all", [_bind(clause, getter) for clause in self._clauses])
        return lambda records: map(judge, records)

    def blame(self, getter: Callable[[str], Getter[R]], *, with_values: bool) -> Callable[[R | None], str]:
        """A function that says in words what dropped a record; None stands for one that the ranking dropped."""
        judges = [(clause, _verdict(clause, getter), [(key, getter(key)) for key in clause.keys])
                  for clause in self._clauses]

        def say(record: R | None) -> str:
            if record is None:
                return f"dropped by {self.ranking.words if self.ranking else 'nothing'}"
            clause, gets = next((clause, gets) for clause, judge, gets in judges if not judge(record))
            shown = ", ".join(f"{key} is {_shown(get(record))}" for key, get in gets)
            return f"dropped by {clause.words}" + (f" ({shown})" if with_values else "")

        return say

    def warnings(self, known_keys: Collection[str]) -> list[str]:
        """What people should hear at the end; `known_keys` are keys that records of the stream have."""
        strange = dict.fromkeys(
            question.key for clause in self._clauses if not isinstance(clause.must, Condition)
            for question in questions(clause.must) if question.has_missed_key and not question.has_met_key)
        return [_no_such_key(key, known_keys) for key in strange] + warnings(self._choices)


def _clauses(texts: Sequence[str], parsed: Sequence[Expression], joined_by: Literal["all", "any"],
             is_negated: bool) -> list[Clause]:
    if not parsed:
        return []
    if joined_by == "all" and not is_negated:
        return [Clause(text, expression) for text, expression in zip(texts, parsed, strict=True)]
    whole = Branch(joined_by, tuple(parsed))
    words = f"--any {' '.join(texts)}" if joined_by == "any" else " ".join(texts)
    return [Clause(f"--not {words}", Branch("none", (whole,))) if is_negated else Clause(words, whole)]


def _bind(clause: Clause, getter: Callable[[str], Getter[R]]) -> Callable[[R], bool]:
    return clause.must.bind(getter) if isinstance(clause.must, Condition) else bind(clause.must, getter)


def _verdict(clause: Clause, getter: Callable[[str], Getter[R]]) -> Callable[[R], bool | None]:
    return clause.must.verdict(getter) if isinstance(clause.must, Condition) else bind(clause.must, getter)


def _shown(value: object) -> str:
    return "absent" if value is None else repr(value)


def _no_such_key(key: str, known_keys: Collection[str]) -> str:
    from difflib import get_close_matches  # lazy: only a mistake needs it

    near = get_close_matches(key, known_keys, n=1)
    return f"no record has the key {key}" + (f"; did you mean {near[0]}?" if near else "")
