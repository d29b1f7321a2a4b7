"""The elements of one data set, told apart by their headers alone (PS3.5 §7).

Owns the walk from the first element to the last octet, the verdict whether the data set is whole, and the raw values of
the few top-level elements that somebody wants. Refuses to decode values, to judge their content, to read pixel data,
and to raise for anything that octets can say: what is wrong with them is a value.

Theory of operation. A walk sees its source through a window: all of it when it is in memory, else 64 KiB fetched by
`read_at`. The top level is one tight loop over precompiled headers; running out of the window is the struct.error that
costs nothing until it happens. Elements of defined length are stepped over, sequences among them, so their inside is
not judged; elements of undefined length are followed to their delimiter, with a counter instead of recursion: odd depth
is inside a sequence, even depth inside an item. A deflated data set is inflated twice when it is big, once to learn its
size and that it ends, once to walk it, so that memory stays bounded.

What a walk cannot see: a cut that falls exactly between two top-level elements leaves a shorter, whole data set.
"""

import zlib
from collections.abc import Callable
from functools import lru_cache
from mmap import mmap
from struct import Struct as Layout
from struct import error as OutOfWindow
from typing import Literal

from msgspec import Struct

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

MAX_DEPTH = 64  # sequences within sequences; the deepest that anyone has published stays under 10
MAX_INFLATED_OCTETS = 256 << 20
MAX_VALUE_OCTETS = 64 << 10  # a wanted value longer than this is left out
WINDOW_OCTETS = 64 << 10
PEEK_OCTETS = 4 << 10  # the window after a jump, when what follows is unlikely to be all wanted

_UNDEFINED = 0xFFFFFFFF
_NEVER = 1 << 62
_SHORT_VRS = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"  # PS3.5 Table 7.1-2
_LONG_VRS = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"  # PS3.5 Table 7.1-1
_FRAGMENT_VRS = "OB OD OF OL OV OW"

State = Literal["whole", "truncated", "not dicom", "stopped"]
Memory = bytes | bytearray | memoryview | mmap
Values = dict[int, tuple[str, bytes]]


class Distant(Struct, frozen=True):
    """Octets that stay where they are: `read_at(offset, length)` gives at most `length` of the `size` octets."""

    read_at: Callable[[int, int], bytes]
    size: int


Source = Memory | Distant


class Walk(Struct, frozen=True, kw_only=True):
    """What a walk found.

    `state`: "whole" when the last element ends with the source; "truncated" when it ends, or breaks, earlier: at
    `offset`, for `reason`; "not dicom" when it never looked like a data set; "stopped" when `stop_after` was passed and
    the rest was not looked at. `values`: tag -> (VR, raw octets); the VR is "" where the encoding doesn't tell it.
    `encoding`: the transfer syntax UID whose element encoding was met, if that differs from the declared one.
    Offsets of a deflated data set count inflated octets.
    """

    state: State
    offset: int
    reason: str = ""
    values: Values
    encoding: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether every octet of the source is accounted for."""
        return self.state == "whole"


class _Coding(Struct, frozen=True, kw_only=True):
    """How element headers are written: one of three constants."""

    uid: str
    implicit: bool
    # implicit: tag as one number, length (4). explicit: tag, VR as one number (2), length (2)
    header: Callable[[Memory, int], tuple[int, ...]]
    # item and delimiters: tag, length (4), in all codings (PS3.5 §7.5)
    item_header: Callable[[Memory, int], tuple[int, ...]]
    long_length: Callable[[Memory, int], tuple[int, ...]]
    short: frozenset[int]
    long: dict[int, bool]  # VR -> whether an undefined length means fragments
    un: int
    item: int
    item_end: int
    sequence_end: int
    pixel_data: int
    names: dict[int, str]
    little: bool


def walk(
    source: Source,
    transfer_syntax_uid: str,
    *,
    offset: int = 0,
    wanted: frozenset[int] = frozenset(),
    stop_after: int | None = None,
) -> Walk:
    """Walks the data set that begins at `offset` of `source` and ends with it.

    `wanted`: tags as 0xGGGGEEEE, top level only. `stop_after`: the last tag of interest.
    # hot: 23 µs for a 9 kB CT of 76 elements, 10 of them wanted (see tests/wire/test_elements.py, slow)
    """
    if transfer_syntax_uid in DEFLATED:
        inflated = _inflate(source, offset)
        if isinstance(inflated, Walk):
            return inflated
        source, offset, transfer_syntax_uid = inflated, 0, EXPLICIT_LITTLE
    window = _Window(source, offset)
    coding = _coding(window, transfer_syntax_uid, offset)
    if coding is None:
        return Walk(state="not dicom", offset=offset, reason="no element at the start of the data set", values={})
    values: Values = {}
    try:
        state, end = _follow(window, coding, offset, wanted, stop_after, values)
    except _Broken as broken:
        return Walk(state="truncated", offset=broken.offset, reason=broken.reason, values=values)
    if end == offset:
        return Walk(state="truncated", offset=offset, reason="no data set", values=values)
    declared = _declared(transfer_syntax_uid)
    encoding = coding.uid if declared is not None and declared is not coding else ""
    return Walk(state=state, offset=end, values=values, encoding=encoding)


def guess(head: Memory) -> str | None:
    """The transfer syntax UID that the first element of a data set is written in; None when that is no element.

    Needs 8 octets. Where group and VR fit two readings, the smaller group number wins (PS3.5 §7.1).
    """
    if len(head) < 8:
        return None
    octets = bytes(head[:8])
    little, big = int.from_bytes(octets[:2], "little"), int.from_bytes(octets[:2], "big")
    if octets[4:6].decode("latin-1") in _ALL_VRS:
        return EXPLICIT_LITTLE if little <= big else EXPLICIT_BIG
    return IMPLICIT_LITTLE if 0 < little <= _LAST_FIRST_GROUP else None


class _Broken(Exception):
    """The walk cannot go on at `offset`."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset = offset
        self.reason = reason


