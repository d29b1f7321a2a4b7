"""Everything in a file, from group 0002 to the last element, as a stream of what is met: the reader behind `dump`.

Owns reading elements at every depth, with their VR, their values, and the character set that holds for them. Refuses
to raise for anything that octets can say, to keep what was given out, and to read bulk data that nobody asked for:
a value that is left where it is gives its first octets, its offset and its length.

Theory of operation. A list of open levels takes the place of recursion; each has the octet that nothing in it may
pass. Events are balanced whatever happens: what breaks the reading off closes the open levels first, then stands in
`reason`. Implicit VR takes its VRs from PS3.6; what is not in there is UN, or a sequence if its length is undefined.
A deflated data set is inflated as it is read, and from its start again when somebody goes back for bulk data.
"""

import zlib
from collections.abc import Generator, Iterator
from functools import lru_cache
from struct import error as OutOfWindow

from msgspec import Struct

from dcmsync.wire.codings import CODINGS, DEFLATED, EXPLICIT_LITTLE, IMPLICIT, UNDEFINED, Coding, name
from dcmsync.wire.dataset import SPECIFIC_CHARACTER_SET, described
from dcmsync.wire.elements import State, Walk, coding_of
from dcmsync.wire.nesting import MAX_DEPTH, NO_GROUPS, Broken, beyond, odd_header
from dcmsync.wire.part10 import NO_HEAD, PREAMBLE_OCTETS, Head, parse_file
from dcmsync.wire.source import MAX_INFLATED_OCTETS, WINDOW_OCTETS, Distant, Inflating, Source, Window

BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
MAX_INLINE_OCTETS = 256  # a value of a bulk VR that is longer stays where it is
MAX_TEXT_OCTETS = 16 << 20  # and so does any other that is longer than this
HEAD_OCTETS = 64  # what is given of a value that stays where it is
CHUNK_OCTETS = 3 << 18  # a multiple of 3, for base64, and of 8, for swapping

_PIXEL_DATA = 0x7FE00010
_PIXEL_REPRESENTATION = 0x00280103
_ITEM_DELIMITER = 0xFFFEE00D


class Element(Struct, frozen=True):
    """One element with a value. `octets`: all of it, or the beginning of a value that stays where it is: at `start`.

    `vr` is stated by the encoding, or taken from PS3.6: `is_stated`. `little` tells the order of numbers in the value.
    `character_set` is the raw (0008,0005) that holds here.
    """

    tag: int
    vr: str
    is_stated: bool
    little: bool
    start: int
    length: int
    octets: bytes
    character_set: bytes

    @property
    def is_here(self) -> bool:
        """Whether `octets` is the whole value."""
        return len(self.octets) == self.length


class Opened(Struct, frozen=True):
    """A sequence of items, or encapsulated pixel data (`has_fragments`), begins. `length` may be undefined."""

    tag: int
    vr: str
    length: int
    start: int
    has_fragments: bool = False


class Item(Struct, frozen=True):
    """An item begins; `number` counts from 1."""

    number: int
    length: int


class Fragment(Struct, frozen=True):
    """A fragment of encapsulated pixel data, `length` octets at `start`; number 1 is the offset table (PS3.5 §A.4)."""

    number: int
    start: int
    length: int
    octets: bytes


class ItemEnd(Struct, frozen=True):
    """The item ends."""


class Closed(Struct, frozen=True):
    """The sequence or the encapsulated pixel data ends; its value field did at `end`."""

    end: int


Event = Element | Opened | Item | Fragment | ItemEnd | Closed
_ITEM_END = ItemEnd()


