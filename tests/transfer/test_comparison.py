"""Two places in memory, compared: against sets, and where they fall short."""

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from dcmsync.contract import Ask, Attributes, Ending, Level, Receiver, Want
from dcmsync.errors import Disconnected, ExitStatus, PeerError, Refused, Unreachable
from dcmsync.plan.compare import CHANGES, Trust
from dcmsync.plan.levels import Query
from dcmsync.records.model import Change
from dcmsync.records.stream import Line, read_record
from dcmsync.transfer import comparison
from dcmsync.transfer.comparison import Comparison
from dcmsync.transfer.contents import Contents
from dcmsync.transfer.gathering import Gathering
from dcmsync.transfer.side import Side
from dcmsync.transfer.survey import Settings, Survey, Tolerance
from tests.fakes.archive import Archive, Row, instances, series, studies

Three = tuple[int, int, int]  # study, series, instance
EVERYTHING: frozenset[Change] = frozenset(CHANGES)


def rows(held: set[Three], *, counted: bool = False, **more: object) -> list[Row]:
    """The rows of a place that holds these; `counted`: with counts; `more` goes into each instance."""
    made: list[Row] = []
    for study in sorted({study for study, _, _ in held}):
        own = {(b, c) for a, b, c in held if a == study}
        counts = {"NumberOfStudyRelatedInstances": len(own), "NumberOfStudyRelatedSeries": len({b for b, _ in own})}
        made.append({**studies(study)[-1], **(counts if counted else {})})
        for number in sorted({b for b, _ in own}):
            kin = sorted(c for b, c in own if b == number)
            count = {"NumberOfSeriesRelatedInstances": len(kin)} if counted else {}
            made.append({**series(study, number)[-1], **count})
            made += [{**instances(study, number, one)[-1], **more} for one in kin]
    return made


def digest_of(read_at: Callable[[int, int], bytes], size: int, syntax: str) -> str:
    octets = read_at(0, size)
    return "" if b"broken" in octets else hashlib.blake2b(octets, digest_size=16).hexdigest()


class Compared:
    """What came of comparing two archives: the whole of them, or `lines`."""

    def __init__(
        self,
        mine: Archive,
        theirs: Archive,
        *,
        trust: Trust = "uids",
        shown: frozenset[Change] = EVERYTHING,
        is_far: bool = True,
        query: Query | None = None,
        lines: Sequence[Row] | None = None,
    ) -> None:
        self.told: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.warned: list[str] = []
        self.error: PeerError | None = None
        query = query or Query(level=Level.STUDY, keys={})
        self.source = Side(mine.name, mine, warn=self.warned.append)
        self.dest = Side("DEST", theirs, warn=self.warned.append)
        self.comparison = Comparison(
            comparison.Settings(trust=trust, shown=shown, query=query),
            self.dest,
            contents=Contents(digest_of),
            write=lambda record: self.told.append(dict(record)),
        )
        self.tolerance = Tolerance(self.said.append)
        if lines is not None:
            anyio.run(self._lines, lines)
        else:
            anyio.run(self._all, Settings(query=query, is_inside=lambda _: True, is_far=is_far))

    async def _all(self, settings: Settings) -> None:
        try:
            await Survey(settings, self.comparison, self.source, self.tolerance).run()
        except PeerError as error:
            self.error = error

    async def _lines(self, lines: Sequence[Row]) -> None:
        raw = [json.dumps(line).encode() for line in lines]
        read = (Line(n, one, read_record(one, n)) for n, one in enumerate(raw, 1))  # type: ignore[arg-type]
        for group in Gathering(read):
            await self.tolerance.of(self.comparison.group(self.source, group))

    @property
    def changes(self) -> list[tuple[str, str]]:
        """(change, deepest UID), in order."""
        return [(record["change"], deepest(record)) for record in self.told]

    @property
    def is_complete(self) -> bool:
        """Whether nothing says that something was left out."""
        said = (self.comparison.trouble, self.source.trouble, self.dest.trouble, self.tolerance.trouble)
        return not any(said) and self.error is None

    def of(self, change: Change, held: set[Three]) -> list[Three]:
        """The instances of `held` that the records with this change stand for, each as often as it is told of."""
        found = []
        for record in self.told:
            if record["change"] == change:
                uid = deepest(record)
                found += [one for one in sorted(held) if f"{uid_of(one)}.".startswith(f"{uid}.")]
        return found


