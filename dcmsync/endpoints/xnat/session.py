"""One conversation with a project of XNAT: its sessions as studies, its scans as series, uploads to its pre-archive.

Owns what of a question XNAT can answer at all, and says so where it cannot. Names of instances are known only of
archived scans, and only by fetching them: the last one that was fetched is kept until the next one is. Refuses to
match (whoever asks does), and to judge what arrives.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

from dcmsync.contract import (
    Arrival,
    Ask,
    Attributes,
    Commitment,
    Ending,
    Level,
    Parcel,
    Receiver,
    Together,
    Want,
)
from dcmsync.endpoints.xnat.download import Download, beginning, download
from dcmsync.endpoints.xnat.importing import Importer
from dcmsync.endpoints.xnat.listing import Kept, Lister, Scan, attributes_of
from dcmsync.errors import Insecure, LocalTrouble, PeerError, Rejected
from dcmsync.net.http import Door

TOGETHER = Together(parcels=100, octets=64 << 20)
_COUNT = "NumberOfSeriesRelatedInstances"
_STUDY_KEYS = frozenset(("StudyInstanceUID", "StudyDate", "StudyTime"))
_SERIES_KEYS = frozenset(("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription"))
_INSTANCE_KEYS = frozenset(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"))
KEYS = {Level.STUDY: _STUDY_KEYS, Level.SERIES: _SERIES_KEYS, Level.INSTANCE: _INSTANCE_KEYS}


class Session:
    """Satisfies contract.Holds and contract.StoresTogether."""

    def __init__(self, door: Door, lister: Lister, importer: Importer) -> None:
        self.name = door.name
        self.together = TOGETHER
        self._door = door
        self._lister = lister
        self._importer = importer
        self._download: Download | None = None
        self._is_ready = True

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """What a project lists; see `contract.Finds`. Raises Rejected for what XNAT does not tell."""
        if ask.level is Level.PATIENT:
            raise Rejected(f"{self.name}: XNAT does not list patients", advice="Ask for studies")
        for keyword, value in ask.keys.items():
            if value.strip("*") and keyword not in KEYS[ask.level]:
                words = f"{self.name}: XNAT cannot be asked by {keyword} at {ask.level.word} level"
                raise Rejected(words, advice=f"It knows {', '.join(sorted(KEYS[ask.level]))}")
        if ask.level is Level.STUDY:
            found = await self._studies(ask)
        elif ask.level is Level.SERIES:
            found = await self._series(ask)
        else:
            found = await self._instances(ask)
        for each in found:
            yield each
        yield self._ending(ask, found)

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Instances of an archived scan; see `contract.Fetches`."""
        scan = await self._archived(want.study_uid, want.series_uid)
        if scan is None:
            raise Rejected(f"{self.name}: the series is not in the archive", advice="Archive its session first")
        fetched = await self._fetched(scan)
        uids = fetched.instances if want.whole else [uid for uid in want.instances if uid in fetched.instances]
        for uid in list(uids):
            await fetched.give(uid, receiver)
            await receiver.room()
        return Ending()

    async def peek(self, want: Want) -> bytes:
        """The first octets of what a series is given as, which is one archive. Raises PeerError."""
        scan = await self._archived(want.study_uid, want.series_uid)
        if scan is None:
            raise Rejected(f"{self.name}: the series is not in the archive", advice="Archive its session first")
        return await beginning(self._door, scan)

    def is_ready_for(self, arrival: Arrival) -> bool:
        """Always, unless an upload broke since the server answered last."""
        return self._is_ready

    async def prepare(self, arrivals: Sequence[Arrival]) -> None:
        """Sees whether the server is there. Raises PeerError."""
        if not self._is_ready:
            await self._lister.answers()
            self._is_ready = True

    async def store(self, parcel: Parcel) -> Ending:
        """One instance, in an upload of its own; see `contract.Stores`."""
        [answer] = await self.store_together([parcel])
        if isinstance(answer, LocalTrouble):
            raise answer
        return answer

    async def store_together(self, parcels: Sequence[Parcel]) -> Sequence[Ending | LocalTrouble]:
        """Several, in one upload for each study; see `contract.StoresTogether`."""
        try:
            return await self._importer.store(parcels)
        except PeerError as error:
            self._is_ready = isinstance(error, Rejected) and not isinstance(error, Insecure)
            raise

    async def commit(self, instances: Mapping[str, str]) -> Callable[[], Awaitable[Commitment]]:
        """Raises Rejected: XNAT knows no such thing."""
        raise Rejected(f"{self.name}: XNAT knows no storage commitment", advice="Leave out --verify commit")

    async def rest(self) -> None:
        """Lets go of what was fetched."""
        if self._download is not None:
            self._download.close()
            self._download = None

    async def _studies(self, ask: Ask) -> list[Attributes]:
        """A session each; of a study that is in several places, the first."""
        wanted = ask.keys.get("StudyInstanceUID", "").strip("*")
        both = [*await self._lister.prearchive(), *await self._lister.archive()]
        found: dict[str, Attributes] = {}
        for kept in both:
            if kept.study_uid and (not wanted or kept.study_uid in wanted.split("\\")):
                found.setdefault(kept.study_uid, dict(attributes_of(kept)))
        return list(found.values())

    async def _series(self, ask: Ask) -> list[Attributes]:
        """A scan each. Raises Rejected where their UIDs are not told."""
        wanted = ask.keys.get("SeriesInstanceUID", "").strip("*")
        counts = _COUNT in (*ask.wanted, *ask.keys)
        found: list[Attributes] = []
        for kept in await self._lister.of_study(ask.keys["StudyInstanceUID"]):
            for scan in await self._told(kept):
                if wanted and scan.uid not in wanted.split("\\"):
                    continue
                said: dict[str, object] = {
                    "StudyInstanceUID": kept.study_uid, "SeriesInstanceUID": scan.uid, "Modality": scan.modality,
                    "SeriesDescription": scan.description,
                }  # fmt: skip
                if counts:
                    said[_COUNT] = await self._lister.count(scan)
                found.append({name: value for name, value in said.items() if value != ""})
        return found

    async def _instances(self, ask: Ask) -> list[Attributes]:
        """The instances of an archived scan, by fetching it. Raises Rejected for one that is not archived yet."""
        study_uid, series_uid = ask.keys["StudyInstanceUID"], ask.keys["SeriesInstanceUID"]
        scan = await self._archived(study_uid, series_uid)
        if scan is None:
            if await self._lister.of_study(study_uid):
                words = f"{self.name}: XNAT names no instances before they are archived"
                raise Rejected(words, advice="Use --trust counts")
            return []
        fetched = await self._fetched(scan)
        above = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        wanted = ask.keys.get("SOPInstanceUID", "").strip("*")
        return [
            {**above, "SOPInstanceUID": uid, **({"SOPClassUID": kind} if kind else {})}
            for uid, (_, kind) in fetched.instances.items()
            if not wanted or uid in wanted.split("\\")
        ]

    async def _told(self, kept: Kept) -> list[Scan]:
        """The scans of a session, each with its UID. Raises Rejected."""
        scans = await self._lister.scans(kept)
        if not all(scan.uid for scan in scans):
            words = f"{self.name}: does not tell which series the scans of {kept.label} are"
            raise Rejected(words, advice="Archive the session first")
        return scans

    async def _archived(self, study_uid: str, series_uid: str) -> Scan | None:
        """A series in the archive."""
        for kept in await self._lister.archive():
            if kept.study_uid == study_uid:
                for scan in await self._lister.scans(kept):
                    if scan.uid == series_uid:
                        return scan
        return None

    async def _fetched(self, scan: Scan) -> Download:
        """The files of a scan, which may be here already."""
        if self._download is None or self._download.scan != scan:
            await self.rest()
            self._download = await download(self._door, scan)
        return self._download

    def _ending(self, ask: Ask, found: Sequence[Attributes]) -> Ending:
        """How a list ended: what does not tell an attribute that was asked by may have been left out."""
        asked = [keyword for keyword, value in ask.keys.items() if value.strip("*")]
        untold = next((keyword for keyword in asked if any(keyword not in each for each in found)), "")
        if not untold:
            return Ending()
        why = f"{self.name} does not tell the {untold} of everything"
        return Ending(truncated=True, is_last_word=True, why=why)
