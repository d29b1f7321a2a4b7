"""One request as those who answer it see it, and what they have in common.

Owns the few things that are read of a request at more than one place. Refuses to answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web
from msgspec import Struct

from dcmsync.net.patience import Guard
from dcmsync.node.archive import Archive
from dcmsync.node.index import Depth, Image, Thing
from dcmsync.node.web.answering import Outbox
from dcmsync.node.web.refusing import Refusal

Value = TypeVar("Value")

_SEGMENTS = {Depth.STUDY: "studies", Depth.SERIES: "series", Depth.IMAGE: "instances"}
_WORDS = {Depth.STUDY: "study", Depth.SERIES: "series", Depth.IMAGE: "instance"}
_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")


class House(Struct, frozen=True, kw_only=True):
    """What all requests have in common. `authority`: the host and port that we are known by where nothing else is."""

    archive: Archive
    authority: str
    timeout_s: float
    max_instance_octets: int


class Tally(Struct):
    """What happened on one connection."""

    requests: int = 0
    found: int = 0
    sent: int = 0
    stored: int = 0
    failed: int = 0


class Asked(Struct, frozen=True, kw_only=True):
    """One request. `uids`: those that the path names; `parameters`: of the query, but for `accept`."""

    request: web.BaseRequest
    house: House
    guard: Guard
    tally: Tally
    uids: Mapping[Depth, str]
    parameters: Sequence[tuple[str, str]]
    accept: str
    part: Mapping[str, str]

    @property
    def archive(self) -> Archive:
        """The folder that is served."""
        return self.house.archive

    def images(self) -> list[Image]:
        """The instances of the study, the series or the instance that the path names. Raises Refusal when none is."""
        study = self.archive.index.studies.get(self.uids.get(Depth.STUDY, ""))
        series = _chosen(study.series, self.uids.get(Depth.SERIES)) if study is not None else []
        found = [image for one in series for image in _chosen(one.images, self.uids.get(Depth.IMAGE))]
        if not found:
            raise Refusal(404, f"no such {_WORDS[max(self.uids)]} here")
        return found

    def url(self, *uids: str) -> str:
        """The absolute URL of a study, a series or an instance, as the client calls us."""
        path = "".join(f"/{segment}/{quote(uid)}" for segment, uid in zip(_SEGMENTS.values(), uids, strict=False))
        scheme = "https" if self.request.secure else "http"
        return f"{scheme}://{self._authority()}{path}"

    def outbox(
        self, *, media_type: str, length: int | None = None, status: int = 200, warnings: Sequence[str] = ()
    ) -> Outbox:
        """A way to answer with a stream."""
        return Outbox(
            self.request, self.guard, timeout_s=self.house.timeout_s, media_type=media_type, length=length,
            status=status, warnings=warnings,
        )  # fmt: skip


    def _authority(self) -> str:
        """The host and port of Host, where it is fit to be repeated.

        dicomweb-client 0.60 leaves our port out of it. A name without one may be that of a proxy, an address is not.
        """
        host, own = self.request.headers.get(hdrs.HOST, ""), self.house.authority
        if not _HOST.fullmatch(host):
            return own
        is_bare = host.endswith("]") or ":" not in host
        return host + own[own.rindex(":") :] if is_bare and is_own(host) else host


def _chosen(things: Mapping[str, Value], uid: str | None) -> list[Value]:
    """The one with this UID, if it is there; all of them where none is named."""
    if uid is None:
        return list(things.values())
    return [things[uid]] if uid in things else []


def is_own(host: str) -> bool:
    """Whether a Host names an address, or this machine."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def uids_of(thing: Thing) -> tuple[str, ...]:
    """The UIDs of a thing and of what is above it, from the study down."""
    parts = (thing.study.attributes["StudyInstanceUID"], thing.series and thing.series.attributes["SeriesInstanceUID"],
             thing.image and thing.image.uid)  # fmt: skip
    return tuple(str(uid) for uid in parts if uid)
