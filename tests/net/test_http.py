"""The HTTP door against a server that misbehaves, and against Orthanc: what is sent, tried again, refused, and said."""

import gc
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import Struct

from dcmsync.errors import (
    DcmsyncError,
    Disconnected,
    Insecure,
    LocalProtocolError,
    LocalTrouble,
    OutOfResources,
    PeerError,
    Refused,
    Rejected,
    RemoteProtocolError,
    Stalled,
    Unreachable,
)
from dcmsync.net import tls, trials
from dcmsync.net.channel import Limits
from dcmsync.net.http import Answer, Door, Octets, Request, encode
from dcmsync.net.throttle import Throttle
from dcmsync.net.tls import Terms
from tests import certs, peers
from tests.conftest import Start
from tests.fakes.web import Reply, Seen, Web

PATIENT = Limits(timeout_s=20, connect_s=5)
HASTY = Limits(timeout_s=0.3, connect_s=5)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "FIRST_WAIT_S", 0.0)


def unheard(words: str) -> None:
    """Nobody listens."""


def door_to(base: str, *, limits: Limits = PATIENT, warn: Callable[[str], None] = unheard, **more: Any) -> Door:
    return Door(base, name="pacs", limits=limits, warn=warn, **more)


def ask(door: Door, method: str = "GET", target: str = "studies", **more: Any) -> tuple[Answer, bytes]:
    """One exchange, in a door of its own life."""

    async def run() -> tuple[Answer, bytes]:
        async with door, door.exchange(method, target, **more) as answer:
            return answer, await answer.read()

    return anyio.run(run)


def refusal(door: Door, method: str = "GET", target: str = "studies", **more: Any) -> DcmsyncError:
    with pytest.raises(DcmsyncError) as raised:
        ask(door, method, target, **more)
    return raised.value


