"""SOP Class Extended Negotiation: ours read by pynetdicom, pynetdicom's read by us."""

from typing import Any

import pytest
from pynetdicom import pdu

from dcmsync.errors import LocalProtocolError, RemoteProtocolError
from dcmsync.wire.dimse.operations import STUDY_ROOT_FIND, STUDY_ROOT_GET
from dcmsync.wire.upperlayer import codec, extension
from dcmsync.wire.upperlayer.codec import AssociateAccept, AssociateRequest
from dcmsync.wire.upperlayer.extension import Extension, Wishes

ALL = Wishes(relational=True, fuzzy=True, timezone=True)


def read(items: list[Any]) -> dict[str, bytes]:
    """What pynetdicom found, by class."""
    return {item.uid: item.app_info for item in items}


def test_pynetdicom_reads_what_we_ask_for() -> None:
    wanted = (extension.of_find(STUDY_ROOT_FIND, ALL), Extension(STUDY_ROOT_GET, b"\1"))
    octets = codec.encode_request(AssociateRequest(called_ae="A", calling_ae="B", contexts=(), extensions=wanted))
    theirs = pdu.A_ASSOCIATE_RQ()
    theirs.decode(octets)
    assert read(theirs.user_information.ext_neg) == {STUDY_ROOT_FIND: b"\1\0\1\1", STUDY_ROOT_GET: b"\1"}
    assert codec.decode_request(octets).extensions == wanted


def test_we_read_what_is_agreed_to() -> None:
    granted = (Extension(STUDY_ROOT_FIND, b"\1\0\0"),)
    octets = codec.encode_accept(AssociateAccept(called_ae="A", calling_ae="B", results=(), extensions=granted))
    theirs = pdu.A_ASSOCIATE_AC()
    theirs.decode(octets)
    assert read(theirs.user_information.ext_neg) == {STUDY_ROOT_FIND: b"\1\0\0"}
    assert codec.decode_accept(octets).extensions == granted


@pytest.mark.parametrize(
    ("octets", "wishes"),
    [
        (b"", Wishes()),
        (b"\1", Wishes(relational=True)),
        (b"\0\1\1", Wishes(fuzzy=True)),
        (b"\1\1\1\1\1", ALL),
        (b"\2\0\xff\x80", Wishes()),  # only 1 is a yes
    ],
)
def test_octets_that_lack_are_the_baseline(octets: bytes, wishes: Wishes) -> None:
    assert extension.agreed(octets) == wishes


@pytest.mark.parametrize("wishes", [Wishes(), Wishes(fuzzy=True), Wishes(relational=True, timezone=True), ALL])
def test_what_is_granted_as_asked_is_what_was_asked(wishes: Wishes) -> None:
    assert extension.agreed(extension.of_find(STUDY_ROOT_FIND, wishes).octets) == wishes
    assert wishes.is_any == (wishes != Wishes())


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\5abcd"])
def test_an_extension_that_is_cut_short_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="cut short"):
        extension.decode(body)


def test_a_class_that_is_no_uid_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError, match="no UID"):
        extension.encode(Extension("1" * 65, b""))
