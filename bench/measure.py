"""What every row shares: timing whole processes, runs in turn, medians, and the table.

Owns the stop-watch (wall time from start to exit, peak of the resident set where asked for) and the `Row`. Refuses to
know what is measured. A row compares only what ran in turn, in the same minutes: first ours, then theirs, then ours
again.
"""

import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import peers

TIMEOUT_S = 600.0
_LOOK_S = 0.005
DCMSYNC = (sys.executable, "-m", "dcmsync")
HEADINGS = ("#", "work", "dcmsync", "the other", "ratio", "target", "how")

Line = Sequence[str | Path]


class RunFailed(Exception):
    """A measured process ended with another status than 0, or did other work than was asked for."""


@dataclass(frozen=True)
class Timed:
    """One finished process: wall time in seconds, and its peak resident set in octets, 0 when nobody looked."""

    seconds: float
    peak_octets: int = 0


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is how many times faster we are (or, of `what` we have less)."""

    number: str
    work: str
    ours: str
    theirs: str = ""
    ratio: float | None = None
    target: str = ""
    how: str = ""

    def cells(self) -> tuple[str, ...]:
        """As in `HEADINGS`."""
        ratio = "" if self.ratio is None else f"{self.ratio:.1f} x" if self.ratio < 100 else f"{self.ratio:.0f} x"
        return (self.number, self.work, self.ours, self.theirs, ratio, self.target, self.how)


def run(
    line: Line,
    *,
    stdin: Path | None = None,
    stdout: Path | None = None,
    nodelay: bool = False,
    expect: int = 0,
    with_peak: bool = False,
    timeout: float = TIMEOUT_S,
) -> Timed:
    """Runs one process to its end, in a process group of its own. Raises RunFailed unless its status is `expect`.

    `nodelay` gives it TCP_NODELAY=1, which DCMTK's tools obey. `with_peak` looks at its memory every few milliseconds.
    """
    with (
        open(stdin or os.devnull, "rb") as source,
        open(stdout or os.devnull, "wb") as sink,
        open(os.devnull, "r+b") as null,
    ):
        begun = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in line], stdin=source, stdout=sink, stderr=null,
            env=environment(nodelay=nodelay), start_new_session=True,
        )  # fmt: skip
        killer = threading.Timer(timeout, _kill, [process.pid])
        killer.start()
        highest = 0
        try:
            while with_peak and process.poll() is None:
                highest = max(highest, peak_of(process.pid))
                time.sleep(_LOOK_S)
            process.wait()
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            killer.cancel()
        seconds = time.perf_counter() - begun
    if process.returncode != expect:
        raise RunFailed(f"ended with {process.returncode}: {shown(line)}")
    return Timed(seconds, highest)


def peak_of(process_id: int) -> int:
    """The peak resident set of a running process, in octets; 0 where the kernel does not tell.

    Not ru_maxrss, which of a child is never less than what its parent held when it started it.
    """
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def in_turn(runs: int, *works: Callable[[int], Timed], warm_up: bool = True) -> list[list[Timed]]:
    """Does each work `runs` times, in turn; gives the times of each. Works are handed the number of the run.

    One round before the first is not counted: it warms the page cache and the peers.
    """
    if warm_up:
        for work in works:
            work(-1)
    times: list[list[Timed]] = [[] for _ in works]
    for number in range(runs):
        for mine, work in zip(times, works, strict=True):
            mine.append(work(number))
    return times


def median(times: Iterable[Timed]) -> float:
    """The median of the wall times, in seconds."""
    return statistics.median(timed.seconds for timed in times)


def ratio(ours: Iterable[Timed], theirs: Iterable[Timed]) -> float:
    """How many times the median of theirs is the median of ours."""
    return median(theirs) / median(ours)


def peak(times: Iterable[Timed]) -> int:
    """The highest peak of all runs, in octets."""
    return max(timed.peak_octets for timed in times)


def words(times: Sequence[Timed]) -> str:
    """The median, with the fastest and the slowest run: `1.23 s (1.20-1.31)`; in ms below 1 s."""
    values = [timed.seconds for timed in times]
    scale, unit, digits = (1, "s", 2) if statistics.median(values) >= 1 else (1000, "ms", 0)
    chosen = (statistics.median(values), min(values), max(values))
    middle, low, high = (f"{scale * value:.{digits}f}" for value in chosen)
    return f"{middle} {unit}" if len(values) == 1 else f"{middle} {unit} ({low}-{high})"


def megabytes(octets: float) -> str:
    """`123 MB`, of 1,000,000 octets; `?` for 0."""
    return f"{octets / 1e6:,.0f} MB" if octets else "?"


def table(rows: Iterable[Row]) -> Iterable[str]:
    """The lines of a Markdown table, each as soon as its row is there."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"|{' --- |' * len(HEADINGS)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row.cells())} |"


def environment(*, nodelay: bool = False) -> dict[str, str]:
    """Ours, but for what makes every Python start anew: compiled modules are kept, as they are once installed."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    settings = {name: value for name, value in peers.environment(nodelay).items() if name not in dropped}
    return {name: value for name, value in settings.items() if not name.startswith("DCMSYNC_")}


def shell(*lines: Line) -> list[str]:
    """One process that runs a pipe of several and fails when one of them does."""
    return ["bash", "-o", "pipefail", "-c", " | ".join(shown(line) for line in lines)]


def shown(line: Line) -> str:
    """A command as one types it."""
    return shlex.join(str(word) for word in line)


def say(text: str) -> None:
    """Tells people how far we are."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def versions() -> list[str]:
    """The programs and libraries of this run, and the machine."""
    from importlib.metadata import version

    def first_number(*line: str) -> str:
        try:
            done = subprocess.run([peers.find_program(line[0]), *line[1:]], capture_output=True, text=True, check=False)
        except peers.PeerMissing:
            return "not installed"
        found = re.search(r"\d+\.\d[\w.+-]*", done.stdout + done.stderr)
        return found[0] if found else "of unknown version"

    programs = {
        "DCMTK": first_number("getscu", "--version"),
        "Orthanc": first_number("Orthanc", "--version"),
        "jq": first_number("jq", "--version"),
        **{name: version(name) for name in ("dcmsync", "pydicom", "pynetdicom", "anyio", "msgspec")},
    }
    kernel = f"{os.uname().sysname} {os.uname().release.partition('-')[0]}"
    return [
        ", ".join(f"{name} {number}" for name, number in programs.items()),
        f"Python {sys.version.split()[0]}, {kernel}, {os.cpu_count()} cores, loopback",
    ]


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
