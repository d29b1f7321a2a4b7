"""P10: what one pays before anything happens: `filter`, `--help`, and `query` of a port where nobody listens."""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import measure
from bench.measure import DCMSYNC, Row
from tests import peers

LEAST_RUNS = 11
UNREACHABLE = 5


def rows(runs: int) -> Iterator[Row]:
    """The rows of the table."""
    runs = max(runs, LEAST_RUNS)
    closed = f"NOBODY@{peers.HOST}:{peers.free_port()}"
    measure.say("P10: starting")
    with TemporaryDirectory() as folder:
        no_records = Path(folder) / "none.ndjson"
        no_records.touch()
        nothing, empty, shown, asked = measure.in_turn(
            runs,
            lambda _: measure.run([sys.executable, "-c", "pass"]),
            lambda _: measure.run([*DCMSYNC, "filter", "Modality=CT"], stdin=no_records),
            lambda _: measure.run([*DCMSYNC, "--help"]),
            lambda _: measure.run([*DCMSYNC, "query", closed, "--all"], expect=UNREACHABLE),
        )
    how = f"median of {runs}; {measure.words(nothing)} of it is Python itself"
    yield Row("P10", "start-up of `filter`, no input", measure.words(empty), target="80 ms", how=how)
    yield Row("P10", "start-up of `--help`", measure.words(shown), target="80 ms", how=how)
    yield Row("P10", "start-up of `query`, nobody there", measure.words(asked), target="400 ms", how=how)
