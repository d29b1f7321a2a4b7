"""Metadata, answered (PS3.18 §10.4.1.1.2): all attributes of each instance but bulk data, in the DICOM JSON Model.

Owns the addresses that stand in for what is cut. Refuses to send what is not all of an instance's attributes: the
answer then breaks off.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio.to_thread
from aiohttp import web

from dcmsync.endpoints.folder.scan import source_of
from dcmsync.node.index import Image
from dcmsync.node.web.accepting import JSON, takes_json
from dcmsync.node.web.asked import Asked
from dcmsync.node.web.refusing import not_acceptable
from dcmsync.node.web.retrieving import GONE, survey
from dcmsync.wire import dicomjson
from dcmsync.wire.events import Contents


async def answer(asked: Asked) -> web.StreamResponse:
    """An array with the object of each instance of a study, of a series, or of one. Raises Refusal, ConnectionError."""
    if not takes_json(asked.accept):
        raise not_acceptable(f"metadata are {JSON}")
    images = asked.images()
    files = await survey(asked, images)
    is_partial = len(files) < len(images)
    outbox = asked.outbox(media_type=JSON, status=206 if is_partial else 200, warnings=[GONE] if is_partial else [])
    if not await outbox.begin():
        return outbox.response
    separator = b"["
    for file in files:
        octets = await _object(asked, file.image)
        if octets is None:
            outbox.abort()
        await outbox.put(separator + octets)
        separator = b","
        asked.tally.found += 1
    await outbox.put(b"]")
    return await outbox.end()


async def _object(asked: Asked, image: Image) -> bytes | None:
    """The object of one instance; None when its file is gone, or says too much, or not all."""
    base = asked.url(image.study_uid, image.series_uid, image.uid)
    with asked.archive.opened(image) as opened:
        if opened is None:
            return None
        source_size = opened.offset + opened.octets
        locate: Callable[[int, int], str] = lambda start, length: f"{base}/bulkdata/{start}-{length}"  # noqa: E731
        return await anyio.to_thread.run_sync(_fold, opened.descriptor, source_size, locate)


def _fold(descriptor: int, size: int, locate: Callable[[int, int], str]) -> bytes | None:
    contents = Contents(source_of(descriptor, size))
    for _ in contents.meta():
        pass  # not in the model
    parts, limit = dicomjson.fold(contents.data_set(), "cut", locate)
    if limit or contents.state != "whole":
        return None
    return b"".join(part for part in parts if isinstance(part, bytes))
