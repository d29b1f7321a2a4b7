"""`dcmsync serve` as a peer: started on a free port, its peak of memory read, and stopped in an orderly way."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import measure
from bench.measure import DCMSYNC, RunFailed

STOP_TIMEOUT_S = 30.0


@dataclass
class Node:
    """A running `serve`. `peak_octets` is known when it has been stopped."""

    ae: str
    host: str
    port: int
    peak_octets: int = 0

    @property
    def locator(self) -> str:
        """AET@host:port."""
        return f"{self.ae}@{self.host}:{self.port}"


@contextmanager
def serving(folder: Path) -> Iterator[Node]:
    """Serves `folder` while in the `with`. Raises RunFailed when it does not start, or ends other than with 0."""
    line = [*DCMSYNC, "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=measure.environment())
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise RunFailed(f"serve did not start: {measure.shown(line)}")
        event = json.loads(first)
        node = Node(event["ae"], event["host"], event["port"])
        yield node
        node.peak_octets = measure.peak_of(process.pid)
        process.send_signal(signal.SIGTERM)
        if process.wait(STOP_TIMEOUT_S):
            raise RunFailed(f"serve ended with {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
