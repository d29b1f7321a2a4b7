"""Taking stock of a folder: every file that changed is read, no other one is, and nothing that is no file is opened."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from dcmsync.cache.digest import hasher, read_whole
from dcmsync.cache.store import Store, open_store
from dcmsync.contract import Holding, Stamp
from dcmsync.endpoints.folder import examination, readers, stock
from dcmsync.endpoints.folder.examination import read_again
from dcmsync.endpoints.folder.stamp import NO_TIME_NS, TICK_NS, believable, stamp_from
from dcmsync.endpoints.folder.stock import Stock, has_rotted, take_stock
from dcmsync.endpoints.folder.tree import differences, forget_gone, tree
from dcmsync.errors import LocalTrouble
from tests import samples

OLD_NS = 1_600_000_000_123_456_789


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two studies of two series of three instances, all of them old."""
    path = tmp_path / "root"
    path.mkdir()
    samples.make_series(path, studies=2, series=2, instances=3, rows=8, columns=8)
    for file in path.rglob("*.dcm"):
        os.utime(file, ns=(OLD_NS, OLD_NS))
    return path


@pytest.fixture
def catalogue(root: Path) -> Iterator[Store]:
    store = open_store(str(root), named=None, folder=None, warn=pytest.fail)
    yield store
    store.close()


def known(catalogue: Store) -> dict[str, Holding]:
    return {each.path: each for each in [*catalogue.holdings(), *catalogue.others()]}


def first(root: Path) -> Path:
    return min(root.rglob("*.dcm"))


def aged(path: Path) -> None:
    os.utime(path, ns=(OLD_NS, OLD_NS + 5))


def test_the_first_time_everything_is_read_and_then_nothing(root: Path, catalogue: Store) -> None:
    assert take_stock(str(root), catalogue) == Stock(files=12, read=12)
    assert take_stock(str(root), catalogue) == Stock(files=12)
    assert {each.state for each in known(catalogue).values()} == {"whole"}


def test_what_is_remembered_is_what_pydicom_reads(root: Path, catalogue: Store) -> None:
    take_stock(str(root), catalogue)
    for path, holding in known(catalogue).items():
        read = pydicom.dcmread(root / path, stop_before_pixels=True)
        assert holding.sop_instance_uid == read.SOPInstanceUID
        assert (holding.study_uid, holding.series_uid) == (read.StudyInstanceUID, read.SeriesInstanceUID)
        assert holding.sop_class_uid == read.SOPClassUID
        assert holding.transfer_syntax_uid == read.file_meta.TransferSyntaxUID
        assert holding.attributes["InstanceNumber"] == read.InstanceNumber
        assert holding.attributes["PatientName"] == str(read.PatientName)
        assert holding.attributes["ImageType"] == list(read.ImageType)
        assert holding.stamp == stamp_from(os.stat(root / path))


def test_every_change_is_noticed_by_its_stamp(root: Path, catalogue: Store) -> None:
    take_stock(str(root), catalogue)
    paths = sorted(root.rglob("*.dcm"))
    octets = paths[0].read_bytes()
    paths[0].write_bytes(octets[:-10])  # cut
    aged(paths[0])
    paths[1].unlink()
    shutil.copy(paths[3], paths[2])  # overwritten
    aged(paths[2])
    (new := root / "new.dcm").write_bytes(octets)
    aged(new)
    os.utime(paths[4], ns=(OLD_NS, OLD_NS + 1))  # touched
    paths[5].rename(root / "moved.dcm")
    (other := root / "other.dcm").write_bytes(paths[6].read_bytes())
    os.utime(other, ns=(OLD_NS, OLD_NS))
    other.replace(paths[6])  # the same size and time, another inode
    assert take_stock(str(root), catalogue) == Stock(files=12, read=6, gone=2)
    fresh = open_store(str(root), named=None, folder=None, warn=pytest.fail)
    take_stock(str(root), fresh)
    assert known(catalogue) == known(fresh)
    fresh.close()


