"""The DICOM JSON model, with dcm2json as the judge, and pydicom for what dcm2json refuses."""

import base64
import io
import json
import math
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_store
import pydicom
import pydicom.data
import pytest

from dcmsync.wire import dicomjson
from dcmsync.wire.dicomjson import BulkWord
from dcmsync.wire.events import Contents
from tests.samples import element, part10

EXPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"

# Files that are as they are in the judge's words, but for one thing each, and why.
ODD_UN = {"meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"}  # 9 octets of UN: dcm2json makes them 10
CUT_SHORT = {"DICOMDIR-nooffset"}  # a sequence longer than the file; all of it that is there is the same
NOT_UTF_8 = {"chrSQEncoding.dcm"}  # dcm2json leaves (0008,0005) of items aside, and its output is no UTF-8


def file(data_set: bytes, uid: str = EXPLICIT) -> bytes:
    return part10(data_set, sop_class_uid="1.2", sop_uid="1.3", transfer_syntax_uid=uid)


def dump(octets: bytes, bulk: BulkWord = "base64") -> tuple[dict[str, Any], Contents]:
    contents = Contents(octets)
    parts, trouble = dicomjson.fold(contents.data_set(), bulk, lambda start, length: f"here?{start},{length}")
    assert not trouble
    target = io.BytesIO()
    dicomjson.write(parts, contents.chunks, target.write)
    return json.loads(target.getvalue()), contents


def corpus() -> list[Path]:
    roots = [Path(pydicom.data.__file__).parent, Path(data_store.__file__).parent]
    found = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix not in {".py", ".pyc"})


def differences(ours: dict[str, Any], theirs: dict[str, Any], where: str = "") -> list[str]:
    """The tags that differ beyond what is justified here."""
    found = []
    for tag in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(tag, {}), theirs.get(tag, {})
        if one == other:
            continue
        values = one.get("Value", []), other.get("Value", [])
        if one.get("vr") == other.get("vr") == "SQ" and len(values[0]) == len(values[1]):
            for number, (inside, outside) in enumerate(zip(*values, strict=True)):
                found += differences(inside, outside, f"{where}{tag}[{number}].")
        elif not is_alike(tag, where, one, other):
            found.append(f"{where}{tag}: {one} is not {other}")
    return found


