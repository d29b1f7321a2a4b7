"""W2: STOW-RS of a folder to Orthanc, with `dcmsync push`, against `curl` that sends the same instances as one body.

What curl sends is a file that was made beforehand, multipart/related with all instances, read into memory and sent in
one request: no client can do less. `push` looks at every file as a whole, sends in requests of up to 100 instances, and
asks Orthanc for every instance again, which is in its time; `--verify none` leaves that out. Orthanc is emptied between
runs.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.scratch import Scratch
from tests import peers, samples

BOUNDARY = "8b1c0cf51d3a4a0f9f2b6f0f3a1d7c55"
_HEAD = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
_TYPE = f'Content-Type: multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def rows(runs: int) -> Iterator[Row]:
    """1 GB in 2,000 instances, then 2,000 small ones."""
    for pixels in (512, 64):
        with ExitStack() as stack:
            yield from _Stows(stack.enter_context(Scratch()), pixels=pixels, instances=2000, runs=runs).rows()


class _Stows:
    """The works of one size of instances."""

    def __init__(self, scratch: Scratch, *, pixels: int, instances: int, runs: int) -> None:
        self._instances, self._runs = instances, runs
        self._files, self._body = scratch.disk / "files", scratch.disk / "body"
        made = samples.make_series(self._files, series=10, instances=instances // 10, rows=pixels, columns=pixels)
        with self._body.open("wb") as body:
            for sample in made:
                body.write(_HEAD + sample.path.read_bytes() + b"\r\n")
            body.write(f"--{BOUNDARY}--\r\n".encode())
        self._place, self._kind = scratch.fast(sum(sample.size for sample in made))
        self._scratch = scratch
        self._work = f"STOW-RS of {instances:,} instances of {made[0].size / 1000:,.0f} kB to Orthanc"

    def rows(self) -> Iterator[Row]:
        """With proof and without, against curl."""
        peers.find_program("curl")
        with peers.orthanc(self._scratch.fresh(self._place), dicomweb=True) as peer:
            measure.say(f"W2: {self._work}, {self._runs} runs of each, on {self._kind}")
            proven, sent, theirs = measure.in_turn(
                self._runs,
                lambda _: self._run(peer, _push(peer, self._files)),
                lambda _: self._run(peer, (*_push(peer, self._files), "--verify", "none")),
                lambda _: self._run(peer, _curl(peer, self._body)),
            )
        said = f"`curl`, one request: {measure.words(theirs)}"
        for ours, what in ((proven, "proven"), (sent, "--verify none")):
            ratio = measure.ratio(ours, theirs)
            yield Row("W2", f"{self._work}, {what}", measure.words(ours), said, ratio, "", self._kind)

    def _run(self, peer: peers.Peer, line: Line) -> Timed:
        timed = measure.run(line)
        if (arrived := peer.instances()) != self._instances:
            raise RunFailed(f"{arrived} of {self._instances} instances arrived: {measure.shown(line)}")
        peer.clear()
        return timed


def _push(peer: peers.Peer, source: Path) -> Line:
    return *DCMSYNC, "push", f"{peer.http}/dicom-web", source, "--no-cache"


def _curl(peer: peers.Peer, body: Path) -> Line:
    url = f"{peer.http}/dicom-web/studies"
    return "curl", "--silent", "--fail", "--header", _TYPE, "--header", "Expect:", "--data-binary", f"@{body}", url