def deepest(record: Row) -> str:
    keys = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    return str(next(record[key] for key in keys if key in record))


def uid_of(one: Three) -> str:
    return "1.{}.{}.{}".format(*one)


held = some.sets(some.tuples(some.integers(1, 4), some.integers(1, 3), some.integers(1, 3)), max_size=14)


# Against sets


@settings(deadline=None, max_examples=60)
@given(held, held, some.sampled_from(["counts", "uids"]), some.booleans(), some.booleans(), some.booleans())
def test_each_instance_is_told_of_once_as_sets_say(
    mine: set[Three], theirs: set[Three], trust: Trust, counted: bool, also_counted: bool, is_far: bool
) -> None:
    if trust == "counts" and counted and also_counted:
        theirs = {one for one in mine if one[2] < 3} | {one for one in theirs if one[0] not in {n for n, _, _ in mine}}
    done = Compared(
        Archive(rows(mine, counted=counted)), Archive(rows(theirs, counted=also_counted)), trust=trust, is_far=is_far
    )
    assert sorted(done.of("missing", mine)) == sorted(mine - theirs)
    assert sorted(done.of("extra", theirs)) == sorted(theirs - mine)
    assert sorted(done.of("same", mine)) == sorted(mine & theirs)
    assert done.comparison.is_different is (mine != theirs)
    assert done.is_complete


@settings(deadline=None, max_examples=60)
@given(held, held)
def test_what_is_told_is_told_at_the_highest_level(mine: set[Three], theirs: set[Three]) -> None:
    done = Compared(Archive(rows(mine)), Archive(rows(theirs)))
    for record in done.told:
        own, other = (theirs, mine) if record["change"] == "extra" else (mine, theirs)
        uid = deepest(record)
        parent = ".".join(uid.split(".")[:-1])
        if record["type"] == "study":
            continue
        here = {one for one in own if uid_of(one).startswith(f"{parent}.")}
        there = {one for one in other if uid_of(one).startswith(f"{parent}.")}
        assert there, f"{parent} could have been told of as a whole"
        assert record["change"] != "same" or here != there


@settings(deadline=None, max_examples=40)
@given(held, held)
def test_records_are_compared_like_places(mine: set[Three], theirs: set[Three]) -> None:
    source, dest = Archive(rows(mine)), Archive(rows(theirs))
    kinds = {Level.STUDY: "study", Level.SERIES: "series", Level.INSTANCE: "instance"}
    for level in kinds:
        lines = [{"type": kinds[level], "source": source.name, **row} for row in source.rows[level]]
        done = Compared(source, dest, lines=lines, shown=frozenset(("missing", "same")))
        assert sorted(done.of("missing", mine)) == sorted(mine - theirs)
        assert sorted(done.of("same", mine)) == sorted(mine & theirs)


@settings(deadline=None, max_examples=40)
@given(held, held, some.integers(1, 3), some.sampled_from(["mine", "theirs", "both"]))
@example({(1, 1, 1), (1, 1, 2)}, {(1, 1, 1)}, 1, "both")  # the lists are the same, and what is there is not
@example({(1, 1, 1), (1, 2, 1)}, {(1, 1, 1)}, 1, "both")
def test_a_list_that_is_cut_proves_nothing(mine: set[Three], theirs: set[Three], limit: int, who: str) -> None:
    def made(name: str, held: set[Three]) -> Archive:
        if who not in (name, "both"):
            return Archive(rows(held))
        cannot = ("StudyDate", "StudyTime", "PatientID", "SeriesNumber", "InstanceNumber")
        return Archive(rows(held), limit=limit, cut_status=0xA700, cannot_match=cannot)

    done = Compared(made("mine", mine), made("theirs", theirs))
    assert set(done.of("missing", mine)) <= mine - theirs
    assert set(done.of("extra", theirs)) <= theirs - mine
    assert set(done.of("same", mine)) <= mine & theirs
    if done.is_complete:
        assert set(done.of("missing", mine)) == mine - theirs
        assert set(done.of("extra", theirs)) == theirs - mine


