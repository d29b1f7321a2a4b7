"""Guards, shown the time: what counts as progress, whose time it is, and what happens when it is up."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dcmsync.net.patience import FLOOR_OCTETS_PER_S, Guard, Watch


class Clock:
    """Looks at a guard at moments of our choosing, in seconds after it was made."""

    def __init__(self, guarded: socket.socket, *, timeout_s: float = 10.0, whole_s: float = 1e6) -> None:
        self.guard = Guard(guarded, timeout_s=timeout_s, whole_s=whole_s)
        self.guard.arm()
        self._begun = time.monotonic()
        self.look(0.0)

    def look(self, seconds: float) -> str:
        self.guard.look(self._begun + seconds)
        return self.guard.expired


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_without_progress_the_socket_is_shut_down(pair: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock(pair[0])
    assert not clock.look(9.9)
    assert clock.look(10.1) == "no progress for 10 s"
    assert pair[0].recv(1) == pair[1].recv(1) == b""


def test_progress_begins_the_deadline_anew(pair: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock(pair[0])
    for at in (9, 18, 27):
        clock.guard.progress()
        assert not clock.look(at)
    assert clock.look(38)


@pytest.mark.parametrize(("per_second", "is_progress"), [(FLOOR_OCTETS_PER_S, True), (FLOOR_OCTETS_PER_S // 2, False)])
def test_octets_are_progress_above_the_floor(
    pair: tuple[socket.socket, socket.socket], per_second: int, is_progress: bool
) -> None:
    clock = Clock(pair[0])
    for at in range(1, 30):
        clock.guard.octets += per_second + 1
        clock.look(at)
    assert bool(clock.guard.expired) is not is_progress


def test_time_that_we_take_is_not_the_peers(pair: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock(pair[0])
    clock.guard.pause()
    for at in range(1, 100):
        assert not clock.look(at)
    clock.guard.resume()
    assert not clock.look(108)
    assert clock.look(110.1)


def test_a_pause_is_no_progress(pair: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock(pair[0])
    expired_at = 0
    for tenth in range(1, 300):  # a peer whose every instance is answered just when the watch looks
        if tenth % 5 == 0:
            clock.guard.pause()
        clock.look(tenth / 10)
        clock.guard.resume()
        if clock.guard.expired:
            expired_at = tenth
            break
    assert 0 < expired_at < 150


def test_nothing_is_owed_before_it_is_armed(pair: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock(pair[0])
    clock.guard.disarm()
    assert not clock.look(1000)
    clock.guard.arm()
    assert not clock.look(1001)


def test_an_association_has_an_end_whatever_the_progress(pair: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock(pair[0], whole_s=60.0)
    for at in range(1, 60):
        clock.guard.progress()
        assert not clock.look(at)
    clock.guard.progress()
    assert "longer than allowed" in clock.look(61)


def test_a_watch_ends_with_its_thread() -> None:
    before = threading.active_count()
    ours, theirs = socket.socketpair()
    with ours, theirs, Watch() as watch:
        guard = watch.guard(ours, timeout_s=0.05, whole_s=60.0)
        guard.arm()
        assert theirs.recv(1) == b""  # the watch shut it down
        watch.forget(guard)
    assert guard.expired
    assert threading.active_count() == before


def test_a_watch_over_nothing_needs_no_thread() -> None:
    before = threading.active_count()
    with Watch():
        assert threading.active_count() == before
