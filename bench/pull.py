"""P1 and P2: bring 2,000 instances from Orthanc into a folder, with `dcmsync pull` and with `getscu`.

Two Orthancs hold the same instances: one as shipped, one with TCP_NODELAY=1. dcmsync always pulls from the first.
DCMTK's `getscu` is measured as shipped (on one series, since it needs 45 to 90 ms an instance; scaled), and tuned, with
TCP_NODELAY=1 on both sides. `pull` syncs each file to the disk and `getscu` never does, so the engines are compared on
a tmpfs; a row of its own has both on the disk, with `sync -f` after `getscu`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed, shell
from bench.scratch import Scratch, count_files
from tests import peers, samples

SERIES = 10
PER_SERIES = 200
INSTANCES = SERIES * PER_SERIES
DISK_RUNS = 3


def large(runs: int) -> Iterator[Row]:
    """P1: instances of 525 kB."""
    yield from _rows("P1", 512, runs, shipped="20 x", tuned="1 x")


def small(runs: int) -> Iterator[Row]:
    """P2: instances of 9 kB."""
    yield from _rows("P2", 64, runs, shipped="60 x", tuned="0.8 x")


def _rows(number: str, pixels: int, runs: int, *, shipped: str, tuned: str) -> Iterator[Row]:
    with ExitStack() as stack:
        scratch = stack.enter_context(Scratch())
        made = samples.make_series(
            scratch.disk / "made", series=SERIES, instances=PER_SERIES, rows=pixels, columns=pixels
        )
        untuned = stack.enter_context(peers.orthanc(scratch.disk / "untuned"))
        nodelay = stack.enter_context(peers.orthanc(scratch.disk / "nodelay", nodelay=True))
        for pacs in (untuned, nodelay):
            measure.say(f"{number}: filling Orthanc")
            pacs.store(sample.path for sample in made)
        yield from _Pulls(number, runs, scratch, made, untuned, nodelay).rows(shipped, tuned)


class _Pulls:
    """The works of one row, over two filled Orthancs."""

    def __init__(
        self,
        number: str,
        runs: int,
        scratch: Scratch,
        made: Sequence[samples.Sample],
        untuned: peers.Peer,
        nodelay: peers.Peer,
    ) -> None:
        self._number, self._runs, self._scratch, self._one = number, runs, scratch, made[0]
        self._untuned, self._nodelay = untuned, nodelay
        self._memory, self._kind = scratch.fast(sum(sample.size for sample in made))
        self._query: Line = (*DCMSYNC, "query", untuned.locator, "--all")
        self._records = scratch.disk / "records.ndjson"
        measure.run(self._query, stdout=self._records)

    def rows(self, shipped: str, tuned: str) -> Iterator[Row]:
        """The rows; `shipped` and `tuned` are their targets."""
        number, kind = self._number, self._kind
        work = f"`pull` {INSTANCES:,} CT of {self._one.size / 1000:,.0f} kB"
        measure.say(f"{number}: pulling, {self._runs} runs of each, on {kind}")
        ours, piped, theirs = measure.in_turn(self._runs, self._pull, self._pipe, self._getscu_tuned)
        measure.say(f"{number}: getscu as shipped, {PER_SERIES} instances, once")
        slow = self._getscu_shipped().seconds * INSTANCES / PER_SERIES
        yield Row(number, work, measure.words(ours), f"`getscu` as shipped: {slow:.0f} s", slow / measure.median(ours),
                  shipped, f"{kind}; both from Orthanc as shipped; `getscu` ran once, for {PER_SERIES} instances: "
                           f"its time is multiplied by {SERIES}")
        fast = f"`getscu` tuned: {measure.words(theirs)}"
        yield Row(number, work, measure.words(ours), fast, measure.ratio(ours, theirs), tuned,
                  f"{kind}; ours from Orthanc as shipped, `getscu` with TCP_NODELAY=1 on both sides")
        yield Row(number, f"{work}, `query` before it in the pipe", measure.words(piped), fast,
                  measure.ratio(piped, theirs), "", f"{kind}; `query ORTHANC --all | pull DIR`")
        measure.say(f"{number}: pulling to the disk")
        ours, theirs = measure.in_turn(
            min(self._runs, DISK_RUNS), self._pull_durably, self._getscu_durably, warm_up=False
        )
        yield Row(number, f"{work}, on the disk for good", measure.words(ours),
                  f"`getscu` tuned, then `sync -f`: {measure.words(theirs)}", measure.ratio(ours, theirs), "",
                  f"disk; {len(ours)} runs of each; `pull` syncs each file before it names it")

    def _pull(self, _: int) -> Timed:
        return self._into(self._memory, INSTANCES, lambda folder: (*DCMSYNC, "pull", folder), records=self._records)

    def _pipe(self, _: int) -> Timed:
        return self._into(self._memory, INSTANCES, lambda folder: shell(self._query, (*DCMSYNC, "pull", folder)))

    def _getscu_tuned(self, _: int) -> Timed:
        return self._into(self._memory, INSTANCES, lambda folder: self._getscu(self._nodelay, folder), nodelay=True)

    def _getscu_shipped(self) -> Timed:
        one = self._one.series_uid
        return self._into(self._memory, PER_SERIES, lambda folder: self._getscu(self._untuned, folder, one))

    def _pull_durably(self, _: int) -> Timed:
        return self._into(
            self._scratch.disk, INSTANCES, lambda folder: (*DCMSYNC, "pull", folder), records=self._records
        )

    def _getscu_durably(self, _: int) -> Timed:
        def line(folder: Path) -> Line:
            fetch = measure.shown(self._getscu(self._nodelay, folder))
            return ["sh", "-c", f"{fetch} && {measure.shown(['sync', '-f', folder])}"]

        return self._into(self._scratch.disk, INSTANCES, line, nodelay=True)

    def _getscu(self, pacs: peers.Peer, folder: Path, series_uid: str = "") -> Line:
        """`getscu` of the study, or of one series of it, writing what it gets bit by bit."""
        keys = ["-k", f"0008,0052={'SERIES' if series_uid else 'STUDY'}", "-k", f"0020,000D={self._one.study_uid}"]
        keys += ["-k", f"0020,000E={series_uid}"] if series_uid else []
        return ["getscu", "-aec", pacs.ae, "+B", "-S", *keys, "-od", folder, pacs.host, str(pacs.port)]

    def _into(
        self,
        place: Path,
        count: int,
        line: Callable[[Path], Line],
        *,
        records: Path | None = None,
        nodelay: bool = False,
    ) -> Timed:
        """Runs what `line` makes of a fresh folder, and counts what arrived."""
        folder = self._scratch.fresh(place)
        timed = measure.run(line(folder), stdin=records, nodelay=nodelay)
        if (arrived := count_files(folder)) != count:
            raise RunFailed(f"{arrived} of {count} files arrived: {measure.shown(line(folder))}")
        self._scratch.release(folder)
        return timed
