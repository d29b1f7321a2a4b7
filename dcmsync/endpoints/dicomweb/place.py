"""A DICOMweb service as a place: its base URL, an echo, and sessions (PS3.18 §10).

Cheap to make, and opens no connection. Refuses to know what a session says; `session.py` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from dcmsync.endpoints import Setting
from dcmsync.endpoints.dicomweb.describing import Describer
from dcmsync.endpoints.dicomweb.listing import Lister
from dcmsync.endpoints.dicomweb.retrieving import Retriever
from dcmsync.endpoints.dicomweb.session import Session
from dcmsync.endpoints.dicomweb.storing import Storer
from dcmsync.locator import Web
from dcmsync.net.http import Door
from dcmsync.quirks import Quirks
from dcmsync.wire.upperlayer.extension import Wishes

_HEALTHIMAGING = "https://dicom-medical-imaging"  # AWS: it has no path for the instances of a series


class DicomwebPlace:
    """One service. What one session learns of it, the others know."""

    def __init__(
        self,
        door: Door,
        *,
        warn: Callable[[str], None],
        quirks: Quirks = Quirks(),  # noqa: B008  # a frozen value
        wishes: Wishes = Wishes(),  # noqa: B008  # a frozen value
        gives_series: bool = True,
    ) -> None:
        self.name = door.name
        self._door = door
        self._lister = Lister(door, warn, page=quirks.limit, counts=not quirks.no_counts)
        self._retriever = Retriever(door, warn, gives_series=gives_series)
        self._storer = Storer(door)
        self._describer = Describer(door)
        self._quirks = quirks
        self._wishes = wishes

    async def echo(self) -> int:
        """Whether it answers a search: 0. Raises PeerError."""
        async with self._door:
            await self._lister.answers()
        return 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session; any number may be open."""
        async with self._door:
            yield Session(
                self._lister, self._retriever, self._storer, self._describer, self._quirks, self._wishes
            )


def open_dicomweb(web: Web, setting: Setting) -> DicomwebPlace:
    """The service that a locator names."""
    door = setting.door(web.url, str(web))
    gives_series = setting.aws is None and not web.url.startswith(_HEALTHIMAGING)
    return DicomwebPlace(
        door, warn=setting.warn, quirks=setting.quirks, wishes=setting.wishes, gives_series=gives_series
    )