class _Window:
    """The part of a source that is in memory: `octets`, beginning at `base` of it; `end` is where the source ends."""

    __slots__ = ("base", "end", "octets", "read_at")

    def __init__(self, source: Source, offset: int) -> None:
        self.base = 0
        if isinstance(source, Distant):
            self.read_at: Callable[[int, int], bytes] | None = source.read_at
            self.end = source.size
            self.octets: Memory = b""
            self.load(offset, WINDOW_OCTETS)
        else:
            self.read_at = None
            self.end = len(source)
            self.octets = source

    def load(self, offset: int, length: int) -> None:
        """Moves the window to `offset`. A source that has shrunk since ends here."""
        assert self.read_at is not None
        self.octets = self.read_at(offset, min(length, max(self.end - offset, 0)))
        self.base = offset

    def move(self, offset: int) -> bool:
        """Makes room after running out at `offset`; false when there is no more to see there."""
        if self.read_at is None or offset >= self.end:
            return False
        loaded = self.base + len(self.octets)
        if offset == self.base and loaded - offset >= 12:
            return False
        self.load(offset, WINDOW_OCTETS if offset <= loaded else PEEK_OCTETS)
        return len(self.octets) >= min(8, self.end - offset)

    def value(self, start: int, length: int) -> bytes | None:
        """The octets of a wanted value, or None when it is too long to be one."""
        if length > MAX_VALUE_OCTETS:
            return None
        begin = start - self.base
        if begin + length <= len(self.octets):
            return bytes(self.octets[begin : begin + length])
        return self.read_at(start, length) if self.read_at is not None else None


def _follow(
    window: _Window, coding: _Coding, at: int, wanted: frozenset[int], stop_after: int | None, values: Values
) -> tuple[State, int]:
    """Follows the top level from `at`. Gives "whole" or "stopped" and where that is. Raises _Broken."""
    follow = _follow_implicit if coding.implicit else _follow_explicit
    asked = _asked(wanted, coding.little)
    stop = _NEVER if stop_after is None else stop_after
    while True:
        at, done = follow(window, coding, at, asked, stop, values)
        if done:
            return "stopped", at
        if at == window.end:
            return "whole", at
        if not window.move(at):
            raise _Broken(at, "ends within an element header")


def _follow_explicit(
    window: _Window, coding: _Coding, at: int, asked: dict[int, int], stop: int, values: Values
) -> tuple[int, bool]:
    """Follows explicit VR elements until the window ends. Gives where, and whether `stop` was passed."""
    header, long_length, short, long = coding.header, coding.long_length, coding.short, coding.long
    octets, base = window.octets, window.base
    room = window.end - base
    position = at - base
    little = coding.little
    try:
        while True:
            tag, vr, length = header(octets, position)
            if vr in short:
                start = position + 8
            elif vr in long:
                (length,) = long_length(octets, position + 8)
                start = position + 12
                if length == _UNDEFINED:
                    if stop != _NEVER and _plain(tag, little) > stop:
                        return base + position, True
                    position = _skip(window, coding, base + start, vr == coding.un, long[vr]) - window.base
                    octets, base = window.octets, window.base
                    room = window.end - base
                    continue
            else:
                start, length = _odd_header(octets, position, coding, base)
            following = start + length
            if stop != _NEVER and _plain(tag, little) > stop:
                return base + position, True
            if following > room:
                raise _Broken(base + position, _beyond(tag, little, length, room - start))
            if tag in asked:
                value = window.value(base + start, length)
                if value is not None:
                    values[asked[tag]] = (coding.names.get(vr, "UN"), value)
            position = following
    except OutOfWindow:
        return base + position, False


