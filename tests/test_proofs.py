"""What makes the claim honest: syncs killed at any moment and at any system call, caches that are torn or lie, disks
that rot or fill up. Whatever happened, the next run completes, and nothing partial ever stands under a final name.

Each proof is quick as it stands; DCMSYNC_TEST_PROOFS=N does N rounds of each (50, 100 and 200 are worth a night).
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import peers, samples
from tests.trees import check_nothing_partial, check_whole, default_path, files, leftovers
from tests.workdir import Done, Workdir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEED = 71
INSTANCES = 240
CALLS = (
    "openat,write,writev,pwrite64,fsync,fdatasync,linkat,link,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
)


def rounds(usual: int) -> int:
    """How often to do it."""
    return int(os.environ.get("DCMSYNC_TEST_PROOFS", usual))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One study of 12 series of 20 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), series=12, instances=INSTANCES // 12, seed=SEED)


@pytest.fixture(scope="module")
def pacs(start_for_module, made: list[samples.Sample]) -> peers.Peer:
    """Orthanc with what was made."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in made)
    return peer


def count(done: Done, result: str) -> int:
    return sum(int(record.get(result, 0)) for record in done.of_type("outcome") if record["level"] == "series")


class Mirror:
    """A destination, and the sync that fills it."""

    def __init__(self, workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample], name: str = "a") -> None:
        self.folder = workdir.path / name
        self.made = made
        self.line = ("sync", pacs.locator, self.folder, "--all")
        self.workdir = workdir

    def completes(self, *more: str) -> Done:
        """The next run brings just what is not there, and all of it."""
        check_nothing_partial(self.folder, self.made) if self.folder.exists() else None
        there = len(files(self.folder)) if self.folder.exists() else 0
        done = self.workdir.run(*self.line, *more)
        assert done.status == 0, done
        assert count(done, "stored") == INSTANCES - there, done
        assert count(done, "present") == there
        check_whole(self.folder, self.made)
        return done

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def mirror(workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample]) -> Mirror:
    return Mirror(workdir, pacs, made)


@pytest.fixture
def full(mirror: Mirror) -> Mirror:
    """One that is complete."""
    mirror.completes()
    return mirror


def cache_of(mirror: Mirror) -> Path:
    (found,) = (mirror.workdir.path / ".xdg" / "cache").rglob("*.sqlite")
    return found


# Killed


