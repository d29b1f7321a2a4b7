"""Plain values as objects of the DICOM JSON Model (PS3.18 Annex F).

Owns how a value that is kept of an instance, or a UID, looks in JSON. Refuses to read files: what is in those is
written by `wire.dicomjson`.
"""

from __future__ import annotations

from functools import lru_cache

from dcmsync.wire import dataset
from dcmsync.wire.dicomjson import EXACT

Attribute = dict[str, object]

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@lru_cache(maxsize=1024)
def tag(keyword: str) -> str:
    """The name of an attribute in JSON: eight digits, upper case."""
    return f"{dataset.tag_of(keyword):08X}"


@lru_cache(maxsize=1024)
def vr(keyword: str) -> str:
    """The value representation that PS3.6 says."""
    return dataset.entry(dataset.tag_of(keyword)).vr


def attribute(keyword: str, value: object) -> Attribute:
    """The object of one attribute. Without a value (None, "") it has but its VR, which means an empty one."""
    kind = vr(keyword)
    values = value if isinstance(value, list) else [value]
    if values in ([], [None], [""]):
        return {"vr": kind}
    write = _person if kind == "PN" else _plain
    return {"vr": kind, "Value": [write(each) for each in values]}


def _person(value: object) -> object:
    groups = dict(zip(_GROUPS, str(value).split("="), strict=False))
    return {name: group for name, group in groups.items() if group} or None


def _plain(value: object) -> object:
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and abs(value) > EXACT:
        return str(value)
    return None if value == "" else value