def _follow_implicit(
    window: _Window, coding: _Coding, at: int, asked: dict[int, int], stop: int, values: Values
) -> tuple[int, bool]:
    """Follows implicit VR elements until the window ends. Gives where, and whether `stop` was passed."""
    header = coding.header
    octets, base = window.octets, window.base
    room = window.end - base
    position = at - base
    try:
        while True:
            tag, length = header(octets, position)
            if stop != _NEVER and _plain(tag, True) > stop:
                return base + position, True
            if length == _UNDEFINED:
                position = _skip(window, coding, base + position + 8, True, tag == coding.pixel_data) - window.base
                octets, base = window.octets, window.base
                room = window.end - base
                continue
            following = position + 8 + length
            if following > room:
                raise _Broken(base + position, _beyond(tag, True, length, room - position - 8))
            if not tag & 0xFFFF or tag & 0xFFFF == 0xFFFE:
                raise _Broken(base + position, f"no element can be {_name(tag, True)}")
            if tag in asked:
                value = window.value(base + position + 8, length)
                if value is not None:
                    values[asked[tag]] = ("", value)
            position = following
    except OutOfWindow:
        return base + position, False


def _skip(window: _Window, coding: _Coding, at: int, implicit: bool, fragments: bool) -> int:
    """Follows a value of undefined length that begins at `at` to the end of its delimiter. Raises _Broken.

    `implicit`: its items are written in implicit VR, whatever surrounds them (UN, PS3.5 §6.2.2 note 2, CP-246).
    `fragments`: it holds encapsulated fragments (PS3.5 §A.4), not items of elements.
    """
    depth = 1
    implicit_from = 1 if implicit else 2 * MAX_DEPTH + 2  # the depth from which on VRs are implicit
    inner = _IMPLICIT
    while True:
        octets, base = window.octets, window.base
        room = window.end - base
        position = at - base
        try:
            while True:
                if depth & 1:
                    tag, length = coding.item_header(octets, position)
                    if tag == coding.item:
                        if length != _UNDEFINED:
                            following = position + 8 + length
                            if following > room:
                                raise _Broken(base + position, _beyond(tag, coding.little, length, room - position - 8))
                            position = following
                        elif fragments:
                            raise _Broken(base + position, "a fragment of undefined length")
                        else:
                            depth += 1
                            position += 8
                    elif tag == coding.sequence_end:
                        depth -= 1
                        position += 8
                        fragments = False
                        if not depth:
                            return base + position
                        if depth < implicit_from - 1:
                            implicit_from = max(implicit_from, 0)
                        if depth + 1 == implicit_from:
                            implicit_from = 2 * MAX_DEPTH + 2
                    else:
                        raise _Broken(base + position, f"{_name(tag, coding.little)} where an item should begin")
                    continue
                at_depth = depth >= implicit_from
                if at_depth:
                    tag, length = inner.header(octets, position)
                    start = position + 8
                    is_end = tag == inner.item_end
                    vr = 0
                else:
                    tag, vr, length = coding.header(octets, position)
                    is_end = tag == coding.item_end
                    start = position + 8
                    if not is_end and vr not in coding.short:
                        if vr in coding.long:
                            (length,) = coding.long_length(octets, position + 8)
                            start = position + 12
                        else:
                            start, length = _odd_header(octets, position, coding, base)
                if is_end:
                    depth -= 1
                    position += 8
                    continue
                if length == _UNDEFINED:
                    depth += 1
                    if depth > 2 * MAX_DEPTH:
                        raise _Broken(base + position, f"sequences nested deeper than {MAX_DEPTH}")
                    if at_depth:
                        fragments = tag == inner.pixel_data
                    else:
                        fragments = coding.long.get(vr, False)
                        if vr == coding.un:
                            implicit_from = depth
                    position = start
                    continue
                following = start + length
                if following > room:
                    raise _Broken(base + position, _beyond(tag, coding.little, length, room - start))
                position = following
        except OutOfWindow:
            at = base + position
        if not window.move(at):
            raise _Broken(at, "ends within a sequence or its fragments")
