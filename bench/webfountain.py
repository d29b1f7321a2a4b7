"""A DICOMweb service with one instance of 4 GB, which it makes while it sends: nobody else would hold that.

Just enough of QIDO-RS and WADO-RS to be pulled from, in a process of its own. A client that takes slowly is waited for.

    python -m bench.webfountain        writes its port, and serves until it is ended
"""

import json
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench import measure
from bench.measure import RunFailed
from tests import samples

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
STUDY, SERIES, INSTANCE = (samples.uid(12, *range(1, depth)) for depth in (2, 3, 4))
_PIECE = 4 << 20
_PIECES = 954
OCTETS = _PIECE * _PIECES
_BOUNDARY = "5d0f2b6f0f3a1d7c55e8a1"
_LISTS = {
    "studies": ("0020000D", STUDY), "series": ("0020000E", SERIES), "instances": ("00080018", INSTANCE),
}  # fmt: skip


@contextmanager
def running() -> Iterator[str]:
    """The base URL of one, for as long as the `with`."""
    line = [sys.executable, "-m", "bench.webfountain"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, env=measure.environment())
    try:
        assert process.stdout is not None
        port = process.stdout.readline().decode().strip()
        if not port:
            raise RunFailed("the server of W4 did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A list, or the instance."""
        path, _, query = self.path.partition("?")
        last = path.rpartition("/")[2]
        if last in _LISTS:
            tag, uid = _LISTS[last]
            things = [] if "offset=" in query else [{tag: {"vr": "UI", "Value": [uid]}}]
            body = json.dumps(things).encode()
            self._begin("application/dicom+json", len(body))
            self.wfile.write(body)
            return
        head = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + _head()
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
        self._begin(kind, len(head) + OCTETS + len(tail))
        self.wfile.write(head)
        for _ in range(_PIECES):
            self.wfile.write(_NOISE)
        self.wfile.write(tail)

    def log_message(self, format: str, *args: object) -> None:  # as its parent names it
        """Says nothing."""

    def _begin(self, media_type: str, octets: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(octets))
        self.end_headers()


_NOISE = random.Random(12).randbytes(_PIECE)


def _head() -> bytes:
    """All of the instance up to its pixels."""
    data_set = b"".join(
        samples.element(tag, b"UI", uid)
        for tag, uid in ((0x00080016, ENHANCED_CT), (0x00080018, INSTANCE), (0x0020000D, STUDY), (0x0020000E, SERIES))
    )
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, OCTETS)
    return samples.part10(data_set + pixels, sop_class_uid=ENHANCED_CT, sop_uid=INSTANCE)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
