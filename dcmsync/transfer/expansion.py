"""From records to consignments: each record becomes the series below it, each series its inventory.

Owns what is asked of a source before anything is fetched, and what need not be fetched because the targets hold it.
Refuses to fetch. Knows nothing of tasks: one expansion at a time, over the session it is handed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Generic, Literal, TypeVar

from dcmsync.contract import Attributes, JobT, Level, Session
from dcmsync.errors import DestinationLost, LocalTrouble, PeerError, Refused
from dcmsync.plan.classes import likely
from dcmsync.plan.levels import Query
from dcmsync.quirks import quirks_of
from dcmsync.transfer.consignment import Consignment
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.retrieval import ask_classes
from dcmsync.transfer.target import Held, Target
from dcmsync.transfer.works import Work

Trust = Literal["counts", "uids", "content"]
Answer = TypeVar("Answer")

_WILD = frozenset("*?\\")
_COUNTS = {Level.STUDY: "NumberOfStudyRelatedInstances", Level.SERIES: "NumberOfSeriesRelatedInstances"}


class Expansion(Generic[JobT]):
    """Expands records for one run. `trust` says by what an instance that a target holds counts as the same:

    as many instances in a series or study as the source says it has; the same SOP Instance UID; the same digest of its
    data set.
    """

    def __init__(
        self, targets: Sequence[Target[JobT]], *, trust: Trust, dry_run: bool, warn: Callable[[str], None]
    ) -> None:
        self.is_complete = True
        self._targets = targets
        self._trust = trust
        self._dry_run = dry_run
        self._warn = warn
        self._classes: dict[tuple[str, str], list[str]] = {}  # (source, Modality) -> SOP classes seen

    async def run(self, group: Sequence[Work], session: Session) -> AsyncGenerator[Consignment, None]:
        """The series of one record (or of several instances of one series), each with its inventory.

        What cannot be asked for is a consignment that is finished, and failed; PeerError or LocalTrouble is then
        raised, too.
        """
        work = group[0]
        inventory = Inventory(session, name=work.source, warn=self._warn)
        begun = self.consignment(work, work.attributes)
        has_counts = not quirks_of(session).no_counts
        try:
            if has_counts and await self._counts_agree(begun, work):
                yield begun
                return
            for attributes in await self._series(work, inventory):
                begun = self.consignment(work, attributes)
                if has_counts and work.level is Level.STUDY and await self._counts_agree(begun, work):
                    yield begun
                    continue
                await self._prepare(begun, inventory, group)
                await self._guess_classes(begun, session)
                yield begun
        except (PeerError, LocalTrouble) as error:
            begun.wanted.clear()
            begun.fail_rest(error)
            begun.finished = True
            yield begun
            raise
        finally:
            self.is_complete = self.is_complete and inventory.is_complete

    def consignment(self, work: Work, attributes: Attributes) -> Consignment:
        """An empty one, for all targets."""
        names = [target.name for target in self._targets]
        return Consignment(source=work.source, destinations=names, attributes=attributes, dry_run=self._dry_run)

    async def _counts_agree(self, consignment: Consignment, work: Work) -> bool:
        """Whether every target holds as many instances as the source says there are, and that is enough."""
        level = Level.SERIES if consignment.series_uid else Level.STUDY
        said = consignment.attributes.get(_COUNTS[level])
        if self._trust != "counts" or work.level is Level.INSTANCE or work.differs or not isinstance(said, int):
            return False
        uids = consignment.study_uid, consignment.series_uid
        if not said:
            return False
        for target in self._targets:
            if target.trouble is not None or await self._asked(target, target.stock.count(*uids)) != said:
                return False
        for ledger in consignment.ledgers:
            ledger.all_present(said)
        return True

    async def _series(self, work: Work, inventory: Inventory) -> list[Attributes]:
        if work.level is not Level.STUDY:
            return [work.attributes]
        query = Query(level=Level.SERIES, keys={}, usual=False, wanted=("Modality", "NumberOfSeriesRelatedInstances"))
        found: list[Attributes] = [attributes async for attributes in inventory.walk(query, work.attributes)]
        if not found:
            raise Refused(f"{work.source}: the study is not there (any more)", status=0)
        return found

    async def _prepare(self, consignment: Consignment, inventory: Inventory, group: Sequence[Work]) -> None:
        """Gives the consignment its inventory, and takes off it what the targets hold."""
        contents: dict[str, object] = {}
        differing: frozenset[str] | None = None
        if group[0].level is Level.INSTANCE:
            consignment.is_selection = True
            differing = frozenset(str(work.attributes["SOPInstanceUID"]) for work in group if work.differs)
            for work in group:
                uid = str(work.attributes["SOPInstanceUID"])
                consignment.wanted[uid] = str(work.attributes.get("SOPClassUID", ""))
                contents[uid] = work.content
        else:
            query = Query(level=Level.INSTANCE, keys={}, usual=False)
            async with aclosing(inventory.walk(query, consignment.attributes)) as found:
                async for instance in found:
                    uid = str(instance["SOPInstanceUID"])
                    consignment.wanted[uid] = str(instance.get("SOPClassUID", ""))
                    contents[uid] = instance.get("content")
            if not consignment.wanted:
                raise Refused(f"{consignment.source}: the series is not there (any more)", status=0)
        for target, ledger in zip(self._targets, consignment.ledgers, strict=True):
            if target.trouble is not None:
                continue
            held = await self._asked(target, target.stock.series(consignment.study_uid, consignment.series_uid)) or {}
            for uid in consignment.wanted if held else ():
                differs = group[0].differs if differing is None else uid in differing
                if uid in held and not differs and self._is_same(held[uid], contents.get(uid)):
                    ledger.present(uid, held[uid].path, held[uid].size)
                elif uid in held and not (held[uid].path or held[uid].content):  # nobody could compare it on arrival
                    ledger.conflict(uid, f"{target.name} has this UID, and its content is not known to be the same")

    async def _asked(self, target: Target[JobT], answer: Awaitable[Answer]) -> Answer | None:
        """What a target says it holds; None when it cannot be reached, so that it takes no more."""
        try:
            return await answer
        except DestinationLost as lost:
            target.give_up(lost.cause)
            return None

    def _is_same(self, held: Held, content: object) -> bool:
        """Whether what a target holds under the UID counts as the same instance."""
        return self._trust != "content" or (bool(held.content) and content == f"xxh3:{held.content}")

    async def _guess_classes(self, consignment: Consignment, session: Session) -> None:
        """Fills in SOP classes that are unknown: those of the first and the last instance stand for all.

        Most series have one class, and most sources one for each modality, so few are asked for. Where the guess is
        wrong the instance does not come, and the retrieval asks again. Servers that keep the class outside their
        index (Orthanc 1.10) need 0.2 ms an instance to tell it.
        """
        unknown = [uid for uid, kind in consignment.lacking.items() if not kind]
        if not unknown or self._dry_run:
            return
        kin = (consignment.source, str(consignment.attributes.get("Modality", "")))
        if kin not in self._classes:
            ends = [uid for uid in dict.fromkeys((unknown[0], unknown[-1])) if not _WILD & set(uid)]
            found = [kind for uid in ends for kind in (await ask_classes(consignment, session, uid)).values()]
            self._classes[kin] = list(dict.fromkeys(found))
        guess = self._classes[kin]
        if not guess:
            consignment.candidates = likely(kin[1])
        for index, uid in enumerate(unknown):
            consignment.wanted[uid] = guess[index * len(guess) // len(unknown)] if guess else ""
