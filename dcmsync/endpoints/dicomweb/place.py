"""A DICOMweb service as a place: its base URL, an echo, and sessions (PS3.18 §10).

Cheap to make, and opens no connection. Refuses to know what a session says; `session.py` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dcmsync.endpoints.dicomweb.listing import Lister
from dcmsync.endpoints.dicomweb.retrieving import Retriever
from dcmsync.endpoints.dicomweb.session import Session
from dcmsync.net.http import Door
from dcmsync.quirks import Quirks
from dcmsync.wire.upperlayer.extension import Wishes


class DicomwebPlace:
    """One service. What one session learns of it, the others know."""

    def __init__(self, door: Door, lister: Lister, retriever: Retriever, quirks: Quirks, wishes: Wishes) -> None:
        self.name = door.name
        self._door = door
        self._lister = lister
        self._retriever = retriever
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
            yield Session(self._lister, self._retriever, self._quirks, self._wishes)
