"""Whether what a destination said to have stored is there: asked once everything of a consignment has its verdict.

Owns what follows from the findings: what is missing is taken back, so that it is sent once more, and has failed if it
is missing then too; what nobody can tell stays stored, and is said to be unproven. Refuses to look itself; provers do.
"""

from __future__ import annotations

from collections.abc import Sequence

from dcmsync.contract import JobT
from dcmsync.transfer.consignment import Consignment
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.target import Target


async def prove(consignment: Consignment, targets: Sequence[Target[JobT]], *, is_last: bool) -> None:
    """Has each target look for what it said to have stored. `is_last`: nothing is sent again. Raises LocalTrouble."""
    for target, ledger in zip(targets, consignment.ledgers, strict=True):
        if target.prover is not None and ledger.unproven:
            await _prove_at(target, ledger, is_last=is_last or target.trouble is not None)


async def _prove_at(target: Target[JobT], ledger: Ledger, *, is_last: bool) -> None:
    assert target.prover is not None
    findings = await target.prover.prove(ledger)
    for uid, words in findings.missing.items():
        if is_last:
            ledger.disprove(uid, "missing", words)
        else:
            ledger.take_back(uid)
    for uid, words in findings.differing.items():
        ledger.disprove(uid, "differs", words)
    for uid, words in findings.refused.items():
        ledger.disprove(uid, "refused", words)
    for uid, words in findings.unproven.items():
        ledger.doubt(uid, words)
    ledger.proven()
