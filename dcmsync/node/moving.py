"""C-MOVE, carried out (PS3.4 §C.4.2): C-STORE sub-operations on associations of our own to the destination.

Owns the associations, and what is said to the requestor meanwhile. Refuses to transcode: an instance goes out on a
context with its own transfer syntax, or has failed.

Theory of operation: three tasks. One delivers; one hears whether the requestor cancels, or leaves; the third tells it
how far things are, once a second at least, so that it does not take a slow destination for a dead node. What the
destination does not take within its deadlines has failed. An association that breaks after some instances is followed
by another for the rest; one that breaks before any, or stalls, is the last. Where the destination grants few
associations, a move waits for its turn, and the requestor hears that nothing has been sent yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
import anyio.lowlevel
from msgspec import Struct

from dcmsync.contract import Arrival, Parcel
from dcmsync.errors import DcmsyncError, LocalTrouble, Refused, RemoteProtocolError, Stalled
from dcmsync.net.association import Association, Peer, associate
from dcmsync.net.channel import Limits, ReleasedByPeer
from dcmsync.net.listener import Visit
from dcmsync.net.patience import Watch
from dcmsync.node.archive import Archive
from dcmsync.node.inbox import Inbox
from dcmsync.node.index import Image
from dcmsync.node.suboperations import SubOperations
from dcmsync.wire.dimse import status
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.dimse.operations import Originator
from dcmsync.wire.upperlayer.codec import ProposedContext, Role
from dcmsync.wire.upperlayer.contexts import MAX_CONTEXTS, propose

_TELL_EVERY_S = 1.0

Pair = tuple[str, str]
"""SOP class and transfer syntax."""


class Destination(Struct, frozen=True, kw_only=True):
    """A node that may be sent to. It grants us `max_associations` at a time; any number, where that is None."""

    peer: Peer
    max_associations: int | None = None


class Route:
    """How instances get to a destination, and how many may be on the way there at a time."""

    def __init__(self, destination: Destination, watch: Watch, limits: Limits) -> None:
        self.peer = destination.peer
        self._watch = watch
        self._limits = limits
        granted = destination.max_associations
        self._free = None if granted is None else anyio.Semaphore(granted)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until one association more may be opened; it is, while the body runs."""
        if self._free is None:
            yield
            return
        async with self._free:
            yield

    def associate(
        self, proposed: Sequence[ProposedContext], roles: Sequence[Role] = ()
    ) -> AbstractAsyncContextManager[Association]:
        """An association with the destination; `net.association.associate` says what it raises."""
        return associate(self.peer, proposed, roles=roles, watch=self._watch, limits=self._limits)


