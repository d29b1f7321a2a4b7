"""`dcmsync cache`: what is remembered is shown, proven against the disk, made anew and cleared up."""

import json
import os
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dcmsync.cache.digest import hasher
from tests import samples
from tests.workdir import Done, Workdir

OLD_NS = 1_600_000_000_123_456_789
CASE = "study0001/series0001/image000002.dcm"


@pytest.fixture
def folder(workdir: Workdir) -> Path:
    """./archive: one study of two series of four instances, all of them old."""
    path = workdir.path / "archive"
    samples.make_series(path, series=2, instances=4, rows=8, columns=8)
    for file in path.rglob("*.dcm"):
        os.utime(file, ns=(OLD_NS, OLD_NS))
    return path


def caches(workdir: Workdir) -> list[Path]:
    return sorted((workdir.path / ".xdg" / "cache" / "dcmsync").glob("*.sqlite"))


def forge(path: Path) -> None:
    """Another octet, the same size and time."""
    octets = path.read_bytes()
    path.write_bytes(octets[:-1] + bytes([octets[-1] ^ 1]))
    os.utime(path, ns=(OLD_NS, OLD_NS))


def cache_record(done: Done) -> dict[str, object]:
    (record,) = done.of_type("cache")
    return record


def test_status_tells_what_is_remembered(workdir: Workdir, folder: Path) -> None:
    assert workdir.run("query", "./archive", "--level", "study", "--all").status == 0
    done = workdir.run("cache", "status", "./archive")
    assert done.status == 0, done
    (cache,) = caches(workdir)
    record = cache_record(done)
    assert record.pop("octets") == cache.stat().st_size
    assert record == {
        "type": "cache", "file": str(cache), "source": str(folder), "format": 1, "journal": "wal", "studies": 1,
        "series": 2, "instances": 8, "hashed": 0, "whole": 8, "same": 8, "changed": 0, "new": 0, "gone": 0,
    }  # fmt: skip
    of_all = cache_record(workdir.run("cache", "status"))
    assert (of_all["source"], of_all["instances"]) == (str(folder), 8)
    assert "same" not in of_all


def test_status_of_a_folder_that_nobody_asked_about(workdir: Workdir, folder: Path) -> None:
    done = workdir.run("cache", "status", "archive/")
    assert done.status == 0, done
    assert cache_record(done)["octets"] == 0
    assert caches(workdir) == []
    assert workdir.run("cache", "status").of_type("cache") == []


