"""How a node lets us in: certificates, and who the user is, from what the configuration refers to.

Owns where secrets are read: a file, what a command writes, or netrc. Refuses to take one from
the configuration itself or the command line, and to say one: messages name the file, never what stands in it.

A password is asked for once a run; a token each time that it is needed, since tokens expire.
"""

import os
import stat
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from dcmsync.config import Endpoint, Local
from dcmsync.endpoints import Access
from dcmsync.errors import LocalTrouble, UsageError
from dcmsync.locator import Http, Locator, Node, is_secured
from dcmsync.net.tls import Terms
from dcmsync.wire.upperlayer.identity import MOST_OCTETS, Identity, Kind

COMMAND_TIMEOUT_S = 60.0
_MOST_SECRET_OCTETS = 1 << 20

Warn = Callable[[str], None]

_FOR_TLS = ("ca", "server_name", "certificate", "key", "key_password_file", "key_password_command")
_KINDS = {"user": Kind.USER_NAME, "password": Kind.PASSWORD, "jwt": Kind.JWT, "saml": Kind.SAML}


def access(place: Locator, endpoint: Endpoint | None, *, name: str, environ: Mapping[str, str], warn: Warn) -> Access:
    """What is needed to get into a place; `name` is how messages call it. Raises UsageError where keys contradict.

    Nothing secret is read yet.
    """
    if not isinstance(place, Node):
        return Access()
    if endpoint is None:
        return Access(terms=Terms() if place.tls else None)
    return Access(
        terms=terms_of(place, endpoint, name, warn),
        identity=_identity(place, endpoint, name, environ, warn),
        identity_required=endpoint.identity_required,
    )


def listening(local: Local, *, certificate: str | None, key: str | None, ca: str | None, warn: Warn) -> Terms:
    """On what terms a port of ours speaks TLS: what options name goes before the configuration. Raises UsageError.

    A certificate from one and a key from the other do not mix.
    """
    if key and not certificate:
        raise UsageError("--key is given without --certificate", advice="Name the certificate of that key")
    return Terms(
        certificate=path_of(certificate or local.certificate),
        key=path_of(key if certificate else local.key),
        key_password=secret(local, "key_password", "[local]", warn),
        ca=path_of(ca or local.ca),
    )


def terms_of(place: Node | Http, endpoint: Endpoint, name: str, warn: Warn) -> Terms | None:
    """On what terms a place is spoken to with TLS; None where it is in plain. Raises UsageError."""
    said = [key for key in _FOR_TLS if getattr(endpoint, key) is not None] + ["verify"] * (not endpoint.verify)
    if not (place.tls if isinstance(place, Node) else is_secured(place)):
        if said:
            scheme = "dicoms" if isinstance(place, Node) else "https"
            raise UsageError(f"{name}: {said[0]} is set, and the locator is one without TLS",
                             advice=f"Write {scheme}:// before it")  # fmt: skip
        return None
    if endpoint.key and not endpoint.certificate:
        raise UsageError(f"{name}: key is set without certificate", advice="Name the certificate of that key")
    if not endpoint.verify:
        if endpoint.ca or endpoint.server_name:
            raise UsageError(f"{name}: verify = false contradicts ca and server_name", advice="Leave it out")
        warn(f"{name}: its certificate is not verified, and anybody may pass for it (verify = false)")
    return Terms(
        profile=endpoint.tls_profile,
        ca=path_of(endpoint.ca),
        certificate=path_of(endpoint.certificate),
        key=path_of(endpoint.key),
        key_password=secret(endpoint, "key_password", name, warn),
        server_name=endpoint.server_name or "",
        verify=endpoint.verify,
    )


