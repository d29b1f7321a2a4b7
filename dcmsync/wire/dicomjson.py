"""Contents as an object of the DICOM JSON model (PS3.18 Annex F): the writer.

Owns what each value becomes, and that members ascend (PS3.18 §F.2.2). Refuses to read files, and to hold bulk data:
what is to be base64 is left as a `Bulk` between the octets, for who writes them.

Theory of operation. Each item is folded into octets when it ends, so that a file of many items needs little more than
its text. Numbers of DS and IS keep the digits they came with; what is no number is a string, as Table F.2.3-1 allows,
and so is an integer beyond 2^53, which readers of JSON would round. A floating point value that is none is "NaN",
"Infinity" or "-Infinity", for which JSON has no number. All text is UTF-8, and (0008,0005) says so.
"""

import re
import struct
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Struct

from dcmsync.wire.dataset import SPECIFIC_CHARACTER_SET, decode_text
from dcmsync.wire.events import BULK_VRS, Closed, Element, Event, Item, ItemEnd, Opened

MAX_JSON_OCTETS = 128 << 20  # of one object while it is folded, with what Python needs to hold it
EXACT = 1 << 53  # integers up to this are exact in every reader of JSON

BulkWord = Literal["cut", "base64", "none"]
Locate = Callable[[int, int], str]
"""The URI of the octets of a value: from offset and length."""

UNITS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8, "US": 2, "SS": 2, "AT": 2,
         "UL": 4, "SL": 4, "FL": 4, "FD": 8, "SV": 8, "UV": 8}
SINGLE_VRS = frozenset(("LT", "ST", "UT", "UR"))
_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_DECIMAL = re.compile(r"([+-]?)0*(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,3}))?", re.ASCII)
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_REPEATED_OCTETS = 64  # values up to this size are remembered, so that memory stays bounded
_OVERHEAD_OCTETS = 120  # of a member in a list, beyond its octets
_encode = msgspec.json.Encoder().encode


class Bulk(Struct, frozen=True):
    """The octets of a value at `start` of the data set, to be written as base64; numbers of `unit` octets turned."""

    start: int
    length: int
    unit: int


Part = bytes | Bulk


def fold(
    events: Iterable[Event], bulk: BulkWord, locate: Locate, *, max_octets: int = MAX_JSON_OCTETS
) -> tuple[list[Part], str]:
    """The object of a data set, in parts, and why it is not all of it: "" when it is.

    `bulk`: values of bulk VRs as InlineBinary ("base64"), as BulkDataURI unless they are short ("cut"), or not at all.
    """
    object_: list[tuple[int, list[Part]]] = []
    waiting: list[tuple[list[tuple[int, list[Part]]], Opened, list[list[Part]]]] = []
    spent = 0
    for event in events:
        if isinstance(event, Element):
            if event.tag & 0xFFFF and (bulk != "none" or event.vr not in BULK_VRS):
                member = _member(event, bulk, locate)
                spent += _OVERHEAD_OCTETS + event.length if event.is_here else _OVERHEAD_OCTETS
                object_.append((event.tag, member))
        elif isinstance(event, Opened):
            waiting.append((object_, event, []))
        elif isinstance(event, Item):
            object_ = []
        elif isinstance(event, ItemEnd):
            spent -= _OVERHEAD_OCTETS * (len(object_) - 1)
            waiting[-1][2].append(_object(object_))
        elif isinstance(event, Closed):
            object_, opened, items = waiting.pop()
            if not opened.has_fragments:
                object_.append((opened.tag, _sequence(opened.tag, items)))
            elif bulk != "none":
                whole = Element(opened.tag, opened.vr, True, True, opened.start, event.end - opened.start, b"", b"")
                object_.append((opened.tag, _member(whole, bulk, locate)))
        if spent > max_octets:
            return _ended(object_, waiting), f"its JSON needs more than {max_octets >> 20} MiB of memory"
    return _object(object_), ""


def write(parts: Iterable[Part], chunks: Callable[[int, int], Iterator[bytes]], put: Callable[[bytes], object]) -> None:
    """Puts every octet of `parts`; `chunks` reads those of a `Bulk`, each but the last a multiple of 24 octets."""
    for part in parts:
        if isinstance(part, Bulk):
            for chunk in chunks(part.start, part.length):
                put(b2a_base64(turned(chunk, part.unit), newline=False))
        else:
            put(part)


def attribute(element: Element, locate: Locate) -> bytes:
    """The attribute object of one element as it is in the file, with its own (0008,0005); bulk data cut."""
    if element.tag == SPECIFIC_CHARACTER_SET:
        return b'{"vr":"CS"' + _value("CS", element.octets, b"", element.little) + b"}"
    member = _member(element, "cut", locate)[0]
    assert isinstance(member, bytes)
    return member.partition(b":")[2]


def texts(vr: str, raw: bytes, character_set: bytes) -> list[str]:
    """The values of a text VR: without padding; spaces at the beginning count in some VRs (PS3.5 Table 6.2-1)."""
    text = decode_text(vr, raw, character_set)
    if vr in SINGLE_VRS:
        return [text.rstrip(" \0")]
    return [part.strip(" \0") for part in text.split("\\")]


def numbers(vr: str, raw: bytes, *, little: bool) -> tuple[int | float, ...]:
    """The values of a binary VR; octets that are too few for one more are left out."""
    letter, unit = _FORMATS[vr], UNITS[vr]
    return struct.unpack_from(f"{'<' if little else '>'}{len(raw) // unit}{letter}", raw)