def test_a_kill_at_any_moment(mirror: Mirror) -> None:
    dice = random.Random(SEED)
    begun = time.monotonic()
    mirror.completes()
    whole_run = time.monotonic() - begun
    for _ in range(rounds(4)):
        mirror.remove()
        process = mirror.workdir.start(*mirror.line)
        try:
            process.communicate(timeout=whole_run * dice.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        mirror.completes()


def test_a_kill_at_any_system_call(mirror: Mirror, require: Callable[[str], str]) -> None:
    strace = require("strace")
    counted = Workdir(mirror.workdir.path, (strace, "-f", "-qq", "-c", "-o", "calls", "-e", f"trace={CALLS}",
                                            *mirror.workdir.program))  # fmt: skip
    assert counted.run(*mirror.line).status == 0
    calls = {line.split()[-1]: int(line.split()[3]) for line in (mirror.workdir.path / "calls").read_text().splitlines()
             if line and line.split()[-1] in CALLS.split(",")}  # fmt: skip
    dice = random.Random(SEED)
    killed = 0
    for _ in range(rounds(6)):
        call = dice.choice(sorted(calls))
        at = dice.randint(1, calls[call])
        mirror.remove()
        injected = Workdir(mirror.workdir.path, (strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                                                 f"inject={call}:signal=SIGKILL:when={at}",
                                                 *mirror.workdir.program))  # fmt: skip
        killed += injected.run(*mirror.line).status == 128 + signal.SIGKILL
        mirror.completes()
    assert killed


# Caches


def tear(path: Path, dice: random.Random) -> None:
    octets = path.read_bytes()
    path.write_bytes(octets[: dice.randrange(len(octets))])


def zero_pages(path: Path, dice: random.Random) -> None:
    octets = bytearray(path.read_bytes())
    for _ in range(3):
        at = dice.randrange(len(octets) // 4096) * 4096
        octets[at : at + 4096] = bytes(4096)
    path.write_bytes(octets)


def scribble(path: Path, dice: random.Random) -> None:
    octets = bytearray(path.read_bytes())
    for _ in range(50):
        octets[dice.randrange(100, len(octets))] = dice.randrange(256)
    path.write_bytes(octets)


def delete(path: Path, dice: random.Random) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [tear, zero_pages, scribble, delete])
def test_a_harmed_cache_changes_nothing(full: Mirror, harm: Callable[[Path, random.Random], None]) -> None:
    dice = random.Random(SEED)
    for number in range(rounds(3)):
        cache = cache_of(full)
        for more in ("-wal", "-shm"):
            cache.with_name(cache.name + more).unlink(missing_ok=True)
        harm(cache, dice)
        if number % 2:
            default_path(full.folder, dice.choice(full.made)).unlink()
        full.completes()


def copy_cache(source: Path, copy: Path) -> None:
    """Copies what is there, file by file; what goes meanwhile is left out."""
    for path in source.rglob("*.sqlite*"):
        target = copy / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.copy(path, target)


def test_a_cache_that_was_copied_at_any_moment_of_a_run_changes_nothing(mirror: Mirror, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    cache = mirror.workdir.path / ".xdg" / "cache"
    copies: list[Path] = []
    while len(copies) < rounds(4):
        mirror.remove()
        shutil.rmtree(cache, ignore_errors=True)
        process = mirror.workdir.start(*mirror.line)
        peers.wait_for(lambda: mirror.folder.exists() and bool(files(mirror.folder)), what="a first file")
        while process.poll() is None and len(copies) < rounds(4):
            copies.append(tmp_path / f"copy{len(copies)}")
            copy_cache(cache, copies[-1])
        process.communicate()
    for copy in copies:
        shutil.rmtree(cache)
        if copy.exists():
            shutil.copytree(copy, cache)
        default_path(mirror.folder, dice.choice(mirror.made)).unlink()
        mirror.completes()


def test_the_cache_of_another_destination_changes_nothing(full: Mirror) -> None:
    other = Mirror(full.workdir, _Locator(full.line[1]), full.made, "b")  # type: ignore[arg-type]
    before = set((full.workdir.path / ".xdg" / "cache").rglob("*.sqlite"))
    other.completes()
    (theirs,) = set((full.workdir.path / ".xdg" / "cache").rglob("*.sqlite")) - before
    (ours,) = before
    for name in (ours.name, theirs.name):
        for more in ("-wal", "-shm"):
            (ours.parent / (name + more)).unlink(missing_ok=True)
    octets = ours.read_bytes()
    shutil.copy(theirs, ours)
    theirs.write_bytes(octets)
    shutil.rmtree(default_path(other.folder, full.made[0]).parent)
    full.completes()
    other.completes()


class _Locator:
    def __init__(self, locator: object) -> None:
        self.locator = locator


def test_a_cache_that_lies_of_what_is_not_there_changes_nothing(full: Mirror) -> None:
    for sample in full.made[:30]:
        default_path(full.folder, sample).unlink()
    full.completes()
    with sqlite3.connect(cache_of(full)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            if "size" in columns:
                connection.execute(f"UPDATE {table} SET size = size + 1")
    connection.close()
    full.completes()


# Rot


def test_every_flipped_bit_is_named_and_mended(full: Mirror) -> None:
    dice = random.Random(SEED)
    number = min(rounds(40), INSTANCES)
    log = full.workdir.run(*full.line, "-i")
    victims = dice.sample(full.made, number)
    for sample in victims:
        path = default_path(full.folder, sample)
        before = path.stat()
        octets = bytearray(path.read_bytes())
        octets[dice.randrange(len(octets))] ^= 1 << dice.randrange(8)
        path.write_bytes(octets)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = full.workdir.run("verify", "--read-data", "-i", stdin=log.stdout)
    assert found.status == 1, found
    named = {record["SOPInstanceUID"] for record in found.of_type("outcome")
             if record["level"] == "instance" and record["outcome"] == "failed"}  # fmt: skip
    assert named == {sample.sop_uid for sample in victims}
    done = full.workdir.run(*full.line, "--trust", "content")
    assert (done.status, count(done, "stored")) == (0, number), done
    check_whole(full.folder, full.made)


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many KiB; `remount` lets it grow."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes: int) -> Path:
        subprocess.run(["umount", str(folder)], check=False, capture_output=True)
        line = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        try:
            subprocess.run(line, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no right to mount a file system")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


@pytest.mark.parametrize("is_cache_there", [False, True])
def test_a_full_disk_of_any_size(
    disk: Callable[[int], Path], workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample], is_cache_there: bool
) -> None:
    total = sum(sample.size for sample in made) // 1024
    sizes = rounds(4)
    for number in range(sizes):
        folder = disk(max(total * number // sizes, 64))
        mirror = Mirror(workdir, pacs, made, str(folder / "a"))
        cache = ("--cache", str(folder / "cache.sqlite")) if is_cache_there else ()
        done = workdir.run(*mirror.line, *cache)
        assert done.status == 7, done
        assert not mirror.folder.exists() or leftovers(mirror.folder) == []
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True, capture_output=True)
        mirror.completes(*cache)
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)
