"""M1 and M2: have Orthanc send 2,000 instances by C-MOVE, to `dcmsync pull --via move` and to DCMTK's `movescu`.

Two Orthancs hold the same instances: one as shipped, one with TCP_NODELAY=1. dcmsync always pulls from the first.
`movescu`, with a storage SCP of its own, is measured tuned (TCP_NODELAY=1 on both sides), and as shipped on one series.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.scratch import Scratch, count_files
from tests import peers, samples

SERIES = 10
PER_SERIES = 200
INSTANCES = SERIES * PER_SERIES


def large(runs: int) -> Iterator[Row]:
    """M1: instances of 525 kB."""
    yield from _rows("M1", 512, runs)


def small(runs: int) -> Iterator[Row]:
    """M2: instances of 9 kB."""
    yield from _rows("M2", 64, runs)


def _rows(number: str, pixels: int, runs: int) -> Iterator[Row]:
    ours_at, theirs_at = peers.free_ports(2)
    known = {"DCMSYNC": (peers.HOST, ours_at), "MOVESCU": (peers.HOST, theirs_at)}
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        made = samples.make_series(
            scratch.disk / "made", series=SERIES, instances=PER_SERIES, rows=pixels, columns=pixels
        )
        untuned = stack.enter_context(peers.orthanc(scratch.disk / "untuned", destinations=known))
        nodelay = stack.enter_context(peers.orthanc(scratch.disk / "nodelay", nodelay=True, destinations=known))
        for pacs in (untuned, nodelay):
            measure.say(f"{number}: filling Orthanc")
            pacs.store(sample.path for sample in made)
        memory, kind = scratch.fast(sum(sample.size for sample in made))
        records = scratch.disk / "records.ndjson"
        measure.run((*DCMSYNC, "query", untuned.locator, "--all"), stdout=records)

        def into(count: int, line: Callable[[Path], Line], **how: Path | bool) -> Timed:
            """Runs what `line` makes of a fresh folder, and counts what arrived."""
            folder = scratch.fresh(memory)
            timed = measure.run(line(folder), **how)  # type: ignore[arg-type]  # stdin or nodelay, as run has them
            if (arrived := count_files(folder)) != count:
                raise RunFailed(f"{arrived} of {count} files arrived: {measure.shown(line(folder))}")
            scratch.release(folder)
            return timed

        def pull(_: int) -> Timed:
            options = ("--via", "move", "--port", str(ours_at))
            return into(INSTANCES, lambda folder: (*DCMSYNC, "pull", folder, *options), stdin=records)

        def movescu(pacs: peers.Peer, folder: Path, series_uid: str = "") -> Line:
            keys = ["-k", f"0008,0052={'SERIES' if series_uid else 'STUDY'}", "-k", f"0020,000D={made[0].study_uid}"]
            keys += ["-k", f"0020,000E={series_uid}"] if series_uid else []
            return ["movescu", "-aet", "MOVESCU", "-aec", pacs.ae, "+P", str(theirs_at), "-S", *keys,
                    "-od", folder, pacs.host, str(pacs.port)]  # fmt: skip

        measure.say(f"{number}: C-MOVE, {runs} runs of each, on {kind}")
        ours, theirs = measure.in_turn(
            runs, pull, lambda _: into(INSTANCES, lambda folder: movescu(nodelay, folder), nodelay=True)
        )
        measure.say(f"{number}: movescu as shipped, {PER_SERIES} instances, once")
        one = made[0].series_uid
        slow = into(PER_SERIES, lambda folder: movescu(untuned, folder, one)).seconds * INSTANCES / PER_SERIES
        work = f"`pull --via move` {INSTANCES:,} CT of {made[0].size / 1000:,.0f} kB"
        yield Row(number, work, measure.words(ours), f"`movescu` as shipped: {slow:.0f} s", slow / measure.median(ours),
                  how=f"{kind}; both from Orthanc as shipped; `movescu` ran once, for {PER_SERIES} instances: its time "
                      f"is multiplied by {SERIES}")  # fmt: skip
        yield Row(number, work, measure.words(ours), f"`movescu` tuned: {measure.words(theirs)}",
                  measure.ratio(ours, theirs),
                  how=f"{kind}; ours from Orthanc as shipped, `movescu` with TCP_NODELAY=1 on both sides")  # fmt: skip
