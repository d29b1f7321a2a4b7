"""Records as they come, and what is compared in one go."""

import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dcmsync.contract import Level
from dcmsync.errors import InputError
from dcmsync.records.stream import Line, read_record
from dcmsync.transfer import gathering
from dcmsync.transfer.gathering import Gathering, Group
from dcmsync.transfer.spill import Sorter


def line(number: int, **values: object) -> Line:
    raw = json.dumps(values).encode() + b"\n"
    record = read_record(raw, number)
    return Line(number, raw, record)  # type: ignore[arg-type]  # no test gives an end


def instance(number: int, series: str, uid: str, source: str = "pacs") -> Line:
    return line(number, type="instance", source=source, StudyInstanceUID="1", SeriesInstanceUID=series,
                SOPInstanceUID=uid)  # fmt: skip


def uids(group: Group) -> list[str]:
    return [json.loads(raw).get("SOPInstanceUID", "") for raw in group.lines]


def test_instances_of_a_series_that_follow_each_other_are_one_group() -> None:
    lines = [instance(n, f"1.{n // 3}", f"1.1.{n}") for n in range(7)]
    groups = list(Gathering(lines))
    assert [uids(group) for group in groups] == [["1.1.0", "1.1.1", "1.1.2"], ["1.1.3", "1.1.4", "1.1.5"], ["1.1.6"]]
    assert [group.number for group in groups] == [0, 3, 6]
    assert {group.source for group in groups} == {"pacs"}


def test_studies_and_series_come_at_once() -> None:
    def endless() -> Iterator[Line]:
        yield line(1, type="study", source="a", StudyInstanceUID="1")
        yield line(2, type="series", StudyInstanceUID="1", SeriesInstanceUID="1.2")
        raise AssertionError("read ahead")

    groups = iter(Gathering(endless()))
    first, second = next(groups), next(groups)
    assert (first.level, first.source, second.level, second.source) == (Level.STUDY, "a", Level.SERIES, "")


def test_a_series_with_a_record_between_is_not_out_of_order() -> None:
    study = line(2, type="study", source="a", StudyInstanceUID="1")
    lines = [instance(1, "1.1", "1"), study, instance(3, "1.1", "2"), instance(4, "1.2", "3")]
    assert [uids(group) for group in Gathering(lines)] == [["1"], [""], ["2"], ["3"]]


def test_a_series_that_comes_back_makes_the_rest_be_sorted() -> None:
    lines = [instance(1, "1.1", "a"), instance(2, "1.2", "b"), instance(3, "1.1", "c"), instance(4, "1.2", "d"),
             instance(5, "1.1", "e"), line(6, type="study", source="x", StudyInstanceUID="2")]  # fmt: skip
    groups = list(Gathering(lines))
    assert [uids(group) for group in groups] == [["a"], ["b"], [""], ["c", "e"], ["d"]]
    assert [group.number for group in groups] == [1, 2, 6, 3, 4]


@settings(deadline=None)
@given(some.integers(0, 60), some.integers(1, 9), some.integers(0, 99), some.sampled_from([0, 500, 1 << 20]))
def test_no_record_is_lost_and_no_series_is_asked_about_often(count: int, series: int, seed: int, octets: int) -> None:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    lines = [instance(n, f"1.{one % series}", str(one), source=f"/a\t\n{one % 2}") for n, one in enumerate(order, 1)]
    groups = list(Gathering(lines, sorter=Sorter(run_octets=octets)))
    assert sorted(uid for group in groups for uid in uids(group)) == sorted(map(str, order))
    for group in groups:
        assert {(json.loads(raw)["SeriesInstanceUID"], json.loads(raw)["source"]) for raw in group.lines} == {
            (json.loads(group.lines[0])["SeriesInstanceUID"], group.source)
        }
    assert len(groups) <= 4 * series + 1


def test_a_large_series_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "TOGETHER", 4)
    lines = [instance(n, "1.1", str(n)) for n in range(10)]
    assert [len(group.lines) for group in Gathering(lines)] == [4, 4, 2]
    mixed = [instance(1, "1.0", "x"), instance(2, "1.1", "y"), *(instance(n, "1.0", str(n)) for n in range(3, 12))]
    assert [len(group.lines) for group in Gathering(mixed)] == [1, 1, 4, 4, 1]


def test_the_series_that_were_seen_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "SEEN", 10)
    lines = [instance(n, f"1.{n}", str(n)) for n in range(100)]
    made = Gathering(lines)
    assert sum(1 for _ in made) == 100
    assert len(made._seen) <= 10


def test_what_came_before_a_bad_line_is_compared_first() -> None:
    def broken() -> Iterator[Line]:
        yield instance(1, "1.1", "a")
        yield instance(2, "1.1", "b")
        raise InputError("no record", line=3)

    groups: list[Group] = []
    with pytest.raises(InputError, match="line 3"):
        groups.extend(Gathering(broken()))
    assert [uids(group) for group in groups] == [["a", "b"]]


def test_outcomes_and_strangers_are_counted() -> None:
    lines = [line(1, type="outcome", level="series", outcome="failed"), line(2, type="weather")]
    made = Gathering(lines)
    assert list(made) == [] and made.passed_by == 2
