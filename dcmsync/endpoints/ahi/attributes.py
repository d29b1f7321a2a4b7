"""Elements made of what the metadata of an image set says (PS3.5 §7.1.2): values as JSON has them, by keyword.

Owns which value representation a value has, and its octets. What cannot be written as it was (its representation is not
known, or the value does not fit it) is left out, and named: nothing is guessed, and nothing goes in silence. Refuses to
know what the elements are made for, and pixel data at the top.

Theory of operation. Text is written in the character set that the metadata names, where that can say all of it; else
all of it in UTF-8, and (0008,0005) says so. Private elements have the representation that is told beside them.
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from struct import Struct as Layout
from struct import error as DoesNotFit

from msgspec import Struct

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire import dataset, making
from dcmsync.wire.codings import CODINGS, EXPLICIT_LITTLE

CODING = CODINGS[EXPLICIT_LITTLE]
PIXEL_DATA = 0x7FE00010
_OFFSET_TABLES = range(0x7FE00001, 0x7FE00004)  # they tell where frames were (PS3.3 §C.7.6.3)
_MAX_DEPTH = 32
_MOST_SHORT_OCTETS = 0xFFFE
_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?")
_NAME = re.compile(r"[0-9A-Za-z]{1,64}")
_UTF_8 = "ISO_IR 192"
_INTEGERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q"}
_FLOATS = {"FL": "f", "FD": "d"}
_OCTETS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_TEXTS = frozenset((
    "AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT",
))  # fmt: skip
_SHORT_VRS = frozenset((*_INTEGERS, *_FLOATS, *_TEXTS, "AT")) - {"UC", "UR", "UT", "UV", "SV"}

Values = Mapping[str, object]


class Elements(Struct, frozen=True, kw_only=True):
    """The elements before pixel data and those after. `left_out` names those that could not be written."""

    before: bytes
    after: bytes
    left_out: tuple[str, ...]


def elements(values: Values, vrs: Mapping[str, str]) -> Elements:
    """The elements of a data set, in order. `vrs`: by 8 digits, of attributes that PS3.6 does not know.

    Raises RemoteProtocolError when sequences are nested too deeply.
    """
    try:
        writer = _Writer(vrs, values, is_utf_8=False)
        found = writer.elements(values)
    except _Unsayable:
        writer = _Writer(vrs, values, is_utf_8=True)
        found = writer.elements({"SpecificCharacterSet": _UTF_8, **values})
    return Elements(
        before=b"".join(found[tag] for tag in sorted(found) if tag < PIXEL_DATA),
        after=b"".join(found[tag] for tag in sorted(found) if tag > PIXEL_DATA),
        left_out=tuple(writer.left_out),
    )


class _Unsayable(Exception):
    """A text that its character set cannot say."""


class _Writer:
    """Writes one data set, with its items."""

    def __init__(self, vrs: Mapping[str, str], values: Values, *, is_utf_8: bool) -> None:
        self.left_out: list[str] = []
        self._vrs = {name.upper(): vr for name, vr in vrs.items()}
        self._is_signed = values.get("PixelRepresentation") in (1, "1")
        self._is_utf_8 = is_utf_8

    def elements(self, values: Values, character_set: bytes = b"", depth: int = 0) -> dict[int, bytes]:
        """Elements by tag. Raises _Unsayable, RemoteProtocolError."""
        if depth > _MAX_DEPTH:
            raise RemoteProtocolError("its sequences are nested too deeply")
        if "SpecificCharacterSet" in values:
            character_set = _octets("CS", values["SpecificCharacterSet"], b"") or b""
        if self._is_utf_8:
            character_set = _UTF_8.encode()
        found: dict[int, bytes] = {}
        for name, value in values.items():
            tag = _tag_of(name)
            if tag is not None and _is_made_anew(tag, depth):
                continue
            written = None
            if tag is not None and tag not in found and 0x0008 <= tag >> 16 < 0xFFFE:
                value = _UTF_8 if tag == dataset.SPECIFIC_CHARACTER_SET and self._is_utf_8 else value
                written = self._element(tag, value, values, character_set, depth)
            if tag is None or written is None:
                self.left_out.append(name if _NAME.fullmatch(name) else "?")
            else:
                found[tag] = written
        return found

    def _element(self, tag: int, value: object, beside: Values, character_set: bytes, depth: int) -> bytes | None:
        """One element; None where it cannot be written as it was."""
        if value is None or value == []:
            vr = next(iter(self._representations(tag, [], beside)), "UN")
            return making.head_of(CODING, tag, vr, 0)
        for vr in self._representations(tag, value, beside):
            octets = self._sequence(value, character_set, depth) if vr == "SQ" else _octets(vr, value, character_set)
            if octets is not None:
                octets += (b"\0" if vr in _OCTETS or vr == "UI" else b" ") * (len(octets) & 1)
                vr = "UN" if vr in _SHORT_VRS and len(octets) > _MOST_SHORT_OCTETS else vr  # PS3.5 §6.2.2, Note 2
                return making.head_of(CODING, tag, vr, len(octets)) + octets
        return None

    def _sequence(self, value: object, character_set: bytes, depth: int) -> bytes | None:
        """The items of a sequence."""
        if not _are_items(value):
            return None
        items = (self.elements(item, character_set, depth + 1) for item in _several(value) if isinstance(item, dict))
        return b"".join(making.item(CODING, b"".join(item[tag] for tag in sorted(item))) for item in items)

    def _representations(self, tag: int, value: object, beside: Values) -> Iterable[str]:
        """The VRs that an element may have, the likeliest first; none where nothing tells."""
        told = dataset.described(tag)[0] or self._vrs.get(f"{tag:08X}", "")
        if not told and tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
            told = "LO"  # a private creator (PS3.5 §7.8.1)
        if not told:
            return ("SQ",) if value != [] and _are_items(value) else ()
        may_be = told.split(" or ")
        if self._is_signed and "SS" in may_be:
            may_be.sort(key="SS".__ne__)
        if may_be == ["OB", "OW"] and beside.get("WaveformBitsAllocated", 16) != 8:
            may_be.reverse()
        return may_be


def _is_made_anew(tag: int, depth: int) -> bool:
    """Whether an element is of the file that was, and has no meaning beside other octets: lengths, places, pixels."""
    return not tag & 0xFFFF or tag >> 16 == 0x0002 or (not depth and (tag == PIXEL_DATA or tag in _OFFSET_TABLES))


def _tag_of(name: str) -> int | None:
    return int(name, 16) if _HEX.fullmatch(name) else dataset.tag_known(name)


def _several(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _are_items(value: object) -> bool:
    return all(isinstance(item, dict) and "BulkDataURI" not in item for item in _several(value))


def _octets(vr: str, value: object, character_set: bytes) -> bytes | None:
    """The octets of a value, unpadded; None where it does not fit its VR. Raises _Unsayable."""
    try:
        if vr in _OCTETS:
            return b64decode(value, validate=True) if isinstance(value, str) else None
        if vr in _TEXTS:
            return _text(value, vr, character_set)
        if vr == "AT":
            halves = [half for each in _several(value) for half in _halves(each)]
            return Layout(f"<{len(halves)}H").pack(*halves)
        if vr in _INTEGERS:
            integers = [_integer(each) for each in _several(value)]
            return Layout(f"<{len(integers)}{_INTEGERS[vr]}").pack(*integers)
        if vr in _FLOATS:
            numbers = [_float(each) for each in _several(value)]
            return Layout(f"<{len(numbers)}{_FLOATS[vr]}").pack(*numbers)
    except (ValueError, OverflowError, DoesNotFit):
        return None
    return None


def _text(value: object, vr: str, character_set: bytes = b"") -> bytes | None:
    """Raises _Unsayable."""
    parts = ["" if each is None else each for each in _several(value)]
    if not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in parts):
        return None
    text = "\\".join(str(each).strip(" \0") if vr == "UI" else str(each) for each in parts)  # NUL pads UIDs, not blanks
    if text.isascii():
        return text.encode()
    if vr not in making.TEXT_VRS:
        return None
    octets = dataset.encode_text(vr, text, character_set)
    if octets is None:
        raise _Unsayable
    return octets


def _halves(value: object) -> tuple[int, int]:
    """Group and element of a tag that is a value. Raises ValueError."""
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if number is not None and 0 <= number <= 0xFFFFFFFF:
        return number >> 16, number & 0xFFFF
    match = _TAG.fullmatch(value.strip(" \0")) if isinstance(value, str) else None
    if match is None:
        raise ValueError("no tag")
    return int(match[1], 16), int(match[2], 16)


def _integer(value: object) -> int:
    """Raises ValueError."""
    if isinstance(value, str) and "_" not in value and len(value) < 32:  # Python would read 1_0 as 10
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError("no integer")
    return int(value)


def _float(value: object) -> float:
    """Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (isinstance(value, str) and "_" in value):
        raise ValueError("no number")
    return float(value)
