"""Are these things there, whole, and the same? Claims in, outcomes out, in the order of the claims.

Owns how a claim is held against a place: by asking for it, by listing what is below it on both sides, and by reading
its octets where that is wanted. What a place on this machine knows of a broken file gives the reason why it does not
count. Refuses to judge (`plan.proof` does) and to mend anything; but a file found rotten is remembered as such, so that
the next sync replaces it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, closing
from itertools import groupby

import anyio.to_thread
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dcmsync.contract import WITH_UID, Attributes, Catalogue, Holding, Level
from dcmsync.errors import ExitStatus, InputError, PeerError, Unasked
from dcmsync.plan.levels import Query, patient_of
from dcmsync.plan.proof import Claim, Holds, Lowest, Reason, Verdict, judge, judge_count
from dcmsync.transfer.both import both
from dcmsync.transfer.contents import Contents
from dcmsync.transfer.side import Early, Listing, Side
from dcmsync.transfer.spill import Queue

TOGETHER = 500
_FEW = 8  # instances of a series, up to which each is asked for by its UID
_ALL_BELOW = Query(level=Level.INSTANCE, keys={}, wanted=("SOPClassUID",), usual=False)
_BROKEN: Mapping[str, Reason] = {"truncated": "truncated", "rotten": "rotten"}
_SHOWN = ("path", "size", "digest", "content")
_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(dict[str, object]).decode

Outcome = Mapping[str, object]
Known = Mapping[str, Attributes | Verdict]
"""SOP Instance UID -> what reading an instance told, or why it does not count."""
_GROUP: msgspec.json.Decoder[list[Claim]] = msgspec.json.Decoder(list[Claim])


class Spot(Struct, frozen=True, kw_only=True):
    """A place to look at, and for a folder how a file is read again."""

    side: Side
    read_again: Callable[[Holding], Holding | None] | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """How to verify. `holds`: which instances are in the sample."""

    holds: Holds
    read_data: bool = False
    itemize: bool = False


def together(claims: Iterable[Claim]) -> Iterator[list[Claim]]:
    """What is verified in one go: a study, a series, or instances of one series that follow each other."""
    waiting: list[Claim] = []
    failed: InputError | None = None
    try:
        for claim in claims:
            is_full = claim.level < Level.INSTANCE or len(waiting) == TOGETHER
            if waiting and (is_full or _home(claim) != _home(waiting[0])):
                yield waiting
                waiting = []
            waiting.append(claim)
    except InputError as error:  # what came before it is verified first
        failed = error
    if waiting:
        yield waiting
    if failed is not None:
        raise failed


async def chosen(
    groups: AsyncIterable[list[Claim]], lowest: Lowest, verification: Verification
) -> AsyncGenerator[list[Claim], None]:
    """The same groups, after all their instances were offered to `lowest`; they wait as JSON.

    A place that cannot be asked is left for the verification to name. Raises LocalTrouble, UsageError.
    """
    with closing(Queue()) as waiting:
        async for group in groups:
            try:
                async with aclosing(verification.instance_uids(group)) as uids:
                    async for uid in uids:
                        lowest.offer(uid)
            except PeerError:
                pass
            waiting.put(_ENCODE(group))
        for line in waiting.drain():
            yield _GROUP.decode(line)


class Verification:
    """Verifies claims. `spot` opens a place by its word; `write` takes each outcome. `status` is the worst so far."""

    def __init__(
        self,
        settings: Settings,
        *,
        spot: Callable[[str], Awaitable[Spot]],
        contents: Contents,
        write: Callable[[Outcome], None],
    ) -> None:
        self.status = ExitStatus.DONE
        self._settings = settings
        self._spot = spot
        self._contents = contents
        self._write = write
        self._broken: dict[str, dict[str, Holding]] = {}  # by place, then by SOP Instance UID

    async def run(self, claims: Sequence[Claim]) -> None:
        """Verifies one group of `together`. A peer's failure is an outcome. Raises LocalTrouble, UsageError."""
        try:
            spot = await self._spot(claims[0].place)
            if claims[0].level is Level.INSTANCE:
                await self._instances(spot, [claim for claim in claims if self._settings.holds(_sop(claim.uids))])
            else:
                await self._whole(spot, claims[0])
        except PeerError as error:
            self.status = max(self.status, error.exit_status)
            may_pass = not isinstance(error, Unasked)
            for claim in claims:
                self._tell(claim, "failed", reason=error.reason, message=str(error), retry=may_pass)

    async def instance_uids(self, claims: Sequence[Claim]) -> AsyncGenerator[str, None]:
        """The UIDs of the instances that the claims of a group are about. Raises PeerError, LocalTrouble."""
        if claims[0].level is Level.INSTANCE:
            for claim in claims:
                yield _sop(claim.uids)
            return
        side = (await self._spot(claims[0].place)).side
        async with aclosing(side.listing(_ALL_BELOW, claims[0].uids).run()) as found:
            async for thing in found:
                yield _sop(thing)

    # Instances

    async def _instances(self, spot: Spot, claims: Sequence[Claim]) -> None:
        """Instances of one series."""
        found: dict[str, Attributes] = {}
        if len(claims) > _FEW:
            above = {key: uid for key, uid in claims[0].uids.items() if key != "SOPInstanceUID"}
            async with aclosing(spot.side.listing(_ALL_BELOW, above).run()) as things:
                async for thing in things:
                    found[_sop(thing)] = thing
        for claim in claims:
            if _sop(claim.uids) not in found:
                one = await spot.side.ask(Level.INSTANCE, claim.uids)
                found |= {_sop(claim.uids): one} if one is not None else {}
        there = [found[uid] for uid in dict.fromkeys(_sop(claim.uids) for claim in claims) if uid in found]
        read = await self._read(spot, there) if self._settings.read_data else {}
        for claim in claims:
            verdict, known = self._verdict(spot, claim, found, read)
            self._tell_instance(claim, verdict, known)

    def _verdict(
        self, spot: Spot, claim: Claim, found: Mapping[str, Attributes], read: Known
    ) -> tuple[Verdict, Attributes]:
        """What is said of one instance, and what is known of it."""
        uid = _sop(claim.uids)
        known = read.get(uid, found.get(uid))
        if known is None:
            return self._absent(spot, uid), {}
        if isinstance(known, Verdict):
            return known, found[uid]
        return judge(claim, known, was_read=uid in read), known

    def _absent(self, spot: Spot, uid: str) -> Verdict:
        broken = self._broken_at(spot).get(uid)
        if broken is None:
            return Verdict("missing", "the place does not have it")
        return Verdict(_BROKEN[broken.state], broken.reason or f"its file is {broken.state}")

    def _broken_at(self, spot: Spot) -> Mapping[str, Holding]:
        """The files of a place on this machine that say which instance they were."""
        if spot.side.catalogue is None:
            return {}
        if spot.side.name not in self._broken:
            others = (each for each in spot.side.catalogue.others() if each.sop_instance_uid and each.state in _BROKEN)
            self._broken[spot.side.name] = {each.sop_instance_uid: each for each in others}
        return self._broken[spot.side.name]

    # Studies and series

    async def _whole(self, spot: Spot, claim: Claim) -> None:
        """All that is below a study or series: how many, which ones, and those of the sample one by one."""
        listing = spot.side.listing(_ALL_BELOW, claim.uids)
        with ExitStack() as stack:
            waiting = stack.enter_context(closing(Queue()))
            said: Early | None = None
            if claim.source and not claim.is_own and not claim.is_outcome:
                source = (await self._spot(claim.source)).side
                said = stack.enter_context(closing(Early(source.listing(_ALL_BELOW, claim.uids))))
            if said is not None and source.catalogue is None and spot.side.catalogue is None:
                present, _ = await both(lambda: self._listed(listing, waiting), said.list)
            else:
                present = await self._listed(listing, waiting)
            spoilt = await self._one_by_one(spot, claim, waiting)
            lacking = self._tell_broken(spot, claim, present)
            verdict = judge_count(claim, len(present), is_complete=listing.is_complete)
            if said is not None:
                more, verdict = await self._tell_lacking(spot, claim, source.name, said, present)
                lacking += more
        if verdict.reason == "unknown":
            self.status = max(self.status, ExitStatus.INCOMPLETE)
        claimed = max(claim.count or 0, len(present) + len(lacking))
        counts = {"present": len(present) - len(spoilt), "failed": len(spoilt) + claimed - len(present)}
        failures = [each for each in (verdict, *spoilt, *lacking) if each.reason is not None]
        self._tell_sum(claim, failures[0] if failures else verdict, claimed, counts)

    async def _listed(self, listing: Listing, waiting: Queue) -> set[str]:
        """The UIDs of all that is listed; what is to be looked at one by one waits."""
        are_told = self._settings.read_data or self._settings.itemize
        present: set[str] = set()
        async with aclosing(listing.run()) as found:
            async for thing in found:
                present.add(_sop(thing))
                if are_told and self._settings.holds(_sop(thing)):
                    waiting.put(_ENCODE(thing))
        return present

    async def _one_by_one(self, spot: Spot, claim: Claim, waiting: Queue) -> list[Verdict]:
        """Reads and tells of single instances; gives the verdicts that are bad."""
        failures: list[Verdict] = []
        things = (_DECODE(line) for line in waiting.drain())
        for _, series in groupby(things, lambda thing: thing["SeriesInstanceUID"]):
            for lot in _lots(series):
                read = await self._read(spot, lot) if self._settings.read_data else {}
                found = {_sop(thing): thing for thing in lot}
                for uid in found:
                    one = _below(claim, found[uid])
                    verdict, known = self._verdict(spot, one, found, read)
                    if verdict.reason is not None:
                        failures.append(verdict)
                    if verdict.reason is not None or self._settings.itemize:
                        self._tell_instance(one, verdict, known)
        return failures

    def _tell_broken(self, spot: Spot, claim: Claim, present: set[str]) -> list[Verdict]:
        """Names the broken files that belong below a claim, and do not count."""
        failures = []
        for uid, broken in self._broken_at(spot).items():
            uids = {
                "StudyInstanceUID": broken.study_uid,
                "SeriesInstanceUID": broken.series_uid,
                "SOPInstanceUID": uid,
            }
            if uid not in present and claim.uids.items() <= uids.items():
                failures.append(self._absent(spot, uid))
                self._tell_instance(_below(claim, uids), failures[-1], {"path": broken.path})
        return failures

    async def _tell_lacking(
        self, spot: Spot, claim: Claim, source: str, listing: Early, present: set[str]
    ) -> tuple[list[Verdict], Verdict]:
        """Compares with what the source of a record lists; that decides, whatever the counts say."""
        failures = []
        known = self._broken_at(spot)
        instances = 0
        async with aclosing(listing.run()) as found:
            async for thing in found:
                instances += 1
                uid = _sop(thing)
                if uid in present or uid in known:
                    continue
                uids = {level.unique_key: str(thing[level.unique_key]) for level in WITH_UID}
                if await spot.side.ask(Level.INSTANCE, uids) is None:
                    failures.append(self._absent(spot, uid))
                    self._tell_instance(_below(claim, uids), failures[-1], {})
        if not instances or not listing.is_complete:
            return failures, Verdict("unknown", f"{source} does not say for certain what there should be")
        return failures, Verdict(None, f"each of the {instances} instances that {source} lists")

    # Reading

    async def _read(self, spot: Spot, things: Sequence[Attributes]) -> Known:
        """Reads instances of one series, every octet."""
        if not things:
            return {}
        read_again, catalogue = spot.read_again, spot.side.catalogue
        if read_again is not None and catalogue is not None:
            return {
                _sop(thing): await anyio.to_thread.run_sync(_read_files, thing, catalogue, read_again)
                for thing in things
            }
        kinds = {_sop(thing): str(thing.get("SOPClassUID") or "") for thing in things}
        above = str(things[0]["StudyInstanceUID"]), str(things[0]["SeriesInstanceUID"])
        found = await self._contents.of(spot.side.session, *above, kinds, patient_id=patient_of(things[0]))
        self._broken.pop(spot.side.name, None)  # an archive may have found out more while it was read
        known: dict[str, Attributes | Verdict] = {}
        for thing in things:
            uid = _sop(thing)
            if uid in found.digests:
                known[uid] = {**thing, "content": found.digests[uid]}
            else:
                absent = self._absent(spot, uid)
                words = "it is listed, and does not come whole" + (f": {found.why}" if found.why else "")
                known[uid] = Verdict("missing", words) if absent.reason == "missing" else absent
        return known

    # Outcomes

    def _tell_instance(self, claim: Claim, verdict: Verdict, known: Attributes) -> None:
        facts = {key: known[key] for key in _SHOWN if known.get(key)}
        if verdict.reason is None:
            self._tell(claim, "present", **facts, message=verdict.words)
        else:
            self.status = max(self.status, ExitStatus.NO)
            self._tell(claim, "failed", **facts, reason=verdict.reason, message=verdict.words, retry=False)

    def _tell_sum(self, claim: Claim, verdict: Verdict, claimed: int, counts: Mapping[str, int]) -> None:
        facts = {"instances": claimed, **{key: number for key, number in counts.items() if number}}
        if verdict.reason is None:
            self._tell(claim, "present", **facts, message=verdict.words)
        else:
            self.status = max(self.status, ExitStatus.NO)
            self._tell(claim, "failed", **facts, reason=verdict.reason, message=verdict.words, retry=False)

    def _tell(self, claim: Claim, outcome: str, **facts: object) -> None:
        self._write(
            {
                "type": "outcome",
                "level": claim.level.word,
                "outcome": outcome,
                **claim.uids,
                **({"PatientID": claim.patient_id} if claim.patient_id else {}),
                **({"source": claim.source} if claim.source else {}),
                "destination": claim.place,
                **facts,
            }
        )


