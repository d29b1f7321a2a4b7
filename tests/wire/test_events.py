"""The reader of whole files: hand-made octets, hostile octets, and pydicom as the judge."""

import random
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.wire import events as module
from dcmsync.wire.events import Closed, Contents, Element, Event, Fragment, Item, ItemEnd, Opened
from dcmsync.wire.nesting import MAX_DEPTH
from dcmsync.wire.source import Distant
from tests.samples import element, part10

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
OPEN_ITEM, END_OF_ITEM = bytes.fromhex("feff00e0ffffffff"), bytes.fromhex("feff0de000000000")
END_OF_SEQUENCE = bytes.fromhex("feffdde000000000")


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def opened(tag: int, vr: bytes) -> bytes:
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, 0xFFFFFFFF)


def item(inside: bytes) -> bytes:
    return bytes.fromhex("feff00e0") + len(inside).to_bytes(4, "little") + inside


def file(data_set: bytes, uid: str = EXPLICIT) -> bytes:
    return part10(data_set, sop_class_uid="1.2", sop_uid="1.3", transfer_syntax_uid=uid)


def read(octets: bytes) -> tuple[Contents, list[Event]]:
    contents = Contents(octets)
    list(contents.meta())
    return contents, list(contents.data_set())


def shape(events: list[Event]) -> list[object]:
    """Tags, item numbers and kinds: enough to see the nesting."""
    words = {ItemEnd: "end", Closed: "closed"}
    return [hex(event.tag) if isinstance(event, Element | Opened) else getattr(event, "number", None)
            or words[type(event)] for event in events]


def is_balanced(events: list[Event]) -> bool:
    nest: list[type] = []
    for event in events:
        if isinstance(event, Opened | Item):
            nest.append(type(event))
        elif isinstance(event, ItemEnd | Closed) and (
            not nest or nest.pop() is not (Item if isinstance(event, ItemEnd) else Opened)
        ):
            return False
    return not nest


def test_group_0002_comes_first_and_apart() -> None:
    contents = Contents(file(element(0x00100010, b"PN", "Doe")))
    assert [event.tag for event in contents.meta() if isinstance(event, Element)][:2] == [0x00020000, 0x00020001]
    assert [event.octets for event in contents.data_set() if isinstance(event, Element)] == [b"Doe "]
    assert contents.state == "whole"


@pytest.mark.parametrize("is_delimited", [True, False])
def test_items_are_entered_however_they_end(is_delimited: bool) -> None:
    inner = element(0x00080100, b"SH", "A")
    if is_delimited:
        sequence = opened(0x00081140, b"SQ") + OPEN_ITEM + inner + END_OF_ITEM + item(b"") + END_OF_SEQUENCE
    else:
        sequence = element(0x00081140, b"SQ", item(inner) + item(b""))
    contents, events = read(file(sequence + element(0x00100020, b"LO", "P")))
    assert contents.state == "whole"
    assert shape(events) == ["0x81140", 1, "0x80100", "end", 2, "end", "closed", "0x100020"]


def test_implicit_vr_takes_its_vrs_from_the_dictionary() -> None:
    data_set = (
        implicit(0x00080000, bytes(4)) + implicit(0x00090010, b"ACME") + implicit(0x00091001, b"??")
        + implicit(0x00280103, b"\1\0") + implicit(0x00280106, b"\xff\xff") + implicit(0x60000010, b"\1\0")
        + implicit(0x60003000, b"\0\0") + implicit(0x7FE00010, b"\0\0")
    )
    _, events = read(file(data_set, IMPLICIT))
    assert [event.vr for event in events if isinstance(event, Element)] == [
        "UL", "LO", "UN", "US", "SS", "US", "OW", "OW"]


