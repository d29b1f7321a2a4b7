"""Lines for people, with dcmdump as the judge of tags, VRs, lengths and counts."""

import base64
import io
import re
import struct
import subprocess
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import data_store
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.wire import dicomjson, listing
from dcmsync.wire.dicomjson import BulkWord
from dcmsync.wire.events import Contents
from tests.samples import element, part10

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
ROW = re.compile(r" *\(([0-9a-f]{4}),([0-9a-f]{4})\) (..) .* # +(u/l|\d+), *(\d+) \S")
ODD_UN = {"meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"}  # 9 octets of UN: dcmdump makes them 10
TWICE = {"winter.dcm"}  # has its SOP Instance UID twice: dcmdump shows it once


def file(data_set: bytes) -> bytes:
    return part10(data_set, sop_class_uid="1.2", sop_uid="1.3")


def dump(octets: bytes, bulk: BulkWord = "cut") -> list[str]:
    contents = Contents(octets)
    target = io.BytesIO()
    for line in listing.lines(chain(contents.meta(), contents.data_set()), bulk):
        dicomjson.write(line, contents.chunks, target.write)
        target.write(b"\n")
    return target.getvalue().decode().split("\n")[:-1]


def data_set_of(data_set: bytes, bulk: BulkWord = "cut") -> list[str]:
    return [line for line in dump(file(data_set), bulk) if not line.startswith("(0002,")]


def rows(lines: list[str]) -> list[tuple[str, ...]]:
    """Tag, VR, length and count of each element and item; delimiters are left out, as we do."""
    found = []
    for line in lines:
        match = ROW.match(line)
        if not match or (match[1] == "fffe" and match[2] != "e000"):
            continue
        group, number, vr, length, count = match.groups()
        vr = {"??": "UN", "up": "UL", "xs": "US"}.get(vr, vr)  # dcmdump's words for what it doesn't know
        if (group, number, length) == ("7fe0", "0010", "u/l"):
            vr = "OB"  # dcmdump's word for encapsulated pixel data that the file calls OW
        is_counted = length not in ("0", "u/l") and vr not in ("SQ", "na", "pi")
        found.append((group + number, vr, length, count if is_counted else ""))
    return found


@pytest.mark.slow
def test_every_file_has_the_rows_of_dcmdump(require: Callable[[str], str]) -> None:
    program, compared = require("dcmdump"), 0
    roots = [Path(pydicom.data.__file__).parent, Path(data_store.__file__).parent]
    for path in sorted(path for root in roots for path in root.rglob("*") if path.is_file()):
        judged = subprocess.run([program, "-q", "-Un", "+Qo", str(path)], capture_output=True, check=False)
        if judged.returncode or path.name in ODD_UN | TWICE:
            continue
        theirs = rows(judged.stdout.decode("latin-1").split("\n"))
        ours = rows(dump(path.read_bytes()))
        assert len(ours) == len(theirs) and ours == theirs, path
        compared += 1
    assert compared > 200


def test_a_line_has_the_columns_of_dcmdump() -> None:
    assert data_set_of(element(0x00100010, b"PN", "Doe^John")) == [
        "(0010,0010) PN [Doe^John]                               #   8, 1 PatientName"]


def test_what_is_nested_is_indented() -> None:
    inner = element(0x00080100, b"SH", "A")
    item = bytes.fromhex("feff00e0") + len(inner).to_bytes(4, "little") + inner
    lines = data_set_of(element(0x00081140, b"SQ", item) + element(0x00091001, b"LO", ""))
    assert [re.sub(" +", " ", line).rstrip() if not line.startswith(" ") else line[:20] for line in lines] == [
        "(0008,1140) SQ (Sequence with explicit length) # 18, 1 ReferencedImageSequence",
        "  (fffe,e000) na (It", "    (0008,0100) SH [", "(0009,1001) LO (no value available) # 0, 0 Unknown"]


@pytest.mark.parametrize("vr, raw, shown", [
    (b"US", b"\1\0\xff\xff", "1\\65535"), (b"FD", struct.pack("<d", 0.1), "0.1"),
    (b"AT", b"\x28\0\x10\0", "(0028,0010)"),
    (b"OB", b"\0\1", "00\\01"), (b"OW", b"\0\1", "0100"), (b"UN", b"ab", "61\\62"),
    (b"UI", b"1.2\0", "[1.2]"), (b"LO", b"x\\y ", "[x\\y]"),
])  # fmt: skip
def test_values_look_like_dcmdumps(vr: bytes, raw: bytes, shown: str) -> None:
    assert data_set_of(element(0x00091001, vr, raw))[0].split("#")[0].rstrip() == f"(0009,1001) {vr.decode()} {shown}"


@given(st.text(max_size=40), st.sampled_from([b"LO", b"UT", b"CS", b"PN", b"UI", b"DS"]))
def test_nothing_moves_a_terminal(text: str, vr: bytes) -> None:
    lines = data_set_of(element(0x00080005, b"CS", "ISO_IR 192") + element(0x00091001, vr, text), "base64")
    assert len(lines) == 2 and lines[1].isprintable()


def test_escapes_say_what_was_there() -> None:
    assert listing.safe("\x1b[2J\n\u202e\U000e0001Ä\udcff") == "\\x1b[2J\\x0a\\u202e\\U000e0001Ä\\udcff"


def test_long_values_are_cut_unless_all_is_wanted() -> None:
    text, pixels = "x" * 1000, bytes(1000)
    octets = element(0x00204000, b"UT", text) + element(0x7FE00010, b"OB", pixels)
    cut = data_set_of(octets)
    assert f"[{'x' * 63}... #" in cut[0] and cut[1].startswith("(7fe0,0010) OB 00\\00\\00") and "... # 1000," in cut[1]
    whole = data_set_of(octets, "base64")
    assert f"[{text}]" in whole[0] and base64.b64encode(pixels).decode() in whole[1]
    assert [line[:11] for line in data_set_of(octets, "none")] == ["(0020,4000)"]


def test_a_value_that_the_standard_allows_is_never_cut() -> None:
    assert f"[{'1' * 64}]" in data_set_of(element(0x00080018, b"UI", "1" * 64))[0]


def test_fragments_are_shown_or_left_out() -> None:
    octets = (TEST_FILES / "JPEG2000.dcm").read_bytes()
    assert [line[2:15] for line in dump(octets)[-2:]] == ["(fffe,e000) p", "(fffe,e000) p"]
    start = octets.index(b"\xff\x4f\xff\x51")
    assert base64.b64encode(octets[start : start + 250]).decode() in dump(octets, "base64")[-1]
    assert not any("7fe0" in line or "fffe,e000) pi" in line for line in dump(octets, "none"))
