"""QIDO-RS, answered (PS3.18 §10.6): things of the index that match, as objects of the DICOM JSON Model.

Owns what is said of each thing, and the order: as C-FIND meets them. Refuses to judge: that is done as for C-FIND.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio.lowlevel
import msgspec
from aiohttp import web

from dcmsync.node import finding
from dcmsync.node.index import Depth, Index, Thing
from dcmsync.node.web import answering, asking, model
from dcmsync.node.web.accepting import JSON, takes_json
from dcmsync.node.web.asked import Asked, uids_of
from dcmsync.node.web.refusing import not_acceptable

_BREATH = 200  # things passed over before others get their turn
_encode = msgspec.json.Encoder().encode


async def answer(asked: Asked, depth: Depth) -> web.StreamResponse:
    """Everything of one level that matches: an array, which is empty where nothing does. Raises Refusal."""
    if not takes_json(asked.accept):
        raise not_acceptable(f"a search is answered in {JSON}")
    search = asking.search(asked.parameters, depth, asked.uids)
    if asked.uids:
        asked.images()
    outbox = asked.outbox(media_type=JSON, warnings=search.warnings)
    octets, is_begun, separator = b"[", False, b""
    for one in _found(asked.archive.index, search, lambda thing: asked.url(*uids_of(thing))):
        if one is None:
            await anyio.lowlevel.checkpoint()
            continue
        asked.tally.found += 1
        octets += separator + one
        separator = b","
        if len(octets) >= answering.CHUNK_OCTETS:
            if not is_begun and not await outbox.begin():
                return outbox.response
            is_begun = True
            await outbox.put(octets)
            octets = b""
    octets += b"]"
    if not is_begun:
        return answering.whole(octets, warnings=search.warnings)
    await outbox.put(octets)
    return await outbox.end()


def _found(index: Index, search: asking.Search, locate: Callable[[Thing], str]) -> Iterator[bytes | None]:
    """The object of each thing that is asked for; None now and then while there is none. `locate`: its Retrieve URL."""
    offset, left = search.offset, search.limit
    for thing in finding.search(index, search.question) if left != 0 else ():
        if thing is None:
            yield None
        elif offset:
            offset -= 1
            if not offset % _BREATH:
                yield None
        else:
            yield _encode(_described(index, thing, search, locate(thing)))
            if left is not None:
                left -= 1
                if not left:
                    return


def _described(index: Index, thing: Thing, search: asking.Search, url: str) -> dict[str, model.Attribute]:
    values: dict[str, object] = {"SpecificCharacterSet": "ISO_IR 192", "InstanceAvailability": "ONLINE"}
    values.update(RetrieveURL=url)
    values.update(index.describe(thing, search.columns))
    for keyword in search.columns:
        if keyword not in search.optional:
            values.setdefault(keyword, "")
    return {model.tag(keyword): model.attribute(keyword, values[keyword]) for keyword in sorted(values, key=model.tag)}
