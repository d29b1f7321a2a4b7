"""Lines beyond what memory holds: sorted, queued, looked up."""

import os
import resource
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dcmsync.errors import LocalTrouble
from dcmsync.transfer import spill
from dcmsync.transfer.spill import Index, Queue, Sorter

lines = some.lists(some.binary(max_size=12).map(lambda octets: octets.replace(b"\n", b"\r")), max_size=60)


@settings(deadline=None)
@given(lines, some.sampled_from([0, 100, 1000, 1 << 20]))
def test_sorted_lines_are_the_same_however_little_memory_there_is(given_lines: list[bytes], octets: int) -> None:
    sorter = Sorter(run_octets=octets)
    for line in given_lines:
        sorter.add(line)
    assert list(sorter) == sorted(given_lines)


def test_more_runs_than_files_are_merged_on_the_way() -> None:
    sorter = Sorter(run_octets=0)
    before = len(os.listdir("/proc/self/fd"))
    numbers = [b"%05d" % (n * 7919 % 10_007) for n in range(200)]
    for line in numbers:
        sorter.add(line)
    assert len(os.listdir("/proc/self/fd")) - before <= spill.MOST_RUNS + 1
    assert list(sorter) == sorted(numbers)
    assert len(os.listdir("/proc/self/fd")) == before


def test_sort_agrees(tmp_path: Path) -> None:
    words = [f"{n * 7919 % 1009}\t{'x' * (n % 5)}".encode() for n in range(500)]
    sorter = Sorter(run_octets=2000)
    for word in words:
        sorter.add(word)
    done = subprocess.run(["sort"], input=b"\n".join([*words, b""]), env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
                          capture_output=True, check=True)  # fmt: skip
    assert list(sorter) == done.stdout.splitlines()


@settings(deadline=None)
@given(some.lists(some.one_of(some.binary(max_size=9).map(lambda octets: octets.replace(b"\n", b"")), some.none())),
       some.sampled_from([1, 2, 7, 4096]))
def test_a_queue_gives_what_came_first(steps: list[bytes | None], held: int) -> None:
    """None takes one line, anything else is put."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "QUEUED_LINES", held)
        queue, model = Queue(), list[bytes]()
        for step in steps:
            if step is None:
                assert queue.take() == (model.pop(0) if model else None)
            else:
                queue.put(step)
                model.append(step)
            assert bool(queue) is bool(model)
        assert list(queue.drain()) == model
        assert queue.take() is None


def test_a_long_queue_is_not_held_in_memory() -> None:
    queue = Queue()
    line = b"x" * 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100_000):
        queue.put(line + b"")
    for _ in range(100_000):
        assert queue.take() == line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # of 100,000 kB


@given(some.dictionaries(some.text(min_size=1, max_size=8),
                         some.tuples(*[some.one_of(some.none(), some.integers(0, 10**9))] * 2)),
       some.text(min_size=1, max_size=8))
def test_an_index_is_a_dictionary(numbers: dict[str, tuple[int | None, int | None]], other: str) -> None:
    index = Index(2, sorter=Sorter(run_octets=300))
    for uid, pair in numbers.items():
        index.add(uid, *pair)
    assert {uid: index.find(uid) for uid in numbers} == numbers
    assert index.find(other) == numbers.get(other)
    index.close()


@pytest.mark.parametrize("number", [-1, 10**10, None])
def test_a_number_that_cannot_be_is_not_known(number: int | None) -> None:
    index = Index(1)
    index.add("1.2", number)
    assert index.find("1.2") == (None,)
    index.close()


def test_an_index_without_numbers_tells_who_came() -> None:
    index = Index()
    index.add("1.2")
    assert index.find("1.2") == () and index.find("1.3") is None
    index.close()


def test_a_disk_that_says_no_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    sorter = Sorter(run_octets=0)
    with pytest.raises(LocalTrouble, match="TMPDIR"):
        sorter.add(b"a")
    queue = Queue()
    monkeypatch.setattr(spill, "QUEUED_LINES", 1)
    queue.put(b"a")
    with pytest.raises(LocalTrouble, match="gone"):
        queue.put(b"b")


def test_nothing_of_it_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(spill, "QUEUED_LINES", 1)
    queue, sorter = Queue(), Sorter(run_octets=0)
    for line in (b"a", b"b", b"c"):
        queue.put(line)
        sorter.add(line)
    assert not list(tmp_path.iterdir())
    sorter.close()
    queue.close()
    assert not queue and queue.take() is None
