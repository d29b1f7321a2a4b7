"""One of the two places of a comparison: asked for lists, and for single things by their UID.

Owns the questions: every list is an inventory of its own, so that it is known of each whether it may be cut short. A
thing that a list does not name is asked for by its own UID before it is called missing: lists are cut, and attributes
differ. Refuses to compare.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from dcmsync.contract import Ask, Attributes, Catalogue, Ending, Level, Receiver, Session, Want
from dcmsync.errors import PeerError
from dcmsync.plan.compare import COUNTS
from dcmsync.plan.levels import DEFAULT_KEYS, Query
from dcmsync.transfer.inventory import Inventory


class Side:
    """A place called `name`, asked in one session. `trouble`: why some list may be incomplete; `splits`: as in `end`.

    `warn` hears of each kind of trouble once. `catalogue` is that of a place on this machine, brought up to date: it
    answers for single things at once. hot: 0.1 ms less than by way of the session, which hands each over to a thread.
    """

    def __init__(
        self, name: str, session: Session, *, warn: Callable[[str], None], catalogue: Catalogue | None = None
    ) -> None:
        self.name = name
        self.session = session
        self.catalogue = catalogue
        self.trouble = ""
        self.splits = 0
        self._warn = warn
        self._warned: set[str] = set()

    def listing(self, query: Query, known: Attributes | None = None) -> "Listing":
        """The things that match, below what is known."""
        return Listing(self, query, known or {})

    def below(
        self, level: Level, parent: Attributes, *, usual: bool, keys: Mapping[str, str] | None = None
    ) -> "Listing":
        """The things of `level` directly below one parent; of the usual attributes, or of their counts alone."""
        query = Query(level=level, keys=keys or {}, wanted=COUNTS.get(level, ()), usual=usual)
        return Listing(self, query, parent)

    async def ask(self, level: Level, uids: Mapping[str, str], *, usual: bool = False) -> Attributes | None:
        """What is known of the one thing with these UIDs, that of each level above among them; None without it.

        Raises PeerError, also when the place ends its answer as if there were more to it; LocalTrouble.
        """
        uid = uids[level.unique_key]
        wanted = DEFAULT_KEYS[level] if usual else (level.unique_key, *COUNTS.get(level, ()))
        ask = Ask(level=level, keys=dict(uids), wanted=wanted)
        if self.catalogue is not None:
            return next(({**answer, **uids} for answer in self.catalogue.find(ask)), None)
        found: Attributes | None = None
        ending = Ending()
        async with aclosing(self.session.find(ask)) as answers:
            async for answer in answers:
                if isinstance(answer, Ending):
                    ending = answer
                elif found is None and (answer.get(level.unique_key) or uid) == uid:
                    found = {**answer, **uids}
        if found is None and ending.truncated and not ending.is_last_word:
            raise PeerError(f"{self.name}: whether it holds one {level.word} cannot be told: {ending.why}")
        return found

    def note(self, inventory: Inventory) -> None:
        """A list has ended."""
        self.trouble = self.trouble or inventory.trouble
        self.splits += inventory.splits

    def warn(self, words: str) -> None:
        """Says it, once."""
        if words not in self._warned:
            self._warned.add(words)
            self._warn(words)


class Listing:
    """One list of one side. `is_complete` is known when it has been run to its end."""

    def __init__(self, side: Side, query: Query, known: Attributes) -> None:
        self._side = side
        self._query = query
        self._known = known
        self._inventory = Inventory(side.session, name=side.name, warn=side.warn)

    @property
    def is_complete(self) -> bool:
        """Whether nothing says that it was cut short."""
        return self._inventory.is_complete

    async def run(self) -> AsyncGenerator[dict[str, object], None]:
        """Each thing as it is found, with what is known of the levels above. Raises PeerError, LocalTrouble."""
        try:
            async with aclosing(self._inventory.walk(self._query, self._known)) as found:
                async for thing in found:
                    yield thing
        finally:
            self._side.note(self._inventory)


class Nothing:
    """A session with a place that is not there yet (contract.Session): it has nothing."""

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """No answers."""
        yield Ending(is_last_word=True)

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """No instances."""
        return Ending()

    async def rest(self) -> None:
        """Nothing is held."""
