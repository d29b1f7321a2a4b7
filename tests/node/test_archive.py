"""The archive: durable before it is said, compared by UID, and open only what is still what it was."""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from dcmsync.contract import Arrival, Landed, Sink
from dcmsync.endpoints.folder.arrivals import Job
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.errors import LocalTrouble
from dcmsync.node.archive import Archive, _Guarded, _status
from tests import samples


class Held:
    """A queue that lands only when it is told to."""

    def __init__(self, landing: Landing, landed: Callable[[Landed], None]) -> None:
        self.jobs: list[Job] = []
        self._landing = landing
        self._landed = landed

    def take(self, job: Job) -> None:
        self.jobs.append(job)

    async def room(self) -> None:
        return

    def start(self, tasks: object) -> None:
        return

    def stop(self) -> None:
        return

    def land(self) -> None:
        for verdict in self._landing.land_many(self.jobs):
            self._landed(verdict)
        self.jobs.clear()


class House:
    """An archive over a folder, its queue, and what it warned of."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.archive = Archive(str(folder), make_queue=self._make, warn=self.said.append)

    def _make(self, landing: Landing, landed: Callable[[Landed], None]) -> Held:
        self.queue = Held(landing, landed)
        return self.queue

    def offer(self, path: Path) -> Arrival:
        """Lets a file arrive."""
        octets = path.read_bytes()
        arrival = arrival_of(path)
        sink = self.archive.receive(arrival)
        assert not isinstance(sink, int)
        sink.write([memoryview(octets)[offset_of(octets) :]])
        assert sink.finish() == 0
        return arrival


def offset_of(octets: bytes) -> int:
    return octets.index(b"\x08\0\x05\0CS")


def arrival_of(path: Path) -> Arrival:
    octets = path.read_bytes()
    start = octets.index(b"\x08\0\x18\0UI") + 8
    uid = octets[start : start + octets[start - 2]].decode().rstrip("\0")
    return Arrival(sop_class_uid=samples.CT_IMAGE_STORAGE, sop_instance_uid=uid,
                   transfer_syntax_uid=samples.EXPLICIT_LITTLE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "served"
    path.mkdir()
    return path


@pytest.fixture
def made(tmp_path: Path) -> Sequence[samples.Sample]:
    return samples.make_series(tmp_path / "made", instances=3)


def test_success_is_said_only_when_it_has_landed(folder: Path, made: Sequence[samples.Sample]) -> None:
    async def main() -> None:
        house = House(folder)
        arrival = house.offer(made[0].path)
        statuses: list[int] = []

        async def settle() -> None:
            statuses.append(await house.archive.settle(arrival))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settle)
            await anyio.wait_all_tasks_blocked()
            assert statuses == []
            house.queue.land()
        assert statuses == [0]
        assert made[0].sop_uid in house.archive.index.images  # and may be asked for by now
        house.archive.close()

    anyio.run(main)


def test_a_uid_that_is_there_is_compared_wherever_its_file_lies(folder: Path, made: Sequence[samples.Sample]) -> None:
    (folder / "elsewhere.dcm").write_bytes(made[0].path.read_bytes())
    changed = made[1].path
    changed.write_bytes(made[0].path.read_bytes()[:-2] + b"\1\2")

    async def main() -> None:
        house = House(folder)
        same, other = house.offer(made[0].path), house.offer(changed)
        house.queue.land()
        assert [await house.archive.settle(same), await house.archive.settle(other)] == [0, 0x0111]
        house.archive.close()

    anyio.run(main)
    assert [path.name for path in folder.rglob("*.dcm")] == ["elsewhere.dcm"]


def test_a_file_that_is_not_what_it_was_is_not_opened(folder: Path, made: Sequence[samples.Sample]) -> None:
    paths = [folder / f"{number}.dcm" for number in range(3)]
    for path, sample in zip(paths, made, strict=True):
        path.write_bytes(sample.path.read_bytes())
    house = House(folder)
    images = [house.archive.index.images[sample.sop_uid] for sample in made]
    paths[0].unlink()
    paths[1].write_bytes(made[2].path.read_bytes())
    os.utime(paths[1], ns=(1, 1))
    paths[2].unlink()
    paths[2].symlink_to(made[2].path)
    os.utime(made[2].path, ns=(1, images[2].mtime_ns))
    for image in images:
        with house.archive.opened(image) as opened:
            assert opened is None
    house.archive.close()


def test_a_file_that_was_only_touched_is_opened(folder: Path, made: Sequence[samples.Sample]) -> None:
    path = folder / "a.dcm"
    path.write_bytes(made[0].path.read_bytes())
    house = House(folder)
    os.utime(path, ns=(1, 1))
    with house.archive.opened(house.archive.index.images[made[0].sop_uid]) as opened:
        assert opened is not None
        assert os.pread(opened.descriptor, opened.octets, opened.offset) == path.read_bytes()[opened.offset :]
    assert house.archive.index.images[made[0].sop_uid].mtime_ns == 1
    house.archive.close()


def test_what_is_truncated_is_named_without_its_folders(folder: Path, made: Sequence[samples.Sample]) -> None:
    (folder / "DOE^JANE").mkdir()
    (folder / "DOE^JANE" / "cut.dcm").write_bytes(made[0].path.read_bytes()[:-10])
    (folder / "notes.txt").write_text("no DICOM")
    house = House(folder)
    assert not house.archive.index.images
    assert any(words.startswith("cut.dcm: truncated") for words in house.said) and "DOE" not in str(house.said)
    house.archive.close()


class Full:
    """A sink on a full disk."""

    def __init__(self) -> None:
        self.discarded = 0

    def write(self, pieces: Sequence[memoryview]) -> None:
        raise LocalTrouble("no space left")

    def finish(self) -> int:
        raise AssertionError("a sink that was discarded is not finished")

    def discard(self, why: str) -> None:
        self.discarded += 1


def test_a_full_disk_is_a_status_and_not_the_end() -> None:
    full = Full()
    forgotten: list[int] = []
    said: list[str] = []
    sink: Sink = _Guarded(full, lambda: forgotten.append(1), said.append)
    sink.write([memoryview(b"abc")])
    sink.write([memoryview(b"def")])
    assert sink.finish() == 0xA700
    assert full.discarded == 1 and forgotten == [1] and len(said) == 1


@pytest.mark.parametrize(
    "outcome, reason, status",
    [("stored", "", 0), ("present", "", 0), ("conflict", "content", 0x0111), ("failed", "local", 0xA700),
     ("failed", "truncated", 0xC000), ("failed", "mismatch", 0xA900), ("failed", "path", 0xC000)],
)  # fmt: skip
def test_each_verdict_has_its_status(outcome: str, reason: str, status: int) -> None:
    arrival = Arrival(sop_class_uid="1", sop_instance_uid="2", transfer_syntax_uid="3")
    assert _status(Landed(arrival=arrival, outcome=outcome, reason=reason)) == status  # type: ignore[arg-type]


def test_an_instance_that_breaks_off_leaves_nothing(folder: Path, made: Sequence[samples.Sample]) -> None:
    house = House(folder)
    sink = house.archive.receive(arrival_of(made[0].path))
    assert not isinstance(sink, int)
    sink.write([memoryview(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 4 << 20) + bytes(2 << 20))])
    assert len(os.listdir(folder / next(name for name in os.listdir(folder)))) == 2  # the lock, and the staged file
    sink.discard("gone")
    assert not house.archive._verdicts and not house.queue.jobs
    house.archive.close()
    assert not os.listdir(folder)
