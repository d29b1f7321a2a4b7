"""The strings that name places (locators), read once at the edge.

Owns the grammar of locators, for the kinds that exist: configured names, DIMSE nodes, folders, zip archives; and what a
file below a local place may be called. Refuses to look at the file system or the network, and never takes a plain word
for a host.
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


Locator = Node | Folder | Archive

FORMS = (
    "a name from the config, AET@host:port, host:AET:port, dicom://AET@host:port, dicoms://… with TLS, "
    "a folder (with a / or .), or an archive (….zip)"
)


def parse(text: str, *, names: Iterable[str] = ()) -> Locator:
    """What a locator means. `names` are the configured ones, to be listed when a word is none of them.

    Raises UsageError.
    """
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme not in _SCHEMES:
            words = f"{text!r}: {scheme}:// is not a kind of place that this version knows"
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
