"""The requestor's side: opens an association and carries out C-ECHO, C-FIND, C-GET, C-MOVE and C-STORE on it.

Each operation reads straight down: say the request, then turn answers into values until the final one. Deadlines are
the guard's (`patience.py`); what counts as progress is said here: a new answer, a wanted instance, falling counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import anyio
from msgspec import Struct

from dcmsync.contract import Parcel, Receiver
from dcmsync.errors import DcmsyncError, Disconnected, PeerError, Rejected, RemoteProtocolError
from dcmsync.net.arrivals import Arrivals
from dcmsync.net.channel import Begun, Channel, Gathered, Limits, ReleasedByPeer
from dcmsync.net.patience import Guard, Watch
from dcmsync.net.reports import Committing, Heard
from dcmsync.net.storing import Storing
from dcmsync.net.stream import Stream, connect
from dcmsync.net.tls import Secure, Spoken, handshake
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import commitment, operations
from dcmsync.wire.upperlayer import association as upper
from dcmsync.wire.upperlayer import codec
from dcmsync.wire.upperlayer import contexts as presentation
from dcmsync.wire.upperlayer.extension import Extension
from dcmsync.wire.upperlayer.identity import Identity

_CANCEL_GRACE_S = 2.0
_ADVICE = {  # by source and reason of a rejection (PS3.8 table 9-21)
    (1, 3): "Ask the administrator to register {}",
    (1, 7): "Check the AE title of the node: it goes by another one",
    (3, 2): "It grants no more associations now: try again later, or set max_associations",
}


class Peer(Struct, frozen=True, kw_only=True):
    """Whom to call, and as whom. Without `secure` in plain, and with it never.

    `identity` says who the user is; it is asked for each association, in a thread. With `identity_required` a peer
    that does not answer to it is left.
    """

    host: str
    port: int
    called_ae: str
    calling_ae: str
    secure: Secure | None = None
    identity: Callable[[], Identity] | None = None
    identity_required: bool = False

    @property
    def name(self) -> str:
        """`AET@host:port`, for messages; with TLS, `dicoms://` before it."""
        return f"{'dicoms://' if self.secure else ''}{self.called_ae}@{self.host}:{self.port}"


class Answer(Struct, frozen=True):
    """One message that answers an operation: its status, and its identifier, encoded, where it had one."""

    status: int
    identifier: bytes | None
    command: commands.Command
    transfer_syntax: str


@asynccontextmanager
async def associate(
    peer: Peer,
    proposed: Sequence[codec.ProposedContext],
    *,
    watch: Watch,
    limits: Limits,
    roles: Sequence[codec.Role] = (),
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[Association]:
    """An association with `peer`, closed in an orderly way at the end, or aborted when the body raises.

    Raises Unreachable, Rejected, Insecure, Stalled, Disconnected, RemoteProtocolError.
    """
    identity = await anyio.to_thread.run_sync(peer.identity) if peer.identity is not None else None
    stream = await _opened(peer, watch, limits)
    guard = stream.guard
    machine = upper.Association(is_requestor=True, max_pdu_octets=limits.max_pdu_octets)
    channel = Channel(stream, machine, limits)
    try:
        request = codec.AssociateRequest(
            called_ae=peer.called_ae,
            calling_ae=peer.calling_ae,
            contexts=tuple(proposed),
            roles=tuple(roles),
            extensions=tuple(extensions),
            identity=identity,
            max_pdu_octets=limits.max_pdu_octets,
        )
        guard.arm()
        accept = await _negotiate(channel, request)
        if identity is not None and peer.identity_required and accept.identity_response is None:
            raise Rejected(f"{peer.name}: the peer does not say that it accepts the user identity",
                           advice="Set identity_required = false if that will do")  # fmt: skip
        channel.contexts = presentation.accepted(request, accept)
        guard.disarm()
        association = Association(channel, accept)
        yield association
        guard.arm()
        with anyio.CancelScope(shield=True):
            await channel.close()
    except BaseException:
        await channel.abort()
        raise
    finally:
        watch.forget(guard)
        stream.close()


async def _opened(peer: Peer, watch: Watch, limits: Limits) -> Stream:
    """A connection to the peer, guarded, and secured where it is to be."""
    timeout_s = min(limits.connect_s, limits.timeout_s)
    raw = await connect(peer.host, peer.port, timeout_s=timeout_s)
    guard = watch.guard(raw, timeout_s=limits.timeout_s, whole_s=limits.association_s)
    try:
        secured = None
        if peer.secure is not None:
            secured = await handshake(raw, peer.secure, host=peer.host, name=peer.name, timeout_s=timeout_s)
        return Stream(raw, guard, peer.name, secured)
    except BaseException:
        watch.forget(guard)
        raw.close()
        raise


async def _negotiate(channel: Channel, request: codec.AssociateRequest) -> codec.AssociateAccept:
    name = channel.stream.name
    channel.machine.request(request)
    channel.machine.transport_opened()
    hint = "Does it want TLS? Then write dicoms://"
    if channel.stream.is_secured:  # with TLS 1.3 a server refuses us when the handshake is done
        hint = "Does it want a certificate of ours, or another one? Set certificate and key"
    try:
        events = await channel.wire_events()
    except Disconnected as error:
        raise Disconnected(error.message, advice=hint) from error
    for event in events:
        if isinstance(event, upper.Accepted):
            return event.accept
        if isinstance(event, upper.Rejected):
            reject = event.reject
            advice = _ADVICE.get((reject.source, reject.reason), "").format(request.calling_ae) or None
            if request.identity is not None and (reject.source, reject.reason) in ((1, 1), (2, 1)):  # no reason given
                advice = "Perhaps it does not accept the user identity"
            words = f"{name}: the association was {codec.reject_words(reject)}"
            raise Rejected(words, transient=reject.result == 2, advice=advice)
        if isinstance(event, upper.PeerFault):
            advice = event.error.advice or "Is this a DICOM port?"
            raise RemoteProtocolError(f"{name}: {event.error.message}", advice=advice)
        if isinstance(event, upper.Aborted):
            raise Rejected(f"{name}: the peer aborted the association while it was negotiated")
    raise Disconnected(f"{name}: the peer closed the connection while the association was negotiated", advice=hint)


class Association:
    """An established association, requestor's side. One operation at a time.

    `accept`: how the peer accepted it. `extensions`: what it agreed to by SOP Class Extended Negotiation.
    """

    def __init__(self, channel: Channel, accept: codec.AssociateAccept) -> None:
        self.accept = accept
        self.extensions = {extension.sop_class_uid: extension.octets for extension in accept.extensions}
        self._channel = channel
        self._guard = channel.stream.guard
        self._storing: Storing | None = None
        self._last_id = 0

    @property
    def contexts(self) -> tuple[presentation.Context, ...]:
        """What was accepted."""
        return tuple(self._channel.contexts.values())

    @property
    def is_open(self) -> bool:
        """Whether another operation may begin, as far as is known."""
        return self._channel.is_open

    @property
    def guard(self) -> Guard:
        """The deadline of the connection, for who knows of progress that this association does not see."""
        return self._guard

    @property
    def own_host(self) -> str:
        """The address by which we speak to the peer. Raises Disconnected, Stalled."""
        return self._channel.stream.own_host

    @property
    def peer_host(self) -> str:
        """The address of the peer. Raises Disconnected, Stalled."""
        return self._channel.stream.peer_host

    @property
    def spoken(self) -> Spoken | None:
        """What TLS it is secured by, if any."""
        return self._channel.stream.spoken

    def accepts(self, abstract_syntax: str) -> bool:
        """Whether a context for the abstract syntax was accepted."""
        return any(context.abstract_syntax == abstract_syntax for context in self._channel.contexts.values())

    def context_for(self, abstract_syntax: str, transfer_syntax: str | None = None) -> presentation.Context:
        """An accepted context for the abstract syntax (and transfer syntax). Raises Rejected when there is none."""
        for context in self._channel.contexts.values():
            if context.abstract_syntax == abstract_syntax and transfer_syntax in (None, context.transfer_syntax):
                return context
        raise Rejected(f"{self._channel.stream.name}: the peer accepts no presentation context for {abstract_syntax}")

    async def echo(self) -> int:
        """C-ECHO: the peer's status."""
        context = self.context_for(operations.VERIFICATION)
        conversation = operations.echo(self._next_id())
        final = 0
        async for answer in self._ask(context, conversation, ()):
            final = answer.status
        return final

    async def abort(self) -> None:
        """Ends the association at once."""
        await self._channel.abort()

    def progress(self) -> None:
        """An answer moved the work on: the deadline begins anew."""
        self._guard.progress()

    async def find(self, sop_class_uid: str, encode: Callable[[str], bytes]) -> AsyncGenerator[Answer, None]:
        """C-FIND: every answer, the final one last. `encode` gives the identifier in a transfer syntax.

        Answers alone are no progress: call `progress` for those that are. Closing the iterator early sends C-CANCEL.
        """
        context = self.context_for(sop_class_uid)
        conversation = operations.find(self._next_id(), sop_class_uid)
        try:
            async with aclosing(self._ask(context, conversation, (encode(context.transfer_syntax),))) as answers:
                async for answer in answers:
                    yield answer
        finally:
            if not conversation.finished:
                await self._cancel(context, conversation, drain=True)

    async def get(
        self, sop_class_uid: str, encode: Callable[[str], bytes], receiver: Receiver
    ) -> tuple[Answer, operations.Counts]:
        """C-GET: `receiver` is asked for each instance; gives the final answer and the peer's counts.

        Raises PeerError, LocalTrouble; an instance that was arriving then is discarded.
        """
        arrivals = Arrivals(self._channel, receiver)
        try:
            return await self._retrieve(operations.get(self._next_id(), sop_class_uid), encode, arrivals)
        finally:
            arrivals.drop("the association ended before the instance did")

    async def move(
        self, sop_class_uid: str, encode: Callable[[str], bytes], destination_ae: str, message_id: int | None = None
    ) -> tuple[Answer, operations.Counts]:
        """C-MOVE: gives the final answer and the peer's counts. What it sends goes to another association.

        Falling counts are progress; who takes the instances marks what else is, on `guard`. Raises PeerError.
        """
        return await self._retrieve(
            operations.move(message_id or self._next_id(), sop_class_uid, destination_ae), encode, None
        )

    async def store(self, parcel: Parcel, originator: operations.Originator | None = None) -> commands.Command:
        """C-STORE, on behalf of who asked for it by a C-MOVE: the peer's answer. Raises as Storing.store does."""
        self._storing = self._storing or Storing(self._channel)
        return await self._storing.store(parcel, self._next_id(), originator)

    async def commit(self, request: commitment.Request, heard: Heard) -> tuple[int, Committing]:
        """N-ACTION: the peer's status, and what hears the reports that come on this association. Raises PeerError."""
        context = self.context_for(commitment.PUSH_MODEL)
        committing = Committing(self._channel, heard)
        octets = commitment.encode_request(request, context.transfer_syntax)
        code = await committing.ask(context.context_id, commitment.action(self._next_id()), octets)
        return code, committing

    async def report(self, report: commitment.Report) -> int:
        """N-EVENT-REPORT: tells the result of a storage commitment. Gives the peer's status. Raises PeerError."""
        context = self.context_for(commitment.PUSH_MODEL)
        conversation = commitment.event_report(self._next_id(), report)
        octets = commitment.encode_report(report, context.transfer_syntax)
        final = 0
        async for answer in self._ask(context, conversation, (octets,)):
            final = answer.status
        return final

    async def _retrieve(
        self, conversation: operations.Conversation, encode: Callable[[str], bytes], arrivals: Arrivals | None
    ) -> tuple[Answer, operations.Counts]:
        """Asks by C-GET or C-MOVE, and hears the counts fall until the final answer."""
        context = self.context_for(conversation.request.sop_class_uid or "")
        least_remaining: int | None = None
        final: Answer | None = None
        try:
            async for answer in self._ask(context, conversation, (encode(context.transfer_syntax),), arrivals):
                final = answer
                counts = operations.counts(answer.command)
                if counts.remaining is not None and (least_remaining is None or counts.remaining < least_remaining):
                    if least_remaining is not None:
                        self._guard.progress()
                    least_remaining = counts.remaining
        finally:
            if not conversation.finished:
                await self._cancel(context, conversation, drain=False)
        assert final is not None  # `_answers` ends with the final one, or raises
        return final, operations.counts(final.command)

    async def _ask(
        self,
        context: presentation.Context,
        conversation: operations.Conversation,
        data: Sequence[bytes],
        arrivals: Arrivals | None = None,
    ) -> AsyncGenerator[Answer, None]:
        self._guard.arm()
        try:
            await self._channel.say(context.context_id, conversation.request, data)
            async with aclosing(self._answers(context, conversation, arrivals)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            self._guard.disarm()

    async def _answers(
        self, context: presentation.Context, conversation: operations.Conversation, arrivals: Arrivals | None
    ) -> AsyncGenerator[Answer, None]:
        """Answers until the final one; C-STORE sub-operations go to `arrivals` on the way."""
        name = self._channel.stream.name
        gathered = Gathered(self._channel.limits.max_identifier_octets)
        begun: commands.Command | None = None  # an answer whose identifier is still coming
        try:
            while not conversation.finished or begun is not None:
                answers: list[Answer] = []
                for event in await self._channel.messages():
                    if isinstance(event, Begun):
                        command = event.command
                        if command.field == commands.C_STORE_RQ and arrivals is not None:
                            arrivals.begin(event)
                            continue
                        conversation.answer(command)
                        if command.has_data_set:
                            begun = command
                        else:
                            answers.append(self._answer(command, None, context))
                    elif begun is not None:
                        identifier = gathered.take(event)
                        if identifier is not None:
                            answers.append(self._answer(begun, identifier, context))
                            begun = None
                    elif arrivals is not None:
                        arrivals.take(event)
                if arrivals is not None and arrivals.replies:
                    await arrivals.reply()
                for answer in answers:
                    yield answer
        except ReleasedByPeer:
            raise Disconnected(f"{name}: the peer released the association during {conversation.name}") from None
        except RemoteProtocolError as error:
            await self._channel.abort()
            raise RemoteProtocolError(f"{name}: {error.message.removeprefix(name + ': ')}") from error

    def _answer(self, command: commands.Command, identifier: bytes | None, context: presentation.Context) -> Answer:
        assert command.status is not None
        return Answer(command.status, identifier, command, context.transfer_syntax)

    async def _cancel(
        self, context: presentation.Context, conversation: operations.Conversation, *, drain: bool
    ) -> None:
        """Says C-CANCEL. With `drain` waits a while for the end of the answers, so that the association can go on.

        Many peers go on sending, or abort themselves; then the association ends here.
        """
        try:
            pieces = self._channel.pieces(context.context_id, conversation.cancel())
        except (DcmsyncError, ReleasedByPeer):
            return  # the association is over already
        self._channel.stream.send_now([bytes(piece) for piece in pieces])
        if drain:
            grace_s = min(_CANCEL_GRACE_S, self._channel.limits.timeout_s)
            self._guard.arm()
            with anyio.move_on_after(grace_s, shield=True), contextlib.suppress(PeerError):
                async for _ in self._answers(context, conversation, None):
                    pass
            self._guard.disarm()
        if not conversation.finished:
            await self._channel.abort()

    def _next_id(self) -> int:
        self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id
