"""Logins that leave a cookie: it is shown with every request, and had anew when it is no longer good.

Owns the two dialects that archives speak, Vitrea's and IMPAX's, and that a run logs in once for all its sessions.
Refuses to say a user or a password in any message, and to keep a cookie beyond the run.

Theory of operation. Whoever comes first logs in, the others wait for that. After a 401 the one who was shown an old
cookie is told to try again with the new one; only who was shown the newest logs in again. Which one a request went out
with is remembered in the context of its task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from urllib.parse import urljoin

import anyio
import anyio.to_thread

from dcmsync.errors import Rejected, RemoteProtocolError
from dcmsync.net.http import Answer, Door, Request, encode

Ask = Callable[[], tuple[bytes, bytes]]
"""User and password; may take its time, and is called in a thread."""

DEFAULT_REALM = "DefaultSystemRealm"
_ANY = range(100, 600)
_MOST_PAGE_OCTETS = 1 << 20
_MOST_COOKIE_OCTETS = 8192
_FAILED = b"Login Failed"
_SHOWN: ContextVar[str] = ContextVar("cookie", default="")


class Login:
    """Satisfies net.http.Authority. `enter` logs in and gives what the header Cookie is to be."""

    def __init__(self, enter: Callable[[], Awaitable[str]]) -> None:
        self._enter = enter
        self._cookie = ""
        self._lock = anyio.Lock()

    async def headers(self, request: Request) -> Mapping[str, str]:
        """The cookie. Raises Rejected when the login is refused, and what requests raise."""
        if not self._cookie:
            await self._log_in("")
        _SHOWN.set(self._cookie)
        return {"Cookie": self._cookie}

    async def renew(self) -> bool:
        """Logs in again, unless somebody else just did. Raises as `headers` does."""
        await self._log_in(_SHOWN.get())
        return True

    async def _log_in(self, known: str) -> None:
        async with self._lock:
            if self._cookie == known:
                self._cookie = await self._enter()


def vitrea(door: Door, ask: Ask, *, realm: str = DEFAULT_REALM) -> Login:
    """The login of Vitrea Connection: one POST. `door` leads to its address, and shows nobody any credentials.

    The token in its answer is not looked at: the server does not, either.
    """

    async def enter() -> str:
        user, password = await _asked(door, ask)
        headers = {"X-Userid": user, "X-Password": password, "X-Realm": realm, "Content-Length": "0"}
        async with door, door.exchange("POST", door.base, headers=headers, expected=_ANY) as answer:
            if answer.status != 200:
                raise _refused(door, f"answered {answer.status}")
            return _header(door, _cookies(answer))

    return Login(enter)


def impax(door: Door, ask: Ask) -> Login:
    """The login of IMPAX: a page, then a form beside it. `door` leads to the page, and shows nobody any credentials.

    Good cookies come with a page that says 403, too; a login that failed is told by a page that says 200.
    """

    async def enter() -> str:
        user, password = await _asked(door, ask)
        async with door:
            async with door.exchange("GET", door.base, expected=_ANY) as page:
                cookies = _cookies(page)
            form = encode((("j_username", user), ("j_password", password)), strict=True)
            target = f"{urljoin(door.base, 'j_security_check')}?{form}"
            shown = {"Cookie": _joined(cookies)} if cookies else {}
            async with door.exchange("GET", target, headers=shown, expected=_ANY) as answer:
                if answer.status == 401 or answer.status >= 500:
                    raise _refused(door, f"answered {answer.status}")
                if answer.status == 200 and _FAILED in await answer.read(_MOST_PAGE_OCTETS):
                    raise _refused(door, "said that it failed")
                return _header(door, {**cookies, **_cookies(answer)})

    return Login(enter)


async def _asked(door: Door, ask: Ask) -> tuple[str, str]:
    """User and password as they can stand in a header."""
    user, password = (each.decode("utf-8", "replace") for each in await anyio.to_thread.run_sync(ask))
    if not (user + password).isprintable():
        raise _refused(door, "needs a user and a password of printable characters")
    return user, password


def _refused(door: Door, words: str) -> Rejected:
    return Rejected(f"{door.name}: the login {words}", advice="Check user, password and login_url")


def _cookies(answer: Answer) -> dict[str, str]:
    """Name -> value of what an answer sets; what it takes back has no value."""
    set_ = [value for name, value in answer.headers.items() if name.lower() == "set-cookie"]
    pairs = (each.partition(";")[0].partition("=") for each in set_)
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def _joined(cookies: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items() if value)


def _header(door: Door, cookies: Mapping[str, str]) -> str:
    """The header Cookie. Raises Rejected when there is nothing to show."""
    text = _joined(cookies)
    if not text:
        raise _refused(door, "left no cookie")
    if len(text) > _MOST_COOKIE_OCTETS or not (text.isascii() and text.isprintable()):
        raise RemoteProtocolError(f"{door.name}: the login left a cookie that cannot be sent")
    return text
