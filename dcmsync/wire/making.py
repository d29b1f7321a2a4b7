"""Elements made anew: headers, values and items in every coding (PS3.5 §7), and UIDs replaced.

Owns the octets of what an edit writes. Refuses to know where in a data set they go.
"""

from collections.abc import Callable
from functools import lru_cache
from struct import Struct as Layout

from dcmsync.errors import Uneditable
from dcmsync.wire.codings import Coding
from dcmsync.wire.dataset import described, encode_text

ITEM = 0xFFFEE000
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # PS3.5 §6.1.2.3
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_REGISTERED = "1.2.840.10008."
_KINDS = frozenset({
    "SOPClassUID", "ReferencedSOPClassUID", "ReferencedSOPClassUIDInFile", "RelatedGeneralSOPClassUID",
    "OriginalSpecializedSOPClassUID", "ReferencedRelatedGeneralSOPClassUIDInFile", "SOPClassesInStudy",
    "SOPClassesSupported", "PertinentSOPClassesInStudy", "PertinentSOPClassesInSeries",
    "ReferencedTransferSyntaxUIDInFile", "StoredInstanceTransferSyntaxUID", "AvailableTransferSyntaxUID",
    "MACCalculationTransferSyntaxUID", "EncryptedContentTransferSyntaxUID", "FlowTransferSyntaxUID",
    "CodingSchemeUID", "ContextUID", "ContextGroupExtensionCreatorUID", "MappingResourceUID",
    "TemplateExtensionOrganizationUID", "TemplateExtensionCreatorUID", "SegmentationTemplateUID", "PrivateRecordUID",
    "InstanceCreatorUID", "CreatorVersionUID", "DeviceUID", "ManufacturerDeviceClassUID",
    "RetrieveLocationUID", "RepositoryUniqueID", "HomeCommunityID",
})  # fmt: skip
"""UIDs that name a kind, a code, a device or a place: they mean the same everywhere, whoever registered them."""


def remapped(old: bytes, remap: Callable[[str], str]) -> bytes | None:
    """A value of UIDs with each replaced; None where none is."""
    uids = [uid.strip("\0 ") for uid in old.decode("latin-1").split("\\")]
    new = [uid if not uid or uid.startswith(_REGISTERED) else remap(uid) for uid in uids]
    return None if new == uids else "\\".join(new).encode("latin-1")


@lru_cache(maxsize=1024)
def is_kind(tag: int) -> bool:
    """Whether a UID of this tag names a kind, a code, a device or a place, and so is never replaced."""
    return described(tag)[1] in _KINDS


@lru_cache(maxsize=4096)
def implied(tag: int) -> str:
    """The VR that implicit VR leaves to PS3.6; UN for what is not in there."""
    return "UN" if tag >> 16 & 1 else described(tag)[0].rpartition(" ")[2] or "UN"


def octets_of(vr: str, text: str, character_set: bytes, *, little: bool) -> bytes | None:
    """The octets of a new value; None where the character set cannot say it."""
    parts = [part.strip() for part in text.split("\\")] if text else []
    order = "<" if little else ">"
    if vr in _NUMBERS:
        numbers = [float(part) if vr[0] == "F" else int(part) for part in parts]
        return Layout(f"{order}{len(numbers)}{_NUMBERS[vr]}").pack(*numbers)
    if vr == "AT":
        halves = [int(part[at : at + 4], 16) for part in parts for at in (0, 4)]
        return Layout(f"{order}{len(halves)}H").pack(*halves)
    return encode_text(vr, text, character_set)


def shown(tag: int) -> str:
    """A tag for people."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


@lru_cache(maxsize=64)
def _layouts(*, little: bool) -> tuple[Layout, Layout, Layout]:
    order = "<" if little else ">"
    return Layout(order + "HHI"), Layout(order + "HH2sH"), Layout(order + "HH2s2xI")


def head_of(coding: Coding, tag: int, vr: str, length: int) -> bytes:
    """The header of an element. Raises Uneditable when the length is too much for the VR."""
    implicit, short, long = _layouts(little=coding.little)
    group, number = tag >> 16, tag & 0xFFFF
    if coding.implicit:
        return implicit.pack(group, number, length)
    if vr in _LONG_VRS:
        return long.pack(group, number, vr.encode(), length)
    if length > 0xFFFE:
        raise Uneditable(f"{shown(tag)}: the new value is too long for its value representation")
    return short.pack(group, number, vr.encode(), length)


def element(coding: Coding, tag: int, vr: str, octets: bytes) -> bytes:
    """An element with its value, padded to an even length (PS3.5 §6.2). Raises Uneditable."""
    padded = octets + (b"\0" if vr == "UI" else b" ") * (len(octets) & 1)
    return head_of(coding, tag, vr, len(padded)) + padded


def mark(coding: Coding, tag: int, length: int) -> bytes:
    """The header of an item or a delimiter (PS3.5 §7.5)."""
    return _layouts(little=coding.little)[0].pack(tag >> 16, tag & 0xFFFF, length)


def item(coding: Coding, inside: bytes) -> bytes:
    """An item of defined length."""
    return mark(coding, ITEM, len(inside)) + inside
