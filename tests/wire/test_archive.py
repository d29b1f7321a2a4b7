"""The frame of a zip archive, written and read; zipfile is the judge of what is written."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.wire import archive
from dcmsync.wire.archive import Damaged, Directory, data_offset, end, entries, find_directory, local_header, record
from dcmsync.wire.source import Distant

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda name: not name.startswith("/")
)


def source_of(octets: bytes) -> Distant:
    return Distant(lambda offset, length: octets[offset : offset + length], len(octets))


def written(members: dict[str, bytes], *, is_large: bool = False, comment: bytes = b"") -> bytes:
    """An archive of stored members, all of it by our own hand."""
    octets, records = b"", b""
    for path, content in members.items():
        name = path.encode()
        said = {"method": archive.STORED, "crc": zlib.crc32(content), "packed": len(content), "size": len(content)}
        records += record(name, **said, header=len(octets), is_large=is_large)
        octets += local_header(name, **said, is_large=is_large) + content
    closing = Directory(offset=len(octets), size=len(records), count=len(members), comment=comment)
    return octets + records + end(closing)


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=8), st.booleans(), st.binary(max_size=30))
def test_what_is_written_is_read_by_zipfile_and_by_us(
    members: dict[str, bytes], is_large: bool, comment: bytes
) -> None:
    octets = written(members, is_large=is_large, comment=comment.replace(b"PK", b""))
    with zipfile.ZipFile(io.BytesIO(octets)) as judge:
        assert judge.testzip() is None
        assert {info.orig_filename: judge.read(info) for info in judge.infolist()} == members
    source = source_of(octets)
    directory = find_directory(source)
    found = list(entries(source, directory))
    assert [entry.path for entry in found] == list(members)
    for entry, content in zip(found, members.values(), strict=True):
        begin = data_offset(source, entry, directory)
        assert octets[begin : begin + entry.packed] == content
        assert (entry.size, entry.crc, entry.method) == (len(content), zlib.crc32(content), 0)


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=8))
def test_what_zipfile_writes_is_read(members: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
        infos = made.infolist()
    source = source_of(stream.getvalue())
    directory = find_directory(source)
    found = list(entries(source, directory))
    assert [(entry.path, entry.size, entry.packed, entry.crc, entry.header) for entry in found] == [
        (info.filename, info.file_size, info.compress_size, info.CRC, info.header_offset) for info in infos
    ]
    assert all(data_offset(source, entry, directory) for entry in found)


@given(st.binary(max_size=200), st.binary(max_size=120))
def test_any_octets_are_an_archive_or_damaged(octets: bytes, tail: bytes) -> None:
    for tried in (octets, octets + written({"a": tail}), written({"a": tail})[: len(octets)]):
        source = source_of(tried)
        try:
            directory = find_directory(source)
            for entry in entries(source, directory):
                data_offset(source, entry, directory)
        except Damaged as damage:
            assert str(damage)


def test_members_of_more_than_4_gb_and_behind_them(tmp_path: Path) -> None:
    size, far = 5 << 30, 6 << 30
    path = tmp_path / "a.zip"
    said = {"method": archive.STORED, "crc": 0, "packed": size, "size": size}
    with open(path, "wb") as file:
        file.write(local_header(b"large", **said, is_large=True))
        begin = file.tell()
        file.seek(far)
        small = {"method": archive.STORED, "crc": zlib.crc32(b"hello"), "packed": 5, "size": 5}
        file.write(local_header(b"far", **small, is_large=False) + b"hello")
        records = record(b"large", **said, header=0, is_large=True)
        records += record(b"far", **small, header=far, is_large=False)
        at = file.tell()
        file.write(records + end(Directory(offset=at, size=len(records), count=2)))
    with zipfile.ZipFile(path) as judge:
        assert [(info.filename, info.file_size, info.header_offset) for info in judge.infolist()] == [
            ("large", size, 0), ("far", 5, far),
        ]  # fmt: skip
        assert judge.read("far") == b"hello"
    with open(path, "rb") as file:
        source = Distant(lambda offset, length: os.pread(file.fileno(), length, offset), path.stat().st_size)
        directory = find_directory(source)
        large, small_one = entries(source, directory)
        assert (large.size, large.packed, data_offset(source, large, directory)) == (size, size, begin)
        assert (small_one.size, small_one.header) == (5, far)
        assert data_offset(source, small_one, directory) == far + 30 + 3


def test_counts_beyond_16_bits_make_a_zip64_end() -> None:
    for count in (0xFFFE, 0xFFFF, 0x10000):
        octets = end(Directory(offset=0, size=0, count=count))
        assert octets.startswith(b"PK\6\6") == (count >= 0xFFFF)
        assert find_directory(source_of(octets)).count == count


def test_a_directory_larger_than_a_window_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{number}-{'x' * (number % 300)}": bytes(number % 7) for number in range(500)}
    octets = written(members)
    for window in (400, 5000):
        monkeypatch.setattr(archive, "_WINDOW_OCTETS", window)
        source = source_of(octets)
        assert [entry.path for entry in entries(source, find_directory(source))] == list(members)


def test_extra_fields_of_others_are_passed_by() -> None:
    octets = written({"a": b"hello"})
    other = struct.pack("<HH4s", 0x7075, 4, b"....")
    begin = octets.index(b"PK\1\2")
    longer = bytearray(octets[:begin] + octets[begin : begin + 47] + other + octets[begin + 47 :])
    struct.pack_into("<H", longer, begin + 30, len(other))
    struct.pack_into("<I", longer, len(longer) - 10, 47 + len(other))
    source = source_of(bytes(longer))
    (entry,) = entries(source, find_directory(source))
    assert (entry.path, entry.size) == ("a", 5)
