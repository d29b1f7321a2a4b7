"""A data set on its way through, with other elements: octets in, octets out, nothing kept that need not be.

Owns setting, deleting and replacing elements in every encoding, lengths that are right afterwards, and the record of
what was there before. Refuses to choose what is edited, to look at pixel data, and to guess: what it cannot do is
Uneditable, and then nothing that was given out is worth anything.

Theory of operation. A generator walks the elements over a buffer and is resumed when more octets have come. What stays
as it is goes out as one piece with what stands before it; a long value passes without being gathered. Without edits,
or where none applies, octets leave as they came. Only where something inside sequences may change are these entered:
then a sequence or item of defined length is written with undefined length, so that nothing has to be gathered to know
its size. In implicit VR and UN a sequence is known by PS3.6, by its undefined length, or by being a run of items to
its last octet. A deflated data set is inflated and deflated again as it passes.

Original Attributes Sequence (0400,0561) is written when its place is reached. So the originals of what stands behind
it, and of private elements, are not in it; a sequence in which UIDs were replaced is kept whole.
"""

import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from struct import error as OutOfWindow

from msgspec import Struct

from dcmsync.errors import Uneditable
from dcmsync.wire.codings import DEFLATED, EXPLICIT_LITTLE, IMPLICIT, UNDEFINED, Coding, name, plain
from dcmsync.wire.dataset import SPECIFIC_CHARACTER_SET, decode_text
from dcmsync.wire.elements import coding_of
from dcmsync.wire.making import (
    ITEM,
    TEXT_VRS,
    element,
    head_of,
    implied,
    is_kind,
    item,
    mark,
    octets_of,
    remapped,
    shown,
)
from dcmsync.wire.nesting import MAX_DEPTH, NO_GROUPS, Broken, beyond, follow_sequence, read_header
from dcmsync.wire.source import MAX_INFLATED_OCTETS, Window

MAX_GATHERED_OCTETS = 16 << 20  # the longest value that is taken as a whole: text, UIDs, originals
ORIGINAL_ATTRIBUTES = 0x04000561

_MODIFIED_ATTRIBUTES = 0x04000550
_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD
_ITEM_START = bytes.fromhex("FEFF00E0")
_UTF_8 = b"ISO_IR 192"
class Provenance(Struct, frozen=True, kw_only=True):
    """Who edits, and when, as Original Attributes Sequence says it (PS3.3 §C.12.1.1.9). `moment` is a DT."""

    system: str
    moment: str


class Rules(Struct, frozen=True, kw_only=True):
    """What becomes of each data set. `values`: tag -> (VR or VRs of PS3.6, text) on the top level; so is `deleted`.

    `remap`: the UID that a UID becomes, at every depth. Setting SpecificCharacterSet to ISO_IR 192 writes all text
    anew. With `provenance` the originals are kept.
    """

    values: Mapping[int, tuple[str, str]] = {}
    deleted: frozenset[int] = frozenset()
    remap: Callable[[str], str] | None = None
    provenance: Provenance | None = None


class Editor:
    """One data set. Feed it pieces, then end it; each gives what may go out: views of what was fed are among it."""

    def __init__(self, rules: Rules, transfer_syntax_uid: str) -> None:
        self._rules = rules
        is_deflated = transfer_syntax_uid in DEFLATED
        self._machine = _Machine(rules, EXPLICIT_LITTLE if is_deflated else transfer_syntax_uid)
        self._deflation = _Deflation(self._machine) if is_deflated else None

    def feed(self, pieces: Iterable[memoryview]) -> list[bytes | memoryview]:
        """Takes the next octets. Raises Uneditable."""
        try:
            return self._deflation.feed(pieces) if self._deflation else self._machine.feed(pieces)
        except Broken as broken:
            raise _not_whole(broken) from None

    def end(self) -> list[bytes | memoryview]:
        """All octets have come. Raises Uneditable."""
        try:
            return self._deflation.end() if self._deflation else self._machine.end()
        except Broken as broken:
            raise _not_whole(broken) from None


def _not_whole(broken: Broken) -> Uneditable:
    words = f"the data set is not whole: at octet {broken.offset}: {broken.reason}"
    return Uneditable(words, reason="truncated")


