"""Tests of endpoints/dicomweb/retrieving.py: what arrives by WADO-RS, and what must never count as arrived."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import anyio
import pytest
from msgspec import structs

from dcmsync.contract import Arrival, Ending, Want
from dcmsync.endpoints.dicomweb import retrieving
from dcmsync.endpoints.dicomweb.place import DicomwebPlace
from dcmsync.errors import (
    Disconnected,
    LocalTrouble,
    PeerError,
    Refused,
    Rejected,
    RemoteProtocolError,
    Stalled,
)
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from tests import samples
from tests.fakes.web import Reply, Script, Seen, Web

CT = samples.CT_IMAGE_STORAGE
BOUNDARY = "b0undary"
MULTIPART = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
FILE = {"Content-Type": "application/dicom"}


def a_file(number: int, *, octets: int = 200) -> bytes:
    uid = f"1.2.{number}"
    element = partial(samples.element)
    data_set = element(0x00080016, b"UI", CT) + element(0x00080018, b"UI", uid)
    data_set += element(0x0020000D, b"UI", "1.1") + element(0x0020000E, b"UI", "1.1.1")
    data_set += element(0x7FE00010, b"OW", struct.pack("<L", number) * (octets // 4))
    return samples.part10(data_set, sop_class_uid=CT, sop_uid=uid)


def parts(*files: bytes, boundary: str = BOUNDARY, closing: bool = True) -> bytes:
    body = b"".join(
        b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (boundary.encode(), octets) for octets in files
    )
    return body + b"--%b--\r\n" % boundary.encode() * closing


def multipart(*files: bytes, headers: Mapping[str, str] = MULTIPART, status: int = 200, closing: bool = True) -> Reply:
    return Reply(status=status, headers=headers, body=parts(*files, closing=closing))


class Shelf:
    """Takes what is wanted, each once; `whole` are the files that were finished, octet by octet."""

    def __init__(self, want: Want) -> None:
        self.whole: dict[str, bytes] = {}
        self.discarded = 0
        self.open = 0
        self.refused: list[str] = []
        self.trouble: LocalTrouble | None = None
        self._want = want

    def receive(self, arrival: Arrival) -> "_Sink | int":
        if arrival.sop_instance_uid not in self._want.instances or arrival.sop_instance_uid in self.whole:
            self.refused.append(arrival.sop_instance_uid)
            return 0xC000
        self.open += 1
        return _Sink(self, arrival)

    async def room(self) -> None:
        if self.trouble is not None:
            raise self.trouble


class _Sink:
    def __init__(self, shelf: Shelf, arrival: Arrival) -> None:
        self._shelf, self._arrival = shelf, arrival
        self._octets = bytearray(arrival.head)

    def adopt(self) -> bool:
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self._octets += piece

    def finish(self) -> int:
        self._shelf.open -= 1
        self._shelf.whole[self._arrival.sop_instance_uid] = bytes(self._octets)
        return 0

    def discard(self, why: str) -> None:
        self._shelf.open -= 1
        self._shelf.discarded += 1


WANT = Want(study_uid="1.1", series_uid="1.1.1", instances={f"1.2.{number}": CT for number in range(3)})
ONE = structs.replace(WANT, instances={"1.2.0": CT}, whole=False)
FILES = [a_file(number) for number in range(3)]
SHELF = {f"1.2.{number}": octets for number, octets in enumerate(FILES)}


class Fetched:
    """What one or more retrievals brought."""

    def __init__(self, *scripts: Script, want: Want = WANT, times: int = 1, timeout_s: float = 5) -> None:
        self.shelf = Shelf(want)
        self.warnings: list[str] = []
        self.ending: Ending | None = None
        self.error: Exception | None = None
        with Web(*scripts) as web:
            anyio.run(self._run, web.url, want, times, timeout_s)
        self.seen = web.seen
        assert not self.shelf.open  # each sink was finished or discarded

    async def _run(self, url: str, want: Want, times: int, timeout_s: float) -> None:
        door = Door(url, name="web", limits=Limits(timeout_s=timeout_s), warn=self.warnings.append)
        async with DicomwebPlace(door, warn=self.warnings.append).session() as session:
            for _ in range(times):
                try:
                    self.ending = await session.fetch(want, self.shelf)
                except (PeerError, LocalTrouble) as error:
                    self.error = error


def test_a_series_comes_in_one_answer_octet_by_octet() -> None:
    fetched = Fetched(multipart(*FILES))
    assert fetched.shelf.whole == SHELF
    assert fetched.ending == Ending()
    [seen] = fetched.seen
    assert seen.target == "/studies/1.1/series/1.1.1"
    assert seen.headers["accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("piece", [1, 7, 65536])
def test_however_the_octets_come_they_are_the_same(framing: str, piece: int) -> None:
    fetched = Fetched(replace(multipart(*FILES), framing=framing, piece=piece))  # type: ignore[arg-type]
    assert fetched.shelf.whole == SHELF


def test_some_instances_are_asked_for_one_by_one() -> None:
    def serve(seen: Seen) -> Reply:
        return multipart(FILES[int(seen.path[-1])])

    fetched = Fetched(serve, want=structs.replace(WANT, whole=False))
    assert fetched.shelf.whole == SHELF
    assert [seen.target for seen in fetched.seen] == [f"/studies/1.1/series/1.1.1/instances/1.2.{n}" for n in range(3)]


def test_one_file_without_parts_is_taken_too() -> None:
    assert Fetched(Reply(headers=FILE, body=FILES[0]), want=ONE).shelf.whole == {"1.2.0": FILES[0]}


@pytest.mark.parametrize("status", [400, 406])
def test_who_refuses_what_is_stored_is_asked_for_what_it_gives_and_that_is_remembered(status: int) -> None:
    def serve(seen: Seen) -> Reply:
        return Reply(status=status) if "transfer-syntax" in seen.headers["accept"] else multipart(FILES[0])

    fetched = Fetched(serve, want=ONE, times=2)
    assert fetched.shelf.whole == {"1.2.0": FILES[0]}
    assert len(fetched.seen) == 3
    assert [("decompress" in words) for words in fetched.warnings] == [True]


def test_who_gives_no_series_is_asked_for_its_instances() -> None:
    def serve(seen: Seen) -> Reply:
        if "instances" not in seen.path:
            return Reply(status=406)
        if seen.headers["accept"] != "application/dicom; transfer-syntax=*":
            return Reply(status=406)
        return Reply(headers=FILE, body=FILES[int(seen.path[-1])])

    fetched = Fetched(serve, times=2)
    assert fetched.shelf.whole == SHELF
    assert len(fetched.warnings) == 1
    assert len([seen for seen in fetched.seen if "instances" not in seen.path]) == 4


@pytest.mark.parametrize("at", [1, 100, 500, 1000, -1, -2, -9, -12])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_that_is_cut_is_an_error_and_keeps_what_was_whole(at: int, framing: str) -> None:
    body = parts(*FILES)
    ends = at if at > 0 else len(body) + at
    reply = Reply(headers=MULTIPART, body=body[:ends] if framing == "close" else body, cut=None, framing="close")
    if framing != "close":
        reply = Reply(headers=MULTIPART, body=body, framing=framing, cut=ends)  # type: ignore[arg-type]
    fetched = Fetched(reply)
    arrived = fetched.shelf.whole
    assert all(arrived[uid] == SHELF[uid] for uid in arrived)
    whole = [uid for number, uid in enumerate(SHELF) if len(parts(*FILES[: number + 1], closing=False)) <= ends]
    assert len(arrived) <= len(whole)
    if ends < len(body) - 2:  # all but the line end behind the closing delimiter, which is of no interest
        assert isinstance(fetched.error, Disconnected)


def test_a_missing_closing_delimiter_is_an_error_whatever_the_status() -> None:
    fetched = Fetched(multipart(*FILES, closing=False))
    assert isinstance(fetched.error, Disconnected)
    assert len(fetched.shelf.whole) == 2


def test_a_file_that_says_not_where_it_ends_is_not_taken() -> None:
    fetched = Fetched(Reply(headers=FILE, body=FILES[0], framing="close"), want=ONE)
    assert isinstance(fetched.error, Disconnected)
    assert not fetched.shelf.whole


def test_a_file_that_is_cut_is_not_taken() -> None:
    fetched = Fetched(Reply(headers=FILE, body=FILES[0], cut=len(FILES[0]) - 1), want=ONE)
    assert isinstance(fetched.error, Disconnected)
    assert not fetched.shelf.whole


def test_the_wrong_boundary_is_an_error() -> None:
    fetched = Fetched(Reply(headers=MULTIPART, body=parts(*FILES, boundary="another")))
    assert fetched.error is not None
    assert not fetched.shelf.whole


@pytest.mark.parametrize("content_type", ["multipart/related", "multipart/related; boundary="])
def test_no_boundary_is_an_error(content_type: str) -> None:
    fetched = Fetched(Reply(headers={"Content-Type": content_type}, body=parts(*FILES)))
    assert isinstance(fetched.error, RemoteProtocolError)


def test_what_looks_like_the_boundary_inside_an_instance_is_an_instance() -> None:
    pixels = f"\r\n--{BOUNDARY}x\r\n--{BOUNDARY[:-1]}".encode() * 9
    data_set = samples.element(0x00080018, b"UI", "1.2.0") + samples.element(0x7FE00010, b"OW", pixels)
    octets = samples.part10(data_set, sop_class_uid=CT, sop_uid="1.2.0")
    assert Fetched(multipart(octets), want=ONE).shelf.whole == {"1.2.0": octets}


@pytest.mark.parametrize("status", [206, 200])
def test_instances_that_are_left_out_are_not_there(status: int) -> None:
    fetched = Fetched(multipart(*FILES[:2], status=status))
    assert list(fetched.shelf.whole) == ["1.2.0", "1.2.1"]
    assert fetched.error is None
    assert fetched.ending is not None
    assert ("206" in fetched.ending.why) == (status == 206)


def test_another_instance_than_was_asked_for_is_not_taken() -> None:
    fetched = Fetched(multipart(FILES[1]), want=ONE)
    assert (fetched.shelf.whole, fetched.shelf.refused) == ({}, ["1.2.1"])


def test_a_second_one_of_a_uid_is_offered_too() -> None:
    fetched = Fetched(multipart(FILES[0], FILES[0]), want=ONE)
    assert (list(fetched.shelf.whole), fetched.shelf.refused) == (["1.2.0"], ["1.2.0"])


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(headers={"Content-Type": "text/html"}, body=b"<html>Sign in</html>"), "an HTML page"),
        (Reply(headers={}, body=b"nothing to see"), '"nothing to see"'),
        (multipart(b"<html></html>"), "an HTML page"),
        (Reply(headers=FILE, body=b""), "nothing"),
        (Reply(status=204), "204"),
    ],
)
def test_what_is_no_instance_is_said(reply: Reply, words: str) -> None:
    fetched = Fetched(reply, want=ONE)
    assert words in str(fetched.error)
    assert not fetched.shelf.whole


def test_one_series_that_is_refused_does_not_mean_that_none_is_given() -> None:
    fetched = Fetched(multipart(*FILES[:2]), Reply(status=400), multipart(FILES[2]), times=3)
    assert isinstance(fetched.error, Refused)
    assert fetched.shelf.whole == SHELF
    assert not any("instances" in seen.path for seen in fetched.seen)


def test_one_instance_that_is_not_there_does_not_end_the_others() -> None:
    def serve(seen: Seen) -> Reply:
        number = int(seen.path[-1])
        if number == 0:
            return Reply(status=404)
        return multipart(FILES[1]) if number == 1 else multipart(b"<html>")

    fetched = Fetched(serve, want=structs.replace(WANT, whole=False))
    assert list(fetched.shelf.whole) == ["1.2.1"]
    assert fetched.error is None
    assert fetched.ending is not None
    assert "404" in fetched.ending.why


def test_a_series_that_is_not_there_is_refused_in_words() -> None:
    fetched = Fetched(Reply(status=404, body=b'{"Message":"Unknown resource"}'))
    assert isinstance(fetched.error, Refused)
    assert "Unknown resource" in str(fetched.error)


def test_a_server_that_wants_credentials_ends_it() -> None:
    assert isinstance(Fetched(Reply(status=401), want=structs.replace(WANT, whole=False)).error, Rejected)


def test_a_server_that_is_busy_is_asked_again_when_it_says() -> None:
    busy = Reply(status=503, headers={"Retry-After": "0"})
    fetched = Fetched(busy, replace(busy, status=429), multipart(*FILES))
    assert fetched.shelf.whole == SHELF


def test_a_redirect_is_followed() -> None:
    moved = Reply(status=302, headers={"Location": "/elsewhere"})
    assert Fetched(moved, multipart(*FILES)).shelf.whole == SHELF


def test_parts_without_end_that_nobody_asked_for_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieving, "_UNASKED", 5)
    fetched = Fetched(multipart(*[a_file(number + 100) for number in range(20)]))
    assert isinstance(fetched.error, RemoteProtocolError)
    assert len(fetched.shelf.refused) == 3 + 5


@pytest.mark.slow
def test_an_answer_that_drips_is_given_up() -> None:
    fetched = Fetched(replace(multipart(*FILES), piece=10, pause_s=0.05), timeout_s=0.4)
    assert isinstance(fetched.error, Stalled)


def test_octets_that_inflate_without_end_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.net.instances.MAX_INSTANCE_OCTETS", 1 << 20)
    fetched = Fetched(Reply(headers=MULTIPART, body=parts(a_file(0, octets=4 << 20)), gzipped=True), want=ONE)
    assert all(octets == a_file(0, octets=4 << 20) for octets in fetched.shelf.whole.values())


def test_trouble_of_our_own_ends_it() -> None:
    class Full(Shelf):
        def receive(self, arrival: Arrival) -> "_Sink | int":
            self.trouble = LocalTrouble("no space left")
            return super().receive(arrival)

    async def run(url: str) -> None:
        door = Door(url, name="web", limits=Limits(timeout_s=5), warn=print)
        async with DicomwebPlace(door, warn=print).session() as session:
            await session.fetch(WANT, Full(WANT))

    with Web(replace(multipart(*FILES), framing="chunked", piece=100)) as web, pytest.raises(LocalTrouble):
        anyio.run(run, web.url)


