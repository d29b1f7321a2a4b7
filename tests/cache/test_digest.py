"""The two digests: the vectors of dcmsync-records(5), xxhsum as the judge, and one pass over the disk."""

import os
import re
import subprocess
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xxhash import xxh3_128_hexdigest

from dcmsync.cache.digest import ahead, content_of, hasher, read_whole
from dcmsync.wire.content import CHUNK_OCTETS, write_normal_form
from dcmsync.wire.part10 import file_meta, walk_file
from dcmsync.wire.source import Distant
from tests import samples
from tests.wire.test_elements import corpus

Require = Callable[[str], str]

PAGE = (Path(__file__).resolve().parent.parent.parent / "man" / "dcmsync-records.5").read_text(encoding="utf-8")
VECTOR = re.compile(
    r"^transfer syntax (\S+)\ndata set\n((?:  .*\n)+)normal form\n((?:  .*\n)+)content xxh3:(\w{32})$", re.MULTILINE
)
VECTORS = VECTOR.findall(PAGE)

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
UID = "1.2.3.4"


def test_no_vector_is_passed_over() -> None:
    assert len(VECTORS) == PAGE.count("\ntransfer syntax ") == 7


@pytest.mark.parametrize("uid, data_set, normal_form, digest", VECTORS)
def test_every_vector_of_the_page_is_true(uid: str, data_set: str, normal_form: str, digest: str) -> None:
    octets = bytes.fromhex(data_set)
    written = bytearray()
    assert write_normal_form(octets, uid, written.extend)
    assert written == bytes.fromhex(normal_form)
    assert content_of(octets, uid, 0) == digest == xxh3_128_hexdigest(bytes.fromhex(normal_form))
    assert content_of(octets[:-1], uid, 0) == ""


