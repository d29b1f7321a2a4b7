"""What is said of two sides, judged against sets and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dcmsync.contract import Level
from dcmsync.errors import UsageError
from dcmsync.plan import compare
from dcmsync.plan.compare import Match

STUDY, SERIES = Level.STUDY, Level.SERIES
IN_STUDY, IN_SERIES, OF_SERIES = (
    "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances", "NumberOfStudyRelatedSeries",
)  # fmt: skip
uids = some.sets(some.integers(1, 30).map("1.2.{}".format), max_size=20)


@given(uids, uids)
def test_what_two_sides_list_is_sorted_as_sets_are(mine: set[str], theirs: set[str]) -> None:
    match = Match([(uid, uid) for uid in theirs])
    met = {uid for uid in mine if match.meet(uid) is not None}
    assert met == mine & theirs
    assert [uid for uid, _ in match.left_over()] == [uid for uid in theirs if uid not in mine]
    assert len(match) == len(theirs)


def test_a_thing_that_came_twice_is_met_twice_and_left_over_once() -> None:
    match = Match([("1.1", "a"), ("1.2", "b"), ("1.1", "c")])
    assert match.meet("1.2") == match.meet("1.2") == "b"
    assert list(match.left_over()) == [("1.1", "c")]


@pytest.mark.parametrize("level, mine, theirs, is_same", [
    (STUDY, {IN_STUDY: 4}, {IN_STUDY: 4}, True),
    (STUDY, {IN_STUDY: 0}, {IN_STUDY: 0}, True),
    (STUDY, {IN_STUDY: 4}, {IN_STUDY: 5}, False),
    (STUDY, {IN_STUDY: 4}, {}, False),
    (STUDY, {}, {IN_STUDY: 4}, False),
    (STUDY, {}, {}, False),
    (STUDY, {IN_STUDY: 4, OF_SERIES: 2}, {IN_STUDY: 4, OF_SERIES: 2}, True),
    (STUDY, {IN_STUDY: 4, OF_SERIES: 2}, {IN_STUDY: 4, OF_SERIES: 3}, False),
    (STUDY, {IN_STUDY: 4, OF_SERIES: 2}, {IN_STUDY: 4}, True),
    (STUDY, {OF_SERIES: 2}, {OF_SERIES: 2}, False),
    (STUDY, {IN_STUDY: "4"}, {IN_STUDY: "4"}, False),
    (STUDY, {IN_STUDY: -1}, {IN_STUDY: -1}, False),
    (STUDY, {IN_STUDY: None}, {IN_STUDY: None}, False),
    (STUDY, {IN_STUDY: True}, {IN_STUDY: 1}, False),
    (SERIES, {IN_SERIES: 3, IN_STUDY: 4}, {IN_SERIES: 3, IN_STUDY: 5}, True),
    (SERIES, {IN_STUDY: 4}, {IN_STUDY: 4}, False),
])  # fmt: skip
def test_counts_are_the_same_only_when_both_are_known(
    level: Level, mine: dict[str, object], theirs: dict[str, object], is_same: bool
) -> None:
    assert compare.is_same_by_counts(level, mine, theirs) is is_same


@pytest.mark.parametrize("mine, theirs, change", [
    ("xxh3:a", "xxh3:a", "same"), ("xxh3:a", "xxh3:b", "differs"), ("", "", None), (None, None, None),
    ("xxh3:a", "", None), ("", "xxh3:a", None), ("xxh3:a", None, None), (1, 1, None),
])  # fmt: skip
def test_a_digest_that_is_not_known_says_nothing(mine: object, theirs: object, change: str | None) -> None:
    assert compare.by_content(mine, theirs) == change


def test_nothing_at_all_is_not_the_same() -> None:
    assert compare.is_all_the_same(["same", "same"])
    assert not compare.is_all_the_same([])
    assert not compare.is_all_the_same(["same", None])
    assert not compare.is_all_the_same(["same", "missing"])


def test_changes_are_chosen_by_name() -> None:
    assert compare.shown("same, missing") == {"missing", "same"}
    for text in ("", "all", "missing,", "missing extra"):
        with pytest.raises(UsageError, match="no change"):
            compare.shown(text)
