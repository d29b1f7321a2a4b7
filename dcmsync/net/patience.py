"""Deadlines on progress, enforced by closing the socket.

Theory of operation: one daemon thread looks at every guarded socket a few times per deadline. Progress is what the
caller marks (an answer, a finished instance), or wanted payload at `FLOOR_OCTETS_PER_S` and above: a peer that drips
is not progressing. When the deadline passes, the thread shuts the socket down, which wakes whatever waits on it; the
waiter then finds `expired` set and raises Stalled. A thread, not a timer of the event loop: no cost on the hot path,
and no wait can escape it. Time is the monotonic clock's.
"""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Protocol

FLOOR_OCTETS_PER_S = 16384
_TICKS_PER_DEADLINE = 8


class Shuts(Protocol):
    """What can be shut down as a socket can, so that whoever waits on it wakes."""

    def shutdown(self, how: int, /) -> None: ...


class Guard:
    """The deadline of one socket, or of what is shut down like one. One task writes the counters, the watch reads."""

    def __init__(self, guarded: Shuts, *, timeout_s: float, whole_s: float) -> None:
        self.marks = 0
        self.octets = 0
        self.armed = False
        self.expired = ""
        self._socket = guarded
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + whole_s
        self._seen = (0, 0)
        self._since = self._looked = time.monotonic()

    @property
    def tick_s(self) -> float:
        """How often this guard wants to be looked at, in seconds."""
        return min(max(self._timeout_s / _TICKS_PER_DEADLINE, 0.01), 1.0)

    def progress(self) -> None:
        """Something came that moves the work on."""
        self.marks += 1

    def arm(self) -> None:
        """From now on the peer owes us progress."""
        self.marks += 1
        self._since = time.monotonic()
        self.armed = True

    def disarm(self) -> None:
        """Nothing is owed until `arm`."""
        self.armed = False

    def pause(self) -> None:
        """It is we who make the peer wait."""
        self.armed = False

    def resume(self) -> None:
        """The peer owes progress again. By itself this is none."""
        self.armed = True

    def look(self, now: float) -> None:
        """Judges the time since the last progress; shuts the socket down when it was too long."""
        marks, octets = self._seen
        looked, self._looked = self._looked, now
        if not self.armed:
            self._since = min(self._since + now - looked, now)  # our own time is not the peer's, but no progress either
        elif self.marks != marks or self.octets - octets >= FLOOR_OCTETS_PER_S * max(now - self._since, 1e-3):
            self._since = now
            self._seen = (self.marks, self.octets)
        elif now - self._since > self._timeout_s:
            self._expire(f"no progress for {self._timeout_s:g} s")
        if now > self._ends:
            self._expire("the association has lasted longer than allowed")

    def _expire(self, why: str) -> None:
        if not self.expired:
            self.expired = why
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class Watch:
    """Looks at all guards; a context manager around everything that uses the network."""

    def __init__(self) -> None:
        self._guards: set[Guard] = set()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._over = False

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join()

    def guard(self, guarded: socket.socket, *, timeout_s: float, whole_s: float) -> Guard:
        """Begins to guard a socket; not yet armed."""
        guard = Guard(guarded, timeout_s=timeout_s, whole_s=whole_s)
        with self._lock:
            self._guards.add(guard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dcmsync-watch", daemon=True)
                self._thread.start()
        self._changed.set()
        return guard

    def forget(self, guard: Guard) -> None:
        """Ends the guarding of a socket that is about to be closed."""
        with self._lock:
            self._guards.discard(guard)

    def _run(self) -> None:
        while not self._over:
            with self._lock:
                guards = list(self._guards)
            now = time.monotonic()
            for guard in guards:
                guard.look(now)
            self._changed.wait(min((guard.tick_s for guard in guards), default=None))
            self._changed.clear()
