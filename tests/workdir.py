"""Runs the real executable in a fresh folder, with an environment of its own, and tells what came of it.

    done = workdir.run("filter", "Modality=CT", stdin=lines)
    assert done.status == 0, done
    assert done.records == [...]

Standard input is /dev/null unless `stdin` is given (then it is a pipe). A finished run prints as the command line,
both streams and the status, so that a failing assert shows all there is to know.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 50.0


@dataclass(frozen=True)
class Done:
    """A run that has ended. `status` is as a shell sees it: 128 + N where signal N ended the process."""

    line: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[bytes]:
        """Standard output by line, without line ends."""
        return self.stdout.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON, one object a line."""
        return [json.loads(line) for line in self.lines]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The records of one type."""
        return [record for record in self.records if record.get("type") == kind]

    def __str__(self) -> str:
        return (
            f"\n$ dcmsync {' '.join(self.line)}\n--- stdout ({len(self.stdout)} octets)\n"
            f"{self.stdout[:4000].decode(errors='replace')}\n--- stderr\n{self.stderr[:4000]}\n--- status {self.status}"
        )

    __repr__ = __str__


@dataclass(frozen=True)
class Workdir:
    """A folder to run things in; XDG folders and HOME lie below it."""

    path: Path
    program: tuple[str, ...] = (sys.executable, "-m", "dcmsync")

    def run(
        self,
        *arguments: str | Path,
        stdin: bytes | str | Iterable[Mapping[str, object]] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> Done:
        """Runs dcmsync to its end. `stdin`: octets, text, or records to be written as NDJSON."""
        process = self.start(*arguments, env=env, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(_octets(stdin), timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"no end after {timeout:g} s: {_done(arguments, process, stdout, stderr)}") from None
        return _done(arguments, process, stdout, stderr)

    def start(
        self, *arguments: str | Path, stdin: int | None = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts dcmsync and returns at once; all given streams are pipes. For signals, and readers that go away."""
        return subprocess.Popen(
            [*self.program, *map(str, arguments)],
            cwd=self.path,
            env={**self.environment(), **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def environment(self) -> dict[str, str]:
        """The environment of a run: none of the caller's DCMSYNC_* settings, none of their files, no fixed width."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DCMSYNC_", "XDG_")) and name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM")
        }
        folders = {
            f"XDG_{kind}_HOME": str(self.path / ".xdg" / kind.lower()) for kind in ("CONFIG", "CACHE", "STATE", "DATA")
        }
        return {**kept, **folders, "HOME": str(self.path), "PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8"}


def interrupt(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGINT) -> None:
    """Sends one signal to a run."""
    process.send_signal(how)


_ROOT = Path(__file__).resolve().parent.parent


def _done(arguments: tuple[str | Path, ...], process: subprocess.Popen[bytes], stdout: bytes, stderr: bytes) -> Done:
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Done(tuple(map(str, arguments)), status, stdout, stderr.decode(errors="replace"))


def _octets(stdin: bytes | str | Iterable[Mapping[str, object]] | None) -> bytes | None:
    if stdin is None or isinstance(stdin, bytes):
        return stdin
    if isinstance(stdin, str):
        return stdin.encode()
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in stdin)
