"""The normal form: with DCMTK and pydicom as the writers, with hand-made data sets, and with what is hostile."""

import random
import subprocess
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import data_store
import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcmsync.wire.content import CHUNK_OCTETS, write_normal_form
from dcmsync.wire.elements import walk
from dcmsync.wire.nesting import MAX_DEPTH
from dcmsync.wire.part10 import Head, parse_file, walk_file
from dcmsync.wire.source import Distant, Source

Require = Callable[[str], str]

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG, GE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.113619.5.2"
UNCOMPRESSED = {IMPLICIT, EXPLICIT, BIG, DEFLATED}
CLOSE_SEQUENCE, CLOSE_ITEM, OPEN_ITEM = (
    bytes.fromhex(octets) for octets in ["feffdde000000000", "feff0de000000000", "feff00e0ffffffff"]
)

DCMCONV = ["-q", "-dc"]  # -dc: leave values alone
REWRITINGS = [
    ["+ti", "+e", "-g"],
    ["+te", "-e", "-g"],
    ["+te", "+e", "+g", "+p", "512", "128"],
    ["+tb", "+e", "+g"],
    ["+td", "-e", "+g"],
]
EDITED = {
    "winter.dcm": "(0008,0018) stands in it twice, and dcmconv drops one",
    "meta_missing_tsyntax.dcm": "has a value of odd length, which dcmconv pads, or leaves while it counts it as padded",
    "nested_priv_SQ.dcm": "likewise",
}
OTHERWISE_NORMAL = {
    "DICOMDIR-empty.dcm": "an empty sequence, to which dcmconv -e gives a delimiter",
    "eCT_Supplemental.dcm": "likewise",
    "reportsi.dcm": "likewise",
    "reportsi_with_empty_number_tags.dcm": "likewise",
    "test-SR.dcm": "likewise",
    "priv_SQ.dcm": "a private sequence in implicit VR, whose length dcmconv keeps",
    **EDITED,
}
EDITED_BY_PYDICOM = {
    "winter.dcm": EDITED["winter.dcm"],
    **dict.fromkeys(["SC_rgb_gdcm2k_uncompressed.dcm", "gdcm-US-ALOKA-16.dcm"], "spaces at the end of values are cut"),
    **dict.fromkeys(
        ["chrKoreanMulti.dcm", "chrSQEncoding.dcm", "chrSQEncoding1.dcm", "chrX1.dcm", "chrX2.dcm"],
        "names are decoded, and encoded with other escapes or without an empty group",
    ),
}


def normal(source: Source, uid: str, offset: int = 0) -> bytes | None:
    """The normal form; None where the data set is not whole."""
    pieces: list[bytes] = []
    is_whole = write_normal_form(source, uid, lambda octets: pieces.append(bytes(octets)), offset=offset)
    assert all(len(piece) <= CHUNK_OCTETS + 65536 for piece in pieces)
    return b"".join(pieces) if is_whole else None


def normal_of_file(path: Path) -> tuple[str, bytes | None]:
    octets = path.read_bytes()
    head = parse_file(octets)
    if not isinstance(head, Head):
        return "", None
    return head.transfer_syntax_uid, normal(octets, head.transfer_syntax_uid, head.data_set_offset)


def corpus() -> list[Path]:
    roots = [Path(pydicom.data.__file__).parent, Path(data_store.__file__).parent]
    found = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix not in {".py", ".pyc"} and path.stat().st_size < 2_000_000)


