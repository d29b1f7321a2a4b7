"""The elements of one data set, told apart by their headers alone (PS3.5 §7).

Owns the walk from the first element to the last octet, the verdict whether the data set is whole, and the raw values of
the few top-level elements that somebody wants. Refuses to decode values, to judge their content, to read pixel data,
and to raise for anything that octets can say: what is wrong with them is a value.

Theory of operation. A walk sees its source through a window: all of it when it is in memory, else what `read_at`
fetched last. The top level is one tight loop over precompiled headers; running out of the window is the struct.error
that costs nothing until it happens. Elements of defined length are stepped over, sequences among them, so their inside
is not judged; values of undefined length are followed to their delimiter, with a list of open sequences instead of
recursion. A big deflated data set is inflated twice, once to learn its size and that it ends, once to walk it.

What a walk cannot see: a cut exactly between two top-level elements leaves a shorter, whole data set.
"""

import zlib
from functools import lru_cache
from struct import error as OutOfWindow
from typing import Literal

from msgspec import Struct

from dcmsync.wire.codings import (
    CODINGS,
    DEFLATED,
    EXPLICIT_LITTLE,
    IMPLICIT,
    UNDEFINED,
    Coding,
    declared,
    guess,
    name,
    plain,
)
from dcmsync.wire.source import MAX_INFLATED_OCTETS, WINDOW_OCTETS, Distant, Inflating, Memory, Source, Values, Window

MAX_DEPTH = 64  # sequences within sequences
MAX_DESCENTS = 8

State = Literal["whole", "truncated", "not dicom", "stopped"]


