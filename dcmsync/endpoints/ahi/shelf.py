"""What is remembered of a data store between calls, for all its sessions: metadata, and the image sets of studies.

Metadata does not change for a version of an image set, and is kept as far as memory allows. Which image sets a study
has does change, and is kept for seconds: long enough for the questions that follow one another about one study.
"""

from __future__ import annotations

from collections import OrderedDict

import anyio

from dcmsync.contract import Ending
from dcmsync.endpoints.ahi.criteria import criteria
from dcmsync.endpoints.ahi.metadata import Document
from dcmsync.endpoints.ahi.native import Native
from dcmsync.endpoints.ahi.summaries import ImageSet

REMEMBERED_OCTETS = 32 << 20
FRESH_S = 10.0
SEARCHES = 64


class Shelf:
    """The memory of one place."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._documents: OrderedDict[tuple[str, int], tuple[Document, int]] = OrderedDict()
        self._octets = 0
        self._searches: OrderedDict[tuple[str, str], tuple[list[ImageSet], float]] = OrderedDict()

    async def document(self, image_set: ImageSet) -> Document:
        """The metadata of an image set. Raises PeerError."""
        key = image_set.image_set_id, image_set.version
        if key in self._documents:
            self._documents.move_to_end(key)
            return self._documents[key][0]
        document, octets = await self._native.metadata(image_set)
        if key not in self._documents:
            self._documents[key] = document, octets
            self._octets += octets
        while self._octets > REMEMBERED_OCTETS:
            _, (_, octets) = self._documents.popitem(last=False)
            self._octets -= octets
        return document

    async def image_sets(self, study_uid: str, series_uid: str = "") -> tuple[list[ImageSet], Ending]:
        """Those that may have something of a series, or of a study, primary ones first. Raises PeerError."""
        now = anyio.current_time()
        for key in ((study_uid, ""), (study_uid, series_uid)):
            found, at = self._searches.get(key, ([], -FRESH_S))
            if now - at < FRESH_S:
                return [each for each in found if series_uid in ("", each.series_uid or series_uid)], Ending()
        ending = Ending()
        found = []
        async for answer in self._native.search(
            criteria({"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid})
        ):
            if isinstance(answer, Ending):
                ending = answer
            else:
                found.append(answer)
        found.sort(key=lambda each: each.is_apart)
        if ending == Ending():
            self._searches[study_uid, series_uid] = found, now
            if len(self._searches) > SEARCHES:
                self._searches.popitem(last=False)
        return found, ending
