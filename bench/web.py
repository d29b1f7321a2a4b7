"""P12, W1 and W4: WADO-RS (and WADO-URI) into a folder, with `dcmsync pull`, against others that fetch the same.

P12 is against `curl` that writes the multipart answer of Orthanc to one file, as it comes: no client can do less. W1 is
against dicomweb-client, in a Python process that writes each instance it was given; it has no WADO-URI, so it fetches
instance by instance there. W4 fetches one instance of 4 GB from a server that makes it while it sends (`webfountain`),
which Orthanc would hold in memory.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import measure, webfountain
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.scratch import Scratch, count_files
from tests import peers, samples

SERIES = 10
MOST_RUNS = 3
_ACCEPT = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*'
_CLIENT = """
import sys
from dicomweb_client.api import DICOMwebClient
url, folder, study, *pairs = sys.argv[1:]
client = DICOMwebClient(url)
if pairs:
    found = (client.retrieve_instance(study, *pair.split(","), media_types=(("application/dicom", "*"),))
             for pair in pairs)
else:
    found = client.iter_study(study, media_types=(("application/dicom", "*"),))
for instance in found:
    instance.save_as(f"{folder}/{instance.SOPInstanceUID}.dcm")
"""


def whole(runs: int) -> Iterator[Row]:
    """P12: 2,000 instances of 525 kB, and of 9 kB."""
    for pixels in (512, 64):
        with ExitStack() as stack:
            yield from _Fetches(stack, pixels, 2000, runs).against_curl()


def single(runs: int) -> Iterator[Row]:
    """W1: 1,000 instances of 9 kB."""
    with ExitStack() as stack:
        yield from _Fetches(stack, 64, 1000, runs).against_client()


class _Fetches:
    """The works over one Orthanc that holds one study."""

    def __init__(self, stack: ExitStack, pixels: int, instances: int, runs: int) -> None:
        self._runs, self._instances = runs, instances
        self._scratch = scratch = stack.enter_context(Scratch())
        self._made = samples.make_series(
            scratch.disk / "made", series=SERIES, instances=instances // SERIES, rows=pixels, columns=pixels
        )
        self._size = sum(sample.size for sample in self._made)
        self._place, self._kind = scratch.fast(self._size)
        peer = stack.enter_context(peers.orthanc(scratch.disk / "orthanc", dicomweb=True))
        measure.say(f"filling Orthanc with {instances:,} instances of {self._made[0].size / 1000:,.0f} kB")
        peer.store(sample.path for sample in self._made)
        self._http = peer.http
        self._url = f"{peer.http}/dicom-web"
        self._work = f"{instances:,} instances of {self._made[0].size / 1000:,.0f} kB from Orthanc"

    def against_curl(self) -> Iterator[Row]:
        """P12."""
        peers.find_program("curl")
        records = self._records("study", self._url)
        body = f"{self._url}/studies/{self._made[0].study_uid}"
        lists = [f"{body}/series/{uid}/instances" for uid in dict.fromkeys(sample.series_uid for sample in self._made)]
        pull: Line = (*DCMSYNC, "pull", "--no-cache")
        measure.say(f"P12: fetching, {self._runs} runs of each, on {self._kind}")
        ours, alone, listed = measure.in_turn(
            self._runs,
            self._fetching(pull, records),
            lambda _: self._into(lambda folder: _curl(body, folder / "body"), 1, None),
            lambda _: self._into(lambda folder: _curl(body, folder / "body", lists), 1 + len(lists), None),
        )
        work = f"WADO-RS of {self._work}"
        said = f"{measure.words(ours)}, {self._size / 1e6 / measure.median(ours):,.0f} MB/s"
        yield Row("P12", work, said, f"`curl`, one body into one file: {measure.words(alone)}",
                  measure.ratio(ours, alone), "0.8 x", f"{self._kind}; `pull` asks for the list of instances, too")
        yield Row("P12", work, said, f"`curl` that asks for the same lists before: {measure.words(listed)}",
                  measure.ratio(ours, listed), "", self._kind)

    def against_client(self) -> Iterator[Row]:
        """W1."""
        settings = self._scratch.disk / "config.toml"
        settings.write_text(
            f'[endpoints.web]\nlocator = "{self._url}"\nretrieve = "wado"\n'
            f'[endpoints.wado]\nlocator = "wado-uri+{self._http}/wado"\n'
        )
        pairs = [f"{sample.series_uid},{sample.sop_uid}" for sample in self._made]
        pull: Line = (*DCMSYNC, "pull", "--config", settings, "--no-cache")
        theirs: Line = (sys.executable, "-c", _CLIENT, self._url)
        for name, word, asked in (("WADO-RS", self._url, []), ("WADO-URI", "web", pairs)):
            measure.say(f"W1: {name}, {self._runs} runs of each, on {self._kind}")
            ours, others = measure.in_turn(
                self._runs, self._fetching((*pull,), self._records("study", word)),
                self._fetching(theirs, None, self._made[0].study_uid, *asked),
            )  # fmt: skip
            how = "WADO-RS of each instance" if asked else "WADO-RS of the study"
            yield Row("W1", f"{name} of {self._work}", measure.words(ours),
                      f"dicomweb-client, {how}: {measure.words(others)}", measure.ratio(ours, others), "", self._kind)

    def _fetching(self, line: Line, records: Path | None, *rest: str) -> Callable[[int], Timed]:
        """A work: the line, a fresh folder, and the rest."""
        return lambda _: self._into(lambda folder: (*line, folder, *rest), self._instances, records)

    def _records(self, level: str, source: str) -> Path:
        path = self._scratch.disk / "records.ndjson"
        path.write_text(f'{{"type":"{level}","source":"{source}","StudyInstanceUID":"{self._made[0].study_uid}"}}\n')
        return path

    def _into(self, line: Callable[[Path], Line], count: int, records: Path | None) -> Timed:
        """Runs what `line` makes of a fresh folder, and counts what arrived."""
        folder = self._scratch.fresh(self._place)
        timed = measure.run(line(folder), stdin=records)
        if (arrived := count_files(folder)) != count:
            raise RunFailed(f"{arrived} of {count} files arrived: {measure.shown(line(folder))[:500]}")
        self._scratch.release(folder)
        return timed


def giant(runs: int) -> Iterator[Row]:
    """W4: one instance of 4 GB."""
    runs = min(runs, MOST_RUNS)
    with Scratch() as scratch, webfountain.running() as url:
        place, kind = scratch.fast(2 * webfountain.OCTETS)
        records = scratch.disk / "records.ndjson"
        records.write_text(
            f'{{"type":"series","source":"{url}","StudyInstanceUID":"{webfountain.STUDY}",'
            f'"SeriesInstanceUID":"{webfountain.SERIES}"}}\n'
        )

        def fetch(line: Callable[[Path], Sequence[str | Path]], stdin: Path | None) -> Timed:
            folder = scratch.fresh(place)
            timed = measure.run(line(folder), stdin=stdin, with_peak=True)
            if not any(path.stat().st_size > webfountain.OCTETS for path in folder.rglob("*") if path.is_file()):
                raise RunFailed("no whole instance arrived")
            scratch.release(folder)
            return timed

        body = f"{url}/studies/{webfountain.STUDY}/series/{webfountain.SERIES}"
        measure.say(f"W4: {runs} runs of each, on {kind}")
        ours, theirs = measure.in_turn(
            runs,
            lambda _: fetch(lambda folder: (*DCMSYNC, "pull", folder, "--no-cache"), records),
            lambda _: fetch(lambda folder: _curl(body, folder / "body"), None),
            warm_up=False,
        )
    pace = f"{measure.words(ours)}, {webfountain.OCTETS / 1e6 / measure.median(ours):,.0f} MB/s"
    yield Row("W4", "WADO-RS of 4 GB in one instance", pace, f"`curl`: {measure.words(theirs)}",
              measure.ratio(ours, theirs), "", f"{kind}; {runs} runs of each")
    yield Row("W4", "peak of memory: `pull`", measure.megabytes(measure.peak(ours)),
              f"`curl`: {measure.megabytes(measure.peak(theirs))}", None, "200 MB")


def _curl(url: str, path: Path, lists: Sequence[str] = ()) -> Line:
    """Fetches a body into a file, after some lists into files beside it."""
    before = ["--silent", "--fail", "--header", "Accept: application/dicom+json"] if lists else []
    for number, each in enumerate(lists):
        before += ["--output", f"{path}{number}", each]
    fetch: Line = ["--silent", "--fail", "--header", _ACCEPT, "--output", path, url]
    return ["curl", *before, *(["--next"] if lists else []), *fetch]
