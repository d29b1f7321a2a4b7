"""The acceptor's side: listens, negotiates, and runs one handler an association until the peer leaves.

Owns sockets, limits on their number, and deadlines. Refuses to know any service: who may come and which contexts are
accepted is asked of `decide`, what happens on an association is `serve`.

Theory of operation: one task accepts, one task a connection. A connection has `connect_s` for its A-ASSOCIATE-RQ as a
whole (ARTIM, PS3.8 §9.1.5); afterwards the guard closes it when `timeout_s` pass without progress, idleness included.
Connections that have not asked yet are bounded too; beyond that nothing is accepted until one goes. Whatever an
association ends with is told to `closed` and goes no further: the node lives on.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import anyio
import anyio.abc
from msgspec import Struct

from dcmsync.errors import DcmsyncError, Disconnected, Insecure, LocalTrouble, Rejected
from dcmsync.net.channel import Channel, Limits, ReleasedByPeer
from dcmsync.net.patience import Guard, Watch
from dcmsync.net.stream import Stream, close_socket
from dcmsync.net.tls import Secure, handshake
from dcmsync.wire.upperlayer import association as upper
from dcmsync.wire.upperlayer import codec
from dcmsync.wire.upperlayer import contexts as presentation

LOCAL_LIMIT_EXCEEDED = codec.AssociateReject(2, 3, 2)  # PS3.8 table 9-21: transient, presentation, local limit
STRANGER = codec.AssociateReject(1, 1, 1)  # permanent, service-user, no reason given
_BACKLOG = 128
WAITING_CONNECTIONS = 64  # that have not asked for anything yet
_FAREWELL_S = 2.0
_BREATH_S = 0.1  # after the machine has refused a socket

Decide = Callable[[codec.AssociateRequest], codec.AssociateAccept | codec.AssociateReject]


class Visit:
    """One association as its handler sees it. The handler keeps `is_idle`: true while it waits for a request."""

    def __init__(self, channel: Channel, host: str, port: int, request: codec.AssociateRequest) -> None:
        self.channel = channel
        self.host = host
        self.port = port
        self.request = request
        self.roles: tuple[codec.Role, ...] = ()
        self.is_idle = True
        self.is_ending = False  # leave after the operation in flight
        self.scope = anyio.CancelScope()

    @property
    def calling_ae(self) -> str:
        """As whom the peer came."""
        return self.request.calling_ae


class Settings(Struct, frozen=True, kw_only=True):
    """How to listen, and whom to ask. `opened` and `closed` frame `serve`; an exception of theirs ends the node.

    `admits` says whether an address may come at all; where it may not, `decide` is not asked. With `secure` all who
    come speak TLS, and nobody is heard in plain.
    """

    host: str
    port: int
    decide: Decide
    admits: Callable[[str], bool] = lambda host: True
    serve: Callable[[Visit], Awaitable[None]]
    opened: Callable[[Visit], None] = lambda visit: None
    closed: Callable[[Visit, Exception | None], None] = lambda visit, why: None
    turned_away: Callable[[str, Exception], None] = lambda address, why: None
    max_associations: int = 32
    secure: Secure | None = None


class Listener:
    """A bound socket and the associations that came of it."""

    def __init__(self, settings: Settings, limits: Limits, watch: Watch) -> None:
        """Binds; from here on peers may connect. Raises LocalTrouble."""
        self._settings = settings
        self._limits = limits
        self._watch = watch
        self._visits: set[Visit] = set()
        self._patiences: set[anyio.CancelScope] = set()  # of connections that have not asked yet
        self._is_stopping = False
        self._accepting: anyio.CancelScope | None = None
        self._socket = bound(settings.host, settings.port)
        self.host, self.port = self._socket.getsockname()[:2]

    async def run(self) -> None:
        """Accepts until `stop`; returns when the last association has ended. Cancel it to abort them."""
        try:
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as self._accepting:
                    if not self._is_stopping:
                        most = self._settings.max_associations + WAITING_CONNECTIONS
                        await accept_each(self._socket, most, lambda *given: tasks.start_soon(self._attend, *given))
                self.close()
        finally:
            self.close()

    def stop(self) -> None:
        """Accepts no more, ends idle associations now, and the others after what they are doing. Idempotent."""
        self._is_stopping = True
        if self._accepting is not None:
            self._accepting.cancel()
        for patience in self._patiences:
            patience.cancel()
        for visit in self._visits:
            visit.is_ending = True
            if visit.is_idle:
                visit.scope.cancel()

    def close(self) -> None:
        """Closes the socket that listens. Idempotent."""
        self._socket.close()

    async def _attend(self, connected: socket.socket, host: str, port: int, leave: Callable[[], None]) -> None:
        guard = self._watch.guard(connected, timeout_s=self._limits.timeout_s, whole_s=self._limits.association_s)
        try:
            visit = await self._welcome(connected, guard, host, port)
            if visit is not None:
                await self._host(visit, guard)
        finally:
            self._watch.forget(guard)
            close_socket(connected)
            leave()

    async def _welcome(self, connected: socket.socket, guard: Guard, host: str, port: int) -> Visit | None:
        """The association that was agreed on; None where none was."""
        name = f"{host}:{port}"
        channel: Channel | None = None
        try:
            with anyio.move_on_after(self._limits.connect_s) as patience, self._waiting(patience):
                channel = await self._channel(connected, guard, name)
                request = await _request(channel)
                decision = self._decide(request, host)
                if isinstance(decision, codec.AssociateReject):
                    self._settings.turned_away(name, Rejected(f"{request.calling_ae!r} {codec.reject_words(decision)}"))
                    await _reject(channel, decision)
                    channel.stream.close()
                    return None
                visit = Visit(channel, host, port, request)
                visit.roles = decision.roles
                channel.contexts = presentation.accepted(request, decision)
                channel.machine.accept(decision, peer_max_pdu_octets=request.max_pdu_octets)
                self._visits.add(visit)
                return visit
            self._settings.turned_away(name, Disconnected(f"no request within {self._limits.connect_s:g} s"))
        except DcmsyncError as error:
            self._settings.turned_away(name, error)
        except Exception as error:  # noqa: BLE001  # one connection's failure is told, and never ends the node
            self._settings.turned_away(name, error)
        if channel is not None:
            await channel.abort()
            channel.stream.close()
        return None

    async def _channel(self, connected: socket.socket, guard: Guard, name: str) -> Channel:
        """What carries the messages of a connection, secured where it is to be. Raises PeerError."""
        connected.setblocking(False)
        secured = None
        if self._settings.secure is not None:
            connect_s = self._limits.connect_s
            try:
                secured = await handshake(connected, self._settings.secure, host=None, name=name, timeout_s=connect_s)
            except Insecure:
                await _linger(connected)
                raise
        machine = upper.Association(is_requestor=False, max_pdu_octets=self._limits.max_pdu_octets)
        return Channel(Stream(connected, guard, name, secured), machine, self._limits)

    @contextmanager
    def _waiting(self, patience: anyio.CancelScope) -> Iterator[None]:
        self._patiences.add(patience)
        try:
            yield
        finally:
            self._patiences.discard(patience)

    def _decide(self, request: codec.AssociateRequest, host: str) -> codec.AssociateAccept | codec.AssociateReject:
        if not self._settings.admits(host):
            return STRANGER
        if self._is_stopping or len(self._visits) >= self._settings.max_associations:
            return LOCAL_LIMIT_EXCEEDED
        return self._settings.decide(request)

    async def _host(self, visit: Visit, guard: Guard) -> None:
        why: Exception | None = None
        try:
            self._settings.opened(visit)
            with visit.scope:
                try:
                    guard.arm()
                    await visit.channel.stream.send(visit.channel.machine.data_to_send())
                    await self._settings.serve(visit)
                except ReleasedByPeer:
                    pass
                except Exception as error:  # noqa: BLE001  # one association's failure is told, and never ends the node
                    why = error
            guard.disarm()
            await visit.channel.abort()  # does nothing after a release
            visit.channel.stream.close()
        finally:
            self._visits.discard(visit)
        self._settings.closed(visit, why)


async def accept_each(
    listening: socket.socket, most: int, start: Callable[[socket.socket, str, int, Callable[[], None]], object]
) -> None:
    """Starts something for each connection, from a host and a port, until it is cancelled.

    No more than `most` are there at a time: what was started calls what it was given, last, when one ends.
    """
    places = anyio.Semaphore(most)
    while True:
        await places.acquire()
        connected, (host, port) = await _accept(listening)
        start(connected, host, port, places.release)


async def _accept(listening: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """The next connection, and from where it comes."""
    while True:
        try:
            connected, address = listening.accept()
            return connected, (address[0], address[1])
        except BlockingIOError:
            await anyio.wait_readable(listening)
        except ConnectionError:  # gone before we looked
            continue
        except OSError:  # no descriptor or no memory left: others must leave first
            await anyio.sleep(_BREATH_S)


async def _linger(connected: socket.socket) -> None:
    """Lets the peer read why it is refused: a socket that is closed with octets unread resets the connection."""
    with anyio.move_on_after(_FAREWELL_S), suppress(OSError):
        connected.shutdown(socket.SHUT_WR)
        while True:
            await anyio.wait_readable(connected)
            if not connected.recv(1 << 16):
                return


async def _request(channel: Channel) -> codec.AssociateRequest:
    """The request that opens an association. Raises Disconnected, RemoteProtocolError."""
    channel.machine.transport_opened()
    for event in await channel.wire_events():
        if isinstance(event, upper.Requested):
            return event.request
        if isinstance(event, upper.PeerFault):
            raise event.error
    raise Disconnected("left without asking for an association")


async def _reject(channel: Channel, reject: codec.AssociateReject) -> None:
    """Says no, and waits for the requestor to close, as PS3.8 §9.2.3 (AE-8) has it."""
    channel.machine.reject(reject)
    await channel.stream.send(channel.machine.data_to_send())
    with anyio.move_on_after(_FAREWELL_S):
        await channel.wire_events()


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there, and does not block. Raises LocalTrouble."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise LocalTrouble(f"{host}: no such address: {error.strerror}", advice="Check --bind") from error
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":  # all addresses of this machine, IPv4 among them
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        words = (error.strerror or "unknown error").lower()
        raise LocalTrouble(f"cannot listen on {host}:{port}: {words}", advice="Choose another port") from error
    return made
