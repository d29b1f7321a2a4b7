"""Instances that come as files (PS3.10 §7.1) over HTTP: from pieces of octets to a sink.

Owns where the head of a file ends, what a file without one was instead, and that the sink is finished or discarded.
Refuses to judge data sets (the sink does), and to know what frames a file: whoever hands over the pieces says whether
the last one was the end.

Theory of operation. Pieces are gathered until group 0002 is there, which is nearly always in the first one; it is
looked for again when twice as much has come, so that pieces of one octet cost no more. From then on each piece goes to
the sink where it lies.
"""

from collections.abc import AsyncIterator, Mapping

from msgspec import Struct

from dcmsync.contract import Arrival, Receiver, Sink
from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.arrived import SOP_CLASS_UID, SOP_INSTANCE_UID
from dcmsync.wire.elements import walk
from dcmsync.wire.part10 import PREAMBLE_OCTETS, Head, parse_file, text

MAX_INSTANCE_OCTETS = 1 << 36
MAX_USELESS_OCTETS = 1 << 30  # of what can become no instance, before it is taken to be without end
_PREFIX_END = PREAMBLE_OCTETS + 4
_FIRST_LOOK_OCTETS = _PREFIX_END + 8
_MAX_HEAD_OCTETS = 1 << 20  # group 0002 has some 200; private information in it (0002,0102) may be longer
_ELEMENT_OCTETS = 8  # what must follow group 0002 before it is known to have ended
_UIDS_OCTETS = 64 << 10  # how far into a data set its UIDs are looked for, when group 0002 does not tell them
_QUOTED = 40
_KINDS = (("<!doctype html", "an HTML page"), ("<html", "an HTML page"), ("<", "XML"), ("{", "JSON"), ("[", "JSON"))


class Taken(Struct, frozen=True, kw_only=True):
    """What came of one file. `why` is "" when all of it went to the sink, which judges it; else why it did not.

    `status`: what the receiver refused it with, or the sink said at the end. `octets` is the size of the file.
    """

    sop_instance_uid: str = ""
    octets: int = 0
    why: str = ""
    status: int = 0


