"""User identity: ours read by pynetdicom, pynetdicom's read by us, and nothing of it printed."""

import pytest
from pynetdicom import pdu, pdu_items

from dcmsync.errors import LocalProtocolError, RemoteProtocolError
from dcmsync.wire.upperlayer import codec, identity
from dcmsync.wire.upperlayer.codec import AssociateAccept, AssociateRequest
from dcmsync.wire.upperlayer.identity import Identity, Kind

KINDS = [
    Identity(kind=Kind.USER_NAME, primary=b"ada"),
    Identity(kind=Kind.PASSWORD, primary="adä".encode(), secondary=b"open sesame", wants_response=True),
    Identity(kind=Kind.SAML, primary=b"<Assertion/>" * 1000, wants_response=True),
    Identity(kind=Kind.JWT, primary=b"ey.ey.sig"),
]


def request(who: Identity | None) -> AssociateRequest:
    return AssociateRequest(called_ae="A", calling_ae="B", contexts=(), identity=who)


@pytest.mark.parametrize("who", KINDS)
def test_pynetdicom_reads_our_identity(who: Identity) -> None:
    theirs = pdu.A_ASSOCIATE_RQ()
    theirs.decode(codec.encode_request(request(who)))
    read = theirs.user_information.user_identity
    assert isinstance(read, pdu_items.UserIdentitySubItemRQ)
    assert (read.user_identity_type, read.positive_response_requested) == (who.kind, who.wants_response)
    assert (read.primary_field, read.secondary_field or b"") == (who.primary, who.secondary)


@pytest.mark.parametrize("who", KINDS)
def test_an_identity_comes_back_as_it_went(who: Identity) -> None:
    assert codec.decode_request(codec.encode_request(request(who))).identity == who


def test_a_request_without_an_identity_has_none() -> None:
    assert codec.decode_request(codec.encode_request(request(None))).identity is None


@pytest.mark.parametrize("response", [b"", b"ticket"])
def test_pynetdicom_reads_our_response_and_we_read_it(response: bytes) -> None:
    octets = codec.encode_accept(AssociateAccept(called_ae="A", calling_ae="B", results=(), identity_response=response))
    theirs = pdu.A_ASSOCIATE_AC()
    theirs.decode(octets)
    read = theirs.user_information.user_identity
    assert isinstance(read, pdu_items.UserIdentitySubItemAC) and read.server_response == response
    assert codec.decode_accept(octets).identity_response == response


def test_no_response_is_told_from_an_empty_one() -> None:
    octets = codec.encode_accept(AssociateAccept(called_ae="A", calling_ae="B", results=()))
    assert codec.decode_accept(octets).identity_response is None


@pytest.mark.parametrize("body", [b"", b"\2", b"\2\1", b"\2\1\0", b"\2\1\0\4ada", b"\2\1\0\3ada\0", b"\2\1\0\3ada\0\1"])
def test_an_identity_that_is_cut_short_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="cut short"):
        identity.decode(body)


def test_a_secondary_field_may_be_left_out() -> None:
    assert identity.decode(b"\1\0\0\3ada") == Identity(kind=1, primary=b"ada")


def test_a_response_that_is_cut_short_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="cut short"):
        identity.decode_response(b"\0\4ab")


def test_an_identity_that_does_not_fit_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError, match="too long"):
        identity.encode(Identity(kind=Kind.JWT, primary=b"x" * 0xFF01))


def test_a_secret_is_not_printed() -> None:
    for who in KINDS:
        printed = f"{who!r} {who} {request(who)!r}"
        assert "open sesame" not in printed and "ey.ey.sig" not in printed and "Assertion" not in printed
    assert "ada" in repr(KINDS[0])