def _identity(
    node: Node, endpoint: Endpoint, name: str, environ: Mapping[str, str], warn: Warn
) -> Callable[[], Identity] | None:
    """Who the user is, to be asked when an association opens; None where nothing is said."""
    if endpoint.identity == "kerberos":
        raise UsageError(f"{name}: Kerberos tickets are not supported",
                         advice="Use a password, a JSON web token or a SAML assertion")  # fmt: skip
    password, token = secret(endpoint, "password", name, warn), secret(endpoint, "token", name, warn)
    if endpoint.netrc and (endpoint.user or password or token):
        raise UsageError(f"{name}: netrc contradicts user, password and token", advice="Leave it out")
    kind = endpoint.identity or ("jwt" if token else "password" if password or endpoint.netrc else "user")
    if kind == "user" and not (endpoint.user or endpoint.netrc):
        if endpoint.identity or endpoint.identity_required:
            raise UsageError(f"{name}: an identity is asked for, and nothing says whose", advice="Set user")
        return None
    if kind in ("jwt", "saml") and (token is None or endpoint.user or password):
        raise UsageError(f'{name}: identity = "{kind}" needs a token, and nothing else',
                         advice="Set token_file or token_command")  # fmt: skip
    if kind in ("user", "password") and token is not None:
        raise UsageError(f'{name}: identity = "{kind}" has no token', advice='Set identity = "jwt" or "saml"')
    if kind == "user" and password is not None:
        raise UsageError(f'{name}: identity = "user" has no password', advice='Set identity = "password"')
    if kind == "password" and not endpoint.netrc and (password is None or not endpoint.user):
        raise UsageError(f"{name}: a user and a password belong together",
                         advice="Set user, and password_file or password_command")  # fmt: skip
    if not node.tls and kind != "user":
        warn(f"{name}: password or token go over the network in plain text; dicoms:// would hide them")

    def ask() -> Identity:
        primary, secondary = (endpoint.user or "").encode(), b""
        if token is not None:
            primary = token()
        elif endpoint.netrc:
            primary, secondary = from_netrc(node.host, name, environ)
        elif password is not None:
            secondary = password()
        if len(primary) + len(secondary) > MOST_OCTETS:
            raise UsageError(f"{name}: the identity is longer than an association request can hold "
                             f"({MOST_OCTETS:,} octets)")  # fmt: skip
        return Identity(
            kind=_KINDS[kind],
            primary=primary,
            secondary=secondary if kind == "password" else b"",
            wants_response=endpoint.identity_required,
        )

    return ask


def secret(endpoint: Endpoint | Local, what: str, name: str, warn: Warn) -> Callable[[], bytes] | None:
    """What reads a secret, from where the keys `<what>_file` or `<what>_command` say; None where they do not."""
    file, command = getattr(endpoint, f"{what}_file"), getattr(endpoint, f"{what}_command")
    if file and command:
        raise UsageError(f"{name}: both {what}_file and {what}_command are set", advice="Leave one out")
    if file:
        return lambda: _from_file(path_of(file), f"{name}: {what}_file", warn, is_token=what == "token")
    if not command:
        return None

    def run() -> bytes:
        return _from_command(command, f"{name}: {what}_command", is_token=what == "token")

    return run if what == "token" else cache(run)


def path_of(text: str | None) -> str:
    """A path as it is meant, ~ and all; "" for none."""
    return os.path.expanduser(text) if text else ""


def _from_file(path: str, what: str, warn: Warn, *, is_token: bool) -> bytes:
    try:
        if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            warn(f"{what}: others may read {path}; run: chmod 600 {path}")
        with open(path, "rb") as file:
            return _content(file.read(_MOST_SECRET_OCTETS), f"{what}: {path}", is_token=is_token)
    except OSError as error:
        raise LocalTrouble(f"{what}: {path}: cannot be read: {error.strerror}") from None


def _from_command(command: str, what: str, *, is_token: bool) -> bytes:
    try:
        done = subprocess.run(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LocalTrouble(f"{what}: the command gave no answer within {COMMAND_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise LocalTrouble(f"{what}: the command ended with {done.returncode}")
    return _content(done.stdout, f"{what}: what the command wrote", is_token=is_token)


def _content(octets: bytes, what: str, *, is_token: bool) -> bytes:
    """A token, which is all that is there, or a password, which is the first line."""
    found = octets.strip() if is_token else octets.split(b"\n", 1)[0].rstrip(b"\r")
    if not found:
        raise UsageError(f"{what}: there is no secret")
    return found


def from_netrc(host: str, name: str, environ: Mapping[str, str]) -> tuple[bytes, bytes]:
    """User and password of a host."""
    from netrc import NetrcParseError, netrc  # lazy: few have one

    path = environ.get("NETRC") or str(Path.home() / ".netrc")
    try:
        found = netrc(path).authenticators(host)
    except NetrcParseError as error:
        raise UsageError(f"{name}: {path}:{error.lineno}: this is no netrc") from None
    except OSError as error:
        raise LocalTrouble(f"{name}: {path}: cannot be read: {error.strerror}") from None
    if found is None or not found[0] or not found[2]:
        raise UsageError(f"{name}: {path} has no login and password for {host}", advice="Add a machine entry")
    return found[0].encode(), found[2].encode()
