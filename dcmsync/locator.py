"""The strings that name places (locators), read once at the edge.

Owns the grammar of locators, for the kinds that exist: configured names, DIMSE nodes, places that speak HTTP, folders,
zip archives; and what a file below a local place may be called. Refuses to look at the file system or the network,
never takes a plain word for a host, and takes no secret: a locator stands in records and messages.
"""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from hashlib import blake2b

from msgspec import Struct

from dcmsync.errors import UsageError

_AE = r"[^\s@:/\\]{1,16}"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
_AT_FORM = re.compile(rf"(?:(?P<calling>{_AE}):)?(?P<ae>{_AE})@(?P<host>{_HOST}):(?P<port>\d+)")
_HOST_FORM = re.compile(rf"(?P<host>{_HOST}):(?P<ae>{_AE}):(?P<port>\d+)")

_SCHEMES = {"dicom": False, "dicoms": True}  # whether TLS is spoken
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>\d{{1,5}}))?(?P<path>(?:/[!-~]*)?)", re.I)
_DATASTORE = re.compile(r"(?P<datastore>[0-9a-z]{32})/?(?:\?region=(?P<region>[a-z0-9-]+))?")


class Node(Struct, frozen=True, kw_only=True):
    """A DIMSE node, with TLS or plain. `calling_ae` is None unless the locator says who we are there."""

    host: str
    port: int
    ae: str
    calling_ae: str | None = None
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'dicoms://' if self.tls else ''}{self.ae}@{host}:{self.port}"


class Folder(Struct, frozen=True):
    """A folder on this machine."""

    path: str

    def __str__(self) -> str:
        return self.path


class Archive(Struct, frozen=True):
    """A zip archive on this machine."""

    path: str

    def __str__(self) -> str:
        return self.path


class Web(Struct, frozen=True):
    """A DICOMweb service. `url` is its base, canonical: without a slash at its end, a query, or a default port."""

    url: str

    def __str__(self) -> str:
        return self.url


class WadoUri(Struct, frozen=True):
    """A WADO-URI service."""

    url: str

    def __str__(self) -> str:
        return f"wado-uri+{self.url}"


class Mint(Struct, frozen=True):
    """A MINT study search."""

    url: str

    def __str__(self) -> str:
        return f"mint+{self.url}"


class Rad69(Struct, frozen=True):
    """An Imaging Document Source (IHE RAD-69)."""

    url: str

    def __str__(self) -> str:
        return f"rad69+{self.url}"


class Xnat(Struct, frozen=True):
    """A project of an XNAT server, whose base is `url`."""

    url: str
    project: str

    def __str__(self) -> str:
        return f"xnat+{self.url}/{self.project}"


class Ahi(Struct, frozen=True):
    """A data store of AWS HealthImaging. `region` is "" where the locator does not say it."""

    datastore: str
    region: str = ""

    def __str__(self) -> str:
        return f"ahi://{self.datastore}{f'?region={self.region}' if self.region else ''}"


Http = Web | WadoUri | Mint | Rad69 | Xnat | Ahi
Locator = Node | Folder | Archive | Http


def is_secured(place: Http) -> bool:
    """Whether TLS is spoken with a place that speaks HTTP."""
    return isinstance(place, Ahi) or place.url.startswith("https:")


def host_of(place: Http) -> str:
    """The host that a locator names; "" where it names none."""
    if isinstance(place, Ahi):
        return ""
    match = _URL.fullmatch(place.url)
    return match["host"].strip("[]") if match else ""


_WEB: dict[str, type[Web | WadoUri | Mint | Rad69]] = {
    "": Web, "wado-uri": WadoUri, "mint": Mint, "rad69": Rad69,
}  # fmt: skip
_BELOW = {"xnat": "xnat+https://host/PROJECT", "ahi": "ahi://DATASTORE?region=REGION"}

FORMS = (
    "a name from the config, AET@host:port, host:AET:port, dicom://AET@host:port, dicoms://… with TLS, "
    "https://host/path (DICOMweb), wado-uri+https://…, mint+https://…, rad69+https://…, xnat+https://host/PROJECT, "
    "ahi://DATASTORE?region=…, a folder (with a / or .), or an archive (….zip)"
)


