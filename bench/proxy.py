"""R1 and R2: 2,000 instances from one Orthanc to another, through `dcmsync push` and straight, told by `movescu`.

`push` fetches by C-GET and delivers by C-STORE, through its own memory, and asks the destination for every instance
afterwards; `movescu` has the first Orthanc send to the second (third-party C-MOVE), and proves nothing. The Orthancs of
`movescu` have TCP_NODELAY=1, as `movescu` has, those of `push` are as shipped. The destination is emptied between runs.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.scratch import Scratch
from tests import peers, samples

SERIES = 10
INSTANCES = 2000


def large(runs: int) -> Iterator[Row]:
    """R1: instances of 525 kB."""
    yield from _rows("R1", 512, runs)


def small(runs: int) -> Iterator[Row]:
    """R2: instances of 9 kB."""
    yield from _rows("R2", 64, runs)


def _rows(number: str, pixels: int, runs: int) -> Iterator[Row]:
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        made = samples.make_series(
            scratch.disk / "made", series=SERIES, instances=INSTANCES // SERIES, rows=pixels, columns=pixels
        )
        place, kind = scratch.fast(5 * sum(sample.size for sample in made))

        def pair(*, nodelay: bool) -> tuple[peers.Peer, peers.Peer]:
            """A filled Orthanc, and an empty one that it knows."""
            to = stack.enter_context(peers.orthanc(scratch.fresh(place), ae="TO", nodelay=nodelay))
            known = {to.ae: (peers.HOST, to.port)}
            source = stack.enter_context(peers.orthanc(scratch.fresh(place), nodelay=nodelay, destinations=known))
            measure.say(f"{number}: filling Orthanc")
            source.store(sample.path for sample in made)
            return source, to

        ours, theirs = pair(nodelay=False), pair(nodelay=True)
        records = scratch.disk / "records.ndjson"
        measure.run((*DCMSYNC, "query", ours[0].locator, "--all"), stdout=records)

        def moved(line: Line, to: peers.Peer, *, stdin: Path | None = None, nodelay: bool = False) -> Timed:
            timed = measure.run(line, stdin=stdin, nodelay=nodelay)
            if (arrived := to.instances()) != INSTANCES:
                raise RunFailed(f"{arrived} of {INSTANCES} instances arrived: {measure.shown(line)}")
            to.clear()
            return timed

        def movescu(_: int) -> Timed:
            source, to = theirs
            return moved(
                ("movescu", "-aec", source.ae, "-aem", to.ae, "-S", "-k", "0008,0052=STUDY",
                 "-k", f"0020,000D={made[0].study_uid}", source.host, str(source.port)), to, nodelay=True,
            )  # fmt: skip

        measure.say(f"{number}: from one Orthanc to another, {runs} runs of each, on {kind}")
        proven, trusted, straight = measure.in_turn(
            runs,
            lambda _: moved((*DCMSYNC, "push", ours[1].locator), ours[1], stdin=records),
            lambda _: moved((*DCMSYNC, "push", ours[1].locator, "--verify", "none"), ours[1], stdin=records),
            movescu,
        )
        work = f"`push` {INSTANCES:,} CT of {made[0].size / 1000:,.0f} kB from one Orthanc to another, through us"
        for times, how in (proven, "proven"), (trusted, "--verify none"):
            yield Row(number, f"{work}, {how}", measure.words(times), f"`movescu` tuned, straight: "
                      f"{measure.words(straight)}", measure.ratio(times, straight),
                      how=f"{kind}; our Orthancs as shipped, those of `movescu` with TCP_NODELAY=1")  # fmt: skip