def test_a_forged_change_is_found_by_reading_all_of_it(root: Path, catalogue: Store) -> None:
    take_stock(str(root), catalogue, read_whole=read_whole)
    path = first(root)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(path, ns=(OLD_NS, OLD_NS))
    name = path.relative_to(root).as_posix()
    before = known(catalogue)[name]
    assert take_stock(str(root), catalogue) == Stock(files=12)
    assert not has_rotted(str(root), catalogue)(name, before.sop_instance_uid)
    take_stock(str(root), catalogue, read_whole=read_whole)
    rotten = known(catalogue)[name]
    assert (rotten.state, rotten.digest, rotten.stamp) == ("rotten", before.digest, before.stamp)
    assert has_rotted(str(root), catalogue)(name, before.sop_instance_uid)
    assert len(list(catalogue.holdings())) == 11
    take_stock(str(root), catalogue, read_whole=read_whole)
    assert known(catalogue)[name].state == "rotten"
    path.write_bytes(good)
    os.utime(path, ns=(OLD_NS, OLD_NS))
    take_stock(str(root), catalogue, read_whole=read_whole)
    assert known(catalogue)[name].state == "whole"


def test_a_rotten_file_that_somebody_replaced_is_no_longer_known_to_have_rotted(root: Path, catalogue: Store) -> None:
    take_stock(str(root), catalogue, read_whole=read_whole)
    path = first(root)
    name = path.relative_to(root).as_posix()
    holding = known(catalogue)[name]
    catalogue.remember([Holding(**{**_fields(holding), "state": "rotten"})])
    assert has_rotted(str(root), catalogue)(name, holding.sop_instance_uid)
    aged(path)
    assert not has_rotted(str(root), catalogue)(name, holding.sop_instance_uid)
    path.unlink()
    assert not has_rotted(str(root), catalogue)(name, holding.sop_instance_uid)


def _fields(holding: Holding) -> dict[str, object]:
    return {name: getattr(holding, name) for name in holding.__struct_fields__}


def test_digests_are_those_of_the_octets(root: Path, catalogue: Store) -> None:
    take_stock(str(root), catalogue, read_whole=read_whole)
    for path, holding in known(catalogue).items():
        assert holding.digest == hasher((root / path).read_bytes()).hexdigest()
        assert holding.read_ns
        assert read_again(str(root), path, holding, read_whole) is not None


def test_digests_outlast_a_stock_that_only_looks(root: Path, catalogue: Store) -> None:
    take_stock(str(root), catalogue, read_whole=read_whole)
    before = known(catalogue)
    take_stock(str(root), catalogue)
    assert known(catalogue) == before


def test_a_file_that_may_change_within_the_tick_is_read_once_more(root: Path, catalogue: Store) -> None:
    path = root / "young.dcm"
    path.write_bytes(first(root).read_bytes())
    take_stock(str(root), catalogue)
    assert known(catalogue)["young.dcm"].stamp.mtime_ns == NO_TIME_NS
    assert take_stock(str(root), catalogue).read == 1
    aged(path)
    assert take_stock(str(root), catalogue).read == 1
    assert take_stock(str(root), catalogue).read == 0


@pytest.mark.parametrize(
    "mtime_ns, is_believed",
    [
        (10_000_000_001, False),
        (10_000_000_001 - TICK_NS + 1, False),
        (9_900_000_001, True),
        (9_000_000_000, False),  # a file system that counts seconds
        (7_000_000_000, True),
        (11_000_000_001, False),  # a clock that is ahead
    ],
)
def test_how_old_a_file_must_be(mtime_ns: int, is_believed: bool) -> None:
    holding = Holding(path="x", stamp=Stamp(size=1, mtime_ns=mtime_ns, device=1, inode=1), state="whole")
    assert (believable(holding, 10_000_000_001) == holding) is is_believed


