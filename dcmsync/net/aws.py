"""The authority of AWS: each try of a request is signed anew, with the time in it (SigV4).

Owns when credentials are asked for again: shortly before they expire, when the service says that they have, and every
few minutes, since other programs renew the files that they stand in. Refuses to know where they come from.

A body is read once to hash it and again to send it: a signature holds for its octets, and S3's unsigned payloads are
not promised for HealthImaging.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256

import anyio
import anyio.to_thread

from dcmsync.net.http import Body, Request
from dcmsync.wire.sigv4 import EMPTY_SHA256, TIME_FORMAT, Credentials, Scope, signed

SERVICE = "medical-imaging"
EARLY_S = 300.0  # how long before they expire credentials are renewed
KEPT_S = 300.0  # how long credentials are kept that do not say when they expire
_SIGNED = ("content-type", "x-amz-")


class SigV4:
    """Satisfies net.http.Authority. `credentials` may block, and is called in a thread."""

    def __init__(
        self, credentials: Callable[[], Credentials], region: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: seconds since 1970."""
        self._ask = credentials
        self._region = region
        self._clock = clock
        self._credentials: Credentials | None = None
        self._until = 0.0
        self._lock = anyio.Lock()

    async def headers(self, request: Request) -> Mapping[str, str]:
        """The signature, and what belongs to it. Raises what asking for credentials raises."""
        credentials = await self._current()
        digest = await _sha256(request.body)
        given = {name: value for name, value in request.headers.items() if name.lower().startswith(_SIGNED)}
        scope = Scope(
            time=datetime.fromtimestamp(self._clock(), UTC).strftime(TIME_FORMAT), region=self._region, service=SERVICE
        )
        added = {"x-amz-content-sha256": digest}
        added |= signed(
            request.method, request.url, {**given, **added}, digest, credentials=credentials, scope=scope
        )
        return added

    async def renew(self) -> bool:
        """Whether there are other credentials than those that were refused."""
        old, self._until = self._credentials, 0.0
        return await self._current() != old

    async def _current(self) -> Credentials:
        async with self._lock:
            if self._credentials is None or self._clock() >= self._until:
                self._credentials = found = await anyio.to_thread.run_sync(self._ask)
                now = self._clock()
                self._until = max(found.expires - EARLY_S, now + 1.0) if found.expires else now + KEPT_S
            return self._credentials


async def _sha256(body: Body | None) -> str:
    """The payload hash of a body."""
    if body is None:
        return EMPTY_SHA256
    digest = sha256()
    async for piece in body.pieces():
        digest.update(piece)
    return digest.hexdigest()
