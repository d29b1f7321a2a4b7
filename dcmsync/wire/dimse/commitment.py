"""Storage commitment, in words: what one side is asked to keep, and what it says of that (PS3.4 §J.3, PS3.3 §C.14).

Owns the data sets of N-ACTION and N-EVENT-REPORT of the Push Model, and the requests that carry them. Refuses to know
what is kept: who keeps it says so. The reader is that of files (`events`), so hostile octets are its business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct as Layout

from msgspec import Struct

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire import events
from dcmsync.wire.codings import IMPLICIT_LITTLE
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.dimse.operations import Conversation
from dcmsync.wire.part10 import file_meta, text

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known (PS3.4 §J.3.5)

REQUEST_COMMITMENT = 1  # Action Type ID (table J.3-1)
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID (table J.3-3)

# Failure Reason (PS3.3 §C.14.1.1)
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_CONFLICT = 0x0119

_TRANSACTION_UID = 0x00081195
_CLASS_UID, _INSTANCE_UID = 0x00081150, 0x00081155  # Referenced SOP Class UID, Referenced SOP Instance UID
_REASON = 0x00081197
_FAILED, _REFERENCED = 0x00081198, 0x00081199  # Failed SOP Sequence, Referenced SOP Sequence
_ITEM = Layout("<HHI")
_SHORT = Layout("<HH2sH")
_LONG = Layout("<HH2sxxI")


class Reference(Struct, frozen=True, order=True):
    """One instance. `reason` is 0, or why it is not kept."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int = 0


class Request(Struct, frozen=True, kw_only=True):
    """What one side asks the other to keep (table J.3-2)."""

    transaction_uid: str
    instances: tuple[Reference, ...]


class Report(Struct, frozen=True, kw_only=True):
    """What is kept, and what is not (table J.3-4)."""

    transaction_uid: str
    kept: tuple[Reference, ...] = ()
    failed: tuple[Reference, ...] = ()

    @property
    def event_type_id(self) -> int:
        """Which of the two events tells it."""
        return SOME_FAILED if self.failed else ALL_COMMITTED


def action(message_id: int) -> Conversation:
    """N-ACTION: the request for commitment (PS3.4 §J.3.2); `encode_request` follows as data set."""
    request = Command(
        field=commands.N_ACTION_RQ,
        has_data_set=True,
        message_id=message_id,
        requested_sop_class_uid=PUSH_MODEL,
        requested_sop_instance_uid=PUSH_MODEL_INSTANCE,
        action_type_id=REQUEST_COMMITMENT,
    )
    return Conversation("N-ACTION", request)


def event_report(message_id: int, report: Report) -> Conversation:
    """N-EVENT-REPORT: the result (PS3.4 §J.3.3); `encode_report` follows as data set."""
    request = Command(
        field=commands.N_EVENT_REPORT_RQ,
        has_data_set=True,
        message_id=message_id,
        sop_class_uid=PUSH_MODEL,
        sop_instance_uid=PUSH_MODEL_INSTANCE,
        event_type_id=report.event_type_id,
    )
    return Conversation("N-EVENT-REPORT", request)


def encode_request(request: Request, transfer_syntax_uid: str) -> bytes:
    """The action information, in implicit or explicit VR little endian."""
    return _encode(request.transaction_uid, {_REFERENCED: request.instances}, transfer_syntax_uid)


def encode_report(report: Report, transfer_syntax_uid: str) -> bytes:
    """The event information, in implicit or explicit VR little endian. A sequence without items is left out."""
    return _encode(report.transaction_uid, {_FAILED: report.failed, _REFERENCED: report.kept}, transfer_syntax_uid)


def decode_request(octets: bytes, transfer_syntax_uid: str) -> Request:
    """Reads the action information. Raises RemoteProtocolError when it lacks anything that it must have."""
    transaction_uid, listed = _decode(octets, transfer_syntax_uid)
    if not listed[_REFERENCED]:
        raise RemoteProtocolError("asked for the commitment of nothing")
    return Request(transaction_uid=transaction_uid, instances=tuple(listed[_REFERENCED]))