def test_what_is_no_regular_file_is_never_opened(root: Path, catalogue: Store, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    (elsewhere := tmp_path / "elsewhere").mkdir()
    shutil.copy(first(root), elsewhere / "x.dcm")
    os.mkfifo(root / "fifo")
    (root / "link.dcm").symlink_to(elsewhere / "x.dcm")
    (root / "folder").symlink_to(elsewhere)
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to("nowhere")
    (root / ".dcmsync-0123456789abcdef").mkdir()
    shutil.copy(first(root), root / ".dcmsync-0123456789abcdef" / "1")
    with socket.socket(socket.AF_UNIX) as plug:
        os.chdir(root)
        plug.bind("socket")
        stock_taken = take_stock(str(root), catalogue, skipped=lambda path, why: told.append((path, why)))
    assert stock_taken == Stock(files=12, read=12)
    assert sorted(path for path, _ in told) == ["dangling", "folder", "link.dcm", "loop"]


def test_a_file_that_became_something_else_is_forgotten(root: Path, catalogue: Store, tmp_path: Path) -> None:
    take_stock(str(root), catalogue)
    paths = sorted(root.rglob("*.dcm"))
    paths[0].rename(tmp_path / "x.dcm")
    paths[0].symlink_to(tmp_path / "x.dcm")
    paths[1].unlink()
    paths[1].mkdir()
    paths[2].unlink()
    os.mkfifo(paths[2])
    assert take_stock(str(root), catalogue) == Stock(files=9, gone=3)


def test_names_that_are_no_utf_8(root: Path, catalogue: Store) -> None:
    octets = first(root).read_bytes()
    names = [b"\xff.dcm", "é.dcm".encode(), "\U0001f600.dcm".encode(), b"\x80", b"a\nb", b"a-b", b"a0"]
    for name in names:
        (path := Path(os.fsdecode(os.fsencode(root) + b"/" + name))).write_bytes(octets)
        aged(path)
    (inner := root / "a").mkdir()
    (inner / "x").write_bytes(octets)
    aged(inner / "x")
    assert take_stock(str(root), catalogue).read == 12 + 8
    assert take_stock(str(root), catalogue) == Stock(files=12 + 8)
    listed = [path for path, _ in tree(str(root))]
    assert listed == sorted(listed, key=os.fsencode)
    assert {os.fsencode(path) for path in listed} >= set(names)


def test_a_folder_that_is_not_there_holds_nothing(root: Path, catalogue: Store) -> None:
    take_stock(str(root), catalogue)
    shutil.rmtree(root)
    assert take_stock(str(root), catalogue) == Stock(gone=12)
    assert known(catalogue) == {}


def test_what_is_no_folder_is_trouble(tmp_path: Path, catalogue: Store) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalTrouble, match="not a directory"):
        take_stock(str(tmp_path / "file"), catalogue)


def test_no_dicom_and_cut_files_are_known_for_what_they_are(root: Path, catalogue: Store) -> None:
    (root / "notes.txt").write_text("nothing")
    (root / "empty").write_bytes(b"")
    octets = first(root).read_bytes()
    (root / "cut.dcm").write_bytes(octets[:-10])
    for name in ("notes.txt", "empty", "cut.dcm"):
        aged(root / name)
    take_stock(str(root), catalogue)
    found = known(catalogue)
    assert found["notes.txt"].state == found["empty"].state == "not dicom"
    assert found["cut.dcm"].state == "truncated"
    assert take_stock(str(root), catalogue).read == 0


