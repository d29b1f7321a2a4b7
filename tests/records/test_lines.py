"""Whole lines out of octets, however they arrive."""

import io
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import InputError
from dcmsync.records.lines import Blocks


class Arriving(io.RawIOBase):
    """A pipe: each read gives what was written at once, never more; a read past the last piece is the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.largest_read = 0

    def read(self, size: int = -1) -> bytes:
        self.largest_read = max(self.largest_read, size)
        if not self.pieces:
            return b""
        piece, rest = self.pieces[0][:size], self.pieces[0][size:]
        self.pieces[:1] = [rest] if rest else []
        return piece


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


def lines_of(blocks: Blocks) -> list[tuple[int, bytes]]:
    return [(number, line) for block in blocks for number, line in enumerate(block.lines, block.first)]


@given(text=st.binary(max_size=200), more=st.lists(st.sampled_from([b"\n", b"ab", b"\xc3", b"\xa9"])),
       places=st.lists(st.integers(0, 500)))
def test_any_split_gives_the_same_lines(text: bytes, more: list[bytes], places: list[int]) -> None:
    text += b"".join(more)
    blocks = Blocks(Arriving(cut(text, places)))  # type: ignore[arg-type]
    *whole, tail = text.split(b"\n")
    assert lines_of(blocks) == list(enumerate(whole, 1))
    assert blocks.tail == tail


@given(text=st.lists(st.sampled_from([b"a", b"\xe9", b"\n"]), max_size=30).map(b"".join),
       places=st.lists(st.integers(0, 50)))
def test_a_block_said_to_be_ascii_is_ascii(text: bytes, places: list[int]) -> None:
    for block in Blocks(Arriving(cut(text, places))):  # type: ignore[arg-type]
        assert not block.is_ascii or all(map(bytes.isascii, block.lines))


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8), places=st.lists(st.integers(0, 100)))
def test_any_split_refuses_the_same_line(lengths: list[int], places: list[int]) -> None:
    text = b"".join(b"x" * length + b"\n" for length in lengths)
    blocks = Blocks(Arriving(cut(text, places)), max_line_octets=10)  # type: ignore[arg-type]
    bad = next((number for number, length in enumerate(lengths, 1) if length > 10), None)
    given_lines: list[bytes] = []
    try:
        for block in blocks:
            given_lines += block.lines
    except InputError as error:
        assert error.line == bad
    else:
        assert bad is None
    assert [len(line) for line in given_lines] == lengths[: bad - 1 if bad else None]


def test_a_line_is_handed_on_before_the_next_one_arrives() -> None:
    class Watched(Arriving):
        def read(self, size: int = -1) -> bytes:
            assert not asked or seen == asked, "waited for more while a whole line was there"
            asked.append(len(asked))
            return super().read(size)

    asked: list[int] = []
    seen: list[int] = []
    for index, _ in enumerate(Blocks(Watched([b"one\n", b"two\n"]))):  # type: ignore[arg-type]
        seen.append(index)
    assert seen == [0, 1]


def test_an_endless_line_is_refused_within_the_cap() -> None:
    class Endless(io.RawIOBase):
        octets = 0

        def read(self, size: int = -1) -> bytes:
            self.octets += size
            return b"x" * size

    source = Endless()
    with pytest.raises(InputError, match="line 1: longer than 1048576 octets"):
        list(Blocks(source, max_line_octets=2**20))  # type: ignore[arg-type]
    assert source.octets < 2**20 + 2**18


def test_a_read_that_fails_names_the_line() -> None:
    class Broken(Arriving):
        def read(self, size: int = -1) -> bytes:
            if not self.pieces:
                raise OSError(5, "Input/output error")
            return super().read(size)

    def lines() -> Iterator[bytes]:
        for block in Blocks(Broken([b"one\ntwo"])):  # type: ignore[arg-type]
            yield from block.lines

    stream = lines()
    assert next(stream) == b"one"
    with pytest.raises(InputError, match=r"line 2: .*Input/output error"):
        next(stream)


def test_a_non_blocking_input_is_no_end_of_input() -> None:
    class Empty(io.RawIOBase):
        def read(self, size: int = -1) -> bytes | None:  # type: ignore[override]
            return None

    with pytest.raises(InputError, match="non-blocking"):
        list(Blocks(Empty()))  # type: ignore[arg-type]