def test_xxhsum_prints_what_the_page_says(require: Require, tmp_path: Path) -> None:
    xxhsum = require("xxhsum")
    expected = re.search(r"xxhsum \\-H2\n(\w{32})  stdin", PAGE)
    assert expected is not None
    done = subprocess.run([xxhsum, "-H2"], input=b"abc", capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == expected[1] == hasher(b"abc").hexdigest()
    (sample,) = samples.make_series(tmp_path, instances=1)
    done = subprocess.run([xxhsum, "-H2", sample.path], capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == read(sample.path)[0]


def read(path: Path) -> tuple[str, str, str]:
    """The digest of the file and of its content, and the state of its walk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = read_whole(descriptor, os.fstat(descriptor).st_size, wanted=frozenset({0x00080018}))
    finally:
        os.close(descriptor)
    assert (found.walk.state == "whole") == (0x00080018 in found.walk.values and bool(found.content))
    return found.digest, found.content, found.walk.state


def element(tag: int, value: bytes) -> bytes:
    """In implicit VR."""
    return (tag >> 16 | (tag & 0xFFFF) << 16).to_bytes(4, "little") + len(value).to_bytes(4, "little") + value


def data_sets() -> Iterator[tuple[str, str, bytes]]:
    """Names, transfer syntaxes and data sets, of sizes around what is held."""
    head = element(0x00080018, UID.encode() + b"\0")
    for octets in [0, 1000, CHUNK_OCTETS - 1000, CHUNK_OCTETS, 2 * CHUNK_OCTETS + 77, 5 * CHUNK_OCTETS]:
        inside = b"\xfe\xff\x00\xe0" + element(0x00091011, bytes(octets))[4:]  # an item of zeros is no data set
        whole = b"\xfe\xff\x00\xe0" + (8 + octets).to_bytes(4, "little") + element(0x00091011, bytes(octets))
        yield f"value of {octets}", IMPLICIT, head + element(0x7FE00010, bytes(octets))
        yield f"no sequence of {octets}", IMPLICIT, head + element(0x00091010, inside) + head
        yield f"sequence of {octets}", IMPLICIT, head + element(0x00091010, whole) * 2 + head
    explicit = samples.element(0x00080018, b"UI", UID) + samples.element(0x7FE00010, b"OW", bytes(3 * CHUNK_OCTETS))
    packer = zlib.compressobj(1, wbits=-15)
    yield "deflated", DEFLATED, packer.compress(explicit) + packer.flush()


DATA_SETS = list(data_sets())


@pytest.mark.parametrize("uid, octets", [row[1:] for row in DATA_SETS], ids=[row[0] for row in DATA_SETS])
def test_reading_a_file_gives_both_digests(uid: str, octets: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.dcm"
    whole = file_meta("1.2", UID, uid) + octets
    path.write_bytes(whole)
    assert read(path) == (xxh3_128_hexdigest(whole), content_of(octets, uid, 0), "whole")
    path.write_bytes(whole[:-1])
    assert read(path) == (xxh3_128_hexdigest(whole[:-1]), "", "truncated")


def test_what_is_no_dicom_has_a_digest_and_no_content(tmp_path: Path) -> None:
    for octets in [b"", b"abc", bytes(3 * CHUNK_OCTETS)]:
        path = tmp_path / "file"
        path.write_bytes(octets)
        assert read(path) == (xxh3_128_hexdigest(octets), "", "not dicom")


def test_every_octet_is_read_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    octets = element(0x00080018, UID.encode() + b"\0") + element(0x7FE00010, os.urandom(5 * CHUNK_OCTETS))
    path = tmp_path / "file.dcm"
    path.write_bytes(file_meta("1.2", UID, IMPLICIT) + octets)
    asked: list[tuple[int, int]] = []
    pread = os.pread

    def noted(descriptor: int, length: int, offset: int) -> bytes:
        asked.append((offset, length))
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", noted)
    read(path)
    assert sum(length for _, length in asked) < path.stat().st_size + 4 * 65536


def test_content_does_not_depend_on_where_the_octets_lie() -> None:
    for _, uid, octets in DATA_SETS:
        prefix = b"x" * 1001
        source = Distant(lambda offset, length, of=prefix + octets: of[offset : offset + length], len(octets) + 1001)
        assert content_of(source, uid, 1001) == content_of(bytearray(octets), uid, 0) != ""


@pytest.mark.slow
def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.dcm"
    octets = 1 << 28
    with path.open("wb") as file:
        file.write(file_meta("1.2", UID, IMPLICIT) + element(0x00080018, UID.encode() + b"\0"))
        file.write(element(0x7FE00010, b"")[:4] + octets.to_bytes(4, "little"))
        file.truncate(file.tell() + octets)
    tracemalloc.start()
    try:
        assert read(path)[2] == "whole"
        assert tracemalloc.get_traced_memory()[1] < 8 * CHUNK_OCTETS
    finally:
        tracemalloc.stop()


# While it arrives


def arriving(octets: bytes, uid: str, first: int) -> str:
    """The digest of a data set of which so many octets come before all others; "" where it cannot be told."""
    begun = ahead(octets[:first], uid)
    if begun is None:
        return ""
    for start in range(first, len(octets), 1000):
        begun.update(octets[start : start + 1000])
    return begun.finish(len(octets))


@pytest.mark.slow
def test_what_is_computed_on_the_way_is_the_digest_of_the_whole() -> None:
    """Of every file of the corpus, cut at 40 places; and of uncompressed images it is computed."""
    told = Counter[str]()
    for path in corpus():
        octets = path.read_bytes()
        head, found = walk_file(octets)
        if found.state != "whole":
            continue
        data_set = octets[head.data_set_offset :]
        content = content_of(data_set, head.transfer_syntax_uid, 0)
        for number in range(40):
            digest = arriving(data_set, head.transfer_syntax_uid, len(data_set) * number // 40)
            assert digest in ("", content), (path, number)
            told[head.transfer_syntax_uid] += bool(digest)
    assert told[EXPLICIT] > 1000 and told[IMPLICIT] > 100 and not told[DEFLATED], told


PIXELS = bytes(range(200)) * 10


@pytest.mark.parametrize("data_set", [
    element(0x7FE00010, PIXELS) + element(0xFFFCFFFC, bytes(100)),  # what comes after it is left out
    element(0x7FE00010, PIXELS) + element(0x7FE00020, b"more"),
    element(0x00091010, b"\xfe\xff\x00\xe0" + len(PIXELS).to_bytes(4, "little") + PIXELS),  # may be a sequence
    element(0x00091010, b"\xfe\xff\x00\xe0" + (len(PIXELS) + 8).to_bytes(4, "little") + element(0x7FE00010, PIXELS)),
    element(0x00091010, PIXELS)[:-4],
])  # fmt: skip
def test_where_more_must_be_known_nothing_is_told(data_set: bytes) -> None:
    data_set = element(0x00080018, UID.encode() + b"\0") + data_set
    assert arriving(data_set, IMPLICIT, 1000) == ""


def test_whether_a_long_value_is_a_sequence_shows_at_its_end() -> None:
    inside = element(0x00091011, bytes(2 * CHUNK_OCTETS))
    data_set = element(0x00091010, 2 * (b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside))
    assert content_of(data_set, IMPLICIT, 0) and arriving(data_set, IMPLICIT, 1000) == ""


def test_a_value_within_a_sequence_is_not_the_last_word() -> None:
    """The sequence and its item say how long they are, and end with the value."""
    inside = b"\x08\x00\x18\x00OB\0\0" + len(PIXELS).to_bytes(4, "little") + PIXELS
    item = b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside
    data_set = b"\x08\x00\x40\x11SQ\0\0" + len(item).to_bytes(4, "little") + item
    assert content_of(data_set, EXPLICIT, 0) and arriving(data_set, EXPLICIT, 1000) == ""


def test_words_that_must_be_turned_are_not_hashed_as_they_come() -> None:
    data_set = b"\x7f\xe0\x00\x10OW\0\0" + len(PIXELS).to_bytes(4, "big") + PIXELS
    assert content_of(data_set, BIG, 0) and arriving(data_set, BIG, 1000) == ""
