"""What a remote destination holds, by its own word: asked series by series, before things are sent and after.

Owns the questions, and that what a list does not name is asked for by its own UID before it is called missing: lists
are cut. A place that cannot be asked at all is asked once. Refuses to send anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar

import anyio
from msgspec import Struct

from dcmsync.contract import Ask, Ending, Holds, Level
from dcmsync.errors import DestinationLost, PeerError, Refused, Rejected
from dcmsync.plan.levels import Query
from dcmsync.records.model import Outcome
from dcmsync.transfer.contents import Contents
from dcmsync.transfer.fleet import Fleet
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.target import Findings, Held

Answer = TypeVar("Answer")
_INSTANCES = Query(level=Level.INSTANCE, keys={}, usual=False)
_COUNTS = {Level.STUDY: "NumberOfStudyRelatedInstances", Level.SERIES: "NumberOfSeriesRelatedInstances"}
_DIGESTS = 100_000
_ONE_BY_ONE = 20  # how many instances that a list does not name are asked for, before the rest is taken for missing
LATE_S = (0.25, 1.0, 3.0)  # a place may say that it stored something a while before it lists it


class Listed(Struct, frozen=True):
    """The instances of a series that a place lists; `is_complete`: and there are no others."""

    uids: frozenset[str]
    is_complete: bool


class Asked:
    """Asks the place of a fleet. `refusals` say why it cannot be asked at some level at all, once that is known."""

    def __init__(self, fleet: Fleet, *, warn: Callable[[str], None]) -> None:
        self.name = fleet.place.name
        self.refusals: dict[Level, str] = {}
        self._fleet = fleet
        self._tell = warn
        self._told: set[str] = set()

    async def series(self, study_uid: str, series_uid: str) -> Listed | None:
        """What it lists of a series; None when it cannot be asked. Raises DestinationLost, PeerError."""

        async def ask(session: Holds) -> Listed:
            inventory = Inventory(session, name=self.name, warn=self.warn)
            known = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
            async with aclosing(inventory.walk(_INSTANCES, known)) as found:
                uids = [str(thing["SOPInstanceUID"]) async for thing in found]
            return Listed(frozenset(uids), inventory.is_complete)

        return await self._ask(ask, Level.INSTANCE)

    async def has(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> bool:
        """Whether it has one instance, asked for by its UID. Raises DestinationLost, PeerError."""
        keys = {
            "StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": sop_instance_uid,
        }  # fmt: skip

        async def ask(session: Holds) -> bool:
            has = False
            async with aclosing(session.find(Ask(level=Level.INSTANCE, keys=keys))) as answers:
                async for each in answers:
                    if not isinstance(each, Ending):
                        is_there = all(each.get(key, uid) == uid for key, uid in keys.items())
                        has = has or (is_there and "SOPInstanceUID" in each)
            return has

        return await self._ask(ask, Level.INSTANCE) or False

    async def count(self, study_uid: str, series_uid: str) -> int | None:
        """How many instances it says there are of a series, or for "" of a study. Raises DestinationLost, PeerError."""
        level = Level.SERIES if series_uid else Level.STUDY
        keys = {"StudyInstanceUID": study_uid, **({"SeriesInstanceUID": series_uid} if series_uid else {})}

        async def ask(session: Holds) -> object:
            said: object = None
            question = Ask(level=level, keys=keys, wanted=(_COUNTS[level],))
            async with aclosing(session.find(question)) as answers:
                async for each in answers:
                    if not isinstance(each, Ending) and each.get(level.unique_key) == keys[level.unique_key]:
                        said = each.get(_COUNTS[level])
            return said

        said = await self._ask(ask, level)
        return said if isinstance(said, int) else None

    async def contents(
        self, contents: Contents, study_uid: str, series_uid: str, instances: Mapping[str, str]
    ) -> Mapping[str, str]:
        """The digests of what it gives back of some instances (UID -> SOP class). Raises DestinationLost, PeerError."""

        async def ask(session: Holds) -> Mapping[str, str]:
            return (await contents.of(session, study_uid, series_uid, instances)).digests

        return await self._fleet.ask(ask)

    def warn(self, words: str) -> None:
        """Says it, once."""
        if words not in self._told:
            self._told.add(words)
            self._tell(words)

    async def _ask(self, question: Callable[[Holds], Awaitable[Answer]], level: Level) -> Answer | None:
        """The answer; None when the place does not answer such questions."""
        if level in self.refusals:
            return None
        try:
            return await self._fleet.ask(question)
        except (Refused, Rejected) as error:
            self.refusals[level] = error.message
            self.warn(f"{self.name} cannot be asked what it has: {error.message.removeprefix(self.name + ': ')}")
            return None


class RemoteStock:
    """What the place holds, as far as it says (target.Stock). With `contents` their digests, by fetching them."""

    def __init__(self, asked: Asked, contents: Contents | None = None) -> None:
        self._asked = asked
        self._contents = contents
        self._digests: OrderedDict[str, str] = OrderedDict()

    def content(self, sop_instance_uid: str) -> str:
        """The digest of what it has under a UID, "" where unknown; asked for of a series that was asked for lately."""
        return self._digests.get(sop_instance_uid, "")

    async def series(self, study_uid: str, series_uid: str) -> Mapping[str, Held]:
        """What it lists; nothing when it cannot be asked, so that all is sent."""
        try:
            listed = await self._asked.series(study_uid, series_uid)
            if listed is None:
                return {}
            digests: Mapping[str, str] = {}
            if self._contents is not None and listed.uids:
                kinds = dict.fromkeys(listed.uids, "")
                digests = await self._asked.contents(self._contents, study_uid, series_uid, kinds)
        except PeerError as error:
            self._asked.warn(f"{error}: what it has of a series is not known, so that all of it is sent")
            return {}
        for uid, digest in digests.items():
            self._digests[uid] = digest.removeprefix("xxh3:")
        while len(self._digests) > _DIGESTS:
            self._digests.popitem(last=False)
        return {uid: Held("", 0, digests.get(uid, "").removeprefix("xxh3:")) for uid in listed.uids}

    async def count(self, study_uid: str, series_uid: str) -> int | None:
        """As it counts."""
        try:
            return await self._asked.count(study_uid, series_uid)
        except PeerError:
            return None


class Witness:
    """Proves by asking the place again (target.Prover); with `contents` by fetching everything back and hashing it.

    `late_s`: how long to wait before each further question for what is not listed yet. With `counts`, where a place
    names no instances, it is proof enough that it counts as many in the series as are to be there.
    """

    def __init__(
        self,
        asked: Asked,
        contents: Contents | None = None,
        *,
        counts: bool = False,
        late_s: tuple[float, ...] = LATE_S,
    ) -> None:
        self._asked = asked
        self._contents = contents
        self._counts = counts
        self._late_s = late_s

    async def prove(self, ledger: Ledger) -> Findings:
        """Looks for what was stored. What cannot be asked for is unproven."""
        waiting = ledger.unproven
        name = self._asked.name
        try:
            missing = await self._missing(ledger, list(waiting))
            if missing is None and self._counts:
                return await self._counted(ledger)
            if missing is None:
                return _all_unproven(waiting, f"{name} says that it stored it, and cannot be asked whether it has it")
            there = {uid: outcome for uid, outcome in waiting.items() if uid not in missing}
            compared = await self._compared(ledger, there) if self._contents is not None else Findings()
        except (PeerError, DestinationLost) as error:
            words = error.message.removeprefix(f"{name}: ")
            return _all_unproven(waiting, f"{name} says that it stored it, and could not be asked again: {words}")
        words = f"{name} said that it stored it, and does not list it"
        return Findings(
            missing=dict.fromkeys(missing, words), differing=compared.differing, unproven=compared.unproven
        )

    async def _counted(self, ledger: Ledger) -> Findings:
        """All of it is there when as many are; nothing is proven when there are others."""
        wanted = sum(map(ledger.is_fine, ledger.wanted))
        found: int | None = None
        for wait_s in (0.0, *self._late_s):
            if wait_s:
                await anyio.sleep(wait_s)
            found = await self._asked.count(ledger.study_uid, ledger.series_uid)
            if found == wanted:
                return Findings()
        said = "does not tell how many it has" if found is None else f"counts {found:,} of {wanted:,}"
        return _all_unproven(ledger.unproven, f"{self._asked.name} says that it stored it, and {said}")

    async def _missing(self, ledger: Ledger, uids: list[str]) -> set[str] | None:
        """Those that it does not have, however late; None when it cannot be asked."""
        missing = set(uids)
        for wait_s in (0.0, *self._late_s):
            if wait_s:
                await anyio.sleep(wait_s)
            listed = await self._asked.series(ledger.study_uid, ledger.series_uid)
            if listed is None:
                return None
            before = len(missing)
            missing -= listed.uids
            if not missing:
                break
            if len(missing) == before and not listed.is_complete:
                break  # it will not tell by its list
        lacking = [uid for uid in uids if uid in missing]
        for number, uid in enumerate(lacking):
            if number == _ONE_BY_ONE and len(missing) == len(lacking):
                break
            if await self._asked.has(ledger.study_uid, ledger.series_uid, uid):
                missing.discard(uid)
        return missing

    async def _compared(self, ledger: Ledger, there: Mapping[str, Outcome]) -> Findings:
        """Fetches what is there, and compares it with what was sent."""
        assert self._contents is not None
        kinds = {uid: outcome.SOPClassUID or "" for uid, outcome in there.items()}
        digests = await self._asked.contents(self._contents, ledger.study_uid, ledger.series_uid, kinds)
        differing, unproven = {}, {}
        for uid, outcome in there.items():
            if uid not in digests or not outcome.content:
                unproven[uid] = f"{self._asked.name} lists it, and did not give it back whole"
            elif digests[uid] != outcome.content:
                differing[uid] = f"{self._asked.name} holds it with other content than was sent"
        return Findings(differing=differing, unproven=unproven)


def _all_unproven(uids: Mapping[str, Outcome], words: str) -> Findings:
    return Findings(unproven=dict.fromkeys(uids, words))
