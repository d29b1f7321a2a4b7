"""A scripted web server: HTTP/1.1 on raw sockets, so that it can misbehave in every way that matters.

    with Web(Reply(body=b"[]", headers={"Content-Type": "application/dicom+json"})) as web:
        ... web.url ...                      # http://127.0.0.1:PORT
    web.seen[0].target                       # the raw request target, as it came

What it is given are replies: one for each request in turn, the last one again and again; or a function from what was
asked (`Seen`) to a Reply. It runs in threads, one for each connection, on a free port of the loopback interface. With
`tls` (a tests.certs.Pem) it speaks TLS, with `client_ca` it wants a certificate.
"""

import gzip
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qsl, urlsplit

from tests.certs import Pem

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Seen:
    """A request that came to its end. `headers` by lower-case name (the last of a kind); `connection` counts from 0."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int = 0
    chunks: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        """Names and values of the query, decoded."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)


@dataclass(frozen=True)
class Reply:
    """What to answer, and how badly.

    `framing`: Content-Length, chunks of `piece` octets, or until the connection closes. `cut`: so many octets of the
    framed body are sent, then the connection is closed. `reset`: the connection is reset before anything is sent, or
    after the head. `pause_s` is waited (or until `go_on` is set) between pieces; `late_s` before the head. `closes`:
    after the answer, without saying so. `is_early`: answers before the body of the request is read. `raw`: these octets
    instead of everything.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    framing: Literal["length", "chunked", "close"] = "length"
    reason: str = "Whatever"
    piece: int = 1 << 16
    cut: int | None = None
    reset: Literal["", "before", "after head"] = ""
    pause_s: float = 0.0
    late_s: float = 0.0
    go_on: threading.Event | None = None
    closes: bool = False
    gzipped: bool = False
    is_early: bool = False
    raw: bytes | None = None


Script = Reply | Callable[[Seen], Reply]


class Web:
    """The server; a context manager."""

    def __init__(self, *script: Script, tls: Pem | None = None, client_ca: Path | None = None) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._script = script or (Reply(404),)
        self._context = _context(tls, client_ca) if tls else None
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """Its root, without a slash."""
        return f"{'https' if self._context else 'http'}://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        with self._lock:
            for each in (self._listener, *self._open):
                _shut(each)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _begin(self, what: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(plain)
                number = self.connections
                self.connections += 1
            self._begin(self._converse, plain, number)

    def _converse(self, plain: socket.socket, number: int) -> None:
        link = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                link = self._context.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(link)
            stream = link.makefile("rb")
            with stream:
                while self._one(link, stream, number):
                    pass
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(link)
                self._open.discard(plain)
            link.close()

    def _one(self, link: socket.socket, stream, number: int) -> bool:  # type: ignore[no-untyped-def]
        """One request and its reply: whether the connection stays."""
        line = stream.readline(1 << 16)
        if not line.strip():
            return False
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (text := stream.readline(1 << 16).decode("latin-1").strip()):
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        early = Seen(method, target, headers, b"", number)
        with self._lock:
            script = self._script[min(len(self.seen), len(self._script) - 1)]
            if isinstance(script, Reply) and script.is_early:
                self.seen.append(early)
        if isinstance(script, Reply) and script.is_early:
            self._reply(link, script, early)
            _linger(link)
            return False
        body, chunks = _read_body(stream, headers)
        seen = Seen(method, target, headers, body, number, chunks)
        with self._lock:
            script = self._script[min(len(self.seen), len(self._script) - 1)]
            self.seen.append(seen)
        return self._reply(link, script if isinstance(script, Reply) else script(seen), seen)

    def _reply(self, link: socket.socket, reply: Reply, seen: Seen) -> bool:
        if reply.late_s:
            self._over.wait(reply.late_s)
        if reply.reset == "before":
            return _reset(link)
        if reply.raw is not None:
            link.sendall(reply.raw)
            return False
        body = gzip.compress(reply.body, 6, mtime=0) if reply.gzipped else reply.body
        headers = {name.lower(): (name, value) for name, value in reply.headers.items()}
        if reply.gzipped:
            headers["content-encoding"] = ("Content-Encoding", "gzip")
        if reply.framing == "length" and reply.status != 204:
            headers.setdefault("content-length", ("Content-Length", str(len(body))))
        elif reply.framing == "chunked":
            headers["transfer-encoding"] = ("Transfer-Encoding", "chunked")
        else:
            headers["connection"] = ("Connection", "close")
        head = f"HTTP/1.1 {reply.status} {reply.reason}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.values())
        link.sendall(head.encode("utf-8") + b"\r\n")
        if reply.reset == "after head":
            return _reset(link)
        if seen.method != "HEAD":
            octets = _chunked(body, reply.piece) if reply.framing == "chunked" else body
            self._send(link, reply, octets if reply.cut is None else octets[: reply.cut])
        return not (reply.closes or reply.cut is not None or reply.framing == "close")

    def _send(self, link: socket.socket, reply: Reply, octets: bytes) -> None:
        if not (reply.pause_s or reply.go_on):
            link.sendall(octets)
            return
        for start in range(0, len(octets), reply.piece):
            link.sendall(octets[start : start + reply.piece])
            if reply.go_on is not None:
                reply.go_on.wait(30)
            elif self._over.wait(reply.pause_s):
                return


def _read_body(stream, headers: Mapping[str, str]) -> tuple[bytes, tuple[int, ...]]:  # type: ignore[no-untyped-def]
    """The body of a request, and the sizes of the chunks that it came in."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        found, sizes = [], []
        while size := int(stream.readline().partition(b";")[0], 16):
            found.append(stream.read(size))
            sizes.append(size)
            stream.readline()
        while stream.readline().strip():
            pass
        return b"".join(found), tuple(sizes)
    size = int(headers.get("content-length", "0"))
    body = stream.read(size)
    if len(body) < size:
        raise ConnectionError("the request broke off")
    return body, ()


def _chunked(body: bytes, piece: int) -> bytes:
    parts = [body[start : start + piece] for start in range(0, len(body), piece)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _reset(link: socket.socket) -> bool:
    """Has the peer see a reset connection, not an orderly end."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _linger(link: socket.socket) -> None:
    """Ends our direction, and reads what still comes, so that the answer is not lost with it."""
    link.shutdown(socket.SHUT_WR)
    while link.recv(1 << 20):
        pass


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _context(tls: Pem, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
