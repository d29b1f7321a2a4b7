"""STOW-RS, answered (PS3.18 §10.5): each part goes into the folder as C-STORE's instances do, while it arrives.

Owns what is said of each part, and that nothing is said to be stored before it is durable. Refuses to keep a body: of
what comes, there is never more in memory than what the landing holds.

Theory of operation. Parts are taken one after the other; verdicts are awaited behind, so that many land in one batch.
What ends the body early ends the answer with an error, which still names what was stored: each of those parts was
complete, since a delimiter followed it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import HttpVersion11, hdrs, web
from msgspec import Struct

from dcmsync.contract import Arrival, Expected, Sink
from dcmsync.errors import RemoteProtocolError
from dcmsync.net.instances import Intake, Taken
from dcmsync.node.archive import Archive
from dcmsync.node.index import Depth
from dcmsync.node.web import answering, model
from dcmsync.node.web.accepting import DICOM, JSON, takes_json
from dcmsync.node.web.asked import Asked
from dcmsync.node.web.refusing import Refusal, not_acceptable
from dcmsync.wire.dimse import status
from dcmsync.wire.multipart import Begun, Content, Ended, Event, Reader, boundary_of, parameters

MAX_PARTS = 50_000
_UNSETTLED = 256  # parts whose verdict is not awaited yet

Item = dict[str, model.Attribute]
_encode = msgspec.json.Encoder().encode


class Outcome(Struct, frozen=True):
    """What became of one part. UIDs are "" where it did not say them."""

    sop_class_uid: str
    sop_instance_uid: str
    code: int


async def answer(asked: Asked) -> web.StreamResponse:
    """Takes the parts of a request, and says what became of each. Raises Refusal, ConnectionError."""
    if not takes_json(asked.accept):
        raise not_acceptable(f"what became of each part is said in {JSON}")
    reader = Reader(_boundary(asked.request.headers))
    store = _Store(asked)
    try:
        await _continue(asked.request)
        trouble = await _read(asked, reader, store)
        await store.settle(0)
    finally:
        store.close()
    return _answer(asked, store.outcomes, trouble)


def _boundary(headers: Mapping[str, str]) -> str:
    """The boundary of the body. Raises Refusal when it is none that can be taken."""
    if headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed: send it as it is")
    media_type, named = parameters(headers.get(hdrs.CONTENT_TYPE, ""))
    if media_type != "multipart/related" or parameters(named.get("type", DICOM))[0] != DICOM:
        raise Refusal(415, f'not supported: send multipart/related; type="{DICOM}"')
    try:
        return boundary_of(headers[hdrs.CONTENT_TYPE])
    except RemoteProtocolError as error:
        raise Refusal(400, error.message) from None


async def _continue(request: web.BaseRequest) -> None:
    """Says that the body may come, to who waits for that (RFC 9110 §10.1.1). Raises Refusal."""
    expected = request.headers.get(hdrs.EXPECT, "").lower()
    if expected not in ("", "100-continue"):
        raise Refusal(417, "nothing but 100-continue can be expected here")
    if expected and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


async def _read(asked: Asked, reader: Reader, store: _Store) -> Refusal | None:
    """Reads the body; gives what is wrong with it. Raises ConnectionError when the client has gone."""
    content = asked.request.content
    try:
        while not content.at_eof():
            asked.guard.resume()
            octets = await content.readany()
            asked.guard.pause()
            asked.guard.octets += len(octets)
            store.hear(reader.feed(octets))
            await store.settle(_UNSETTLED)
        store.hear(reader.end())
    except RemoteProtocolError as error:
        return Refusal(400, error.message)
    except Refusal as refusal:
        return refusal
    except web.RequestPayloadError:
        return Refusal(400, "the body is framed wrongly, or was cut")
    return None


class _Store:
    """The parts of one request (contract.Receiver, for the intake of each)."""

    def __init__(self, asked: Asked) -> None:
        self.outcomes: list[Outcome] = []
        self._archive: Archive = asked.archive
        self._expected = Expected(study_uid=asked.uids.get(Depth.STUDY, ""))
        self._most = asked.house.max_instance_octets
        self._intake: Intake | None = None
        self._arrival: Arrival | None = None
        self._parts = 0
        self._waiting: deque[Arrival] = deque()

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink for the part that arrives."""
        self._arrival = arrival
        return self._archive.receive(arrival, self._expected)

    async def room(self) -> None:
        """Returns when more may come."""
        await self._archive.room()

    def hear(self, events: Sequence[Event]) -> None:
        """Takes what came. Raises Refusal when that is too much."""
        for event in events:
            if isinstance(event, Begun):
                self._begin(event)
            elif isinstance(event, Content):
                self._take(event.data)
            elif isinstance(event, Ended):
                self._end()

    async def settle(self, most: int) -> None:
        """Awaits verdicts, until no more than `most` are due, and room for what comes next."""
        while len(self._waiting) > most:
            arrival = self._waiting[0]
            code = await self._archive.settle(arrival)
            self._waiting.popleft()
            self.outcomes.append(Outcome(arrival.sop_class_uid, arrival.sop_instance_uid, code))
        await self._archive.room()

    def close(self) -> None:
        """Lets go of the part that did not come to its end, and of verdicts that nobody awaits."""
        if self._intake is not None:
            self._intake.drop("the request ended within it")
        for arrival in self._waiting:
            self._archive.forget(arrival)

    def _begin(self, event: Begun) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Refusal(413, f"more than {MAX_PARTS:,} parts: send fewer at a time")
        self._arrival = None
        self._intake = Intake(self, max_octets=self._most) if event.media_type in (DICOM, "") else None

    def _take(self, octets: memoryview) -> None:
        if self._intake is not None:
            try:
                self._intake.write(octets)
            except RemoteProtocolError:
                self._intake = None  # it has let go of everything
                self.outcomes.append(_failure(self._arrival, status.OUT_OF_RESOURCES))
                raise Refusal(413, f"a part of more than {self._most:,} octets") from None

    def _end(self) -> None:
        """The part is complete, as far as it came."""
        intake, self._intake = self._intake, None
        taken = Taken(why="of another media type") if intake is None else intake.end()
        arrival = self._arrival
        if arrival is not None and not taken.why and taken.status == status.SUCCESS:
            self._waiting.append(arrival)
            return
        self.outcomes.append(_failure(arrival, taken.status or status.CANNOT_UNDERSTAND))


