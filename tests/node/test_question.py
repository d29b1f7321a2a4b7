"""Identifiers understood: levels, the hierarchy of unique keys, what is judged and what is looked up."""

import pytest

from dcmsync.node.index import Depth
from dcmsync.node.question import Question, Unanswerable, read
from dcmsync.wire import dataset
from tests.samples import EXPLICIT_LITTLE


def ask(level: str, top: Depth = Depth.STUDY, *, is_retrieval: bool = False, **keys: str) -> Question:
    octets = dataset.encode_identifier(keys, level, EXPLICIT_LITTLE)
    return read(octets, EXPLICIT_LITTLE, top=top, is_retrieval=is_retrieval)


def refusal(level: str, top: Depth = Depth.STUDY, *, is_retrieval: bool = False, **keys: str) -> int:
    with pytest.raises(Unanswerable) as caught:
        ask(level, top, is_retrieval=is_retrieval, **keys)
    return caught.value.code


@pytest.mark.parametrize("level", ["", "FRAME", "study", "PATIENT"])
def test_a_level_that_the_model_lacks_is_refused(level: str) -> None:
    assert refusal(level) == 0xA900


def test_the_patient_level_belongs_to_the_patient_root() -> None:
    assert ask("PATIENT", Depth.PATIENT, PatientName="A*").depth == Depth.PATIENT


@pytest.mark.parametrize("keys", [{}, {"StudyInstanceUID": ""}, {"StudyInstanceUID": "1.2*"},
                                  {"StudyInstanceUID": "1.2\\1.3"}])  # fmt: skip
def test_one_unique_key_is_needed_for_each_level_above(keys: dict[str, str]) -> None:
    assert refusal("SERIES", **keys) == 0xA900


def test_the_patient_root_needs_a_patient_above_a_study() -> None:
    assert refusal("STUDY", Depth.PATIENT, StudyInstanceUID="1.2") == 0xA900


@pytest.mark.parametrize("pattern", ["", "*", "1.2.?"])
def test_a_retrieval_needs_uids_of_its_level(pattern: str) -> None:
    assert refusal("STUDY", is_retrieval=True, StudyInstanceUID=pattern) == 0xA900


def test_a_retrieval_takes_a_list_of_uids() -> None:
    question = ask("STUDY", is_retrieval=True, StudyInstanceUID="1.2\\1.3")
    assert question.uids == {Depth.STUDY: ("1.2", "1.3")}


def test_octets_that_are_no_data_set_are_refused() -> None:
    with pytest.raises(Unanswerable) as caught:
        read(b"\x08\0\x52\0CS\xff\xff", EXPLICIT_LITTLE, top=Depth.STUDY, is_retrieval=False)
    assert caught.value.code == 0xC000


def test_an_empty_key_is_wanted_back_and_not_judged() -> None:
    question = ask("STUDY", PatientName="", StudyDate="2024-")
    assert question.wanted == ("StudyDate", "PatientName") and list(question.judges) == ["StudyDate"]


def test_a_key_nobody_keeps_is_not_judged_and_said_so() -> None:
    question = ask("STUDY", PatientComments="x", Modality="CT", BodyPartExamined="")
    assert not question.judges and not question.knows_all
    assert set(question.unknown) == {"PatientComments", "Modality", "BodyPartExamined"}
    assert ask("STUDY", PatientComments="").knows_all
