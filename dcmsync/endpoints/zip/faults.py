"""Why a member of an archive is refused before an octet of it is read.

Owns that list. Judges by what the directory says alone, and one member against the others; refuses to open anything.
A member is refused by name and never guessed at: of two with one name, each program would take another one.
"""

import re
import stat
from collections.abc import Iterable, Sequence

from dcmsync.wire.archive import DEFLATED, ENCRYPTED, STORED, Entry

MAX_RATIO = 200
"""Octets from one. Deflate makes up to 1,032 of one, and images of nothing reach that; scans stay below 20."""

MAX_FREE_OCTETS = 256 << 20
"""Up to here any ratio will do: as much as a deflated data set may inflate to, and read in a second or two."""

IS_ENCRYPTED = "it is encrypted"

_BY_TYPE = {
    stat.S_IFLNK: "it is a symbolic link",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFDIR: "it is a folder with content",
}
_AES = 99  # the method that says: encrypted, and the real one stands in an extra field
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_DRIVE = re.compile(rb"[A-Za-z]:")


def is_folder(entry: Entry) -> bool:
    """Whether the member is a folder, which needs no reading: one with octets is something else."""
    return entry.name.endswith((b"/", b"\\")) and not entry.size


def name_fault(name: bytes) -> str:
    """Why no file may be called so, or ""; a backslash separates as a slash does: some programs write it."""
    if _CONTROL.search(name):
        return "its name has control characters"
    if name.startswith((b"/", b"\\")) or _DRIVE.match(name):
        return "its name begins at the root of a file system"
    if b".." in re.split(rb"[/\\]", name):
        return "its name leads out of the archive"
    return ""


def fault(entry: Entry) -> str:
    """Why this member is refused, or ""."""
    by_name = name_fault(entry.name)
    if by_name:
        return by_name
    kind = stat.S_IFMT(entry.mode)
    if kind not in (0, stat.S_IFREG):
        return _BY_TYPE.get(kind, "it is no regular file")
    if entry.name.endswith((b"/", b"\\")):
        return _BY_TYPE[stat.S_IFDIR]
    if entry.flags & ENCRYPTED or entry.method == _AES:
        return IS_ENCRYPTED
    if entry.method not in (STORED, DEFLATED):
        words = _METHODS.get(entry.method, f"method {entry.method}")
        return f"it is compressed with {words}; only deflate is read"
    if entry.method == STORED and entry.packed != entry.size:
        return "it is stored, and says two sizes"
    if is_bomb([entry]):
        return f"it is a bomb: {entry.size:,} octets from {entry.packed:,}"
    return ""


def is_bomb(members: Iterable[Entry]) -> bool:
    """Whether members would inflate to more than is plausible of what they are packed in."""
    packed = size = 0
    for entry in members:
        packed += entry.packed
        size += entry.size
    return size > MAX_FREE_OCTETS and size > MAX_RATIO * packed


def twins(members: Sequence[Entry]) -> dict[bytes, str]:
    """The names that more than one member has, and why none of these is read."""
    headers: dict[bytes, list[int]] = {}
    for entry in members:
        headers.setdefault(entry.name, []).append(entry.header)
    return {
        name: f"{len(found)} members have this name, at octets {', '.join(f'{at:,}' for at in found[:8])}"
        for name, found in headers.items()
        if len(found) > 1
    }


def overlaps(spans: Iterable[tuple[int, int, bytes]]) -> set[bytes]:
    """The names of the members that share octets. A span is where a header begins, where its data ends, its name."""
    shared: set[bytes] = set()
    reach, owner = 0, b""
    for begin, end, name in sorted(spans):
        if begin < reach:
            shared |= {name, owner}
        if end > reach:
            reach, owner = end, name
    return shared
