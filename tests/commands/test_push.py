"""`dcmsync push`, as people run it: files, folders, archives and records, to nodes that we did not write."""

import os
import shutil
import signal
import zipfile
from pathlib import Path

import pytest

from tests import nodes, peers, samples
from tests.trees import data_set, files
from tests.workdir import Done, Workdir

SEED = 71


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 5 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), studies=2, series=2, instances=5, seed=SEED)


@pytest.fixture
def folder(workdir: Workdir, made: list[samples.Sample]) -> Path:
    """What was made, below ./in."""
    for number, sample in enumerate(made):
        below = workdir.path / "in" / f"{number % 3}"
        below.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.path, below / f"IM{number}")
    return workdir.path / "in"


def counts(done: Done) -> dict[str, int]:
    """Outcome -> number of instances, over all series outcomes."""
    found: dict[str, int] = {}
    for record in done.of_type("outcome"):
        for result in ("stored", "present", "failed", "conflict"):
            if record["level"] != "instance" and result in record:
                found[result] = found.get(result, 0) + record[result]
    return found


def held(pacs: peers.Peer) -> dict[str, bytes]:
    """SOP Instance UID -> the data set that Orthanc holds."""
    found = {}
    for one in pacs.rest("GET", "/instances?expand"):
        octets = pacs_file(pacs, one["ID"])
        found[one["MainDicomTags"]["SOPInstanceUID"]] = octets
    return found


def pacs_file(pacs: peers.Peer, instance: str) -> bytes:
    from urllib.request import urlopen

    with urlopen(f"{pacs.http}/instances/{instance}/file") as answer:
        octets: bytes = answer.read()
    return octets[144 + int.from_bytes(octets[140:144], "little") :]


def check_held(pacs: peers.Peer, made: list[samples.Sample]) -> None:
    """Orthanc holds just these, octet by octet."""
    assert held(pacs) == {sample.sop_uid: data_set(sample.path) for sample in made}


# Paths


def test_a_folder_is_sent_and_proven_and_the_second_time_nothing(
    workdir: Workdir, orthanc: peers.Peer, folder: Path, made: list[samples.Sample]
) -> None:
    dry = workdir.run("push", orthanc.locator, "./in", "--dry-run")
    assert (dry.status, counts(dry), orthanc.instances()) == (0, {"stored": 20}, 0), dry
    first = workdir.run("push", orthanc.locator, "./in")
    assert (first.status, counts(first)) == (0, {"stored": 20}), first
    assert first.stderr == ""
    check_held(orthanc, made)
    bare = [{k: v for k, v in record.items() if k != "dry_run"} for record in dry.records]
    assert bare == first.records
    again = workdir.run("push", orthanc.locator, "./in")
    assert (again.status, counts(again)) == (0, {"present": 20}), again
    counted = workdir.run("push", orthanc.locator, "./in", "--trust", "counts")
    assert counts(counted) == {"present": 20}


def test_single_files_archives_and_folders_go_together(
    workdir: Workdir, orthanc: peers.Peer, made: list[samples.Sample]
) -> None:
    ours = workdir.path / "x"
    shutil.copytree(made[0].path.parents[1], ours)
    with zipfile.ZipFile(workdir.path / "more.zip", "w") as archive:
        archive.write(made[10].path, "a/b.dcm")
    os.symlink(made[11].path, workdir.path / "link.dcm")
    names = [*(str(sample.path) for sample in made[12:15]), "more.zip", "link.dcm", "x", "x/series0001"]
    done = workdir.run("push", orthanc.locator, *names, "--itemize")
    assert done.status == 0, done
    check_held(orthanc, made[:15])
    stored = [record["SOPInstanceUID"] for record in done.of_type("outcome") if record["level"] == "instance"]
    assert len(stored) == 15


