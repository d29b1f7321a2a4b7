"""A listener that takes instances in and gives none: who may come, for what, and the events that tell of it.

Owns the acceptor of `route`. Refuses to keep what comes (`intake` does), to forward it, and to mind signals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio
from msgspec import Struct

from dcmsync.errors import DcmsyncError
from dcmsync.net.channel import Limits
from dcmsync.net.listener import Listener, Visit
from dcmsync.net.listener import Settings as ListenerSettings
from dcmsync.net.patience import Watch
from dcmsync.net.tls import Secure
from dcmsync.node.intake import Intake, Taking
from dcmsync.node.policy import Network, Policy
from dcmsync.wire.dimse.operations import VERIFICATION

_REQUEST_S = 30.0  # for an A-ASSOCIATE-RQ to come (ARTIM)

Event = Mapping[str, object]


class Settings(Struct, frozen=True, kw_only=True):
    """Where to listen, as whom, and to whom. `calling_aes` and `networks` are None where anyone may come.

    With `secure` the port speaks TLS, and nothing else.
    """

    ae_title: str
    host: str
    port: int
    calling_aes: frozenset[str] | None = None
    networks: tuple[Network, ...] | None = None
    requires_identity: bool = False
    secure: Secure | None = None
    max_associations: int = 32
    timeout_s: float = 60.0


class Gateway:
    """A listener in front of an intake, listening once it is made. `say` hears events, `warn` what may surprise."""

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        watch: Watch,
        *,
        say: Callable[[Event], None],
        warn: Callable[[str], None],
    ) -> None:
        """Binds. Raises LocalTrouble."""
        self.is_stopping = False
        self._settings = settings
        self._intake = intake
        self._say = say
        self._warn = warn
        self._takings: dict[Visit, Taking] = {}
        timeout_s = settings.timeout_s
        limits = Limits(timeout_s=timeout_s, connect_s=min(timeout_s, _REQUEST_S))
        policy = Policy(
            ae_title=settings.ae_title,
            calling_aes=settings.calling_aes,
            networks=settings.networks,
            requires_identity=settings.requires_identity,
            max_pdu_octets=limits.max_pdu_octets,
            services=frozenset((VERIFICATION,)),
        )
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
        self.host, self.port = self._listener.host, self._listener.port

    async def run(self) -> None:
        """Takes in until `stop`; returns when all that was in flight has landed. Cancel it to abort."""
        self._say({
            "type": "listening", "ae": self._settings.ae_title, "host": self.host, "port": self.port,
            **({"tls": True} if self._settings.secure else {}),
        })  # fmt: skip
        async with anyio.create_task_group() as tasks:
            self._intake.queue.start(tasks)
            await self._listener.run()
            self._intake.queue.stop()

    def stop(self) -> None:
        """Accepts no more, and lets what is in flight finish. Idempotent."""
        self.is_stopping = True
        self._listener.stop()

    def close(self) -> None:
        """Closes the socket. Idempotent."""
        self._listener.close()

    async def _serve(self, visit: Visit) -> None:
        await self._takings[visit].run()

    def _opened(self, visit: Visit) -> None:
        self._takings[visit] = Taking(visit, self._intake)

    def _closed(self, visit: Visit, why: Exception | None) -> None:
        taking = self._takings.pop(visit)
        if why is not None:
            lost = f"; {taking.failed:,} instances were not taken" if taking.failed else ""
            self._warn(f"{visit.host}:{visit.port}: {_words(why)}{lost}")

    def _turned_away(self, address: str, why: Exception) -> None:
        self._warn(f"{address}: turned away: {_words(why)}")


def _words(why: Exception) -> str:
    """Words for people. Text of unknown exceptions may quote a data set, so only their type is shown."""
    return why.message if isinstance(why, DcmsyncError) else f"a bug in dcmsync: {type(why).__name__}"
