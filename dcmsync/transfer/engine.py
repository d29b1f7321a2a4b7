"""Pull: from records to proven instances at a destination.

Owns the run: records become series with an inventory, series are retrieved by a few tasks at a time, what did not come
is asked for again, and the verdict on each is written in the order of the input. Refuses to know what kind of place the
source and the destination are; they are handed in.

Theory of operation. One task expands records (its own session at each source, so that the next inventory is made while
instances flow); `jobs` tasks retrieve; the lander's tasks write. A series is finished when each instance of its
inventory has a verdict, whatever statuses the peer gave. One thing failing is an outcome; what stops everything is
`trouble` (the disk is full), after which nothing more is accepted and the rest is told so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from random import random
from typing import Generic, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from dcmsync.contract import (
    Arrival,
    Ask,
    Attributes,
    Destination,
    Ending,
    Expected,
    JobT,
    Landed,
    Level,
    Session,
    Sink,
    Source,
    Want,
)
from dcmsync.errors import DcmsyncError, ExitStatus, InputError, LocalTrouble, PeerError, Refused
from dcmsync.plan.batch import batches
from dcmsync.plan.levels import Query
from dcmsync.records.model import Outcome
from dcmsync.transfer import retry
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.lander import Lander
from dcmsync.transfer.ledger import Ledger

_OUT_OF_RESOURCES = 0xA700
_NOT_ASKED_FOR = 0xC000
_WILD = frozenset("*?\\")


class Held(Struct, frozen=True):
    """A whole instance that the destination holds already."""

    series_uid: str
    path: str
    size: int


class Work(Struct, frozen=True, kw_only=True):
    """One thing to pull: its level, its source and what its record said of it."""

    level: Level
    source: str
    attributes: Attributes


class Settings(Struct, frozen=True, kw_only=True):
    """How to pull. `destination` is its name in outcomes."""

    destination: str
    jobs: int = 2
    itemize: bool = False
    dry_run: bool = False
    force: bool = False


class Meter(Protocol):
    """Shows how far a run is."""

    def total(self, instances: int | None, provisional: bool) -> None:
        """How many instances are wanted; `provisional` while more may come."""

    def advance(self, instances: int, octets: int) -> None:
        """Instances got their verdict; octets of them were brought."""


class Pull(Generic[JobT]):
    """One run. `write` takes each outcome in order, `warn` words for people."""

    def __init__(
        self,
        settings: Settings,
        *,
        open_source: Callable[[str], Source],
        held: Mapping[str, Held],
        write: Callable[[Outcome], None],
        warn: Callable[[str], None],
        meter: Meter,
    ) -> None:
        self.status = ExitStatus.DONE
        self.trouble: LocalTrouble | None = None
        self.input_error: InputError | None = None
        self._stopping = False
        self._expanding = anyio.CancelScope()
        self._expected = 0
        self._settings = settings
        self._open_source = open_source
        self._held = held
        self._write = write
        self._warn = warn
        self._meter = meter
        self._destination: Destination[JobT] | None = None
        self._lander: Lander[JobT] | None = None
        self._awaited: dict[str, Receiving[JobT]] = {}
        self._order: deque[Ledger] = deque()
        self._sources: dict[str, Source] = {}
        self._classes: dict[tuple[str, str], list[str]] = {}  # (source, Modality) -> SOP classes seen

    def completed(self, job: JobT) -> None:
        """An instance has arrived whole: the destination's sinks say so."""
        assert self._lander is not None
        self._lander.take(job)

    async def run(self, works: AsyncIterable[Sequence[Work]], destination: Destination[JobT] | None) -> None:
        """Pulls everything; `status`, `trouble` and `input_error` tell afterwards how it went.

        The sinks of `destination` hand their jobs to `completed`. A dry run needs none.
        """
        if destination is not None:
            self._destination, self._lander = destination, Lander(destination, self._landed)
        send, receive = anyio.create_memory_object_stream[Ledger](self._settings.jobs)
        async with anyio.create_task_group() as landing:
            if self._lander is not None:
                self._lander.start(landing)
            try:
                async with anyio.create_task_group() as tasks:
                    for _ in range(self._settings.jobs):
                        tasks.start_soon(self._retrieve, receive.clone())
                    receive.close()
                    async with send:
                        with self._expanding:
                            await self._take_all(works, send)
                    self._meter.total(self._expected, False)
            finally:
                if self._lander is not None:
                    self._lander.abandon()
                    self._lander.stop()
        self._flush()

    def stop(self) -> None:
        """Takes no more work; what is in flight is finished. `run` then returns."""
        self._stopping = True
        self._expanding.cancel()

    # From records to series

    async def _take_all(self, works: AsyncIterable[Sequence[Work]], send: MemoryObjectSendStream[Ledger]) -> None:
        async with AsyncExitStack() as stack:
            sessions: dict[str, Session] = {}
            try:
                async for group in works:
                    source = self._source(group[0].source)
                    if source.name not in sessions:
                        sessions[source.name] = await stack.enter_async_context(source.session())
                    await self._expand(group, sessions[source.name], send)
            except InputError as error:
                self.input_error = error
                self.status = max(self.status, error.exit_status)

    async def _expand(self, group: Sequence[Work], session: Session, send: MemoryObjectSendStream[Ledger]) -> None:
        """Series with their inventory, from one record (or several instances of one series)."""
        work = group[0]
        inventory = Inventory(session, name=work.source, warn=self._warn)
        begun: Ledger | None = None
        try:
            for attributes in await self._series(work, inventory):
                begun = self._ledger(work, attributes)
                await self._prepare(begun, inventory, group)
                await self._guess_classes(begun, session)
                self._order.append(begun)
                await send.send(begun)
                begun = None
        except PeerError as error:
            failed = begun or self._ledger(work, work.attributes)
            failed.wanted.clear()
            failed.fail_rest(error)
            failed.finished = True
            self._order.append(failed)
            self._flush()
        if not inventory.is_complete:
            self.status = max(self.status, ExitStatus.INCOMPLETE)

    async def _series(self, work: Work, inventory: Inventory) -> list[Attributes]:
        if work.level is not Level.STUDY:
            return [work.attributes]
        query = Query(level=Level.SERIES, keys={}, usual=False, wanted=("Modality", "NumberOfSeriesRelatedInstances"))
        found: list[Attributes] = [attributes async for attributes in inventory.walk(query, work.attributes)]
        if not found:
            raise Refused(f"{work.source}: the study is not there (any more)", status=0)
        return found

    async def _prepare(self, ledger: Ledger, inventory: Inventory, group: Sequence[Work]) -> None:
        """Gives the ledger its inventory, and takes off it what the destination holds."""
        if group[0].level is Level.INSTANCE:
            ledger.wanted = {
                str(work.attributes["SOPInstanceUID"]): str(work.attributes.get("SOPClassUID", "")) for work in group
            }
        else:
            query = Query(level=Level.INSTANCE, keys={}, usual=False)
            async with aclosing(inventory.walk(query, ledger.attributes)) as found:
                async for instance in found:
                    ledger.wanted[str(instance["SOPInstanceUID"])] = ""
            if not ledger.wanted:
                raise Refused(f"{ledger.source}: the series is not there (any more)", status=0)
        self._expected += len(ledger.wanted)
        self._meter.total(self._expected, True)
        for uid in list(ledger.wanted):
            held = self._held.get(uid)
            if held is not None and held.series_uid == ledger.series_uid and not self._settings.force:
                ledger.present(uid, held.path, held.size)
                self._meter.advance(1, 0)

    def _ledger(self, work: Work, attributes: Attributes) -> Ledger:
        return Ledger(
            source=work.source,
            destination=self._settings.destination,
            attributes=attributes,
            dry_run=self._settings.dry_run,
        )

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            self._sources[name] = self._open_source(name)
        return self._sources[name]

    # From series to instances

    async def _retrieve(self, receive: MemoryObjectReceiveStream[Ledger]) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(receive)
            sessions: dict[str, Session] = {}
            async for ledger in receive:
                if self._stopping:
                    self._order.remove(ledger)
                    continue
                if self.trouble is not None:
                    ledger.fail_rest(self.trouble)
                elif self._settings.dry_run:
                    for uid in ledger.lacking:
                        ledger.would_store(uid)
                elif ledger.lacking:
                    source = self._source(ledger.source)
                    if source.name not in sessions:
                        sessions[source.name] = await stack.enter_async_context(source.session())
                    await self._fetch(ledger, sessions[source.name])
                ledger.finished = True
                self._flush()

    async def _fetch(self, ledger: Ledger, session: Session) -> None:
        error: DcmsyncError | None = None
        ending = Ending()
        for attempt in range(1, retry.ROUNDS + 1):
            if attempt > 1:
                await anyio.sleep(retry.delay_s(attempt - 1, random()))  # jitter, no secret
            error = None
            try:
                if attempt > 1:
                    await self._learn_classes(ledger, session)
                whole = len(ledger.lacking) == len(ledger.wanted)
                for lot, as_whole in batches(ledger.lacking, whole=whole, one_by_one=attempt == retry.ROUNDS):
                    ending = await self._fetch_lot(ledger, session, lot, whole=as_whole)
            except PeerError as failure:
                error = failure
                if not retry.is_worth_it(failure):
                    break
            except LocalTrouble as failure:
                self._stop(failure)
            if self.trouble is not None:
                error = self.trouble
                break
            if not ledger.lacking:
                return
        if not ledger.lacking:
            return
        if error is not None:
            ledger.fail_rest(error)
        elif ending.status:
            words = f"{ledger.source}: the retrieval failed: {ending.why}"
            ledger.fail_rest(Refused(words, status=ending.status), status=f"0x{ending.status:04X}")
        else:
            ledger.missing_rest(f"{ledger.source}: the peer reported success, but did not send it")

    async def _fetch_lot(self, ledger: Ledger, session: Session, lot: Mapping[str, str], *, whole: bool) -> Ending:
        assert self._lander is not None and self._destination is not None
        receiving = Receiving(self, ledger, self._destination, self._lander, self._awaited)
        want = Want(study_uid=ledger.study_uid, series_uid=ledger.series_uid, instances=lot, whole=whole)
        try:
            return await session.fetch(want, receiving)
        finally:
            with anyio.CancelScope(shield=True):
                await receiving.settle()

    async def _guess_classes(self, ledger: Ledger, session: Session) -> None:
        """Fills in SOP classes that are unknown: those of the first and the last instance stand for all.

        Most series have one class, and most sources one for each modality, so few are asked for. Where the guess is
        wrong the instance does not come, and `_learn_classes` asks again. Servers that keep the class outside their
        index (Orthanc 1.10) need 0.2 ms an instance to tell it.
        """
        unknown = [uid for uid, kind in ledger.lacking.items() if not kind]
        if not unknown or self._settings.dry_run:
            return
        kin = (ledger.source, str(ledger.attributes.get("Modality", "")))
        if kin not in self._classes:
            ends = [uid for uid in dict.fromkeys((unknown[0], unknown[-1])) if not _WILD & set(uid)]
            found = [kind for uid in ends for kind in (await self._ask_classes(ledger, session, uid)).values()]
            self._classes[kin] = list(dict.fromkeys(found))
        guess = self._classes[kin]
        for index, uid in enumerate(unknown):
            ledger.wanted[uid] = guess[index * len(guess) // len(unknown)] if guess else ""

    async def _learn_classes(self, ledger: Ledger, session: Session) -> None:
        """Asks for the SOP class of each instance of the series that has not come yet."""
        found = await self._ask_classes(ledger, session, "")
        for uid in ledger.lacking:
            ledger.wanted[uid] = found.get(uid) or ledger.wanted[uid]

    async def _ask_classes(self, ledger: Ledger, session: Session, uid: str) -> dict[str, str]:
        """SOP Instance UID -> SOP Class UID, of one instance, or of the whole series for ""."""
        above = {"StudyInstanceUID": ledger.study_uid, "SeriesInstanceUID": ledger.series_uid}
        ask = Ask(level=Level.INSTANCE, keys={**above, "SOPInstanceUID": uid}, wanted=("SOPClassUID",))
        found = {}
        async for answer in session.find(ask):
            if not isinstance(answer, Ending) and answer.get("SOPClassUID"):
                found[str(answer.get("SOPInstanceUID", uid))] = str(answer["SOPClassUID"])
        return found

    # Verdicts

    def _landed(self, verdict: Landed) -> None:
        receiving = self._awaited.pop(verdict.arrival.sop_instance_uid)
        receiving.landed(verdict)
        self._meter.advance(1, verdict.size)
        if verdict.trouble is not None:
            self._stop(verdict.trouble)

    def _stop(self, trouble: LocalTrouble) -> None:
        self.trouble = self.trouble or trouble
        self.status = max(self.status, trouble.exit_status)

    def _flush(self) -> None:
        """Writes the outcomes of what is finished, in the order of the input."""
        while self._order and self._order[0].finished:
            ledger = self._order.popleft()
            self.status = max(self.status, ledger.status)
            for outcome in ledger.outcomes(itemize=self._settings.itemize):
                self._write(outcome)


class Receiving(Generic[JobT]):
    """The receiver of one retrieval: takes what was asked for, once, and nothing else (contract.Receiver)."""

    def __init__(
        self,
        pull: Pull[JobT],
        ledger: Ledger,
        destination: Destination[JobT],
        lander: Lander[JobT],
        awaited: dict[str, Receiving[JobT]],
    ) -> None:
        self._pull = pull
        self._ledger = ledger
        self._destination = destination
        self._lander = lander
        self._awaited = awaited
        self._pending = 0
        self._settled = anyio.Event()
        self._expected = Expected(study_uid=ledger.study_uid, series_uid=ledger.series_uid)

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink for what is wanted and lacking; a status for anything else."""
        uid = arrival.sop_instance_uid
        if self._pull.trouble is not None:
            return _OUT_OF_RESOURCES
        if uid in self._awaited or not self._ledger.lacks(uid):
            return _NOT_ASKED_FOR
        sink = self._destination.receive(arrival, self._expected)
        if isinstance(sink, int):
            self._ledger.refused(uid, "its UIDs are longer than the standard allows")
            return sink
        self._awaited[uid] = self
        self._pending += 1
        return _Watched(sink, lambda: self._dropped(uid))

    async def room(self) -> None:
        """Waits for the disk, when it is behind."""
        await self._lander.room()

    def landed(self, verdict: Landed) -> None:
        """One of ours has its verdict."""
        self._ledger.landed(verdict)
        self._one_less()

    async def settle(self) -> None:
        """Returns when everything that arrived has its verdict."""
        while self._pending:
            self._settled = anyio.Event()
            await self._settled.wait()

    def _dropped(self, uid: str) -> None:
        self._awaited.pop(uid, None)
        self._one_less()

    def _one_less(self) -> None:
        self._pending -= 1
        self._settled.set()


class _Watched:
    """A sink that tells when its instance was discarded."""

    def __init__(self, sink: Sink, dropped: Callable[[], None]) -> None:
        self._sink = sink
        self._dropped = dropped
        self.write = sink.write
        self.finish = sink.finish

    def discard(self, why: str) -> None:
        self._sink.discard(why)
        self._dropped()


