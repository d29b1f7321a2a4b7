"""What is chosen of what is nested."""

from collections.abc import Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.wire.choice import chosen
from dcmsync.wire.events import Closed, Element, Event, Fragment, Item, ItemEnd, Opened

A, B, SEQUENCE, OTHER = 0x00100010, 0x00100020, 0x00081140, 0x00081199


def leaf(tag: int) -> Element:
    return Element(tag, "LO", True, True, 0, 0, b"", b"")


def sequence(tag: int, *items: list[Event]) -> list[Event]:
    events: list[Event] = [Opened(tag, "SQ", 0, 0)]
    for number, inside in enumerate(items, 1):
        events += [Item(number, 0), *inside, ItemEnd()]
    return [*events, Closed(0)]


def choose(
    events: list[Event], wanted: Set[int], unwanted: Set[int] = frozenset(), *, empty: bool = False
) -> list[Event]:
    def judge(tag: int) -> bool | None:
        return False if tag in unwanted else True if tag in wanted else None

    return list(chosen(events, judge, with_empty_items=empty))


def test_a_wanted_sequence_comes_whole() -> None:
    nested = sequence(SEQUENCE, [leaf(A), *sequence(OTHER, [leaf(B)])], [])
    assert choose([leaf(B), *nested, leaf(A)], {SEQUENCE}) == nested


def test_an_unwanted_sequence_goes_whole() -> None:
    nested = sequence(SEQUENCE, [leaf(A), *sequence(OTHER, [leaf(A)])])
    assert choose([*nested, leaf(A)], {A}, {SEQUENCE}) == [leaf(A)]


def test_an_exclude_holds_in_a_wanted_sequence() -> None:
    nested = sequence(SEQUENCE, [leaf(A), leaf(B), *sequence(OTHER, [leaf(A)], [leaf(B)])], [leaf(B)])
    assert choose([*nested, leaf(B)], {SEQUENCE, B}, {A}) == [
        *sequence(SEQUENCE, [leaf(B), *sequence(OTHER, [], [leaf(B)])], [leaf(B)]), leaf(B)]
    assert choose(nested, {SEQUENCE}, {OTHER}) == sequence(SEQUENCE, [leaf(A), leaf(B)], [leaf(B)])


def test_an_exclude_holds_in_a_sequence_that_leads_to_a_wanted_element() -> None:
    nested = sequence(SEQUENCE, [leaf(A), leaf(B)])
    assert choose(nested, {A}, {B}) == sequence(SEQUENCE, [leaf(A)])


def test_a_sequence_is_there_for_what_is_wanted_within() -> None:
    nested = sequence(SEQUENCE, [leaf(B)], [leaf(B)], [leaf(A), leaf(B)], [leaf(B)], [leaf(A)])
    assert choose([*nested, *sequence(OTHER, [leaf(B)])], {A}) == [
        Opened(SEQUENCE, "SQ", 0, 0), Item(3, 0), leaf(A), ItemEnd(), Item(5, 0), leaf(A), ItemEnd(), Closed(0)]


def test_items_keep_their_places_where_places_count() -> None:
    nested = sequence(SEQUENCE, [leaf(B)], [leaf(A)], [leaf(B)], sequence(OTHER, [leaf(B)], [leaf(A)]))
    assert choose(nested, {A}, empty=True) == sequence(
        SEQUENCE, [], [leaf(A)], [], sequence(OTHER, [], [leaf(A)]))


def test_fragments_belong_to_their_element() -> None:
    pixels: list[Event] = [Opened(B, "OB", 0, 0, True), Fragment(1, 0, 0, b""), Closed(0)]
    assert choose([*pixels, leaf(A)], {A}) == [leaf(A)]
    assert choose([*pixels, leaf(A)], {B}) == pixels


trees = st.recursive(
    st.lists(st.sampled_from([leaf(A), leaf(B)]), max_size=3),
    lambda inner: st.tuples(inner, st.lists(inner, max_size=3)).map(
        lambda pair: [*pair[0], *sequence(SEQUENCE, *pair[1])]
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("empty", [True, False])
@given(tree=trees)
def test_everything_that_is_wanted_is_there_and_nothing_else(empty: bool, tree: list[Event]) -> None:
    given_ = choose(tree, {A}, empty=empty)
    assert sum(isinstance(event, Element) for event in given_) == tree.count(leaf(A))
    depth = 0
    for event in given_:
        depth += isinstance(event, Opened | Item) - isinstance(event, ItemEnd | Closed)
        assert depth >= 0 and event != leaf(B)
    assert depth == 0