class Contents:
    """The contents of one file. Iterate over `meta()`, then `data_set()`; afterwards `state` and `reason` are true.

    `state`: "whole", "truncated" (at octet `offset`, for `reason`: what came before was given), or "not dicom".
    `is_deflated`: offsets in the data set count inflated octets.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window = Window(source, 0)
        self.state: State = "whole"
        self.reason = ""
        self.offset = 0
        parsed = parse_file(self._window)
        if isinstance(parsed, Walk):
            self.state, self.reason, self.offset = parsed.state, parsed.reason, parsed.offset
        self.head: Head = NO_HEAD if isinstance(parsed, Walk) else parsed
        self.is_deflated = self.head.transfer_syntax_uid in DEFLATED

    def meta(self) -> Iterator[Event]:
        """Group 0002; nothing where the file lacks it."""
        if self.state == "not dicom":
            return
        window = self._window
        at = PREAMBLE_OCTETS + 4 if window.peek(PREAMBLE_OCTETS, 4) == b"DICM" else 4 * (window.peek(0, 4) == b"DICM")
        end = self.head.data_set_offset if self.state == "whole" else len(window.octets)
        yield from self._read(window, CODINGS[EXPLICIT_LITTLE], at, end, kept=MAX_TEXT_OCTETS)

    def data_set(self) -> Iterator[Event]:
        """The data set, as far as it can be read."""
        if self.state != "whole":
            return
        at, uid = self.head.data_set_offset, self.head.transfer_syntax_uid
        trouble = ""
        if self.is_deflated:
            self._source, trouble = inflated(self._source, at)
            self._window, at, uid = Window(self._source, 0), 0, EXPLICIT_LITTLE
        window = self._window
        coding = coding_of(window, uid, at) if at < window.end else None
        if coding is None:
            self._fail(at, trouble or "no data set")
            return
        yield from self._read(window, coding, at, window.end)
        if trouble:
            self._fail(window.end, trouble)
        if self.reason and not self.head.has_prefix and self.offset == at:
            self.state = "not dicom"

    def chunks(self, start: int, length: int) -> Iterator[bytes]:
        """The octets of a value of the data set that stayed where it is. Fewer, if the file has become shorter."""
        for at in range(start, start + length, CHUNK_OCTETS):
            size = min(CHUNK_OCTETS, start + length - at)
            if isinstance(self._source, Distant):
                yield self._source.read_at(at, size)
            else:
                yield bytes(self._source[at : at + size])

    def _fail(self, offset: int, reason: str) -> None:
        self.state, self.offset, self.reason = "truncated", offset, reason

    def _read(
        self, window: Window, coding: Coding, at: int, end: int, *, kept: int = MAX_INLINE_OCTETS
    ) -> Iterator[Event]:
        """The events of the elements from `at` to `end`. Of the top level, no bulk data up to `kept` octets stays."""
        nest = [_Level(coding=coding, limit=end, is_item=True, kept=kept)]
        try:
            while nest:
                level = nest[-1]
                at, opened = yield from (_elements if level.is_item else _items)(window, level, at)
                if opened is None:
                    nest.pop()
                    if level.is_item and nest:
                        yield _ITEM_END
                    continue
                nest.append(opened)
                if len(nest) > 2 * MAX_DEPTH:
                    raise Broken(at, f"sequences nested deeper than {MAX_DEPTH}")
        except Broken as broken:
            self._fail(broken.offset, broken.reason)
            for level in reversed(nest[1:]):
                yield _ITEM_END if level.is_item else Closed(broken.offset)


def inflated(source: Source, offset: int) -> tuple[Distant, str]:
    """The deflated data set at `offset`, as far as it can be inflated, and what is wrong with it, in words or ""."""
    stream = Inflating(source, offset)
    size, trouble = 0, ""
    try:
        while octets := stream.read_at(size, WINDOW_OCTETS):
            size += len(octets)
            if size > MAX_INFLATED_OCTETS:
                trouble = f"inflates to more than {MAX_INFLATED_OCTETS} octets"
                break
    except zlib.error:
        trouble = "not deflated as declared"
    if not stream.is_complete:
        trouble = trouble or "ends within the deflated data set"
    return Distant(_Again(source, offset).read_at, size), trouble


class _Again:
    """Inflates anew when an offset lies before the one asked for last."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self._offset = offset
        self._stream = Inflating(source, offset)
        self._last = 0

    def read_at(self, offset: int, length: int) -> bytes:
        """At most `length` inflated octets from `offset` on."""
        if offset < self._last:
            self._stream = Inflating(self._source, self._offset)
        self._last = offset
        return self._stream.read_at(offset, length)


class _Level(Struct, kw_only=True):
    """An item (the data set is one), or a sequence, that has begun. Nothing in it passes `limit`."""

    coding: Coding
    limit: int
    is_item: bool
    is_delimited: bool = False
    has_fragments: bool = False
    is_signed: bool = False  # what `US or SS` means (PS3.3 §C.7.6.3)
    count: int = 0
    character_set: bytes = b""
    kept: int = MAX_INLINE_OCTETS


_Steps = Generator[Event, None, tuple[int, _Level | None]]
"""Gives where it went, and the level that opens there; None behind the end of its own."""


