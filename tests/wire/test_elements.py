"""The walker, against hand-made data sets and against DCMTK as the judge."""

import os
import random
import shutil
import subprocess
import zlib
from pathlib import Path

import data_store
import pydicom.data
import pytest

from dcmsync.wire.elements import walk
from dcmsync.wire.nesting import MAX_DEPTH
from dcmsync.wire.part10 import walk_file
from dcmsync.wire.source import Distant, Source

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
END_OF_SEQUENCE = bytes.fromhex("feffdde000000000")
END_OF_ITEM = bytes.fromhex("feff0de000000000")
OPEN_ITEM = bytes.fromhex("feff00e0ffffffff")

# Where the walk and dcmdump disagree, and why.
EXCEPTIONS = {
    "SC_rgb_jpeg.dcm": "declared JPEG, written in implicit VR: the walk goes on and says so, dcmdump insists",
    "DICOMDIR-nooffset": "edited by hand: its last item passes the end of the file, and dcmdump ends it there",
}


def element(tag: int, vr: str, value: bytes) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    if vr in {"OB", "OW", "SQ", "UN", "UT"}:
        return head + vr.encode() + b"\0\0" + len(value).to_bytes(4, "little") + value
    return head + vr.encode() + len(value).to_bytes(2, "little") + value


def opened(tag: int, vr: str) -> bytes:
    return element(tag, vr, b"")[:-4] + b"\xff\xff\xff\xff"


def corpus() -> list[Path]:
    roots = [Path(pydicom.data.__file__).parent, Path(data_store.__file__).parent]
    found = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix not in {".py", ".pyc"})


def rejected_by_dcmdump(paths: list[Path], folder: Path) -> set[Path]:
    """The paths for which dcmdump gives up, found by halves: one process for many good files."""
    if shutil.which("dcmdump") is None:
        if os.environ.get("DCMSYNC_REQUIRE_PEERS") == "1":
            pytest.fail("dcmdump (DCMTK) is not installed")
        pytest.skip("dcmdump (DCMTK) is not installed")
    rejected = set()
    for path in paths:
        done = subprocess.run(["dcmdump", "-q", "-M", str(path)], stdout=subprocess.DEVNULL, check=False, cwd=folder)
        if done.returncode:
            rejected.add(path)
    return rejected


SMALL = element(0x00080018, "UI", b"1.2.3\0") + element(0x00100020, "LO", b"P1") + element(0x7FE00010, "OW", bytes(64))


def test_whole_data_set_gives_the_wanted_values() -> None:
    found = walk(SMALL, EXPLICIT, wanted=frozenset({0x00080018, 0x00100020, 0x00200013}))
    assert found.is_whole
    assert found.offset == len(SMALL)
    assert found.values == {0x00080018: ("UI", b"1.2.3\0"), 0x00100020: ("LO", b"P1")}


def test_every_cut_but_those_between_elements_is_truncated() -> None:
    between = {14, 24}
    for length in range(1, len(SMALL)):
        assert walk(SMALL[:length], EXPLICIT).is_whole == (length in between), length


def test_a_value_beyond_the_end_is_named() -> None:
    found = walk(SMALL[:-1], EXPLICIT)
    assert (found.state, found.offset) == ("truncated", 24)
    assert found.reason == "(7FE0,0010) claims 64 octets, 63 are left"


def test_stop_after_leaves_the_rest() -> None:
    found = walk(SMALL, EXPLICIT, wanted=frozenset({0x00100020, 0x7FE00010}), stop_after=0x00100020)
    assert (found.state, found.offset, found.values) == ("stopped", 24, {0x00100020: ("LO", b"P1")})


@pytest.mark.parametrize("garbage", [bytes(1), bytes(7), bytes(8), bytes(4096)])
def test_zeros_are_no_dicom(garbage: bytes) -> None:
    assert walk_file(garbage)[1].state == "not dicom"
    assert not walk(garbage, EXPLICIT).is_whole
    assert not walk(garbage, IMPLICIT).is_whole


def test_nothing_is_no_dicom() -> None:
    assert walk_file(b"")[1].state == "not dicom"
    assert walk(b"", EXPLICIT).state == "truncated"


def test_zeros_after_the_last_element_are_not_whole() -> None:
    assert walk(SMALL + bytes(512), EXPLICIT).reason == "(0000,0000) where an element should begin"


def test_random_octets_are_never_whole() -> None:
    dice = random.Random(1)
    for length in [1, 8, 9, 16, 100, 1000]:
        for _ in range(200):
            octets = dice.randbytes(length)
            assert not walk_file(octets)[1].is_whole
            assert not walk(octets, EXPLICIT).is_whole
            assert not walk_file(bytes(128) + b"DICM" + octets)[1].is_whole


def test_sequences_of_undefined_length_are_followed_to_their_end() -> None:
    inner = opened(0x00081140, "SQ") + OPEN_ITEM + SMALL + END_OF_ITEM + END_OF_SEQUENCE
    octets = (
        opened(0x00081140, "SQ") + OPEN_ITEM + inner + END_OF_ITEM + END_OF_SEQUENCE + element(0x00100020, "LO", b"P2")
    )
    found = walk(octets, EXPLICIT, wanted=frozenset({0x00100020, 0x00080018}))
    assert found.is_whole
    assert found.values == {0x00100020: ("LO", b"P2")}
    for length in range(1, len(octets) - 10):
        assert not walk(octets[:length], EXPLICIT).is_whole