def test_a_file_that_vanishes_before_it_is_read(
    root: Path, catalogue: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanishing(root: str, path: str) -> Holding | None:
        os.unlink(os.path.join(root, path))
        return examination.examine(root, path)

    monkeypatch.setattr(stock, "examine", vanishing)
    assert take_stock(str(root), catalogue) == Stock(files=12)
    assert known(catalogue) == {}


def test_a_file_that_cannot_be_read_is_told_and_not_believed(
    root: Path, catalogue: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(root: str, path: str) -> Holding | None:
        raise PermissionError(13, "Permission denied")

    take_stock(str(root), catalogue)
    aged(first(root))
    told: list[str] = []
    monkeypatch.setattr(stock, "examine", failing)
    take_stock(str(root), catalogue, skipped=lambda path, why: told.append(why))
    assert told == ["permission denied"]
    assert len(known(catalogue)) == 11


def test_a_catalogue_that_loses_everything_is_filled_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    store = open_store(str(root), named=str(tmp_path / "cache"), folder=None, warn=said.append)
    take_stock(str(root), store)
    (root / "new.dcm").write_bytes(first(root).read_bytes())
    aged(root / "new.dcm")

    def breaking(root: str, path: str) -> Holding | None:
        if not said:  # another process takes the file for another place
            other = open_store(str(tmp_path), named=str(tmp_path / "cache"), folder=None, warn=pytest.fail)
            list(other.stamps())
            other.close()
        return examination.examine(root, path)

    monkeypatch.setattr(stock, "examine", breaking)
    assert take_stock(str(root), store) == Stock(files=13, read=12)  # of the last round
    assert len(known(store)) == 13
    assert not store.has_lost
    assert len(said) == 1
    store.close()


def test_forgetting_reads_nothing(root: Path, catalogue: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    take_stock(str(root), catalogue)
    first(root).unlink()
    (root / "new").write_bytes(b"")
    monkeypatch.setattr(stock, "examine", None)
    forget_gone(str(root), catalogue)
    assert len(known(catalogue)) == 11


def test_differences_are_counted_without_reading(
    root: Path, catalogue: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_stock(str(root), catalogue)
    assert differences(str(root), catalogue) == {"same": 12, "changed": 0, "new": 0, "gone": 0}
    one, two, three, *_ = sorted(root.rglob("*.dcm"))
    aged(one)
    two.unlink()
    three.rename(root / "elsewhere")
    monkeypatch.setattr(os, "open", _only_folders(os.open))
    assert differences(str(root), catalogue) == {"same": 9, "changed": 1, "new": 1, "gone": 2}
    assert take_stock(str(root), catalogue, skipped=lambda path, why: None).gone == 2


def _only_folders(open_it: Callable[..., int]) -> Callable[..., int]:
    def opening(path: str, flags: int, *rest: int, **more: int) -> int:
        if not flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return open_it(path, flags, *rest, **more)

    return opening


@pytest.fixture
def by_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few files are many, and there are two cores."""
    monkeypatch.setattr(stock, "FEW_FILES", 1)
    monkeypatch.setattr(stock, "cores", lambda: 2)
    monkeypatch.setattr(readers, "FILES_AT_ONCE", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("by_readers")
def test_readers_find_what_we_find(root: Path, catalogue: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Path(os.fsdecode(os.fsencode(root) + b"/\xff.dcm"))
    odd.write_bytes(first(root).read_bytes())
    (root / "notes").write_text("nothing")
    for path in (odd, root / "notes"):
        aged(path)
    fresh = open_store(str(root), named=None, folder=None, warn=pytest.fail)
    with monkeypatch.context() as patched:
        patched.setattr(stock, "FEW_FILES", 1000)
        take_stock(str(root), fresh)
    monkeypatch.setattr(readers, "examine", None)  # nothing is left to us
    assert take_stock(str(root), catalogue) == Stock(files=14, read=14)
    assert known(catalogue) == known(fresh)
    fresh.close()


@pytest.mark.slow
@pytest.mark.usefixtures("by_readers")
@pytest.mark.parametrize("main", ["raise SystemExit", "print('x' * 99)", "1 / 0"])
def test_readers_that_do_not_work_are_done_without(
    root: Path, catalogue: Store, monkeypatch: pytest.MonkeyPatch, main: str
) -> None:
    monkeypatch.setattr(readers, "_MAIN", main)
    assert take_stock(str(root), catalogue) == Stock(files=12, read=12)


@pytest.mark.usefixtures("by_readers")
def test_readers_that_cannot_be_started_are_done_without(
    root: Path, catalogue: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert take_stock(str(root), catalogue) == Stock(files=12, read=12)


@pytest.mark.slow
def test_a_reader_ends_when_its_parent_was_killed(root: Path) -> None:
    code = (
        "import sys, time; from dcmsync.endpoints.folder import readers\n"
        "reader = readers._Reader(sys.argv[1]); reader.ask(['x'])\n"
        "print(reader._process.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    reader = int(parent.stdout.readline())
    os.kill(reader, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _runs(reader):
        pass
    assert not _runs(reader)


def _runs(process: int) -> bool:
    """Whether it still runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
