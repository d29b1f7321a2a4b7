"""One conversation with a WADO-URI service: each instance by a request of its own (PS3.18 §9.1).

Owns the request, several of which are on their way at a time, and what an answer must be to count. Refuses to be asked
what there is, which the service has no words for, and to judge whether what came is enough.

Theory of operation. A request costs a round trip, so up to `GETS` are on their way for one series. One that fails is
told of at the end, and does not stop the others, unless the place is gone or the connection breaks again and again. The
`/` of the media type stays as it is: Orthanc 1.10 decodes nothing in a query.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import anyio

from dcmsync.contract import Ask, Attributes, Ending, Receiver, Want
from dcmsync.errors import (
    DcmsyncError,
    Disconnected,
    OutOfResources,
    PeerError,
    Refused,
    Rejected,
    RemoteProtocolError,
    Unasked,
)
from dcmsync.net.http import Door, Query
from dcmsync.net.instances import is_framed, take_in

GETS = 8
_LOST_IN_A_ROW = 2 * GETS  # instances whose answer ends too early one after another
_MEDIA_TYPE = "application/dicom"
_CANNOT_UNDERSTAND = 0xC000
_DISLIKED = (400, 406)


class Service:
    """What the sessions of one place share. `takes_any_syntax`: whether it bears being asked for the stored one."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.takes_any_syntax = True


class Session:
    """Satisfies contract.Session, but cannot be asked."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._name = service.door.name

    def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """Raises Unasked."""
        raise Unasked(
            f"{self._name}: WADO-URI gives instances, but cannot be asked what there is",
            advice='Set retrieve = "NAME" with its name at a place that can be asked: a DIMSE node, DICOMweb or MINT',
        )

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """One GET for each instance; see `contract.Fetches`. Of a single one, what went wrong is raised."""
        if not want.instances:
            raise Rejected(
                f"{self._name}: WADO-URI gives instances one by one, and none is named",
                advice="Name them by records of instance level",
            )
        fetching = _Fetching(self._service, want, receiver)
        return await fetching.run()

    async def rest(self) -> None:
        """Nothing is held that others wait for."""


class _Fetching:
    """The instances of one want on their way."""

    def __init__(self, service: Service, want: Want, receiver: Receiver) -> None:
        self._service = service
        self._want = want
        self._receiver = receiver
        self._waiting: Iterator[str] = iter(want.instances)
        self._failed: list[PeerError] = []
        self._lost = 0  # in a row
        self._trouble: DcmsyncError | None = None

    async def run(self) -> Ending:
        """Gets all of them. Raises PeerError, LocalTrouble, and what receivers raise."""
        async with anyio.create_task_group() as tasks:
            for _ in range(min(GETS, len(self._want.instances))):
                tasks.start_soon(self._work, tasks.cancel_scope)
        if self._trouble is not None:
            raise self._trouble
        if not self._failed:
            return Ending()
        first = self._failed[0]
        if len(self._want.instances) == 1:
            raise first
        why = f"{len(self._failed):,} of {len(self._want.instances):,} instances were not given; {first}"
        status = first.status if isinstance(first, Refused) else _CANNOT_UNDERSTAND
        may_pass = all(isinstance(error, OutOfResources | Disconnected) for error in self._failed)
        return Ending(status=status, may_pass=may_pass, why=why)

    async def _work(self, scope: anyio.CancelScope) -> None:
        """Gets one after another, as long as there are any; ends all of them when none can be had any more."""
        while self._trouble is None and (uid := next(self._waiting, None)) is not None:
            try:
                await self._get(uid)
                self._lost = 0
            except (Refused, RemoteProtocolError, Disconnected) as error:
                self._failed.append(error)
                self._lost = self._lost + 1 if isinstance(error, Disconnected) else 0
                if self._lost >= _LOST_IN_A_ROW:
                    self._trouble = error
            except DcmsyncError as error:
                self._trouble = error
        if self._trouble is not None:
            scope.cancel()

    async def _get(self, uid: str) -> None:
        """One instance. Raises PeerError when it did not come whole, LocalTrouble."""
        await self._receiver.room()
        query = (
            ("requestType", "WADO"),
            ("studyUID", self._want.study_uid),
            ("seriesUID", self._want.series_uid),
            ("objectUID", uid),
            ("contentType", _MEDIA_TYPE),
        )
        if self._service.takes_any_syntax:
            try:
                await self._take(self._service.door, (*query, ("transferSyntax", "*")))
            except Refused as refusal:
                if refusal.status not in _DISLIKED:
                    raise
                await self._take(self._service.door, query)
                self._service.takes_any_syntax = False
        else:
            await self._take(self._service.door, query)

    async def _take(self, door: Door, query: Query) -> None:
        """What one request gives. Raises PeerError when it did not come whole, LocalTrouble."""
        async with door.exchange("GET", "", query=query, headers={"Accept": _MEDIA_TYPE}) as answer:
            if not is_framed(answer.headers):
                raise Disconnected(f"{door.name}: gives a file without saying where it ends: it may be cut")
            async with aclosing(answer.pieces()) as pieces:
                taken = await take_in(pieces, self._receiver)
        if taken.why and not taken.status:
            raise RemoteProtocolError(f"{door.name}: what came is {taken.why}")
