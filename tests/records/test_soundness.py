"""What a line must be before anybody believes it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import InputError
from dcmsync.records.soundness import MAX_DEPTH, check_meaning, check_octets

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)


def check(line: bytes) -> None:
    check_octets(line, 7)
    check_meaning(line, json.loads(line), 7)


@given(values=st.dictionaries(TEXT, JSON, max_size=5), is_ascii=st.booleans())
def test_what_is_sound_passes(values: dict[str, object], is_ascii: bool) -> None:
    check(json.dumps(values, ensure_ascii=is_ascii).encode())


@given(values=st.dictionaries(TEXT, JSON, min_size=1, max_size=4), again=JSON, space=st.sampled_from(["", " "]))
def test_a_repeated_key_is_refused(values: dict[str, object], again: object, space: str) -> None:
    key = next(iter(values))
    line = f"{json.dumps(values)[:-1]},{json.dumps(key)}{space}:{json.dumps(again)}}}".encode()
    with pytest.raises(InputError, match=r"^line 7: the key .* occurs twice$"):
        check(line)


def test_a_colon_escaped_in_a_value_hides_no_repeated_key() -> None:
    with pytest.raises(InputError, match="'a' occurs twice"):
        check(rb'{"a":"1","a":"\u003a"}')


def test_a_repeated_key_further_down_is_refused() -> None:
    with pytest.raises(InputError, match="'b' occurs twice"):
        check(b'{"a":[{"b":1,"b":2}]}')


def test_a_nul_is_refused() -> None:
    with pytest.raises(InputError, match="line 7: a value holds a NUL character"):
        check(rb'{"StudyInstanceUID":"1.2\u0000"}')


def test_a_backslash_before_u0000_is_no_nul() -> None:
    check(rb'{"a":"\\u0000"}')


@pytest.mark.parametrize("opening, closing", [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_capped(opening: bytes, closing: bytes) -> None:
    inner = MAX_DEPTH - 1
    check_octets(b'{"a":' + opening * inner + b"1" + closing * inner + b"}", 7)
    with pytest.raises(InputError, match=f"line 7: nested deeper than {MAX_DEPTH} levels"):
        check_octets(b'{"a":' + opening * (inner + 1) + b"1" + closing * (inner + 1) + b"}", 7)


def test_brackets_within_text_are_no_depth() -> None:
    check_octets(rb'{"a":"\"' + b"[" * 5000 + rb'\\"}', 7)


def test_many_brackets_side_by_side_are_no_depth() -> None:
    check_octets(b'{"a":[' + b"[]," * 5000 + b"[]]}", 7)


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(InputError, match=r"line 7: not UTF-8 \(octet 7\)"):
        check_octets(b'{"a":"\xff"}', 7)
