"""Who we are: the header, when a token is had anew, that a run has one, and what a token server may answer."""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest

from dcmsync.errors import DcmsyncError, Rejected, RemoteProtocolError, UsageError
from dcmsync.net.authority import Basic, Bearer, Token, client_credentials, reading
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door, Request
from tests.fakes.web import Reply, Seen, Web

REQUEST = Request(method="GET", url="http://h/", headers={})


def door_to(url: str, authority: Any = None) -> Door:
    return Door(url, name="pacs", limits=Limits(timeout_s=10), authority=authority, warn=lambda words: None)


def get(door: Door, times: int = 1) -> None:
    async def run() -> None:
        async with door:
            for _ in range(times):
                async with door.exchange("GET", "") as answer:
                    await answer.read()

    anyio.run(run)


def counted(*tokens: Token) -> Callable[[], Awaitable[Token]]:
    """Gives one token after the other."""
    left = list(tokens)

    async def fetch() -> Token:
        await anyio.lowlevel.checkpoint()
        return left.pop(0)

    return fetch


def test_user_and_password_are_asked_for_once() -> None:
    asked: list[int] = []

    def ask() -> tuple[bytes, bytes]:
        asked.append(1)
        return "ädä".encode(), b"hun:ter2"

    with Web(Reply(), Reply(), Reply(401)) as web:
        door = door_to(web.url, Basic(ask, "pacs"))
        get(door, 2)
        with pytest.raises(Rejected):
            get(door)
    assert asked == [1] and len(web.seen) == 3
    kind, _, word = web.seen[0].headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(word).decode()) == ("Basic", "ädä:hun:ter2")


def test_a_user_with_a_colon_is_refused() -> None:
    with pytest.raises(UsageError, match="colon"):
        anyio.run(Basic(lambda: (b"a:b", b"c"), "pacs").headers, REQUEST)


def test_a_token_is_read_again_when_it_is_refused_and_not_before() -> None:
    tokens = [b"one", b"two", b"three"]

    def script(seen: Seen) -> Reply:
        return Reply(401 if seen.headers["authorization"] == "Bearer one" else 200)

    with Web(script) as web:
        get(door_to(web.url, Bearer(reading(lambda: tokens.pop(0)), "pacs")), 3)
    assert [seen.headers["authorization"][7:] for seen in web.seen] == ["one", "two", "two", "two"]


def test_the_same_token_again_is_not_tried_twice() -> None:
    with Web(Reply(401)) as web, pytest.raises(Rejected):
        get(door_to(web.url, Bearer(reading(lambda: b"one"), "pacs")))
    assert len(web.seen) == 1


def test_sessions_share_a_token_and_only_one_of_them_renews_it() -> None:
    bearer = Bearer(counted(Token("one"), Token("two"), Token("three")), "pacs")
    refused = anyio.Event()

    async def one(said: list[str]) -> None:
        said.append((await bearer.headers(REQUEST))["Authorization"])
        await refused.wait()
        assert await bearer.renew()
        said.append((await bearer.headers(REQUEST))["Authorization"])

    async def run() -> list[list[str]]:
        said: list[list[str]] = [[], [], []]
        async with anyio.create_task_group() as group:
            for each in said:
                group.start_soon(one, each)
            await anyio.wait_all_tasks_blocked()
            refused.set()
        return said

    assert anyio.run(run) == [["Bearer one", "Bearer two"]] * 3


@pytest.mark.parametrize("lifetime_s, good_for", [(3600.0, 3570.0), (40.0, 20.0), (0.0, 0.0)])
def test_a_token_is_had_anew_before_it_expires(lifetime_s: float, good_for: float) -> None:
    now = [100.0]
    bearer = Bearer(counted(Token("one", lifetime_s), Token("two")), "pacs", clock=lambda: now[0])

    async def run() -> list[str]:
        said = [(await bearer.headers(REQUEST))["Authorization"]]
        if good_for:
            now[0] += good_for - 0.1
            said.append((await bearer.headers(REQUEST))["Authorization"])
        now[0] += 0.2
        return [*said, (await bearer.headers(REQUEST))["Authorization"]]

    assert anyio.run(run) == ["Bearer one"] * (2 if good_for else 1) + ["Bearer two"]


@pytest.mark.parametrize("text", ["a b", "a\r\nX: y", "ä", "\x00"])
def test_a_token_that_cannot_stand_in_a_header_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        anyio.run(Bearer(counted(Token(text)), "pacs").headers, REQUEST)
    assert text not in str(raised.value)


def test_a_token_is_granted_for_client_id_and_secret() -> None:
    granted = iter(("one", "two"))

    def grant(seen: Seen) -> Reply:
        said = {"access_token": next(granted), "token_type": "Bearer", "expires_in": "3600", "other": 1}
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(said).encode())

    def serve(seen: Seen) -> Reply:
        return Reply(401 if seen.headers["authorization"] == "Bearer one" else 200)

    with Web(grant) as tokens, Web(serve) as web:
        fetch = client_credentials(door_to(f"{tokens.url}/token"), "me", lambda: b"s&cr=t", scope="a b")
        get(door_to(web.url, Bearer(fetch, "pacs")), 3)
    assert len(tokens.seen) == 2 and tokens.seen[0].target == "/token"
    assert tokens.seen[0].headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(tokens.seen[0].body.decode()) == {
        "grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": ["s&cr=t"], "scope": ["a b"]}


@pytest.mark.parametrize("status, body, kind, words", [
    (400, b'{"error": "invalid_client", "error_description": "s3cr3t"}', Rejected, "400 invalid_client"),
    (401, b"<html>s3cr3t</html>", Rejected, "401"),
    (403, b'{"error": "s3cr3t is wrong!"}', Rejected, "403"),
    (200, b'{"token_type": "Bearer"}', RemoteProtocolError, "no bearer token"),
    (200, b'{"access_token": "x", "token_type": "mac"}', RemoteProtocolError, "no bearer token"),
    (200, b"[1]", RemoteProtocolError, "no bearer token"),
    (200, b'{"access_token": "' + b"x" * 100_000 + b'"}', RemoteProtocolError, "longer than"),
])  # fmt: skip
def test_a_token_that_is_not_granted_is_told_without_the_secret(
    status: int, body: bytes, kind: type[DcmsyncError], words: str
) -> None:
    with Web(Reply(status, body=body)) as tokens, pytest.raises(kind) as raised:
        anyio.run(client_credentials(door_to(tokens.url), "me", lambda: b"s3cr3t"))
    assert words in str(raised.value) and "s3cr3t" not in str(raised.value)
