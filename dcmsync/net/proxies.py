"""Which proxy leads to a URL, by the variables that programs of Unix have in common.

Owns HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in lower case first. Refuses what no HTTP proxy is.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from dcmsync.errors import UsageError


def of_environment(url: str, environ: Mapping[str, str]) -> str:
    """The URL of the proxy; "" where there is none, or NO_PROXY names the host. Raises UsageError."""
    target = urlsplit(url)
    for name in (f"{target.scheme}_proxy", "all_proxy"):
        said = environ.get(name) or environ.get(name.upper())
        if said:
            return "" if _is_exempt(target, _said(environ, "no_proxy")) else checked(said, name.upper())
    return ""


def checked(proxy: str, where: str) -> str:
    """The URL of a proxy as it was given, or with http:// before it. `where` says who gave it. Raises UsageError."""
    url = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(url)
    try:
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise UsageError(f"{where}: this is no HTTP proxy", advice="Write http://host:port")
    return url


def _is_exempt(target: SplitResult, said: str) -> bool:
    host = target.hostname or ""
    port = target.port or {"http": 80, "https": 443}.get(target.scheme, 0)
    for entry in (each.strip().lower() for each in said.split(",")):
        name, _, only = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        name = name.strip("[]").removeprefix("*").lstrip(".")
        if entry == "*":
            return True
        if name and (not only or only == str(port)) and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _said(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""
