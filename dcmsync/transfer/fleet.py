"""The sessions with one remote destination: so many at a time, each lent to one task, questions before deliveries.

Owns how many there are: as many as its pace allows (pace.py), fewer when the place says that it allows no more. A
session that was given back keeps its association, and the next one to borrow takes it. Refuses to know what a session
is used for, and how what failed is judged; but a question that could not be asked is asked again, as patiently as
things are sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import random
from types import TracebackType
from typing import Self, TypeVar

import anyio

from dcmsync.contract import Holds, Store
from dcmsync.errors import DestinationLost, PeerError, Refused, Rejected, Stalled, Unreachable
from dcmsync.transfer import retry
from dcmsync.transfer.pace import Pace

Answer = TypeVar("Answer")


class Fleet:
    """A context manager around a run, with at most so many sessions at a time."""

    def __init__(self, place: Store, most: int) -> None:
        self.place = place
        # Few to begin with: who stores one thing at a time is slower with each more. Orthanc took 1,000 instances of
        # 525 kB in 5 s over one association or two, and in 10 s over four (2 shared cores, 2026-11).
        self.pace = Pace(most, start=2)
        self.lent = 0
        self.has_worked = False  # whether the place has done anything for us yet
        self._stack = AsyncExitStack()
        self._idle: list[Holds] = []  # the one given back last at the end: it has an association
        self._questions = 0
        self._changed = anyio.Event()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def most(self) -> int:
        """How many sessions to use now."""
        return self.pace.size

    @property
    def is_wanted(self) -> bool:
        """Whether a question waits for a session: whoever delivers had better give one back."""
        return self._questions > 0

    async def take(self) -> Holds:
        """A session to deliver with, until it is given back."""
        while self.lent >= self.most or self._questions:
            await self._changed.wait()
        return await self._lend()

    def give(self, session: Holds) -> None:
        """Gives a session back."""
        self.lent -= 1
        self._idle.append(session)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def shrink(self) -> None:
        """The place allows fewer associations than are in use."""
        self.pace.rejected(self.lent - 1, anyio.current_time())

    async def rest(self) -> None:
        """Ends the associations that nobody uses."""
        for session in tuple(self._idle):
            if session in self._idle:  # nobody has borrowed it meanwhile
                await session.rest()

    async def ask(self, question: Callable[[Holds], Awaitable[Answer]]) -> Answer:
        """Asks something over a session; asks it again where that may help.

        Raises DestinationLost when the place cannot be reached, Refused and Rejected when it does not answer such
        questions, PeerError.
        """
        attempt = 0
        while True:
            attempt += 1
            session = await self._take_first()
            try:
                answer = await question(session)
                self.has_worked = True
                return answer
            except Refused:
                raise
            except PeerError as error:
                if isinstance(error, Rejected) and not error.transient:
                    raise
                self._judge(error, attempt)
                if isinstance(error, Rejected | Stalled):
                    await self.rest()  # these associations may be what it has no room beside
            finally:
                self.give(session)
            await anyio.sleep(retry.delay_s(attempt, random()))

    def _judge(self, error: PeerError, attempt: int) -> None:
        """Returns when the question had better be asked again. Raises what else there is to say."""
        others = self.lent > 1
        if others and isinstance(error, Rejected | Stalled):
            self.shrink()
        elif isinstance(error, Unreachable) and not self.has_worked:
            raise DestinationLost(error) from error
        elif attempt >= (retry.PATIENCE if isinstance(error, Unreachable | Rejected) else retry.ROUNDS):
            if isinstance(error, Unreachable):
                raise DestinationLost(error) from error
            raise error

    async def _take_first(self) -> Holds:
        """A session to ask with, before anybody who delivers."""
        while self.lent >= self.most:
            self._questions += 1
            try:
                await self._changed.wait()
            finally:
                self._questions -= 1
        return await self._lend()

    async def _lend(self) -> Holds:
        self.lent += 1
        try:
            return self._idle.pop() if self._idle else await self._stack.enter_async_context(self.place.session())
        except BaseException:
            self.lent -= 1
            raise
