"""The file of a cache: torn, zeroed, cut, swapped, planted, locked, full: at worst everything is read again."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dcmsync.cache import rows, schema
from dcmsync.cache.digest import checksum as checksum_of
from dcmsync.cache.store import Store, open_store
from dcmsync.contract import Stamp
from dcmsync.errors import LocalTrouble, UsageError
from tests.cache.made_up import bring_up_to_date, everything, holding, many, opened, scribble, sides

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096


def writer(place: Path, cache: Path, seed: int, rounds: int) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "tests.cache.writer", str(place), str(cache), str(seed), str(rounds)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)


class Cached:
    """A place, a cache that knows it, and what it knows."""

    def __init__(self, folder: Path, *, is_sealed: bool = False) -> None:
        self.place, self.path = folder / "place", folder / "cache"
        self.place.mkdir()
        self.truth = many(studies=4, series=3, instances=20)
        self.said: list[str] = []
        store = opened(self.place, self.path)
        store.remember(self.truth)
        store.close()
        if is_sealed:
            store = opened(self.place, self.path)
            assert len(list(store.stamps())) == len(self.truth)
            store.close()

    def open(self, path: Path | None = None) -> Store:
        """A store of the next run, whose warnings are kept in `said`."""
        return opened(self.place, path or self.path, self.said.append)

    def assert_harmless(self, path: Path | None = None) -> None:
        """Whatever was done to the file: brought up to date, it answers as one that is made afresh."""
        store, fresh = self.open(path), opened(self.place, None)
        fresh.remember(self.truth)
        believed = {each.path: each for each in [*store.holdings(), *store.others()]} if not store.has_lost else {}
        true = {each.path: each for each in self.truth}
        for each in believed.values():
            assert each.path not in true or each.stamp != true[each.path].stamp or each == true[each.path]
        for _ in range(3):
            bring_up_to_date(store, self.truth)
            if not store.has_lost:
                break
        assert everything(store) == everything(fresh)
        assert list(store.holdings()) == list(fresh.holdings())
        assert list(store.others()) == list(fresh.others())
        store.close()
        fresh.close()


@pytest.fixture(params=["sealed", "not sealed"])
def cached(tmp_path: Path, request: pytest.FixtureRequest) -> Cached:
    return Cached(tmp_path, is_sealed=request.param == "sealed")


def take_along(path: Path, copy: Path) -> None:
    """Puts the seal, if there is one, beside a copy."""
    if (seal := Path(f"{path}-seal")).exists():
        shutil.copy(seal, f"{copy}-seal")


def alter(path: Path, *statements: str) -> None:
    """What another program does to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)


