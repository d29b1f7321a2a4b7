"""Which failures are worth another try, and how long to wait before it. Refuses to wait itself."""

from dcmsync.errors import PeerError, Refused, Rejected, RemoteProtocolError

ROUNDS = 3  # how often a series is asked for before what lacks is given up


def delay_s(attempt: int, dice: float) -> float:
    """Seconds to wait before try number `attempt` (from 1): 0.2, 0.4, 0.8 … at most 10, with half of it jitter.

    `dice` is a random number from 0 to 1.
    """
    longest: float = min(0.2 * 2 ** (attempt - 1), 10.0)
    return longest * (0.5 + dice / 2)


def is_worth_it(error: PeerError) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, Rejected):
        return error.transient
    return not isinstance(error, Refused | RemoteProtocolError)
