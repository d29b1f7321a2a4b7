"""Several destinations, archives that are made at once, trust, and sources that let go of what was moved."""

from collections.abc import Iterator, Sequence

import pytest
from msgspec import UNSET

from dcmsync.contract import Arrival, Ask, Level, Origin, Want
from dcmsync.errors import Disconnected, ExitStatus, LocalTrouble
from dcmsync.transfer import retry
from dcmsync.transfer.consignment import Proof
from dcmsync.transfer.target import Held
from tests.fakes.archive import Archive, Row, instances, series, studies
from tests.fakes.shelf import Shelf
from tests.transfer.test_engine import SERIES, TEN, Given, Pulled, work

FILES = [{**row, "path": f"/source/{row['SOPInstanceUID']}"} if "SOPInstanceUID" in row else row for row in TEN]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "delay_s", lambda attempt, dice: 0.0)


def held(*numbers: int, content: str = "") -> dict[str, dict[str, Held]]:
    return {"1.1.1": {f"1.1.1.{n}": Held(path=f"{n}.dcm", size=7, content=content) for n in numbers}}


# Several destinations


def test_what_several_destinations_lack_is_fetched_once() -> None:
    other, third = Shelf(), Shelf()
    pulled = Pulled(Archive(TEN), others=[other, third]).never_lies()
    assert pulled.shelf.stored == other.stored == third.stored
    assert len(pulled.shelf.stored) == 10
    assert len(pulled.archive.wants) == 1
    assert [(o.destination, o.stored) for o in pulled.outcomes] == [("SHELF", 10), ("SHELF 2", 10), ("SHELF 3", 10)]
    assert (pulled.meter.instances, pulled.meter.expected) == (30, 30)


def test_each_destination_gets_just_what_it_lacks() -> None:
    other = Shelf()
    pulled = Pulled(Archive(TEN), others=[other], held=held(*range(1, 8)))
    assert set(pulled.shelf.stored) == {"1.1.1.8", "1.1.1.9", "1.1.1.10"}
    assert len(other.stored) == 10
    assert [(o.stored, o.present) for o in pulled.outcomes] == [(3, 7), (10, UNSET)]
    assert pulled.status is ExitStatus.DONE


def test_a_destination_whose_disk_is_full_does_not_stop_the_others() -> None:
    rows = [*studies(1), *series(1, 3), *(row for n in (1, 2, 3) for row in instances(1, n, 10))]
    full = Shelf(full_after=4)
    pulled = Pulled(Archive(rows), work(studies(1)[0], Level.STUDY), others=[full])
    assert len(pulled.shelf.stored) == 30
    assert len(full.stored) == 4
    assert pulled.status is ExitStatus.LOCAL
    assert list(pulled.pull.troubles) == ["SHELF 2"]
    assert [(o.destination, o.outcome) for o in pulled.outcomes[::1] if o.level == "series"] == [
        ("SHELF", "stored"), ("SHELF 2", "failed"),
    ] * 3  # fmt: skip


@pytest.mark.parametrize("after", [0, 3])
def test_a_destination_that_cannot_write_on_does_not_stop_the_others(after: int) -> None:
    failing = Shelf(write_fails_after=after)
    pulled = Pulled(Archive(TEN), others=[failing])
    assert len(pulled.shelf.stored) == 10
    assert len(failing.stored) == after
    assert pulled.status is ExitStatus.LOCAL


def test_when_every_destination_is_full_the_run_stops() -> None:
    rows = [*studies(1), *series(1, 3), *(row for n in (1, 2, 3) for row in instances(1, n, 10))]
    pulled = Pulled(
        Archive(rows), work(studies(1)[0], Level.STUDY), shelf=Shelf(full_after=0), others=[Shelf(full_after=0)]
    )
    assert len(pulled.archive.wants) == 1
    assert set(pulled.pull.troubles) == {"SHELF", "SHELF 2"}


def test_an_instance_that_one_destination_refuses_is_stored_by_the_others() -> None:
    def refuse(arrival: Arrival) -> int:
        return 0xC000 if arrival.sop_instance_uid == "1.1.1.4" else 0

    other = Shelf(refuse=refuse)
    pulled = Pulled(Archive(TEN), others=[other])
    assert (len(pulled.shelf.stored), len(other.stored)) == (10, 9)
    assert not pulled.archive.refusals
    assert pulled.status is ExitStatus.FAILED


def test_a_retrieval_that_broke_off_is_gone_on_with_for_all() -> None:
    def fetcher(archive: Archive, want: Want) -> Iterator[Given]:
        if len(archive.wants) == 1:
            yield from archive.wanted(want)[:5]
            yield Disconnected("gone")
        yield from archive.wanted(want)

    other = Shelf()
    pulled = Pulled(Archive(TEN, fetcher=fetcher), others=[other], held=held(9)).never_lies()
    assert (len(pulled.shelf.stored), len(other.stored)) == (9, 10)
    assert pulled.status is ExitStatus.DONE


# Archives


def test_what_is_made_at_once_is_told_after_it_was_committed() -> None:
    shelf = Shelf(is_made_at_once=True)
    pulled = Pulled(Archive(TEN), shelf=shelf).never_lies()
    assert (shelf.commits, pulled.commits_when_told) == (1, [1])
    assert (pulled.status, pulled.last.stored) == (ExitStatus.DONE, 10)


