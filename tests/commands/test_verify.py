"""`dcmsync verify`, as people run it: records and outcomes against Orthanc, dcmqrscp, folders and archives."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from tests import peers, samples
from tests.workdir import Done, Workdir

SEED = 61


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 3 instances."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, studies=2, series=2, instances=3, seed=SEED)


@pytest.fixture(scope="module")
def archive(start_for_module, made: list[samples.Sample]) -> peers.Peer:
    """Orthanc with what was made; no test changes it."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in made)
    return peer


@pytest.fixture
def folder(workdir: Workdir, made: list[samples.Sample]) -> Path:
    """./archive, with copies of what was made, each of an hour ago."""
    for sample in made:
        target = workdir.path / "archive" / sample.patient_id / f"{sample.sop_uid}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.path, target)
        hour_ago = target.stat().st_mtime_ns - 3600 * 10**9 + 1
        os.utime(target, ns=(hour_ago, hour_ago))
    return workdir.path / "archive"


def uid(*numbers: int) -> str:
    return samples.uid(SEED, *numbers)


def file_of(folder: Path, *numbers: int) -> Path:
    return next(folder.rglob(f"{uid(*numbers)}.dcm"))


def flip(path: Path) -> None:
    """Changes one bit of the last octet, and leaves the time as it was."""
    before = path.stat()
    octets = bytearray(path.read_bytes())
    octets[-1] ^= 1
    with path.open("r+b") as file:
        file.write(octets)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def found(done: Done) -> list[tuple[str, str, str]]:
    """(level, outcome, reason) of each outcome."""
    return [(each["level"], each["outcome"], each.get("reason", "")) for each in done.of_type("outcome")]


def failed(done: Done) -> dict[str, str]:
    """SOP Instance UID -> reason, of each instance that failed."""
    return {
        each["SOPInstanceUID"]: each["reason"]
        for each in done.of_type("outcome")
        if each["level"] == "instance" and each["outcome"] == "failed"
    }


@pytest.mark.parametrize("level, outcomes", [("study", 2), ("series", 4), ("instance", 12)])
@pytest.mark.parametrize("options", [(), ("--read-data",), ("--no-cache", "--read-data")])
def test_what_is_there_is_present(
    level: str, outcomes: int, options: tuple[str, ...], workdir: Workdir, folder: Path
) -> None:
    records = workdir.run("query", "./archive", "--level", level).stdout
    done = workdir.run("verify", *options, stdin=records)
    assert done.status == 0, done
    assert found(done) == [(level, "present", "")] * outcomes, done
    assert done.records[-1] == {"type": "end", "format": 1, "complete": True, "records": outcomes}
    assert {each["destination"] for each in done.of_type("outcome")} == {"./archive"}


def test_each_thing_has_its_outcome_in_the_order_of_the_input(workdir: Workdir, folder: Path) -> None:
    lines = workdir.run("query", "./archive", "--level", "instance").records[:-1]
    shuffled = [lines[5 * n % 12] for n in range(12)]
    done = workdir.run("verify", stdin=shuffled)
    assert done.status == 0, done
    assert [each["SOPInstanceUID"] for each in done.of_type("outcome")] == [each["SOPInstanceUID"] for each in shuffled]


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_what_is_gone_or_truncated_is_told_apart(level: str, workdir: Workdir, folder: Path) -> None:
    records = workdir.run("query", "./archive", "--level", level).stdout
    file_of(folder, 1, 1, 1).unlink()
    victim = file_of(folder, 1, 2, 3)
    os.truncate(victim, victim.stat().st_size - 1)
    done = workdir.run("verify", stdin=records)
    assert done.status == 1, done
    assert failed(done).items() >= {(uid(1, 2, 3), "truncated")}, done
    if level == "instance":
        assert failed(done) == {uid(1, 1, 1): "missing", uid(1, 2, 3): "truncated"}
        assert len(found(done)) == 12
    else:
        whole = [each for each in done.of_type("outcome") if each["level"] == level]
        assert {each["outcome"] for each in whole if each["StudyInstanceUID"] == uid(1)} == {"failed"}
        assert {each["outcome"] for each in whole if each["StudyInstanceUID"] == uid(2)} == {"present"}
        assert sum(each.get("failed", 0) for each in whole) == 2, done


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_rot_is_found_by_reading_and_by_nothing_else(level: str, workdir: Workdir, folder: Path) -> None:
    records = workdir.run("query", "./archive", "--level", level).stdout
    assert workdir.run("verify", "--read-data", stdin=records).status == 0
    victim = file_of(folder, 2, 1, 2)
    flip(victim)
    assert workdir.run("verify", stdin=records).status == 0
    done = workdir.run("verify", "--read-data", stdin=records)
    assert done.status == 1, done
    assert failed(done) == {uid(2, 1, 2): "rotten"}
    again = workdir.run("query", "./archive", "--level", "instance")
    assert uid(2, 1, 2) not in {each["SOPInstanceUID"] for each in again.of_type("instance")}, again
    assert workdir.run("verify", stdin=records).status == 1


