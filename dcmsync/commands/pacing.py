"""When a run has done enough: `--max-duration` and `--max-transfer`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import anyio

from dcmsync.commands.options import Meter, Streams


class Bounds:
    """How much one run may do. `stop` is called once, when a bound is reached. `reached` names the option then."""

    def __init__(self, arguments: Namespace, streams: Streams, stop: Callable[[], None]) -> None:
        self.reached = ""
        self._duration_s: float | None = arguments.max_duration
        self._octets: int | None = arguments.max_transfer
        self._streams = streams
        self._stop = stop

    async def mind_duration(self) -> None:
        """Stops the run when its time is over."""
        if self._duration_s is not None:
            await anyio.sleep(self._duration_s)
            self.reach("--max-duration")

    def watched(self, meter: Meter) -> Meter:
        """A meter that stops the run when as many octets were brought as may be."""
        return meter if self._octets is None else _Limited(meter, self._octets, lambda: self.reach("--max-transfer"))

    def reach(self, option: str) -> None:
        """A bound is reached."""
        if not self.reached:
            self.reached = option
            self._streams.say(f"{option} is reached: finishing the series in flight; run it again to go on")
            self._stop()


class _Limited:
    """A meter that tells when as many octets were brought as may be."""

    def __init__(self, meter: Meter, most: int, reached: Callable[[], None]) -> None:
        self._meter = meter
        self._left = most
        self._reached = reached

    def total(self, instances: int | None, provisional: bool) -> None:
        """Shows."""
        self._meter.total(instances, provisional)

    def close(self) -> None:
        """Takes it away."""
        self._meter.close()

    def advance(self, instances: int, octets: int) -> None:
        """Counts, and shows."""
        self._meter.advance(instances, octets)
        self._left -= octets
        if self._left <= 0:
            self._reached()