def test_the_format_is_what_it_was(cached: Cached) -> None:
    """A file that was made by this version must be read by the next one, or have another number."""
    with closing(sqlite3.connect(cached.path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0x64636D73,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")}
    assert names == {
        "place", "series", "kind", "file", "kind_by_series", "file_by_series", "file_by_kind", "file_by_instance",
        "sqlite_sequence",
    }  # fmt: skip


def test_the_sqlite3_shell_finds_it_sound(cached: Cached, require: Callable[[str], str]) -> None:
    line = [require("sqlite3"), "-readonly", str(cached.path), "PRAGMA integrity_check; SELECT count(*) FROM file"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "ok\n240\n"


@pytest.mark.slow
def test_torn_at_200_moments(tmp_path: Path) -> None:
    """Copies of the file and of what lies beside it, taken while a process writes: as after a crash, or worse."""
    cached = Cached(tmp_path)
    cached.truth = [holding(s, e, i) for s in (1, 2, 3) for e in (1, 2, 3) for i in range(1, 40)]
    choose = random.Random(4)
    busy = tmp_path / "busy"
    with writer(cached.place, busy, 1, 100_000) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            for number in range(200):
                torn = tmp_path / f"torn{number}"
                present = sides(busy)
                choose.shuffle(present)
                for side in present:
                    shutil.copy(side, f"{torn}{side.name.removeprefix('busy')}")
                if number % 4 == 0:
                    Path(f"{torn}-shm").unlink(missing_ok=True)
                if number % 4 == 1:
                    wal = Path(f"{torn}-wal")
                    os.truncate(wal, choose.randrange(wal.stat().st_size + 1))
                cached.assert_harmless(torn)
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["zeros", "noise", "other page"])
def test_a_page_that_is_something_else(cached: Cached, tmp_path: Path, how: str) -> None:
    choose = random.Random(how)
    pages = cached.path.stat().st_size // PAGE
    original = cached.path.read_bytes()
    for page in range(1, pages):
        damaged = tmp_path / f"damaged{page}"
        damaged.write_bytes(original)
        take_along(cached.path, damaged)
        other = choose.randrange(1, pages) * PAGE
        octets = {"zeros": bytes(PAGE), "noise": choose.randbytes(PAGE), "other page": original[other : other + PAGE]}
        scribble(damaged, page * PAGE, octets[how])
        cached.assert_harmless(damaged)


@pytest.mark.slow
def test_octets_that_are_something_else(cached: Cached, tmp_path: Path) -> None:
    choose = random.Random(9)
    original = cached.path.read_bytes()
    for number in range(150):
        damaged = tmp_path / f"damaged{number}"
        damaged.write_bytes(original)
        take_along(cached.path, damaged)
        for _ in range(choose.choice((1, 1, 5, 50))):
            scribble(damaged, choose.randrange(100, len(original)), choose.randbytes(choose.choice((1, 8))))
        cached.assert_harmless(damaged)


def test_a_file_that_was_cut(cached: Cached, tmp_path: Path) -> None:
    size = cached.path.stat().st_size
    for number, kept in enumerate((0, PAGE, 2 * PAGE, size // 2, size - PAGE, size - 1)):
        cut = tmp_path / f"cut{number}"
        shutil.copy(cached.path, cut)
        take_along(cached.path, cut)
        os.truncate(cut, kept)
        cached.assert_harmless(cut)


def test_what_is_damaged_is_said_once_and_made_anew(cached: Cached) -> None:
    scribble(cached.path, 3 * PAGE, bytes(PAGE))
    cached.assert_harmless()
    (words,) = cached.said
    assert "made anew" in words
    cached.assert_harmless()
    assert len(cached.said) == 1


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE file SET size = size + 1 WHERE id % 2",
        "UPDATE file SET sop_instance_uid = '9.9' WHERE id = 7",
        "UPDATE file SET state = 'rotten' WHERE id = 8",
        "UPDATE file SET is_instance = 0 WHERE id < 20",
        "UPDATE file SET kind_id = 1",
        "UPDATE file SET series_id = 2",
        "UPDATE file SET attributes = '{\"InstanceNumber\":77}'",
        "UPDATE file SET digest = x'00112233445566778899aabbccddeeff'",
        "UPDATE file SET path = CAST('x' || id AS BLOB)",
        "UPDATE series SET study_uid = '1.777' WHERE id = 1",
        "UPDATE kind SET attributes = '{}'",
        "UPDATE kind SET series_id = 3",
        "DELETE FROM kind WHERE id = 2",
        "DELETE FROM series WHERE id = 3",
        "DELETE FROM file WHERE id > 100",
        "DELETE FROM place",
        "INSERT INTO place VALUES (x'2f', 1, 2)",
        "UPDATE place SET inode = inode + 1",
    ],
)
def test_rows_that_lie(cached: Cached, lie: str) -> None:
    alter(cached.path, lie)
    cached.assert_harmless()
    assert cached.said == []


def test_a_row_that_claims_what_is_not_there_goes(cached: Cached) -> None:
    """One that lies with the right checksum is found out by the stamp."""
    store = cached.open()
    store.remember([holding(9, 9, 9), holding(1, 1, 1, sop_instance_uid="6.6.6", stamp=Stamp(
        size=1, mtime_ns=2, device=3, inode=4))])  # fmt: skip
    store.close()
    cached.assert_harmless()


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER planted AFTER INSERT ON file BEGIN DELETE FROM file; END",
        "CREATE VIEW planted AS SELECT * FROM file",
        "CREATE TABLE planted (x)",
        "CREATE INDEX planted ON file (size)",
        "CREATE INDEX planted ON file (abs(size)) WHERE hex(path) > 'a'",
        "DROP INDEX file_by_kind",
        "ALTER TABLE file ADD COLUMN planted GENERATED ALWAYS AS (randomblob(9)) VIRTUAL",
        "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL UNIQUE', 'UNIQUE') WHERE name = 'file'",
    ],
)
def test_what_was_planted_is_never_run(cached: Cached, planted: str) -> None:
    alter(cached.path, planted)
    cached.assert_harmless()
    (words,) = cached.said
    assert "not those that dcmsync makes" in words or "cannot make sense" in words


