"""Association PDUs <-> plain values: the door to pynetdicom's codecs (PS3.8 §9.3.2 to §9.3.8).

Refuses to hold a socket or a state. Whatever pynetdicom's parser does with hostile octets leaves here as
RemoteProtocolError. Importing pynetdicom costs about 0.15 s, so it happens when the first association is made.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from msgspec import Struct

from dcmsync.errors import LocalProtocolError, RemoteProtocolError
from dcmsync.wire.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

RELEASE_RQ = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
RELEASE_RP = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"


class ProposedContext(Struct, frozen=True):
    """One presentation context as proposed. `context_id` is odd, 1 to 255."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class ContextResult(Struct, frozen=True):
    """The acceptor's word on one context: `result` 0 accepts `transfer_syntax` (table 9-18)."""

    context_id: int
    result: int
    transfer_syntax: str


class Role(Struct, frozen=True):
    """SCP/SCU role selection of one SOP class (PS3.7 §D.3.3.4), from the requestor's point of view."""

    sop_class_uid: str
    scu: bool
    scp: bool


class AssociateRequest(Struct, frozen=True, kw_only=True):
    """A-ASSOCIATE-RQ. `max_pdu_octets` is what the sender takes in one P-DATA-TF PDU; 0 is no limit."""

    called_ae: str
    calling_ae: str
    contexts: tuple[ProposedContext, ...]
    roles: tuple[Role, ...] = ()
    max_pdu_octets: int = 0
    implementation: str = ""


class AssociateAccept(Struct, frozen=True, kw_only=True):
    """A-ASSOCIATE-AC."""

    called_ae: str
    calling_ae: str
    results: tuple[ContextResult, ...]
    roles: tuple[Role, ...] = ()
    max_pdu_octets: int = 0
    implementation: str = ""


class AssociateReject(Struct, frozen=True):
    """A-ASSOCIATE-RJ (table 9-21): result 1 permanent, 2 transient."""

    result: int
    source: int
    reason: int


class Abort(Struct, frozen=True):
    """A-ABORT (table 9-26): source 0 service-user, 2 service-provider."""

    source: int
    reason: int


_REJECT_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


def reject_words(reject: AssociateReject) -> str:
    """What an A-ASSOCIATE-RJ says, in the words of table 9-21."""
    lasting = "for good" if reject.result == 1 else "for now"
    reason = _REJECT_REASONS.get((reject.source, reject.reason), f"source {reject.source}, reason {reject.reason}")
    return f"rejected {lasting}: {reason}"


def encode_request(request: AssociateRequest) -> bytes:
    """The whole A-ASSOCIATE-RQ PDU. Raises LocalProtocolError when a value cannot be encoded."""
    pdu, primitives, presentation = _pynetdicom()
    primitive = primitives.A_ASSOCIATE()
    definitions = []
    for proposed in request.contexts:
        context = presentation.PresentationContext()
        context.context_id = proposed.context_id
        context.abstract_syntax = proposed.abstract_syntax
        context.transfer_syntax = list(proposed.transfer_syntaxes)
        definitions.append(context)
    try:
        primitive.application_context_name = "1.2.840.10008.3.1.1.1"
        primitive.calling_ae_title = request.calling_ae
        primitive.called_ae_title = request.called_ae
        primitive.presentation_context_definition_list = definitions
        primitive.user_information = _user_information(primitives, request.max_pdu_octets, request.roles)
        encoded: bytes = pdu.A_ASSOCIATE_RQ(primitive).encode()
    except (ValueError, TypeError, AttributeError) as error:
        raise LocalProtocolError(f"cannot encode an association request: {error}") from error
    return encoded


def encode_accept(accept: AssociateAccept) -> bytes:
    """The whole A-ASSOCIATE-AC PDU. Raises LocalProtocolError when a value cannot be encoded."""
    pdu, primitives, presentation = _pynetdicom()
    primitive = primitives.A_ASSOCIATE()
    results = []
    for result in accept.results:
        context = presentation.PresentationContext()
        context.context_id = result.context_id
        context.result = result.result
        context.transfer_syntax = [result.transfer_syntax]
        results.append(context)
    try:
        primitive.application_context_name = "1.2.840.10008.3.1.1.1"
        primitive.calling_ae_title = accept.calling_ae
        primitive.called_ae_title = accept.called_ae
        primitive.result = 0
        primitive.result_source = 1
        primitive.presentation_context_definition_results_list = results
        primitive.user_information = _user_information(primitives, accept.max_pdu_octets, accept.roles)
        encoded: bytes = pdu.A_ASSOCIATE_AC(primitive).encode()
    except (ValueError, TypeError, AttributeError) as error:
        raise LocalProtocolError(f"cannot encode an association acceptance: {error}") from error
    return encoded


