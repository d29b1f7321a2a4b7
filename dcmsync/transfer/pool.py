"""The sessions with one source: as many at a time as its pace allows, each lent to one series.

Owns how many there are, and what the source is taken to allow. A session that was given back keeps its association, and
the next series gets it; when there are too many, it lets go of it. Refuses to judge what failed.

Theory of operation. Beyond the first few, an association is on probation until an instance has come by it: some nodes
accept a connection that they have no thread for, and answer when another one ends. Who waits for that longer than
PROBATION_S gives its series to the others, and the source is taken to allow no more than those.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Generic, Self

import anyio

from dcmsync.contract import JobT, Source
from dcmsync.transfer.pace import START, Pace
from dcmsync.transfer.retrieval import Retrieval
from dcmsync.transfer.target import Target

PROBATION_S = 5.0


class Pool(Generic[JobT]):
    """A context manager around a run."""

    def __init__(self, source: Source, targets: Sequence[Target[JobT]], most: int) -> None:
        self.lent = 0
        self._pace = Pace(most)
        self._source = source
        self._targets = targets
        self._stack = AsyncExitStack()
        self._idle: list[Retrieval[JobT]] = []  # the one given back last at the end: it has an association
        self._waiting = 0
        self._proven = START  # how many associations at a time have brought something, or need no probation
        self._changed = anyio.Event()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Retrieval[JobT]]:
        """A retrieval over a session of its own."""
        self._waiting += 1
        try:
            while self.lent >= self._pace.size:
                await self._changed.wait()
        finally:
            self._waiting -= 1
        self.lent += 1
        try:
            retrieval = self._idle.pop() if self._idle else await self._opened()
            try:
                yield retrieval
            finally:
                self._idle.append(retrieval)
                if self.lent > self._pace.size:
                    with anyio.CancelScope(shield=True):
                        await retrieval.session.rest()
        finally:
            self.lent -= 1
            self._wake()

    @asynccontextmanager
    async def probation(self) -> AsyncIterator[anyio.CancelScope]:
        """Ends what runs in it, when one association more than have proven themselves brings nothing."""
        with anyio.CancelScope() as scope:
            if self.lent > self._proven:
                scope.deadline = anyio.current_time() + PROBATION_S
            yield scope
        if scope.cancelled_caught:
            self.rejected()

    def landed(self, scope: anyio.CancelScope, octets: int) -> None:
        """An instance came, in the probation of `scope`."""
        if scope.deadline != math.inf:
            scope.deadline = math.inf
            self._proven = max(self._proven, self.lent)
        if self._pace.done(octets):
            size = self._pace.size
            is_busy = self._waiting > 0 and self.lent >= size
            self._pace.look(anyio.current_time(), is_busy=is_busy)
            if self._pace.size > size:
                self._wake()

    def rejected(self) -> None:
        """The source allows fewer associations than are in use."""
        self._pace.rejected(self.lent - 1, anyio.current_time())

    def congested(self) -> None:
        """The source is out of resources."""
        self._pace.congested(anyio.current_time())

    async def rest(self) -> None:
        """Has the sessions that nobody uses let go of their associations: there is nothing left to do for them."""
        for retrieval in tuple(self._idle):
            if retrieval in self._idle:  # nobody has borrowed it meanwhile
                await retrieval.session.rest()

    async def _opened(self) -> Retrieval[JobT]:
        session = await self._stack.enter_async_context(self._source.session())
        return Retrieval(session, self._targets, congested=self.congested)

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