def test_what_is_no_whole_instance_is_named_and_not_sent(
    workdir: Workdir, orthanc: peers.Peer, folder: Path, made: list[samples.Sample]
) -> None:
    (folder / "cut.dcm").write_bytes(made[0].path.read_bytes()[:-100])
    (folder / "notes.txt").write_text("no DICOM")
    done = workdir.run("push", orthanc.locator, "./in")
    failed = [record for record in done.of_type("outcome") if record["outcome"] == "failed"]
    assert (done.status, orthanc.instances()) == (3, 20), done
    assert [(record["path"], record["reason"], record["source"]) for record in failed] == [
        ("cut.dcm", "truncated", "./in")
    ]
    named = workdir.run("push", orthanc.locator, "in/cut.dcm", "in/notes.txt", "in/none.dcm", "in/0/IM0")
    failed = [record for record in named.of_type("outcome") if record["outcome"] == "failed"]
    assert named.status == 3, named
    assert {(Path(record["path"]).name, record["reason"]) for record in failed} == {
        ("cut.dcm", "truncated"), ("notes.txt", "not dicom"), ("none.dcm", "unreadable"),
    }  # fmt: skip
    assert counts(named) == {"present": 1}


def test_names_that_are_no_utf8_are_sent(workdir: Workdir, orthanc: peers.Peer, made: list[samples.Sample]) -> None:
    odd = os.fsencode(workdir.path) + b"/\xff\xfe.dcm"
    shutil.copy(made[0].path, odd)
    assert workdir.run("push", orthanc.locator, os.fsdecode(odd)).status == 0
    assert orthanc.instances() == 1


def test_the_cache_of_a_folder_is_used_and_a_choice_of_files_leaves_it_alone(
    workdir: Workdir, orthanc: peers.Peer, folder: Path
) -> None:
    assert workdir.run("push", orthanc.locator, "./in", "--cache", "c").status == 0
    before = workdir.run("cache", "status", "./in", "--cache", "c")
    assert workdir.run("push", orthanc.locator, "in/0/IM0", "in/1/IM1", "--cache", "c").status == 0
    assert workdir.run("cache", "status", "./in", "--cache", "c").stdout == before.stdout


def test_copies_of_an_instance_are_sent_once_and_other_content_is_a_conflict(
    workdir: Workdir, orthanc: peers.Peer, folder: Path, made: list[samples.Sample]
) -> None:
    shutil.copy(made[0].path, folder / "copy.dcm")
    done = workdir.run("push", orthanc.locator, "./in")
    assert (done.status, counts(done)) == (0, {"stored": 20}), done
    octets = bytearray(made[1].path.read_bytes())
    octets[-1] ^= 1
    (folder / "other.dcm").write_bytes(octets)
    orthanc.clear()
    done = workdir.run("push", orthanc.locator, "./in")
    assert (done.status, counts(done)) == (3, {"stored": 19, "conflict": 1}), done
    assert orthanc.instances() == 20


# Records


def test_records_are_sent_from_one_node_to_another(
    workdir: Workdir, start, orthanc: peers.Peer, made: list[samples.Sample]
) -> None:
    source = start(peers.dcmqrscp)
    peers.storescu(source, [sample.path for sample in made])
    records = workdir.run("query", source.locator, "--all", "--level", "series").stdout
    done = workdir.run("push", orthanc.locator, stdin=records)
    assert (done.status, counts(done)) == (0, {"stored": 20}), done
    check_held(orthanc, made)
    compared = workdir.run("diff", source.locator, orthanc.locator, "--all", "--trust", "content")
    assert compared.status == 0, compared


def test_sync_delivers_to_a_node_too_and_to_a_folder_with_it(
    workdir: Workdir, orthanc: peers.Peer, folder: Path, made: list[samples.Sample]
) -> None:
    done = workdir.run("sync", "./in", orthanc.locator, "--to", "./copy", "--verify", "content")
    assert (done.status, counts(done)) == (0, {"stored": 40}), done
    check_held(orthanc, made)
    assert len(files(workdir.path / "copy")) == 20
    again = workdir.run("sync", "./in", orthanc.locator, "--to", "./copy", "--trust", "content")
    assert (again.status, counts(again)) == (0, {"present": 40}), again


def test_failed_outcomes_are_work(workdir: Workdir, orthanc: peers.Peer, folder: Path) -> None:
    nobody = f"ORTHANC@127.0.0.1:{peers.free_port()}"
    failed = workdir.run("push", nobody, "./in")
    assert failed.status == 5, failed
    assert "cannot connect" in failed.stderr
    assert {record["reason"] for record in failed.of_type("outcome")} == {"unreachable"}
    done = workdir.run("push", orthanc.locator, stdin=failed.stdout)
    assert (done.status, orthanc.instances()) == (0, 20), done


