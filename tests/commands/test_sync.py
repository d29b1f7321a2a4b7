"""`dcmsync sync`, as people run it: from Orthanc and from folders, to folders and archives."""

import os
import shutil
from pathlib import Path

import pytest

from tests import peers, samples
from tests.trees import check_whole, data_set, default_path, files, leftovers
from tests.workdir import Done, Workdir

SEED = 61


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 5 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), studies=2, series=2, instances=5, seed=SEED)


@pytest.fixture(scope="module")
def archive(start_for_module, made: list[samples.Sample]) -> peers.Peer:
    """Orthanc with what was made; no test changes it."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in made)
    return peer


@pytest.fixture
def source(tmp_path: Path, made: list[samples.Sample]) -> Path:
    """A folder with what was made, under names of no meaning."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number, sample in enumerate(made):
        below = folder / f"{number % 3}"
        below.mkdir(exist_ok=True)
        shutil.copy(sample.path, below / f"IM{number}")
    return folder


def counts(done: Done) -> dict[str, int]:
    """Outcome -> number of instances, over all series outcomes."""
    found: dict[str, int] = {}
    for record in done.of_type("outcome"):
        for result in ("stored", "present", "failed", "conflict"):
            if record["level"] != "instance" and result in record:
                found[result] = found.get(result, 0) + record[result]
    return found


# From a PACS