class Move:
    """One C-MOVE being carried out."""

    def __init__(
        self, visit: Visit, inbox: Inbox, archive: Archive, context_id: int, request: Command, route: Route
    ) -> None:
        assert request.message_id is not None
        self.taken = 0
        self.trouble: DcmsyncError | None = None  # what the destination is to blame for
        self._channel = visit.channel
        self._inbox = inbox
        self._archive = archive
        self._context_id = context_id
        self._request = request
        self._message_id = request.message_id
        self._originator = Originator(visit.calling_ae, request.message_id)
        self._route = route
        self._is_cancelled = False
        self._patience = anyio.CancelScope()  # while we wait for our turn
        self._lost: Exception | None = None  # how the requestor left

    async def run(self, images: Sequence[Image]) -> None:
        """Sends the instances and the final response; `taken` says how many the destination took.

        Raises what ends the association with the requestor; what the destination has not got then stays here.
        """
        work = SubOperations(self._channel, self._context_id, self._request, len(images))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hear, tasks.cancel_scope)
            tasks.start_soon(self._tell, work, tasks.cancel_scope)
            await self._deliver(images, work)
            tasks.cancel_scope.cancel()
        if self._lost is not None:
            raise self._lost
        words = f"{self._request.move_destination}: {self.trouble.reason}" if self.trouble else ""
        await work.end(is_cancelled=self._is_cancelled, comment=words)

    async def _hear(self, whole: anyio.CancelScope) -> None:
        """Minds what the requestor says, until it cancels or leaves."""
        try:
            await self._inbox.cancellation(self._message_id)
            self._is_cancelled = True
            self._patience.cancel()
        except (DcmsyncError, ReleasedByPeer) as error:
            self._lost = error
            whole.cancel()

    async def _tell(self, work: SubOperations, whole: anyio.CancelScope) -> None:
        """Says how far things are. The requestor owes us nothing but to take that."""
        try:
            while True:
                await anyio.sleep(_TELL_EVERY_S)
                self._channel.stream.guard.progress()
                with anyio.CancelScope(shield=True):  # half a message would be the end of the association
                    await self._channel.say(self._context_id, work.pending())
        except (DcmsyncError, ReleasedByPeer) as error:
            self._lost = self._lost or error
            whole.cancel()

    async def _deliver(self, images: Sequence[Image], work: SubOperations) -> None:
        for group, pairs in _groups(images):
            waiting = deque(group)
            while waiting and self.trouble is None and not self._is_cancelled:
                before = work.taken
                try:
                    await self._send(waiting, pairs, work)
                except DcmsyncError as error:
                    if isinstance(error, Stalled) or work.taken == before:
                        self.trouble = error
            if not self._is_cancelled:
                for image in waiting:
                    work.count(image.uid, status.PROCESSING_FAILURE)

    async def _send(self, waiting: deque[Image], pairs: Sequence[Pair], work: SubOperations) -> None:
        """Sends what waits on one association, as far as that goes; each is taken off with its verdict."""
        async with AsyncExitStack() as stack:
            with self._patience:
                await stack.enter_async_context(self._route.turn())
            if self._is_cancelled:
                return
            self._patience = anyio.CancelScope()
            association = await stack.enter_async_context(self._route.associate(propose(pairs)))
            while waiting and not self._is_cancelled:
                code = status.PROCESSING_FAILURE
                image = waiting.popleft()
                try:
                    code = await self._store(association, image)
                finally:
                    work.count(image.uid, code)
                    self.taken = work.taken
                if not association.is_open:
                    return

    async def _store(self, association: Association, image: Image) -> int:
        """The destination's status for one instance; a failure where it did not get it. Raises PeerError."""
        with self._archive.opened(image) as opened:
            if opened is None:
                await anyio.lowlevel.checkpoint()
                return status.PROCESSING_FAILURE
            arrival = Arrival(
                sop_class_uid=image.sop_class_uid,
                sop_instance_uid=image.uid,
                transfer_syntax_uid=image.transfer_syntax_uid,
            )
            parcel = Parcel(
                arrival=arrival, size=opened.octets, descriptor=opened.descriptor, offset=opened.offset,
                stamp=opened.stamp,
            )  # fmt: skip
            try:
                answer = await association.store(parcel, self._originator)
            except (Refused, LocalTrouble):  # no context for it, or its file changed
                await anyio.lowlevel.checkpoint()
                return status.PROCESSING_FAILURE
        assert answer.status is not None
        if answer.status in (status.CANCELLED, *status.PENDING):
            raise RemoteProtocolError(f"answered C-STORE with status 0x{answer.status:04X}")
        return answer.status


def _groups(images: Sequence[Image]) -> Iterator[tuple[list[Image], list[Pair]]]:
    """Instances that one association can carry, and the contexts that they need, in the order that they were met."""
    pairs: dict[Pair, None] = dict.fromkeys((image.sop_class_uid, image.transfer_syntax_uid) for image in images)
    every = list(pairs)
    for start in range(0, len(every), MAX_CONTEXTS):
        some = every[start : start + MAX_CONTEXTS]
        wanted = frozenset(some)
        yield [each for each in images if (each.sop_class_uid, each.transfer_syntax_uid) in wanted], some
