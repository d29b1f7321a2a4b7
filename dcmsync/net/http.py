"""HTTP: requests to one place, and their answers as streams. The one door to aiohttp's client.

Owns the pool of connections, which failures are tried again, where redirects may lead, who is shown credentials, and
the words for what went wrong. Refuses to touch a URL (what it is given is what is sent), and to know what an answer
means: DICOMweb and its like are spoken in `endpoints`.

Theory of operation: aiohttp frames messages and keeps connections; everything that decides is here. An exchange is one
request until its answer can be read; only until then may it be repeated. Each has a `Guard`, with the rule of progress
that DIMSE has: a peer that owes us something and drips is cut off, and the one timer of the door looks at all guards.
Sessions use one connection at a time, so that there are never more connections than sessions. Credentials are made anew
for each try, and go to the origin of the base URL alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import aiohttp
import anyio
from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from dcmsync import __version__
from dcmsync.errors import (
    Disconnected,
    Insecure,
    LocalProtocolError,
    OutOfResources,
    PeerError,
    Refused,
    Rejected,
    RemoteProtocolError,
    Stalled,
    Unreachable,
)
from dcmsync.net import tls
from dcmsync.net.patience import Guard

if TYPE_CHECKING:
    from dcmsync.net.channel import Limits
    from dcmsync.net.tls import Secure

Query = Sequence[tuple[str, str]]
"""Names and values of a query string, in order, as text."""

TRIES = 5
REDIRECTS = 5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 120.0
_LITERAL = "-._~*?,^/:@!$'()"  # what Orthanc 1.10 must find as it is: it decodes nothing in a query
_PATH = "/%:@!$&'()*+,;=-._~^"
_READ_OCTETS = 1 << 18
_LATER = frozenset((408, 425, 429, 502, 503, 504))
_MOVED = frozenset((301, 302, 303, 307, 308))


def encode(query: Query, *, strict: bool = False) -> str:
    """A query string. Lenient: what servers that decode nothing must see stays literal; strict: only what RFC 3986
    §2.3 calls unreserved does, as signatures want it.
    """
    safe = "-._~" if strict else _LITERAL
    return "&".join(f"{quote(name, safe=safe)}={quote(value, safe=safe)}" for name, value in query)


class Body(Protocol):
    """What is sent. `length` in octets; None where it is not known: then it goes in chunks."""

    @property
    def media_type(self) -> str: ...

    @property
    def length(self) -> int | None: ...

    def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """Its octets, from the beginning, each time that it is called."""


class Octets(Struct, frozen=True):
    """A body in memory."""

    media_type: str
    data: bytes

    @property
    def length(self) -> int:
        """In octets."""
        return len(self.data)

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """All of it."""
        yield self.data


class Request(Struct, frozen=True, kw_only=True):
    """What is about to be sent: an absolute URL, exactly as it goes out."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Body | None = None


class Authority(Protocol):
    """What authorises requests."""

    async def headers(self, request: Request) -> Mapping[str, str]:
        """What to add to a request, made for this very try of it."""

    async def renew(self) -> bool:
        """After a 401: whether asking once more may help."""


