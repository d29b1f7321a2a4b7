"""A zip archive of this machine as a place to bring things from: the promises of `contract.py` over its members.

Owns taking stock once, answering from the catalogue, and offering members: each is proven by its CRC before it counts
as given. Refuses to answer of its own (the catalogue does), to write what it inflates to any disk, and to go on when
the archive is another one than stock was taken of.

Theory of operation. Inflating runs in worker threads. Small members are inflated a lot at a time, and offered only once
they are proven; large ones are poured piece by piece, and discarded when the proof fails at their end. Such a member
was whole when stock was taken: it has rotted since, the catalogue is told, and the instance is simply not there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain, islice

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
from msgspec import Struct

from dcmsync.contract import Arrival, Ask, Attributes, Catalogue, Ending, Holding, Receiver, Want
from dcmsync.endpoints import Setting
from dcmsync.endpoints.zip.reader import Reader
from dcmsync.endpoints.zip.stock import take_stock_of
from dcmsync.errors import LocalTrouble
from dcmsync.locator import Archive
from dcmsync.wire.archive import Damaged
from dcmsync.wire.part10 import PREAMBLE_OCTETS
from dcmsync.wire.unpacking import Unpacking

ANSWERS_AT_ONCE = 256
LOT_MEMBERS = 64
LOT_OCTETS = 4 << 20  # of small members inflated together, and more by one
SMALL_OCTETS = 4 << 20  # a member up to this size is inflated at once
PIECE_OCTETS = 1 << 20


class ZipPlace:
    """One archive, of which stock is taken once, whoever asks first. `name` is the locator as typed."""

    def __init__(self, archive: Archive, setting: Setting) -> None:
        self.name = str(archive)
        self._path = archive.path
        self._setting = setting
        self._lock = anyio.Lock()
        self._catalogue: Catalogue | None = None
        self._reader: Reader | None = None
        self._sessions = 0
        self._refused = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session; any number may be open. The archive is open as long as one of them is."""
        self._sessions += 1
        try:
            yield Session(self)
        finally:
            self._sessions -= 1
            if not self._sessions and self._reader is not None:
                self._reader.close()
                self._reader = None

    async def catalogue(self) -> Catalogue:
        """What is there, as of this run. Raises LocalTrouble when the archive cannot be read."""
        async with self._lock:
            if self._catalogue is None:
                self._catalogue = await anyio.to_thread.run_sync(self._take_stock)
        return self._catalogue

    async def reader(self) -> Reader:
        """The archive, open, as it was when stock was taken. Raises LocalTrouble."""
        await self.catalogue()
        async with self._lock:
            if self._reader is None:
                self._reader = await anyio.to_thread.run_sync(self._open)
        return self._reader

    @property
    def ending(self) -> Ending:
        """How each list ends: it is all there is, but for what was refused."""
        why = f"{self._refused:,} members are refused; -v says why" if self._refused else ""
        return Ending(is_last_word=True, truncated=bool(why), why=why)

    def skipped(self, path: str, why: str) -> None:
        """Says why a member is not given."""
        self._setting.skipped(path, why)

    def _take_stock(self) -> Catalogue:
        catalogue = self._setting.catalogue(self._path)
        reader = self._open()
        try:
            self._refused = take_stock_of(
                reader, self.name, catalogue, skipped=self._setting.skipped, digests=self._setting.digests
            )
            self._stamp = reader.stamp
        except OSError as trouble:
            raise LocalTrouble(f"{self.name} cannot be read: {trouble.strerror}") from trouble
        finally:
            reader.close()
        return catalogue

    def _open(self) -> Reader:
        try:
            reader = Reader(self._path)
        except OSError as trouble:
            raise LocalTrouble(f"{self.name} cannot be read: {trouble.strerror}") from trouble
        if self._catalogue is not None and reader.stamp != self._stamp:
            reader.close()
            raise LocalTrouble(f"{self.name} changed while it was read", advice="Run the same command again")
        return reader


class Offer(Struct, frozen=True, kw_only=True):
    """A member as it is offered: its data set in `octets`, from `offset` on, or still to come from `stream`."""

    holding: Holding
    arrival: Arrival
    octets: bytes = b""
    stream: Unpacking | None = None


