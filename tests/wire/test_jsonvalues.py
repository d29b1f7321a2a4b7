"""Tests of wire/jsonvalues.py: what servers write as DICOM JSON, against pydicom's reading of it."""

import json

import pytest
from pydicom.dataset import Dataset

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dataset import decode_identifier, encode_identifier, tag_of
from dcmsync.wire.jsonvalues import objects, reader


def read(thing: dict[str, object], *keywords: str) -> dict[str, object]:
    return reader(map(tag_of, keywords))(thing)


def test_values_are_those_that_a_dimse_answer_gives() -> None:
    keys = {
        "StudyDate": "20240131", "PatientName": "Müller^Jürgen=山田^太郎", "NumberOfStudyRelatedInstances": "412",
        "ModalitiesInStudy": "CT\\SR", "PatientWeight": "70.5", "StudyInstanceUID": "1.2.3", "StudyDescription": "A B",
    }  # fmt: skip
    identifier = encode_identifier(keys, "STUDY", "1.2.840.10008.1.2.1")
    spoken = decode_identifier(identifier, "1.2.840.10008.1.2.1", wanted=frozenset(map(tag_of, keys)))
    dataset = Dataset()
    for keyword, value in spoken.items():
        setattr(dataset, keyword, value)
    assert read(json.loads(dataset.to_json()), *keys) == spoken


@pytest.mark.parametrize(
    ("keyword", "member", "value"),
    [
        ("StudyDescription", {"vr": "LO"}, None),
        ("StudyDescription", {"vr": "LO", "Value": []}, None),
        ("StudyDescription", {"vr": "LO", "Value": [None]}, None),
        ("StudyDescription", {"vr": "LO", "Value": None}, None),
        ("StudyDescription", {"vr": "LO", "Value": [{}]}, None),
        ("StudyDescription", {"vr": "LO", "Value": "bare "}, "bare"),
        ("StudyDescription", {"Value": ["no vr"]}, "no vr"),
        ("StudyDescription", {"vr": "LO", "Value": [True]}, None),
        ("PatientID", {"vr": "LO", "Value": [17]}, "17"),
        ("PatientName", {"vr": "PN", "Value": [{"Alphabetic": "Doe^J "}]}, "Doe^J"),
        ("PatientName", {"vr": "PN", "Value": [{"Ideographic": "山田", "Phonetic": "やまだ"}]}, "=山田=やまだ"),
        ("PatientName", {"vr": "PN", "Value": ["Doe^J"]}, "Doe^J"),
        ("PatientName", {"vr": "PN", "Value": [{"Alphabetic": None}]}, None),
        ("NumberOfStudyRelatedInstances", {"vr": "IS", "Value": ["412"]}, 412),
        ("NumberOfStudyRelatedInstances", {"vr": "IS", "Value": [412.0]}, 412),
        ("NumberOfStudyRelatedInstances", {"vr": "IS", "Value": ["many"]}, "many"),
        ("NumberOfStudyRelatedInstances", {"vr": "IS", "Value": ["1_0"]}, "1_0"),
        ("PatientWeight", {"vr": "DS", "Value": ["70.5"]}, 70.5),
        ("PatientWeight", {"vr": "DS", "Value": [70]}, 70.0),
        ("PatientWeight", {"vr": "DS", "Value": ["inf"]}, "inf"),
        ("Rows", {"vr": "US", "Value": ["512"]}, 512),
        ("ModalitiesInStudy", {"vr": "CS", "Value": ["CT", None, {}]}, ["CT", "", ""]),
        ("ModalitiesInStudy", {"vr": "CS", "Value": ["CT\\SR"]}, ["CT", "SR"]),
        ("ImageType", {"vr": "UN", "Value": ["A"]}, ["A"]),
        ("PixelData", {"vr": "OW", "BulkDataURI": "http://elsewhere/"}, None),
        ("PixelData", {"vr": "OW", "InlineBinary": "AAAA"}, None),
        ("RequestAttributesSequence", {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["S"]}}]}, None),
        ("PatientComments", {"vr": "LT", "Value": [" two\\parts "]}, " two\\parts"),
    ],
)
def test_what_servers_write_is_read_as_plain_values(keyword: str, member: object, value: object) -> None:
    thing = {f"{tag_of(keyword):08X}": member}
    assert read(thing, keyword) == ({} if value is None else {keyword: value})


def test_tags_in_lower_case_are_tags() -> None:
    assert read({"0020000d": {"vr": "UI", "Value": ["1.2"]}}, "StudyInstanceUID") == {"StudyInstanceUID": "1.2"}


def test_only_what_is_wanted_is_read() -> None:
    assert read({"00100020": {"vr": "LO", "Value": ["P"]}}, "StudyDate") == {}


@pytest.mark.parametrize("member", [None, [], "text", 5])
def test_a_member_that_is_no_object_is_no_value(member: object) -> None:
    assert read({"00100020": member}, "PatientID") == {}


@pytest.mark.parametrize("octets", [b"", b"{}", b"[1]", b"<html>", b"[{]", b"[" * 100_000, b'[{"a":1}', b"null"])
def test_what_is_no_array_of_objects_is_said_to_be_none(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no DICOM JSON"):
        objects(octets)
