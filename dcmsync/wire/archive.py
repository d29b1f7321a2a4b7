"""The frame that a zip archive puts around its members: local headers, directory, end (PKWARE APPNOTE.TXT 6.3.10).

Owns reading and writing it, with zip64, and the verdict that it contradicts itself. Refuses to open files, to inflate
(that is `unpacking`), and to guess: an archive whose end can be read in two ways, or that has octets which belong to
nothing before its directory, is none. The standard library was refused for this: it cuts names at NUL, takes one local
header's word for little, and when it appends it rewrites what it says of the members that are there.
"""

from collections.abc import Iterator
from struct import Struct as Layout
from typing import NoReturn

from msgspec import Struct

from dcmsync.wire.source import Distant

STORED, DEFLATED = 0, 8
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # general purpose bits 0, 6 and 13: encrypted, strongly, names hidden
FOLLOWED = 0x0008  # bit 3: CRC and sizes stand behind the data
UTF_8 = 0x0800  # bit 11

LOCAL_MARK = b"PK\3\4"  # what each local header begins with, and so an archive
SMALL = 0xFFFFFFFF  # a size or offset that stands in the zip64 extra field instead
FEW = 0xFFFF  # a count, likewise
MAX_NAME_OCTETS = 0xFFFF
MAX_MEMBERS = 1_000_000  # some 400 octets of memory each

# The layouts below leave out nothing: signature first, then as the APPNOTE lists the fields.
_LOCAL = Layout("<4s5H3I2H")  # §4.3.7: needed, flags, method, time, date, CRC, packed, size, name, extra
_ENTRY = Layout("<4s6H3I5H2I")  # §4.3.12: made by, then as above, comment, disk, attributes (2), offset
_END = Layout("<4s4H2IH")  # §4.3.16: disks (2), entries (2), size, offset, comment
_END_64 = Layout("<4sQ2H2I4Q")  # §4.3.14: size of this, made by, needed, disks (2), entries (2), size, offset
_LOCATOR = Layout("<4sIQI")  # §4.3.15: disk, offset of the zip64 end, disks
_EXTRA = Layout("<2H")  # §4.5.1: kind, size
_ENTRY_MARK, _END_MARK = b"PK\1\2", b"PK\5\6"
_END_64_MARK, _LOCATOR_MARK = b"PK\6\6", b"PK\6\7"
_ZIP64 = 0x0001
_NEEDED, _NEEDED_64 = 20, 45  # version 2.0: deflate; 4.5: zip64
_UNIX = 3 << 8
_MODE = 0o100600 << 16  # a regular file, for its owner alone
_DATE = 1 << 5 | 1  # 1980-01-01, the first there is: the same instances make the same archive whenever it is written
_MAX_COMMENT_OCTETS = 0xFFFF
_WINDOW_OCTETS = 1 << 20


class Damaged(Exception):
    """An archive, or a member of it, is not what it says. `str` tells why, without naming it."""


class Directory(Struct, frozen=True, kw_only=True):
    """Where the central directory stands: `size` octets at `offset`, for `count` members."""

    offset: int
    size: int
    count: int
    comment: bytes = b""


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """What the directory says of one member. `mode` is that of Unix, 0 where there is none.

    Its local header is at `header`; what the directory says stands at `record`, in `record_octets` octets.
    """

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int
    mode: int
    record: int
    record_octets: int

    @property
    def path(self) -> str:
        """Its name; octets that are no UTF-8 become surrogates (PEP 383), whatever bit 11 says."""
        return self.name.decode("utf-8", "surrogateescape")