def test_a_newer_version_is_put_away(tmp_path: Path) -> None:
    (place := tmp_path / "place").mkdir()
    said: list[str] = []
    store = open_store(str(place), named=None, folder=tmp_path / "caches", warn=said.append)
    store.remember(many())
    store.close()
    alter(Path(store.path), "PRAGMA user_version = 2")
    later = open_store(str(place), named=None, folder=tmp_path / "caches", warn=said.append)
    assert list(later.stamps()) == []
    later.close()
    assert schema.look(f"{store.path}.newer") == "newer"
    (words,) = said
    assert "newer" in words


def test_an_older_format_is_made_anew(cached: Cached) -> None:
    alter(cached.path, "PRAGMA user_version = 0")
    cached.assert_harmless()
    assert len(cached.said) == 1


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (x)")
        connection.commit()


@pytest.mark.parametrize(
    "make",
    [
        foreign_database,
        lambda path: path.write_bytes(b"not a database"),
        lambda path: path.write_bytes(b"x"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to(path.with_name("elsewhere")),
    ],
    ids=["database", "text", "short", "folder", "fifo", "link"],
)
def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "precious"
    make(path)
    before = path.lstat(), path.read_bytes() if path.is_file() else b"", sorted(os.listdir(tmp_path))
    with pytest.raises(UsageError, match="no cache of dcmsync"):
        opened(tmp_path, path)
    after = path.lstat(), path.read_bytes() if path.is_file() else b"", sorted(os.listdir(tmp_path))
    assert [before[0].st_mtime_ns, *before[1:]] == [after[0].st_mtime_ns, *after[1:]]


def test_a_link_to_a_cache_is_refused(cached: Cached, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cached.path)
    with pytest.raises(UsageError):
        opened(cached.place, tmp_path / "link")


def test_a_named_cache_of_a_newer_version_is_left_alone(cached: Cached) -> None:
    alter(cached.path, "PRAGMA user_version = 2")
    before = cached.path.read_bytes()
    with pytest.raises(UsageError, match="newer"):
        cached.open()
    assert cached.path.read_bytes() == before


def test_a_cache_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        opened(tmp_path, tmp_path / "none" / "cache")


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
def test_a_link_beside_the_cache_is_not_followed(cached: Cached, tmp_path: Path, side: str) -> None:
    (precious := tmp_path / "precious").write_bytes(b"x" * 40_000)
    Path(f"{cached.path}{side}").symlink_to(precious)
    cached.assert_harmless()
    assert precious.read_bytes() == b"x" * 40_000


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
@pytest.mark.timeout(10)
def test_a_fifo_beside_the_cache_keeps_nobody_waiting(cached: Cached, side: str) -> None:
    os.mkfifo(f"{cached.path}{side}")
    cached.assert_harmless()
    (words,) = cached.said
    assert "has the name of its" in words


def test_deleted_under_us_the_run_goes_on(cached: Cached) -> None:
    store = cached.open()
    list(store.stamps())
    for side in sides(cached.path):
        side.unlink()
    assert len(list(store.holdings())) == 240
    store.remember([holding(8)])
    assert len(list(store.holdings())) == 241
    store.close()
    cached.assert_harmless()
    assert cached.said == []


def test_cut_under_us_nothing_false_is_said(cached: Cached) -> None:
    store = cached.open()
    list(store.stamps())
    os.truncate(cached.path, 2 * PAGE)
    Path(f"{cached.path}-wal").write_bytes(b"")
    with pytest.raises(LocalTrouble, match="lost in the middle"):
        everything(store)
    assert store.has_lost
    bring_up_to_date(store, cached.truth)
    assert len(list(store.holdings())) == 240
    store.close()
    assert len(cached.said) == 1


def test_locked_for_longer_than_anybody_waits(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_S", 0.05)
    before = cached.path.read_bytes()
    with closing(sqlite3.connect(cached.path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        cached.assert_harmless()
    (words,) = cached.said
    assert "locked" in words
    assert cached.path.read_bytes() == before


def test_locked_while_we_write(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_S", 0.05)
    store = cached.open()
    list(store.stamps())
    with closing(sqlite3.connect(cached.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        store.remember([holding(8)])
        holder.execute("ROLLBACK")
    assert store.has_lost
    assert len(cached.said) == 1
    bring_up_to_date(store, cached.truth)
    assert len(list(store.holdings())) == 240
    store.close()
    cached.assert_harmless()


@pytest.mark.slow
def test_eight_processes_at_once(tmp_path: Path) -> None:
    cached = Cached(tmp_path)
    cached.path.unlink()
    writers = [writer(cached.place, cached.path, seed, 12) for seed in range(8)]
    ends = [process.communicate(timeout=50)[0].splitlines()[-1] for process in writers]
    assert ends == ["done 351 0"] * 8
    cached.truth = [holding(s, e, i) for s in (1, 2, 3) for e in (1, 2, 3) for i in range(1, 40)]
    cached.assert_harmless()
    assert cached.said == []


@pytest.mark.slow
def test_killed_while_it_writes(tmp_path: Path) -> None:
    cached = Cached(tmp_path)
    cached.truth = [holding(s, e, i) for s in (1, 2, 3) for e in (1, 2, 3) for i in range(1, 40)]
    choose = random.Random(5)
    for seed in range(8):
        with writer(cached.place, cached.path, seed, 100_000) as process:
            assert process.stdout is not None
            process.stdout.readline()
            size = Path(f"{cached.path}-wal").stat().st_size
            goal = size + choose.randrange(400_000)
            while process.poll() is None and Path(f"{cached.path}-wal").stat().st_size < goal:
                pass
            process.send_signal(signal.SIGKILL)
        cached.assert_harmless()
    assert cached.said == []


def test_a_folder_that_cannot_be_written() -> None:
    """In a process without privileges, for which the cache of a former run is there and can be read."""
    code = (
        "import os, tempfile; from pathlib import Path; from tests.cache.made_up import *\n"
        "with tempfile.TemporaryDirectory() as name:\n"
        "    folder = Path(name); os.chmod(folder, 0o755)\n"
        "    first = opened(folder, folder / 'cache'); first.remember(many()); first.close()\n"
        "    os.chmod(folder / 'cache', 0o444); os.chmod(folder, 0o555)\n"
        "    os.seteuid(os.geteuid() or 65534)\n"
        "    said = []; store = opened(folder, folder / 'cache', said.append)\n"
        "    bring_up_to_date(store, many())\n"
        "    print(len(list(store.holdings())), len(said)); store.close()\n"
        "    os.seteuid(os.getuid()); os.chmod(folder, 0o755)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "12 1\n"


def test_a_folder_that_cannot_be_made(cached: Cached, tmp_path: Path) -> None:
    (tmp_path / "caches").write_text("a file")
    store = open_store(str(cached.place), named=None, folder=tmp_path / "caches", warn=cached.said.append)
    store.remember(many())
    assert len(list(store.holdings())) == 12
    store.close()
    (words,) = cached.said
    assert "goes on without" in words


def test_a_full_disk(tmp_path: Path) -> None:
    """The limit of this process on the size of a file stands for the disk: SQLite says "full" of both."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from tests.cache.made_up import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "said = []; place = Path(sys.argv[1]); store = opened(place, place.parent / 'cache', said.append)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "store.remember(many(studies=5, series=5, instances=40))\n"
        "bring_up_to_date(store, many(studies=5, series=5, instances=40))\n"
        "print(len(list(store.holdings())), len(everything(store)), len(said))\n"
    )
    (place := tmp_path / "place").mkdir()
    line = [sys.executable, "-c", code, str(place)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"1000 {5 + 25 + 1000} 1\n"


def test_a_network_file_system_gets_a_rollback_journal(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_is_distant", lambda path: True)
    cached.assert_harmless()
    with closing(sqlite3.connect(cached.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_which_file_systems_are_distant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/vda / ext4 rw 0 0\nhost:/x /net nfs4 rw 0 0\n/dev/b /net/local xfs rw 0 0\n"
                      "//h/s /net/with\\040space cifs rw 0 0\n")  # fmt: skip
    monkeypatch.setattr(schema, "MOUNTS", str(mounts))
    asked = {"/a": False, "/net/a": True, "/net/local/a": False, "/network": False, "/net/with space/b": True}
    assert {path: schema._is_distant(path) for path in asked} == asked


def test_a_row_is_hashed_as_sqlite_says_it(cached: Cached) -> None:
    odd = holding(1, 1, 1, path="\udcff\n'", attributes={"PatientID": "é\0", "Rows": 3}, digest="", content="0" * 32)
    store = cached.open()
    store.remember([odd])
    store.close()
    with closing(sqlite3.connect(cached.path)) as connection:
        found = connection.execute(f"SELECT sum, {rows.FILE_OCTETS} FROM file").fetchall()
    assert all(checksum == checksum_of(octets) for checksum, octets in found)
    assert len(found) == 241
