"""A DIMSE node as a place: its name, who we are there, C-ECHO, and sessions (PS3.4 Annex A, C).

Cheap to make, and holds no socket. Refuses to know what a session says; `session.py` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from msgspec import structs

from dcmsync.endpoints import Setting
from dcmsync.endpoints.dimse.asking import Asker
from dcmsync.endpoints.dimse.committing import Committer
from dcmsync.endpoints.dimse.moving import Mover
from dcmsync.endpoints.dimse.session import QUERY_SYNTAXES, Session
from dcmsync.locator import Node
from dcmsync.net import tls
from dcmsync.net.association import Peer, associate
from dcmsync.net.channel import Limits
from dcmsync.net.mailbox import Mailbox
from dcmsync.net.patience import Watch
from dcmsync.quirks import Quirks
from dcmsync.wire.dimse import operations
from dcmsync.wire.dimse.models import MODELS, Model
from dcmsync.wire.upperlayer.codec import ProposedContext


class DimseNode:
    """One node, and who we are there."""

    def __init__(
        self,
        peer: Peer,
        *,
        limits: Limits,
        watch: Watch,
        mover: Mover | None = None,
        quirks: Quirks = Quirks(),  # noqa: B008  # a frozen value
        asker: Asker | None = None,
        mailbox: Callable[[], Mailbox] | None = None,
    ) -> None:
        """Without a `mover` it gives by C-GET alone. `mailbox` opens where its reports of storage commitment arrive."""
        self.peer = peer
        self.name = peer.name
        self._limits = limits
        self._watch = watch
        self._quirks = quirks
        self._asker = asker or Asker(peer.name)
        self._mover = mover or Mover(peer, limits, mailbox=None)
        self._committer = Committer(peer, limits, self._mover, mailbox=mailbox)

    @property
    def model(self) -> Model:
        """The information model that it is asked by."""
        return self._asker.model

    async def echo(self) -> int:
        """C-ECHO on an association of its own: the DIMSE status. Raises PeerError."""
        proposed = (ProposedContext(1, operations.VERIFICATION, QUERY_SYNTAXES),)
        async with associate(self.peer, proposed, watch=self._watch, limits=self._limits) as association:
            return await association.echo()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session, whose association ends with it: by A-RELEASE where that is still possible."""
        session = Session(self.peer, self._limits, self._watch, self._mover, self._quirks, self._asker, self._committer)
        try:
            yield session
        finally:
            with anyio.CancelScope(shield=True):
                await session.drop()


def open_node(node: Node, setting: Setting) -> DimseNode:
    """The node that a locator names; its own word on who we are there goes first."""
    calling_ae = node.calling_ae or setting.calling_ae
    access = setting.access
    peer = Peer(
        host=node.host,
        port=node.port,
        called_ae=node.ae,
        calling_ae=calling_ae,
        secure=tls.client(access.terms) if access.terms else None,
        identity=access.identity,
        identity_required=access.identity_required,
    )
    limits = Limits(timeout_s=setting.timeout_s, throttle=setting.throttle)
    wishes = structs.replace(setting.wishes, relational=False) if setting.quirks.upper_uids else setting.wishes
    asker = Asker(peer.name, MODELS[setting.model], wishes, warn=setting.warn)
    via = setting.via or ("move" if setting.quirks.no_cget else None)
    mover = Mover(
        peer, limits, mailbox=setting.mailbox, via=via, senders=setting.senders, warn=setting.warn,
        asker=asker,
    )
    return DimseNode(
        peer, limits=limits, watch=setting.watch, mover=mover, quirks=setting.quirks, asker=asker,
        mailbox=setting.mailbox,
    )  # fmt: skip
