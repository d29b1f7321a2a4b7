"""P5: 2,000 small instances over a line of 20 ms round trip, with `dcmsync` and with DCMTK's tools.

The line is a relay in a process of its own: every octet arrives 10 ms after it was sent, in each direction, and nothing
else is changed: it acknowledges at once, and how much passes is not limited. `push` goes to `storescp --fork` and is
not proven (storescp cannot be asked), against `storescu`; `pull` comes from an Orthanc, against `getscu`. DCMTK's tools
are tuned, with TCP_NODELAY=1 on both sides. Orthanc as shipped serves four associations at a time, and lets others
wait: a second row has one that serves sixteen.

    python -m bench.distance HOST PORT SECONDS      relays to HOST:PORT, and writes the port that it listens on
"""

import asyncio
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.scratch import Scratch, count_files
from tests import peers, samples

ONE_WAY_S = 0.010
SERIES = 20
PER_SERIES = 100
INSTANCES = SERIES * PER_SERIES
_BUFFERED = 1 << 24
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def push(runs: int) -> Iterator[Row]:
    """P5, to storescp."""
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        made = samples.make_series(scratch.disk / "made", series=SERIES, instances=PER_SERIES, rows=64, columns=64)
        memory, kind = scratch.fast(sum(sample.size for sample in made))

        def send(line: Callable[[str, int], Line], *, nodelay: bool) -> Timed:
            folder = scratch.fresh(memory)
            with peers.storescp(folder, "+B", "--fork", nodelay=nodelay) as peer, relay(peer.port) as port:
                timed = measure.run(line(peer.ae, port), nodelay=nodelay)
                if (arrived := count_files(folder / "received")) != INSTANCES:
                    raise RunFailed(f"{arrived} of {INSTANCES} files arrived: {measure.shown(line(peer.ae, port))}")
            scratch.release(folder)
            return timed

        def ours_to(ae: str, port: int) -> Line:
            return *DCMSYNC, "push", f"{ae}@{peers.HOST}:{port}", source, "--no-cache", "--verify", "none"

        def theirs_to(ae: str, port: int) -> Line:
            return "storescu", "-aec", ae, "+sd", "+r", peers.HOST, str(port), source

        source = scratch.disk / "made"
        measure.say(f"P5: push, {runs} runs of each, on {kind}")
        ours, theirs = measure.in_turn(
            runs,
            lambda _: send(ours_to, nodelay=False),
            lambda _: send(theirs_to, nodelay=True),
            warm_up=False,
        )
        yield Row("P5", f"`push` {INSTANCES:,} instances of {made[0].size / 1000:,.0f} kB, 20 ms round trip",
                  measure.words(ours), f"`storescu` tuned: {measure.words(theirs)}", measure.ratio(ours, theirs), "6 x",
                  f"{kind}; ours to `storescp` as shipped, `storescu` with TCP_NODELAY=1 on both sides")  # fmt: skip


def jobs(runs: int) -> Iterator[Row]:
    """P5 with ten associations at most, and with one."""
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        made = samples.make_series(scratch.disk / "made", series=SERIES, instances=PER_SERIES, rows=64, columns=64)
        memory, kind = scratch.fast(sum(sample.size for sample in made))

        def send(most: int) -> Timed:
            folder = scratch.fresh(memory)
            with peers.storescp(folder, "+B", "--fork") as peer, relay(peer.port) as port:
                locator = f"{peer.ae}@{peers.HOST}:{port}"
                line = (*DCMSYNC, "push", locator, scratch.disk / "made", "--no-cache", "--verify", "none",
                        "--jobs", str(most))  # fmt: skip
                timed = measure.run(line)
                if (arrived := count_files(folder / "received")) != INSTANCES:
                    raise RunFailed(f"{arrived} of {INSTANCES} files arrived: {measure.shown(line)}")
            scratch.release(folder)
            return timed

        measure.say(f"P5J: push, {runs} runs of each, on {kind}")
        ten, one = measure.in_turn(runs, lambda _: send(10), lambda _: send(1), warm_up=False)
        yield Row("P5J", f"`push --jobs 10` {INSTANCES:,} instances of {made[0].size / 1000:,.0f} kB, 20 ms round trip",
                  measure.words(ten), f"`push --jobs 1`: {measure.words(one)}", measure.ratio(ten, one),
                  how=f"{kind}; to `storescp --fork` as shipped")  # fmt: skip


