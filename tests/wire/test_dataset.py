"""Identifiers: what pydicom reads is what we read, in every character set; and hostile octets are refused, or read."""

import math
import os
import random
import struct
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode as their_decode
from pynetdicom.dsutils import encode as their_encode

from dcmsync.errors import RemoteProtocolError, UsageError
from dcmsync.wire.dataset import (
    check_character_set,
    decode_identifier,
    decode_values,
    described,
    encode_identifier,
    encode_values,
    entry,
    keywords,
    tag_of,
)

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
SYNTAXES = {"implicit": IMPLICIT, "explicit": EXPLICIT, "big endian": BIG}
CHARSET_FILES = sorted(Path(os.path.dirname(pydicom.__file__), "data", "charset_files").glob("*.dcm"))
TEXT_VRS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")

every_syntax = pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)


def element(tag: int, vr: str, octets: bytes, syntax: str = EXPLICIT) -> bytes:
    order = ">" if syntax == BIG else "<"
    octets += b" " * (len(octets) % 2)
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<L", len(octets)) + octets
    if vr in ("OB", "OW", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"):
        return head + vr.encode() + b"\0\0" + struct.pack(order + "L", len(octets)) + octets
    return head + vr.encode() + struct.pack(order + "H", len(octets)) + octets


def by_pydicom(data_set: Dataset, syntax: str) -> bytes:
    octets = their_encode(data_set, syntax == IMPLICIT, syntax != BIG)
    assert octets is not None
    return octets


def plain(value: object) -> str:
    """pydicom's value as one text."""
    if isinstance(value, pydicom.multival.MultiValue):
        return "\\".join(plain(part) for part in value)
    return str(value)


def joined(value: object) -> str:
    return "\\".join(value) if isinstance(value, list) else str(value)


# Character sets


@pytest.mark.parametrize("path", CHARSET_FILES, ids=lambda path: path.name)
def test_text_in_every_character_set_is_what_pydicom_reads(path: Path) -> None:
    data_set = pydicom.dcmread(path)
    octets = path.read_bytes()
    start = 144 + data_set.file_meta.FileMetaInformationGroupLength
    values = decode_identifier(octets[start:], EXPLICIT)
    compared = 0
    for one in data_set:
        if one.VR in TEXT_VRS and one.value and one.keyword:
            assert joined(values[one.keyword]) == plain(one.value).rstrip("= "), one.keyword
            compared += 1
    assert compared or path.name.startswith("chrSQ")


def test_all_of_pydicoms_character_set_files_were_read() -> None:
    assert len(CHARSET_FILES) == 17


def test_a_backslash_inside_a_character_separates_nothing() -> None:
    name = "表示"  # its first character ends with 0x5C in Shift JIS, and in GB18030 some do
    for declared, codec in (("ISO_IR 13", "shift_jis"), ("GB18030", "gb18030")):
        octets = element(0x00080005, "CS", declared.encode()) + element(0x00100020, "LO", name.encode(codec))
        assert decode_identifier(octets, EXPLICIT)["PatientID"] == name


@pytest.mark.parametrize(
    ("declared", "octets", "expected"),
    [
        (None, "Müller".encode(), "Müller"),  # not declared, though it ought to be
        (None, "Müller".encode("latin-1"), "Müller"),
        ("", "Müller".encode("latin-1"), "Müller"),
        ("ISO_IR 192", b"M\xfcller", "M\ufffdller"),  # declared, but not so
        ("ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        ("ISO_IR 203", "\u20ac".encode("iso8859-15"), "\u20ac"),
    ],
)
def test_text_is_decoded_as_well_as_can_be(declared: str | None, octets: bytes, expected: str) -> None:
    first = b"" if declared is None else element(0x00080005, "CS", declared.encode())
    assert decode_identifier(first + element(0x00100010, "PN", octets), EXPLICIT)["PatientName"] == expected


@pytest.mark.parametrize(
    "declared",
    [
        "ISO_IR 999", "nonsense", "\\\\\\", "ISO 2022 IR 6\\ISO_IR 192", "ISO_IR 192\\ISO 2022 IR 87", "\xff\xfe",
        "UTF-8", "ISO_IR\0 100", "a\0b\\ISO 2022 IR 87",
    ],
)
def test_no_declaration_makes_text_fail(declared: str) -> None:
    for octets in (b"M\xfcller", b"\x1b$B\x3b\x33", b"\x1b\x1b\x1b", b"\xff" * 8, b"\x1b$)C\xd1\xce="):
        for tag, vr in ((0x00100010, "PN"), (0x00100020, "LO"), (0x00104000, "LT")):
            encoded = element(0x00080005, "CS", declared.encode("latin-1")) + element(tag, vr, octets)
            assert isinstance(decode_identifier(encoded, EXPLICIT).get(entry(tag).keyword), str)


# Values

VALUES: dict[str, tuple[object, object]] = {
    "PatientName": ("Doe^Jane=X=Y", "Doe^Jane=X=Y"),
    "PatientID": ("P 1", "P 1"),
    "StudyInstanceUID": ("1.2.3", "1.2.3"),
    "StudyDate": ("20240131", "20240131"),
    "StudyTime": ("101500.5", "101500.5"),
    "SeriesNumber": (-7, -7),
    "SliceThickness": ("1.5", 1.5),
    "PixelSpacing": (["0.5", "0.25"], [0.5, 0.25]),
    "ModalitiesInStudy": (["CT", "PT"], ["CT", "PT"]),
    "ImageType": ("ORIGINAL", ["ORIGINAL"]),  # a list wherever PS3.6 allows more than one
    "Rows": (512, 512),
    "PixelIntensityRelationshipSign": (-1, -1),
    "TotalPixelMatrixColumns": (70_000, 70_000),
    "ReferencePixelX0": (-70_000, -70_000),
    "RecommendedDisplayFrameRateInFloat": (1.5, 1.5),
    "EventTimeOffset": (0.1, 0.1),
    "FrameIncrementPointer": ([0x00181063, 0x00181065], ["00181063", "00181065"]),
    "ImageComments": ("a\\b  c", "a\\b  c"),
    "StudyComments": ("text", "text"),
    "RetrieveURL": ("http://there", "http://there"),
    "ExtendedOffsetTable": (b"\0" * 8, None),
    "PatientAge": ("060Y", "060Y"),
    "RetrieveAETitle": ("PACS", ["PACS"]),
    "AcquisitionDateTime": ("20240131101500", "20240131101500"),
}


@every_syntax
@pytest.mark.parametrize("keyword", VALUES)
def test_a_value_of_each_kind_is_plain(keyword: str, syntax: str) -> None:
    given_value, expected = VALUES[keyword]
    if keyword not in pydicom.datadict.keyword_dict:
        pytest.skip(f"pydicom has no {keyword}")
    data_set = Dataset()
    setattr(data_set, keyword, given_value)
    read = decode_identifier(by_pydicom(data_set, syntax), syntax)
    assert read == ({} if expected is None else {keyword: expected})
    assert type(read.get(keyword)) is type(expected)


@pytest.mark.parametrize(
    ("tag", "vr", "octets", "expected"),
    [
        (0x00200011, "IS", b" 7 ", 7),
        (0x00200011, "IS", b"1.0", "1.0"),
        (0x00200011, "IS", b"many", "many"),
        (0x00200011, "IS", b"1_0", "1_0"),
        (0x00201208, "IS", b"99999999999999999999", "99999999999999999999"),
        (0x00200011, "IS", b"\xb2", "\xb2"),
        (0x00180050, "DS", b"1e3", 1000.0),
        (0x00180050, "DS", b"nan", "nan"),
        (0x00180050, "DS", b"1e999", "1e999"),
        (0x00180050, "DS", b"1_0", "1_0"),
        (0x00280010, "US", b"\1", None),
        (0x00280010, "US", b"\1\0\2\0", [1, 2]),
        (0x00100020, "LO", b"  padded \0", "padded"),
        (0x00100020, "LO", b"A\\B", ["A", "B"]),  # one value by PS3.6, two by the peer
        (0x00080061, "CS", b"CT\\\\PT", ["CT", "", "PT"]),
        (0x00080061, "CS", b"\\\\", None),
        (0x00104000, "LT", b"one\\text  ", "one\\text"),
        (0x00100020, "LO", b"   ", None),
        (0x0020000D, "UI", b"1.2.3\0", "1.2.3"),
    ],
)
def test_what_the_vr_does_not_promise_is_kept_as_text_or_left_out(
    tag: int, vr: str, octets: bytes, expected: object
) -> None:
    if vr == "US" and len(octets) == 1:
        read = decode_values({tag: (vr, octets)}, EXPLICIT)
    else:
        read = decode_identifier(element(tag, vr, octets), EXPLICIT)
    assert read.get(entry(tag).keyword) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("tag", "vr", "kind"), [(0x00189073, "FD", "<d"), (0x00089459, "FL", "<f")])
def test_a_binary_number_that_json_does_not_know_is_no_number(tag: int, vr: str, kind: str, value: float) -> None:
    read = decode_identifier(element(tag, vr, struct.pack(kind, value)), EXPLICIT)
    assert not isinstance(read.get(entry(tag).keyword), float)


def test_what_is_wanted_is_all_that_is_read() -> None:
    octets = element(0x00100020, "LO", b"P1") + element(0x0020000D, "UI", b"1.2")
    assert decode_identifier(octets, EXPLICIT, wanted=frozenset({0x0020000D})) == {"StudyInstanceUID": "1.2"}


def test_empty_ones_are_kept_when_asked() -> None:
    octets = element(0x00100020, "LO", b"") + element(0x0020000D, "UI", b"1.2")
    assert decode_identifier(octets, EXPLICIT) == {"StudyInstanceUID": "1.2"}
    assert decode_identifier(octets, EXPLICIT, keep_empty=True) == {"PatientID": "", "StudyInstanceUID": "1.2"}


@every_syntax
def test_sequences_are_stepped_over_however_they_are_nested(syntax: str) -> None:
    inner, outer, data_set = Dataset(), Dataset(), Dataset()
    inner.CodeValue = "inner"
    outer.ConceptNameCodeSequence = [inner, inner]
    data_set.PatientID = "P1"
    data_set.RequestAttributesSequence = [outer, Dataset()]
    data_set.SeriesNumber = 3
    for undefined in (False, True):
        for sequence in (data_set["RequestAttributesSequence"], outer["ConceptNameCodeSequence"]):
            sequence.is_undefined_length = undefined
        for item in (inner, outer):
            item.is_undefined_length_sequence_item = undefined
        assert decode_identifier(by_pydicom(data_set, syntax), syntax) == {"PatientID": "P1", "SeriesNumber": 3}


def test_an_unknown_tag_is_named_by_its_number_and_an_un_by_the_dictionary() -> None:
    octets = element(0x00091001, "LO", b"private") + element(0x00100020, "UN", b"P1")
    assert decode_identifier(octets, EXPLICIT) == {"00091001": "private", "PatientID": "P1"}


# What we ask


@every_syntax
def test_pydicom_reads_our_identifier(syntax: str) -> None:
    keys = {"PatientName": "M\u00fcller*", "StudyDate": "20240101-", "SeriesNumber": "7",
            "StudyInstanceUID": "1.2\\1.3"}  # fmt: skip
    octets = encode_identifier(keys, "STUDY", syntax)
    read = their_decode(BytesIO(octets), syntax == IMPLICIT, syntax != BIG)
    assert read.QueryRetrieveLevel == "STUDY"
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert str(read.PatientName) == "M\u00fcller*"
    assert list(read.StudyInstanceUID) == ["1.2", "1.3"]
    assert [one.tag for one in read] == sorted(one.tag for one in read)


def test_the_character_set_is_always_asked_for() -> None:
    read = their_decode(BytesIO(encode_identifier({"PatientID": ""}, "STUDY", EXPLICIT)), False, True)
    assert read.SpecificCharacterSet is None or read.SpecificCharacterSet == ""
    assert "SpecificCharacterSet" in read and "PatientID" in read


@every_syntax
def test_an_answer_comes_back_as_it_went(syntax: str) -> None:
    values: dict[str, object] = {
        "PatientName": "山田^太郎", "StudyInstanceUID": "1.2.3", "ModalitiesInStudy": ["CT", "PT"], "SeriesNumber": 3,
        "Rows": 512, "SliceThickness": 1.5, "RecommendedDisplayFrameRateInFloat": 2.5,
    }  # fmt: skip
    read = decode_identifier(encode_values(values, "SERIES", syntax), syntax)
    assert {key: read[key] for key in values} == values
    assert read["QueryRetrieveLevel"] == "SERIES"


def test_a_keyword_that_is_none_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean PatientName"):
        encode_identifier({"PatientNam": ""}, "STUDY", EXPLICIT)
    assert tag_of("00100010") == tag_of("PatientName") == 0x00100010


# Hostile octets

GOOD = encode_values({"PatientID": "P1", "StudyInstanceUID": "1.2", "ModalitiesInStudy": ["CT"]}, "STUDY", EXPLICIT)


@pytest.mark.parametrize(
    "octets",
    [
        b"\xff" * 40,
        GOOD[:-1],
        GOOD + b"\x10\0",
        b"\x10\0\x10\0PN\xff\xff",
        b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff",
        b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 50,
        b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x11\xe0\0\0\0\0",
        (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 50,
        b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xf0\xff\xff\xff",
    ],
)
def test_what_is_no_data_set_is_refused(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no data set"):
        decode_identifier(octets, EXPLICIT)


@pytest.mark.parametrize(("depth", "is_read"), [(15, True), (17, False)])
def test_sequences_are_followed_so_deep_and_no_deeper(depth: int, is_read: bool) -> None:
    opened = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    octets = opened * (depth // 2) + closed * (depth // 2) + element(0x00100020, "LO", b"P1")
    if is_read:
        assert decode_identifier(octets, EXPLICIT) == {"PatientID": "P1"}
    else:
        octets = opened * depth + closed * depth
        with pytest.raises(RemoteProtocolError, match="no data set"):
            decode_identifier(octets, EXPLICIT)


@every_syntax
def test_wounded_octets_are_read_or_refused_and_nothing_else(syntax: str) -> None:
    dice = random.Random(20260104)
    good = encode_values(
        {"PatientName": "山田^太郎", "ModalitiesInStudy": ["CT", "PT"], "Rows": 512, "FrameIncrementPointer": ""},
        "STUDY", syntax,
    )  # fmt: skip
    refused = 0
    for _ in range(1500):
        octets = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            octets[dice.randrange(len(octets))] = dice.choice((0, 0xFF, 0x1B, 0x5C, dice.randrange(256)))
        try:
            decode_identifier(bytes(octets[: dice.choice((len(octets), dice.randrange(len(octets))))]), syntax)
        except RemoteProtocolError:
            refused += 1
    assert 0 < refused < 1500


@given(octets=some.binary(max_size=200), syntax=some.sampled_from(list(SYNTAXES.values())))
def test_any_octets_are_read_or_refused(octets: bytes, syntax: str) -> None:
    try:
        decode_identifier(octets, syntax)
    except RemoteProtocolError:
        return


def test_repeating_groups_are_described_and_private_ones_are_not() -> None:
    assert described(0x60023000) == ("OB or OW", "OverlayData")
    assert described(0x00280106) == ("US or SS", "SmallestImagePixelValue")
    assert described(0x60013000) == described(0x00091001) == ("", "")
    assert {"PatientName", "OverlayData"} <= set(keywords())


@pytest.mark.parametrize("charset, text", [
    ("ISO_IR 100", "Müller^Jürgen"), ("ISO_IR 144", "Й^од"), ("GB18030", "王^小东"), ("ISO_IR 192", "王^小东"),
    ("ISO 2022 IR 6\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎"),
    ("ISO 2022 IR 6\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞"),
])  # fmt: skip
def test_pydicom_reads_a_key_in_the_character_set_that_was_wished(charset: str, text: str) -> None:
    octets = encode_identifier({"PatientName": text, "PatientID": "P1"}, "STUDY", EXPLICIT, character_set=charset)
    read = their_decode(BytesIO(octets), False, True)
    assert str(read.PatientName) == text
    assert read.SpecificCharacterSet == (charset.split("\\") if "\\" in charset else charset)


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO 2022 IR 6\\ISO 2022 IR 87", "nonsense", ""])
def test_what_a_character_set_cannot_say_is_said_in_utf_8(charset: str) -> None:
    octets = encode_identifier({"PatientName": "Йод"}, "STUDY", EXPLICIT, character_set=charset)
    read = their_decode(BytesIO(octets), False, True)
    if "87" not in charset:  # JIS X 0208 has Cyrillic letters
        assert read.SpecificCharacterSet == "ISO_IR 192"
    assert str(read.PatientName) == "Йод"


def test_what_is_ascii_names_no_character_set() -> None:
    octets = encode_identifier({"PatientName": "Doe"}, "STUDY", EXPLICIT, character_set="ISO_IR 144")
    assert not their_decode(BytesIO(octets), False, True).SpecificCharacterSet


@pytest.mark.parametrize("terms", ["ISO_IR 100", "GB18030", "ISO 2022 IR 6\\ISO 2022 IR 87", "ISO_IR 192"])
def test_a_character_set_of_the_standard_is_one(terms: str) -> None:
    check_character_set(terms)


@pytest.mark.parametrize("terms", ["", "latin1", "ISO_IR 999", "ISO_IR 100\\nonsense"])
def test_a_character_set_that_is_none_is_refused(terms: str) -> None:
    with pytest.raises(UsageError, match="is no character set of DICOM"):
        check_character_set(terms)