def decode_report(octets: bytes, transfer_syntax_uid: str) -> Report:
    """Reads the event information. Raises RemoteProtocolError when it lacks anything that it must have."""
    transaction_uid, listed = _decode(octets, transfer_syntax_uid)
    return Report(transaction_uid=transaction_uid, kept=tuple(listed[_REFERENCED]), failed=tuple(listed[_FAILED]))


def _decode(octets: bytes, transfer_syntax_uid: str) -> tuple[str, Mapping[int, list[Reference]]]:
    """The transaction UID, and what each of the two sequences lists."""
    contents = events.Contents(file_meta("", "", transfer_syntax_uid) + octets)
    transaction_uid = ""
    listed: dict[int, list[Reference]] = {_REFERENCED: [], _FAILED: []}
    for path, element in _elements(contents.data_set()):
        if element.tag == _TRANSACTION_UID and not path:
            transaction_uid = text(element.octets)
        elif len(path) == 1 and path[0] in listed:
            found = listed[path[0]]
            if element.tag == 0:  # an item begins
                found.append(Reference("", ""))
            elif element.tag == _CLASS_UID:
                found[-1] = Reference(text(element.octets), found[-1].sop_instance_uid, found[-1].reason)
            elif element.tag == _INSTANCE_UID:
                found[-1] = Reference(found[-1].sop_class_uid, text(element.octets), found[-1].reason)
            elif element.tag == _REASON:
                reason = int.from_bytes(element.octets[:2], "little")
                found[-1] = Reference(found[-1].sop_class_uid, found[-1].sop_instance_uid, reason)
    references = (*listed[_REFERENCED], *listed[_FAILED])
    if contents.state != "whole" or not transaction_uid or not all(each.sop_instance_uid for each in references):
        raise RemoteProtocolError("sent a storage commitment that lacks a UID, or is no data set")
    return transaction_uid, listed


class _Said(Struct, frozen=True):
    """One element, or with tag 0 the beginning of an item."""

    tag: int
    octets: bytes = b""


_AN_ITEM = _Said(0)


def _elements(stream: Iterable[events.Event]) -> Iterator[tuple[Sequence[int], _Said]]:
    """(tags of the sequences around it, what is said there), in order."""
    path: list[int] = []
    for event in stream:
        if isinstance(event, events.Opened):
            path.append(event.tag)
        elif isinstance(event, events.Closed):
            path.pop()
        elif isinstance(event, events.Item):
            yield path, _AN_ITEM
        elif isinstance(event, events.Element):
            yield path, _Said(event.tag, event.octets)


def _encode(transaction_uid: str, listed: Mapping[int, Sequence[Reference]], transfer_syntax_uid: str) -> bytes:
    is_implicit = transfer_syntax_uid == IMPLICIT_LITTLE
    parts = [_uid(_TRANSACTION_UID, transaction_uid, is_implicit)]
    for tag in sorted(tag for tag, references in listed.items() if references):
        items = b"".join(_item(reference, is_implicit) for reference in listed[tag])
        head = _ITEM.pack(tag >> 16, tag & 0xFFFF, len(items))
        parts += [head if is_implicit else _LONG.pack(tag >> 16, tag & 0xFFFF, b"SQ", len(items)), items]
    return b"".join(parts)


def _item(reference: Reference, is_implicit: bool, /) -> bytes:
    inside = _uid(_CLASS_UID, reference.sop_class_uid, is_implicit)
    inside += _uid(_INSTANCE_UID, reference.sop_instance_uid, is_implicit)
    if reference.reason:
        inside += _element(_REASON, b"US", reference.reason.to_bytes(2, "little"), is_implicit)
    return _ITEM.pack(0xFFFE, 0xE000, len(inside)) + inside


def _uid(tag: int, uid: str, is_implicit: bool, /) -> bytes:
    octets = uid.encode("ascii", "replace")
    return _element(tag, b"UI", octets + b"\0" * (len(octets) & 1), is_implicit)


def _element(tag: int, vr: bytes, octets: bytes, is_implicit: bool, /) -> bytes:
    group, number = tag >> 16, tag & 0xFFFF
    head = _ITEM.pack(group, number, len(octets)) if is_implicit else _SHORT.pack(group, number, vr, len(octets))
    return head + octets
