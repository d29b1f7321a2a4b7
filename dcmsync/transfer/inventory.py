"""What a place holds: a query carried out level by level, every answer checked, and cut lists asked for in parts.

A session carries one operation at a time, so the parents of a level are listed to their end before the first of them
is gone into; they wait as JSON, some 400 octets each. Things of the level that is wanted stream through.

Owns the walk from studies down to the level wanted: one unique key for each level above, always (PS3.4 §C.4.1.2.2.1);
merges what came twice, drops what does not match, and knows afterwards whether the list is complete. Heeds the quirks
that a session knows of its place. Refuses to know how a place is asked (a session does) and what becomes of the
answers.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import msgspec

from dcmsync.contract import Ask, Attributes, Ending, Finds, Level
from dcmsync.plan import levels, split
from dcmsync.plan.levels import Query
from dcmsync.plan.match import matcher, vr_of
from dcmsync.quirks import COUNTS, quirks_of

_COUNTS = {Level.SERIES: "NumberOfStudyRelatedSeries", Level.INSTANCE: "NumberOfSeriesRelatedInstances"}
_VOLUNTEERED = frozenset(("TransferSyntaxUID",))  # what local places tell without being asked
_MAX_SPLITS = 100_000
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(dict[str, object])


class Inventory:
    """Queries of one session with the place called `name`.

    `warn` hears, in words without patient data, of what a peer did wrong; once a kind.
    """

    def __init__(self, session: Finds, *, name: str, warn: Callable[[str], None]) -> None:
        self.splits = 0
        self.trouble = ""  # why some list may be incomplete
        self._session = session
        self._quirks = quirks_of(session)
        self._name = name
        self._warn = warn
        self._warned: set[str] = set()

    @property
    def is_complete(self) -> bool:
        """Whether nothing says that a list was cut short."""
        return not self.trouble

    async def walk(self, query: Query, known: Attributes | None = None) -> AsyncGenerator[dict[str, object], None]:
        """Every thing of `query.level` that matches, with what is known of the levels above it, as it is found.

        `known` are attributes that hold for all of it, such as those of the record that is being expanded: its unique
        keys are not asked for again. Raises PeerError.
        """
        first = Level.STUDY
        known = dict(known or {})
        while first < query.level and first.unique_key in known:
            first = Level(first + 1)
        async with aclosing(self._descend(query, first, known)) as found:
            async for answer in found:
                yield answer

    async def _descend(
        self, query: Query, level: Level, known: Mapping[str, object]
    ) -> AsyncGenerator[dict[str, object], None]:
        above = {key: str(known[key]) for key in (Level(n).unique_key for n in range(1, level)) if key in known}
        for pinned in self._pins(query, level, known):
            keys = {**levels.keys_at(query, level), **pinned, **above}
            wanted = levels.wanted_at(query, level)
            parents: list[bytes] = []
            async with aclosing(self._list(level, keys, wanted, known)) as answers:
                async for answer in answers:
                    if level == query.level:
                        yield {**known, **answer}
                    else:
                        parents.append(_ENCODER.encode(answer))
            for parent in parents:
                merged = {**known, **_DECODER.decode(parent)}
                async with aclosing(self._descend(query, Level(level + 1), merged)) as deeper:
                    async for thing in deeper:
                        yield thing

    def _pins(self, query: Query, level: Level, known: Mapping[str, object]) -> list[dict[str, str]]:
        """The unique keys to ask for at a level, one UID a time; one empty one when all are wanted."""
        unique = level.unique_key
        asked = str(known[unique]) if unique in known else query.keys.get(unique, "")
        return [{unique: uid} for uid in levels.uids(asked)] or [{unique: ""}]

    async def _list(
        self, level: Level, keys: Mapping[str, str], wanted: tuple[str, ...], known: Mapping[str, object]
    ) -> AsyncGenerator[dict[str, object], None]:
        """The things of one level below one parent, each once; asks again in parts where the list may be cut."""
        seen: set[int] = set()
        unconfirmed: set[int] = set()  # studies listed by a query that was then cut, and not yet by one of its parts
        is_limited = False  # whether the peer said so, or a part gave what the whole did not
        is_part = False
        is_narrowed = any(value for key, value in keys.items() if not key.endswith("InstanceUID"))
        is_all = not (is_narrowed or keys[level.unique_key])
        claimed = known.get(_COUNTS.get(level, "")) if is_all and not self._quirks.no_counts else None
        waiting = [dict(keys)]
        while waiting:
            asked = waiting.pop()
            spread = split.Spread()
            ending = Ending()
            marks: set[int] = set()
            async with aclosing(self._checked(level, asked, wanted)) as answers:
                async for answer in answers:
                    if isinstance(answer, Ending):
                        ending = answer
                        continue
                    if len(wanted) > 1:
                        spread.add(answer)
                    else:  # nothing but its UID, which cuts no query
                        spread.count += 1
                    mark = hash(answer[level.unique_key])
                    marks.add(mark)
                    if mark not in seen:
                        is_limited = is_limited or is_part
                        seen.add(mark)
                        yield answer
            is_part = True
            unconfirmed -= marks
            if ending.is_last_word:
                if ending.truncated:
                    self._incomplete(ending.why)
                continue
            if not (ending.truncated or split.is_suspicious(spread.count)):
                continue
            if claimed is None and is_all:
                claimed = await self._claim(level, keys)
            if isinstance(claimed, int) and len(seen) == claimed:
                continue
            expected = claimed if isinstance(claimed, int) and claimed > len(seen) else None
            cut = []
            if self.splits < _MAX_SPLITS:
                cut = split.parts(level, asked, spread, expected, unusable=self._quirks.ignores_keys)
            if cut:
                self.splits += 1
                waiting += reversed(cut)
                unconfirmed |= marks if level is Level.STUDY else set()
                is_limited = is_limited or ending.truncated
            if ending.truncated and not cut:
                self._incomplete(f"{ending.why}, and the query cannot be split further")
        if is_limited and unconfirmed:
            self._incomplete("studies without date, time or patient ID cannot be asked for in parts")
        if is_limited and level is not Level.STUDY and not (isinstance(claimed, int) and claimed >= len(seen)):
            self._incomplete("the peer cut it, and does not say how many there are")
        if isinstance(claimed, int) and len(seen) < claimed:
            self._once(f"a parent claims more things at {level.word} level than were listed")
            if self.splits:
                self._incomplete("the parts of a split list are fewer than the peer says there are")

    async def _claim(self, level: Level, keys: Mapping[str, str]) -> object:
        """How many things of a level the peer says are below one parent; asked for before a list is cut in parts."""
        if level is Level.STUDY or self._quirks.no_counts:
            return None
        parent = Level(level - 1)
        above = {Level(depth).unique_key: keys[Level(depth).unique_key] for depth in range(1, level)}
        count = _COUNTS[level]
        answers = [answer async for answer in self._checked(parent, above, (count,))]
        return next((answer.get(count) for answer in answers if not isinstance(answer, Ending)), None)

    async def _checked(
        self, level: Level, keys: Mapping[str, str], wanted: tuple[str, ...]
    ) -> AsyncGenerator[dict[str, object] | Ending, None]:
        """The answers to one ask that are what was asked for, with only what was asked for in them."""
        ignored = [key for key in self._quirks.ignores_keys if keys.get(key)]
        if self._quirks.no_counts:
            wanted = tuple(key for key in wanted if not key.startswith(COUNTS))
        ask = Ask(level=level, keys={**keys, **dict.fromkeys(ignored, "")}, wanted=wanted)
        order = list(dict.fromkeys((*wanted, *keys)))
        judges = {key: matcher(pattern, vr_of(key)) for key, pattern in keys.items() if pattern}
        fixed = {key: value for key, value in keys.items() if key.endswith("InstanceUID") and value}
        dropped: set[str] = set()
        count = 0
        async with aclosing(self._session.find(ask)) as answers:
            async for answer in answers:
                if isinstance(answer, Ending):
                    for wrong in sorted(dropped.difference(ignored)) if not answer.is_last_word else ():
                        self._once(f"answers that do not match the {wrong} asked for were dropped")
                    limit = self._quirks.limit
                    if limit is not None and count >= limit and not answer.truncated:
                        answer = Ending(truncated=True, why=f"the peer lists no more than {limit:,}")
                    yield answer
                    continue
                count += 1
                unknown = next((key for key in ignored if key not in answer), "")
                if unknown:
                    self._incomplete(f"the peer ignores {unknown}, and does not tell it either")
                    continue
                uid = answer.get(level.unique_key)
                if not (uid and isinstance(uid, str)) and not keys.get(level.unique_key):
                    self._once(f"answers without {level.unique_key} were dropped")
                    continue
                wrong = next((key for key, judge in judges.items() if key in answer and not judge(answer[key])), "")
                if wrong:
                    dropped.add(wrong)
                    continue
                told = {key: value for key, value in answer.items() if key in _VOLUNTEERED or key[0].islower()}
                yield {**{key: answer[key] for key in order if key in answer}, **told, **fixed}

    def _incomplete(self, why: str) -> None:
        self.trouble = self.trouble or why
        self._once(f"the list may be cut short: {why}")

    def _once(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            self._warn(f"{self._name}: {words}")

