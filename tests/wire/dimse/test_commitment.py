"""Storage commitment: pydicom reads what we write, and we read what pydicom writes; broken ones are refused."""

import random
from io import BytesIO

import pydicom
import pytest
from pydicom.sequence import Sequence
from pynetdicom.dsutils import encode

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import commitment, operations
from dcmsync.wire.dimse.commitment import Reference, Report, Request

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
REQUEST = Request(transaction_uid="2.25.1", instances=(Reference(CT, "1.2.3"), Reference(MR, "1.2.30")))
REPORT = Report(transaction_uid="2.25.12", kept=(Reference(CT, "1.2.3"),), failed=(Reference(MR, "1.2.30", 0x0112),))


def read(octets: bytes, syntax: str) -> pydicom.Dataset:
    return pydicom.filereader.read_dataset(BytesIO(octets), syntax == IMPLICIT, True)


def references(sequence: Sequence) -> list[tuple[str, str, int]]:
    return [(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID), item.get("FailureReason", 0))
            for item in sequence]  # fmt: skip


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_pydicom_reads_what_we_write(syntax: str) -> None:
    asked = read(commitment.encode_request(REQUEST, syntax), syntax)
    assert asked.TransactionUID == "2.25.1"
    assert references(asked.ReferencedSOPSequence) == [(CT, "1.2.3", 0), (MR, "1.2.30", 0)]
    told = read(commitment.encode_report(REPORT, syntax), syntax)
    assert references(told.ReferencedSOPSequence) == [(CT, "1.2.3", 0)]
    assert references(told.FailedSOPSequence) == [(MR, "1.2.30", 0x0112)]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("is_undefined", [False, True])
def test_we_read_what_pydicom_writes(syntax: str, is_undefined: bool) -> None:
    written = read(commitment.encode_report(REPORT, syntax), syntax)
    written.RetrieveAETitle = "ELSEWHERE"
    for keyword in ("ReferencedSOPSequence", "FailedSOPSequence"):
        written[keyword].is_undefined_length = is_undefined
        for item in written[keyword].value:
            item.is_undefined_length_sequence_item = is_undefined
    inner = pydicom.Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.99"  # of something else
    written.ReferencedSOPSequence[0].PurposeOfReferenceCodeSequence = [inner]
    octets = encode(written, syntax == IMPLICIT, True)
    assert octets is not None and commitment.decode_report(octets, syntax) == REPORT


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_what_is_written_is_read(syntax: str) -> None:
    assert commitment.decode_request(commitment.encode_request(REQUEST, syntax), syntax) == REQUEST
    assert commitment.decode_report(commitment.encode_report(REPORT, syntax), syntax) == REPORT


def test_the_event_says_whether_all_is_kept() -> None:
    assert commitment.event_report(1, REPORT).request.event_type_id == 2
    assert commitment.event_report(1, Report(transaction_uid="1", kept=REPORT.kept)).request.event_type_id == 1


def test_the_answer_to_an_action_names_what_was_asked() -> None:
    request = commands.decode(commands.encode(commitment.action(7).request))
    response = commands.decode(commands.encode(operations.respond(request, 0)))
    assert (response.field, response.responding_to, response.sop_class_uid, response.sop_instance_uid,
            response.action_type_id) == (0x8130, 7, commitment.PUSH_MODEL, commitment.PUSH_MODEL_INSTANCE, 1)
    assert commitment.action(7).answer(response) == 0


def test_what_lacks_a_uid_is_refused() -> None:
    for request in (
        Request(transaction_uid="", instances=REQUEST.instances),
        Request(transaction_uid="2.25.1", instances=()),
        Request(transaction_uid="2.25.1", instances=(Reference(CT, ""),)),
    ):
        with pytest.raises(RemoteProtocolError):
            commitment.decode_request(commitment.encode_request(request, EXPLICIT), EXPLICIT)


def test_hostile_octets_are_read_or_refused_and_nothing_else() -> None:
    dice = random.Random(20261205)
    refused = 0
    for _ in range(500):
        syntax = dice.choice((EXPLICIT, IMPLICIT))
        octets = bytearray(commitment.encode_report(REPORT, syntax))
        for _ in range(dice.randint(1, 4)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        try:
            commitment.decode_report(bytes(octets[: dice.choice((len(octets), dice.randrange(len(octets))))]), syntax)
        except RemoteProtocolError:
            refused += 1
    assert 0 < refused < 500
