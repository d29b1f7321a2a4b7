"""Who we are, as HTTP servers are told: a user and a password, or a token, which is had anew when it is no longer good.

Owns the header Authorization, when a token is fetched again, and that all sessions of a run share one. Refuses to know
where secrets stand: what asks for them is handed in, may take its time, and is called in a thread. Logins that leave a
cookie are `login.py`'s, signatures `aws.py`'s.

Theory of operation. Whoever comes first fetches the token, the others wait for that. After a 401 only who was shown the
newest token fetches another; who was shown an older one just tries again. Which one a request went out with is
remembered in the context of its task.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import anyio
import anyio.to_thread
from msgspec import Struct

from dcmsync.errors import Rejected, RemoteProtocolError, UsageError

if TYPE_CHECKING:
    from dcmsync.net.http import Door, Request

Reads = Callable[[], bytes]
"""Gives a secret; called in a thread. Raises UsageError, LocalTrouble."""

_MOST_TOKEN_OCTETS = 1 << 16
_GRANTED_OR_NOT = (200, 400, 401, 403)
_EARLY_S = 30.0  # a token is fetched anew so long before it expires, or at half of its life
_SHOWN: ContextVar[str] = ContextVar("token", default="")


class Basic:
    """A user and a password (RFC 7617), asked for once. Satisfies net.http.Authority."""

    def __init__(self, ask: Callable[[], tuple[bytes, bytes]], name: str) -> None:
        self._ask = ask
        self._name = name
        self._header = ""
        self._lock = anyio.Lock()

    async def headers(self, request: Request) -> Mapping[str, str]:
        """Authorization. Raises what asking raises, and UsageError for a user that cannot be told."""
        async with self._lock:
            if not self._header:
                user, password = await anyio.to_thread.run_sync(self._ask)
                if b":" in user:
                    raise UsageError(f"{self._name}: a user with a colon cannot be told to a web server")
                self._header = f"Basic {base64.b64encode(user + b':' + password).decode()}"
        return {"Authorization": self._header}

    async def renew(self) -> bool:
        """The same user and password would get the same answer."""
        return False


class Token(Struct, frozen=True):
    """A bearer token, and for how many seconds from now it is good; None where that is not known."""

    text: str
    lifetime_s: float | None = None


class Bearer:
    """A token (RFC 6750), kept until it expires or is refused. Satisfies net.http.Authority."""

    def __init__(
        self, fetch: Callable[[], Awaitable[Token]], name: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._name = name
        self._clock = clock
        self._token = ""
        self._until = float("inf")
        self._lock = anyio.Lock()

    async def headers(self, request: Request) -> Mapping[str, str]:
        """Authorization. Raises what fetching raises, and UsageError for a token that cannot stand in a header."""
        async with self._lock:
            if not self._token or self._clock() >= self._until:
                await self._have_anew()
        _SHOWN.set(self._token)
        return {"Authorization": f"Bearer {self._token}"}

    async def renew(self) -> bool:
        """Whether there is another token than the one that was refused. Raises as `headers` does."""
        refused = _SHOWN.get()
        async with self._lock:
            if self._token == refused:
                await self._have_anew()
            return self._token != refused

    async def _have_anew(self) -> None:
        token = await self._fetch()
        if not token.text.isascii() or not token.text.isprintable() or " " in token.text:
            raise UsageError(f"{self._name}: what should be a token has characters that no token has")
        self._token = token.text
        life_s = float("inf") if token.lifetime_s is None else max(token.lifetime_s, 0.0)
        self._until = self._clock() + max(life_s - _EARLY_S, life_s / 2)


def reading(read: Reads) -> Callable[[], Awaitable[Token]]:
    """Fetches a token from where it stands, such as a file that another program keeps fresh."""

    async def fetch() -> Token:
        return Token((await anyio.to_thread.run_sync(read)).decode("utf-8", "replace"))

    return fetch


def client_credentials(
    door: Door, client_id: str, secret: Reads, *, scope: str = ""
) -> Callable[[], Awaitable[Token]]:
    """Fetches a token by client id and secret (RFC 6749 §4.4). `door` leads to the token URL, with no authority."""

    async def fetch() -> Token:
        from dcmsync.net.http import Octets  # lazy: as the door, which is there already

        password = (await anyio.to_thread.run_sync(secret)).decode("utf-8", "replace")
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": password}
        text = urlencode({**form, "scope": scope} if scope else form)
        body = Octets("application/x-www-form-urlencoded", text.encode())
        async with door, door.exchange(
            "POST", "", body=body, headers={"Accept": "application/json"}, expected=_GRANTED_OR_NOT, repeatable=True
        ) as answer:
            said = await answer.read(_MOST_TOKEN_OCTETS)
            return _granted(door.name, answer.status, said)

    return fetch


def _granted(name: str, status: int, octets: bytes) -> Token:
    """The token that an answer grants (RFC 6749 §5). Raises Rejected, RemoteProtocolError; neither repeats a secret."""
    try:
        said = json.loads(octets)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        said = {}
    if status != 200:
        word = str(said.get("error", ""))
        told = f"{status} {word}" if word.replace("_", "").isalpha() and len(word) < 40 else str(status)
        raise Rejected(f"{name}: the token server grants no token: {told}",
                       advice="Check client_id, the secret, scope and token_url")  # fmt: skip
    text, kind, life = said.get("access_token"), said.get("token_type", "bearer"), said.get("expires_in")
    if not isinstance(text, str) or not text or str(kind).lower() != "bearer":
        raise RemoteProtocolError(f"{name}: the token server answers with no bearer token")
    try:
        return Token(text, None if life is None else float(life))
    except (TypeError, ValueError):
        return Token(text)
