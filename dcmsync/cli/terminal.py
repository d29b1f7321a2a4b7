"""Words for people, on standard error: the only file that writes there.

Messages come as text or, with --log-format json, as one JSON object a line. Whatever a peer or a file supplied may
stand in a message, so every control character is shown, never sent: no message can move the cursor, set the title
or ring the bell. Writing never fails: a standard error that is closed or full is no reason to end a transfer.

The progress bar draws on a terminal only, and rich is imported only then.
"""

import os
import sys
import time
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Severity = Literal["error", "warning", "info"]

# C0 and C1 controls, DEL, line and paragraph separators, and what turns the direction of the text around it.
_TURNING = [0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_UNPRINTABLE = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, *_TURNING]
_SHOWN = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNPRINTABLE}


def printable(text: str) -> str:
    """The text on one line, with every control character written out (`\\x1b`), and no lone surrogate."""
    return text.translate(_SHOWN).encode("utf-8", "backslashreplace").decode("utf-8")


def has_colour(stream: TextIO | None) -> bool:
    """Whether colour may be sent: a terminal, no NO_COLOR, and a TERM that is not dumb."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is open and a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


class Messages:
    """One process's voice. `verb` is empty until it is known."""

    def __init__(self, *, verb: str, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.verb = verb
        self.verbose = verbose
        self.as_json = as_json
        self.quiet = quiet

    def error(self, text: str) -> None:
        """Says what ended the run, or failed."""
        self._write("error", text)

    def warn(self, text: str) -> None:
        """Says what may surprise; not with -q."""
        if not self.quiet:
            self._write("warning", text)

    def say(self, text: str) -> None:
        """Says one line; not with -q."""
        if not self.quiet:
            self._write("info", text)

    def note(self, text: str) -> None:
        """Says one line, only with -v."""
        if self.verbose and not self.quiet:
            self._write("info", text)

    def block(self, text: str) -> None:
        """Says several lines of an error as they are: help after a wrong command, a traceback that was asked for."""
        if self.as_json:
            self._write("error", text)
        else:
            _put("".join(f"{printable(line)}\n" for line in text.splitlines()))

    def _write(self, severity: Severity, text: str) -> None:
        if self.as_json:
            _put(_json_line(severity, self.verb, text))
            return
        name = f"dcmsync {self.verb}" if self.verb else "dcmsync"
        word = "warning: " if severity == "warning" else ""
        _put(f"{name}: {word}{printable(text)}\n")


class Progress:
    """A bar on standard error: counts, instances/s, MB/s and the time left. Silent where that is no terminal.

    The total may be unknown, or provisional while more work is still being read; then it is shown as "at least".
    """

    def __init__(self, *, shown: bool) -> None:
        self._instances = 0
        self._octets = 0
        self._total: int | None = None
        self._provisional = True
        self._started = time.monotonic()
        self._bar: RichProgress | None = _open_bar() if shown else None
        self._task = self._bar.add_task("", total=None, count="", rate="") if self._bar else None

    def total(self, instances: int | None, provisional: bool) -> None:
        """Sets how many instances there are to do; None where nobody knows."""
        self._total = instances
        self._provisional = provisional
        if self._bar and self._task is not None:
            self._bar.update(self._task, total=None if provisional else instances, count=self._count())

    def advance(self, instances: int, octets: int) -> None:
        """Adds what was done just now."""
        self._instances += instances
        self._octets += octets
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._instances, count=self._count(), rate=self._rate())

    def step_aside(self) -> None:
        """Clears the bar's line, for a line of something else; the bar comes back by itself, below."""
        if self._bar:
            self._bar.console.file.write("\r\x1b[2K")
            self._bar.console.file.flush()

    def refresh(self) -> None:
        """Draws now; else it is drawn five times a second."""
        if self._bar:
            self._bar.refresh()

    def close(self) -> None:
        """Takes the bar away. Idempotent."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count(self) -> str:
        if self._total is None:
            return f"{self._instances:,} instances"
        return f"{self._instances:,} of {'at least ' if self._provisional else ''}{self._total:,} instances"

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-3)
        return f"{self._instances / seconds:,.0f}/s {self._octets / seconds / 1e6:,.1f} MB/s"


def _open_bar() -> "RichProgress":
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, no_color=not has_colour(sys.stderr))
    columns = (
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Bar(*columns, console=console, transient=True, redirect_stdout=False, refresh_per_second=5)
    bar.start()
    return bar


def prepare() -> None:
    """Makes standard error speak UTF-8, whatever the locale says."""
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _json_line(severity: Severity, verb: str, text: str) -> str:
    from json import dumps  # lazy: only with --log-format json

    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return dumps({"time": stamp, "level": severity, "verb": verb, "message": printable_lines(text)}) + "\n"


def printable_lines(text: str) -> str:
    """`printable`, but line ends stay."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _put(text: str) -> None:
    # sys.stderr is looked up each time: while the bar is drawn, rich puts a proxy there that writes above the bar.
    stream = sys.stderr
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return
