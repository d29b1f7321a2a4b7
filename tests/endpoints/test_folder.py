"""A folder as a source and as a destination, with what disks, links and dead processes do to it."""

import errno
import fcntl
import itertools
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from xxhash import xxh3_128

from dcmsync.contract import Expected, Landed
from dcmsync.endpoints.folder.arrivals import Job, Settings, Sink
from dcmsync.endpoints.folder.landing import CANNOT_UNDERSTAND, Landing
from dcmsync.endpoints.folder.scan import examine, present, scan
from dcmsync.errors import LocalTrouble
from dcmsync.wire.part10 import file_meta
from dcmsync.wire.source import Distant, Source
from tests.endpoints.landing_run import EXPLICIT, arrival, data_set, element, place

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "tests.endpoints.landing_run"]
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def file_of(uid: str, **given: object) -> bytes:
    return file_meta(SECONDARY, uid, EXPLICIT) + data_set(uid, **given)  # type: ignore[arg-type]


def put(path: Path, octets: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(octets)
    return path


def run(*command: str, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, preexec_fn=before, capture_output=True, text=True, check=False, cwd=ROOT)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


# scan


def test_scan_finds_whole_instances_and_names_the_others(tmp_path: Path) -> None:
    put(tmp_path / "b/1.dcm", file_of("1.2.3.1"))
    put(tmp_path / "b/2", file_of("1.2.3.2")[:-1])
    put(tmp_path / "a.txt", b"hello, this is no picture")
    put(tmp_path / "empty", b"")
    found = {item.path: item for item in scan(str(tmp_path))}
    assert {path: item.state for path, item in found.items()} == {
        "b/1.dcm": "whole", "b/2": "truncated", "a.txt": "not dicom", "empty": "not dicom",
    }  # fmt: skip
    whole = found["b/1.dcm"]
    assert (whole.sop_instance_uid, whole.series_uid, whole.study_uid) == ("1.2.3.1", "1.2.3", "1.2")
    assert (whole.sop_class_uid, whole.transfer_syntax_uid) == (SECONDARY, EXPLICIT)
    assert whole.size == (tmp_path / "b/1.dcm").stat().st_size
    assert whole.inode == (tmp_path / "b/1.dcm").stat().st_ino
    assert whole.is_instance
    assert not found["b/2"].is_instance


def test_scan_is_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ["c/2", "c/1", "a/9", "b", "d"]:
        put(tmp_path / name, file_of("1.2.3"))
    assert [item.path for item in scan(str(tmp_path))] == ["b", "d", "a/9", "c/1", "c/2"]


def test_scan_survives_what_trees_hold(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    put(root / "good.dcm", file_of("1.2.3.1"))
    (tmp_path / "outside").mkdir()
    put(tmp_path / "outside/x.dcm", file_of("1.2.3.9"))
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "file link").symlink_to(tmp_path / "outside/x.dcm")
    os.mkfifo(root / "fifo")
    put(root / ".dcmsync-0123/1", file_of("1.2.3.7"))
    with open(os.path.join(os.fsencode(root), b"\xff\xfe.dcm"), "wb") as file:
        file.write(file_of("1.2.3.2"))
    skipped: list[tuple[str, str]] = []
    found = list(scan(str(root), skipped=lambda path, why: skipped.append((path, why))))
    assert {item.sop_instance_uid for item in found} == {"1.2.3.1", "1.2.3.2"}
    assert os.fsencode(next(item.path for item in found if item.path != "good.dcm")) == b"\xff\xfe.dcm"
    assert skipped == [(name, "a symbolic link") for name in ["file link", "link", "loop"]]


def test_scan_survives_files_and_folders_that_vanish(tmp_path: Path) -> None:
    for name in ["1", "2", "3", "a/1", "b/1"]:
        put(tmp_path / name, file_of("1.2.3"))
    seen = []
    for item in scan(str(tmp_path)):
        seen.append(item.path)
        if item.path == "1":
            (tmp_path / "2").unlink()
            shutil.rmtree(tmp_path / "a")
    assert seen == ["1", "3", "b/1"]
    assert examine(str(tmp_path), "2") is None


def test_scan_of_no_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such"):
        list(scan(str(tmp_path / "gone")))
    assert present(str(tmp_path / "gone")) == {}


def test_present_is_by_uid_and_only_of_whole_files(tmp_path: Path) -> None:
    put(tmp_path / "a", file_of("1.2.3.1"))
    put(tmp_path / "b", file_of("1.2.3.1", fill=b"y"))
    put(tmp_path / "c", file_of("1.2.3.2")[:-1])
    assert {uid: found.path for uid, found in present(str(tmp_path)).items()} == {"1.2.3.1": "a"}


@pytest.mark.parametrize("octets", [60_000, 65_536, 70_000, 300_000])
def test_scan_of_larger_files_reads_no_pixels(tmp_path: Path, octets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "big", file_of("1.2.3.1", octets=octets))
    read = 0
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        got = real(descriptor, length, offset)
        read += len(got)
        return got

    monkeypatch.setattr(os, "pread", pread)
    assert next(scan(str(tmp_path))).is_instance
    assert read <= 65_536


@pytest.mark.slow
def test_a_sparse_file_of_5_gb_is_walked_in_little_memory(tmp_path: Path) -> None:
    fragment = 1 << 30
    with open(tmp_path / "huge.dcm", "wb") as file:
        file.write(file_meta(SECONDARY, "1.2.3.1", "1.2.840.10008.1.2.4.50"))
        file.write(data_set("1.2.3.1", octets=0)[:-12])
        file.write(bytes.fromhex("e07f10004f420000ffffffff") + bytes.fromhex("feff00e000000000"))
        for _ in range(5):
            file.write(bytes.fromhex("feff00e0") + fragment.to_bytes(4, "little"))
            file.seek(fragment, os.SEEK_CUR)
        file.write(bytes.fromhex("feffdde000000000"))
    tracemalloc.start()
    found = next(scan(str(tmp_path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.state, found.sop_instance_uid) == ("whole", "1.2.3.1")
    assert found.size > 5 << 30
    assert peak < 2_000_000


# landing


class Shore:
    """A destination with the jobs that came for it."""

    def __init__(self, root: Path, **given: object) -> None:
        self.root = root
        self.jobs: list[Job] = []
        self.settings = Settings(
            **{"place": place, "wanted": frozenset(), "hasher": xxh3_128, "completed": self.jobs.append, **given}  # type: ignore[arg-type]
        )
        self.landing = Landing(str(root), self.settings)

    def arrive(self, uid: str, octets: bytes, expected: Expected | None = None, *, piece: int = 1 << 20) -> None:
        sink = self.landing.receive(arrival(uid), expected or Expected())
        assert isinstance(sink, Sink)
        reused = bytearray(piece)
        for start in range(0, len(octets), piece):
            part = octets[start : start + piece]
            reused[: len(part)] = part
            sink.write([memoryview(reused)[: len(part) // 3], memoryview(reused)[len(part) // 3 : len(part)]])
            reused[:] = bytes(piece)
        assert sink.finish() == 0

    def land(self) -> list[Landed]:
        jobs, self.jobs[:] = list(self.jobs), []
        return self.landing.land_many(jobs)

    def bring(self, uid: str, octets: bytes, expected: Expected | None = None) -> Landed:
        self.arrive(uid, octets, expected)
        (landed,) = self.land()
        return landed


MakeShore = Callable[..., Shore]


@pytest.fixture
def make_shore(tmp_path: Path) -> Iterator[MakeShore]:
    shores: list[Shore] = []

    def make(**given: object) -> Shore:
        shores.append(Shore(tmp_path / "dest", **given))
        return shores[-1]

    yield make
    for shore in shores:
        shore.landing.close()


def held(shore: Shore) -> list[str]:
    """The files below a destination that are no staging."""
    return [path for path in files(shore.root) if not path.startswith(".dcmsync-")]


@pytest.mark.parametrize("memory_octets", [1 << 20, 10])
def test_an_instance_lands_whole_under_its_name(make_shore: MakeShore, memory_octets: int) -> None:
    shore = make_shore(memory_octets=memory_octets)
    octets = data_set("1.2.3.4", octets=50_000)
    shore.arrive("1.2.3.4", octets, Expected(study_uid="1.2", series_uid="1.2.3"), piece=1000)
    assert held(shore) == []
    (landed,) = shore.land()
    whole = file_meta(SECONDARY, "1.2.3.4", EXPLICIT) + octets
    path = shore.root / "1.2.3/1.2.3.4.dcm"
    assert path.read_bytes() == whole
    assert (landed.outcome, landed.path, landed.size) == ("stored", "1.2.3/1.2.3.4.dcm", len(whole))
    assert landed.digest == xxh3_128(whole).hexdigest()
    assert (landed.study_uid, landed.series_uid) == ("1.2", "1.2.3")
    assert (landed.inode, landed.mtime_ns) == (path.stat().st_ino, path.stat().st_mtime_ns)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_nlink == 1
    shore.landing.close()
    assert files(shore.root) == ["1.2.3/1.2.3.4.dcm"]
    assert os.listdir(shore.root) == ["1.2.3"]


@pytest.mark.parametrize("memory_octets", [1 << 20, 10])
def test_the_same_is_present_and_other_content_conflicts(make_shore: MakeShore, memory_octets: int) -> None:
    shore = make_shore(memory_octets=memory_octets)
    first = data_set("1.2.3.4", fill=b"x")
    assert shore.bring("1.2.3.4", first).outcome == "stored"
    assert shore.bring("1.2.3.4", first).outcome == "present"
    other = shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y"))
    assert (other.outcome, other.reason) == ("conflict", "content")
    assert (shore.root / "1.2.3/1.2.3.4.dcm").read_bytes().endswith(first)


@pytest.mark.parametrize("memory_octets", [1 << 20, 10])
def test_the_content_is_digested_where_that_is_asked_for(make_shore: MakeShore, memory_octets: int) -> None:
    asked: list[tuple[bytes, str]] = []

    def content(source: Source, transfer_syntax_uid: str, offset: int) -> str:
        octets = source.read_at(offset, 1 << 20) if isinstance(source, Distant) else bytes(source[offset:])
        asked.append((octets, transfer_syntax_uid))
        return "c" * 32

    octets = data_set("1.2.3.4", octets=50_000)
    assert make_shore().bring("1.2.3.4", data_set("1.2.3.4")).content == ""
    shore = make_shore(memory_octets=memory_octets, content=content, force=True)
    assert [shore.bring("1.2.3.4", octets).content for _ in range(2)] == ["c" * 32, "c" * 32]
    assert asked == [(octets, EXPLICIT)] * 2
    assert shore.bring("1.2.3.4", octets[:-1]).content == ""
    assert len(asked) == 2


def test_force_replaces_other_content_but_no_other_instance(make_shore: MakeShore) -> None:
    shore = make_shore(force=True, place=lambda values, arrived: "same.dcm")
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"x")).path == "same.dcm"
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y")).outcome == "stored"
    assert (shore.root / "same.dcm").read_bytes().endswith(data_set("1.2.3.4", fill=b"y"))
    assert shore.bring("1.2.3.5", data_set("1.2.3.5")).path.startswith("same~")
    assert len(held(shore)) == 2


def test_two_instances_of_one_name_both_stay(make_shore: MakeShore) -> None:
    shore = make_shore(place=lambda values, arrived: "s/0001.dcm")
    for uid in ["1.2.3.4", "1.2.3.5", "1.2.3.6"]:
        shore.arrive(uid, data_set(uid))
    landed = shore.land()
    assert [item.outcome for item in landed] == ["stored"] * 3
    assert len({item.path for item in landed}) == 3
    assert all(re.fullmatch(r"s/0001(~[0-9a-f]{16})?\.dcm", item.path) for item in landed)
    assert shore.bring("1.2.3.6", data_set("1.2.3.6")).outcome == "present"


@pytest.mark.parametrize(
    ("octets", "expected", "reason"),
    [
        (data_set("1.2.3.4")[:-1], Expected(), "truncated"),
        (b"", Expected(), "truncated"),
        (bytes(1000), Expected(), "truncated"),
        (data_set("1.2.3.5"), Expected(), "mismatch"),
        (data_set("1.2.3.4"), Expected(study_uid="9"), "mismatch"),
        (data_set("1.2.3.4"), Expected(series_uid="9"), "mismatch"),
    ],
)
def test_what_is_not_as_it_should_be_leaves_nothing(
    make_shore: MakeShore, octets: bytes, expected: Expected, reason: str
) -> None:
    for memory_octets in [1 << 20, 10]:
        shore = make_shore(memory_octets=memory_octets)
        landed = shore.bring("1.2.3.4", octets, expected)
        assert (landed.outcome, landed.reason) == ("failed", reason)
        assert landed.trouble is None
        shore.landing.close()
        assert files(shore.root) == []


def test_discard_leaves_nothing_and_may_be_repeated(make_shore: MakeShore) -> None:
    shore = make_shore(memory_octets=10)
    sink = shore.landing.receive(arrival("1.2.3.4"))
    assert isinstance(sink, Sink)
    sink.write([memoryview(bytes(1000))])
    assert len(files(shore.root)) == 2
    sink.discard("why not")
    sink.discard("again")
    assert [path.rpartition("/")[2] for path in files(shore.root)] == ["lock"]


def test_an_abandoned_job_leaves_nothing(make_shore: MakeShore) -> None:
    shore = make_shore(memory_octets=10)
    shore.arrive("1.2.3.4", data_set("1.2.3.4"))
    shore.landing.abandon(shore.jobs.pop())
    assert [path.rpartition("/")[2] for path in files(shore.root)] == ["lock"]


def test_uids_beyond_reason_are_refused_at_the_door(make_shore: MakeShore) -> None:
    assert make_shore().landing.receive(arrival("1" * 65)) == CANNOT_UNDERSTAND


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/../../x", "", ".", "a\0b"])
def test_a_path_that_leads_out_is_not_taken(make_shore: MakeShore, path: str) -> None:
    shore = make_shore(place=lambda values, arrived: path)
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4"))
    assert (landed.outcome, landed.reason) == ("failed", "path")
    assert held(shore) == []
    assert os.listdir(shore.root.parent) == ["dest"]


def test_nothing_is_written_through_a_link(make_shore: MakeShore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shore = make_shore()
    (shore.root / "1.2.3").symlink_to(outside)
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4"))
    assert landed.outcome == "failed"
    assert "symbolic link" in landed.message
    (shore.root / "1.2.3").unlink()
    (shore.root / "1.2.3").mkdir()
    for target in [outside / "new", outside / "old"]:
        put(outside / "old", b"old")
        (shore.root / "1.2.3/1.2.3.4.dcm").symlink_to(target)
        landed = shore.bring("1.2.3.4", data_set("1.2.3.4"))
        assert (landed.outcome, landed.reason) == ("conflict", "blocked")
        (shore.root / "1.2.3/1.2.3.4.dcm").unlink()
    assert files(outside) == ["old"]
    assert (outside / "old").read_bytes() == b"old"


@pytest.mark.slow
def test_a_folder_that_turns_into_a_link_meanwhile_leads_nowhere(make_shore: MakeShore, tmp_path: Path) -> None:
    outside, name = tmp_path / "outside", tmp_path / "dest/1.2.3"
    outside.mkdir()
    shore = make_shore()
    name.mkdir()
    ended = Event()

    def swap() -> None:
        for number in itertools.count():
            with suppress(OSError):  # the folder is made anew meanwhile
                name.rename(tmp_path / f"moved{number}")
            with suppress(OSError):
                name.symlink_to(outside)
            with suppress(OSError):
                name.unlink()
            if ended.is_set():
                return

    swapper = Thread(target=swap)
    swapper.start()
    outcomes = set()
    for index in range(1000):
        outcomes.add(shore.bring(f"1.2.3.{index}", data_set(f"1.2.3.{index}")).outcome)
    ended.set()
    swapper.join()
    assert os.listdir(outside) == []
    assert outcomes <= {"stored", "failed"}


def test_an_odd_encoding_is_stored_as_it_came_and_noted(make_shore: MakeShore) -> None:
    implicit = bytes.fromhex("0800180008000000") + b"1.2.3.4\0" + bytes.fromhex("20000e0006000000") + b"1.2.3\0"
    landed = make_shore().bring("1.2.3.4", implicit)
    assert landed.outcome == "stored"
    assert "1.2.840.10008.1.2," in landed.message


def test_a_folder_or_fifo_under_the_name_is_a_conflict(make_shore: MakeShore) -> None:
    shore = make_shore(force=True)
    (shore.root / "1.2.3/1.2.3.4.dcm").mkdir(parents=True)
    assert shore.bring("1.2.3.4", data_set("1.2.3.4")).reason == "blocked"
    os.mkfifo(shore.root / "1.2.3/1.2.3.5.dcm")
    assert shore.bring("1.2.3.5", data_set("1.2.3.5")).reason == "blocked"


def test_a_broken_file_under_the_name_is_a_conflict_unless_forced(make_shore: MakeShore) -> None:
    shore = make_shore()
    path = put(shore.root / "1.2.3/1.2.3.4.dcm", b"the user's own notes")
    assert shore.bring("1.2.3.4", data_set("1.2.3.4")).reason == "broken"
    assert shore.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "conflict"
    assert make_shore(force=True).bring("1.2.3.4", data_set("1.2.3.4")).outcome == "stored"
    assert path.read_bytes() == file_of("1.2.3.4")


def test_a_truncated_file_of_the_same_instance_is_replaced(make_shore: MakeShore) -> None:
    shore = make_shore()
    path = put(shore.root / "1.2.3/1.2.3.4.dcm", file_of("1.2.3.4")[:-1])
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4"))
    assert (landed.outcome, landed.reason) == ("stored", "replaced")
    assert path.read_bytes() == file_of("1.2.3.4")


def test_a_truncated_file_of_another_instance_stays(make_shore: MakeShore) -> None:
    shore = make_shore()
    path = put(shore.root / "1.2.3/1.2.3.4.dcm", file_of("1.2.3.9")[:-1])
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    assert path.read_bytes() == file_of("1.2.3.9")[:-1]


def test_a_file_system_without_links_never_replaces_either(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    shore = make_shore()
    assert shore.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "stored"
    assert shore.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "present"
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y")).outcome == "conflict"
    shore.landing.close()
    assert files(shore.root) == ["1.2.3/1.2.3.4.dcm"]


@pytest.mark.parametrize("call", ["writev", "fsync", "link", "mkdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_says_no_leaves_nothing_partial(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    for nth in range(1, 4):
        shore = make_shore()
        real, calls = getattr(os, call), itertools.count(1)

        def broken(*given: object, real=real, calls=calls, nth=nth, **options: object) -> object:  # type: ignore[no-untyped-def]
            if next(calls) == nth:
                raise OSError(number, os.strerror(number))
            return real(*given, **options)

        uids = [f"1.2.{nth}.{index}" for index in range(3)]
        for uid in uids:
            shore.arrive(uid, data_set(uid, series=uid))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, broken)
            landed = shore.land()
        failed = [item for item in landed if item.outcome == "failed"]
        assert failed
        assert all(item.trouble is not None and item.reason == "local" for item in failed)
        assert all("1.2" not in item.message for item in failed)
        assert {item.state for item in scan(str(shore.root))} <= {"whole"}
        for uid in uids:
            shore.arrive(uid, data_set(uid, series=uid))
        assert {item.outcome for item in shore.land()} <= {"stored", "present"}
        shore.landing.close()
        assert len(files(shore.root)) == 3
        shutil.rmtree(shore.root)


def test_a_full_disk_while_octets_arrive_is_local_trouble(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shore = make_shore(memory_octets=10)
    sink = shore.landing.receive(arrival("1.2.3.4"))
    assert isinstance(sink, Sink)
    sink.write([memoryview(bytes(100))])
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", lambda fd, pieces: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(LocalTrouble, match="no space left"):
            sink.write([memoryview(bytes(100))])
    sink.discard("no space")
    assert [path.rpartition("/")[2] for path in files(shore.root)] == ["lock"]


def test_short_writes_are_continued(make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch) -> None:
    dice, real = random.Random(4), os.writev

    def writev(descriptor: int, pieces: list[memoryview]) -> int:
        return os.write(descriptor, b"".join(pieces)[: dice.randrange(1, 700)])

    monkeypatch.setattr(os, "writev", writev)
    for memory_octets in [1 << 20, 10]:
        shore = make_shore(memory_octets=memory_octets)
        octets = data_set("1.2.3.4", octets=20_000)
        assert shore.bring("1.2.3.4", octets).outcome in {"stored", "present"}
        assert (shore.root / "1.2.3/1.2.3.4.dcm").read_bytes().endswith(octets)
    monkeypatch.setattr(os, "writev", real)


def test_more_pieces_than_the_kernel_takes_at_once(make_shore: MakeShore) -> None:
    shore = make_shore(memory_octets=10)
    octets = data_set("1.2.3.4", octets=9000)
    sink = shore.landing.receive(arrival("1.2.3.4"))
    assert isinstance(sink, Sink)
    sink.write([memoryview(octets)[index : index + 3] for index in range(0, len(octets), 3)])
    sink.finish()
    assert shore.land()[0].digest == xxh3_128(file_meta(SECONDARY, "1.2.3.4", EXPLICIT) + octets).hexdigest()


def test_threads_land_together(make_shore: MakeShore) -> None:
    shore = make_shore()
    for index in range(200):
        shore.arrive(f"1.2.3.{index % 100}", data_set(f"1.2.3.{index % 100}", series=f"1.2.{index % 7}"))
    batches = [shore.jobs[start : start + 8] for start in range(0, 200, 8)]
    with ThreadPoolExecutor(4) as pool:
        landed = [item for batch in pool.map(shore.landing.land_many, batches) for item in batch]
    outcomes = [item.outcome for item in landed]
    assert set(outcomes) == {"stored", "present"} or outcomes.count("stored") >= 100
    assert len({item.path for item in landed}) == len(held(shore))
    assert all(item.state == "whole" for item in scan(str(shore.root)))


# leftovers, kills, order


def test_leftovers_of_the_dead_go_and_the_living_keep_theirs(make_shore: MakeShore, tmp_path: Path) -> None:
    living = make_shore(memory_octets=10)
    living.arrive("1.2.3.4", data_set("1.2.3.4"))
    dead = living.root / ".dcmsync-dead"
    put(dead / "7", b"partial")
    put(dead / "lock", b"")
    (living.root / ".dcmsync-bare").mkdir()
    (living.root / ".dcmsync-link").symlink_to(tmp_path)
    put(living.root / ".dcmsync-file", b"not ours")
    second = make_shore()
    assert not dead.exists()
    assert not (living.root / ".dcmsync-bare").exists()
    assert (living.root / ".dcmsync-file").exists()
    assert living.land()[0].outcome == "stored"
    second.landing.close()
    second.landing.close()


def test_two_processes_may_write_one_destination(make_shore: MakeShore) -> None:
    first, second = make_shore(), make_shore()
    assert first.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "stored"
    assert second.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "present"


def test_leftovers_are_found_without_the_lock_of_a_missing_file_system_feature(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    first = make_shore()
    make_shore()
    assert first.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "stored"


@pytest.mark.slow
def test_a_limit_on_file_size_is_local_trouble(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    for memory in ["1048576", "1000"]:
        done = run(*RUN, str(tmp_path / memory), "2", "400000", memory, before=limit)
        assert done.returncode == 7, done.stderr
        assert "larger than the file system" in done.stdout
        assert files(tmp_path / memory) == []


def trace(log: Path, *command: str, inject: str = "") -> subprocess.CompletedProcess[str]:
    calls = "openat,write,writev,utimensat,fsync,linkat,rename,renameat,unlinkat,mkdirat,rmdir"
    options = ["-e", f"inject={inject}"] if inject else []
    log_options = ["-y", "-f", "-s", "200", "-o", str(log)]
    return run("strace", *log_options, "-e", f"trace={calls}", *options, *command)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["1048576", "100"])
def test_order_of_system_calls(tmp_path: Path, memory: str, require: Callable[[str], str]) -> None:
    require("strace")
    done = trace(tmp_path / "log", *RUN, str(tmp_path / "dest"), "3", "5000", memory)
    assert done.returncode == 0, done.stderr
    calls = [line.split(None, 1)[1] for line in (tmp_path / "log").read_text().splitlines()]
    calls = [call for call in calls if "/dest" in call or call.startswith("write(1<")]

    def first(pattern: str, begin: int = 0) -> int:
        return next(index for index, call in enumerate(calls) if index >= begin and re.search(pattern, call))

    dated = [index for index, call in enumerate(calls) if re.search(r"utimensat\(.*/\.dcmsync-[0-9a-f]+/", call)]
    synced = first(r"fsync\(.*/\.dcmsync-[0-9a-f]+/\d")
    assert len(dated) == 3 and dated[1] < synced, "both files of the first batch are dated before one is synced"
    for number in range(3):
        said = first(rf'write\(1<.*"stored 1\.2\.3/1\.2\.3\.{number}\.dcm')
        linked = first(rf'linkat\(.*"{number + 1}", .*/dest/1\.2\.3>, "1\.2\.3\.{number}\.dcm"')
        written = max(
            i for i, call in enumerate(calls) if re.search(rf"writev\(.*/\.dcmsync-[0-9a-f]+/{number + 1}>", call)
        )
        synced = first(rf"fsync\(.*/\.dcmsync-[0-9a-f]+/{number + 1}>\) += 0")
        folder = first(r"fsync\(.*/dest/1\.2\.3>\) += 0", linked)
        root = first(r"fsync\(.*/dest>\) += 0", first(r"mkdirat\(.*1\.2\.3"))
        assert written < synced < linked < folder < said
        assert root < said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_at_any_call_leaves_no_partial_and_the_next_run_completes(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    require("strace")
    plain = tmp_path / "plain"
    trace(tmp_path / "log", *RUN, str(plain), "3", "5000", "3000")
    lines = (tmp_path / "log").read_text().splitlines()
    killed = 0
    for call in ["writev", "fsync", "linkat", "mkdirat", "unlinkat", "rmdir"]:
        count = sum(f" {call}(" in line for line in lines)
        for nth in range(1, count + 1):
            dest = tmp_path / f"{call}-{nth}"
            done = trace(
                tmp_path / "log", *RUN, str(dest), "3", "5000", "3000", inject=f"{call}:signal=SIGKILL:when={nth}"
            )
            killed += done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
            reported = re.findall(r"stored (\S+)", done.stdout)
            if dest.exists():
                states = {found.path: found.state for found in scan(str(dest))}
                assert set(states.values()) <= {"whole"}
                assert set(reported) <= set(states)
            again = subprocess.run(
                [*RUN, str(dest), "3", "5000", "3000"], capture_output=True, text=True, check=False, cwd=ROOT
            )
            assert again.returncode == 0, again.stderr
            assert files(dest) == files(plain)
    assert killed > 10


def test_the_first_element_of_a_data_set_may_be_cut(tmp_path: Path) -> None:
    put(tmp_path / "x", file_meta(SECONDARY, "1.2.3.4", EXPLICIT) + element(0x00080018, "UI", b"1.2.3.4")[:5])
    assert next(scan(str(tmp_path))).state == "truncated"
