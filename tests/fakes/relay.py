"""A relay that notes what passes: whole conversations, PDU by PDU, in the order in which they went by.

    with Relay(host, port) as relay:
        ... call 127.0.0.1, relay.port; one association after the other
    relay.conversations        # lists of Said

A PDU counts as said when its last octet has come.
"""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Literal, NamedTuple, Self

HOST = "127.0.0.1"
Side = Literal["client", "server"]


class Said(NamedTuple):
    """One PDU, whole, and who said it."""

    side: Side
    pdu: bytes


class Relay:
    """A context manager; connections end with it."""

    def __init__(self, host: str, port: int) -> None:
        self.conversations: list[list[Said]] = []
        self._to = (host, port)
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._start(self._serve)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in (self._listener, *self._sockets):
            one.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="relay")  # type: ignore[arg-type]  # callable
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                said: list[Said] = []
                self.conversations.append(said)
                self._start(self._pass, client, server, "client", said)
                self._start(self._pass, server, client, "server", said)

    def _pass(self, come: socket.socket, go: socket.socket, side: Side, said: list[Said]) -> None:
        octets = b""
        with suppress(OSError):
            come.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while more := come.recv(1 << 16):
                octets += more
                with self._lock:  # noted before it is passed on, so that no answer comes before its question
                    while len(octets) >= 6 and len(octets) >= (end := 6 + int.from_bytes(octets[2:6], "big")):
                        said.append(Said(side, octets[:end]))
                        octets = octets[end:]
                go.sendall(more)
            go.shutdown(socket.SHUT_WR)
