"""What a place promises: small protocols, and the values that pass between a place and those who use it.

An endpoint satisfies the protocols that it can. Nothing here does anything.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

from msgspec import Struct

Attributes = Mapping[str, object]
"""Keyword (PS3.6) -> plain value: str, int, float, list of these. What a record carries besides our own keys."""


class Level(IntEnum):
    """Query/Retrieve level (PS3.4 §C.6), by depth."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3

    @property
    def word(self) -> str:
        """The word of our records and options: study, series, instance."""
        return self.name.lower()

    @property
    def unique_key(self) -> str:
        """The keyword of the attribute that identifies one thing of this level."""
        return UNIQUE_KEYS[self]


UNIQUE_KEYS = {
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.INSTANCE: "SOPInstanceUID",
}


class Ask(Struct, frozen=True, kw_only=True):
    """One query of one level: what must match, and what else is wanted back.

    `keys`: keyword -> value in DICOM matching syntax (PS3.4 §C.2.2.2), `\\` between values of a UID list.
    Every level above `level` has exactly one unique key in `keys`, without wildcard: hierarchical, always.
    """

    level: Level
    keys: Mapping[str, str]
    wanted: tuple[str, ...] = ()


class Ending(Struct, frozen=True, kw_only=True):
    """How a query ended. `status` is the DIMSE status; `truncated` says that the list may be cut short, and `why`."""

    status: int = 0
    truncated: bool = False
    why: str = ""


class Want(Struct, frozen=True, kw_only=True):
    """What to retrieve in one go: one series, or some instances of it.

    `instances` is the inventory: SOP Instance UID -> SOP Class UID ("" where unknown). With `whole` the series is
    asked for by its own UID, else instance by instance.
    """

    study_uid: str
    series_uid: str
    instances: Mapping[str, str]
    whole: bool = True
    transfer_syntaxes: Mapping[str, str] = {}


class Arrival(Struct, frozen=True, kw_only=True):
    """What is known of an instance before its first octet of data (C-STORE-RQ, PS3.7 §9.1.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class Sink(Protocol):
    """Takes the data set of one instance. Exactly one of `finish` and `discard` is called, last."""

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets, in order. The buffers are the caller's again when this returns.

        Raises LocalTrouble; the caller then discards.
        """

    def finish(self) -> int:
        """All octets have come. Returns the DIMSE status for the peer (0 when it was taken)."""

    def discard(self, why: str) -> None:
        """The instance ends here, incomplete; nothing of it stays. Idempotent."""


Receive = Callable[[Arrival], Sink | int]
"""Asked once per arriving instance: a sink to take it, or the DIMSE status to refuse it with."""


class Finds(Protocol):
    """A place that can be asked what it holds."""

    def find(self, ask: Ask) -> AsyncIterator[Attributes | Ending]:
        """Gives each answer as it arrives; exactly one Ending, last.

        Raises PeerError when the query could not be carried out.
        """


class Fetches(Protocol):
    """A place that gives instances."""

    async def fetch(self, want: Want, receive: Receive) -> Ending:
        """Retrieves `want`, calling `receive` for each instance that arrives. At most one call at a time a place.

        The ending is the peer's word, not a proof: count what arrived. Raises PeerError, LocalTrouble.
        """
