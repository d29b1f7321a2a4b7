"""Names below a destination: what the template says, safe everywhere, and never the same for different values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import UsageError
from dcmsync.plan import layout
from dcmsync.plan.layout import DEFAULT, MAX_COMPONENT_OCTETS

HOSTILE = [
    "..", ".", "../x", "/abs", "a\0b", "\n", "\x1b[31m", "A" * 64, "1" * 300, "con", "NUL.txt", "\u202edcm", "%2e%2e",
    "-rf", ".hidden", "dot.", "space ", " space", "a\\b", "a:b", "~root", "\ud800", "e\u0301", "\u00e9", "C:", "lpt1",
]  # fmt: skip
WORDS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=300), st.from_regex(r"[a-b_.1]{1,3}", fullmatch=True))


def name(template: str, **attributes: object) -> str:
    return layout.compile(template).path(attributes)


def is_safe(path: str) -> bool:
    parts = path.split("/")
    return all(
        part not in {"", ".", ".."}
        and part[0] not in ".- "
        and part[-1] not in ". "
        and len(part.encode()) <= MAX_COMPONENT_OCTETS
        and part.isprintable()
        and not set(part) & set('\\:*?"<>|\0')
        and part.split(".")[0].lower() not in {"con", "nul", "aux", "prn", "lpt1"}
        for part in parts
    )


def test_default_is_patient_study_series_instance() -> None:
    compiled = layout.compile(DEFAULT)
    assert compiled.keywords == ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    attributes = {"PatientID": "P 1", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": "1.4"}
    assert compiled.path(attributes) == "P 1/1.2/1.2.3/1.4.dcm"


@pytest.mark.parametrize(
    ("template", "attributes", "expected"),
    [
        ("{SeriesNumber:03}/{InstanceNumber:04d}.dcm", {"SeriesNumber": 7, "InstanceNumber": "12"}, "007/0012.dcm"),
        ("{SeriesNumber:03}", {"SeriesNumber": 1234}, "1234"),
        ("{SeriesNumber:03}", {}, "unknown"),
        ("{PatientID}/x", {"PatientID": ""}, "unknown/x"),
        ("a{{b}}", {}, None),
        ("x_{00101010}", {"00101010": "035Y"}, "x_035Y"),
        ("{PatientName}", {"PatientName": "Müller^Jürgen"}, "Müller^Jürgen"),
        ("{PatientName}", {"PatientName": "山田^太郎"}, "山田^太郎"),
    ],
)
def test_templates(template: str, attributes: dict[str, object], expected: str | None) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            layout.compile(template)
    else:
        assert name(template, **attributes) == expected


@pytest.mark.parametrize(
    "template",
    ["", "/{PatientID}", "{PatientID}/", "a//b", "../{PatientID}", "./a", "{}", "{0}", "{patient}", "{PatientID!r}",
     "{PatientID.real}", "{PatientID[0]}", "{PatientID", "PatientID}", "{SeriesNumber:>5}", "{SeriesNumber:{x}}",
     "con/{PatientID}", "a~b/{PatientID}", ".hidden/{PatientID}", "-x/{PatientID}", "a\0b", "{PatientID}/.",
     "{PatientID}/" + "x" * 300],
)  # fmt: skip
def test_what_is_no_template_says_so(template: str) -> None:
    with pytest.raises(UsageError, match="layout"):
        layout.compile(template)


def test_a_numeric_format_on_text_does_not_raise() -> None:
    names = {
        name("{SeriesNumber:03}", SeriesNumber=value) for value in [1, "01", "001", "x", 1.5, [1, 2], "1" * 5000, -1]
    }
    assert len(names) == 8
    assert all(map(is_safe, names))


def test_a_changed_name_keeps_its_extension_and_says_that_it_was() -> None:
    changed = name("{SOPInstanceUID}.dcm", SOPInstanceUID="../../etc/passwd")
    assert changed.startswith("_._.._etc_passwd~")
    assert changed.endswith(".dcm")


def test_case_twins_of_uids_stay_apart_where_case_does_not_count() -> None:
    first, second = (name("{SOPInstanceUID}", SOPInstanceUID=uid) for uid in ["1.2.a", "1.2.A"])
    assert first.lower() != second.lower()


def test_normal_forms_stay_apart_where_they_do_not_count() -> None:
    assert name("{PatientID}", PatientID="\u00e9") == "\u00e9"
    assert "~" in name("{PatientID}", PatientID="e\u0301")


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_stay_below(value: str) -> None:
    attributes = dict.fromkeys(layout.compile(DEFAULT).keywords, value)
    assert is_safe(name(DEFAULT, **attributes))


@given(WORDS)
def test_every_path_is_safe(value: str) -> None:
    assert is_safe(
        name("{PatientID}/{SOPInstanceUID}/{PatientID}-{SeriesNumber:03}.dcm", PatientID=value, SeriesNumber=value)
    )


@given(WORDS, WORDS)
def test_different_values_have_different_names(first: str, second: str) -> None:
    for template in ["{PatientID}", "{SOPInstanceUID}.dcm", "{PatientID:03}", "x{PatientID}.y"]:
        keyword = layout.compile(template).keywords[0]
        is_same = name(template, **{keyword: first}) == name(template, **{keyword: second})
        assert is_same == ((first or "unknown") == (second or "unknown"))


@given(st.tuples(WORDS, WORDS), st.tuples(WORDS, WORDS))
def test_values_beside_each_other_are_told_apart(first: tuple[str, str], second: tuple[str, str]) -> None:
    for template in [
        "{PatientID}_{StudyID}",
        "{PatientID}{StudyID}",
        "{PatientID}__{StudyID}.dcm",
        "{PatientID}/{StudyID}",
    ]:
        names = [name(template, PatientID=a, StudyID=b) for a, b in (first, second)]
        values = [(a or "unknown", b or "unknown") for a, b in (first, second)]
        assert (names[0] == names[1]) == (values[0] == values[1])


def test_neighbours_that_run_together_are_told_apart() -> None:
    assert name("{A}_{B}", A="a_b", B="c") != name("{A}_{B}", A="a", B="b_c")
    assert name("{A}{B}", A="a", B="bc") != name("{A}{B}", A="ab", B="c")
    assert name("{A}--{B}", A="a-", B="b") != name("{A}--{B}", A="a", B="-b")
