"""What an identifier asks: its level, what must match, and what is wanted back (PS3.4 §C.4.1.1.3, §C.4.3.1.3).

Owns the rules of a hierarchical search: one unique key for each level above. Refuses to look anything up.
"""

from __future__ import annotations

from msgspec import Struct

from dcmsync.errors import RemoteProtocolError
from dcmsync.node.index import DEPTH_OF, UNIQUE, Depth
from dcmsync.plan.match import Judge, matcher
from dcmsync.wire import dataset
from dcmsync.wire.dimse import status

_NOT_KEYS = frozenset(("QueryRetrieveLevel", "SpecificCharacterSet", "TimezoneOffsetFromUTC"))
_SAID_OF_ALL = frozenset(("RetrieveAETitle", "InstanceAvailability"))
_WILD = frozenset("*?")


class Unanswerable(Exception):
    """An identifier that cannot be answered: the DIMSE status to say so, and words for its Error Comment."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class Question(Struct, frozen=True, kw_only=True):
    """`uids`: the UIDs asked for by the unique key of each level, where it has one without a wildcard.

    `judges`: keyword -> judge, for the other keys that must match. `wanted`: keywords to give back, in order.
    `knows_all` is false when a key was asked to match that nobody here keeps.
    """

    depth: Depth
    uids: dict[Depth, tuple[str, ...]]
    judges: dict[str, Judge]
    wanted: tuple[str, ...]
    unknown: tuple[str, ...]
    knows_all: bool


def read(octets: bytes, transfer_syntax_uid: str, *, top: Depth, is_retrieval: bool) -> Question:
    """The question that an identifier asks, `top` being the root of its information model. Raises Unanswerable."""
    try:
        keys = dataset.decode_identifier(octets, transfer_syntax_uid, keep_empty=True)
    except RemoteProtocolError as error:
        raise Unanswerable(status.CANNOT_UNDERSTAND, "the identifier is no data set") from error
    word = str(keys.get("QueryRetrieveLevel", ""))
    depth = {level.name: level for level in Depth}.get(word)
    if depth is None or depth < top:
        raise Unanswerable(status.DOES_NOT_MATCH_CLASS, "no such query/retrieve level")
    patterns = {keyword: _pattern(value) for keyword, value in keys.items() if keyword not in _NOT_KEYS}
    uids = _uids(patterns, depth, top, is_retrieval=is_retrieval)
    return _question(patterns, depth, uids, is_retrieval=is_retrieval)


def relational(patterns: dict[str, str], depth: Depth) -> Question:
    """The question of those who need not name what is above (PS3.4 §C.4.1.2.2.1); `\\` stands between UIDs."""
    named = {level: _plain(patterns.get(UNIQUE[level], "")) for level in Depth if level <= depth}
    return _question(patterns, depth, {level: uids for level, uids in named.items() if uids}, is_retrieval=False)


def _question(
    patterns: dict[str, str], depth: Depth, uids: dict[Depth, tuple[str, ...]], *, is_retrieval: bool
) -> Question:
    wanted = tuple(keyword for keyword in patterns if DEPTH_OF.get(keyword, Depth.IMAGE + 1) <= depth)
    asked = [] if is_retrieval else [keyword for keyword, pattern in patterns.items() if pattern]
    judged = [keyword for keyword in asked if keyword in wanted and not _is_settled(keyword, uids)]
    return Question(
        depth=depth,
        uids=uids,
        judges={keyword: matcher(patterns[keyword], _vr(keyword)) for keyword in judged},
        wanted=wanted,
        unknown=tuple(keyword for keyword in patterns if keyword not in wanted and keyword not in _SAID_OF_ALL),
        knows_all=all(keyword in wanted or keyword in _SAID_OF_ALL for keyword in asked),
    )


def _uids(patterns: dict[str, str], depth: Depth, top: Depth, *, is_retrieval: bool) -> dict[Depth, tuple[str, ...]]:
    """The UIDs of each level that names some. Raises Unanswerable where the hierarchy demands one and has none."""
    uids = {}
    for level in Depth:
        listed = _plain(patterns.get(UNIQUE[level], ""))
        if top <= level < depth and len(listed) != 1:
            raise Unanswerable(status.DOES_NOT_MATCH_CLASS, f"needs one {UNIQUE[level]}")
        if level == depth and is_retrieval and not listed:
            raise Unanswerable(status.DOES_NOT_MATCH_CLASS, f"needs {UNIQUE[level]}")
        if listed and level <= depth:
            uids[level] = listed
    return uids


def _plain(pattern: str) -> tuple[str, ...]:
    """The values that a pattern lists; none where one of them has a wildcard."""
    return () if _WILD & set(pattern) else tuple(part for part in pattern.split("\\") if part)


def _is_settled(keyword: str, uids: dict[Depth, tuple[str, ...]]) -> bool:
    """Whether a key needs no judge, since its UIDs are looked up."""
    return any(UNIQUE[level] == keyword for level in uids if level != Depth.PATIENT)


def _pattern(value: object) -> str:
    return "\\".join(map(str, value)) if isinstance(value, list) else str(value)


def _vr(keyword: str) -> str:
    return dataset.entry(dataset.tag_of(keyword)).vr