def test_a_digest_in_a_record_is_compared_without_a_cache(workdir: Workdir, folder: Path) -> None:
    records = workdir.run("query", "./archive", "--level", "instance").stdout
    assert workdir.run("verify", "--read-data", stdin=records).status == 0
    records = workdir.run("query", "./archive", "--level", "instance").stdout
    assert records.count(b'"digest":"xxh3:') == 12, records
    flip(file_of(folder, 1, 1, 2))
    done = workdir.run("verify", "--read-data", "--no-cache", stdin=records)
    assert (done.status, failed(done)) == (1, {uid(1, 1, 2): "differs"}), done


def test_outcomes_are_verified_at_their_destination(workdir: Workdir, archive: peers.Peer) -> None:
    records = workdir.run("query", archive.locator, "--all").stdout
    pulled = workdir.run("pull", "./archive", "--itemize", stdin=records)
    assert pulled.status == 0, pulled
    done = workdir.run("verify", "--read-data", stdin=pulled.stdout)
    assert done.status == 0, done
    assert len(found(done)) == 12 + 4
    victim = file_of(workdir.path / "archive", 1, 1, 2)
    flip(victim)
    file_of(workdir.path / "archive", 2, 1, 3).unlink()
    done = workdir.run("verify", "--read-data", stdin=pulled.stdout)
    assert done.status == 1, done
    assert failed(done) == {uid(1, 1, 2): "rotten", uid(2, 1, 3): "missing"}, done


def test_a_list_is_checked_against_another_place(
    workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer, made: list[samples.Sample]
) -> None:
    peers.storescu(dcmqrscp, [sample.path for sample in made if sample.sop_uid != uid(1, 2, 1)])
    for level in ("study", "series", "instance"):
        records = workdir.run("query", archive.locator, "--all", "--level", level).stdout
        assert workdir.run("verify", stdin=records).status == 0
        done = workdir.run("verify", "--at", dcmqrscp.locator, stdin=records)
        assert (done.status, failed(done)) == (1, {uid(1, 2, 1): "missing"}), done
        assert {each["destination"] for each in done.of_type("outcome")} == {dcmqrscp.locator}


def test_what_a_node_gives_is_compared_by_content(
    workdir: Workdir, folder: Path, start, made: list[samples.Sample]
) -> None:
    workdir.run("verify", "--read-data", stdin=workdir.run("query", "./archive", "--level", "instance").stdout)
    records = workdir.run("query", "./archive", "--level", "instance").stdout
    assert b'"content":"xxh3:' in records
    flip(made[0].path)
    try:
        other = start(peers.orthanc)
        other.store(sample.path for sample in made)
    finally:
        flip(made[0].path)
    assert workdir.run("verify", "--at", other.locator, stdin=records).status == 0
    done = workdir.run("verify", "--at", other.locator, "--read-data", stdin=records)
    assert (done.status, failed(done)) == (1, {made[0].sop_uid: "differs"}), done


def test_an_archive_is_read_again(workdir: Workdir, made: list[samples.Sample]) -> None:
    path = workdir.path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, sample in enumerate(made):
            archive.write(sample.path, f"{number}.dcm")
    records = workdir.run("query", "./all.zip", "--level", "instance").stdout
    assert workdir.run("verify", "--read-data", stdin=records).status == 0
    octets = bytearray(path.read_bytes())
    octets[octets.index(made[0].path.read_bytes()[-64:]) + 63] ^= 1
    before = path.stat()
    path.write_bytes(octets)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = workdir.run("verify", "--read-data", stdin=records)
    assert done.status == 1, done
    assert set(failed(done)) == {made[0].sop_uid}, done


