"""How places that speak HTTP let us in, from what the configuration refers to: TLS, user or token, proxy.

Owns which keys go together, and what goes over the network in plain. Refuses to read a secret: what does is handed on,
and called when the first request is made. Where secrets stand is `credentials.py`'s business.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

from dcmsync.commands.credentials import Warn, from_netrc, path_of, secret, terms_of
from dcmsync.config import Endpoint
from dcmsync.endpoints import WebAccess
from dcmsync.errors import UsageError
from dcmsync.locator import Ahi, Http, Locator, Web, host_of, is_secured, parse
from dcmsync.net.tls import Terms

if TYPE_CHECKING:
    from dcmsync.net.http import Authority, Door

OpenDoor = Callable[[str, str, WebAccess], "Door"]
"""HTTP to a URL, by the name that messages give to what is there, and how that lets us in."""

_OF_AWS = "https://medical-imaging.amazonaws.com"  # what NO_PROXY may exempt
_KINDS = {
    "a token": ("token_file", "token_command"),
    "a token that is granted": ("token_url", "client_id", "client_secret_file", "client_secret_command", "scope"),
    "user and password": ("user", "password_file", "password_command"),
    "netrc": ("netrc",),
}


def web_access(
    place: Locator, endpoint: Endpoint | None, *, name: str, environ: Mapping[str, str], warn: Warn, door: OpenDoor
) -> WebAccess:
    """What is needed to get into a place; `name` is how messages call it. Raises UsageError where keys contradict.

    Nothing secret is read yet. `door` opens what leads to the server that grants tokens.
    """
    if not isinstance(place, Http):
        keys = ("proxy", *_KINDS["a token that is granted"])
        said = [key for key in keys if endpoint is not None and getattr(endpoint, key)]
        if said:
            raise UsageError(f"{name}: {said[0]} is for places that speak HTTP", advice="Leave it out")
        return WebAccess()
    url = _OF_AWS if isinstance(place, Ahi) else place.url
    if endpoint is None:
        return WebAccess(proxy=_proxy(url, None, name, environ))
    if endpoint.identity or endpoint.identity_required:
        raise UsageError(f"{name}: identity and identity_required are for DIMSE nodes", advice="Leave them out")
    authority = _authority(place, endpoint, name, environ, warn, door)
    if authority is not None and not is_secured(place) and not is_loopback(host_of(place)):
        warn(f"{name}: password or token go over the network in plain text; https:// would hide them")
    return WebAccess(
        terms=terms_of(place, endpoint, name, warn),
        authority=authority,
        proxy=_proxy(url, endpoint.proxy, name, environ),
    )


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authority(
    place: Http, endpoint: Endpoint, name: str, environ: Mapping[str, str], warn: Warn, door: OpenDoor
) -> "Authority | None":
    said = [kind for kind, keys in _KINDS.items() if any(getattr(endpoint, key) for key in keys)]
    if len(said) > 1:
        raise UsageError(f"{name}: {said[0]} contradicts {said[1]}", advice="Leave one of them out")
    if endpoint.login and said not in (["user and password"], ["netrc"]):
        raise UsageError(f"{name}: login needs a user and a password", advice="Set user and password_file, or netrc")
    if not said:
        return None
    from dcmsync.net import authority  # lazy: only who needs one pays for it

    if said == ["a token"]:
        token = secret(endpoint, "token", name, warn)
        assert token is not None
        return authority.Bearer(authority.reading(token), name)
    if said == ["a token that is granted"]:
        return _granted(endpoint, name, environ, warn, door)
    ask = _asking(place, endpoint, name, environ, warn)
    if endpoint.login:
        return _login(endpoint, ask, name, environ, warn, door)
    return authority.Basic(ask, name)


def _asking(
    place: Http, endpoint: Endpoint, name: str, environ: Mapping[str, str], warn: Warn
) -> Callable[[], tuple[bytes, bytes]]:
    """What gives user and password."""
    if endpoint.netrc:
        return lambda: from_netrc(host_of(place), name, environ)
    password, user = secret(endpoint, "password", name, warn), (endpoint.user or "").encode()
    if password is None or not user:
        raise UsageError(f"{name}: a user and a password belong together",
                         advice="Set user, and password_file or password_command")  # fmt: skip
    ask = password
    return lambda: (user, ask())


def _login(
    endpoint: Endpoint, ask: Callable[[], tuple[bytes, bytes]], name: str, environ: Mapping[str, str], warn: Warn,
    door: OpenDoor,
) -> "Authority":
    from dcmsync.net import login  # lazy: only who logs in pays for it

    if not endpoint.login_url:
        raise UsageError(f"{name}: login needs login_url", advice="Set it to where to log in")
    leads = _aside(endpoint, "login_url", endpoint.login_url, name, environ, warn, door)
    if endpoint.login == "impax":
        return login.impax(leads, ask)
    return login.vitrea(leads, ask, realm=endpoint.realm)


def _aside(
    endpoint: Endpoint, key: str, url: str, name: str, environ: Mapping[str, str], warn: Warn, door: OpenDoor
) -> "Door":
    """HTTP to a server that lets us in elsewhere: the same authorities vouch for it, the same proxy leads there."""
    there = parse(url) if "://" in url else None
    if not isinstance(there, Web):
        raise UsageError(f"{name}: {key} is no URL", advice="Write https://host/path")
    if not is_secured(there) and not is_loopback(host_of(there)):
        warn(f"{name}: what {key} is told goes over the network in plain text; https:// would hide it")
    terms = Terms(ca=path_of(endpoint.ca), verify=endpoint.verify) if is_secured(there) else None
    return door(url, f"{name}: {key}", WebAccess(terms=terms, proxy=_proxy(url, endpoint.proxy, name, environ)))


def _granted(
    endpoint: Endpoint, name: str, environ: Mapping[str, str], warn: Warn, door: OpenDoor
) -> "Authority":
    from dcmsync.net import authority  # lazy, as above

    client_secret = secret(endpoint, "client_secret", name, warn)
    if not (endpoint.token_url and endpoint.client_id and client_secret):
        raise UsageError(f"{name}: token_url, client_id and its secret belong together",
                         advice="Set all three: client_secret_file or client_secret_command")  # fmt: skip
    leads = _aside(endpoint, "token_url", endpoint.token_url, name, environ, warn, door)
    fetch = authority.client_credentials(leads, endpoint.client_id, client_secret, scope=endpoint.scope or "")
    return authority.Bearer(fetch, name)


def _proxy(url: str, said: str | None, name: str, environ: Mapping[str, str]) -> str:
    from dcmsync.net import proxies

    if said is None:
        return proxies.of_environment(url, environ)
    if said == "none":
        return ""
    if "@" in said:
        raise UsageError(f"{name}: the proxy has a user or a password in it, which do not belong in a configuration",
                         advice="Set HTTPS_PROXY in the environment instead")  # fmt: skip
    return proxies.checked(said, f"{name}: proxy")
