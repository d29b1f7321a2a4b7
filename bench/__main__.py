"""`python -m bench [--runs N] [ROW]...`: measures, and prints one Markdown table on standard output.

Progress goes to standard error. A row whose peer is not installed is left out, with a word; a row that fails is said,
and the exit status is 1.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module

from bench import measure
from bench.measure import Row, RunFailed
from tests import peers

ROWS: Mapping[str, tuple[str, str, str]] = {
    "P1": ("bench.pull", "large", "pull 2,000 instances of 525 kB from Orthanc, against getscu"),
    "P2": ("bench.pull", "small", "pull 2,000 instances of 9 kB from Orthanc, against getscu"),
    "P6": ("bench.index", "first", "index a folder of 20,000 files, against pydicom and dcmdump"),
    "P7": ("bench.index", "again", "look whether any of 20,000 files changed, against rsync -n"),
    "P3": ("bench.push", "large", "push 2,000 instances of 525 kB to storescp and Orthanc, against storescu"),
    "P4": ("bench.push", "small", "push 10,000 instances of 9 kB to storescp, against storescu"),
    "P5": ("bench.distance", "push", "push 2,000 instances of 9 kB over 20 ms round trip, against storescu"),
    "P5G": ("bench.distance", "pull", "pull 2,000 instances of 9 kB over 20 ms round trip, against getscu"),
    "M1": ("bench.move", "large", "pull 2,000 instances of 525 kB from Orthanc by C-MOVE, against movescu"),
    "M2": ("bench.move", "small", "pull 2,000 instances of 9 kB from Orthanc by C-MOVE, against movescu"),
    "R1": ("bench.proxy", "large", "from one Orthanc to another, 2,000 instances of 525 kB, against movescu"),
    "R2": ("bench.proxy", "small", "from one Orthanc to another, 2,000 instances of 9 kB, against movescu"),
    "P5J": ("bench.distance", "jobs", "push over 20 ms round trip, by ten associations and by one"),
    "P8": ("bench.filter", "rows", "filter 200,000 series records, against jq"),
    "P9": ("bench.query", "rows", "query 100,000 studies: first record, memory"),
    "P9D": ("bench.diff", "rows", "diff of 100,000 studies and of 1,000,000 instance records: first record, memory"),
    "P10": ("bench.start", "rows", "start-up of filter, --help and query"),
    "P11": ("bench.giant", "rows", "one instance of 4 GB: memory and speed"),
    "Y1": ("bench.sync", "rows", "sync of 20,000 instances from Orthanc, and again: time, octets moved"),
    "S1": ("bench.store", "large", "storescu of 1,000 instances of 525 kB into serve, against storescp"),
    "S2": ("bench.store", "small", "storescu of 2,000 instances of 9 kB into serve, against storescp"),
    "P12": ("bench.web", "whole", "WADO-RS of 2,000 instances of 525 kB and of 9 kB from Orthanc, against curl"),
    "W1": ("bench.web", "single", "1,000 instances of 9 kB by WADO-RS and WADO-URI, against dicomweb-client"),
    "W4": ("bench.web", "giant", "WADO-RS of one instance of 4 GB: memory and speed"),
    "W2": ("bench.stow", "rows", "STOW-RS of 2,000 instances of 525 kB and of 9 kB to Orthanc, against curl"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Measures the rows asked for. Returns the exit status."""
    arguments = _parser().parse_args(words)
    if arguments.runs < 1:
        _parser().error("--runs must be 1 or more")
    with tempfile.TemporaryDirectory(prefix="dcmsync-bench-") as caches:
        os.environ["XDG_CACHE_HOME"] = caches  # what is measured leaves nothing in the user's own
        return _report(arguments)


def _report(arguments: argparse.Namespace) -> int:
    failed: list[str] = []
    busy = os.getloadavg()[0]
    for line in measure.table(_measure(arguments.row or ROWS, arguments.runs, failed)):
        _print(line)
    _print("")
    for line in measure.versions():
        _print(line)
    runs = f"median of {arguments.runs} runs in turn unless said otherwise"
    _print(f"Whole processes, wall time; {runs} (fastest-slowest); start-up included")
    _print(f"Load average of the machine before the first run: {busy:.1f}")
    return 1 if failed else 0


def _measure(names: Iterable[str], runs: int, failed: list[str]) -> Iterator[Row]:
    for name in names:
        module, function, _ = ROWS[name]
        rows: Callable[[int], Iterator[Row]] = getattr(import_module(module), function)
        try:
            yield from rows(runs)
        except peers.PeerMissing as error:
            measure.say(f"{name}: {error}")
        except (RunFailed, OSError, RuntimeError) as error:
            measure.say(f"{name} failed: {error}")
            failed.append(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures dcmsync against other tools, and prints one Markdown table.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows:\n" + "\n".join(f"  {name:4} {about}" for name, (_, _, about) in ROWS.items()),
    )
    parser.add_argument("row", nargs="*", metavar="ROW", type=_row, help="what to measure; default: everything")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each work; default 5")
    return parser


def _row(word: str) -> str:
    if word.upper() not in ROWS:
        raise argparse.ArgumentTypeError(f"no such row: {word} (rows: {', '.join(ROWS)})")
    return word.upper()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
