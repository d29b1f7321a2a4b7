"""One conversation with a data store of HealthImaging, as `contract.py` promises: searches, metadata, instances.

Owns which calls answer a question, and that each instance is given once. Refuses to match: a search is only narrowed,
and every key that was asked for is told back, "" where there is no value, so that whoever asks can judge.

Theory of operation. Studies and patients are what the summaries of a search add up to; series and instances stand in
the metadata of image sets, which never changes for a version of one and is remembered as far as memory allows. An
instance is fetched by DICOMweb, which gives it as a file; several are on their way at a time, since each is a request.
Only where it is told to does a session have them made of metadata and frames instead (`frames.py`), all of them:
whether an instance is what was imported must not hang on what a service felt like giving.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Literal

import anyio

from dcmsync.contract import Ask, Attributes, Ending, Level, Receiver, Want
from dcmsync.endpoints.ahi.criteria import criteria
from dcmsync.endpoints.ahi.frames import Batch, Maker
from dcmsync.endpoints.ahi.metadata import Document
from dcmsync.endpoints.ahi.native import REFUSALS, Native, refusal
from dcmsync.endpoints.ahi.shelf import Shelf
from dcmsync.endpoints.ahi.summaries import TOLD_OF_STUDIES, ImageSet, Studies
from dcmsync.errors import DcmsyncError, OutOfResources, Refused, Rejected, RemoteProtocolError
from dcmsync.net.http import Door
from dcmsync.net.instances import Taken, is_framed, take_in
from dcmsync.quirks import Quirks

IN_FLIGHT = 8  # instances that one fetch asks for at a time
_CANNOT_UNDERSTAND = 0xC000  # as a DIMSE status (PS3.7 §C.5.8)
_AS_STORED = "application/dicom; transfer-syntax=*"
_NOT_GIVEN = (403, 404, 405, 406, 501)  # statuses of a service that does not give whole instances, among other reasons
_ADVICE = 'where whole instances are not given, set retrieve_by = "frames"'

ImageSets = Literal["", "primary", "all"]


class Session:
    """Satisfies contract.Session. `image_sets`: which of them count; "" for undecided. With a `maker`, instances are
    made of frames.
    """

    def __init__(
        self,
        name: str,
        native: Native,
        shelf: Shelf,
        files: Door,
        *,
        image_sets: ImageSets,
        maker: Maker | None = None,
        quirks: Quirks,
        warn: Callable[[str], None],
    ) -> None:
        """`files` leads to the DICOMweb of the store."""
        self.quirks = quirks
        self._name = name
        self._native = native
        self._shelf = shelf
        self._files = files
        self._image_sets = image_sets
        self._maker = maker
        self._warn = warn

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """The answers to one ask; see `contract.Finds`."""
        found = _Found(self._image_sets)
        ways = {Level.SERIES: self._series, Level.INSTANCE: self._instances}
        async with aclosing(ways.get(ask.level, self._studies)(ask, found)) as answers:
            async for answer in answers:
                yield {**dict.fromkeys((key for key, value in ask.keys.items() if value), ""), **answer}
        if found.apart and not self._image_sets and not found.ending.truncated:
            yield Ending(truncated=True, is_last_word=True, why=(
                f"{found.apart} image sets are not primary, since they contradict others: set image_sets to \"all\" "
                "to have them too, or to \"primary\" to leave them out"))  # fmt: skip
            return
        yield found.ending

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Instance by instance; see `contract.Fetches`. What cannot be had is in the ending, and stops nothing."""
        image_sets = await self._where(want)
        batch = self._maker.batch() if self._maker is not None else None
        waiting = iter(list(image_sets.items()))
        refused: list[Refused] = []
        trouble: list[DcmsyncError] = []

        async def work() -> None:
            for uid, image_set in waiting:
                try:
                    await receiver.room()
                    if trouble:
                        return
                    await self._fetch_one(want, uid, image_set, receiver, batch)
                except OutOfResources as error:
                    trouble.append(error)
                except Refused as error:
                    refused.append(error)
                except DcmsyncError as error:
                    trouble.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(min(IN_FLIGHT, len(image_sets))):
                tasks.start_soon(work)
        if batch is not None:
            batch.tell()
        if trouble:
            raise trouble[0]
        if not refused:
            return Ending()
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        advice = f": {_ADVICE}" if batch is None and any(each.status in _NOT_GIVEN for each in refused) else ""
        return Ending(status=refused[0].status, why=f"{refused[0].message}{more}{advice}")

    async def rest(self) -> None:
        """Nothing is held that others wait for."""

    async def _studies(self, ask: Ask, found: _Found) -> AsyncGenerator[Attributes, None]:
        """Studies, or patients, once every image set of them is known."""
        studies = Studies()
        async with aclosing(self._native.search(criteria(ask.keys))) as answers:
            async for answer in answers:
                if isinstance(answer, Ending):
                    found.ending = answer
                elif found.counts(answer):
                    studies.add(answer)
        wanted = {*ask.wanted, *ask.keys}
        more = wanted - TOLD_OF_STUDIES
        patients: set[tuple[object, object]] = set()
        for image_set, attributes in studies:
            if ask.level is Level.PATIENT:
                patient = attributes.get("PatientID"), attributes.get("PatientName")
                if patient in patients:
                    continue
                patients.add(patient)
            if more:
                attributes |= (await self._shelf.document(image_set)).of_study(more)
            yield attributes

    async def _series(self, ask: Ask, found: _Found) -> AsyncGenerator[Attributes, None]:
        """Series, each once, with the instances of all image sets counted."""
        wanted = {*ask.wanted, *ask.keys}
        series: dict[str, dict[str, object]] = {}
        instances: dict[str, set[str]] = {}
        async with aclosing(self._parts(ask, found)) as parts:
            async for uid, document in parts:
                series.setdefault(uid, document.of_series(uid, wanted))
                self._join(instances.setdefault(uid, set()), document.series[uid].instances)
        for uid, attributes in series.items():
            yield {**attributes, "NumberOfSeriesRelatedInstances": len(instances[uid])}

    async def _instances(self, ask: Ask, found: _Found) -> AsyncGenerator[Attributes, None]:
        """Instances, each once: of one that is in several image sets, what a primary one says."""
        wanted = {*ask.wanted, *ask.keys}
        asked = _uids(ask.keys.get("SOPInstanceUID", ""))
        known: set[str] = set()
        async with aclosing(self._parts(ask, found)) as parts:
            async for uid, document in parts:
                for instance in document.instances(uid, wanted):
                    if instance["SOPInstanceUID"] not in known and (not asked or instance["SOPInstanceUID"] in asked):
                        yield instance
                self._join(known, document.series[uid].instances)

    async def _parts(self, ask: Ask, found: _Found) -> AsyncGenerator[tuple[str, Document], None]:
        """Each part of a series that is asked for, with the metadata it stands in; those of primary ones first."""
        asked = _uids(ask.keys.get("SeriesInstanceUID", ""))
        only = next(iter(asked)) if len(asked) == 1 else ""
        image_sets, found.ending = await self._shelf.image_sets(ask.keys["StudyInstanceUID"], only)
        for image_set in image_sets:
            if found.counts(image_set):
                document = await self._shelf.document(image_set)
                for uid in document.series:
                    if not asked or uid in asked:
                        yield uid, document

    def _join(self, known: set[str], more: Iterable[str]) -> None:
        """Adds UIDs to those that are known, and says so when one was known already."""
        if not known.isdisjoint(more):
            self._warn(f"{self._name}: instances are in several image sets: of each, one is given, a primary one first")
        known.update(more)

    async def _where(self, want: Want) -> dict[str, ImageSet | None]:
        """SOP Instance UID -> the image set that has it; None where that is not known, or need not be."""
        where: dict[str, ImageSet | None] = dict.fromkeys(want.instances)
        if want.instances and self._image_sets != "all" and self._maker is None:
            return where
        image_sets, _ = await self._shelf.image_sets(want.study_uid, want.series_uid)
        counted = _Found(self._image_sets)
        is_settled: set[str] = set()
        for image_set in filter(counted.counts, image_sets):
            series = (await self._shelf.document(image_set)).series.get(want.series_uid)
            for uid in series.instances if series else ():
                if uid not in is_settled and (uid in where or not want.instances):
                    where[uid] = image_set
                is_settled.add(uid)
        return where

    async def _fetch_one(
        self, want: Want, uid: str, image_set: ImageSet | None, receiver: Receiver, batch: Batch | None
    ) -> None:
        """Raises Refused for what cannot be had, PeerError, LocalTrouble."""
        if batch is None:
            taken = await self._fetch_whole(want, uid, image_set, receiver)
        else:
            taken = await batch.take(image_set, want.series_uid, uid, receiver)
        if taken.why:
            status = taken.status or _CANNOT_UNDERSTAND
            raise Refused(f"{self._name}: what came for an instance: {taken.why}", status=status)

    async def _fetch_whole(self, want: Want, uid: str, image_set: ImageSet | None, receiver: Receiver) -> Taken:
        """Raises Refused, PeerError, LocalTrouble. Image sets that are primary need not be named."""
        path = f"studies/{want.study_uid}/series/{want.series_uid}/instances/{uid}"
        query = (("imageSetId", image_set.image_set_id),) if image_set is not None and image_set.is_apart else ()
        async with self._files.exchange(
            "GET", path, query=query, headers={"Accept": _AS_STORED}, expected=(200, *REFUSALS)
        ) as answer:
            if answer.status in REFUSALS:
                error, kind = await refusal(answer, self._name)
                if isinstance(error, Rejected) and kind == "AccessDenied":
                    error.advice = f"{error.advice}; {_ADVICE}"
                raise error
            if not is_framed(answer.headers):
                raise RemoteProtocolError(f"{self._name}: an answer does not say where it ends")
            async with aclosing(answer.pieces()) as pieces:
                return await take_in(pieces, receiver)


class _Found:
    """What a search leaves behind, besides image sets: its ending, and how many stood apart and were left out."""

    def __init__(self, which: ImageSets) -> None:
        self.ending = Ending()
        self.apart = 0
        self._which = which

    def counts(self, image_set: ImageSet) -> bool:
        """Whether an image set counts."""
        is_left_out = image_set.is_apart and self._which != "all"
        self.apart += is_left_out
        return not is_left_out


def _uids(asked: str) -> frozenset[str]:
    """The UIDs of a list; none where anything may match."""
    return frozenset() if "*" in asked or "?" in asked else frozenset(uid for uid in asked.split("\\") if uid)
