"""Our own node for tests, as a process and as its callers see it.

    with nodes.serving(folder, "--timeout", "2") as node:
        node.port, node.events, node.wait_for_event(event="closed")

    with nodes.Caller(node.port) as caller:          # octets under the test's control, well-formed or not
        caller.associate([(STUDY_ROOT_FIND, (EXPLICIT_LITTLE,))])
        caller.say(1, command, identifier)
        command, data = caller.hear()
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.upperlayer import codec, framing
from dcmsync.wire.upperlayer.identity import Identity
from tests import peers

DEADLINE_S = 20.0
_ROOT = Path(__file__).resolve().parent.parent


class Serving:
    """A running `dcmsync serve`. `events` grows as the node writes them."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.host = peers.HOST
        self.ae = "DCMSYNC"
        self.events: list[dict[str, Any]] = []
        self._come = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        listening = self.wait_for_event(type="listening")
        self.port = int(listening["port"])
        self.http = str(listening.get("http", ""))  # the base URL of DICOMweb, with --http

    @property
    def locator(self) -> str:
        """AET@host:port."""
        return f"{self.ae}@{self.host}:{self.port}"

    def wait_for_event(self, count: int = 1, **keys: object) -> dict[str, Any]:
        """The count-th event that has these keys and values."""
        with self._come:
            found: list[dict[str, Any]] = []

            def is_there() -> bool:
                found[:] = [event for event in self.events if keys.items() <= event.items()]
                return len(found) >= count or self._over

            self._come.wait_for(is_there, DEADLINE_S)
            assert len(found) >= count, (keys, self.events)
            return found[count - 1]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it: the exit status, and what it said on stderr is in `said`."""
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """The exit status, once it has ended."""
        status = self.process.wait(DEADLINE_S)
        self.join()
        return status

    def join(self) -> None:
        """Waits until all that the process wrote has been read."""
        self._reader.join(DEADLINE_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._come:
                self.events.append(json.loads(line))
                self._come.notify_all()
        with self._come:
            self._over = True
            self._come.notify_all()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Serving]:
    """`dcmsync serve` on a free port, ended at the end; its stderr goes to `folder`.err."""
    errors = folder.with_name(folder.name + ".err")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "dcmsync", "serve", str(folder), "--port", "0", *options],
            env={**{k: v for k, v in os.environ.items() if not k.startswith("DCMSYNC_")}, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    node: Serving | None = None
    try:
        node = Serving(process, folder)
        yield node
    finally:
        process.kill()
        process.wait()
        if node is not None:
            node.join()
        assert process.stdout is not None
        process.stdout.close()


class Caller:
    """A requestor that sends exactly what it is told to."""

    def __init__(self, port: int, host: str = peers.HOST, source: str | None = None) -> None:
        """`source`: the address to call from, such as 127.0.0.2."""
        address = (source, 0) if source else None
        self.socket = socket.create_connection((host, port), timeout=DEADLINE_S, source_address=address)
        self._max_pdu_octets = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(
        self, contexts: Sequence[tuple[str, Sequence[str]]], *, called: str = "DCMSYNC", calling: str = "CALLER",
        takes: Sequence[str] = (), max_pdu_octets: int = 0, identity: Identity | None = None,
    ) -> bytes:
        """Asks for an association; the PDU that answers. `takes`: classes of which we are the SCP."""
        self.socket.sendall(codec.encode_request(codec.AssociateRequest(
            called_ae=called, calling_ae=calling, max_pdu_octets=max_pdu_octets, identity=identity,
            contexts=tuple(codec.ProposedContext(2 * n + 1, uid, tuple(syntaxes))
                           for n, (uid, syntaxes) in enumerate(contexts)),
            roles=tuple(codec.Role(uid, scu=False, scp=True) for uid in takes),
        )))  # fmt: skip
        return self.pdu()

    def associate(self, contexts: Sequence[tuple[str, Sequence[str]]], **more: Any) -> codec.AssociateAccept:
        """An association; contexts have the IDs 1, 3, 5, …"""
        answer = self.request(contexts, **more)
        assert answer[:1] == b"\x02", answer
        accept = codec.decode_accept(answer)
        self._max_pdu_octets = accept.max_pdu_octets
        return accept

    def say(self, context_id: int, command: Command, data: bytes | None = None) -> None:
        """Sends one message."""
        self.socket.sendall(self.message(context_id, command, data))

    def message(self, context_id: int, command: Command, data: bytes | None = None) -> bytes:
        """The octets of one message."""
        pieces = [(commands.encode(command), True)] + ([] if data is None else [(data, False)])
        return b"".join(
            bytes(part)
            for octets, is_command in pieces
            for part in framing.pack(context_id, memoryview(octets), is_command=is_command, is_last=True,
                                     max_pdu_octets=self._max_pdu_octets)
        )  # fmt: skip

    def hear(self) -> tuple[Command, bytes]:
        """The next message: its command, and its data set, if it has one."""
        command = commands.decode(self._gather())
        return command, self._gather() if command.has_data_set else b""

    def pdu(self) -> bytes:
        """The next PDU, whole; nothing at the end of the stream."""
        head = self._exactly(6)
        return head + self._exactly(struct.unpack(">I", head[2:6])[0]) if len(head) == 6 else b""

    def is_closed(self) -> bool:
        """Waits for the end of the stream, over an A-ABORT if one comes."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    def _gather(self) -> bytes:
        """The octets of one command or data set, of one PDV a PDU."""
        octets = b""
        while True:
            pdu = self.pdu()
            assert pdu[:1] == b"\x04", f"no P-DATA-TF: {pdu[:10].hex()}"
            octets += pdu[12:]
            if pdu[11] & framing.IS_LAST:
                return octets

    def _exactly(self, octets: int) -> bytes:
        got = b""
        while len(got) < octets:
            try:
                part = self.socket.recv(octets - len(got))
            except ConnectionError:
                part = b""
            if not part:
                return got
            got += part
        return got
