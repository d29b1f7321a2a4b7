"""Files that come and go behind the node's back."""

import os
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from dcmsync.endpoints.folder.scan import scan
from dcmsync.node import renewal
from dcmsync.node.index import WANTED, Index, Study, Thing
from dcmsync.node.renewal import Changes, Renewal
from dcmsync.wire.dimse import operations
from tests import nodes, samples


@pytest.fixture
def made(tmp_path: Path) -> Sequence[samples.Sample]:
    return samples.make_series(tmp_path / "made", studies=2, series=2, instances=2, rows=2, columns=2)


class House:
    """A folder, its index, and what renews it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.index = Index()
        self.renewal = Renewal(str(folder), self.index)
        for found in scan(str(folder), wanted=WANTED):
            if why := self.index.add(found):
                self.renewal.pass_by(found, why)

    def put(self, sample: samples.Sample, name: str = "") -> Path:
        path = self.folder / (name or f"{sample.sop_uid}.dcm")
        path.write_bytes(sample.path.read_bytes())
        return path

    def renew(self) -> Changes:
        return anyio.run(self.renewal.renew)


def test_what_comes_is_served_and_what_goes_is_not(tmp_path: Path, made: Sequence[samples.Sample]) -> None:
    house = House(tmp_path / "served")
    paths = [house.put(sample) for sample in made]
    assert house.renew() == Changes(added=8)
    assert set(house.index.images) == {sample.sop_uid for sample in made}
    assert not house.renew().is_any
    for path in paths[:6]:
        path.unlink()
    assert house.renew() == Changes(removed=6)
    assert list(house.index.studies) == [made[7].study_uid] and list(house.index.patients) == [made[7].patient_id]
    assert list(house.index.studies[made[7].study_uid].series) == [made[7].series_uid]
    for path in paths[6:]:
        path.unlink()
    assert house.renew() == Changes(removed=2)
    assert not (house.index.studies or house.index.patients or house.index.images)


def test_a_file_that_becomes_another_instance_is_that_one(tmp_path: Path, made: Sequence[samples.Sample]) -> None:
    house = House(tmp_path / "served")
    house.put(made[0], "a.dcm")
    house.renew()
    os.utime(house.put(made[7], "a.dcm"), ns=(1, 1))
    assert house.renew() == Changes(added=1, removed=1)
    assert list(house.index.images) == [made[7].sop_uid] and list(house.index.studies) == [made[7].study_uid]


def test_a_file_that_is_cut_is_not_served_until_it_is_whole(tmp_path: Path, made: Sequence[samples.Sample]) -> None:
    house = House(tmp_path / "served")
    path = house.put(made[0])
    house.renew()
    path.write_bytes(made[0].path.read_bytes()[:-1])
    assert house.renew() == Changes(removed=1)
    assert not house.renew().is_any
    house.put(made[0])
    assert house.renew() == Changes(added=1)


def test_the_double_takes_the_place_of_what_is_gone(tmp_path: Path, made: Sequence[samples.Sample]) -> None:
    house = House(tmp_path / "served")
    first, _ = house.put(made[0], "a.dcm"), house.put(made[0], "b.dcm")
    house = House(tmp_path / "served")
    assert not house.renew().is_any
    first.unlink()
    assert house.renew() == Changes(added=1, removed=1)
    assert house.index.images[made[0].sop_uid].path == "b.dcm"
    (house.folder / "b.dcm").rename(house.folder / "c.dcm")
    assert house.renew() == Changes(added=1, removed=1)
    assert house.index.images[made[0].sop_uid].path == "c.dcm"


def test_what_is_not_served_is_read_once(
    tmp_path: Path, made: Sequence[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path / "served")
    house.put(made[0])
    (house.folder / "notes.txt").write_text("no DICOM")
    house.renew()
    read: list[str] = []
    monkeypatch.setattr(renewal, "examine", lambda root, path, **more: read.append(path))
    house.renew()
    assert read == []


def test_a_folder_that_cannot_be_read_takes_nothing_away(tmp_path: Path, made: Sequence[samples.Sample]) -> None:
    house = House(tmp_path / "served")
    house.put(made[0])
    house.renew()
    house.folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        house.renew()
    assert len(house.index.images) == 1


def test_what_is_removed_is_counted_no_more(tmp_path: Path, made: Sequence[samples.Sample]) -> None:
    house = House(tmp_path / "served")
    for sample in made[:4]:
        house.put(sample)
    house.renew()
    study = house.index.studies[made[0].study_uid]
    house.index.remove(house.index.images[made[0].sop_uid])
    said = house.index.describe(Thing(study), ("NumberOfStudyRelatedInstances", "NumberOfPatientRelatedInstances"))
    assert said == {"NumberOfStudyRelatedInstances": 3, "NumberOfPatientRelatedInstances": 3}
    for sample in made[1:4]:
        house.index.remove(house.index.images[sample.sop_uid])
    assert isinstance(study, Study) and house.index.describe(Thing(study), ("NumberOfPatientRelatedStudies",)) == {
        "NumberOfPatientRelatedStudies": 0
    }


@pytest.mark.slow
def test_serve_looks_again(tmp_path: Path, made: Sequence[samples.Sample]) -> None:
    (tmp_path / "served").mkdir()
    with nodes.serving(tmp_path / "served", "--rescan", "0.05") as node:
        path = tmp_path / "served" / "a.dcm"
        path.write_bytes(made[0].path.read_bytes())
        assert node.wait_for_event(type="rescan") == {"type": "rescan", "added": 1, "removed": 0}
        path.unlink()
        assert node.wait_for_event(2, type="rescan") == {"type": "rescan", "added": 0, "removed": 1}
        with nodes.Caller(node.port) as caller:
            caller.associate([(operations.VERIFICATION, (samples.EXPLICIT_LITTLE,))])
            caller.say(1, operations.echo(1).request)
            assert caller.hear()[0].status == 0
        assert node.stop() == 0