def test_one_go_and_the_second_moves_nothing(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    first = workdir.run("sync", archive.locator, "./a", "--all")
    assert first.status == 0, first
    check_whole(workdir.path / "a", made)
    assert counts(first) == {"stored": 20}
    again = workdir.run("sync", archive.locator, "./a", "--all")
    assert (again.status, counts(again)) == (0, {"present": 20}), again
    assert again.records[-1] == {"type": "end", "format": 1, "complete": True, "records": 4}


def test_without_a_cache_it_is_the_same(workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", archive.locator, "./a", "--all", "--no-cache").status == 0
    check_whole(workdir.path / "a", made)
    again = workdir.run("sync", archive.locator, "./a", "--all", "--no-cache")
    assert counts(again) == {"present": 20}, again
    assert not (workdir.path / ".xdg" / "cache").exists()


def test_a_remote_source_is_not_asked_for_everything_unless_told(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("sync", archive.locator, "./a")
    assert done.status == 2 and "--all" in done.stderr, done
    assert not (workdir.path / "a").exists()


def test_keys_and_where_choose(workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]) -> None:
    chosen = made[0].series_uid
    study = [sample for sample in made if sample.study_uid == made[0].study_uid]
    done = workdir.run("sync", archive.locator, "./a", f"StudyInstanceUID={made[0].study_uid}",
                       "--where", f"SeriesInstanceUID={chosen}")  # fmt: skip
    assert done.status == 0, done
    check_whole(workdir.path / "a", [sample for sample in study if sample.series_uid == chosen])


def test_several_destinations_are_filled_by_one_fetch(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    assert workdir.run("sync", archive.locator, "./a", f"StudyInstanceUID={made[0].study_uid}").status == 0
    done = workdir.run("sync", archive.locator, "./a", "--to", "./b", "--to", "c.zip", "--all")
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    check_whole(workdir.path / "b", made)
    told = {record["destination"]: 0 for record in done.of_type("outcome")}
    for record in done.of_type("outcome"):
        told[record["destination"]] += record.get("stored", 0)
    assert told == {"./a": 10, "./b": 20, "c.zip": 20}
    again = workdir.run("sync", "c.zip", "./d")
    assert again.status == 0, again
    check_whole(workdir.path / "d", made)


@pytest.mark.parametrize("trust", ["counts", "uids", "content"])
def test_whatever_is_trusted_a_second_run_stores_nothing(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample], trust: str
) -> None:
    for expected in ({"stored": 20}, {"present": 20}):
        done = workdir.run("sync", archive.locator, "./a", "--all", "--trust", trust)
        assert (done.status, counts(done)) == (0, expected), done
    check_whole(workdir.path / "a", made)


def test_a_dry_run_says_the_same_and_touches_nothing(workdir: Workdir, archive: peers.Peer) -> None:
    dry = workdir.run("sync", archive.locator, "./a", "--all", "-n")
    assert dry.status == 0, dry
    assert not (workdir.path / "a").exists()
    real = workdir.run("sync", archive.locator, "./a", "--all")
    keys = ("level", "outcome", "SeriesInstanceUID", "instances", "stored")
    assert [[r.get(k) for k in keys] for r in dry.records] == [[r.get(k) for k in keys] for r in real.records]


# Files changed behind our back


@pytest.fixture
def mirror(workdir: Workdir, archive: peers.Peer) -> Path:
    """A finished sync."""
    assert workdir.run("sync", archive.locator, "./a", "--all").status == 0
    return workdir.path / "a"


def test_a_deleted_file_comes_back(
    workdir: Workdir, archive: peers.Peer, mirror: Path, made: list[samples.Sample]
) -> None:
    default_path(mirror, made[3]).unlink()
    done = workdir.run("sync", archive.locator, "./a", "--all")
    assert (done.status, counts(done)) == (0, {"stored": 1, "present": 19}), done
    check_whole(mirror, made)


def test_a_cut_file_is_replaced(
    workdir: Workdir, archive: peers.Peer, mirror: Path, made: list[samples.Sample]
) -> None:
    path = default_path(mirror, made[3])
    os.truncate(path, path.stat().st_size - 100)
    done = workdir.run("sync", archive.locator, "./a", "--all")
    assert (done.status, counts(done)) == (0, {"stored": 1, "present": 19}), done
    check_whole(mirror, made)


def test_a_renamed_file_is_found(
    workdir: Workdir, archive: peers.Peer, mirror: Path, made: list[samples.Sample]
) -> None:
    default_path(mirror, made[3]).rename(mirror / "elsewhere")
    done = workdir.run("sync", archive.locator, "./a", "--all")
    assert (done.status, counts(done)) == (0, {"present": 20}), done


def flip(path: Path, offset: int = -50) -> None:
    """Flips one bit, and forges size and mtime."""
    before = path.stat()
    octets = bytearray(path.read_bytes())
    octets[offset] ^= 0x10
    path.write_bytes(octets)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_that_rotted_without_a_trace_is_found_and_mended_when_content_is_trusted(
    workdir: Workdir, archive: peers.Peer, mirror: Path, made: list[samples.Sample]
) -> None:
    for sample in made[3:6]:
        flip(default_path(mirror, sample))
    unnoticed = workdir.run("sync", archive.locator, "./a", "--all")
    assert counts(unnoticed) == {"present": 20}, unnoticed
    done = workdir.run("sync", archive.locator, "./a", "--all", "--trust", "content")
    assert (done.status, counts(done)) == (0, {"stored": 3, "present": 17}), done
    check_whole(mirror, made)


def test_rot_that_verify_found_is_mended_by_any_sync(
    workdir: Workdir, archive: peers.Peer, mirror: Path, made: list[samples.Sample]
) -> None:
    log = workdir.run("sync", archive.locator, "./a", "--all", "-i")
    flip(default_path(mirror, made[7]))
    found = workdir.run("verify", "--read-data", stdin=log.stdout)
    assert found.status == 1, found
    done = workdir.run("sync", archive.locator, "./a", "--all")
    assert (done.status, counts(done)) == (0, {"stored": 1, "present": 19}), done
    check_whole(mirror, made)


def test_other_content_is_a_conflict_and_stays_unless_forced(
    workdir: Workdir, archive: peers.Peer, mirror: Path, made: list[samples.Sample]
) -> None:
    path = default_path(mirror, made[3])
    octets = bytearray(path.read_bytes())
    octets[-50] ^= 0x10
    path.write_bytes(octets)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    done = workdir.run("sync", archive.locator, "./a", "--all", "--trust", "content")
    assert (done.status, counts(done)) == (3, {"present": 19, "conflict": 1}), done
    assert path.read_bytes() == octets
    forced = workdir.run("sync", archive.locator, "./a", "--all", "--force")
    assert forced.status == 0, forced
    check_whole(mirror, made)


# From folders


def test_a_folder_is_copied_octet_for_octet(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    done = workdir.run("sync", source, "./a")
    assert (done.status, counts(done)) == (0, {"stored": 20}), done
    for sample in made:
        assert default_path(workdir.path / "a", sample).read_bytes() == sample.path.read_bytes()
    again = workdir.run("sync", source, "./a", "--trust", "content")
    assert (again.status, counts(again)) == (0, {"present": 20}), again


def test_links_share_their_octets(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    done = workdir.run("sync", source, "./a", "--link")
    assert done.status == 0, done
    assert all(path.stat().st_nlink == 2 for path in files(workdir.path / "a"))
    check_whole(workdir.path / "a", made)
    again = workdir.run("sync", source, "./a", "--link")
    assert counts(again) == {"present": 20}, again


def test_symbolic_links_point_to_the_source(workdir: Workdir, source: Path) -> None:
    for expected in ({"stored": 20}, {"present": 20}):
        done = workdir.run("sync", source, "./a", "--symlink")
        assert (done.status, counts(done)) == (0, expected), done
    found = files(workdir.path / "a")
    assert len(found) == 20 and all(path.is_symlink() and path.exists() for path in found)


def test_what_is_moved_is_gone_from_its_source(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    (source / "notes.txt").write_text("not an image")
    done = workdir.run("sync", source, "./a", "--move")
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    assert files(source) == [source / "notes.txt"]


def test_a_move_that_was_interrupted_is_finished(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a", "--link").status == 0
    done = workdir.run("sync", source, "./a", "--move")
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    assert files(source) == []


def test_a_move_removes_nothing_that_is_a_conflict(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    path = default_path(workdir.path / "a", made[0])
    octets = bytearray(path.read_bytes())
    octets[-50] ^= 0x10
    path.write_bytes(octets)
    done = workdir.run("sync", source, "./a", "--move")
    assert (done.status, counts(done)) == (3, {"present": 19, "conflict": 1}), done
    assert len(files(source)) == 1
    assert path.read_bytes() == octets


@pytest.mark.parametrize("alias", [False, True])
def test_a_folder_moved_onto_itself_loses_nothing(
    workdir: Workdir, source: Path, made: list[samples.Sample], alias: bool
) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    (workdir.path / "b").symlink_to("a")
    done = workdir.run("sync", "./b" if alias else "./a", "./a", "--move")
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)


def test_several_sources_are_joined(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    other = source.parent / "other"
    (source / "2").rename(other)
    done = workdir.run("sync", source, other, "./a")
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)


def test_a_truncated_file_is_not_brought(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    path = next(path for path in files(source) if data_set(path) == data_set(made[0].path))
    os.truncate(path, path.stat().st_size - 100)
    done = workdir.run("sync", source, "./a")
    assert (done.status, counts(done)) == (3, {"stored": 19}), done
    (named,) = [record for record in done.of_type("outcome") if record["outcome"] == "failed"]
    assert named["reason"] == "truncated" and source / named["path"] == path
    check_whole(workdir.path / "a", made[1:])


# Deleting


def test_nothing_is_deleted_unless_asked(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    shutil.rmtree(source / "1")
    assert workdir.run("sync", source, "./a").status == 0
    check_whole(workdir.path / "a", made)


def test_a_mirror_deletes_what_its_source_has_lost(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    gone = [number for number in range(20) if number % 3 == 1]
    shutil.rmtree(source / "1")
    dry = workdir.run("sync", source, "./a", "--delete", "--max-delete", "10", "-n")
    check_whole(workdir.path / "a", made)
    done = workdir.run("sync", source, "./a", "--delete", "--max-delete", "10")
    assert done.status == 0, done
    check_whole(workdir.path / "a", [sample for number, sample in enumerate(made) if number not in gone])
    for run in (dry, done):
        deleted = [record for record in run.of_type("outcome") if record["outcome"] == "deleted"]
        assert {record["SOPInstanceUID"] for record in deleted} == {made[number].sop_uid for number in gone}


def test_too_many_deletions_are_none(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    shutil.rmtree(source / "1")
    done = workdir.run("sync", source, "./a", "--delete", "--max-delete", "6")
    assert done.status == 3 and "7 instances would go" in done.stderr, done
    check_whole(workdir.path / "a", made)


def test_a_source_that_has_nothing_deletes_nothing(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    shutil.rmtree(source)
    source.mkdir()
    done = workdir.run("sync", source, "./a", "--delete", "--max-delete", "100")
    assert done.status == 3, done
    check_whole(workdir.path / "a", made)


def test_deleting_stays_within_what_was_asked_for(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    study = made[0].study_uid
    for path in files(source):
        if any(data_set(path) == data_set(sample.path) for sample in made[4:12]):
            path.unlink()
    done = workdir.run("sync", source, "./a", f"StudyInstanceUID={study}", "--delete", "--max-delete", "10")
    assert done.status == 0, done
    check_whole(workdir.path / "a", [*made[:4], *made[10:]])


def test_a_failed_run_deletes_nothing(workdir: Workdir, source: Path, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    path = default_path(workdir.path / "a", made[0])
    path.write_bytes(b"x" * 200)
    shutil.rmtree(source / "1")
    done = workdir.run("sync", source, "./a", "--delete", "--max-delete", "10")
    assert done.status == 3, done
    assert len(files(workdir.path / "a")) == 20


# Words


@pytest.mark.parametrize(
    "line, words",
    [
        (("./a",), "SOURCE and a DEST"),
        (("./a", "PatientID=P"), "SOURCE and a DEST"),
        (("./a", "./b", "--delete"), "--max-delete"),
        (("./a", "./b", "--max-delete", "5"), "--delete"),
        (("./a", "./b", "./c", "--delete", "--max-delete", "5"), "exactly one SOURCE"),
        (("./a", "./b", "--link", "--move"), "two things"),
        (("./a", "./b.zip", "--link"), "no links"),
        (("./a", "X@127.0.0.1:104", "--link"), "neither linked nor moved"),
        (("-", "./b"), "pull"),
        (("./a", "./b", "--trust", "luck"), "luck"),
        (("./a", "./b", "--where", "~"), "~"),
    ],
)
def test_wrong_words_are_named_before_anything_is_done(workdir: Workdir, line: tuple[str, ...], words: str) -> None:
    (workdir.path / "a").mkdir()
    done = workdir.run("sync", *line)
    assert done.status == 2 and words in done.stderr, done
    assert sorted(path.name for path in workdir.path.iterdir()) == ["a"]


def test_a_source_that_is_not_there_is_named(workdir: Workdir) -> None:
    done = workdir.run("sync", "./nowhere", "./b")
    assert done.status == 7 and "./nowhere" in done.stderr, done


def test_leftovers_of_a_dead_run_are_swept(workdir: Workdir, source: Path) -> None:
    assert workdir.run("sync", source, "./a").status == 0
    (workdir.path / "a" / ".dcmsync-dead").mkdir()
    assert workdir.run("sync", source, "./a").status == 0
    assert leftovers(workdir.path / "a") == []
