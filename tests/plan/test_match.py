"""DICOM attribute matching, PS3.4 C.2.2.2."""

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.plan.match import comparer, matches, number_of, vr_of


@pytest.mark.parametrize("value, pattern, vr, verdict", [
    # C.2.2.2.1 single value
    ("CT", "CT", "", True),
    ("CT", "ct", "", False),
    ("CT ", "CT", "", True),
    ("CT", " CT ", "", True),
    ("CT", "C", "", False),
    ("a.c", "abc", "", False),
    ("abc", "a.c", "", False),
    # C.2.2.2.2 list of UID
    ("1.2.3", "1.2\\1.2.3", "UI", True),
    ("1.2.4", "1.2\\1.2.3", "UI", False),
    ("1.2.3\0", "1.2.3", "UI", True),
    ("1.2.3", "1.2.3\0", "UI", True),
    ("1.2.3", "1.2.3\\", "UI", True),
    ("1.2.4", "1.2.3\\", "UI", False),
    # C.2.2.2.3 universal
    ("CT", "", "", True),
    (None, "", "", True),
    (None, "*", "", True),
    (None, "**", "", True),
    (None, "CT", "", False),
    ("", "?", "", False),
    ([], "CT", "", False),
    ([], "", "", True),
    # C.2.2.2.4 wildcard
    ("THORAX", "T*X", "", True),
    ("THORAX", "*OR*", "", True),
    ("THORAX", "THORA?", "", True),
    ("THORA", "THORA?", "", False),
    ("THORAX", "t*", "", False),
    ("a[b]", "a[*", "", True),
    ("ab", "a.*", "", False),
    ("a\nb", "a*b", "", True),
    ("1.2.3", "1.2.*", "UI", True),
    # C.2.2.2.5 range
    ("20240131", "20240101-20240131", "DA", True),
    ("20240201", "20240101-20240131", "DA", False),
    ("20240131", "-20240131", "DA", True),
    ("20240201", "-20240131", "DA", False),
    ("20240131", "20240131-", "DA", True),
    ("20240130", "20240131-", "DA", False),
    ("20241231", "2023-2024", "DA", True),
    ("20250101", "2023-2024", "DA", False),
    ("2024.01.31", "20240101-20240131", "DA", True),
    ("20240131", "2024", "DA", True),
    ("20240131", "2024*", "DA", True),
    ("101500", "1000-1100", "TM", True),
    ("110059.5", "1000-1100", "TM", True),
    ("110100", "1000-1100", "TM", False),
    ("10:15:00", "1000-1100", "TM", True),
    ("103000", "1030", "TM", True),
    ("1030", "103000.000", "TM", True),
    ("1030", "103001", "TM", False),
    ("20240131120000", "20240131-20240201", "DT", True),
    ("20240131120000-0500", "20240131-20240201", "DT", True),
    ("20240131120000", "20240131-0500-20240201-0500", "DT", True),
    ("20240131120000", "20240131-0500", "DT", True),
    ("20240201120000", "20240131-0500", "DT", False),
    ("20240601", "2024-2025", "DT", True),
    # a hyphen in other text is no range
    ("10-20", "10-20", "", True),
    ("15", "10-20", "", False),
    # values of several
    (["CT", "SR"], "SR", "", True),
    (["CT", "SR"], "MR", "", False),
    (["CT", "SR"], "*R", "", True),
    ([None, "SR"], "SR", "", True),
    # person names
    ("DOE^JANE", "doe^jane", "PN", True),
    ("DOE^JANE^^^", "DOE^JANE", "PN", True),
    ("DOE^JANE ", "DOE^JANE^^", "PN", True),
    ("DOE^JANE", "DOE", "PN", False),
    ("DOE^JANE", "D*", "PN", True),
    ("DOE", "DOE^*", "PN", True),
    ("DOE^JANE", "*jane", "PN", True),
    ("Yamada^Tarou=山田^太郎", "山田^太郎", "PN", True),
    ("Yamada^Tarou=山田^太郎", "yamada^tarou", "PN", True),
    ("Yamada^Tarou=山田^太郎", "yamada^tarou=山田^太郎", "PN", True),
    ("Yamada^Tarou=山田^太郎", "yamada^tarou=山田", "PN", False),
    # numbers
    (5, "5", "", True),
    (5, "05", "", True),
    (5, "5.0", "", True),
    (1.5, "1.50", "", True),
    ("5", "05", "IS", True),
    ("5", "05", "", False),
    (5, "3-7", "", True),
    (8, "3-7", "", False),
    (8, "3-", "", True),
    (-5, "-5", "", True),
    (3, "-5", "", False),
    (-4, "-5--3", "", True),
    (406, "4*", "", True),
    (5, "CT", "", False),
    (5, "nan", "", False),
    (60, "30-90", "TM", True),
    (True, "true", "", True),
    (True, "1", "", False),
    (False, "false", "", True),
    ({"a": 1}, "a", "", False),
])  # fmt: skip
def test_matching(value: object, pattern: str, vr: str, verdict: bool) -> None:
    assert matches(value, pattern, vr) is verdict


