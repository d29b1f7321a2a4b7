"""Levels: where an attribute belongs, what the words of a query mean, and what is asked at each level."""

import pytest

from dcmsync.contract import PATIENT_KEYWORDS, WITH_UID, Level
from dcmsync.errors import UsageError
from dcmsync.plan import levels
from dcmsync.plan.levels import Query, check, deepest, keys_at, level_of, read_words, uids, wanted_at


@pytest.mark.parametrize(
    ("keyword", "level"),
    [
        ("PatientName", Level.STUDY),
        ("StudyDate", Level.STUDY),
        ("ModalitiesInStudy", Level.STUDY),
        ("Modality", Level.SERIES),
        ("BodyPartExamined", Level.SERIES),
        ("SOPClassUID", Level.INSTANCE),
        ("Rows", Level.INSTANCE),
        ("NobodyKnowsThis", Level.STUDY),
    ],
)
def test_an_attribute_has_its_level(keyword: str, level: Level) -> None:
    assert level_of(keyword) is level


def test_every_usual_attribute_belongs_to_the_level_at_which_it_is_asked() -> None:
    for level in WITH_UID:
        assert {level_of(keyword) for keyword in levels.DEFAULT_KEYS[level]} == {level}
        assert level.unique_key in levels.DEFAULT_KEYS[level]


def test_what_is_known_of_patients_is_asked_of_studies_too() -> None:
    assert set(levels.PATIENT_KEYS) <= PATIENT_KEYWORDS
    query = Query(level=Level.STUDY, keys={"PatientName": "A*", "StudyDate": "2024"})
    assert levels.keys_at(query, Level.PATIENT) == {"PatientName": "A*"}
    assert levels.keys_at(query, Level.STUDY) == query.keys
    assert "StudyDate" not in levels.wanted_at(query, Level.PATIENT)


def test_a_key_of_a_study_cannot_choose_among_patients() -> None:
    levels.check(["PatientID", "PatientSex", "NumberOfPatientRelatedStudies"], Level.PATIENT)
    with pytest.raises(UsageError, match="StudyDate belongs to study level"):
        levels.check(["StudyDate"], Level.PATIENT)


def test_words_with_a_value_choose_and_bare_ones_ask() -> None:
    assert read_words(["PatientID=P1", "StudyDate=", "Rows", "00101010=x", "PatientName=A=B"]) == (
        {"PatientID": "P1", "00101010": "x", "PatientName": "A=B"},
        ["StudyDate", "Rows"],
    )


@pytest.mark.parametrize("word", ["=x", "Patient Name=x", "0010/0010=x", "*", "1x=2"])
def test_a_word_that_is_no_key_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="is no key"):
        read_words([word])


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="asked for twice"):
        read_words(["PatientID=A", "PatientID=B"])


def test_octets_that_are_no_text_are_refused() -> None:
    with pytest.raises(UsageError, match="no UTF-8"):
        read_words(["PatientName=M\udcfcller"])


def test_the_deepest_attribute_makes_the_level() -> None:
    assert deepest([]) is Level.STUDY
    assert deepest(["PatientID", "Modality"]) is Level.SERIES
    assert deepest(["Rows", "Modality"]) is Level.INSTANCE


def test_a_key_from_below_cannot_choose() -> None:
    check(["Modality", "PatientID"], Level.SERIES)
    with pytest.raises(UsageError, match="belongs to series level") as caught:
        check(["Modality"], Level.STUDY)
    assert "ModalitiesInStudy" in str(caught.value)


def test_keys_are_asked_where_they_belong() -> None:
    query = Query(level=Level.INSTANCE, keys={"PatientID": "P", "Modality": "CT", "Rows": "512"}, wanted=("Columns",))
    assert keys_at(query, Level.STUDY) == {"PatientID": "P"}
    assert keys_at(query, Level.SERIES) == {"Modality": "CT"}
    assert keys_at(query, Level.INSTANCE) == {"Rows": "512"}
    assert wanted_at(query, Level.INSTANCE) == (*levels.INSTANCE_KEYS, "Columns")
    assert "Columns" not in wanted_at(query, Level.SERIES)


def test_the_usual_can_be_left_out_but_for_the_uid() -> None:
    query = Query(level=Level.INSTANCE, keys={}, wanted=("Rows", "SOPInstanceUID"), usual=False)
    assert wanted_at(query, Level.INSTANCE) == ("SOPInstanceUID", "Rows")
    assert wanted_at(query, Level.SERIES) == ("SeriesInstanceUID",)


def test_a_list_of_uids_has_commas_or_backslashes() -> None:
    assert uids("1.2,1.3\\1.4,,") == ["1.2", "1.3", "1.4"]
    assert uids("") == []
