"""One filter, put together."""

import pytest

from dcmsync.errors import UsageError
from dcmsync.plan.expression import Getter
from dcmsync.plan.select import Ranking, at_most_images
from dcmsync.plan.sift import Sift

Record = dict[str, object]
CT: Record = {"type": "series", "Modality": "CT", "PatientID": "P1", "NumberOfSeriesRelatedInstances": 5}
MR: Record = {"type": "series", "Modality": "MR", "PatientID": "P2"}


def getter(key: str) -> Getter[Record]:
    return lambda record: record.get(key)


def stays(sift: Sift, *records: Record) -> list[bool]:
    return list(sift.bind(getter)(records))


@pytest.mark.parametrize("sift, verdicts", [
    (Sift([]), [True, True]),
    (Sift(["Modality=CT"]), [True, False]),
    (Sift(["Modality=CT", "PatientID=P2"]), [False, False]),
    (Sift(["Modality=CT", "PatientID=P2"], joined_by="any"), [True, True]),
    (Sift(["Modality=CT", "PatientID=P1"], is_negated=True), [False, True]),
    (Sift(["Modality=CT", "PatientID=P2"], joined_by="any", is_negated=True), [False, False]),
    (Sift(["@ct"], selectors={"ct": {"all_of": ["Modality=CT"]}}), [True, False]),
    (Sift([], conditions=[at_most_images(5)]), [True, False]),
    (Sift(["Modality=MR"], conditions=[at_most_images(5)]), [False, False]),
])  # fmt: skip
def test_every_clause_must_hold(sift: Sift, verdicts: list[bool]) -> None:
    assert stays(sift, CT, MR) == verdicts


def test_it_asks_for_the_keys_of_all_its_clauses() -> None:
    sift = Sift(["Modality=CT", "!PatientID"], conditions=[at_most_images(5)], ranking=Ranking("sample", 1))
    assert sift.keys >= {"Modality", "PatientID", "NumberOfSeriesRelatedInstances", "SOPInstanceUID"}
    assert Sift([]).keys == frozenset()


def test_the_first_clause_that_does_not_hold_is_to_blame() -> None:
    sift = Sift(["Modality!=MR", "PatientID=P1"], conditions=[at_most_images(3)])
    blame = sift.blame(getter, with_values=False)
    assert blame(MR) == "dropped by Modality!=MR"
    assert blame(CT) == "dropped by --max-images 3"
    with_values = sift.blame(getter, with_values=True)
    assert with_values(MR) == "dropped by Modality!=MR (Modality is 'MR')"
    assert "NumberOfStudyRelatedInstances is absent" in with_values(CT)


def test_the_ranking_is_to_blame_for_what_it_drops() -> None:
    assert Sift([], ranking=Ranking("newest", 2, "patient")).blame(getter, with_values=True)(None) == (
        "dropped by --newest 2 --per patient")


def test_the_near_key_is_told_only_when_no_record_had_it() -> None:
    sift = Sift(["Modalty=CT"])
    assert sift.warnings(CT) == []
    stays(sift, CT)
    assert sift.warnings(CT) == ["no record has the key Modalty; did you mean Modality?"]
    stays(sift, {"Modalty": "CT"})
    assert sift.warnings(CT) == []


def test_what_is_unknown_is_counted() -> None:
    sift = Sift([], conditions=[at_most_images(5)])
    stays(sift, CT, MR)
    assert sift.warnings(CT) == ["left out by --max-images 5 for want of a known number of instances: 1"]


def test_a_wrong_expression_is_refused_at_once() -> None:
    with pytest.raises(UsageError):
        Sift(["Modality=CT", "=CT"])
