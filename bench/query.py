"""P9: a query that 100,000 studies answer: how soon the first record is out, how long it takes, and the memory.

The node is `bench/fountain.py`, which needs no time to think. Next to it `findscu`, which prints the same answers.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import measure
from bench.fountain import AE
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from tests import peers

MANY = 100_003  # no round number: a list that ends at one looks cut short, and is asked for again in parts
FEW = 1_003


@dataclass
class Fountain:
    """A running fountain."""

    process: subprocess.Popen[str]
    port: int

    @property
    def locator(self) -> str:
        """AET@host:port."""
        return f"{AE}@{peers.HOST}:{self.port}"

    def first_answer(self) -> float:
        """When the first answer of the latest query was sent."""
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())


def rows(runs: int) -> Iterator[Row]:
    """The rows of the table."""
    with fountain(MANY) as many, fountain(FEW) as few:
        measure.say(f"P9: querying, {runs} runs of each")
        waits: list[float] = []
        keys = [word for key in _KEYS for word in ("-k", key)]
        findscu: Line = ["findscu", "-S", "-aec", AE, *keys, peers.HOST, str(many.port)]

        def ask(_: int) -> Timed:
            wait, timed = _ask(many, MANY)
            waits.append(wait)
            return timed

        def ask_findscu(_: int) -> Timed:
            timed = measure.run(findscu, nodelay=True, with_peak=True)
            many.first_answer()
            return timed

        ours, theirs = measure.in_turn(runs, ask, ask_findscu)
        _, small = _ask(few, FEW)
    yield Row("P9", f"`query` that {MANY:,} studies answer", measure.words(ours), f"`findscu`: {measure.words(theirs)}",
              measure.ratio(ours, theirs), how="from a node that answers at once; `findscu` writes text")
    yield Row("P9", "first record after the first answer", f"{1000 * max(waits):.0f} ms at most", target="500 ms")
    yield Row("P9", f"peak of memory for {MANY:,} answers", measure.megabytes(measure.peak(ours)),
              f"`findscu`: {measure.megabytes(measure.peak(theirs))}", target="flat",
              how=f"for {FEW:,} answers: {measure.megabytes(small.peak_octets)}")


_KEYS = ("0008,0052=STUDY", "0008,0020", "0008,0030", "0008,0050", "0008,0061", "0008,1030", "0010,0010", "0010,0020",
         "0010,0030", "0010,0040", "0020,000D", "0020,0010", "0020,1206", "0020,1208")


def _ask(node: Fountain, count: int) -> tuple[float, Timed]:
    return ask_timed([*DCMSYNC, "query", node.locator, "--all"], node, count)


def ask_timed(line: Line, node: Fountain, count: int, *, status: int = 0) -> tuple[float, Timed]:
    """Seconds from the first answer to the first record, and the whole. Raises RunFailed unless all came."""
    begun = time.monotonic()
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=measure.environment()) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.monotonic()
        lines, peak = 1, 0
        for lines, _ in enumerate(process.stdout, 2):
            if lines >= count:  # the last study; the end is yet to come
                peak = max(peak, measure.peak_of(process.pid))
    seconds = time.monotonic() - begun
    if process.returncode != status or lines != count + 1:
        raise RunFailed(f"{lines} lines, status {process.returncode}: {measure.shown(line)}")
    return first - node.first_answer(), Timed(seconds, peak)


@contextmanager
def fountain(answers: int) -> Iterator[Fountain]:
    """A fountain with so many studies."""
    line = [sys.executable, "-m", "bench.fountain", str(answers)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Fountain(process, int(process.stdout.readline()))
        finally:
            process.kill()
