"""Association PDUs: ours read by pynetdicom, pynetdicom's and hand-made ones read by us, hostile ones refused."""

import random
import struct

import pytest
from pynetdicom import pdu, pdu_primitives
from pynetdicom.presentation import build_context

from dcmsync.errors import LocalProtocolError, RemoteProtocolError
from dcmsync.wire.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dcmsync.wire.upperlayer import codec
from dcmsync.wire.upperlayer.codec import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    ProposedContext,
    Role,
)

CT, MR, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
SEED = 20260101

REQUEST = AssociateRequest(
    called_ae="PEER",
    calling_ae="DCMSYNC",
    contexts=(ProposedContext(1, VERIFICATION, (EXPLICIT, IMPLICIT)), ProposedContext(3, CT, (EXPLICIT,))),
    roles=(Role(CT, scu=False, scp=True), Role(MR, scu=True, scp=True)),
    max_pdu_octets=1 << 20,
)
ACCEPT = AssociateAccept(
    called_ae="PEER",
    calling_ae="DCMSYNC",
    results=(ContextResult(1, 0, IMPLICIT), ContextResult(3, 4, EXPLICIT)),
    roles=(Role(CT, scu=False, scp=True),),
    max_pdu_octets=16382,
)


def item(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">BxH", kind, len(body)) + body


