"""Remote to remote without passing through us: the source sends straight to a destination that it knows (C-MOVE).

Owns the asking, and what is remembered of pairs for which it does not work, so that they are asked once. Refuses to
judge: what was sent so is proven by asking the destination, and what is not there goes through us.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, runtime_checkable

from dcmsync.contract import Ending, JobT, Session, Want
from dcmsync.errors import PeerError
from dcmsync.transfer.consignment import Consignment
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.proving import prove
from dcmsync.transfer.target import Target


@runtime_checkable
class Relays(Protocol):
    """A conversation with a place that can send to a third one."""

    async def move(self, want: Want, destination_ae: str) -> Ending:
        """Has it send what is wanted to the place that it knows as `destination_ae`: its word on that.

        Raises Rejected when it knows none of that name, PeerError.
        """


class Relay(Generic[JobT]):
    """Has sources send to those targets that have a `relay_ae`. `warn` hears once of each pair that does not work."""

    def __init__(self, targets: Sequence[Target[JobT]], *, warn: Callable[[str], None]) -> None:
        self._targets = targets
        self._warn = warn
        self._failed: set[tuple[str, str]] = set()  # source, target

    async def run(self, consignment: Consignment, session: Session) -> None:
        """Has everything sent that lacks, and proven; what lacks afterwards goes another way. Raises LocalTrouble."""
        has_sent = False
        for target, ledger in zip(self._targets, consignment.ledgers, strict=True):
            pair = consignment.source, target.name
            if target.relay_ae and target.trouble is None and ledger.lacking and pair not in self._failed:
                if not isinstance(session, Relays):
                    self._failed.add(pair)  # a place on this machine
                elif target.edited is not None:
                    self._failed.add(pair)
                    self._warn(f"{consignment.source}: what is to be edited goes through us")
                else:
                    has_sent = await self._send(consignment, ledger, session, target) or has_sent
        if has_sent:
            await prove(consignment, self._targets, is_last=False)

    async def _send(self, consignment: Consignment, ledger: Ledger, session: Relays, target: Target[JobT]) -> bool:
        """Has one target sent what it lacks: whether anything may have arrived."""
        lacking = ledger.lacking
        want = Want(
            study_uid=consignment.study_uid,
            series_uid=consignment.series_uid,
            instances=lacking,
            whole=not consignment.is_selection and len(lacking) == len(consignment.wanted),
            patient_id=consignment.patient_id,
        )
        trouble = ""
        try:
            ending = await session.move(want, target.relay_ae)
        except PeerError as error:
            ending, trouble = Ending(), str(error)
        else:
            if ending.status:
                trouble = f"{consignment.source}: C-MOVE to {target.relay_ae}: {ending.why}"
        pair = consignment.source, target.name
        if trouble and pair not in self._failed:  # several series may be on their way
            self._failed.add(pair)
            self._warn(f"{trouble}; what comes from there goes through us")
        if trouble and target.prover is None:
            return False
        for uid in lacking:
            ledger.relayed(uid)
            target.relayed()
        return True
