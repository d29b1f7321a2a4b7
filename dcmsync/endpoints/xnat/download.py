"""The files of an archived scan, as XNAT gives them: one zip archive, kept in a file without a name until it is read.

Owns that file, and what its members say they are. A zip has its directory at its end, so nothing of it is believed
before all of it has come: one that was cut has none. Refuses to write anything where people would see it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import aclosing
from tempfile import TemporaryFile
from typing import IO

import anyio.lowlevel
import anyio.to_thread

from dcmsync.contract import Receiver
from dcmsync.endpoints.xnat.listing import Scan
from dcmsync.errors import RemoteProtocolError, local_trouble
from dcmsync.net.http import Door
from dcmsync.net.instances import Intake, Taken
from dcmsync.wire import archive
from dcmsync.wire.archive import DEFLATED, ENCRYPTED, STORED, Damaged, Directory, Entry
from dcmsync.wire.arrived import SERIES_INSTANCE_UID, SOP_CLASS_UID, SOP_INSTANCE_UID
from dcmsync.wire.elements import walk
from dcmsync.wire.part10 import Head, parse_file, text
from dcmsync.wire.source import Distant
from dcmsync.wire.unpacking import Unpacking

MAX_OCTETS = 1 << 36
_HEAD_OCTETS = 256 << 10  # of a member, in which it says what it is
_BOMB_OCTETS, _BOMB_RATIO = 256 << 20, 200  # as of any archive from elsewhere
_AS_ARCHIVE = (("format", "zip"),)
_ACCEPT = {"Accept": "application/zip"}
_TOLD = frozenset((SOP_CLASS_UID, SOP_INSTANCE_UID, SERIES_INSTANCE_UID))


class Download:
    """One scan, here. Ends with `close`."""

    def __init__(self, scan: Scan, file: IO[bytes], name: str) -> None:
        """Reads its directory. Raises RemoteProtocolError."""
        self.scan = scan
        self._file = file
        self._name = name
        self._source = Distant(self._read_at, file.seek(0, os.SEEK_END))
        self.instances: dict[str, tuple[Entry, str]] = {}  # SOP Instance UID -> where it is, and its SOP class
        try:
            self._directory: Directory = archive.find_directory(self._source)
            entries = list(archive.entries(self._source, self._directory))
            size, packed = sum(entry.size for entry in entries), sum(entry.packed for entry in entries)
            if size > max(_BOMB_OCTETS, _BOMB_RATIO * packed):
                raise Damaged("it is a bomb")
            for entry in entries:
                self._look_at(entry)
        except Damaged as damage:
            raise RemoteProtocolError(f"{name}: sent an archive that cannot be read: {damage}") from damage

    def close(self) -> None:
        """Lets go of it. Idempotent."""
        self._file.close()

    async def give(self, uid: str, receiver: Receiver) -> Taken:
        """One instance. Raises LocalTrouble, RemoteProtocolError."""
        entry, _ = self.instances[uid]
        intake = Intake(receiver)
        try:
            for piece in self._octets(entry):
                intake.write(piece)
                await anyio.lowlevel.checkpoint()
            return intake.end()
        except Damaged as damage:
            raise RemoteProtocolError(f"{self._name}: sent a file that cannot be unpacked: {damage}") from damage
        finally:
            intake.drop("it could not be unpacked")

    def _look_at(self, entry: Entry) -> None:
        """Learns what a member is; passes by what is no instance of the scan. Raises Damaged."""
        if entry.flags & ENCRYPTED or entry.method not in (STORED, DEFLATED) or not entry.size:
            return
        head_octets = b""
        for piece in self._octets(entry):
            head_octets += piece
            if len(head_octets) >= _HEAD_OCTETS:
                break
        head = parse_file(head_octets)
        if not isinstance(head, Head):
            return
        found = walk(
            head_octets, head.transfer_syntax_uid, offset=head.data_set_offset, wanted=_TOLD,
            stop_after=SERIES_INSTANCE_UID,
        ).values  # fmt: skip
        uids = {tag: text(found[tag][1]) if tag in found else "" for tag in _TOLD}
        if uids[SOP_INSTANCE_UID] and uids[SERIES_INSTANCE_UID] == self.scan.uid:
            self.instances[uids[SOP_INSTANCE_UID]] = entry, uids[SOP_CLASS_UID]

    def _octets(self, entry: Entry) -> Iterator[bytes]:
        """What a member unpacks to. Raises Damaged."""
        unpacking = Unpacking(self._source, entry, archive.data_offset(self._source, entry, self._directory))
        while piece := unpacking.read():
            yield piece

    def _read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)


async def beginning(door: Door, scan: Scan) -> bytes:
    """The first octets of what would be downloaded; the rest is not read. Raises PeerError."""
    exchange = door.exchange("GET", scan.files, query=_AS_ARCHIVE, headers=_ACCEPT)
    async with exchange as answer, aclosing(answer.pieces()) as pieces:
        return await anext(pieces, b"")


async def download(door: Door, scan: Scan) -> Download:
    """Fetches a scan. Raises LocalTrouble, PeerError."""
    file = TemporaryFile()  # noqa: SIM115  # the Download ends it
    octets = 0
    try:
        async with door.exchange("GET", scan.files, query=_AS_ARCHIVE, headers=_ACCEPT) as answer:
            async for piece in answer.pieces():
                octets += len(piece)
                if octets > MAX_OCTETS:
                    raise RemoteProtocolError(f"{door.name}: sent an archive of more than {MAX_OCTETS:,} octets")
                file.write(piece)
        file.flush()
        return await anyio.to_thread.run_sync(Download, scan, file, door.name)
    except OSError as trouble:
        file.close()
        raise local_trouble(trouble) from trouble
    except BaseException:
        file.close()
        raise