def test_unknown_vr_of_undefined_length_is_implicit_inside() -> None:
    implicit = bytes.fromhex("0800180006000000") + b"1.2.3\0"
    octets = opened(0x00091010, "UN") + OPEN_ITEM + implicit + END_OF_ITEM + END_OF_SEQUENCE + SMALL
    assert walk(octets, EXPLICIT).is_whole
    nested = opened(0x00081140, "SQ") + OPEN_ITEM + octets + END_OF_ITEM + END_OF_SEQUENCE + SMALL
    assert walk(nested, EXPLICIT).is_whole


def test_delimiters_inside_a_fragment_are_pixels() -> None:
    fragment = END_OF_SEQUENCE * 2
    item = bytes.fromhex("feff00e0") + len(fragment).to_bytes(4, "little") + fragment
    octets = SMALL[:24] + opened(0x7FE00010, "OB") + bytes.fromhex("feff00e000000000") + item + END_OF_SEQUENCE
    assert walk(octets, JPEG).is_whole
    for length in range(25, len(octets)):
        assert not walk(octets[:length], JPEG).is_whole


def item(octets: bytes) -> bytes:
    return OPEN_ITEM[:4] + len(octets).to_bytes(4, "little") + octets


@pytest.mark.parametrize(
    "inside, is_whole",
    [
        (item(SMALL), True),
        (item(SMALL) + item(b""), True),
        (OPEN_ITEM + SMALL + END_OF_ITEM, True),
        (item(SMALL) + END_OF_SEQUENCE, True),  # as some write it, and DCMTK reads it
        (item(SMALL + END_OF_ITEM), True),
        (item(element(0x00081140, "SQ", item(SMALL))), True),
        (item(bytes(16)), False),
        (item(b"\1\2\3\4\5\6\7\x08abcdefgh"), False),
        (b"abcdefghijklmnop", False),
        (item(SMALL)[:-1], False),
        (item(SMALL) + bytes(4), False),
        (item(SMALL[:-1]), False),
        (OPEN_ITEM + SMALL, False),
        (item(SMALL + END_OF_ITEM + END_OF_ITEM), False),
        (item(SMALL + END_OF_ITEM + item(SMALL)), False),
        (item(element(0x00081140, "SQ", item(SMALL[:-1]))), False),
        (item(opened(0x00081140, "SQ") + OPEN_ITEM + SMALL), False),
    ],
)
def test_the_inside_of_a_sequence_of_defined_length_is_judged(inside: bytes, is_whole: bool) -> None:
    after = element(0x00100020, "LO", b"P1") + element(0x7FE00010, "OW", END_OF_ITEM + END_OF_SEQUENCE + bytes(100_000))
    octets = element(0x00081140, "SQ", inside) + after
    sources: list[Source] = [octets, Distant(lambda offset, length: octets[offset : offset + length], len(octets))]
    for source in sources:
        found = walk(source, EXPLICIT, wanted=frozenset({0x00100020}))
        assert found.is_whole == is_whole
        assert is_whole == bool(found.values)
        assert not found.is_cut
    assert walk(octets[: len(inside)], EXPLICIT).is_cut


def test_a_delimiter_without_its_sequence_breaks_the_walk() -> None:
    assert walk(SMALL + END_OF_SEQUENCE, EXPLICIT).reason == "(FFFE,E0DD) where an element should begin"
    assert not walk(opened(0x00081140, "SQ") + END_OF_ITEM, EXPLICIT).is_whole


def test_depth_is_bounded_without_recursion() -> None:
    for depth, is_whole in [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (100_000, False)]:
        octets = (opened(0x00081140, "SQ") + OPEN_ITEM) * depth + (END_OF_ITEM + END_OF_SEQUENCE) * depth
        assert walk(octets, EXPLICIT).is_whole == is_whole


def test_an_element_left_in_implicit_vr_is_stepped_over() -> None:
    implicit = bytes.fromhex("0900101004000000") + b"abcd"
    assert walk(SMALL[:24] + implicit + element(0x00200013, "IS", b"1 "), EXPLICIT).is_whole


def test_encoding_other_than_declared_is_said() -> None:
    found = walk(SMALL, IMPLICIT)
    assert (found.state, found.encoding) == ("whole", EXPLICIT)
    assert walk(SMALL, EXPLICIT).encoding == ""
    assert walk(SMALL, "1.3.46.670589.33.1.4.1").is_whole


