"""The spool and the way into it: what is durable, what is known, and what the sender is told."""

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from dcmsync.cache.store import open_store
from dcmsync.contract import Arrival, Landed
from dcmsync.endpoints.folder import approach
from dcmsync.errors import LocalTrouble
from dcmsync.node.intake import Intake
from dcmsync.node.spool import Spool
from dcmsync.transfer.lander import Lander
from tests import samples, trees

KEYS = ("Modality", "PatientName", "Rows")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(str(tmp_path / "spool"), KEYS) as made:
        yield made


@pytest.fixture
def sample(tmp_path: Path) -> samples.Sample:
    (made,) = samples.make_series(tmp_path / "made", instances=1, patient_name="Ümit^A")
    return made


def arrival(sample: samples.Sample) -> Arrival:
    return Arrival(sop_class_uid=samples.CT_IMAGE_STORAGE, sop_instance_uid=sample.sop_uid,
                   transfer_syntax_uid=samples.EXPLICIT_LITTLE)  # fmt: skip


def store(
    spool: Spool, octets: bytes, what: Arrival, landed: Callable[[Landed], None], told: list[str] | None = None
) -> int:
    """Sends one instance in; the status that the sender gets."""
    async def main() -> int:
        catalogue = open_store(spool.waiting, named=None, folder=None, warn=lambda words: None)
        with spool.landing(lambda job: intake.queue.take(job), catalogue) as landing:
            intake = Intake(landing, partial(Lander, gather_s=0), landed=landed, warn=(told or []).append)
            async with anyio.create_task_group() as tasks:
                intake.queue.start(tasks)
                sink = intake.receive(what)
                assert not isinstance(sink, int)
                sink.write([memoryview(octets)])
                status = sink.finish() or await intake.settle(what)
                intake.queue.stop()
            return status

    return anyio.run(main)


def test_what_lands_is_known_and_is_found_again(spool: Spool, sample: samples.Sample) -> None:
    heard: list[Landed] = []
    assert store(spool, trees.data_set(sample.path), arrival(sample), heard.append) == 0
    spooled = spool.landed(heard[0])
    assert spooled is not None
    assert spooled.thing["Modality"] == "CT" and spooled.thing["Rows"] == 64
    assert spooled.thing["PatientName"] == "Ümit^A" and spooled.thing["SeriesInstanceUID"] == sample.series_uid
    (found,) = spool.left()
    assert (found.name, found.sop_instance_uid) == (spooled.name, sample.sop_uid)
    assert {key: found.thing[key] for key in KEYS} == {key: spooled.thing[key] for key in KEYS}
    (path,) = trees.files(Path(spool.waiting))
    assert path.name == spooled.name and path.stat().st_mode & 0o077 == 0
    spool.release(spooled.name)
    spool.release(spooled.name)
    assert spool.left() == []


def test_what_left_while_its_twin_landed_is_not_taken_up_again(spool: Spool, sample: samples.Sample) -> None:
    heard: list[Landed] = []
    for _ in range(2):
        assert store(spool, trees.data_set(sample.path), arrival(sample), heard.append) == 0
    assert [each.outcome for each in heard] == ["stored", "present"]
    assert spool.landed(heard[1]) is not None
    spool.release(heard[1].path)
    assert spool.landed(heard[1]) is None


def test_other_content_under_a_uid_that_waits_is_refused(spool: Spool, sample: samples.Sample) -> None:
    octets = trees.data_set(sample.path)
    heard: list[Landed] = []
    assert store(spool, octets, arrival(sample), heard.append) == 0
    assert store(spool, octets[:-1] + b"\x55", arrival(sample), heard.append) == 0x0111
    assert len(heard) == 1


def test_what_is_cut_is_refused_and_nobody_hears_of_it(spool: Spool, sample: samples.Sample) -> None:
    heard: list[Landed] = []
    assert store(spool, trees.data_set(sample.path)[:-9], arrival(sample), heard.append) == 0xC000
    assert not heard and not trees.files(Path(spool.waiting))


def test_a_sender_is_not_told_of_success_when_nobody_could_note_it(spool: Spool, sample: samples.Sample) -> None:
    def full(landed: Landed) -> None:
        raise LocalTrouble("no space left")

    told: list[str] = [""]
    assert store(spool, trees.data_set(sample.path), arrival(sample), full, told) == 0xA700
    assert "no space left" in told[1]


def test_a_full_disk_is_told_to_the_sender(
    spool: Spool, sample: samples.Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(approach.os, "fsync", full)  # type: ignore[attr-defined]
    heard: list[Landed] = []
    assert store(spool, trees.data_set(sample.path), arrival(sample), heard.append) == 0xA700
    assert not heard


def test_what_failed_is_kept_in_place_of_an_earlier_one(spool: Spool) -> None:
    for octets in (b"first", b"second"):
        Path(spool.waiting, "x.dcm").write_bytes(octets)
        spool.retain("x.dcm")
    spool.retain("x.dcm")
    assert Path(spool.failed, "x.dcm").read_bytes() == b"second"


def test_two_cannot_use_it_and_the_next_one_can(tmp_path: Path) -> None:
    root = str(tmp_path / "spool")
    with Spool(root, KEYS), pytest.raises(LocalTrouble, match="in use"):
        Spool(root, KEYS)
    with Spool(root, KEYS):
        assert os.path.isdir(os.path.join(root, "waiting"))


def test_what_is_no_instance_is_passed_by(spool: Spool, sample: samples.Sample) -> None:
    Path(spool.waiting, "note.txt").write_text("hello")
    Path(spool.waiting, "cut.dcm").write_bytes(sample.path.read_bytes()[:-3])
    Path(spool.waiting, "b.dcm").write_bytes(sample.path.read_bytes())
    assert [each.name for each in spool.left()] == ["b.dcm"]
