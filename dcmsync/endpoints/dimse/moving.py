"""C-MOVE, the asking side (PS3.4 §C.4.2): to ourselves, where the mailbox takes what comes, or to a third node.

Owns what one node has shown of itself in this run: whether it takes lists of UIDs, whether what it promises comes, and
by which service it gives at all. Refuses to judge by statuses: they choose the words, and how long to wait for more.

Theory of operation: a `Mover` is shared by the sessions of a node; each lends it an association. After the final
answer, instances may still be on their way: they are waited for as long as the peer's own counts say that more was
sent, each wait in vain making the next one shorter. Instances of a series are first asked for by a list of two UIDs;
only a node that sends both is asked for longer lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

import anyio

from dcmsync.contract import Ending, Level, Receiver, Want
from dcmsync.endpoints.dimse.asking import Asker
from dcmsync.errors import Disconnected, Rejected, Stalled, Unreachable
from dcmsync.net.association import Answer, Association, Peer
from dcmsync.net.channel import Limits
from dcmsync.net.mailbox import Claim, Expectation, Mailbox, plain_address
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.upperlayer.extension import Wishes

Via = Literal["get", "move"]

_UNKNOWN_DESTINATION = 0xA801  # PS3.4 table C.4-2, refused: move destination unknown
_PROBED = 2  # UIDs in the first list
_GRACE_S = 2.0  # for a peer that says it sent nothing, since some never count
_LEAST_WAIT_S = 0.05
_LOOPBACK = ("127.0.0.1", "::1")


class Mover:
    """C-MOVE at one node. `via`: by which service it gives, None until that is known; `senders`: hosts that it sends
    from besides its own. `warn` hears what may surprise people.
    """

    def __init__(
        self,
        peer: Peer,
        limits: Limits,
        *,
        mailbox: Callable[[], Mailbox] | None,
        via: Via | None = None,
        senders: Sequence[str] = (),
        warn: Callable[[str], None] = lambda text: None,
        asker: Asker | None = None,
    ) -> None:
        self.via: Via | None = via or (None if mailbox else "get")
        self.warn = warn
        self.takes_lists: bool | None = None
        self.aborted_gets = 0  # by which nothing came; who counts them turns to C-MOVE
        self._asker = asker or Asker()
        self._peer = peer
        self._timeout_s = limits.timeout_s
        self._open_mailbox = mailbox
        self._senders = senders
        self._resolved: frozenset[str] | None = None
        self._has_come = False
        self._vain_waits = 0

    async def fetch(self, association: Association, want: Want, receiver: Receiver) -> Ending:
        """Has the peer send what is wanted to us; see `contract.Fetches`."""
        if want.whole or len(want.instances) < _PROBED:
            ending, _ = await self._fetch(association, want, want.instances, receiver)
            return ending
        rest = dict(want.instances)
        ending = Ending()
        if self.takes_lists is None:
            probe = {uid: rest.pop(uid) for uid in list(rest)[:_PROBED]}
            ending = await self._probe(association, want, probe, receiver)
        if self.takes_lists and rest:
            ending, _ = await self._fetch(association, want, rest, receiver)
        elif rest:
            ending, _ = await self._fetch_each(association, want, rest, receiver)
        return ending

    async def send(self, association: Association, want: Want, destination_ae: str) -> Ending:
        """Has the peer send what is wanted to the node that it knows as `destination_ae`: its word on that.

        Raises Rejected when it knows no such node, PeerError.
        """
        lots = [want.instances] if want.whole else [{uid: kind} for uid, kind in want.instances.items()]
        worst = Ending()
        for lot in lots:
            encode = partial(self._identifier, want, lot)
            answer, _ = await association.move(self._asker.model.move, encode, destination_ae)
            if answer.status == _UNKNOWN_DESTINATION:
                advice = f"Ask its administrator to register {destination_ae}"
                raise Rejected(f"{self._peer.name}: C-MOVE to {destination_ae}: {_words(answer)}", advice=advice)
            if answer.status:
                worst = _ending(answer)
        return worst

    async def _probe(
        self, association: Association, want: Want, probe: Mapping[str, str], receiver: Receiver
    ) -> Ending:
        """Finds out whether the peer takes a list of UIDs: not when one of these comes alone and did not come so.

        pynetdicom's qrscp 3.0.4 answers a list as if it did not know the destination.
        """
        ending, came = Ending(), set[str]()
        with suppress(Rejected):  # if it means that, one alone will be rejected, too
            ending, came = await self._fetch(association, want, probe, receiver)
        lacking = {uid: kind for uid, kind in probe.items() if uid not in came}
        if not lacking:
            self.takes_lists = True
            return ending
        ending, came = await self._fetch_each(association, want, lacking, receiver)
        if came:
            self.takes_lists = False
        return ending

    async def _fetch_each(
        self, association: Association, want: Want, instances: Mapping[str, str], receiver: Receiver
    ) -> tuple[Ending, set[str]]:
        last, arrived = Ending(), set[str]()
        for uid, kind in instances.items():
            ending, came = await self._fetch(association, want, {uid: kind}, receiver)
            arrived |= came
            last = ending if ending.status else last
        return last, arrived

    async def _fetch(
        self, association: Association, want: Want, instances: Mapping[str, str], receiver: Receiver
    ) -> tuple[Ending, set[str]]:
        """One C-MOVE to ourselves: the peer's word, and the UIDs of what came."""
        assert self._open_mailbox is not None
        mailbox = self._open_mailbox()
        expectation = Expectation(
            hosts=await self.hosts(association),
            destination_ae=self._peer.calling_ae,
            message_id=mailbox.next_id(),
            instances=instances.keys(),
        )
        registration = self.registration(association.own_host, mailbox)
        with mailbox.claim(expectation, receiver, association.guard) as claim:
            ending = Ending()
            try:
                with claim.scope:
                    answer, counts = await association.move(
                        self._asker.model.move,
                        partial(self._identifier, want, instances),
                        expectation.destination_ae,
                        expectation.message_id,
                    )
                    claim.is_answered = True
                    ending = await self._follow_up(claim, answer, counts, registration)
            except (Stalled, Disconnected) as error:
                if claim.came or self._has_come:
                    raise
                words = f"{error.message}; none of what C-MOVE asked for arrived"
                raise type(error)(words, advice=registration()) from error
            finally:
                self._has_come = self._has_come or bool(claim.came)
            if claim.trouble is not None:
                raise claim.trouble
            return ending, claim.came

    async def _follow_up(
        self, claim: Claim, answer: Answer, counts: operations.Counts, registration: Callable[[], str]
    ) -> Ending:
        """What the final answer says, once what is still on its way has come. Raises Rejected, Stalled."""
        name = self._peer.name
        if answer.status == _UNKNOWN_DESTINATION:
            raise Rejected(f"{name}: C-MOVE to {self._peer.calling_ae}: {_words(answer)}", advice=registration())
        await self._await_late(claim, answer, counts)
        if claim.came or self._has_come:
            return _ending(answer)
        if status.is_failure(answer.status) or counts.failed:
            return _ending(answer, f"; nothing arrived. {registration()}")
        if counts.completed == 0:
            return _ending(answer)
        raise Stalled(f"{name}: it says that it sent what C-MOVE asked for, and nothing arrived", advice=registration())

    async def _await_late(self, claim: Claim, answer: Answer, counts: operations.Counts) -> None:
        """Returns when all has come that the peer says it sent, or when nothing comes any more."""
        wanted = len(claim.expectation.instances)
        sent = (counts.completed or 0) + (counts.warnings or 0)
        patience_s = self._timeout_s
        if status.is_failure(answer.status) or answer.status == status.CANCELLED:
            wanted = 0
        elif sent:
            wanted = min(wanted, sent)
        elif counts.failed:
            wanted = 0
        elif counts.completed is not None:
            patience_s = min(patience_s, _GRACE_S)
        is_late = False
        while claim.is_arriving or len(claim.came) < wanted:
            if claim.is_arriving:  # the guard of its own association ends it, if need be
                await claim.change()
                continue
            with anyio.move_on_after(max(patience_s / 10**self._vain_waits, _LEAST_WAIT_S)) as waiting:
                await claim.change()
                is_late = True
            if waiting.cancelled_caught:
                self._vain_waits += 1
                return
        if is_late:
            self._vain_waits = 0

    def _identifier(self, want: Want, instances: Mapping[str, str], syntax: str) -> bytes:
        above = self._asker.above(want.study_uid)
        keys = {**above, "StudyInstanceUID": want.study_uid, "SeriesInstanceUID": want.series_uid}
        if want.whole:
            return self._asker.encode(keys, Level.SERIES, syntax, agreed=Wishes())
        keys["SOPInstanceUID"] = "\\".join(instances)
        return self._asker.encode(keys, Level.INSTANCE, syntax, agreed=Wishes())

    async def hosts(self, association: Association) -> frozenset[str]:
        """The addresses that the peer may send from. Raises Unreachable."""
        if self._resolved is None:
            found = set[str]()
            for host in (self._peer.host, *self._senders):
                try:
                    addresses = await anyio.getaddrinfo(host, None)
                except OSError as error:
                    advice = "Check the senders of this endpoint in the config"
                    raise Unreachable(f"{host}: no such host: {error.strerror}", advice=advice) from error
                found |= {plain_address(str(address[0])) for *_, address in addresses}
            peer = plain_address(association.peer_host)
            found.add(peer)
            if peer in _LOOPBACK or peer == plain_address(association.own_host):  # the same machine
                found.update(_LOOPBACK)
            self._resolved = frozenset(found)
        return self._resolved

    def registration(self, own_host: str, mailbox: Mailbox) -> Callable[[], str]:
        """Makes the words about what has to be known at the peer, and who called meanwhile instead of it."""
        before, misfits = mailbox.strangers.copy(), mailbox.misfits.copy()
        manner = " with TLS" if mailbox.is_secured else ""

        def advice() -> str:
            words = (
                f"Ask its administrator to register AE title {self._peer.calling_ae}, host {own_host}, port "
                f"{mailbox.port}{manner}, and see that the peer can connect to it"
            )
            called = ", ".join(sorted(mailbox.strangers - before))
            if called:
                words += f". Turned away meanwhile: {called}; if it sends from there, set senders of this endpoint"
            for misfit in sorted(mailbox.misfits - misfits):
                words += f". Turned away meanwhile: {misfit} (tls of [local] says how our port speaks)"
            return words

        return advice


def _ending(answer: Answer, more: str = "") -> Ending:
    if not answer.status:
        return Ending()
    return Ending(status=answer.status, may_pass=status.may_pass(answer.status), why=_words(answer) + more)


def _words(answer: Answer) -> str:
    return status.words(answer.status, "C-MOVE")
