"""How many associations with one place to use at a time: a rule, from what was done to a number.

Owns the number: more while that makes the whole faster, fewer when the place says that it has too many. Refuses to open
anything, and to read a clock: `now` is handed in, in seconds of the monotonic clock.

Theory of operation. Work is measured over a window, in instances and octets. While all associations are busy and more
work waits, the number is doubled, and after the first time that this brought too little, or that the place complained,
it grows by one. What brought less than a third of what it could have brought is taken back, and tried again after a
pause that gets longer. A place that rejects an association while it grants others has said what it grants: half of that
is used from then on, growing again, but never beyond it in this run. One that is out of resources gets half, too.
"""

WINDOW_S = 0.4  # how long to measure, at least
TOGETHER = 4  # and over how many instances of each association
START = 4  # associations to begin with, where so many are allowed
_OCTETS = 65_536  # that cost about as much as an instance by itself
_GAIN = 1 / 3
_FIRST_PAUSE_S, _LAST_PAUSE_S = 5.0, 80.0
_CALM_S = 1.0  # what several associations complain of at a time is one complaint


class Pace:
    """The pace at one place. `size` is how many associations to use now, from 1 to `most`."""

    def __init__(self, most: int, start: int = START) -> None:
        self.size = max(1, min(start, most))
        self._ceiling = max(1, most)
        self._doubles = True
        self._done = 0
        self._work = 0.0
        self._since: float | None = None
        self._before: tuple[int, float] | None = None  # size and rate that a trial is compared with
        self._pause_s = _FIRST_PAUSE_S
        self._paused_until = 0.0
        self._calm_until = 0.0

    def done(self, octets: int) -> bool:
        """An instance was moved. True when it is time to look."""
        self._done += 1
        self._work += 1 + octets / _OCTETS
        return self._done >= TOGETHER * self.size

    def look(self, now: float, *, is_busy: bool) -> None:
        """Judges what was done since the last look. `is_busy`: all associations are in use, and work waits."""
        if not is_busy or self._since is None:
            self._begin(now)
        elif now - self._since >= WINDOW_S and self._done >= TOGETHER * self.size:
            rate = self._work / (now - self._since)
            self._judge(rate, now)
            self._begin(now)

    def rejected(self, others: int, now: float) -> None:
        """The place rejected an association while it granted so many others, or was negotiating them."""
        self._ceiling = max(1, min(self._ceiling, others))
        if now < self._calm_until:  # as several that were opened together are rejected one by one
            self.size = min(self.size, self._ceiling)
        else:
            self._halve(self._ceiling, now)

    def congested(self, now: float) -> None:
        """The place said that it is out of resources."""
        if now >= self._calm_until:
            self._ceiling = self.size
            self._halve(self.size, now)

    def _judge(self, rate: float, now: float) -> None:
        if self._before is not None:
            size, slower = self._before
            self._before = None
            if rate < slower * (1 + _GAIN * (self.size / size - 1)):
                self.size = size
                self._doubles = False
                self._paused_until = now + self._pause_s
                self._pause_s = min(2 * self._pause_s, _LAST_PAUSE_S)
                return
        if now >= self._paused_until and self.size < self._ceiling:
            self._before = self.size, rate
            self.size = min(self._ceiling, 2 * self.size if self._doubles else self.size + 1)

    def _halve(self, size: int, now: float) -> None:
        self.size = (size + 1) // 2  # of one, one
        self._doubles = False
        self._before = None
        self._calm_until = now + _CALM_S
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._since, self._done, self._work = now, 0, 0.0
