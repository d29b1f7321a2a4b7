"""Filter expressions: the grammar, selectors, and what a question has met."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from dcmsync.errors import UsageError
from dcmsync.plan.expression import Branch, Selectors, bind, parse, questions


def over_mappings(
    expressions: Sequence[str], selectors: Selectors | None = None
) -> Callable[[Mapping[str, object]], bool]:
    """Whether all of `expressions` hold for a record given as keys and values."""
    branch = Branch("all", tuple(parse(text, selectors) for text in expressions))
    return bind(branch, lambda key: lambda record: record.get(key))


CT = {
    "type": "series", "Modality": "CT", "SeriesDescription": "Lung, 1.0 B70f", "SeriesNumber": 5,
    "StudyDate": "20240131", "PatientName": "DOE^JANE", "EchoTime": 30, "ModalitiesInStudy": ["CT", "SR"],
    "00091001": "x", "retry": True, "StudyID": "", "OtherPatientIDs": [],
}  # fmt: skip


@pytest.mark.parametrize("expression, verdict", [
    ("Modality=CT", True),
    ("Modality=MR,CT", True),
    ("Modality=MR,", False),
    ("Modality=MR,PT", False),
    ("Modality=MR\\CT", True),
    ("SeriesDescription=Lung\\, 1.0 B70f", True),
    ("SeriesDescription=Lung, 1.0 B70f", False),
    ("SeriesDescription=Lung*", True),
    ("Modality=", True),
    ("Absent=", True),
    ("Absent=x", False),
    ("Modality!=CT", False),
    ("Modality!=MR", True),
    ("Absent!=CT", True),
    ("ModalitiesInStudy=SR", True),
    ("ModalitiesInStudy!=SR", False),
    ("SeriesNumber=1,3-7", True),
    ("SeriesNumber<5", False),
    ("SeriesNumber<=5", True),
    ("SeriesNumber>4", True),
    ("SeriesNumber>=6", False),
    ("Absent<5", False),
    ("Absent>=5", False),
    ("StudyDate=20240101-20240201", True),
    ("StudyDate>=2024", True),
    ("StudyDate<2024", False),
    ("EchoTime=20-40", True),
    ("PatientName=doe^*", True),
    ("SeriesDescription~B[0-9]+f$", True),
    ("SeriesDescription~^B", False),
    ("SeriesNumber~5", True),
    ("ModalitiesInStudy~^S", True),
    ("retry~^true$", True),
    ("Absent~.*", False),
    ("Modality", True),
    ("Absent", False),
    ("StudyID", False),
    ("OtherPatientIDs", False),
    ("!Absent", True),
    ("!Modality", False),
    ("!Modality=CT", False),
    ("!!Modality=CT", True),
    ("retry=true", True),
    ("retry=false", False),
    ("00091001=x", True),
    ("type=series", True),
    ("Modality=~x", False),
])  # fmt: skip
def test_expressions(expression: str, verdict: bool) -> None:
    assert over_mappings([expression])(CT) is verdict


def test_all_of_several_must_hold() -> None:
    assert over_mappings(["Modality=CT", "SeriesNumber=5"])(CT)
    assert not over_mappings(["Modality=CT", "SeriesNumber=6"])(CT)
    assert over_mappings([])(CT)


@pytest.mark.parametrize("expression, words", [
    ("", "is no expression"),
    ("=CT", "is no expression"),
    ("Modality CT", "is no expression"),
    ("!", "is no expression"),
    ("Modality<", "nothing to compare with"),
    ("Modality~(", "the regular expression is wrong"),
    ("@nobody", "no selector 'nobody'"),
])  # fmt: skip
def test_what_is_no_expression_is_refused(expression: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(expression)


SELECTORS = {
    "ct": {"all_of": ["Modality=CT"]},
    "thin": {"all_of": ["@ct"], "any_of": ["SeriesNumber=5", "SeriesNumber=9"], "none_of": ["SeriesDescription~scout"]},
    "loop": {"any_of": ["@pool"]},
    "pool": {"none_of": ["!@loop"]},
    "empty": {"all_of": []},
    "twice": {"all_of": ["@ct", "@ct"]},
}


@pytest.mark.parametrize("change, verdict", [
    ({}, True), ({"Modality": "MR"}, False), ({"SeriesNumber": 9}, True), ({"SeriesNumber": 4}, False),
    ({"SeriesDescription": "scout"}, False),
])  # fmt: skip
def test_selectors_nest(change: dict[str, object], verdict: bool) -> None:
    assert over_mappings(["@thin"], SELECTORS)({**CT, **change}) is verdict
    assert over_mappings(["!@thin"], SELECTORS)({**CT, **change}) is not verdict


def test_a_selector_may_be_used_twice() -> None:
    assert over_mappings(["@twice"], SELECTORS)(CT)


@pytest.mark.parametrize("name, words", [
    ("loop", "'loop' contains itself: @loop > @pool > @loop"), ("empty", "'empty' is empty"),
    ("thick", "no selector 'thick' in the configuration. There is: ct, empty, loop, pool, thin, twice"),
])  # fmt: skip
def test_selectors_that_cannot_be_used(name: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"@{name}", SELECTORS)
    assert words in str(caught.value)


def ask(expression: str, *values: object) -> list[bool]:
    judge = bind(parse(expression), lambda key: lambda record: record)
    return [judge(value) for value in values]


def test_one_and_true_are_told_apart() -> None:
    assert ask("retry=true", 1, True, "true", True, 1) == [False, True, True, True, False]
    assert ask("retry=1", True, 1, "1", 1, True) == [False, True, True, True, False]
    [question] = questions(parse("retry=1"))
    assert list(question.bind_all(lambda record: record)([True, 1, True, 1.0])) == [False, True, False, True]


def test_verdicts_do_not_pile_up() -> None:
    [question] = questions(parse("PatientID=P1*"))
    judge = question.bind_all(lambda record: record)
    values = [f"P{number}" for number in range(10_000)]
    assert list(judge(values)) == [value.startswith("P1") for value in values]
    assert len(question._verdicts) <= 4096


def test_many_at_once_are_judged_as_one_by_one() -> None:
    values = ["CT", None, 5, True, 1, ["MR", "CT"], [], {"a": 1}, "MR", 5.0]
    for expression in ("Modality=CT", "Modality=5", "Modality=true", "Modality", "Modality<6", "Modality~C"):
        [question] = questions(parse(expression))
        assert list(question.bind_all(lambda record: record)(values)) == ask(expression, *values)


def test_a_question_knows_whether_any_record_had_its_key() -> None:
    [question] = questions(parse("Modality=CT"))
    judge = question.bind(lambda record: record)
    assert (question.has_met_key, question.has_missed_key) == (False, False)
    judge(None)
    assert (question.has_met_key, question.has_missed_key) == (False, True)
    judge("CT")
    assert question.has_met_key