def find_directory(source: Distant) -> Directory:
    """Where an archive has its directory. Raises Damaged."""
    begin = max(source.size - _END.size - _MAX_COMMENT_OCTETS, 0)
    tail = source.read_at(begin, source.size - begin)
    ends = [at for at in _every(tail, _END_MARK) if _is_end(tail, at)]
    if not ends:
        is_cut = source.read_at(0, 4) == LOCAL_MARK
        raise Damaged("it is cut: its directory is missing" if is_cut else "it is no zip archive")
    if len(ends) > 1:
        raise Damaged("its end can be read in two ways")
    _, disk, first_disk, here, count, size, offset, _ = _END.unpack_from(tail, ends[0])
    end = begin + ends[0]
    if disk or first_disk or here != count:
        raise Damaged("it is one part of several")
    locator = source.read_at(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if locator.startswith(_LOCATOR_MARK):
        end, large = _large_end(source, end - _LOCATOR.size, locator)
        for said, sentinel, meant in zip((count, size, offset), (FEW, SMALL, SMALL), large, strict=True):
            if said not in (sentinel, meant):
                raise Damaged("its two ends contradict each other")
        count, size, offset = large
    if offset + size != end:
        raise Damaged("its directory is not where its end says")
    if count > MAX_MEMBERS:
        raise Damaged(f"it has more than {MAX_MEMBERS:,} members")
    return Directory(offset=offset, size=size, count=count, comment=tail[ends[0] + _END.size :])


def entries(source: Distant, directory: Directory) -> Iterator[Entry]:
    """The members, in the order of the directory. Raises Damaged."""
    at, end = directory.offset, directory.offset + directory.size
    window, base = b"", at
    for _ in range(directory.count):
        if at + _longest(window, at - base) > base + len(window):
            window, base = source.read_at(at, min(_WINDOW_OCTETS, end - at)), at
        octets = _longest(window, at - base)
        if at - base + octets > len(window) or window[at - base : at - base + 4] != _ENTRY_MARK:
            raise Damaged(f"its directory is broken at octet {at:,}")
        yield _entry(window, at - base, at, octets)
        at += octets
    if at != end:
        raise Damaged("its directory has more than it counts")


def data_offset(source: Distant, entry: Entry, directory: Directory) -> int:
    """Where the data of a member begins. Raises Damaged when the local header contradicts the directory."""
    fixed = source.read_at(entry.header, _LOCAL.size)
    if len(fixed) < _LOCAL.size or not fixed.startswith(LOCAL_MARK):
        raise Damaged("there is no local header where the directory says")
    _, _, flags, method, _, _, crc, packed, size, name_octets, extra_octets = _LOCAL.unpack(fixed)
    begin: int = entry.header + _LOCAL.size + name_octets + extra_octets
    rest = source.read_at(entry.header + _LOCAL.size, name_octets + extra_octets)
    if rest[:name_octets] != entry.name:
        _contradict("name")
    if method != entry.method or (flags ^ entry.flags) & (ENCRYPTED | FOLLOWED):
        _contradict("compression or encryption")
    if SMALL in (packed, size):
        large = _extra(rest[name_octets:])
        size = large.pop(0) if size == SMALL and large else size
        packed = large.pop(0) if packed == SMALL and large else packed
    said, meant = (crc, packed, size), (entry.crc, entry.packed, entry.size)
    if said != meant and not (flags & FOLLOWED and all(a in (0, b, SMALL) for a, b in zip(said, meant, strict=True))):
        _contradict("CRC or size")
    if begin + entry.packed > directory.offset:
        raise Damaged("its data does not end before the directory begins")
    return begin


def local_header(name: bytes, *, method: int, crc: int, packed: int, size: int, is_large: bool) -> bytes:
    """What stands before the data of a new member; `is_large` makes it 20 octets longer whatever the sizes are."""
    extra = _EXTRA.pack(_ZIP64, 16) + size.to_bytes(8, "little") + packed.to_bytes(8, "little") if is_large else b""
    sizes = (SMALL, SMALL) if is_large else (packed, size)
    needed = _NEEDED_64 if is_large else _NEEDED
    fixed = _LOCAL.pack(LOCAL_MARK, needed, _flags(name), method, 0, _DATE, crc, *sizes, len(name), len(extra))
    return fixed + name + extra


def record(name: bytes, *, method: int, crc: int, packed: int, size: int, header: int, is_large: bool) -> bytes:
    """What the directory says of a new member."""
    large = b"".join(number.to_bytes(8, "little") for number in (size, packed, header) if number >= SMALL)
    extra = _EXTRA.pack(_ZIP64, len(large)) + large if large else b""
    needed = _NEEDED_64 if is_large or large else _NEEDED
    return (
        _ENTRY.pack(
            _ENTRY_MARK, _UNIX | needed, needed, _flags(name), method, 0, _DATE, crc, min(packed, SMALL),
            min(size, SMALL), len(name), len(extra), 0, 0, 0, _MODE, min(header, SMALL),
        )
        + name
        + extra
    )  # fmt: skip


def end(directory: Directory) -> bytes:
    """What stands behind a directory: the end of zip64 where it is needed, and the end."""
    count, size, offset = directory.count, directory.size, directory.offset
    large = b""
    if count >= FEW or size >= SMALL or offset >= SMALL:
        made = (_END_64.size - 12, _UNIX | _NEEDED_64, _NEEDED_64)
        large = _END_64.pack(_END_64_MARK, *made, 0, 0, count, count, size, offset)
        large += _LOCATOR.pack(_LOCATOR_MARK, 0, offset + size, 1)
    few = min(count, FEW)
    comment = directory.comment
    return large + _END.pack(_END_MARK, 0, 0, few, few, min(size, SMALL), min(offset, SMALL), len(comment)) + comment


def _every(octets: bytes, mark: bytes) -> Iterator[int]:
    at = octets.find(mark)
    while at >= 0:
        yield at
        at = octets.find(mark, at + 1)


def _is_end(tail: bytes, at: int) -> bool:
    room = len(tail) - at - _END.size
    return room >= 0 and bool(_END.unpack_from(tail, at)[-1] == room)


def _large_end(source: Distant, at: int, locator: bytes) -> tuple[int, tuple[int, int, int]]:
    """Where the zip64 end begins whose locator is at `at`; count, size and offset of the directory. Raises Damaged."""
    _, disk, offset, disks = _LOCATOR.unpack(locator)
    fixed = source.read_at(offset, _END_64.size) if offset < at else b""
    if len(fixed) < _END_64.size or not fixed.startswith(_END_64_MARK):
        raise Damaged("its zip64 end is not where it says")
    _, octets, _, _, here, first_disk, here_count, count, size, directory = _END_64.unpack(fixed)
    if disk or here or first_disk or disks > 1 or here_count != count:
        raise Damaged("it is one part of several")
    if offset + 12 + octets != at:
        raise Damaged("its zip64 end is not as long as it says")
    return offset, (count, size, directory)


def _longest(window: bytes, at: int) -> int:
    """The octets of the record at `at`, as far as the window tells: at least those that tell it."""
    if at + _ENTRY.size > len(window):
        return _ENTRY.size
    fields = _ENTRY.unpack_from(window, at)
    return _ENTRY.size + int(fields[10]) + int(fields[11]) + int(fields[12])


def _entry(window: bytes, at: int, record_offset: int, octets: int) -> Entry:
    fields = _ENTRY.unpack_from(window, at)
    _, _, _, flags, method, _, _, crc, packed, size, name_octets, extra_octets, _, disk, _, attributes, header = fields
    begin = at + _ENTRY.size
    name = window[begin : begin + name_octets]
    if not name:
        raise Damaged("a member has no name")
    if SMALL in (packed, size, header):
        large = _extra(window[begin + name_octets : begin + name_octets + extra_octets])
        size = large.pop(0) if size == SMALL and large else size
        packed = large.pop(0) if packed == SMALL and large else packed
        header = large.pop(0) if header == SMALL and large else header
    if disk not in (0, FEW):
        raise Damaged("it is one part of several")
    return Entry(
        name=name,
        flags=flags,
        method=method,
        crc=crc,
        packed=packed,
        size=size,
        header=header,
        mode=attributes >> 16,
        record=record_offset,
        record_octets=octets,
    )


def _extra(extra: bytes) -> list[int]:
    """The numbers of the zip64 extra field, or none (§4.5.3)."""
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, octets = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if kind == _ZIP64:
            field = extra[at : at + octets]
            return [int.from_bytes(field[i : i + 8], "little") for i in range(0, len(field) // 8 * 8, 8)]
        at += octets
    return []


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else UTF_8


def _contradict(what: str) -> NoReturn:
    raise Damaged(f"its local header says another {what} than the directory")
