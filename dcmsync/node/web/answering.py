"""Answers on one connection: in words, in JSON, and as a stream of octets with files between them.

Owns the headers that every answer has, and that each wait for the client has a deadline. Refuses to decide what is
said.

hot: files larger than `_SMALL_OCTETS` go to the socket by sendfile; smaller ones, and all of them under TLS, are
gathered into writes of `CHUNK_OCTETS`, since each sendfile costs the event loop some 0.1 ms.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

import anyio.lowlevel
import msgspec
from aiohttp import hdrs, web

from dcmsync.net.patience import FLOOR_OCTETS_PER_S, Guard
from dcmsync.node.web.accepting import JSON

CHUNK_OCTETS = 1 << 17
_SMALL_OCTETS = 1 << 16
_SENDFILE_OCTETS = 1 << 20

_ALWAYS: dict[str, str] = {
    hdrs.SERVER: "dcmsync",
    hdrs.CACHE_CONTROL: "no-store",  # what is said of patients stays in no cache
    "X-Content-Type-Options": "nosniff",
}


def words(status: int, text: str, headers: Mapping[str, str] = {}) -> web.Response:
    """A short answer for people."""
    return web.Response(status=status, text=f"{text}\n", headers={**_ALWAYS, **headers})


def whole(
    octets: bytes, *, media_type: str = JSON, status: int = 200, warnings: Sequence[str] = ()
) -> web.Response:
    """An answer that is there as a whole."""
    made = web.Response(status=status, body=octets, headers={**_ALWAYS, hdrs.CONTENT_TYPE: media_type})
    _warn(made, warnings)
    return made


def json(value: object, *, status: int = 200, warnings: Sequence[str] = ()) -> web.Response:
    """A value as JSON."""
    return whole(msgspec.json.encode(value), status=status, warnings=warnings)


class Outbox:
    """One answer that is sent as it comes about. `length` in octets; without one it goes in chunks."""

    def __init__(
        self,
        request: web.BaseRequest,
        guard: Guard,
        *,
        timeout_s: float,
        media_type: str = JSON,
        length: int | None = None,
        status: int = 200,
        warnings: Sequence[str] = (),
    ) -> None:
        self.response = web.StreamResponse(status=status, headers={**_ALWAYS, hdrs.CONTENT_TYPE: media_type})
        self.response.content_length = length
        _warn(self.response, warnings)
        self._request = request
        self._guard = guard
        self._gathered: list[bytes] = []
        self._octets = 0
        # What one wait covers must get through in time at the slowest rate that is allowed.
        self._slice_octets = int(min(max(timeout_s * FLOOR_OCTETS_PER_S, _SMALL_OCTETS), _SENDFILE_OCTETS))

    async def begin(self) -> bool:
        """Sends the headers. Gives whether a body is to follow: none does after HEAD."""
        await self.response.prepare(self._request)
        return self._request.method != hdrs.METH_HEAD

    async def put(self, octets: bytes) -> None:
        """Sends octets, when enough have gathered. Raises ConnectionError."""
        self._gathered.append(octets)
        self._octets += len(octets)
        if self._octets >= CHUNK_OCTETS:
            await self.flush()

    async def file(self, descriptor: int, start: int, octets: int) -> None:
        """Sends a part of an open file; breaks the answer off where the file is too short. Raises ConnectionError."""
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError
        if octets <= _SMALL_OCTETS or transport.get_extra_info("sslcontext") is not None:
            await self._copy(descriptor, start, octets)
            return
        await self.flush()
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            while octets:
                self._guard.resume()
                size = min(octets, self._slice_octets)
                sent = await asyncio.get_running_loop().sendfile(transport, file, start, size)
                self._guard.pause()
                self._guard.octets += sent
                start, octets = start + sent, octets - sent
                if sent < size:
                    self.abort()

    async def flush(self) -> None:
        """Sends what has gathered. Raises ConnectionError."""
        octets, self._gathered, self._octets = b"".join(self._gathered), [], 0
        self._guard.resume()
        await self.response.write(octets)
        self._guard.pause()
        self._guard.octets += len(octets)
        await anyio.lowlevel.checkpoint()

    async def end(self) -> web.StreamResponse:
        """The answer is complete. Raises ConnectionError."""
        await self.flush()
        self._guard.resume()
        await self.response.write_eof()
        self._guard.pause()
        return self.response

    def abort(self) -> NoReturn:
        """Breaks the answer off, so that the client sees that it is not complete. Raises ConnectionError, always."""
        if self._request.transport is not None:
            self._request.transport.abort()
        raise ConnectionAbortedError

    async def _copy(self, descriptor: int, start: int, octets: int) -> None:
        while octets:
            piece = os.pread(descriptor, min(octets, CHUNK_OCTETS), start)
            if not piece:
                self.abort()
            await self.put(piece)
            start, octets = start + len(piece), octets - len(piece)


def _warn(response: web.StreamResponse, warnings: Sequence[str]) -> None:
    """Says what may surprise (RFC 7234 §5.5, as PS3.18 has it)."""
    for text in warnings:
        said = text.replace("\\", "").replace('"', "'")
        response.headers.add(hdrs.WARNING, f'299 dcmsync "{said}"')