# Samples


def test_slices_are_everything_together_and_nothing_twice(workdir: Workdir, folder: Path) -> None:
    records = workdir.run("query", "./archive", "--level", "instance").stdout
    parts = [workdir.run("verify", "--sample", f"{n}/3", stdin=records) for n in (1, 2, 3)]
    seen = [each["SOPInstanceUID"] for done in parts for each in done.of_type("outcome")]
    assert len(seen) == len(set(seen)) == 12
    assert all(done.status == 0 for done in parts)


@pytest.mark.parametrize("level", ["study", "instance"])
def test_a_number_of_instances_is_read_and_no_more(level: str, workdir: Workdir, folder: Path) -> None:
    records = workdir.run("query", "./archive", "--level", level).stdout
    done = workdir.run("verify", "--sample", "5", "--itemize", "--read-data", stdin=records)
    assert done.status == 0, done
    read = {each["SOPInstanceUID"] for each in done.of_type("outcome") if each["level"] == "instance"}
    assert len(read) == 5, done
    alike = workdir.run("verify", "--sample", "5", "--itemize", stdin=records)
    assert {each.get("SOPInstanceUID") for each in alike.of_type("outcome")} - {None} == read


def test_a_percentage_holds_what_filter_holds(workdir: Workdir, folder: Path) -> None:
    records = workdir.run("query", "./archive", "--level", "instance").stdout
    done = workdir.run("verify", "--sample", "40%", stdin=records)
    same = workdir.run("filter", "--sample", "40%", stdin=records)
    assert {each["SOPInstanceUID"] for each in done.of_type("outcome")} == {
        each["SOPInstanceUID"] for each in same.of_type("instance")
    }


# Places and words


def test_a_place_that_cannot_be_asked_fails_its_things_and_no_others(
    workdir: Workdir, folder: Path, archive: peers.Peer
) -> None:
    mine = workdir.run("query", "./archive").records[0]
    gone = {**mine, "source": f"GONE@127.0.0.1:{peers.free_port()}"}
    done = workdir.run("verify", stdin=[gone, mine])
    assert done.status == 5, done
    assert found(done) == [("study", "failed", "unreachable"), ("study", "present", "")]
    assert done.records[0]["retry"] is True


def test_what_claims_nothing_is_passed_by(workdir: Workdir, folder: Path) -> None:
    mine = workdir.run("query", "./archive").records[0]
    done = workdir.run("verify", stdin=[{"type": "weather"}, mine, {"type": "outcome", "level": "series",
                                                                    "outcome": "skipped"}])
    assert (done.status, len(found(done))) == (0, 1), done
    assert "passed by: 2" in done.stderr


def test_incomplete_input_is_told(workdir: Workdir, folder: Path) -> None:
    lines = workdir.run("query", "./archive").lines
    done = workdir.run("verify", stdin=lines[0] + b"\n" + lines[1])
    assert done.status == 0, done
    done = workdir.run("verify", stdin=lines[0] + b"\n" + lines[1][:-5])
    assert (done.status, done.records[-1]["complete"]) == (6, False), done
    done = workdir.run("verify", stdin=lines[0] + b"\nnonsense\n")
    assert done.status == 6 and "line 2" in done.stderr and len(found(done)) == 1, done


@pytest.mark.parametrize("words, said", [
    (("--sample", "some"), "1%, 500 or 2/7"),
    (("--sample", "8/7"), "8/7"),
    (("--sample", "0"), "0"),
    (("--at", "nowhere"), "'nowhere' is no place"),
])  # fmt: skip
def test_wrong_words_are_named_before_anything_is_done(words: tuple[str, ...], said: str, workdir: Workdir) -> None:
    done = workdir.run("verify", *words, stdin=b"")
    assert done.status == 2, done
    assert said in done.stderr, done
    assert done.stdout == b""


def test_verify_needs_a_pipe(workdir: Workdir) -> None:
    assert workdir.run("verify").status == 2


def test_a_record_of_nowhere_needs_at(workdir: Workdir, folder: Path) -> None:
    record = {key: value for key, value in workdir.run("query", "./archive").records[0].items() if key != "source"}
    done = workdir.run("verify", stdin=[record])
    assert done.status == 6 and "--at" in done.stderr, done
    assert workdir.run("verify", "--at", "./archive", stdin=[record]).status == 0
