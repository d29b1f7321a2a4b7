"""Choosing by age, size, chance that repeats, and rank."""

from collections import Counter
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import UsageError
from dcmsync.plan import select
from dcmsync.plan.select import Condition, Ranking

NOW = datetime(2024, 1, 31, 12, 0, 0)
Record = dict[str, object]


def meets(condition: Condition, record: Record) -> bool:
    return condition.bind(lambda key: lambda record: record.get(key))(record)


def rank(ranking: Ranking[int], records: list[Record]) -> list[int]:
    for index, record in enumerate(records):
        ranking.offer([record.get(key) for key in ranking.keys], index)
    return ranking.chosen()


def series(count: int | None, *, study: str = "1", patient: str | None = "P", **more: object) -> Record:
    record: Record = {"type": "series", "StudyInstanceUID": study, "PatientID": patient, **more}
    return record if count is None else {**record, "NumberOfSeriesRelatedInstances": count}


@pytest.mark.parametrize("record, verdict, unknown", [
    (series(10), True, 0),
    (series(11), False, 0),
    (series(0), True, 0),
    (series(None), False, 1),
    ({"type": "study", "NumberOfStudyRelatedInstances": 10}, True, 0),
    ({"type": "study", "NumberOfSeriesRelatedInstances": 10}, False, 1),
    (series(None, NumberOfStudyRelatedInstances=5), False, 1),
    ({"type": "outcome", "level": "series", "instances": 11}, False, 0),
])  # fmt: skip
def test_an_unknown_count_is_never_at_most_anything(record: Record, verdict: bool, unknown: int) -> None:
    condition = select.at_most_images(10)
    assert meets(condition, record) is verdict
    assert condition.unknown == unknown


def test_what_was_left_out_for_lack_of_knowledge_is_said() -> None:
    condition = select.at_most_images(10)
    meets(condition, series(None))
    assert select.warnings([condition, select.at_most_images(5)]) == [
        "left out by --max-images 10 for want of a known number of instances: 1"]


@pytest.mark.parametrize("text, digits", [
    ("12h", "20240131000000"), ("2d", "20240129120000"), ("30m", "20240131113000"), ("1w", "20240124120000"),
    ("20240131", "20240131"), ("2024", "2024"), ("2024-01-31", "20240131"), ("2024-01-31T12:30", "202401311230"),
])  # fmt: skip
def test_moments(text: str, digits: str) -> None:
    assert select.moment(text, NOW) == digits


