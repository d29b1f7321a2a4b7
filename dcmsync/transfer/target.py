"""One destination of a run: what it holds already, the way to its disk, and whether it still takes anything.

Owns the lander and the verdicts that are waited for. Refuses to know what kind of place it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, Protocol

from anyio.abc import TaskGroup
from msgspec import Struct

from dcmsync.contract import Ask, Catalogue, Destination, JobT, Landed, Level
from dcmsync.errors import LocalTrouble
from dcmsync.transfer.lander import Lander


class Held(Struct, frozen=True):
    """A whole instance that a destination holds; `content` is the digest of its data set, "" where unknown."""

    path: str
    size: int
    content: str = ""


class Stock(Protocol):
    """What a destination holds."""

    def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """The whole instances of one series, by SOP Instance UID."""

    def count(self, study_uid: str, series_uid: str) -> int:
        """How many whole instances there are of a series, or for "" of a whole study."""


class Nothing:
    """The stock of a place whose contents do not count."""

    def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """Nothing."""
        return {}

    def count(self, study_uid: str, series_uid: str) -> int:
        """None."""
        return 0


class Catalogued:
    """The stock of a local place, by its catalogue, which has been brought up to date."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """The whole instances; of an instance that is there twice, the first by path."""
        held: dict[str, Held] = {}
        try:
            for holding in self._catalogue.holdings(study_uid=study_uid, series_uid=series_uid):
                held.setdefault(holding.sop_instance_uid, Held(holding.path, holding.stamp.size, holding.content))
        except LocalTrouble:  # a catalogue that was lost in the middle of the run: what is fetched is compared instead
            return {}
        return held

    def count(self, study_uid: str, series_uid: str) -> int:
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
    """One destination. `name` is what outcomes call it; without a `destination` nothing can land (a dry run).

    `awaited`: SOP Instance UID -> who took it and waits for its verdict. `trouble`: why it takes no more.
    """

    def __init__(self, name: str, stock: Stock) -> None:
        self.name = name
        self.stock = stock
        self.destination: Destination[JobT] | None = None
        self.awaited: dict[str, Waits] = {}
        self.trouble: LocalTrouble | None = None
        self._lander: Lander[JobT] | None = None
        self._advance: Callable[[int, int], None] = _ignore

    @property
    def is_made_at_once(self) -> bool:
        """Whether no verdict counts before `commit`."""
        return self.destination is not None and self.destination.is_made_at_once

    @property
    def lander(self) -> Lander[JobT]:
        """Where its jobs wait."""
        assert self._lander is not None
        return self._lander

    def completed(self, job: JobT) -> None:
        """An instance has arrived whole: the sinks of the destination say so."""
        self.lander.take(job)

    def start(self, tasks: TaskGroup, advance: Callable[[int, int], None]) -> None:
        """Begins to land. `advance` hears of each verdict: one instance, and its octets."""
        self._advance = advance
        if self.destination is not None:
            self._lander = Lander(self.destination, self._landed)
            self._lander.start(tasks)

    def stop(self) -> None:
        """Lets go of what waits, and ends."""
        if self._lander is not None:
            self._lander.abandon()
            self._lander.stop()

    def give_up(self, trouble: LocalTrouble) -> None:
        """Takes nothing more, because of `trouble`."""
        self.trouble = self.trouble or trouble

    def _landed(self, verdict: Landed) -> None:
        if verdict.trouble is not None:
            self.give_up(verdict.trouble)
        self.awaited[verdict.arrival.sop_instance_uid].landed(verdict)
        self._advance(1, verdict.size)


def _ignore(instances: int, octets: int) -> None:
    pass
