"""The HTTP side as clients meet it that are many, slow, strange or hostile; and how it ends."""

import select
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from http.client import IncompleteRead
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.node.archive import Archive, Opened
from dcmsync.node.index import Image
from dcmsync.node.web import server
from dcmsync.transfer.lander import Lander
from tests import certs, nodes, samples, webclient

pytestmark = pytest.mark.slow

Require = Callable[[str], str]
HEAD = b"Host: localhost\r\n"
GOOD = b"GET /studies HTTP/1.1\r\n" + HEAD + b"\r\n"


def serving(folder: Path, *options: str) -> AbstractContextManager[nodes.Serving]:
    return nodes.serving(folder, "--http", "0", *options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    return samples.make_series(tmp_path_factory.mktemp("served") / "a", instances=2)


@pytest.fixture(scope="module")
def folder(made: list[samples.Sample]) -> Path:
    return made[0].path.parents[2]


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[nodes.Serving]:
    with serving(folder) as node:
        yield node


def test_it_says_where_it_listens_and_who_came(folder: Path, made: list[samples.Sample]) -> None:
    with serving(folder) as node:
        assert node.http.startswith("http://127.0.0.1:") and int(node.http.rpartition(":")[2]) != node.port
        connection = webclient.connect(node.http)
        assert len(webclient.ask(connection, "/instances").json) == 2
        webclient.ask(connection, f"/studies/{made[0].study_uid}")
        webclient.ask(connection, f"/studies/{made[0].study_uid}?secret=1")
        connection.close()
        closed = node.wait_for_event(type="connection", event="closed")
        assert {**closed, "peer": ""} == {
            "type": "connection", "event": "closed", "peer": "", "requests": 3, "found": 2, "sent": 4, "stored": 0,
            "failed": 0,
        }  # fmt: skip


def test_without_the_option_there_is_no_http(folder: Path) -> None:
    with nodes.serving(folder) as node:
        assert node.http == ""
        with webclient.Wire(f"http://127.0.0.1:{node.port}") as wire:
            wire.send(GOOD)
            assert b"HTTP" not in wire.rest()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_idle_connections(folder: Path, how: signal.Signals) -> None:
    with serving(folder) as node, webclient.Wire(node.http) as idle, webclient.Wire(node.http) as new:
        idle.send(GOOD)
        assert idle.reply()[0] == 200
        node.wait_for_event(2, type="connection", event="opened")
        assert node.stop(how) == 0
        assert idle.rest() == new.rest() == b""


def upload(sample: samples.Sample) -> tuple[bytes, bytes]:
    body = webclient.multipart(sample.path.read_bytes())
    head = b"POST /studies HTTP/1.1\r\n" + HEAD + f"Content-Type: {webclient.STOW}\r\n".encode()
    return head + b"Content-Length: %d\r\n\r\n" % len(body), body


def test_what_is_in_flight_at_a_signal_is_finished(tmp_path: Path, made: list[samples.Sample]) -> None:
    empty = tmp_path / "a"
    empty.mkdir()
    head, body = upload(made[0])
    with serving(empty) as node, webclient.Wire(node.http) as wire, webclient.Wire(node.http) as idle:
        wire.send(head + body[:-1000])
        idle.send(GOOD)
        assert idle.reply()[0] == 200  # so what was sent before has been read
        node.process.send_signal(signal.SIGTERM)
        assert idle.rest() == b""
        wire.send(body[-1000:])
        assert wire.reply()[0] == 200
        assert wire.rest() == b"" and node.wait() == 0
    assert len(list(empty.rglob("*.dcm"))) == 1


def test_a_second_signal_ends_it_at_once(tmp_path: Path, made: list[samples.Sample]) -> None:
    empty = tmp_path / "a"
    empty.mkdir()
    head, body = upload(made[0])
    with serving(empty) as node, webclient.Wire(node.http) as wire, webclient.Wire(node.http) as idle:
        wire.send(head + body[:-1000])
        idle.send(GOOD)
        assert idle.reply()[0] == 200
        node.process.send_signal(signal.SIGTERM)
        assert idle.rest() == b"" and node.process.poll() is None
        assert node.stop() == 0
        assert wire.rest() == b""
    assert not list(empty.iterdir())


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /studies HT", b"GET /studies HTTP/1.1\r\nHost: localhost\r\nX: y", GOOD[:-2]],
    ids=["nothing", "half a line", "half a header", "no end"],
)
def test_a_head_that_does_not_come_is_not_waited_for(folder: Path, sent: bytes) -> None:
    with serving(folder, "--timeout", "1") as node, webclient.Wire(node.http) as wire:
        wire.send(sent)
        assert wire.rest() == b""
        assert "reason" not in node.wait_for_event(type="connection", event="closed")  # it has been idle, no more


