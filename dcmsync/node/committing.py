"""Storage commitment, kept (PS3.4 Annex J): what the archive holds of what it is asked to keep, and that this is told.

Owns what was promised and not told yet: how much of it there may be, and who is told how. Refuses to look into files;
the archive does, each time that it is asked: what an index remembers is no promise.

Theory of operation: N-ACTION is answered at once, and a pledge begun. Its report goes to who asked, on the same
association if that stays open; else on one of our own, which takes that the requestor is known as a destination, by
its title. There it is tried a few times. What could not be told is lost: the requestor will ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio
import anyio.abc

from dcmsync.errors import DcmsyncError, Rejected, Unreachable
from dcmsync.node.archive import Archive
from dcmsync.node.moving import Route
from dcmsync.wire.dimse import status
from dcmsync.wire.dimse.commitment import PUSH_MODEL, Report, Request
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import ProposedContext, Role

MAX_REFERENCES = 200_000  # of all pledges that are not told yet: some 50 MB
RESOURCE_LIMITATION = 0x0213  # PS3.7 §C.5.26

_TRIES_AFTER_S = (0.0, 2.0, 10.0, 60.0)
_CONTEXTS = (ProposedContext(1, PUSH_MODEL, (contexts.EXPLICIT_LITTLE, contexts.IMPLICIT_LITTLE)),)
_ROLES = (Role(PUSH_MODEL, scu=False, scp=True),)  # PS3.4 §J.3.1: we are the SCP, though we open the association

Event = Mapping[str, object]


class Pledge:
    """One request for commitment, until its result has been told. `asked_at`: of the event loop's clock, in s."""

    def __init__(self, request: Request, calling_ae: str) -> None:
        self.request = request
        self.calling_ae = calling_ae
        self.asked_at = anyio.current_time()
        self.report: Report | None = None
        self.ready = anyio.Event()


class Commitments:
    """The pledges of one node."""

    def __init__(self, archive: Archive, routes: Mapping[str, Route], tell: Callable[[Event], None]) -> None:
        self._archive = archive
        self._routes = routes
        self._tell = tell
        self._tasks: anyio.abc.TaskGroup | None = None
        self._references = 0
        self._over = anyio.Event()

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """From now on things may be pledged."""
        self._tasks = tasks

    def stop(self) -> None:
        """What is not told yet is tried once more, and then let go."""
        self._over.set()

    def is_known(self, calling_ae: str) -> bool:
        """Whether the requestor can be told on an association of ours."""
        return calling_ae in self._routes

    def begin(self, request: Request, calling_ae: str) -> Pledge | None:
        """A pledge, whose result will be ready one day; None where there are too many."""
        assert self._tasks is not None
        if self._references + len(request.instances) > MAX_REFERENCES:
            return None
        self._references += len(request.instances)
        pledge = Pledge(request, calling_ae)
        self._tasks.start_soon(self._check, pledge)
        return pledge

    def answered(self, pledge: Pledge, code: int) -> None:
        """The requestor has heard the result, and answered."""
        if status.is_failure(code):
            self.deliver(pledge)
        else:
            self._end(pledge, "told")

    def deliver(self, pledge: Pledge) -> None:
        """Tells the result on an association of ours, as soon as it is there."""
        assert self._tasks is not None
        self._tasks.start_soon(self._deliver, pledge)

    async def _check(self, pledge: Pledge) -> None:
        kept, failed = await self._archive.check(pledge.request.instances)
        transaction_uid = pledge.request.transaction_uid
        pledge.report = Report(transaction_uid=transaction_uid, kept=tuple(kept), failed=tuple(failed))
        pledge.ready.set()

    async def _deliver(self, pledge: Pledge) -> None:
        await pledge.ready.wait()
        route = self._routes.get(pledge.calling_ae)
        if route is None:
            self._end(pledge, "untold", Unreachable(f"{pledge.calling_ae}: its address is not known"))
            return
        trouble: DcmsyncError | None = None
        for wait_s in _TRIES_AFTER_S:
            with anyio.move_on_after(wait_s):
                await self._over.wait()
            try:
                await self._say(pledge, route)
                return
            except DcmsyncError as error:
                trouble = error
            if self._over.is_set():
                break
        self._end(pledge, "untold", trouble)

    async def _say(self, pledge: Pledge, route: Route) -> None:
        assert pledge.report is not None
        async with route.turn(), route.associate(_CONTEXTS, _ROLES) as association:
            code = await association.report(pledge.report)
        if status.is_failure(code):
            raise Rejected(f"{route.peer.name}: the peer does not take the result: status 0x{code:04X}")
        self._end(pledge, "told")

    def _end(self, pledge: Pledge, event: str, trouble: DcmsyncError | None = None) -> None:
        assert pledge.report is not None
        self._references -= len(pledge.request.instances)
        said: dict[str, object] = {
            "type": "commitment", "event": event, "calling": pledge.calling_ae,
            "kept": len(pledge.report.kept), "failed": len(pledge.report.failed),
        }  # fmt: skip
        if trouble is not None:
            said["reason"] = trouble.reason
        self._tell(said)