class Walk(Struct, frozen=True, kw_only=True):
    """What a walk found.

    `state`: "whole" when the last element ends with the source; "truncated" when the data set ends, or breaks, earlier:
    at the element at `offset`, for `reason`; "not dicom" when it never looked like a data set; "stopped" when
    `stop_after` was passed and the rest was not looked at. `is_cut` says of a truncated one that nothing is wrong with
    it but its end: more octets might make it whole. `encoding`: the transfer syntax UID whose element encoding
    was met, where that is not the declared one. Offsets in a deflated data set count inflated octets.
    """

    state: State
    offset: int
    values: Values
    reason: str = ""
    encoding: str = ""
    is_cut: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every octet of the source is accounted for."""
        return self.state == "whole"


def walk(
    source: Source | Window,
    transfer_syntax_uid: str,
    *,
    offset: int = 0,
    wanted: frozenset[int] = frozenset(),
    stop_after: int | None = None,
    ascending: bool = False,
) -> Walk:
    """Walks the data set that begins at `offset` of `source` and ends with it. A window lies at or before `offset`.

    `wanted`: tags as 0xGGGGEEEE, of the top level. `stop_after`: the last tag of interest.
    `ascending`: refuse elements that fail to ascend (PS3.5 §7.1) more often than in any real file.
    """
    if transfer_syntax_uid in DEFLATED:
        inflated = _inflate(source.source if isinstance(source, Window) else source, offset)
        if isinstance(inflated, Walk):
            return inflated
        source, offset, transfer_syntax_uid = inflated, 0, EXPLICIT_LITTLE
    window = source if isinstance(source, Window) else Window(source, offset)
    if offset >= window.end:
        return Walk(state="truncated", offset=offset, reason="no data set", values={})
    coding = _coding(window, transfer_syntax_uid, offset)
    if coding is None:
        return Walk(state="not dicom", offset=offset, reason="no element where the data set should begin", values={})
    values: Values = {}
    try:
        state, end = _follow(window, coding, offset, wanted, stop_after, values, ascending=ascending)
    except _Broken as broken:
        return Walk(
            state="truncated", offset=broken.offset, reason=broken.reason, values=values, is_cut=broken.is_cut
        )
    encoding = coding.uid if declared(transfer_syntax_uid) not in (coding, None) else ""
    return Walk(state=state, offset=end, values=values, encoding=encoding)


class _Broken(Exception):
    """The walk cannot go on at the element at `offset`."""

    def __init__(self, offset: int, reason: str, *, is_cut: bool = False) -> None:
        self.offset = offset
        self.reason = reason
        self.is_cut = is_cut


def _follow(
    window: Window,
    coding: Coding,
    at: int,
    wanted: frozenset[int],
    stop: int | None,
    values: Values,
    *,
    ascending: bool,
) -> tuple[State, int]:
    """Follows the top level from `at`. Gives "whole" or "stopped", and where. Raises _Broken."""
    follow = _follow_implicit if coding.implicit else _follow_explicit
    asked = _asked(wanted, little=coding.little)
    last = [-1, 0] if ascending else None  # the last tag, and how often one was less than its predecessor
    while True:
        at, passed = follow(window, coding, at, asked, stop, values, last)
        if passed:
            return "stopped", at
        if at == window.end:
            return "whole", at
        if not window.move(at):
            raise _Broken(at, "ends within the header of an element", is_cut=True)


def _follow_explicit(
    window: Window,
    coding: Coding,
    at: int,
    asked: dict[int, int],
    stop: int | None,
    values: Values,
    last: list[int] | None,
) -> tuple[int, bool]:
    """Follows explicit VR elements until the window ends. Gives where, and whether `stop` was passed."""
    # hot: 19 µs for a 9 kB MR of 73 elements, 50 µs for a CT of 258; 10 wanted (2 shared cores, CPython 3.11, 2026-11)
    header, long_length, short, long = coding.header, coding.long_length, coding.short, coding.long
    octets, base = window.octets, window.base
    room = window.end - base
    position = at - base
    try:
        while True:
            tag, vr, length = header(octets, position)
            if stop is not None and plain(tag, coding) > stop:
                return base + position, True
            if last is not None:
                _ascend(tag, coding, last, base + position)
            if vr in short:
                start = position + 8
            else:
                if vr in long:
                    (length,) = long_length(octets, position)
                    start = position + 12
                else:
                    start, length = _odd_header(octets, position, coding, base)
                if length == UNDEFINED:
                    inner = coding if vr in long and vr != coding.un else IMPLICIT
                    at = _skip(window, inner, base + start, fragments=long.get(vr, False))
                    octets, base = window.octets, window.base
                    room = window.end - base
                    position = at - base
                    continue
            following = start + length
            if following > room:
                raise _Broken(base + position, _beyond(tag, coding, length, room - start), is_cut=True)
            if tag in asked:
                window.take(asked[tag], coding.names.get(vr, "UN"), base + start, length, values)
            position = following
    except OutOfWindow:
        return base + position, False


def _follow_implicit(
    window: Window,
    coding: Coding,
    at: int,
    asked: dict[int, int],
    stop: int | None,
    values: Values,
    last: list[int] | None,
) -> tuple[int, bool]:
    """Follows implicit VR elements until the window ends. Gives where, and whether `stop` was passed."""
    header = coding.header
    octets, base = window.octets, window.base
    room = window.end - base
    position = at - base
    try:
        while True:
            tag, length = header(octets, position)
            if stop is not None and plain(tag, coding) > stop:
                return base + position, True
            if last is not None:
                _ascend(tag, coding, last, base + position)
            if tag & 0xFFFF in _NO_GROUPS:
                raise _Broken(base + position, f"{name(tag, coding)} where an element should begin")
            if length == UNDEFINED:
                at = _skip(window, coding, base + position + 8, fragments=tag == coding.pixel_data)
                octets, base = window.octets, window.base
                room = window.end - base
                position = at - base
                continue
            following = position + 8 + length
            if following > room:
                raise _Broken(base + position, _beyond(tag, coding, length, room - position - 8), is_cut=True)
            if tag in asked:
                window.take(asked[tag], "", base + position + 8, length, values)
            position = following
    except OutOfWindow:
        return base + position, False


def _skip(window: Window, coding: Coding, at: int, *, fragments: bool) -> int:
    """Follows a value of undefined length from `at` to the end of its delimiter. Raises _Broken.

    `coding`: how its items are written. `fragments`: they are encapsulated pixel data (PS3.5 §A.4), not elements.
    """
    nest = [(coding, fragments)]  # the open sequences, outermost first
    is_inside_item = False
    while nest:
        coding, fragments = nest[-1]
        if not is_inside_item:
            at, is_inside_item = _follow_items(window, coding, at, fragments=fragments)
            if not is_inside_item:
                nest.pop()
                is_inside_item = True
            continue
        at, opened = _follow_item(window, coding, at)
        is_inside_item = False
        if opened is not None:
            nest.append(opened)
            if len(nest) > MAX_DEPTH:
                raise _Broken(at, f"sequences nested deeper than {MAX_DEPTH}")
    return at


def _follow_items(window: Window, coding: Coding, at: int, *, fragments: bool) -> tuple[int, bool]:
    """Steps over items of defined length. Gives where, and whether that is inside an item, else behind the sequence."""
    while True:
        octets, base = window.octets, window.base
        room = window.end - base
        position = at - base
        try:
            while True:
                tag, length = coding.item_header(octets, position)
                if tag == coding.sequence_end:
                    return base + position + 8, False
                if tag != coding.item:
                    raise _Broken(base + position, f"{name(tag, coding)} where an item should begin")
                if length == UNDEFINED and not fragments:
                    return base + position + 8, True
                following = position + 8 + length
                if following > room:
                    raise _Broken(base + position, _beyond(tag, coding, length, room - position - 8), is_cut=True)
                position = following
        except OutOfWindow:
            at = base + position
        if not window.move(at):
            raise _Broken(at, "ends within a sequence", is_cut=True)


def _follow_item(window: Window, coding: Coding, at: int) -> tuple[int, tuple[Coding, bool] | None]:
    """Steps over the elements of an item. Gives where, and the sequence that opens there; None behind the item."""
    while True:
        octets, base = window.octets, window.base
        room = window.end - base
        position = at - base
        try:
            while True:
                tag, _ = coding.item_header(octets, position)
                if tag == coding.item_end:
                    return base + position + 8, None
                start, length, opened = _nested_header(octets, position, coding, base)
                if opened is not None:
                    return base + start, opened
                if start + length > room:
                    raise _Broken(base + position, _beyond(tag, coding, length, room - start), is_cut=True)
                position = start + length
        except OutOfWindow:
            at = base + position
        if not window.move(at):
            raise _Broken(at, "ends within an item", is_cut=True)


def _nested_header(
    octets: Memory, position: int, coding: Coding, base: int
) -> tuple[int, int, tuple[Coding, bool] | None]:
    """The start and length of an element's value, and what opens there if the length is undefined."""
    if coding.implicit:
        tag, length = coding.header(octets, position)
        if tag & 0xFFFF in _NO_GROUPS:
            raise _Broken(base + position, f"{name(tag, coding)} where an element should begin")
        start, inner, fragments = position + 8, coding, tag == coding.pixel_data
    else:
        tag, vr, length = coding.header(octets, position)
        if vr in coding.short:
            return position + 8, length, None
        if vr in coding.long:
            (length,) = coding.long_length(octets, position)
            start, fragments = position + 12, coding.long[vr]
            inner = IMPLICIT if vr == coding.un else coding  # PS3.5 §6.2.2 note 2 (CP-246)
        else:
            start, length = _odd_header(octets, position, coding, base)
            inner, fragments = IMPLICIT, False
    return start, length, (inner, fragments) if length == UNDEFINED else None


