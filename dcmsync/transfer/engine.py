"""Pull: from records to proven instances at one destination or several.

Owns the run: records become series with an inventory, series are retrieved by a few tasks at a time, what did not come
is asked for again, and the verdict on each is written in the order of the input. Refuses to know what kind of place the
sources and the destinations are; they are handed in.

Theory of operation. One task expands records (its own session at each source, so that the next inventory is made while
instances flow); `jobs` tasks retrieve, as many at a time as the pace of a source allows; the landers' tasks write. A
series is finished when each instance of its inventory has a verdict at each target, whatever statuses the peer gave.
One thing failing is an outcome; a target in trouble (its disk is full) takes no more, and when all are, the run stops
and the rest is told so. What lands at a target that is made at once (an archive) is told of only after it was
committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from random import random
from typing import Generic, Protocol

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Struct

from dcmsync.contract import JobT, Origin, Session, Source
from dcmsync.errors import (
    DcmsyncError,
    DestinationLost,
    ExitStatus,
    InputError,
    LocalTrouble,
    PeerError,
    Rejected,
    Stalled,
    UsageError,
)
from dcmsync.records.model import Outcome
from dcmsync.transfer import retry
from dcmsync.transfer.consignment import Consignment, Proof
from dcmsync.transfer.expansion import Expansion, Trust
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.pace import START
from dcmsync.transfer.pool import Pool
from dcmsync.transfer.proving import prove
from dcmsync.transfer.relaying import Relay
from dcmsync.transfer.retrieval import Retrieval
from dcmsync.transfer.target import Target
from dcmsync.transfer.works import Work


class Settings(Struct, frozen=True, kw_only=True):
    """How to pull. `trust`: by what a held instance counts as the same (see Expansion)."""

    jobs: int = 2
    itemize: bool = False
    dry_run: bool = False
    trust: Trust = "uids"


class Meter(Protocol):
    """Shows how far a run is."""

    def total(self, instances: int | None, provisional: bool) -> None:
        """How many instances are wanted; `provisional` while more may come."""

    def advance(self, instances: int, octets: int) -> None:
        """Instances got their verdict; octets of them were brought."""


class Pull(Generic[JobT]):
    """One run. `write` takes each outcome in order, `warn` words for people; `jobs_at` limits a place.

    `release`, where there is one, is told of each file that instances came from once all targets have it, proven, and
    where they do.
    """

    def __init__(
        self,
        settings: Settings,
        targets: Sequence[Target[JobT]],
        *,
        open_source: Callable[[str], Source],
        write: Callable[[Outcome], None],
        warn: Callable[[str], None],
        meter: Meter,
        jobs_at: Callable[[str], int] = lambda place: 1 << 16,
        release: Callable[[Origin, Sequence[Proof]], None] | None = None,
    ) -> None:
        self.status = ExitStatus.DONE
        self.input_error: InputError | None = None
        self._stopping = False
        self._expanding = anyio.CancelScope()
        self._expected = 0
        self._settings = settings
        self._targets = targets
        self._open_source = open_source
        self._write = write
        self._warn = warn
        self._meter = meter
        self._jobs_at = jobs_at
        self._release = release
        self._pools: dict[str, Pool[JobT]] = {}
        self._sessions = AsyncExitStack()
        self._relay = Relay(targets, warn=warn)
        self._breaker = retry.Breaker()
        self._order: deque[Consignment] = deque()
        self._kept: list[tuple[Consignment, Ledger]] = []  # finished, and waiting for their target to be committed
        self._sources: dict[str, Source] = {}

    @property
    def troubles(self) -> dict[str, DcmsyncError]:
        """The targets that took no more, by name, and why."""
        return {target.name: target.trouble for target in self._targets if target.trouble is not None}

    async def run(self, works: AsyncIterable[Sequence[Work]]) -> None:
        """Pulls everything; `status`, `troubles` and `input_error` tell afterwards how it went.

        Each target's destination is set by now, unless this is a dry run; its sinks hand their jobs to the target.
        """
        send, receive = anyio.create_memory_object_stream[Consignment](min(self._settings.jobs, START))
        async with anyio.create_task_group() as landing:
            for target in self._targets:
                target.start(landing, self._meter.advance)
            try:
                async with self._sessions, anyio.create_task_group() as tasks:
                    for _ in range(self._settings.jobs):
                        tasks.start_soon(self._retrieve, receive.clone())
                    receive.close()
                    async with send:
                        with self._expanding:
                            await self._take_all(works, send)
                    self._meter.total(self._expected, False)
            finally:
                for target in self._targets:
                    target.stop()
        self._flush()
        await self._commit()
        for trouble in self.troubles.values():
            self.status = max(self.status, trouble.exit_status)

    def stop(self) -> None:
        """Takes no more work; what is in flight is finished. `run` then returns."""
        self._stopping = True
        self._expanding.cancel()

    # From records to series

    async def _take_all(self, works: AsyncIterable[Sequence[Work]], send: MemoryObjectSendStream[Consignment]) -> None:
        settings = self._settings
        expansion = Expansion(self._targets, trust=settings.trust, dry_run=settings.dry_run, warn=self._warn)
        async with AsyncExitStack() as stack:
            sessions: dict[str, Session] = {}
            try:
                async for group in works:
                    source = self._source_of(group[0])
                    if source.name not in sessions:
                        sessions[source.name] = await stack.enter_async_context(source.session())
                    await self._expand(group, expansion, sessions[source.name], send)
                    if not expansion.is_complete:
                        self.status = max(self.status, ExitStatus.INCOMPLETE)
            except InputError as error:
                self.input_error = error
                self.status = max(self.status, error.exit_status)

    async def _expand(
        self,
        group: Sequence[Work],
        expansion: Expansion[JobT],
        session: Session,
        send: MemoryObjectSendStream[Consignment],
    ) -> None:
        """The series of one record (or several instances of one series), handed on one by one."""
        work = group[0]
        try:
            down = self._breaker.is_down(work.source, anyio.current_time())
            if down is not None:
                failed = expansion.consignment(work, work.attributes)
                failed.fail_rest(down)
                failed.finished = True
                self._order.append(failed)
                self._flush()
                return
            async with aclosing(expansion.run(group, session)) as consignments:
                async for consignment in consignments:
                    await self._hand_on(consignment, session, send)
        except PeerError as error:
            self._breaker.trip(work.source, error, anyio.current_time())
        except LocalTrouble:  # the source is a place on this machine; its failure is told already
            pass

    async def _hand_on(
        self, consignment: Consignment, session: Session, send: MemoryObjectSendStream[Consignment]
    ) -> None:
        self._order.append(consignment)
        if consignment.finished:
            self._flush()
            return
        self._expected += len(consignment.wanted) * len(self._targets)
        self._meter.total(self._expected, True)
        self._meter.advance(sum(len(consignment.wanted) - len(each.lacking) for each in consignment.ledgers), 0)
        try:
            send.send_nowait(consignment)
        except anyio.WouldBlock:
            try:
                await session.rest()  # while it waits: the node may allow few associations
            finally:
                await send.send(consignment)

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

    async def _retrieve(self, receive: MemoryObjectReceiveStream[Consignment]) -> None:
        """One of the `jobs` tasks: retrieves series after series."""
        with receive:
            async for consignment in receive:
                if self._stopping or (self._needs_source(consignment) and not await self._deliver(consignment)):
                    self._order.remove(consignment)
                    continue
                consignment.finished = True
                self._flush()
        for pool in self._pools.values():
            await pool.rest()

    def _needs_source(self, consignment: Consignment) -> bool:
        """Whether anything is to be retrieved; what is not to be has its verdict."""
        for target, ledger in zip(self._targets, consignment.ledgers, strict=True):
            if target.trouble is not None:
                ledger.fail_rest(target.trouble)
        if self._settings.dry_run:
            consignment.would_store()
        return bool(consignment.lacking)

    async def _deliver(self, consignment: Consignment) -> bool:
        """Retrieves one series, and has it proven; what is not there after all is sent once more.

        False when the run was stopped before this began.
        """
        pool = await self._pool(consignment.source)
        if any(target.relay_ae for target in self._targets):
            async with pool.lend() as retrieval:
                if self._stopping:
                    return False
                await self._relay.run(consignment, retrieval.session)
        for is_last in (False, True):
            if not consignment.lacking:
                break
            if not await self._carry_out(consignment, pool, may_stop=not is_last):
                return False
            await prove(consignment, self._targets, is_last=is_last)
        return True

    async def _carry_out(self, consignment: Consignment, pool: Pool[JobT], *, may_stop: bool) -> bool:
        """Retrieves one series. False when the run was stopped before this began."""
        patience = 0
        while True:
            async with pool.lend() as retrieval:
                if self._stopping and may_stop and not patience:
                    return False
                error = await self._attempt(consignment, pool, retrieval)
                if error is None:
                    return True
                is_alone = pool.lent == 1
                if isinstance(error, Rejected) and not is_alone:
                    pool.rejected()
            if is_alone:
                if patience == retry.PATIENCE:
                    self._breaker.trip(consignment.source, error, anyio.current_time())
                    consignment.fail_rest(error)
                    return True
                patience += 1
                await anyio.sleep(retry.delay_s(patience, random()))

    async def _attempt(
        self, consignment: Consignment, pool: Pool[JobT], retrieval: Retrieval[JobT]
    ) -> PeerError | None:
        """Tries to retrieve one series; why it is to be tried again, when the node grants no further association."""
        try:
            down = self._breaker.is_down(consignment.source, anyio.current_time())
            if down is not None:
                raise down
            async with pool.probation() as scope:
                await retrieval.run(consignment, partial(pool.landed, scope))
            if scope.cancelled_caught:
                return Stalled(f"{consignment.source}: a further association brought nothing")
        except Rejected as error:
            if error.transient:
                return error
            self._breaker.trip(consignment.source, error, anyio.current_time())
            consignment.fail_rest(error)
        except LocalTrouble as trouble:
            consignment.fail_rest(trouble)
        except DestinationLost as lost:
            consignment.fail_rest(lost.cause)
        except PeerError as error:
            self._breaker.trip(consignment.source, error, anyio.current_time())
            consignment.fail_rest(error)
        return None

    async def _pool(self, place: str) -> Pool[JobT]:
        if place not in self._pools:
            pool = Pool(self._source(place), self._targets, self._jobs_at(place))
            self._pools[place] = pool
            await self._sessions.enter_async_context(pool)
        return self._pools[place]

    # Verdicts

    async def _commit(self) -> None:
        """Makes durable what waits for it, or undoes it. What all targets have is then released by the sources."""
        for target in self._targets:
            if target.is_made_at_once and target.takes is not None and target.trouble is None:
                try:
                    await anyio.to_thread.run_sync(target.takes.commit)
                except LocalTrouble as trouble:
                    target.give_up(trouble)
        for target in self._targets:
            if target.is_made_at_once and target.trouble is not None:
                for _, ledger in self._kept:
                    if ledger.destination == target.name:
                        ledger.undo(target.trouble)
        kept, self._kept = self._kept, []
        for consignment in dict.fromkeys(consignment for consignment, _ in kept):
            self._let_go(consignment)
        for _, ledger in kept:
            self._tell(ledger)

    def _flush(self) -> None:
        """Writes the outcomes of what is finished, in the order of the input."""
        while self._order and self._order[0].finished:
            consignment = self._order.popleft()
            waits = False
            for target, ledger in zip(self._targets, consignment.ledgers, strict=True):
                if target.is_made_at_once:
                    waits = True
                    self._kept.append((consignment, ledger))
                else:
                    self._tell(ledger)
            if not waits:
                self._let_go(consignment)

    def _tell(self, ledger: Ledger) -> None:
        self.status = max(self.status, ledger.status)
        for outcome in ledger.outcomes(itemize=self._settings.itemize):
            self._write(outcome)

    def _let_go(self, consignment: Consignment) -> None:
        """The source may let go of the files that all targets have. Its trouble with that is told, and no more."""
        if self._release is None:
            return
        for origin, proofs in consignment.dispensable():
            try:
                self._release(origin, proofs)
            except LocalTrouble as trouble:
                self.status = max(self.status, trouble.exit_status)
                self._warn(f"{consignment.source}: a file that was moved could not be removed: {trouble}")
