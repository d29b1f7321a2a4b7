"""One conversation with an Imaging Document Source: some instances of a series by one request (IHE RAD-69).

Owns the exchange: which form the request has, where the SOAP part and the documents of an answer go, and what the
answer as a whole says. Refuses to be asked what there is, and to believe what links and statuses say of documents: a
file says itself which instance it is, and who receives them counts.

Theory of operation. The request goes out as a plain envelope, until a server says that it wants another form; then all
have that. The answer streams: the SOAP part into a reader, wherever it stands; every other part into an intake of its
own. Documents in base64 come out of the reader and take the same way. When the SOAP part cannot be read and documents
came all the same, they count, and a warning says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from uuid import uuid4

from dcmsync.contract import Ask, Attributes, Ending, Receiver, Want
from dcmsync.endpoints.rad69.envelope import Repository, envelope, mtom, plain
from dcmsync.endpoints.rad69.reply import BUSY, MOST_NAME, Fault, Reply
from dcmsync.errors import Disconnected, OutOfResources, Refused, Rejected, RemoteProtocolError, Unasked
from dcmsync.net.http import Answer, Door, Octets
from dcmsync.net.instances import Intake, Taken
from dcmsync.wire import multipart

SPOKEN = (200, 400, 415, 500)
"""The statuses with which a server speaks SOAP, or says that it does not like the form of the request."""
_XOP = "application/xop+xml"
_XML = ("application/soap+xml", _XOP, "text/xml", "application/xml")
_ACCEPT = "multipart/related, application/xop+xml, application/soap+xml"
MOST_SOAP_OCTETS = 32 << 20  # without any document in them
_UNASKED = 100  # documents beyond those that were asked for
_OTHER_FORM = 415
_SOME = 0xB000
_OUT_OF_RESOURCES = 0xA700
_CANNOT_UNDERSTAND = 0xC000


class Service:
    """What the sessions of one place share. `is_mtom`: which form of request it takes, as far as is known."""

    def __init__(
        self, door: Door, repository: Repository, *, ignored: tuple[str, ...] = (), warn: Callable[[str], None]
    ) -> None:
        self.door = door
        self.ignored = frozenset(ignored)
        self.is_mtom = False
        self._repository = repository
        self._warn = warn
        self._warned: set[str] = set()

    def body(self, want: Want) -> Octets:
        """The request, in the form that is known to be taken."""
        xml = envelope(
            want.study_uid,
            want.series_uid,
            want.instances,
            repository=self._repository,
            address=self.door.base,
            message_id=str(uuid4()),
        )
        return mtom(xml, uuid4().hex) if self.is_mtom else plain(xml)

    def once(self, words: str) -> None:
        """Warns, once of each thing."""
        if words not in self._warned:
            self._warned.add(words)
            self._warn(f"{self.door.name}: {words}")


class Session:
    """Satisfies contract.Session, but cannot be asked."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._name = service.door.name

    def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """Raises Unasked."""
        raise Unasked(
            f"{self._name}: RAD-69 gives instances, but cannot be asked what there is",
            advice='Set retrieve = "NAME" with its name at a place that can be asked: MINT, DICOMweb or a DIMSE node',
        )

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """One request for all of it; see `contract.Fetches`. Of a single instance, what went wrong is raised."""
        if not want.instances:
            raise Rejected(
                f"{self._name}: RAD-69 gives instances that are named, and none is",
                advice="Name them by records of instance level",
            )
        was_mtom = self._service.is_mtom
        gathering = await self._exchange(want, receiver)
        if gathering.wants_other_form and not was_mtom:
            self._service.is_mtom = True
            gathering = await self._exchange(want, receiver)
        return self._ending(gathering, want)

    async def rest(self) -> None:
        """Nothing is held that others wait for."""

    async def _exchange(self, want: Want, receiver: Receiver) -> _Gathering:
        """Asks, and takes in what comes. Raises PeerError, LocalTrouble, what receivers raise."""
        door = self._service.door
        async with door.exchange(
            "POST", "", headers={"Accept": _ACCEPT}, body=self._service.body(want), expected=SPOKEN, repeatable=True
        ) as answer:
            gathering = _Gathering(self._name, answer.status, receiver, most=len(want.instances) + _UNASKED)
            if answer.status == _OTHER_FORM:
                gathering.words = await answer.words()
            elif answer.media_type.startswith("multipart/") or answer.media_type in _XML:
                await gathering.read(answer)
            elif answer.status == 500:
                raise OutOfResources(f"{self._name}: {await answer.words()}", status=answer.status)
            else:
                raise RemoteProtocolError(f"{self._name}: answers {answer.media_type or 'without a type'} instead of "
                                          f"SOAP: {await answer.words()}")  # fmt: skip
        return gathering

    def _ending(self, gathering: _Gathering, want: Want) -> Ending:
        """What an answer comes to. Raises Refused, RemoteProtocolError."""
        reply = gathering.reply
        if gathering.status == _OTHER_FORM:
            raise Refused(f"{self._name}: takes neither form of the request: {gathering.words}", status=_OTHER_FORM)
        if reply.fault is not None:
            return self._of_fault(reply.fault, gathering.status)
        if gathering.defect:
            if not gathering.came:
                raise RemoteProtocolError(f"{self._name}: {gathering.defect}")
            self._service.once(f"{gathering.defect}; the documents beside it are taken for what they are")
        elif not (reply.status or gathering.came or gathering.strange):
            raise RemoteProtocolError(f"{self._name}: what it answers says nothing of any documents")
        lost = sum(content_id not in gathering.content_ids for content_id in reply.links.values())
        if lost and not gathering.defect:
            self._service.once("an answer has links to parts that are not there")
        for why in sorted(gathering.strange):
            self._service.once(f"a document is {why}")
        return self._verdict(reply, gathering, len(want.instances))

    def _verdict(self, reply: Reply, gathering: _Gathering, asked: int) -> Ending:
        troubles = reply.counted(self._service.ignored)
        if not troubles:
            has_failed = reply.status == "Failure" and not reply.troubles
            why = "failed without saying why" if has_failed else "; ".join(sorted(gathering.strange))
            if why and asked == 1 and not has_failed:
                raise RemoteProtocolError(f"{self._name}: the document is {why}")
            return Ending(status=_CANNOT_UNDERSTAND, why=why) if why else Ending()
        kinds = Counter(str(each) for each in troubles)
        why = "; ".join(f"{count:,} x {kind}" if count > 1 else kind for kind, count in kinds.most_common(3))
        if all(each.code in BUSY for each in troubles):
            return Ending(status=_OUT_OF_RESOURCES, may_pass=True, why=why)
        if asked == 1:
            raise Refused(f"{self._name}: {why}", status=_CANNOT_UNDERSTAND)
        return Ending(status=_SOME if gathering.came else _CANNOT_UNDERSTAND, why=why)

    def _of_fault(self, fault: Fault, status: int) -> Ending:
        if fault.may_pass:
            return Ending(status=_OUT_OF_RESOURCES, may_pass=True, why=str(fault))
        raise Refused(f"{self._name}: {fault}", status=status if status >= 400 else _CANNOT_UNDERSTAND)


