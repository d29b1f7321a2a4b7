"""The machinery of bench/: medians, the table, whole processes. What is measured is never asserted."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench import measure, scratch
from bench.__main__ import ROWS, main
from bench.measure import Row, RunFailed, Timed


def test_help_names_every_row() -> None:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert all(f"  {name} " in done.stdout for name in ROWS)


def test_a_word_that_is_no_row_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["P99"])
    assert "no such row: P99" in capsys.readouterr().err


def test_medians_are_of_all_runs() -> None:
    ours = [Timed(0.3), Timed(0.1), Timed(9.0)]
    theirs = [Timed(0.6), Timed(0.9), Timed(0.2)]
    assert measure.median(ours) == 0.3
    assert measure.ratio(ours, theirs) == pytest.approx(2.0)
    assert measure.peak([Timed(1, 5), Timed(1, 7)]) == 7


@pytest.mark.parametrize(
    "seconds, words",
    [
        ([1.0, 2.0, 9.0], "2.00 s (1.00-9.00)"),
        ([0.1, 0.2, 0.9], "200 ms (100-900)"),
        ([0.25], "250 ms"),
    ],
)
def test_times_are_told_with_their_spread(seconds: list[float], words: str) -> None:
    assert measure.words([Timed(one) for one in seconds]) == words


def test_works_run_in_turn_after_one_round_that_is_not_counted() -> None:
    done: list[tuple[str, int]] = []

    def work(name: str, number: int) -> Timed:
        done.append((name, number))
        return Timed(float(number))

    times = measure.in_turn(2, lambda number: work("a", number), lambda number: work("b", number))
    assert done == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert times == [[Timed(0), Timed(1)], [Timed(0), Timed(1)]]


def test_the_table_is_markdown() -> None:
    lines = list(measure.table([Row("P0", "a | b", "1 s", "`jq` 2 s", 2.0, "1 x"), Row("P1", "c", "1 s", ratio=123.4)]))
    assert lines[0].startswith("| # | work |")
    assert lines[2] == "| P0 | a \\| b | 1 s | `jq` 2 s | 2.0 x | 1 x |  |"
    assert "| 123 x |" in lines[3]


def test_a_run_is_timed_and_its_status_minded(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert measure.run([sys.executable, "-c", "print(1)"], stdout=out).seconds > 0
    assert out.read_text() == "1\n"
    with pytest.raises(RunFailed, match="ended with 3"):
        measure.run([sys.executable, "-c", "raise SystemExit(3)"])
    assert measure.run([sys.executable, "-c", "raise SystemExit(3)"], expect=3)


def test_a_run_that_takes_too_long_is_ended() -> None:
    with pytest.raises(RunFailed):
        measure.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_peak_is_that_of_the_process_alone() -> None:
    ballast = bytes(300_000_000)
    line = [sys.executable, "-c", "import time; x = bytes(60_000_000); y = bytearray(x); time.sleep(0.1)"]
    assert 60_000_000 < measure.run(line, with_peak=True).peak_octets < len(ballast)


def test_a_pipe_fails_when_one_of_it_does() -> None:
    with pytest.raises(RunFailed):
        measure.run(measure.shell(["false"], ["true"]))


def test_scratch_leaves_nothing_behind() -> None:
    with scratch.Scratch() as both:
        memory, _ = both.fast(1)
        first, second = both.fresh(memory), both.fresh(both.disk)
        (first / "file").touch()
        (second / ".hidden").mkdir()
        (second / ".hidden" / "file").touch()
        assert scratch.count_files(first) == 1
        assert scratch.count_files(second) == 0
    assert not first.exists()
    assert not both.disk.exists()


def test_what_does_not_fit_into_memory_goes_to_the_disk() -> None:
    with scratch.Scratch() as both:
        assert both.fast(1 << 60) == (both.disk, "disk")
