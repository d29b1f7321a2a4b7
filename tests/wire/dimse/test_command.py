"""Command sets, with pynetdicom's encoding of the same message as the oracle."""

import random
import struct
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pynetdicom import dimse_messages, dimse_primitives
from pynetdicom.dsutils import decode as decode_data_set
from pynetdicom.dsutils import encode as encode_data_set

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse.command import Command

CT, FIND = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.2.2.1"
PUSH = "1.2.840.10008.1.20.1"


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def theirs(primitive: Any, message: str) -> bytes:
    made = getattr(dimse_messages, message)()
    made.primitive_to_message(primitive)
    return encode_data_set(made.command_set, True, True)


def filled(kind: str, **values: object) -> Any:
    primitive = getattr(dimse_primitives, kind)()
    for name, value in values.items():
        setattr(primitive, name, value)
    return primitive


DATA_SET = BytesIO(b"identifier")
CASES = {
    "C_ECHO_RQ": (
        filled("C_ECHO", MessageID=7, AffectedSOPClassUID="1.2.840.10008.1.1"),
        Command(field=0x0030, message_id=7, sop_class_uid="1.2.840.10008.1.1"),
    ),
    "C_ECHO_RSP": (
        filled("C_ECHO", MessageIDBeingRespondedTo=7, AffectedSOPClassUID="1.2.840.10008.1.1", Status=0),
        Command(field=0x8030, responding_to=7, sop_class_uid="1.2.840.10008.1.1", status=0),
    ),
    "C_STORE_RQ": (
        filled("C_STORE", MessageID=65535, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2.3", Priority=0,
               MoveOriginatorApplicationEntityTitle="MOVER", MoveOriginatorMessageID=4, DataSet=DATA_SET),
        Command(field=0x0001, has_data_set=True, message_id=65535, sop_class_uid=CT, sop_instance_uid="1.2.3",
                priority=0, originator_ae="MOVER", originator_message_id=4),
    ),
    "C_STORE_RSP": (
        filled("C_STORE", MessageIDBeingRespondedTo=1, AffectedSOPClassUID=CT, AffectedSOPInstanceUID="1.2.34",
               Status=0xA700),
        Command(field=0x8001, responding_to=1, sop_class_uid=CT, sop_instance_uid="1.2.34", status=0xA700),
    ),
    "C_FIND_RQ": (
        filled("C_FIND", MessageID=1, AffectedSOPClassUID=FIND, Priority=2, Identifier=DATA_SET),
        Command(field=0x0020, has_data_set=True, message_id=1, sop_class_uid=FIND, priority=2),
    ),
    "C_FIND_RSP": (
        filled("C_FIND", MessageIDBeingRespondedTo=1, AffectedSOPClassUID=FIND, Status=0xFF00, Identifier=DATA_SET),
        Command(field=0x8020, has_data_set=True, responding_to=1, sop_class_uid=FIND, status=0xFF00),
    ),
    "C_GET_RQ": (
        filled("C_GET", MessageID=2, AffectedSOPClassUID=FIND, Priority=0, Identifier=DATA_SET),
        Command(field=0x0010, has_data_set=True, message_id=2, sop_class_uid=FIND, priority=0),
    ),
    "C_GET_RSP": (
        filled("C_GET", MessageIDBeingRespondedTo=2, AffectedSOPClassUID=FIND, Status=0xFF00,
               NumberOfRemainingSuboperations=3, NumberOfCompletedSuboperations=2, NumberOfFailedSuboperations=1,
               NumberOfWarningSuboperations=0),
        Command(field=0x8010, responding_to=2, sop_class_uid=FIND, status=0xFF00, remaining=3, completed=2, failed=1,
                warnings=0),
    ),
    "C_MOVE_RQ": (
        filled("C_MOVE", MessageID=3, AffectedSOPClassUID=FIND, Priority=0, MoveDestination="DCMSYNC",
               Identifier=DATA_SET),
        Command(field=0x0021, has_data_set=True, message_id=3, sop_class_uid=FIND, priority=0,
                move_destination="DCMSYNC"),
    ),
    "N_ACTION_RQ": (
        filled("N_ACTION", MessageID=7, RequestedSOPClassUID=PUSH, RequestedSOPInstanceUID=f"{PUSH}.1", ActionTypeID=1,
               ActionInformation=DATA_SET),
        Command(field=0x0130, has_data_set=True, message_id=7, requested_sop_class_uid=PUSH,
                requested_sop_instance_uid=f"{PUSH}.1", action_type_id=1),
    ),
    "N_ACTION_RSP": (
        filled("N_ACTION", MessageIDBeingRespondedTo=7, AffectedSOPClassUID=PUSH, AffectedSOPInstanceUID=f"{PUSH}.1",
               ActionTypeID=1, Status=0),
        Command(field=0x8130, responding_to=7, sop_class_uid=PUSH, sop_instance_uid=f"{PUSH}.1", action_type_id=1,
                status=0),
    ),
    "N_EVENT_REPORT_RQ": (
        filled("N_EVENT_REPORT", MessageID=7, AffectedSOPClassUID=PUSH, AffectedSOPInstanceUID=f"{PUSH}.1",
               EventTypeID=2, EventInformation=DATA_SET),
        Command(field=0x0100, has_data_set=True, message_id=7, sop_class_uid=PUSH, sop_instance_uid=f"{PUSH}.1",
                event_type_id=2),
    ),
    "N_EVENT_REPORT_RSP": (
        filled("N_EVENT_REPORT", MessageIDBeingRespondedTo=7, AffectedSOPClassUID=PUSH,
               AffectedSOPInstanceUID=f"{PUSH}.1", EventTypeID=2, Status=0x0110),
        Command(field=0x8100, responding_to=7, sop_class_uid=PUSH, sop_instance_uid=f"{PUSH}.1", event_type_id=2,
                status=0x0110),
    ),
    "C_CANCEL_RQ": (
        filled("C_CANCEL", MessageIDBeingRespondedTo=9),
        commands.cancel(9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", CASES)
def test_a_command_is_read_as_pynetdicom_wrote_it(message: str) -> None:
    primitive, expected = CASES[message]
    assert commands.decode(theirs(primitive, message)) == expected


@pytest.mark.parametrize("message", CASES)
def test_pynetdicom_reads_a_command_as_it_would_write_it(message: str) -> None:
    primitive, ours = CASES[message]
    read = decode_data_set(BytesIO(commands.encode(ours)), True, True)
    oracle = decode_data_set(BytesIO(theirs(primitive, message)), True, True)
    for data_set in (read, oracle):
        del data_set.CommandGroupLength
        data_set.CommandDataSetType = 0x0101 if data_set.CommandDataSetType == 0x0101 else 1
    assert read == oracle


@pytest.mark.parametrize("message", CASES)
def test_elements_ascend_and_the_group_length_is_right(message: str) -> None:
    octets = commands.encode(CASES[message][1])
    assert struct.unpack_from("<HHII", octets) == (0, 0, 4, len(octets) - 12)
    tags, position = [], 0
    while position < len(octets):
        _, number, length = struct.unpack_from("<HHI", octets, position)
        tags.append(number)
        assert length % 2 == 0
        position += 8 + length
    assert tags == sorted(set(tags))


def test_a_uid_keeps_its_odd_inner_octets_and_loses_its_padding() -> None:
    octets = element(0x0100, b"\1\0") + element(0x1000, b"1.2.3\0x\0") + element(0x0002, b"1.2 ")
    read = commands.decode(octets)
    assert (read.sop_instance_uid, read.sop_class_uid) == ("1.2.3\0x", "1.2")


def test_any_data_set_type_but_0101_announces_one() -> None:
    field = element(0x0100, b"\1\0")
    assert not commands.decode(field + element(0x0800, b"\1\1")).has_data_set
    for value in (b"\0\0", b"\1\0", b"\2\1", b"\xff\xff"):
        assert commands.decode(field + element(0x0800, value)).has_data_set


def test_unknown_and_empty_elements_are_passed_over() -> None:
    octets = element(0x0100, b"\1\0") + element(0x0901, b"\0\0\1\0") + element(0x0110, b"") + element(0x5555, b"zz")
    assert commands.decode(octets) == Command(field=1)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        element(0x0110, b"\1\0"),
        element(0x0100, b"\1\0") + b"\0\0\0",
        element(0x0100, b"\1\0") + struct.pack("<HHI", 0, 0x0110, 0xFFFFFFFF),
        element(0x0100, b"\1\0") + struct.pack("<HHI", 0, 0x0110, 4) + b"\1\0",
        element(0x0100, b"\1\0\0\0"),
        element(0x0100, b"\1"),
    ],
    ids=["nothing", "no field", "half an element", "4 GiB", "cut", "field of 4", "field of 1"],
)
def test_a_malformed_command_set_is_refused(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        commands.decode(octets)


def test_elements_of_other_groups_are_stepped_over() -> None:
    """As Orthanc 1.10.1 answers a C-GET of which something failed."""
    octets = element(0x0100, b"\x10\x80") + element(0x0900, b"\0\xc0")
    more = element(0x0000, b"\x0e\0\0\0", group=8) + element(0x0058, b"1.2.30", group=8)
    assert commands.decode(octets + more) == commands.decode(octets)


_numbers = some.none() | some.integers(0, 0xFFFF)
_uids = some.none() | some.from_regex(r"[0-9](\.[1-9][0-9]{0,4}){1,9}", fullmatch=True)


@given(
    field=some.integers(0, 0xFFFF), has_data_set=some.booleans(), message_id=_numbers, responding_to=_numbers,
    sop_class_uid=_uids, sop_instance_uid=_uids, status=_numbers, remaining=_numbers, completed=_numbers,
    failed=_numbers, warnings=_numbers, priority=_numbers,
    error_comment=some.none() | some.from_regex(r"[a-z]( ?[a-z]){0,9}", fullmatch=True),
)  # fmt: skip
def test_what_is_encoded_is_decoded(**fields: Any) -> None:
    command = Command(**fields)
    assert commands.decode(commands.encode(command)) == command


def test_hostile_octets_are_read_or_refused_and_nothing_else() -> None:
    dice = random.Random(20260103)
    refused = 0
    for _ in range(1000):
        octets = bytearray(commands.encode(dice.choice([case[1] for case in CASES.values()])))
        for _ in range(dice.randint(1, 4)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        try:
            commands.decode(bytes(octets[: dice.choice((len(octets), dice.randrange(len(octets))))]))
        except RemoteProtocolError:
            refused += 1
    assert 0 < refused < 1000


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34", "2.25." + "7" * 59, "9" * 65, "1.ü", ""])
@pytest.mark.parametrize("kind", [CT, "1.2.840.10008.5.1.4.1.1.66", ""])
def test_a_store_request_is_encoded_as_any_command(kind: str, uid: str) -> None:
    same = Command(field=commands.C_STORE_RQ, has_data_set=True, message_id=65535, sop_class_uid=kind,
                   sop_instance_uid=uid, priority=0)  # fmt: skip
    assert commands.encode_store(65535, kind, uid) == commands.encode(same)
