"""DIMSE operations as conversations: what to say first, and what each answer means (PS3.7 §9).

Each conversation is asked with a command that came; it gives a value, or raises RemoteProtocolError when the peer
broke the rules. No I/O: `net/association.py` carries the messages.
"""

from __future__ import annotations

from msgspec import Struct, structs

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import status
from dcmsync.wire.dimse.command import Command

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"

_MEDIUM = 0  # Priority (§E.1)


class Counts(Struct, frozen=True, kw_only=True):
    """Sub-operation counts of a C-GET response; None where the peer said nothing."""

    remaining: int | None
    completed: int | None
    failed: int | None
    warnings: int | None


class Originator(Struct, frozen=True):
    """Who asked for a C-STORE by a C-MOVE: the title of that node, and the Message ID of its request (§9.1.1.1)."""

    ae_title: str
    message_id: int


class Conversation:
    """One operation that we asked for: its message ID, and the check that an answer belongs to it."""

    def __init__(self, name: str, request: Command) -> None:
        self.name = name
        self.request = request
        self.finished = False

    def cancel(self) -> Command:
        """C-CANCEL of this operation."""
        assert self.request.message_id is not None
        return commands.cancel(self.request.message_id)

    def answer(self, response: Command) -> int:
        """The status of an answer to this operation; pending ones leave it unfinished.

        Raises RemoteProtocolError when the answer belongs to another operation, lacks its status, or is one too many.
        """
        if self.finished:
            raise RemoteProtocolError(f"answered {self.name} again after its final answer")
        if response.field != self.request.field | 0x8000:
            raise RemoteProtocolError(f"answered {self.name} with command 0x{response.field:04X}")
        if response.responding_to != self.request.message_id:
            raise RemoteProtocolError(
                f"answered message {response.responding_to} when asked with {self.name} as {self.request.message_id}"
            )
        if response.status is None:
            raise RemoteProtocolError(f"answered {self.name} without a status")
        self.finished = response.status not in status.PENDING
        return response.status


def echo(message_id: int) -> Conversation:
    """C-ECHO (§9.1.5)."""
    request = Command(field=commands.C_ECHO_RQ, message_id=message_id, sop_class_uid=VERIFICATION)
    return Conversation("C-ECHO", request)


def find(message_id: int, sop_class_uid: str) -> Conversation:
    """C-FIND (§9.1.2); the identifier follows as data set."""
    return Conversation("C-FIND", _with_identifier(commands.C_FIND_RQ, message_id, sop_class_uid))


def get(message_id: int, sop_class_uid: str) -> Conversation:
    """C-GET (§9.1.3); the identifier follows as data set, C-STORE sub-operations come in between."""
    return Conversation("C-GET", _with_identifier(commands.C_GET_RQ, message_id, sop_class_uid))


def move(message_id: int, sop_class_uid: str, destination_ae: str) -> Conversation:
    """C-MOVE (§9.1.4); the identifier follows as data set. Instances go where the peer knows that title to be."""
    request = _with_identifier(commands.C_MOVE_RQ, message_id, sop_class_uid)
    return Conversation("C-MOVE", structs.replace(request, move_destination=destination_ae))


def store(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, originator: Originator | None = None
) -> Conversation:
    """C-STORE (§9.1.1); the instance follows as data set."""
    request = Command(
        field=commands.C_STORE_RQ,
        has_data_set=True,
        message_id=message_id,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        priority=_MEDIUM,
        originator_ae=originator.ae_title if originator else None,
        originator_message_id=originator.message_id if originator else None,
    )
    return Conversation("C-STORE", request)


def check_stored(response: Command, message_id: int, sop_instance_uid: str) -> None:
    """Checks the answer to a C-STORE (§9.1.1), whose request needed no conversation.

    Raises RemoteProtocolError when it belongs to another operation or instance, or lacks its status.
    """
    if response.field != commands.C_STORE_RSP:
        raise RemoteProtocolError(f"answered C-STORE with command 0x{response.field:04X}")
    if response.responding_to != message_id:
        raise RemoteProtocolError(f"answered message {response.responding_to} when asked with C-STORE as {message_id}")
    if response.sop_instance_uid and response.sop_instance_uid != sop_instance_uid:
        raise RemoteProtocolError("answered C-STORE for another instance than was sent")
    if response.status is None or response.status in status.PENDING or response.has_data_set:
        raise RemoteProtocolError("answered C-STORE with something else than a final status")


def counts(response: Command) -> Counts:
    """The sub-operation counts of a C-GET or C-MOVE response."""
    return Counts(
        remaining=response.remaining,
        completed=response.completed,
        failed=response.failed,
        warnings=response.warnings,
    )


def respond(request: Command, status_code: int, *, has_data_set: bool = False) -> Command:
    """The response to any request, with the UIDs and the type that it repeats (tables 9.1-1 to 9.1-5, §10.1)."""
    return Command(
        field=request.field | 0x8000,
        has_data_set=has_data_set,
        responding_to=request.message_id,
        sop_class_uid=request.sop_class_uid or request.requested_sop_class_uid,
        sop_instance_uid=request.sop_instance_uid or request.requested_sop_instance_uid,
        event_type_id=request.event_type_id,
        action_type_id=request.action_type_id,
        status=status_code,
    )


def check_store(request: Command, abstract_syntax: str) -> tuple[str, str]:
    """(SOP Class UID, SOP Instance UID) of a C-STORE request that came on a context for `abstract_syntax`.

    Raises RemoteProtocolError when it lacks a UID, a message ID, its data set, or names another class.
    """
    if not request.sop_class_uid or not request.sop_instance_uid or request.message_id is None:
        raise RemoteProtocolError("sent a C-STORE request that lacks a UID or its message ID")
    if not request.has_data_set:
        raise RemoteProtocolError("sent a C-STORE request without a data set")
    if request.sop_class_uid != abstract_syntax:
        raise RemoteProtocolError("sent an instance on the presentation context of another SOP class")
    return request.sop_class_uid, request.sop_instance_uid


def _with_identifier(field: int, message_id: int, sop_class_uid: str) -> Command:
    return Command(
        field=field, has_data_set=True, message_id=message_id, sop_class_uid=sop_class_uid, priority=_MEDIUM
    )