# Records


def test_a_record_is_the_source_s_own_and_a_change() -> None:
    done = Compared(Archive(rows({(1, 1, 1), (1, 1, 2)})), Archive(rows({(1, 1, 2), (1, 1, 3)})))
    missing, same, extra = done.told
    assert missing == {
        "type": "instance", "source": "ARCHIVE@here:104", "StudyInstanceUID": "1.1", "StudyDate": "20210202",
        "StudyTime": "010100", "PatientID": "Q1", "SeriesInstanceUID": "1.1.1", "SeriesNumber": 1, "Modality": "CT",
        "SOPInstanceUID": "1.1.1.1", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "InstanceNumber": 1,
        "change": "missing",
    }  # fmt: skip
    assert (same["change"], extra["change"], extra["source"]) == ("same", "extra", "DEST")
    assert extra["PatientID"] == "Q1" and extra["Modality"] == "CT"


def test_a_line_keeps_what_it_says() -> None:
    line = {"type": "study", "source": "ARCHIVE@here:104", "StudyInstanceUID": "1.1", "mine": [1], "change": "same"}
    done = Compared(Archive(rows({(1, 1, 1)})), Archive([]), lines=[line])
    assert done.told == [{**line, "change": "missing"}]


def test_instances_of_one_series_are_asked_about_once() -> None:
    mine = {(1, 1, n) for n in range(1, 1300)}
    source, dest = Archive(rows(mine)), Archive(rows(mine))
    lines = [{"type": "instance", **row} for row in source.rows[Level.INSTANCE]]
    done = Compared(source, dest, lines=lines, shown=frozenset())
    assert not done.told and not done.comparison.is_different
    assert len(dest.asks) == 1


def test_what_is_missing_is_asked_for_by_its_uid_whatever_else_is_known_of_it() -> None:
    """DEST has the study under another patient, so that the same keys do not find it there."""
    theirs = [{**row, "PatientID": "other"} if "StudyDate" in row else row for row in rows({(1, 1, 1)})]
    shown: frozenset[Change] = frozenset(("missing", "same"))
    query = Query(level=Level.STUDY, keys={"PatientID": "Q1"})
    for trust in ("counts", "uids"):
        done = Compared(Archive(rows({(1, 1, 1)})), Archive(theirs), trust=trust, query=query, shown=shown)  # type: ignore[arg-type]
        assert done.changes == [("same", "1.1")]


def test_keys_below_studies_choose_what_is_told_of() -> None:
    mine = {(a, b, c) for a in (1, 2) for b in (1, 2) for c in (1, 2)}
    source = Archive(rows(mine))
    by_series = Query(level=Level.SERIES, keys={"SeriesNumber": "2"})
    dest = Archive(rows({(1, 2, 1), (1, 2, 2), (1, 2, 3), (3, 1, 1), (3, 2, 1)}))
    done = Compared(source, dest, query=by_series)
    assert sorted(done.changes) == sorted([
        ("same", "1.1.2.1"), ("same", "1.1.2.2"), ("extra", "1.1.2.3"), ("missing", "1.2.2"), ("extra", "1.3.2"),
    ]), done.changes  # fmt: skip
    by_number = Query(level=Level.INSTANCE, keys={"InstanceNumber": "1"})
    done = Compared(source, dest, query=by_number)
    assert sorted(done.changes) == sorted([
        ("missing", "1.1.1.1"), ("same", "1.1.2.1"), ("missing", "1.2.1.1"), ("missing", "1.2.2.1"),
        ("extra", "1.3.1.1"), ("extra", "1.3.2.1"),
    ]), done.changes  # fmt: skip


