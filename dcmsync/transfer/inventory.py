"""What a place holds: a query carried out level by level, every answer checked, and cut lists asked for in parts.

A session carries one operation at a time, so the parents of a level are listed to their end before the first of them
is gone into; they wait as JSON, some 400 octets each. Things of the level that is wanted stream through.

Owns the walk from studies (or patients, where they are the root) down to the level wanted: one unique key for each
level above (PS3.4 §C.4.1.2.2.1), unless the place agreed to relational queries; merges what came twice, drops what does
not match, and knows afterwards whether the list is complete. Heeds the quirks that a session knows of its place.
Refuses to know how a place is asked (a session does) and what becomes of the answers.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import msgspec

from dcmsync.contract import WITH_UID, Ask, Attributes, Ending, Finds, Level, Manner, Mannered
from dcmsync.plan import levels, split
from dcmsync.plan.levels import Query
from dcmsync.plan.match import matcher, vr_of
from dcmsync.quirks import COUNTS, quirks_of

_COUNTS = {
    Level.STUDY: "NumberOfPatientRelatedStudies",
    Level.SERIES: "NumberOfStudyRelatedSeries",
    Level.INSTANCE: "NumberOfSeriesRelatedInstances",
}
_MANY = {Level.PATIENT: "patients", Level.STUDY: "studies"}
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
        self._is_doubtful = False  # whether a list that was asked for across levels may be cut short
        self._session = session
        self._quirks = quirks_of(session)
        self._manner = Manner()
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
        known = dict(known or {})
        if isinstance(self._session, Mannered):
            self._manner = await self._session.manner(query.level)
        first = Level.STUDY if Level.STUDY.unique_key in known else self._manner.root
        first = min(first, query.level)
        while first < query.level and first.unique_key in known:
            first = Level(first + 1)
        seen: set[int] | None = None
        if self._manner.relational and first < query.level and not self._has_lists(query):
            seen = set()
            async with aclosing(self._across(query, first, known, seen)) as found:
                async for answer in found:
                    yield answer
            if not self._is_doubtful:
                return
        async with aclosing(self._descend(query, first, known)) as found:
            async for answer in found:
                if seen is None or hash(answer[query.level.unique_key]) not in seen:
                    yield answer

    async def _across(
        self, query: Query, first: Level, known: Mapping[str, object], seen: set[int]
    ) -> AsyncGenerator[dict[str, object], None]:
        """The things of `query.level`, asked for without the levels above it, which the answers then name.

        A list that may be cut short is doubtful, and to be gone through level by level after all.
        """
        depths = [Level(n) for n in range(first, query.level + 1)]
        keys = {key: value for level in depths for key, value in levels.keys_at(query, level).items()}
        keys |= {level.unique_key: query.keys.get(level.unique_key, "") for level in depths}
        keys |= self._above(first, known)
        wanted = tuple(dict.fromkeys(key for level in depths for key in levels.wanted_at(query, level)))
        above = [level.unique_key for level in depths[:-1] if level in WITH_UID]
        self._is_doubtful = False
        count = 0
        async with aclosing(self._checked(query.level, keys, wanted)) as answers:
            async for answer in answers:
                if isinstance(answer, Ending):
                    self._is_doubtful = answer.truncated or split.is_suspicious(count)
                    continue
                count += 1
                if not all(answer.get(key) for key in above):
                    self._once("answers that do not name what they are in were dropped, and asked for level by level")
                    self._is_doubtful = True
                    continue
                mark = hash(answer[query.level.unique_key])
                if mark not in seen:
                    seen.add(mark)
                    yield {**known, **answer}

    def _above(self, level: Level, known: Mapping[str, object]) -> dict[str, str]:
        """The unique keys of the levels above, as far as they are known."""
        uniques = (Level(n).unique_key for n in range(self._manner.root, level))
        return {key: str(known[key]) for key in uniques if known.get(key)}

    def _has_lists(self, query: Query) -> bool:
        return any(len(levels.uids(query.keys.get(level.unique_key, ""))) > 1 for level in WITH_UID)

    async def _descend(
        self, query: Query, level: Level, known: Mapping[str, object]
    ) -> AsyncGenerator[dict[str, object], None]:
        above = self._above(level, known)
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
            gone_into: set[object] = set()
            for parent in parents:
                merged = {**known, **_DECODER.decode(parent)}
                if level is Level.PATIENT and not self._may_go_into(merged.get("PatientID"), gone_into):
                    continue
                async with aclosing(self._descend(query, Level(level + 1), merged)) as deeper:
                    async for thing in deeper:
                        yield thing

    def _may_go_into(self, patient_id: object, gone_into: set[object]) -> bool:
        """Whether the studies of a patient are to be asked for: once for an ID, even if several patients have it."""
        if not patient_id:
            self._incomplete("the studies of patients without PatientID cannot be asked for")
            return False
        is_new = patient_id not in gone_into
        gone_into.add(patient_id)
        return is_new

    def _pins(self, query: Query, level: Level, known: Mapping[str, object]) -> list[dict[str, str]]:
        """The unique keys to ask for at a level, one UID a time; one empty one when all are wanted."""
        unique = level.unique_key
        asked = str(known[unique]) if unique in known else query.keys.get(unique, "")
        if level is Level.PATIENT:
            return [{unique: asked}]
        return [{unique: uid} for uid in levels.uids(asked)] or [{unique: ""}]

    async def _list(
        self, level: Level, keys: Mapping[str, str], wanted: tuple[str, ...], known: Mapping[str, object]
    ) -> AsyncGenerator[dict[str, object], None]:
        """The things of one level below one parent, each once; asks again in parts where the list may be cut."""
        seen: set[int] = set()
        unconfirmed: set[int] = set()  # studies listed by a query that was then cut, and not yet by one of its parts
        is_limited = False  # whether the peer said so, or a part gave what the whole did not
        is_part = False
        unique_above = Level.PATIENT.unique_key if level > self._manner.root else ""
        is_narrowed = any(
            value for key, value in keys.items() if not key.endswith("InstanceUID") and key != unique_above
        )
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
                    mark = _mark(level, answer)
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
            if level in WITH_UID and keys[level.unique_key]:  # one thing: there is nothing to ask for in parts
                if ending.truncated and not seen:
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
                unconfirmed |= marks if level <= Level.STUDY else set()
                is_limited = is_limited or ending.truncated
            if ending.truncated and not cut:
                self._incomplete(f"{ending.why}, and the query cannot be split further")
        if is_limited and unconfirmed:
            lacking = "patient ID" if level is Level.PATIENT else "date, time or patient ID"
            self._incomplete(f"{_MANY[level]} without {lacking} cannot be asked for in parts")
        if is_limited and level > Level.STUDY and not (isinstance(claimed, int) and claimed >= len(seen)):
            self._incomplete("the peer cut it, and does not say how many there are")
        if isinstance(claimed, int) and len(seen) < claimed:
            self._once(f"a parent claims more things at {level.word} level than were listed")
            if self.splits:
                self._incomplete("the parts of a split list are fewer than the peer says there are")

    async def _claim(self, level: Level, keys: Mapping[str, str]) -> object:
        """How many things of a level the peer says are below one parent; asked for before a list is cut in parts."""
        if level <= Level.STUDY or self._quirks.no_counts:
            return None
        parent = Level(level - 1)
        above = self._above(level, keys)
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
        is_likened = self._manner.fuzzy  # then the place knows better which names are alike
        judges = {
            key: matcher(pattern, vr_of(key))
            for key, pattern in keys.items()
            if pattern and not (is_likened and vr_of(key) == "PN")
        }
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
                if level in WITH_UID and not (uid and isinstance(uid, str)) and not keys.get(level.unique_key):
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


def _mark(level: Level, answer: Attributes) -> int:
    """What tells one thing of a level from another. A PatientID is unique only within who issued it."""
    if level is Level.PATIENT:
        patient_id, issuer = str(answer.get("PatientID", "")), str(answer.get("IssuerOfPatientID", ""))
        return hash((patient_id, issuer, "" if patient_id else str(answer.get("PatientName"))))
    return hash(answer[level.unique_key])
