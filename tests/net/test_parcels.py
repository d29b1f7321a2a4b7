"""The octets of parcels: from memory and from files the same, and nothing of a file that is no longer what it was."""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import anyio
import pytest
from pydicom import dcmread
from pydicom.filereader import read_preamble

from dcmsync.contract import Arrival, Parcel, Stamp
from dcmsync.errors import LocalTrouble
from dcmsync.net import parcels
from dcmsync.net.parcels import PIECE_OCTETS, Piece, head_of, joined, octets_of, read_at_of

ARRIVAL = Arrival(sop_class_uid="1.2.3", sop_instance_uid="1.2.3.4", transfer_syntax_uid="1.2.840.10008.1.2.1")
OCTETS = bytes(range(256)) * 2049  # two pieces, and a bit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    found.write_bytes(b"before" + OCTETS + b"behind")
    return found


@pytest.fixture
def of_file(path: Path) -> Iterator[Parcel]:
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    stamp = Stamp(size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino)
    yield Parcel(arrival=ARRIVAL, size=len(OCTETS), descriptor=descriptor, offset=6, stamp=stamp)
    os.close(descriptor)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_memory_and_files_give_the_same(kind: type[bytes], of_file: Parcel) -> None:
    in_memory = Parcel(arrival=ARRIVAL, size=len(OCTETS), memory=kind(OCTETS))
    for one in (in_memory, of_file):
        assert b"".join(octets_of(one)) == OCTETS
        assert max(map(len, octets_of(one))) == PIECE_OCTETS
        read_at = read_at_of(one)
        assert read_at(0, 10) == OCTETS[:10]
        assert read_at(len(OCTETS) - 3, 10) == OCTETS[-3:]
        assert read_at(len(OCTETS) + 3, 10) == b""
    assert list(octets_of(Parcel(arrival=ARRIVAL, size=0, memory=b""))) == []


@pytest.mark.parametrize("how", ["cut", "grown", "touched"])
def test_the_last_octets_of_a_file_that_changed_do_not_go_out(path: Path, of_file: Parcel, how: str) -> None:
    going = octets_of(of_file)
    came = [bytes(next(going))]
    if how == "cut":
        os.truncate(path, len(OCTETS))
    elif how == "grown":
        path.write_bytes(path.read_bytes() + b"more")
    else:
        os.utime(path, ns=(1, 1))
    with pytest.raises(LocalTrouble, match="changed while it was sent"):
        came += [bytes(piece) for piece in going]
    assert len(b"".join(came)) < len(OCTETS)


def test_a_file_that_cannot_be_read_is_told_without_its_name() -> None:
    with pytest.raises(LocalTrouble, match="a file cannot be read: bad file descriptor"):
        list(octets_of(Parcel(arrival=ARRIVAL, size=9, descriptor=987_654)))


def test_a_head_is_kept_or_made() -> None:
    kept = Arrival(**{**{name: getattr(ARRIVAL, name) for name in ARRIVAL.__struct_fields__}, "head": b"its own"})
    assert head_of(Parcel(arrival=kept, size=0, memory=b"")) == b"its own"
    made = BytesIO(head_of(Parcel(arrival=ARRIVAL, size=0, memory=b"")))
    assert read_preamble(made, force=False) is not None
    made.seek(0)
    meta = dcmread(made).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == ("1.2.3.4", "1.2.840.10008.1.2.1")


def test_small_pieces_are_joined_and_large_ones_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "_ALONE_OCTETS", 10)
    large = b"x" * 10

    def given() -> Iterator[Piece]:
        yield from (b"a", memoryview(b"b"), large, b"c" * 6, b"d" * 6, b"e")

    async def all_of_it() -> list[Piece]:
        return [piece async for piece in joined(given())]

    found = anyio.run(all_of_it)
    assert found == [b"ab", large, b"c" * 6 + b"d" * 6, b"e"]
    assert found[1] is large
