"""The inside of one value: items, the elements they hold, fragments, and what nests in them (PS3.5 §7.5, §A.4).

Owns following a sequence from its first item to its end, whether a delimiter or a length says where that is, and the
verdict that something in it cannot be. Refuses to give values, and to know what is a sequence: its caller does.

Theory of operation. A list of what is open takes the place of recursion; each entry has the octet that nothing in it
may pass. A length ends a sequence or an item exactly, and so does a delimiter that ends where the length does, which
some writers add. In explicit VR the inside of every sequence is followed. In implicit VR, and in UN, a sequence of
defined length looks like any other value: it is stepped over.
"""

from struct import error as OutOfWindow
from typing import NamedTuple

from dcmsync.wire.codings import IMPLICIT, UNDEFINED, Coding, name, plain
from dcmsync.wire.source import Memory, Window

MAX_DEPTH = 64  # sequences within sequences
NO_LIMIT = 1 << 63  # of what ends with a delimiter, wherever that may be
NO_GROUPS = frozenset({0, 0xFFFE})  # of command sets (PS3.7), and of items and delimiters: no element of a data set


class Broken(Exception):
    """The walk cannot go on at the element at `offset`. `is_cut`: nothing is wrong but that the source ends."""

    def __init__(self, offset: int, reason: str, *, is_cut: bool = False) -> None:
        self.offset = offset
        self.reason = reason
        self.is_cut = is_cut


class _Open(NamedTuple):
    """A sequence or an item that has begun. Nothing in it passes `limit`; `is_delimited`: a delimiter ends it."""

    coding: Coding
    limit: int
    is_delimited: bool
    is_item: bool = False
    has_fragments: bool = False


def follow_sequence(
    window: Window,
    coding: Coding,
    at: int,
    limit: int,
    *,
    is_delimited: bool,
    has_fragments: bool = False,
    max_depth: int = MAX_DEPTH,
) -> int:
    """Follows a value that is a sequence, from `at` to its end, and gives that. Raises Broken.

    `coding`: how its items are written. `has_fragments`: they are encapsulated pixel data (PS3.5 §A.4), not elements.
    """
    nest = [_Open(coding, limit, is_delimited, has_fragments=has_fragments)]
    while nest:
        at, opened = (_follow_item if nest[-1].is_item else _follow_items)(window, nest[-1], at)
        if opened is None:
            nest.pop()
            continue
        nest.append(opened)
        if len(nest) > 2 * max_depth:
            raise Broken(at, f"sequences nested deeper than {MAX_DEPTH}")
    return at


def _follow_items(window: Window, sequence: _Open, at: int) -> tuple[int, _Open | None]:
    """Steps over fragments, and into the next item. Gives where, and the item; None behind the sequence."""
    coding, limit, is_delimited, _, has_fragments = sequence
    while True:
        octets, base = window.octets, window.base
        room = min(limit, window.end) - base
        position = at - base
        try:
            while position != room or is_delimited:
                tag, length = coding.item_header(octets, position)
                following = position + 8
                if following > room:
                    raise Broken(base + position, "ends within the header of an item", is_cut=limit == NO_LIMIT)
                if tag == coding.sequence_end and (is_delimited or following == room):
                    return base + following, None
                if tag != coding.item:
                    raise Broken(base + position, f"{name(tag, coding)} where an item should begin")
                if length == UNDEFINED and not has_fragments:
                    return base + following, _Open(coding, limit, is_delimited=True, is_item=True)
                following += length
                if following > room:
                    reason = beyond(tag, coding, length, room - position - 8)
                    raise Broken(base + position, reason, is_cut=limit == NO_LIMIT)
                if not has_fragments:
                    return base + position + 8, _Open(coding, base + following, is_delimited=False, is_item=True)
                position = following
            return base + position, None
        except OutOfWindow:
            at = base + position
        if not window.move(at):
            raise Broken(at, "ends within a sequence", is_cut=limit == NO_LIMIT)


def _follow_item(window: Window, item: _Open, at: int) -> tuple[int, _Open | None]:
    """Steps over the elements of an item. Gives where, and the sequence that opens there; None behind the item."""
    coding, limit, is_delimited, _, _ = item
    while True:
        octets, base = window.octets, window.base
        room = min(limit, window.end) - base
        position = at - base
        try:
            while position != room or is_delimited:
                tag, _ = coding.item_header(octets, position)
                following = position + 8
                if tag == coding.item_end and (following <= room if is_delimited else following == room):
                    return base + following, None
                start, length, inner, has_fragments = read_header(octets, position, coding, base)
                if length == UNDEFINED and inner is not None:
                    return base + start, _Open(inner, limit, is_delimited=True, has_fragments=has_fragments)
                following = start + length
                if following > room:
                    reason = beyond(tag, coding, length, room - start)
                    raise Broken(base + position, reason, is_cut=limit == NO_LIMIT)
                if inner is not None:
                    return base + start, _Open(inner, base + following, is_delimited=False)
                position = following
            return base + position, None
        except OutOfWindow:
            at = base + position
        if not window.move(at):
            raise Broken(at, "ends within an item", is_cut=limit == NO_LIMIT)


def read_header(octets: Memory, position: int, coding: Coding, base: int) -> tuple[int, int, Coding | None, bool]:
    """The start and length of an element's value; how its items are written, and whether they are fragments.

    The coding is None where nothing says that the value is a sequence. It is never None if the length is undefined.
    Raises Broken, and OutOfWindow.
    """
    if coding.implicit:
        tag, length = coding.header(octets, position)
        if tag & 0xFFFF in NO_GROUPS:
            raise Broken(base + position, f"{name(tag, coding)} where an element should begin")
        return position + 8, length, coding if length == UNDEFINED else None, tag == coding.pixel_data
    _, vr, length = coding.header(octets, position)
    if vr in coding.short:
        return position + 8, length, None, False
    if vr in coding.long:
        (length,) = coding.long_length(octets, position)
        inner = IMPLICIT if vr == coding.un else coding  # PS3.5 §6.2.2 note 2 (CP-246)
        is_sequence = length == UNDEFINED or vr == coding.sq
        return position + 12, length, inner if is_sequence else None, coding.long[vr]
    start, length = odd_header(octets, position, coding, base)
    return start, length, IMPLICIT if length == UNDEFINED else None, False


def odd_header(octets: Memory, position: int, coding: Coding, base: int) -> tuple[int, int]:
    """The start and length of an element whose VR is none of PS3.5 §6.2. Raises Broken where no element can be.

    Two capitals are a VR yet to be invented, with a long length (PS3.5 §7.1.2); other print, such as `??`, is taken
    with a short length, as DCMTK does; anything else is an element left in implicit VR, as pydicom does.
    """
    tag, _, length = coding.header(octets, position)
    if plain(tag, coding) >> 16 in NO_GROUPS:
        raise Broken(base + position, f"{name(tag, coding)} where an element should begin")
    letters = bytes(octets[position + 4 : position + 6])
    if letters.isalpha() and letters.isupper():
        return position + 12, coding.long_length(octets, position)[0]
    if letters.isascii() and letters.decode("ascii").isprintable():
        return position + 8, length
    return position + 8, coding.item_header(octets, position)[1]


def beyond(tag: int, coding: Coding, length: int, left: int) -> str:
    """Why the element cannot be: its length passes the end of what holds it."""
    return f"{name(tag, coding)} claims {length} octets, {max(left, 0)} are left"
