"""A folder of this machine as a place to bring things from: the promises of `contract.py` over any tree of files.

Owns taking stock once, answering from the catalogue, and offering files: each is opened without following links, held
against what is known of it, and examined anew where it changed. Refuses to judge what arrives, to answer of its own
(the catalogue does), and to deliver what changes while it is read: that is simply not there, and is asked for again.

Theory of operation. All that waits for the disk runs in worker threads, a lot at a time, since handing over one file
costs more than opening it; only small files are read in the event loop. A file that is adopted by the destination is
not read here at all.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import chain, islice

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Struct, structs

from dcmsync.contract import (
    UNIQUE_KEYS,
    WITH_UID,
    Arrival,
    Ask,
    Attributes,
    Catalogue,
    Ending,
    Holding,
    Level,
    Origin,
    Receiver,
    Sink,
    Want,
)
from dcmsync.endpoints import Setting
from dcmsync.endpoints.folder import media
from dcmsync.endpoints.folder.below import open_file
from dcmsync.endpoints.folder.scan import A_LINK, Skip, examine_open
from dcmsync.endpoints.folder.stamp import stamp_of
from dcmsync.endpoints.folder.stock import take_stock
from dcmsync.errors import LocalTrouble
from dcmsync.locator import Folder
from dcmsync.wire import dataset, keywords
from dcmsync.wire.part10 import PREAMBLE_OCTETS

ANSWERS_AT_ONCE = 256
FILES_AT_ONCE = 16
PIECE_OCTETS = 1 << 20
QUICK_OCTETS = 64 << 10  # a file up to this size is read in the event loop

_REMEMBERED = keywords.KEYWORDS | {
    *UNIQUE_KEYS.values(), "SOPClassUID", "TransferSyntaxUID", "AvailableTransferSyntaxUID", "ModalitiesInStudy",
    "SOPClassesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
}  # fmt: skip


Take = Callable[[str, Catalogue, Skip], None]
"""Brings a catalogue up to date with what is below a path."""


class FolderPlace:
    """One folder, of which stock is taken once, whoever asks first: by `take`. `name` is the locator as typed."""

    def __init__(self, folder: Folder, setting: Setting, take: Take | None = None) -> None:
        self.name = str(folder)
        self._root = folder.path
        self._setting = setting
        self._take = take or _take_all
        self._lock = anyio.Lock()
        self._catalogue: Catalogue | None = None
        self._unread = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session; any number may be open."""
        yield Session(self)

    async def catalogue(self) -> Catalogue:
        """What is there, as of this run. Raises LocalTrouble when the folder cannot be read."""
        async with self._lock:
            if self._catalogue is None:
                self._catalogue = await anyio.to_thread.run_sync(self._take_stock)
        return self._catalogue

    @property
    def ending(self) -> Ending:
        """How each list ends: it is all there is, but for what could not be read."""
        why = f"{self._unread:,} files or folders cannot be read; -v says why" if self._unread else ""
        return Ending(is_last_word=True, truncated=bool(why), why=why)

    def answers(self, catalogue: Catalogue, ask: Ask) -> Iterator[Attributes]:
        """What the catalogue says; what it was never told is read from the first file of each answer."""
        beyond = frozenset((*ask.keys, *ask.wanted)) - _REMEMBERED
        if not beyond:
            return catalogue.find(ask)
        keys = {keyword: value for keyword, value in ask.keys.items() if keyword not in beyond}
        known = catalogue.find(structs.replace(ask, keys=keys))
        tags = frozenset(map(dataset.tag_of, beyond))
        asked = {keyword: "" for keyword in beyond if ask.keys.get(keyword)}  # what is not there does not match
        if ask.level is Level.PATIENT:  # no one file speaks for a patient
            return ({**asked, **answer} for answer in known)
        return ({**asked, **self._look(catalogue, answer, tags), **answer} for answer in known)

    def open_lot(self, holdings: Iterator[Holding]) -> tuple[deque[Opened], bool]:
        """The next files, open, and whether there may be more. What is gone, or something else by now, is left out."""
        lot = list(islice(holdings, FILES_AT_ONCE))
        found: deque[Opened] = deque()
        try:
            for holding in lot:
                opened = self._open(holding)
                if opened is not None:
                    found.append(opened)
        except BaseException:
            close_all(found)
            raise
        return found, len(lot) == FILES_AT_ONCE

    def _look(self, catalogue: Catalogue, answer: Attributes, tags: frozenset[int]) -> Attributes:
        """The attributes of the first file that belongs to an answer; none when it cannot be read (any more)."""
        study_uid, series_uid, sop_instance_uid = (str(answer.get(level.unique_key, "")) for level in WITH_UID)
        for holding in catalogue.holdings(
            study_uid=study_uid, series_uid=series_uid, sop_instance_uid=sop_instance_uid
        ):
            try:
                descriptor = open_file(self._root, holding.path)
            except OSError:
                continue
            try:
                found = examine_open(descriptor, holding.path, wanted=tags | {dataset.SPECIFIC_CHARACTER_SET})
            except OSError:
                continue
            finally:
                os.close(descriptor)
            if found is not None and found.sop_instance_uid == holding.sop_instance_uid:
                return dataset.decode_values(found.values, found.encoding or found.transfer_syntax_uid, wanted=tags)
        return {}

    def _take_stock(self) -> Catalogue:
        if not os.path.isdir(self._root):  # to take stock of nothing would be to forget everything
            raise LocalTrouble(f"{self.name} is no folder that is there")
        catalogue = self._setting.catalogue(self._root)
        self._take(self._root, catalogue, self._skipped)
        media.compare(self._root, self.name, catalogue, warn=self._setting.warn, skipped=self._setting.skipped)
        return catalogue

    def _skipped(self, path: str, why: str) -> None:
        self._unread += why != A_LINK
        self._setting.skipped(path, why)

    def _open(self, holding: Holding) -> Opened | None:
        try:
            descriptor = open_file(self._root, holding.path)
        except OSError:
            return None
        try:
            opened = _judge(descriptor, os.path.join(os.path.abspath(self._root), holding.path), holding)
        except OSError:
            opened = None
        if opened is None:
            os.close(descriptor)
        return opened