class Answer:
    """An answer whose body has not been read. Valid as long as its exchange."""

    def __init__(self, response: aiohttp.ClientResponse, guard: Guard, name: str, limits: Limits) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)
        self.media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.guard = guard
        self._response = response
        self._name = name
        self._throttle = limits.throttle

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The octets of the body as they come. Raises Disconnected when it ends early, Stalled."""
        self.guard.resume()
        try:
            while octets := await self._response.content.readany():
                self.guard.octets += len(octets)
                self.guard.pause()
                if self._throttle is not None:
                    await self._throttle.pay(len(octets))
                yield octets
                self.guard.resume()
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(self._name, error, self.guard) from error
        finally:
            self.guard.pause()
        if self.guard.expired:
            raise Stalled(f"{self._name}: {self.guard.expired}")

    async def read(self, most: int = 64 << 20) -> bytes:
        """All of the body. Raises as `pieces` does, and RemoteProtocolError when there are more octets than `most`."""
        found = bytearray()
        async with aclosing(self.pieces()) as pieces:
            async for octets in pieces:
                found += octets
                if len(found) > most:
                    raise RemoteProtocolError(f"{self._name}: the answer is longer than {most:,} octets")
        return bytes(found)

    async def words(self) -> str:
        """The status, and what the body says of it, for people."""
        said = f"{self.status} {self._response.reason or ''}".strip()
        try:
            text = (await self.read(1 << 16)).decode("utf-8", "replace")
        except PeerError:
            text = ""
        shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
        return f"{said}: {shown}" if shown else said


    def close(self) -> None:
        """Lets go of the connection: for others when the body was read to its end, for good when it was not."""
        if self._response.content.at_eof() and not self.guard.expired:
            self._response.release()
        else:
            self._response.close()


class _Idled(Disconnected):
    """A connection that had been kept was closed before the first octet of the answer."""


class _Cut:
    """What a guard shuts down: the wait for an answer, then the connection that it comes on."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.response: aiohttp.ClientResponse | None = None
        self.is_reused = False

    def shutdown(self, how: int, /) -> None:
        """Ends the wait."""
        if self.response is None:
            self.scope.cancel()
        elif self.response.connection is not None and self.response.connection.transport is not None:
            self.response.connection.transport.abort()


class _Sending:
    """A body on its way: each piece that was taken counts as progress, and is paid for."""

    def __init__(self, body: Body, guard: Guard, limits: Limits) -> None:
        self.trouble: BaseException | None = None
        self._body = body
        self._guard = guard
        self._throttle = limits.throttle

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """Its pieces. What goes wrong is kept in `trouble`, since it would not come out as it is."""
        sent = 0
        try:
            async for piece in self._body.pieces():
                self._guard.resume()
                yield piece
                self._guard.pause()
                sent += len(piece)
                self._guard.octets += len(piece)
                if self._throttle is not None:
                    await self._throttle.pay(len(piece))
            if self._body.length not in (None, sent):
                raise LocalProtocolError(f"a body of {self._body.length} octets gave {sent}")
        except Exception as error:
            self.trouble = error
            raise
        finally:
            self._guard.resume()


async def _note_reuse(client: object, context: object, parameters: object) -> None:
    cut = getattr(context, "trace_request_ctx", None)
    if isinstance(cut, _Cut):
        cut.is_reused = True


def _wait_s(tries: int) -> float:
    """How long to wait after so many tries: 0.5, 1, 2, 4 s, with half of it jitter."""
    return FIRST_WAIT_S * 2.0 ** (tries - 1) * (0.5 + random.random() / 2)


def _asked_wait_s(text: str) -> float | None:
    """What Retry-After says (RFC 9110 §10.2.3): seconds, or a date. None where it says nothing that can be read."""
    if text.strip().isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - time.time())


def _broken(name: str, error: Exception, guard: Guard, *, is_reused: bool = False) -> PeerError:
    """What an error of aiohttp means."""
    if guard.expired:
        return Stalled(f"{name}: {guard.expired}")
    if isinstance(error, aiohttp.ClientSSLError):
        return tls.refusal(name, error)
    if isinstance(error, aiohttp.ClientConnectorError):
        words = (error.strerror or "no connection").lower()
        return Unreachable(f"{name}: cannot connect: {words}", advice="Check the host and the port")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Unreachable(f"{name}: no answer to the attempt to connect", advice="Check the host and the firewall")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return (_Idled if is_reused else Disconnected)(f"{name}: the connection was closed before the answer")
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError | OSError):
        return Disconnected(f"{name}: the connection was closed before the end of the answer")
    return RemoteProtocolError(f"{name}: what it answers is no HTTP", advice="Check the port")