class _Deflation:
    """Around the machine for a deflated data set (PS3.5 §A.5)."""

    def __init__(self, machine: "_Machine") -> None:
        self._machine = machine
        self._inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        self._deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._inflated = 0
        self._size = 0

    def feed(self, pieces: Iterable[memoryview]) -> list[bytes | memoryview]:
        """As the machine does."""
        out: list[bytes | memoryview] = []
        for piece in pieces:
            left: bytes | memoryview = piece
            while left and not self._inflating.eof:
                try:
                    inflated = self._inflating.decompress(left, 1 << 20)
                except zlib.error:
                    raise Broken(self._inflated, "not deflated as declared") from None
                left = self._inflating.unconsumed_tail
                self._inflated += len(inflated)
                if self._inflated > MAX_INFLATED_OCTETS:
                    raise Broken(self._inflated, f"inflates to more than {MAX_INFLATED_OCTETS} octets")
                out += self._deflated(self._machine.feed([memoryview(inflated)]))
        return out

    def end(self) -> list[bytes | memoryview]:
        """As the machine does."""
        if not self._inflating.eof:
            raise Broken(self._inflated, "ends within the deflated data set")
        out = self._deflated(self._machine.end())
        out.append(self._deflating.flush())
        self._size += len(out[-1])
        return [*out, bytes(self._size & 1)]

    def _deflated(self, pieces: Iterable[bytes | memoryview]) -> list[bytes | memoryview]:
        out: list[bytes | memoryview] = [octets for piece in pieces if (octets := self._deflating.compress(piece))]
        self._size += sum(map(len, out))
        return out


_Steps = Generator[None, None, None]
"""Gives control back when octets are lacking."""


class _Header(Struct, frozen=True):
    """The header of an element, which is at hand. `inner`: how its items are written, where it is a sequence."""

    tag: int
    vr: str
    octets: int
    length: int
    inner: Coding | None
    has_fragments: bool