@pytest.mark.parametrize("text", ["", "yesterday", "h", "-1d", "1y", "202", "20240", "999999w", "2024013112300099"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        select.moment(text, NOW)


@pytest.mark.parametrize("date, time, since, until", [
    ("20240131", "115959", False, True),
    ("20240131", "120000", True, True),
    ("20240131", "120001", True, False),
    ("20240131", "12", True, True),
    ("20240131", None, True, True),
    ("2024.01.31", "11:00:00", False, True),
    ("20240131", "120000.999", True, True),
    ("20240130", "235959", False, True),
    ("20240201", None, True, False),
    (["20240131", "20240201"], ["13"], True, False),
    (None, "120000", False, False),
    ("", None, False, False),
])  # fmt: skip
def test_since_and_until_meet_at_the_moment(date: object, time: object, since: bool, until: bool) -> None:
    record: Record = {"StudyDate": date, "StudyTime": time}
    assert meets(select.since("2024-01-31T12:00:00", NOW), record) is since
    assert meets(select.until("20240131120000", NOW), record) is until


def test_until_a_day_is_up_to_its_end() -> None:
    assert meets(select.until("20240131", NOW), {"StudyDate": "20240131", "StudyTime": "235959"})


def test_the_hash_is_what_the_manual_says() -> None:
    assert select.uid_hash("1.2.3") == 0x1F0ADB19A75AEDD1  # b2sum says so
    assert select.uid_hash("1.2.3\0") == select.uid_hash("1.2.3 ") == select.uid_hash("1.2.3")
    assert [select.uid_hash(value) for value in ("", None, 5, " \0")] == [None] * 4


@given(uid=st.text("0123456789.", min_size=1), parts=st.integers(1, 20))
def test_every_study_is_in_exactly_one_shard(uid: str, parts: int) -> None:
    record: Record = {"StudyInstanceUID": uid}
    assert sum(meets(select.shard(f"{part}/{parts}"), record) for part in range(1, parts + 1)) == 1


def test_shards_are_of_like_size() -> None:
    shards = [select.shard(f"{part}/4") for part in range(1, 5)]
    counts = Counter(part for number in range(4000) for part, shard in enumerate(shards)
                     if meets(shard, {"StudyInstanceUID": f"1.2.840.{number}"}))
    assert min(counts.values()) > 850


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/4", "1.5/4"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="K/N"):
        select.shard(text)


@pytest.mark.parametrize("text", ["0", "", "0%", "101%", "x%", "-5", "1e3", "%"])
def test_what_is_no_sample_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sample"):
        select.sample(text)


def test_a_percentage_is_about_that_many_and_grows_with_it() -> None:
    records: list[Record] = [{"StudyInstanceUID": "1", "SeriesInstanceUID": f"1.{number}"} for number in range(4000)]

    def chosen(text: str) -> set[int]:
        condition = select.sample(text)
        assert isinstance(condition, Condition)
        return {number for number, record in enumerate(records) if meets(condition, record)}

    assert 320 < len(chosen("10%")) < 480
    assert chosen("10%") < chosen("20%")
    assert len(chosen("100%")) == 4000


@given(numbers=st.lists(st.integers(0, 1000), unique=True, max_size=30), seed=st.randoms())
def test_a_sample_does_not_depend_on_the_order_of_the_input(numbers: list[int], seed: object) -> None:
    shuffled = sorted(numbers, key=str)
    choices = []
    for order in (numbers, shuffled):
        ranking = select.sample("5")
        assert isinstance(ranking, Ranking)
        choices.append({order[index] for index in rank(ranking, [{"SOPInstanceUID": f"1.{n}"} for n in order])})
    assert choices[0] == choices[1]
    assert len(choices[0]) == min(5, len(numbers))


@given(counts=st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=12), number=st.integers(1, 4),
       how=st.sampled_from(["smallest", "largest"]))
def test_a_ranking_is_the_first_of_a_stable_sort(counts: list[int | None], number: int,
                                                 how: select.How) -> None:
    ranking: Ranking[int] = Ranking(how, number)
    known = [index for index, count in enumerate(counts) if count is not None]
    best = sorted(known, key=lambda index: (counts[index] or 0) * (1 if how == "smallest" else -1))[:number]
    assert rank(ranking, [series(count) for count in counts]) == sorted(best)
    assert ranking.unknown == len(counts) - len(known)


def test_an_unknown_count_is_never_the_smallest_nor_the_largest() -> None:
    for how in ("smallest", "largest"):
        assert rank(Ranking(how, 1), [series(None), series(5)]) == [1]


def test_ranking_is_per_patient_or_study() -> None:
    records = [series(5, study="1"), series(3, study="1"), series(9, study="2"), series(1, study="3", patient="Q")]
    assert rank(Ranking("smallest", 1, "study"), records) == [1, 2, 3]
    assert rank(Ranking("smallest", 1, "patient"), records) == [1, 3]
    assert rank(Ranking("smallest", 1), records) == [3]


def test_patients_without_an_id_are_not_one_patient() -> None:
    records = [series(5, patient=None), series(3, study="2", patient=" "), series(1, study="2", patient=None)]
    assert rank(Ranking("smallest", 1, "patient"), records) == [0, 2]


def test_a_patient_with_two_ids_goes_by_the_first() -> None:
    records = [series(5, patient="P"), series(3, study="2", PatientID=["P", "Q"]), series(4, study="3", PatientID=[])]
    assert rank(Ranking("smallest", 1, "patient"), records) == [1, 2]


def test_newest_goes_by_date_then_time_and_by_the_series_where_it_tells() -> None:
    day = {"StudyDate": "20240131"}
    records = [{**day, "StudyTime": "0900"}, {**day, "StudyTime": "10"}, day, {"StudyTime": "12"}]
    assert rank(Ranking("newest", 1), list(records)) == [1]
    assert rank(Ranking("newest", 1), [*records, {**day, "SeriesDate": "20240201"}]) == [4]


def test_no_more_is_held_than_may_be_chosen() -> None:
    ranking: Ranking[int] = Ranking("largest", 2)
    out = [ranking.offer([series(index).get(key) for key in ranking.keys], index) for index in range(100)]
    assert out == [None, None, *range(98)]


NOTHING: Record = dict.fromkeys(
    ("max_images", "since", "until", "shard", "sample", "smallest", "largest", "newest", "per"))


def choices(**asked: object) -> tuple[list[str], str | None]:
    conditions, ranking = select.choices({**NOTHING, **asked}, lambda: NOW)
    return [condition.words for condition in conditions], ranking.words if ranking else None


def test_options_become_choices() -> None:
    assert choices() == ([], None)
    assert choices(max_images=5, since="12h", until="2024", shard="1/2", sample="5%", newest=1, per="patient") == (
        ["--max-images 5", "--since 12h", "--until 2024", "--shard 1/2", "--sample 5%"], "--newest 1 --per patient")
    assert choices(sample="7") == ([], "--sample 7")


def test_two_rankings_cannot_be_had_at_once() -> None:
    with pytest.raises(UsageError, match="--smallest 1 and --sample 7 cannot be had at once"):
        choices(smallest=1, sample="7")


def test_per_needs_a_ranking() -> None:
    with pytest.raises(UsageError, match="--per goes with"):
        choices(per="study", sample="7")


def test_the_clock_is_asked_only_when_it_matters() -> None:
    select.choices({**NOTHING, "shard": "1/2"}, lambda: pytest.fail("asked"))