# Usage


@pytest.mark.parametrize(
    ("words", "said"),
    [(["./here", "x"], "is on this machine"), (["PACS@h:104"], "neither paths nor records"),
     (["pacs", "x"], "no place")],
)
def test_what_makes_no_sense_is_an_error_of_usage(workdir: Workdir, words: list[str], said: str) -> None:
    done = workdir.run("push", *words)
    assert (done.status, done.stdout) == (2, b"")
    assert said in done.stderr


@pytest.mark.parametrize("option", ["--link", "--symlink", "--move"])
def test_nothing_is_linked_or_moved_to_a_node(workdir: Workdir, folder: Path, option: str) -> None:
    done = workdir.run("sync", "./in", "PACS@127.0.0.1:1", option)
    assert done.status == 2, done
    assert "neither linked nor moved" in done.stderr


# Peers


def test_a_push_only_peer_leaves_everything_unproven(
    workdir: Workdir, start, folder: Path, made: list[samples.Sample]
) -> None:
    peer = start(peers.storescp, "+B")
    done = workdir.run("push", peer.locator, "./in")
    assert (done.status, counts(done)) == (3, {"stored": 20}), done
    assert {record["reason"] for record in done.of_type("outcome")} == {"unproven"}
    taken = workdir.run("push", peer.locator, "./in", "--verify", "none")
    assert (taken.status, counts(taken)) == (0, {"stored": 20}), taken
    received = sorted(data_set(path) for path in files(peer.folder / "received"))
    assert received == sorted(data_set(sample.path) for sample in made)


@pytest.mark.parametrize("max_pdu", [4096, 16384, 131072])
def test_pdus_are_as_small_as_the_peer_wants_them(
    workdir: Workdir, start, folder: Path, made: list[samples.Sample], max_pdu: int
) -> None:
    peer = start(peers.storescp, "+B", "--max-pdu", str(max_pdu))
    done = workdir.run("push", peer.locator, "./in", "--verify", "none")
    assert (done.status, counts(done)) == (0, {"stored": 20}), done
    received = sorted(data_set(path) for path in files(peer.folder / "received"))
    assert received == sorted(data_set(sample.path) for sample in made)


@pytest.mark.parametrize("kind", [peers.dcmqrscp, peers.pynetdicom_qrscp], ids=["dcmqrscp", "pynetdicom"])
def test_other_nodes_are_sent_to_and_asked(
    workdir: Workdir, start, folder: Path, made: list[samples.Sample], kind
) -> None:
    peer = start(kind)
    for verify in ("uids", "content"):
        # dcmqrscp 3.6.7 gives one file name to several instances when it stores over several associations at a time;
        # DCMTK's own storescu loses them as well.
        done = workdir.run("push", peer.locator, "./in", "--verify", verify, "--force", "--jobs", "1")
        assert (done.status, counts(done)) == (0, {"stored": 20}), done
    again = workdir.run("push", peer.locator, "./in")
    assert (again.status, counts(again)) == (0, {"present": 20}), again


def test_our_own_node_is_sent_to_and_asked(workdir: Workdir, folder: Path, made: list[samples.Sample]) -> None:
    (workdir.path / "node").mkdir()
    with nodes.serving(workdir.path / "node") as node:
        done = workdir.run("push", node.locator, "./in", "--verify", "content")
        assert (done.status, counts(done)) == (0, {"stored": 20}), done
        again = workdir.run("push", node.locator, "./in", "--trust", "content")
        assert (again.status, counts(again)) == (0, {"present": 20}), again


@pytest.mark.parametrize(
    ("option", "status", "reason"),
    [("--refuse", 5, "rejected"), ("--abort-after", 4, "disconnected"), ("--abort-during", 4, "disconnected")],
)
@pytest.mark.slow
def test_storescp_that_misbehaves_is_named(
    workdir: Workdir, start, folder: Path, option: str, status: int, reason: str
) -> None:
    peer = start(peers.storescp, option)
    done = workdir.run("push", peer.locator, "in/0/IM0", "in/1/IM1", "--verify", "none")
    assert done.status == status, done
    assert {record["reason"] for record in done.of_type("outcome")} == {reason}


