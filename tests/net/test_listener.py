"""The acceptor: its limits, its deadlines, and that nothing a visitor does ends it."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from dcmsync.errors import LocalTrouble
from dcmsync.net import listener as listening
from dcmsync.net.channel import Begun, Limits
from dcmsync.net.listener import Listener, Settings, Visit
from dcmsync.net.patience import Watch
from dcmsync.wire.dimse import operations
from dcmsync.wire.upperlayer import codec, contexts
from tests.nodes import Caller
from tests.samples import EXPLICIT_LITTLE

ECHO = [(operations.VERIFICATION, (EXPLICIT_LITTLE,))]
ABORT = b"\x07\0\0\0\0\x04\0\0"


class Log:
    """What a listener told of its visitors, and how many there were."""

    def __init__(self) -> None:
        self.closed: list[Exception | None] = []
        self.turned_away: list[Exception] = []


def decide(request: codec.AssociateRequest) -> codec.AssociateAccept | codec.AssociateReject:
    if request.called_ae != "DCMSYNC":
        return codec.AssociateReject(1, 1, 7)
    results, roles = contexts.answer(request, {operations.VERIFICATION: (EXPLICIT_LITTLE,)})
    return codec.AssociateAccept(
        called_ae=request.called_ae, calling_ae=request.calling_ae, results=results, roles=roles, max_pdu_octets=16384
    )


async def echo(visit: Visit) -> None:
    """Answers C-ECHO for ever."""
    while not visit.is_ending:
        visit.is_idle = True
        for event in await visit.channel.messages():
            visit.is_idle = False
            assert isinstance(event, Begun)
            await visit.channel.say(event.context_id, operations.respond(event.command, 0))


def run(
    script: Callable[[Listener], None],
    *,
    serve: Callable[[Visit], Awaitable[None]] = echo,
    timeout_s: float = 20.0,
    connect_s: float = 20.0,
    **more: Any,
) -> Log:
    """Runs `script` in a thread against a listener, and stops the listener."""
    log = Log()

    async def main() -> None:
        with Watch() as watch:
            settings = Settings(
                host="127.0.0.1", port=0, decide=decide, serve=serve,
                closed=lambda visit, why: log.closed.append(why),
                turned_away=lambda address, why: log.turned_away.append(why), **more,
            )  # fmt: skip
            listener = Listener(settings, Limits(timeout_s=timeout_s, connect_s=connect_s), watch)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.run)
                await anyio.to_thread.run_sync(script, listener)
                listener.stop()

    anyio.run(main)
    return log


def talk(caller: Caller) -> None:
    """One C-ECHO."""
    caller.say(1, operations.echo(7).request)
    response, _ = caller.hear()
    assert (response.field, response.responding_to, response.status) == (0x8030, 7, 0)


def test_a_visitor_is_served_and_leaves_in_peace() -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller:
            caller.associate(ECHO)
            talk(caller)
            caller.socket.sendall(codec.RELEASE_RQ)
            assert caller.pdu() == codec.RELEASE_RP
            assert caller.is_closed()

    assert run(script).closed == [None]


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\x01\0\x80\0\0\0",
        b"\x04\0\x7f\xff\xff\xff",
        b"\x01\0\0\0\0\x10" + bytes(16),
        codec.RELEASE_RQ,
        bytes(64),
    ],
    ids=["http", "tls", "2 GiB request", "2 GiB of data", "empty request", "release first", "zeros"],
)
def test_garbage_is_aborted_at_once_and_the_node_lives_on(octets: bytes) -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller:
            caller.socket.sendall(octets)
            assert caller.pdu()[:8] == ABORT
            assert caller.is_closed()
        with Caller(listener.port) as caller:
            caller.associate(ECHO)
            talk(caller)

    log = run(script)
    assert len(log.turned_away) == 1 and len(log.closed) == 1


def test_who_says_nothing_is_let_go() -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller:
            assert caller.is_closed()

    assert len(run(script, connect_s=0.1).turned_away) == 1


def test_who_drips_a_request_is_let_go() -> None:
    request = codec.encode_request(
        codec.AssociateRequest(
            called_ae="DCMSYNC", calling_ae="SLOW", contexts=(codec.ProposedContext(1, *ECHO[0]),)
        )
    )

    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller:
            caller.socket.settimeout(0.02)
            for octet in request[:-1]:
                try:
                    caller.socket.sendall(bytes((octet,)))
                    while caller.socket.recv(100):
                        pass
                    return
                except TimeoutError:
                    continue
                except ConnectionError:
                    return
            pytest.fail("a request of one octet every 20 ms was waited for")

    run(script, connect_s=0.3)


def test_who_is_idle_for_too_long_is_let_go() -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller:
            caller.associate(ECHO)
            talk(caller)
            assert caller.is_closed()

    assert [type(why).__name__ for why in run(script, timeout_s=0.2).closed] == ["Stalled"]


def test_a_fragment_that_is_never_the_last_ends_the_association() -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller:
            caller.associate(ECHO)
            fragment = b"\x04\0\0\0\x04\x06\0\0\x04\x02\x01\x01" + bytes(1024)  # of a command set, without end
            try:
                for _ in range(10_000):
                    caller.socket.sendall(fragment)
            except ConnectionError:
                return
            pytest.fail("10 MB of one command set were taken")

    assert [type(why).__name__ for why in run(script).closed] == ["RemoteProtocolError"]


def test_a_rejected_visitor_hears_why() -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller:
            assert caller.request(ECHO, called="OTHER") == codec.encode_reject(codec.AssociateReject(1, 1, 7))

    log = run(script)
    assert "called AE title not recognised" in str(log.turned_away[0]) and not log.closed


def test_one_too_many_is_told_to_come_again() -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as first, Caller(listener.port) as second, Caller(listener.port) as third:
            first.associate(ECHO)
            second.associate(ECHO)
            assert third.request(ECHO) == codec.encode_reject(codec.AssociateReject(2, 3, 2))
            talk(first)
            first.socket.sendall(codec.RELEASE_RQ)
            assert first.pdu() == codec.RELEASE_RP
            assert first.is_closed()
            with Caller(listener.port) as fourth:
                fourth.associate(ECHO)
                talk(fourth)

    run(script, max_associations=2)


def test_connections_that_ask_for_nothing_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "WAITING_CONNECTIONS", 1)

    def script(listener: Listener) -> None:
        with Caller(listener.port) as first, Caller(listener.port) as second, Caller(listener.port) as third:
            second.associate(ECHO)
            third.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):  # `first` and `second` fill the house
                third.request(ECHO)
            first.socket.close()
            third.socket.settimeout(20)
            assert third.pdu()[:1] == b"\x03"  # `second` is the only one that may be associated

    run(script, max_associations=1)


def test_a_handler_that_fails_takes_no_one_with_it() -> None:
    async def fail(visit: Visit) -> None:
        if visit.calling_ae == "BAD":
            raise KeyError("of a handler")
        await echo(visit)

    def script(listener: Listener) -> None:
        with Caller(listener.port) as good, Caller(listener.port) as bad:
            good.associate(ECHO)
            bad.associate(ECHO, calling="BAD")
            assert bad.pdu()[:8] == ABORT
            talk(good)

    assert sorted(type(why).__name__ for why in run(script, serve=fail).closed) == ["Disconnected", "KeyError"]


def test_a_decision_that_fails_takes_no_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(listener: Listener) -> None:
        with Caller(listener.port) as caller, monkeypatch.context() as patched:
            patched.setattr(contexts, "answer", lambda *_: 1 / 0)
            assert caller.request(ECHO)[:8] == ABORT
        with Caller(listener.port) as caller:
            caller.associate(ECHO)
            talk(caller)

    assert [type(why).__name__ for why in run(script).turned_away] == ["ZeroDivisionError"]


def test_stopping_lets_work_finish_and_idle_visitors_go() -> None:
    held = anyio.Event()
    begun = anyio.Event()

    async def slow(visit: Visit) -> None:
        if visit.calling_ae == "IDLE":
            await echo(visit)
            return
        for event in await visit.channel.messages():
            visit.is_idle = False
            begun.set()
            await held.wait()
            assert isinstance(event, Begun)
            await visit.channel.say(event.context_id, operations.respond(event.command, 0))

    async def main() -> None:
        with Watch() as watch:
            settings = Settings(host="127.0.0.1", port=0, decide=decide, serve=slow)
            listener = Listener(settings, Limits(), watch)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.run)
                with await in_thread(Caller, listener.port) as busy, await in_thread(Caller, listener.port) as idle:
                    await in_thread(lambda: busy.associate(ECHO))
                    await in_thread(lambda: idle.associate(ECHO, calling="IDLE"))
                    silent = await in_thread(Caller, listener.port)
                    busy.say(1, operations.echo(7).request)
                    await begun.wait()
                    listener.stop()
                    assert await in_thread(idle.is_closed)
                    assert await in_thread(silent.is_closed)
                    silent.socket.close()
                    with pytest.raises(ConnectionError):
                        await in_thread(Caller, listener.port)
                    held.set()
                    response, _ = await in_thread(busy.hear)
                    assert response.status == 0

    async def in_thread(call: Callable[..., Any], *arguments: object) -> Any:
        return await anyio.to_thread.run_sync(call, *arguments)

    anyio.run(main)


def test_a_port_that_is_taken_is_trouble_of_this_machine() -> None:
    with socket.socket() as taken, Watch() as watch:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(host="127.0.0.1", port=taken.getsockname()[1], decide=decide, serve=echo)
        with pytest.raises(LocalTrouble, match="cannot listen"):
            Listener(settings, Limits(), watch)
        with pytest.raises(LocalTrouble, match="no such address"):
            Listener(Settings(host="nowhere.invalid", port=0, decide=decide, serve=echo), Limits(), watch)


def test_pieces_of_a_chunk_are_bounded_whatever_pdu_the_peer_wants() -> None:
    sizes: list[int] = []

    async def note(visit: Visit) -> None:
        sizes.append(visit.channel.chunk_octets)
        await echo(visit)

    def script(listener: Listener) -> None:
        for max_pdu_octets in (8, 16384):
            with Caller(listener.port) as caller:
                caller.associate(ECHO, max_pdu_octets=max_pdu_octets)
                talk(caller)

    run(script, serve=note)
    assert sizes == [2 * 1024, 16378 * 64]


def test_a_connection_that_came_to_nothing_leaves_its_number_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_FAREWELL_S", 0.05)

    def script(listener: Listener) -> None:
        for _ in range(3):
            with Caller(listener.port) as caller:
                assert caller.request(ECHO, called="ANOTHER")[:1] == b"\x03"
                caller.is_closed()
            with Caller(listener.port) as caller:
                caller.associate(ECHO)
                talk(caller)
                talk(caller)

    log = run(script)
    assert len(log.closed) == 3
