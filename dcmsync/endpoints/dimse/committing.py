"""Storage commitment of one node, the asking side (PS3.4 Annex J): whether it keeps what it was given.

Owns what the node has shown of itself in this run: where its reports come, and whether they come at all. Refuses to
judge what an instance is worth that nobody promised to keep.

Theory of operation: a `Committer` is shared by the sessions of a node; each lends it an association. The request is
answered at once, the report may come later: on the same association, which is listened to for a while, or at our
mailbox, where the node has to know us by address. Each wait in vain makes the next one shorter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from uuid import uuid4

import anyio

from dcmsync.contract import Commitment
from dcmsync.endpoints.dimse.moving import Mover
from dcmsync.errors import Refused, Rejected
from dcmsync.net.association import Association, Peer
from dcmsync.net.channel import Limits
from dcmsync.net.mailbox import Mailbox, Promise, plain_address
from dcmsync.net.reports import Committing
from dcmsync.wire.dimse import status
from dcmsync.wire.dimse.commitment import NO_SUCH_INSTANCE, PUSH_MODEL, Reference, Report, Request

HERE_S = 3.0  # how long the association that asked is listened to
_LEAST_WAIT_S = 0.05

_WHY = {  # Failure Reason (PS3.3 §C.14.1.1)
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}


class Committer:
    """Storage commitment at one node. `is_wanted`: associations had better have a context for it."""

    def __init__(self, peer: Peer, limits: Limits, mover: Mover, *, mailbox: Callable[[], Mailbox] | None) -> None:
        self.is_wanted = False
        self._peer = peer
        self._timeout_s = limits.timeout_s
        self._mover = mover
        self._open_mailbox = mailbox
        self._here_s = min(HERE_S, limits.timeout_s)
        self._vain_waits = 0

    async def ask(
        self, association: Association, instances: Mapping[str, str]
    ) -> tuple[Callable[[], Awaitable[Commitment]], bool]:
        """See `contract.Commits`. Also whether the association had better end: a report may come to it unasked for."""
        assert self._open_mailbox is not None
        if not association.accepts(PUSH_MODEL):
            raise Rejected(f"{self._peer.name}: the peer does not offer storage commitment")
        mailbox = self._open_mailbox()
        own_ae, address = self._peer.calling_ae, plain_address(association.peer_host)
        hosts = await self._mover.hosts(association)
        promise = Promise(f"2.25.{uuid4().int}", own_ae=own_ae, hosts=hosts | {address})
        registration = self._mover.registration(association.own_host, mailbox)
        references = tuple(Reference(sop_class, uid) for uid, sop_class in instances.items())
        heard_here = False

        def heard(report: Report) -> int:
            nonlocal heard_here
            heard_here = True
            return mailbox.heard(report, address, own_ae)

        mailbox.expect(promise)
        try:
            code, committing = await association.commit(
                Request(transaction_uid=promise.transaction_uid, instances=references), heard
            )
            if status.is_failure(code):
                words = f"{self._peer.name}: does not take the request for storage commitment"
                raise Refused(f"{words}: {status.words(code, 'N-ACTION')}", status=code)
            if promise.report is None and self._here_s:
                await self._listen(committing, promise)
        except BaseException:
            mailbox.forget(promise)
            raise
        if promise.report is not None and not heard_here:
            self._here_s = 0.0
        return partial(self._outcome, mailbox, promise, registration), promise.report is None and bool(self._here_s)

    async def _listen(self, committing: Committing, promise: Promise) -> None:
        """Listens to the association for a while, or until the report has come, wherever."""
        with anyio.move_on_after(self._here_s):
            async with anyio.create_task_group() as tasks:

                async def until_come() -> None:
                    await promise.come()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(until_come)
                await committing.listen()
                tasks.cancel_scope.cancel()

    async def _outcome(self, mailbox: Mailbox, promise: Promise, registration: Callable[[], str]) -> Commitment:
        """The node's word, or why there is none."""
        patience_s = max(self._timeout_s / 10**self._vain_waits, _LEAST_WAIT_S)
        is_late = promise.report is None
        try:
            with anyio.move_on_after(patience_s):
                await promise.come()
        finally:
            mailbox.forget(promise)
        if promise.report is None:
            self._vain_waits += 1
            return Commitment(
                why=f"{self._peer.name} took the request for storage commitment, and did not say within "
                    f"{patience_s:g} s what it keeps. {registration()}"
            )  # fmt: skip
        self._vain_waits = 0
        if is_late:  # it came to the mailbox
            self._here_s = 0.0
        return self._said(promise.report)

    def _said(self, report: Report) -> Commitment:
        name = self._peer.name
        missing, refused = dict[str, str](), dict[str, str]()
        for each in report.failed:
            why = f'0x{each.reason:04X} "{_WHY[each.reason]}"' if each.reason in _WHY else f"0x{each.reason:04X}"
            found = missing if each.reason == NO_SUCH_INSTANCE else refused
            found[each.sop_instance_uid] = f"{name} does not commit itself to keep it: {why}"
        kept = frozenset(each.sop_instance_uid for each in report.kept) - missing.keys() - refused.keys()
        return Commitment(kept=kept, missing=missing, refused=refused,
                          why=f"{name} said of others whether it keeps them, and not of this one")