def is_alike(tag: str, where: str, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    vr, values = ours.get("vr"), (ours.get("Value", []), theirs.get("Value", []))
    if vr != theirs.get("vr"):
        return False
    if vr in ("FL", "FD"):  # dcm2json rounds
        return all(math.isclose(one, other, rel_tol=1e-8) for one, other in zip(*values, strict=True))
    if vr == "PN":  # dcm2json leaves out trailing empty components, as PS3.5 §6.2.1.2 allows
        names = [{group: text.rstrip("^") for group, text in value.items() if text.rstrip("^")} for value in values[0]]
        return (names if any(names) else []) == values[1]
    # All text is UTF-8 (PS3.18 §F.2), that of items too; dcm2json says so on the top level only.
    return tag == "00080005" and bool(where) and values[0] == ["ISO_IR 192"]


@pytest.mark.slow
def test_every_file_is_as_dcm2json_has_it(require: Callable[[str], str]) -> None:
    program, compared = require("dcm2json"), 0
    for path in corpus():
        judged = subprocess.run([program, "-q", "-fc", str(path)], capture_output=True, check=False)
        if judged.returncode or path.name in NOT_UTF_8:
            continue
        ours, contents = dump(path.read_bytes())
        found = differences(ours, json.loads(judged.stdout))
        compared += 1
        if path.name in ODD_UN:
            assert [line.partition(":")[0] for line in found] == ["00010001[0].00010002"]
        elif path.name in CUT_SHORT:
            assert (found, contents.state) == ([], "truncated")
        else:
            assert (found, contents.state) == ([], "whole"), path
    assert compared > 150


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_compressed_pixel_data_is_its_value_field_as_pydicom_has_it(name: str) -> None:
    ours, _ = dump((TEST_FILES / name).read_bytes())
    theirs = pydicom.dcmread(TEST_FILES / name).to_json_dict()
    assert ours["7FE00010"] == theirs["7FE00010"]


@pytest.mark.parametrize("vr, raw, expected", [
    (b"LO", b"", {}),
    (b"LO", b"  ", {}),
    (b"LO", b" a \\\\b ", {"Value": ["a", None, "b"]}),
    (b"LT", b" a\\b  ", {"Value": [" a\\b"]}),
    (b"UI", b"1.2\0", {"Value": ["1.2"]}),
    (b"PN", b"A^B=C=D", {"Value": [{"Alphabetic": "A^B", "Ideographic": "C", "Phonetic": "D"}]}),
    (b"PN", b"=C\\", {"Value": [{"Ideographic": "C"}, None]}),
    (b"IS", b"+007 ", {"Value": [7]}),
    (b"IS", b"1A", {"Value": ["1A"]}),
    (b"IS", b"12345678901234567890", {"Value": ["12345678901234567890"]}),
    (b"DS", b"1.50\\.5\\-5.\\1E3\\", {"Value": [1.5, 0.5, -5, 1000.0, None]}),
    (b"DS", b"1e999\\NaN\\1_0\\.", {"Value": ["1e999", "NaN", "1_0", "."]}),
    (b"FL", struct.pack("<3f", 0.5, math.inf, -math.inf), {"Value": [0.5, "Infinity", "-Infinity"]}),
    (b"FD", struct.pack("<d", math.nan), {"Value": ["NaN"]}),
    (b"US", b"\1\0\2\0", {"Value": [1, 2]}),
    (b"US", b"\1", {}),
    (b"AT", b"\x28\0\x10\0\xe0\x7f\x10\0", {"Value": ["00280010", "7FE00010"]}),
])  # fmt: skip
def test_values_become_what_annex_f_says(vr: bytes, raw: bytes, expected: dict[str, Any]) -> None:
    head = struct.pack("<HH2sH", 0x0009, 0x1001, vr, len(raw))
    ours, _ = dump(file(head + raw))
    assert ours == {"00091001": {"vr": vr.decode(), **expected}}


def test_integers_beyond_double_precision_are_strings() -> None:
    head = struct.pack("<HH2sHL", 0x0009, 0x1001, b"UV", 0, 16)
    ours, _ = dump(file(head + struct.pack("<2Q", 2**53, 2**64 - 1)))
    assert ours["00091001"]["Value"] == [2**53, str(2**64 - 1)]


def test_digits_stay_as_they_are() -> None:
    contents = Contents(file(element(0x00181164, b"DS", "0.50\\1.000")))
    parts, _ = dicomjson.fold(contents.data_set(), "cut", lambda start, length: "")
    assert parts == [b'{"00181164":{"vr":"DS","Value":[0.50,1.000]}}']


def test_text_is_utf_8_and_says_so() -> None:
    name = element(0x00100010, b"PN", "Ä".encode("latin-1"))
    ours, _ = dump(file(element(0x00080005, b"CS", "ISO_IR 100") + name))
    assert ours == {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
                    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Ä"}]}}


def test_members_ascend_and_the_first_of_two_counts() -> None:
    data_set = element(0x00100020, b"LO", "1") + element(0x00080060, b"CS", "CT") + element(0x00100020, b"LO", "2")
    ours, _ = dump(file(data_set + element(0x00100000, b"UL", bytes(4))))
    assert list(ours) == ["00080060", "00100020"]
    assert ours["00100020"]["Value"] == ["1"]


def test_big_endian_words_become_little_endian() -> None:
    head = struct.pack(">HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 400)
    ours, _ = dump(file(head + struct.pack(">200H", *range(200)), BIG))
    assert base64.b64decode(ours["7FE00010"]["InlineBinary"]) == struct.pack("<200H", *range(200))


@pytest.mark.parametrize("length, is_long", [(256, False), (258, True)])
def test_bulk_data_is_cut_or_whole_or_left_out(length: int, is_long: bool) -> None:
    octets = file(element(0x00100020, b"LO", "1") + element(0x7FE00010, b"OW", bytes(length)))
    whole = base64.b64encode(bytes(length)).decode()
    cut = {"BulkDataURI": f"here?{len(octets) - length},{length}"} if is_long else {"InlineBinary": whole}
    assert dump(octets, "cut")[0]["7FE00010"] == {"vr": "OW", **cut}
    assert dump(octets, "base64")[0]["7FE00010"] == {"vr": "OW", "InlineBinary": whole}
    assert list(dump(octets, "none")[0]) == ["00100020"]


def test_an_object_that_is_too_large_ends_well_formed() -> None:
    item = element(0x00080100, b"SH", "A")
    item = bytes.fromhex("feff00e0") + len(item).to_bytes(4, "little") + item
    contents = Contents(file(element(0x00081140, b"SQ", item * 1000)))
    parts, trouble = dicomjson.fold(contents.data_set(), "cut", lambda start, length: "", max_octets=20_000)
    assert "memory" in trouble
    assert len(json.loads(b"".join(map(bytes, parts)))["00081140"]["Value"]) < 1000  # type: ignore[arg-type]


def test_turning_twice_changes_nothing() -> None:
    octets = bytes(range(27))
    for unit in (1, 2, 4, 8):
        assert dicomjson.turned(dicomjson.turned(octets, unit), unit) == octets
    assert dicomjson.turned(b"\1\2\3", 2) == b"\2\1\3"
