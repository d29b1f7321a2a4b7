"""STOW-RS: instances to a DICOMweb server, several in one request, judged one by one (PS3.18 §10.5).

Owns the request, and what its answer says of each instance: only one whose UID is listed as stored counts as stored,
whatever the status. Refuses to prove it (who sent it asks again), to compress, and to transcode.

Theory of operation. A request has its length from the beginning, and streams from memory or from open files. What an
answer does not list is sent again alone, so that one bad instance is named and takes no other with it; so is everything
after an error without a list. A request that is too large (413) is halved, and so are those after it. A file that
changed ends its request, which then is incomplete and counts for nothing; the others go again without it.

The servers of tests: Orthanc 1.10 with its plugin 1.7 lists nothing with status 200 when a part has any other header,
when the closing boundary lacks, or when the body is compressed; it answers 400 to one bad part among good ones, that it
stores and lists.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus

import msgspec
from msgspec import Struct

from dcmsync.contract import Arrival, Commitment, Ending, Parcel, Together
from dcmsync.errors import Insecure, LocalTrouble, OutOfResources, PeerError, Refused, Rejected
from dcmsync.net.http import Door
from dcmsync.net.parcels import Piece, head_of, joined, octets_of
from dcmsync.wire.dimse import status
from dcmsync.wire.multipart import Writer

MOST_PARCELS = 100
MOST_OCTETS = 64 << 20
LEAST_OCTETS = 1 << 20  # however often requests break
_ANSWER_OCTETS = 16 << 20

_DUPLICATE = 0x0111  # PS3.7 §C.5.7
_TOO_LARGE, _BROKEN, _FULL = 413, 500, 507
_NOT_HERE = frozenset((404, 405, 410, 501))
_MAY_PASS = frozenset((_BROKEN, _FULL))
_JUDGED = frozenset((*range(200, 207), 400, 406, 409, 411, _TOO_LARGE, 415, 422, *_MAY_PASS, *_NOT_HERE))
_PHRASED = frozenset(map(int, HTTPStatus))
_STORED_TAG, _FAILED_TAG, _UID_TAG = "00081199", "00081198", "00081155"  # ReferencedSOPSequence, FailedSOPSequence
_WARNING_TAG, _REASON_TAG = "00081196", "00081197"  # WarningReason, FailureReason

Answer = Ending | LocalTrouble


class Storer:
    """Takes instances to one server, for all sessions with it (contract.StoresTogether)."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._is_ready = True
        self._octets = self._ceiling = MOST_OCTETS

    @property
    def together(self) -> Together:
        """The most to send in one request: less after requests that were too large, or that broke."""
        return Together(parcels=MOST_PARCELS, octets=self._octets)

    def is_ready_for(self, arrival: Arrival) -> bool:
        """Always, unless a request broke since the server answered last."""
        return self._is_ready

    async def prepare(self, arrivals: Sequence[Arrival]) -> None:
        """Sees whether the server is there (again). Raises PeerError."""
        if self._is_ready:
            return
        try:
            async with self._door.exchange(
                "GET", "studies", query=(("limit", "1"),), expected=range(200, 500),
                headers={"Accept": "application/dicom+json"},
            ):
                pass
        except Insecure:
            raise
        except Rejected:
            pass  # who may not ask may be allowed to store
        self._is_ready = True

    async def store(self, parcel: Parcel) -> Ending:
        """One instance, in a request of its own; see `contract.Stores`."""
        [answer] = await self.store_together([parcel])
        if isinstance(answer, LocalTrouble):
            raise answer
        return answer

    async def store_together(self, parcels: Sequence[Parcel]) -> Sequence[Answer]:
        """Several; see `contract.StoresTogether`."""
        try:
            return await self._store(parcels)
        except PeerError as error:
            self._is_ready = isinstance(error, Rejected) and not isinstance(error, Insecure)
            if len(parcels) > 1 and not self._is_ready:
                self._octets = max(min(_octets(parcels), self._octets) // 2, LEAST_OCTETS)
            raise

    async def commit(self, instances: Mapping[str, str]) -> Callable[[], Awaitable[Commitment]]:
        """Raises Rejected: DICOMweb servers are not asked to commit themselves."""
        raise Rejected(
            f"{self._door.name}: there is no storage commitment by DICOMweb", advice="Use --verify uids or content"
        )

    async def _store(self, parcels: Sequence[Parcel]) -> list[Answer]:
        """The word on each, by as many requests as that takes. Raises PeerError."""
        body = Related(parcels)
        try:
            said = await self._post(body)
        except (PeerError, LocalTrouble):
            if body.trouble is None:
                raise
            at, trouble = body.trouble
            rest = [*parcels[:at], *parcels[at + 1 :]]
            answers = await self._store(rest) if rest else []
            return [*answers[:at], trouble, *answers[at:]]
        if said.status == _TOO_LARGE and len(parcels) > 1:
            self._octets = self._ceiling = max(_octets(parcels) // 2, 1)
            half = len(parcels) // 2
            return [*await self._store(parcels[:half]), *await self._store(parcels[half:])]
        if len(parcels) > 1:
            self._octets = min(2 * self._octets, self._ceiling)
        return [await self._answer(parcel, said, is_alone=len(parcels) == 1) for parcel in parcels]

    async def _answer(self, parcel: Parcel, said: Said, *, is_alone: bool) -> Answer:
        """What an answer says of one instance; the instance is sent again, alone, where it says nothing."""
        ending = self._ending(said, parcel.arrival.sop_instance_uid)
        if ending is not None:
            return ending
        if not is_alone and said.status != _FULL:
            return (await self._store([parcel]))[0]
        name = self._door.name
        if said.status < 300:
            words = f"{name}: answered {said.status}, and does not list the instance as stored"
            return Ending(status=status.PROCESSING_FAILURE, why=words)
        code = status.OUT_OF_RESOURCES if said.status == _FULL else said.status
        return Ending(status=code, may_pass=said.may_pass, why=f"{name}: answered {said.words}")

    def _ending(self, said: Said, uid: str) -> Ending | None:
        """What becomes of an instance that the answer lists; None when it does not."""
        name = self._door.name
        if uid in said.failed:
            code = said.failed[uid] or status.PROCESSING_FAILURE
            if code == _DUPLICATE:
                kept = f"{name}: has an instance of this UID already, and kept it"
                return Ending(status=code, is_warning=True, why=kept)
            words = f"{name}: answered {status.words(code, 'C-STORE')}"
            return Ending(status=code, may_pass=code >> 8 == status.OUT_OF_RESOURCES >> 8, why=words)
        if uid not in said.stored:
            return None
        code = said.stored[uid]
        if not code:
            return Ending()
        return Ending(status=code, is_warning=True, why=f"{name}: answered {status.words(code, 'C-STORE')}")

    async def _post(self, body: Related) -> Said:
        """One request. Raises Rejected when nothing is taken there, PeerError."""
        name = self._door.name
        headers = {"Accept": "application/dicom+json"}
        try:
            async with self._door.exchange(
                "POST", "studies", body=body, headers=headers, repeatable=True, expected=_JUDGED
            ) as answer:
                said = said_by(answer.status, await answer.read(_ANSWER_OCTETS))
        except OutOfResources as error:
            return Said(status=_FULL, words=error.message.removeprefix(f"{name}: "), may_pass=True)
        except Refused as error:  # of the request, whatever is in it: a redirect, or something unheard of
            words = f"{name}: takes nothing by STOW-RS: {error.message.removeprefix(f'{name}: ')}"
            raise Rejected(words, advice=error.advice) from error
        if said.status in _NOT_HERE:
            advice = "Is this the base URL of a DICOMweb server that takes instances?"
            raise Rejected(f"{name}: takes nothing by STOW-RS: it answered {said.words}", advice=advice)
        return said


class Related:
    """Parcels as one multipart/related body (net.http.Body). `trouble`: which one could not be read, and why."""

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self._writer = Writer(secrets.token_hex(16))
        self._files = [(head_of(parcel), parcel) for parcel in parcels]
        self.media_type = self._writer.media_type
        self.length = self._writer.length(len(head) + parcel.size for head, parcel in self._files)
        self.trouble: tuple[int, LocalTrouble] | None = None

    def pieces(self) -> AsyncIterator[Piece]:
        """All octets, from the beginning."""
        self.trouble = None
        return joined(self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        for at, (head, parcel) in enumerate(self._files):
            yield self._writer.head
            yield head
            try:
                yield from octets_of(parcel)
            except LocalTrouble as trouble:
                self.trouble = at, trouble
                raise
            yield Writer.TAIL
        yield self._writer.closing


class Said(Struct, frozen=True, kw_only=True):
    """What an answer says: in words, and by SOP Instance UID what was stored, with the reason of a warning or 0, and
    what was not, with the reason or 0.
    """

    status: int
    words: str
    may_pass: bool = False
    stored: Mapping[str, int] = {}
    failed: Mapping[str, int] = {}


def said_by(http_status: int, body: bytes) -> Said:
    """What an answer says (PS3.18 Table 10.5.3-2); nothing of any instance where its body is something else."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        found = None
    told = found if isinstance(found, dict) else {}
    reason = HTTPStatus(http_status).phrase if http_status in _PHRASED else ""
    words = f"{http_status} {reason}".strip()
    failed = _listed(told, _FAILED_TAG, _REASON_TAG)
    stored = _listed(told, _STORED_TAG, _WARNING_TAG)
    shown = "" if failed or stored else _shown(body)
    return Said(
        status=http_status, words=f"{words}: {shown}" if shown else words, may_pass=http_status in _MAY_PASS,
        stored=stored, failed=failed,
    )  # fmt: skip


def _listed(told: Mapping[str, object], sequence: str, reason: str) -> dict[str, int]:
    """SOP Instance UID -> reason, of the items of a sequence."""
    found: dict[str, int] = {}
    for item in _values(told, sequence):
        if isinstance(item, dict):
            uid = next(iter(_values(item, _UID_TAG)), None)
            code = next(iter(_values(item, reason)), 0)
            if isinstance(uid, str):
                found[uid.rstrip("\0 ")] = code if isinstance(code, int) else 0
    return found


def _values(told: Mapping[str, object], tag: str) -> Sequence[object]:
    """The values of an attribute in the DICOM JSON Model; none where it is absent or malformed."""
    attribute = told.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else ()


def _shown(body: bytes) -> str:
    """The beginning of a text, for people."""
    text = body[:1000].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _octets(parcels: Sequence[Parcel]) -> int:
    return sum(parcel.size for parcel in parcels)
