"""Edits on the way of `pull`, `sync` and `push`: what arrives, what is there already, and what cannot be edited."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from dcmsync.plan.edits import remapper
from tests import peers, samples, trees
from tests.workdir import Workdir

pytestmark = pytest.mark.slow

Require = Callable[[str], str]
ANONYMOUS = ("--edit", "PatientName=Anon", "--edit", "PatientID=A1", "--edit", "PatientBirthDate-", "--remap-uids")


@pytest.fixture
def made(workdir: Workdir) -> list[samples.Sample]:
    """One study of two series with two instances each, below `src`."""
    return samples.make_series(workdir.path / "src", series=2, instances=2)


def read(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in trees.files(folder)]


def check_edited(folder: Path, made: list[samples.Sample], salt: bytes = b"") -> None:
    """The folder holds these and nothing else, as pydicom would have edited them."""
    remap = remapper(salt)
    by_uid = {each.SOPInstanceUID: each for each in read(folder)}
    assert set(by_uid) == {remap(sample.sop_uid) for sample in made}
    for sample in made:
        expected, found = pydicom.dcmread(sample.path), by_uid[remap(sample.sop_uid)]
        expected.PatientName, expected.PatientID = "Anon", "A1"
        del expected.PatientBirthDate
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(expected, keyword, remap(str(getattr(expected, keyword))))
        found.OriginalAttributesSequence = expected.OriginalAttributesSequence = []
        assert found == expected
        assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID
    assert trees.leftovers(folder) == []


def test_what_is_synced_is_edited_and_what_is_there_is_known_by_its_new_uid(
    workdir: Workdir, made: list[samples.Sample], require: Require
) -> None:
    done = workdir.run("sync", "./src", "./dst", "--all", "--keep-originals", *ANONYMOUS)
    assert done.status == 0, done
    check_edited(workdir.path / "dst", made)
    outcomes = done.of_type("outcome")
    assert sorted(each["original"] for each in outcomes) == sorted({sample.series_uid for sample in made})
    assert {(each["StudyInstanceUID"], each["PatientID"]) for each in outcomes} == {
        (remapper(b"")(made[0].study_uid), "A1")}  # fmt: skip
    again = workdir.run("sync", "./src", "./dst", "--all", "--keep-originals", "--itemize", *ANONYMOUS)
    assert {each["outcome"] for each in again.of_type("outcome")} == {"present"}
    by_level = {each["level"]: each for each in again.of_type("outcome")}
    assert by_level["instance"]["original"] in {sample.sop_uid for sample in made}
    for path in trees.files(workdir.path / "dst"):
        subprocess.run([require("dcmdump"), "-q", "-M", path], check=True, capture_output=True)
    for trust in ("counts", "uids"):
        more = workdir.run("sync", "./src", "./dst", "--all", "--trust", trust, *ANONYMOUS)
        assert {each["outcome"] for each in more.of_type("outcome")} == {"present"}, more
    check_edited(workdir.path / "dst", made)


def test_the_salt_makes_other_uids_and_a_file_may_hold_the_edits(workdir: Workdir, made: list[samples.Sample]) -> None:
    (workdir.path / "edits.txt").write_text("# who\nPatientName=Anon\nPatientBirthDate-\n\nPatientID=A1\nuid-remap\n")
    (workdir.path / "salt").write_text("pepper\n")
    done = workdir.run("sync", "./src", "./dst", "--all", "--edit-file", "edits.txt", "--salt-file", "salt")
    assert done.status == 0, done
    check_edited(workdir.path / "dst", made, b"pepper")


def test_a_part_that_lacks_is_brought_and_nothing_else(workdir: Workdir, made: list[samples.Sample]) -> None:
    workdir.run("sync", "./src", "./dst", "--all", *ANONYMOUS)
    (gone,) = [path for path in trees.files(workdir.path / "dst") if remapper(b"")(made[1].sop_uid) in path.name]
    gone.unlink()
    done = workdir.run("sync", "./src", "./dst", "--all", *ANONYMOUS)
    assert done.status == 0 and sum(each.get("stored", 0) for each in done.of_type("outcome")) == 1, done
    check_edited(workdir.path / "dst", made)


def test_other_content_under_the_new_uid_is_a_conflict_named_by_the_old_one(
    workdir: Workdir, made: list[samples.Sample]
) -> None:
    workdir.run("sync", "./src", "./dst", "--all", *ANONYMOUS)
    before = {path: path.read_bytes() for path in trees.files(workdir.path / "dst")}
    done = workdir.run("sync", "./src", "./dst", "--all", "--trust", "content", *ANONYMOUS)
    assert done.status == 0, done  # the same edits again make the same instances
    done = workdir.run("sync", "./src", "./dst", "--all", "--trust", "content", "--edit", "StudyID=9", *ANONYMOUS)
    assert done.status == 3
    conflicts = [each for each in done.of_type("outcome") if each["level"] == "instance"]
    assert {each["SOPInstanceUID"] for each in conflicts} == {sample.sop_uid for sample in made}
    assert not any("original" in each for each in conflicts)
    assert {path: path.read_bytes() for path in trees.files(workdir.path / "dst")} == before


def test_a_dry_run_says_the_same_and_writes_nothing(workdir: Workdir, made: list[samples.Sample]) -> None:
    dry = workdir.run("sync", "./src", "./dst", "--all", "-n", *ANONYMOUS)
    real = workdir.run("sync", "./src", "./dst", "--all", *ANONYMOUS)
    told = [{key: value for key, value in each.items() if key != "dry_run"} for each in dry.records]
    assert told == real.records


def test_an_instance_that_cannot_be_edited_fails_alone_and_is_named_as_at_its_source(
    workdir: Workdir, made: list[samples.Sample]
) -> None:
    latin = pydicom.dcmread(made[0].path)
    latin.SpecificCharacterSet = "ISO_IR 100"
    latin.save_as(made[0].path)
    done = workdir.run("sync", "./src", "./dst", "--all", "--remap-uids", "--edit", "PatientName=山田")
    assert done.status == 3, done
    (failed,) = [each for each in done.of_type("outcome") if each["level"] == "instance"]
    assert (failed["SOPInstanceUID"], failed["reason"], failed["retry"]) == (made[0].sop_uid, "edit", False)
    assert len(read(workdir.path / "dst")) == 3
    assert "山田" not in done.stderr


def test_edits_go_into_archives_and_out_of_them(workdir: Workdir, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", "./src", "./a.zip", "--all").status == 0
    assert workdir.run("sync", "./a.zip", "./b.zip", "--all", *ANONYMOUS).status == 0
    assert workdir.run("sync", "./b.zip", "./dst", "--all").status == 0
    check_edited(workdir.path / "dst", made)
    again = workdir.run("sync", "./a.zip", "./b.zip", "--all", *ANONYMOUS)
    assert {each["outcome"] for each in again.of_type("outcome")} == {"present"}


def test_a_pull_from_a_node_is_edited(workdir: Workdir, made: list[samples.Sample], orthanc: peers.Peer) -> None:
    orthanc.store(sample.path for sample in made)
    found = workdir.run("query", orthanc.locator, "PatientID=S1P0001")
    done = workdir.run("pull", "./dst", *ANONYMOUS, stdin=found.stdout)
    assert done.status == 0, done
    check_edited(workdir.path / "dst", made)
    again = workdir.run("pull", "./dst", *ANONYMOUS, stdin=found.stdout)
    assert {each["outcome"] for each in again.of_type("outcome")} == {"present"}


@pytest.mark.parametrize("verify", ["uids", "content"])
def test_a_push_is_edited_and_proven_by_the_new_uids(
    workdir: Workdir, made: list[samples.Sample], orthanc: peers.Peer, verify: str
) -> None:
    done = workdir.run("push", orthanc.locator, "./src", "--verify", verify, *ANONYMOUS)
    assert done.status == 0, done
    assert orthanc.instances() == 4
    assert workdir.run("sync", orthanc.locator, "./back", "PatientID=A1").status == 0
    check_edited(workdir.path / "back", made)
    again = workdir.run("push", orthanc.locator, "./src", *ANONYMOUS)
    assert {each["outcome"] for each in again.of_type("outcome")} == {"present"}, again


def test_what_a_node_cannot_be_asked_for_is_unproven_and_named_all_the_same(
    workdir: Workdir, made: list[samples.Sample], storescp: peers.Peer
) -> None:
    done = workdir.run("push", storescp.locator, "./src", "--itemize", *ANONYMOUS)
    assert done.status == 3  # it cannot be asked
    assert {each.get("reason") for each in done.of_type("outcome")} == {"unproven"}
    assert {each["original"] for each in done.of_type("outcome") if each["level"] == "instance"} == {
        sample.sop_uid for sample in made}  # fmt: skip
    check_edited(storescp.folder / "received", made)


def test_failed_outcomes_fed_back_find_their_source(workdir: Workdir, made: list[samples.Sample]) -> None:
    there = workdir.path / "dst"
    there.write_text("no folder")
    found = workdir.run("query", "./src", "--level", "series")
    failed = workdir.run("pull", "./dst", *ANONYMOUS, stdin=found.stdout)
    assert failed.status == 7, failed
    there.unlink()
    records = [{**each, "type": "outcome", "outcome": "failed", "level": each["type"]} for each in found.records[:-1]]
    done = workdir.run("pull", "./dst", *ANONYMOUS, stdin=records)
    assert done.status == 0, done
    check_edited(workdir.path / "dst", made)


def test_an_unedited_copy_does_not_count_as_the_edited_one(workdir: Workdir) -> None:
    samples.make_series(workdir.path / "made", instances=2)
    for source, dest in (("./made", "./src"), ("./src", "./dst")):  # so that the digests of both are known
        done = workdir.run("sync", source, dest, "--all", "--layout", "{SOPInstanceUID}.dcm", "--trust", "content")
        assert done.status == 0, done
    options = ["--all", "--layout", "{SOPInstanceUID}.dcm", "--trust", "content", "--edit", "PatientID=A1"]
    done = workdir.run("sync", "./src", "./dst", *options)
    assert done.status == 3 and {each["outcome"] for each in done.of_type("outcome")} == {"conflict"}, done
    assert workdir.run("sync", "./src", "./dst", *options, "--force").status == 0
    assert {each.PatientID for each in read(workdir.path / "dst")} == {"A1"}


@pytest.mark.parametrize("options, words", [
    (["--edit", "SOPInstanceUID=1.2"], "not edited"),
    (["--edit", "PatientName"], "is no edit"),
    (["--edit", "PatientNam=x"], "PatientName"),
    (["--edit", "PatientName=x", "--link"], "--link and edits"),
    (["--remap-uids", "--move"], "--move and edits"),
    (["--keep-originals"], "there are none"),
    (["--salt-file", "salt", "--edit", "PatientID=1"], "with --remap-uids only"),
    (["--remap-uids", "--delete", "--max-delete", "5"], "--delete compares UIDs"),
    (["--keep-originals", "--edit", "PixelData-"], "cannot be kept"),
    (["--edit-file", "empty"], "there is no edit"),
    (["--remap-uids", "--salt-file", "empty"], "no salt"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused_before_anything_begins(
    workdir: Workdir, options: list[str], words: str
) -> None:
    samples.make_series(workdir.path / "src", instances=1)
    (workdir.path / "empty").write_text("\n")
    (workdir.path / "salt").write_text("s")
    done = workdir.run("sync", "./src", "./dst", "--all", *options)
    assert done.status == 2 and words in done.stderr, done
    assert not (workdir.path / "dst").exists()


def test_a_push_that_goes_past_us_is_not_edited(workdir: Workdir) -> None:
    done = workdir.run("push", "PACS@127.0.0.1:1", "--via", "move", "--remap-uids", stdin=b"")
    assert done.status == 2 and "--via move" in done.stderr, done