class _Machine:
    """The walk. `_at` is where it is in the buffer; what lies before it and behind `_copied` goes out as it is."""

    def __init__(self, rules: Rules, transfer_syntax_uid: str) -> None:
        self._rules = rules
        self._syntax = transfer_syntax_uid
        self._transcodes = SPECIFIC_CHARACTER_SET in rules.values
        self._is_deep = rules.remap is not None or self._transcodes
        self._groups = {tag >> 16 for tag in (*rules.values, *rules.deleted)}
        self._pending = sorted(rules.values)
        self._originals: dict[int, bytes] | None = {} if rules.provenance is not None else None
        self._is_recorded = False  # whether the place of the originals has been passed
        self._changes = 0
        self._out: list[bytes | memoryview] = []
        self._buffer = bytearray()
        self._base = self._at = self._copied = 0
        self._left = 0  # octets of a long value that are still to pass
        self._is_silent = False  # what passes is left out
        self._has_ended = False
        self._taped: bytearray | None = None  # an element as it came, for the originals
        self._tape_from = 0
        self._steps = self._data_set()
        next(self._steps)

    def feed(self, pieces: Iterable[memoryview]) -> list[bytes | memoryview]:
        """Takes the next octets. Raises Broken, Uneditable."""
        self._out = []
        for piece in pieces:
            passing, left = piece[: self._left], piece[self._left :]
            if passing:
                self._left -= len(passing)
                self._base += len(passing)
                self._tape(passing)
                if not self._is_silent:
                    self._out.append(passing)
            if not self._left:
                self._buffer += left
                next(self._steps)
                self._trim()
        return self._out

    def end(self) -> list[bytes | memoryview]:
        """All octets have come. Raises Broken, Uneditable."""
        self._out = []
        self._has_ended = True
        if self._left:
            raise Broken(self._base, f"{self._left} octets of a value are missing", is_cut=True)
        next(self._steps, None)
        self._flush()
        return self._out

    # The buffer

    @property
    def _offset(self) -> int:
        return self._base + self._at

    def _flush(self) -> None:
        if self._at > self._copied:
            if not self._is_silent:
                self._out.append(bytes(self._buffer[self._copied : self._at]))
            self._copied = self._at

    def _trim(self) -> None:
        self._flush()
        if self._taped is not None:
            self._tape(self._buffer[self._tape_from : self._at])
            self._tape_from = 0
        del self._buffer[: self._at]
        self._base += self._at
        self._at = self._copied = 0

    def _write(self, octets: bytes) -> None:
        self._flush()
        if octets:
            self._out.append(octets)

    def _drop(self, length: int) -> None:
        """Leaves out what is at hand."""
        self._flush()
        self._at += length
        self._copied = self._at

    def _need(self, length: int, what: str = "the header of an element") -> _Steps:
        while len(self._buffer) - self._at < length:
            if self._has_ended:
                raise Broken(self._offset, f"ends within {what}", is_cut=True)
            yield

    def _pass(self, length: int) -> _Steps:
        """Lets the next octets through, however many they are."""
        here = min(length, len(self._buffer) - self._at)
        self._at += here
        if here < length:
            self._left = length - here
            yield

    def _look(self, header: _Header) -> Generator[None, None, bytes]:
        """The value of the element at hand, which stays there. Raises Broken."""
        yield from self._need(header.octets + header.length, "a value")
        begin = self._at + header.octets
        return bytes(self._buffer[begin : begin + header.length])

    # The originals

    def _begin_tape(self, tag: int) -> None:
        if self._originals is not None and tag < ORIGINAL_ATTRIBUTES and not tag >> 16 & 1 and tag & 0xFFFF:
            self._taped, self._tape_from = bytearray(), self._at

    def _tape(self, octets: bytes | bytearray | memoryview) -> None:
        if self._taped is not None:
            self._taped += octets
            if len(self._taped) > MAX_GATHERED_OCTETS:
                words = f"an original value of more than {MAX_GATHERED_OCTETS >> 20} MiB cannot be kept"
                raise Uneditable(words)

    def _end_tape(self) -> bytes:
        """The element as it came, b"" where it was not taped."""
        if self._taped is None:
            return b""
        self._tape(self._buffer[self._tape_from : self._at])
        taped, self._taped = bytes(self._taped), None
        return taped

    def _keep(self, tag: int, original: bytes) -> None:
        if original and self._originals is not None:
            self._originals.setdefault(tag, original)

    def _record(self, coding: Coding) -> bytes:
        """The item of Original Attributes Sequence, b"" where nothing was replaced."""
        self._is_recorded = True
        provenance = self._rules.provenance
        if not self._originals or provenance is None:
            return b""
        inside = b"".join(octets for _, octets in sorted(self._originals.items()))
        return item(coding, b"".join((
            element(coding, _MODIFIED_ATTRIBUTES, "SQ", item(coding, inside)),
            element(coding, 0x04000562, "DT", provenance.moment.encode("ascii")),
            element(coding, 0x04000563, "LO", provenance.system.encode("ascii")),
            element(coding, 0x04000564, "LO", b""),  # Source of Previous Values
            element(coding, 0x04000565, "CS", b"COERCE"),
        )))  # fmt: skip

    # The walk

    def _data_set(self) -> _Steps:
        yield from self._need(8, "the first element")
        coding = coding_of(Window(bytes(self._buffer[:8]), 0), self._syntax, 0)
        if coding is None:
            raise Broken(0, "no element where the data set should begin")
        character_set = yield from self._elements(coding, None, b"", 0)
        self._insert(coding, 1 << 32, character_set)

    def _elements(
        self, coding: Coding, limit: int | None, character_set: bytes, depth: int, *, is_delimited: bool = False
    ) -> Generator[None, None, bytes]:
        """Walks the data set, or an item up to `limit` or its delimiter. Gives the character set that held last."""
        # hot: once for each element of what is edited
        while is_delimited or self._offset != limit:
            while not depth and self._at == len(self._buffer):
                if self._has_ended:
                    return character_set
                yield
            yield from self._need(8)
            if depth and coding.item_header(self._buffer, self._at)[0] == coding.item_end:
                if not is_delimited and self._offset + 8 != limit:
                    raise Broken(self._offset, "an item ends before its length says")
                self._leave(8)
                return character_set
            header = yield from self._header(coding)
            length = 0 if header.length == UNDEFINED else header.length
            if limit is not None and self._offset + header.octets + length > limit:
                raise Broken(self._offset, "an element reaches beyond what holds it")
            if not depth:
                self._insert(coding, header.tag, character_set)
            if header.tag == SPECIFIC_CHARACTER_SET and header.length <= MAX_GATHERED_OCTETS:
                character_set = yield from self._look(header)
            if not depth and self._is_ours(header.tag):
                yield from self._replace(coding, header, character_set)
            elif header.inner is not None:
                yield from self._sequence(coding, header, limit, character_set, depth)
            else:
                yield from self._value(coding, header, limit, character_set, depth)
        return character_set

    def _header(self, coding: Coding) -> Generator[None, None, _Header]:
        """The header at hand. Raises Broken."""
        while True:
            try:
                start, length, inner, has_fragments = read_header(self._buffer, self._at, coding, self._base)
                break
            except OutOfWindow:
                yield from self._need(len(self._buffer) - self._at + 1)
        raw, *rest = coding.header(self._buffer, self._at)
        tag = plain(raw, coding)
        if tag >> 16 in NO_GROUPS:
            raise Broken(self._offset, f"{name(raw, coding)} where an element should begin")
        vr = implied(tag) if coding.implicit else coding.names.get(rest[0], "")
        if coding.implicit and vr == "SQ" and not has_fragments:
            inner = coding
        return _Header(tag, vr, start - self._at, length, inner, has_fragments)

    @property
    def _enters(self) -> bool:
        """Whether something inside sequences may change."""
        return self._is_deep and not self._is_silent

    def _leave(self, octets: int) -> None:
        """Passes the delimiter of an item; where items are written anew, they get another."""
        if self._enters:
            self._drop(octets)
        else:
            self._at += octets

    # The top level

    def _is_ours(self, tag: int) -> bool:
        """Whether an element of the top level is replaced or left out."""
        if not tag & 0xFFFF:  # a group length, which may be wrong now (retired; PS3.5 §7.2)
            return self._is_deep or tag >> 16 in self._groups
        return tag in self._rules.values or tag in self._rules.deleted

    def _replace(self, coding: Coding, header: _Header, character_set: bytes) -> _Steps:
        """Leaves an element out, and writes the one that takes its place."""
        tag = header.tag
        self._begin_tape(tag)
        self._flush()
        self._is_silent = True
        if header.length == UNDEFINED:
            yield from self._sequence(coding, header, None, character_set, 0)
        else:
            yield from self._pass(header.octets + header.length)
        self._flush()
        self._is_silent = False
        original, replacing = self._end_tape(), b""
        if tag in self._pending:
            self._pending.remove(tag)
            replacing = self._new(coding, tag, character_set, header.vr)
            self._write(replacing)
        if original != replacing:
            self._keep(tag, original)

    def _insert(self, coding: Coding, before: int, character_set: bytes) -> None:
        """Writes what stands before this tag and was not there."""
        while self._pending and self._pending[0] < before:
            self._write(self._new(coding, self._pending.pop(0), character_set, ""))
        if before > ORIGINAL_ATTRIBUTES and not self._is_recorded:
            item = self._record(coding)
            if item:
                self._write(element(coding, ORIGINAL_ATTRIBUTES, "SQ", item))

    def _new(self, coding: Coding, tag: int, character_set: bytes, stated: str) -> bytes:
        """The element that is set. `stated`: the VR of the one that was there. Raises Uneditable."""
        vrs, text = self._rules.values[tag]
        alternatives = vrs.split(" or ")
        vr = stated if stated in alternatives else alternatives[0]
        if vr == "US" and "-" in text:
            vr = "SS"
        octets = octets_of(vr, text, _UTF_8 if self._transcodes else character_set, little=coding.little)
        if octets is None:
            words = f"{shown(tag)}: the character set of the data set cannot say the new value"
            raise Uneditable(f"{words}: set SpecificCharacterSet to ISO_IR 192 with it")
        return element(coding, tag, vr, octets)

    # Sequences

    def _sequence(
        self, coding: Coding, header: _Header, limit: int | None, character_set: bytes, depth: int
    ) -> _Steps:
        """Passes a value of items or of fragments; written anew where something in it may change."""
        inner = header.inner or IMPLICIT
        is_delimited = header.length == UNDEFINED
        is_record = not depth and header.tag == ORIGINAL_ATTRIBUTES and not self._is_silent
        ours = self._record(coding) if is_record else b""
        if not is_delimited and not (ours or (self._enters and header.length)):
            yield from self._pass(header.octets + header.length)
            return
        if depth == MAX_DEPTH:
            raise Broken(self._offset, f"sequences nested deeper than {MAX_DEPTH}")
        changes = self._changes
        if not depth and not self._is_silent and self._enters:
            self._begin_tape(header.tag)
        end = limit if is_delimited else self._offset + header.octets + header.length
        if is_delimited:
            self._at += header.octets
        else:
            self._drop(header.octets)
            self._write(head_of(coding, header.tag, header.vr or "SQ", UNDEFINED))
        if header.has_fragments:
            yield from self._fragments(inner)
        else:
            last = ours if ours or not is_delimited else None
            yield from self._items(inner, end, character_set, depth, last=last, is_delimited=is_delimited)
        if not depth and not self._is_silent:
            original = self._end_tape()
            if self._changes != changes:
                self._keep(header.tag, original)

    def _items(
        self, coding: Coding, end: int | None, character_set: bytes, depth: int, *, last: bytes | None,
        is_delimited: bool,
    ) -> _Steps:  # fmt: skip
        """Passes items up to `end` or the delimiter; with `last`, that and a delimiter of ours are written then."""
        while is_delimited or self._offset != end:
            yield from self._need(8, "a sequence")
            raw, length = coding.item_header(self._buffer, self._at)
            if raw == coding.sequence_end and (is_delimited or self._offset + 8 == end):
                if last is None:
                    self._at += 8
                else:
                    self._drop(8)
                break
            if raw != coding.item:
                raise Broken(self._offset, f"{name(raw, coding)} where an item should begin")
            room = None if end is None else end - self._offset - 8
            if room is not None and (room < 0 or (length != UNDEFINED and length > room)):
                raise Broken(self._offset, beyond(raw, coding, length, room))
            if length != UNDEFINED and not self._enters:
                yield from self._pass(8 + length)
                continue
            limit = end if length == UNDEFINED else self._offset + 8 + length
            self._leave(8)
            if self._enters:
                self._write(mark(coding, ITEM, UNDEFINED))
            yield from self._elements(coding, limit, character_set, depth + 1, is_delimited=length == UNDEFINED)
            if self._enters:
                self._write(mark(coding, _ITEM_END, 0))
        if last is not None:
            self._write(last)
            self._write(mark(coding, _SEQUENCE_END, 0))

    def _fragments(self, coding: Coding) -> _Steps:
        """Passes encapsulated pixel data (PS3.5 §A.4)."""
        while True:
            yield from self._need(8, "encapsulated pixel data")
            raw, length = coding.item_header(self._buffer, self._at)
            if raw == coding.sequence_end:
                self._at += 8
                return
            if raw != coding.item or length == UNDEFINED:
                raise Broken(self._offset, f"{name(raw, coding)} where a fragment should begin")
            yield from self._pass(8 + length)

    # Values

    def _value(
        self, coding: Coding, header: _Header, limit: int | None, character_set: bytes, depth: int
    ) -> _Steps:
        """Passes a value that is no sequence by its header; replaced where its UIDs or its text change."""
        size = header.octets + header.length
        if not self._enters or header.length > MAX_GATHERED_OCTETS or not header.length:
            yield from self._pass(size)
            return
        if not header.tag & 0xFFFF:  # the length of a group within an item
            yield from self._need(size, "a value")
            self._drop(size)
            return
        vr = header.vr if header.vr not in ("UN", "") else implied(header.tag)
        if vr in ("UN", "SQ"):
            if (yield from self._has_items(header)):
                entered = _Header(header.tag, header.vr, header.octets, header.length, IMPLICIT, has_fragments=False)
                yield from self._sequence(coding, entered, limit, character_set, depth)
            else:
                yield from self._pass(size)
            return
        octets: bytes | None = None
        if vr == "UI" or vr in TEXT_VRS or header.tag == SPECIFIC_CHARACTER_SET:
            old = yield from self._look(header)
            octets = self._changed(header.tag, vr, old, character_set)
        if octets is None:
            yield from self._pass(size)
            return
        if vr == "UI":
            self._changes += 1
            if not depth:
                self._begin_tape(header.tag)
        self._drop(size)
        if not depth:
            self._keep(header.tag, self._end_tape())
        padded = octets + b"\0" * (vr == "UI" and len(octets) & 1)  # also where the encoding calls it UN
        self._write(element(coding, header.tag, header.vr or vr, padded))

    def _has_items(self, header: _Header) -> Generator[None, None, bool]:
        """Whether a value without a VR is a run of items to its last octet, in implicit VR little endian."""
        if header.length < 8:
            return False
        yield from self._need(header.octets + 8, "a value")
        if not self._buffer.startswith(_ITEM_START, self._at + header.octets):
            return False
        value = yield from self._look(header)
        try:
            follow_sequence(Window(value, 0), IMPLICIT, 0, header.length, is_delimited=False)
        except Broken:
            return False
        return True

    def _changed(self, tag: int, vr: str, old: bytes, character_set: bytes) -> bytes | None:
        """What a value becomes; None where it stays. Raises Uneditable."""
        if tag == SPECIFIC_CHARACTER_SET:
            return _UTF_8 if self._transcodes and old.strip(b"\0 ") != _UTF_8 else None
        if vr == "UI":
            return None if self._rules.remap is None or is_kind(tag) else remapped(old, self._rules.remap)
        if not self._transcodes or (old.isascii() and b"\x1b" not in old):
            return None
        text = decode_text(vr, old, character_set)
        if "\ufffd" in text:
            raise Uneditable(f"{shown(tag)}: text that is not in the character set of the data set")
        return text.encode()
