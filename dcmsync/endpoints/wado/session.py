"""One conversation with a WADO-URI service: each instance by a request of its own (PS3.18 §9.1).

Owns the request, several of which are on their way at a time, and what an answer must be to count. Refuses to be asked
what there is, which the service has no words for, and to judge whether what came is enough.

Theory of operation. A request costs a round trip, so up to `GETS` are on their way for one series. One that fails is
told of at the end, and does not stop the others, unless the place is gone or the connection breaks again and again. The
`/` of the media type stays as it is: Orthanc 1.10 decodes nothing in a query. The standard wants study and series named
too, and the first request does so; if a server then finds an instance by its own UID, that is all that it is told from
then on. What is not found so is asked for as the standard has it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import anyio

from dcmsync.contract import Ask, Attributes, Ending, Receiver, Want
from dcmsync.errors import (
    DcmsyncError,
    Disconnected,
    ExitStatus,
    OutOfResources,
    PeerError,
    Refused,
    Rejected,
    RemoteProtocolError,
    Stalled,
    Unasked,
    Unreachable,
)
from dcmsync.net.http import Door, Query
from dcmsync.net.instances import is_framed, take_in

GETS = 8
_LOST_IN_A_ROW = 2 * GETS  # instances whose answer ends too early one after another
_MEDIA_TYPE = "application/dicom"
_CANNOT_UNDERSTAND = 0xC000
_DISLIKED = (400, 406)
_OF_THE_PLACE = (Unreachable, Rejected, Stalled)
_OF_THE_INSTANCE = (Refused, RemoteProtocolError)


class Service:
    """What the sessions of one place share. `takes_any_syntax`: whether it bears being asked for the stored one.
    `takes_instance_alone`: whether it finds an instance without its study and series; None until that was tried.
    """

    def __init__(self, door: Door) -> None:
        self.door = door
        self.takes_any_syntax = True
        self.takes_instance_alone: bool | None = None
        self.has_given = False


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
        may_pass = all(error.exit_status is ExitStatus.RETRY for error in self._failed)
        return Ending(status=status, may_pass=may_pass, why=why)

    async def _work(self, scope: anyio.CancelScope) -> None:
        """Gets one after another, as long as there are any; ends all of them when none can be had any more."""
        while self._trouble is None and (uid := next(self._waiting, None)) is not None:
            try:
                await self._get(uid)
                self._lost = 0
            except DcmsyncError as error:
                if not isinstance(error, PeerError) or isinstance(error, _OF_THE_PLACE):
                    self._trouble = error
                    break
                self._failed.append(error)
                has_passed = isinstance(error, _OF_THE_INSTANCE) and not isinstance(error, OutOfResources)
                self._lost = 0 if has_passed else self._lost + 1
                if self._lost >= _LOST_IN_A_ROW:
                    self._trouble = error
        if self._trouble is not None:
            scope.cancel()

    async def _get(self, uid: str) -> None:
        """One instance. Raises PeerError when it did not come whole, LocalTrouble."""
        service = self._service
        # hot: Orthanc 1.10.1 needs 0.3 ms for an instance that is named alone, 1.4 ms with its series (2026-11)
        if service.has_given and service.takes_instance_alone is not False:
            try:
                await self._ask(uid, ())
            except PeerError as error:
                if isinstance(error, (*_OF_THE_PLACE, Disconnected)):
                    raise
                service.takes_instance_alone = service.takes_instance_alone or False
            else:
                service.takes_instance_alone = True
                return
        await self._ask(uid, (("studyUID", self._want.study_uid), ("seriesUID", self._want.series_uid)))
        service.has_given = True

    async def _ask(self, uid: str, above: Query) -> None:
        """One instance, by its UID and those above it. Raises as `_get` does."""
        query = (("requestType", "WADO"), *above, ("objectUID", uid), ("contentType", _MEDIA_TYPE))
        if self._service.takes_any_syntax:
            try:
                return await self._take(uid, (*query, ("transferSyntax", "*")))
            except Refused as refusal:
                if refusal.status not in _DISLIKED:
                    raise
            await self._take(uid, query)
            self._service.takes_any_syntax = False
        else:
            await self._take(uid, query)
        return None

    async def _take(self, uid: str, query: Query) -> None:
        """What one request gives. Raises as `_get` does."""
        door = self._service.door
        await self._receiver.room()
        async with door.exchange("GET", "", query=query, headers={"Accept": _MEDIA_TYPE}) as answer:
            if not is_framed(answer.headers):
                raise Disconnected(f"{door.name}: gives a file without saying where it ends: it may be cut")
            async with aclosing(answer.pieces()) as pieces:
                taken = await take_in(pieces, self._receiver)
        if taken.why and not taken.status:
            raise RemoteProtocolError(f"{door.name}: what came is {taken.why}")
        if taken.sop_instance_uid != uid:
            raise RemoteProtocolError(f"{door.name}: gave another instance than the one that was asked for")
