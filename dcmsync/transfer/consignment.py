"""One series on its way to one destination or several: fetched once, accounted for at each.

Owns what is still to be fetched (what any destination lacks) and what may leave its source afterwards (what all of them
have, proven). Refuses to move anything; the verdicts are the ledgers'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dcmsync.contract import Attributes, Ending, Landed, Origin
from dcmsync.errors import DcmsyncError, ExitStatus
from dcmsync.plan.levels import patient_of
from dcmsync.transfer.ledger import Ledger

Proof = tuple[str, str]
"""The name of a destination, and the path below it where an instance lies."""


class Consignment:
    """One series of one source. `wanted` is its inventory: SOP Instance UID -> SOP Class UID, "" where unknown.

    `candidates`: SOP classes that it may have, where the source does not tell. `is_selection`: some of its instances
    were named, and the source may hold more. There is one ledger for each destination, in their order.
    """

    def __init__(
        self, *, source: str, destinations: Sequence[str], attributes: Attributes, dry_run: bool = False
    ) -> None:
        self.source = source
        self.attributes = attributes
        self.wanted: dict[str, str] = {}
        self.candidates: tuple[str, ...] = ()
        self.is_selection = False
        self.finished = False
        self.ledgers = tuple(
            Ledger(source=source, destination=name, attributes=attributes, wanted=self.wanted, dry_run=dry_run)
            for name in destinations
        )
        self._origins: dict[str, tuple[Origin, str, list[Proof]]] = {}  # by path; and the instance's UID

    @property
    def study_uid(self) -> str:
        """Its Study Instance UID."""
        return self.ledgers[0].study_uid

    @property
    def patient_id(self) -> str:
        """The PatientID that its record gave; "" where that is not one value."""
        return patient_of(self.attributes)

    @property
    def series_uid(self) -> str:
        """Its Series Instance UID; "" where only the study is known."""
        return self.ledgers[0].series_uid

    @property
    def lacking(self) -> dict[str, str]:
        """What some destination wants and has no verdict on yet."""
        if len(self.ledgers) == 1:
            return self.ledgers[0].lacking
        return {uid: kind for uid, kind in self.wanted.items() if any(each.lacks(uid) for each in self.ledgers)}

    @property
    def status(self) -> ExitStatus:
        """The worst of what happened."""
        return max(ledger.status for ledger in self.ledgers)

    def would_store(self) -> None:
        """A dry run would bring all that lacks."""
        for ledger in self.ledgers:
            for uid in ledger.lacking:
                ledger.would_store(uid)

    def fail_rest(self, error: DcmsyncError) -> None:
        """Everything that lacks failed, because of `error`."""
        for ledger in self.ledgers:
            ledger.fail_rest(error)

    def fail_one(self, sop_instance_uid: str, error: DcmsyncError) -> None:
        """One instance failed by itself, wherever it lacks."""
        for ledger in self.ledgers:
            if ledger.lacks(sop_instance_uid):
                ledger.fail_one(sop_instance_uid, error)

    def refuse_rest(self, message: str, ending: Ending) -> None:
        """Everything that lacks failed, because the peer ended with a failure status."""
        for ledger in self.ledgers:
            ledger.refuse_rest(message, ending)

    def missing_rest(self, message: str) -> None:
        """Everything that lacks was asked for again and again, and did not come."""
        for ledger in self.ledgers:
            ledger.missing_rest(message)

    def landed(self, ledger: Ledger, verdict: Landed) -> None:
        """An instance landed at one destination, well or not."""
        ledger.landed(verdict)
        origin = verdict.arrival.origin
        if origin is not None and verdict.outcome in ("stored", "present"):
            _, _, proofs = self._origins.setdefault(origin.path, (origin, verdict.arrival.sop_instance_uid, []))
            proofs.append((ledger.destination, verdict.path))

    def dispensable(self) -> Iterator[tuple[Origin, list[Proof]]]:
        """The files that it came from and that every destination has now, proven octet by octet; and where."""
        for origin, uid, proofs in self._origins.values():
            if len(proofs) == len(self.ledgers) and all(ledger.is_fine(uid) for ledger in self.ledgers):
                yield origin, proofs
