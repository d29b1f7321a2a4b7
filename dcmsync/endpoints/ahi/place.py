"""A data store of AWS HealthImaging as a place: its name, its hosts, whether it answers, and sessions.

Cheap to make, and holds no connection. Refuses to know what a session says; `session.py` does. It takes nothing: import
jobs go through S3, which is another service; STOW-RS is spoken by the DICOMweb place at the same hosts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from dcmsync.endpoints.ahi.native import Native
from dcmsync.endpoints.ahi.session import ImageSets, Session, Shelf
from dcmsync.net.http import Door
from dcmsync.quirks import Quirks


class AhiPlace:
    """One data store. `calls` leads to the native API, `files` to the DICOMweb of the store."""

    def __init__(
        self, calls: Door, native: Native, files: Door, *, image_sets: ImageSets, quirks: Quirks,
        warn: Callable[[str], None],
    ) -> None:
        self.name = calls.name
        self._calls = calls
        self._native = native
        self._shelf = Shelf(native)
        self._files = files
        self._image_sets = image_sets
        self._quirks = quirks
        self._warn = warn

    async def echo(self) -> int:
        """0, once a search was answered. Raises PeerError."""
        async with self._calls, aclosing(self._native.search({})) as found:
            await anext(found)
        return 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session, over the pools that all sessions share."""
        async with self._calls, self._files:
            yield Session(
                self.name, self._native, self._shelf, self._files,
                image_sets=self._image_sets, quirks=self._quirks, warn=self._warn,
            )  # fmt: skip
