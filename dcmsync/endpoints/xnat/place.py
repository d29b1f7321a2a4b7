"""A project of XNAT as a place: its name, an echo, the one login of a run, and sessions.

Cheap to make, and opens no connection. Each request with a password would open another session of XNAT, of which users
have few: the first request has one opened, and its cookie is shown from then on. Refuses to know what a session says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from msgspec.structs import replace

from dcmsync.endpoints import Setting
from dcmsync.endpoints.xnat.importing import Importer
from dcmsync.endpoints.xnat.listing import Lister
from dcmsync.endpoints.xnat.session import Session
from dcmsync.errors import Rejected
from dcmsync.locator import Xnat
from dcmsync.net.http import Door
from dcmsync.net.login import Login

LOGIN = "data/JSESSION"
_MOST_COOKIE_OCTETS = 200


class XnatPlace:
    """One project."""

    def __init__(self, door: Door, project: str) -> None:
        self.name = door.name
        self._door = door
        self._lister = Lister(door, project)
        self._importer = Importer(door, self._lister)

    async def echo(self) -> int:
        """Whether the project can be asked what it has: 0. Raises PeerError."""
        async with self._door:
            await self._lister.prearchive()
        return 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session; any number may be open."""
        async with self._door:
            session = Session(self._door, self._lister, self._importer)
            try:
                yield session
            finally:
                with anyio.CancelScope(shield=True):
                    await session.rest()


def open_xnat(locator: Xnat, setting: Setting) -> XnatPlace:
    """The project that a locator names."""
    name = str(locator)
    if setting.web.authority is not None:
        entrance = setting.door(locator.url, name)
        setting = replace(setting, web=replace(setting.web, authority=login(entrance)))
    return XnatPlace(setting.door(locator.url, name), locator.project)


def login(door: Door) -> Login:
    """Opens one session of XNAT by the authority of a door, for another door that shows its cookie."""

    async def enter() -> str:
        async with door, door.exchange("POST", LOGIN, headers={"Content-Length": "0"}, repeatable=True) as answer:
            told = (await answer.read(1 << 16)).decode("utf-8", "replace").strip()
        if not (told.isascii() and told.isalnum() and len(told) <= _MOST_COOKIE_OCTETS):
            raise Rejected(f"{door.name}: the login gave no session", advice="Check user and password")
        return f"JSESSIONID={told}"

    return Login(enter)
