"""The native API of HealthImaging: searches of image sets, page by page, their metadata and their frames.

Owns the paths, the pages and the words of errors. Refuses to know what is asked for and what becomes of it. Every call
here may be repeated: none of them changes anything.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

import msgspec

from dcmsync.contract import Ending
from dcmsync.endpoints.ahi import metadata
from dcmsync.endpoints.ahi.metadata import Frame
from dcmsync.endpoints.ahi.summaries import ImageSet, Page, is_id
from dcmsync.errors import Refused, Rejected, RemoteProtocolError
from dcmsync.net.http import Answer, Authority, Door, Octets, Query
from dcmsync.net.instances import is_framed

PAGE = 50  # image sets on a page, at most
MOST_IDLE_PAGES = 100  # pages in a row that bring nothing new, before the search is taken for endless
REFUSALS = (400, 402, 403, 404, 406, 409, 424)
"""Statuses for which the service has words of its own; none of them passes by itself."""
_PAGE_OCTETS = 4 << 20
_ERROR_OCTETS = 1 << 16
_FRAME_OCTETS = 1 << 28
_ERROR_TYPE = "x-amzn-ErrorType"
_EXPIRED = ("ExpiredToken", "UnrecognizedClient")
_ADVICE = {
    "ExpiredToken": "Get new credentials, then run the same command again",
    "InvalidSignature": "Check the secret key, and the clock of this machine",
    "UnrecognizedClient": "Check the access key and the session token",
    "AccessDenied": "Ask for a policy that allows medical-imaging calls on this data store",
    "ResourceNotFound": "Check the data store and the region",
    "ServiceQuotaExceeded": "Use fewer --jobs, or ask for a higher quota",
}
_PAGES = msgspec.json.Decoder(Page)


class Native:
    """Calls on one data store, through a door that signs them."""

    def __init__(self, door: Door, store_id: str, *, authority: Authority | None, most_answers: int) -> None:
        self._door = door
        self._store = f"datastore/{store_id}"
        self._authority = authority
        self._most_answers = most_answers

    async def search(self, criteria: Mapping[str, object]) -> AsyncGenerator[ImageSet | Ending, None]:
        """The image sets that fit, each once; an Ending, last. Raises PeerError."""
        body = Octets("application/json", json.dumps(criteria).encode())
        seen: set[str] = set()
        tokens: set[int] = set()
        token = ""
        idle = 0
        while True:
            page = await self._page(body, token)
            fresh = [each for each in page.image_sets if each.image_set_id not in seen]
            for image_set in fresh:
                seen.add(image_set.image_set_id)
                yield image_set
            idle = 0 if fresh else idle + 1
            token = page.next_token or ""
            if not token:
                yield Ending()
                return
            if hash(token) in tokens or idle >= MOST_IDLE_PAGES:
                yield Ending(truncated=True, is_last_word=True, why="the pages of the search repeat themselves")
                return
            if len(seen) > self._most_answers:
                raise RemoteProtocolError(f"{self._door.name}: gave more than {self._most_answers:,} image sets")
            tokens.add(hash(token))

    async def metadata(self, image_set: ImageSet) -> tuple[metadata.Document, int]:
        """What an image set says of itself, and how many octets hold that. Raises PeerError."""
        path = f"{self._store}/imageSet/{image_set.image_set_id}/getImageSetMetadata"
        query = [("version", str(image_set.version))]
        async with self.call("POST", path, query, headers={"Accept-Encoding": "gzip"}) as answer:
            octets = await answer.read(metadata.MOST_OCTETS)
        try:
            octets = metadata.unpacked(octets)
            return metadata.read(octets), len(octets)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{self._door.name}: {error.message}") from error

    async def frame(self, image_set_id: str, frame: Frame) -> bytes:
        """One frame, as it is stored. Raises Refused for one that is larger than it is said to be, RemoteProtocolError,
        and what `call` does.
        """
        path = f"{self._store}/imageSet/{image_set_id}/getImageFrame"
        body = Octets("application/json", json.dumps({"imageFrameId": frame.id}).encode())
        async with self.call("POST", path, body=body) as answer:
            if not is_framed(answer.headers):
                raise RemoteProtocolError(f"{self._door.name}: an answer does not say where it ends")
            most = _FRAME_OCTETS if frame.size is None else min(frame.size, _FRAME_OCTETS)
            found = bytearray()
            async with aclosing(answer.pieces()) as pieces:
                async for octets in pieces:
                    found += octets
                    if len(found) > most:
                        words = f"{self._door.name}: a frame has more octets than the {most:,} that it may have"
                        raise Refused(words, status=answer.status)
        return bytes(found)

    @asynccontextmanager
    async def call(
        self, method: str, path: str, query: Query = (), *, headers: Mapping[str, str] = {}, body: Octets | None = None
    ) -> AsyncIterator[Answer]:
        """One call and its answer, which is success. Credentials that have expired meanwhile are renewed once.

        Raises Rejected, Refused, and what the door does.
        """
        for is_last in (False, True):
            asked = self._door.exchange(
                method, path, query=query, headers=headers, body=body, expected=(200, *REFUSALS), repeatable=True
            )
            async with asked as answer:
                if answer.status not in REFUSALS:
                    yield answer
                    return
                error, kind = await refusal(answer, self._door.name)
            may_renew = not is_last and kind.startswith(_EXPIRED) and self._authority is not None
            if not (may_renew and self._authority and await self._authority.renew()):
                raise error

    async def _page(self, body: Octets, token: str) -> Page:
        query = [("maxResults", str(PAGE)), *([("nextToken", token)] if token else [])]
        async with self.call("POST", f"{self._store}/searchImageSets", query, body=body) as answer:
            octets = await answer.read(_PAGE_OCTETS)
        try:
            page = _PAGES.decode(octets)
        except (ValueError, RecursionError) as error:
            words = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise RemoteProtocolError(f"{self._door.name}: the answer to a search cannot be read: {words}") from error
        if not all(is_id(each.image_set_id) for each in page.image_sets):
            raise RemoteProtocolError(f"{self._door.name}: an image set is called by something that is no id")
        return page


async def refusal(answer: Answer, name: str) -> tuple[Refused | Rejected, str]:
    """What an answer that is no success means, and of what kind AWS says it is: "" where it does not."""
    octets = await answer.read(_ERROR_OCTETS)
    try:
        said = msgspec.json.decode(octets, type=dict[str, object])
    except (ValueError, RecursionError):
        said = {}
    kind = answer.headers.get(_ERROR_TYPE) or str(said.get("__type", ""))
    kind = "".join(c for c in kind.partition(":")[0].rpartition("#")[2] if c.isalnum())[:60].removesuffix("Exception")
    message = str(said.get("message") or said.get("Message") or octets[:200].decode("utf-8", "replace"))
    message = " ".join("".join(c if c.isprintable() else " " for c in message).split())[:200]
    words = ": ".join(part for part in (f"{name}: {answer.status}", kind, message) if part)
    advice = next((advice for begin, advice in _ADVICE.items() if kind.startswith(begin)), None)
    if answer.status in (401, 403) or kind.startswith(_EXPIRED):
        return Rejected(words, advice=advice or "Check the credentials, and the clock of this machine"), kind
    return Refused(words, status=answer.status, advice=advice), kind