class Session:
    """Satisfies Finds and Fetches (contract.Session)."""

    def __init__(self, place: ZipPlace) -> None:
        self._place = place

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """The catalogue's answers. Raises LocalTrouble."""
        catalogue = await self._place.catalogue()
        answers = catalogue.find(ask)
        is_over = False
        while not is_over:
            some = await anyio.to_thread.run_sync(lambda: list(islice(answers, ANSWERS_AT_ONCE)))
            for answer in some:
                yield answer
            is_over = len(some) < ANSWERS_AT_ONCE
        yield self._place.ending

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Offers every member of what is wanted, two of the same UID too; the ending has words for what was not.

        Raises LocalTrouble, and what sinks raise.
        """
        catalogue = await self._place.catalogue()
        lots = _lots(await self._place.reader(), _wanted(catalogue, want))
        given, why = 0, "its member is not what it was"
        while (lot := await anyio.to_thread.run_sync(next, lots, None)) is not None:
            for offer in lot:
                rotten = offer if isinstance(offer, Holding) else await self._give(offer, receiver)
                if rotten is None:
                    given += 1
                else:
                    catalogue.remember([rotten])
                    self._place.skipped(rotten.path, rotten.reason)
                    why = f"its member is damaged: {rotten.reason}"
        return Ending(why=why if given < len(want.instances) else "")

    async def rest(self) -> None:
        """Nothing is held that others wait for."""

    async def _give(self, offer: Offer, receiver: Receiver) -> Holding | None:
        """Gives one member to the receiver. A holding says that it has rotted, and how."""
        await receiver.room()
        await anyio.lowlevel.checkpoint()
        sink = receiver.receive(offer.arrival)
        if isinstance(sink, int):
            return None
        try:
            at = offer.holding.data_set_offset
            octets = memoryview(offer.octets)[at:] if offer.stream is None else memoryview(b"")
            if octets:
                sink.write([octets])
            while offer.stream is not None and (piece := await _next(offer.stream)):
                sink.write([memoryview(piece)])
        except Damaged as damage:
            sink.discard(str(damage))
            return _rotten(offer.holding, damage)
        except BaseException:
            sink.discard("the member could not be taken")
            raise
        sink.finish()
        return None


def open_archive(archive: Archive, setting: Setting) -> ZipPlace:
    """The archive that a locator names. Looks at nothing yet."""
    return ZipPlace(archive, setting)


def _wanted(catalogue: Catalogue, want: Want) -> Iterator[Holding]:
    """Every member of what is wanted."""
    if want.whole:
        found = catalogue.holdings(study_uid=want.study_uid, series_uid=want.series_uid)
        return (holding for holding in found if holding.sop_instance_uid in want.instances)
    return chain.from_iterable(
        catalogue.holdings(study_uid=want.study_uid, series_uid=want.series_uid, sop_instance_uid=uid)
        for uid in want.instances
    )


def _lots(reader: Reader, holdings: Iterator[Holding]) -> Iterator[list[Offer | Holding]]:
    """Offers, some at a time; a holding among them has rotted. To be advanced in a worker thread."""
    lot: list[Offer | Holding] = []
    octets = 0
    for holding in holdings:
        offer = _offer(reader, holding)
        if offer is None:
            continue
        lot.append(offer)
        octets += holding.stamp.size
        if len(lot) == LOT_MEMBERS or octets > LOT_OCTETS:
            yield lot
            lot, octets = [], 0
    if lot:
        yield lot


def _offer(reader: Reader, holding: Holding) -> Offer | Holding | None:
    """One member: inflated and proven, or its head, with the rest to come. None when the catalogue errs."""
    member = reader.members.get(holding.path)
    if member is None or member.fault or member.stamp != holding.stamp:
        return None
    try:
        stream = Unpacking(reader.source, member.entry, reader.data_offset(member.entry))
        if member.entry.size <= SMALL_OCTETS:
            octets = stream.read_all()
            return Offer(holding=holding, arrival=_arrival(holding, octets[: holding.data_set_offset]), octets=octets)
        head = b""
        while len(head) < holding.data_set_offset:
            head += stream.read(holding.data_set_offset - len(head))
        return Offer(holding=holding, arrival=_arrival(holding, head), stream=stream)
    except Damaged as damage:
        return _rotten(holding, damage)


def _arrival(holding: Holding, head: bytes) -> Arrival:
    return Arrival(
        sop_class_uid=holding.sop_class_uid,
        sop_instance_uid=holding.sop_instance_uid,
        transfer_syntax_uid=holding.transfer_syntax_uid,
        head=head if head[PREAMBLE_OCTETS : PREAMBLE_OCTETS + 4] == b"DICM" else b"",
    )


def _rotten(holding: Holding, damage: Damaged) -> Holding:
    return msgspec.structs.replace(holding, state="rotten", reason=str(damage))


async def _next(stream: Unpacking) -> bytes:
    return await anyio.to_thread.run_sync(stream.read, PIECE_OCTETS)
