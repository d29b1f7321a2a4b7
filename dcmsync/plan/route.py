"""Routes: where an instance, a series or a study goes, by rules over what is known of it.

Owns the choice: rules in their order, the first that is true or all that are, what is excluded before them, and what
holds when none is true; and that what was chosen for the first of a series or study holds for the rest of it. Refuses
to know where records come from, how edits are made, and what the names of destinations mean.

The language of the rules is that of `filter` (see `expression`): KEY=A,B is "in", KEY~REGEX finds, `!` negates, and
@NAME is a selector of the configuration with its all_of, any_of and none_of.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from dcmsync.plan.expression import Expression, Selectors, bind, join, parse, questions

Match = Literal["first", "all"]
Per = Literal["study", "series", "instance"]
Thing = Mapping[str, object]

MOST_REMEMBERED = 100_000  # studies or series whose destinations hold for what is still to come

_KEYS: Mapping[Per, str] = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}


class Delivery(Struct, frozen=True, order=True):
    """A destination, and the edits on the way there, as they were written."""

    to: str
    edits: tuple[str, ...] = ()


class Rule(Struct, frozen=True, kw_only=True):
    """What is true of `when` (all of it; of anything, when it is empty) goes `to` these."""

    when: tuple[str, ...]
    to: tuple[Delivery, ...]


class Rules(Struct, frozen=True, kw_only=True):
    """One route, as it was written."""

    rules: tuple[Rule, ...]
    match: Match = "first"
    per: Per = "study"
    default: tuple[Delivery, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Every one that may be chosen."""
        return tuple(dict.fromkeys([*(each for rule in self.rules for each in rule.to), *self.default]))


class Route:
    """A route that has been understood. `keys`: what has to be known of a thing."""

    def __init__(self, rules: Rules, selectors: Selectors) -> None:
        """Raises UsageError for an expression that is none."""
        excluded = [parse(text, selectors) for text in rules.exclude]
        conditions = [[parse(text, selectors) for text in rule.when] for rule in rules.rules]
        self.per = rules.per
        self.deliveries = rules.deliveries
        self.keys = _keys([*excluded, *(each for condition in conditions for each in condition)])
        self._match = rules.match
        self._default = tuple(dict.fromkeys(rules.default))
        self._is_excluded = _judge(excluded, "any")
        self._rules = [
            (_judge(condition, "all"), rule.to) for condition, rule in zip(conditions, rules.rules, strict=True)
        ]

    def decide(self, thing: Thing) -> tuple[Delivery, ...]:
        """Where a thing goes, each once; nowhere when it is excluded, or nothing is said of it."""
        if self._is_excluded(thing):
            return ()
        chosen: list[Delivery] = []
        for is_true, to in self._rules:
            if is_true(thing):
                chosen += to
                if self._match == "first":
                    break
        return tuple(dict.fromkeys(chosen)) or self._default


class Decisions:
    """What was decided: for each study or series once, as the route has it, by the first of it that came."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._made: OrderedDict[str, tuple[Delivery, ...]] = OrderedDict()

    def decide(self, thing: Thing) -> tuple[Delivery, ...]:
        """Where a thing goes."""
        key = str(thing.get(_KEYS[self._route.per]) or "")
        if self._route.per == "instance" or not key:
            return self._route.decide(thing)
        if key not in self._made:
            self.recall(thing, self._route.decide(thing))
        self._made.move_to_end(key)
        return self._made[key]

    def is_made(self, thing: Thing) -> bool:
        """Whether it is decided already where a thing goes."""
        return self._route.per != "instance" and str(thing.get(_KEYS[self._route.per]) or "") in self._made

    def recall(self, thing: Thing, deliveries: Sequence[Delivery]) -> None:
        """What was decided of a thing by an earlier run; the first word on a study or series stays."""
        self._made.setdefault(str(thing.get(_KEYS[self._route.per]) or ""), tuple(deliveries))
        if len(self._made) > MOST_REMEMBERED:
            self._made.popitem(last=False)


def _keys(expressions: Sequence[Expression]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.key for expression in expressions for each in questions(expression)))


def _judge(expressions: Sequence[Expression], how: Literal["all", "any"]) -> Callable[[Thing], bool]:
    """Whether all, or any, of the expressions are true; of none at all, `all` is and `any` is not."""
    return join(how, [bind(each, lambda key: lambda thing: thing.get(key)) for each in expressions])