class _Gathering:
    """One answer: its SOAP part, and what came of its documents.

    `defect`: why the SOAP part could not be read; `strange`: what documents were instead of DICOM files.
    """

    def __init__(self, name: str, status: int, receiver: Receiver, *, most: int) -> None:
        self.status = status
        self.words = ""
        self.reply = Reply()
        self.came = 0
        self.defect = ""
        self.strange: set[str] = set()
        self.content_ids: set[str] = set()
        self._name = name
        self._receiver = receiver
        self._most = most
        self._parts = 0
        self._soap_octets = 0  # since the last octets of a document
        self._intake: Intake | None = None
        self._inline: Intake | None = None

    @property
    def wants_other_form(self) -> bool:
        """Whether the server would rather have the request in another form."""
        fault = self.reply.fault
        return self.status == _OTHER_FORM or (fault is not None and fault.is_of_form)

    async def read(self, answer: Answer) -> None:
        """Takes in all of it. Raises Disconnected when it breaks off, LocalTrouble, RemoteProtocolError."""
        try:
            if answer.media_type in _XML:
                async with aclosing(answer.pieces()) as pieces:
                    async for piece in pieces:
                        await self._read_soap(piece)
                        if self.defect:  # and nothing stands beside it
                            break
                self._end_soap()
            else:
                await self._read_parts(answer)
        except RemoteProtocolError as error:
            if error.message.startswith(f"{self._name}: "):  # the door's own word
                raise
            raise RemoteProtocolError(f"{self._name}: {error.message}") from error
        finally:
            for intake in (self._intake, self._inline):
                if intake is not None:
                    intake.drop("the answer ended within it")

    async def _read_parts(self, answer: Answer) -> None:
        content_type = answer.headers.get("Content-Type", "")
        root = multipart.parameters(content_type)[1].get("start", "").strip("<>")
        reader = multipart.Reader(multipart.boundary_of(content_type))
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                for event in reader.feed(piece):
                    await self._take(event, root)
        try:
            rest = reader.end()
        except RemoteProtocolError as error:  # without a length, a line that was cut looks just so
            raise Disconnected(f"{self._name}: {error.message}") from error
        for event in rest:
            await self._take(event, root)

    async def _take(self, event: multipart.Event, root: str) -> None:
        """One event of a multipart body."""
        if isinstance(event, multipart.Begun):
            self._count_part()
            content_id = event.headers.get("content-id", "").strip("<> ")[:MOST_NAME]
            is_first = not self.content_ids
            self.content_ids.add(content_id)
            is_root = content_id == root if root else is_first
            is_soap = is_root or event.media_type == _XOP or (is_first and event.media_type in _XML)
            if not is_soap:
                self._intake = await self._begun()
        elif isinstance(event, multipart.Content):
            if self._intake is not None:
                self._intake.write(event.data)
            else:
                await self._read_soap(event.data)
        elif isinstance(event, multipart.Ended):
            if self._intake is not None:
                intake, self._intake = self._intake, None
                self._count(intake.end())
            else:
                self._end_soap()

    async def _read_soap(self, octets: bytes | memoryview) -> None:
        """The next octets of the SOAP part, and of the documents in it. Raises RemoteProtocolError for too many."""
        self._soap_octets += len(octets)
        if self._soap_octets > MOST_SOAP_OCTETS:
            raise RemoteProtocolError(f"sent more than {MOST_SOAP_OCTETS >> 20} MiB of SOAP without any document")
        if self.defect:
            return
        try:
            self.reply.feed(octets)
        except RemoteProtocolError as error:
            self.defect = error.message
        for piece in self.reply.inline():
            self._soap_octets = 0
            if self._inline is None:
                self._count_part()
                self._inline = await self._begun()
            if piece is not None:
                self._inline.write(piece)
            else:
                intake, self._inline = self._inline, None
                self._count(intake.end())

    async def _begun(self) -> Intake:
        """An intake for one more document."""
        await self._receiver.room()
        return Intake(self._receiver)

    def _count_part(self) -> None:
        """One more part, or document in the XML. Raises RemoteProtocolError for far more than were asked for."""
        self._parts += 1
        if self._parts > self._most:
            raise RemoteProtocolError("goes on and on with documents that were not asked for")

    def _end_soap(self) -> None:
        if self.defect:
            return
        try:
            self.reply.close()
        except RemoteProtocolError as error:
            self.defect = error.message

    def _count(self, taken: Taken) -> None:
        """What came of one document. One that nobody wants is fine."""
        if taken.why and not taken.status:
            self.strange.add(taken.why)
        else:
            self.came += 1
