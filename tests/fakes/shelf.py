"""A destination in memory that satisfies the contract, and can be told that its disk is in trouble."""

import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b

from dcmsync.contract import Arrival, Expected, Landed
from dcmsync.errors import LocalTrouble


class Parcel:
    """One instance that has arrived whole (contract.Job)."""

    def __init__(self, arrival: Arrival, expected: Expected, octets: bytes) -> None:
        self.arrival, self.expected, self.octets = arrival, expected, octets
        self.size = len(octets)


class Shelf:
    """Takes what comes. `refuse` gives a status instead of a sink; `full_after` parcels the disk is full.

    `spoilt` are the UIDs whose instances turn out to be damaged. `landing` is called before each batch lands,
    where it lands. `write_fails_after` writes of its sinks fail.
    """

    def __init__(
        self,
        *,
        refuse: Callable[[Arrival], int] = lambda arrival: 0,
        full_after: int | None = None,
        spoilt: Sequence[str] = (),
        landing: Callable[[Sequence[Parcel]], None] = lambda parcels: None,
        write_fails_after: int | None = None,
        is_made_at_once: bool = False,
        commit_fails: bool = False,
    ) -> None:
        self.is_made_at_once = is_made_at_once
        self.commits = 0
        self._commit_fails = commit_fails
        self.writes_left = write_fails_after
        self.stored: dict[str, bytes] = {}
        self.abandoned: list[str] = []
        self.batches: list[int] = []
        self.threads: list[str] = []  # where each batch landed: "loop" or "worker"
        self.completed: Callable[[Parcel], None] = lambda parcel: None
        self._refuse = refuse
        self._full_after = full_after
        self._spoilt = spoilt
        self._landing = landing
        self._loop_thread = threading.get_ident()

    def receive(self, arrival: Arrival, expected: Expected = Expected()) -> "ShelfSink | int":  # noqa: B008  # frozen
        """A sink, or the status of `refuse`."""
        return self._refuse(arrival) or ShelfSink(self, arrival, expected)

    def land_many(self, jobs: Sequence[Parcel]) -> list[Landed]:
        """The verdicts."""
        self.threads.append("loop" if threading.get_ident() == self._loop_thread else "worker")
        self._landing(jobs)
        self.batches.append(len(jobs))
        return [self._land(job) for job in jobs]

    def commit(self) -> None:
        """Fails, or counts."""
        self.commits += 1
        if self._commit_fails:
            raise LocalTrouble("the disk is full")

    def abandon(self, job: Parcel) -> None:
        """Notes what was let go of."""
        self.abandoned.append(job.arrival.sop_instance_uid)

    def _land(self, job: Parcel) -> Landed:
        uid = job.arrival.sop_instance_uid
        if uid in self._spoilt:
            return Landed(arrival=job.arrival, outcome="failed", reason="corrupt", message="it is damaged")
        if self._full_after is not None and len(self.stored) >= self._full_after:
            trouble = LocalTrouble("the disk is full")
            return Landed(arrival=job.arrival, outcome="failed", reason="local", message=str(trouble), trouble=trouble)
        self.stored[uid] = job.octets
        digest = blake2b(job.octets, digest_size=16).hexdigest()
        return Landed(arrival=job.arrival, outcome="stored", path=f"{uid}.dcm", size=job.size, digest=digest)


class ShelfSink:
    """Gathers one instance."""

    def __init__(self, shelf: Shelf, arrival: Arrival, expected: Expected) -> None:
        self._shelf, self._arrival, self._expected = shelf, arrival, expected
        self._octets = b""
        self._over = False

    def adopt(self) -> bool:
        """Octets are needed."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes octets."""
        assert not self._over
        if self._shelf.writes_left is not None:
            self._shelf.writes_left -= 1
            if self._shelf.writes_left < 0:
                raise LocalTrouble("the disk is full")
        self._octets += b"".join(pieces)

    def finish(self) -> int:
        """Hands the parcel over."""
        assert not self._over
        self._over = True
        self._shelf.completed(Parcel(self._arrival, self._expected, self._octets))
        return 0

    def discard(self, why: str) -> None:
        """Lets go."""
        self._over = True
