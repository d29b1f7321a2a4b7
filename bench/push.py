"""P3 and P4: send a folder to a node, with `dcmsync push` and with `storescu +sd +r`.

Every run of storescp has a fresh node with an empty folder on a tmpfs; Orthanc is emptied between runs. `storescp`
takes several associations at once (`--fork`), for whoever opens them. It cannot be asked what it has, so that `push`
takes its word (--verify none); of Orthanc it asks for every instance again, which is in the time. `push` knows nothing
of the folder beforehand (--no-cache), and looks at every file as a whole before it sends any.

`storescu` is measured tuned, with TCP_NODELAY=1 on both sides, and as shipped, on a few instances (it needs 40 to 90 ms
each); its time is scaled.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.scratch import Scratch, count_files
from tests import peers, samples

SHIPPED = 100


def large(runs: int) -> Iterator[Row]:
    """P3: 2,000 instances of 525 kB: 1 GB."""
    with ExitStack() as stack:
        pushes = _Pushes("P3", stack.enter_context(Scratch()), pixels=512, instances=2000, runs=runs)
        yield from pushes.into_storescp(tuned="1.1 x", shipped="20 x")
        yield from pushes.into_orthanc(tuned="1.1 x")


def small(runs: int) -> Iterator[Row]:
    """P4: 10,000 instances of 9 kB."""
    with ExitStack() as stack:
        pushes = _Pushes("P4", stack.enter_context(Scratch()), pixels=64, instances=10_000, runs=runs)
        yield from pushes.into_storescp(tuned="1 x", shipped="")


class _Pushes:
    """The works of one row, from one folder."""

    def __init__(self, number: str, scratch: Scratch, *, pixels: int, instances: int, runs: int) -> None:
        self._number, self._scratch, self._instances, self._runs = number, scratch, instances, runs
        self._few, self._many = scratch.disk / "few", scratch.disk / "many"
        samples.make_series(self._few, instances=SHIPPED, rows=pixels, columns=pixels, seed=2)
        made = samples.make_series(self._many, series=10, instances=instances // 10, rows=pixels, columns=pixels)
        self._place, self._kind = scratch.fast(sum(sample.size for sample in made))
        self._work = f"`push` {instances:,} instances of {made[0].size / 1000:,.0f} kB to"

    def into_storescp(self, *, tuned: str, shipped: str) -> Iterator[Row]:
        """Fresh nodes."""
        number, count = self._number, self._instances
        measure.say(f"{number}: to storescp, {self._runs} runs of each, on {self._kind}")
        ours, theirs = measure.in_turn(
            self._runs,
            lambda _: self._to_storescp(_push, self._many, count, nodelay=False),
            lambda _: self._to_storescp(_storescu, self._many, count, nodelay=True),
        )
        slow = self._to_storescp(_storescu, self._few, SHIPPED, nodelay=False).seconds * count / SHIPPED
        how = f"{self._kind}; ours to `storescp` as shipped, `storescu` with TCP_NODELAY=1 on both sides"
        yield Row(number, f"{self._work} `storescp`", measure.words(ours), f"`storescu` tuned: {measure.words(theirs)}",
                  measure.ratio(ours, theirs), tuned, how)
        yield Row(number, f"{self._work} `storescp`", measure.words(ours), f"`storescu` as shipped: {slow:.0f} s",
                  slow / measure.median(ours), shipped, f"{self._kind}; `storescu` ran once, for {SHIPPED} instances")

    def into_orthanc(self, *, tuned: str) -> Iterator[Row]:
        """Two nodes, emptied between runs: one as shipped, one tuned."""
        number, count = self._number, self._instances
        with (
            peers.orthanc(self._scratch.fresh(self._place)) as shipped,
            peers.orthanc(self._scratch.fresh(self._place), nodelay=True) as nodelay,
        ):
            measure.say(f"{number}: to Orthanc, {self._runs} runs of each, on {self._kind}")
            ours, theirs = measure.in_turn(
                self._runs,
                lambda _: self._to_orthanc(_push_proven, shipped, count, nodelay=False),
                lambda _: self._to_orthanc(_storescu, nodelay, count, nodelay=True),
            )
        yield Row(number, f"{self._work} Orthanc, proven", measure.words(ours),
                  f"`storescu` tuned: {measure.words(theirs)}", measure.ratio(ours, theirs), tuned,
                  f"{self._kind}; ours to Orthanc as shipped, `storescu` with TCP_NODELAY=1 on both sides")

    def _to_storescp(
        self, line: "Callable[[peers.Peer, Path], Line]", source: Path, count: int, *, nodelay: bool
    ) -> Timed:
        folder = self._scratch.fresh(self._place)
        node: AbstractContextManager[peers.Peer] = peers.storescp(folder, "+B", "--fork", nodelay=nodelay)
        with node as peer:
            timed = measure.run(line(peer, source), nodelay=nodelay)
            if (arrived := count_files(folder / "received")) != count:
                raise RunFailed(f"{arrived} of {count} files arrived: {measure.shown(line(peer, source))}")
        self._scratch.release(folder)
        return timed

    def _to_orthanc(
        self, line: "Callable[[peers.Peer, Path], Line]", peer: peers.Peer, count: int, *, nodelay: bool
    ) -> Timed:
        timed = measure.run(line(peer, self._many), nodelay=nodelay)
        if (arrived := peer.instances()) != count:
            raise RunFailed(f"{arrived} of {count} instances arrived: {measure.shown(line(peer, self._many))}")
        peer.clear()
        return timed


def _push(peer: peers.Peer, source: Path) -> Line:
    return *DCMSYNC, "push", peer.locator, source, "--no-cache", "--verify", "none"


def _push_proven(peer: peers.Peer, source: Path) -> Line:
    return *DCMSYNC, "push", peer.locator, source, "--no-cache"


def _storescu(peer: peers.Peer, source: Path) -> Line:
    return "storescu", "-aec", peer.ae, "+sd", "+r", peer.host, str(peer.port), source