@given(text=st.text("ab", min_size=1, max_size=8), pattern=st.text("ab*?", min_size=1, max_size=6))
def test_wildcards_match_as_a_shell_does(text: str, pattern: str) -> None:
    assert matches(text, pattern) is fnmatch.fnmatchcase(text, pattern)


def test_a_hostile_wildcard_takes_no_time() -> None:
    before = time.process_time()
    assert not matches("a" * 5_000, "*a" * 20 + "*b")
    assert time.process_time() - before < 1


@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.text())),
       st.text(), st.sampled_from(["", "PN", "DA", "TM", "DT", "UI", "IS"]))
def test_anything_gets_a_verdict(value: object, pattern: str, vr: str) -> None:
    assert matches(value, pattern, vr) in (True, False)


@given(st.dates(), st.dates(), st.dates())
def test_a_range_of_dates_is_between_its_ends(day: object, low: object, high: object) -> None:
    day_, low_, high_ = (str(date).replace("-", "") for date in (day, low, high))
    assert matches(day_, f"{low_}-{high_}", "DA") is (low_ <= day_ <= high_)


@pytest.mark.parametrize("value, operator, operand, vr, verdict", [
    (5, "<", "10", "", True),
    (10, "<", "10", "", False),
    (10, "<=", "10", "", True),
    (10, ">", "9.5", "", True),
    ("9", "<", "10", "", True),
    ("060Y", "<", "070Y", "", True),
    ("M", ">=", "M", "", True),
    (5, "<", "M", "", False),
    (None, "<", "10", "", False),
    ("", "<", "10", "", False),
    ([1, 20], ">", "10", "", True),
    ("20240131", "<", "2024", "DA", False),
    ("20231231", "<", "2024", "DA", True),
    ("20241231", ">", "2024", "DA", False),
    ("20250101", ">", "2024", "DA", True),
    ("20240131", ">=", "20240131", "DA", True),
    (30, "<", "100", "TM", True),
    ("100000", "<", "11", "TM", True),
])  # fmt: skip
def test_comparing(value: object, operator: str, operand: str, vr: str, verdict: bool) -> None:
    assert comparer(operator, operand, vr)(value) is verdict


@pytest.mark.parametrize("keyword, vr", [
    ("StudyInstanceUID", "UI"), ("SOPClassesInStudy", "UI"), ("PatientName", "PN"), ("ReferringPhysicianName", "PN"),
    ("StationName", ""), ("StudyDate", "DA"), ("StudyTime", "TM"), ("AcquisitionDateTime", "DT"), ("Modality", ""),
])  # fmt: skip
def test_what_a_keyword_tells(keyword: str, vr: str) -> None:
    assert vr_of(keyword) == vr


def test_what_is_a_number() -> None:
    assert number_of("-1.5e3 ") == -1500
    assert number_of("9" * 39) == int("9" * 39)
    assert [number_of(text) for text in ("", "1_0", "inf", "nan", "0x1", True, None)] == [None] * 7
