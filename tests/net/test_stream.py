"""What a stream holds of this machine. What it says and hears is tested with what uses it."""

import os
import socket
from pathlib import Path

import anyio

from dcmsync.net.patience import Guard
from dcmsync.net.stream import BUFFER_OCTETS, Stream

MOST = BUFFER_OCTETS // 4


def resident_octets() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stream_takes_as_much_memory_as_comes_and_gives_it_back_though_slices_of_it_are_kept() -> None:
    """Errors keep slices in their tracebacks, until they are collected; many peers that break the rules make many."""

    async def main() -> None:
        kept = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as listening:
                theirs = socket.create_connection(listening.getsockname())
                ours, _ = listening.accept()
            before = resident_octets()
            stream = Stream(ours, Guard(ours, timeout_s=5, whole_s=5), "PEER")
            assert resident_octets() - before < MOST
            while len(stream.pending) < BUFFER_OCTETS:
                theirs.sendall(b"x" * (1 << 16))
                await stream.receive()
            kept.append(stream.pending)
            full = resident_octets()
            assert full - before > BUFFER_OCTETS - MOST
            stream.close()
            assert full - resident_octets() > BUFFER_OCTETS - MOST
            assert kept[-1][:4] == bytes(4), "gone for good, and not only from what is mapped"
            theirs.close()

    anyio.run(main)
