"""An Imaging Document Source (IHE RAD-69) as a place: its name, whether it answers, and sessions.

Cheap to make, and holds no connection. Refuses to know what a session says; `session.py` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dcmsync.contract import Want
from dcmsync.endpoints import Setting
from dcmsync.endpoints.rad69.envelope import Repository
from dcmsync.endpoints.rad69.session import SPOKEN, Service, Session
from dcmsync.locator import Rad69

_NOTHING = Want(study_uid="", series_uid="", instances={})


class Rad69Place:
    """One source."""

    def __init__(self, service: Service) -> None:
        self.name = service.door.name
        self._service = service

    async def echo(self) -> int:
        """0 when a request for no document is answered by SOAP, whatever it says, else the HTTP status.

        Raises PeerError.
        """
        door = self._service.door
        async with door, door.exchange(
            "POST", "", body=self._service.body(_NOTHING), expected=SPOKEN, repeatable=True
        ) as answer:
            is_soap = answer.media_type.startswith("multipart/") or answer.media_type.endswith("xml")
            return 0 if is_soap else answer.status

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session, over the pool that all sessions share."""
        async with self._service.door:
            yield Session(self._service)


def open_rad69(locator: Rad69, setting: Setting) -> Rad69Place:
    """The source that a locator names. Opens no connection."""
    dialect = setting.dialect
    repository = Repository(unique_id=dialect.repository, home_community=dialect.home_community)
    door = setting.door(locator.url, str(locator))
    return Rad69Place(Service(door, repository, ignored=dialect.ignored_errors, warn=setting.warn))