def pull(runs: int) -> Iterator[Row]:
    """P5, from Orthanc."""
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        made = samples.make_series(scratch.disk / "made", series=SERIES, instances=PER_SERIES, rows=64, columns=64)
        memory, kind = scratch.fast(sum(sample.size for sample in made))
        more = {"DicomThreadsCount": 16}
        shipped = stack.enter_context(peers.orthanc(scratch.disk / "shipped"))
        wide = stack.enter_context(peers.orthanc(scratch.disk / "wide", settings=more))
        nodelay = stack.enter_context(peers.orthanc(scratch.disk / "nodelay", nodelay=True))
        ports = {}
        for pacs in (shipped, wide, nodelay):
            measure.say("P5: filling Orthanc")
            pacs.store(sample.path for sample in made)
            ports[pacs.port] = stack.enter_context(relay(pacs.port))

        def fetch(line: Line, folder: Path, **how: Path | bool) -> Timed:
            timed = measure.run(line, **how)  # type: ignore[arg-type]  # stdin or nodelay, as run has them
            if (arrived := count_files(folder)) != INSTANCES:
                raise RunFailed(f"{arrived} of {INSTANCES} files arrived: {measure.shown(line)}")
            scratch.release(folder)
            return timed

        def ours_from(pacs: peers.Peer) -> Timed:
            folder, records = scratch.fresh(memory), scratch.disk / f"{pacs.port}.ndjson"
            locator = f"{pacs.ae}@{peers.HOST}:{ports[pacs.port]}"
            if not records.exists():
                measure.run((*DCMSYNC, "query", locator, "--all", "--level", "series"), stdout=records)
            return fetch((*DCMSYNC, "pull", folder), folder, stdin=records)

        def theirs() -> Timed:
            folder = scratch.fresh(memory)
            line = ("getscu", "-aec", nodelay.ae, "-S", "-k", "0008,0052=STUDY", "-k", f"0020,000D={made[0].study_uid}",
                    "-od", folder, peers.HOST, str(ports[nodelay.port]))  # fmt: skip
            return fetch(line, folder, nodelay=True)

        measure.say(f"P5: pull, {runs} runs of each, on {kind}")
        four, sixteen, getscu = measure.in_turn(
            runs, lambda _: ours_from(shipped), lambda _: ours_from(wide), lambda _: theirs(), warm_up=False
        )
        work = f"`pull` {INSTANCES:,} instances of {made[0].size / 1000:,.0f} kB in {SERIES} series, 20 ms round trip"
        for times, about in ((four, "as shipped (4 threads)"), (sixteen, "with DicomThreadsCount 16")):
            yield Row("P5", work, measure.words(times), f"`getscu` tuned: {measure.words(getscu)}",
                      measure.ratio(times, getscu), "6 x",
                      f"{kind}; ours from Orthanc {about}, `getscu` with TCP_NODELAY=1 on both sides")  # fmt: skip


@contextmanager
def relay(port: int, one_way_s: float = ONE_WAY_S) -> Iterator[int]:
    """The port of a relay to a port of this machine."""
    line = [sys.executable, "-m", "bench.distance", peers.HOST, str(port), str(one_way_s)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


class _Way(asyncio.Protocol):
    """One end of a connection: what it hears is said by the other end, later. An end of file is, too."""

    def __init__(self, one_way_s: float) -> None:
        self._one_way_s = one_way_s
        self._loop = asyncio.get_running_loop()
        self._late: deque[bytes | None] = deque()
        self.transport: asyncio.Transport | None = None
        self.other: _Way | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(_BUFFERED)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if _QUICK_ACK is not None and self.transport is not None:  # it does not stick
            self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        self._later(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(None)

    def _later(self, data: bytes | None) -> None:
        self._late.append(data)
        self._loop.call_later(self._one_way_s, self._say)

    def _say(self) -> None:
        if self.other is None or self.other.transport is None:  # the other end is not connected yet
            self._loop.call_later(self._one_way_s, self._say)
            return
        data = self._late.popleft()
        if data is None:
            self.other.transport.close()
        else:
            self.other.transport.write(data)


async def _serve(host: str, port: int, one_way_s: float) -> None:
    loop = asyncio.get_running_loop()
    connecting = set()

    class Near(_Way):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(self._connect())
            connecting.add(task)
            task.add_done_callback(connecting.discard)

        async def _connect(self) -> None:
            _, far = await loop.create_connection(lambda: _Way(one_way_s), host, port)
            self.other, far.other = far, self

    server = await loop.create_server(lambda: Near(one_way_s), peers.HOST, 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
