"""The octets of a member, in pieces of any size, forward and back; what is wrong with them is in test_zip_hostile."""

import random
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.wire import unpacking
from dcmsync.wire.archive import DEFLATED, STORED, Damaged, Entry
from dcmsync.wire.source import Distant
from dcmsync.wire.unpacking import Unpacked, Unpacking


def member(octets: bytes, method: int) -> tuple[Distant, Entry, int]:
    """A source with something before and behind the data."""
    packed = octets
    if method == DEFLATED:
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = stream.compress(octets) + stream.flush()
    around = b"before" + packed + b"behind"
    entry = Entry(
        name=b"a", flags=0, method=method, crc=zlib.crc32(octets), packed=len(packed), size=len(octets), header=0,
        mode=0, record=0, record_octets=0,
    )  # fmt: skip
    return Distant(lambda offset, length: around[offset : offset + length], len(around)), entry, 6


OCTETS = st.builds(
    lambda size, seed, kinds: bytes(random.Random(seed).choices(range(kinds), k=size)),
    st.integers(0, 5000), st.integers(0, 99), st.sampled_from([1, 2, 256]),
)  # fmt: skip


@given(OCTETS, st.sampled_from([STORED, DEFLATED]), st.integers(1, 6000), st.integers(1, 3000))
def test_pieces_of_any_size_are_the_member(octets: bytes, method: int, most: int, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacking, "PIECE_OCTETS", piece)
        stream = Unpacking(*member(octets, method))
        pieces = []
        while got := stream.read(most):
            assert len(got) <= most
            pieces.append(got)
        assert b"".join(pieces) == octets
        assert stream.read(most) == b""
        assert Unpacking(*member(octets, method)).read_all() == octets


@given(OCTETS, st.sampled_from([STORED, DEFLATED]), st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 3000))))
def test_reading_anywhere_gives_what_is_there(octets: bytes, method: int, reads: list[tuple[int, int]]) -> None:
    found = Unpacked(*member(octets, method)).distant()
    assert found.size == len(octets)
    for offset, length in reads:
        assert found.read_at(offset, length) == octets[offset : offset + length]


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_a_source_that_ends_is_damage(method: int) -> None:
    source, entry, begin = member(bytes(range(256)) * 20, method)
    cut = Distant(lambda offset, length: source.read_at(offset, min(length, max(begin + 20 - offset, 0))), source.size)
    with pytest.raises(Damaged, match="the archive ends within it"):
        Unpacking(cut, entry, begin).read_all()


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_octets_behind_the_last_piece_are_damage(method: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source, entry, begin = member(bytes(range(256)) * 20, method)
    longer = msgspec.structs.replace(entry, packed=entry.packed + 3)
    for piece in (entry.packed, 1000):
        monkeypatch.setattr(unpacking, "PIECE_OCTETS", piece)
        with pytest.raises(Damaged, match="something stands behind its data"):
            Unpacking(source, longer, begin).read_all()
