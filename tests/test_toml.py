"""TOML as text, judged by tomllib."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import UsageError
from dcmsync.toml import header, key, lines, read, written

TEXT = '''
# a comment
top = 1

[local]   # [not.this]
ae_title = "ME"

[endpoints.pacs]
locator = """A
[b]
"""
jobs = 2
ignores_keys = [
    "x",  # jobs = 3
    "y",
]
[endpoints."a.b"]
locator = 'l'
[deep]
er.still = {one = 1, two = [2, {three = 3}]}
[[rules]]
name = "first"
[[rules]]
name = "second"
[rules.more]
x = 1
'''


def test_the_line_of_every_key() -> None:
    found = lines(TEXT)
    numbered = TEXT.split("\n")
    assert {path: numbered[line - 1].split(" #")[0].strip() for path, line in found.items() if len(path) < 3} == {
        ("top",): "top = 1",
        ("local",): "[local]",
        ("local", "ae_title"): 'ae_title = "ME"',
        ("endpoints",): "[endpoints.pacs]",
        ("endpoints", "pacs"): "[endpoints.pacs]",
        ("endpoints", "a.b"): '[endpoints."a.b"]',
        ("deep",): "[deep]",
        ("deep", "er"): "er.still = {one = 1, two = [2, {three = 3}]}",
        ("rules",): "[[rules]]",
        ("rules", 0): "[[rules]]",
        ("rules", 1): "[[rules]]",
    }
    assert found["endpoints", "pacs", "locator"] + 3 == found["endpoints", "pacs", "jobs"]
    assert found["deep", "er", "still", "two", 1, "three"] == found["deep",] + 1
    assert found["rules", 1, "name"] == found["rules", 0, "name"] + 2
    assert found["rules", 1, "more", "x"] == found["rules", 1, "more"] + 1


def test_every_value_that_tomllib_sees_has_a_line() -> None:
    def paths(value: object, above: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        below = [path for name, inner in members for path in paths(inner, (*above, name))]
        return below or [above]

    assert set(paths(tomllib.loads(TEXT))) <= set(lines(TEXT))


scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


@given(texts, values)
def test_what_is_written_is_read_back(name: str, value: object) -> None:
    assert tomllib.loads(f"{header('a', name)}\n{key(name)} = {written(value)}\n") == {"a": {name: {name: value}}}


def test_what_is_no_toml_is_said_with_its_place() -> None:
    with pytest.raises(UsageError, match=r"c.toml: not TOML: .*line 2"):
        read("a = 1\nb = \nc = 2", "c.toml")
