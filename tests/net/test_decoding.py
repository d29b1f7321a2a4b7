"""gzip as it comes: in any pieces, in several members, as a bomb, and cut."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import RemoteProtocolError
from dcmsync.net.decoding import PIECE_OCTETS, Decoder


@given(st.lists(st.binary(max_size=500), min_size=1, max_size=3), st.integers(1, 40))
def test_members_come_out_as_they_went_in_however_they_are_cut(members: list[bytes], size: int) -> None:
    octets = b"".join(gzip.compress(member) for member in members)
    decoder = Decoder("GZIP", "pacs")
    found = b"".join(b"".join(decoder.feed(octets[at : at + size])) for at in range(0, len(octets), size))
    assert found == b"".join(members) and decoder.is_complete


@pytest.mark.parametrize("size", [PIECE_OCTETS - 1, PIECE_OCTETS, PIECE_OCTETS + 1, 3 * PIECE_OCTETS])
def test_nothing_stays_behind_at_the_size_of_a_piece(size: int) -> None:
    decoder = Decoder("gzip", "pacs")
    pieces = list(decoder.feed(gzip.compress(bytes(size))))
    assert sum(map(len, pieces)) == size and max(map(len, pieces)) <= PIECE_OCTETS and decoder.is_complete


@pytest.mark.parametrize("kept", [1, 10, 30])
def test_what_is_cut_is_not_complete(kept: int) -> None:
    decoder = Decoder("gzip", "pacs")
    list(decoder.feed(gzip.compress(b"some words of a length", mtime=0)[:kept]))
    assert not decoder.is_complete


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_what_is_not_encoded_passes_as_it_is(encoding: str) -> None:
    decoder = Decoder(encoding, "pacs")
    assert list(decoder.feed(b"\x1f\x8b")) == [b"\x1f\x8b"] and decoder.is_complete


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_what_was_not_asked_for_is_refused(encoding: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        Decoder(encoding, "pacs")


def test_what_only_says_that_it_is_gzip_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="is not"):
        list(Decoder("gzip", "pacs").feed(b"<html>"))
