"""Association PDUs <-> plain values (PS3.8 §9.3.2 to §9.3.8, Annex D; PS3.7 §D.3.3).

Refuses to hold a socket or a state, and to judge a negotiation. Hostile octets leave as RemoteProtocolError: every
length is checked against what holds it, and items that we do not know are stepped over, as §9.3.1 demands.

pynetdicom's codecs are the oracle of the tests, not the engine: importing them costs 0.15 s (with pydicom), a quarter
of what pulling 2,000 small instances takes altogether.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct as Layout

from msgspec import Struct

from dcmsync.errors import LocalProtocolError, RemoteProtocolError
from dcmsync.wire.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dcmsync.wire.upperlayer import extension as extensions
from dcmsync.wire.upperlayer import identity as identities
from dcmsync.wire.upperlayer.extension import Extension
from dcmsync.wire.upperlayer.identity import Identity

RELEASE_RQ = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
RELEASE_RP = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"  # PS3.7 §A.2.1
_PDU_HEADER = Layout(">BxI")  # 1 PDU-type, 2 reserved, 3-6 PDU-length
_FIXED = Layout(">HH16s16s32s")  # 7-8 version, 9-10 reserved, 11-26 called AE, 27-42 calling AE, 43-74 reserved
_ITEM = Layout(">BxH")  # 1 item-type, 2 reserved, 3-4 item-length
_LENGTH = Layout(">H")
_MAXIMUM = Layout(">L")
_MAX_AE_OCTETS = 16

_A_ASSOCIATE_RQ, _A_ASSOCIATE_AC = 1, 2
_APPLICATION_ITEM = 0x10
_CONTEXT_ITEM_RQ, _CONTEXT_ITEM_AC = 0x20, 0x21
_ABSTRACT_ITEM, _TRANSFER_ITEM = 0x30, 0x40
_USER_ITEM, _MAXIMUM_ITEM = 0x50, 0x51
_CLASS_UID_ITEM, _ROLE_ITEM, _VERSION_ITEM = 0x52, 0x54, 0x55
_EXTENSION_ITEM, _IDENTITY_ITEM, _RESPONSE_ITEM = 0x56, 0x58, 0x59


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
    extensions: tuple[Extension, ...] = ()
    identity: Identity | None = None
    max_pdu_octets: int = 0
    implementation: str = ""


class AssociateAccept(Struct, frozen=True, kw_only=True):
    """A-ASSOCIATE-AC. `identity_response` is None where none came: b"" is one, and a positive one."""

    called_ae: str
    calling_ae: str
    results: tuple[ContextResult, ...]
    roles: tuple[Role, ...] = ()
    extensions: tuple[Extension, ...] = ()
    identity_response: bytes | None = None
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
    """The whole A-ASSOCIATE-RQ PDU (table 9-11). Raises LocalProtocolError when a value cannot be encoded."""
    contexts = (
        _item(
            _CONTEXT_ITEM_RQ,
            bytes((context.context_id, 0, 0, 0))
            + _item(_ABSTRACT_ITEM, _ascii(context.abstract_syntax))
            + b"".join(_item(_TRANSFER_ITEM, _ascii(syntax)) for syntax in context.transfer_syntaxes),
        )
        for context in request.contexts
    )
    return _associate(_A_ASSOCIATE_RQ, request, contexts)


def encode_accept(accept: AssociateAccept) -> bytes:
    """The whole A-ASSOCIATE-AC PDU (table 9-17). Raises LocalProtocolError when a value cannot be encoded."""
    results = (
        _item(
            _CONTEXT_ITEM_AC,
            bytes((result.context_id, 0, result.result, 0)) + _item(_TRANSFER_ITEM, _octets(result.transfer_syntax)),
        )
        for result in accept.results
    )
    return _associate(_A_ASSOCIATE_AC, accept, results)


def encode_reject(reject: AssociateReject) -> bytes:
    """The whole A-ASSOCIATE-RJ PDU (§9.3.4)."""
    return bytes((3, 0, 0, 0, 0, 4, 0, reject.result, reject.source, reject.reason))


def encode_abort(abort: Abort) -> bytes:
    """The whole A-ABORT PDU (§9.3.8)."""
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, abort.source, abort.reason))


def decode_request(octets: bytes) -> AssociateRequest:
    """Reads a whole A-ASSOCIATE-RQ PDU. Raises RemoteProtocolError."""
    called, calling, items = _opened("A-ASSOCIATE-RQ", octets)
    contexts = []
    for kind, body in items:
        if kind != _CONTEXT_ITEM_RQ:
            continue
        parts = list(_items(body[4:]))
        abstract = [_text(value) for part, value in parts if part == _ABSTRACT_ITEM]
        transfer = tuple(_text(value) for part, value in parts if part == _TRANSFER_ITEM)
        if len(body) < 4 or len(abstract) != 1:
            raise RemoteProtocolError("sent a presentation context without its one abstract syntax")
        contexts.append(ProposedContext(body[0], abstract[0], transfer))
    information = _user_information(items)
    return AssociateRequest(
        called_ae=called,
        calling_ae=calling,
        contexts=tuple(contexts),
        roles=_roles(information),
        extensions=_extensions(information),
        identity=next((identities.decode(body) for kind, body in information if kind == _IDENTITY_ITEM), None),
        max_pdu_octets=_maximum(information),
        implementation=_version(information),
    )


def decode_accept(octets: bytes) -> AssociateAccept:
    """Reads a whole A-ASSOCIATE-AC PDU. Raises RemoteProtocolError."""
    _, _, items = _opened("A-ASSOCIATE-AC", octets)
    results = []
    for kind, body in items:
        if kind != _CONTEXT_ITEM_AC:
            continue
        if len(body) < 4:
            raise RemoteProtocolError("sent a presentation context that is too short")
        # A transfer syntax is significant only where the context was accepted (table 9-18); some send none else.
        syntax = next((_text(value) for part, value in _items(body[4:]) if part == _TRANSFER_ITEM), "")
        results.append(ContextResult(body[0], body[2], syntax))
    information = _user_information(items)
    return AssociateAccept(
        called_ae="",  # table 9-17: these fields "shall not be tested" here
        calling_ae="",
        results=tuple(results),
        roles=_roles(information),
        extensions=_extensions(information),
        identity_response=next(
            (identities.decode_response(body) for kind, body in information if kind == _RESPONSE_ITEM), None
        ),
        max_pdu_octets=_maximum(information),
        implementation=_version(information),
    )


def decode_reject(octets: bytes) -> AssociateReject:
    """Reads a whole A-ASSOCIATE-RJ PDU. Raises RemoteProtocolError."""
    if len(octets) < 10:
        raise RemoteProtocolError("sent an A-ASSOCIATE-RJ that is too short")
    return AssociateReject(octets[7], octets[8], octets[9])


def decode_abort(octets: bytes) -> Abort:
    """Reads a whole A-ABORT PDU. A short one still aborts."""
    return Abort(octets[8], octets[9]) if len(octets) >= 10 else Abort(0, 0)


def _associate(kind: int, value: AssociateRequest | AssociateAccept, contexts: Iterable[bytes]) -> bytes:
    information = (
        _item(_MAXIMUM_ITEM, _MAXIMUM.pack(value.max_pdu_octets))
        + _item(_CLASS_UID_ITEM, _octets(IMPLEMENTATION_CLASS_UID))
        + b"".join(_role(role) for role in value.roles)
        + _item(_VERSION_ITEM, _octets(IMPLEMENTATION_VERSION_NAME))
        + b"".join(_item(_EXTENSION_ITEM, extensions.encode(each)) for each in value.extensions)
    )
    if isinstance(value, AssociateRequest) and value.identity is not None:
        information += _item(_IDENTITY_ITEM, identities.encode(value.identity))
    if isinstance(value, AssociateAccept) and value.identity_response is not None:
        information += _item(_RESPONSE_ITEM, identities.encode_response(value.identity_response))
    title = _title if isinstance(value, AssociateRequest) else _repeated
    body = (
        _FIXED.pack(1, 0, title(value.called_ae), title(value.calling_ae), b"")
        + _item(_APPLICATION_ITEM, _APPLICATION_CONTEXT)
        + b"".join(contexts)
        + _item(_USER_ITEM, information)
    )
    return _PDU_HEADER.pack(kind, len(body)) + body


def _item(kind: int, body: bytes) -> bytes:
    if len(body) > 0xFFFF:
        raise LocalProtocolError(f"an item of {len(body):,} octets does not fit an association PDU")
    return _ITEM.pack(kind, len(body)) + body


def _role(role: Role) -> bytes:
    uid = _octets(role.sop_class_uid)
    return _item(_ROLE_ITEM, _LENGTH.pack(len(uid)) + uid + bytes((role.scu, role.scp)))


def _title(title: str) -> bytes:
    octets = _ascii(title)
    if not octets.strip() or len(octets) > _MAX_AE_OCTETS:
        raise LocalProtocolError(f"{title!r} is no AE title")
    return octets.ljust(_MAX_AE_OCTETS)


def _repeated(title: str) -> bytes:
    """A title as it came (table 9-17), whatever it is."""
    if len(title) > _MAX_AE_OCTETS:
        raise LocalProtocolError(f"{title!r} is no AE title")
    return _octets(title).ljust(_MAX_AE_OCTETS)


def _ascii(text: str) -> bytes:
    if not text.isascii():
        raise LocalProtocolError(f"{text!r} cannot be said in an association PDU")
    return text.encode("ascii")


def _octets(text: str) -> bytes:
    """The octets that `_text` was made of."""
    return text.encode("latin-1", "replace")


def _opened(name: str, octets: bytes) -> tuple[str, str, list[tuple[int, bytes]]]:
    """(called AE, calling AE, items) of an A-ASSOCIATE-RQ or -AC. Raises RemoteProtocolError."""
    start = _PDU_HEADER.size + _FIXED.size
    if len(octets) < start:
        raise RemoteProtocolError(f"sent an {name} that is too short")
    version, _, called, calling, _ = _FIXED.unpack_from(octets, _PDU_HEADER.size)
    if not version & 1:
        raise RemoteProtocolError(f"sent an {name} of protocol version {version}")
    return _text(called), _text(calling), list(_items(octets[start:]))


def _items(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each item. Raises RemoteProtocolError when one is longer than what holds it."""
    position, end = 0, len(octets)
    while position < end:
        if end - position < _ITEM.size:
            raise RemoteProtocolError("sent an association item that is cut short")
        kind, length = _ITEM.unpack_from(octets, position)
        position += _ITEM.size
        if length > end - position:
            raise RemoteProtocolError(f"sent an association item of {length:,} octets with {end - position:,} left")
        yield kind, octets[position : position + length]
        position += length