def deflate(octets: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(octets) + packer.flush()


def test_deflated_is_walked_as_what_it_inflates_to() -> None:
    packed = deflate(SMALL)
    found = walk(packed, DEFLATED, wanted=frozenset({0x00100020}))
    assert found.is_whole
    assert found.values == {0x00100020: ("LO", b"P1")}
    assert walk(packed + b"\0", DEFLATED).is_whole
    for length in range(len(packed)):
        assert not walk(packed[:length], DEFLATED).is_whole


def test_deflated_beyond_a_window_is_walked_twice() -> None:
    octets = (
        SMALL[:24] + element(0x00420011, "OB", random.Random(2).randbytes(300_000)) + element(0x50000005, "US", b"\1\0")
    )
    packed = deflate(octets)
    distant = Distant(lambda offset, length: packed[offset : offset + length], len(packed))
    sources: list[Source] = [packed, distant]
    for source in sources:
        found = walk(source, DEFLATED, wanted=frozenset({0x50000005}))
        assert found.is_whole
        assert found.values == {0x50000005: ("US", b"\1\0")}
    assert not walk(deflate(octets[:-1]), DEFLATED).is_whole


@pytest.mark.slow
def test_a_deflate_bomb_is_refused() -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    assert walk(bomb, DEFLATED).reason == "inflates to more than 268435456 octets"


def test_a_distant_source_gives_the_same_and_reads_no_pixels() -> None:
    octets = SMALL[:24] + element(0x7FE00010, "OW", bytes(10_000_000)) + element(0xFFFCFFFC, "OB", b"")
    read: list[int] = []

    def read_at(offset: int, length: int) -> bytes:
        read.append(length)
        return octets[offset : offset + length]

    wanted = frozenset({0x00100020})
    assert walk(Distant(read_at, len(octets)), EXPLICIT, wanted=wanted) == walk(octets, EXPLICIT, wanted=wanted)
    assert sum(read) < 100_000


def test_a_distant_source_that_shrank_is_truncated() -> None:
    octets = SMALL[:24] + element(0x7FE00010, "OW", bytes(100_000)) + element(0xFFFCFFFC, "OB", b"")
    assert walk(Distant(lambda o, n: octets[:50_000][o : o + n], len(octets)), EXPLICIT).state == "truncated"


@pytest.mark.slow
def test_dcmdump_agrees_on_every_file_of_the_corpus(tmp_path: Path) -> None:
    paths = corpus()
    rejected = rejected_by_dcmdump(paths, tmp_path)
    disagreed = {path.name for path in paths if walk_file(path.read_bytes())[1].is_whole == (path in rejected)}
    assert disagreed == set(EXCEPTIONS)


def cut(octets: bytes, places: int, seed: str) -> list[bytes]:
    dice = random.Random(seed)
    return [octets[: dice.randrange(len(octets))] for _ in range(places)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_dcmdump_finds_cut_is_not_whole(tmp_path: Path) -> None:
    places = int(os.environ.get("DCMSYNC_TEST_CUTS", "50"))
    suspects = []
    for number, path in enumerate(path for path in corpus() if path.stat().st_size < 600_000):
        for place, octets in enumerate(cut(path.read_bytes(), places, path.name)):
            if walk_file(octets)[1].is_whole:
                suspects.append(tmp_path / f"{number}-{place}-{path.name}")
                suspects[-1].write_bytes(octets)
    rejected = rejected_by_dcmdump(suspects, tmp_path)
    assert not {path.name for path in rejected if not path.name.endswith(tuple(EXCEPTIONS))}


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "JPEG2000.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "rtplan.dcm"]
)
def test_windows_of_any_size_give_the_same_verdict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    octets = Path(pydicom.data.get_testdata_file(name) or "").read_bytes()
    wanted = frozenset({0x00080018, 0x0020000D, 0x0020000E})
    expected = walk_file(octets, wanted=wanted)
    for size in [400, 512, 1000]:
        monkeypatch.setattr("dcmsync.wire.source.WINDOW_OCTETS", size)
        monkeypatch.setattr("dcmsync.wire.source.PEEK_OCTETS", 16)
        assert walk_file(Distant(lambda o, n: octets[o : o + n], len(octets)), wanted=wanted) == expected


@pytest.mark.slow
def test_mutated_files_never_raise() -> None:
    dice = random.Random(3)
    paths = [path for path in corpus() if path.stat().st_size < 200_000]
    for _ in range(500):
        octets = bytearray(dice.choice(paths).read_bytes())
        for _ in range(dice.choice([1, 4, 64])):
            octets[dice.randrange(len(octets))] = dice.choice([0, 0xFF, dice.randrange(256)])
        assert walk_file(bytes(octets))[1].state in {"whole", "truncated", "not dicom"}


def test_a_data_set_that_begins_again_and_again_is_refused_when_asked() -> None:
    once = element(0x00080005, "CS", b"ISO_IR 100") + element(0x00100020, "LO", b"P1")
    assert walk(once * 9, EXPLICIT, ascending=True).is_whole
    found = walk(once * 10, EXPLICIT, ascending=True)
    assert (found.state, found.is_cut) == ("truncated", False)


def test_a_cut_data_set_may_go_on_and_a_broken_one_may_not() -> None:
    octets = element(0x00080005, "CS", b"ISO_IR 100") + element(0x00100020, "LO", b"P1")
    assert walk(octets[:-1], EXPLICIT).is_cut
    assert not walk(octets + bytes(100), EXPLICIT).is_cut
