"""A WADO-URI service as a place (PS3.18 §9): its name, whether it answers, and sessions.

Cheap to make, and holds no connection. Refuses to know what a session says; `session.py` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dcmsync.endpoints import Setting
from dcmsync.endpoints.wado.session import Session
from dcmsync.locator import WadoUri
from dcmsync.net.http import Door

_NOTHING_THERE = 404
_FAILED = 500


class WadoPlace:
    """One service."""

    def __init__(self, door: Door) -> None:
        self.name = door.name
        self._door = door

    async def echo(self) -> int:
        """0 when something there understands such requests, else the HTTP status that says it does not.

        It is asked for an instance without naming one, which no server can give: every answer is a good one but that
        there is nothing at this path, and that the server failed. Raises PeerError.
        """
        query = (("requestType", "WADO"), ("contentType", "application/dicom"))
        async with self._door, self._door.exchange("GET", "", query=query, expected=range(200, 500)) as answer:
            return answer.status if answer.status == _NOTHING_THERE or answer.status >= _FAILED else 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session, over the pool that all sessions share."""
        async with self._door:
            yield Session(self._door)


def open_wado(locator: WadoUri, setting: Setting) -> WadoPlace:
    """The service that a locator names. Opens no connection."""
    return WadoPlace(setting.door(locator.url, str(locator)))
