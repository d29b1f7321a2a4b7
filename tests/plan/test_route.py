"""Routes: rules against a naive model, and decisions that hold."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import UsageError
from dcmsync.plan import route as routes
from dcmsync.plan.route import Decisions, Delivery, Match, Route, Rule, Rules

A, B, C = (Delivery(name) for name in "abc")
SELECTORS = {
    "scouts": {"all_of": ["Modality=CT"], "any_of": ["Rows<10", "Rows=64"], "none_of": ["PatientID=X"]},
}


def route(*rules: tuple[str, tuple[Delivery, ...]], **more: object) -> Route:
    made = tuple(Rule(when=(when,) if when else (), to=to) for when, to in rules)
    return Route(Rules(rules=made, **more), SELECTORS)  # type: ignore[arg-type]


CT = {"Modality": "CT", "Rows": 512, "StudyInstanceUID": "1", "SeriesInstanceUID": "1.1", "SOPInstanceUID": "1.1.1"}
MR = {**CT, "Modality": "MR", "SeriesInstanceUID": "1.2", "SOPInstanceUID": "1.2.1"}


def test_the_first_rule_that_is_true_counts() -> None:
    made = route(("Modality=CT", (A,)), ("Rows=512", (B,)), default=(C,))
    assert made.decide(CT) == (A,)
    assert made.decide(MR) == (B,)
    assert made.decide({}) == (C,)


def test_all_rules_that_are_true_count_each_destination_once() -> None:
    made = route(("Modality=CT", (A, B)), ("Rows=512", (B, C)), ("Modality=MR", (C,)), match="all")
    assert made.decide(CT) == (A, B, C)
    assert made.decide(MR) == (B, C)
    assert made.decide({}) == ()


def test_what_is_excluded_goes_nowhere_not_even_by_default() -> None:
    made = route(("", (A,)), default=(B,), exclude=("Modality=SR", "@scouts"))
    assert made.decide(CT) == (A,)
    assert made.decide({**CT, "Rows": 64}) == ()
    assert made.decide({**CT, "Rows": 64, "PatientID": "X"}) == (A,)
    assert made.decide({"Modality": "SR"}) == ()


def test_one_destination_with_two_edits_is_two_deliveries() -> None:
    edited = Delivery("a", ("PatientName=",))
    assert route(("", (A,)), ("", (edited,)), match="all").decide(CT) == (A, edited)


def test_what_has_to_be_known_is_told() -> None:
    made = route(("Modality=CT", (A,)), ("@scouts", (B,)), exclude=("!EchoTime>5",))
    assert made.keys == ("EchoTime", "Modality", "Rows", "PatientID")


@pytest.mark.parametrize("when", ["Modality", "@none", "Modality<", "a b"])
def test_an_expression_that_is_none_is_refused(when: str) -> None:
    if when == "Modality":
        assert route((when, (A,))).decide(CT) == (A,)
        return
    with pytest.raises(UsageError):
        route((when, (A,)))


@pytest.mark.parametrize("per, second", [("study", (A,)), ("series", (B,)), ("instance", (B,))])
def test_what_was_decided_for_the_first_holds_for_the_rest(per: str, second: tuple[Delivery, ...]) -> None:
    decisions = Decisions(route(("Modality=CT", (A,)), default=(B,), per=per))
    assert decisions.decide(CT) == (A,)
    assert decisions.decide(MR) == second
    assert decisions.is_made(MR) == (per != "instance")
    assert decisions.decide({**MR, "StudyInstanceUID": "2"}) == (B,) if per == "study" else second


def test_what_an_earlier_run_decided_holds() -> None:
    decisions = Decisions(route(("Modality=CT", (A,)), default=(B,)))
    decisions.recall(CT, (C,))
    decisions.recall(CT, (A,))
    assert decisions.decide(MR) == (C,)


def test_what_is_without_a_uid_is_decided_by_itself() -> None:
    decisions = Decisions(route(("Modality=CT", (A,)), default=(B,)))
    assert decisions.decide({"Modality": "CT"}) == (A,)
    assert decisions.decide({"Modality": "MR"}) == (B,)


def test_memory_is_bounded_and_what_was_met_lately_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MOST_REMEMBERED", 3)
    decisions = Decisions(route(("Modality=CT", (A,)), default=(B,)))
    for study in ("1", "2", "3", "1", "4"):
        decisions.decide({"Modality": "CT", "StudyInstanceUID": study})
    assert decisions.is_made({"StudyInstanceUID": "1"})
    assert not decisions.is_made({"StudyInstanceUID": "2"})


# Against a naive model


KEYS, VALUES = ("K1", "K2"), ("x", "y")
TESTS = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans(), st.sampled_from(VALUES)), max_size=3)
TO = st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=3).map(tuple)


def holds(tests: Sequence[tuple[str, bool, str]], thing: dict[str, str]) -> bool:
    return all((thing.get(key) == value) == is_equal for key, is_equal, value in tests)


@given(
    st.lists(st.tuples(TESTS, TO), max_size=5), st.sampled_from(["first", "all"]), TO | st.just(()), TESTS,
    st.lists(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)), min_size=1, max_size=5),
)  # fmt: skip
def test_a_route_decides_as_one_would_by_hand(
    rules: list[tuple[list[tuple[str, bool, str]], tuple[Delivery, ...]]], match: Match, default: tuple[Delivery, ...],
    exclude: list[tuple[str, bool, str]], things: list[dict[str, str]],
) -> None:  # fmt: skip
    def words(tests: Sequence[tuple[str, bool, str]]) -> tuple[str, ...]:
        return tuple(f"{key}{'=' if is_equal else '!='}{value}" for key, is_equal, value in tests)

    made = Route(
        Rules(rules=tuple(Rule(when=words(tests), to=to) for tests, to in rules), match=match, default=default,
              exclude=words(exclude)), {},
    )  # fmt: skip
    for thing in things:
        true = [to for tests, to in rules if holds(tests, thing)]
        lists = [default] if not true else true if match == "all" else true[:1]
        expected: list[Delivery] = []
        for each in (each for to in lists for each in to):
            if each not in expected:
                expected.append(each)
        if any(holds([test], thing) for test in exclude):
            expected = []
        assert made.decide(thing) == tuple(expected)
