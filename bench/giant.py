"""P11: one instance of 4 GB through `serve` and `pull`: peak of memory of both, and speed.

The instance is an Enhanced CT of 500 frames of noise, one element of 4,000,000,000 octets. DCMTK's tools do the same
work with the same files: `getscu` from our node, and `storescu` into our node and into `storescp`.
"""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, Line, Row, RunFailed, Timed
from bench.node import Node, serving
from bench.scratch import Scratch
from tests import peers, samples

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SIDE = 2000
FRAMES = 500
OCTETS = 2 * SIDE * SIDE * FRAMES
MOST_RUNS = 3
TARGET = "200 MB"


def rows(runs: int) -> Iterator[Row]:
    """The rows of the table."""
    with Scratch() as scratch:
        giant = _Giant(min(runs, MOST_RUNS), scratch)
        yield from giant.given()
        yield from giant.taken()
        yield from giant.pushed()


class _Giant:
    """The works over one archive that holds the instance."""

    def __init__(self, runs: int, scratch: Scratch) -> None:
        self._runs, self._scratch = runs, scratch
        self._place, self._kind = scratch.fast(2 * OCTETS)
        measure.say(f"P11: writing {measure.megabytes(OCTETS)} to {self._kind}")
        self._archive = scratch.fresh(self._place)
        self._study_uid, self._size = _make(self._archive / "giant.dcm")

    def given(self) -> Iterator[Row]:
        """From `serve` to `pull` and to `getscu`."""
        records = self._scratch.disk / "records.ndjson"
        with serving(self._archive) as node:
            measure.run([*DCMSYNC, "query", node.locator, "--all"], stdout=records)
            keys = ["-k", "0008,0052=STUDY", "-k", f"0020,000D={self._study_uid}"]
            getscu = ["getscu", "-aec", node.ae, "+B", "-S", *keys, node.host, str(node.port), "-od"]
            measure.say(f"P11: pulling, {self._runs} runs of each")
            ours, theirs = measure.in_turn(
                self._runs,
                lambda _: self._into([*DCMSYNC, "pull"], records),
                lambda _: self._into(getscu, None),
            )
        yield Row("P11", "`pull` 4 GB in one instance from `serve`", self._pace(ours),
                  f"`getscu` tuned: {self._pace(theirs)}", measure.ratio(ours, theirs), "", self._how)
        yield Row("P11", "peak of memory: `pull`", measure.megabytes(measure.peak(ours)),
                  f"`getscu`: {measure.megabytes(measure.peak(theirs))}", None, TARGET)
        yield Row("P11", "peak of memory: `serve`, giving", measure.megabytes(node.peak_octets), target=TARGET)

    def taken(self) -> Iterator[Row]:
        """From `storescu` into `serve` and into `storescp`."""
        peaks: list[int] = []

        def into_serve(_: int) -> Timed:
            folder = self._scratch.fresh(self._place)
            with serving(folder) as node:
                timed = self._send(node, folder)
            peaks.append(node.peak_octets)
            self._scratch.release(folder)
            return timed

        def into_storescp(_: int) -> Timed:
            folder = self._scratch.fresh(self._place)
            with peers.storescp(folder, "+B", nodelay=True) as node:
                timed = self._send(node, folder)
            self._scratch.release(folder)
            return timed

        measure.say(f"P11: storing, {self._runs} runs of each")
        ours, theirs = measure.in_turn(self._runs, into_serve, into_storescp, warm_up=False)
        yield Row("P11", "`storescu` of 4 GB in one instance into `serve`", self._pace(ours),
                  f"into `storescp`: {self._pace(theirs)}", measure.ratio(ours, theirs), "",
                  f"{self._how}; `storescu` and `storescp` tuned")
        yield Row("P11", "peak of memory: `serve`, taking", measure.megabytes(max(peaks)), target=TARGET)

    def pushed(self) -> Iterator[Row]:
        """From `push` and `storescu` into `storescp`."""

        def into_storescp(line: Line, *, nodelay: bool) -> Timed:
            folder = self._scratch.fresh(self._place)
            with peers.storescp(folder, "+B", "--fork", nodelay=nodelay) as node:
                there = [node.locator] if line is push else ["-aec", node.ae, node.host, str(node.port)]
                timed = measure.run([*line, *there, self._archive / "giant.dcm"], nodelay=nodelay, with_peak=True)
            _check(folder, self._size)
            self._scratch.release(folder)
            return timed

        push: Line = [*DCMSYNC, "push", "--no-cache", "--verify", "none"]
        measure.say(f"P11: pushing, {self._runs} runs of each")
        ours, theirs = measure.in_turn(
            self._runs, lambda _: into_storescp(push, nodelay=False),
            lambda _: into_storescp(["storescu"], nodelay=True), warm_up=False,
        )  # fmt: skip
        yield Row("P11", "`push` 4 GB in one instance to `storescp`", self._pace(ours),
                  f"`storescu` tuned: {self._pace(theirs)}", measure.ratio(ours, theirs), "", self._how)
        yield Row("P11", "peak of memory: `push`", measure.megabytes(measure.peak(ours)),
                  f"`storescu`: {measure.megabytes(measure.peak(theirs))}", None, TARGET)

    @property
    def _how(self) -> str:
        return f"{self._kind}; {self._runs} runs of each"

    def _into(self, line: Line, records: Path | None) -> Timed:
        folder = self._scratch.fresh(self._place)
        timed = measure.run([*line, folder], stdin=records, nodelay=True, with_peak=True)
        _check(folder, self._size)
        self._scratch.release(folder)
        return timed

    def _send(self, node: Node | peers.Peer, folder: Path) -> Timed:
        line: Line = ["storescu", "-aec", node.ae, node.host, str(node.port), self._archive / "giant.dcm"]
        timed = measure.run(line, nodelay=True)
        _check(folder, self._size)
        return timed

    def _pace(self, times: list[Timed]) -> str:
        return f"{measure.words(times)}, {self._size / 1e6 / measure.median(times):,.0f} MB/s"


