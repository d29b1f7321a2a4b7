"""Two contents, element by element."""

import struct
import tracemalloc
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from subprocess import run

import pydicom.data
import pytest

from dcmsync.wire import contrast
from dcmsync.wire.contrast import Difference, differences, leaves, path_text
from dcmsync.wire.events import Contents
from tests.samples import element, part10

EXPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
NAME = element(0x00100010, b"PN", "Doe")


def file(data_set: bytes, uid: str = EXPLICIT) -> bytes:
    return part10(data_set, sop_class_uid="1.2", sop_uid="1.3", transfer_syntax_uid=uid)


def compare(left: bytes, right: bytes, *, with_meta: bool = False) -> list[Difference]:
    contents = Contents(left), Contents(right)
    streams = [leaves(chain(each.meta() if with_meta else (), each.data_set())) for each in contents]
    found, is_all = differences(*streams, (contents[0].chunks, contents[1].chunks))
    assert is_all
    return found


def words(found: list[Difference]) -> list[tuple[str, str]]:
    sides = {(True, True): "both", (True, False): "left", (False, True): "right"}
    return [(path_text(each.path), sides[each.left is not None, each.right is not None]) for each in found]


def sequence(*items: bytes) -> bytes:
    octets = (bytes.fromhex("feff00e0") + len(item).to_bytes(4, "little") + item for item in items)
    return element(0x00081140, b"SQ", b"".join(octets))


def test_what_one_lacks_and_what_it_has_otherwise() -> None:
    left = element(0x00080060, b"CS", "CT") + NAME + element(0x00100020, b"LO", "1")
    right = NAME + element(0x00100020, b"LO", "2") + element(0x00100040, b"CS", "O")
    assert words(compare(file(left), file(right))) == [
        ("00080060", "left"), ("00100020", "both"), ("00100040", "right")]


def test_into_items_by_their_number() -> None:
    left = sequence(NAME, sequence(NAME), NAME)
    right = sequence(NAME, sequence(element(0x00100010, b"PN", "Roe")))
    assert words(compare(file(left), file(right))) == [
        ("00081140", "both"), ("00081140[2].00081140[1].00100010", "both"), ("00081140[3].00100010", "left")]


def test_an_empty_item_is_a_difference() -> None:
    assert words(compare(file(sequence(NAME, b"")), file(sequence(NAME)))) == [("00081140", "both")]
    assert words(compare(file(sequence()), file(b"" + NAME))) == [("00081140", "left"), ("00100010", "right")]


@pytest.mark.parametrize("left, right", [
    (element(0x00100020, b"LO", "1"), struct.pack("<HH2sH", 0x10, 0x20, b"LO", 1) + b"1"),  # padding
    (element(0x00100000, b"UL", bytes(4)) + NAME, NAME + element(0xFFFCFFFC, b"OB", bytes(8))),
    (NAME + element(0x00080060, b"CS", "CT"), element(0x00080060, b"CS", "CT") + NAME),  # order
    (element(0x00100020, b"UN", "1 "), element(0x00100020, b"LO", "1")),
    (element(0x00280010, b"UN", b"\1\0"), element(0x00280010, b"US", 1)),
])  # fmt: skip
def test_what_means_the_same_is_the_same(left: bytes, right: bytes) -> None:
    assert compare(file(left), file(right)) == []


@pytest.mark.parametrize("left, right", [
    (element(0x00280106, b"US", 1), element(0x00280106, b"SS", 1)),
    (element(0x00100020, b"LO", " 1"), element(0x00100020, b"LO", "1")),
    (element(0x00100020, b"LO", ""), b""),
    (element(0x7FE00010, b"OB", b"\0\0"), element(0x7FE00010, b"OB", b"")),
    (NAME + NAME, NAME),
])  # fmt: skip
def test_what_does_not_is_not(left: bytes, right: bytes) -> None:
    last = element(0x7FE10010, b"LO", "x")
    assert len(compare(file(left + last), file(right + last))) == 1


def test_text_is_compared_as_text() -> None:
    left = element(0x00080005, b"CS", "ISO_IR 100") + element(0x00100010, b"PN", "Ä".encode("latin-1"))
    right = element(0x00080005, b"CS", "ISO_IR 192") + element(0x00100010, b"PN", "Ä")
    assert words(compare(file(left), file(right))) == [("00080005", "both")]


@pytest.mark.parametrize("other", ["MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm"])
def test_one_image_in_several_encodings_is_one_image(other: str) -> None:
    assert compare((TEST_FILES / "MR_small.dcm").read_bytes(), (TEST_FILES / other).read_bytes()) == []


@pytest.mark.slow
@pytest.mark.parametrize("option", ["+te", "+tb", "+ti"])
@pytest.mark.parametrize("name", ["CT_small.dcm", "rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm", "rtdose.dcm"])
def test_what_dcmconv_encodes_otherwise_is_the_same(
    require: Callable[[str], str], tmp_path: Path, name: str, option: str
) -> None:
    run([require("dcmconv"), option, str(TEST_FILES / name), str(tmp_path / "other")], check=True)
    ours, other = (TEST_FILES / name).read_bytes(), (tmp_path / "other").read_bytes()
    assert compare(ours, other) == []
    assert all(path.startswith("0002") for path, _ in words(compare(ours, other, with_meta=True)))


def test_bulk_data_is_compared_to_its_last_octet() -> None:
    pixels = bytes(range(256)) * 8000
    left, other = file(element(0x7FE00010, b"OW", pixels)), bytearray(pixels)
    assert compare(left, left) == []
    other[-1] ^= 1
    assert words(compare(left, file(element(0x7FE00010, b"OW", bytes(other))))) == [("7FE00010", "both")]
    big = struct.pack(">HH2sHL", 0x7FE0, 0x0010, b"OW", 0, len(pixels))
    swapped = bytearray(pixels)
    swapped[::2], swapped[1::2] = pixels[1::2], pixels[::2]
    assert compare(left, file(big + swapped, BIG)) == []
    assert len(compare(left, file(big + pixels, BIG))) == 1


def test_fragments_are_compared_one_by_one() -> None:
    octets = (TEST_FILES / "SC_rgb_rle_2frame.dcm").read_bytes()
    assert compare(octets, octets) == []
    other = bytearray(octets)
    other[-20] ^= 1  # in the last fragment
    assert words(compare(octets, bytes(other))) == [("7FE00010[3]", "both")]


def test_too_many_differences_end_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "MAX_DIFFERENCES", 10)
    contents = Contents(file(sequence(*([NAME] * 50)))), Contents(file(NAME))
    streams = [leaves(each.data_set()) for each in contents]
    found, is_all = differences(*streams, (contents[0].chunks, contents[1].chunks))
    assert not is_all and len(found) <= 11


def test_what_is_alike_is_not_kept() -> None:
    octets = file(sequence(*([NAME] * 1000)))
    tracemalloc.start()
    assert compare(octets, octets) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
