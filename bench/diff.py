"""P9, the part of `diff`: 100,000 studies of a node, and 1,000,000 instance records, against an empty folder.

How soon the first record is out, how long it takes, and the memory. The node is `bench/fountain.py`; the records are
made up, once in the order of their series, once shuffled with a fixed seed.
"""

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, Timed
from bench.query import FEW, MANY, Fountain, ask_timed, fountain

RECORDS = 1_000_000
PER_SERIES = 400
_ROOT = "1.2.826.0.1.3680043.8.498."


def rows(runs: int) -> Iterator[Row]:
    """The rows of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        yield from _of_studies(folder / "empty", runs)
        yield from _of_instances(folder)


def _of_studies(empty: Path, runs: int) -> Iterator[Row]:
    measure.say(f"P9: comparing {MANY:,} studies, {runs} runs")
    waits: list[float] = []

    with fountain(MANY) as many, fountain(FEW) as few:

        def line(node: Fountain) -> list[str]:
            return [*DCMSYNC, "diff", "--no-cache", node.locator, str(empty), "--all"]

        def compare(_: int) -> Timed:
            wait, timed = ask_timed(line(many), many, MANY, status=1)
            waits.append(wait)
            return timed

        (ours,) = measure.in_turn(runs, compare)
        _, small = ask_timed(line(few), few, FEW, status=1)
    yield Row("P9", f"`diff` of {MANY:,} studies that a folder lacks", measure.words(ours))
    yield Row("P9", "first record after the first answer", f"{1000 * max(waits):.0f} ms at most", target="500 ms")
    yield Row("P9", f"peak of memory for {MANY:,} studies", measure.megabytes(measure.peak(ours)), target="flat",
              how=f"for {FEW:,} studies: {measure.megabytes(small.peak_octets)}")


def _of_instances(folder: Path) -> Iterator[Row]:
    for how in ("sorted", "shuffled"):
        records = folder / f"{how}.ndjson"
        write_instances(records, RECORDS, is_shuffled=how == "shuffled")
        measure.say(f"P9: comparing {RECORDS:,} {how} records, once")
        line: Line = (*DCMSYNC, "diff", "--no-cache", "-", folder / "empty")
        timed = measure.run(line, stdin=records, expect=1, with_peak=True)
        records.unlink()
        yield Row("P9", f"`diff -` of {RECORDS:,} {how} instance records", f"{timed.seconds:.1f} s",
                  measure.megabytes(timed.peak_octets), target="500 MB", how="one run; all are missing")


def write_instances(path: Path, count: int, *, is_shuffled: bool) -> None:
    """Writes instance records of PER_SERIES a series, 4 series a study."""
    order = list(range(count))
    if is_shuffled:
        random.Random(20240131).shuffle(order)
    with path.open("w") as file:
        for number in order:
            series = number // PER_SERIES
            record = {
                "type": "instance", "source": "mypacs", "StudyInstanceUID": f"{_ROOT}{10**30 + series // 4}",
                "SeriesInstanceUID": f"{_ROOT}{10**31 + series}", "SOPInstanceUID": f"{_ROOT}{10**32 + number}",
                "PatientID": f"P{series // 4:06d}", "PatientName": f"DOE^JANE{series // 4}", "StudyDate": "20240131",
                "StudyTime": "121314", "StudyDescription": "CT THORAX", "Modality": "CT", "SeriesNumber": series % 4,
                "SeriesDescription": "Lung 1.0 B70f", "InstanceNumber": number % PER_SERIES,
                "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            }  # fmt: skip
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
