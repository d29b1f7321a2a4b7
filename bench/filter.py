"""P8: `dcmsync filter` against `jq`, as whole processes, start-up included.

Owns the input: 200,000 series records, fixed seed. Refuses to compare answers that differ.
"""

import filecmp
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed

SERIES = 200_000
MODALITIES = ("CT", "MR", "US", "CR", "PT", "SR")


def rows(runs: int) -> Iterator[Row]:
    """The row of the table; none where jq is not installed."""
    jq = shutil.which("jq")
    if jq is None:
        measure.say("P8: jq is not installed")
        return
    ours = (*DCMSYNC, "filter", "Modality=CT")
    theirs = (jq, "-c", 'select(.Modality=="CT")')
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "series.ndjson"
        write_series(records)
        _check_same(ours, theirs, records)
        measure.say(f"P8: filtering, {runs} runs of each")
        mine, other = measure.in_turn(
            runs, lambda _: measure.run(ours, stdin=records), lambda _: measure.run(theirs, stdin=records)
        )
    yield Row("P8", f"`filter` {SERIES:,} series records", measure.words(mine), f"`jq`: {measure.words(other)}",
              measure.ratio(mine, other), "6 x", "the same octets out of both")


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


def _check_same(ours: Line, theirs: Line, records: Path) -> None:
    mine, other = records.with_suffix(".ours"), records.with_suffix(".theirs")
    measure.run(ours, stdin=records, stdout=mine)
    measure.run(theirs, stdin=records, stdout=other)
    if not filecmp.cmp(mine, other, shallow=False):
        raise RunFailed("filter and jq do not agree: there is nothing to measure")
