"""Editing on the way: what a source gives under one UID lies at a destination with other elements, and another UID.

Owns that both sides meet: the source and the ledgers speak of UIDs as they are at the source, the destination, its
stock and its prover of those that they become. An edited instance is none of the file that it came from: it has a head
of its own, and is never linked. Refuses to know what is edited; that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from dcmsync.contract import Arrival, Expected, Landed, Sink, Takes
from dcmsync.errors import Uneditable
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.target import Findings, Held, Prover, Stock, Target

_CANNOT_UNDERSTAND = 0xC000  # PS3.4 Table B.2-1


class Editor(Protocol):
    """Edits one data set."""

    def feed(self, pieces: Iterable[memoryview]) -> Sequence[bytes | memoryview]:
        """Takes the next octets; gives those that may go out. Raises Uneditable."""

    def end(self) -> Sequence[bytes | memoryview]:
        """All octets have come. Raises Uneditable."""


class Edits(Protocol):
    """What becomes of each instance."""

    def uid(self, uid: str) -> str:
        """The UID that an instance, series or study has afterwards."""

    def editor(self, transfer_syntax_uid: str) -> Editor:
        """Who edits the next data set."""


def edit(target: Target[Any], edits: Edits) -> None:
    """Has all that goes to a target edited. The target is set up, and has not begun."""
    target.edited = Edited(edits)
    target.stock = _Stock(target.stock, edits)
    if target.prover is not None:
        target.prover = _Prover(target.prover, edits)


class Edited:
    """The two ends of a target: what is handed to it, and its verdicts."""

    def __init__(self, edits: Edits) -> None:
        self._edits = edits

    def takes(self, takes: Takes, failed: Callable[[Landed], None]) -> Takes:
        """Hands what comes to `takes`, edited; `failed` hears of what cannot be."""
        return _Takes(takes, self._edits, failed)

    def restored(self, verdict: Landed) -> Landed:
        """A verdict on the instance as it was at its source."""
        arrival = verdict.arrival
        return replace(verdict, arrival=replace(arrival, sop_instance_uid=arrival.original or arrival.sop_instance_uid))


class _Takes:
    """What instances are handed to (contract.Takes)."""

    def __init__(self, takes: Takes, edits: Edits, failed: Callable[[Landed], None]) -> None:
        self._takes = takes
        self._edits = edits
        self._failed = failed
        self.commit = takes.commit

    @property
    def is_made_at_once(self) -> bool:
        """As the destination."""
        return self._takes.is_made_at_once

    def receive(self, arrival: Arrival, expected: Expected = Expected()) -> Sink | int:  # noqa: B008 - frozen
        """A sink that edits."""
        uid = self._edits.uid
        becomes = Arrival(
            sop_class_uid=arrival.sop_class_uid,
            sop_instance_uid=uid(arrival.sop_instance_uid),
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            original=arrival.sop_instance_uid,
        )
        study_uid, series_uid = (each and uid(each) for each in (expected.study_uid, expected.series_uid))
        sink = self._takes.receive(becomes, replace(expected, study_uid=study_uid, series_uid=series_uid))
        if isinstance(sink, int):
            return sink
        return _Sink(sink, self._edits.editor(arrival.transfer_syntax_uid), becomes, self._failed)


class _Sink:
    """Takes one instance, and hands it on edited (contract.Sink). What cannot be edited fails by itself."""

    def __init__(self, sink: Sink, editor: Editor, arrival: Arrival, failed: Callable[[Landed], None]) -> None:
        self._sink = sink
        self._editor = editor
        self._arrival = arrival
        self._failed = failed
        self._failure: Landed | None = None

    def adopt(self) -> bool:
        """Octets are needed."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets. Raises LocalTrouble, RemoteProtocolError; the caller then discards."""
        if self._failure is None:
            self._hand_on(lambda: self._editor.feed(pieces))

    def finish(self) -> int:
        """Hands it over."""
        if self._failure is None:
            self._hand_on(self._editor.end)
        if self._failure is None:
            return self._sink.finish()
        self._failed(self._failure)
        return _CANNOT_UNDERSTAND

    def discard(self, why: str) -> None:
        """Lets go of it. Idempotent."""
        self._sink.discard(why)

    def _hand_on(self, edit_next: Callable[[], Sequence[bytes | memoryview]]) -> None:
        try:
            edited = edit_next()
            if edited:
                self._sink.write([memoryview(piece) for piece in edited])
        except Uneditable as why:
            words = str(why)
            self._failure = Landed(arrival=self._arrival, outcome="failed", reason=why.reason, message=words)
            self._sink.discard(words)


class _There(Mapping[str, Held]):
    """What a destination holds, to be asked for by UIDs of the source. It lists the UIDs that it has."""

    def __init__(self, held: Mapping[str, Held], edits: Edits) -> None:
        self._held = held
        self._edits = edits

    def __getitem__(self, uid: str) -> Held:
        """The edited instance; its digest is never that of the original."""
        there = self._held[self._edits.uid(uid)]
        return Held(there.path, there.size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class _Stock:
    """What a destination holds (target.Stock), asked for by UIDs of the source."""

    def __init__(self, stock: Stock, edits: Edits) -> None:
        self._stock = stock
        self._uid = edits.uid
        self._edits = edits

    async def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """The edited instances."""
        return _There(await self._stock.series(self._uid(study_uid), self._uid(series_uid)), self._edits)

    async def count(self, study_uid: str, series_uid: str) -> int | None:
        """How many there are."""
        return await self._stock.count(self._uid(study_uid), series_uid and self._uid(series_uid))


class _Prover:
    """Sees whether a destination has what was edited (target.Prover)."""

    def __init__(self, prover: Prover, edits: Edits) -> None:
        self._prover = prover
        self._edits = edits

    async def prove(self, ledger: Ledger) -> Findings:
        """Looks for the UIDs that they have there."""
        uid = self._edits.uid
        there = {uid(old): old for old in ledger.unproven}
        found = await self._prover.prove(_as_there(ledger, uid))
        missing, differing, refused, unproven = (
            {there[new]: words for new, words in each.items()}
            for each in (found.missing, found.differing, found.refused, found.unproven)
        )
        return Findings(missing=missing, differing=differing, refused=refused, unproven=unproven)


def _as_there(ledger: Ledger, uid: Callable[[str], str]) -> Ledger:
    """The account of what a ledger has not proven, by the UIDs of the destination."""
    attributes = {**ledger.attributes, "StudyInstanceUID": uid(ledger.study_uid)}
    if ledger.series_uid:
        attributes["SeriesInstanceUID"] = uid(ledger.series_uid)
    unproven = ledger.unproven
    mirrored = Ledger(
        source=ledger.source, destination=ledger.destination, attributes=attributes,
        wanted={uid(old): ledger.wanted[old] for old in unproven},
    )  # fmt: skip
    for old, outcome in unproven.items():
        arrival = Arrival(
            sop_class_uid=str(outcome.SOPClassUID or ""), sop_instance_uid=uid(old),
            transfer_syntax_uid=str(outcome.TransferSyntaxUID or ""),
        )  # fmt: skip
        content = str(outcome.content or "").removeprefix("xxh3:")
        mirrored.landed(Landed(arrival=arrival, outcome="stored", content=content))
    return mirrored
