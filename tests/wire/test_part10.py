"""The frame of a file: read, and written so that others read it."""

from io import BytesIO

import pydicom
import pytest
from pydicom.filereader import read_file_meta_info

from dcmsync.wire.elements import Walk
from dcmsync.wire.part10 import IMPLEMENTATION_CLASS_UID, Head, file_meta, parse_file, text, walk_file

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
DATA_SET = bytes.fromhex("08001800") + b"UI\x06\x00" + b"1.2.3\0"


def test_what_is_written_is_read_back() -> None:
    meta = file_meta(CT, "1.2.3", EXPLICIT)
    head = parse_file(meta + DATA_SET)
    assert head == Head(
        transfer_syntax_uid=EXPLICIT, data_set_offset=len(meta), sop_class_uid=CT, sop_instance_uid="1.2.3"
    )
    assert walk_file(meta + DATA_SET)[1].is_whole


def test_pydicom_reads_what_is_written() -> None:
    found = pydicom.dcmread(BytesIO(file_meta(CT, "1.2.3", EXPLICIT) + DATA_SET))
    meta = found.file_meta
    assert meta.FileMetaInformationGroupLength == len(file_meta(CT, "1.2.3", EXPLICIT)) - 132 - 12
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, "1.2.3")
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == "DCMSYNC_0_1"
    assert pydicom.uid.UID(IMPLEMENTATION_CLASS_UID).is_valid
    assert found.SOPInstanceUID == "1.2.3"


@pytest.mark.parametrize("length", range(1, 150))
def test_a_cut_within_group_2_is_never_a_head_with_a_data_set(length: int) -> None:
    cut = file_meta(CT, "1.2.3", EXPLICIT)[: 132 + length]
    assert not walk_file(cut)[1].is_whole


def test_a_file_without_a_data_set_is_truncated() -> None:
    assert walk_file(file_meta(CT, "1.2.3", EXPLICIT))[1].state == "truncated"


def test_group_length_is_neither_needed_nor_believed() -> None:
    octets = file_meta(CT, "1.2.3", EXPLICIT) + DATA_SET
    without = octets[:132] + octets[144:]
    wrong = octets[:140] + b"\xff\xff\x00\x00" + octets[144:]
    assert walk_file(without)[1].is_whole
    assert walk_file(wrong)[1].is_whole


def test_a_bare_data_set_is_guessed() -> None:
    head = parse_file(DATA_SET)
    assert isinstance(head, Head)
    assert (head.transfer_syntax_uid, head.data_set_offset, head.is_guessed) == (EXPLICIT, 0, True)
    assert not head.has_prefix


def test_text_is_no_head() -> None:
    verdict = parse_file(b"Once upon a time there was a picture.")
    assert isinstance(verdict, Walk)
    assert verdict.state == "not dicom"


@pytest.mark.parametrize(
    "name", ["no_meta_group_length.dcm", "meta_missing_tsyntax.dcm", "CT_small.dcm", "image_dfl.dcm"]
)
def test_heads_are_as_pydicom_reads_them(name: str) -> None:
    path = str(pydicom.data.get_testdata_file(name))
    expected = read_file_meta_info(path)
    with open(path, "rb") as file:
        head = parse_file(file.read())
    assert isinstance(head, Head)
    assert head.sop_instance_uid == expected.get("MediaStorageSOPInstanceUID", "")
    assert head.transfer_syntax_uid == expected.get("TransferSyntaxUID", head.transfer_syntax_uid)


def test_padding_is_stripped_from_uids() -> None:
    assert text(b"1.2.3\0") == text(b"1.2.3 ") == text(b"1.2.3") == "1.2.3"