def _read_files(
    thing: Attributes, catalogue: Catalogue, read_again: Callable[[Holding], Holding | None]
) -> Attributes | Verdict:
    """Reads the files of one instance again, in a worker thread; each of them must be whole, and as it was."""
    holdings = list(
        catalogue.holdings(
            study_uid=str(thing["StudyInstanceUID"]),
            series_uid=str(thing["SeriesInstanceUID"]),
            sop_instance_uid=_sop(thing),
        )
    )
    told = dict(thing)
    for holding in holdings:
        try:
            fresh = read_again(holding)
        except OSError as error:
            return Verdict("unknown", f"its file cannot be read: {error.strerror}")
        if fresh is None:
            return Verdict("missing", "its file is gone")
        catalogue.remember([fresh])
        if not fresh.is_instance or fresh.sop_instance_uid != holding.sop_instance_uid:
            return Verdict(_BROKEN.get(fresh.state, "differs"), fresh.reason or "its file is another by now")
        if holding.path == thing.get("path") or len(holdings) == 1:
            told |= {"digest": f"xxh3:{fresh.digest}", "content": f"xxh3:{fresh.content}" if fresh.content else ""}
            told["recorded"] = holding.digest == fresh.digest
    return told if holdings else Verdict("missing", "its file is gone")


def _home(claim: Claim) -> tuple[str, Level, str]:
    return claim.place, claim.level, claim.uids.get("SeriesInstanceUID", "")


def _below(claim: Claim, thing: Attributes) -> Claim:
    """What a claim of a study or series says of one instance below it."""
    uids = {level.unique_key: str(thing[level.unique_key]) for level in WITH_UID}
    return replace(claim, level=Level.INSTANCE, uids=uids, count=None)


def _lots(things: Iterable[Attributes]) -> Iterator[list[Attributes]]:
    lot: list[Attributes] = []
    for thing in things:
        lot.append(thing)
        if len(lot) == TOGETHER:
            yield lot
            lot = []
    if lot:
        yield lot


def _sop(uids: Attributes) -> str:
    return str(uids["SOPInstanceUID"])
