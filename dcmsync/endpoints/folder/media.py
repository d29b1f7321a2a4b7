"""DICOMDIR, the table of contents of removable media (PS3.10 §8.6, PS3.3 Annex F): compared with what is there.

Owns which files it names and saying which of them are not there. Refuses to believe it: every file is looked at anyway,
no file is opened because it is named, and a name that would lead out is passed over. Its offsets are not used.

ISO 9660 has upper case only, and versions (`IM000001.;1`); systems show such names in their own ways, so names are
compared without case, version and final dot.
"""

import os
from collections.abc import Callable, Iterator
from struct import error as OutOfOctets

from dcmsync.contract import Catalogue
from dcmsync.endpoints.folder.below import open_file
from dcmsync.wire.codings import CODINGS, UNDEFINED, Coding, guess, plain
from dcmsync.wire.elements import Walk
from dcmsync.wire.part10 import parse_file

MAX_OCTETS = 32 << 20  # of a DICOMDIR; what is beyond is not looked at
MAX_NAMES = 200_000

_RECORDS = 0x00041220  # Directory Record Sequence
_FILE_ID = 0x00041500  # Referenced File ID
_ITEM = 0xFFFEE000


def is_directory(path: str) -> bool:
    """Whether a file is a DICOMDIR, by its name."""
    return _folded(path.rpartition("/")[2]) == "dicomdir"


def compare(
    root: str,
    name: str,
    catalogue: Catalogue,
    *,
    warn: Callable[[str], None],
    skipped: Callable[[str, str], None],
) -> None:
    """Says which files the DICOMDIRs below `root`, the place called `name`, promise and the catalogue does not have."""
    missing: dict[str, str] = {}  # the path that is compared -> the path as it was written
    hostile = 0
    for holding in catalogue.others():
        if not is_directory(holding.path):
            continue
        skipped(holding.path, "a media directory")
        folder = holding.path.rpartition("/")[0]
        for parts in _read(root, holding.path, skipped):
            if len(missing) == MAX_NAMES:
                warn(f"{name}: media directories name more than {MAX_NAMES:,} files; the rest is not compared")
                break
            if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
                hostile += 1
                continue
            path = "/".join([folder, *parts] if folder else parts)
            missing[_folded(path)] = path
    if hostile:
        warn(f"{name}: {hostile:,} names in a media directory lead out of it, or name nothing; they are passed over")
    if not missing:
        return
    for path, _ in catalogue.stamps():
        missing.pop(_folded(path), None)
    for path in missing.values():
        skipped(path, f"named by a media directory, and not there: {path.rpartition('/')[2]}")
    if missing:
        warn(f"{name}: {len(missing):,} files that a media directory names are not there; -v names them")


def _folded(path: str) -> str:
    return "/".join(part.partition(";")[0].rstrip(".") for part in path.casefold().split("/"))


def _read(root: str, path: str, skipped: Callable[[str, str], None]) -> list[list[str]]:
    """The file IDs in one DICOMDIR, each as its components; as many as can be read of a broken one."""
    try:
        descriptor = open_file(root, path)
    except OSError as trouble:
        skipped(path, trouble.strerror or "unreadable")
        return []
    try:
        octets = os.pread(descriptor, MAX_OCTETS, 0)
    except OSError as trouble:
        skipped(path, trouble.strerror or "unreadable")
        return []
    finally:
        os.close(descriptor)
    found: list[list[str]] = []
    try:
        for raw in _file_ids(octets):
            found.append(raw.decode("latin-1").rstrip(" \0").split("\\"))  # noqa: PERF401 - what came before a break
    except OutOfOctets:
        skipped(path, "a media directory that breaks off")
    return found


def _file_ids(octets: bytes) -> Iterator[bytes]:
    """The values of Referenced File ID, wherever they stand. Raises OutOfOctets where the octets end too early.

    Items are gone into, and so is whatever has no length; any other value is stepped over, and so is the rest of an
    item of defined length behind its file ID.
    """
    head = parse_file(octets)
    if isinstance(head, Walk):
        return
    at, item_end = head.data_set_offset, 0
    coding = CODINGS.get(guess(octets[at : at + 8]) or "")
    if coding is None:
        return
    while at < len(octets):
        tag, length, start = _header(octets, at, coding)
        if tag == _ITEM:
            item_end = start + length if length != UNDEFINED else 0
        if tag in (_ITEM, _RECORDS) or length == UNDEFINED:
            at = start
            continue
        at = start + length
        if at > len(octets):
            raise OutOfOctets("a value")
        if tag == _FILE_ID:
            yield octets[start:at]
            at = max(at, item_end)


def _header(octets: bytes, at: int, coding: Coding) -> tuple[int, int, int]:
    """Tag and length of the element at `at`, and where its value begins. Raises OutOfOctets."""
    tag, length = coding.item_header(octets, at)
    number = plain(tag, coding)
    if coding.implicit or number >> 16 == 0xFFFE:
        return number, length, at + 8
    _, vr, length = coding.header(octets, at)
    if vr not in coding.long:
        return number, length, at + 8
    return number, coding.long_length(octets, at)[0], at + 12
