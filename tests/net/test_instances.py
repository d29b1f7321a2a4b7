"""Tests of net/instances.py: files in pieces, cut at every place, and what is no file."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import anyio
import pytest

from dcmsync.contract import Arrival
from dcmsync.errors import Disconnected, LocalTrouble, RemoteProtocolError
from dcmsync.net.instances import Intake, Taken, is_framed, take_in
from dcmsync.wire.part10 import file_meta
from tests import samples

CT = samples.CT_IMAGE_STORAGE
UID = "2.25.1234567890"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
DATA_SET = b"\x08\x00\x60\x00CS\x02\x00CT" + b"\x10\x00\x20\x00LO\x04\x00P123"


class Shelf:
    """Receives into memory; `refuses` and `breaks` as a receiver and a sink may."""

    def __init__(self, *, refuses: int = 0, breaks: Exception | None = None) -> None:
        self.came: list[tuple[Arrival, bytearray]] = []
        self.finished = 0
        self.discarded: list[str] = []
        self.breaks = breaks
        self._refuses = refuses

    def receive(self, arrival: Arrival) -> "Shelf | int":
        if self._refuses:
            return self._refuses
        self.came.append((arrival, bytearray()))
        return self

    async def room(self) -> None:
        return

    def adopt(self) -> bool:
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        if self.breaks is not None:
            raise self.breaks
        for piece in pieces:
            self.came[-1][1].extend(piece)

    def finish(self) -> int:
        self.finished += 1
        return 0

    def discard(self, why: str) -> None:
        self.discarded.append(why)


def taken(octets: bytes, *sizes: int, shelf: Shelf | None = None, max_octets: int = 1 << 20) -> tuple[Taken, Shelf]:
    """What comes of octets in pieces that end at these places, then at the end."""
    shelf = shelf or Shelf()
    intake = Intake(shelf, max_octets=max_octets)
    ends = (0, *sizes, len(octets))
    for begin, end in pairwise(ends):
        intake.write(octets[begin:end])
    return intake.end(), shelf


def a_file(syntax: str = samples.EXPLICIT_LITTLE, data_set: bytes = DATA_SET) -> bytes:
    return file_meta(CT, UID, syntax) + data_set


def test_a_file_cut_anywhere_into_two_is_the_same_instance() -> None:
    octets = a_file()
    head = len(octets) - len(DATA_SET)
    for cut in range(len(octets) + 1):
        what, shelf = taken(octets, cut)
        assert (what.sop_instance_uid, what.why, what.octets) == (UID, "", len(octets)), cut
        ((arrival, data_set),) = shelf.came
        assert (arrival.head, bytes(data_set), shelf.finished) == (octets[:head], DATA_SET, 1), cut
        assert (arrival.sop_class_uid, arrival.transfer_syntax_uid) == (CT, samples.EXPLICIT_LITTLE)


def test_pieces_of_one_octet_are_the_same_instance() -> None:
    octets = a_file()
    what, shelf = taken(octets, *range(1, len(octets)))
    assert not what.why
    assert bytes(shelf.came[0][1]) == DATA_SET


@pytest.mark.parametrize("syntax", [BIG_ENDIAN, DEFLATED])
def test_the_data_set_passes_as_it_is_written(syntax: str) -> None:
    data_set = bytes(range(256))
    what, shelf = taken(a_file(syntax, data_set), 200, 300)
    assert not what.why
    assert shelf.came[0][0].transfer_syntax_uid == syntax
    assert bytes(shelf.came[0][1]) == data_set


def test_a_missing_group_length_is_not_missed() -> None:
    octets = a_file()
    without = octets[:132] + octets[144:]
    for cut in range(len(without) + 1):
        what, shelf = taken(without, cut)
        assert not what.why
        assert bytes(shelf.came[0][1]) == DATA_SET


def test_a_file_whose_group_0002_names_no_instance_says_it_in_its_data_set() -> None:
    uids = b"\x08\x00\x16\x00UI\x04\x001.2\x00" + b"\x08\x00\x18\x00UI\x04\x001.3\x00" + DATA_SET
    syntax = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00"
    octets = bytes(128) + b"DICM" + syntax + uids
    for cut in range(len(octets) + 1):
        what, shelf = taken(octets, cut)
        assert (what.why, what.sop_instance_uid) == ("", "1.3"), cut
        assert shelf.came[0][0].sop_class_uid == "1.2"
        assert bytes(shelf.came[0][1]) == uids


def test_a_file_that_names_no_instance_at_all_is_not_taken() -> None:
    octets = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00" + DATA_SET
    what, shelf = taken(octets)
    assert what.why == "it does not say which instance it is"
    assert not shelf.came


def test_a_file_that_ends_in_group_0002_is_not_whole() -> None:
    octets = a_file()
    for end in range(132, len(octets) - len(DATA_SET)):
        what, shelf = taken(octets[:end])
        assert what.why.startswith("not a whole DICOM file"), end
        assert not shelf.came


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"\n<!DOCTYPE html><html><body>Sign in" + bytes(200), "an HTML page"),
        (b"<?xml version='1.0'?>" + b" " * 200, "XML"),
        (b'{"HttpError":"Not Found"}', "JSON"),
        (b"no such thing", '"no such thing"'),
        (b"", "nothing"),
        (bytes(range(256)), "octets without the prefix DICM"),
    ],
)
def test_what_is_no_file_is_said_in_words(octets: bytes, words: str) -> None:
    what, shelf = taken(octets)
    assert what.why == f"not a DICOM file but {words}"
    assert not shelf.came


def test_what_is_quoted_is_short() -> None:
    what, _ = taken(b"word " * 1000)
    assert len(what.why) < 80


def test_a_group_0002_without_end_is_not_gathered_for_ever() -> None:
    intake = Intake(Shelf())
    head = bytes(128) + b"DICM" + b"\x02\x00\x02\x01OB\x00\x00\xff\xff\xff\x7f"
    intake.write(head)
    for _ in range(3 << 4):
        intake.write(bytes(64 << 10))
    assert intake.is_idle
    assert intake.end().why == "not a whole DICOM file: ends within group 0002"


def test_a_drip_of_octets_is_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = Intake._look

    def counted(self: Intake, octets: memoryview, *, is_all: bool) -> None:
        nonlocal looks
        looks += 1
        look(self, octets, is_all=is_all)

    monkeypatch.setattr(Intake, "_look", counted)
    intake = Intake(Shelf())
    for octet in bytes(128) + b"DICM" + b"\x02\x00\x02\x01OB\x00\x00\xff\xff\xff\x7f" + bytes(20_000):
        intake.write(bytes([octet]))
    assert looks < 12


def test_what_is_refused_is_not_taken_and_says_so() -> None:
    what, shelf = taken(a_file(), 10, 300, shelf=Shelf(refuses=0xC000))
    assert (what.status, what.sop_instance_uid, bool(what.why)) == (0xC000, UID, True)
    assert not shelf.finished


def test_a_sink_that_finds_no_data_set_ends_this_instance_alone() -> None:
    what, shelf = taken(a_file(), 10, 300, shelf=Shelf(breaks=RemoteProtocolError("sent no data set")))
    assert what.why == "sent no data set"
    assert shelf.discarded == ["sent no data set"]
    assert not shelf.finished


def test_local_trouble_is_raised_and_nothing_is_kept() -> None:
    shelf = Shelf(breaks=LocalTrouble("no space left"))
    with pytest.raises(LocalTrouble):
        taken(a_file(), shelf=shelf)
    assert shelf.discarded
    assert not shelf.finished


def test_an_instance_beyond_the_limit_is_discarded() -> None:
    shelf = Shelf()
    with pytest.raises(RemoteProtocolError, match="more than 400 octets"):
        taken(a_file(data_set=bytes(500)), 350, shelf=shelf, max_octets=400)
    assert (len(shelf.discarded), shelf.finished) == (1, 0)


def test_an_instance_that_is_dropped_is_discarded_once() -> None:
    shelf = Shelf()
    intake = Intake(shelf)
    intake.write(a_file())
    assert intake.drop("cut").why == "cut"
    intake.drop("again")
    assert (shelf.discarded, shelf.finished) == (["cut"], 0)


async def _pieces(*pieces: bytes, trouble: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if trouble is not None:
        raise trouble


def test_an_answer_that_is_cut_leaves_nothing() -> None:
    shelf = Shelf()

    async def cut() -> None:
        await take_in(_pieces(a_file(), trouble=Disconnected("gone")), shelf)

    with pytest.raises(Disconnected):
        anyio.run(cut)
    assert (len(shelf.discarded), shelf.finished) == (1, 0)


def test_an_answer_that_nobody_wants_is_not_read_on() -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"<html>" + bytes(1000)

    what = anyio.run(take_in, endless(), Shelf())
    assert "HTML" in what.why
    assert given == 1


def test_a_whole_answer_is_an_instance() -> None:
    shelf = Shelf()
    what = anyio.run(take_in, _pieces(a_file()[:150], a_file()[150:]), shelf)
    assert (what.why, shelf.finished, shelf.discarded) == ("", 1, [])


def test_an_answer_says_where_it_ends_by_its_length_or_its_chunks() -> None:
    assert is_framed({"Content-Length": "5"})
    assert is_framed({"Transfer-Encoding": "Chunked"})
    assert not is_framed({})
