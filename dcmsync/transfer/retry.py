"""Which failures are worth another try, how long to wait before it, and when a place is taken for down.

Refuses to wait itself, and to read a clock: `now` is handed in, in seconds of the monotonic clock.
"""

from dcmsync.errors import PeerError, Refused, Rejected, RemoteProtocolError, Stalled, Unreachable

ROUNDS = 3  # how often a series is asked for before what lacks is given up
PATIENCE = 8  # how often a node that says "for now" is tried again: about 20 s in all
DOWN_S = 30.0  # how long a place that could not be reached is not tried again


def delay_s(attempt: int, dice: float) -> float:
    """Seconds to wait before try number `attempt` (from 1): 0.2, 0.4, 0.8 … at most 10, with half of it jitter.

    `dice` is a random number from 0 to 1.
    """
    longest: float = min(0.2 * 2 ** (attempt - 1), 10.0)
    return longest * (0.5 + dice / 2)


def is_worth_it(error: PeerError) -> bool:
    """Whether the same call may succeed soon. A rejected association is for the caller to judge."""
    return not isinstance(error, Refused | RemoteProtocolError | Rejected)


class Breaker:
    """Remembers places that could not be reached, so that a million records do not wait for each in turn."""

    def __init__(self) -> None:
        self._down: dict[str, tuple[PeerError, float]] = {}

    def trip(self, place: str, error: PeerError, now: float) -> None:
        """A call to `place` ended with `error`; unreachable, rejecting and stalled ones are taken for down."""
        if isinstance(error, Unreachable | Rejected | Stalled):
            self._down.setdefault(place, (error, now + DOWN_S))

    def is_down(self, place: str, now: float) -> PeerError | None:
        """Why `place` is taken for down; None when it is not, or no longer."""
        error, until = self._down.get(place, (None, 0.0))
        if error is not None and now > until:
            del self._down[place]
            return None
        return error