def test_where_counts_are_trusted_one_list_is_enough() -> None:
    mine = {(n, 1, 1) for n in range(1, 50)}
    source, dest = Archive(rows(mine, counted=True)), Archive(rows(mine - {(7, 1, 1)}, counted=True))
    done = Compared(source, dest, trust="counts", shown=frozenset(("missing",)))
    assert done.changes == [("missing", "1.7")]
    assert (len(source.asks), len(dest.asks)) == (1, 2)


# Content


def told_apart(archive: Archive, want: Want) -> Iterator[Row | Ending | Exception]:
    """Gives the second instance of each series with other octets."""
    for row in archive.wanted(want):
        yield {**row, "content": "other "} if row["InstanceNumber"] == 2 else row


def test_content_that_nobody_knows_is_asked_for() -> None:
    mine = {(1, 1, n) for n in (1, 2, 3)}
    done = Compared(Archive(rows(mine)), Archive(rows(mine), fetcher=told_apart), trust="content")
    assert sorted(done.changes) == [("differs", "1.1.1.2"), ("same", "1.1.1.1"), ("same", "1.1.1.3")]
    assert Compared(Archive(rows(mine)), Archive(rows(mine)), trust="content").changes == [("same", "1.1")]


def test_content_that_is_known_is_not_asked_for() -> None:
    mine = {(1, 1, 1), (1, 1, 2)}
    source, dest = Archive(rows(mine, content="xxh3:a")), Archive(rows(mine, content="xxh3:b"))
    done = Compared(source, dest, trust="content")
    assert [change for change, _ in done.changes] == ["differs", "differs"]
    assert not source.wants and not dest.wants


@pytest.mark.parametrize("broken", [
    lambda archive, want: iter(()),
    lambda archive, want: iter([{**archive.wanted(want)[0], "content": "broken "}]),
])  # fmt: skip
def test_an_instance_that_does_not_come_whole_is_neither_the_same_nor_other(broken: Any) -> None:
    done = Compared(Archive(rows({(1, 1, 1)})), Archive(rows({(1, 1, 1)}), fetcher=broken), trust="content")
    assert not done.told and not done.is_complete
    assert any("does not give them whole" in words for words in done.warned)


# Where places fall short


def test_a_study_with_nothing_in_it_proves_nothing() -> None:
    done = Compared(Archive(studies(1)), Archive(studies(1)))
    assert not done.told and not done.is_complete
    empty = [{**studies(1)[0], "NumberOfStudyRelatedInstances": 0}]
    assert Compared(Archive(empty), Archive(empty)).is_complete


class Falling(Archive):
    """Raises the next of `errors`, if it is one, before it answers a question at one level."""

    def __init__(self, rows: Sequence[Row], *errors: PeerError | None, level: Level = Level.SERIES) -> None:
        super().__init__(rows)
        self.errors = list(errors)
        self.level = level

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        error = self.errors.pop(0) if self.errors and ask.level is self.level else None
        if error is not None:
            raise error
        async for answer in super().find(ask):
            yield answer


MINE = {(n, 1, 1) for n in range(1, 9)}
GONE = Disconnected("the peer hung up")
NO = Refused("no", status=0xC000)


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("who", ["mine", "theirs"])
def test_who_hung_up_is_asked_once_more(level: Level, who: str) -> None:
    mine = Falling(rows(MINE), *([GONE] if who == "mine" else []), level=level)
    theirs = Falling(rows(MINE), *([GONE] if who == "theirs" else []), level=level)
    done = Compared(mine, theirs)
    assert done.error is None and done.is_complete
    assert sorted(done.of("same", MINE)) == sorted(MINE)