def converted(dcmconv: str, options: list[str], path: Path, target: Path) -> bool:
    return subprocess.run([dcmconv, *DCMCONV, *options, path, target], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_dcmconv_rewrites_has_the_same_normal_form(require: Require, tmp_path: Path) -> None:
    dcmconv, target = require("dcmconv"), tmp_path / "rewritten"
    unequal, judged = set(), 0
    for path in corpus():
        uid, octets = normal_of_file(path)
        if uid not in UNCOMPRESSED or octets is None:
            continue
        for options in REWRITINGS:
            if not converted(dcmconv, options, path, target):
                break
            judged += 1
            if normal_of_file(target)[1] != octets:
                unequal.add(path.name)
    assert unequal == set(EDITED)
    assert judged > 900


@pytest.mark.slow
def test_dcmconv_writes_the_normal_form_itself(require: Require, tmp_path: Path) -> None:
    dcmconv, target = require("dcmconv"), tmp_path / "normal"
    unequal, judged = set(), 0
    for path in corpus():
        uid, octets = normal_of_file(path)
        if uid in UNCOMPRESSED and octets is not None:
            assert converted(dcmconv, ["-F", "+ti", "-e", "-g", "-p"], path, target)
            judged += 1
            if target.read_bytes() != octets:
                unequal.add(path.name)
    assert unequal == set(OTHERWISE_NORMAL)
    assert judged > 180


@pytest.mark.slow
def test_compressed_files_keep_theirs_while_their_fragments_stay(require: Require, tmp_path: Path) -> None:
    dcmconv, target = require("dcmconv"), tmp_path / "rewritten"
    unequal, judged = set(), 0
    for path in corpus():
        uid, octets = normal_of_file(path)
        if uid in UNCOMPRESSED or octets is None:
            continue
        for options in [["+e", "+g"], ["-e", "-g", "+p", "512", "128"]]:
            if converted(dcmconv, options, path, target):
                judged += 1
                if normal_of_file(target)[1] != octets:
                    unequal.add(path.name)
    assert unequal == set()
    assert judged > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_pydicom_rewrites_has_the_same_normal_form() -> None:
    unequal, judged = set(), 0
    for path in corpus():
        uid, octets = normal_of_file(path)
        if uid not in UNCOMPRESSED or octets is None:
            continue
        for written in [BIG] if uid == BIG else [IMPLICIT, EXPLICIT]:  # pydicom leaves words in the order they have
            read = pydicom.dcmread(path, force=True)
            read.ensure_file_meta()
            read.file_meta.TransferSyntaxUID = pydicom.uid.UID(written)
            buffer = BytesIO()
            pydicom.dcmwrite(buffer, read, implicit_vr=written == IMPLICIT, little_endian=written != BIG)
            head = parse_file(buffer.getvalue())
            assert isinstance(head, Head)
            judged += 1
            if normal(buffer.getvalue(), written, head.data_set_offset) != octets:
                unequal.add(path.name)
    assert unequal == set(EDITED_BY_PYDICOM)
    assert judged > 350


def element(tag: int, vr: str, value: bytes, *, order: str = "little") -> bytes:
    """An element in explicit VR; in implicit VR if `vr` is ""."""
    head = (tag >> 16).to_bytes(2, order) + (tag & 0xFFFF).to_bytes(2, order)  # type: ignore[arg-type]
    if vr in {"OB", "OW", "OF", "OV", "SQ", "UN"}:
        return head + vr.encode() + b"\0\0" + len(value).to_bytes(4, order) + value  # type: ignore[arg-type]
    return head + vr.encode() + len(value).to_bytes(2 if vr else 4, order) + value  # type: ignore[arg-type]


def item(octets: bytes) -> bytes:
    return OPEN_ITEM[:4] + len(octets).to_bytes(4, "little") + octets


def opened(tag: int, octets: bytes) -> bytes:
    """A sequence in normal form."""
    return element(tag, "", b"")[:4] + b"\xff" * 4 + octets + CLOSE_SEQUENCE


def opened_item(octets: bytes) -> bytes:
    return OPEN_ITEM + octets + CLOSE_ITEM


NAME = element(0x00100010, "", b"A^B ")
NORMAL = opened(0x00081140, opened_item(NAME) + opened_item(b"")) + NAME


@pytest.mark.parametrize("vr", ["", "UN", "OB", "OW", "LO"])
def test_a_run_of_whole_items_is_a_sequence_whatever_its_vr(vr: str) -> None:
    uid = EXPLICIT if vr else IMPLICIT
    after = element(0x00100010, "PN" if vr else "", b"A^B ")
    for first, last in [(item(NAME), b""), (opened_item(NAME), CLOSE_SEQUENCE), (item(NAME + CLOSE_ITEM), b"")]:
        inside = first + item(b"") + last
        assert normal(element(0x00081140, vr, inside) + after, uid) == NORMAL


@pytest.mark.parametrize("vr", ["", "UN", "OB"])
@pytest.mark.parametrize(
    "value",
    [
        b"\xfe\xff\x00\xe0\0\0\0",
        item(NAME)[:-1],
        item(NAME) + b"\0",
        item(NAME[:-1]),
        item(NAME + bytes(8)),
        item(element(0x00100010, "PN", b"A^B ")),
        OPEN_ITEM + NAME,
        CLOSE_SEQUENCE,
        item(NAME) + CLOSE_SEQUENCE + CLOSE_SEQUENCE,
        item(element(0x00080000, "", b"")[:4] + b"\xff" * 4),
    ],
)
def test_a_value_that_is_no_run_of_whole_items_stays_as_it_is(vr: str, value: bytes) -> None:
    octets = element(0x00091010, vr, value)
    assert normal(octets, EXPLICIT if vr else IMPLICIT) == element(0x00091010, "", value)


PN = element(0x00100010, "PN", b"A^B ")


@pytest.mark.parametrize(
    "inside, is_whole",
    [
        (item(PN) + opened_item(PN), True),
        (item(PN) + CLOSE_SEQUENCE, True),
        (item(PN + CLOSE_ITEM), True),
        (item(PN[:-1]), False),
        (item(PN)[:-1], False),
        (OPEN_ITEM + PN, False),
        (item(PN + CLOSE_ITEM + item(PN)), False),
        (item(PN) + CLOSE_SEQUENCE + item(PN), False),
        (item(element(0x00081140, "SQ", item(PN[:-1]))), False),
        (item(element(0x00081140, "SQ", item(PN)[:-1])), False),
        (opened_item(PN)[:-8] + element(0x00081140, "SQ", item(PN)[:-1]) + CLOSE_ITEM, False),
    ],
)
def test_a_broken_sequence_has_no_normal_form(inside: bytes, is_whole: bool) -> None:
    octets = element(0x00081140, "SQ", inside) + PN * 3
    assert (normal(octets, EXPLICIT) is not None) == is_whole
    assert walk(octets, EXPLICIT).is_whole == is_whole


def test_group_lengths_and_padding_are_left_out_at_any_depth() -> None:
    padding = element(0xFFFCFFFC, "OB", bytes(2))
    inside = element(0x00100000, "UL", bytes(4)) + element(0x00100010, "PN", b"A^B ") + padding
    octets = element(0x00080000, "UL", bytes(4)) + element(0x00081140, "SQ", item(inside) + item(inside[:12])) + inside
    assert normal(octets, EXPLICIT) == NORMAL


def test_a_sequence_that_is_left_out_is_judged() -> None:
    for tag in [0x00080000, 0xFFFCFFFC]:
        assert normal(element(tag, "SQ", item(PN)) + PN, EXPLICIT) == NAME
        assert normal(element(tag, "SQ", item(PN[:-1])) + PN, EXPLICIT) is None


def test_an_empty_sequence_is_an_empty_value() -> None:
    empty = element(0x00081140, "", b"")
    assert normal(element(0x00081140, "SQ", b""), EXPLICIT) == empty
    assert normal(opened(0x00081140, b""), IMPLICIT) == empty
    assert normal(element(0x00081140, "SQ", CLOSE_SEQUENCE), EXPLICIT) == empty


@pytest.mark.parametrize(
    "vr, value, swapped",
    [
        ("US", "0102030405", "0201040305"),
        ("OW", "0102030405", "0201040305"),
        ("AT", "00080018", "08001800"),
        ("UL", "01020304050607", "04030201050607"),
        ("OF", "0102030405", "0403020105"),
        ("FD", "0102030405060708", "0807060504030201"),
        ("OV", "010203040506070809", "080706050403020109"),
        ("OB", "010203", "010203"),
        ("UN", "01020304", "01020304"),
        ("LO", "41424344", "41424344"),
    ],
)
def test_words_of_big_endian_are_brought_to_little(vr: str, value: str, swapped: str) -> None:
    octets = element(0x00091010, vr, bytes.fromhex(value), order="big")
    assert normal(octets, BIG) == element(0x00091010, "", bytes.fromhex(swapped))


def test_a_long_value_in_big_endian_is_swapped_chunk_by_chunk() -> None:
    value = random.Random(1).randbytes(2 * CHUNK_OCTETS + 13)
    expected = bytearray(value)
    expected[:-1:2], expected[1:-1:2] = value[1:-1:2], value[:-1:2]
    found = normal(element(0x7FE00010, "OW", value, order="big"), BIG)
    assert found == element(0x7FE00010, "", bytes(expected))


@pytest.mark.parametrize("octets", [100, CHUNK_OCTETS + 1001])
def test_words_that_are_a_sequence_when_swapped_are_one(octets: int) -> None:
    inside = item(element(0x00091010, "", bytes(octets // 2 * 2)))
    swapped = bytearray(inside)
    swapped[::2], swapped[1::2] = inside[1::2], inside[::2]
    expected = opened(0x7FE00010, opened_item(inside[8:]))
    assert normal(element(0x7FE00010, "OW", bytes(swapped), order="big"), BIG) == expected
    assert normal(element(0x7FE00010, "OW", inside), EXPLICIT) == expected
    assert normal(element(0x7FE00010, "", inside), IMPLICIT) == expected


def test_fragments_stay_as_they_are() -> None:
    fragments = item(b"") + item(CLOSE_SEQUENCE) + item(random.Random(1).randbytes(100_000))
    explicit = element(0x7FE00010, "OB", b"")[:8] + b"\xff" * 4 + fragments + CLOSE_SEQUENCE
    assert normal(explicit, JPEG) == opened(0x7FE00010, fragments)
    assert normal(opened(0x7FE00010, fragments), IMPLICIT) == opened(0x7FE00010, fragments)
    assert normal(explicit[:-1], JPEG) is None


def test_a_first_group_that_looks_swapped_does_not_overrule_the_declaration() -> None:
    octets = element(0x3F030010, "LO", b"X1")
    assert normal(octets, EXPLICIT) == element(0x3F030010, "", b"X1")


def deflate(octets: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(octets) + packer.flush()


def test_a_long_value_that_begins_as_a_sequence_has_no_normal_form_when_deflated() -> None:
    for size, is_given in [(CHUNK_OCTETS - 100, True), (CHUNK_OCTETS, False)]:
        octets = element(0x00091010, "UN", item(element(0x00091011, "", bytes(size))))
        octets += element(0x00100010, "PN", b"A^B ")
        assert (normal(deflate(octets), DEFLATED) is not None) == is_given
        assert normal(octets, EXPLICIT) is not None


def sources_of(octets: bytes) -> list[Source]:
    distant = Distant(lambda offset, length: octets[offset : offset + length], len(octets))
    return [octets, bytearray(octets), memoryview(octets), distant]


@pytest.mark.parametrize(
    "name", ["MR_small_implicit.dcm", "test-SR.dcm", "JPEG2000.dcm", "image_dfl.dcm", "rtplan.dcm"]
)
def test_every_source_and_any_window_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in corpus() if path.name == name)
    uid, expected = normal_of_file(path)
    octets = path.read_bytes()
    head = parse_file(octets)
    assert isinstance(head, Head) and expected is not None
    for window in [65536, 1024, 64]:
        monkeypatch.setattr("dcmsync.wire.source.WINDOW_OCTETS", window)
        monkeypatch.setattr("dcmsync.wire.content.WINDOW_OCTETS", window)
        for source in sources_of(octets):
            assert normal(source, uid, head.data_set_offset) == expected


def test_what_is_gathered_is_handed_on_in_time() -> None:
    octets = b"".join(element(0x00091000 + number, "OB", bytes(60_000)) for number in range(16, 96))
    octets += element(0x00100010, "PN", b"A^B ") * 20_000
    taken: list[int] = []
    assert write_normal_form(octets, EXPLICIT, lambda piece: taken.append(len(piece)))
    assert max(taken) < 4 * 65536
    assert normal(octets, EXPLICIT) is not None


def test_a_source_that_shrank_has_no_normal_form() -> None:
    octets = NAME + element(0x7FE00010, "", bytes(3 * CHUNK_OCTETS))
    for kept in [octets[:4], octets[:20], octets[:CHUNK_OCTETS]]:
        source = Distant(partial(lambda kept, offset, length: kept[offset : offset + length], kept), len(octets))
        assert normal(source, IMPLICIT) is None


VALUES = [0x00080018, 0x00100010, 0x00091011, 0x7FE00010]


@given(st.sampled_from(VALUES), st.integers(0, 63), st.integers(1, 255))
@settings(deadline=None)
def test_any_other_octet_in_a_value_gives_another_normal_form(tag: int, place: int, change: int) -> None:
    values = {number: bytearray(bytes(range(65, 129))) for number in VALUES}

    def made() -> bytes:
        inside = item(element(0x00080018, "", values[0x00080018]) + element(0x00091011, "", values[0x00091011]))
        return element(0x00081140, "", inside) + b"".join(
            element(number, "", values[number]) for number in (0x00100010, 0x7FE00010)
        )

    before = normal(made(), IMPLICIT)
    values[tag][place] ^= change
    assert before is not None
    assert normal(made(), IMPLICIT) not in (before, None)


@pytest.mark.parametrize("name", ["MR_small.dcm", "JPEG2000.dcm", "test-SR.dcm"])
def test_any_other_octet_in_a_value_of_a_file_gives_another_normal_form(name: str) -> None:
    path = next(path for path in corpus() if path.name == name)
    uid, expected = normal_of_file(path)
    octets = bytearray(path.read_bytes())
    read = pydicom.dcmread(path)
    places = [element.file_tell for element in read if isinstance(element.value, str) and element.value]
    places += [read["PixelData"].file_tell + 200] if "PixelData" in read else []
    for place in places:
        octets[place] ^= 1
        head = parse_file(octets)
        assert isinstance(head, Head)
        assert normal(octets, uid, head.data_set_offset) not in (expected, None)
        octets[place] ^= 1


def nested(depth: int, vr: str, *, is_delimited: bool) -> bytes:
    """Sequences in sequences around nothing, built from the inside."""
    if is_delimited:
        head = element(0x00081140, vr, b"")[: 8 if vr else 4] + b"\xff" * 4 + OPEN_ITEM
        return head * depth + (CLOSE_ITEM + CLOSE_SEQUENCE) * depth
    pieces, size = [], 0
    head = element(0x00081140, vr, b"")[: 8 if vr else 4]
    for _ in range(depth):
        pieces.append(head + (size + 8).to_bytes(4, "little") + OPEN_ITEM[:4] + size.to_bytes(4, "little"))
        size += len(pieces[-1])
    return b"".join(reversed(pieces))


def test_sequences_nest_so_deep_and_no_deeper() -> None:
    expected = normal(nested(MAX_DEPTH, "SQ", is_delimited=True), EXPLICIT)
    assert expected is not None
    for vr, uid in [("SQ", EXPLICIT), ("", IMPLICIT)]:
        for is_delimited in [True, False]:
            assert normal(nested(MAX_DEPTH, vr, is_delimited=is_delimited), uid) == expected
    assert normal(nested(MAX_DEPTH + 1, "SQ", is_delimited=False), EXPLICIT) is None
    assert normal(nested(MAX_DEPTH + 1, "", is_delimited=True), IMPLICIT) is None
    deeper = normal(nested(MAX_DEPTH + 1, "", is_delimited=False), IMPLICIT)
    assert deeper is not None and item(b"") in deeper


def test_a_value_that_nests_too_deep_by_its_delimiters_is_no_sequence() -> None:
    for depth in [MAX_DEPTH - 1, MAX_DEPTH]:
        inside = nested(depth, "", is_delimited=True)
        found = normal(element(0x00081140, "", item(inside)), IMPLICIT)
        as_sequence, as_it_is = opened(0x00081140, opened_item(inside)), element(0x00081140, "", item(inside))
        assert found == (as_sequence if depth < MAX_DEPTH else as_it_is)


@pytest.mark.parametrize("vr, uid", [("SQ", EXPLICIT), ("", IMPLICIT), ("UN", EXPLICIT)])
@pytest.mark.parametrize("is_delimited", [True, False])
def test_hostile_nesting_ends_soon(vr: str, uid: str, is_delimited: bool) -> None:
    octets = nested(100_000, vr, is_delimited=is_delimited)
    assert (normal(octets, uid) is None) == (is_delimited or vr == "SQ")


def test_each_octet_is_looked_at_a_bounded_number_of_times() -> None:
    """Values that begin as sequences do and break at their very end, side by side and within each other."""
    broken = item(element(0x00091011, "", bytes(70_000)) + NAME[:-1])
    for _ in range(20):
        broken = item(element(0x00081140, "", broken) + NAME[:-1])
    octets = element(0x00081140, "", broken) * 30
    asked: list[int] = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append(length)
        return octets[offset : offset + length]

    assert normal(Distant(read_at, len(octets)), IMPLICIT) == octets
    assert sum(asked) < 8 * len(octets)


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000])
@pytest.mark.parametrize("tag", [0x00081140, 0x7FE00010, 0xFFFCFFFC, 0x00080000, 0xFFFEE000])
def test_lengths_are_claims(length: int, tag: int) -> None:
    claim = length.to_bytes(4, "little")
    for around in [b"", OPEN_ITEM, item(b"")]:
        octets = element(tag, "", b"")[:4] + claim + around
        assert normal(octets, IMPLICIT) is None
        assert normal(element(0x00081140, "SQ", item(octets)), EXPLICIT) is None
        assert normal(element(0x00081140, "", item(octets)), IMPLICIT) is not None


@pytest.mark.slow
def test_a_deflate_bomb_has_no_normal_form() -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    assert normal(bomb, DEFLATED) is None


@pytest.mark.slow
def test_what_is_whole_has_a_normal_form_and_nothing_else_has() -> None:
    dice = random.Random(3)
    paths = [path for path in corpus() if path.stat().st_size < 100_000]
    seen = set()
    for _ in range(1000):
        octets = bytearray(dice.choice(paths).read_bytes())
        for _ in range(dice.choice([1, 4, 64])):
            octets[dice.randrange(min(len(octets), 4000))] = dice.choice([0, 0xFE, 0xFF, dice.randrange(256)])
        head, walk = walk_file(bytes(octets))
        found = normal(bytes(octets), head.transfer_syntax_uid, head.data_set_offset)
        assert (found is not None) == walk.is_whole or walk.state == "not dicom"
        seen.add(walk.is_whole)
    assert seen == {True, False}
