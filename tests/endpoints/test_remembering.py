"""What lands in a folder is remembered: with its digests, once it is durable, and before anybody hears of it."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from dcmsync.cache.digest import content_of, hasher, read_whole
from dcmsync.cache.store import Store, open_store
from dcmsync.contract import Holding, Landed
from dcmsync.endpoints.folder.arrivals import Job, Settings, Sink
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.endpoints.folder.stamp import NO_TIME_NS
from dcmsync.endpoints.folder.stock import Stock, has_rotted, take_stock
from dcmsync.errors import LocalTrouble
from tests.endpoints.landing_run import EXPLICIT, SECONDARY, arrival, data_set, place

UID = "1.2.3.4"


def settings(jobs: list[Job], **more: object) -> Settings:
    return Settings(
        place=place, wanted=frozenset(), hasher=hasher, content=content_of, completed=jobs.append,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def land(root: Path, octets: bytes, **more: object) -> Landed:
    jobs: list[Job] = []
    with Landing(str(root), settings(jobs, **more)) as landing:
        sink = landing.receive(arrival(UID))
        assert isinstance(sink, Sink)
        sink.write([memoryview(octets)])
        sink.finish()
        (landed,) = landing.land_many(jobs)
    return landed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def opened(root: Path) -> Store:
    return open_store(str(root), named=None, folder=None, warn=pytest.fail)


def test_what_landed_need_not_be_read_again(root: Path) -> None:
    catalogue = opened(root)
    landed = land(root, data_set(UID), remember=catalogue.remember)
    assert take_stock(str(root), catalogue) == Stock(files=1)
    (known,) = catalogue.holdings()
    whole = (root / landed.path).read_bytes()
    assert (known.path, known.sop_class_uid, known.transfer_syntax_uid) == (landed.path, SECONDARY, EXPLICIT)
    assert (known.study_uid, known.series_uid, known.sop_instance_uid) == ("1.2", "1.2.3", UID)
    assert known.digest == landed.digest == hasher(whole).hexdigest()
    assert known.content == landed.content
    assert whole[known.data_set_offset :] == data_set(UID)
    assert known.read_ns
    catalogue.close()


def test_what_is_remembered_is_what_reading_it_would_tell(root: Path) -> None:
    catalogue, fresh = opened(root), opened(root)
    land(root, data_set(UID), remember=catalogue.remember)
    take_stock(str(root), fresh)
    (known,), (read,) = catalogue.holdings(), fresh.holdings()
    told = {name: getattr(read, name) for name in read.__struct_fields__}
    assert known == Holding(**{**told, "digest": known.digest, "content": known.content, "read_ns": known.read_ns})
    catalogue.close()
    fresh.close()


def test_a_change_in_the_same_moment_shows(root: Path) -> None:
    """Whoever edits a file as soon as it has its name, within a tick of the clock, leaves another time."""
    catalogue = opened(root)
    landed = land(root, data_set(UID), remember=catalogue.remember)
    with (root / landed.path).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"y")
    assert take_stock(str(root), catalogue).read == 1
    catalogue.close()


def test_rows_are_written_when_files_are_durable_and_before_verdicts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync = os.fsync

    def syncing(descriptor: int) -> None:
        fsync(descriptor)
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")

    def remember(holdings: Iterable[Holding]) -> None:
        events.append(f"{len(list(holdings))} remembered")

    monkeypatch.setattr(os, "fsync", syncing)
    land(root, data_set(UID), remember=remember)
    events.append("verdict")
    assert events == ["file", "folder", "folder", "1 remembered", "verdict"]


def test_what_did_not_land_is_not_remembered(root: Path) -> None:
    said: list[Holding] = []
    (root / "1.2.3").mkdir()
    (root / "1.2.3" / f"{UID}.dcm").write_bytes(b"something else")
    assert land(root, data_set(UID), remember=said.extend).outcome == "conflict"
    assert land(root, data_set(UID)[:-3], remember=said.extend).outcome == "failed"
    assert said == []


def test_a_folder_that_cannot_be_made_durable_is_not_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Holding] = []
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    assert land(root, data_set(UID), remember=said.extend).outcome == "failed"
    assert said == []


def test_what_rotted_is_replaced_without_force(root: Path) -> None:
    catalogue = opened(root)
    landed = land(root, data_set(UID), remember=catalogue.remember)
    path = root / landed.path
    (known,) = catalogue.holdings()
    path.write_bytes(path.read_bytes()[:-1] + b"y")
    os.utime(path, ns=(known.stamp.mtime_ns, known.stamp.mtime_ns))
    may_replace = has_rotted(str(root), catalogue)
    assert land(root, data_set(UID), remember=catalogue.remember, may_replace=may_replace).outcome == "conflict"
    take_stock(str(root), catalogue, read_whole=read_whole)
    assert list(catalogue.holdings()) == []
    again = land(root, data_set(UID), remember=catalogue.remember, may_replace=may_replace)
    assert (again.outcome, again.reason) == ("stored", "replaced")
    assert "rotted" in again.message
    assert [each.digest for each in catalogue.holdings()] == [landed.digest]
    catalogue.close()


def test_what_the_user_put_there_meanwhile_is_not_replaced(root: Path) -> None:
    catalogue = opened(root)
    landed = land(root, data_set(UID), remember=catalogue.remember)
    (known,) = catalogue.holdings()
    catalogue.remember([Holding(**{**{n: getattr(known, n) for n in known.__struct_fields__}, "state": "rotten"})])
    (root / landed.path).write_bytes((root / landed.path).read_bytes()[:-1] + b"z")
    again = land(root, data_set(UID), may_replace=has_rotted(str(root), catalogue))
    assert again.outcome == "conflict"
    catalogue.close()


def test_a_file_system_that_counts_seconds_is_not_believed_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Holding] = []
    utime = os.utime

    def coarse(descriptor: int, *, ns: tuple[int, int]) -> None:
        utime(descriptor, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

    monkeypatch.setattr(os, "utime", coarse)
    land(root, data_set(UID), remember=said.extend)
    assert [each.stamp.mtime_ns for each in said] == [NO_TIME_NS]


def test_trouble_of_the_cache_is_no_trouble_of_the_landing(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    catalogue = open_store(str(root), named=str(tmp_path / "cache"), folder=None, warn=said.append)
    other = open_store(str(tmp_path), named=str(tmp_path / "cache"), folder=None, warn=pytest.fail)
    list(catalogue.stamps())
    list(other.stamps())
    assert land(root, data_set(UID), remember=catalogue.remember).outcome == "stored"
    assert len(said) == 1
    with pytest.raises(LocalTrouble):
        list(catalogue.holdings())
    take_stock(str(root), catalogue)
    assert len(list(catalogue.holdings())) == 1
    catalogue.close()
    other.close()
