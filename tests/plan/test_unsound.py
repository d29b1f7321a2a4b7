"""What is said of files that are no whole instances."""

import os
from base64 import b64decode

import pytest

from dcmsync.contract import Holding, Stamp
from dcmsync.plan.unsound import is_trouble, may_be_meant, outcome
from dcmsync.records.stream import encode, read_record
from dcmsync.transfer.works import work_of


def holding(**given: object) -> Holding:
    stamp = Stamp(size=7, mtime_ns=1, device=1, inode=1)
    return Holding(**{"path": "a", "stamp": stamp, "state": "truncated", **given})  # type: ignore[arg-type]


UIDS = {"study_uid": "1.2", "series_uid": "1.2.3", "sop_instance_uid": "1.2.3.4"}


@pytest.mark.parametrize(
    ("given", "is_one"),
    [
        ({"state": "truncated"}, True),
        ({"state": "rotten", **UIDS}, True),
        ({"state": "whole"}, True),
        ({"state": "whole", **UIDS}, False),
        ({"state": "not dicom"}, False),
    ],
)
def test_what_is_trouble(given: dict[str, object], is_one: bool) -> None:
    assert is_trouble(holding(**given)) == is_one


@pytest.mark.parametrize(
    ("keys", "may"),
    [
        ({}, True),
        ({"PatientID": "P*"}, True),
        ({"PatientID": "Q*"}, False),
        ({"PatientID": ""}, True),
        ({"StudyDate": "20240101-"}, True),
        ({"ModalitiesInStudy": "CT"}, True),
        ({"ModalitiesInStudy": "MR"}, False),
        ({"Modality": "MR"}, False),
        ({"StudyInstanceUID": "1.2"}, True),
        ({"StudyInstanceUID": "9,1.2"}, True),
        ({"StudyInstanceUID": "9\\1.2"}, True),
        ({"StudyInstanceUID": "9"}, False),
        ({"SOPInstanceUID": "9"}, True),
        ({"PatientID": "P*", "SeriesInstanceUID": "9"}, False),
    ],
)
def test_what_may_be_meant(keys: dict[str, str], may: bool) -> None:
    known = holding(study_uid="1.2", series_uid="1.2.3", attributes={"PatientID": "P1", "Modality": "CT"})
    assert may_be_meant(known, keys) == may


def test_the_record_is_sound_and_says_what_is_known() -> None:
    line = encode(outcome(holding(reason="ends too early", **UIDS), "./in"))
    record = read_record(line, 1)
    work = work_of(record, 1)  # type: ignore[arg-type]
    assert work is not None and work.source == "./in"
    assert b'"reason":"truncated","message":"ends too early"' in line


def test_a_nameless_file_is_no_work() -> None:
    for known in [{}, {"study_uid": "1.2"}]:
        record = read_record(encode(outcome(holding(state="whole", **known), "./in")), 1)
        assert work_of(record, 1) is None  # type: ignore[arg-type]


def test_a_path_that_is_no_text_comes_with_its_octets() -> None:
    record = outcome(holding(path=os.fsdecode(b"M\xfcller/1")), "./in")
    assert record["path"] == "M\ufffdller/1"
    assert b64decode(str(record["path_octets"])) == b"M\xfcller/1"
    assert "path_octets" not in outcome(holding(path="Müller/1"), "./in")