def _items(window: Window, level: _Level, at: int) -> _Steps:
    """Steps over the fragments of a sequence, and into its next item. Raises Broken.

    What is longer than the file is entered all the same: its beginning is there.
    """
    coding, limit, is_delimited = level.coding, level.limit, level.is_delimited
    while at != limit or is_delimited:
        try:
            tag, length = coding.item_header(window.octets, at - window.base)
        except OutOfWindow:
            if not window.move(at):
                raise Broken(at, "ends within a sequence", is_cut=True) from None
            continue
        start = at + 8
        if start > limit:
            raise Broken(at, "ends within the header of an item")
        if tag == coding.sequence_end and (is_delimited or start == limit):
            yield Closed(at)
            return start, None
        if tag != coding.item:
            raise Broken(at, f"{name(tag, coding)} where an item should begin")
        is_open = length == UNDEFINED and not level.has_fragments
        room = min(limit, window.end) - start
        if not is_open and length > room and (level.has_fragments or limit < window.end):
            raise Broken(at, beyond(tag, coding, length, room))
        level.count += 1
        if not level.has_fragments:
            yield Item(level.count, length)
            return start, _Level(coding=coding, limit=limit if is_open else start + length, is_item=True,
                                 is_delimited=is_open, is_signed=level.is_signed, character_set=level.character_set)
        yield Fragment(level.count, start, length, _octets(window, start, min(length, HEAD_OCTETS)))
        at = start + length
    yield Closed(at)
    return at, None


def _elements(window: Window, level: _Level, at: int) -> _Steps:
    """Steps over the elements of an item, and into the next sequence. Raises Broken."""
    # hot: once for each element of every file
    coding, limit = level.coding, level.limit
    little, is_delimited, is_implicit = coding.little, level.is_delimited, coding.implicit
    header, short, names = coding.header, coding.short, coding.names
    while at != limit or is_delimited:
        position = at - window.base
        try:
            if is_implicit:
                raw, length = header(window.octets, position)
                start = at + 8
            else:
                raw, number, length = header(window.octets, position)
                start = at + 8
                if number not in short and raw != coding.item_end:
                    if number in coding.long:
                        (length,) = coding.long_length(window.octets, position)
                        start = at + 12
                    else:
                        begin, length = odd_header(window.octets, position, coding, window.base)
                        start = window.base + begin
                vr = names.get(number, "UN")
        except OutOfWindow:
            if not window.move(at):
                raise Broken(at, "ends within the header of an element", is_cut=True) from None
            continue
        tag = (raw & 0xFFFF) << 16 | raw >> 16 if little else raw
        if tag == _ITEM_DELIMITER and (is_delimited or start == limit):
            return start, None
        if tag >> 16 in NO_GROUPS:
            raise Broken(at, f"{name(raw, coding)} where an element should begin")
        if is_implicit:
            vr = _implied(tag, level.is_signed)
        room = min(limit, window.end) - start
        if room < 0 or (length > room and length != UNDEFINED and (vr != "SQ" or limit < window.end)):
            raise Broken(at, beyond(raw, coding, length, room))
        if length == UNDEFINED or vr == "SQ":
            is_bulk = tag == _PIXEL_DATA if is_implicit else coding.long.get(number, False)
            has_fragments = is_bulk and length == UNDEFINED
            is_our_own = is_implicit or has_fragments or vr == "SQ"
            inner = coding if is_our_own else IMPLICIT  # PS3.5 §6.2.2 note 2 (CP-246)
            yield Opened(tag, vr if has_fragments else "SQ", length, start, has_fragments)
            return start, _Level(
                coding=inner, limit=limit if length == UNDEFINED else start + length, is_item=False,
                is_delimited=length == UNDEFINED, has_fragments=has_fragments, is_signed=level.is_signed,
                character_set=level.character_set,
            )
        kept = level.kept if vr in BULK_VRS else MAX_TEXT_OCTETS
        octets = _octets(window, start, length if length <= kept else HEAD_OCTETS)
        if tag == SPECIFIC_CHARACTER_SET:
            level.character_set = octets
        elif tag == _PIXEL_REPRESENTATION:
            level.is_signed = octets[:1] == b"\1" if little else octets[1:2] == b"\1"
        yield Element(tag, vr, not is_implicit, little, start, length, octets, level.character_set)
        at = start + length
    return at, None


def _octets(window: Window, start: int, length: int) -> bytes:
    """The octets at `start`, from the window or from the source behind it. Raises Broken."""
    begin = start - window.base
    octets = bytes(window.octets[begin : begin + length])
    if len(octets) < length and isinstance(window.source, Distant):
        octets = window.source.read_at(start, length)
    if len(octets) < length:
        raise Broken(start, "the file has become shorter", is_cut=True)
    return octets


@lru_cache(maxsize=4096)
def _implied(tag: int, is_signed: bool) -> str:
    """The VR that implicit VR leaves to PS3.6 (PS3.5 §A.1, §7.8.1)."""
    group, number = tag >> 16, tag & 0xFFFF
    if not number:
        return "UL"
    if group & 1:
        return "LO" if 0x10 <= number <= 0xFF else "UN"
    known = described(tag)[0]
    if known == "US or SS":
        return "SS" if is_signed else "US"
    return known.rpartition(" ")[2] or "UN"  # `OB or OW`, `US or OW`: OW
