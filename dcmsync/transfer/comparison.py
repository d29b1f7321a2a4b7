"""What one place lacks of another, or has otherwise: one thing at a time, as deep as it takes to know.

Owns how two sides are asked about a study, a series, some instances, and what is told of them: a thing that is missing
altogether in one record, what is the same at the highest level at which all below it is. Refuses to judge counts and
digests (`plan.compare` does), and to know where the things come from.

Theory of operation. Each side has its own session; where both are far away, both are asked at the same time, and what
SOURCE lists meanwhile waits. A list that may be cut short proves nothing by what it lacks: what seems missing or extra
is then asked for by its own UID. Of one series at a time, what DEST lists is in memory, and what SOURCE lists passes
by; all else that waits, waits on disk beyond some lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial

import msgspec
from msgspec import Struct

from dcmsync.contract import Attributes, Level
from dcmsync.plan import levels
from dcmsync.plan.compare import INSTANCES, Match, Trust, by_content, count, is_all_the_same, is_same_by_counts
from dcmsync.plan.levels import Query
from dcmsync.records.model import Change
from dcmsync.transfer.both import both
from dcmsync.transfer.contents import AT_ONCE, Contents
from dcmsync.transfer.gathering import Group
from dcmsync.transfer.side import Early, Side
from dcmsync.transfer.spill import Queue

Record = Mapping[str, object]

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(dict[str, object]).decode
_FEW = 8  # instances of a series, up to which each is asked for by its UID


class Settings(Struct, frozen=True, kw_only=True):
    """How to compare. `query` says which things of SOURCE; its level is the highest that may be told of as a whole."""

    trust: Trust = "uids"
    shown: frozenset[Change] = frozenset(("missing", "differs"))
    query: Query = Query(level=Level.STUDY, keys={})


class Comparison:
    """Compares with `dest`. `write` takes each record; afterwards `is_different` and `trouble` tell how it went.

    All that is asked raises PeerError and LocalTrouble.
    """

    def __init__(
        self, settings: Settings, dest: Side, *, contents: Contents, write: Callable[[Record], None]
    ) -> None:
        self.settings = settings
        self.dest = dest
        self.is_different = False
        self.trouble = ""
        self._contents = contents
        self._write = write
        self._known: tuple[Mapping[str, str], _Theirs] | None = None  # the series of DEST that was listed last

    def tell(self, record: Record, change: Change) -> None:
        """Says what is to be said of a thing, if that is to be shown."""
        self.is_different = self.is_different or change != "same"
        if change in self.settings.shown:
            self._write({**record, "change": change})

    def unsure(self, words: str) -> None:
        """Something could not be compared: the answer is not complete."""
        self.trouble = self.trouble or words

    # What records name

    async def group(self, source: Side | None, group: Group) -> None:
        """Compares what records name; instances without a source, too, as far as they go."""
        records = [_DECODE(line) for line in group.lines]
        if group.level is Level.INSTANCE:
            await self.instances(source, records)
            return
        assert source is not None
        await (self.study if group.level is Level.STUDY else self.series)(source, records[0])

    # One study

    async def study(self, source: Side, study: Record) -> None:
        """Compares one study with all that is below it."""
        theirs = await self.dest.ask(Level.STUDY, uids_of(study, Level.STUDY), usual=self.shows_extra)
        change = self.at_once(study, theirs)
        if change is not None:
            self.tell(study, change)
        else:
            await self.below_study(source, study, theirs)

    def at_once(self, study: Record, theirs: Attributes | None) -> Change | None:
        """What is to be said of a study without looking any deeper; None where that is necessary."""
        if self.settings.query.level > Level.STUDY:
            return None
        if theirs is None:
            return "missing"
        is_same = self.settings.trust == "counts" and is_same_by_counts(Level.STUDY, study, theirs)
        return "same" if is_same else None

    async def below_study(self, source: Side, study: Record, theirs: Attributes | None) -> None:
        """Compares the series of a study; DEST has it, or has not and only parts of it are asked for."""
        listing = source.below(Level.SERIES, attributes_of(study), like=self.settings.query)

        async def ours() -> list[bytes]:
            async with aclosing(listing.run()) as found:
                return [_ENCODE(_thing(Level.SERIES, source, answer)) async for answer in found]

        series, (match, is_complete) = await both(ours, lambda: self._listed(Level.SERIES, theirs))
        if not series and not self._keys(Level.SERIES):
            self._nothing_below(source, study, Level.STUDY)
        changes: list[Change | None] = []
        held: list[bytes] = []
        for line in series:
            one = _DECODE(line)
            uids = uids_of(one, Level.SERIES)
            also = match.meet(uids["SeriesInstanceUID"])
            if also is None and not is_complete:
                also = await self.dest.ask(Level.SERIES, uids, usual=self.shows_extra)
            changes.append(await self._series(source, one, also))
            if changes[-1] == "same" and "same" in self.settings.shown:
                held.append(line)
        if is_all_the_same(changes) and self._is_whole(Level.STUDY, is_complete and listing.is_complete, match):
            self.tell(study, "same")
            return
        for line in held:
            self.tell(_DECODE(line), "same")
        await self._extras(source, Level.SERIES, uids_of(study, Level.STUDY), match, listing.is_complete)

    # One series

    async def series(self, source: Side, series: Record) -> None:
        """Compares one series with all that is below it."""
        theirs = await self.dest.ask(Level.SERIES, uids_of(series, Level.SERIES), usual=self.shows_extra)
        if await self._series(source, series, theirs) == "same":
            self.tell(series, "same")

    async def _series(self, source: Side, series: Record, theirs: Attributes | None) -> Change | None:
        """The verdict on a series, None where parts of it differ. All is told but that it is the same as a whole."""
        is_asked_whole = self.settings.query.level <= Level.SERIES
        if theirs is None and is_asked_whole:
            self.tell(series, "missing")
            return "missing"
        if (
            theirs is not None
            and self.settings.trust == "counts"
            and is_asked_whole
            and is_same_by_counts(Level.SERIES, series, theirs)
        ):
            return "same"
        listing = source.below(Level.INSTANCE, attributes_of(series), like=self.settings.query)
        with closing(Early(listing)) as early:
            if theirs is not None and source.catalogue is None and self.dest.catalogue is None:
                (match, is_complete), _ = await both(lambda: self._listed(Level.INSTANCE, theirs), early.list)
            else:
                match, is_complete = await self._listed(Level.INSTANCE, theirs)
            if is_asked_whole and not match and is_complete:
                self.tell(series, "missing")
                return "missing"
            return await self._instances_of(source, series, early, match, is_complete)

    async def _instances_of(
        self, source: Side, series: Record, listing: Early, match: Match[Attributes], is_complete: bool
    ) -> Change | None:
        """The verdict on a series, by its instances."""
        with closing(_Judging(self, source, uids_of(series, Level.SERIES), match, is_complete)) as judging:
            async with aclosing(listing.run()) as found:
                async for answer in found:
                    await judging.take(_thing(Level.INSTANCE, source, answer))
            await judging.settle()
            if not judging.taken and not self._keys(Level.INSTANCE):
                self._nothing_below(source, series, Level.SERIES)
            if judging.is_all_the_same and self._is_whole(Level.SERIES, is_complete and listing.is_complete, match):
                return "same"
            judging.tell_same()
        await self._extras(source, Level.INSTANCE, uids_of(series, Level.SERIES), match, listing.is_complete)
        return None

    # Some instances of one series

    async def instances(self, source: Side | None, instances: Sequence[Record]) -> None:
        """Compares instances of one series, each for itself. Without a source no content can be asked for there."""
        uids = uids_of(instances[0], Level.SERIES)
        if self._known is not None and self._known[0] == uids:
            match, is_complete = self._known[1]
        elif len(instances) > _FEW:
            match, is_complete = await self._listed(Level.INSTANCE, uids)
            self._known = uids, (match, is_complete)
        else:
            match, is_complete = Match([]), False
        with closing(_Judging(self, source, uids, match, is_complete)) as judging:
            for instance in instances:
                await judging.take(instance)
            await judging.settle()
            judging.tell_same()

    # Both

    @property
    def shows_extra(self) -> bool:
        """Whether what only DEST has is to be told."""
        return "extra" in self.settings.shown

    def _keys(self, level: Level) -> dict[str, str]:
        return levels.keys_at(self.settings.query, level)

    async def _listed(self, level: Level, theirs: Attributes | None) -> _Theirs:
        """What DEST lists below one parent, and whether that is all; nothing where it has no such parent."""
        if theirs is None:
            return Match([]), True
        listing = self.dest.below(level, theirs, usual=self.shows_extra)
        found: list[tuple[str, Attributes]] = []
        async with aclosing(listing.run()) as things:
            async for thing in things:
                kept = thing if self.shows_extra or level is not Level.INSTANCE else _content_of(thing)
                found.append((str(thing[level.unique_key]), kept))
        return Match(found), listing.is_complete

    def _is_whole(self, level: Level, is_complete: bool, match: Match[Attributes]) -> bool:
        """Whether all below a thing was compared, on both sides."""
        is_asked_whole = self.settings.query.level <= level
        return is_asked_whole and is_complete and next(match.left_over(), None) is None

    async def _extras(
        self, source: Side, level: Level, above: Mapping[str, str], match: Match[Attributes], is_complete: bool
    ) -> None:
        """Tells of what only DEST has below one parent."""
        if not self.shows_extra:
            return
        keys = self._keys(level)
        left = dict(match.left_over())
        if keys and left:
            listing = self.dest.below(level, above, like=self.settings.query)
            async with aclosing(listing.run()) as found:
                matching = {str(thing[level.unique_key]) async for thing in found}
            left = {uid: thing for uid, thing in left.items() if uid in matching}
        for uid, thing in left.items():
            is_certain = is_complete and not keys
            if is_certain or await source.ask(level, {**above, level.unique_key: uid}) is None:
                self.tell(_thing(level, self.dest, thing), "extra")

    def _nothing_below(self, source: Side, thing: Record, level: Level) -> None:
        if count(thing, INSTANCES[level]) != 0:
            words = f"{source.name}: lists a {level.word}, and nothing in it"
            source.warn(words)
            self.unsure(words)

    async def digests(self, side: Side, above: Mapping[str, str], wanted: Mapping[str, str]) -> Mapping[str, str]:
        """The content digests of instances that a side holds; of those that it does not give, none, and that is told.

        `above`: UIDs, and the PatientID where the side has told it. `wanted`: SOP Instance UID -> SOP Class UID.
        """
        if not wanted:
            return {}
        uids = above["StudyInstanceUID"], above["SeriesInstanceUID"]
        found = await self._contents.of(side.session, *uids, wanted, patient_id=levels.patient_of(above))
        if len(found.digests) < len(wanted):
            words = f"{side.name}: lists instances, and does not give them whole"
            side.warn(words + (f": {found.why}" if found.why else ""))
            self.unsure(words)
        return found.digests


_Theirs = tuple[Match[Attributes], bool]


class _Judging:
    """The instances of one series, one after the other, held against what DEST lists of it."""

    def __init__(
        self,
        comparison: Comparison,
        source: Side | None,
        uids: Mapping[str, str],
        match: Match[Attributes],
        is_complete: bool,
    ) -> None:
        self.taken = 0
        self._comparison = comparison
        self._source = source
        self._uids = uids
        self._match = match
        self._is_complete = is_complete
        self._not_the_same = 0
        self._same = Queue()
        self._unjudged = Queue()

    @property
    def is_all_the_same(self) -> bool:
        """Whether there was something, and nothing is to be said of any."""
        return self.taken > 0 and not self._not_the_same

    async def take(self, instance: Record) -> None:
        """Judges one, unless its content must be asked for first."""
        self.taken += 1
        uid = str(instance["SOPInstanceUID"])
        theirs = self._match.meet(uid)
        if theirs is None and not self._is_complete:
            asked = {**self._uids, "SOPInstanceUID": uid}
            theirs = await self._comparison.dest.ask(Level.INSTANCE, asked)
        if theirs is None:
            self._tell(instance, "missing")
        elif self._comparison.settings.trust != "content":
            self._tell(instance, "same")
        elif (change := by_content(instance.get("content"), theirs.get("content"))) is not None:
            self._tell(instance, change)
        else:
            self._unjudged.put(_ENCODE([instance, theirs.get("content") or ""]))

    async def settle(self) -> None:
        """Judges the rest, after asking for what must be read."""
        lot: list[tuple[dict[str, object], str]] = []
        for line in self._unjudged.drain():
            lot.append(_PAIR.decode(line))
            if len(lot) == AT_ONCE:
                await self._read(lot)
                lot = []
        if lot:
            await self._read(lot)

    def tell_same(self) -> None:
        """Tells of each that is the same."""
        for line in self._same.drain():
            self._comparison.tell(_DECODE(line), "same")

    def close(self) -> None:
        """Lets go of what waits."""
        self._same.close()
        self._unjudged.close()

    async def _read(self, lot: Iterable[tuple[dict[str, object], str]]) -> None:
        lot = list(lot)
        kinds = {str(one["SOPInstanceUID"]): str(one.get("SOPClassUID") or "") for one, _ in lot}
        here = {uid: kinds[uid] for uid in kinds} if self._source else {}
        mine = {str(one["SOPInstanceUID"]): str(one["content"]) for one, _ in lot if one.get("content")}
        theirs = {str(one["SOPInstanceUID"]): content for one, content in lot if content}
        comparison = self._comparison
        source, dest = self._source, comparison.dest
        above = {**self._uids, "PatientID": levels.patient_of(lot[0][0])}  # as the source has it
        here = {uid: kind for uid, kind in here.items() if uid not in mine}
        there = {uid: kind for uid, kind in kinds.items() if uid not in theirs}
        if source is None:
            theirs |= await comparison.digests(dest, self._uids, there)
        else:
            ours, others = await both(
                partial(comparison.digests, source, above, here), partial(comparison.digests, dest, self._uids, there)
            )
            mine, theirs = {**mine, **ours}, {**theirs, **others}
        for one, _ in lot:
            uid = str(one["SOPInstanceUID"])
            change = by_content(mine.get(uid), theirs.get(uid))
            if change is not None:
                self._tell(one, change)
            else:
                self._not_the_same += 1

    def _tell(self, instance: Record, change: Change) -> None:
        if change != "same":
            self._not_the_same += 1
            self._comparison.tell(instance, change)
        elif "same" in self._comparison.settings.shown:
            self._same.put(_ENCODE(instance))


_PAIR: msgspec.json.Decoder[tuple[dict[str, object], str]] = msgspec.json.Decoder(tuple[dict[str, object], str])


def uids_of(record: Record, level: Level) -> dict[str, str]:
    """The UIDs of a thing, and of those above it."""
    return {Level(depth).unique_key: str(record[Level(depth).unique_key]) for depth in range(1, level + 1)}


def attributes_of(record: Record) -> dict[str, object]:
    """What a record says in DICOM's words."""
    return {key: value for key, value in record.items() if not key[0].islower()}


def _thing(level: Level, side: Side, attributes: Attributes) -> dict[str, object]:
    return {"type": level.word, "source": side.name, **attributes}


def _content_of(thing: Attributes) -> Attributes:
    return {"content": thing["content"]} if thing.get("content") else _UNKNOWN


_UNKNOWN: Attributes = {}
