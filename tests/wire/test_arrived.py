"""Whether octets that arrived are the instance that was announced."""

import pytest

from dcmsync.wire.arrived import SERIES_INSTANCE_UID, SOP_CLASS_UID, flaw, judge
from dcmsync.wire.source import Distant
from tests.endpoints.landing_run import EXPLICIT, SECONDARY, data_set

UIDS = {"sop_instance_uid": "1.2.3.4", "study_uid": "1.2", "series_uid": "1.2.3"}


@pytest.mark.parametrize("before", [b"", b"x" * 77])
@pytest.mark.parametrize("is_distant", [True, False])
def test_the_instance_that_was_announced_is_taken(before: bytes, is_distant: bool) -> None:
    octets = before + data_set("1.2.3.4", octets=9000)
    source = Distant(lambda at, length: octets[at : at + length], len(octets)) if is_distant else octets
    judged = judge(source, EXPLICIT, offset=len(before), **UIDS)
    assert (judged.reason, judged.message) == ("", "")
    assert (judged.uid(SOP_CLASS_UID), judged.uid(SERIES_INSTANCE_UID)) == (SECONDARY, "1.2.3")
    assert judged.uid(0x00100020) == ""


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"sop_instance_uid": "9"}, "mismatch", "another SOP Instance UID than was announced"),
        ({"study_uid": "9"}, "mismatch", "another Study Instance UID than was asked for"),
        ({"series_uid": "9"}, "mismatch", "another Series Instance UID than was asked for"),
        ({"study_uid": "", "series_uid": ""}, "", ""),
    ],
)
def test_another_instance_is_told_apart(changes: dict[str, str], reason: str, message: str) -> None:
    judged = judge(data_set("1.2.3.4"), EXPLICIT, **{**UIDS, **changes})
    assert judged.reason == reason
    assert message in judged.message


def test_less_than_all_says_where_it_ends() -> None:
    octets = b"head" + data_set("1.2.3.4")
    judged = judge(octets[:-1], EXPLICIT, offset=4, **UIDS)
    assert judged.reason == "truncated"
    assert f"at octet {len(octets) - 4 - 112}: " in judged.message


def test_an_odd_encoding_is_noted() -> None:
    implicit = bytes.fromhex("0800180008000000") + b"1.2.3.4\0"
    judged = judge(implicit, EXPLICIT, sop_instance_uid="1.2.3.4", study_uid="", series_uid="")
    assert judged.reason == ""
    assert "1.2.840.10008.1.2," in judged.message


def test_only_what_more_octets_cannot_mend_is_a_flaw() -> None:
    octets = data_set("1.2.3.4")
    for length in range(20, len(octets) + 1):
        assert flaw(octets[:length], EXPLICIT) == ""
    assert flaw(b"\xff" * 100, EXPLICIT) != ""
    assert flaw(octets * 12, EXPLICIT) != ""
    assert flaw(b"\xff" * 100, "1.2.840.10008.1.2.1.99") == ""
    assert flaw(b"head" + octets, EXPLICIT, offset=4) == ""
