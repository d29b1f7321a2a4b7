"""Asking in parts: the parts are the whole, none of it twice, nothing besides it, and there is an end to it."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dcmsync.contract import Level
from dcmsync.plan.match import matches, vr_of
from dcmsync.plan.split import Spread, is_suspicious, parts

days = some.dates(date(1840, 1, 1), date(2040, 1, 1)).map(lambda day: f"{day:%Y%m%d}")
times = some.times().map(lambda time: f"{time:%H%M%S}")
studies = some.lists(
    some.fixed_dictionaries({
        "StudyDate": days, "StudyTime": times, "PatientID": some.sampled_from(["A1", "b2", "_3"]),
    }),
    max_size=20,
)


def spread_of(answers: list[dict[str, str]]) -> Spread:
    spread = Spread()
    for answer in answers:
        spread.add(answer)
    return spread


def takes(keys: dict[str, str], answer: dict[str, str]) -> bool:
    return all(matches(answer.get(key), value, vr_of(key)) for key, value in keys.items())


@pytest.mark.parametrize("count", [100, 200, 250, 500, 1000, 2000, 5000, 10_000, 100_000])
def test_round_numbers_are_suspicious(count: int) -> None:
    assert is_suspicious(count)


@pytest.mark.parametrize("count", [0, 1, 50, 99, 101, 110, 150, 300, 499, 1001, 1500, 3000, 10_100])
def test_other_numbers_are_not(count: int) -> None:
    assert not is_suspicious(count)


@given(answers=studies, others=studies, asked=some.one_of(some.just(""), days, some.tuples(days, days).map("-".join)))
def test_every_study_is_in_one_part_and_no_stranger_in_any(
    answers: list[dict[str, str]], others: list[dict[str, str]], asked: str
) -> None:
    keys = {"StudyDate": asked}
    cut = parts(Level.STUDY, keys, spread_of(answers))
    for study in (*answers, *others):
        if cut:
            assert sum(takes(part, study) for part in cut) == takes(keys, study)


@given(answers=studies, begin=times, end=times)
def test_parts_of_a_day_stay_within_the_time_that_was_asked(
    answers: list[dict[str, str]], begin: str, end: str
) -> None:
    answers = [{**answer, "StudyDate": "20240101"} for answer in answers]
    for asked in ("", f"{begin}-{end}"):
        keys = {"StudyDate": "20240101", "StudyTime": asked}
        cut = parts(Level.STUDY, keys, spread_of(answers))
        if cut and "StudyTime" in cut[0] and cut[0]["StudyTime"] != asked:
            for study in answers:
                assert sum(takes(part, study) for part in cut) == takes(keys, study)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(answers=studies)
def test_splitting_ends_even_if_every_list_is_cut(answers: list[dict[str, str]]) -> None:
    """A peer that cuts whatever has more than one answer: all are found, but for those that differ in nothing."""
    waiting, found, asks = [{"StudyDate": ""}], set(), 0
    while waiting:
        keys = waiting.pop()
        asks += 1
        assert asks < 20_000
        matching = [answer for answer in answers if takes(keys, answer)]
        found |= {kind_of(answer) for answer in matching[:1]}
        if len(matching) > 1:
            waiting += parts(Level.STUDY, keys, spread_of(matching[:1]))
    assert found == {kind_of(answer) for answer in answers}


def kind_of(answer: dict[str, str]) -> tuple[str, str, str]:
    return answer["StudyDate"], answer["StudyTime"][:4], answer["PatientID"][0]


def test_the_first_cut_is_where_half_of_the_answers_are() -> None:
    answers = [{"StudyDate": f"2024{month:02}01"} for month in range(1, 12)]
    assert parts(Level.STUDY, {}, spread_of(answers)) == [
        {"StudyDate": "-20240531"},
        {"StudyDate": "20240601"},
        {"StudyDate": "20240602-"},
    ]


def test_dates_before_all_dates_belong_to_the_first_day() -> None:
    cut = parts(Level.STUDY, {"StudyDate": "-18500102"}, Spread())
    assert [part["StudyDate"] for part in cut] == ["-18500101", "18500102"]
    assert parts(Level.STUDY, {"StudyDate": "-18500101", "StudyTime": "10-10", "PatientID": "A"}, Spread()) == []


@pytest.mark.parametrize("asked", ["20240101\\20240202", "2024*", "nonsense", "20249999-"])
def test_a_date_that_is_no_range_is_left_as_it_is(asked: str) -> None:
    cut = parts(Level.STUDY, {"StudyDate": asked}, Spread())
    assert {part["StudyDate"] for part in cut} == {asked}
    assert "StudyTime" in cut[0]


def test_within_a_minute_it_is_the_patients_initial() -> None:
    keys = {"StudyDate": "20240101", "StudyTime": "101500-101559"}
    cut = parts(Level.STUDY, keys, spread_of([{"PatientID": "Ärger"}, {"PatientID": "*"}, {"PatientID": " x"}]))
    asked = [part["PatientID"] for part in cut]
    assert {"0*", "A*", "z*", "Ä*"} <= set(asked)
    assert len(asked) == len(set(asked))
    assert not {"**", "?*", "\\*", " *"} & set(asked), "would match everything"


def test_what_names_a_patient_is_cut_no_further() -> None:
    keys = {"StudyDate": "20240101", "StudyTime": "101500-101559", "PatientID": "A*"}
    assert parts(Level.STUDY, keys, Spread()) == []


@pytest.mark.parametrize(("level", "keyword"), [(Level.SERIES, "SeriesNumber"), (Level.INSTANCE, "InstanceNumber")])
def test_below_studies_every_number_up_to_the_claim_is_asked(level: Level, keyword: str) -> None:
    spread = Spread()
    spread.add({keyword: 5})
    asked = {part[keyword] for part in parts(level, {"StudyInstanceUID": "1.2"}, spread, 20)}
    assert {str(number) for number in range(6, 21)} <= asked
    assert not any(set(number) & set("*?-") for number in asked), "numbers match neither wildcards nor ranges"
    assert len(parts(level, {}, spread, 10**9)) <= 10_001
    assert parts(level, {keyword: "5"}, spread, 20) == []


def test_a_spread_is_of_what_can_be_used() -> None:
    spread = spread_of([{"StudyDate": "20240101", "StudyTime": "10", "PatientID": "A"}, {"StudyDate": "1.1.2024"}])
    spread.add({"StudyDate": None, "StudyTime": 7, "PatientID": ["A", "B"], "SeriesNumber": "x"})
    assert spread.count == 3
    assert (dict(spread.dates), dict(spread.minutes), spread.initials) == ({"20240101": 1}, {600: 1}, {"A"})


def test_parts_of_the_whole_reach_into_the_future() -> None:
    tomorrow = date.max - timedelta(days=1)
    assert any(takes(part, {"StudyDate": f"{tomorrow:%Y%m%d}"}) for part in parts(Level.STUDY, {}, Spread()))