def parse(text: str, *, names: Iterable[str] = ()) -> Locator:
    """What a locator means. `names` are the configured ones, to be listed when a word is none of them.

    Raises UsageError.
    """
    scheme, separator, rest = text.partition("://")
    if separator:
        kind, _, transport = scheme.lower().rpartition("+")
        if transport in _PORTS and (kind in _WEB or kind == "xnat"):
            return _web(kind, f"{transport}://{rest}", text)
        if scheme.lower() == "ahi":
            return _ahi(rest, text)
        if scheme not in _SCHEMES:
            words = f"{shown(text)!r}: {scheme}:// is not a kind of place that this version knows"
            raise UsageError(words, advice=f"Write {FORMS}")
        match = _AT_FORM.fullmatch(rest.rstrip("/"))
        if match is None:
            raise UsageError(f"{text!r} is no DIMSE node", advice=f"Write {scheme}://[CALLING:]AET@host:port")
        return _node(match, text, tls=_SCHEMES[scheme])
    match = _HOST_FORM.fullmatch(text) or (_AT_FORM.fullmatch(text) if "/" not in text else None)
    if match is not None:
        return _node(match, text)
    if text.lower().endswith(".zip"):
        return Archive(text)
    if "/" in text or text.startswith("."):
        return Folder(text)
    known = sorted(names)
    near = get_close_matches(text, known, n=1)
    listed = f"The configured names are: {', '.join(known)}" if known else "No names are configured"
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(f"{text!r} is no place", advice=f"{hint}{listed}. Write {FORMS}")


def _web(kind: str, url: str, text: str) -> Http:
    """A place that speaks HTTP. Raises UsageError."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise UsageError(f"{shown(text)!r}: user and password do not belong in a locator, which records repeat",
                         advice="Set user and password_file of the endpoint in the configuration, or netrc",
                         )  # fmt: skip
    match = _URL.fullmatch(url)
    if match is None or "?" in url or "#" in url:
        advice = f"Write {_BELOW.get(kind, f'{kind}+https://host/path'.lstrip('+'))}, without a query"
        told = re.sub(r"(?<=//).*@", "***@", text)  # a password with a slash in it, perhaps
        raise UsageError(f"{told!r} is no URL of a place", advice=advice)
    scheme, host, path = match["scheme"].lower(), match["host"].lower(), match["path"].rstrip("/")
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise UsageError(f"{text!r}: {port} is no port")
    base = f"{scheme}://{host}" + (f":{port}" if port != _PORTS[scheme] else "")
    if kind != "xnat":
        return _WEB[kind](base + path)
    above, _, project = path.rpartition("/")
    if not project:
        raise UsageError(f"{text!r} names no project", advice=f"Write {_BELOW['xnat']}")
    return Xnat(base + above, project)


def _ahi(rest: str, text: str) -> Ahi:
    match = _DATASTORE.fullmatch(rest)
    if match is None:
        raise UsageError(f"{text!r} is no data store", advice=f"Write {_BELOW['ahi']}, with its 32 digits and letters")
    return Ahi(match["datastore"], match["region"] or "")


def shown(text: str) -> str:
    """A locator or URL as it may be told: without user and password."""
    return _SECRET.sub("***", text)


_SECRET = re.compile(r"(?<=//)[^/?#]*(?=@)")


def _node(match: re.Match[str], text: str, *, tls: bool = False) -> Node:
    port = int(match["port"])
    if not 0 < port < 65536:
        raise UsageError(f"{text!r}: {port} is no port")
    calling = match.groupdict().get("calling")
    return Node(host=match["host"].strip("[]"), port=port, ae=match["ae"], calling_ae=calling, tls=tls)


def is_below(path: str) -> bool:
    """Whether a relative path stays below where it begins."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def names_for(name: str, sop_instance_uid: str) -> Iterator[str]:
    """The name of a file, then the one for when another instance has it: with a hash of the SOP Instance UID."""
    yield name
    digest = blake2b(sop_instance_uid.encode(), digest_size=8).hexdigest()
    stem, _, extension = name.rpartition(".")
    yield f"{stem}~{digest}.{extension}" if stem else f"{name}~{digest}"