def test_unknown_of_undefined_length_is_a_sequence_in_implicit_vr() -> None:
    inner = OPEN_ITEM + implicit(0x00100010, b"Doe ") + END_OF_ITEM + END_OF_SEQUENCE
    _, events = read(file(opened(0x00091001, b"UN") + inner))
    assert events[0] == Opened(0x00091001, "SQ", 0xFFFFFFFF, events[0].start)  # type: ignore[union-attr]
    assert [event.vr for event in events if isinstance(event, Element)] == ["PN"]


def test_fragments_are_told_apart() -> None:
    octets = opened(0x7FE00010, b"OB") + item(b"") + item(b"\xff\xd8\xff\xd9") + END_OF_SEQUENCE
    contents, events = read(file(octets, JPEG))
    assert [(event.number, event.length) for event in events if isinstance(event, Fragment)] == [(1, 0), (2, 4)]
    assert contents.state == "whole"


def test_the_character_set_is_that_of_the_item() -> None:
    name = element(0x00100010, b"PN", "Doe")
    other = element(0x00080005, b"CS", "ISO_IR 101") + name
    sequence = element(0x00081140, b"SQ", item(name) + item(other) + item(name))
    _, events = read(file(element(0x00080005, b"CS", "ISO_IR 192") + sequence + name))
    names = [event.character_set for event in events if isinstance(event, Element) and event.tag == 0x00100010]
    assert names == [b"ISO_IR 192", b"ISO_IR 101", b"ISO_IR 192", b"ISO_IR 192"]


def test_a_deflated_data_set_is_read_and_read_again() -> None:
    pixels = bytes(range(256)) * 8192
    packer = zlib.compressobj(wbits=-15)
    plain = element(0x00100020, b"LO", "P1") + element(0x7FE00010, b"OW", pixels)
    contents, events = read(file(packer.compress(plain) + packer.flush(), DEFLATED))
    pixel_data = events[-1]
    assert isinstance(pixel_data, Element) and contents.state == "whole"
    for _ in range(2):
        assert b"".join(contents.chunks(pixel_data.start, pixel_data.length)) == pixels


@pytest.mark.parametrize("cut", [100, 1])
def test_a_cut_deflated_data_set_is_read_as_far_as_it_goes(cut: int) -> None:
    packer = zlib.compressobj(wbits=-15)
    noise = random.Random(1).randbytes(1000)
    octets = packer.compress(element(0x00100020, b"LO", "P1") + element(0x7FE00010, b"OW", noise)) + packer.flush()
    contents, events = read(file(octets[:-cut], DEFLATED))
    assert contents.state == "truncated" and contents.reason == "ends within the deflated data set"
    assert isinstance(events[0], Element) and events[0].octets == b"P1"


def test_a_bomb_is_inflated_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_INFLATED_OCTETS", 1 << 20)
    packer = zlib.compressobj(wbits=-15)
    octets = packer.compress(element(0x00100020, b"LO", "P1") + element(0x7FE00010, b"OW", bytes(8 << 20)))
    contents, _ = read(file(octets + packer.flush(), DEFLATED))
    assert contents.reason == "inflates to more than 1048576 octets"


def test_what_is_longer_than_the_file_is_entered() -> None:
    sequence = element(0x00081140, b"SQ", item(element(0x00080100, b"SH", "A") + element(0x00080102, b"SH", "BB")))
    contents, events = read(file(sequence[:-2]))
    assert shape(events) == ["0x81140", 1, "0x80100", "end", "closed"]
    assert (contents.state, contents.reason) == ("truncated", "(0008,0102) claims 2 octets, 0 are left")


def test_nothing_passes_the_end_of_its_item() -> None:
    inner = element(0x00080100, b"SH", "A")
    sequence = element(0x00081140, b"SQ", item(inner[:-2]) + item(inner))
    contents, events = read(file(sequence))
    assert contents.reason == "(0008,0100) claims 2 octets, 0 are left"
    assert is_balanced(events)


