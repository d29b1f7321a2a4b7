"""Query strings understood: keys, fields, paging, and what is refused in words."""

from urllib.parse import quote

import pytest

from dcmsync.node.index import Depth
from dcmsync.node.web.asking import NOT_FUZZY, Search, parameters, search
from dcmsync.node.web.refusing import Refusal


def asked(query: str, depth: Depth = Depth.STUDY, **above: str) -> Search:
    uids = {Depth[name.upper()]: uid for name, uid in above.items()}
    return search(parameters(query), depth, uids)


def refusal(query: str, depth: Depth = Depth.STUDY, **above: str) -> str:
    with pytest.raises(Refusal) as caught:
        asked(query, depth, **above)
    assert caught.value.status == 400
    return caught.value.words


def judged(found: Search, keyword: str, value: object) -> bool:
    return found.question.judges[keyword](value)


@pytest.mark.parametrize("name", ["PatientName", "00100010"])
def test_a_key_is_a_keyword_or_a_tag(name: str) -> None:
    assert judged(asked(f"{name}=Doe*"), "PatientName", "Doe^Jane")


@pytest.mark.parametrize("text", ["Müller^Jörg", "Doe^Jane Ann", "a&b=c", "50%", "A+B"])
def test_values_are_decoded_once(text: str) -> None:
    found = asked(f"StudyDescription={quote(text)}")
    assert judged(found, "StudyDescription", text) and not judged(found, "StudyDescription", f"{text}x")


def test_a_plus_is_a_blank_as_forms_write_it() -> None:
    assert judged(asked("StudyDescription=a+b"), "StudyDescription", "a b")


def test_commas_stand_between_uids_and_between_codes() -> None:
    assert asked("StudyInstanceUID=1.2,1.3%2C1.4").question.uids[Depth.STUDY] == ("1.2", "1.3", "1.4")
    found = asked("ModalitiesInStudy=CT,MR")
    assert judged(found, "ModalitiesInStudy", ["SR", "MR"]) and not judged(found, "ModalitiesInStudy", ["SR"])


def test_a_comma_in_other_text_is_a_comma() -> None:
    found = asked("StudyDescription=Head, neck")
    assert judged(found, "StudyDescription", "Head, neck") and not judged(found, "StudyDescription", "neck")


def test_no_level_above_needs_to_be_named() -> None:
    assert asked("Modality=CT", Depth.SERIES).question.uids == {}
    assert "PatientName" in asked("Modality=CT", Depth.SERIES).columns


def test_what_the_path_names_is_given_back_as_a_uid_alone() -> None:
    found = asked("", Depth.SERIES, study="1.2")
    assert found.question.uids == {Depth.STUDY: ("1.2",)}
    assert "StudyInstanceUID" in found.columns and "PatientName" not in found.columns


def test_fields_are_wanted_one_by_one_in_lists_or_all() -> None:
    found = asked("includefield=PatientAge&includefield=00101020,PatientWeight&includefield=KVP&includefield=00091001")
    assert {"PatientAge", "PatientSize", "PatientWeight"} <= found.optional
    assert not {"KVP", "00091001"} & set(found.columns)
    assert "PatientAge" in asked("includefield=all").columns and "Modality" not in asked("includefield=all").columns


def test_a_key_without_a_value_asks_for_it_back() -> None:
    found = asked("PatientAge=&StudyDate=")
    assert "PatientAge" in found.columns and not found.question.judges and not found.warnings


def test_what_is_not_kept_is_not_matched_and_that_is_said() -> None:
    found = asked("KVP=120&Modality=CT&RequestAttributesSequence.ScheduledProcedureStepID=7&PatientID=A")
    assert set(found.question.judges) == {"PatientID"}
    (warning,) = found.warnings
    assert "KVP, Modality, RequestAttributesSequence.ScheduledProcedureStepID" in warning and "PatientID" not in warning


def test_fuzzy_matching_is_literal_with_a_warning() -> None:
    assert asked("fuzzymatching=true").warnings == (NOT_FUZZY,)
    assert asked("fuzzymatching=false").warnings == ()


def test_pages_have_an_offset_and_a_limit() -> None:
    assert (asked("").offset, asked("").limit) == (0, None)
    found = asked("offset=20&limit=10")
    assert (found.offset, found.limit) == (20, 10)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("PatientNmae=A", "'PatientNmae' is no parameter and no DICOM keyword. Did you mean PatientName?"),
        ("0010001=A", "'0010001' is no parameter"),
        ("a b=1", "'a b' is no parameter"),
        ("%00=1", r"'\x00' is no parameter"),
        ("=1", "'' is no parameter"),
        ("A.B=1", "'A.B' is no parameter"),
        ("includefield=Nope", "'Nope' is no parameter"),
        ("limit=-1", "limit is no number"),
        ("limit=", "limit is no number"),
        ("limit=1&limit=2", "limit is given twice"),
        ("offset=1e3", "offset is no number"),
        ("offset=" + "9" * 5000, "offset is no number"),
        ("fuzzymatching=yes", "fuzzymatching is neither true nor false"),
        ("PatientID=A&00100020=B", "00100020 is given twice"),
        ("PatientName=%FF", "the query is no UTF-8"),
        ("&".join(f"PatientID={n}" for n in range(300)), "the query has more than 256 parameters"),
    ],
)
def test_bad_queries_are_refused_in_words(query: str, words: str) -> None:
    assert refusal(query).startswith(words)


def test_a_key_cannot_contradict_the_path() -> None:
    assert refusal("StudyInstanceUID=1.3", Depth.SERIES, study="1.2") == "StudyInstanceUID is not that of the path"
    assert asked("StudyInstanceUID=1.2", Depth.SERIES, study="1.2").question.uids == {Depth.STUDY: ("1.2",)}
