"""Where the demonstration is played: commands as people type them, run as real processes in one folder.

Owns showing what is done, the node's process, and whether all that was claimed has been proven. Refuses to choose what
is shown: that is the verb's.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any, BinaryIO

import dcmsync
from dcmsync.errors import LocalTrouble
from dcmsync.node.samples import count_same

_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0


class Stage:
    """One play in `folder`, told on `stdout`. `is_proven` until a check fails."""

    def __init__(self, folder: str, stdout: BinaryIO) -> None:
        self._folder = folder
        self._stdout = stdout
        self._environment = _environment(folder)
        self.is_proven = True

    def path(self, name: str) -> str:
        """Where `name` lies in the folder."""
        return os.path.join(self._folder, name)

    def heading(self, words: str) -> None:
        """Begins a part."""
        self.text(f"\n=== {words} ===\n")

    def text(self, words: str) -> None:
        """Tells something."""
        self._stdout.write(words.encode("utf-8", "surrogateescape") + b"\n")
        self._stdout.flush()

    def check(self, claim: str, *, holds: bool) -> None:
        """Tells whether a claim holds."""
        self.is_proven = self.is_proven and holds
        self.text(f"{'proven' if holds else 'NOT'}: {claim}")

    def compare(self, name: str, archive: str, count: int) -> None:
        """Checks that the folder `name` holds `count` instances, all with the data sets of those in `archive`."""
        found = count_same(self.path(name), self.path(archive))
        self.check(f"all {count} data sets are those of the archive, octet for octet", holds=found == count)

    def tree(self, name: str) -> None:
        """Shows the folders below `name`, with a file of each."""
        for folder, folders, files in sorted(os.walk(self.path(name))):
            folders.sort()
            depth = os.path.relpath(folder, self._folder).count(os.sep)
            self.text(f"{'    ' * depth}{os.path.basename(folder)}/")
            for file in sorted(files)[:1]:
                more = f"    (and {len(files) - 1} more)" if len(files) > 1 else ""
                self.text(f"{'    ' * (depth + 1)}{file}{more}")

    def pipe(self, *commands: str, shown: int | None = None) -> list[dict[str, Any]]:
        """Runs commands in a pipe, and tells them and what came out: all of it, or the last `shown` lines.

        Returns the records among it. Every command must end with status 0 in good time.
        """
        self.text("$ " + " \\\n    | ".join(commands))
        output, statuses = self._run(commands)
        lines = output.decode("utf-8", "replace").splitlines()
        if shown is not None and len(lines) > shown:
            self.text(f"({len(lines) - shown} lines before these)")
            lines = lines[-shown:]
        for line in lines:
            self.text(line)
        if any(statuses):
            self.check(f"every command ends with status 0, not with {', '.join(map(str, statuses))}", holds=False)
        return [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]

    @contextmanager
    def serving(self, name: str) -> Iterator[str]:
        """A node over the folder `name`, on a port of its own; gives its locator. Raises LocalTrouble."""
        command = f"dcmsync serve ./{name} --port 0 --quiet"
        self.text(f"\n$ {command} &")
        with subprocess.Popen(
            _program(command), cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as process:
            try:
                yield self._locator(process)
            finally:
                process.terminate()
                with _deadline([process], _STOP_TIMEOUT_S):
                    process.wait()

    def _locator(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None  # it is a pipe
        with _deadline([process], _TIMEOUT_S):
            first = process.stdout.readline()
        if not first:
            raise LocalTrouble("the node of the demonstration did not start")
        self.text(first.decode("utf-8", "replace").rstrip())
        event = json.loads(first)
        return f"{event['ae']}@{event['host']}:{event['port']}"

    def _run(self, commands: tuple[str, ...]) -> tuple[bytes, list[int]]:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for command in commands:
                source = processes[-1].stdout if processes else None
                processes.append(
                    subprocess.Popen(
                        _program(command), cwd=self._folder, env=self._environment,
                        stdin=source or subprocess.DEVNULL, stdout=subprocess.PIPE,
                    )
                )  # fmt: skip
                if source is not None:
                    source.close()  # the reader's alone now, so that the writer hears when the reader goes away
            with _deadline(processes, _TIMEOUT_S):
                output, _ = processes[-1].communicate()
                return output, [process.wait() for process in processes]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()


@contextmanager
def _deadline(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> Iterator[None]:
    """Kills the processes when the block takes longer."""

    def kill() -> None:
        for process in processes:
            process.kill()

    timer = Timer(seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _program(command: str) -> list[str]:
    """What runs a command that begins with `dcmsync`: this very installation."""
    return [sys.executable, "-m", *shlex.split(command)]


def _environment(folder: str) -> dict[str, str]:
    """Ours, without the user's settings of dcmsync, which would change what is shown; this package comes first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DCMSYNC_")}
    ours = os.path.dirname(os.path.dirname(os.path.abspath(dcmsync.__file__)))
    path = os.pathsep.join([ours, *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "XDG_CONFIG_HOME": os.path.join(folder, "no-config")}
