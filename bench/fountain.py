"""A node that answers every C-FIND with as many made-up studies as it was told to: no real one is that fast.

Just enough of PS3.8 and PS3.7 to be asked by us and by `findscu`, with `struct`, in a process of its own. The answers
are encoded once, before anyone asks. It stops reading when the asker stops reading: TCP holds it back.

    python -m bench.fountain ANSWERS        writes its port, then, for each query, when it sent the first answer
"""

import socket
import struct
import sys
import time
from collections.abc import Iterator

from tests import samples

AE = "FOUNTAIN"
STUDY_ROOT_FIND = b"1.2.840.10008.5.1.4.1.2.2.1"
_IMPLICIT = b"1.2.840.10008.1.2"
_PENDING, _SUCCESS = 0xFF00, 0
_BATCH = 64


def serve(answers: int) -> None:
    """Serves one association after the other, until the process is ended."""
    encoded = [_identifier(number) for number in range(answers)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        _tell(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    _converse(connection, encoded)
                except (ConnectionError, EOFError):
                    continue


def _converse(connection: socket.socket, encoded: list[bytes]) -> None:
    asked = 0, 0  # presentation context, message
    while True:
        kind, body = _pdu(connection)
        if kind == 1:  # A-ASSOCIATE-RQ
            connection.sendall(_accept(body))
        elif kind == 4:  # P-DATA-TF
            context, command = body[4], body[5] & 1
            if command:
                asked = context, _field(body[6:], 0x0110)
            elif body[5] & 2:
                _answer(connection, encoded, *asked)
        elif kind == 5:  # A-RELEASE-RQ
            connection.sendall(struct.pack(">BxLL", 6, 4, 0))
            return
        else:
            return


def _answer(connection: socket.socket, encoded: list[bytes], context: int, message: int) -> None:
    pending = _data(context, 3, _response(message, _PENDING))
    _tell(time.monotonic())
    for start in range(0, len(encoded), _BATCH):
        pieces = [pending + _data(context, 2, identifier) for identifier in encoded[start : start + _BATCH]]
        connection.sendall(b"".join(pieces))
    connection.sendall(_data(context, 3, _response(message, _SUCCESS)))


def _accept(request: bytes) -> bytes:
    """A-ASSOCIATE-AC: every context of the request, in implicit VR (PS3.8 Table 9-17)."""
    syntax = struct.pack(">BxH", 0x40, len(_IMPLICIT)) + _IMPLICIT
    application, user = b"", b""
    for kind, value in _items(request[68:]):
        if kind == 0x10:
            application += struct.pack(">BxH", kind, len(value)) + value
        elif kind == 0x20:
            application += struct.pack(">BxHBxBx", 0x21, 4 + len(syntax), value[0], 0) + syntax
    user = struct.pack(">BxHL", 0x51, 4, 1 << 16) + struct.pack(">BxH", 0x52, 6) + b"2.25.1"
    body = request[:68] + application + struct.pack(">BxH", 0x50, len(user)) + user
    return struct.pack(">BxL", 2, len(body)) + body


def _items(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while octets:
        kind, length = struct.unpack_from(">BxH", octets)
        yield kind, octets[4 : 4 + length]
        octets = octets[4 + length :]


def _pdu(connection: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxL", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, octets: int) -> bytes:
    got = b""
    while len(got) < octets:
        more = connection.recv(octets - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def _data(context: int, control: int, value: bytes) -> bytes:
    """A P-DATA-TF of one value. Control: 1 command, 2 last fragment."""
    return struct.pack(">BxLLBB", 4, len(value) + 6, len(value) + 2, context, control) + value


def _response(message: int, status: int) -> bytes:
    """C-FIND-RSP (PS3.7 Table 9.3-3), implicit VR."""
    has_data = 0x0101 if status == _SUCCESS else 0
    numbers = ((0x0100, 0x8020), (0x0120, message), (0x0800, has_data), (0x0900, status))
    body = _implicit(0, 0x0002, STUDY_ROOT_FIND + b"\0")
    body += b"".join(_implicit(0, tag, struct.pack("<H", value)) for tag, value in numbers)
    return _implicit(0, 0, struct.pack("<L", len(body))) + body


def _field(command: bytes, tag: int) -> int:
    """A US of group 0000 in a command set."""
    while command:
        _, element, length = struct.unpack_from("<HHL", command)
        if element == tag:
            return int.from_bytes(command[8 : 8 + length], "little")
        command = command[8 + length :]
    raise ConnectionError("no such element")


def _identifier(number: int) -> bytes:
    study = samples.uid(9, number)
    date = f"20{10 + number % 15}{1 + number % 12:02d}{1 + number % 28:02d}"
    values = (
        (0x0008, 0x0020, date), (0x0008, 0x0030, "101500"), (0x0008, 0x0050, f"A{number:07d}"),
        (0x0008, 0x0052, "STUDY"), (0x0008, 0x0061, "CT\\SR"), (0x0008, 0x1030, "Thorax"),
        (0x0010, 0x0010, f"Demo^Number {number}"), (0x0010, 0x0020, f"P{number % 30000:06d}"),
        (0x0010, 0x0030, "19700101"), (0x0010, 0x0040, "F"), (0x0020, 0x000D, study), (0x0020, 0x0010, str(number)),
        (0x0020, 0x1206, "4"), (0x0020, 0x1208, "812"),
    )  # fmt: skip
    return b"".join(_implicit(group, element, text.encode()) for group, element, text in values)


def _implicit(group: int, element: int, value: bytes) -> bytes:
    value += (b"\0" if (group, element) == (0x0020, 0x000D) else b" ") * (len(value) % 2)
    return struct.pack("<HHL", group, element, len(value)) + value


def _tell(value: float) -> None:
    sys.stdout.write(f"{value!r}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