class Opened(Struct, frozen=True, kw_only=True):
    """A file that is open, and what it is offered as. Its data set begins at `offset` and ends at `size`."""

    arrival: Arrival
    origin: Origin
    offset: int

    @property
    def size(self) -> int:
        """Octets of the whole file."""
        return self.origin.stamp.size


class Session:
    """Satisfies Finds and Fetches (contract.Session)."""

    def __init__(self, place: FolderPlace) -> None:
        self._place = place
        self._buffer = memoryview(b"")

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """The catalogue's answers. Raises LocalTrouble."""
        catalogue = await self._place.catalogue()
        answers = self._place.answers(catalogue, ask)
        is_over = False
        while not is_over:
            some = await anyio.to_thread.run_sync(lambda: list(islice(answers, ANSWERS_AT_ONCE)))
            for answer in some:
                yield answer
            is_over = len(some) < ANSWERS_AT_ONCE
        yield self._place.ending

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Offers every file of what is wanted, two of the same UID too; the ending has words for what was not.

        Raises LocalTrouble, and what sinks raise.
        """
        holdings = _wanted(await self._place.catalogue(), want)
        may_be_more, given = True, 0
        while may_be_more:
            lot, may_be_more = await anyio.to_thread.run_sync(self._place.open_lot, holdings)
            try:
                await anyio.lowlevel.checkpoint()
                while lot:
                    await receiver.room()
                    given += await self._offer(lot[0], receiver)
                    os.close(lot.popleft().origin.descriptor)
            finally:
                close_all(lot)
        why = "its file changed, vanished or cannot be read"
        return Ending(why=why if given < len(want.instances) else "")

    async def rest(self) -> None:
        """Nothing is held."""

    async def _offer(self, opened: Opened, receiver: Receiver) -> bool:
        """Offers one file; whether it could be given."""
        sink = receiver.receive(opened.arrival)
        if isinstance(sink, int):
            return True
        try:
            is_taken = sink.adopt() or await self._pour(opened, sink)
        except BaseException:
            sink.discard("the file could not be taken")
            raise
        if is_taken:
            sink.finish()
        else:
            sink.discard("the file changed while it was read")
        return is_taken

    async def _pour(self, opened: Opened, sink: Sink) -> bool:
        """Gives the data set to the sink; whether it was, from first to last, the one that was offered."""
        descriptor, at, end = opened.origin.descriptor, opened.offset, opened.size
        if len(self._buffer) < min(end - at, PIECE_OCTETS):
            self._buffer = memoryview(bytearray(PIECE_OCTETS))
        try:
            while at < end:
                piece = self._buffer[: min(end - at, PIECE_OCTETS)]
                if end <= QUICK_OCTETS:
                    count = os.preadv(descriptor, [piece], at)
                else:
                    count = await anyio.to_thread.run_sync(os.preadv, descriptor, [piece], at)
                if not count:
                    break
                sink.write([piece[:count]])
                at += count
            return stamp_of(descriptor) == opened.origin.stamp
        except OSError:
            return False


def open_folder(folder: Folder, setting: Setting) -> FolderPlace:
    """The folder that a locator names. Looks at nothing yet."""
    return FolderPlace(folder, setting)


def _take_all(root: str, catalogue: Catalogue, skipped: Skip) -> None:
    take_stock(root, catalogue, skipped=skipped)


def close_all(lot: deque[Opened]) -> None:
    """Closes what was not offered."""
    while lot:
        os.close(lot.popleft().origin.descriptor)


def _wanted(catalogue: Catalogue, want: Want) -> Iterator[Holding]:
    """Every file of what is wanted."""
    if want.whole:
        found = catalogue.holdings(study_uid=want.study_uid, series_uid=want.series_uid)
        return (holding for holding in found if holding.sop_instance_uid in want.instances)
    return chain.from_iterable(
        catalogue.holdings(study_uid=want.study_uid, series_uid=want.series_uid, sop_instance_uid=uid)
        for uid in want.instances
    )


def _judge(descriptor: int, path: str, holding: Holding) -> Opened | None:
    """What an open file is offered as; None when it is not, or no longer, that instance. Raises OSError."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    stamp = stamp_of(descriptor)
    sop_class_uid, transfer_syntax_uid = holding.sop_class_uid, holding.transfer_syntax_uid
    offset = holding.data_set_offset
    head = os.pread(descriptor, offset, 0)
    has_prefix = head[PREAMBLE_OCTETS : PREAMBLE_OCTETS + 4] == b"DICM"
    if stamp != holding.stamp or not has_prefix:
        found = examine_open(descriptor, holding.path)
        uids = holding.study_uid, holding.series_uid, holding.sop_instance_uid
        if found is None or not found.is_instance:
            return None
        if (found.study_uid, found.series_uid, found.sop_instance_uid) != uids or stamp_of(descriptor) != stamp:
            return None
        sop_class_uid, offset = found.sop_class_uid, found.data_set_offset
        head = os.pread(descriptor, offset, 0)
        has_prefix = head[PREAMBLE_OCTETS : PREAMBLE_OCTETS + 4] == b"DICM"
        transfer_syntax_uid = found.transfer_syntax_uid if has_prefix else found.encoding or found.transfer_syntax_uid
    origin = Origin(path=path, descriptor=descriptor, stamp=stamp, head=head)
    arrival = Arrival(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=holding.sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        head=head if has_prefix else b"",
        origin=origin,
    )
    return Opened(arrival=arrival, origin=origin, offset=offset)