@pytest.mark.parametrize("who", ["mine", "theirs"])
def test_one_study_that_fails_does_not_end_the_night(who: str) -> None:
    mine = Falling(rows(MINE), *([None, NO] if who == "mine" else []))
    theirs = Falling(rows(MINE), *([None, NO] if who == "theirs" else []))
    done = Compared(mine, theirs)
    assert len(done.of("same", MINE)) == len(MINE) - 1 and not done.of("missing", MINE)
    assert done.error is None and not done.is_complete and done.said == ["no"]
    assert done.tolerance.status is ExitStatus.FAILED


@pytest.mark.parametrize("errors", [[Unreachable("gone")], [NO] * 5])
def test_a_place_that_is_down_ends_it(errors: list[PeerError]) -> None:
    done = Compared(Archive(rows(MINE)), Falling(rows(MINE), *errors))
    assert done.error is errors[0] and not done.is_complete


def test_what_was_listed_before_a_place_went_down_is_told() -> None:
    class Breaking(Archive):
        async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
            count = 0
            async for answer in super().find(ask):
                if count == 3:
                    raise GONE
                count += 1
                yield answer

    done = Compared(Breaking(rows(MINE)), Archive([]))
    assert len(done.of("missing", MINE)) == 3 and isinstance(done.error, Disconnected)


def test_a_question_by_uid_that_ends_as_if_cut_is_no_answer() -> None:
    class Overloaded(Archive):
        async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
            yield Ending(status=0xA700, truncated=True, why="out of resources")

    done = Compared(Archive(rows({(1, 1, 1)})), Overloaded([]), shown=frozenset(("missing",)))
    assert not done.told and not done.is_complete and "cannot be told" in done.said[0]


def test_the_order_does_not_depend_on_who_is_faster() -> None:
    class Slow(Archive):
        async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
            async for answer in super().find(ask):
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                yield answer

    theirs = {(n, 1, 1) for n in (2, 4, 6)} | {(8, 1, 2)}
    orders = [
        Compared(mine(rows(MINE)), dest(rows(theirs))).changes for mine in (Archive, Slow) for dest in (Archive, Slow)
    ]
    assert orders[0] == orders[1] == orders[2] == orders[3]


def test_content_is_asked_for_by_the_patient_that_the_record_of_the_source_names() -> None:
    mine, theirs = Archive(rows({(1, 1, 1)})), Archive(rows({(1, 1, 1)}))
    lines: list[Row] = [{**row, "PatientID": "P1", "type": "instance"} for row in instances(1, 1, 1)]
    assert not Compared(mine, theirs, trust="content", lines=lines).error
    assert [want.patient_id for want in mine.wants] == ["P1"]
    assert [want.patient_id for want in theirs.wants] == [""], "there it may have another one"


class Meeting(Archive):
    """A place that answers about what is below something, or gives instances, once the other one is asked, too."""

    def __init__(self, rows: list[Row], arrived: dict[str, set[str]], name: str) -> None:
        super().__init__(rows, name=name)
        self._arrived = arrived

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        if ask.level > Level.STUDY and not ask.keys.get(ask.level.unique_key):
            await self._meet(ask.level.name)
        async with aclosing(super().find(ask)) as answers:
            async for answer in answers:
                yield answer

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        await self._meet("fetch")
        return await super().fetch(want, receiver)

    async def _meet(self, what: str) -> None:
        there = self._arrived.setdefault(what, set())
        there.add(self.name)
        with anyio.fail_after(5):
            while len(there) < 2:
                await anyio.lowlevel.checkpoint()


def test_two_places_that_are_far_away_work_at_the_same_time() -> None:
    arrived: dict[str, set[str]] = {}
    held = rows({(1, 1, 1), (1, 1, 2)})
    compared = Compared(Meeting(held, arrived, "A"), Meeting(held, arrived, "B"), trust="content")
    assert not compared.error and [record["change"] for record in compared.told] == ["same"]
    assert arrived == {"SERIES": {"A", "B"}, "INSTANCE": {"A", "B"}, "fetch": {"A", "B"}}
