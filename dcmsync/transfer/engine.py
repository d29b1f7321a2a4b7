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
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from random import random
from typing import Generic, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from dcmsync.contract import (
    Attributes,
    Destination,
    JobT,
    Landed,
    Level,
    Session,
    Source,
)
from dcmsync.errors import ExitStatus, InputError, LocalTrouble, PeerError, Refused, Rejected, UsageError
from dcmsync.plan.classes import likely
from dcmsync.plan.levels import Query
from dcmsync.records.model import Outcome
from dcmsync.transfer import retry
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.lander import Lander
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.retrieval import Awaited, Retrieval, ask_classes

_WILD = frozenset("*?\\")


class Held(Struct, frozen=True):
    """A whole instance that the destination holds already."""

    series_uid: str
    path: str
    size: int


class Work(Struct, frozen=True, kw_only=True):
    """One thing to pull: its level, its source and what its record said of it, on line `line` of the input.

    `differs`: what the destination holds of it is known to have other content, and does not count.
    """

    level: Level
    source: str
    attributes: Attributes
    line: int = 0
    differs: bool = False


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
    """One run. `write` takes each outcome in order, `warn` words for people; `jobs_at` limits a place."""

    def __init__(
        self,
        settings: Settings,
        *,
        open_source: Callable[[str], Source],
        held: Mapping[str, Held],
        write: Callable[[Outcome], None],
        warn: Callable[[str], None],
        meter: Meter,
        jobs_at: Callable[[str], int] = lambda place: 1 << 16,
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
        self._jobs_at = jobs_at
        self._limiters: dict[str, anyio.CapacityLimiter] = {}
        self._destination: Destination[JobT] | None = None
        self._lander: Lander[JobT] | None = None
        self._awaited: Awaited = {}
        self._given_back: deque[Ledger] = deque()
        self._active = settings.jobs
        self._breaker = retry.Breaker()
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
                    source = self._source_of(group[0])
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
            down = self._breaker.is_down(work.source, anyio.current_time())
            if down is not None:
                raise down
            for attributes in await self._series(work, inventory):
                begun = self._ledger(work, attributes)
                await self._prepare(begun, inventory, group)
                await self._guess_classes(begun, session)
                self._order.append(begun)
                try:
                    send.send_nowait(begun)
                except anyio.WouldBlock:
                    await session.rest()  # while it waits: the node may allow few associations
                    await send.send(begun)
                begun = None
        except PeerError as error:
            self._breaker.trip(work.source, error, anyio.current_time())
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
        differing: frozenset[str] | None = None
        if group[0].level is Level.INSTANCE:
            ledger.is_selection = True
            differing = frozenset(str(work.attributes["SOPInstanceUID"]) for work in group if work.differs)
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
            counts = not (group[0].differs if differing is None else uid in differing)
            if held is not None and counts and held.series_uid == ledger.series_uid and not self._settings.force:
                ledger.present(uid, held.path, held.size)
                self._meter.advance(1, 0)

    async def _guess_classes(self, ledger: Ledger, session: Session) -> None:
        """Fills in SOP classes that are unknown: those of the first and the last instance stand for all.

        Most series have one class, and most sources one for each modality, so few are asked for. Where the guess is
        wrong the instance does not come, and the retrieval asks again. Servers that keep the class outside their
        index (Orthanc 1.10) need 0.2 ms an instance to tell it.
        """
        unknown = [uid for uid, kind in ledger.lacking.items() if not kind]
        if not unknown or self._settings.dry_run:
            return
        kin = (ledger.source, str(ledger.attributes.get("Modality", "")))
        if kin not in self._classes:
            ends = [uid for uid in dict.fromkeys((unknown[0], unknown[-1])) if not _WILD & set(uid)]
            found = [kind for uid in ends for kind in (await ask_classes(ledger, session, uid)).values()]
            self._classes[kin] = list(dict.fromkeys(found))
        guess = self._classes[kin]
        if not guess:
            ledger.candidates = likely(kin[1])
        for index, uid in enumerate(unknown):
            ledger.wanted[uid] = guess[index * len(guess) // len(unknown)] if guess else ""

    def _ledger(self, work: Work, attributes: Attributes) -> Ledger:
        return Ledger(
            source=work.source,
            destination=self._settings.destination,
            attributes=attributes,
            dry_run=self._settings.dry_run,
        )

    def _source_of(self, work: Work) -> Source:
        """The source of a record. Raises InputError when it names none."""
        try:
            return self._source(work.source)
        except UsageError as error:
            raise InputError(error.message, line=work.line, advice=error.advice) from error

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            self._sources[name] = self._open_source(name)
        return self._sources[name]

    # From series to instances

    async def _retrieve(self, receive: MemoryObjectReceiveStream[Ledger]) -> None:
        """One of the `jobs` tasks: retrieves series after series."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(receive)
            retrievals: dict[str, Retrieval[JobT]] = {}
            async for ledger in self._ledgers(receive):
                if self.trouble is not None:
                    ledger.fail_rest(self.trouble)
                elif self._settings.dry_run:
                    for uid in ledger.lacking:
                        ledger.would_store(uid)
                elif ledger.lacking:
                    source = self._source(ledger.source)
                    if source.name not in retrievals:
                        session = await stack.enter_async_context(source.session())
                        retrievals[source.name] = self._retrieval(session)
                    async with self._limiter(ledger.source):
                        goes_on = await self._carry_out(ledger, retrievals[source.name])
                    if not goes_on:
                        return
                ledger.finished = True
                self._flush()

    async def _ledgers(self, receive: MemoryObjectReceiveStream[Ledger]) -> AsyncGenerator[Ledger, None]:
        """What there is to retrieve: what another task gave back, then what comes."""
        while True:
            if self._given_back:
                yield self._given_back.popleft()
                continue
            try:
                ledger = await receive.receive()
            except anyio.EndOfStream:
                if not self._given_back:
                    return
                continue
            if self._stopping:
                self._order.remove(ledger)
            else:
                yield ledger

    async def _carry_out(self, ledger: Ledger, retrieval: Retrieval[JobT]) -> bool:
        """Retrieves one series. False when the node allows no further association, so that this task had better end."""
        patience = 0
        while True:
            try:
                down = self._breaker.is_down(ledger.source, anyio.current_time())
                if down is not None:
                    raise down
                await retrieval.run(ledger)
                return True
            except Rejected as error:
                if error.transient and self._active > 1:
                    self._active -= 1
                    self._given_back.append(ledger)
                    return False
                if not error.transient or patience == retry.PATIENCE:
                    self._breaker.trip(ledger.source, error, anyio.current_time())
                    ledger.fail_rest(error)
                    return True
                patience += 1
                await anyio.sleep(retry.delay_s(patience, random()))
            except LocalTrouble as trouble:
                self._stop(trouble)
                ledger.fail_rest(trouble)
                return True
            except PeerError as error:
                self._breaker.trip(ledger.source, error, anyio.current_time())
                ledger.fail_rest(error)
                return True

    def _limiter(self, place: str) -> anyio.CapacityLimiter:
        if place not in self._limiters:
            self._limiters[place] = anyio.CapacityLimiter(self._jobs_at(place))
        return self._limiters[place]

    def _retrieval(self, session: Session) -> Retrieval[JobT]:
        assert self._lander is not None and self._destination is not None
        return Retrieval(session, self._destination, self._lander, self._awaited)

    # Verdicts

    def _landed(self, verdict: Landed) -> None:
        receiving = self._awaited[verdict.arrival.sop_instance_uid]
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
