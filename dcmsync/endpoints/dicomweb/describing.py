"""What a DICOMweb server says of instances without giving them: metadata by WADO-RS (PS3.18 §10.4.1.1.2).

Owns the request, and cutting the answer into one line an instance. Refuses to change what an object says: numbers stay
as they were written, and a URI of bulk data is the server's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
from msgspec import Struct

from dcmsync.contract import Description, Want
from dcmsync.endpoints.dicomweb.asking import uid_in_path
from dcmsync.errors import Refused, RemoteProtocolError
from dcmsync.net.http import Door

MAX_OCTETS = 256 << 20
_NOT_AS_A_WHOLE = frozenset((400, 404, 405, 406, 413, 501))


class _Text(Struct, frozen=True):
    Value: tuple[str, ...] = ()


class _Named(Struct, frozen=True):
    """The one attribute of an object that is looked at."""

    sop_instance_uid: _Text = msgspec.field(name="00080018", default=_Text())


_objects = msgspec.json.Decoder(list[msgspec.Raw]).decode
_named = msgspec.json.Decoder(_Named).decode


class Describer:
    """Metadata for all sessions of one place."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def describe(self, want: Want) -> AsyncGenerator[Description, None]:
        """What the server says of a series, or of some of its instances; see `contract.Describes`."""
        series = f"studies/{uid_in_path(want.study_uid)}/series/{uid_in_path(want.series_uid)}"
        if want.whole:
            try:
                for description in await self._get(f"{series}/metadata"):
                    yield description
                return
            except Refused as refusal:
                if refusal.status not in _NOT_AS_A_WHOLE:
                    raise
        for uid in want.instances:
            for description in await self._get(f"{series}/instances/{uid_in_path(uid)}/metadata"):
                yield description

    async def _get(self, path: str) -> list[Description]:
        headers = {"Accept": "application/dicom+json"}
        async with self._door.exchange("GET", path, headers=headers) as answer:
            octets = await answer.read(MAX_OCTETS)
            kind = answer.media_type or "something"
        try:
            return [_description(bytes(each)) for each in _objects(octets)]
        except (ValueError, RecursionError) as error:  # octets that are no UTF-8 are a ValueError too
            words = f"{self._door.name}: answered with {kind} that is no DICOM JSON of instances"
            raise RemoteProtocolError(words) from error


def _description(thing: bytes) -> Description:
    """One object. Raises msgspec.DecodeError when it does not say which instance it is of."""
    uid = next(iter(_named(thing).sop_instance_uid.Value), "")
    if not uid:
        raise msgspec.ValidationError("no SOPInstanceUID")
    return Description(sop_instance_uid=uid, json=msgspec.json.format(thing, indent=-1))
