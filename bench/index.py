"""P6 and P7: the index of a folder of 20,000 files, for the first time and when nothing changed.

P6 makes the cache from nothing, against programs that read the same headers: pydicom (up to the pixels) and dcmdump.
P7 asks the folder for its studies when the cache knows it, against `rsync -n` of the tree to a copy of it: both look at
every file once, rsync at those of the copy too. All files are in the page cache.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.scratch import Scratch
from dcmsync.endpoints.folder.readers import cores
from tests import peers, samples

STUDIES, SERIES, INSTANCES = 20, 10, 100
FILES = STUDIES * SERIES * INSTANCES
FILE_OCTETS = 9_388
_PYDICOM = """
import os, sys, pydicom
count = 0
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        pydicom.dcmread(os.path.join(folder, name), stop_before_pixels=True).SOPInstanceUID
        count += 1
assert count == int(sys.argv[2])
"""


def first(runs: int) -> Iterator[Row]:
    """P6: the first time, on one core and on all."""
    taskset = peers.find_program("taskset")
    dump = peers.find_program("dcmdump")
    with Scratch() as scratch:
        folder = _tree(scratch)
        measure.say(f"P6: indexing {FILES:,} files, {runs} runs of each")

        def index(*before: str) -> Timed:
            cache = scratch.fresh(scratch.disk) / "cache"
            timed = measure.run([*before, *DCMSYNC, "cache", "rebuild", folder, "--cache", cache])
            _check(folder, cache)
            return timed

        one_core = (taskset, "-c", "0")
        pydicom: Line = [*one_core, sys.executable, "-c", _PYDICOM, folder, str(FILES)]
        dcmdump: Line = [*one_core, dump, "-q", "+sd", "+r", "+P", "0008,0018", folder]
        single, every, theirs, others = measure.in_turn(
            runs, lambda _: index(*one_core), lambda _: index(), lambda _: measure.run(pydicom),
            lambda _: measure.run(dcmdump),
        )  # fmt: skip
    work = f"index {FILES:,} files of 9 kB"
    yield Row("P6", f"{work}, one core", measure.words(single), f"pydicom, headers: {measure.words(theirs)}",
              measure.ratio(single, theirs), "4 x", _rate(single))
    yield Row("P6", f"{work}, one core", measure.words(single), f"dcmdump: {measure.words(others)}",
              measure.ratio(single, others), how="taskset -c 0")
    yield Row("P6", f"{work}, {cores()} cores", measure.words(every), f"ours on one core: {measure.words(single)}",
              measure.ratio(every, single), "scales", _rate(every))


def again(runs: int) -> Iterator[Row]:
    """P7: the same again, and nothing changed."""
    rsync = peers.find_program("rsync")
    with Scratch() as scratch:
        folder = _tree(scratch)
        copy = scratch.fresh(scratch.disk) / "copy"
        shutil.copytree(folder, copy)
        measure.run([rsync, "-a", f"{folder}/", f"{copy}/"])
        cache = scratch.disk / "cache"
        measure.run([*DCMSYNC, "cache", "rebuild", folder, "--cache", cache])
        measure.say(f"P7: looking whether {FILES:,} files changed, {runs} runs of each")
        ours: Line = [*DCMSYNC, "query", folder, "--all", "--cache", cache]
        status: Line = [*DCMSYNC, "cache", "status", folder, "--cache", cache]
        theirs: Line = [rsync, "-n", "-a", f"{folder}/", f"{copy}/"]
        looked, asked, other = measure.in_turn(
            runs, lambda _: measure.run(status), lambda _: measure.run(ours), lambda _: measure.run(theirs)
        )
    yield Row("P7", f"`cache status` of {FILES:,} files, nothing changed", measure.words(looked),
              f"`rsync -n -a`: {measure.words(other)}", measure.ratio(looked, other), "0.5 x", "no file opened")
    yield Row("P7", "`query`, which looks likewise", measure.words(asked), f"`rsync -n -a`: {measure.words(other)}",
              measure.ratio(asked, other), "0.5 x", f"{STUDIES} studies answered from the cache")


def _tree(scratch: Scratch) -> Path:
    """The files, on a tmpfs where there is one with room."""
    place, _ = scratch.fast(2 * FILES * FILE_OCTETS)
    folder = scratch.fresh(place)
    samples.make_series(folder, studies=STUDIES, series=SERIES, instances=INSTANCES)
    return folder


def _check(folder: Path, cache: Path) -> None:
    """Raises RunFailed unless the cache knows every file."""
    out = cache.with_suffix(".ndjson")
    measure.run([*DCMSYNC, "cache", "status", folder, "--cache", cache], stdout=out)
    if f'"instances":{FILES},' not in out.read_text():
        raise RunFailed("the cache does not know every file: there is nothing to measure")


def _rate(times: list[Timed]) -> str:
    return f"{FILES / measure.median(times):,.0f} files/s"
