"""Looking at the place that `doctor` is given: which kind is examined by what, and two places that are one.

Owns that table, what is told of a place that gives for another, and the section of the configuration. Refuses to know
how one looks: `examining.py`, `examining_web.py` and `examining_http.py` do.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio
from msgspec import Struct
from msgspec.structs import replace

from dcmsync.commands.entrance import Entrance
from dcmsync.commands.examining import Examination
from dcmsync.commands.examining_http import HttpExamination, Kind
from dcmsync.commands.examining_web import WebExamination
from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.config import Config, Endpoint
from dcmsync.contract import Level, Want
from dcmsync.errors import UsageError
from dcmsync.keys import keys
from dcmsync.locator import Ahi, Archive, Folder, Mint, Node, Rad69, WadoUri, Web, Xnat
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.plan.diagnosis import Finding, Findings
from dcmsync.plan.levels import STUDY_KEYS

if TYPE_CHECKING:
    from dcmsync.endpoints.dimse.place import DimseNode

_THREE = "studies, series and instances"


class Own(Struct, frozen=True, kw_only=True):
    """What a node must know of us."""

    ae_title: str
    host: str
    port: int
    with_tls: bool


class Examines(Protocol):
    """What looks at one place. Raises UsageError, and nothing of the place's doing."""

    @property
    def want(self) -> Want | None:
        """An instance that the place lists, afterwards."""

    async def run(self, sample: Mapping[str, str], *, today: date, deep: bool, gives: bool) -> bool:
        """Looks at what it lists, and with `gives` how it gives; false when it cannot be reached, or rejects us."""

    async def give(self, want: Want | None, *, today: date, deep: bool) -> bool:
        """Looks at how it gives what another place lists; false as above."""


class Diagnosis:
    """One run. `found` has what was seen."""

    def __init__(
        self, arguments: Namespace, streams: Streams, watch: Watch, settings: Config, tell: Callable[[Finding], None]
    ) -> None:
        """Raises UsageError for places that there is nothing to look at."""
        self.found = Findings(tell)
        self._arguments = arguments
        self._streams = streams
        self._watch = watch
        self._settings = settings
        self._places = Places(arguments, watch, streams)
        self._word: str = arguments.endpoint
        self._giver = self._places.giver(self._word)
        self._asked = self._examines(self._word, self.found)
        if self._giver is not None:
            self.found.giver = Findings(partial(_of_giver, self._giver, tell))
            self._giving = self._examines(self._giver, self.found.giver)

    def run(self, sample: Mapping[str, str]) -> bool:
        """Looks; false when a place cannot be reached, or rejects us. `sample`: keys of the studies to look at."""
        return anyio.run(self._places.receiving, partial(self._run, sample, date.today()))

    async def _run(self, sample: Mapping[str, str], today: date) -> bool:
        deep = self._arguments.deep
        is_reached = await self._asked.run(sample, today=today, deep=deep, gives=self._giver is None)
        if is_reached and self._giver is not None:
            is_reached = await self._giving.give(self._asked.want, today=today, deep=deep)
        return is_reached

    def section(self, name: str | None) -> str:
        """The section of the configuration that fits the place, under `name` or the one that it has."""
        place = self._places.parse(self._word)
        assert not isinstance(place, Folder | Archive)
        default = place.ae.lower() if isinstance(place, Node) else KINDS[type(place)].name
        is_named = self._word in self._settings.endpoints
        return self.found.section(name or (self._word if is_named else default), self._said(str(place)))

    @property
    def own(self) -> Own | None:
        """What a node must know of us, afterwards; None where there is no node."""
        for word in filter(None, (self._word, self._giver)):
            examined = self._asked if word == self._word else self._giving
            if isinstance(examined, Examination):
                local = self._settings.local
                return Own(
                    ae_title=self._places.node(word).peer.calling_ae, host=examined.own_host,
                    port=self._arguments.port or local.port, with_tls=local.tls,
                )  # fmt: skip
        return None

    def _examines(self, word: str, found: Findings) -> Examines:
        """What looks at the place called `word`. Raises UsageError."""
        place = self._places.parse(word)
        if isinstance(place, Folder | Archive):
            raise UsageError(f"{word} is on this machine, and there is nothing to look at",
                             advice="Name a remote place, as in AET@host:port or https://host/path")  # fmt: skip
        if isinstance(place, Node):
            limits = Limits(timeout_s=self._places.timeout_s(word))
            return Examination(self._places.node(word), self._watch, limits, found, partial(self._retrieving, word))
        entrance = Entrance(place, self._places.setting(word), found)
        closer = None
        if isinstance(place, Web):
            closer = WebExamination(entrance.setting.door(place.url, str(place)), found)
        return HttpExamination(entrance, KINDS[type(place)], found, closer)

    def _retrieving(self, word: str, service: str, model: str) -> DimseNode:
        """The node to retrieve from by a service and an information model."""
        given = Namespace(**{**vars(self._arguments), "via": service, "model": model})
        return Places(given, self._watch, self._streams, mailbox=self._places.mailbox).node(word)

    def _said(self, locator: str) -> dict[str, object]:
        """What is set for the place, or was given for it."""
        endpoint = self._settings.endpoints.get(self._word, Endpoint(locator=locator))
        said = {key.name: getattr(endpoint, key.name) for key in keys(Endpoint) if not key.is_secret}
        said = {key.name: said[key.name] for key in keys(Endpoint) if said.get(key.name, key.default) != key.default}
        return {**said, "calling": self._arguments.calling} if self._arguments.calling else said


def _of_giver(name: str, tell: Callable[[Finding], None], finding: Finding) -> None:
    """Tells a finding on the place that gives for another."""
    tell(replace(finding, words=f"{name}: {finding.words}", facts={**finding.facts, "endpoint": name}))


def _by_mint() -> Sequence[str]:
    from dcmsync.endpoints.mint.fields import CHOOSING

    return (*sorted(CHOOSING), "StudyDate")


def _by_xnat() -> Sequence[str]:
    from dcmsync.endpoints.xnat.session import KEYS

    return sorted(KEYS[Level.STUDY])


def _by_healthimaging() -> Sequence[str]:
    from dcmsync.endpoints.ahi.criteria import criteria

    return [key for key in STUDY_KEYS if "filters" in criteria({key: "20240131"})]


KINDS: Mapping[type, Kind] = {
    Web: Kind(name="dicomweb", title="DICOMweb"),
    WadoUri: Kind(name="wado-uri", title="WADO-URI"),
    Mint: Kind(name="mint", title="MINT", lists=_THREE, chooses=_by_mint),
    Rad69: Kind(name="rad69", title="RAD-69"),
    Xnat: Kind(
        name="xnat", title="XNAT", lists="sessions as studies and scans as series", chooses=_by_xnat,
        stores="takes instances, into its pre-archive; that was not tried",
    ),
    Ahi: Kind(name="healthimaging", title="HealthImaging", lists=_THREE, chooses=_by_healthimaging,
              stores="takes instances by the DICOMweb of the data store alone"),
}  # fmt: skip
"""What is known of the kinds that speak HTTP, all of which `examining_http` looks at."""
