"""Logins that leave a cookie: once for all sessions, again when the cookie is no longer good, and no secret told."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from dcmsync.errors import Rejected, RemoteProtocolError
from dcmsync.net import login
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from tests.fakes.web import Reply, Script, Seen, Web

SECRET = "pass&word=1/2"
HTML = {"Content-Type": "text/html"}


def ask() -> tuple[bytes, bytes]:
    return b"ada", SECRET.encode()


def door(url: str, path: str = "/login", authority: Any = None) -> Door:
    return Door(f"{url}{path}", name="PACS", limits=Limits(timeout_s=5), warn=print, authority=authority)


def logged_in(
    script: Script, make: Callable[[Door], login.Login], *, path: str = "/login", times: int = 1
) -> list[Seen]:
    """What the server saw of `times` requests at once, each after the login. Raises what they raise."""

    async def main(url: str) -> None:
        authority = make(door(url, path))
        place = door(url, "/data", authority)

        async def one() -> None:
            async with place, place.exchange("GET", "x") as answer:
                await answer.read()

        if times == 1:
            await one()
            return
        async with anyio.create_task_group() as tasks:
            for _ in range(times):
                tasks.start_soon(one)

    with Web(script) as web:
        anyio.run(main, web.url)
        return web.seen


def vitrea(aside: Door) -> login.Login:
    return login.vitrea(aside, ask, realm="Somewhere")


def impax(aside: Door) -> login.Login:
    return login.impax(aside, ask)


def raw(status: int, *cookies: str, body: bytes = b"") -> Reply:
    """An answer that sets several cookies."""
    lines = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
    head = f"HTTP/1.1 {status} Whatever\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return Reply(raw=head.encode() + body)


class Server:
    """Answers only who shows the newest cookie. `enters` is what it says to a login."""

    def __init__(self, enters: Callable[[int], Reply] | None = None) -> None:
        self.logins = 0
        self._enters = enters or (lambda count: raw(200, f"SID=s{count}; Path=/", "track=1; Secure"))

    def __call__(self, seen: Seen) -> Reply:
        if seen.path == "/login":
            self.logins += 1
            return self._enters(self.logins)
        is_right = f"SID=s{self.logins}" in seen.headers.get("cookie", "").split("; ")
        return Reply(200, body=b"data") if is_right else Reply(401, HTML, b"<html>log in</html>")


def test_vitrea_is_told_by_headers_and_the_cookies_are_shown() -> None:
    first, second = logged_in(Server(), vitrea)
    assert (first.method, first.body) == ("POST", b"")
    shown = {name: first.headers[name] for name in ("x-userid", "x-password", "x-realm")}
    assert shown == {"x-userid": "ada", "x-password": SECRET, "x-realm": "Somewhere"}
    assert second.headers["cookie"] == "SID=s1; track=1" and "x-password" not in second.headers


def test_many_sessions_log_in_once() -> None:
    server = Server()
    seen = logged_in(server, vitrea, times=6)
    assert server.logins == 1 and len(seen) == 7


def test_a_cookie_that_is_no_longer_good_is_renewed_once_for_all() -> None:
    server = Server()

    def forgetful(seen: Seen) -> Reply:
        if seen.path != "/login" and server.logins == 1:
            return Reply(401)
        return server(seen)

    seen = logged_in(forgetful, vitrea, times=6)
    assert server.logins == 2
    assert sum(each.headers.get("cookie", "").startswith("SID=s2") for each in seen) == 6


def test_who_is_refused_with_a_new_cookie_gives_up() -> None:
    server = Server()

    def never(seen: Seen) -> Reply:
        return server(seen) if seen.path == "/login" else Reply(401)

    with pytest.raises(Rejected, match="401") as raised:
        logged_in(never, vitrea)
    assert server.logins == 2 and SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "answer, words",
    [
        (Reply(401, HTML, b"<html>"), "the login answered 401"),
        (Reply(500, HTML, b"<html>"), "the login answered 500"),
        (Reply(302, {"Location": "https://elsewhere.example/"}), "the login answered 302"),
        (Reply(200), "the login left no cookie"),
        (raw(200, "SID=; Path=/"), "the login left no cookie"),
    ],
)
def test_a_login_that_is_refused_is_told_without_the_secret(answer: Reply, words: str) -> None:
    with pytest.raises(Rejected) as raised:
        logged_in(Server(lambda count: answer), vitrea)
    assert words in str(raised.value) and "Check user, password and login_url" in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("cookies", [("A=" + "x" * 5000, "B=" + "x" * 5000), ("SID=a\tb",)])
def test_a_cookie_that_cannot_be_sent_is_no_cookie(cookies: tuple[str, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match="cannot be sent"):
        logged_in(Server(lambda count: raw(200, *cookies)), vitrea)


def test_a_secret_that_cannot_stand_in_a_header_is_not_sent() -> None:
    server = Server()
    with pytest.raises(Rejected, match="printable") as raised:
        logged_in(server, lambda aside: login.vitrea(aside, lambda: (b"ada", b"pass\r\nX-Other: 1")))
    assert not server.logins and "X-Other" not in str(raised.value)


class Form:
    """IMPAX: a page, a form, and a cookie that is good even when the form answers 403."""

    def __init__(self, answer: Reply) -> None:
        self._answer = answer

    def __call__(self, seen: Seen) -> Reply:
        if seen.path == "/web/start":
            return raw(200, "JSESSIONID=j1; Path=/web")
        if seen.path == "/web/j_security_check":
            is_right = dict(seen.query) == {"j_username": "ada", "j_password": SECRET}
            return self._answer if is_right and "JSESSIONID=j1" in seen.headers["cookie"] else Reply(400)
        return Reply(200, body=b"data") if "SSO=good" in seen.headers.get("cookie", "") else Reply(401)


@pytest.mark.parametrize("status", [200, 302, 403])
def test_impax_is_told_by_a_form_and_a_cookie_is_what_counts(status: int) -> None:
    seen = logged_in(Form(raw(status, "SSO=good; HttpOnly", body=b"<html>whatever")), impax, path="/web/start")
    assert [each.path for each in seen] == ["/web/start", "/web/j_security_check", "/data/x"]
    assert seen[2].headers["cookie"] == "JSESSIONID=j1; SSO=good"


def test_impax_says_that_a_login_failed_by_a_page() -> None:
    with pytest.raises(Rejected, match="said that it failed") as raised:
        logged_in(Form(Reply(200, HTML, b"<html><b>Login Failed</b>")), impax, path="/web/start")
    assert SECRET not in str(raised.value) and "j_password" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 503])
def test_impax_may_refuse_by_a_status(status: int) -> None:
    with pytest.raises(Rejected, match=str(status)) as raised:
        logged_in(Form(Reply(status)), impax, path="/web/start")
    assert "pass" not in str(raised.value).replace("password and", "")
