"""One conversation with a DIMSE node: C-FIND, C-GET, C-MOVE, C-STORE, N-ACTION as `contract.py` promises (PS3.4).

Owns which presentation contexts an association needs, and keeps one association open as long as it serves. Refuses to
decide what to ask or whether what came is enough; judges no instance. Queries are strictly hierarchical, unless the
node agreed to more.

Theory of operation: a `Session` holds at most one association and is used by one task. A session that met an error
drops its association; the next call opens another.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from msgspec.structs import replace

from dcmsync.contract import (
    PATIENT_KEYWORDS,
    Arrival,
    Ask,
    Attributes,
    Commitment,
    Ending,
    Level,
    Manner,
    Parcel,
    Receiver,
    Sink,
    Want,
)
from dcmsync.endpoints.dimse.asking import Asker
from dcmsync.endpoints.dimse.committing import Committer
from dcmsync.endpoints.dimse.moving import Mover
from dcmsync.endpoints.dimse.storing import Kind, ending_of, kind_of, kinds_of
from dcmsync.errors import Disconnected, PeerError, Refused, Rejected, RemoteProtocolError
from dcmsync.net.association import Answer, Association, Peer, associate
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.quirks import Quirks
from dcmsync.wire import dataset
from dcmsync.wire.dimse import status
from dcmsync.wire.dimse.commitment import PUSH_MODEL
from dcmsync.wire.dimse.models import MODELS
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import ProposedContext, Role
from dcmsync.wire.upperlayer.extension import Wishes

QUERY_SYNTAXES = (contexts.EXPLICIT_LITTLE, contexts.IMPLICIT_LITTLE)
_QUERY_CONTEXTS = 2  # C-FIND and C-GET, beside the storage contexts
_ABORTED_GETS = 2
_GUESSES = 30  # transfer syntaxes that may be tried in vain, over an association each
_NOTHING_GIVEN = frozenset((0xA702, status.WARNING_SUBOPERATIONS))  # PS3.4 table C.4-2: unable to perform, failures
_GET_IS_NOT_OFFERED = frozenset((status.REFUSED_CLASS, status.UNRECOGNISED_OPERATION))


class Session:
    """Satisfies contract.Holds with one association at a time. `quirks` are those of its node."""

    def __init__(
        self,
        peer: Peer,
        limits: Limits,
        watch: Watch,
        mover: Mover,
        quirks: Quirks,
        asker: Asker,
        committer: Committer,
    ) -> None:
        self.quirks = quirks
        self._peer = peer
        self._limits = limits
        self._watch = watch
        self._mover = mover
        self._asker = asker
        self._committer = committer
        self._stack = AsyncExitStack()
        self._association: Association | None = None
        self._pairs: frozenset[tuple[str, str]] = frozenset()
        self._moves = False
        self._commits = False
        self._find_class = asker.model.find
        self._agreed = Wishes()
        self._stored: frozenset[Kind] = frozenset()
        self._syntax = ""  # in which the node gave what it did not give in any
        self._guesses = 0  # how many were tried since then, in vain

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """One C-FIND, or one for each patient that may be meant; see `contract.Finds`."""
        if self._agreed.relational or not self._asker.lacks_patient(ask):
            async with aclosing(self._find(ask)) as answers:
                async for answer in answers:
                    yield answer
            return
        worst = Ending()
        study_uid = ask.keys.get("StudyInstanceUID", "")
        async with aclosing(self._patients(ask, study_uid)) as patients:
            candidates = [patient async for patient in patients]
        for candidate in candidates:
            if isinstance(candidate, Ending):
                worst = candidate
                continue
            has_any = False
            async with aclosing(self._find(replace(ask, keys={**ask.keys, "PatientID": candidate}))) as answers:
                async for answer in answers:
                    if not isinstance(answer, Ending):
                        has_any = True
                        self._asker.remember(study_uid, candidate)
                        yield answer
                    elif answer.truncated or not worst.truncated:
                        worst = answer
            if has_any and study_uid:
                break
        yield worst

    async def _patients(self, ask: Ask, study_uid: str) -> AsyncGenerator[str | Ending, None]:
        """The PatientIDs that a question may be about, and how the list of them ended."""
        if known := self._asker.patient_of(study_uid):
            yield known
            return
        keys = {key: value for key, value in ask.keys.items() if key in PATIENT_KEYWORDS}
        async with aclosing(self._find(Ask(level=Level.PATIENT, keys={"PatientID": "", **keys}))) as patients:
            async for patient in patients:
                if isinstance(patient, Ending):
                    yield replace(patient, is_last_word=patient.truncated)
                elif isinstance(patient_id := patient.get("PatientID"), str) and patient_id:
                    yield patient_id

    async def _find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """One C-FIND.

        An answer that came before is no progress: a peer that repeats itself for ever runs into the deadline.
        """
        find_class = self._asker.find_class(ask.level)
        keys = {**dict.fromkeys(ask.wanted, ""), **ask.keys}
        wanted = frozenset(dataset.tag_of(keyword) for keyword in keys)
        seen: set[int] = set()
        association = await self._ready(find_class=find_class)
        if not association.accepts(find_class):
            model = next(model.words for model in MODELS.values() if model.find == find_class)
            raise Rejected(f"{self._peer.name}: the peer accepts no presentation context for C-FIND by {model}")
        try:
            answers = association.find(
                find_class,
                lambda syntax: self._encoded(keys, ask.level, syntax),
            )
            async with aclosing(answers), self._no_cancel(association):
                async for answer in answers:
                    if answer.status not in status.PENDING:
                        yield _find_ending(answer, self._peer.name)
                    elif answer.identifier is not None:
                        attributes = self._decoded(answer.identifier, answer.transfer_syntax, wanted)
                        self._learn(ask, attributes)
                        mark = hash(str(attributes.get(ask.level.unique_key)))
                        if mark not in seen:
                            seen.add(mark)
                            if len(seen) > self._limits.max_answers:
                                limit = f"{self._limits.max_answers:,}"
                                raise RemoteProtocolError(f"{self._peer.name}: gave more than {limit} answers")
                            association.progress()
                        yield attributes
        except PeerError:
            await self.drop(failed=True)
            raise

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """C-GET of a series, or of some of its instances, or C-MOVE to ourselves; see `contract.Fetches`.

        Which one is the configuration's word; without one, C-MOVE where C-GET is not offered.
        """
        self._asker.find_class(Level.SERIES)  # a model without series gives none
        try:
            await self._know_patient(want)
            if self._mover.via == "move":
                return await self._move(want, receiver)
            if self._mover.via == "get":
                return await self._get(await self._ready(_pairs(want)), want, receiver)
            return await self._get_or_move(want, receiver)
        except BaseException:
            await self.drop(failed=True)
            raise

    async def move(self, want: Want, destination_ae: str) -> Ending:
        """C-MOVE of a series, or of some of its instances, to the node that the peer knows as `destination_ae`.

        The ending is the peer's word, not a proof: ask the destination. Raises Rejected when the peer knows no such
        node, PeerError.
        """
        try:
            await self._know_patient(want)
            return await self._mover.send(await self._ready_to_move(), want, destination_ae)
        except BaseException:
            await self.drop(failed=True)
            raise

    def is_ready_for(self, arrival: Arrival) -> bool:
        """Whether the association that is open was asked for such instances, whatever the peer said."""
        return kind_of(arrival) in self._stored and self._association is not None and self._association.is_open

    async def prepare(self, arrivals: Sequence[Arrival]) -> None:
        """An association with a context for each kind of instance, as many as fit, and for C-FIND."""
        await self.drop()
        moves = self._mover.via == "move"
        kinds = kinds_of(arrivals, 1 + moves + self._committer.is_wanted)
        self._association = await self._open(kinds, moves=moves, stores=True)
        self._pairs, self._moves, self._stored = frozenset(), moves, frozenset(kinds)

    async def store(self, parcel: Parcel) -> Ending:
        """C-STORE on the association that is open; see `contract.Stores`."""
        if not self.is_ready_for(parcel.arrival):
            await self.prepare([parcel.arrival])
        assert self._association is not None
        try:
            answer = await self._association.store(parcel)
        except Refused:
            raise
        except BaseException:
            await self.drop(failed=True)
            raise
        return ending_of(answer, self._peer.name)

    async def commit(self, instances: Mapping[str, str]) -> Callable[[], Awaitable[Commitment]]:
        """Storage commitment; see `contract.Commits`."""
        self._committer.is_wanted = True  # from now on each association is ready for it
        try:
            outcome, is_over = await self._committer.ask(await self._ready(commits=True), instances)
        except BaseException as error:
            await self.drop(failed=not isinstance(error, Rejected | Refused))
            raise
        if is_over:
            await self.drop()
        return outcome

    async def manner(self, level: Level) -> Manner:
        """How things of a level are asked for; where more than the baseline is wished for, the node is asked."""
        if not self._asker.wishes.is_any:
            return Manner(root=self._asker.root)
        await self._ready(find_class=self._asker.find_class(level))
        return Manner(root=self._asker.root, relational=self._agreed.relational, fuzzy=self._agreed.fuzzy)

    def _encoded(self, keys: Mapping[str, str], level: Level, syntax: str) -> bytes:
        charset = self.quirks.charset
        return self._asker.encode(keys, level, syntax, agreed=self._agreed, character_set=charset)

    def _learn(self, ask: Ask, attributes: Attributes) -> None:
        """Remembers whose study it is, where that will be asked for."""
        patient_id = str(attributes.get("PatientID") or ask.keys.get("PatientID", ""))
        study_uid = str(attributes.get("StudyInstanceUID") or ask.keys.get("StudyInstanceUID", ""))
        self._asker.remember(study_uid, patient_id)

    async def _know_patient(self, want: Want) -> None:
        """Sees to it that the patient of what is wanted is known, where a retrieval names it. Raises Refused."""
        if not self._asker.model.has_patients:
            return
        self._asker.remember(want.study_uid, want.patient_id)
        if not self._asker.patient_of(want.study_uid):
            async for _ in self.find(Ask(level=Level.STUDY, keys={"StudyInstanceUID": want.study_uid})):
                pass
        if not self._asker.patient_of(want.study_uid):
            raise Refused(f"{self._peer.name}: no patient there has the study", status=status.DOES_NOT_MATCH_CLASS)

    def _decoded(self, identifier: bytes, syntax: str, wanted: frozenset[int]) -> dict[str, object]:
        charset, is_misnamed = self.quirks.charset, self.quirks.wrong_charset
        try:
            return dataset.decode_identifier(
                identifier, syntax, wanted=wanted, character_set=charset, is_misnamed=is_misnamed
            )
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{self._peer.name}: {error.message}") from error

    @asynccontextmanager
    async def _no_cancel(self, association: Association) -> AsyncIterator[None]:
        """Where the node does not bear C-CANCEL, a list that is left early ends the association."""
        try:
            yield
        except GeneratorExit:
            if self.quirks.no_cancel:
                await association.abort()
            raise

    async def _get_or_move(self, want: Want, receiver: Receiver) -> Ending:
        """Finds out by which service the node gives.

        Orthanc 1.10 aborts when it may not give by C-GET; what is aborted once may be an accident.
        """
        counted = _Counted(receiver)
        association = await self._ready(_pairs(want))
        why = "accepts no presentation context for it"
        if association.accepts(self._asker.model.get):
            try:
                ending = await self._get(association, want, counted)
            except Disconnected:
                self._mover.aborted_gets += not counted.came
                if counted.came or self._mover.aborted_gets < _ABORTED_GETS:
                    raise
                why = "ends the association instead of answering"
            else:
                is_offered = ending.status not in _GET_IS_NOT_OFFERED and ending.status >> 8 != 0xA9
                if counted.came or is_offered:
                    return ending
                why = f"answers {ending.why}"
            finally:
                if counted.came:
                    self._mover.via = "get"
        if self._mover.via is None:
            self._mover.via = "move"
            self._mover.warn(f"{self._peer.name}: C-GET: the peer {why}; trying C-MOVE")
        return await self._move(want, receiver)

    async def _move(self, want: Want, receiver: Receiver) -> Ending:
        return await self._mover.fetch(await self._ready_to_move(), want, receiver)

    async def _get(self, association: Association, want: Want, receiver: Receiver) -> Ending:
        """C-GET; and where nothing comes of it that way, in one transfer syntax after the other.

        dcmqrscp gives all instances of a class by the first context that it accepted for it, and nothing at all where
        it would have to decompress them for that.
        """
        counted = _Counted(receiver)
        ending = await self._get_once(association, want, counted)
        if counted.came > 0 or ending.status not in _NOTHING_GIVEN:
            return ending
        asked = {uid for uid, _ in _pairs(want)}
        agreed = [context for context in association.contexts if context.abstract_syntax in asked]
        classes = dict.fromkeys(context.abstract_syntax for context in agreed)
        others = dict.fromkeys(context.transfer_syntax for context in agreed[1:])
        for syntax in sorted(others, key=lambda each: each != self._syntax):
            if self._guesses == _GUESSES:
                break
            await self.drop()
            association = await self._ready([(uid, syntax) for uid in classes])
            ending = await self._get_once(association, want, counted)
            if counted.came > 0:
                self._syntax, self._guesses = syntax, 0
                break
            self._guesses += 1
        return ending

    async def _get_once(self, association: Association, want: Want, receiver: Receiver) -> Ending:
        above = self._asker.above(want.study_uid)
        keys = {**above, "StudyInstanceUID": want.study_uid, "SeriesInstanceUID": want.series_uid}
        level = Level.SERIES
        if not want.whole:
            level = Level.INSTANCE
            keys["SOPInstanceUID"] = "\\".join(want.instances)
        answer, _ = await association.get(
            self._asker.model.get,
            lambda syntax: self._asker.encode(keys, level, syntax, agreed=Wishes()),
            receiver,
        )
        if not answer.status:
            return Ending()
        words = status.words(answer.status, "C-GET")
        return Ending(status=answer.status, may_pass=status.may_pass(answer.status), why=words)

    async def rest(self) -> None:
        """Releases the association; some nodes allow one or two in all."""
        await self.drop()

    async def drop(self, *, failed: bool = False) -> None:
        """Ends the association that is open, if any: released, or aborted when it failed."""
        association, self._association = self._association, None
        self._stored = frozenset()
        if association is not None:
            stack, self._stack = self._stack, AsyncExitStack()
            if failed:
                await association.abort()
            await stack.aclose()

    async def _ready_to_move(self) -> Association:
        """An association that has a context for C-MOVE. Raises Rejected when the peer accepts none."""
        association = await self._ready(moves=True)
        if not association.accepts(self._asker.model.move):
            raise Rejected(f"{self._peer.name}: the peer accepts no presentation context for C-MOVE")
        return association

    async def _ready(
        self,
        pairs: Sequence[tuple[str, str]] = (),
        *,
        moves: bool = False,
        commits: bool = False,
        find_class: str = "",
    ) -> Association:
        """An association that proposed contexts for `pairs`, or for C-MOVE, or for storage commitment, and for C-FIND
        by some class; the one that is open when it serves.
        """
        moves = moves or self._mover.via == "move"
        has_all = self._pairs.issuperset(pairs) and self._moves >= moves and find_class in ("", self._find_class)
        if commits:
            has_all = has_all and self._commits
        if self._association is None or not self._association.is_open or not has_all:
            await self.drop()
            self._find_class = find_class or self._asker.model.find
            self._association = await self._open(pairs, moves=moves)
            self._pairs, self._moves = frozenset(pairs), moves
        return self._association

    async def _open(
        self, pairs: Sequence[tuple[str, str]], *, moves: bool, stores: bool = False
    ) -> Association:
        proposed = [ProposedContext(1, self._find_class, QUERY_SYNTAXES)]
        roles = []
        if moves:
            proposed.append(ProposedContext(3, self._asker.model.move, QUERY_SYNTAXES))
        self._commits = self._committer.is_wanted and (stores or not pairs)
        if self._commits:
            proposed.append(ProposedContext(2 * len(proposed) + 1, PUSH_MODEL, QUERY_SYNTAXES))
        if stores:
            proposed += contexts.propose(pairs, first_id=2 * len(proposed) + 1)
        elif pairs and not moves:
            proposed.append(ProposedContext(3, self._asker.model.get, QUERY_SYNTAXES))
            proposed += contexts.propose(pairs, first_id=5)
            roles = [Role(uid, scu=False, scp=True) for uid in dict.fromkeys(pair[0] for pair in pairs)]
        extensions = self._asker.extensions(self._find_class)
        association = await self._stack.enter_async_context(
            associate(
                self._peer, proposed, watch=self._watch, limits=self._limits, roles=roles, extensions=extensions
            )
        )
        self._agreed = self._asker.agreed(association.extensions.get(self._find_class, b"")) if extensions else Wishes()
        return association


class _Counted:
    """A receiver that counts what it is offered."""

    def __init__(self, receiver: Receiver) -> None:
        self.came = 0
        self.room = receiver.room
        self._receiver = receiver

    def receive(self, arrival: Arrival) -> Sink | int:
        """As the receiver does."""
        self.came += 1
        return self._receiver.receive(arrival)


def _pairs(want: Want) -> list[tuple[str, str]]:
    """What to propose for a want: its classes with every syntax, those that are known first."""
    native: dict[str, set[str]] = {}
    for sop_instance_uid, syntax in want.transfer_syntaxes.items():
        native.setdefault(want.instances[sop_instance_uid], set()).add(syntax)
    classes = sorted({uid for uid in want.instances.values() if uid}.union(want.classes))
    if not classes:
        return [(uid, syntax) for syntax in contexts.COMMON_SYNTAXES for uid in contexts.COMMON_CLASSES]
    ordered = {uid: sorted(syntaxes) for uid, syntaxes in native.items()}
    return contexts.storage_pairs(classes, ordered)[: contexts.MAX_CONTEXTS - _QUERY_CONTEXTS]


def _find_ending(answer: Answer, name: str) -> Ending:
    """What the final status of a C-FIND says of the list that came before it. Raises Refused."""
    code = answer.status
    if code == status.SUCCESS:
        return Ending()
    if code == status.CANCELLED or code >> 8 == status.OUT_OF_RESOURCES >> 8:
        return Ending(status=code, truncated=True, why=f"the peer ended with {status.words(code, 'C-FIND')}")
    if status.is_warning(code):
        return Ending(status=code)
    raise Refused(f"{name}: the query was refused: {status.words(code, 'C-FIND')}", status=code)
