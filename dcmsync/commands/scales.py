"""A receiver that weighs the one instance that was wanted and keeps nothing, for who only looks at how a place gives.

Owns when enough has been seen. Refuses to write anything anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dcmsync.contract import Arrival, Want

_NOT_WANTED = 0xC000


class Scales:
    """A receiver and its sink. `begun`: its first octets have come; `came`: all of it has."""

    def __init__(self, want: Want, *, enough: Callable[[], None] | None = None) -> None:
        """`enough` is called as soon as an instance has begun, by who needs no more of it."""
        self.octets = 0
        self.begun = False
        self.came = False
        self._wanted = frozenset(want.instances)
        self._enough = enough

    def receive(self, arrival: Arrival) -> Scales | int:
        """Itself, for what was asked for; else 0xC000."""
        return self if arrival.sop_instance_uid in self._wanted else _NOT_WANTED

    async def room(self) -> None:
        """There is always room."""

    def adopt(self) -> bool:
        """There is nothing to adopt."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Weighs them."""
        self.octets += sum(map(len, pieces))
        self.begun = True
        if self._enough is not None:
            self._enough()

    def finish(self) -> int:
        """It has come."""
        self.came = True
        return 0

    def discard(self, why: str) -> None:
        """Nothing was kept."""
