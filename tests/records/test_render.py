"""Records as people see them."""

import csv

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from dcmsync.records import render

STUDY = {
    "type": "study", "source": "pacs", "StudyInstanceUID": "1.2", "PatientID": "P1", "PatientName": "Bird^Canary",
    "StudyDate": "20240131", "StudyTime": "101500", "StudyDescription": "Head", "NumberOfStudyRelatedSeries": 2,
    "NumberOfStudyRelatedInstances": 30,
}  # fmt: skip


def series(number: int | None = 1, **more: object) -> dict[str, object]:
    record = {
        "type": "series", "source": "pacs", "StudyInstanceUID": "1.2", "PatientID": "P1", "PatientName": "Bird^Canary",
        "StudyDate": "20240131", "StudyTime": "101500", "StudyDescription": "Head",
        "SeriesInstanceUID": f"1.2.{number or 0}", "Modality": "CT", "SeriesNumber": number,
        "SeriesDescription": f"Axial {number}", "NumberOfSeriesRelatedInstances": 10, **more,
    }  # fmt: skip
    return {key: value for key, value in record.items() if value is not None}


def instance(number: int, **more: object) -> dict[str, object]:
    return {**series(1), "type": "instance", "SOPInstanceUID": f"1.2.1.{number}", "InstanceNumber": number, **more}


# UIDs


@pytest.mark.parametrize("record, expected", [
    (STUDY, "1.2"), (series(3), "1.2.3"), (instance(4), "1.2.1.4"), ({"type": "end"}, ""),
    ({"StudyInstanceUID": "1.2", "SeriesInstanceUID": ""}, "1.2"),
])  # fmt: skip
def test_the_uid_is_the_deepest(record: dict[str, object], expected: str) -> None:
    assert render.uid(record) == expected


# CSV


def test_csv_quotes_what_needs_it_and_joins_several_values() -> None:
    assert render.csv_line(["a", 'b "c"', "d,e", ["CT", "MR"], 3, 1.5, ""]) == 'a,"b ""c""","d,e",CT\\MR,3,1.5,'


@pytest.mark.parametrize("char", ["\n", "\r", "\t", "\0", "\x1b", "\x9b"])
def test_a_record_is_one_line_of_csv_whatever_is_in_it(char: str) -> None:
    assert render.csv_line([f"a{char}b", "c"]) == f"a\\x{ord(char):02x}b,c"
    assert render.uid({"StudyInstanceUID": f"1.2{char}3"}) == f"1.2\\x{ord(char):02x}3"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.lists(some.text(alphabet=some.characters(exclude_categories=["C", "Z"])), min_size=2, max_size=5))
def test_csv_reads_back(values: list[str]) -> None:
    assert next(csv.reader([render.csv_line(values)], strict=True)) == values


def test_the_columns_are_the_keys_of_the_first_record() -> None:
    assert render.columns(STUDY) == list(STUDY)


# Table


def test_a_table_is_aligned_and_its_keys_stand_on_top() -> None:
    lines = list(render.table([{"type": "x", "a": "1", "bb": [1, 2]}, {"type": "x", "a": "long", "c": 0.5}]))
    assert lines == ["a     bb   c", "1     1\\2", "long       0.5"]


def test_a_table_of_nothing_is_a_line_of_nothing() -> None:
    assert list(render.table([])) == [""]


def test_columns_that_are_empty_throughout_are_left_out() -> None:
    assert list(render.table([{"a": "1", "b": ""}, {"a": "2", "b": []}])) == ["a", "1", "2"]


def test_wide_and_combining_characters_keep_a_table_aligned() -> None:
    lines = list(render.table([{"name": "山田^太郎", "id": "1"}, {"name": "Yamada^Ta", "id": "2"}]))
    assert lines == ["name       id", "山田^太郎  1", "Yamada^Ta  2"]


# Tree


def test_a_tree_of_studies_counts_what_they_claim() -> None:
    assert list(render.tree([STUDY])) == [
        "1 patient | 1 study | 2 series | 30 instances",
        "└── ID: P1 | Name: Bird^Canary | 1 study | 2 series | 30 instances",
        "    └── Date: 20240131 | Time: 101500 | Head | 2 series | 30 instances",
    ]


def test_a_tree_of_series_is_sorted_by_number_and_sums_them() -> None:
    assert list(render.tree([series(None), series(10), series(2)])) == [
        "1 patient | 1 study | 3 series | 30 instances",
        "└── ID: P1 | Name: Bird^Canary | 1 study | 3 series | 30 instances",
        "    └── Date: 20240131 | Time: 101500 | Head | 3 series | 30 instances",
        "        ├── 002 | Axial 2 | CT | 10 instances",
        "        ├── 010 | Axial 10 | CT | 10 instances",
        "        └── NA | Axial None | CT | 10 instances",
    ]


