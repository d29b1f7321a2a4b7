"""The three ways to write element headers (PS3.5 §7.1, §A), as constants that the walk unpacks with.

Owns which transfer syntax uses which, and the guess from the first octets of a data set. Refuses to move through one.
"""

from collections.abc import Callable
from struct import Struct as Layout

from msgspec import Struct

from dcmsync.wire.source import Memory

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

UNDEFINED = 0xFFFFFFFF
LAST_FIRST_GROUP = 0x40  # octets without a VR whose first group is higher are taken for no data set

_SHORT_VRS = [
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "DT",
    "FD",
    "FL",
    "IS",
    "LO",
    "LT",
    "PN",
    "SH",
    "SL",
    "SS",
    "ST",
    "TM",
    "UI",
    "UL",
    "US",
]  # PS3.5 Table 7.1-2
_LONG_VRS = ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]  # PS3.5 Table 7.1-1
_FRAGMENT_VRS = ["OB", "OD", "OF", "OL", "OV", "OW"]
_VRS = frozenset(_SHORT_VRS + _LONG_VRS)


class Coding(Struct, frozen=True, kw_only=True):
    """How headers are written. Tags and VRs are compared as the numbers they are read as, not put in order first."""

    uid: str
    implicit: bool
    little: bool  # a tag read as one number then has its halves swapped
    header: Callable[
        [Memory, int], tuple[int, ...]
    ]  # implicit: tag 0-3, length 4-7; explicit: tag 0-3, VR 4-5, length 6-7
    long_length: Callable[[Memory, int], tuple[int, ...]]  # explicit, long VRs: length 8-11
    item_header: Callable[[Memory, int], tuple[int, ...]]  # items and delimiters: tag 0-3, length 4-7 (PS3.5 §7.5)
    short: frozenset[int]
    long: dict[int, bool]  # VR -> whether an undefined length means fragments
    names: dict[int, str]
    sq: int
    un: int
    item: int
    item_end: int
    sequence_end: int
    pixel_data: int


def declared(transfer_syntax_uid: str) -> Coding | None:
    """The coding of a transfer syntax; None when the UID is private or missing."""
    coding = CODINGS.get(transfer_syntax_uid)
    if coding is None and transfer_syntax_uid.startswith("1.2.840.10008."):
        return CODINGS[EXPLICIT_LITTLE]  # every encapsulated one (PS3.5 §A.4)
    return coding


def guess(head: bytes) -> str | None:
    """The transfer syntax UID whose coding the first 8 octets of a data set show; None when they are no element.

    Where the octets of the group fit both byte orders, the smaller number wins: elements ascend (PS3.5 §7.1).
    """
    if len(head) < 8:
        return None
    little, big = int.from_bytes(head[:2], "little"), int.from_bytes(head[:2], "big")
    if head[4:6].decode("latin-1") in _VRS:
        return EXPLICIT_LITTLE if little <= big else EXPLICIT_BIG
    return IMPLICIT_LITTLE if 0 < little <= LAST_FIRST_GROUP else None


def plain(tag: int, coding: Coding) -> int:
    """A tag as the headers give it -> 0xGGGGEEEE."""
    return (tag & 0xFFFF) << 16 | tag >> 16 if coding.little else tag


def name(tag: int, coding: Coding) -> str:
    """A tag as the headers give it, for people."""
    number = plain(tag, coding)
    return f"({number >> 16:04X},{number & 0xFFFF:04X})"


def _make(uid: str, order: str, *, implicit: bool) -> Coding:
    little = order == "<"

    def vr(letters: str) -> int:
        return int.from_bytes(letters.encode(), "little" if little else "big")

    def tag(number: int) -> int:
        return (number & 0xFFFF) << 16 | number >> 16 if little else number

    return Coding(
        uid=uid,
        implicit=implicit,
        little=little,
        header=Layout(order + ("II" if implicit else "IHH")).unpack_from,
        long_length=Layout(order + "8xI").unpack_from,
        item_header=Layout(order + "II").unpack_from,
        short=frozenset(map(vr, _SHORT_VRS)),
        long={vr(letters): letters in _FRAGMENT_VRS for letters in _LONG_VRS},
        names={vr(letters): letters for letters in _VRS},
        sq=vr("SQ"),
        un=vr("UN"),
        item=tag(0xFFFEE000),
        item_end=tag(0xFFFEE00D),
        sequence_end=tag(0xFFFEE0DD),
        pixel_data=tag(0x7FE00010),
    )


IMPLICIT = _make(IMPLICIT_LITTLE, "<", implicit=True)
CODINGS = {
    IMPLICIT_LITTLE: IMPLICIT,
    EXPLICIT_LITTLE: _make(EXPLICIT_LITTLE, "<", implicit=False),
    EXPLICIT_BIG: _make(EXPLICIT_BIG, ">", implicit=False),
    "1.2.840.113619.5.2": IMPLICIT,  # GE, private: implicit little endian, with pixel data in big endian
}
