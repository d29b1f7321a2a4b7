"""The walk down a place that is slow of speech: repeats itself, answers beside the point, and cuts its lists short."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from dcmsync.contract import Ask, Level
from dcmsync.plan.levels import Query
from dcmsync.transfer.inventory import Inventory
from tests.fakes.archive import Archive, Row, instances, series, studies

ALL = Query(level=Level.STUDY, keys={})


class Walked:
    """What an inventory gave, and said."""

    def __init__(self, archive: Archive, query: Query = ALL, known: Row | None = None) -> None:
        self.warnings: list[str] = []
        self.inventory = Inventory(archive, name="PLACE", warn=self.warnings.append)
        self.found: list[dict[str, object]] = anyio.run(self._all, query, known)

    async def _all(self, query: Query, known: Row | None) -> list[dict[str, object]]:
        return [thing async for thing in self.inventory.walk(query, known)]

    def uids(self, key: str = "StudyInstanceUID") -> list[object]:
        return [thing[key] for thing in self.found]


def altered(*changes: Row, only: Level = Level.STUDY) -> Archive:
    """An archive whose answers at one level are the real ones, then these."""

    def alter(ask: Ask, found: list[Row]) -> Sequence[Row]:
        return [*found, *changes] if ask.level is only else found

    return Archive([*studies(2), *series(1, 2), *instances(1, 1, 2)], alter=alter)


def test_a_study_query_is_one_ask() -> None:
    archive = Archive(studies(3))
    walked = Walked(archive)
    assert walked.uids() == ["1.1", "1.2", "1.3"]
    assert len(archive.asks) == 1
    assert walked.inventory.is_complete and not walked.warnings


def test_deeper_levels_are_walked_and_carry_what_is_known_above() -> None:
    rows = [*studies(2), *series(1, 2), *series(2, 1), *instances(1, 2, 3), *instances(2, 1, 1)]
    walked = Walked(Archive(rows), Query(level=Level.INSTANCE, keys={"PatientID": "Q1"}))
    assert walked.uids("SOPInstanceUID") == ["1.1.2.1", "1.1.2.2", "1.1.2.3"]
    assert {thing["PatientID"] for thing in walked.found} == {"Q1"}
    assert {thing["Modality"] for thing in walked.found} == {"CT"}


def test_what_a_record_knows_is_not_asked_again() -> None:
    archive = Archive([*studies(2), *series(1, 2), *instances(1, 2, 3)])
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.2"}
    walked = Walked(archive, Query(level=Level.INSTANCE, keys={}), known)
    assert len(walked.found) == 3
    assert [ask.level for ask in archive.asks] == [Level.INSTANCE]


def test_a_list_of_uids_is_asked_one_by_one() -> None:
    archive = Archive(studies(9))
    walked = Walked(archive, Query(level=Level.STUDY, keys={"StudyInstanceUID": "1.4,1.2"}))
    assert walked.uids() == ["1.4", "1.2"]
    assert [ask.keys["StudyInstanceUID"] for ask in archive.asks] == ["1.4", "1.2"]


# Answers beside the point


def test_what_comes_twice_is_one() -> None:
    assert Walked(altered({"StudyInstanceUID": "1.1", "PatientID": "other"})).uids() == ["1.1", "1.2"]


def test_an_answer_that_does_not_match_is_dropped_and_told_once() -> None:
    archive = altered(*({"StudyInstanceUID": f"9.{n}", "PatientID": "X"} for n in range(3)))
    walked = Walked(archive, Query(level=Level.STUDY, keys={"PatientID": "Q*"}))
    assert walked.uids() == ["1.1"]
    assert walked.warnings == ["PLACE: answers that do not match the PatientID asked for were dropped"]


def test_an_answer_of_another_study_is_dropped() -> None:
    archive = altered({"StudyInstanceUID": "9.9", "SeriesInstanceUID": "9.9.9"}, only=Level.SERIES)
    walked = Walked(archive, Query(level=Level.SERIES, keys={}), {"StudyInstanceUID": "1.1"})
    assert walked.uids("SeriesInstanceUID") == ["1.1.1", "1.1.2"]
    assert len(walked.warnings) == 1


@pytest.mark.parametrize("uid", [None, "", ["1.8", "1.9"], 7])
def test_an_answer_without_one_uid_is_dropped_and_told(uid: object) -> None:
    row: Row = {"PatientID": "X"} if uid is None else {"StudyInstanceUID": uid}
    walked = Walked(altered(row))
    assert walked.uids() == ["1.1", "1.2"]
    assert walked.warnings == ["PLACE: answers without StudyInstanceUID were dropped"]


def test_an_answer_that_repeats_no_uid_of_its_parents_is_taken() -> None:
    def alter(ask: Ask, found: list[Row]) -> list[Row]:
        return [{"SeriesInstanceUID": row["SeriesInstanceUID"]} for row in found]

    archive = Archive(series(1, 2), alter=alter)
    walked = Walked(archive, Query(level=Level.SERIES, keys={}), {"StudyInstanceUID": "1.1"})
    assert walked.uids() == ["1.1", "1.1"]
    assert walked.uids("SeriesInstanceUID") == ["1.1.1", "1.1.2"]


def test_what_was_not_asked_for_is_left_out() -> None:
    def alter(ask: Ask, found: list[Row]) -> list[Row]:
        return [{**row, "00091001": "private"} for row in found]

    assert all("00091001" not in thing for thing in Walked(Archive(studies(2), alter=alter)).found)


# Lists cut short


@pytest.mark.slow
@pytest.mark.parametrize("status", [0xFE00, 0xA700])
@pytest.mark.parametrize("limit", [7, 20, 100])
def test_a_list_that_ends_early_is_asked_for_in_parts_until_all_is_found(status: int, limit: int) -> None:
    archive = Archive(studies(617), limit=limit, cut_status=status)
    walked = Walked(archive)
    assert sorted(walked.uids()) == sorted(row["StudyInstanceUID"] for row in archive.rows[Level.STUDY])
    assert walked.inventory.is_complete, walked.warnings
    assert 1 <= walked.inventory.splits < len(archive.asks)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, 200, 250, 500, 1000])
def test_a_list_that_is_cut_silently_at_a_round_number_is_asked_for_in_parts(limit: int) -> None:
    walked = Walked(Archive(studies(1234), limit=limit))
    assert len(walked.found) == 1234
    assert walked.inventory.is_complete


def test_a_complete_list_of_a_round_number_stays_complete_though_some_have_no_date() -> None:
    rows = studies(100, StudyDate=lambda n: "" if n < 4 else "20240101")
    walked = Walked(Archive(rows))
    assert len(walked.found) == 100
    assert walked.inventory.is_complete


def test_a_query_within_a_range_is_split_within_that_range() -> None:
    archive = Archive(studies(300), limit=20, cut_status=0xFE00)
    walked = Walked(archive, Query(level=Level.STUDY, keys={"StudyDate": "20210101-20211231"}))
    expected = {r["StudyInstanceUID"] for r in archive.rows[Level.STUDY] if str(r["StudyDate"]).startswith("2021")}
    assert set(walked.uids()) == expected
    assert walked.inventory.is_complete


@pytest.mark.parametrize("status", [0xA700, 0])
def test_instances_that_lack_are_asked_for_by_their_numbers(status: int) -> None:
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "NumberOfSeriesRelatedInstances": 130}
    archive = Archive(instances(1, 1, 130), limit=100, cut_status=status)
    walked = Walked(archive, Query(level=Level.INSTANCE, keys={}), known)
    assert len(walked.found) == 130
    assert walked.inventory.is_complete, walked.warnings


@pytest.mark.parametrize("status", [0xA700, 0])
def test_without_a_claim_nobody_knows_whether_the_numbers_were_all(status: int) -> None:
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    archive = Archive(instances(1, 1, 130), limit=100, cut_status=status)
    walked = Walked(archive, Query(level=Level.INSTANCE, keys={}), known)
    assert 100 < len(walked.found) < 130
    assert not walked.inventory.is_complete
    assert "does not say how many" in walked.inventory.trouble


def test_a_whole_series_of_a_round_number_stays_complete_without_a_claim() -> None:
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    walked = Walked(Archive(instances(1, 1, 100)), Query(level=Level.INSTANCE, keys={}), known)
    assert len(walked.found) == 100
    assert walked.inventory.is_complete


def test_a_claim_that_all_were_listed_spares_the_splitting() -> None:
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "NumberOfSeriesRelatedInstances": 100}
    archive = Archive(instances(1, 1, 100))
    walked = Walked(archive, Query(level=Level.INSTANCE, keys={}), known)
    assert (len(walked.found), len(archive.asks)) == (100, 1)


@pytest.mark.parametrize("claimed", [0, 5, "many"])
def test_a_claim_that_cannot_be_true_completes_nothing(claimed: object) -> None:
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "NumberOfSeriesRelatedInstances": claimed}
    archive = Archive(instances(1, 1, 250), limit=60, cut_status=0xFE00)
    walked = Walked(archive, Query(level=Level.INSTANCE, keys={}), known)
    assert 60 < len(walked.found) < 250
    assert not walked.inventory.is_complete


def test_a_claim_of_more_than_was_listed_is_told() -> None:
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "NumberOfSeriesRelatedInstances": 9}
    walked = Walked(Archive(instances(1, 1, 3)), Query(level=Level.INSTANCE, keys={}), known)
    assert walked.warnings == ["PLACE: a parent claims more things at instance level than were listed"]


def test_what_cannot_be_split_is_told_and_incomplete() -> None:
    rows = studies(30, StudyDate=lambda n: "20240101", StudyTime=lambda n: "101500", PatientID=lambda n: "P1")
    walked = Walked(Archive(rows, limit=10, cut_status=0xFE00))
    assert len(walked.found) == 10
    assert not walked.inventory.is_complete
    assert "0xFE00" in walked.inventory.trouble and "cannot be split further" in walked.inventory.trouble


def test_a_question_for_one_thing_is_never_asked_in_parts() -> None:
    archive = Archive(studies(3), limit=0, cut_status=0xFE00)
    walked = Walked(archive, Query(level=Level.STUDY, keys={"StudyInstanceUID": "1.2"}))
    assert len(archive.asks) == 1 and not walked.found
    assert not walked.inventory.is_complete

    def twice(ask: Ask, found: list[Row]) -> Sequence[Row]:
        return found * 100

    archive = Archive(studies(3), alter=twice)  # a round number
    walked = Walked(archive, Query(level=Level.STUDY, keys={"StudyInstanceUID": "1.2"}))
    assert (len(archive.asks), walked.uids(), walked.inventory.is_complete) == (1, ["1.2"], True)


@pytest.mark.slow
@pytest.mark.parametrize("status", [0xFE00, 0], ids=["said", "silent"])
@pytest.mark.parametrize("lacking", ["StudyDate", "StudyTime", "PatientID"])
def test_studies_that_no_part_can_find_leave_the_list_incomplete(lacking: str, status: int) -> None:
    same_day = {"StudyDate": lambda n: "20240101"} if lacking != "StudyDate" else {}
    same_minute = {"StudyTime": lambda n: "101500"} if lacking == "PatientID" else {}
    makes = {**same_day, **same_minute, lacking: lambda n: "" if n % 9 == 1 else f"{_spread(lacking, n)}"}
    walked = Walked(Archive(studies(250 + 37, **makes), limit=100, cut_status=status))
    assert not walked.inventory.is_complete
    assert "cannot be asked for in parts" in walked.warnings[0]


def _spread(keyword: str, n: int) -> str:
    return {"StudyDate": f"2024{1 + n % 12:02}{1 + n % 28:02}", "StudyTime": f"{n % 24:02}{n % 60:02}00",
            "PatientID": f"{'PQRS'[n % 4]}{n}"}[keyword]  # fmt: skip


def test_a_peer_that_cannot_match_numbers_leaves_the_list_incomplete() -> None:
    known: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "NumberOfSeriesRelatedInstances": 120}
    archive = Archive(instances(1, 1, 120), limit=100, cut_status=0xFE00, cannot_match=["InstanceNumber"])
    walked = Walked(archive, Query(level=Level.INSTANCE, keys={}), known)
    assert len(walked.found) == 100
    assert not walked.inventory.is_complete


def test_a_peer_that_ignores_dates_is_given_up_on() -> None:
    def alter(ask: Ask, found: list[Row]) -> list[Row]:
        return studies(100)  # the same hundred, whatever the dates

    walked = Walked(Archive(studies(101), limit=100, cut_status=0xFE00, alter=alter))
    assert len(walked.found) == 100


@pytest.mark.slow
def test_a_hundred_thousand_studies_pass_in_flat_memory(tmp_path: Path) -> None:
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import anyio
from dcmsync.contract import Ending, Level
from dcmsync.plan.levels import Query
from dcmsync.transfer.inventory import Inventory

class Many:
    async def find(self, ask):
        for n in range(100_001):
            yield {{"StudyInstanceUID": f"1.{{n}}", "StudyDate": "20240101", "PatientID": f"P{{n}}"}}
        yield Ending()

async def main():
    count, before = 0, 0
    async for _ in Inventory(Many(), name="PLACE", warn=print).walk(Query(level=Level.STUDY, keys={{}})):
        count += 1
        if count == 1000:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    count, grown_kib = map(int, done.stdout.split())
    assert count == 100_001
    assert grown_kib < 24 << 10  # a mark each, and no answer kept
