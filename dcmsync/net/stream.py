"""One TCP socket: a reused receive buffer, gathered writes, and what keeps a lock-step peer fast.

Theory of operation: the socket is non-blocking; every read and write is tried first, and only when the kernel says
so is readiness awaited: to write by anyio, to read by asyncio itself, which then goes on watching. TCP_NODELAY keeps
our answers from waiting for company; TCP_QUICKACK, re-armed whenever a PDU is incomplete, keeps a peer without
TCP_NODELAY from waiting 40 ms for our acknowledgement (Nagle's algorithm meets delayed acknowledgement). Linux has the
latter; elsewhere it is left out.
"""

import asyncio
import errno
import mmap
import os
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from dcmsync.errors import Disconnected, PeerError, Stalled, Unreachable
from dcmsync.net.patience import Guard

if TYPE_CHECKING:
    from dcmsync.net.throttle import Throttle
    from dcmsync.net.tls import Secured, Spoken

BUFFER_OCTETS = 4 << 20
_BATCHES_IN_A_ROW = 4
_PACED_OCTETS = 64 << 10  # taken at once under a throttle, so that it makes many short waits of a long one
_PIECES_PER_WRITE = 1000  # IOV_MAX is 1024 on Linux and macOS
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class Stream:
    """A connected socket. One reader, one writer. `name` is how messages call the peer.

    With `secured`, that is what octets come from and go to; to wait, to guard and to close is the socket's as ever.
    """

    def __init__(
        self, connected: socket.socket, guard: Guard, name: str, secured: "Secured | None" = None
    ) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.guard = guard
        self.name = name
        self._socket = connected
        self._secured = secured
        self._link: socket.socket | Secured = secured or connected
        self._memory = mmap.mmap(-1, BUFFER_OCTETS, **_PRIVATE)
        self._buffer = memoryview(self._memory)
        self._start = 0
        self._end = 0
        self._unwaited = 0
        self._throttle: Throttle | None = None
        self._reader: asyncio.Future[None] | None = None  # who waits for octets
        self._watched: asyncio.AbstractEventLoop | None = None  # who watches the socket for us

    @property
    def pending(self) -> memoryview:
        """What has been received and not consumed. Valid until `receive` is called."""
        return self._buffer[self._start : self._end]

    @property
    def has_arrived(self) -> bool:
        """Whether `receive` would give something now, if only the end, without waiting."""
        if self._secured is not None:
            return self._secured.has_arrived
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed meanwhile; the next read will say so
            return True

    @property
    def own_host(self) -> str:
        """The address that the peer sees of us, as far as we can know. Raises Disconnected, Stalled."""
        try:
            return str(self._socket.getsockname()[0])
        except OSError as error:
            raise self._broken(error) from error

    @property
    def peer_host(self) -> str:
        """The address of the peer. Raises Disconnected, Stalled."""
        try:
            return str(self._socket.getpeername()[0])
        except OSError as error:
            raise self._broken(error) from error

    @property
    def is_secured(self) -> bool:
        """Whether TLS is on it."""
        return self._secured is not None

    @property
    def spoken(self) -> "Spoken | None":
        """What TLS is spoken on it, if any."""
        return None if self._secured is None else self._secured.spoken

    def slow_down(self, throttle: "Throttle | None") -> None:
        """From now on every octet, in or out, is paid for."""
        self._throttle = throttle

    def consume(self, octets: int) -> None:
        """Marks octets at the front of `pending` as used."""
        self._start += octets

    async def receive(self, *, is_early: bool = False) -> int:
        """Waits for more octets and appends them to `pending`: how many came, 0 at the end of the stream.

        `is_early`: nothing can have come yet, so that it need not be tried. Raises Stalled when the guard expired,
        Disconnected when the connection broke.
        """
        if is_early and self._secured is None:
            await self._readable()
        left = self._end - self._start
        if self._start:
            # What is left is less than a header, or the front of a small PDU.
            self._buffer[:left] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, left
        end = len(self._buffer) if self._throttle is None else min(left + _PACED_OCTETS, len(self._buffer))
        while True:
            try:
                count = self._link.recv_into(self._buffer[left:end])
            except BlockingIOError:
                await self._readable()
                continue
            except OSError as error:
                raise self._broken(error) from error
            if not count and self.guard.expired:
                raise Stalled(f"{self.name}: {self.guard.expired}")
            self._end += count
            await self._pay(count)
            return count

    async def breathe(self) -> None:
        """Lets other tasks, cancellation and signals have their turn; cheap enough for every batch.

        A peer that is faster than we are never makes us wait, and nothing else would ever run.
        """
        self._unwaited += 1
        if self._unwaited > _BATCHES_IN_A_ROW:
            self._unwaited = 0
            await anyio.lowlevel.checkpoint()

    def quick_ack(self) -> None:
        """Has the kernel acknowledge at once what has come so far. It does not stick: call it after each read."""
        if _QUICKACK is not None:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:  # the peer has gone; the next read will say so
                return

    async def send(self, pieces: Sequence[bytes | memoryview], *, is_payload: bool = False) -> None:
        """Writes all pieces, in order, without gathering them in memory. Payload counts as progress.

        Raises Stalled, Disconnected.
        """
        if len(pieces) <= _PIECES_PER_WRITE and self._throttle is None:
            # hot: all of a small instance goes out in one call
            try:
                sent = self._link.sendmsg(pieces)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise self._broken(error) from error
            if is_payload:
                self.guard.octets += sent
            left = _after(pieces, sent)
        else:
            left = list(pieces)
        first = 0
        while first < len(left):
            try:
                sent = self._link.sendmsg(left[first : first + _PIECES_PER_WRITE])
            except BlockingIOError:
                await self._wait(anyio.wait_writable)
                continue
            except OSError as error:
                raise self._broken(error) from error
            if is_payload:
                self.guard.octets += sent
            await self._pay(sent)
            while first < len(left) and sent >= len(left[first]):
                sent -= len(left[first])
                first += 1
            if sent:
                left[first] = memoryview(left[first])[sent:]

    def send_now(self, pieces: Sequence[bytes]) -> None:
        """Writes what the kernel takes without waiting; for farewells on the way out."""
        try:
            self._link.sendmsg(list(pieces))
        except (OSError, PeerError):
            return

    def close(self) -> None:
        """Closes the socket, and gives the memory of the buffer back. Idempotent."""
        if self._secured is not None:
            self._secured.close_notify()
        self._unwatch()
        self._socket.close()
        self._buffer, self._start, self._end = memoryview(b""), 0, 0
        if hasattr(self._memory, "madvise"):  # slices of it lie in the tracebacks of errors, until those are collected
            self._memory.madvise(mmap.MADV_DONTNEED)

    async def _pay(self, octets: int) -> None:
        """Waits as long as the throttle says. Meanwhile it is we who make the peer wait."""
        if self._throttle is None:
            return
        was_armed = self.guard.armed
        self.guard.pause()
        await self._throttle.pay(octets)
        if was_armed:
            self.guard.resume()

    async def _readable(self) -> None:
        """Waits until octets can be read, or the end. The loop goes on watching until something comes unawaited.

        hot: to send 10,000 instances of 9 kB takes 1.8 s of CPU so, and 1.9 s where each wait registers with epoll, as
        anyio.wait_readable does (best of 5, 2 shared cores, 2026-11).
        """
        self._unwaited = 0
        loop = asyncio.get_running_loop()
        self._reader = loop.create_future()
        try:
            if self._watched is None:
                loop.add_reader(self._socket, self._is_readable)
                self._watched = loop
            await self._reader
        except (OSError, ValueError) as error:
            raise self._broken(error) from error
        finally:
            self._reader = None

    def _is_readable(self) -> None:
        if self._reader is None:
            self._unwatch()
        elif not self._reader.done():
            self._reader.set_result(None)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._watched.remove_reader(self._socket)
            self._watched = None

    async def _wait(self, ready: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._unwaited = 0
        try:
            await ready(self._socket)
        except (anyio.ClosedResourceError, anyio.BusyResourceError, OSError, ValueError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> Stalled | Disconnected:
        if self.guard.expired:
            return Stalled(f"{self.name}: {self.guard.expired}")
        return Disconnected(f"{self.name}: the connection broke: {getattr(error, 'strerror', None) or error}")


def close_socket(connected: socket.socket) -> None:
    """Closes a socket that a stream may have left watched: its number may be that of another one soon. Idempotent."""
    if connected.fileno() >= 0:
        asyncio.get_running_loop().remove_reader(connected)
    connected.close()


def _after(pieces: Sequence[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """What is left of the pieces."""
    for index, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[index + 1 :]]
        sent -= len(piece)
    return []


async def connect(host: str, port: int, *, timeout_s: float) -> socket.socket:
    """A connected, non-blocking socket to host:port, each address tried in turn. Raises Unreachable."""
    with anyio.move_on_after(timeout_s):
        try:
            addresses = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(f"{host}: no such host: {error.strerror}", advice="Check the name") from error
        failure: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            try:
                return await _connect_one(family, kind, protocol, address)
            except OSError as error:
                failure = error
        words = (failure.strerror if failure else None) or "no address"
        raise Unreachable(
            f"{host}:{port}: cannot connect: {words.lower()}",
            advice="Check the host, the port, and that the node is running",
        ) from failure
    raise Unreachable(f"{host}:{port}: no answer within {timeout_s:g} s", advice="Check the host and the firewall")


async def _connect_one(family: int, kind: int, protocol: int, address: tuple[str, int]) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        result = made.connect_ex(address)
        if result == errno.EINPROGRESS:
            await anyio.wait_writable(made)
            result = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise OSError(result, os.strerror(result))
    except BaseException:
        made.close()
        raise
    return made
