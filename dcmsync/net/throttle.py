"""How fast octets may flow through all connections of a run together.

Owns the debt: whoever moved octets pays for them by waiting, in turn. Refuses to know why the rate is what it is.
"""

from collections.abc import Callable

import anyio

LONGEST_S = 1.0  # how long to wait before the rate is looked up again; it may have changed
BURST_S = 0.1  # how long a pause may be made up for


class Throttle:
    """One for a run. `rate` gives octets a second, None for no limit."""

    def __init__(self, rate: Callable[[], float | None]) -> None:
        self._rate = rate
        self._turn = anyio.Lock()
        self._paid_until = 0.0  # on the loop's clock

    async def pay(self, octets: int) -> None:
        """Returns when the octets that were moved are paid for."""
        owed = float(octets)
        async with self._turn:
            while owed > 0:
                rate = self._rate()
                now = anyio.current_time()
                if rate is None:
                    self._paid_until = now
                    return
                begun = max(self._paid_until, now - BURST_S)
                part = min(owed, max(rate * (now + LONGEST_S - begun), 1.0))
                self._paid_until = begun + part / rate
                owed -= part
                if self._paid_until > now:
                    await anyio.sleep(self._paid_until - now)
