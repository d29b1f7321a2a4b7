"""Bulk data, answered (PS3.18 §10.4.1.1.5): the octets of one value that metadata give an address for.

Owns that only a value of an instance can be asked for, whole, and that numbers leave in little endian. Refuses any
other part of a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex

import anyio.to_thread
from aiohttp import web

from dcmsync.endpoints.folder.scan import source_of
from dcmsync.node.web import accepting
from dcmsync.node.web.asked import Asked
from dcmsync.node.web.refusing import Refusal, not_acceptable
from dcmsync.wire import dicomjson
from dcmsync.wire.events import Closed, Contents, Element, Opened
from dcmsync.wire.multipart import Writer


async def answer(asked: Asked) -> web.StreamResponse:
    """The octets of a value. Raises Refusal, ConnectionError."""
    form = accepting.form(asked.accept, accepting.OCTETS, is_single=True, prefers_single=True)
    if form is None:
        raise not_acceptable(f"bulk data are {accepting.OCTETS}, also as a part of multipart/related")
    (image,) = asked.images()
    start, length = int(asked.part["start"]), int(asked.part["length"])
    with asked.archive.opened(image) as opened:
        if opened is None:
            raise Refusal(410, "it was here, and its file is gone, or changed")
        contents = Contents(source_of(opened.descriptor, opened.offset + opened.octets))
        unit = await anyio.to_thread.run_sync(_unit, contents, start, length)
        if unit is None:
            raise Refusal(404, "no such value in this instance: ask for its metadata anew")
        writer = Writer(token_hex(24), accepting.OCTETS)
        outbox = asked.outbox(
            media_type=writer.media_type if form.is_multipart else accepting.OCTETS,
            length=writer.length([length]) if form.is_multipart else length,
        )
        if not await outbox.begin():
            return outbox.response
        await outbox.put(writer.head if form.is_multipart else b"")
        chunks: Iterator[bytes] = contents.chunks(start, length)
        left = length
        while chunk := await anyio.to_thread.run_sync(next, chunks, b""):
            left -= len(chunk)
            await outbox.put(dicomjson.turned(chunk, unit))
        if left:
            outbox.abort()
        await outbox.put(writer.TAIL + writer.closing if form.is_multipart else b"")
        return await outbox.end()


def _unit(contents: Contents, start: int, length: int) -> int | None:
    """How many octets of a value are one number to be turned, 1 for none; None when no value lies there."""
    begun: list[Opened] = []
    for event in contents.data_set():
        if isinstance(event, Element) and (event.start, event.length) == (start, length):
            return 1 if event.little else dicomjson.UNITS.get(event.vr, 1)
        if isinstance(event, Opened):
            begun.append(event)
        elif isinstance(event, Closed):
            opened = begun.pop()
            if opened.has_fragments and (opened.start, event.end - opened.start) == (start, length):
                return 1
    return None
