"""TLS in front of a server that speaks plain TCP, as a proxy in a hospital has it: octets go through as they are.

    with terminator(peer_port, own) as port:
        ... https://127.0.0.1:port ...
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.certs import Pem

HOST = "127.0.0.1"


@contextmanager
def terminator(port: int, own: Pem) -> Iterator[int]:
    """The port on which TLS is spoken for `port` of this machine, with the certificate of `own`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    threads: list[threading.Thread] = []

    def begin(what: object, *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
        threads.append(thread)
        thread.start()

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            begin(serve, plain)

    def serve(plain: socket.socket) -> None:
        try:
            with context.wrap_socket(plain, server_side=True) as front, socket.create_connection((HOST, port)) as back:
                begin(pump, back, front)
                pump(front, back)
        except OSError:
            pass

    with socket.create_server((HOST, 0)) as listener:
        begin(accept)
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Octets from one to the other until either ends; then both end."""
    try:
        while octets := source.recv(1 << 16):
            sink.sendall(octets)
    except OSError:
        pass
    for each in (source, sink):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
