"""Contents as lines for people, in the columns of dcmdump: tag, VR, value, length, number of values, keyword.

Owns how values look, and that nothing in a file can move a terminal: whatever is no printable character is escaped.
Refuses to read files; bulk data that is to be shown whole is left as a `Bulk` between the octets.
"""

from binascii import b2a_base64
from collections.abc import Iterable, Iterator

from dcmsync.wire.codings import UNDEFINED
from dcmsync.wire.dataset import described
from dcmsync.wire.dicomjson import SINGLE_VRS, UNITS, Bulk, BulkWord, Part, numbers, tags, texts, turned
from dcmsync.wire.events import BULK_VRS, Closed, Element, Event, Fragment, Item, ItemEnd, Opened

MAX_SHOWN = 64  # characters of a value, unless all is wanted: what fits is never cut
_ELLIPSIS = "..."
_SPLIT_VRS = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}


def lines(events: Iterable[Event], bulk: BulkWord) -> Iterator[list[Part]]:
    """One line for each element, item and fragment, in parts, without line ends.

    `bulk`: long values cut, or whole with bulk data as base64, or elements of bulk VRs left out.
    """
    indent = ""
    is_left_out = False  # encapsulated pixel data
    for event in events:
        if isinstance(event, Element):
            if bulk != "none" or event.vr not in BULK_VRS:
                yield _element(event, indent, bulk)
        elif isinstance(event, Opened):
            is_left_out = event.has_fragments and bulk == "none"
            if not is_left_out:
                what = "Pixel Sequence" if event.has_fragments else "Sequence"
                yield _line(indent, event.tag, event.vr, f"({what} with {_extent(event.length)})", event.length, 1)
            indent += "  "
        elif isinstance(event, Item):
            yield _line(indent, _ITEM, "na", f"(Item {event.number} with {_extent(event.length)})", event.length, 1)
            indent += "  "
        elif isinstance(event, Fragment):
            if not is_left_out:
                yield _fragment(event, indent, bulk)
        else:
            assert isinstance(event, ItemEnd | Closed)
            indent = indent[2:]


def keyword_of(tag: int) -> str:
    """The keyword of a tag; "" where PS3.6 has none."""
    return described(tag)[1]


def shown(element: Element, *, is_cut: bool = True) -> str:
    """The value of an element as it stands in a line."""
    if not element.length:
        return "(no value available)"
    text = _value(element)
    if element.vr not in BULK_VRS and element.is_here and not is_cut:
        return text
    is_long = not element.is_here or len(text) > MAX_SHOWN + 2
    return text[:MAX_SHOWN] + _ELLIPSIS if is_long else text


def safe(text: str) -> str:
    r"""`text` with whatever a terminal might obey, and line ends, as \x1b or \u202e."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


_ITEM = 0xFFFEE000


def _element(element: Element, indent: str, bulk: BulkWord) -> list[Part]:
    count = _count(element)
    if bulk == "base64" and element.is_here and element.vr in BULK_VRS and element.length:
        octets = element.octets if element.little else turned(element.octets, UNITS.get(element.vr, 1))
        text = b2a_base64(octets, newline=False).decode()
        return _line(indent, element.tag, element.vr, text, element.length, count)
    if bulk == "base64" and not element.is_here:
        unit = 1 if element.little else UNITS.get(element.vr, 1)
        line = _line(indent, element.tag, element.vr, "\0", element.length, count)
        return _around(line, Bulk(element.start, element.length, unit))
    return _line(indent, element.tag, element.vr, shown(element, is_cut=bulk == "cut"), element.length, count)


def _fragment(fragment: Fragment, indent: str, bulk: BulkWord) -> list[Part]:
    if bulk == "base64" and fragment.length:
        line = _line(indent, _ITEM, "pi", "\0", fragment.length, 1)
        return _around(line, Bulk(fragment.start, fragment.length, 1))
    text = _hexadecimal(fragment.octets, 1)
    if len(text) > MAX_SHOWN or len(fragment.octets) < fragment.length:
        text = text[:MAX_SHOWN] + _ELLIPSIS
    return _line(indent, _ITEM, "pi", text or "(no value available)", fragment.length, 1)


def _around(line: list[Part], bulk: Bulk) -> list[Part]:
    """The line with the bulk data where a NUL holds its place."""
    assert isinstance(line[0], bytes)
    before, _, after = line[0].partition(b"\0")
    return [before, bulk, after]


def _line(indent: str, tag: int, vr: str, value: str, length: int, count: int) -> list[Part]:
    octets = "u/l" if length == UNDEFINED else str(length)
    word = "Item" if tag == _ITEM else keyword_of(tag) or _unnamed(tag)
    head = f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
    return [f"{indent}{head} {vr} {value:<40} # {octets:>3},{count:>2} {word}".encode("utf-8", "replace")]


def _unnamed(tag: int) -> str:
    if not tag & 0xFFFF:
        return "GroupLength"
    return "PrivateCreator" if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF else "Unknown"


def _value(element: Element) -> str:
    vr, octets = element.vr, element.octets
    if vr in BULK_VRS:
        unit = _SPLIT_VRS.get(vr, 1)
        return _hexadecimal(turned(octets, unit) if element.little else octets, unit)
    if vr == "AT":
        return "\\".join(f"({tag[:4]},{tag[4:]})".lower() for tag in tags(octets, little=element.little))
    if vr in UNITS:
        return "\\".join(map(str, numbers(vr, octets, little=element.little)))
    return "[" + safe("\\".join(texts(vr, octets, element.character_set))) + "]"


def _count(element: Element) -> int:
    """How many values there are."""
    vr, length = element.vr, element.length
    if not length:
        return 0
    if vr in BULK_VRS or vr in SINGLE_VRS:
        return 1
    if vr in UNITS:
        return length // (4 if vr == "AT" else UNITS[vr])
    return element.octets.count(b"\\") + 1 if element.octets.strip(b"\0 ") else 0


def _hexadecimal(octets: bytes, unit: int) -> str:
    return "\\".join(octets[at : at + unit].hex() for at in range(0, len(octets), unit))


def _extent(length: int) -> str:
    return "undefined length" if length == UNDEFINED else "explicit length"


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
