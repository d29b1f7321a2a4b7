"""The elements of one data set, told apart by their headers alone (PS3.5 §7).

Owns the walk from the first element to the last octet, the verdict whether the data set is whole, and the raw values of
the few top-level elements that somebody wants. Refuses to decode values, to judge their content, to read pixel data,
and to raise for anything that octets can say: what is wrong with them is a value.

Theory of operation. A walk sees its source through a window: all of it when it is in memory, else what `read_at`
fetched last. The top level is one tight loop over precompiled headers; running out of the window is the struct.error
that costs nothing until it happens. What is known to be a sequence is followed to its end (`nesting`); all else is
stepped over. A big deflated data set is inflated twice, once to learn its size and that it ends, once to walk it.

What a walk cannot see: a cut exactly between two top-level elements leaves a shorter, whole data set; and without a
dictionary a sequence of defined length in implicit VR, or in UN, is a value like any other: its inside is not judged.
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
    IMPLICIT_LITTLE,
    LAST_FIRST_GROUP,
    UNDEFINED,
    Coding,
    declared,
    guess,
    name,
    plain,
)
from dcmsync.wire.nesting import NO_GROUPS, NO_LIMIT, Broken, beyond, follow_sequence, odd_header
from dcmsync.wire.source import (
    MAX_INFLATED_OCTETS,
    MAX_VALUE_OCTETS,
    WINDOW_OCTETS,
    Distant,
    Inflating,
    Source,
    Values,
    Window,
)

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
        inflated = inflate(source.source if isinstance(source, Window) else source, offset)
        if isinstance(inflated, Walk):
            return inflated
        source, offset, transfer_syntax_uid = inflated, 0, EXPLICIT_LITTLE
    window = source if isinstance(source, Window) else Window(source, offset)
    if offset >= window.end:
        return Walk(state="truncated", offset=offset, reason="no data set", values={})
    coding = coding_of(window, transfer_syntax_uid, offset)
    if coding is None:
        return Walk(state="not dicom", offset=offset, reason="no element where the data set should begin", values={})
    values: Values = {}
    try:
        state, end = _follow(window, coding, offset, wanted, stop_after, values, ascending=ascending)
    except Broken as broken:
        return Walk(
            state="truncated", offset=broken.offset, reason=broken.reason, values=values, is_cut=broken.is_cut
        )
    encoding = coding.uid if declared(transfer_syntax_uid) not in (coding, None) else ""
    return Walk(state=state, offset=end, values=values, encoding=encoding)


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
    """Follows the top level from `at`. Gives "whole" or "stopped", and where. Raises Broken."""
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
            raise Broken(at, "ends within the header of an element", is_cut=True)


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
    sq, names = coding.sq, coding.names
    octets, base = window.octets, window.base
    room, held = window.end - base, len(octets)
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
                    start, length = odd_header(octets, position, coding, base)
                if length == UNDEFINED or (vr == sq and start + length <= room):
                    inner = coding if vr in long and vr != coding.un else IMPLICIT
                    is_delimited = length == UNDEFINED
                    at = follow_sequence(
                        window,
                        inner,
                        base + start,
                        NO_LIMIT if is_delimited else base + start + length,
                        is_delimited=is_delimited,
                        has_fragments=long.get(vr, False),
                    )
                    octets, base = window.octets, window.base
                    room, held = window.end - base, len(octets)
                    position = at - base
                    continue
            following = start + length
            if following > room:
                raise Broken(base + position, beyond(tag, coding, length, room - start), is_cut=True)
            if tag in asked:
                if following <= held and length <= MAX_VALUE_OCTETS:
                    values[asked[tag]] = names.get(vr, "UN"), bytes(octets[start:following])
                else:
                    window.take(asked[tag], names.get(vr, "UN"), base + start, length, values)
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
            if tag & 0xFFFF in NO_GROUPS:
                raise Broken(base + position, f"{name(tag, coding)} where an element should begin")
            if length == UNDEFINED:
                at = follow_sequence(
                    window,
                    coding,
                    base + position + 8,
                    NO_LIMIT,
                    is_delimited=True,
                    has_fragments=tag == coding.pixel_data,
                )
                octets, base = window.octets, window.base
                room = window.end - base
                position = at - base
                continue
            following = position + 8 + length
            if following > room:
                raise Broken(base + position, beyond(tag, coding, length, room - position - 8), is_cut=True)
            if tag in asked:
                window.take(asked[tag], "", base + position + 8, length, values)
            position = following
    except OutOfWindow:
        return base + position, False


def coding_of(window: Window, transfer_syntax_uid: str, offset: int) -> Coding | None:
    """How the data set at `offset` is written: as declared, unless its first element shows that it is not."""
    if offset + 8 > window.base + len(window.octets):
        window.move(offset)
    head = window.peek(offset, 8)
    said = declared(transfer_syntax_uid)
    met = guess(head)
    if met is None or (said is not None and met == said.uid):
        return said
    if said is not None and not said.implicit and met != IMPLICIT_LITTLE and _first_group(head, met) > LAST_FIRST_GROUP:
        return said
    if said is not None and said.implicit and int.from_bytes(head[4:8], "little") <= window.end - offset - 8:
        return said
    return CODINGS[met]


def _first_group(head: bytes, uid: str) -> int:
    return int.from_bytes(head[:2], "little" if CODINGS[uid].little else "big")


def inflate(source: Source, offset: int) -> Source | Walk:
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
            raise Broken(offset, "elements begin again and again")
    last[0] = number


@lru_cache(maxsize=32)
def _asked(wanted: frozenset[int], *, little: bool) -> dict[int, int]:
    """Tag as the headers give it -> tag, for each of `wanted`."""
    return {((tag & 0xFFFF) << 16 | tag >> 16 if little else tag): tag for tag in wanted}