def test_a_tree_of_instances_counts_them_where_nobody_claims() -> None:
    bare = [
        {key: value for key, value in instance(number).items() if not key.startswith("NumberOf")} for number in (2, 1)
    ]
    lines = list(render.tree(bare))
    assert lines[0] == "1 patient | 1 study | 1 series | 2 instances"
    assert lines[-2:] == ["            ├── 00001 | 1.2.1.1", "            └── 00002 | 1.2.1.2"]


def test_an_unknown_count_is_not_shown_and_is_never_zero() -> None:
    unknown = {key: value for key, value in STUDY.items() if not key.startswith("NumberOf")}
    other = {**STUDY, "StudyInstanceUID": "1.3"}
    assert list(render.tree([unknown, other]))[:2] == [
        "1 patient | 2 studies",
        "└── ID: P1 | Name: Bird^Canary | 2 studies",
    ]


def test_branches_have_their_bars() -> None:
    second = {**STUDY, "StudyInstanceUID": "1.3", "StudyDate": "20240201", "PatientID": "P0"}
    assert [line[:3] for line in render.tree([STUDY, second, series(1), series(2)])] == [
        "2 p", "├──", "│  ", "└──", "   ", "   ", "   ",
    ]  # fmt: skip


def test_what_is_not_there_is_called_so() -> None:
    lines = list(render.tree([{"type": "study", "StudyInstanceUID": "1"}]))
    assert lines[1:] == ["└── ID: NA | Name: NA | 1 study", "    └── Date: NA | Time: NA | NA"]


def test_other_records_are_no_part_of_a_tree() -> None:
    (line,) = render.tree([{"type": "end"}, {"type": "weather", "PatientID": "P"}])
    assert line.startswith("0 patients | 0 studies")


@pytest.mark.parametrize("evil", ["a\x1b[2Jb", "a\nb", "a\rb", "a\x07b", "a\x9bb", "a\u202eb", "a\u2028b"])
def test_no_value_reaches_a_terminal_as_a_command(evil: str) -> None:
    for lines in (
        render.tree([{**STUDY, "PatientID": evil, "PatientName": evil, "StudyDescription": evil}]),
        render.table([{**STUDY, "PatientID": evil, "PatientName": [evil, evil]}]),
    ):
        for line in lines:
            assert line.isprintable(), line


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.lists(some.dictionaries(
    some.sampled_from(["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber",
                       "InstanceNumber", "StudyDate", "NumberOfStudyRelatedSeries", "NumberOfSeriesRelatedInstances"]),
    some.text(max_size=3) | some.integers(0, 9) | some.lists(some.text(max_size=2), max_size=2),
), max_size=6), some.sampled_from(["study", "series", "instance"]))  # fmt: skip
def test_whatever_servers_say_can_be_shown(records: list[dict[str, object]], kind: str) -> None:
    typed = [{"type": kind, **record} for record in records]
    for lines in (list(render.tree(typed)), list(render.table(typed))):
        assert all(line.isprintable() for line in lines)


# Changes


def test_a_tree_of_changes_has_a_symbol_on_each_line() -> None:
    def line(start: str) -> str:
        return next(line for line in lines if start in line)

    lines = list(render.tree([
        {**STUDY, "change": "missing"},
        {**series(1), "StudyInstanceUID": "1.3", "StudyDate": "20240201", "change": "same"},
        {**instance(7), "StudyInstanceUID": "1.3", "SeriesInstanceUID": "1.3.2", "StudyDate": "20240201",
         "SeriesDescription": "Coronal", "change": "extra"},
        {**STUDY, "PatientID": "P2", "StudyInstanceUID": "1.4", "StudyDate": "20240202", "change": "same"},
    ]))  # fmt: skip
    assert {text[:2] for text in lines[1:]} == {"+ ", "= ", "- ", "! "}
    assert line("20240131").startswith("+") and line("20240201").startswith("!")
    assert line("Axial 1").startswith("=") and line("Coronal").startswith("!") and line("00007").startswith("-")
    assert line("ID: P1").startswith("!") and line("ID: P2").startswith("=")


def test_a_tree_without_changes_has_no_symbols() -> None:
    assert [line[0] for line in render.tree([STUDY])] == ["1", "└", " "]
