"""The HTTP side of the node: listens, admits, and lets requests be answered over the same folder as DIMSE.

Owns sockets, the number of connections and of requests at a time, and deadlines. Refuses to know resources (`routing`
does), and to write anything that a peer sent to a log.

Theory of operation: aiohttp frames messages; connections are accepted here, as for DIMSE. Each has a guard, which runs
while the client owes us something: octets of a body, or that it takes those of an answer. The head of a request must
be there `_IDLE_S` after the connection was made or the last answer given, which also ends connections that idle.
Beyond `max_associations` requests at a time, others wait for their turn. A response that cannot go on ends with the
connection, so that no client can take a part for the whole.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address
from typing import cast

import anyio
from aiohttp import hdrs, web
from msgspec import Struct

from dcmsync.errors import DcmsyncError, LocalTrouble
from dcmsync.net.channel import Limits
from dcmsync.net.listener import WAITING_CONNECTIONS, accept_each, bound
from dcmsync.net.patience import Guard, Watch
from dcmsync.net.tls import Secure
from dcmsync.node.archive import Archive
from dcmsync.node.web import answering, routing
from dcmsync.node.web.asked import House, Tally
from dcmsync.node.web.refusing import Refusal

_IDLE_S = 30.0
_HANDSHAKE_S = 20.0
_LINGERING_S = 2.0  # in which what is left of a body that nobody wants may still come
_LINE_OCTETS = 8190
_MOST_HEADERS = 100
_READ_OCTETS = 1 << 18

Event = Mapping[str, object]

_SILENT = logging.Logger("dcmsync.web")  # aiohttp's own lines would quote requests on standard error
_SILENT.addHandler(logging.NullHandler())


class Settings(Struct, frozen=True, kw_only=True):
    """Where to listen. With `secure` all who come speak TLS."""

    host: str
    port: int
    secure: Secure | None = None
    max_requests: int = 32


class Web:
    """A bound socket and the connections that came of it."""

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        watch: Watch,
        archive: Archive,
        *,
        admits: Callable[[str], bool],
        say: Callable[[Event], None],
        warn: Callable[[str], None],
    ) -> None:
        """Binds; from here on clients may connect. `admits` says of an address if it may. Raises LocalTrouble."""
        self._settings = settings
        self._admits = admits
        self._limits = limits
        self._watch = watch
        self._say = say
        self._warn = warn
        self._connections: set[_Connection] = set()
        self._is_stopping = False
        self._accepting: anyio.CancelScope | None = None
        self._turns = anyio.Semaphore(settings.max_requests)
        self._socket = bound(settings.host, settings.port)
        host, port = self._socket.getsockname()[:2]
        self._is_loopback = ip_address(host).is_loopback
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.url = f"{'https' if settings.secure else 'http'}://{authority}"
        self._house = House(
            archive=archive, authority=authority, timeout_s=limits.timeout_s,
            max_instance_octets=limits.max_instance_octets,
        )  # fmt: skip

    async def run(self) -> None:
        """Accepts until `stop`; returns when the last connection has ended. Cancel it to abort them."""
        server = web.Server(self._answer, handler_cancellation=True)
        try:
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as self._accepting:
                    if not self._is_stopping:
                        most = self._settings.max_requests + WAITING_CONNECTIONS
                        attend = partial(self._attend, server)
                        await accept_each(self._socket, most, lambda *given: tasks.start_soon(attend, *given))
                self.close()
        finally:
            self.close()

    def stop(self) -> None:
        """Accepts no more, ends idle connections now, and the others after their answer. Idempotent."""
        self._is_stopping = True
        if self._accepting is not None:
            self._accepting.cancel()
        for connection in self._connections:
            if not connection.work.locked():
                connection.force_close()

    def close(self) -> None:
        """Closes the socket that listens. Idempotent."""
        self._socket.close()

    async def _attend(
        self, server: web.Server, connected: socket.socket, host: str, port: int, leave: Callable[[], None]
    ) -> None:
        peer = f"{host}:{port}"
        guard = self._watch.guard(connected, timeout_s=self._limits.timeout_s, whole_s=self._limits.association_s)
        try:
            if not self._admits(host):
                self._turned_away(peer, "rejected", "its address is not among those that may come")
                return
            connection = await self._welcome(server, connected, guard, peer)
            if connection is not None:
                await self._host(connection, peer)
        finally:
            self._watch.forget(guard)
            connected.close()
            leave()

    async def _welcome(
        self, server: web.Server, connected: socket.socket, guard: Guard, peer: str
    ) -> _Connection | None:
        """The connection, secured where it is to be; None where that failed."""
        timeout_s = self._limits.timeout_s
        loop = asyncio.get_running_loop()
        make = partial(
            _Connection, server, guard, loop=loop, keepalive_timeout=min(timeout_s / 2, _IDLE_S), logger=_SILENT,
            access_log=None, max_line_size=_LINE_OCTETS, max_field_size=_LINE_OCTETS, max_headers=_MOST_HEADERS,
            lingering_time=_LINGERING_S, read_bufsize=_READ_OCTETS, auto_decompress=False,
        )  # fmt: skip
        secure = self._settings.secure
        context = secure.context if secure is not None else None
        try:
            _, connection = await loop.connect_accepted_socket(
                make, connected, ssl=context,
                ssl_handshake_timeout=min(timeout_s, _HANDSHAKE_S) if context is not None else None,
            )  # fmt: skip
        except OSError:
            self._turned_away(peer, "insecure", "it does not speak TLS as is asked for here")
            return None
        return connection

    async def _host(self, connection: _Connection, peer: str) -> None:
        """Waits for the connection to end, and for what still works for it."""
        self._connections.add(connection)
        self._say({"type": "connection", "event": "opened", "peer": peer})
        connection.guard.arm()
        try:
            if self._is_stopping:
                connection.force_close()
            await connection.lost.wait()
        finally:
            with anyio.CancelScope(shield=True):
                connection.abort()
                await connection.lost.wait()
                async with connection.work:
                    self._connections.discard(connection)
            tally = connection.tally
            event: dict[str, object] = {
                "type": "connection", "event": "closed", "peer": peer, "requests": tally.requests,
                "found": tally.found, "sent": tally.sent, "stored": tally.stored, "failed": tally.failed,
            }  # fmt: skip
            if connection.guard.expired:
                event["reason"] = "stalled"
                self._warn(f"{peer}: {connection.guard.expired}")
            self._say(event)

    def _turned_away(self, peer: str, reason: str, words: str) -> None:
        self._say({"type": "connection", "event": "refused", "peer": peer, "reason": reason})
        self._warn(f"{peer}: turned away: {words}")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request; aiohttp calls it for each, one after the other on one connection."""
        connection = cast(_Connection, request.protocol)  # we made it
        guard = connection.guard
        async with connection.work:
            guard.progress()
            guard.pause()
            connection.tally.requests += 1
            try:
                response = await self._in_turn(request, connection)
            finally:
                guard.progress()
                guard.resume()
            if self._is_stopping:
                response.force_close()
            return response

    async def _in_turn(self, request: web.BaseRequest, connection: _Connection) -> web.StreamResponse:
        """The answer, or why there is none. Raises ConnectionError when a part of it has gone out already."""
        try:
            try:
                with anyio.fail_after(self._limits.timeout_s):
                    await self._turns.acquire()
            except TimeoutError:
                raise Refusal(503, "busy: try again later", {hdrs.RETRY_AFTER: "10"}) from None
            try:
                return await routing.answer(
                    request, self._house, connection.guard, connection.tally, is_loopback=self._is_loopback
                )
            finally:
                self._turns.release()
        except ConnectionError:
            raise
        except Refusal as refusal:
            response = answering.words(refusal.status, refusal.words, refusal.headers)
        except (LocalTrouble, OSError) as trouble:
            why = trouble.message if isinstance(trouble, LocalTrouble) else trouble.strerror
            self._warn(f"a request failed: {why}")
            response = answering.words(500, "trouble on this machine: try again later")
        except Exception as error:  # noqa: BLE001  # one request's failure is told, and never ends the node
            self._warn(_words(error))
            response = answering.words(500, "a bug in dcmsync")
        if request.writer.output_size:
            connection.abort()
            raise ConnectionAbortedError
        return response


class _Connection(web.RequestHandler):
    """One connection of aiohttp's, with what we need to know of it. `work` is held while a request is answered."""

    def __init__(self, server: web.Server, guard: Guard, **settings: object) -> None:
        super().__init__(server, **settings)  # type: ignore[arg-type]  # those of `_welcome`
        self.guard = guard
        self.tally = Tally()
        self.work = anyio.Lock()
        self.lost = anyio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self.lost.set()

    def abort(self) -> None:
        """Ends it at once. Idempotent."""
        if self.transport is not None:
            self.transport.abort()


def _words(error: Exception) -> str:
    """Words for people. Text of unknown exceptions may quote a data set, so only their type and place are shown."""
    if isinstance(error, DcmsyncError):
        return f"a request failed: {error.message}"
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" at line {place.tb_lineno} of {place.tb_frame.f_globals.get('__name__', '?')}" if place else ""
    return f"a bug in dcmsync: {type(error).__name__}{where}; the request was not answered"
