"""Edits: from what was typed to which elements of a data set are set, emptied or deleted, and whether UIDs change.

    KEY=VALUE    the element has this value, whether it was there or not; `\\` between several values
    KEY=         the element is there, empty
    KEY-         the element is not there
    uid-remap    every UID of an instance, a series, a study or a frame of reference becomes another, everywhere

Owns the grammar, and what is refused because it would break things without a word: one UID for many instances, values
that the value representation does not allow, elements that are no text. Refuses to know PS3.6 (the caller says which
tag a keyword has, and which VR), and to edit.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

from dcmsync.errors import UsageError

REMAP = "uid-remap"
SPECIFIC_CHARACTER_SET = 0x00080005
ORIGINAL_ATTRIBUTES = 0x04000561
UTF_8 = "ISO_IR 192"

_FORM = re.compile(r"([A-Za-z]\w*|[0-9A-Fa-f]{8})(?:=(.*)|-)", re.DOTALL | re.ASCII)
_IDENTITY = {
    0x00080016: "tells what kind of instance it is",
    0x00080018: "would be the same for every instance",
    0x0020000D: "would make one study of all",
    0x0020000E: "would make one series of all",
}
_NOT_IN_DATA_SETS = frozenset({0x0000, 0x0002, 0xFFFE})
_NO_TEXT = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN", ""})
_ANY_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # VRs that a character set holds for (PS3.5 §6.1.2.3)
_SINGLE = frozenset({"LT", "ST", "UT", "UR"})  # a backslash is text there
_SHAPES = {
    "AE": r"[ -\[\]-~]{0,16}", "AS": r"\d{3}[DWMY]", "CS": r"[A-Z0-9 _]{0,16}", "DA": r"\d{8}",
    "DS": r" *[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)? *", "DT": r"\d{4}(\d\d){0,5}(\.\d{1,6})?([-+]\d{4})?",
    "IS": r" *[-+]?\d{1,12} *", "TM": r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?", "UI": r"[0-9.]{1,64}", "AT": r"[0-9A-Fa-f]{8}",
    "US": r"\d+", "UL": r"\d+", "UV": r"\d+", "SS": r"-?\d+", "SL": r"-?\d+", "SV": r"-?\d+",
    "FL": r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", "FD": r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?",
}  # fmt: skip  # PS3.5 §6.2, of one value
_LONGEST = {"DS": 16, "IS": 12, "LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "PN": 3 * 64 + 2}  # characters
_BITS = {"US": 16, "UL": 32, "UV": 64, "SS": 16, "SL": 32, "SV": 64}
_MAX_OCTETS = 0xFFFE  # what the short form of explicit VR can say


class Edit(Struct, frozen=True):
    """The value of one element; `vr` as PS3.6 has it, `US or SS` where there are two."""

    vr: str
    text: str


class Edits(Struct, frozen=True, kw_only=True):
    """What is to be done to each data set. `words`: what was typed, by which it can be said again."""

    words: tuple[str, ...] = ()
    values: Mapping[int, Edit] = {}
    deleted: frozenset[int] = frozenset()
    remaps: bool = False


def parse(
    words: Sequence[str],
    *,
    tag_of: Callable[[str], int],
    vr_of: Callable[[int], str],
    keeps_originals: bool = False,
) -> Edits:
    """The edits that the words say; a later word on the same element wins. Raises UsageError.

    `keeps_originals`: what they replace has to be kept in Original Attributes Sequence, as far as that can be done.
    """
    values: dict[int, Edit] = {}
    deleted: set[int] = set()
    for word in words:
        if word == REMAP:
            continue
        form = _FORM.fullmatch(word)
        if form is None:
            advice = f"Write KEY=VALUE, KEY= to empty, KEY- to delete, or {REMAP}"
            raise UsageError(f"{word!r} is no edit", advice=advice)
        tag = tag_of(form[1])
        _check_tag(tag, form[1], keeps_originals=keeps_originals)
        values.pop(tag, None)
        deleted.discard(tag)
        if form[2] is None:
            deleted.add(tag)
        else:
            values[tag] = Edit(vr_of(tag), form[2])
            _check(form[1], values[tag])
    _check_character_set(values, deleted)
    return Edits(words=tuple(words), values=values, deleted=frozenset(deleted), remaps=REMAP in words)


def lines(text: str, place: str) -> list[str]:
    """The words of a file of edits: one a line; empty lines, and those that begin with #, say nothing."""
    found = [line.strip("\r\n") for line in text.split("\n")]
    words = [line for line in found if line.strip() and not line.lstrip().startswith("#")]
    if not words:
        raise UsageError(f"{place}: there is no edit in it", advice="Write one a line: KEY=VALUE, KEY= or KEY-")
    return words


