"""A data store of AWS HealthImaging as a place: its name, its hosts, whether it answers, and sessions.

Cheap to make, and holds no connection. Refuses to know what a session says; `session.py` does. It takes nothing: import
jobs go through S3, which is another service; STOW-RS is spoken by the DICOMweb place at the same hosts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from msgspec import structs

from dcmsync.endpoints import Setting
from dcmsync.endpoints.ahi.frames import Maker
from dcmsync.endpoints.ahi.native import Native
from dcmsync.endpoints.ahi.session import ImageSets, Session
from dcmsync.endpoints.ahi.shelf import Shelf
from dcmsync.errors import UsageError
from dcmsync.locator import Ahi
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from dcmsync.quirks import Quirks


class AhiPlace:
    """One data store. `calls` leads to the native API, `files` to the DICOMweb of the store."""

    def __init__(
        self, calls: Door, native: Native, files: Door, *, image_sets: ImageSets,
        by_frames: bool = False, quirks: Quirks, warn: Callable[[str], None],
    ) -> None:
        self.name = calls.name
        self._calls = calls
        self._native = native
        self._shelf = Shelf(native)
        self._files = files
        self._image_sets = image_sets
        self._maker = Maker(self.name, native, self._shelf, warn) if by_frames else None
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
                image_sets=self._image_sets, maker=self._maker, quirks=self._quirks, warn=self._warn,
            )  # fmt: skip


def open_ahi(locator: Ahi, setting: Setting) -> AhiPlace:
    """The data store that a locator names. With a token, its DICOMweb is shown that instead of a signature.

    Raises UsageError.
    """
    aws = setting.aws
    if aws is None:
        raise UsageError(f"{locator}: nothing says who we are at AWS", advice="Set aws_profile in the configuration")
    name = str(locator)
    signed = structs.replace(setting, web=structs.replace(setting.web, authority=None))  # a token is for DICOMweb alone
    calls = signed.door(aws.endpoint_url or _host("runtime-medical-imaging", aws.region), name)
    at = aws.endpoint_url or _host("dicom-medical-imaging", aws.region)
    files = setting.door(f"{at}/datastore/{locator.datastore}", name)
    most_answers = Limits().max_answers
    native = Native(calls, locator.datastore, authority=aws.signer, most_answers=most_answers)
    return AhiPlace(
        calls, native, files, image_sets=aws.image_sets, by_frames=aws.retrieve_by == "frames",
        quirks=setting.quirks, warn=setting.warn,
    )  # fmt: skip


def _host(service: str, region: str) -> str:
    return f"https://{service}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