def encode_reject(reject: AssociateReject) -> bytes:
    """The whole A-ASSOCIATE-RJ PDU (§9.3.4)."""
    return bytes((3, 0, 0, 0, 0, 4, 0, reject.result, reject.source, reject.reason))


def encode_abort(abort: Abort) -> bytes:
    """The whole A-ABORT PDU (§9.3.8)."""
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, abort.source, abort.reason))


def decode_request(octets: bytes) -> AssociateRequest:
    """Reads a whole A-ASSOCIATE-RQ PDU. Raises RemoteProtocolError."""
    item = _decode("A_ASSOCIATE_RQ", octets)
    return AssociateRequest(
        called_ae=_title(item.called_ae_title),
        calling_ae=_title(item.calling_ae_title),
        contexts=tuple(
            ProposedContext(
                context.context_id,
                _uid(context.abstract_syntax),
                tuple(_uid(syntax) for syntax in context.transfer_syntax),
            )
            for context in item.presentation_context
        ),
        **_read_user_information(item),
    )


def decode_accept(octets: bytes) -> AssociateAccept:
    """Reads a whole A-ASSOCIATE-AC PDU. Raises RemoteProtocolError."""
    item = _decode("A_ASSOCIATE_AC", octets)
    return AssociateAccept(
        called_ae="",  # §9.3.3: these fields "shall not be tested" in an A-ASSOCIATE-AC
        calling_ae="",
        results=tuple(
            ContextResult(context.context_id, context.result, _uid(context.transfer_syntax))
            for context in item.presentation_context
        ),
        **_read_user_information(item),
    )


def decode_reject(octets: bytes) -> AssociateReject:
    """Reads a whole A-ASSOCIATE-RJ PDU. Raises RemoteProtocolError."""
    if len(octets) < 10:
        raise RemoteProtocolError("sent an A-ASSOCIATE-RJ that is too short")
    return AssociateReject(octets[7], octets[8], octets[9])


def decode_abort(octets: bytes) -> Abort:
    """Reads a whole A-ABORT PDU. A short one still aborts."""
    return Abort(octets[8], octets[9]) if len(octets) >= 10 else Abort(0, 0)


def _pynetdicom() -> tuple[Any, Any, Any]:
    from pynetdicom import pdu, pdu_primitives, presentation

    # Its log lines carry peer-supplied text; nothing of them may reach anybody's handlers.
    logging.getLogger("pynetdicom").propagate = False
    return pdu, pdu_primitives, presentation


def _user_information(primitives: Any, max_pdu_octets: int, roles: tuple[Role, ...]) -> list[Any]:
    maximum = primitives.MaximumLengthNotification()
    maximum.maximum_length_received = max_pdu_octets
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = primitives.ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    selections = []
    for role in roles:
        selection = primitives.SCP_SCU_RoleSelectionNegotiation()
        selection.sop_class_uid = role.sop_class_uid
        selection.scu_role = role.scu
        selection.scp_role = role.scp
        selections.append(selection)
    return [maximum, implementation, version, *selections]


def _decode(name: str, octets: bytes) -> Any:
    pdu, _, _ = _pynetdicom()
    item = getattr(pdu, name)()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            item.decode(octets)
            if item.user_information is None or item.presentation_context is None:
                raise ValueError("a mandatory item is missing")
    except Exception as error:
        # pynetdicom's parser answers hostile octets with whatever exception comes first.
        raise RemoteProtocolError(f"sent a malformed {name.replace('_', '-')}: {type(error).__name__}") from error
    return item


def _read_user_information(item: Any) -> dict[str, Any]:
    information = item.user_information
    try:
        roles = tuple(
            Role(_uid(uid), bool(role.scu), bool(role.scp)) for uid, role in information.role_selection.items()
        )
        return {
            "max_pdu_octets": int(information.maximum_length or 0),
            "roles": roles,
            "implementation": str(information.implementation_version_name or ""),
        }
    except Exception as error:
        raise RemoteProtocolError(f"sent a malformed user information item: {type(error).__name__}") from error


def _uid(value: object) -> str:
    return str(value or "").rstrip("\0 ")


def _title(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")
