"""HTTP under the test's control: requests by the standard library, and octets that are no good HTTP.

    reply = webclient.ask(url, "/studies?PatientID=A", accept="application/dicom+json")
    reply.status, reply.headers["content-type"], reply.body, reply.json, reply.parts

    with webclient.Wire(url) as wire:            # what goes out is what the test says
        wire.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
        head, body = wire.reply()
"""

import email
import email.policy
import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

DEADLINE_S = 20.0
BOUNDARY = "a5c1b2d3e4f5a6b7"
STOW = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@dataclass(frozen=True)
class Reply:
    """An answer that was read to its end. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def parts(self) -> list[bytes]:
        """The parts of a multipart body, as Python's mail parser finds them."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        assert message.is_multipart() and not message.defects, message.defects
        return [part.get_payload(decode=True) for part in message.iter_parts()]  # type: ignore[union-attr]

    @property
    def words(self) -> str:
        """What the body says to people."""
        return self.body.decode().rstrip("\n")


def connect(url: str, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection that is kept."""
    at = urlsplit(url)
    if at.scheme == "https":
        return http.client.HTTPSConnection(at.hostname or "", at.port, timeout=DEADLINE_S, context=context)
    return http.client.HTTPConnection(at.hostname or "", at.port, timeout=DEADLINE_S)


def ask(
    url: str | http.client.HTTPConnection, path: str, method: str = "GET", *,
    body: bytes | Iterable[bytes] | None = None, context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] = {}, accept: str = "",
) -> Reply:  # fmt: skip
    """One request, and all of its answer. Raises http.client.IncompleteRead when that breaks off."""
    connection = connect(url, context) if isinstance(url, str) else url
    try:
        connection.request(method, path, body=body, headers={**({"Accept": accept} if accept else {}), **headers})
        with connection.getresponse() as answer:
            names: dict[str, str] = {}
            for name, value in answer.getheaders():
                names[name.lower()] = ", ".join(filter(None, (names.get(name.lower()), value)))
            return Reply(answer.status, names, answer.read())
    finally:
        if isinstance(url, str):
            connection.close()


@contextmanager
def breaking_off(url: str, path: str) -> Iterator[None]:
    """A request whose answer has begun when the block is entered, and is not to come to its end after it.

    It has room for little: the kernel may else take 32 MB of an answer that nobody reads.
    """
    connection = connect(url)
    connection.sock = socket.socket()
    try:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sock.connect((connection.host, connection.port))
        connection.request("GET", path)
        with connection.getresponse() as answer:
            assert answer.status == 200 and answer.read(1)  # what is being sent is open by now
            yield
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                answer.read()
    finally:
        connection.close()


def multipart(*parts: bytes, media_type: str = "application/dicom", is_closed: bool = True) -> bytes:
    """A body of such parts."""
    head = f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + (f"--{BOUNDARY}--\r\n".encode() if is_closed else b"")


def store(url: str | http.client.HTTPConnection, *parts: bytes, path: str = "/studies", **more: Any) -> Reply:
    """STOW-RS of files."""
    return ask(url, path, "POST", body=multipart(*parts), headers={"Content-Type": STOW}, **more)


class Wire:
    """A connection that sends exactly what it is told to."""

    def __init__(self, url: str, source: str | None = None) -> None:
        at = urlsplit(url)
        self.socket = socket.create_connection(
            (at.hostname or "", at.port or 80), timeout=DEADLINE_S, source_address=(source, 0) if source else None
        )
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """Octets go out."""
        self.socket.sendall(octets)

    def reply(self) -> tuple[int, bytes]:
        """The status of the next answer with a Content-Length, and its body."""
        line = self._reader.readline()
        assert line.startswith(b"HTTP/1."), line
        length = 0
        while (header := self._reader.readline().rstrip()) != b"":
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return int(line.split()[1]), self._reader.read(length)

    def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        got = b""
        try:
            while octets := self._reader.read1(1 << 16):
                got += octets
        except ConnectionError:
            pass
        return got