def _user_information(items: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    found = [body for kind, body in items if kind == _USER_ITEM]
    return list(_items(found[0])) if found else []


def _maximum(information: Iterable[tuple[int, bytes]]) -> int:
    for kind, body in information:
        if kind == _MAXIMUM_ITEM and len(body) >= _MAXIMUM.size:
            maximum: int = _MAXIMUM.unpack_from(body)[0]
            return maximum
    return 0  # table D.1-1: no limit given


def _roles(information: Iterable[tuple[int, bytes]]) -> tuple[Role, ...]:
    roles = []
    for kind, body in information:
        if kind != _ROLE_ITEM:
            continue
        length = _LENGTH.unpack_from(body)[0] if len(body) >= _LENGTH.size else len(body)
        if len(body) < _LENGTH.size + length + 2:
            raise RemoteProtocolError("sent a role selection that is cut short")
        uid_end = _LENGTH.size + length
        roles.append(Role(_text(body[_LENGTH.size : uid_end]), body[uid_end] == 1, body[uid_end + 1] == 1))
    return tuple(roles)


def _extensions(information: Iterable[tuple[int, bytes]]) -> tuple[Extension, ...]:
    return tuple(extensions.decode(body) for kind, body in information if kind == _EXTENSION_ITEM)


def _version(information: Iterable[tuple[int, bytes]]) -> str:
    return next((_text(body) for kind, body in information if kind == _VERSION_ITEM), "")


def _text(octets: bytes) -> str:
    """Text that should be ASCII; a character for each octet, so that an answer can repeat what is not."""
    return octets.decode("latin-1").strip(" \0")
