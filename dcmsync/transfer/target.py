"""One destination of a run: what it holds already, the way there, and whether it still takes anything.

Owns who carries jobs there and the verdicts that are waited for. Refuses to know what kind of place it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, Protocol

from anyio.abc import TaskGroup
from msgspec import Struct

from dcmsync.contract import Ask, Catalogue, Destination, JobT, JobT_contra, Landed, Level, Takes
from dcmsync.errors import DcmsyncError, LocalTrouble
from dcmsync.transfer.lander import Lander
from dcmsync.transfer.ledger import Ledger

if TYPE_CHECKING:
    from dcmsync.transfer.edited import Edited


class Held(Struct, frozen=True):
    """A whole instance that a destination holds; `content` is the digest of its data set, "" where unknown."""

    path: str
    size: int
    content: str = ""


class Stock(Protocol):
    """What a destination holds. Raises DestinationLost when it cannot be reached."""

    async def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """The whole instances of one series, by SOP Instance UID."""

    async def count(self, study_uid: str, series_uid: str) -> int | None:
        """How many whole instances there are of a series, or for "" of a whole study; None when nobody knows."""


class Findings(Struct, frozen=True, kw_only=True):
    """What looking at the destination brought, of instances that it said to have stored; those not named are proven.

    By SOP Instance UID, and why in words: `missing` are not there, `differing` not the same, `refused` not kept,
    `unproven` nobody can say.
    """

    missing: Mapping[str, str] = {}
    differing: Mapping[str, str] = {}
    refused: Mapping[str, str] = {}
    unproven: Mapping[str, str] = {}


class Prover(Protocol):
    """Sees whether a destination has what it said to have stored."""

    async def prove(self, ledger: Ledger) -> Findings:
        """Looks for all that `ledger.unproven` names. Raises LocalTrouble; a peer's failure leaves things unproven."""


class Carrier(Protocol[JobT_contra]):
    """Takes jobs to a destination, and gives each its verdict; memory stays bounded."""

    def take(self, job: JobT_contra) -> None:
        """A job has arrived whole."""

    async def room(self) -> None:
        """Returns when there is room for more."""

    def start(self, tasks: TaskGroup) -> None:
        """Begins."""

    def stop(self) -> None:
        """Ends once nothing waits."""

    def abandon(self) -> None:
        """Gives up what waits; each gets its verdict."""


Carry = Callable[[Callable[[Landed], None]], Carrier[JobT]]
"""Makes the carrier, which tells each verdict."""


class Nothing:
    """The stock of a place whose contents do not count."""

    async def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """Nothing."""
        return {}

    async def count(self, study_uid: str, series_uid: str) -> int | None:
        """None of it counts."""
        return 0


class Catalogued:
    """The stock of a local place, by its catalogue, which has been brought up to date."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """The whole instances; of an instance that is there twice, the first by path."""
        held: dict[str, Held] = {}
        try:
            for holding in self._catalogue.holdings(study_uid=study_uid, series_uid=series_uid):
                held.setdefault(holding.sop_instance_uid, Held(holding.path, holding.stamp.size, holding.content))
        except LocalTrouble:  # a catalogue that was lost in the middle of the run: what is fetched is compared instead
            return {}
        return held

    async def count(self, study_uid: str, series_uid: str) -> int | None:
        """As the catalogue counts."""
        level = Level.SERIES if series_uid else Level.STUDY
        keys = {"StudyInstanceUID": study_uid, **({"SeriesInstanceUID": series_uid} if series_uid else {})}
        number = "NumberOfSeriesRelatedInstances" if series_uid else "NumberOfStudyRelatedInstances"
        try:
            answer = next(self._catalogue.find(Ask(level=level, keys=keys, wanted=(number,))), {})
        except LocalTrouble:  # as above
            return 0
        found = answer.get(number)
        return found if isinstance(found, int) else 0


class Waits(Protocol):
    """Who waits for verdicts."""

    def landed(self, verdict: Landed) -> None:
        """One of theirs has its verdict."""


class Target(Generic[JobT]):
    """One destination. `name` is what outcomes call it; without a `destination` nothing can arrive (a dry run).

    Jobs land by a Lander, unless `carry` makes another carrier. `prover`, where there is one, sees to it afterwards.
    With a `relay_ae`, sources that know it by that title may send to it themselves.
    With `edited`, what comes is edited on its way (transfer.edited.edit sets it up).
    `awaited`: SOP Instance UID -> who took it and waits for its verdict. `trouble`: why it takes no more.
    """

    def __init__(self, name: str, stock: Stock) -> None:
        self.name = name
        self.stock = stock
        self.destination: Destination[JobT] | None = None
        self.prover: Prover | None = None
        self.edited: Edited | None = None
        self.relay_ae = ""
        self.awaited: dict[str, Waits] = {}
        self.trouble: DcmsyncError | None = None
        self._remote: tuple[Takes, Carry[JobT]] | None = None
        self._carrier: Carrier[JobT] | None = None
        self._advance: Callable[[int, int], None] = _ignore

    def deliver(self, takes: Takes, carry: Carry[JobT]) -> None:
        """What comes is handed to `takes`, and taken there by what `carry` makes."""
        self._remote = takes, carry

    @property
    def takes(self) -> Takes | None:
        """What instances are handed to; None in a dry run."""
        takes = self._remote[0] if self._remote is not None else self.destination
        return takes if takes is None or self.edited is None else self.edited.takes(takes, self._landed)

    @property
    def is_made_at_once(self) -> bool:
        """Whether no verdict counts before `commit`."""
        return self.takes is not None and self.takes.is_made_at_once

    @property
    def carrier(self) -> Carrier[JobT]:
        """Who takes its jobs there."""
        assert self._carrier is not None
        return self._carrier

    def completed(self, job: JobT) -> None:
        """An instance has arrived whole: the sinks of the destination say so."""
        self.carrier.take(job)

    def relayed(self) -> None:
        """A source has sent it an instance itself."""
        self._advance(1, 0)

    def start(self, tasks: TaskGroup, advance: Callable[[int, int], None]) -> None:
        """Begins. `advance` hears of each verdict: one instance, and its octets."""
        self._advance = advance
        if self._remote is not None:
            self._carrier = self._remote[1](self._landed)
        elif self.destination is not None:
            self._carrier = Lander(self.destination, self._landed)
        if self._carrier is not None:
            self._carrier.start(tasks)

    def stop(self) -> None:
        """Lets go of what waits, and ends."""
        if self._carrier is not None:
            self._carrier.abandon()
            self._carrier.stop()

    def give_up(self, trouble: DcmsyncError) -> None:
        """Takes nothing more, because of `trouble`."""
        self.trouble = self.trouble or trouble

    def _landed(self, verdict: Landed) -> None:
        if self.edited is not None:
            verdict = self.edited.restored(verdict)
        if verdict.trouble is not None:
            self.give_up(verdict.trouble)
        self.awaited[verdict.arrival.sop_instance_uid].landed(verdict)
        self._advance(1, verdict.size)


def _ignore(instances: int, octets: int) -> None:
    pass
