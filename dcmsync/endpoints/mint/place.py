"""A MINT study search as a place: its name, whether it answers, and sessions.

Cheap to make, and holds no connection. Refuses to know what a session says; `session.py` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dcmsync.endpoints import Setting
from dcmsync.endpoints.mint.session import Session, Spelling
from dcmsync.locator import Mint
from dcmsync.net.http import Door


class MintPlace:
    """One search. `spelling`: how it writes the parameters for dates."""

    def __init__(self, door: Door, spelling: Spelling = "camel") -> None:
        self.name = door.name
        self._door = door
        self._spelling = spelling

    async def echo(self) -> int:
        """0 when it lists one study, or none where it has none. Raises PeerError."""
        async with self._door, self._door.exchange("GET", "studies", query=(("limit", "1"),)) as answer:
            await answer.read()
        return 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session, over the pool that all sessions share."""
        async with self._door:
            yield Session(self._door, self._spelling)


def open_mint(locator: Mint, setting: Setting) -> MintPlace:
    """The search that a locator names. Opens no connection."""
    return MintPlace(setting.door(locator.url, str(locator)), setting.dialect.date_parameters)
