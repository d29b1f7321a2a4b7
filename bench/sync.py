"""Y1: sync 20,000 instances from Orthanc into a folder, and then again: the time, and what moves over the wire.

What moves is counted by a relay between the two, in a run of its own, so that the relay costs the timed runs nothing.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed
from bench.scratch import Scratch, count_files
from tests import peers, samples

SERIES = 100
PER_SERIES = 200
INSTANCES = SERIES * PER_SERIES


def rows(runs: int) -> Iterator[Row]:
    """The rows of the table."""
    with Scratch() as scratch, peers.orthanc(scratch.disk / "orthanc") as pacs:
        measure.say(f"Y1: filling Orthanc with {INSTANCES:,} instances")
        made = samples.make_series(scratch.disk / "made", studies=10, series=SERIES // 10, instances=PER_SERIES)
        pacs.store(sample.path for sample in made)
        octets = sum(sample.size for sample in made)
        place, kind = scratch.fast(octets)
        folder = scratch.fresh(place)
        line: Line = (*DCMSYNC, "sync", pacs.locator, folder, "--all")
        measure.say("Y1: the first sync")
        first = measure.run(line, with_peak=True)
        if (there := count_files(folder)) != INSTANCES:
            raise RunFailed(f"{there} of {INSTANCES} files arrived")
        work = f"`sync` of {INSTANCES:,} instances of 9 kB ({octets / 1e6:,.0f} MB)"
        yield Row("Y1", work, measure.words([first]),
                  how=f"{kind}, from Orthanc as shipped, cache on; peak {measure.megabytes(first.peak_octets)}")
        again: dict[str, Line] = {
            "the same again": (),
            "again, `--trust counts`": ("--trust", "counts"),
            "again, `--no-cache`": ("--no-cache",),
        }
        for words, more in again.items():
            measure.say(f"Y1: {words}, {runs} runs")
            (times,) = measure.in_turn(runs, lambda _, more=more: measure.run((*line, *more), with_peak=True))  # type: ignore[misc]
            with _counting(pacs) as (locator, moved):
                measure.run((*DCMSYNC, "sync", locator, folder, "--all", *more))
            yield Row("Y1", words, measure.words(times), how=(
                f"{moved[0] / 1e6:,.2f} MB came from Orthanc, {moved[1] / 1e6:,.2f} MB went there; "
                f"peak {measure.megabytes(measure.peak(times))}"))  # fmt: skip


@contextmanager
def _counting(pacs: peers.Peer) -> Iterator[tuple[str, list[int]]]:
    """A relay to the node: its locator, and the octets that came from there and went there so far."""
    moved = [0, 0]
    with socket.create_server((peers.HOST, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    ours, _ = server.accept()
                except OSError:
                    return
                theirs = socket.create_connection((pacs.host, pacs.port))
                for way, (taker, giver) in enumerate(((ours, theirs), (theirs, ours))):
                    threading.Thread(target=_pour, args=(giver, taker, moved, way), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"{pacs.ae}@{peers.HOST}:{server.getsockname()[1]}", moved
        server.shutdown(socket.SHUT_RDWR)


def _pour(giver: socket.socket, taker: socket.socket, moved: list[int], way: int) -> None:
    try:
        while octets := giver.recv(1 << 18):
            moved[way] += len(octets)
            taker.sendall(octets)
        taker.shutdown(socket.SHUT_WR)
    except OSError:
        pass
