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
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote
from weakref import WeakSet

import aiohttp
import anyio
import anyio.lowlevel
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
from dcmsync.net.decoding import ACCEPTED, Decoder
from dcmsync.net.patience import Guard
from dcmsync.net.quotation import MOST_OCTETS, quoted, secrets_of
from dcmsync.net.trials import Idled, Trials

if TYPE_CHECKING:
    from dcmsync.net.channel import Limits
    from dcmsync.net.throttle import Throttle
    from dcmsync.net.tls import Secure, Spoken

Query = Sequence[tuple[str, str]]
"""Names and values of a query string, in order, as text."""

REDIRECTS = 5
_LITERAL = "-._~*?,^/:@!$'()"  # what Orthanc 1.10 must find as it is: it decodes nothing in a query
_PATH = "/%:@!$&'()*+,;=-._~^"
_READ_OCTETS = 1 << 18
_SEND_OCTETS = 1 << 18
_LONG_S = 10.0  # who is asked to wait longer is told
_OURS_ALONE = ("Authorization", "Cookie")
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

    def __init__(
        self, response: aiohttp.ClientResponse, guard: Guard, name: str, throttle: Throttle | None,
        secrets: Callable[[], Sequence[str]],
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)
        self.media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.guard = guard
        self._response = response
        self._name = name
        self._throttle = throttle
        self._secrets = secrets

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The octets of the body as they come, decoded. Raises Disconnected when it ends early, Stalled,
        RemoteProtocolError when it is not encoded as it says.
        """
        decoder = Decoder(self.headers.get("Content-Encoding", ""), self._name)
        self.guard.resume()
        try:
            while octets := await self._response.content.readany():
                self.guard.octets += len(octets)
                self.guard.pause()
                if self._throttle is not None:
                    await self._throttle.pay(len(octets))
                for piece in decoder.feed(octets):
                    yield piece
                self.guard.resume()
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(self._name, error, self.guard) from error
        finally:
            self.guard.pause()
        if self.guard.expired:  # what was cut off by us, and had no length, looks like an end
            raise Stalled(f"{self._name}: {self.guard.expired}")
        if not decoder.is_complete:
            raise Disconnected(f"{self._name}: the answer breaks off")

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
        """The status, and what the body says of it, for people; never what we told the peer."""
        reason = "".join(each for each in self._response.reason or "" if each.isprintable())[:40]
        said = bytearray()
        try:
            async with aclosing(self.pieces()) as pieces:
                async for octets in pieces:
                    said += octets
                    if len(said) > MOST_OCTETS:
                        break
        except PeerError:
            pass  # the status is what counts
        text = quoted(bytes(said[:MOST_OCTETS]), self._secrets())
        return f"{self.status} {reason}".rstrip() + (f": {text}" if text else "")

    def close(self) -> None:
        """Lets go of the connection: for others when the body was read to its end, for good when it was not."""
        if self._response.content.at_eof() and not self.guard.expired:
            self._response.release()
        else:
            self._response.close()


class _Connector(aiohttp.TCPConnector):
    """Connections whose cipher is strong enough, or none: the suites of TLS 1.3 cannot be chosen beforehand."""

    def __init__(self, name: str, *, least_bits: int, spoken: Callable[[Spoken], None] | None) -> None:
        super().__init__(limit=0, resolver=aiohttp.ThreadedResolver())
        self._spoken = spoken
        self._name = name
        self._bits = least_bits
        self._transports: WeakSet[asyncio.Transport] = WeakSet()

    def abort_closing(self) -> None:
        """Ends connections that are given up, and whose peer takes nothing more: they would wait for it for ever."""
        for transport in tuple(self._transports):
            connected = transport.get_extra_info("socket")
            if transport.is_closing() and connected is not None and connected.fileno() >= 0:
                transport.abort()

    async def _wrap_create_connection(self, *arguments: Any, **more: Any) -> tuple[asyncio.Transport, Any]:
        transport, protocol = await super()._wrap_create_connection(*arguments, **more)
        cipher = transport.get_extra_info("cipher")
        if cipher is not None and cipher[2] < self._bits:
            transport.abort()
            raise Insecure(f"{self._name}: the peer chose {cipher[0]}; at least {self._bits} bits are asked for",
                           advice='Set tls_profile = "bcp195" if that will do')  # fmt: skip
        if cipher is not None and self._spoken is not None:
            self._spoken(tls.spoken_by(transport.get_extra_info("ssl_object")))
        self._transports.add(transport)
        return transport, protocol


class _Sent:
    """A request on its way. What its guard shuts down: the wait for an answer, then the connection that it comes on."""

    def __init__(self, *, is_secured: bool, is_known: bool) -> None:
        self.scope = anyio.CancelScope()
        self.response: aiohttp.ClientResponse | None = None
        self.is_reused = False
        self.is_secured = is_secured
        self.is_known = is_known  # whether this peer has answered before

    def shutdown(self, how: int, /) -> None:
        """Ends the wait."""
        if self.response is None:
            self.scope.cancel()
        elif self.response.connection is not None and self.response.connection.transport is not None:
            self.response.connection.transport.abort()


class _Sending:
    """A body on its way: each piece that was taken counts as progress, and is paid for."""

    def __init__(self, body: Body, guard: Guard, throttle: Throttle | None) -> None:
        self.trouble: BaseException | None = None
        self._body = body
        self._guard = guard
        self._throttle = throttle

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """Its pieces. What goes wrong is kept in `trouble`, since it would not come out as it is."""
        sent = 0
        try:
            async for whole in self._body.pieces():
                view = memoryview(whole).cast("B")
                for at in range(0, len(view), _SEND_OCTETS):
                    piece = view[at : at + _SEND_OCTETS]
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
        self._guard.resume()  # the answer is owed


async def _note_reuse(client: object, context: object, parameters: object) -> None:
    sent = getattr(context, "trace_request_ctx", None)
    if isinstance(sent, _Sent):
        sent.is_reused = True


def _broken(name: str, error: Exception, guard: Guard, *, sent: _Sent | None = None) -> PeerError:
    """What an error of aiohttp means, before the answer when it is known what was `sent`."""
    if guard.expired:
        return Stalled(f"{name}: {guard.expired}")
    if isinstance(error, aiohttp.ClientSSLError):
        return tls.refusal(name, error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return Unreachable(f"{name}: cannot connect to the proxy", advice="Check proxy, or HTTPS_PROXY and NO_PROXY")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Unreachable(f"{name}: the proxy does not lead there: {error.status}", advice="Ask who runs the proxy")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unreachable(f"{name}: no such host", advice="Check the name")
    if isinstance(error, aiohttp.ClientConnectorError):
        words = (os.strerror(error.errno) if error.errno else "no address answers").lower()
        return Unreachable(f"{name}: cannot connect: {words}", advice="Check the host and the port")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Unreachable(f"{name}: no connection within the time for it", advice="Check host, port and firewall")
    if isinstance(error, aiohttp.ClientResponseError):
        if "\\x15\\x03" in str(error) or "\x15\x03" in str(error):  # RFC 8446 §5.1: a record with an alert
            return Insecure(f"{name}: the peer speaks TLS on this port", advice="Write https:// in its locator")
        return RemoteProtocolError(f"{name}: what it answers is no HTTP that can be read", advice="Check the port")
    if sent is None:
        return Disconnected(f"{name}: the connection was closed before the end of the answer")
    kind = Idled if sent.is_reused else Disconnected
    return kind(f"{name}: the connection was closed before an answer came",
                advice=None if sent.is_secured or sent.is_known else "Does it speak TLS there? Then write https://")


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
        spoken: Callable[[Spoken], None] | None = None,
        warn: Callable[[str], None],
    ) -> None:
        """`strict`: how queries are encoded, see `encode`; `spoken` hears what TLS each connection came to."""
        self.base = base.rstrip("/")
        self.name = name
        self._limits = limits
        self._secure = secure
        self._authority = authority
        self._proxy = proxy
        self._headers_of_all = dict(headers)
        self._told: set[str] = set()
        self._origin = URL(self.base, encoded=True).origin()
        self._strict = strict
        self._spoken = spoken
        self._warn = warn
        self._entered = 0
        self._has_answered = False
        self._client: aiohttp.ClientSession | None = None
        self._connector: _Connector | None = None
        self._guards: set[Guard] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Door:
        self._entered += 1
        if self._client is None:
            least_bits = self._secure.least_bits if self._secure else 0
            connector = _Connector(self.name, least_bits=least_bits, spoken=self._spoken)
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_reuseconn.append(_note_reuse)
            self._client = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
                requote_redirect_url=False, read_bufsize=_READ_OCTETS, trace_configs=[tracing],
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_s),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )  # fmt: skip
            self._connector = connector
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
                if self._connector is not None:
                    self._connector.abort_closing()
                await anyio.lowlevel.checkpoint()  # so that the loop hears of it

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
        trials = Trials(may_repeat)
        while True:
            trials.count += 1
            try:
                answer = await self._send(request)
            except (Unreachable, Disconnected) as error:
                wait_s = trials.wait_s(error, is_known=self._has_answered)
            else:
                if answer.status in expected:
                    return answer
                try:
                    request, wait_s = await self._next(request, answer, trials)
                finally:
                    self._end(answer)
            await anyio.sleep(wait_s)

    async def _next(self, request: Request, answer: Answer, trials: Trials) -> tuple[Request, float]:
        """What to send next, and how many seconds from now. Raises what the answer means, when that is nothing."""
        if answer.status in _MOVED:
            trials.redirects += 1
            if trials.redirects > REDIRECTS:
                raise RemoteProtocolError(f"{self.name}: it redirects in a circle", advice="Check the locator")
            trials.count -= 1
            return self._redirected(request, answer), 0.0
        if answer.status == 401 and not trials.is_renewed and self._authority is not None and self._is_ours(request):
            trials.is_renewed = True
            if await self._authority.renew():
                return request, 0.0
        may_pass = answer.status in _LATER or (answer.status == 500 and trials.may_repeat)
        if not (may_pass and trials.may_go_on):
            raise await self._refusal(request, answer, may_pass=may_pass)
        wait_s = trials.asked_wait_s(answer.headers.get("Retry-After", ""))
        if wait_s > _LONG_S:
            self._tell(f"{self.name}: it asks to wait for {wait_s:.0f} s")
        return request, wait_s

    async def _send(self, request: Request) -> Answer:
        """One try. Raises Unreachable, Insecure, Stalled, Disconnected, RemoteProtocolError."""
        if self._client is None:
            raise LocalProtocolError("an HTTP door is used before it is entered")
        is_ours = self._is_ours(request)
        headers, shown = await self._headers(request, is_ours=is_ours)
        secure = self._secure if is_ours else None
        sent = _Sent(is_secured=request.url.startswith("https:"), is_known=self._has_answered)
        guard = Guard(sent, timeout_s=self._limits.timeout_s, whole_s=self._limits.association_s)
        body = _Sending(request.body, guard, self._limits.throttle) if request.body is not None else None
        self._guards.add(guard)
        guard.arm()
        try:
            with sent.scope:
                sent.response = await self._client.request(
                    request.method, URL(request.url, encoded=True), headers=headers, allow_redirects=False,
                    data=body.pieces() if body else None, proxy=self._proxy or None, trace_request_ctx=sent,
                    ssl=secure.context if secure else True, server_hostname=(secure and secure.server_name) or None,
                )  # fmt: skip
            if sent.response is None:
                if self._connector is not None:
                    self._connector.abort_closing()
                raise Stalled(f"{self.name}: {guard.expired}")
        except (aiohttp.ClientError, OSError) as error:
            self._guards.discard(guard)
            if body is not None and body.trouble is not None:
                raise body.trouble from error
            raise _broken(self.name, error, guard, sent=sent) from error
        except BaseException:
            self._guards.discard(guard)
            raise
        guard.pause()
        self._has_answered = True
        secrets = partial(secrets_of, request.url, headers, shown)
        return Answer(sent.response, guard, self.name, self._limits.throttle, secrets)

    async def _headers(self, request: Request, *, is_ours: bool) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """All headers of a try, and those among them that authorise it, which are for our own origin alone."""
        headers = CIMultiDict({"Accept": "*/*", "Accept-Encoding": ACCEPTED, "User-Agent": f"dcmsync/{__version__}"})
        headers.update(self._headers_of_all if is_ours else {})
        if request.body is not None:
            headers["Content-Type"] = request.body.media_type
            if request.body.length is not None:
                headers["Content-Length"] = str(request.body.length)
        headers.update(request.headers)
        if not is_ours:
            for name in _OURS_ALONE:
                headers.popall(name, None)
        if self._authority is None or not is_ours:
            return headers, self._headers_of_all if is_ours else {}
        whole = Request(method=request.method, url=request.url, headers=headers, body=request.body)
        shown = await self._authority.headers(whole)
        headers.update(shown)
        return headers, {**self._headers_of_all, **shown}

    def _tell(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            self._warn(words)

    def _end(self, answer: Answer) -> None:
        self._guards.discard(answer.guard)
        answer.close()

    def _is_ours(self, request: Request) -> bool:
        """Whether it goes to the origin of the base URL, so that credentials may go with it."""
        return bool(URL(request.url, encoded=True).origin() == self._origin)

    def _redirected(self, request: Request, answer: Answer) -> Request:
        """The request to send instead. Raises Refused, Insecure, RemoteProtocolError."""
        old = URL(request.url, encoded=True)
        try:
            new = old.join(URL(answer.headers.get("Location", ""), encoded=True)).with_user(None).with_fragment(None)
            origin = new.origin()
        except ValueError:
            raise RemoteProtocolError(f"{self.name}: it redirects to what is no URL") from None
        if request.method not in ("GET", "HEAD"):
            raise Refused(f"{self.name}: {request.method} is redirected to {origin}", status=answer.status,
                          advice="Set the locator to where it leads")  # fmt: skip
        if new.scheme not in ("http", "https"):
            raise RemoteProtocolError(f"{self.name}: it redirects to what is no web server")
        if old.scheme == "https" and new.scheme == "http":
            raise Insecure(f"{self.name}: it redirects to {origin}, in plain text", advice="Check the locator")
        if origin != self._origin:
            self._tell(f"{self.name}: it redirects to {origin}, which is shown no credentials; is the locator right?")
        return Request(method=request.method, url=str(new), headers=request.headers)

    async def _refusal(self, request: Request, answer: Answer, *, may_pass: bool) -> PeerError:
        """What an answer means that is not expected, in words."""
        words = f"{self.name}: {request.method} {URL(request.url, encoded=True).raw_path}: {await answer.words()}"
        if answer.status in (401, 403):
            return Rejected(words, advice="Check user and password, or the token, and what they allow"
                            if self._authority is not None else "Set user and password_file, or token_command")
        if answer.status in (429, 503):
            return OutOfResources(words, status=answer.status, advice="Try again later")
        return PeerError(words) if may_pass else Refused(words, status=answer.status)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for guard in tuple(self._guards):
            guard.look(now)
        self._timer = loop.call_later(min(max(self._limits.timeout_s / 8, 0.01), 1.0), self._look)
