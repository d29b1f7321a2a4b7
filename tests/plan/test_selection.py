"""Which words mean which elements."""

import tracemalloc

import pytest

from dcmsync.errors import UsageError
from dcmsync.plan import selection as module
from dcmsync.plan.selection import Selection

KEYWORDS = {0x00100010: "PatientName", 0x00100020: "PatientID", 0x00080060: "Modality", 0x00091001: "",
            0x60023000: "OverlayData", 0x00090010: ""}


def tag_of(keyword: str) -> int:
    raise UsageError(f"{keyword!r} is no DICOM keyword")


def selection(include: list[str], exclude: list[str] = []) -> Selection:  # noqa: B006
    return Selection(include, exclude, keywords=KEYWORDS.values, keyword_of=lambda tag: KEYWORDS[tag], tag_of=tag_of)


@pytest.mark.parametrize("words, wanted", [
    (["PatientName"], [0x00100010]),
    (["00100010"], [0x00100010]),
    (["0010,0010"], [0x00100010]),
    (["(0010,0010)"], [0x00100010]),
    (["(0010,0010),0008,0060,PatientID"], [0x00100010, 0x00080060, 0x00100020]),
    (["0010"], [0x00100010, 0x00100020]),
    (["0010", "0008"], [0x00100010, 0x00100020, 0x00080060]),
    (["60xx"], [0x60023000]),
    (["60xx3000"], [0x60023000]),
    (["60XX,3000"], [0x60023000]),
    (["Patient*"], [0x00100010, 0x00100020]),
    (["Patient?D"], [0x00100020]),
    (["private"], [0x00091001, 0x00090010]),
    (["Modality, PatientID"], [0x00080060, 0x00100020]),
    (["*"], [0x00100010, 0x00100020, 0x00080060, 0x60023000]),
])  # fmt: skip
def test_what_words_include(words: list[str], wanted: list[int]) -> None:
    judge = selection(words).judge
    assert {tag for tag in KEYWORDS if judge(tag)} == set(wanted)
    assert {judge(tag) for tag in set(KEYWORDS) - set(wanted)} <= {None}


def test_an_exclude_wins_over_an_include() -> None:
    chosen = selection(["Patient*"], ["PatientName,private"])
    assert [chosen.judge(tag) for tag in (0x00100010, 0x00100020, 0x00091001, 0x00080060)] == [False, True, False, None]


def test_without_an_include_all_is_wanted() -> None:
    assert selection([], ["private"]).judge(0x00080060) is True
    assert selection([]).is_everything and not selection([], ["private"]).is_everything


@pytest.mark.parametrize("word", ["PatintName", "Patint*", "patient*", "001", "Private"])
def test_a_word_that_means_nothing_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        selection([], [word])


def test_memory_is_bounded_however_many_tags_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_KNOWN", 100)
    chosen = Selection(["private"], [], keywords=list, keyword_of=lambda tag: "", tag_of=tag_of)
    tracemalloc.start()
    for tag in range(0x00110000, 0x00110000 + 5000):
        chosen.judge(tag)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
