"""An archive that is open for reading: its members, each with the verdict whether it may be read.

Owns the descriptor, and that all that is read belongs to one state of the file. Refuses to know what members hold.
"""

import os
import stat
from hashlib import blake2b
from struct import Struct as Layout
from typing import Self

from msgspec import Struct

from dcmsync.contract import Stamp
from dcmsync.endpoints.zip import faults
from dcmsync.errors import LocalTrouble
from dcmsync.wire.archive import Damaged, Entry, data_offset, entries, find_directory
from dcmsync.wire.source import Distant

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_SAID = Layout("<9Q")


class Member(Struct, frozen=True, kw_only=True, gc=False):
    """One member, and the stamp of its state; `fault` says why it must not be read."""

    entry: Entry
    stamp: Stamp
    fault: str = ""


class Reader:
    """One archive, open. `members` are by path; folders are left out. Safe to use from several threads."""

    def __init__(self, path: str, *, descriptor: int = -1) -> None:
        """Opens the archive, or takes over the descriptor of one.

        Raises OSError: FileNotFoundError among them; LocalTrouble when it is no archive that can be read.
        """
        self.descriptor = descriptor if descriptor >= 0 else os.open(path, _READ)
        try:
            status = os.fstat(self.descriptor)
            self.stamp = stamp_from(status)
            self.source = Distant(self._read_at, status.st_size)
            if not stat.S_ISREG(status.st_mode):
                raise LocalTrouble(f"{path} is no file", advice="Name a zip archive")
            try:
                self.directory = find_directory(self.source)
                self.entries = list(entries(self.source, self.directory))
            except Damaged as damage:
                raise LocalTrouble(f"{path} cannot be read: {damage}", advice="Bring it again") from damage
            self.members = self._members(path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def data_offset(self, entry: Entry) -> int:
        """Where the data of a member begins. Raises Damaged."""
        return data_offset(self.source, entry, self.directory)

    def overlaps(self) -> set[str]:
        """The paths of members that share octets; each local header is looked at, where it may be."""
        spans = []
        for entry in self.entries:
            try:
                end = self.data_offset(entry) + entry.packed
            except Damaged:
                end = entry.header + 1  # its fault is found when it is read
            spans.append((entry.header, end, entry.name))
        return {name.decode("utf-8", "surrogateescape") for name in faults.overlaps(spans)}

    def _members(self, path: str) -> dict[str, Member]:
        files = [entry for entry in self.entries if not faults.is_folder(entry)]
        if faults.is_bomb(files):
            size, packed = sum(entry.size for entry in files), sum(entry.packed for entry in files)
            raise LocalTrouble(f"{path} is a bomb: it inflates to {size:,} octets from {packed:,}")
        twins = faults.twins(files)
        found = {}
        for entry in files:
            fault = twins.get(entry.name) or faults.fault(entry)
            found[entry.path] = Member(entry=entry, stamp=_stamp(self.stamp, entry), fault=fault)
        if found and all(member.fault == faults.IS_ENCRYPTED for member in found.values()):
            raise LocalTrouble(f"{path} is encrypted", advice="Decrypt it first, as with 7z or unzip -P")
        return found

    def _read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, offset) if offset < self.stamp.size else b""


def stamp_from(status: os.stat_result) -> Stamp:
    """The stamp in what stat(2) gave."""
    return Stamp(size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino)


def _stamp(archive: Stamp, entry: Entry) -> Stamp:
    """The stamp of a member: it changes with all that the file system says of the archive, and the directory of it."""
    said = _SAID.pack(
        archive.size, archive.mtime_ns % (1 << 64), archive.device % (1 << 64), archive.inode % (1 << 64),
        entry.header, entry.packed, entry.size, entry.crc, entry.method << 16 | entry.flags,
    )  # fmt: skip
    number = int.from_bytes(blake2b(said, digest_size=8).digest(), "little") >> 1
    return Stamp(size=entry.size, mtime_ns=number, device=archive.device, inode=archive.inode)
