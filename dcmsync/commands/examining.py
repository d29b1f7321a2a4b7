"""Looking at a DIMSE node: connects, sees what is offered, and moves nothing unless told to.

Owns the connection, the contexts, and that a peer in trouble ends one check and not the run. What is asked of it is in
`probing`, what it all means in `plan/diagnosis`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date

import anyio

from dcmsync.commands.probing import SYNTAXES, Probe
from dcmsync.commands.scales import Scales
from dcmsync.contract import Want
from dcmsync.endpoints.dimse.asking import Asker
from dcmsync.endpoints.dimse.place import DimseNode
from dcmsync.errors import Disconnected, Insecure, LocalTrouble, PeerError, RemoteProtocolError, Stalled, Unreachable
from dcmsync.net.association import Association, associate
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.net.stream import connect
from dcmsync.plan.diagnosis import Finding, Findings, model_finding, tls_finding
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.models import MODELS
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import ProposedContext, Role

_SERVICES = ("find", "get", "move")
_COMMON = [(uid, syntax) for syntax in contexts.COMMON_SYNTAXES for uid in contexts.COMMON_CLASSES]
_ALL = len(contexts.COMMON_CLASSES)
_PROBE_S = 5.0  # how long to see whether another protocol is spoken


class Examination:
    """One node. `found` has what was seen; `retrieving` gives the node to retrieve from, by a service and a model.

    Afterwards `want` is an instance that it lists, None without any.
    """

    def __init__(
        self,
        node: DimseNode,
        watch: Watch,
        limits: Limits,
        found: Findings,
        retrieving: Callable[[str, str], DimseNode],
    ) -> None:
        self.own_host = ""
        self.want: Want | None = None
        self._model = next(name for name, model in MODELS.items() if model is node.model)
        self._node = node
        self._peer = node.peer
        self._watch = watch
        self._limits = limits
        self._found = found
        self._retrieving = retrieving

    async def run(self, sample: Mapping[str, str], *, today: date, deep: bool, gives: bool) -> bool:
        """Every check, in turn; false when the node cannot even be spoken to.

        `sample` chooses the studies to look at, those of the last days where it is empty; `gives`: it is to give too.
        """
        if not await self._is_reached(today):
            return False
        offered = await self._services()
        asker = Asker(self._peer.name, MODELS[self._model])
        probe = Probe(self._peer, self._watch, self._limits, self._found, asker)
        if "find" in offered:
            await probe.run(sample, today)
        await self._storage()
        self.want = probe.want
        if deep and gives:
            await self._give(offered, probe.want)
        return True

    async def give(self, want: Want | None, *, today: date, deep: bool) -> bool:
        """How it gives what another place lists, such as `want`; false when it cannot even be spoken to."""
        if not await self._is_reached(today):
            return False
        offered = await self._services()
        if deep:
            await self._give(offered, want)
        return True

    async def _give(self, offered: frozenset[str], want: Want | None) -> None:
        for service in ("get", "move"):
            if service in offered and want is not None:
                await self._retrieve(service, want)

    async def _is_reached(self, today: date) -> bool:
        """TCP, association and echo."""
        begun = anyio.current_time()
        try:
            raw = await connect(self._peer.host, self._peer.port, timeout_s=self._connect_s)
        except Unreachable as error:
            self._failed("tcp", error)
            return False
        with raw:
            self.own_host = raw.getsockname()[0]
        self._note("tcp", True, f"connected in {anyio.current_time() - begun:.3f} s, from {self.own_host}")
        verification = (ProposedContext(1, operations.VERIFICATION, SYNTAXES),)
        greeted = False
        try:
            async with associate(self._peer, verification, watch=self._watch, limits=self._limits) as association:
                self._greet(association, today)
                greeted = True
                await self._echo(association)
        except PeerError as error:
            self._failed("echo" if greeted else "association", error, "" if greeted else await self._behind(error))
        return greeted

    def _greet(self, association: Association, today: date) -> None:
        accept = association.accept
        self._found.learnt.implementation = accept.implementation
        self._note("association", True, f"accepted for {self._peer.calling_ae}")
        self._found.add(self._security(association, today))
        implementation = accept.implementation
        self._note("implementation", True, implementation or "it does not say", implementation=implementation)
        octets = accept.max_pdu_octets
        self._note("max pdu", True, f"{octets:,} octets" if octets else "no limit", octets=octets)

    def _security(self, association: Association, today: date) -> Finding:
        spoken = association.spoken
        if spoken is None or self._peer.secure is None:
            return Finding(check="tls", ok=True, words="not spoken: who is on the way can read along")
        return tls_finding(
            spoken.version, spoken.cipher, profile=self._peer.secure.profile,
            ends=spoken.ends.date() if spoken.ends else None, today=today, learnt=self._found.learnt,
        )  # fmt: skip

    async def _echo(self, association: Association) -> None:
        if not association.accepts(operations.VERIFICATION):
            self._note("echo", None, "it accepts no context for C-ECHO")
            return
        code = await association.echo()
        self._note("echo", code == 0, status.words(code, "C-ECHO") if code else "answered")

    async def _behind(self, error: PeerError) -> str:
        """What is perhaps the reason: the port speaks another protocol."""
        if isinstance(error, Insecure | Disconnected | RemoteProtocolError | Stalled):
            if self._peer.secure is None and await self._speaks_tls():
                return f"It speaks TLS there: write dicoms://{self._peer.name}"
            if await self._speaks_http():
                return "A web server (HTTP) is there: ask for the port of its DICOM node"
        return ""

    async def _speaks_tls(self) -> bool:
        from dcmsync.net import tls

        secure = tls.client(tls.Terms(verify=False))  # nothing is said over it: only whether it comes about
        with suppress(PeerError):
            raw = await connect(self._peer.host, self._peer.port, timeout_s=self._connect_s)
            with raw:
                await tls.handshake(raw, secure, host=self._peer.host, name=self._peer.name, timeout_s=self._connect_s)
                return True
        return False

    async def _speaks_http(self) -> bool:
        with suppress(PeerError, OSError), anyio.move_on_after(self._connect_s):
            raw = await connect(self._peer.host, self._peer.port, timeout_s=self._connect_s)
            with raw:
                raw.send(b"HEAD / HTTP/1.0\r\n\r\n")
                await anyio.wait_readable(raw)
                return raw.recv(5) == b"HTTP/"
        return False

    @property
    def _connect_s(self) -> float:
        return min(self._limits.timeout_s, _PROBE_S)

    async def _services(self) -> frozenset[str]:
        """Which of find, get and move it accepts contexts for; by another model than is set, where it has none of that.
        """
        uids = [getattr(model, service) for model in MODELS.values() for service in _SERVICES]
        proposed = [ProposedContext(2 * n + 1, uid, SYNTAXES) for n, uid in enumerate(uids)]
        try:
            async with associate(self._peer, proposed, watch=self._watch, limits=self._limits) as association:
                accepted = frozenset(uid for uid in uids if association.accepts(uid))
        except PeerError as error:
            self._failed("find", error)
            return frozenset()
        models = [name for name, model in MODELS.items() if model.find in accepted]
        if models:
            titles = {name: model.words for name, model in MODELS.items()}
            self._found.add(model_finding(models, self._model, titles, self._found.learnt))
            self._model = self._found.learnt.model or self._model
        offered = frozenset(name for name in _SERVICES if getattr(MODELS[self._model], name) in accepted)
        for name in _SERVICES:
            if name == "get" and name in offered:
                await self._get_contexts()
                continue
            advice = "It must know us, as below" if name == "move" and name in offered else ""
            words = "offered" if name in offered else f"it accepts no context for C-{name.upper()}"
            self._note(name, name in offered, words, advice)
        if "get" not in offered and "move" in offered:
            self._found.learnt.via = "move"
        return offered

    async def _get_contexts(self) -> None:
        get = MODELS[self._model].get
        proposed = [ProposedContext(1, get, SYNTAXES), *contexts.propose(_COMMON, first_id=3)]
        roles = [Role(uid, scu=False, scp=True) for uid in contexts.COMMON_CLASSES]
        opening = associate(self._peer, proposed, watch=self._watch, limits=self._limits, roles=roles)
        try:
            async with opening as association:
                classes = {each.abstract_syntax for each in association.contexts} - {get}
                agreed = {role.sop_class_uid for role in association.accept.roles if role.scp}
        except PeerError as error:
            self._failed("get", error)
            return
        unsure = len(classes - agreed)
        advice = f"It agrees to no role for {unsure} of them, and may not send those" if unsure else ""
        words = f"offered, for {len(classes)} of {_ALL} common storage classes"
        self._note("get", bool(classes), words, advice, classes=sorted(classes))

    async def _storage(self) -> None:
        opening = associate(self._peer, contexts.propose(_COMMON), watch=self._watch, limits=self._limits)
        try:
            async with opening as association:
                taken = {(each.abstract_syntax, each.transfer_syntax) for each in association.contexts}
        except PeerError as error:
            self._failed("store", error)
            return
        classes = {uid for uid, _ in taken}
        packed = {uid for uid, syntax in taken if syntax not in contexts.UNCOMPRESSED}
        words = f"takes {len(classes)} of {_ALL} common storage classes, {len(packed)} of them compressed"
        self._note("store", bool(classes), words, classes=sorted(classes))

    async def _retrieve(self, service: str, want: Want) -> None:
        """Has one instance sent, and lets go of it."""
        scales = Scales(want)
        why = ""
        try:
            async with self._retrieving(service, self._model).session() as session:
                why = (await session.fetch(want, scales)).why
        except (PeerError, LocalTrouble) as error:
            self._failed(f"{service} instance", error)
            return
        words = f"one came, {scales.octets:,} octets; it was not kept"
        if not scales.came:
            words = f"one was asked for, and did not come{': ' if why else ''}{why}"
            if service == "get":
                self._found.learnt.flags.append("no-cget")
        self._note(f"{service} instance", scales.came, words)

    def _failed(self, check: str, error: PeerError | LocalTrouble, advice: str = "") -> None:
        self._note(check, False, error.message, advice or error.advice or "")

    def _note(self, check: str, ok: bool | None, words: str, advice: str = "", **facts: object) -> None:
        self._found.add(Finding(check=check, ok=ok, words=words, advice=advice, facts=facts))