def test_a_body_that_trickles_is_cut_off(folder: Path, made: list[samples.Sample]) -> None:
    head, body = upload(made[0])
    with serving(folder, "--timeout", "0.5") as node, webclient.Wire(node.http) as wire:
        wire.send(head + body[:300])
        wire.socket.settimeout(0.05)
        for _ in range(400):  # one octet now and then
            try:
                wire.socket.sendall(b"\0")
                if not wire.socket.recv(100):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("it was waited for")
        assert node.wait_for_event(type="connection", event="closed")["reason"] == "stalled"


@pytest.mark.parametrize("path", ["", "/metadata"])
def test_who_does_not_take_his_answer_is_cut_off(tmp_path: Path, path: str) -> None:
    side = 2 if path else 512
    made = samples.make_series(tmp_path / "a", instances=3000 if path else 60, rows=side, columns=side)
    with serving(tmp_path / "a", "--timeout", "1") as node, webclient.Wire(node.http) as wire:
        wire.send(f"GET /studies/{made[0].study_uid}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert node.wait_for_event(type="connection", event="closed")["reason"] == "stalled"


def test_others_wait_for_their_turn(folder: Path, made: list[samples.Sample]) -> None:
    head, body = upload(made[0])
    with serving(folder, "--max-associations", "2") as node, ExitStack() as stack:
        slow = [stack.enter_context(webclient.Wire(node.http)) for _ in range(2)]
        for wire in slow:
            wire.send(head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert wire.reply()[0] == 100  # their turn has begun
        waiting = stack.enter_context(webclient.Wire(node.http))
        waiting.send(GOOD)
        waiting.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.socket.recv(1)
        slow[0].send(body)
        assert slow[0].reply()[0] == 200
        waiting.socket.settimeout(nodes.DEADLINE_S)
        assert waiting.socket.recv(12) == b"HTTP/1.1 200"


def test_whose_turn_does_not_come_is_told(folder: Path) -> None:
    head = b"POST /studies HTTP/1.1\r\n" + HEAD + f"Content-Type: {webclient.STOW}\r\n".encode()
    options = ("--max-associations", "1", "--timeout", "1")
    with serving(folder, *options) as node, webclient.Wire(node.http) as slow, webclient.Wire(node.http) as wire:
        slow.send(head + b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n")
        assert slow.reply()[0] == 100
        slow.send(webclient.multipart(b"", is_closed=False))
        wire.send(GOOD)
        while not select.select([wire.socket], [], [], 0.02)[0]:
            slow.send(bytes(1 << 14))  # fast enough to be waited for
        assert wire.reply()[0] == 503


@pytest.mark.parametrize(
    "octets",
    [
        b"POST /studies HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /studies HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"POST /studies HTTP/1.1\r\n" + HEAD + b"Content-Length: +5\r\n\r\n12345",
        b"POST /studies HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
        b"POST /studies HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n",
        b"POST /studies HTTP/1.1\r\n" + HEAD + b"Content-Length : 5\r\n\r\n12345",
        b"GET /studies HTTP/1.1\r\n" + HEAD + b" folded: yes\r\n\r\n",
        b"GET /studies HTTP/1.1\r\n" + HEAD + b"X\0Y: z\r\n\r\n",
        b"GET /stu dies HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /studies HTTP/9.9\r\n" + HEAD + b"\r\n",
        b"G@T /studies HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"\x01\x00\x00\x00\x00\xcd\x00\x01" + bytes(205),
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"GET /studies HTTP/1.1\r\n" + HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"GET /studies HTTP/1.1\r\n" + HEAD + b"".join(b"X%d: y\r\n" % n for n in range(1000)) + b"\r\n",
    ],
    ids=["length and chunks", "two lengths", "signed length", "unknown coding", "chunked not last", "blank in name",
         "folded", "NUL", "blank in target", "version", "method", "TLS", "DIMSE", "long line", "long header",
         "many headers"],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_answered(
    node: nodes.Serving, octets: bytes
) -> None:
    with webclient.Wire(node.http) as wire:
        try:
            wire.send(octets + GOOD)
        except ConnectionError:
            pass
        answer = wire.rest()
        assert b" 200 " not in answer and answer.count(b"HTTP/1.1 ") <= 1
    assert len(webclient.ask(node.http, "/instances").json) == 2


def test_chunks_that_are_framed_wrongly_are_refused(node: nodes.Serving) -> None:
    head = b"POST /studies HTTP/1.1\r\n" + HEAD + f"Content-Type: {webclient.STOW}\r\n".encode()
    with webclient.Wire(node.http) as wire:
        wire.send(head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + GOOD)
        answer = wire.rest()
        assert b" 200 " not in answer


def test_a_body_that_nobody_wants_is_no_request(node: nodes.Serving) -> None:
    with webclient.Wire(node.http) as wire:
        wire.send(b"GET /studies HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD + GOOD)
        assert wire.reply()[0] == 200 and wire.reply()[0] == 200
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""


def test_requests_that_come_at_once_are_answered_in_order(node: nodes.Serving) -> None:
    with webclient.Wire(node.http) as wire:
        wire.send(GOOD.replace(b"/studies", b"/nope") + GOOD * 20)
        assert [wire.reply()[0] for _ in range(21)] == [404] + [200] * 20


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /studies HTTP/1.1\r\n\r\n", 400),
        (b"GET /studies HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /studies HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /studies HTTP/1.1\r\nHost: localhost.evil.example:80\r\n\r\n", 421),
        (b"GET /studies HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 421),
        (b"GET /studies HTTP/1.1\r\nHost: [::1]:8042\r\n\r\n", 200),
        (b"GET /studies HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200),
        (b"GET http://localhost/studies HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /studies/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET //studies HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /studies/%2e%2e%2f HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"PUT /studies HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"TRACE /studies HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"POST /series HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
    ],
)
def test_targets_and_hosts(node: nodes.Serving, head: bytes, status: int) -> None:
    with webclient.Wire(node.http) as wire:
        wire.send(head)
        assert wire.reply()[0] == status


def test_a_name_that_is_no_name_is_not_repeated(node: nodes.Serving) -> None:
    with webclient.Wire(node.http) as wire:
        wire.send(b'GET /studies HTTP/1.0\r\nHost: 127.0.0.1:1"><script>\r\n\r\n')
        answer = wire.rest()
        assert b"script" not in answer and node.http.encode() in answer


def test_options_name_what_is_allowed(node: nodes.Serving) -> None:
    assert webclient.ask(node.http, "/studies", "OPTIONS").headers["allow"] == "GET, HEAD, POST, OPTIONS"
    reply = webclient.ask(node.http, "/wado", "DELETE")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_an_upgrade_is_not_made(node: nodes.Serving) -> None:
    with webclient.Wire(node.http) as wire:
        upgrade = b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        wire.send(b"GET /studies HTTP/1.1\r\n" + HEAD + upgrade)
        assert wire.reply()[0] == 200


def test_only_addresses_on_the_list_may_connect(folder: Path) -> None:
    with serving(folder, "--allow-from", "127.0.0.2") as node:
        with webclient.Wire(node.http) as wire:
            assert wire.rest() == b""
        refused = node.wait_for_event(type="connection", event="refused")
        assert refused["peer"].startswith("127.0.0.1:") and refused["reason"] == "rejected"
        with webclient.Wire(node.http, source="127.0.0.2") as wire:
            wire.send(GOOD)
            assert wire.reply()[0] == 200


def test_tls_is_spoken_where_dimse_speaks_it(folder: Path, tmp_path: Path, require: Require) -> None:
    authority = certs.Authority(tmp_path / "certs")
    own, client = authority.issue("localhost", "127.0.0.1"), authority.issue("visitor")
    options = ("--tls", "--certificate", str(own.certificate), "--key", str(own.key), "--ca", str(authority.path))
    with serving(folder, *options) as node:
        assert node.http.startswith("https://")
        curl = [require("curl"), "-sS", "--cacert", str(authority.path)]
        identity = ["--cert", str(client.certificate), "--key", str(client.key)]
        study = webclient.ask(node.http, "/studies", context=_context(authority, client)).json[0]
        url = f"{node.http}/studies/{study['0020000D']['Value'][0]}"
        done = subprocess.run([*curl, *identity, url], capture_output=True, check=True, timeout=30)
        assert all(path.read_bytes() in done.stdout for path in folder.rglob("*.dcm"))
        assert subprocess.run([*curl, url], capture_output=True, timeout=30, check=False).returncode
        with webclient.Wire(node.http) as wire:
            wire.send(GOOD)
            assert b"HTTP" not in wire.rest()
        assert node.wait_for_event(type="connection", event="refused")["reason"] == "insecure"


def _context(authority: certs.Authority, client: certs.Pem) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(client.certificate, client.key)
    return context


def test_nothing_of_a_request_is_said_on_standard_error(folder: Path) -> None:
    with serving(folder) as node:
        webclient.ask(node.http, "/studies?PatientName=Secret^Name&Nope=1")
        webclient.ask(node.http, "/studies?PatientName=Secret^Name")
        with webclient.Wire(node.http) as wire:
            wire.send(b"GET /studies?PatientName=Secret HTTP/1.1\r\nHost: a\r\nX: Secret\0\r\n\r\n")
            wire.rest()
        assert node.stop() == 0
        assert "ecret" not in folder.with_name("a.err").read_text() + str(node.events)
        assert "Traceback" not in folder.with_name("a.err").read_text()


@pytest.mark.parametrize("opens", [0, 3])
def test_trouble_is_told_and_an_answer_that_has_begun_breaks_off(
    folder: Path, made: list[samples.Sample], opens: int
) -> None:
    warned: list[str] = []
    path = f"/studies/{made[0].study_uid}"

    class Failing(Archive):
        left = opens

        def opened(self, image: Image) -> AbstractContextManager[Opened | None]:
            self.left -= 1
            if self.left < 0:
                raise OSError(5, "Input/output error")
            return super().opened(image)

    async def ask() -> webclient.Reply:
        archive = Failing(str(folder), make_queue=Lander, warn=warned.append)
        settings = server.Settings(host="127.0.0.1", port=0)
        with Watch() as watch:
            web = server.Web(settings, Limits(), watch, archive, admits=lambda host: True, say=lambda event: None,
                             warn=warned.append)  # fmt: skip
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(web.run)
                try:
                    return await anyio.to_thread.run_sync(webclient.ask, web.url, path)
                finally:
                    web.stop()
                    archive.close()

    if opens:
        with pytest.raises(ExceptionGroup) as caught:
            anyio.run(ask)
        assert caught.group_contains((IncompleteRead, ConnectionError))
    else:
        reply = anyio.run(ask)
        assert reply.status == 500 and reply.words.startswith("trouble on this machine")
    assert warned == ["a request failed: Input/output error"]


def test_other_machines_are_let_in_only_by_address(folder: Path, tmp_path: Path) -> None:
    from tests.workdir import Workdir

    workdir = Workdir(tmp_path)
    for options in (("--http", "0.0.0.0:0"), ("--bind", "0.0.0.0", "--allow", "A", "--http", "0")):
        done = workdir.run("serve", folder, "--port", "0", *options)
        assert done.status == 2 and "--allow-from" in done.stderr, done
    done = workdir.run("serve", folder, "--http", "0", "--require-identity")
    assert done.status == 2 and "--require-identity" in done.stderr
    assert workdir.run("serve", folder, "--http", "nowhere").status == 2


def test_a_port_that_is_taken_is_told(folder: Path, tmp_path: Path, node: nodes.Serving) -> None:
    from tests.workdir import Workdir

    done = Workdir(tmp_path).run("serve", folder, "--port", "0", "--http", node.http.rpartition(":")[2])
    assert done.status == 7 and "cannot listen on 127.0.0.1" in done.stderr


def test_all_addresses_are_reached_by_any_name(folder: Path) -> None:
    with nodes.serving(folder, "--http", "0.0.0.0:0", "--allow-any") as node:
        url = node.http.replace("0.0.0.0", "127.0.0.1")
        assert webclient.ask(url, "/studies", headers={"Host": "pacs.example.org"}).status == 200
        (study,) = webclient.ask(url, "/studies", headers={"Host": "pacs.example.org"}).json
        assert study["00081190"]["Value"][0].startswith("http://pacs.example.org/studies/")
