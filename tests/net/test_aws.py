"""The authority of AWS: what is signed, when credentials are asked for, and that nothing secret is kept longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from hashlib import sha256

import anyio
import pytest

from dcmsync.errors import LocalTrouble
from dcmsync.net.aws import EARLY_S, KEPT_S, SigV4
from dcmsync.net.http import Octets, Request
from dcmsync.wire.sigv4 import EMPTY_SHA256, Credentials

GET = Request(method="GET", url="https://host.example/x", headers={"Accept": "*/*"})


def keys(number: int, expires: float = 0.0) -> Credentials:
    return Credentials(access_key_id=f"KEY{number}", secret_access_key="secret", expires=expires)


def names(authorization: str) -> str:
    return authorization.partition("SignedHeaders=")[2].partition(",")[0]


def test_host_time_and_payload_are_signed_and_what_proxies_change_is_not() -> None:
    authority = SigV4(lambda: keys(1), "us-east-1", clock=lambda: 1704164645.0)
    added = anyio.run(authority.headers, GET)
    assert added["x-amz-date"] == "20240102T030405Z" and added["x-amz-content-sha256"] == EMPTY_SHA256
    assert names(added["Authorization"]) == "host;x-amz-content-sha256;x-amz-date"
    assert "Credential=KEY1/20240102/us-east-1/medical-imaging/aws4_request" in added["Authorization"]


def test_a_body_is_hashed_whatever_its_pieces() -> None:
    class Streamed:
        media_type, length = "application/json", None

        async def pieces(self) -> AsyncIterator[bytes]:
            for piece in (b"{", b'"a":1', b"}"):
                yield piece

    for body in (Octets("application/json", b'{"a":1}'), Streamed()):
        request = Request(method="POST", url=GET.url, headers={"Content-Type": "application/json"}, body=body)
        added = anyio.run(SigV4(lambda: keys(1), "r", clock=lambda: 0.0).headers, request)
        assert added["x-amz-content-sha256"] == sha256(b'{"a":1}').hexdigest()
        assert names(added["Authorization"]) == "content-type;host;x-amz-content-sha256;x-amz-date"


@pytest.mark.parametrize(
    "expires, at, asked",
    [
        (0.0, KEPT_S - 1, 1),
        (0.0, KEPT_S + 1, 2),
        (2000.0, 2000.0 - EARLY_S - 1, 1),
        (2000.0, 2000.0 - EARLY_S + 1, 2),
    ],
)
def test_credentials_are_asked_for_again_before_they_expire(expires: float, at: float, asked: int) -> None:
    count: list[int] = []
    now = [0.0]

    def find() -> Credentials:
        count.append(1)
        return keys(len(count), expires)

    async def main() -> None:
        authority = SigV4(find, "r", clock=lambda: now[0])
        await authority.headers(GET)
        now[0] = at
        added = await authority.headers(GET)
        assert f"KEY{asked}" in added["Authorization"]

    anyio.run(main)
    assert len(count) == asked


def test_many_requests_at_once_ask_for_credentials_once() -> None:
    count: list[int] = []

    def find() -> Credentials:
        count.append(1)
        return keys(1)

    async def main() -> None:
        authority = SigV4(find, "r")
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(authority.headers, GET)

    anyio.run(main)
    assert len(count) == 1


@pytest.mark.parametrize("second, helps", [(1, False), (2, True)])
def test_renewing_helps_when_there_are_other_credentials(second: int, helps: bool) -> None:
    given: Iterator[int] = iter((1, second))

    async def main() -> bool:
        authority = SigV4(lambda: keys(next(given)), "r")
        await authority.headers(GET)
        return await authority.renew()

    assert anyio.run(main) is helps


def test_what_keeps_credentials_back_comes_out_as_it_is() -> None:
    def find() -> Credentials:
        raise LocalTrouble("no")

    with pytest.raises(LocalTrouble):
        anyio.run(SigV4(find, "r").headers, GET)
