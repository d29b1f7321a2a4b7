"""The plain values of the attributes that are remembered of an instance.

Owns the bounds of one value. Refuses to keep pixel data, sequences and long text: what an instance costs
to remember does not depend on what its file says.
"""

from functools import lru_cache

from dcmsync.wire import dataset
from dcmsync.wire.codings import EXPLICIT_BIG, EXPLICIT_LITTLE
from dcmsync.wire.keywords import KEYWORDS
from dcmsync.wire.source import Values

MAX_TEXT = 256  # characters of one kept value; no VR of the attributes below promises more than 64
MAX_VALUES = 32  # values of one attribute

# What differs from instance to instance, and depends on no character set; all else is mostly the same in a series.
_VARYING = ("InstanceNumber", "SliceLocation", "ContentTime", "AcquisitionTime")
_OWN = tuple(dataset.tag_of(keyword) for keyword in _VARYING)
_ALIKE = (
    dataset.SPECIFIC_CHARACTER_SET,
    *sorted(dataset.tag_of(keyword) for keyword in KEYWORDS.difference(_VARYING)),
)

TAGS = frozenset((*_OWN, *_ALIKE))
"""What a walk must bring for `plain_values`."""


def plain_values(values: Values, transfer_syntax_uid: str) -> dict[str, object]:
    """Keyword -> plain value of what is short enough to keep, and of the kind that PS3.6 promises."""
    # hot: 6 µs for 27 attributes, 33 without remembering those that a series repeats
    # (2 shared cores, CPython 3.11, 2026-11)
    is_big = transfer_syntax_uid == EXPLICIT_BIG
    alike = _plain_alike(tuple(map(values.get, _ALIKE)), is_big)
    own = {tag: values[tag] for tag in _OWN if tag in values}
    return {**alike, **_plain(own, is_big)}


@lru_cache(maxsize=16)
def _plain_alike(raw: tuple[tuple[str, bytes] | None, ...], is_big: bool, /) -> dict[str, object]:
    """What the instances of a series share; the raw values are those of _ALIKE."""
    return _plain({tag: value for tag, value in zip(_ALIKE, raw, strict=True) if value is not None}, is_big)


def _plain(values: Values, is_big: bool, /) -> dict[str, object]:
    decoded = dataset.decode_values(values, EXPLICIT_BIG if is_big else EXPLICIT_LITTLE)
    return {keyword: value for keyword, value in decoded.items() if keyword in KEYWORDS and _is_fit(keyword, value)}


def _is_fit(keyword: str, value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_VALUES and all(_is_fit(keyword, item) for item in value)
    if isinstance(value, str):
        return len(value) <= MAX_TEXT and keyword not in ("Rows", "Columns")
    return isinstance(value, int | float)
