"""S1 and S2: what `dcmsync serve` takes in, next to `storescp`, from the same `storescu`. For information, no target.

Every run has a fresh node with an empty folder. `serve` makes each instance durable before it says so, `storescp`
does not; on a tmpfs that costs nothing.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench import measure
from bench.measure import Line, Row, RunFailed, Timed
from bench.node import Node, serving
from bench.scratch import Scratch, count_files
from tests import peers, samples

SHIPPED = 100


def large(runs: int) -> Iterator[Row]:
    """S1: 1,000 instances of 525 kB."""
    yield from _rows("S1", 512, 1000, runs)


def small(runs: int) -> Iterator[Row]:
    """S2: 2,000 instances of 9 kB."""
    yield from _rows("S2", 64, 2000, runs)


def _rows(number: str, pixels: int, instances: int, runs: int) -> Iterator[Row]:
    with Scratch() as scratch:
        few = scratch.disk / "few"
        many = scratch.disk / "many"
        samples.make_series(few, instances=SHIPPED, rows=pixels, columns=pixels, seed=2)
        made = samples.make_series(many, series=10, instances=instances // 10, rows=pixels, columns=pixels)
        place, kind = scratch.fast(sum(sample.size for sample in made))

        def into_serve(source: Path, count: int, *, nodelay: bool) -> Timed:
            folder = scratch.fresh(place)
            return _send(scratch, serving(folder), folder, folder, source, count, nodelay=nodelay)

        def into_storescp(source: Path, count: int, *, nodelay: bool) -> Timed:
            folder = scratch.fresh(place)
            node = peers.storescp(folder, "+B", nodelay=nodelay)
            return _send(scratch, node, folder, folder / "received", source, count, nodelay=nodelay)

        measure.say(f"{number}: storescu into serve and into storescp, {runs} runs of each, on {kind}")
        ours, theirs = measure.in_turn(
            runs,
            lambda _: into_serve(many, instances, nodelay=True),
            lambda _: into_storescp(many, instances, nodelay=True),
        )
        ours_shipped, theirs_shipped = measure.in_turn(
            1,
            lambda _: into_serve(few, SHIPPED, nodelay=False),
            lambda _: into_storescp(few, SHIPPED, nodelay=False),
            warm_up=False,
        )
    work = f"`storescu` of {instances:,} instances of {made[0].size / 1000:,.0f} kB into `serve`"
    yield Row(number, f"{work}, tuned", measure.words(ours), f"into `storescp`: {measure.words(theirs)}",
              measure.ratio(ours, theirs), how=f"{kind}; TCP_NODELAY=1 for `storescu` and `storescp`")
    yield Row(number, f"{work}, as shipped, of {SHIPPED}", measure.words(ours_shipped),
              f"into `storescp`: {measure.words(theirs_shipped)}", measure.ratio(ours_shipped, theirs_shipped),
              how=f"{kind}; one run of {SHIPPED} instances")


def _send(
    scratch: Scratch,
    node: AbstractContextManager[Node] | AbstractContextManager[peers.Peer],
    folder: Path,
    received: Path,
    source: Path,
    count: int,
    *,
    nodelay: bool,
) -> Timed:
    """Times `storescu` of `source` into a node, and counts what arrived."""
    with node as peer:
        line: Line = ["storescu", "-aec", peer.ae, "+sd", "+r", peer.host, str(peer.port), source]
        timed = measure.run(line, nodelay=nodelay)
        if (arrived := count_files(received)) != count:
            raise RunFailed(f"{arrived} of {count} files arrived: {measure.shown(line)}")
    scratch.release(folder)
    return timed