def by_hand() -> bytes:
    """An A-ASSOCIATE-RQ laid out by hand after PS3.8 §9.3.2."""
    context = item(0x20, b"\1\0\0\0", item(0x30, VERIFICATION.encode()), item(0x40, IMPLICIT.encode()))
    user = item(0x50, item(0x51, struct.pack(">I", 28672)), item(0x52, b"1.2.3"), item(0x55, b"BY_HAND"))
    body = struct.pack(">HH16s16s32x", 1, 0, b"CALLED".ljust(16), b"CALLING".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BxI", 1, len(body)) + body


def test_pynetdicom_reads_our_request() -> None:
    theirs = pdu.A_ASSOCIATE_RQ()
    theirs.decode(codec.encode_request(REQUEST))
    assert (theirs.called_ae_title, theirs.calling_ae_title) == ("PEER", "DCMSYNC")
    assert theirs.application_context_name == "1.2.840.10008.3.1.1.1"
    read = [(c.context_id, c.abstract_syntax, list(c.transfer_syntax)) for c in theirs.presentation_context]
    assert read == [(1, VERIFICATION, [EXPLICIT, IMPLICIT]), (3, CT, [EXPLICIT])]
    user = theirs.user_information
    assert user.maximum_length == 1 << 20
    assert user.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert user.implementation_version_name == IMPLEMENTATION_VERSION_NAME
    assert {uid: (role.scu, role.scp) for uid, role in user.role_selection.items()} == {CT: (0, 1), MR: (1, 1)}


def test_pynetdicom_reads_our_accept() -> None:
    theirs = pdu.A_ASSOCIATE_AC()
    theirs.decode(codec.encode_accept(ACCEPT))
    read = [(c.context_id, c.result, c.transfer_syntax) for c in theirs.presentation_context]
    assert read == [(1, 0, IMPLICIT), (3, 4, EXPLICIT)]
    assert theirs.user_information.maximum_length == 16382
    assert theirs.user_information.role_selection[CT].scp == 1


def test_a_request_comes_back_as_it_went() -> None:
    read = codec.decode_request(codec.encode_request(REQUEST))
    assert read.contexts == REQUEST.contexts
    assert set(read.roles) == set(REQUEST.roles)
    assert (read.called_ae, read.calling_ae, read.max_pdu_octets) == ("PEER", "DCMSYNC", 1 << 20)
    assert read.implementation == IMPLEMENTATION_VERSION_NAME


def test_an_accept_comes_back_as_it_went_but_for_the_titles() -> None:
    read = codec.decode_accept(codec.encode_accept(ACCEPT))
    assert read.results == ACCEPT.results
    assert read.roles == ACCEPT.roles
    assert (read.called_ae, read.calling_ae) == ("", "")


def test_a_request_by_hand_is_read() -> None:
    read = codec.decode_request(by_hand())
    assert read == AssociateRequest(
        called_ae="CALLED",
        calling_ae="CALLING",
        contexts=(ProposedContext(1, VERIFICATION, (IMPLICIT,)),),
        max_pdu_octets=28672,
        implementation="BY_HAND",
    )


def test_what_pynetdicom_may_add_is_read_over() -> None:
    primitive = pdu_primitives.A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "THEM", "US"
    context = build_context(CT, EXPLICIT)
    context.context_id = 9
    primitive.presentation_context_definition_list = [context]
    maximum = pdu_primitives.MaximumLengthNotification()
    maximum.maximum_length_received = 0
    implementation = pdu_primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3"
    window = pdu_primitives.AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    identity = pdu_primitives.UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field, identity.secondary_field = b"user", b"secret"
    extended = pdu_primitives.SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\1\1"
    primitive.user_information = [maximum, implementation, window, identity, extended]
    read = codec.decode_request(pdu.A_ASSOCIATE_RQ(primitive).encode())
    assert read.contexts == (ProposedContext(9, CT, (EXPLICIT,)),)
    assert (read.max_pdu_octets, read.implementation) == (0, "")


def test_128_contexts_go_and_come() -> None:
    contexts = tuple(ProposedContext(2 * n + 1, f"1.2.3.{n}", (EXPLICIT, IMPLICIT)) for n in range(128))
    request = AssociateRequest(called_ae="A", calling_ae="B", contexts=contexts)
    assert codec.decode_request(codec.encode_request(request)).contexts == contexts
    results = tuple(ContextResult(2 * n + 1, n % 5, IMPLICIT) for n in range(128))
    accept = AssociateAccept(called_ae="A", calling_ae="B", results=results)
    assert codec.decode_accept(codec.encode_accept(accept)).results == results


def test_what_cannot_be_encoded_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode_request(AssociateRequest(called_ae="A" * 17, calling_ae="B", contexts=()))
    with pytest.raises(LocalProtocolError):
        codec.encode_accept(AssociateAccept(called_ae="A" * 17, calling_ae="B", results=()))


@pytest.mark.parametrize("source", [1, 2, 3])
def test_reject_and_abort_are_pynetdicoms_octet_for_octet(source: int) -> None:
    theirs = pdu.A_ASSOCIATE_RJ()
    theirs.result, theirs.source, theirs.reason_diagnostic = 2, source, 2
    assert codec.encode_reject(AssociateReject(2, source, 2)) == theirs.encode()
    assert codec.decode_reject(theirs.encode()) == AssociateReject(2, source, 2)
    abort = pdu.A_ABORT_RQ()
    abort.source, abort.reason_diagnostic = 2, 6
    assert codec.encode_abort(Abort(2, 6)) == abort.encode()
    assert codec.decode_abort(abort.encode()) == Abort(2, 6)


def test_release_is_pynetdicoms_octet_for_octet() -> None:
    assert pdu.A_RELEASE_RQ().encode() == codec.RELEASE_RQ
    assert pdu.A_RELEASE_RP().encode() == codec.RELEASE_RP


def test_a_short_abort_still_aborts_and_a_short_reject_is_refused() -> None:
    assert codec.decode_abort(b"\7\0\0\0\0\0") == Abort(0, 0)
    with pytest.raises(RemoteProtocolError):
        codec.decode_reject(b"\3\0\0\0\0\0")


@pytest.mark.parametrize(
    ("reject", "words"),
    [
        (AssociateReject(1, 1, 3), "rejected for good: calling AE title not recognised"),
        (AssociateReject(1, 1, 7), "rejected for good: called AE title not recognised"),
        (AssociateReject(2, 3, 2), "rejected for now: local limit exceeded"),
        (AssociateReject(2, 9, 9), "rejected for now: source 9, reason 9"),
    ],
)
def test_a_rejection_has_words(reject: AssociateReject, words: str) -> None:
    assert codec.reject_words(reject) == words


def mutated(octets: bytes, dice: random.Random) -> bytes:
    """`octets` with one to four wounds: bits, lengths, cuts, doubled stretches."""
    out = bytearray(octets)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(out))
        match dice.randrange(5):
            case 0:
                out[at] ^= 1 << dice.randrange(8)
            case 1:
                out[at : at + 4] = dice.choice((b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"))
            case 2:
                del out[at + 1 :]
            case 3:
                out[at:at] = out[at : at + dice.randrange(40)]
            case _:
                out[at] = dice.randrange(256)
    return bytes(out)


@pytest.mark.parametrize("which", ["request", "accept"])
def test_hostile_octets_are_read_or_refused_and_nothing_else(which: str, capfd: pytest.CaptureFixture[str]) -> None:
    dice = random.Random(SEED)
    octets = codec.encode_request(REQUEST) if which == "request" else codec.encode_accept(ACCEPT)
    decode = codec.decode_request if which == "request" else codec.decode_accept
    refused = 0
    for _ in range(500):
        try:
            decode(mutated(octets, dice))
        except RemoteProtocolError:
            refused += 1
    assert 0 < refused < 500
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("length", range(0, 240, 7))
def test_a_cut_request_is_refused_or_read(length: int) -> None:
    try:
        codec.decode_request(codec.encode_request(REQUEST)[:length])
    except RemoteProtocolError as error:
        assert error.message.startswith("sent a")


def test_an_empty_association_pdu_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="A-ASSOCIATE-AC that is too short"):
        codec.decode_accept(b"\2\0\0\0\0\0")


@pytest.mark.parametrize("title", [b"DSMSY\xc9C", b"\0" * 16, b" " * 16, b"A\x1bB", bytes(range(128, 144))])
def test_what_came_is_repeated_in_an_answer_whatever_it_is(title: bytes) -> None:
    asked = bytearray(codec.encode_request(AssociateRequest(
        called_ae="A", calling_ae="B", contexts=(ProposedContext(1, "1.2.3", ("1.2.840.10008.1.2",)),),
        roles=(Role("1.2.3", scu=True, scp=True),),
    )).replace(b"1.2.3", b"1.\xb2.3").replace(b"1.2.840.10008.1.2", b"1.2.840.10\xb008.1.2"))  # fmt: skip
    asked[10:26] = asked[26:42] = title.ljust(16)
    request = codec.decode_request(bytes(asked))
    results = tuple(ContextResult(context.context_id, 3, context.transfer_syntaxes[0]) for context in request.contexts)
    octets = codec.encode_accept(AssociateAccept(
        called_ae=request.called_ae, calling_ae=request.calling_ae, results=results, roles=request.roles
    ))  # fmt: skip
    assert octets[10:26].strip(b" \0") == octets[26:42].strip(b" \0") == title.strip(b" \0")
    assert b"1.\xb2.3" in octets and b"1.2.840.10\xb008.1.2" in octets
