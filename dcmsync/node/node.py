"""The embedded DICOM node: an archive behind a listener, and the events that tell what happens.

Owns putting them together, and their order at the end: no more peers, then no more landings, then the folder. Refuses
to mind signals and to print. Events are records that carry who came and counts, never what is in an instance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

import anyio
from msgspec import Struct

from dcmsync.contract import Landed
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.errors import DcmsyncError
from dcmsync.net.channel import Limits
from dcmsync.net.listener import Listener, Visit
from dcmsync.net.listener import Settings as ListenerSettings
from dcmsync.net.patience import Watch
from dcmsync.net.tls import Secure
from dcmsync.node.archive import Archive, Queue
from dcmsync.node.committing import Commitments
from dcmsync.node.moving import Destination, Route
from dcmsync.node.policy import Network, Policy
from dcmsync.node.service import House, Service

_REQUEST_S = 30.0  # for an A-ASSOCIATE-RQ to come (ARTIM)

Event = Mapping[str, object]


class Settings(Struct, frozen=True, kw_only=True):
    """What to serve, where, as whom, and to whom. `calling_aes` and `networks` are None where anyone may come.

    With `secure` the port speaks TLS, and nothing else. `destinations`: by AE title, whom C-MOVE may send to, and who
    can be told of commitment on an association of ours. `rescan_s`: how often to look for files that others put there
    or took away; None for never.
    """

    folder: str
    ae_title: str = "DCMSYNC"
    host: str = "127.0.0.1"
    port: int = 0
    calling_aes: frozenset[str] | None = None
    networks: tuple[Network, ...] | None = None
    max_associations: int = 32
    timeout_s: float = 60.0
    destinations: Mapping[str, Destination] = {}
    secure: Secure | None = None
    requires_identity: bool = False
    rescan_s: float | None = None


class Side(Protocol):
    """Another protocol on a port of its own, bound: it serves the same folder, and stops with the node."""

    url: str

    async def run(self) -> None:
        """Serves until `stop`."""

    def stop(self) -> None:
        """Accepts no more, and lets what is in flight finish."""

    def close(self) -> None:
        """Closes the port."""


class MakeSide(Protocol):
    """Opens a side. Raises LocalTrouble."""

    def __call__(
        self, limits: Limits, watch: Watch, archive: Archive, *, admits: Callable[[str], bool],
        say: Callable[[Event], None], warn: Callable[[str], None],
    ) -> Side: ...  # fmt: skip


class Node:
    """A node, listening once it is made; a context manager around `run`."""

    def __init__(
        self,
        settings: Settings,
        watch: Watch,
        *,
        make_queue: Callable[[Landing, Callable[[Landed], None]], Queue],
        make_http: MakeSide | None = None,
        say: Callable[[Event], None] = lambda event: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Reads the folder and binds. `say` hears events, `warn` what may surprise people. Raises LocalTrouble."""
        self.is_stopping = False
        self._settings = settings
        self._say = say
        self._warn = warn
        self._services: dict[Visit, Service] = {}
        self.archive = Archive(settings.folder, make_queue=make_queue, warn=warn)
        timeout_s = settings.timeout_s
        limits = Limits(timeout_s=timeout_s, connect_s=min(timeout_s, _REQUEST_S))
        routes = {
            title: Route(destination, watch, limits) for title, destination in settings.destinations.items()
        }
        self._commitments = Commitments(self.archive, routes, say)
        self._house = House(
            archive=self.archive, own_ae=settings.ae_title, routes=routes, commitments=self._commitments, tell=say
        )
        policy = Policy(
            ae_title=settings.ae_title,
            calling_aes=settings.calling_aes,
            networks=settings.networks,
            requires_identity=settings.requires_identity,
            max_pdu_octets=limits.max_pdu_octets,
        )
        try:
            self._listener = Listener(
                ListenerSettings(
                    host=settings.host,
                    port=settings.port,
                    decide=policy.decide,
                    admits=policy.admits,
                    serve=self._serve,
                    opened=self._opened,
                    closed=self._closed,
                    turned_away=self._turned_away,
                    max_associations=settings.max_associations,
                    secure=settings.secure,
                ),
                limits,
                watch,
            )
            self._http = make_http(
                limits, watch, self.archive, admits=policy.admits, say=say, warn=warn
            ) if make_http is not None else None  # fmt: skip
        except BaseException:
            self.archive.close()
            raise
        self.host, self.port = self._listener.host, self._listener.port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._listener.close()
        if self._http is not None:
            self._http.close()
        self.archive.close()

    async def run(self) -> None:
        """Serves until `stop`; returns when all that was in flight is done. Cancel it to abort."""
        self._say({
            "type": "listening", "ae": self._settings.ae_title, "host": self.host, "port": self.port,
            **({"tls": True} if self._settings.secure else {}),
            **({"http": self._http.url} if self._http else {}),
            "folder": self._settings.folder, "instances": len(self.archive.index.images),
        })  # fmt: skip
        async with anyio.create_task_group() as tasks:
            self.archive.start(tasks)
            self._commitments.start(tasks)
            renewing = anyio.CancelScope()
            tasks.start_soon(self._renew, renewing)
            async with anyio.create_task_group() as listening:
                listening.start_soon(self._listener.run)
                if self._http is not None:
                    listening.start_soon(self._http.run)
            renewing.cancel()
            self._commitments.stop()
            self.archive.stop()

    def stop(self) -> None:
        """Accepts no more, and lets what is in flight finish. Idempotent."""
        self.is_stopping = True
        self._listener.stop()
        if self._http is not None:
            self._http.stop()

    async def _renew(self, scope: anyio.CancelScope) -> None:
        """Looks into the folder again, as often as it is to be."""
        with scope:
            while self._settings.rescan_s is not None:
                await anyio.sleep(self._settings.rescan_s)
                try:
                    changes = await self.archive.renew()
                except OSError as trouble:
                    self._warn(f"{self._settings.folder}: cannot be looked into again: {trouble.strerror}")
                    continue
                if changes.is_any:
                    self._say({"type": "rescan", "added": changes.added, "removed": changes.removed})

    async def _serve(self, visit: Visit) -> None:
        await self._services[visit].run()

    def _opened(self, visit: Visit) -> None:
        self._services[visit] = Service(visit, self._house)
        self._say({"type": "association", "event": "opened", **_who(visit)})

    def _closed(self, visit: Visit, why: Exception | None) -> None:
        tally = self._services.pop(visit).tally
        event: dict[str, object] = {
            "type": "association", "event": "closed", **_who(visit),
            "found": tally.found, "sent": tally.sent, "stored": tally.stored, "failed": tally.failed,
        }  # fmt: skip
        if why is not None:
            event["reason"] = _reason(why)
            self._warn(f"{visit.host}:{visit.port}: {_words(why)}")
        self._say(event)

    def _turned_away(self, address: str, why: Exception) -> None:
        self._say({"type": "association", "event": "refused", "peer": address, "reason": _reason(why)})
        self._warn(f"{address}: turned away: {_words(why)}")


def _who(visit: Visit) -> dict[str, object]:
    return {"calling": visit.calling_ae, "peer": f"{visit.host}:{visit.port}"}


def _reason(why: Exception) -> str:
    """A word for programs."""
    return why.reason if isinstance(why, DcmsyncError) else "bug"


def _words(why: Exception) -> str:
    """Words for people. Text of unknown exceptions may quote a data set, so only their type and place are shown."""
    if isinstance(why, DcmsyncError):
        return why.message
    place = why.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" at line {place.tb_lineno} of {place.tb_frame.f_globals.get('__name__', '?')}" if place else ""
    return f"a bug in dcmsync: {type(why).__name__}{where}; the association was aborted"
