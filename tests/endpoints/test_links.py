"""Files of this machine landing in a folder: copied, linked, pointed to, and removed from where they came."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xxhash import xxh3_128

from dcmsync.contract import Arrival, Expected, Landed, Origin
from dcmsync.endpoints.folder import adoption
from dcmsync.endpoints.folder.arrivals import Job, Settings, Sink, Transfer
from dcmsync.endpoints.folder.departure import remove
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.endpoints.folder.stamp import stamp_from
from dcmsync.errors import LocalTrouble
from dcmsync.wire.part10 import file_meta
from tests.endpoints.landing_run import EXPLICIT, SECONDARY, arrival, data_set, place

UID = "1.2.3.4"
LANDED = "1.2.3/1.2.3.4.dcm"
SMALL, LARGE = 5_000, 300_000
WAYS: tuple[Transfer, ...] = ("copy", "link", "symlink")


def make_file(path: Path, *, uid: str = UID, octets: int = SMALL, fill: bytes = b"x", cut: int = 0) -> Path:
    """A file whose preamble and group 0002 are not as we would write them."""
    head = bytearray(file_meta(SECONDARY, uid, EXPLICIT))
    head[:10] = b"MZ someone"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = bytes(head) + data_set(uid, octets=octets, fill=fill)
    path.write_bytes(whole[: len(whole) - cut])
    return path


def origin_of(path: Path) -> Origin:
    head = path.read_bytes()[: len(file_meta(SECONDARY, UID, EXPLICIT))]
    return Origin(path=str(path), descriptor=-1, stamp=stamp_from(path.stat()), head=head)


class Dock:
    """A destination that takes files of this machine."""

    def __init__(self, root: Path, transfer: Transfer, *, force: bool = False) -> None:
        self.root = root
        self._jobs: list[Job] = []
        settings = Settings(
            place=place, wanted=frozenset(), hasher=xxh3_128, completed=self._jobs.append, force=force,
            transfer=transfer,
        )  # fmt: skip
        self.landing = Landing(str(root), settings)

    def offer(self, origin: Origin, *, uid: str = UID, expected: Expected | None = None) -> None:
        offered = Arrival(
            sop_class_uid=SECONDARY, sop_instance_uid=uid, transfer_syntax_uid=EXPLICIT, head=origin.head, origin=origin
        )
        sink = self.landing.receive(offered, expected or Expected())
        assert isinstance(sink, Sink)
        assert sink.adopt()
        assert sink.finish() == 0

    def land(self) -> Landed:
        jobs, self._jobs[:] = list(self._jobs), []
        (landed,) = self.landing.land_many(jobs)
        return landed

    def take(self, path: Path, **given: str | Expected) -> Landed:
        self.offer(origin_of(path), **given)  # type: ignore[arg-type]
        return self.land()

    def files(self) -> list[str]:
        """What is left, beside the locks of other docks."""
        self.landing.close()
        found = [str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()]
        return sorted(path for path in found if not (path.startswith(".dcmsync-") and path.endswith("/lock")))


MakeDock = Callable[..., Dock]


@pytest.fixture
def make_dock(tmp_path: Path) -> Iterator[MakeDock]:
    docks: list[Dock] = []

    def make(transfer: Transfer, **given: bool) -> Dock:
        docks.append(Dock(tmp_path / "dest", transfer, **given))
        return docks[-1]

    yield make
    for dock in docks:
        dock.landing.close()


@pytest.mark.parametrize("octets", [SMALL, LARGE])
@pytest.mark.parametrize("way", WAYS)
def test_every_octet_of_the_file_is_there(
    make_dock: MakeDock, tmp_path: Path, way: Transfer, octets: int, require: Callable[[str], str]
) -> None:
    source = make_file(tmp_path / "a", octets=octets)
    dock = make_dock(way)
    landed = dock.take(source)
    assert (landed.outcome, landed.path, landed.size) == ("stored", LANDED, source.stat().st_size)
    assert landed.digest == xxh3_128(source.read_bytes()).hexdigest()
    assert os.spawnlp(os.P_WAIT, require("cmp"), "cmp", str(source), str(dock.root / LANDED)) == 0
    assert dock.files() == [LANDED]


def test_a_copy_is_a_file_of_its_own(make_dock: MakeDock, tmp_path: Path) -> None:
    source = make_file(tmp_path / "a")
    make_dock("copy").take(source)
    copy = tmp_path / "dest" / LANDED
    assert (source.stat().st_nlink, copy.stat().st_nlink) == (1, 1)
    assert copy.stat().st_mode & 0o777 == 0o600


def test_a_link_is_the_file_itself(make_dock: MakeDock, tmp_path: Path) -> None:
    source = make_file(tmp_path / "a")
    dock = make_dock("link")
    landed = dock.take(source)
    assert dock.files() == [LANDED]
    linked = (dock.root / LANDED).stat()
    assert (linked.st_ino, linked.st_nlink) == (source.stat().st_ino, 2)
    assert (landed.device, landed.inode, landed.mtime_ns) == (linked.st_dev, linked.st_ino, linked.st_mtime_ns)


def test_a_symbolic_link_names_the_file_by_its_absolute_path(make_dock: MakeDock, tmp_path: Path) -> None:
    source = make_file(tmp_path / "a")
    dock = make_dock("symlink")
    dock.take(source)
    assert os.readlink(dock.root / LANDED) == str(source)
    assert source.stat().st_nlink == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_the_same_again_is_present(make_dock: MakeDock, tmp_path: Path, way: Transfer, octets: int) -> None:
    source = make_file(tmp_path / "a", octets=octets)
    make_dock(way).take(source)
    again = make_dock(way)
    assert again.take(source).outcome == "present"
    assert again.files() == [LANDED]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_other_content_is_a_conflict_unless_forced(
    make_dock: MakeDock, tmp_path: Path, way: Transfer, octets: int
) -> None:
    source = make_file(tmp_path / "a", octets=octets)
    other = make_file(tmp_path / "dest" / LANDED, octets=octets, fill=b"y").read_bytes()
    landed = make_dock(way).take(source)
    assert (landed.outcome, landed.reason) == ("conflict", "content")
    assert (tmp_path / "dest" / LANDED).read_bytes() == other
    forced = make_dock(way, force=True)
    assert (landed := forced.take(source)).outcome == "stored", landed
    assert (tmp_path / "dest" / LANDED).read_bytes() == source.read_bytes()
    assert forced.files() == [LANDED]


@pytest.mark.parametrize("way", WAYS)
def test_a_truncated_file_in_the_way_is_replaced(make_dock: MakeDock, tmp_path: Path, way: Transfer) -> None:
    source = make_file(tmp_path / "a")
    make_file(tmp_path / "dest" / LANDED, cut=1)
    dock = make_dock(way)
    assert (landed := dock.take(source)).reason == "replaced", landed
    assert (dock.root / LANDED).read_bytes() == source.read_bytes()
    assert dock.files() == [LANDED]


@pytest.mark.parametrize("way", WAYS)
def test_a_symbolic_link_to_something_else_stays(make_dock: MakeDock, tmp_path: Path, way: Transfer) -> None:
    source, same = make_file(tmp_path / "a"), make_file(tmp_path / "b")
    name = tmp_path / "dest" / LANDED
    name.parent.mkdir(parents=True)
    name.symlink_to(same)
    landed = make_dock(way, force=True).take(source)
    assert (landed.outcome, landed.reason) == ("conflict", "blocked")
    assert os.readlink(name) == str(same)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("cut", "uid", "expected", "reason"),
    [
        (1, UID, Expected(), "truncated"),
        (0, "1.2.3.5", Expected(), "mismatch"),
        (0, UID, Expected(study_uid="9"), "mismatch"),
        (0, UID, Expected(series_uid="9"), "mismatch"),
    ],
)
@pytest.mark.parametrize("octets", [SMALL, LARGE])
def test_the_same_checks_are_made_of_the_very_file(
    make_dock: MakeDock, tmp_path: Path, way: Transfer, cut: int, uid: str, expected: Expected, reason: str, octets: int
) -> None:
    dock = make_dock(way)
    landed = dock.take(make_file(tmp_path / "a", cut=cut, octets=octets), uid=uid, expected=expected)
    assert (landed.outcome, landed.reason) == ("failed", reason)
    assert dock.files() == []


def rewrite(path: Path) -> None:
    make_file(path, fill=b"z")
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    status = path.stat()
    make_file(path.with_name("new"), fill=b"z").rename(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def link_away(path: Path) -> None:
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = [rewrite, replace, link_away, fifo, lambda path: os.truncate(path, 900), Path.unlink]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_since_it_was_offered_is_not_taken(
    make_dock: MakeDock, tmp_path: Path, way: Transfer, change: Callable[[Path], None]
) -> None:
    source = make_file(tmp_path / "a")
    dock = make_dock(way)
    dock.offer(origin_of(source))
    change(source)
    landed = dock.land()
    assert (landed.outcome, landed.reason, landed.trouble) == ("failed", "changed", None)
    assert dock.files() == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("octets", [SMALL, LARGE])
@pytest.mark.parametrize("size", [900, None])
def test_a_file_that_changes_while_it_is_taken_is_not_taken(
    make_dock: MakeDock, tmp_path: Path, way: Transfer, octets: int, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_file(tmp_path / "a", octets=octets)
    dock = make_dock(way)
    dock.offer(origin_of(source))
    real = os.pread, os.preadv

    def change() -> None:
        if size is None:
            os.utime(source, ns=(1, 1))
        else:
            os.truncate(source, size)

    def pread(*given: int) -> bytes:
        change()
        return real[0](*given)

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        change()
        return real[1](descriptor, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        patch.setattr(os, "preadv", preadv)
        landed = dock.land()
    assert (landed.outcome, landed.reason) == ("failed", "changed")
    assert dock.files() == []


def test_a_system_that_gives_less_than_the_file_has_is_not_believed(
    make_dock: MakeDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, real = make_file(tmp_path / "a"), os.pread
    dock = make_dock("copy")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda descriptor, length, offset: real(descriptor, length - 1, offset))
        assert dock.take(source).reason == "changed"
    assert dock.files() == []


def test_a_path_that_leads_to_another_file_just_before_it_is_linked(
    make_dock: MakeDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, real = make_file(tmp_path / "a"), os.link
    dock = make_dock("link")

    def link(what: str, *given: str, **options: int) -> None:
        if what == str(source):
            replace(source)
        real(what, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    landed = dock.take(source)
    assert (landed.outcome, landed.reason) == ("failed", "changed")
    assert dock.files() == []
    assert source.stat().st_nlink == 1


@pytest.mark.parametrize("octets", [SMALL, LARGE])
@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP])
def test_what_cannot_be_linked_is_copied_and_that_is_said(
    make_dock: MakeDock, tmp_path: Path, number: int, octets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, real = make_file(tmp_path / "a", octets=octets), os.link

    def link(what: str, *given: str, **options: int) -> None:
        if what == str(source):
            raise OSError(number, os.strerror(number))
        real(what, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    dock = make_dock("link")
    landed = dock.take(source)
    assert (landed.outcome, landed.reason) == ("stored", "copied")
    assert "copied, not linked: " in landed.message
    assert (dock.root / LANDED).read_bytes() == source.read_bytes()
    assert source.stat().st_nlink == 1
    assert dock.files() == [LANDED]


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no second file system")
def test_another_file_system_is_copied_to(make_dock: MakeDock, tmp_path: Path) -> None:
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    folder = Path("/dev/shm") / f"dcmsync-test-{os.getpid()}"
    try:
        landed = make_dock("link").take(make_file(folder / "a", octets=LARGE))
        assert (landed.outcome, landed.reason) == ("stored", "copied")
        assert "on another file system" in landed.message
    finally:
        shutil.rmtree(folder)


def test_a_file_system_that_clones_is_asked_to(
    make_dock: MakeDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kernel does for FICLONE (ioctl_ficlonerange(2)), where the test's file system cannot."""
    cloned = []

    def ioctl(copy: int, request: int, descriptor: int) -> int:
        assert request == adoption._CLONE == 0x40049409
        cloned.append(os.pwrite(copy, os.pread(descriptor, os.fstat(descriptor).st_size, 0), 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(os, "writev", lambda *given: pytest.fail("octets were written beside the clone"))
    source = make_file(tmp_path / "a", octets=LARGE)
    landed = make_dock("copy").take(source)
    assert (landed.outcome, cloned) == ("stored", [source.stat().st_size])
    assert landed.digest == xxh3_128(source.read_bytes()).hexdigest()
    assert (tmp_path / "dest" / LANDED).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", ["writev", "fsync", "link", "symlink", "preadv"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_says_no_leaves_nothing(
    make_dock: MakeDock, tmp_path: Path, way: Transfer, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_file(tmp_path / "a", octets=LARGE)
    dock = make_dock(way)
    dock.offer(origin_of(source))

    def broken(*given: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    descriptors = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        landed = dock.land()
    unused = {"copy": ["symlink"], "link": ["writev", "symlink"], "symlink": ["writev"]}[way]
    assert landed.outcome == ("stored" if call in unused else "failed")
    assert (landed.trouble is None) == (call in unused)
    assert len(os.listdir("/dev/fd")) == descriptors
    assert dock.files() == ([LANDED] if call in unused else [])


def test_a_file_without_a_head_that_can_be_kept_is_not_adopted(make_dock: MakeDock, tmp_path: Path) -> None:
    origin = origin_of(make_file(tmp_path / "a"))
    for head in [b"", origin.head + b"more"]:
        offered = Arrival(
            sop_class_uid=SECONDARY, sop_instance_uid=UID, transfer_syntax_uid=EXPLICIT, head=head, origin=origin
        )
        sink = make_dock("link").landing.receive(offered)
        assert isinstance(sink, Sink)
        assert not sink.adopt()
        sink.discard("enough")
    sink = make_dock("link").landing.receive(arrival(UID))
    assert isinstance(sink, Sink)
    assert not sink.adopt()


# Removal


def test_what_was_moved_is_removed(tmp_path: Path) -> None:
    source = make_file(tmp_path / "a")
    remove(origin_of(source))
    assert not source.exists()


def test_what_is_gone_is_as_good_as_removed(tmp_path: Path) -> None:
    source = make_file(tmp_path / "folder/a")
    origin = origin_of(source)
    source.unlink()
    remove(origin)
    source.parent.rmdir()
    remove(origin)


@pytest.mark.parametrize("change", CHANGES[:-1])
def test_what_changed_stays(tmp_path: Path, change: Callable[[Path], None]) -> None:
    source = make_file(tmp_path / "a")
    origin = origin_of(source)
    change(source)
    with pytest.raises(LocalTrouble, match="stays"):
        remove(origin)
    assert os.path.lexists(source)


def test_what_may_not_be_removed_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = origin_of(make_file(tmp_path / "a"))

    def unlink(*given: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(LocalTrouble, match="permission denied"):
        remove(origin)


def test_the_removal_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_file(tmp_path / "a")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((os.fstat(fd).st_ino, source.exists())))
    remove(origin_of(source))
    assert synced == [(tmp_path.stat().st_ino, False)]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_stands_where_it_came_from_is_not_offered_for_removal(
    make_dock: MakeDock, tmp_path: Path, way: Transfer
) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "dest")
    make_file(tmp_path / "dest" / LANDED)
    for path in [tmp_path / "dest" / LANDED, tmp_path / "alias" / LANDED]:
        landed = make_dock(way).take(path)
        assert landed.outcome == "present"
        assert landed.arrival.origin is None


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_only_a_symbolic_link_stands_for_is_not_offered_for_removal(
    make_dock: MakeDock, tmp_path: Path, way: Transfer
) -> None:
    source = make_file(tmp_path / "a")
    for outcome in ["stored", "present"]:
        landed = make_dock(way).take(source)
        assert landed.outcome == outcome
        assert (landed.arrival.origin is None) == (way == "symlink")
