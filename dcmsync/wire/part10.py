"""The frame that a file puts around a data set: preamble, prefix and group 0002 (PS3.10 §7.1).

Owns reading and writing it, and files that lack it. Refuses to open files, and to look at the data set itself
(that is `elements`).
"""

from functools import lru_cache
from struct import Struct as Layout
from struct import error as OutOfWindow

from msgspec import Struct

from dcmsync.wire.codings import guess
from dcmsync.wire.elements import Walk, walk
from dcmsync.wire.source import Source, Window

IMPLEMENTATION_CLASS_UID = "2.25.214904331672436424013526402953710926911"  # made once from a random UUID (PS3.5 §B.2)
IMPLEMENTATION_VERSION_NAME = "DCMSYNC_0_1"

PREAMBLE_OCTETS = 128
_MAX_UID_OCTETS = 256  # four times what PS3.5 §9.1 allows; nothing longer in group 0002 is looked at

_ELEMENT = Layout("<HH2sH")  # group, element, VR, length (short form)
_PREFIX = bytes(PREAMBLE_OCTETS) + b"DICM" + _ELEMENT.pack(2, 0, b"UL", 4)  # up to the value of the group length
_LONG_LENGTH = Layout("<8xI")
_IMPLICIT_LENGTH = Layout("<4xI")
_LONG_VRS = frozenset(
    vr.encode() for vr in ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]
)


class Head(Struct, frozen=True, kw_only=True):
    """What a file says before its data set. UIDs are "" where it says nothing.

    `transfer_syntax_uid` is guessed from the first element when group 0002 doesn't give one: `is_guessed`.
    """

    transfer_syntax_uid: str
    data_set_offset: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    has_prefix: bool = True
    is_guessed: bool = False


def parse_file(source: Source | Window) -> Head | Walk:
    """The head of a file, or the verdict that it is none: "not dicom", or "truncated" within group 0002.

    A window must be at the beginning of its source.
    """
    window = source if isinstance(source, Window) else Window(source, 0)
    has_prefix = window.peek(PREAMBLE_OCTETS, 4) == b"DICM"
    offset = PREAMBLE_OCTETS + 4 if has_prefix else 4 if window.peek(0, 4) == b"DICM" else 0
    try:
        meta, offset = _meta(window, offset)
    except OutOfWindow:
        return Walk(state="truncated", offset=window.end, reason="ends within group 0002", values={})
    uid = text(meta.get(0x0010, b""))
    guessed = None if uid else guess(window.peek(offset, 8))
    if not uid and guessed is None:
        if meta or has_prefix:
            return Walk(state="truncated", offset=offset, reason="no data set", values={})
        return Walk(state="not dicom", offset=0, reason="no prefix DICM, no element at the start", values={})
    return Head(
        transfer_syntax_uid=uid or guessed or "",
        data_set_offset=offset,
        sop_class_uid=text(meta.get(0x0002, b"")),
        sop_instance_uid=text(meta.get(0x0003, b"")),
        has_prefix=has_prefix,
        is_guessed=not uid,
    )


def walk_file(
    source: Source, *, wanted: frozenset[int] = frozenset(), stop_after: int | None = None
) -> tuple[Head, Walk]:
    """The head and the walk of a whole file. The head is empty when it is none."""
    window = Window(source, 0)
    head = parse_file(window)
    if isinstance(head, Walk):
        return NO_HEAD, head
    uid, offset = head.transfer_syntax_uid, head.data_set_offset
    found = walk(window, uid, offset=offset, wanted=wanted, stop_after=stop_after)
    if found.state == "truncated" and not head.has_prefix and found.offset == offset:
        found = Walk(state="not dicom", offset=found.offset, reason=found.reason, values={})
    return head, found


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """All octets of a file before its data set: preamble of zeros, prefix, group 0002 (PS3.10 Table 7.1-1)."""
    before, after = _around(sop_class_uid, transfer_syntax_uid)
    group = before + _short(0x0003, b"UI", sop_instance_uid, b"\x00") + after  # Media Storage SOP Instance UID
    return _PREFIX + len(group).to_bytes(4, "little") + group


@lru_cache(maxsize=256)
def _around(sop_class_uid: str, transfer_syntax_uid: str) -> tuple[bytes, bytes]:
    """What stands before and after the SOP Instance UID in group 0002; the same for all instances of a series."""
    before = (
        _long(0x0001, b"OB", b"\x00\x01"),  # File Meta Information Version
        _short(0x0002, b"UI", sop_class_uid, b"\x00"),  # Media Storage SOP Class UID
    )
    after = (
        _short(0x0010, b"UI", transfer_syntax_uid, b"\x00"),  # Transfer Syntax UID
        _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\x00"),  # Implementation Class UID
        _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),  # Implementation Version Name
    )
    return b"".join(before), b"".join(after)


def text(raw: bytes) -> str:
    """The value of a UI element (PS3.5 §6.2): without padding, of NUL or of space as some write it."""
    return raw.decode("latin-1").strip("\0 ")


NO_HEAD = Head(transfer_syntax_uid="", data_set_offset=0, has_prefix=False)


def _meta(window: Window, offset: int) -> tuple[dict[int, bytes], int]:
    """The elements of group 0002 by element number, and where the group ends. Raises OutOfWindow.

    Its group length is not believed: many files have a wrong one, and none is needed to see where the group ends.
    """
    octets = window.octets
    meta: dict[int, bytes] = {}
    while window.end - offset >= _ELEMENT.size:
        group, element, vr, length = _ELEMENT.unpack_from(octets, offset)
        if group != 2:
            break
        start = offset + 8
        if vr in _LONG_VRS:
            (length,) = _LONG_LENGTH.unpack_from(octets, offset)
            start = offset + 12
        elif not (vr.isalpha() and vr.isupper()):
            (length,) = _IMPLICIT_LENGTH.unpack_from(octets, offset)
        if start + length > len(octets):
            raise OutOfWindow(f"({group:04X},{element:04X})")
        if length <= _MAX_UID_OCTETS:
            meta[element] = bytes(octets[start : start + length])
        offset = start + length
    return meta, offset


def _short(element: int, vr: bytes, value: str, padding: bytes) -> bytes:
    octets = value.encode("ascii", "replace")
    octets += padding * (len(octets) & 1)
    return _ELEMENT.pack(2, element, vr, len(octets)) + octets


def _long(element: int, vr: bytes, octets: bytes) -> bytes:
    return _ELEMENT.pack(2, element, vr, 0) + len(octets).to_bytes(4, "little") + octets
