"""A DICOM peer that does what a script says: a threaded TCP server on a free port, for tests of bad manners.

A script is a function of a `Talk`, run in a thread of its own for each connection. Whatever it waits for ends when the
test does. Waiting is never sleeping: `Talk.wait` returns early when the server closes. What a script raises, other
than the connection ending, is raised by `Scripted.__exit__`.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType

from dcmsync.net.association import Peer
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.upperlayer import codec, contexts, framing

HOST = "127.0.0.1"
EXPLICIT = contexts.EXPLICIT_LITTLE
PENDING, SUCCESS = 0xFF00, 0x0000
ABORT = codec.encode_abort(codec.Abort(2, 0))


class Talk:
    """One connection, the peer's side."""

    def __init__(self, connected: socket.socket, over: threading.Event) -> None:
        self.socket = connected
        self.request: codec.AssociateRequest | None = None
        self._over = over

    # Octets

    def send(self, *pieces: bytes | memoryview) -> None:
        """Sends octets, in one segment where they fit."""
        self.socket.sendall(b"".join(pieces))

    def read(self, count: int) -> bytes:
        """Exactly `count` octets. Raises ConnectionError when the client has gone."""
        octets = b""
        while len(octets) < count:
            more = self.socket.recv(count - len(octets))
            if not more:
                raise ConnectionResetError("the client has gone")
            octets += more
        return octets

    def wait(self, seconds: float) -> bool:
        """Waits; whether the test goes on."""
        return not self._over.wait(seconds)

    def hold(self) -> None:
        """Reads and ignores everything until the client goes, or the test ends."""
        with suppress(OSError):
            while self.socket.recv(1 << 16):
                pass

    def for_ever(self, every_s: float = 0.0) -> Iterator[int]:
        """0, 1, 2 … until the test ends; the sender finds out by itself when the client goes."""
        turn = 0
        while not self._over.wait(every_s) if every_s else not self._over.is_set():
            yield turn
            turn += 1

    def reset(self) -> None:
        """Ends the connection by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # PDUs

    def read_pdu(self) -> tuple[int, bytes]:
        """(type, whole PDU)."""
        header = self.read(6)
        return header[0], header + self.read(int.from_bytes(header[2:6], "big"))

    def accept(self, *, refuse: Sequence[str] = (), only: Sequence[int] | None = None, then: bytes = b"") -> None:
        """Reads the request and accepts every context but those refused; `then` goes in the same segment."""
        self.request = codec.decode_request(self.read_pdu()[1])
        results = []
        for context in self.request.contexts:
            refused = context.abstract_syntax in refuse or (only is not None and context.context_id not in only)
            results.append(codec.ContextResult(context.context_id, 3 if refused else 0, context.transfer_syntaxes[0]))
        accept = codec.AssociateAccept(
            called_ae=self.request.called_ae,
            calling_ae=self.request.calling_ae,
            results=tuple(results),
            roles=self.request.roles,
            max_pdu_octets=16382,
        )
        self.send(codec.encode_accept(accept), then)

    def context_of(self, abstract_syntax: str) -> int:
        """The ID of the first context for an abstract syntax."""
        assert self.request is not None
        return next(c.context_id for c in self.request.contexts if c.abstract_syntax == abstract_syntax)

    def release(self) -> None:
        """Reads whatever comes until A-RELEASE-RQ or A-ABORT, and answers it."""
        while True:
            kind, _ = self.read_pdu()
            if kind == 5:
                self.send(codec.RELEASE_RP)
                self.hold()
                return
            if kind == 7:
                return

    # Messages

    def read_message(self) -> tuple[int, Command, bytes]:
        """(context ID, command, data set) of the next message."""
        octets = {True: b"", False: b""}
        ended = {True: False, False: False}
        context_id = 0
        while not ended[True] or (not ended[False] and commands.decode(octets[True]).has_data_set):
            kind, pdu = self.read_pdu()
            if kind != framing.P_DATA_TF:
                raise ConnectionResetError(f"the client sent a PDU of type {kind}")
            at = 6
            while at < len(pdu):
                length, context_id, control = struct.unpack_from(">IBB", pdu, at)
                is_command = bool(control & framing.IS_COMMAND)
                octets[is_command] += pdu[at + 6 : at + 4 + length]
                ended[is_command] |= bool(control & framing.IS_LAST)
                at += 4 + length
        return context_id, commands.decode(octets[True]), octets[False]


def message(context_id: int, command: Command, data: bytes = b"", *, is_last: bool = True) -> bytes:
    """The octets of a message; without `is_last` its data set goes on."""
    out = [*framing.pack(context_id, memoryview(commands.encode(command)), is_command=True, is_last=True,
                         max_pdu_octets=16382)]  # fmt: skip
    if command.has_data_set:
        out += framing.pack(context_id, memoryview(data), is_command=False, is_last=is_last, max_pdu_octets=16382)
    return b"".join(out)


def fragment(context_id: int, data: bytes, *, is_last: bool = False) -> bytes:
    """One P-DATA-TF PDU with one fragment of a data set."""
    control = framing.IS_LAST if is_last else 0
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, context_id, control) + data


def answer(context_id: int, request: Command, code: int, data: bytes | None = None, **changes: object) -> bytes:
    """The octets of an answer to `request`, with the status `code`; `changes` are fields of its command."""
    response = operations.respond(request, code, has_data_set=data is not None)
    values = {name: getattr(response, name) for name in response.__struct_fields__}
    return message(context_id, Command(**{**values, **changes}), data or b"")


def instance(context_id: int, sop_class_uid: str, sop_uid: str, octets: int = 64, *, number: int = 1) -> bytes:
    """The octets of a C-STORE sub-operation, whole."""
    request = operations.store(number, sop_class_uid, sop_uid).request
    return message(context_id, request, bytes(octets))


class Scripted:
    """Serves `script` on a free port, to any number of connections. A context manager."""

    def __init__(self, script: Callable[[Talk], None]) -> None:
        self._script = script
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._errors: list[Exception] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.peer = Peer(host=HOST, port=self.port, called_ae="SCRIPTED", calling_ae="DCMSYNC")
        self.connections = 0

    def __enter__(self) -> "Scripted":
        self._start(self._serve)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), "a script does not end"
        for one in (self._listener, *self._sockets):
            one.close()
        if self._errors and error is None:
            raise self._errors[0]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="scripted")
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connected)
            self.connections += 1
            self._start(self._run, connected)

    def _run(self, connected: socket.socket) -> None:
        try:
            self._script(Talk(connected, self._over))
        except OSError:
            pass  # the client has gone, or the test is over
        except Exception as error:  # noqa: BLE001  # raised by __exit__
            self._errors.append(error)
        finally:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
            connected.close()
