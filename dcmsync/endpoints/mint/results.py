"""The answer to a MINT search, read as it arrives: one study at a time is held, and given when it ends.

Owns what counts as an answer at each level. Elements and attributes that nobody asked for, or that are new, are passed
by. Refuses to judge whether an answer is what was asked for.

Theory of operation. The attributes of a study stand behind its series, and those of a series behind its instances, so
nothing can be given before the study ends. `attr` counts for the element that it stands in, if that is one of ours.
"""

from __future__ import annotations

from msgspec import Struct

from dcmsync.contract import Level
from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.codings import EXPLICIT_LITTLE
from dcmsync.wire.dataset import SPECIFIC_CHARACTER_SET, decode_values, entry, tag_of
from dcmsync.wire.markup import Markup

MAX_IDLE_OCTETS = 64 << 20  # in which there is no answer
MAX_STUDY_OCTETS = 256 << 20  # of one study, as it is held

_ROOT = "studySearchResults"
_LEVELS = {"study": Level.STUDY, "series": Level.SERIES, "instance": Level.INSTANCE}
_OVERHEAD_OCTETS = 120  # of a value, beyond its text
_AS_TEXT = {
    "US": "IS", "SS": "IS", "UL": "IS", "SL": "IS", "UV": "IS", "SV": "IS", "FL": "DS", "FD": "DS",
}  # fmt: skip  # here numbers are digits, whatever they are elsewhere
_CHARACTER_SET = {SPECIFIC_CHARACTER_SET: ("CS", b"ISO_IR 192")}

Values = dict[int, tuple[str, bytes]]
"""Tag -> VR, and the value in UTF-8."""


class _Thing(Struct):
    """A study, series or instance that has begun."""

    level: Level
    values: Values
    below: list[_Thing]


class Results:
    """Reads one document. `wanted`: keywords of what is kept; the UIDs of the levels always are."""

    def __init__(self, level: Level, wanted: frozenset[str]) -> None:
        keywords = wanted.union(each.unique_key for each in _LEVELS.values() if each <= level)
        self._level = level
        self._tags = frozenset(tag_of(keyword) for keyword in keywords)
        self._markup = Markup(opened=self._opened, closed=self._closed)
        self._open: list[_Thing | None] = []  # what the open elements below the root are; None for what is passed by
        self._has_root = False
        self._held = 0
        self._idle = 0  # octets since the last answer
        self._found: list[dict[str, object]] = []

    def feed(self, octets: bytes) -> list[dict[str, object]]:
        """The answers that are complete with these octets. Raises RemoteProtocolError."""
        self._markup.feed(octets)
        found, self._found = self._found, []
        self._idle = 0 if found else self._idle + len(octets)
        if self._idle > MAX_IDLE_OCTETS:
            raise RemoteProtocolError(f"sent {MAX_IDLE_OCTETS >> 20} MiB in which there is no answer")
        return found

    def close(self) -> None:
        """The document ends here. Raises RemoteProtocolError when that is too early."""
        self._markup.close()

    def _opened(self, name: str, attributes: dict[str, str]) -> None:
        if not self._has_root:
            if name != _ROOT:
                raise RemoteProtocolError(f"answered with a document that is no search result ({name[:20]})")
            self._has_root = True
            return
        above = self._open[-1] if self._open else None
        if name == "attr" and above is not None:
            self._keep(above, attributes)
        self._open.append(self._begun(name, above))

    def _begun(self, name: str, above: _Thing | None) -> _Thing | None:
        """The thing that an element stands for, if it stands where it may, and is not deeper than was asked for."""
        level = _LEVELS.get(name)
        if level is None or level > self._level:
            return None
        if above is None:
            return _Thing(level=level, values={}, below=[]) if level is Level.STUDY and not self._open else None
        if level != above.level + 1:
            return None
        thing = _Thing(level=level, values={}, below=[])
        above.below.append(thing)
        self._hold(_OVERHEAD_OCTETS)
        return thing

    def _keep(self, thing: _Thing, attributes: dict[str, str]) -> None:
        try:
            tag = int(attributes.get("tag", ""), 16)
        except ValueError:
            return
        if tag not in self._tags:
            return
        vr = attributes.get("vr") or entry(tag).vr
        value = attributes.get("val", "").encode()
        thing.values[tag] = (_AS_TEXT.get(vr, vr), value)
        self._hold(_OVERHEAD_OCTETS + len(value))

    def _hold(self, octets: int) -> None:
        self._held += octets
        if self._held > MAX_STUDY_OCTETS:
            raise RemoteProtocolError(f"one study of its answer needs more than {MAX_STUDY_OCTETS >> 20} MiB of memory")

    def _closed(self, _name: str) -> None:
        thing = self._open.pop() if self._open else None  # nothing is open any more when the root ends
        if thing is not None and thing.level is Level.STUDY:
            self._give(thing, {})
            self._held = 0

    def _give(self, thing: _Thing, above: Values) -> None:
        values = {**above, **thing.values}
        if thing.level is self._level:
            self._found.append(_plain(values))
        for each in thing.below:
            self._give(each, values)


def _plain(values: Values) -> dict[str, object]:
    """Keyword -> plain value; "" for what has none."""
    plain = decode_values({**values, **_CHARACTER_SET}, EXPLICIT_LITTLE, keep_empty=True)
    del plain["SpecificCharacterSet"]
    return plain
