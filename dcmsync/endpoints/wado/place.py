"""A WADO-URI service as a place (PS3.18 §9): its name, whether it answers, and sessions.

Cheap to make, and holds no connection. Refuses to know what a session says; `session.py` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dcmsync.endpoints import Setting
from dcmsync.endpoints.wado.session import Service, Session
from dcmsync.locator import WadoUri
from dcmsync.net.http import Door, Query

_NOT_FOUND, _NO_SUCH_METHOD, _FAILED = 404, 405, 500
_ANSWERS = frozenset((200, 204, 400, 404, 405, 406, 411, 415, 422, 501))  # those that the door need not judge


class WadoPlace:
    """One service."""

    def __init__(self, door: Door) -> None:
        self.name = door.name
        self._door = door
        self._service = Service(door)

    async def echo(self) -> int:
        """0 when something there understands such requests, else the HTTP status that says it does not.

        It is asked for an instance without naming one, which no server can give: every answer is a good one but that
        the server failed, or that nothing is there. Orthanc 1.10 says that of instances, too; then a method that
        WADO-URI does not have tells the one from the other. Raises PeerError.
        """
        query = (("requestType", "WADO"), ("contentType", "application/dicom"))
        async with self._door:
            status = await self._status("GET", query)
            if status == _NOT_FOUND:
                status = _NOT_FOUND if await self._status("POST", ()) != _NO_SUCH_METHOD else 0
        return status if status in (0, _NOT_FOUND) or status >= _FAILED else 0

    async def _status(self, method: str, query: Query) -> int:
        async with self._door.exchange(method, "", query=query, expected=_ANSWERS) as answer:
            return answer.status

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session, over the pool that all sessions share."""
        async with self._door:
            yield Session(self._service)


def open_wado(locator: WadoUri, setting: Setting) -> WadoPlace:
    """The service that a locator names. Opens no connection."""
    return WadoPlace(setting.door(locator.url, str(locator)))