def _check_tag(tag: int, name: str, *, keeps_originals: bool) -> None:
    if tag in _IDENTITY:
        raise UsageError(f"{name} is not edited: it {_IDENTITY[tag]}", advice=f"To have new UIDs: {REMAP}")
    if tag >> 16 in _NOT_IN_DATA_SETS or not tag & 0xFFFF:
        advice = "Name one of PS3.6, as a keyword or ggggeeee"
        raise UsageError(f"{name} is no element that a data set has", advice=advice)
    if keeps_originals and (tag >= ORIGINAL_ATTRIBUTES or tag >> 16 & 1):
        words = f"{name}: its original value cannot be kept: it stands behind (0400,0561), or is private"
        raise UsageError(words, advice="Leave out --keep-originals, or this edit")


def _check(name: str, edit: Edit) -> None:
    """Raises UsageError for a value that the element cannot have."""
    vrs = edit.vr.split(" or ")
    if not edit.text and edit.vr:
        return
    if not set(vrs) - _NO_TEXT:
        what = "is not in PS3.6" if not edit.vr else f"holds no text ({edit.vr})"
        advice = f"It can be emptied ({name}=) or deleted ({name}-)"
        raise UsageError(f"{name} {what}: no value can be given", advice=advice)
    parts = [edit.text] if vrs[0] in _SINGLE else edit.text.split("\\")
    for vr in vrs:
        if vr not in _NO_TEXT and all(_is_allowed(vr, part) for part in parts):
            break
    else:
        raise UsageError(f"{name}={edit.text}: no value of {edit.vr} (PS3.5, 6.2)")
    if len(edit.text.encode()) > _MAX_OCTETS:
        raise UsageError(f"{name}: the value is longer than {_MAX_OCTETS:,} octets")


def _is_allowed(vr: str, value: str) -> bool:
    if not value:
        return True
    if vr not in _ANY_TEXT and not value.isascii():
        return False
    if len(value) > _LONGEST.get(vr, len(value)) or (vr in _SHAPES and not re.fullmatch(_SHAPES[vr], value)):
        return False
    if vr in _BITS:
        least = -(1 << _BITS[vr] - 1) if vr[0] == "S" else 0
        return least <= int(value) < least + (1 << _BITS[vr])
    return vr == "LT" or vr in ("ST", "UT") or not any(ord(character) < 32 for character in value)


def _check_character_set(values: Mapping[int, Edit], deleted: Iterable[int]) -> None:
    edit = values.get(SPECIFIC_CHARACTER_SET)
    if SPECIFIC_CHARACTER_SET in deleted or (edit is not None and edit.text != UTF_8):
        raise UsageError("SpecificCharacterSet tells how all other text is written: it can only become ISO_IR 192",
                         advice="With SpecificCharacterSet='ISO_IR 192' all text is written anew, in UTF-8")


def remapper(salt: bytes) -> Callable[[str], str]:
    """A function that gives the new UID for a UID: the same one everywhere and every time, for one salt.

    It is a UUID (PS3.5 §B.2), of version 8 (RFC 9562): BLAKE2b with 16 octets of digest and the salt as its key, over
    the UID's ASCII characters; a salt of more than 64 octets is hashed first. Who has no salt cannot tell which UID
    one was made from, even by trying; without any salt, everybody can try.
    """
    key = salt if len(salt) <= 64 else blake2b(salt).digest()

    @lru_cache(maxsize=4096)
    def remap(uid: str) -> str:
        number = int.from_bytes(blake2b(uid.encode("utf-8", "surrogateescape"), digest_size=16, key=key).digest())
        number = number & ~(0xF << 76) | 0x8 << 76  # the version
        number = number & ~(0x3 << 62) | 0x2 << 62  # the variant
        return f"2.25.{number}"

    return remap
