"""Proof by storage commitment: the destination is asked to keep what it was given, and says that it will.

Owns how much is asked for in one go, and what an answer is worth: what the destination promises to keep is proven, what
it does not have is sent again, what it will not keep has failed, and what it says nothing of is unproven. Refuses to
fall back to another proof, since this one was asked for. A place that does not offer it is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

from dcmsync.contract import Commitment
from dcmsync.errors import DestinationLost, PeerError, Rejected
from dcmsync.transfer.fleet import Fleet
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.target import Findings

TOGETHER = 5000  # instances of one request


class Notary:
    """Proves by commitment (target.Prover). `warn` hears once of a place that does not offer it."""

    def __init__(self, fleet: Fleet, *, warn: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._warn = warn
        self._refusal = ""

    async def prove(self, ledger: Ledger) -> Findings:
        """Asks the destination to keep all that was stored."""
        kinds = {uid: outcome.SOPClassUID or "" for uid, outcome in ledger.unproven.items()}
        missing, refused, unproven = dict[str, str](), dict[str, str](), dict[str, str]()
        nameless = [uid for uid, kind in kinds.items() if not kind]
        unproven |= dict.fromkeys(nameless, "its SOP class is not known, so that nobody could be asked to keep it")
        rest = iter([(uid, kind) for uid, kind in kinds.items() if kind])
        while some := dict(islice(rest, TOGETHER)):
            said = await self._ask(some)
            missing |= {uid: words for uid, words in said.missing.items() if uid in some}
            refused |= {uid: words for uid, words in said.refused.items() if uid in some}
            told = said.kept | said.missing.keys() | said.refused.keys()
            unproven |= {uid: said.why for uid in some if uid not in told}
        return Findings(missing=missing, refused=refused, unproven=unproven)

    async def _ask(self, instances: Mapping[str, str]) -> Commitment:
        """The place's word; none, and why, where it cannot be had."""
        if self._refusal:
            return Commitment(why=self._refusal)
        try:
            outcome = await self._fleet.ask(lambda session: session.commit(instances))
            return await outcome()
        except Rejected as error:
            if not self._refusal:
                self._refusal = f"{error.message}; it says that it stored it"
                self._warn(f"{error}. Nothing is proven by --verify commit there; --verify uids asks it instead")
            return Commitment(why=self._refusal)
        except (PeerError, DestinationLost) as error:
            return Commitment(why=str(error))
