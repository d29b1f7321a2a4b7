"""Patients: listed at nodes and in local places, expanded, and never taken for work; Patient Root, at real nodes."""

import zipfile
from pathlib import Path

import pytest

from tests import peers, samples
from tests.conftest import Start
from tests.workdir import Done, Workdir

SEED = 61


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """3 patients with a study each, of 2 series of 2 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), studies=3, series=2, instances=2, seed=SEED)


@pytest.fixture(scope="module")
def folder(made: list[samples.Sample]) -> Path:
    return made[0].path.parents[2]


def instances(done: Done) -> set[str]:
    return {record["SOPInstanceUID"] for record in done.of_type("instance")}


def config_for(workdir: Workdir, peer: peers.Peer, model: str) -> None:
    path = workdir.path / ".xdg/config/dcmsync/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'[endpoints.pacs]\nlocator = "{peer.locator}"\nmodel = "{model}"\n')


@pytest.fixture(scope="module", params=["orthanc", "dcmqrscp", "pynetdicom_qrscp"])
def node(request: pytest.FixtureRequest, start_for_module: Start, made: list[samples.Sample]) -> peers.Peer:
    """Each of the nodes that know Patient Root, with what was made; no test changes it."""
    peer = start_for_module(getattr(peers, request.param))
    peers.storescu(peer, [sample.path for sample in made])
    return peer


def test_a_folder_tells_its_patients(workdir: Workdir, folder: Path) -> None:
    done = workdir.run("query", folder, "--level", "patient")
    assert (done.status, done.stderr) == (0, ""), done
    *patients, end = done.records
    assert patients[0] == {
        "type": "patient", "source": str(folder), "PatientID": "S61P0001", "PatientName": "Sample^Patient",
        "PatientBirthDate": "19600101", "PatientSex": "O", "NumberOfPatientRelatedStudies": 1,
        "NumberOfPatientRelatedSeries": 2, "NumberOfPatientRelatedInstances": 4,
    }  # fmt: skip
    assert [patient["PatientID"] for patient in patients] == ["S61P0001", "S61P0002", "S61P0003"]
    assert end["complete"] and end["records"] == 3
    one = workdir.run("query", folder, "--level", "patient", "PatientID=*2", "NumberOfPatientRelatedStudies=1")
    assert [patient["PatientID"] for patient in one.of_type("patient")] == ["S61P0002"]
    assert not workdir.run("query", folder, "--level", "patient", "EthnicGroup=X").of_type("patient")


def test_a_patient_with_two_studies_is_one(workdir: Workdir, tmp_path: Path) -> None:
    samples.make_series(tmp_path / "a", seed=1, patient_name="Canary^Bird")
    samples.make_series(tmp_path / "b", seed=1, patient_name="Canary^Bird", studies=2)
    (patient,) = workdir.run("query", tmp_path, "--level", "patient", "PatientID=S1P0001").of_type("patient")
    assert patient["NumberOfPatientRelatedStudies"] == 1 and patient["PatientName"] == "Canary^Bird"


def test_an_archive_tells_its_patients(workdir: Workdir, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(folder.rglob("*.dcm")):
            archive.write(path, path.relative_to(folder))
    done = workdir.run("query", tmp_path / "all.zip", "--level", "patient")
    assert [patient["PatientID"] for patient in done.of_type("patient")] == ["S61P0001", "S61P0002", "S61P0003"]


def test_a_tree_counts_what_patients_claim(workdir: Workdir, folder: Path) -> None:
    lines = workdir.run("query", folder, "--level", "patient", "--format", "tree").stdout.decode().splitlines()
    assert lines[0] == "3 patients | 3 studies | 6 series | 12 instances"
    assert lines[1].endswith("ID: S61P0001 | Name: Sample^Patient | 1 study | 2 series | 4 instances")


def test_patients_are_expanded_at_their_source(workdir: Workdir, folder: Path, made: list[samples.Sample]) -> None:
    patients = workdir.run("query", folder, "--level", "patient", "PatientID=S61P0002").stdout
    studies = workdir.run("query", "-", "--level", "study", stdin=patients)
    assert [study["StudyInstanceUID"] for study in studies.of_type("study")] == [samples.uid(SEED, 2)]
    assert len(instances(workdir.run("query", "-", "--level", "instance", stdin=patients))) == 4


def test_patients_pass_through_filter_and_choose(workdir: Workdir, folder: Path) -> None:
    patients = workdir.run("query", folder, "--level", "patient").stdout
    done = workdir.run("filter", "PatientID=S61P0003", stdin=patients)
    assert [record["type"] for record in done.records] == ["patient", "end"], done


@pytest.mark.parametrize("line", [("pull", "./out"), ("verify",), ("diff", "-", "./out")])
def test_a_patient_is_no_work_and_that_is_said(workdir: Workdir, folder: Path, line: tuple[str, ...]) -> None:
    (workdir.path / "out").mkdir()
    patients = workdir.run("query", folder, "--level", "patient").stdout
    done = workdir.run(*line, stdin=patients)
    assert done.status == 6 and "a patient record names no studies" in done.stderr, done
    assert "dcmsync query - --level study" in done.stderr


@pytest.mark.parametrize(
    "line", [("--level", "patient", "StudyDate=20240101"), ("--level", "patient", "--since", "2d")]
)
def test_what_belongs_to_studies_chooses_no_patients(
    workdir: Workdir, folder: Path, line: tuple[str, ...]
) -> None:
    done = workdir.run("query", folder, *line)
    assert done.status == 2 and "--level study" in done.stderr, done


def test_a_patient_without_an_id_cannot_be_expanded(workdir: Workdir, folder: Path) -> None:
    done = workdir.run("query", "-", "--level", "study", stdin=[{"type": "patient", "source": str(folder)}])
    assert done.status == 6 and "has no PatientID" in done.stderr, done


# Real nodes


def test_nodes_list_patients_whatever_the_model(workdir: Workdir, node: peers.Peer) -> None:
    for model in ("study", "patient"):
        config_for(workdir, node, model)
        done = workdir.run("query", "pacs", "--level", "patient", "--all")
        assert done.status == 0, done
        assert {patient["PatientID"] for patient in done.of_type("patient")} == {"S61P0001", "S61P0002", "S61P0003"}


def test_patient_root_finds_what_study_root_finds(
    workdir: Workdir, node: peers.Peer, made: list[samples.Sample]
) -> None:
    config_for(workdir, node, "patient")
    done = workdir.run("query", "pacs", "--all", "--level", "instance")
    assert done.status == 0 and instances(done) == {sample.sop_uid for sample in made}, done
    study = workdir.run("query", "pacs", f"StudyInstanceUID={samples.uid(SEED, 2)}")
    assert [record["PatientID"] for record in study.of_type("study")] == ["S61P0002"]


def test_patient_root_brings_what_records_name(workdir: Workdir, node: peers.Peer) -> None:
    config_for(workdir, node, "patient")
    series = workdir.run("query", "pacs", "PatientID=S61P0001", "--level", "series")
    assert len(series.of_type("series")) == 2, series
    assert workdir.run("pull", "./with", stdin=series.stdout).status == 0
    bare = [{key: value for key, value in record.items() if not key.startswith("Patient")}
            for record in series.of_type("series")]  # fmt: skip
    done = workdir.run("pull", "./without", stdin=bare)
    assert done.status == 0, done
    assert len(list((workdir.path / "with").rglob("*.dcm"))) == 4
    assert len(list((workdir.path / "without").rglob("*.dcm"))) == 4


@pytest.mark.slow
def test_patient_study_only_lists_studies(workdir: Workdir, dcmqrscp: peers.Peer, folder: Path) -> None:
    peers.storescu(dcmqrscp, [folder])
    config_for(workdir, dcmqrscp, "patient-study")
    assert len(workdir.run("query", "pacs", "--all").of_type("study")) == 3
    done = workdir.run("query", "pacs", "--all", "--level", "series")
    assert done.status == 3 and "nothing below studies" in done.stderr, done
