"""How often one HTTP request is sent, and how long to wait before the next time.

Owns the rules: what may be repeated is tried five times, with growing pauses, or when the server says. Refuses to wait
itself, and to repeat a request that may not be.
"""

import random
import time
from email.utils import parsedate_to_datetime

from dcmsync.errors import Disconnected, PeerError, Unreachable

TRIES = 5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 120.0


class Idled(Disconnected):
    """A connection that had been kept was closed before the first octet of the answer."""


class Trials:
    """How often one request was tried, and why."""

    def __init__(self, may_repeat: bool) -> None:
        self.may_repeat = may_repeat
        self.count = 0
        self.redirects = 0
        self.is_renewed = False
        self._has_idled = False

    @property
    def may_go_on(self) -> bool:
        """Whether there may be one more."""
        return self.may_repeat and self.count < TRIES

    def wait_s(self, error: PeerError, *, is_known: bool) -> float:
        """How long to wait after an error. Raises it where that is of no use: a peer that has never answered, and
        cannot be reached or closes the connection twice, is not there.

        A connection that had been kept, and was closed meanwhile, says nothing: the next try comes at once, once.
        """
        is_hopeless = not is_known and (isinstance(error, Unreachable) or self.count > 1)
        if not self.may_go_on or is_hopeless:
            raise error
        if isinstance(error, Idled) and not self._has_idled:
            self._has_idled = True
            return 0.0
        return self._pause_s()

    def asked_wait_s(self, said: str) -> float:
        """How long to wait when that is what Retry-After says (RFC 9110 §10.2.3): seconds, or a date, but never too
        long; as long as ever where nothing is said that can be read.
        """
        if said.strip().isdecimal():
            return min(float(said), LONGEST_WAIT_S)
        try:
            at_s = parsedate_to_datetime(said).timestamp()
        except (ValueError, OverflowError):
            return self._pause_s()
        return min(max(0.0, at_s - time.time()), LONGEST_WAIT_S)

    def _pause_s(self) -> float:
        """0.5, 1, 2, 4 s, with half of it jitter."""
        longest: float = FIRST_WAIT_S * 2 ** (self.count - 1)
        return longest * (0.5 + random.random() / 2)