def test_a_cache_may_have_a_name(workdir: Workdir, folder: Path, require: Callable[[str], str]) -> None:
    done = workdir.run("cache", "rebuild", "./archive", "--cache", "mine")
    assert (done.status, cache_record(done)["instances"]) == (0, 8), done
    assert caches(workdir) == []
    counted = subprocess.run(
        [require("sqlite3"), "-readonly", workdir.path / "mine", "SELECT count(*) FROM file"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert counted.stdout == "8\n"
    assert cache_record(workdir.run("cache", "status", "--cache", "mine"))["source"] == str(folder)


def test_verify_finds_what_looks_as_it_was(workdir: Workdir, folder: Path) -> None:
    first = workdir.run("cache", "verify", "./archive", "--itemize")
    assert first.status == 0, first
    assert {each["outcome"] for each in first.of_type("outcome")} == {"present"}
    digests = {each["path"]: each["digest"] for each in first.of_type("outcome")}
    assert digests == {
        path.relative_to(folder).as_posix(): f"xxh3:{hasher(path.read_bytes()).hexdigest()}"
        for path in folder.rglob("*.dcm")
    }
    forge(folder / CASE)
    second = workdir.run("cache", "verify", "./archive")
    assert second.status == 1, second
    (outcome,) = second.of_type("outcome")
    assert (outcome["outcome"], outcome["reason"], outcome["path"]) == ("failed", "rotten", CASE)
    assert outcome["destination"] == "./archive"
    assert cache_record(workdir.run("cache", "status", "./archive"))["rotten"] == 1
    again = workdir.run("cache", "verify", "./archive", "--itemize")
    assert [each["reason"] for each in again.of_type("outcome") if "reason" in each] == ["rotten"]
    assert len(again.of_type("outcome")) == 8
    forge(folder / CASE)
    assert workdir.run("cache", "verify", "./archive").status == 0
    assert "rotten" not in cache_record(workdir.run("cache", "status", "./archive"))


def test_verify_tells_what_changed_in_the_open(workdir: Workdir, folder: Path) -> None:
    workdir.run("cache", "verify", "./archive")
    first, second, third, *_ = sorted(folder.rglob("*.dcm"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    forge(third)
    os.utime(third)
    shutil.copy(third, folder / "new.dcm")
    done = workdir.run("cache", "verify", "./archive")
    assert done.status == 1, done
    assert {each["path"]: each["reason"] for each in done.of_type("outcome")} == {
        path.relative_to(folder).as_posix(): reason
        for path, reason in ((first, "missing"), (second, "truncated"), (third, "changed"))
    }
    assert workdir.run("cache", "verify", "./archive").status == 0
    record = cache_record(workdir.run("cache", "status", "./archive"))
    assert (record["whole"], record["truncated"], record["hashed"]) == (7, 1, 8)


def test_a_sample_is_read_and_nothing_else(workdir: Workdir, folder: Path) -> None:
    assert workdir.run("cache", "verify", "./archive", "--sample", "3").status == 0
    assert cache_record(workdir.run("cache", "status"))["hashed"] == 3
    for slice_number in range(1, 5):
        assert workdir.run("cache", "verify", "./archive", "--sample", f"{slice_number}/4").status == 0
    assert cache_record(workdir.run("cache", "status"))["hashed"] == 8
    assert workdir.run("cache", "verify", "./archive", "--sample", "many").status == 2


def test_rebuild_believes_nothing(workdir: Workdir, folder: Path) -> None:
    workdir.run("cache", "verify", "./archive")
    path = folder / CASE
    octets = path.read_bytes()
    path.write_bytes(octets.replace(b"Generated study 1", b"Another    name  "))
    os.utime(path, ns=(OLD_NS, OLD_NS))
    done = workdir.run("cache", "rebuild", "./archive")
    assert (done.status, cache_record(done)["hashed"]) == (0, 0), done
    found = workdir.run("query", "./archive", "StudyDescription", "--level", "instance", "--all").of_type("instance")
    assert {each["StudyDescription"] for each in found if each["path"] == CASE} == {"Another    name"}


def test_prune_forgets_what_is_gone(workdir: Workdir, folder: Path) -> None:
    samples.make_series(workdir.path / "other", instances=1, seed=2)
    for place in ("./archive", "./other"):
        workdir.run("query", place, "--level", "study", "--all")
    gone, kept = sorted(caches(workdir), key=lambda path: place_of(path).endswith("archive"))
    shutil.rmtree(workdir.path / "other")
    shutil.rmtree(folder / "study0001" / "series0002")
    done = workdir.run("cache", "prune")
    assert done.status == 0, done
    by_file = {each["file"]: each for each in done.of_type("cache")}
    assert by_file[str(gone)]["removed"] is True
    assert by_file[str(kept)]["instances"] == 4
    assert caches(workdir) == [kept]
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM series").fetchone() == (1,)


def place_of(cache: Path) -> str:
    with closing(sqlite3.connect(cache)) as connection:
        (path,) = connection.execute("SELECT path FROM place").fetchone()
    return os.fsdecode(path)


def test_prune_leaves_what_a_newer_version_made(workdir: Workdir, folder: Path) -> None:
    workdir.run("query", "./archive", "--level", "study", "--all")
    (cache,) = caches(workdir)
    with closing(sqlite3.connect(cache)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert workdir.run("cache", "prune").status == 0
    assert caches(workdir) == [cache]


def test_names_that_are_no_utf_8_are_told_by_their_octets(workdir: Workdir, folder: Path) -> None:
    os.rename(folder / CASE, os.fsencode(folder) + b"/\xff.dcm")
    workdir.run("cache", "verify", "./archive")
    os.unlink(os.fsencode(folder) + b"/\xff.dcm")
    (outcome,) = workdir.run("cache", "verify", "./archive").of_type("outcome")
    assert (outcome["path"], outcome["path_octets"]) == ("\ufffd.dcm", "/y5kY20=")


@pytest.mark.parametrize(
    "words, said",
    [
        (("verify",), "needs a folder"),
        (("rebuild",), "needs a folder"),
        (("status", "--sample", "3"), "go with verify"),
        (("mend", "./archive"), "none of status"),
        (("status", "--cache", "archive"), "no cache of dcmsync"),
        (("status", "--cache", "nothing"), "does not say which place"),
        (("status", "PACS@host:104"), "no folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    workdir: Workdir, folder: Path, words: tuple[str, ...], said: str
) -> None:
    done = workdir.run("cache", *words)
    assert done.status == 2, done
    assert said in done.stderr
    assert done.stdout == b""


def test_a_folder_that_cannot_be_read_is_trouble(workdir: Workdir) -> None:
    (workdir.path / "file").write_text("x")
    assert workdir.run("cache", "rebuild", "./file").status == 7


def test_nothing_of_a_patient_is_on_standard_error(workdir: Workdir, folder: Path) -> None:
    samples.make_series(folder, instances=1, seed=3, patient_name="Canary^Name")
    (folder / "Canary").write_text("x")
    for words in (("verify", "./archive", "-v"), ("rebuild", "./archive", "-v"), ("prune", "-v")):
        done = workdir.run("cache", *words)
        assert "anary" not in done.stderr, done
        assert b"Name" not in done.stdout
    assert json.loads(done.lines[-1])["complete"] is True


# Archives


def content_at(record: dict[str, object]) -> tuple[object, object]:
    return record["digest"], record["content"]


@pytest.fixture
def archive(workdir: Workdir, folder: Path) -> Path:
    """./a.zip: the same instances, none of them compressed."""
    path = workdir.path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        for file in sorted(folder.rglob("*.dcm")):
            made.write(file, file.relative_to(folder))
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


def forge_member(path: Path, name: str) -> None:
    """Another octet of a member, the same size and time of the archive."""
    with zipfile.ZipFile(path) as archive:
        end = archive.getinfo(name).header_offset + 30 + len(name) + archive.getinfo(name).compress_size
    octets = bytearray(path.read_bytes())
    octets[end - 1] ^= 1
    path.write_bytes(octets)
    os.utime(path, ns=(OLD_NS, OLD_NS))


def test_the_digests_of_members_are_those_of_the_files(workdir: Workdir, folder: Path, archive: Path) -> None:
    assert workdir.run("cache", "verify", "./archive").status == 0
    query = ("--level", "instance", "--all")
    of_files = {record["SOPInstanceUID"]: content_at(record) for record in
                workdir.run("query", "./archive", *query).of_type("instance")}  # fmt: skip
    of_members = {record["SOPInstanceUID"]: content_at(record) for record in
                  workdir.run("query", "a.zip", *query).of_type("instance")}  # fmt: skip
    assert of_files == of_members and len(of_files) == 8
    with zipfile.ZipFile(archive) as opened:
        running = hasher()
        running.update(opened.read(CASE))
    assert f"xxh3:{running.hexdigest()}" in {digest for digest, _ in of_members.values()}


def test_status_tells_of_an_archive(workdir: Workdir, archive: Path) -> None:
    assert cache_record(workdir.run("cache", "status", "a.zip"))["octets"] == 0
    assert workdir.run("query", "a.zip", "--all").status == 0
    record = cache_record(workdir.run("cache", "status", "a.zip"))
    wanted = {"source": str(archive), "instances": 8, "hashed": 8, "same": 8, "changed": 0, "new": 0, "gone": 0}
    assert record.items() >= wanted.items()
    subprocess.run(["zip", "-q", "-d", archive, CASE], check=True)
    with zipfile.ZipFile(archive, "a") as made:
        made.writestr("new.txt", "new")
    record = cache_record(workdir.run("cache", "status", "a.zip"))
    assert record.items() >= {"same": 0, "changed": 7, "new": 1, "gone": 1}.items()


def test_verify_names_the_member_that_rotted(workdir: Workdir, archive: Path) -> None:
    assert workdir.run("query", "a.zip", "--all").status == 0
    forge_member(archive, CASE)
    assert cache_record(workdir.run("cache", "status", "a.zip"))["same"] == 8, "nothing says so"
    done = workdir.run("cache", "verify", "a.zip")
    (outcome,) = done.of_type("outcome")
    assert done.status == 1 and outcome.items() >= {"outcome": "failed", "reason": "rotten", "path": CASE}.items(), done
    assert len(workdir.run("cache", "verify", "a.zip", "--itemize").of_type("outcome")) == 8


@pytest.mark.slow
def test_sync_by_content_mends_the_member_that_rotted(workdir: Workdir, folder: Path) -> None:
    archive = workdir.path / "b.zip"
    stored = workdir.run("sync", "./archive", "b.zip", "--itemize").of_type("outcome")[3]
    os.utime(archive, ns=(OLD_NS, OLD_NS))
    assert workdir.run("query", "b.zip", "--all").status == 0
    forge_member(archive, stored["path"])
    assert workdir.run("sync", "./archive", "b.zip").of_type("outcome")[0]["outcome"] == "present", "nothing says so"
    done = workdir.run("sync", "./archive", "b.zip", "--trust", "content", "--itemize")
    mended = [each for each in done.of_type("outcome") if each["outcome"] == "stored" and each["level"] == "instance"]
    assert done.status == 0 and [(each["reason"], each["path"]) for each in mended] == [("replaced", stored["path"])]
    with zipfile.ZipFile(archive) as opened:
        octets = opened.read(stored["path"])
        assert opened.testzip() is None and octets in [file.read_bytes() for file in folder.rglob("*.dcm")]


@pytest.mark.slow
def test_sync_by_content_between_archives_finds_what_is_otherwise(
    workdir: Workdir, folder: Path, archive: Path
) -> None:
    (folder / CASE).write_bytes((folder / CASE).read_bytes()[:-1] + b"\x01")
    assert workdir.run("sync", "./archive", "b.zip").status == 0
    assert workdir.run("sync", "b.zip", "a.zip").status == 0, "by UIDs they are the same"
    done = workdir.run("sync", "b.zip", "a.zip", "--trust", "content", "--itemize")
    assert done.status == 3 and [each["path"] for each in done.of_type("outcome") if each["outcome"] == "conflict" and
                                 each["level"] == "instance"] == [CASE], done  # fmt: skip
    assert workdir.run("diff", "b.zip", "a.zip", "--trust", "content").of_type("instance")[0]["change"] == "differs"


def test_rebuild_and_prune_work_on_archives(workdir: Workdir, archive: Path) -> None:
    assert cache_record(workdir.run("cache", "rebuild", "a.zip"))["instances"] == 8
    subprocess.run(["zip", "-q", "-d", archive, CASE], check=True)
    assert cache_record(workdir.run("cache", "prune", "a.zip"))["instances"] == 7
    archive.write_bytes(b"no archive")
    assert workdir.run("cache", "prune").status == 0
    assert workdir.run("cache", "verify", "a.zip").status == 7
    archive.unlink()
    assert cache_record(workdir.run("cache", "prune"))["removed"] is True and caches(workdir) == []


def test_nothing_is_remembered_of_nodes(workdir: Workdir) -> None:
    done = workdir.run("cache", "status", "AET@localhost:104")
    assert done.status == 2 and "no folder and no archive" in done.stderr, done
