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
from dcmsync.node.intake import Intake, Taking
from dcmsync.node.policy import CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED
from dcmsync.wire.dimse.operations import VERIFICATION
from dcmsync.wire.dimse.storage import is_storage
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import AssociateAccept, AssociateReject, AssociateRequest

_REQUEST_S = 30.0  # for an A-ASSOCIATE-RQ to come (ARTIM)
_PLAIN = (contexts.EXPLICIT_LITTLE, contexts.IMPLICIT_LITTLE)

Event = Mapping[str, object]


class Settings(Struct, frozen=True, kw_only=True):
    """Where to listen, as whom, and to whom. `calling_aes` is None where anyone may come."""

    ae_title: str
    host: str
    port: int
    calling_aes: frozenset[str] | None = None
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
        self._limits = Limits(timeout_s=timeout_s, connect_s=min(timeout_s, _REQUEST_S))
        self._listener = Listener(
            ListenerSettings(
                host=settings.host,
                port=settings.port,
                decide=self._decide,
                serve=self._serve,
                opened=self._opened,
                closed=self._closed,
                turned_away=self._turned_away,
                max_associations=settings.max_associations,
            ),
            self._limits,
            watch,
        )
        self.host, self.port = self._listener.host, self._listener.port

    async def run(self) -> None:
        """Takes in until `stop`; returns when all that was in flight has landed. Cancel it to abort."""
        self._say({"type": "listening", "ae": self._settings.ae_title, "host": self.host, "port": self.port})
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

    def _decide(self, request: AssociateRequest) -> AssociateAccept | AssociateReject:
        """The answer to a request: storage in any syntax, private classes as well, and verification."""
        settings = self._settings
        if settings.calling_aes is not None and request.calling_ae not in settings.calling_aes:
            return CALLING_NOT_RECOGNISED
        if request.called_ae != settings.ae_title:
            return CALLED_NOT_RECOGNISED
        syntaxes_of: dict[str, tuple[str, ...]] = {VERIFICATION: _PLAIN}
        for context in request.contexts:
            if is_storage(context.abstract_syntax):
                offered = syntaxes_of.get(context.abstract_syntax, ())
                syntaxes_of[context.abstract_syntax] = (*offered, *context.transfer_syntaxes)
        results, roles = contexts.answer(request, syntaxes_of)
        return AssociateAccept(
            called_ae=request.called_ae,
            calling_ae=request.calling_ae,
            results=results,
            roles=roles,
            max_pdu_octets=self._limits.max_pdu_octets,
        )

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
