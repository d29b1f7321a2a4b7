"""Instances as one zip archive that streams: members stored as they are, its length known before the first octet.

Owns the body of an upload, and its parcels' checksums, for which each is read once before it is sent (from the page
cache the second time). Members are not deflated, and have no sizes behind them: XNAT reads archives forward.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence

from msgspec import Struct

from dcmsync.contract import Parcel
from dcmsync.errors import LocalTrouble
from dcmsync.net.parcels import Piece, head_of, joined, octets_of
from dcmsync.wire import archive
from dcmsync.wire.archive import SMALL, STORED, Directory

_ODD = re.compile(r"[^0-9A-Za-z.-]")


class _Member(Struct, frozen=True):
    """One instance: what stands before it, its octets, and what the directory says of it, all but where it is."""

    header: bytes
    head: bytes
    parcel: Parcel
    name: bytes
    crc: int

    @property
    def size(self) -> int:
        """Of the file."""
        return len(self.head) + self.parcel.size


class Pack:
    """Parcels as a zip archive (net.http.Body). `trouble`: which one could not be read, and why."""

    media_type = "application/zip"

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        """Reads every parcel: call it in a thread. What cannot be read is `trouble`, and the rest is not looked at."""
        self.trouble: tuple[int, LocalTrouble] | None = None
        self._members: list[_Member] = []
        for at, parcel in enumerate(parcels):
            try:
                self._members.append(_member(at, parcel))
            except LocalTrouble as trouble:
                self.trouble = at, trouble
                break
        self._directory = self._closing()
        self.length = sum(len(each.header) + each.size for each in self._members) + len(self._directory)

    def pieces(self) -> AsyncIterator[Piece]:
        """All octets, from the beginning."""
        self.trouble = None
        return joined(self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        for at, member in enumerate(self._members):
            yield member.header
            yield member.head
            try:
                yield from octets_of(member.parcel)
            except LocalTrouble as trouble:
                self.trouble = at, trouble
                raise
        yield self._directory

    def _closing(self) -> bytes:
        """The directory, and the end."""
        records = []
        at = 0
        for member in self._members:
            size = member.size
            records.append(
                archive.record(
                    member.name, method=STORED, crc=member.crc, packed=size, size=size, header=at,
                    is_large=size >= SMALL,
                )
            )  # fmt: skip
            at += len(member.header) + size
        directory = b"".join(records)
        return directory + archive.end(Directory(offset=at, size=len(directory), count=len(records)))


def _member(at: int, parcel: Parcel) -> _Member:
    """Raises LocalTrouble."""
    head = head_of(parcel)
    crc = zlib.crc32(head)
    for piece in octets_of(parcel):
        crc = zlib.crc32(piece, crc)
    size = len(head) + parcel.size
    name = f"{at + 1:06d}-{_ODD.sub('_', parcel.arrival.sop_instance_uid)[:64]}.dcm".encode()
    header = archive.local_header(name, method=STORED, crc=crc, packed=size, size=size, is_large=size >= SMALL)
    return _Member(header, head, parcel, name, crc)