@pytest.mark.slow
def test_storescp_that_sleeps_is_left_at_the_deadline(workdir: Workdir, start, folder: Path) -> None:
    peer = start(peers.storescp, "--fork", "--sleep-during", "30")
    done = workdir.run("push", peer.locator, "in/0/IM0", "--verify", "none", "--timeout", "1")
    assert done.status == 4, done
    assert {record["reason"] for record in done.of_type("outcome")} == {"stalled"}


def test_one_association_at_a_time_is_enough(workdir: Workdir, start, folder: Path) -> None:
    peer = start(peers.storescp)  # without --fork it takes one after the other
    done = workdir.run("push", peer.locator, "./in", "--verify", "none", "--jobs", "8")
    assert (done.status, counts(done)) == (0, {"stored": 20}), done


def test_a_node_that_says_success_and_keeps_the_old_is_found_out_by_content(
    workdir: Workdir, start, folder: Path, made: list[samples.Sample]
) -> None:
    pacs = start(peers.orthanc, overwrite=False)
    assert workdir.run("push", pacs.locator, "./in").status == 0
    octets = bytearray(made[0].path.read_bytes())
    octets[-1] ^= 1
    (folder / "0" / "IM0").write_bytes(octets)
    compared = workdir.run("push", pacs.locator, "./in", "--trust", "content")
    assert (compared.status, counts(compared)) == (3, {"present": 19, "conflict": 1}), compared
    blind = workdir.run("push", pacs.locator, "./in", "--force")
    assert blind.status == 0, blind  # by UIDs nobody can see it
    done = workdir.run("push", pacs.locator, "./in", "--force", "--verify", "content")
    assert (done.status, counts(done)) == (3, {"stored": 19, "failed": 1}), done
    failed = [record for record in done.of_type("outcome") if record["outcome"] == "failed"]
    assert {record["reason"] for record in failed if record["level"] == "instance"} == {"differs"}


@pytest.mark.slow
def test_more_kinds_than_fit_an_association_all_arrive(workdir: Workdir, orthanc: peers.Peer) -> None:
    for number in range(140):
        uid, kind = samples.uid(SEED, 9, 9, number), f"1.2.826.0.1.3680043.9.9999.{number + 1}"
        elements = ((0x00080016, b"UI", kind), (0x00080018, b"UI", uid), (0x00080060, b"CS", "OT"),
                    (0x00100020, b"LO", "P"), (0x0020000D, b"UI", samples.uid(SEED, 9)),
                    (0x0020000E, b"UI", samples.uid(SEED, 9, 9)))  # fmt: skip
        octets = samples.part10(b"".join(samples.element(*one) for one in elements), sop_class_uid=kind, sop_uid=uid)
        (workdir.path / f"{number}.dcm").write_bytes(octets)
    done = workdir.run("push", orthanc.locator, ".")
    assert (done.status, counts(done), orthanc.instances()) == (0, {"stored": 140}, 140), done


@pytest.mark.slow
def test_a_push_that_was_killed_goes_on_where_it_was(workdir: Workdir, orthanc: peers.Peer, tmp_path: Path) -> None:
    made = samples.make_series(tmp_path / "many", series=4, instances=100, seed=72)
    process = workdir.start("push", orthanc.locator, tmp_path / "many", "--jobs", "2")
    peers.wait_for(lambda: orthanc.instances() > 40)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = orthanc.instances()
    assert 40 < there < 400
    done = workdir.run("push", orthanc.locator, tmp_path / "many")
    assert done.status == 0, done
    assert counts(done)["stored"] <= 400 - there
    assert counts(done)["stored"] + counts(done)["present"] == 400
    assert orthanc.instances() == 400
    assert len(held(orthanc)) == len(made)


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_in_flight(workdir: Workdir, orthanc: peers.Peer, tmp_path: Path) -> None:
    samples.make_series(tmp_path / "many", series=20, instances=20, seed=73)
    process = workdir.start("push", orthanc.locator, tmp_path / "many", "--jobs", "1")
    peers.wait_for(lambda: orthanc.instances() > 40)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=20)
    done = Done(("push",), process.returncode, stdout, "")
    assert done.status == 130
    assert counts(done) == {"stored": orthanc.instances()}
    assert done.records[-1]["complete"] is False

