"""One of the two places of a comparison: asked for lists, and for single things by their UID.

Owns the questions: every list is an inventory of its own, so that it is known of each whether it may be cut short. A
thing that a list does not name is asked for by its own UID before it is called missing: lists are cut, and attributes
differ. While one side works the other one waits, and nodes hang up on who waits: what a broken association kept from
beginning is asked once more. Refuses to compare.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import msgspec

from dcmsync.contract import Ask, Attributes, Catalogue, Ending, Level, Receiver, Session, Want
from dcmsync.errors import Disconnected, PeerError
from dcmsync.plan import levels
from dcmsync.plan.compare import COUNTS
from dcmsync.plan.levels import DEFAULT_KEYS, Query
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.spill import Queue

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(dict[str, object]).decode
_MOST_ANSWERS = 100  # to a question about one thing; some nodes ignore what is asked


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

    def below(self, level: Level, parent: Attributes, *, like: Query | None = None, usual: bool = True) -> "Listing":
        """The things of `level` directly below one parent: what is asked of them in `like`, and the usual attributes.

        Without the usual ones their counts alone.
        """
        keys = levels.keys_at(like, level) if like else {}
        wanted = (*COUNTS.get(level, ()), *(like.wanted if like else ()))
        return Listing(self, Query(level=level, keys=keys, wanted=wanted, usual=usual), parent)

    async def ask(self, level: Level, uids: Mapping[str, str], *, usual: bool = False) -> Attributes | None:
        """What is known of the one thing with these UIDs, that of each level above among them; None without it.

        Raises PeerError, also when the place ends its answer as if there were more to it; LocalTrouble.
        """
        uid = uids[level.unique_key]
        wanted = DEFAULT_KEYS[level] if usual else (level.unique_key, *COUNTS.get(level, ()))
        ask = Ask(level=level, keys=dict(uids), wanted=wanted)
        if self.catalogue is not None:
            return next(({**answer, **uids} for answer in self.catalogue.find(ask)), None)
        try:
            answers, ending = await self._answers(ask)
        except Disconnected:
            answers, ending = await self._answers(ask)
        found = next(({**each, **uids} for each in answers if (each.get(level.unique_key) or uid) == uid), None)
        if found is None and ending.truncated and not ending.is_last_word:
            raise PeerError(f"{self.name}: whether it holds one {level.word} cannot be told: {ending.why}")
        return found

    async def _answers(self, ask: Ask) -> tuple[list[Attributes], Ending]:
        """The answers to a question that has one, or few."""
        answers: list[Attributes] = []
        ending = Ending()
        async with aclosing(self.session.find(ask)) as found:
            async for answer in found:
                if isinstance(answer, Ending):
                    ending = answer
                elif len(answers) < _MOST_ANSWERS:
                    answers.append(answer)
        return answers, ending

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
        self._inventory = self._new()

    @property
    def is_complete(self) -> bool:
        """Whether nothing says that it was cut short."""
        return self._inventory.is_complete

    async def run(self) -> AsyncGenerator[dict[str, object], None]:
        """Each thing as it is found, with what is known of the levels above. Raises PeerError, LocalTrouble."""
        has_begun = False
        try:
            async with aclosing(self._walk()) as found:
                async for thing in found:
                    has_begun = True
                    yield thing
        except Disconnected:
            if has_begun:
                raise
            self._inventory = self._new()
            async with aclosing(self._walk()) as found:
                async for thing in found:
                    yield thing

    async def _walk(self) -> AsyncGenerator[dict[str, object], None]:
        try:
            async with aclosing(self._inventory.walk(self._query, self._known)) as found:
                async for thing in found:
                    yield thing
        finally:
            self._side.note(self._inventory)

    def _new(self) -> Inventory:
        return Inventory(self._side.session, name=self._side.name, warn=self._side.warn)


class Early:
    """A list that may be asked for before somebody takes what it has."""

    def __init__(self, listing: "Listing") -> None:
        self._listing = listing
        self._waiting: Queue | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing says that it was cut short."""
        return self._listing.is_complete

    async def list(self) -> None:
        """Asks for all of it, and has it wait. Raises PeerError, LocalTrouble."""
        self._waiting = Queue()
        async with aclosing(self._listing.run()) as found:
            async for answer in found:
                self._waiting.put(_ENCODE(answer))

    async def run(self) -> AsyncGenerator[dict[str, object], None]:
        """What is listed, once. Raises PeerError, LocalTrouble."""
        if self._waiting is not None:
            for line in self._waiting.drain():
                yield _DECODE(line)
            return
        async with aclosing(self._listing.run()) as found:
            async for answer in found:
                yield answer

    def close(self) -> None:
        """Lets go of what waits."""
        if self._waiting is not None:
            self._waiting.close()


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