class Intake:
    """Takes one file, piece by piece; then `end`, or `drop` when the rest of it does not come."""

    def __init__(self, receiver: Receiver, *, max_octets: int = MAX_INSTANCE_OCTETS) -> None:
        self._receiver = receiver
        self._max_octets = max_octets
        self._gathered: bytearray | None = bytearray()
        self._look_at = _FIRST_LOOK_OCTETS
        self._octets = 0
        self._sink: Sink | None = None
        self._uid = ""
        self._why = ""
        self._status = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody takes what still comes of this file."""
        return self._gathered is None and self._sink is None

    def write(self, piece: bytes | memoryview) -> None:
        """Takes the next octets. Raises LocalTrouble; RemoteProtocolError for more than the limit."""
        self._octets += len(piece)
        if self._octets > self._max_octets:
            self.drop("it is too large")
            raise RemoteProtocolError(f"sent an instance of more than {self._max_octets:,} octets")
        if self._why and not self._status and self._octets > MAX_USELESS_OCTETS:
            raise RemoteProtocolError(f"sent {MAX_USELESS_OCTETS:,} octets and more of what is useless: {self._why}")
        if self._gathered is None:
            self._pass_on(memoryview(piece))
            return
        if self._gathered or len(piece) < self._look_at:
            self._gathered += piece
            piece = bytes(self._gathered) if len(self._gathered) >= self._look_at else b""
        if piece:
            self._look(memoryview(piece), is_all=False)

    def end(self) -> Taken:
        """All octets have come. Raises LocalTrouble."""
        if self._gathered is not None:
            self._look(memoryview(bytes(self._gathered)), is_all=True)
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._status = sink.finish()
        return self._taken()

    def drop(self, why: str) -> Taken:
        """The file ends here, incomplete. Idempotent."""
        self._gathered = None
        self._discard(why)
        return self._taken()

    def _taken(self) -> Taken:
        return Taken(sop_instance_uid=self._uid, octets=self._octets, why=self._why, status=self._status)

    def _look(self, octets: memoryview, *, is_all: bool) -> None:
        """Begins the instance, if its head is there; gives up what is no file."""
        if not _may_be_file(octets, is_all=is_all):
            self._gathered, self._why = None, f"not a DICOM file but {described(octets)}"
            return
        head = parse_file(octets)
        is_there = isinstance(head, Head) and len(octets) >= head.data_set_offset + _ELEMENT_OCTETS
        if not is_there and not is_all and len(octets) < _MAX_HEAD_OCTETS:
            self._wait(octets)
        elif not isinstance(head, Head):
            self._gathered, self._why = None, f"not a whole DICOM file: {head.reason}"
        elif not is_there:
            self._gathered, self._why = None, "not a whole DICOM file: no data set"
        else:
            uids = _uids(head, octets)
            if not uids[1] and not is_all and len(octets) < head.data_set_offset + _UIDS_OCTETS:
                self._wait(octets)
            else:
                self._begin(head, uids, octets)

    def _wait(self, octets: memoryview) -> None:
        """For twice as much."""
        gathered = self._gathered
        assert gathered is not None
        self._look_at = 2 * len(octets)
        if not gathered:
            gathered += octets

    def _begin(self, head: Head, uids: tuple[str, str], octets: memoryview) -> None:
        self._gathered = None
        self._uid = uids[1]
        if not self._uid:
            self._why = "it does not say which instance it is"
            return
        taken = self._receiver.receive(
            Arrival(
                sop_class_uid=uids[0],
                sop_instance_uid=self._uid,
                transfer_syntax_uid=head.transfer_syntax_uid,
                head=bytes(octets[: head.data_set_offset]),
            )
        )
        if isinstance(taken, int):
            self._status, self._why = taken, "it was not asked for, or cannot be taken"
            return
        self._sink = taken
        self._pass_on(octets[head.data_set_offset :])

    def _pass_on(self, octets: memoryview) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write([octets])
        except RemoteProtocolError as error:  # the instance is beyond hope, not those after it
            self._discard(error.message)
        except BaseException:
            self._discard("it could not be taken")
            raise

    def _discard(self, why: str) -> None:
        self._why = self._why or why
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.discard(why)


async def take_in(
    pieces: AsyncIterator[bytes], receiver: Receiver, *, max_octets: int = MAX_INSTANCE_OCTETS
) -> Taken:
    """Takes one file whose pieces end with it. What nobody wants is not read to its end.

    Raises what `pieces` raises, LocalTrouble, RemoteProtocolError.
    """
    intake = Intake(receiver, max_octets=max_octets)
    try:
        async for piece in pieces:
            intake.write(piece)
            if intake.is_idle:
                return intake.drop("nobody wants it")
        return intake.end()
    finally:
        intake.drop("the answer ended within it")


def is_framed(headers: Mapping[str, str]) -> bool:
    """Whether an answer says where it ends, so that one that was cut cannot pass for whole (RFC 9112 §6.3)."""
    return "Content-Length" in headers or "chunked" in headers.get("Transfer-Encoding", "").lower()


def described(octets: memoryview) -> str:
    """What something begins with that is no DICOM file: quoted only where it is text."""
    begin = bytes(octets[: 4 * _QUOTED])
    if not begin:
        return "nothing"
    words = begin.decode("utf-8", "ignore").strip().lower()
    kind = next((kind for start, kind in _KINDS if words.startswith(start)), "")
    if kind:
        return kind
    shown = words[:_QUOTED]
    return f'"{shown}"' if shown and shown.isprintable() else "octets without the prefix DICM"


def _may_be_file(octets: memoryview, *, is_all: bool) -> bool:
    """Whether the prefix is where it must be, as far as can be seen."""
    if len(octets) < _PREFIX_END:
        return not is_all
    return bytes(octets[PREAMBLE_OCTETS:_PREFIX_END]) == b"DICM"


def _uids(head: Head, octets: memoryview) -> tuple[str, str]:
    """SOP Class and SOP Instance UID: of group 0002, else of the data set."""
    if head.sop_instance_uid:
        return head.sop_class_uid, head.sop_instance_uid
    wanted = frozenset((SOP_CLASS_UID, SOP_INSTANCE_UID))
    found = walk(
        octets, head.transfer_syntax_uid, offset=head.data_set_offset, wanted=wanted, stop_after=SOP_INSTANCE_UID
    ).values
    told = {tag: text(found[tag][1]) for tag in wanted if tag in found}
    return head.sop_class_uid or told.get(SOP_CLASS_UID, ""), told.get(SOP_INSTANCE_UID, "")
