"""Identifiers and header values <-> plain values by keyword: the door to pydicom's dictionary and character sets.

Owns what a record's values look like: text as str, IS and the binary integers as int, DS and floats as numbers, more
than one value as a list (always a list where PS3.6 allows more than one), person names with `^` and `=`.
Refuses to fail on text: what cannot be decoded is decoded as well as can be. No I/O.

C-FIND answers come by the hundred thousand, so they are read with `struct` and one dictionary look-up an element;
pydicom itself needs some 0.4 ms for each. Its dictionary is loaded as the one file that it is (5 ms): the package
around it takes 0.1 s, and is imported only for character sets with code extensions.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType
from typing import NamedTuple

from dcmsync.errors import RemoteProtocolError, UsageError
from dcmsync.wire.codings import EXPLICIT_BIG, IMPLICIT_LITTLE

SPECIFIC_CHARACTER_SET = 0x00080005
QUERY_LEVEL = 0x00080052
_UTF_8 = "ISO_IR 192"

_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_CHARACTER_SET_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))  # PS3.5 §6.1.2.3
_SINGLE_TEXT_VRS = frozenset(("LT", "ST", "UT", "UR"))
_BINARY = {
    "US": ("H", 2), "SS": ("h", 2), "UL": ("L", 4), "SL": ("l", 4), "FL": ("f", 4), "FD": ("d", 8),
    "SV": ("q", 8), "UV": ("Q", 8),
}  # fmt: skip
_BULK_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN", "SQ"))
_MAX_DEPTH = 16
_REPEATED_OCTETS = 64  # values up to this size are remembered, so that memory stays bounded


_CODECS = {
    "ISO_IR 6": "ascii", "ISO_IR 100": "latin-1", "ISO_IR 101": "iso8859-2", "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4", "ISO_IR 144": "iso8859-5", "ISO_IR 127": "iso8859-6", "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8", "ISO_IR 148": "iso8859-9", "ISO_IR 203": "iso8859-15", "ISO_IR 13": "shift_jis",
    "ISO_IR 166": "iso8859-11", "ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk",
}  # fmt: skip  # PS3.3 Tables C.12-2 and C.12-5: without code extensions


class Entry(NamedTuple):
    """What PS3.6 says of one attribute. `is_multi`: its value multiplicity may exceed 1."""

    keyword: str
    vr: str
    is_multi: bool


@lru_cache(maxsize=4096)
def entry(tag: int) -> Entry:
    """The dictionary entry of a tag; an unknown or private one is named `ggggeeee` and taken for UN."""
    known = _dictionary().get(tag)
    if known is None or not known[4]:
        return Entry(f"{tag:08X}", "UL" if not tag & 0xFFFF else "UN", False)
    vr = known[0].split(" ")[0]
    return Entry(known[4], vr, known[1] != "1")


@lru_cache(maxsize=4096)
def described(tag: int) -> tuple[str, str]:
    """The VR or VRs (`US or SS`) and keyword of a tag, of repeating groups too; ("", "") where PS3.6 has neither."""
    rows = _tables().DicomDictionary, _tables().RepeatersDictionary
    row = rows[0].get(tag)
    if row is None and not tag >> 16 & 1:
        number = f"{tag:08X}"
        row = next((row for mask, row in rows[1].items() if _fits(number, mask)), None)
    return (row[0], row[4]) if row else ("", "")


def decode_text(vr: str, raw: bytes, character_set: bytes) -> str:
    """The text of a raw value; `character_set` is the raw value of (0008,0005) that holds for it, b"" without one."""
    return _text(vr, raw, _encodings(character_set))


def encode_text(vr: str, text: str, character_set: bytes) -> bytes | None:
    """The octets of a text, unpadded; None where the raw (0008,0005) `character_set` cannot say it."""
    return text.encode() if text.isascii() else _octets(vr, text, character_set.decode("latin-1"))


def _fits(number: str, mask: str) -> bool:
    return all(wanted in (digit, "x") for digit, wanted in zip(number, mask, strict=True))


def _dictionary() -> dict[int, tuple[str, str, str, str, str]]:
    """pydicom's table of PS3.6: tag -> (VR, VM, name, "Retired" or "", keyword)."""
    table: dict[int, tuple[str, str, str, str, str]] = _tables().DicomDictionary
    return table


