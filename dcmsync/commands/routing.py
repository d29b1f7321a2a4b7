"""From a route of the configuration to where things go: its rules, understood and checked, and the edits on the way.

Owns the wiring of [routes.NAME] with `plan/route` and with edits. Refuses to move anything.
"""

from __future__ import annotations

import os

from dcmsync import config
from dcmsync.commands.editing import Editing, salt_of
from dcmsync.commands.places import Places
from dcmsync.errors import UsageError
from dcmsync.plan.route import Delivery, Route, Rule, Rules
from dcmsync.wire.dataset import tag_of


class Routing:
    """The route called `name`."""

    def __init__(self, name: str, places: Places) -> None:
        """Raises UsageError for what it cannot mean, LocalTrouble when its salt cannot be read."""
        self._set_up = _named(name, places)
        self.route = Route(rules_of(self._set_up), places.selectors)
        for key in self.route.keys:
            tag_of(key)
        if not self.route.deliveries:
            raise UsageError(f"the route {name!r} leads nowhere", advice="Give it rules with `to`, or a default")
        salt = salt_of(os.path.expanduser(self._set_up.salt_file)) if self._set_up.salt_file else b""
        self._editings = {words: self._editing(words, salt) for words in {each.edits for each in self.route.deliveries}}
        self._salt = salt
        for delivery in self.route.deliveries:
            places.parse(delivery.to)

    def editing(self, delivery: Delivery) -> Editing | None:
        """The edits on the way there; None without any. Raises UsageError for words of an earlier configuration."""
        if delivery.edits not in self._editings:
            self._editings[delivery.edits] = self._editing(delivery.edits, self._salt)
        return self._editings[delivery.edits]

    def _editing(self, words: tuple[str, ...], salt: bytes) -> Editing | None:
        return Editing(words, salt=salt, keeps_originals=self._set_up.keep_originals) if words else None


def rules_of(set_up: config.Route) -> Rules:
    """A route, as it stands in the configuration."""
    def deliveries(to: tuple[str, ...], edits: tuple[str, ...] | None) -> tuple[Delivery, ...]:
        return tuple(Delivery(word, set_up.edits if edits is None else edits) for word in to)

    rules = tuple(
        Rule(when=(each.when,) if isinstance(each.when, str) else each.when, to=deliveries(each.to, each.edits))
        for each in set_up.rules
    )
    default = deliveries(set_up.default, None)
    return Rules(rules=rules, match=set_up.match, per=set_up.per, default=default, exclude=set_up.exclude)


def _named(name: str, places: Places) -> config.Route:
    if name not in places.routes:
        known = ", ".join(sorted(places.routes))
        advice = f"There is: {known}" if known else "It has no [routes.NAME] at all"
        raise UsageError(f"there is no route {name!r} in the configuration", advice=advice)
    return places.routes[name]
