"""One instance of a series, fetched to be looked at: what no query tells, its data set does.

Owns asking for it, and that no more than the beginning of it is kept, in memory. Refuses to read it; that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing

from dcmsync.contract import Arrival, Ask, Attributes, Ending, Level, Session, Sink, Want
from dcmsync.plan.levels import patient_of

KEPT_OCTETS = 4 << 20  # attributes stand before the pixel data

_NOT_ASKED_FOR = 0xC000

Read = Callable[[bytes, str], Attributes]
"""The attributes in the beginning of a data set, of a transfer syntax."""


async def example(session: Session, known: Attributes, read: Read) -> Attributes:
    """The attributes of one instance below what is known; of any of the study, where no series is named. None of none
    that comes.

    Raises PeerError, LocalTrouble.
    """
    study_uid, series_uid = str(known["StudyInstanceUID"]), str(known.get("SeriesInstanceUID", ""))
    above = {"StudyInstanceUID": study_uid}
    if not series_uid:
        series_uid = await _first(session, Ask(level=Level.SERIES, keys=above), "SeriesInstanceUID")
    ask = Ask(level=Level.INSTANCE, keys={**above, "SeriesInstanceUID": series_uid}, wanted=("SOPClassUID",))
    found: Attributes = {}
    async with aclosing(session.find(ask)) as answers:
        async for answer in answers:
            found = found or ({} if isinstance(answer, Ending) else answer)
    if not found:
        return {}
    uid = str(found["SOPInstanceUID"])
    beginning = _Beginning(uid)
    want = Want(
        study_uid=study_uid, series_uid=series_uid, instances={uid: str(found.get("SOPClassUID", ""))}, whole=False,
        patient_id=patient_of(known),
    )  # fmt: skip
    await session.fetch(want, beginning)
    return read(bytes(beginning.octets), beginning.transfer_syntax_uid) if beginning.octets else {}


async def _first(session: Session, ask: Ask, keyword: str) -> str:
    """The first answer's value; the rest is read, and dropped."""
    first = ""
    async with aclosing(session.find(ask)) as answers:
        async for answer in answers:
            if not isinstance(answer, Ending):
                first = first or str(answer.get(keyword, ""))
    return first


class _Beginning:
    """Takes one instance (contract.Receiver), and is its sink."""

    def __init__(self, uid: str) -> None:
        self.octets = bytearray()
        self.transfer_syntax_uid = ""
        self._uid = uid

    def receive(self, arrival: Arrival) -> Sink | int:
        """Itself, for the instance that was asked for."""
        if arrival.sop_instance_uid != self._uid or self.transfer_syntax_uid:
            return _NOT_ASKED_FOR
        self.transfer_syntax_uid = arrival.transfer_syntax_uid
        return self

    async def room(self) -> None:
        """There is always room."""

    def adopt(self) -> bool:
        """Octets are needed."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Keeps the first of them."""
        for piece in pieces:
            if len(self.octets) < KEPT_OCTETS:
                self.octets += piece[: KEPT_OCTETS - len(self.octets)]

    def finish(self) -> int:
        """Taken."""
        return 0

    def discard(self, why: str) -> None:
        """What came before it broke off is looked at all the same."""