def test_sequences_nest_only_so_deep() -> None:
    level = opened(0x00081140, b"SQ") + OPEN_ITEM
    for depth in (MAX_DEPTH - 1, MAX_DEPTH + 1, 50_000):
        contents, events = read(file(level * depth + element(0x00100020, b"LO", "P")))
        assert is_balanced(events)
        assert ("nested deeper" in contents.reason) == (depth > MAX_DEPTH)


def test_no_file_is_named_as_none() -> None:
    for octets in (b"", b"hello", bytes(8192), b"{" * 5000):
        contents, events = read(octets)
        assert (contents.state, events) == ("not dicom", [])


@pytest.mark.parametrize("vr", [b"OW", b"UN", b"UT"])
def test_long_values_stay_where_they_are(vr: bytes) -> None:
    head = file(element(0x00100020, b"LO", "P1")) + opened(0x7FE00010, vr)[:-4] + b"\0\0\0\xf0"
    asked = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append(length)
        return (head[offset : offset + length] + bytes(length))[:length]

    contents = Contents(Distant(read_at, len(head) + 0xF0000000))
    list(contents.meta())
    last = list(contents.data_set())[-1]
    assert isinstance(last, Element) and (last.length, len(last.octets)) == (0xF0000000, 64)
    assert contents.state == "whole" and sum(asked) < 1 << 20


def test_a_file_that_becomes_shorter_is_truncated() -> None:
    octets = file(element(0x00204000, b"UT", "x" * 100_000))
    contents = Contents(Distant(lambda offset, length: octets[:70_000][offset : offset + length], len(octets)))
    list(contents.meta())
    assert list(contents.data_set()) == []
    assert (contents.state, contents.reason) == ("truncated", "the file has become shorter")


@given(st.data())
def test_no_octets_raise_and_events_are_balanced(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(SEEDS))
    octets = bytearray((TEST_FILES / name).read_bytes()[:4000])
    for _ in range(data.draw(st.integers(1, 8))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    del octets[data.draw(st.integers(0, len(octets))) :]
    contents = Contents(bytes(octets))
    assert is_balanced([*contents.meta()])
    assert is_balanced([*contents.data_set()])


SEEDS = ["UN_sequence.dcm", "nested_priv_SQ.dcm", "rtplan.dcm", "ExplVR_BigEnd.dcm", "JPEG2000.dcm", "image_dfl.dcm",
         "test-SR.dcm"]


@pytest.mark.parametrize("name", ["CT_small.dcm", "rtplan.dcm", "examples_palette.dcm", "SC_rgb_rle_2frame.dcm"])
def test_a_window_gives_what_memory_gives(name: str) -> None:
    octets = (TEST_FILES / name).read_bytes()
    contents = Contents(Distant(lambda offset, length: octets[offset : offset + length], len(octets)))
    list(contents.meta())
    assert list(contents.data_set()) == read(octets)[1]


def test_memory_is_bounded_however_many_elements_there_are() -> None:
    octets = file(element(0x00100020, b"LO", "") * 15_000)
    contents = Contents(octets)
    tracemalloc.start()
    count = sum(1 for _ in contents.data_set())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 15_000 and peak < 100_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_values_are_those_of_pydicom() -> None:
    compared = 0
    for path in sorted(TEST_FILES.glob("*.dcm")):
        contents, events = read(path.read_bytes())
        if contents.state != "whole":
            continue
        top: dict[int, bytes] = {}
        depth = 0
        for event in events:
            depth += isinstance(event, Opened) - isinstance(event, Closed)
            if isinstance(event, Element) and not depth and event.is_here:
                top.setdefault(event.tag, event.octets)
        dataset: Any = pydicom.dcmread(path, force=True)
        for tag in dataset.keys():  # noqa: SIM118  # a Dataset iterates over its elements
            raw = dataset.get_item(tag)
            if int(tag) in top and getattr(raw, "value", None) is not None and isinstance(raw.value, bytes):
                assert top[int(tag)] == raw.value, (path.name, tag)
                compared += 1
    assert compared > 3000
