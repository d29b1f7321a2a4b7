"""AWS Signature Version 4 in its header form: which headers prove to a service of AWS who asks.

Owns the canonical request, the string to sign, the signing key and the header. Refuses to know where credentials come
from, and to read a clock: the time is handed in.

Theory of operation. Both sides write the request in one canonical form, and hash it; the secret never travels, only a
keyed hash of that hash. The key is made of the secret, the day, the region and the service, so that a signature that
leaks is of use for that alone, and for minutes. What proxies change on the way (connection, encodings) is not signed.
"""

import hmac
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

EMPTY_SHA256 = sha256(b"").hexdigest()
"""The payload hash of a request without a body."""
ALGORITHM = "AWS4-HMAC-SHA256"
TIME_FORMAT = "%Y%m%dT%H%M%SZ"  # of x-amz-date, in UTC
_UNRESERVED = "-._~"  # RFC 3986, section 2.3, beside letters and digits
_UNSIGNED = frozenset((
    "accept-encoding", "authorization", "connection", "content-length", "expect", "proxy-authorization", "te",
    "transfer-encoding", "user-agent",
))  # fmt: skip
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Credentials(Struct, frozen=True, kw_only=True):
    """Who asks. `expires`: until when, in seconds since 1970; 0 for nobody knows."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""
    expires: float = 0.0

    def __repr__(self) -> str:
        return f"Credentials(access_key_id={self.access_key_id!r}, …)"


class Scope(Struct, frozen=True, kw_only=True):
    """What a signature is good for: a time, as `20240102T030405Z`, a region, a service."""

    time: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.time[:8]}/{self.region}/{self.service}/aws4_request"


def signed(
    method: str, url: str, headers: Mapping[str, str], payload_sha256: str, *, credentials: Credentials, scope: Scope
) -> dict[str, str]:
    """The headers that a request needs beside `headers`, which are signed too, but for those that may change.

    `url` is absolute, and encoded as it is sent; `payload_sha256` in hexadecimal digits.
    """
    added = {"x-amz-date": scope.time}
    if credentials.session_token:
        added["x-amz-security-token"] = credentials.session_token
    canonical, names = canonical_request(method, url, {**headers, **added}, payload_sha256)
    key = signing_key(credentials.secret_access_key, scope)
    signature = hmac.new(key, string_to_sign(canonical, scope).encode(), sha256).hexdigest()
    credential = f"{credentials.access_key_id}/{scope}"
    added["Authorization"] = f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return added


def canonical_request(method: str, url: str, headers: Mapping[str, str], payload_sha256: str) -> tuple[str, str]:
    """A request in canonical form, and the names of the headers that are in it, with `;` between them.

    The path is encoded once more, as all services but S3 want it.
    """
    parts = urlsplit(url)
    lines = {"host": host_of(url)}
    for name, value in headers.items():
        if name.lower() not in _UNSIGNED:
            lines[name.lower()] = " ".join(value.split())
    names = ";".join(sorted(lines))
    written = "".join(f"{name}:{lines[name]}\n" for name in sorted(lines))
    path = quote(parts.path or "/", safe=f"/{_UNRESERVED}")
    return "\n".join((method, path, _canonical_query(parts.query), written, names, payload_sha256)), names


def string_to_sign(canonical: str, scope: Scope) -> str:
    """What the signature is of."""
    return "\n".join((ALGORITHM, scope.time, str(scope), sha256(canonical.encode()).hexdigest()))


def signing_key(secret_access_key: str, scope: Scope) -> bytes:
    """The key of a day, a region and a service."""
    return _key(secret_access_key, scope.time[:8], scope.region, scope.service)


def host_of(url: str) -> str:
    """The Host header that goes with a URL: with the port, unless it is that of the scheme (RFC 9110, 7.2)."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _canonical_query(query: str) -> str:
    """Names and values in strict encoding, whatever the one that they came in, in order."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in sorted((_strict(a), _strict(b)) for a, _, b in pairs))


def _strict(text: str) -> str:
    return quote(unquote(text), safe=_UNRESERVED)


@lru_cache(maxsize=8)
def _key(secret_access_key: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret_access_key}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return key