class Shown:
    """An authority that shows one header after the other, as long as there are any."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked: list[Request] = []

    async def headers(self, request: Request) -> Mapping[str, str]:
        self.asked.append(request)
        return {"Authorization": f"Bearer {self.tokens[0]}"}

    async def renew(self) -> bool:
        self.tokens.pop(0)
        return bool(self.tokens)


class Pieces(Struct, frozen=True):
    """A body that comes piece by piece."""

    parts: tuple[bytes, ...]
    length: int | None = None
    media_type: str = "application/x-parts"

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        for part in self.parts:
            yield memoryview(part)


# What is sent


def test_a_query_is_literal_where_servers_decode_nothing_and_strict_where_asked() -> None:
    query = (("PatientName", "M*^J$'(),:@!~ é&+%#;\""), ("includefield", "00080060"), ("x", ""))
    assert encode(query) == "PatientName=M*^J$'(),:@!~%20%C3%A9%26%2B%25%23%3B%22&includefield=00080060&x="
    assert encode(query[:1], strict=True) == (
        "PatientName=M%2A%5EJ%24%27%28%29%2C%3A%40%21~%20%C3%A9%26%2B%25%23%3B%22")


def test_what_is_given_is_what_is_sent() -> None:
    with Web(Reply()) as web:
        ask(door_to(f"{web.url}/dicom-web/"), target="/studies", query=(("PatientName", "A^B*%"),))
        ask(door_to(f"{web.url}/dicom-web"), target=f"{web.url}/a%2Fb?x=%41^", query=(("y", "/"),))
        ask(door_to(web.url), target="")
        ask(door_to(web.url), target="a b/é?#")
    assert [seen.target for seen in web.seen] == [
        "/dicom-web/studies?PatientName=A^B*%25", "/a%2Fb?x=%41^&y=/", "/", "/a%20b/%C3%A9%3F%23"]
    assert web.seen[0].headers["accept-encoding"] == "gzip" and "cookie" not in web.seen[0].headers


def test_headers_of_a_request_go_before_ours() -> None:
    with Web(Reply()) as web:
        ask(door_to(web.url, headers={"X-Key": "1"}), headers={"accept": "a/b", "Accept-Encoding": "identity"})
    assert {"accept": "a/b", "accept-encoding": "identity", "x-key": "1"}.items() <= web.seen[0].headers.items()


def test_a_body_of_known_length_is_sent_with_it_and_another_in_chunks() -> None:
    parts = (b"one", b"", b"two" * 200_000)
    with Web(lambda seen: Reply(body=seen.body)) as web:
        assert ask(door_to(web.url), "POST", body=Pieces(parts, sum(map(len, parts))))[1] == b"".join(parts)
        assert ask(door_to(web.url), "POST", body=Pieces(parts))[1] == b"".join(parts)
        ask(door_to(web.url), "POST", body=Octets("a/b", b""))
    first, second, third = web.seen
    assert first.headers["content-length"] == "600003" and not first.chunks
    assert first.headers["content-type"] == "application/x-parts"
    assert "content-length" not in second.headers and max(second.chunks) <= 1 << 18
    assert third.headers["content-length"] == "0"


def test_a_body_that_gives_another_length_is_our_own_fault() -> None:
    with Web(Reply()) as web:
        assert isinstance(refusal(door_to(web.url), "POST", body=Pieces((b"short",), 10)), LocalProtocolError)


def test_trouble_with_a_body_comes_out_as_it_is() -> None:
    class Broken(Pieces, frozen=True):
        async def pieces(self) -> AsyncIterator[bytes | memoryview]:
            yield b"x"
            raise LocalTrouble("the file has changed")

    with Web(Reply()) as web:
        error = refusal(door_to(web.url), "POST", body=Broken((), 100), repeatable=True)
    assert isinstance(error, LocalTrouble) and not web.seen


def test_an_early_refusal_is_heard_while_a_body_is_sent() -> None:
    with Web(Reply(413, body=b"too big", is_early=True)) as web:
        error = refusal(door_to(web.url), "POST", body=Pieces((b"x" * 65536,) * 200, 65536 * 200))
    assert isinstance(error, Refused) and error.status == 413


def test_connections_are_kept_and_shared_by_the_sessions_of_a_door() -> None:
    async def run(door: Door) -> None:
        async with door:
            async with door, door.exchange("GET", "a") as answer:
                await answer.read()
            async with door, door.exchange("GET", "b") as answer:
                await answer.read()
            async with door.exchange("GET", "c"):
                pass  # unread: that connection is of no more use

            async with door.exchange("GET", "d", expected=(200,)) as answer:
                assert await answer.read() == b"x" * 1_000_000

    with Web(Reply(), Reply(), Reply(body=b"x" * 1_000_000)) as web:
        anyio.run(run, door_to(web.url))
        gc.collect()
    assert [seen.connection for seen in web.seen] == [0, 0, 0, 1]


def test_a_door_must_be_entered() -> None:
    async def run() -> None:
        async with door_to("http://127.0.0.1:9").exchange("GET", ""):
            pass

    with pytest.raises(LocalProtocolError):
        anyio.run(run)


# Answers


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_an_answer_is_read_however_it_is_framed(framing: Any, gzipped: bool) -> None:
    body = b"[" + b'{"0020000D":{}},' * 50_000 + b"]"
    reply = Reply(headers={"Content-Type": "Application/DICOM+json; charset=utf-8"}, body=body, framing=framing,
                  gzipped=gzipped, piece=7777)  # fmt: skip
    with Web(reply) as web:
        answer, read = ask(door_to(web.url))
    assert (answer.status, answer.media_type, read) == (200, "application/dicom+json", body)
    assert answer.headers["content-TYPE"].startswith("Application")


def test_an_answer_without_a_body_is_empty() -> None:
    with Web(Reply(204), Reply(body=b"x")) as web:
        assert ask(door_to(web.url), expected=(200, 204))[1] == b""
        assert ask(door_to(web.url), "HEAD")[1] == b""


@pytest.mark.parametrize("reply", [
    Reply(body=b"x" * 100_000, cut=5_000), Reply(body=b"x" * 100_000, framing="chunked", cut=5_000),
    Reply(body=b"xyz" * 100_000, gzipped=True, framing="close", cut=50), Reply(body=b"x", framing="chunked", cut=4),
])  # fmt: skip
def test_an_answer_that_is_cut_is_never_whole(reply: Reply) -> None:
    with Web(reply) as web:
        assert isinstance(refusal(door_to(web.url)), Disconnected)


def test_a_reset_after_the_head_is_told() -> None:
    with Web(Reply(body=b"x" * 10, reset="after head")) as web:
        assert isinstance(refusal(door_to(web.url), expected=(200,)), Disconnected)


def test_a_bomb_is_stopped_at_the_limit() -> None:
    async def run(door: Door) -> int:
        async with door, door.exchange("GET", "") as answer:
            return max([len(piece) async for piece in answer.pieces()])

    with Web(Reply(body=bytes(200 << 20), gzipped=True)) as web:
        begun = time.monotonic()
        error = refusal(door_to(web.url), target="")
        assert anyio.run(run, door_to(web.url)) <= 1 << 18
    assert isinstance(error, RemoteProtocolError) and "longer than" in str(error)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("reply", [
    Reply(headers={"Content-Encoding": "br"}, body=b"x"), Reply(headers={"Content-Encoding": "gzip"}, body=b"no gzip"),
])  # fmt: skip
def test_an_encoding_that_was_not_asked_for_or_is_a_lie_is_refused(reply: Reply) -> None:
    with Web(reply) as web:
        assert isinstance(refusal(door_to(web.url)), RemoteProtocolError)


@pytest.mark.parametrize("raw", [
    b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n" + b"X" * 20_000 + b": y\r\n\r\n", b"\x02\0\0\0\0\xb8" * 9,
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
])  # fmt: skip
def test_what_is_no_http_is_told(raw: bytes) -> None:
    with Web(Reply(raw=raw)) as web:
        assert isinstance(refusal(door_to(web.url)), RemoteProtocolError | Disconnected)


# Progress


def test_a_server_that_says_nothing_is_given_up() -> None:
    with Web(Reply(late_s=20)) as web:
        begun = time.monotonic()
        error = refusal(door_to(web.url, limits=HASTY))
        assert isinstance(error, Stalled) and "no progress for 0.3 s" in str(error)
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_server_that_drips_is_given_up(framing: Any) -> None:
    with Web(Reply(body=b"x" * 1000, framing=framing, piece=1, pause_s=0.02)) as web:
        assert isinstance(refusal(door_to(web.url, limits=HASTY)), Stalled)


def test_a_server_that_stops_reading_is_given_up() -> None:
    with Web(Reply(raw=b"", is_early=True, late_s=20)) as web:
        error = refusal(door_to(web.url, limits=HASTY), "POST", body=Pieces((b"x" * (1 << 20),) * 64, 64 << 20))
    assert isinstance(error, Stalled)


def test_a_connection_that_is_given_up_is_closed_at_once() -> None:
    async def run(door: Door) -> list[int]:
        async with door:
            with pytest.raises(Stalled):
                async with door.exchange("POST", "", body=Pieces((b"x" * (1 << 20),) * 64, 64 << 20)):
                    pass
            await anyio.wait_all_tasks_blocked()
            assert door._connector is not None
            return [transport.get_extra_info("socket").fileno() for transport in door._connector._transports]

    with Web(Reply(raw=b"", is_early=True, late_s=20)) as web:
        assert set(anyio.run(run, door_to(web.url, limits=HASTY))) <= {-1}


def test_our_own_time_is_not_the_servers() -> None:
    async def run(door: Door) -> bytes:
        async with door, door.exchange("GET", "") as answer:
            await anyio.sleep(0.5)
            found = b""
            async for piece in answer.pieces():
                await anyio.sleep(0.5)
                found += piece
            return found

    with Web(Reply(body=b"x" * 1000)) as web:
        assert len(anyio.run(run, door_to(web.url, limits=Limits(timeout_s=0.2)))) == 1000


def test_octets_are_paid_for_both_ways() -> None:
    limits = Limits(timeout_s=20, throttle=Throttle(lambda: 1_000_000.0))
    with Web(lambda seen: Reply(body=bytes(200_000))) as web:
        begun = time.monotonic()
        ask(door_to(web.url, limits=limits), "POST", body=Pieces((bytes(200_000),), 200_000))
        assert time.monotonic() - begun > 0.25


# Trying again


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with Web(Reply(status, {"Retry-After": "0"}), Reply(status), Reply(body=b"ok")) as web:
        assert ask(door_to(web.url))[1] == b"ok"


@pytest.mark.parametrize("status, kind", [
    (429, OutOfResources), (503, OutOfResources), (500, PeerError), (502, PeerError), (504, PeerError),
])  # fmt: skip
def test_what_does_not_pass_ends_after_five_tries(status: int, kind: type[DcmsyncError]) -> None:
    with Web(Reply(status, body=b"busy")) as web:
        error = refusal(door_to(web.url))
    assert type(error) is kind and error.exit_status == 4 and "busy" in str(error)
    assert len(web.seen) == 5


@pytest.mark.parametrize("status, kind", [(503, OutOfResources), (502, PeerError), (500, Refused)])
def test_a_request_that_may_not_be_repeated_is_not(status: int, kind: type[DcmsyncError]) -> None:
    with Web(Reply(status)) as web:
        assert type(refusal(door_to(web.url), "POST", body=Octets("a/b", b"x"))) is kind
    assert len(web.seen) == 1


def test_a_post_that_may_be_repeated_is_sent_from_its_beginning() -> None:
    with Web(Reply(503), Reply(reset="before"), Reply(body=b"ok")) as web:
        ask(door_to(web.url), "POST", body=Pieces((b"one", b"two"), 6), repeatable=True)
    assert [seen.body for seen in web.seen] == [b"onetwo"] * 3


@pytest.mark.parametrize("status", [400, 404, 406, 409, 410, 413, 415, 422, 501])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    with Web(Reply(status)) as web:
        error = refusal(door_to(web.url))
    assert isinstance(error, Refused) and error.status == status and error.exit_status == 3
    assert len(web.seen) == 1


def test_a_wait_that_is_asked_for_is_kept_within_reason() -> None:
    one = trials.Trials(True)
    one.count = 1
    assert one.asked_wait_s("7") == 7
    assert one.asked_wait_s("999999999") == trials.LONGEST_WAIT_S
    assert 25 < one.asked_wait_s(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert one.asked_wait_s(formatdate(time.time() - 30)) == 0
    assert one.asked_wait_s("") == one.asked_wait_s("soon") == 0


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "FIRST_WAIT_S", 0.5)
    one = trials.Trials(True)
    for count, longest in enumerate((0.5, 1.0, 2.0, 4.0), 1):
        one.count = count
        waits = {one.wait_s(Disconnected("x"), is_known=True) for _ in range(20)}
        assert len(waits) > 1 and longest / 2 <= min(waits) and max(waits) <= longest


def test_who_is_asked_to_wait_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(trials, "LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr("dcmsync.net.http._LONG_S", -1.0)
    with Web(Reply(503, {"Retry-After": "3600"}), Reply()) as web:
        ask(door_to(web.url, warn=said.append))
    assert said == ["pacs: it asks to wait for 0 s"]


def test_a_kept_connection_that_was_closed_meanwhile_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "FIRST_WAIT_S", 1000.0)

    async def run(door: Door) -> None:
        async with door:
            for target in ("a", "b"):
                async with door.exchange("GET", target) as answer:
                    await answer.read()

    def script(seen: Seen) -> Reply:
        return Reply(reset="before") if seen.path == "/b" and seen.connection == 0 else Reply()

    with Web(script) as web:
        anyio.run(run, door_to(web.url))
    assert [(seen.path, seen.connection) for seen in web.seen] == [("/a", 0), ("/b", 0), ("/b", 1)]


def test_a_new_connection_that_is_closed_at_once_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trials.Trials(True)
    one.count = 1
    monkeypatch.setattr(trials, "FIRST_WAIT_S", 1000.0)
    assert one.wait_s(Disconnected("x"), is_known=True) > 100
    assert one.wait_s(trials.Idled("x"), is_known=True) == 0
    assert one.wait_s(trials.Idled("x"), is_known=True) > 100


def test_nobody_there_is_told_at_once() -> None:
    port = peers.free_port()
    error = refusal(door_to(f"http://127.0.0.1:{port}"))
    assert isinstance(error, Unreachable) and error.exit_status == 5 and "connect: connection refused." in str(error)
    error = refusal(door_to("http://nowhere.invalid"))
    assert isinstance(error, Unreachable) and "no such host" in str(error)


def test_a_server_that_never_answers_is_left_after_two_tries_and_one_that_did_after_five() -> None:
    async def run(door: Door) -> None:
        async with door:
            async with door.exchange("GET", "a") as answer:
                await answer.read()
            with pytest.raises(Disconnected):
                async with door.exchange("GET", "b"):
                    pass

    with Web(Reply(reset="before")) as web:
        assert isinstance(refusal(door_to(web.url)), Disconnected)
        assert len(web.seen) == 2
    with Web(Reply(), Reply(reset="before")) as web:
        anyio.run(run, door_to(web.url))
        assert len(web.seen) == 6


# Who is shown what


def test_a_401_is_asked_once_more_with_what_is_new() -> None:
    with Web(Reply(401), Reply(body=b"ok")) as web:
        shown = Shown("old", "new")
        ask(door_to(web.url, authority=shown), "POST", body=Octets("a/b", b"x"))
    assert [seen.headers["authorization"] for seen in web.seen] == ["Bearer old", "Bearer new"]
    assert shown.asked[0].url == f"{web.url}/studies" and shown.asked[0].headers["content-TYPE"] == "a/b"


@pytest.mark.parametrize("tokens, tries", [(("a",), 1), (("a", "b", "c"), 2)])
def test_a_401_that_stays_is_a_rejection(tokens: tuple[str, ...], tries: int) -> None:
    with Web(Reply(401, {"WWW-Authenticate": "Basic"}, b"<html>no</html>")) as web:
        error = refusal(door_to(web.url, authority=Shown(*tokens)))
    assert isinstance(error, Rejected) and error.exit_status == 5 and "401" in str(error)
    assert len(web.seen) == tries


def test_a_403_says_what_to_look_at() -> None:
    with Web(Reply(403)) as web:
        assert "what they allow" in str(refusal(door_to(web.url, authority=Shown("a"))))
        assert "Set user and password_file" in str(refusal(door_to(web.url)))


def test_a_redirect_is_followed_and_the_own_origin_sees_credentials() -> None:
    with Web(lambda seen: Reply(301, {"Location": "/b?c=%41^"}) if seen.path == "/a" else Reply(body=b"ok")) as web:
        assert ask(door_to(web.url, authority=Shown("t"), headers={"X-Key": "k"}), target="a")[1] == b"ok"
    assert [(seen.target, seen.headers["authorization"], seen.headers["x-key"]) for seen in web.seen] == [
        ("/a", "Bearer t", "k"), ("/b?c=%41^", "Bearer t", "k")]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_another_origin_sees_no_credentials(status: int) -> None:
    said: list[str] = []
    with Web(Reply(body=b"ok")) as other, Web(Reply(status, {"Location": f"{other.url}/x"})) as web:
        door = door_to(web.url, authority=Shown("t"), headers={"X-Key": "k"}, warn=said.append)
        assert ask(door, headers={"Authorization": "Basic x", "Cookie": "a=b", "X-Plain": "1"})[1] == b"ok"
    seen = other.seen[0].headers
    assert not {"authorization", "cookie", "x-key"} & set(seen) and seen["x-plain"] == "1"
    assert len(said) == 1 and other.url in said[0]


def test_an_absolute_target_elsewhere_sees_no_credentials() -> None:
    with Web(Reply(body=b"ok")) as other:
        assert ask(door_to("http://127.0.0.1:9", authority=Shown("t")), target=f"{other.url}/x")[1] == b"ok"
    assert "authorization" not in other.seen[0].headers


def test_user_and_password_in_a_redirect_are_dropped() -> None:
    with Web(Reply(body=b"ok")) as other, Web(Reply(302, {"Location": other.url.replace("//", "//a:b@")})) as web:
        ask(door_to(web.url))
    assert "authorization" not in other.seen[0].headers


@pytest.mark.parametrize("location", ["/studies", "", "?a=b"])
def test_a_redirect_in_a_circle_is_ended(location: str) -> None:
    with Web(Reply(302, {"Location": location})) as web:
        assert "in a circle" in str(refusal(door_to(web.url)))
    assert len(web.seen) == 6


@pytest.mark.parametrize("location", ["ftp://host/x", "http://[::1/x", "javascript:alert(1)", "http://ho st/"])
def test_a_redirect_to_what_is_no_web_server_is_refused(location: str) -> None:
    with Web(Reply(302, {"Location": location})) as web:
        assert isinstance(refusal(door_to(web.url)), RemoteProtocolError | Unreachable)


def test_a_redirected_post_is_an_error_with_a_way_out() -> None:
    with Web(Reply(308, {"Location": "https://other.example/base"})) as web:
        error = refusal(door_to(web.url), "POST", body=Octets("a/b", b"x"), repeatable=True)
    assert isinstance(error, Refused) and "https://other.example" in str(error) and "locator" in str(error)


# Words


def test_words_are_short_printable_and_without_markup() -> None:
    body = "<html><style>p {x}</style><h1>Not&amp;found</h1>\x1b[31m\r\n" + "long " * 100
    with Web(Reply(404, body=body.encode() + b"\xff", reason="No\x07pe")) as web:
        error = str(refusal(door_to(web.url), target="studies/1.2/x", query=(("PatientName", "DOE"),)))
    assert error.startswith("pacs: GET /studies/1.2/x: 404")
    assert "Not&found" in error and "p {x}" not in error and "DOE" not in error
    assert len(error) < 300 and error.isprintable()


def test_words_never_repeat_what_we_told() -> None:
    def echo(seen: Seen) -> Reply:
        return Reply(400, body=json.dumps({"headers": dict(seen.headers), "target": seen.target}).encode())

    basic = "Basic YWRhOmh1bnRlcjI="  # ada:hunter2
    query = (("PatientName", "DOE^JANE"), ("PatientID", "ÄÖÜ 1"), ("includefield", "Modality"))
    with Web(echo, lambda seen: Reply(400, body=b"hunter2 for ada:hunter2 and s3cr3t")) as web:
        error = str(refusal(door_to(web.url, authority=Shown("s3cr3t")), query=query))
        assert "s3cr3t" not in error and "DOE" not in error and "%C3%84" not in error and "***" in error
        error = str(refusal(door_to(web.url, headers={"X-Key": "s3cr3t"}), headers={"Authorization": basic}))
        assert "hunter2" not in error and "YWRh" not in error and "s3cr3t" not in error


def test_nothing_that_is_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Web(Reply(401), Reply(reset="before"), Reply()) as web:
        ask(door_to(web.url, authority=Shown("s3cr3t", "s3cr4t")), query=(("PatientName", "DOE"),))
    assert not any(word in caplog.text for word in ("s3cr3t", "s3cr4t", "DOE"))


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certs.Authority:
    return certs.Authority(tmp_path_factory.mktemp("ca"))


def trusting(authority: certs.Authority, **more: Any) -> tls.Secure:
    return tls.client(Terms(ca=str(authority.path), **more))


def test_tls_is_spoken_on_our_terms(authority: certs.Authority) -> None:
    with Web(Reply(body=b"ok"), tls=authority.issue("127.0.0.1")) as web:
        assert ask(door_to(web.url, secure=trusting(authority)))[1] == b"ok"
        gc.collect()


def test_a_certificate_is_refused_in_words(authority: certs.Authority, tmp_path: Path) -> None:
    with Web(Reply(), tls=authority.issue("other.example")) as web:
        error = refusal(door_to(web.url, secure=trusting(authority)))
        assert isinstance(error, Insecure) and "of another" in str(error) and "server_name" in str(error)
        assert ask(door_to(web.url, secure=trusting(authority, server_name="other.example")))[0].status == 200
        assert ask(door_to(web.url, secure=tls.client(Terms(verify=False))))[0].status == 200
        error = refusal(door_to(web.url, secure=tls.client(Terms())))
        assert isinstance(error, Insecure) and 'ca = "FILE"' in str(error)
    with Web(Reply(), tls=authority.issue("127.0.0.1", expired=True)) as web:
        assert "expired" in str(refusal(door_to(web.url, secure=trusting(authority))))


def test_a_client_certificate_is_shown_to_our_origin_alone(authority: certs.Authority) -> None:
    own = authority.issue("client")
    mine = trusting(authority, certificate=str(own.certificate), key=str(own.key))
    with Web(Reply(body=b"ok"), tls=authority.issue("127.0.0.1"), client_ca=authority.path) as web:
        assert ask(door_to(web.url, secure=mine))[1] == b"ok"
        assert isinstance(refusal(door_to(web.url, secure=trusting(authority))), Insecure | Disconnected)
        with Web(Reply(302, {"Location": web.url}), tls=authority.issue("127.0.0.1")) as first:
            assert isinstance(refusal(door_to(first.url, secure=mine)), Insecure)
    assert len(web.seen) == 1


def test_https_to_a_plain_port_is_named(authority: certs.Authority) -> None:
    def answer() -> None:  # as servers do: at the first octets that are no request
        connected, _ = server.accept()
        with connected:
            connected.recv(4096)
            connected.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        error = refusal(door_to(f"https://127.0.0.1:{server.getsockname()[1]}", secure=trusting(authority)))
        thread.join()
    assert isinstance(error, Insecure) and "does not speak TLS" in str(error) and "http://" in str(error)


def test_http_to_a_tls_port_is_named(authority: certs.Authority) -> None:
    with Web(Reply(), tls=authority.issue("127.0.0.1")) as web:
        error = refusal(door_to(web.url.replace("https", "http")))
    assert isinstance(error, Insecure | Disconnected) and "https://" in str(error)


def test_a_redirect_from_https_to_http_is_refused(authority: certs.Authority) -> None:
    with Web(Reply()) as plain, Web(Reply(302, {"Location": plain.url}), tls=authority.issue("127.0.0.1")) as web:
        assert isinstance(refusal(door_to(web.url, secure=trusting(authority))), Insecure)
    assert not plain.seen


def test_a_cipher_that_is_too_weak_is_refused_before_anything_is_sent(authority: certs.Authority) -> None:
    with Web(Reply(), tls=authority.issue("127.0.0.1")) as web:
        secure = trusting(authority, profile="modified")
        assert secure.least_bits == 256
        secure.least_bits = 257  # what no suite of TLS 1.3 has
        assert "bits are asked for" in str(refusal(door_to(web.url, secure=secure)))
    assert not web.seen


# Proxies


def test_a_proxy_is_asked_for_the_whole_url() -> None:
    with Web(Reply(body=b"ok")) as proxy:
        ask(door_to("http://pacs.example/base", proxy=proxy.url.replace("//", "//ada:hunter2@")))
    assert proxy.seen[0].target == "http://pacs.example/base/studies"
    assert proxy.seen[0].headers["proxy-authorization"].startswith("Basic ")


def test_a_proxy_that_refuses_is_named_without_its_password(authority: certs.Authority) -> None:
    with Web(Reply(407)) as proxy:
        error = refusal(door_to("https://pacs.example", secure=trusting(authority), proxy=f"http://a:hunter2@{proxy.url[7:]}"))
    assert isinstance(error, Unreachable) and "407" in str(error) and "hunter2" not in str(error)
    assert proxy.seen[0].method == "CONNECT"
    error = refusal(door_to("http://pacs.example", proxy=f"http://127.0.0.1:{peers.free_port()}"))
    assert isinstance(error, Unreachable) and "proxy" in str(error)


# Many at once, and cancellation


def test_sessions_use_one_connection_each() -> None:
    async def run(door: Door) -> None:
        async def one() -> None:
            async with door:
                for _ in range(5):
                    async with door.exchange("GET", "x") as answer:
                        await answer.read()

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one)

    with Web(Reply(body=b"x" * 1000)) as web:
        anyio.run(run, door_to(web.url))
    assert len(web.seen) == 20 and web.connections <= 4


def test_a_cancelled_exchange_leaves_nothing_behind() -> None:
    async def run(door: Door) -> None:
        async with door:
            with anyio.move_on_after(0.1):
                async with door.exchange("GET", "late"):
                    pass
            async with door.exchange("GET", "next") as answer:
                await answer.read()
            assert not door._guards

    with Web(lambda seen: Reply(late_s=5 if seen.path == "/late" else 0)) as web:
        anyio.run(run, door_to(web.url))
        gc.collect()


# Orthanc


def test_orthanc_lets_in_whom_it_knows(start: Start, authority: certs.Authority, tmp_path: Path) -> None:
    own = authority.issue("127.0.0.1", rsa=True)
    both = tmp_path / "both.pem"
    both.write_bytes(own.key.read_bytes() + own.certificate.read_bytes())
    lua = tmp_path / "bearer.lua"
    lua.write_text("function IncomingHttpRequestFilter(method, uri, ip, username, headers)\n"
                   "  return uri == '/system' or headers['authorization'] == 'Bearer tok1'\nend\n")
    peer = start(peers.orthanc, dicomweb=True, settings={"LuaScripts": [str(lua)]})
    door = door_to(f"{peer.http}/dicom-web", authority=Shown("tok1"))
    assert ask(door, query=(("limit", "1"),))[1].strip() == b"[]"
    assert isinstance(refusal(door_to(f"{peer.http}/dicom-web", authority=Shown("tok2"))), Rejected)