def _failure(arrival: Arrival | None, code: int) -> Outcome:
    return Outcome("", "", code) if arrival is None else Outcome(arrival.sop_class_uid, arrival.sop_instance_uid, code)


def _raw(item: Item) -> msgspec.Raw:
    """An item as octets: a tenth of what its objects take."""
    return msgspec.Raw(_encode(item))


def _answer(asked: Asked, outcomes: list[Outcome], trouble: Refusal | None) -> web.Response:
    """The store response (PS3.18 §10.5.3, Annex I)."""
    stored: list[msgspec.Raw] = []
    failed: list[msgspec.Raw] = []
    others: list[msgspec.Raw] = []
    for outcome in outcomes:
        item: Item = {}
        if outcome.sop_class_uid:
            item[model.tag("ReferencedSOPClassUID")] = model.attribute("ReferencedSOPClassUID", outcome.sop_class_uid)
        uid = outcome.sop_instance_uid
        item[model.tag("ReferencedSOPInstanceUID")] = model.attribute("ReferencedSOPInstanceUID", uid)
        if outcome.code == status.SUCCESS:
            image = asked.archive.index.images.get(uid)
            url = asked.url(image.study_uid, image.series_uid, uid) if image is not None else ""
            stored.append(_raw({**item, model.tag("RetrieveURL"): model.attribute("RetrieveURL", url)}))
            continue
        reason = {model.tag("FailureReason"): model.attribute("FailureReason", outcome.code)}
        if uid:
            failed.append(_raw({**item, **reason}))
        else:
            others.append(_raw(reason))
    asked.tally.stored += len(stored)
    asked.tally.failed += len(failed) + len(others)
    body: Item = {}
    study_uid = asked.uids.get(Depth.STUDY, "")
    if study_uid:
        body[model.tag("RetrieveURL")] = model.attribute("RetrieveURL", asked.url(study_uid))
    for keyword, items in (("FailedSOPSequence", failed), ("ReferencedSOPSequence", stored),
                           ("OtherFailuresSequence", others)):  # fmt: skip
        if items:
            body[model.tag(keyword)] = {"vr": "SQ", "Value": items}
    code = 200 if not failed and not others else 202 if stored else 409
    if trouble is None and not outcomes:
        trouble = Refusal(400, "there is no part in the body")
    return answering.json(
        dict(sorted(body.items())),
        status=code if trouble is None else trouble.status,
        warnings=[] if trouble is None else [trouble.words],
    )  # fmt: skip