def _check(folder: Path, size: int) -> None:
    """Raises RunFailed unless a file of about that size arrived: group 0002 may be written anew."""
    found = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    if not any(abs(one - size) < 4096 for one in found):
        raise RunFailed(f"no whole instance arrived in {folder}")


def _make(path: Path) -> tuple[str, int]:
    """Writes the instance, from a fixed seed. Returns its Study Instance UID and the size of the file."""
    study, series, instance = (samples.uid(11, *range(1, depth)) for depth in (2, 3, 4))
    data_set = b"".join(
        samples.element(tag, vr, value)
        for tag, vr, value in (
            (0x00080016, b"UI", ENHANCED_CT),
            (0x00080018, b"UI", instance),
            (0x00080020, b"DA", "20240131"),
            (0x00080060, b"CS", "CT"),
            (0x00100010, b"PN", "Giant^Sample"),
            (0x00100020, b"LO", "GIANT"),
            (0x0020000D, b"UI", study),
            (0x0020000E, b"UI", series),
            (0x00200011, b"IS", "1"),
            (0x00200013, b"IS", "1"),
            (0x00280002, b"US", 1),
            (0x00280004, b"CS", "MONOCHROME2"),
            (0x00280008, b"IS", str(FRAMES)),
            (0x00280010, b"US", SIDE),
            (0x00280011, b"US", SIDE),
            (0x00280100, b"US", 16),
            (0x00280101, b"US", 12),
            (0x00280102, b"US", 11),
            (0x00280103, b"US", 0),
        )
    )
    frame = random.Random(11).randbytes(2 * SIDE * SIDE)
    with path.open("wb") as file:
        file.write(samples.part10(data_set, sop_class_uid=ENHANCED_CT, sop_uid=instance))
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, OCTETS))
        for _ in range(FRAMES):
            file.write(frame)
        return study, file.tell()
