"""Pull against sources that lie and disks that fill up: the verdict follows what arrived, never a status."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio
import anyio.to_thread
import pytest
from msgspec import UNSET

from dcmsync.contract import Arrival, Ask, Ending, Level, Origin, Want
from dcmsync.errors import (
    Disconnected,
    ExitStatus,
    InputError,
    LocalTrouble,
    Rejected,
    RemoteProtocolError,
    Stalled,
    Unreachable,
)
from dcmsync.records.model import Outcome
from dcmsync.transfer import retry
from dcmsync.transfer.consignment import Proof
from dcmsync.transfer.engine import Pull, Settings
from dcmsync.transfer.target import Held, Target
from dcmsync.transfer.works import Work
from tests.fakes.archive import CT, MR, Archive, Row, instances, series, studies
from tests.fakes.shelf import Parcel, Shelf

Given = Row | Ending | Exception
TEN = [*studies(1), *series(1, 1), *instances(1, 1, 10)]
SERIES: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "delay_s", lambda attempt, dice: 0.0)


class Quiet:
    """A meter that shows nothing."""

    def __init__(self) -> None:
        self.instances = 0
        self.expected: int | None = 0

    def total(self, instances: int | None, provisional: bool) -> None:
        self.expected = instances

    def advance(self, instances: int, octets: int) -> None:
        self.instances += instances


class Stock:
    """What a destination holds: series UID -> SOP Instance UID -> what it is."""

    def __init__(self, held: Mapping[str, Mapping[str, Held]]) -> None:
        self._held = held

    async def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        return self._held.get(series_uid, {})

    async def count(self, study_uid: str, series_uid: str) -> int:
        return len(await self.series(study_uid, series_uid)) if series_uid else sum(map(len, self._held.values()))


def target_of(shelf: Shelf | None, name: str = "SHELF", held: Mapping[str, Mapping[str, Held]] | None = None) -> Any:
    made: Target[Parcel] = Target(name, Stock(held or {}))
    if shelf is not None:
        shelf.completed = made.completed
        made.destination = shelf
    return made


class Pulled:
    """One run, and what came of it."""

    def __init__(
        self,
        archive: Archive,
        *works: Sequence[Work] | Exception,
        shelf: Shelf | None = None,
        others: Sequence[Shelf] = (),
        release: Callable[[Origin, Sequence[Proof]], None] | None = None,
        held: Mapping[str, Mapping[str, Held]] | None = None,
        jobs: int = 1,
        **settings: Any,
    ) -> None:
        self.archive = archive
        self.shelf = shelf or Shelf()
        self.outcomes: list[Outcome] = []
        self.warnings: list[str] = []
        self.meter = Quiet()
        self.released: list[str] = []
        self.release = release or (lambda origin, proofs: self.released.append(origin.path))
        self.commits_when_told: list[int] = []
        made = Settings(jobs=jobs, **settings)
        targets = [target_of(None if made.dry_run else self.shelf, held=held)]
        targets += [target_of(shelf, f"SHELF {n}") for n, shelf in enumerate(others, 2)]
        anyio.run(self._run, works or (work(),), targets, made)

    async def _run(
        self, works: Sequence[Sequence[Work] | Exception], targets: Sequence[Target[Parcel]], settings: Settings
    ) -> None:
        self.pull: Pull[Parcel] = Pull(
            settings,
            targets,
            open_source=lambda name: self.archive,
            release=self.release,
            write=self.write,
            warn=self.warnings.append,
            meter=self.meter,
        )
        with anyio.fail_after(20):
            await self.pull.run(feed(works))

    def write(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.commits_when_told.append(self.shelf.commits)

    @property
    def status(self) -> ExitStatus:
        return self.pull.status

    @property
    def last(self) -> Outcome:
        return self.outcomes[-1]

    def never_lies(self) -> "Pulled":
        """What is called stored is there, octet for octet, and nothing else is; done is said of all or not at all."""
        said = {o.SOPInstanceUID for o in self.outcomes if o.level == "instance" and o.outcome == "stored"}
        if self.pull._settings.itemize:
            assert said == set(self.shelf.stored)
        assert all(octets == f"data set of {uid}".encode() for uid, octets in self.shelf.stored.items())
        asked = {row["SOPInstanceUID"] for row in self.archive.rows[Level.INSTANCE]}
        assert set(self.shelf.stored) <= asked
        is_done = all(o.outcome in ("stored", "present") for o in self.outcomes)
        assert (self.status == ExitStatus.DONE) == is_done
        for outcome in self.outcomes:
            if outcome.level == "series" and outcome.instances is not UNSET:
                counted = [outcome.stored, outcome.present, outcome.failed, outcome.conflict]
                assert sum(count for count in counted if count is not UNSET) == outcome.instances
        return self


async def feed(works: Sequence[Sequence[Work] | Exception]) -> AsyncIterator[Sequence[Work]]:
    for one in works:
        if isinstance(one, Exception):
            raise one
        yield one


def work(attributes: Row = SERIES, level: Level = Level.SERIES) -> list[Work]:
    return [Work(level=level, source="ARCHIVE@here:104", attributes=attributes)]


def test_a_series_is_pulled_whole_in_one_retrieval() -> None:
    pulled = Pulled(Archive(TEN), itemize=True).never_lies()
    assert pulled.status is ExitStatus.DONE
    assert len(pulled.outcomes) == 11
    assert (pulled.last.level, pulled.last.outcome, pulled.last.stored, pulled.last.instances) == (
        "series", "stored", 10, 10,
    )  # fmt: skip
    (want,) = pulled.archive.wants
    assert want.whole and set(want.instances.values()) == {CT}


def test_without_itemizing_only_the_series_is_told() -> None:
    pulled = Pulled(Archive(TEN)).never_lies()
    assert [(o.level, o.outcome) for o in pulled.outcomes] == [("series", "stored")]


def test_a_study_is_pulled_series_by_series_in_order() -> None:
    rows = [*studies(1), *series(1, 3), *(row for n in (1, 2, 3) for row in instances(1, n, 4))]
    pulled = Pulled(Archive(rows), work(studies(1)[0], Level.STUDY), jobs=2).never_lies()
    assert [o.SeriesInstanceUID for o in pulled.outcomes] == ["1.1.1", "1.1.2", "1.1.3"]
    assert len(pulled.shelf.stored) == 12
    assert (pulled.meter.instances, pulled.meter.expected) == (12, 12)


def test_single_instances_are_pulled_alone() -> None:
    group = [
        Work(level=Level.INSTANCE, source="A", attributes={**SERIES, "SOPInstanceUID": f"1.1.1.{n}", "SOPClassUID": CT})
        for n in (3, 5)
    ]
    pulled = Pulled(Archive(TEN), group).never_lies()
    assert set(pulled.shelf.stored) == {"1.1.1.3", "1.1.1.5"}
    assert pulled.status is ExitStatus.DONE


def test_what_is_held_is_not_asked_for() -> None:
    held = {"1.1.1": {f"1.1.1.{n}": Held(path=f"{n}.dcm", size=7) for n in range(1, 10)}}
    pulled = Pulled(Archive(TEN), held=held).never_lies()
    assert set(pulled.shelf.stored) == {"1.1.1.10"}
    assert (pulled.last.stored, pulled.last.present) == (1, 9)
    assert [want.whole for want in pulled.archive.wants] == [False]


def test_what_is_held_of_another_series_is_no_proof() -> None:
    held = {"9.9": {"1.1.1.1": Held(path="1.dcm", size=7)}}
    assert len(Pulled(Archive(TEN), held=held).never_lies().shelf.stored) == 10


def test_when_all_is_held_nothing_is_asked_for() -> None:
    held = {"1.1.1": {f"1.1.1.{n}": Held(path=f"{n}.dcm", size=7) for n in range(1, 11)}}
    pulled = Pulled(Archive(TEN), held=held).never_lies()
    assert (pulled.last.outcome, pulled.archive.wants) == ("present", [])


def test_a_dry_run_asks_for_no_instance() -> None:
    pulled = Pulled(Archive(TEN), dry_run=True)
    assert (pulled.last.outcome, pulled.last.stored, pulled.last.dry_run) == ("stored", 10, True)
    assert pulled.archive.wants == [] and pulled.shelf.stored == {}


# Peers that lie


def nothing(archive: Archive, want: Want) -> Iterator[Given]:
    return iter(())


def first_of_all(archive: Archive, want: Want) -> Iterator[Given]:
    yield archive.rows[Level.INSTANCE][0]


def one_at_a_time(archive: Archive, want: Want) -> Iterator[Given]:
    yield archive.wanted(want)[0]


def strangers(archive: Archive, want: Want) -> Iterator[Given]:
    for n in range(50):
        yield {"SOPInstanceUID": f"9.9.{n}", "SOPClassUID": CT}


def each_thrice(archive: Archive, want: Want) -> Iterator[Given]:
    for row in archive.wanted(want):
        yield from (row, row, row)


def twins(archive: Archive, want: Want) -> Iterator[Given]:
    first, *others = archive.wanted(want)
    yield from (first, {**first, "content": "another data set of "}, *others)


def all_then_failure(archive: Archive, want: Want) -> Iterator[Given]:
    yield from archive.wanted(want)
    yield Ending(status=0xC001, why='0xC001 "unable to process"')


def half_then(error: Exception) -> Any:
    def fetcher(archive: Archive, want: Want) -> Iterator[Given]:
        if len(archive.wants) == 1:
            yield from archive.wanted(want)[:5]
            yield error
        yield from archive.wanted(want)

    return fetcher


def always(given: Given) -> Any:
    def fetcher(archive: Archive, want: Want) -> Iterator[Given]:
        yield given

    return fetcher


def test_success_with_nothing_sent_is_missing() -> None:
    pulled = Pulled(Archive(TEN, fetcher=nothing), itemize=True).never_lies()
    assert pulled.status is ExitStatus.FAILED
    assert {o.reason for o in pulled.outcomes} == {"missing"}
    assert pulled.last.failed == 10
    assert "reported success" in str(pulled.last.message)


def test_what_a_place_says_of_what_it_did_not_send_is_told() -> None:
    pulled = Pulled(Archive(TEN, fetcher=always(Ending(why="its file changed"))), itemize=True).never_lies()
    assert pulled.status is ExitStatus.FAILED and {o.reason for o in pulled.outcomes} == {"missing"}
    assert str(pulled.last.message).endswith(": its file changed") and "peer" not in str(pulled.last.message)


def test_one_of_ten_and_success_leaves_nine_missing() -> None:
    pulled = Pulled(Archive(TEN, fetcher=first_of_all), itemize=True).never_lies()
    assert (pulled.last.stored, pulled.last.failed) == (1, 9)
    assert pulled.status is ExitStatus.FAILED


def test_a_peer_that_sends_one_a_retrieval_is_asked_again_for_each() -> None:
    pulled = Pulled(Archive(TEN, fetcher=one_at_a_time), itemize=True).never_lies()
    assert pulled.status is ExitStatus.DONE
    assert len(pulled.archive.wants) >= 3


def test_strangers_are_refused_and_not_written() -> None:
    pulled = Pulled(Archive(TEN, fetcher=strangers), itemize=True).never_lies()
    assert pulled.shelf.stored == {}
    assert set(pulled.archive.refusals) == {0xC000}
    assert pulled.last.failed == 10


def test_what_comes_again_and_again_is_looked_at_twice_and_counted_once() -> None:
    pulled = Pulled(Archive(TEN, fetcher=each_thrice), itemize=True).never_lies()
    assert pulled.status is ExitStatus.DONE
    assert pulled.last.stored == 10
    assert len(pulled.archive.refusals) == 10


def test_two_instances_of_one_uid_are_a_conflict() -> None:
    pulled = Pulled(Archive(TEN, fetcher=twins), itemize=True)
    assert pulled.status is ExitStatus.FAILED
    assert (pulled.last.outcome, pulled.last.stored, pulled.last.conflict) == ("conflict", 9, 1)
    (twin,) = [outcome for outcome in pulled.outcomes if outcome.outcome == "conflict" and outcome.level == "instance"]
    assert twin.reason == "twins"


def test_a_failure_status_after_everything_came_changes_nothing() -> None:
    pulled = Pulled(Archive(TEN, fetcher=all_then_failure), itemize=True).never_lies()
    assert pulled.status is ExitStatus.DONE


@pytest.mark.parametrize("status", [0xA900, 0xFE00, 0xB000])
def test_a_failure_status_with_nothing_sent_is_told(status: int) -> None:
    ending = Ending(status=status, why=f"0x{status:04X}")
    pulled = Pulled(Archive(TEN, fetcher=always(ending)), itemize=True).never_lies()
    assert pulled.status > ExitStatus.DONE
    assert {o.status for o in pulled.outcomes} == {f"0x{status:04X}"}


@pytest.mark.parametrize("error", [Disconnected("gone"), Stalled("late"), Rejected("busy", transient=True)])
def test_after_a_failure_that_may_pass_only_what_lacks_is_asked_for(error: Exception) -> None:
    pulled = Pulled(Archive(TEN, fetcher=half_then(error)), itemize=True).never_lies()
    assert pulled.status is ExitStatus.DONE
    assert set(pulled.archive.wants[1].instances) == {f"1.1.1.{n}" for n in range(6, 11)}
    assert not pulled.archive.refusals


@pytest.mark.parametrize("error", [RemoteProtocolError("nonsense"), Rejected("no")])
def test_after_a_failure_that_lasts_nothing_more_is_asked(error: Exception) -> None:
    pulled = Pulled(Archive(TEN, fetcher=half_then(error)), itemize=True).never_lies()
    assert len(pulled.archive.wants) == 1
    assert (pulled.last.stored, pulled.last.failed) == (5, 5)


def test_a_peer_that_is_gone_fails_the_rest_with_its_own_status() -> None:
    pulled = Pulled(Archive(TEN, fetcher=always(Unreachable("nobody there")))).never_lies()
    assert pulled.status is ExitStatus.UNREACHABLE
    assert (pulled.last.reason, pulled.last.retry) == ("unreachable", True)


@pytest.mark.parametrize("position", [1, 5, 10])
def test_one_instance_that_makes_the_peer_fail_fails_alone(position: int) -> None:
    poison = f"1.1.1.{position}"

    def fetcher(archive: Archive, want: Want) -> Iterator[Given]:
        for row in archive.wanted(want):
            yield Disconnected("the peer aborted the association") if row["SOPInstanceUID"] == poison else row

    pulled = Pulled(Archive(TEN, fetcher=fetcher), itemize=True).never_lies()
    assert (pulled.last.stored, pulled.last.failed) == (9, 1)
    (failed,) = [o for o in pulled.outcomes if o.level == "instance" and o.outcome == "failed"]
    assert failed.SOPInstanceUID == poison


def test_a_series_of_many_classes_is_asked_for_in_lots() -> None:
    rows = [*studies(1), *series(1, 1)]
    rows += [{**row, "SOPClassUID": f"1.2.{n % 7}"} for n, row in enumerate(instances(1, 1, 70))]
    pulled = Pulled(Archive(rows), itemize=True).never_lies()
    assert pulled.status is ExitStatus.DONE


# Peers that answer queries badly


def test_a_series_that_is_gone_is_told() -> None:
    pulled = Pulled(Archive([*studies(1), *series(1, 1)])).never_lies()
    assert (pulled.last.outcome, pulled.last.level) == ("failed", "series")
    assert "not there (any more)" in str(pulled.last.message)


def test_a_study_that_is_gone_is_told() -> None:
    pulled = Pulled(Archive([]), work({"StudyInstanceUID": "1.1"}, Level.STUDY)).never_lies()
    assert (pulled.last.outcome, pulled.last.level) == ("failed", "study")


def test_an_inventory_that_fails_fails_its_series_and_the_next_goes_on() -> None:
    def alter(ask: Ask, found: list[Row]) -> list[Row]:
        if ask.keys.get("SeriesInstanceUID") == "1.1.1":
            raise Disconnected("gone")
        return found

    rows = [*studies(1), *series(1, 2), *instances(1, 1, 3), *instances(1, 2, 3)]
    second: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.2"}
    pulled = Pulled(Archive(rows, alter=alter), work(), work(second)).never_lies()
    assert [o.outcome for o in pulled.outcomes] == ["failed", "stored"]
    assert len(pulled.shelf.stored) == 3


def test_an_inventory_that_may_be_cut_short_is_never_done() -> None:
    rows = [*studies(1), *series(1, 1), *(({**r, "InstanceNumber": ""}) for r in instances(1, 1, 150))]
    pulled = Pulled(Archive(rows, limit=100, cut_status=0xFE00))
    assert len(pulled.shelf.stored) == 100
    assert pulled.status is ExitStatus.INCOMPLETE


# The destination's side


def test_a_damaged_instance_fails_alone() -> None:
    pulled = Pulled(Archive(TEN), shelf=Shelf(spoilt=["1.1.1.4"]), itemize=True).never_lies()
    assert (pulled.last.stored, pulled.last.failed, pulled.last.reason) == (9, 1, "corrupt")
    assert pulled.status is ExitStatus.FAILED


def test_an_instance_that_the_destination_refuses_fails_alone() -> None:
    def refuse(arrival: Arrival) -> int:
        return 0xC000 if arrival.sop_instance_uid == "1.1.1.4" else 0

    pulled = Pulled(Archive(TEN), shelf=Shelf(refuse=refuse), itemize=True).never_lies()
    assert (pulled.last.stored, pulled.last.failed) == (9, 1)
    assert pulled.archive.refusals == [0xC000]


def test_a_full_disk_ends_the_run_and_says_so_of_all_that_is_left() -> None:
    rows = [*studies(1), *series(1, 3), *(row for n in (1, 2, 3) for row in instances(1, n, 10))]
    pulled = Pulled(
        Archive(rows), work(studies(1)[0], Level.STUDY), shelf=Shelf(full_after=15), itemize=True
    ).never_lies()
    assert pulled.status is ExitStatus.LOCAL
    assert isinstance(pulled.pull.troubles["SHELF"], LocalTrouble)
    assert len(pulled.shelf.stored) == 15
    failed = [o for o in pulled.outcomes if o.level == "instance" and o.outcome == "failed"]
    assert {o.reason for o in failed} == {"local"}
    assert len(failed) == 15


def test_a_disk_that_is_full_from_the_start_brings_no_second_retrieval() -> None:
    pulled = Pulled(Archive(TEN), shelf=Shelf(full_after=0)).never_lies()
    assert len(pulled.archive.wants) == 1
    assert pulled.status is ExitStatus.LOCAL


def test_every_sink_is_told_which_series_its_instance_must_belong_to() -> None:
    seen: set[tuple[str, str]] = set()

    def landing(parcels: Sequence[Parcel]) -> None:
        seen.update((parcel.expected.study_uid, parcel.expected.series_uid) for parcel in parcels)

    Pulled(Archive(TEN), shelf=Shelf(landing=landing))
    assert seen == {("1.1", "1.1.1")}


def test_a_bug_in_landing_ends_the_run() -> None:
    def landing(parcels: Sequence[Parcel]) -> None:
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        Pulled(Archive(TEN), shelf=Shelf(landing=landing))
    assert caught.group_contains(ZeroDivisionError)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_run_that_is_cancelled_ends_though_its_disk_is_busy(jobs: int) -> None:
    landing, go_on = threading.Event(), threading.Event()
    rows = [*studies(1), *series(1, 5), *(row for n in range(1, 6) for row in instances(1, n, 50))]
    shelf = Shelf(landing=lambda parcels: (landing.set(), go_on.wait(10))[0])
    archive = Archive(rows)

    async def main() -> None:
        pull: Pull[Parcel] = Pull(
            Settings(jobs=jobs), [target_of(shelf)], open_source=lambda name: archive, write=print, warn=print,
            meter=Quiet(),
        )  # fmt: skip
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pull.run, feed([work(studies(1)[0], Level.STUDY)]))
                await anyio.to_thread.run_sync(landing.wait)
                tasks.cancel_scope.cancel()
                go_on.set()

    anyio.run(main)
    assert 0 < len(shelf.stored) < 250
    assert not set(shelf.stored) & set(shelf.abandoned)


# The input's side


def test_broken_input_ends_after_what_came_before_it() -> None:
    pulled = Pulled(Archive(TEN), work(), InputError("broken", line=2))
    assert isinstance(pulled.pull.input_error, InputError)
    assert pulled.status is ExitStatus.INCOMPLETE
    assert len(pulled.shelf.stored) == 10


def test_no_input_is_done() -> None:
    async def main() -> ExitStatus:
        pull: Pull[Parcel] = Pull(
            Settings(), [target_of(Shelf())], open_source=lambda name: Archive([]), write=print, warn=print,
            meter=Quiet(),
        )  # fmt: skip
        await pull.run(feed(()))
        return pull.status

    assert anyio.run(main) is ExitStatus.DONE


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_outcomes_keep_the_order_of_the_input(jobs: int) -> None:
    rows = [*studies(1), *series(1, 8), *(row for n in range(1, 9) for row in instances(1, n, n))]
    works = [work({"StudyInstanceUID": "1.1", "SeriesInstanceUID": f"1.1.{n}"}) for n in range(1, 9)]
    pulled = Pulled(Archive(rows), *works, jobs=jobs).never_lies()
    assert [o.SeriesInstanceUID for o in pulled.outcomes] == [f"1.1.{n}" for n in range(1, 9)]


def test_a_wrong_guess_of_a_class_is_corrected_by_asking() -> None:
    rows = [*studies(1), *series(1, 1), *instances(1, 1, 10)]
    for row in rows[4:9]:
        row["SOPClassUID"] = MR

    def only_what_was_proposed(archive: Archive, want: Want) -> Iterator[Given]:
        for row in archive.wanted(want):
            if row["SOPClassUID"] in want.instances.values():
                yield row

    pulled = Pulled(Archive(rows, fetcher=only_what_was_proposed), itemize=True).never_lies()
    assert pulled.status is ExitStatus.DONE
