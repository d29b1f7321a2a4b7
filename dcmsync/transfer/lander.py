"""The waiting room between the network and the disk: jobs come in, verdicts come out, memory stays bounded.

Theory of operation: sinks finish in the event loop and put their job here; a few tasks take what has gathered, land
it in a worker thread in one batch (so that folder fsyncs are shared), and hand out the verdicts in the loop again.
`room` keeps peers waiting while more octets are in flight than allowed. One thread of control: no locks.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic

import anyio
import anyio.abc
import anyio.to_thread

from dcmsync.contract import Arrival, Destination, JobT, Landed

BATCH = 32
IN_FLIGHT_OCTETS = 64 << 20
IN_FLIGHT_JOBS = 512
TASKS = 1


class Lander(Generic[JobT]):
    """Lands jobs on a destination. `landed` hears each verdict, in the event loop."""

    def __init__(self, destination: Destination[JobT], landed: Callable[[Landed], None]) -> None:
        self._destination = destination
        self._landed = landed
        self._waiting: deque[JobT] = deque()
        self._in_flight_octets = 0
        self._in_flight_jobs = 0
        self._come = anyio.Event()
        self._gone = anyio.Event()
        self._over = False
        self._is_dead = False

    def take(self, job: JobT) -> None:
        """A job has arrived whole."""
        self._waiting.append(job)
        self._in_flight_octets += job.size
        self._in_flight_jobs += 1
        self._come.set()
        if self._is_dead:
            self.abandon()

    async def room(self) -> None:
        """Returns when there is room for more."""
        while self._in_flight_octets > IN_FLIGHT_OCTETS or self._in_flight_jobs > IN_FLIGHT_JOBS:
            await self._gone.wait()

    async def settle(self) -> None:
        """Returns when everything that came has landed."""
        while self._in_flight_jobs:
            await self._gone.wait()

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begins to land."""
        for _ in range(TASKS):
            tasks.start_soon(self._run)

    def stop(self) -> None:
        """Ends the tasks once nothing waits."""
        self._over = True
        self._come.set()

    def abandon(self) -> None:
        """Lets go of what waits, without landing it."""
        while self._waiting:
            job = self._waiting.popleft()
            self._destination.abandon(job)
            self._landed(_lost(job.arrival))

    async def _run(self) -> None:
        try:
            await self._land_all()
        except BaseException:
            self._is_dead = True
            self.abandon()
            raise

    async def _land_all(self) -> None:
        while True:
            while not self._waiting:
                if self._over:
                    return
                self._come = anyio.Event() if self._come.is_set() else self._come
                await self._come.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
            octets = sum(job.size for job in batch)
            # Not abandoned on cancellation: what a thread writes must be finished or cleaned before the run ends.
            try:
                verdicts = await anyio.to_thread.run_sync(self._destination.land_many, batch)
            except BaseException:
                for job in batch:  # whoever waits for a verdict must get one, or the run would never end
                    self._landed(_lost(job.arrival))
                raise
            for verdict in verdicts:
                self._landed(verdict)
            self._in_flight_octets -= octets
            self._in_flight_jobs -= len(batch)
            gone, self._gone = self._gone, anyio.Event()
            gone.set()


def _lost(arrival: Arrival) -> Landed:
    return Landed(arrival=arrival, outcome="failed", reason="interrupted", message="the run ended before it landed")