def _odd_header(octets: Memory, position: int, coding: Coding, base: int) -> tuple[int, int]:
    """The start and length of an element whose VR is none of PS3.5 §6.2. Raises _Broken where no element can be.

    Two capitals are a VR yet to be invented, with a long length (PS3.5 §7.1.2); other print, such as `??`, is taken
    with a short length, as DCMTK does; anything else is an element left in implicit VR, as pydicom does.
    """
    tag, _, length = coding.header(octets, position)
    if plain(tag, coding) >> 16 in _NO_GROUPS:
        raise _Broken(base + position, f"{name(tag, coding)} where an element should begin")
    letters = bytes(octets[position + 4 : position + 6])
    if letters.isalpha() and letters.isupper():
        return position + 12, coding.long_length(octets, position)[0]
    if letters.isascii() and letters.decode("ascii").isprintable():
        return position + 8, length
    return position + 8, coding.item_header(octets, position)[1]


def _coding(window: Window, transfer_syntax_uid: str, offset: int) -> Coding | None:
    """How the data set at `offset` is written: as declared, unless its first element shows that it is not."""
    if offset + 8 > window.base + len(window.octets):
        window.move(offset)
    head = window.peek(offset, 8)
    said = declared(transfer_syntax_uid)
    met = guess(head)
    if met is None or (said is not None and met == said.uid):
        return said
    if said is not None and said.implicit and int.from_bytes(head[4:8], "little") <= window.end - offset - 8:
        return said
    return CODINGS[met]


def _inflate(source: Source, offset: int) -> Source | Walk:
    """A deflated data set (PS3.5 §A.5) as a source of its inflated octets, or the verdict that it is not whole."""
    stream = Inflating(source, offset)
    try:
        head = stream.read_at(0, WINDOW_OCTETS)
        size = stream.measure()
    except zlib.error as trouble:
        return Walk(state="truncated", offset=0, reason=f"not deflated as declared: {trouble}", values={})
    if size > MAX_INFLATED_OCTETS:
        reason = f"inflates to more than {MAX_INFLATED_OCTETS} octets"
        return Walk(state="truncated", offset=MAX_INFLATED_OCTETS, reason=reason, values={})
    if not stream.is_complete:
        return Walk(state="truncated", offset=size, reason="ends within the deflated data set", values={})
    if size == len(head):
        return head
    return Distant(Inflating(source, offset).read_at, size)


def _ascend(tag: int, coding: Coding, last: list[int], offset: int) -> None:
    number = plain(tag, coding)
    if number < last[0]:
        last[1] += 1
        if last[1] > MAX_DESCENTS:
            raise _Broken(offset, "elements begin again and again")
    last[0] = number


def _beyond(tag: int, coding: Coding, length: int, left: int) -> str:
    return f"{name(tag, coding)} claims {length} octets, {max(left, 0)} are left"


@lru_cache(maxsize=32)
def _asked(wanted: frozenset[int], *, little: bool) -> dict[int, int]:
    """Tag as the headers give it -> tag, for each of `wanted`."""
    return {((tag & 0xFFFF) << 16 | tag >> 16 if little else tag): tag for tag in wanted}


_NO_GROUPS = frozenset({0, 0xFFFE})  # of command sets (PS3.7), and of items and delimiters: no element of a data set