@lru_cache(maxsize=1)
def _tables() -> ModuleType:
    """pydicom's tables of PS3.6: by tag, and by the mask of repeating groups such as `60xx0010`."""
    package = find_spec("pydicom")
    assert package is not None and package.submodule_search_locations  # a dependency of ours
    path = f"{package.submodule_search_locations[0]}/_dicom_dict.py"
    spec = spec_from_file_location("dcmsync_pydicom_dictionary", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def _tags() -> dict[str, int]:
    return {row[4]: tag for tag, row in _dictionary().items() if row[4]}


def tag_of(keyword: str) -> int:
    """The tag of a keyword, or of `ggggeeee`. Raises UsageError that names the nearest keyword."""
    tag = _tags().get(keyword)
    if tag is not None:
        return tag
    if len(keyword) == 8:
        try:
            return int(keyword, 16)
        except ValueError:
            pass
    from difflib import get_close_matches

    near = get_close_matches(keyword, _tags(), n=1)
    raise UsageError(
        f"{keyword!r} is no DICOM keyword", advice=f"Did you mean {near[0]}?" if near else "See PS3.6 for the keywords"
    )


def tag_known(keyword: str) -> int | None:
    """The tag of a keyword; None where PS3.6 has none, or one for each of several groups."""
    return _tags().get(keyword)


def keywords() -> Iterable[str]:
    """Every keyword of PS3.6, those of repeating groups too."""
    return [row[4] for table in (_tables().DicomDictionary, _tables().RepeatersDictionary) for row in table.values()]


def check_character_set(terms: str) -> None:
    """Refuses what PS3.3 §C.12.1.1.2 does not define; `\\` stands between several. Raises UsageError."""
    from pydicom.charset import python_encoding

    for term in _encodings(terms.encode()) or ("",):
        if term not in _CODECS and (not term or term not in python_encoding):
            near = ", ".join(sorted(_CODECS))
            raise UsageError(f"{term!r} is no character set of DICOM", advice=f"Among those there are {near}")


def encode_identifier(
    keys: Mapping[str, str], level: str, transfer_syntax_uid: str, *, character_set: str = ""
) -> bytes:
    """The identifier of a C-FIND or C-GET: `keys` (keyword -> matching value, "" to ask for it back) and the level.

    (0008,0005) is always there: many servers name the character set of their answers only when asked. Text beyond
    ASCII is in `character_set` where that can say it, else in UTF-8. Raises UsageError for an unknown keyword.
    """
    values = {tag_of(keyword): (entry(tag_of(keyword)).vr, value) for keyword, value in keys.items()}
    texts = {tag: _octets(vr, value, character_set) for tag, (vr, value) in values.items() if not value.isascii()}
    if None in texts.values():
        character_set, texts = "", {}
    named = character_set or _UTF_8 if not all(value.isascii() for _, value in values.values()) else ""
    values[SPECIFIC_CHARACTER_SET] = ("CS", named)
    if level:
        values[QUERY_LEVEL] = ("CS", level)
    return b"".join(_encode(tag, *values[tag], transfer_syntax_uid, texts.get(tag)) for tag in sorted(values))


def encode_values(values: Mapping[str, object], level: str, transfer_syntax_uid: str) -> bytes:
    """An answer's identifier, in UTF-8: keyword -> plain value as `decode_identifier` gives it."""
    texts = {}
    for keyword, value in values.items():
        items = value if isinstance(value, list) else [value]
        texts[keyword] = "\\".join(str(item) for item in items)
    tags = {tag_of(keyword): text for keyword, text in texts.items()}
    rows = {tag: (entry(tag).vr, text) for tag, text in tags.items() if entry(tag).vr not in _BULK_VRS}
    rows[SPECIFIC_CHARACTER_SET] = ("CS", _UTF_8)
    rows[QUERY_LEVEL] = ("CS", level)
    return b"".join(_encode(tag, *rows[tag], transfer_syntax_uid) for tag in sorted(rows))


def decode_identifier(
    octets: bytes,
    transfer_syntax_uid: str,
    *,
    wanted: frozenset[int] | None = None,
    keep_empty: bool = False,
    character_set: str = "",
    is_misnamed: bool = False,
) -> dict[str, object]:
    """Keyword -> plain value of the `wanted` elements (default: all) that have a value; bulk data are left out.

    `keep_empty`: elements without a plain value are there too, as "": in a query they ask for it back.
    `character_set` holds where the octets name none, or one that they contradict; with `is_misnamed`, whatever they
    name. Raises RemoteProtocolError when the octets are no data set.
    """
    # hot: 17 to 20 µs an answer of 12 elements, 39 when both cores are busy (x86-64, CPython 3.11, 2026-11)
    try:
        elements = _elements(octets, transfer_syntax_uid, 0)
    except (struct.error, IndexError) as error:
        raise RemoteProtocolError("sent an identifier that is no data set") from error
    if character_set and (is_misnamed or _is_contradicted(elements)):
        elements[SPECIFIC_CHARACTER_SET] = ("CS", character_set.encode())
    return decode_values(elements, transfer_syntax_uid, wanted=wanted, keep_empty=keep_empty)


def decode_values(
    elements: Mapping[int, tuple[str, bytes]],
    transfer_syntax_uid: str,
    *,
    wanted: frozenset[int] | None = None,
    keep_empty: bool = False,
) -> dict[str, object]:
    """Keyword -> plain value of raw elements: tag -> (VR, or "" where the encoding tells none; octets)."""
    order = ">" if transfer_syntax_uid == EXPLICIT_BIG else "<"
    declared = elements.get(SPECIFIC_CHARACTER_SET)
    encodings = _encodings(declared[1] if declared else b"")
    values: dict[str, object] = {}
    for tag, (vr, raw) in elements.items():
        if wanted is not None and tag not in wanted:
            continue
        known = entry(tag)
        read = _known_value if len(raw) <= _REPEATED_OCTETS else _value
        value = read(known.vr if vr in ("", "UN") else vr, raw, known.is_multi, encodings, order)
        if value is not None:
            values[known.keyword] = value
        elif keep_empty:
            values[known.keyword] = ""
    return values


def _encode(tag: int, vr: str, text: str, transfer_syntax_uid: str, octets: bytes | None = None) -> bytes:
    """One element; `octets` are its text, where that is encoded already."""
    order = ">" if transfer_syntax_uid == EXPLICIT_BIG else "<"
    binary = _BINARY.get(vr)
    if binary is not None:
        numbers = [float(part) if binary[0] in "fd" else int(part) for part in text.split("\\") if part.strip()]
        raw = b"".join(struct.pack(order + binary[0], number) for number in numbers)
    else:
        raw = text.encode("utf-8", "replace") if octets is None else octets
        if len(raw) & 1:
            raw += b"\0" if vr == "UI" else b" "
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if transfer_syntax_uid == IMPLICIT_LITTLE:
        return head + struct.pack("<L", len(raw)) + raw
    letters = vr.encode()
    if letters in _LONG_VRS:
        return head + letters + b"\0\0" + struct.pack(order + "L", len(raw)) + raw
    return head + letters + struct.pack(order + "H", len(raw)) + raw


def _elements(octets: bytes, transfer_syntax_uid: str, offset: int) -> dict[int, tuple[str, bytes]]:
    """Top-level elements of a small data set. Sequences of undefined length are stepped over."""
    implicit = transfer_syntax_uid == IMPLICIT_LITTLE
    order = ">" if transfer_syntax_uid == EXPLICIT_BIG else "<"
    head, short, long = struct.Struct(order + "HHL"), struct.Struct(order + "H"), struct.Struct(order + "L")
    found: dict[int, tuple[str, bytes]] = {}
    end = len(octets)
    while offset < end:
        group, element, length = head.unpack_from(octets, offset)
        vr = ""
        if not implicit and group != 0xFFFE:
            letters = octets[offset + 4 : offset + 6]
            vr = letters.decode("latin-1")
            if letters in _LONG_VRS:
                length = long.unpack_from(octets, offset + 8)[0]
                offset += 4
            else:
                length = short.unpack_from(octets, offset + 6)[0]
        offset += 8
        if length == 0xFFFFFFFF:
            offset = _skip_undefined(octets, offset, head, order, implicit=implicit)
            continue
        if length > end - offset:
            raise struct.error("an element is longer than its data set")
        found[group << 16 | element] = (vr, octets[offset : offset + length])
        offset += length
    return found


def _skip_undefined(octets: bytes, offset: int, head: struct.Struct, order: str, *, implicit: bool) -> int:
    """The offset after the value of undefined length that begins at `offset`, whatever is nested in it."""
    delimiters = [0xE0DD]  # what closes the innermost open value
    while delimiters:
        group, element, length = head.unpack_from(octets, offset)
        offset += 8
        if group == 0xFFFE:
            if element == delimiters[-1]:
                delimiters.pop()
            elif element == 0xE000:
                if length == 0xFFFFFFFF:
                    delimiters.append(0xE00D)
                else:
                    offset += length
            else:
                raise struct.error("a delimiter that closes nothing")
        else:
            if not implicit:
                if octets[offset - 4 : offset - 2] in _LONG_VRS:
                    length = struct.unpack_from(order + "L", octets, offset)[0]
                    offset += 4
                else:
                    length = struct.unpack_from(order + "H", octets, offset - 2)[0]
            if length == 0xFFFFFFFF:
                delimiters.append(0xE0DD)
            else:
                offset += length
        if len(delimiters) > _MAX_DEPTH:
            raise struct.error("sequences nested too deeply")
    return offset


def _value(vr: str, raw: bytes, is_multi: bool, encodings: tuple[str, ...], order: str) -> object | None:
    if not raw or vr in _BULK_VRS:
        return None
    binary = _BINARY.get(vr)
    if binary is not None:
        letter, size = binary
        numbers = list(struct.unpack_from(f"{order}{len(raw) // size}{letter}", raw))
        if letter in "fd":
            numbers = [_finite(number, str(number)) for number in numbers]
        return _one_or_list(numbers, is_multi)
    if vr == "AT":
        pairs = struct.unpack_from(f"{order}{len(raw) // 4 * 2}H", raw)
        return _one_or_list([f"{g:04X}{e:04X}" for g, e in zip(pairs[::2], pairs[1::2], strict=True)], is_multi)
    text = _text(vr, raw, encodings)
    if vr in _SINGLE_TEXT_VRS:
        return text.rstrip(" \0") or None
    if not is_multi and "\\" not in text:
        return _number_or_text(vr, text.strip(" \0"))
    parts = [_number_or_text(vr, part.strip(" \0")) for part in text.split("\\")]
    if all(part is None for part in parts):
        return None
    return _one_or_list([part if part is not None else "" for part in parts], is_multi)


_known_value = lru_cache(maxsize=2048)(_value)  # the instances of a series repeat most of what they say


def _one_or_list(values: list[object] | list[str], is_multi: bool) -> object | None:
    if not values:
        return None
    return values if is_multi or len(values) > 1 else values[0]


def _number_or_text(vr: str, text: str) -> object | None:
    if not text:
        return None
    if vr not in ("IS", "DS") or "_" in text:  # Python would read 1_0 as 10
        return text
    try:
        if vr == "DS":
            return _finite(float(text), text)
        number = int(text)
        return number if -(2**63) <= number < 2**63 else text  # more than readers of JSON can be asked to hold
    except ValueError:
        return text  # what the server holds is not what the VR promises: it still matters


def _finite(number: float, text: str) -> float | str:
    return number if number - number == 0 else text  # JSON has no infinity


def _text(vr: str, raw: bytes, encodings: tuple[str, ...]) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    if vr not in _CHARACTER_SET_VRS:
        return raw.decode("latin-1")
    if encodings:
        return _decoded(vr, raw, encodings)
    try:
        # No character set was named, though there should be one: UTF-8 proves itself, Latin-1 is the usual culprit.
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _decoded(vr: str, raw: bytes, encodings: tuple[str, ...]) -> str:
    if len(encodings) == 1 and encodings[0] in _CODECS:
        text = raw.decode(_CODECS[encodings[0]], "replace")
    else:
        from pydicom.charset import convert_encodings, decode_bytes
        from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                codecs = convert_encodings(list(encodings))
                if vr == "PN":
                    text = "=".join(decode_bytes(part, codecs, PN_DELIMS) for part in raw.split(b"="))
                else:
                    text = str(decode_bytes(raw, codecs, TEXT_VR_DELIMS))
            except (LookupError, ValueError):  # such as a NUL in the name of a character set
                text = raw.decode("utf-8", "replace")
    return text.rstrip("= \0") if vr == "PN" else text


def _is_contradicted(elements: Mapping[int, tuple[str, bytes]]) -> bool:
    """Whether text stands there in no character set, or in one that it cannot be in."""
    declared = elements.get(SPECIFIC_CHARACTER_SET)
    encodings = _encodings(declared[1] if declared else b"")
    if encodings and not (len(encodings) == 1 and encodings[0] in _CODECS):
        return False
    for tag, (vr, raw) in elements.items():
        if not raw.isascii() and (entry(tag).vr if vr in ("", "UN") else vr) in _CHARACTER_SET_VRS:
            try:
                raw.decode(_CODECS[encodings[0]] if encodings else "ascii")
            except UnicodeDecodeError:
                return True
    return False


def _octets(vr: str, text: str, character_set: str) -> bytes | None:
    """A text in a character set; None where it cannot be said in it."""
    encodings = _encodings(character_set.encode())
    if not encodings or vr not in _CHARACTER_SET_VRS:
        return None
    if len(encodings) == 1 and encodings[0] in _CODECS:
        try:
            return text.encode(_CODECS[encodings[0]])
        except UnicodeEncodeError:
            return None
    from pydicom.charset import convert_encodings, encode_string

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            codecs = convert_encodings(list(encodings))
            octets = b"=".join(
                b"^".join(encode_string(part, codecs) for part in group.split("^")) for group in text.split("=")
            ) if vr == "PN" else encode_string(text, codecs)
        except (LookupError, ValueError):
            return None
    return octets if _decoded(vr, octets, encodings) == text else None  # what does not come back is no match


@lru_cache(maxsize=64)
def _encodings(declared: bytes) -> tuple[str, ...]:
    """The terms of (0008,0005); empty when it names none."""
    names = tuple(name.strip(" \0") for name in declared.decode("ascii", "replace").split("\\"))
    return names if any(names) else ()