class Door:
    """HTTP to one base URL, for one place; one pool for all its sessions, each of which enters it."""

    def __init__(
        self,
        base: str,
        *,
        name: str,
        limits: Limits,
        secure: Secure | None = None,
        authority: Authority | None = None,
        proxy: str = "",
        headers: Mapping[str, str] = {},
        strict: bool = False,
        warn: Callable[[str], None],
    ) -> None:
        """`strict`: how queries are encoded, see `encode`."""
        self.base = base.rstrip("/")
        self.name = name
        self._limits = limits
        self._secure = secure
        self._authority = authority
        self._proxy = proxy
        self._headers = dict(headers)
        self._strict = strict
        self._warn = warn
        self._entered = 0
        self._has_answered = False
        self._client: aiohttp.ClientSession | None = None
        self._guards: set[Guard] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Door:
        self._entered += 1
        if self._client is None:
            connector = aiohttp.TCPConnector(
                limit=0, ssl=self._secure.context if self._secure else True, resolver=aiohttp.ThreadedResolver(),
            )
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_reuseconn.append(_note_reuse)
            self._client = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
                requote_redirect_url=False, read_bufsize=_READ_OCTETS,
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_s),
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"), trace_configs=[tracing],
            )
            self._client._retry_connection = False  # what is repeated is decided here
            self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered and self._client is not None:
            client, self._client = self._client, None
            if self._timer is not None:
                self._timer.cancel()
            with anyio.CancelScope(shield=True):
                await client.close()

    def url(self, path: str, query: Query = ()) -> str:
        """An absolute URL below the base."""
        joined = f"{self.base}/{quote(path.lstrip('/'), safe=_PATH)}" if path.strip("/") else self.base
        return f"{joined}?{encode(query, strict=self._strict)}" if query else joined

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        target: str,
        *,
        query: Query = (),
        headers: Mapping[str, str] = {},
        body: Body | None = None,
        expected: Container[int] = (200,),
        repeatable: bool | None = None,
    ) -> AsyncIterator[Answer]:
        """The answer to a request whose status is `expected`. `target` is a path below the base, or an absolute URL;
        `repeatable` says whether it may be sent twice: GET and HEAD may, others not, where it is None.

        Raises Unreachable, Insecure, Stalled, Disconnected, RemoteProtocolError, and what other statuses mean: Rejected
        for 401 and 403, OutOfResources and PeerError for what may pass, Refused for the rest.
        """
        url = self.url(target, query)
        if target.startswith(("http://", "https://")):
            more = encode(query, strict=self._strict)
            url = f"{target}{'&' if '?' in target else '?'}{more}" if query else target
        request = Request(method=method, url=url, headers=headers, body=body)
        may_repeat = method in ("GET", "HEAD") if repeatable is None else repeatable
        answer = await self._obtain(request, may_repeat, expected)
        try:
            yield answer
        finally:
            self._end(answer)

    async def _obtain(self, request: Request, may_repeat: bool, expected: Container[int]) -> Answer:
        """The first answer that is expected, after redirects and further tries."""
        tries = redirects = renewals = 0
        while True:
            tries += 1
            try:
                answer = await self._send(request)
            except (Unreachable, Disconnected) as error:
                has_idled = isinstance(error, _Idled)
                if not may_repeat or tries >= TRIES or (isinstance(error, Unreachable) and not self._has_answered):
                    raise
                if not (has_idled and tries == 1):
                    await anyio.sleep(_wait_s(tries))
                continue
            if answer.status in expected:
                return answer
            try:
                if answer.status in _MOVED and redirects < REDIRECTS:
                    redirects += 1
                    request = self._redirected(request, answer)
                    tries -= 1
                    continue
                if answer.status == 401 and not renewals and self._authority and self._is_ours(request.url):
                    renewals += 1
                    if await self._authority.renew():
                        tries -= 1
                        continue
                may_pass = answer.status in _LATER or (answer.status == 500 and may_repeat)
                if not (may_pass and may_repeat and tries < TRIES):
                    raise await self._refusal(request, answer, may_pass)
                wait_s = _asked_wait_s(answer.headers.get("Retry-After", ""))
            finally:
                self._end(answer)
            await anyio.sleep(_wait_s(tries) if wait_s is None else min(wait_s, LONGEST_WAIT_S))

    async def _send(self, request: Request) -> Answer:
        """One try. Raises Unreachable, Insecure, Stalled, Disconnected, RemoteProtocolError."""
        if self._client is None:
            raise LocalProtocolError("an HTTP door is used before it is entered")
        headers = CIMultiDict({"Accept": "*/*", "User-Agent": f"dcmsync/{__version__}"})
        is_ours = self._is_ours(request.url)
        headers.update(self._headers if is_ours else {})
        if request.body is not None:
            headers["Content-Type"] = request.body.media_type
            if request.body.length is not None:
                headers["Content-Length"] = str(request.body.length)
        headers.update(request.headers)
        if self._authority is not None and is_ours:
            shown = Request(method=request.method, url=request.url, headers=headers, body=request.body)
            headers.update(await self._authority.headers(shown))
        cut = _Cut()
        guard = Guard(cut, timeout_s=self._limits.timeout_s, whole_s=self._limits.association_s)
        self._guards.add(guard)
        sending = _Sending(request.body, guard, self._limits) if request.body is not None else None
        guard.arm()
        try:
            with cut.scope:
                response = await self._client.request(
                    request.method, URL(request.url, encoded=True), headers=headers, allow_redirects=False,
                    data=sending.pieces() if sending else None, proxy=self._proxy or None,
                    server_hostname=(self._secure.server_name or None) if self._secure and is_ours else None,
                    trace_request_ctx=cut,
                )
                cut.response = response
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._guards.discard(guard)
            if sending and sending.trouble:
                raise sending.trouble from error
            raise _broken(self.name, error, guard, is_reused=cut.is_reused) from error
        except BaseException:
            self._guards.discard(guard)
            raise
        if cut.response is None:
            self._guards.discard(guard)
            raise Stalled(f"{self.name}: {guard.expired}")
        guard.pause()
        self._has_answered = True
        return Answer(response, guard, self.name, self._limits)

    def _end(self, answer: Answer) -> None:
        self._guards.discard(answer.guard)
        answer.close()

    def _is_ours(self, url: str) -> bool:
        return URL(url, encoded=True).origin() == URL(self.base, encoded=True).origin()

    def _redirected(self, request: Request, answer: Answer) -> Request:
        """The request to send instead. Raises Refused, Insecure, RemoteProtocolError."""
        old, target = URL(request.url, encoded=True), answer.headers.get("Location", "")
        try:
            new = old.join(URL(target, encoded=True)).with_user(None).with_fragment(None)
        except ValueError:
            raise RemoteProtocolError(f"{self.name}: it redirects to what is no URL") from None
        if request.method not in ("GET", "HEAD"):
            raise Refused(f"{self.name}: {request.method} is redirected to {new.origin()}", status=answer.status,
                          advice="Set the locator to where it leads")  # fmt: skip
        if new.scheme not in ("http", "https") or not new.host:
            raise RemoteProtocolError(f"{self.name}: it redirects to what is no web server")
        if old.scheme == "https" and new.scheme == "http":
            raise Insecure(f"{self.name}: it redirects from https to http, in plain", advice="Check the locator")
        return Request(method=request.method, url=str(new), headers=request.headers)

    async def _refusal(self, request: Request, answer: Answer, may_pass: bool) -> PeerError:
        words = f"{self.name}: {request.method} {URL(request.url, encoded=True).path}: {await answer.words()}"
        if answer.status in (401, 403):
            return Rejected(words, advice="Check user and password, or the token" if self._authority else
                            "Set user and password_file, or token_command")
        if answer.status in (429, 503):
            return OutOfResources(words, status=answer.status, advice="Try again later")
        return PeerError(words) if may_pass else Refused(words, status=answer.status)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for guard in tuple(self._guards):
            guard.look(now)
        self._timer = loop.call_later(min(max(self._limits.timeout_s / 8, 0.01), 1.0), self._look)
