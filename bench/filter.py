"""P8: `dcmsync filter` against `jq`, as whole processes, start-up included.

Owns the input (200,000 series records, fixed seed) and the measurement: five runs of each, in turn, medians. Run it
with `python -m bench.filter`. Refuses to compare answers that differ.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SERIES = 200_000
RUNS = 5
TARGET = 6.0
MODALITIES = ("CT", "MR", "US", "CR", "PT", "SR")


def rows() -> list[tuple[str, str, str, str, str]]:
    """The rows of the table: number, work, ours, theirs, ratio. Empty where jq is not installed."""
    jq = shutil.which("jq")
    if jq is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "series.ndjson"
        write_series(records)
        ours = [sys.executable, "-m", "dcmsync", "filter", "Modality=CT"]
        theirs = [jq, "-c", 'select(.Modality=="CT")']
        _check_same(ours, theirs, records)
        times = [(_seconds(ours, records), _seconds(theirs, records)) for _ in range(RUNS)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    return [("P8", f"filter {SERIES:,} series records", f"{mine:.3f} s", f"jq {other:.3f} s",
             f"{other / mine:.1f} (target {TARGET:g})")]


def write_series(path: Path) -> None:
    """Writes the records: 16 keys each, as a query of series gives them, without an `end` (which jq would drop)."""
    choose = random.Random(20240131)
    with path.open("w") as file:
        for number in range(SERIES):
            study = f"1.2.826.0.1.3680043.8.498.{choose.getrandbits(100)}"
            record = {
                "type": "series", "source": "mypacs", "StudyInstanceUID": study,
                "SeriesInstanceUID": f"{study}.{choose.randrange(100)}",
                "PatientID": f"P{choose.randrange(20_000):06d}", "PatientName": f"DOE^JANE{number % 977}",
                "PatientBirthDate": "19700101", "PatientSex": choose.choice("FM"),
                "StudyDate": f"20{choose.randrange(10, 25)}{choose.randrange(1, 13):02d}{choose.randrange(1, 29):02d}",
                "StudyTime": "121314", "StudyDescription": "CT THORAX", "AccessionNumber": f"A{number}",
                "Modality": choose.choice(MODALITIES), "SeriesNumber": choose.randrange(20),
                "SeriesDescription": "Lung 1.0 B70f", "NumberOfSeriesRelatedInstances": choose.randrange(1, 900),
            }  # fmt: skip
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def _check_same(ours: Sequence[str], theirs: Sequence[str], records: Path) -> None:
    with records.open("rb") as one, records.open("rb") as two:
        mine = subprocess.run(ours, stdin=one, stdout=subprocess.PIPE, check=True, env=_environment()).stdout
        other = subprocess.run(theirs, stdin=two, stdout=subprocess.PIPE, check=True).stdout
    if mine != other:
        raise SystemExit("filter and jq do not agree: there is nothing to measure")


def _seconds(command: Sequence[str], records: Path) -> float:
    with records.open("rb") as stdin:
        before = time.perf_counter()
        subprocess.run(command, stdin=stdin, stdout=subprocess.DEVNULL, check=True, env=_environment())
        return time.perf_counter() - before


def _environment() -> dict[str, str]:
    """As it is, but for what makes every Python start anew: compiled modules are kept, as they are once installed."""
    return {key: value for key, value in os.environ.items()
            if key not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")}


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write(" | ".join(row) + "\n")