def test_what_could_not_be_committed_was_not_stored() -> None:
    shelf = Shelf(is_made_at_once=True, commit_fails=True)
    pulled = Pulled(Archive(FILES), shelf=shelf, itemize=True)
    assert {o.outcome for o in pulled.outcomes} == {"failed"}
    assert (pulled.last.failed, pulled.last.reason, pulled.last.retry) == (10, "local", True)
    assert pulled.status is ExitStatus.LOCAL
    assert pulled.released == []


def test_an_archive_in_trouble_is_not_committed() -> None:
    shelf = Shelf(is_made_at_once=True, full_after=5)
    pulled = Pulled(Archive(TEN), shelf=shelf, itemize=True)
    assert shelf.commits == 0
    assert {o.outcome for o in pulled.outcomes} == {"failed"}


def test_a_folder_is_told_of_though_the_archive_beside_it_failed() -> None:
    pulled = Pulled(Archive(FILES), others=[Shelf(is_made_at_once=True, commit_fails=True)])
    told = [(o.destination, o.outcome) for o in pulled.outcomes if o.level == "series"]
    assert told == [("SHELF", "stored"), ("SHELF 2", "failed")]
    assert pulled.released == []


# Trust


def test_counts_that_agree_are_enough_when_they_are_trusted() -> None:
    record = {**SERIES, "NumberOfSeriesRelatedInstances": 10}
    archive = Archive(TEN)
    pulled = Pulled(archive, work(record), held=held(*range(1, 11)), trust="counts")
    assert (pulled.last.outcome, pulled.last.present, pulled.last.reason) == ("present", 10, "counts")
    assert (archive.asks, archive.wants) == ([], [])
    assert pulled.status is ExitStatus.DONE


@pytest.mark.parametrize("said", [9, 11, 0, None])
def test_counts_that_do_not_agree_or_are_not_known_prove_nothing(said: int | None) -> None:
    record = {**SERIES, **({} if said is None else {"NumberOfSeriesRelatedInstances": said})}
    held_now = held(*range(1, 11)) if said is not None else {}
    archive = Archive(TEN)
    Pulled(archive, work(record), held=held_now, trust="counts")
    assert next(ask.level for ask in archive.asks) == Level.INSTANCE


def test_a_study_whose_count_agrees_is_not_gone_into() -> None:
    record = {**studies(1)[0], "NumberOfStudyRelatedInstances": 10}
    archive = Archive(TEN)
    pulled = Pulled(archive, work(record, Level.STUDY), held=held(*range(1, 11)), trust="counts")
    assert (pulled.last.level, pulled.last.outcome, archive.asks) == ("study", "present", [])


def contents(digest: str) -> list[Row]:
    return [{**row, "content": f"xxh3:{digest}"} if "SOPInstanceUID" in row else row for row in TEN]


def same_octets(archive: Archive, want: Want) -> Iterator[Given]:
    yield from ({**row, "content": "data set of "} for row in archive.wanted(want))


@pytest.mark.parametrize(
    "ours, theirs, fetched", [("ab", "ab", 0), ("ab", "cd", 10), ("", "", 10), ("", "ab", 10), ("ab", "", 10)]
)
def test_what_is_held_counts_only_with_the_same_content_when_that_is_trusted(
    ours: str, theirs: str, fetched: int
) -> None:
    archive = Archive(contents(theirs) if theirs else TEN, fetcher=same_octets)
    pulled = Pulled(archive, held=held(*range(1, 11), content=ours), trust="content")
    assert len(pulled.shelf.stored) == fetched
    assert pulled.status is ExitStatus.DONE


# Moving


def test_a_file_is_released_when_its_instance_landed() -> None:
    pulled = Pulled(Archive(FILES))
    assert pulled.released == [row["path"] for row in FILES if "path" in row]


def test_a_file_is_released_only_when_every_destination_has_its_instance() -> None:
    pulled = Pulled(Archive(FILES), others=[Shelf(spoilt=["1.1.1.4"])])
    assert len(pulled.released) == 9 and "/source/1.1.1.4" not in pulled.released


def test_what_was_there_already_without_proof_is_not_released() -> None:
    pulled = Pulled(Archive(FILES), held=held(1, 2))
    assert len(pulled.released) == 8


def test_the_second_of_twins_stays_where_it_is() -> None:
    def twins(archive: Archive, want: Want) -> Iterator[Given]:
        first, *others = archive.wanted(want)
        yield from (first, {**first, "content": "another data set of ", "path": "/source/twin"}, *others)

    pulled = Pulled(Archive(FILES, fetcher=twins))
    assert len(pulled.released) == 9
    assert not {"/source/twin", "/source/1.1.1.1"} & set(pulled.released)


def test_a_file_that_cannot_be_released_is_told() -> None:
    def release(origin: Origin, proofs: Sequence[Proof]) -> None:
        raise LocalTrouble("it changed meanwhile")

    pulled = Pulled(Archive(FILES), release=release)
    assert pulled.status is ExitStatus.LOCAL
    assert len(pulled.warnings) == 10


def test_a_source_that_cannot_be_read_fails_and_the_next_goes_on() -> None:
    def alter(ask: Ask, found: list[Row]) -> list[Row]:
        if ask.keys.get("SeriesInstanceUID") == "1.1.1":
            raise LocalTrouble("the folder cannot be read")
        return found

    rows = [*studies(1), *series(1, 2), *instances(1, 1, 3), *instances(1, 2, 3)]
    second: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.2"}
    pulled = Pulled(Archive(rows, alter=alter), work(), work(second))
    assert [o.outcome for o in pulled.outcomes] == ["failed", "stored"]
    assert pulled.status is ExitStatus.LOCAL