def tags(raw: bytes, *, little: bool) -> list[str]:
    """The values of AT."""
    halves = struct.unpack_from(f"{'<' if little else '>'}{len(raw) // 4 * 2}H", raw)
    return [f"{group:04X}{number:04X}" for group, number in zip(halves[::2], halves[1::2], strict=True)]


def turned(octets: bytes, unit: int) -> bytes:
    """Numbers of `unit` octets in the other byte order."""
    if unit == 1:
        return octets
    whole = len(octets) // unit * unit
    other = bytearray(octets)
    for place in range(unit):
        other[place:whole:unit] = octets[unit - 1 - place : whole : unit]
    return bytes(other)


def _ended(object_: list[tuple[int, list[Part]]],
           waiting: list[tuple[list[tuple[int, list[Part]]], Opened, list[list[Part]]]]) -> list[Part]:
    """The object, with what is still open closed."""
    while waiting:
        inner = _object(object_)
        object_, opened, items = waiting.pop()
        if not opened.has_fragments:
            object_.append((opened.tag, _sequence(opened.tag, [*items, inner])))
    return _object(object_)


def _object(members: list[tuple[int, list[Part]]]) -> list[Part]:
    """The parts of one object. Of members that are there twice, the first counts (as in DCMTK)."""
    last = -1
    for tag, _ in members:
        if tag <= last:
            members = list({tag: (tag, parts) for tag, parts in reversed(members)}.values())
            members.sort(key=lambda member: member[0])
            break
        last = tag
    return _joined(b"{", [parts for _, parts in members], b"}")


def _sequence(tag: int, items: list[list[Part]]) -> list[Part]:
    if not items:
        return [b'"%08X":{"vr":"SQ"}' % tag]
    return _joined(b'"%08X":{"vr":"SQ","Value":[' % tag, items, b"]}")


def _joined(begin: bytes, members: list[list[Part]], end: bytes) -> list[Part]:
    """One list of parts, neighbouring octets as one."""
    parts: list[Part] = []
    octets = [begin]
    for number, member in enumerate(members):
        if number:
            octets.append(b",")
        for part in member:
            if isinstance(part, bytes):
                octets.append(part)
            else:
                parts += (b"".join(octets), part)
                octets = []
    octets.append(end)
    parts.append(b"".join(octets))
    return parts


def _member(element: Element, bulk: BulkWord, locate: Locate) -> list[Part]:
    """The member of an object for one element."""
    vr = element.vr
    begin = b'"%08X":{"vr":"%s"' % (element.tag, vr.encode())
    if element.tag == SPECIFIC_CHARACTER_SET:
        return [begin + b',"Value":["ISO_IR 192"]}']
    if not element.length:
        return [begin + b"}"]
    if not element.is_here:
        if bulk != "base64" or vr not in BULK_VRS:
            return [begin + b',"BulkDataURI":' + _encode(locate(element.start, element.length)) + b"}"]
        unit = 1 if element.little else UNITS.get(vr, 1)
        return [begin + b',"InlineBinary":"', Bulk(element.start, element.length, unit), b'"}']
    read = _known_value if element.length <= _REPEATED_OCTETS else _value
    return [begin + read(vr, element.octets, element.character_set, element.little) + b"}"]


def _value(vr: str, raw: bytes, character_set: bytes, little: bool) -> bytes:
    """The child `Value` or `InlineBinary`, after a comma; nothing when there is no value but padding."""
    if vr in BULK_VRS:
        octets = raw if little else turned(raw, UNITS.get(vr, 1))
        return b',"InlineBinary":"' + b2a_base64(octets, newline=False) + b'"'
    values: list[object]
    if vr in _FORMATS:
        values = [_number(number) for number in numbers(vr, raw, little=little)]
    elif vr == "AT":
        values = [*tags(raw, little=little)]
    else:
        parts = texts(vr, raw, character_set)
        if parts == [""]:
            return b""
        if vr == "PN":
            values = [_person(part) for part in parts]
        elif vr in ("DS", "IS"):
            values = [_decimal(part) for part in parts]
        else:
            values = [part or None for part in parts]
    return b',"Value":' + _encode(values) if values else b""


_known_value = lru_cache(maxsize=8192)(_value)  # the instances of a series repeat most of what they say


def _number(number: int | float) -> object:
    if isinstance(number, int):
        return number if -EXACT <= number <= EXACT else str(number)
    if number - number == 0:
        return number
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def _decimal(text: str) -> object:
    """A decimal or integer string as the JSON number of the same digits, or as the string that it is."""
    found = _DECIMAL.fullmatch(text)
    if not found or not any(character.isdigit() for character in text):
        return text or None
    sign, whole, fraction, exponent = found.groups()
    if not fraction and not exponent and len(whole) > 15:
        return text
    digits = ("-" if sign == "-" else "") + (whole or "0")
    digits += f".{fraction}" if fraction else ""
    digits += f"e{exponent}" if exponent else ""
    return msgspec.Raw(digits.encode()) if float(digits) - float(digits) == 0 else text


def _person(text: str) -> object:
    groups = [group.strip(" \0") for group in text.split("=")]
    return {name: group for name, group in zip(_GROUPS, groups, strict=False) if group} or None
