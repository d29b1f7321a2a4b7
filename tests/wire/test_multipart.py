"""Reading and writing multipart/related: judged by bodies that others wrote, and by every way to cut a body in two."""

import asyncio
import email.generator
import email.mime.application
import email.mime.multipart
import email.policy
import io
import time
from collections.abc import Iterable

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.multipart import (
    MOST_HEADER_OCTETS,
    MOST_PREAMBLE_OCTETS,
    Begun,
    Closed,
    Content,
    Ended,
    Event,
    Reader,
    Writer,
    boundary_of,
    parameters,
)

Told = list[object]


def told(events: Iterable[Event]) -> Told:
    """What events say, data joined: ("part", headers), octets, "end", "closed"."""
    said: Told = []
    for event in events:
        match event:
            case Begun():
                said.append(("part", dict(event.headers)))
            case Content():
                said.append(said.pop() + bytes(event.data) if isinstance(said[-1], bytes) else bytes(event.data))
            case Ended():
                said.append("end")
            case Closed():
                said.append("closed")
    return said


def read(*pieces: bytes, boundary: str = "B") -> Told:
    reader = Reader(boundary)
    events = [event for piece in pieces for event in reader.feed(piece)]
    return told(events + reader.end())


def verdict(*pieces: bytes, boundary: str = "B") -> Told | str:
    """As `read`, or the words of the refusal."""
    try:
        return read(*pieces, boundary=boundary)
    except RemoteProtocolError as error:
        return str(error)


def parts_of(said: Told) -> list[bytes]:
    """The data of each part."""
    assert said[-1] == "closed"
    found: list[bytes] = []
    for each in said:
        if isinstance(each, tuple):
            found.append(b"")
        elif isinstance(each, bytes):
            found[-1] += each
    return found


DICOM = b"Content-Type: application/dicom\r\n"


def body(*parts: bytes, closing: bytes = b"--B--\r\n", headers: bytes = DICOM) -> bytes:
    return b"".join(b"--B\r\n" + headers + b"\r\n" + part + b"\r\n" for part in parts) + closing


NEAR = st.lists(
    st.sampled_from([b"\r\n--B", b"\r\n--", b"\r\n", b"\r", b"\n", b"--", b"-", b"B", b" ", b"\t", b"x", b"\0\xff"])
).map(b"".join)


@given(NEAR, st.lists(st.integers(0, 200), max_size=6))
def test_octets_mean_the_same_however_they_are_cut(octets: bytes, cuts: list[int]) -> None:
    whole = body(b"one") [: -len(b"--B--\r\n")] + b"--B\r\n\r\n" + octets + b"\r\n--B--"
    places = sorted(min(cut, len(whole)) for cut in cuts)
    pieces = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
    assert verdict(*pieces) == verdict(whole) == verdict(*(whole[i : i + 1] for i in range(len(whole))))


@given(NEAR, st.integers(0, 300))
def test_any_octets_at_all_mean_the_same_in_two_pieces(octets: bytes, cut: int) -> None:
    assert verdict(octets[:cut], octets[cut:]) == verdict(octets)


@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 50))
def test_parts_come_out_as_they_went_in(parts: list[bytes], size: int) -> None:
    writer = Writer("0123456789abcdef0123456789abcdef")
    whole = b"".join(writer.head + part + writer.TAIL for part in parts) + writer.closing
    assert len(whole) == writer.length(map(len, parts))
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    assert parts_of(read(*pieces, boundary=boundary_of(writer.media_type))) == parts


def test_a_boundary_that_data_merely_begin_like_is_data() -> None:
    data = b"\r\n--Bx\r\n--B-\r\n--B--x\r\n --B\n--B\r\n--B \x00"
    assert parts_of(read(body(data))) == [data]


def test_a_line_of_data_that_is_a_delimiter_ends_the_part() -> None:
    assert parts_of(read(b"--B\r\n\r\none\r\n--B \t\r\n\r\ntwo\r\n--B-- \r\nepilogue --B")) == [b"one", b"two"]


def test_a_claimed_length_that_a_delimiter_follows_counts() -> None:
    data = b"a\r\n--B\r\n\r\nb\r\n--B--\r\nc"
    whole = body(data, headers=b"Content-Length: %d\r\n" % len(data))
    assert parts_of(read(whole)) == [data]
    assert parts_of(read(*(whole[i : i + 1] for i in range(len(whole))))) == [data]


@pytest.mark.parametrize("claim", [b"0", b"2", b"9", b"100", b"99999999999", b"-1", b"x", b"9" * 30])
def test_a_claimed_length_that_lies_is_nothing(claim: bytes) -> None:
    whole = body(b"one", b"two", headers=b"Content-Length: " + claim + b"\r\n")
    assert parts_of(read(whole)) == [b"one", b"two"]
    assert parts_of(read(*(whole[i : i + 1] for i in range(len(whole))))) == [b"one", b"two"]


def test_a_claim_of_much_is_waited_for_no_further_than_a_megabyte() -> None:
    reader = Reader("B")
    events = reader.feed(body(b"one", closing=b"--B\r\n\r\n", headers=b"Content-Length: 4000000000\r\n"))
    events += reader.feed(b"z" * 3_000_000)
    assert told(events)[1:3] == [b"one", "end"]


@pytest.mark.parametrize(
    "end", [b"", b"--B", b"--B-", b"--B\r\n", b"--B\r\nContent-Type: a/b\r\n\r\nhalf", b"--Bx--\r\n"]
)
def test_a_body_without_its_closing_boundary_is_refused(end: bytes) -> None:
    assert "closing boundary is missing" in str(verdict(body(b"one", closing=end)))


def test_what_was_complete_before_the_end_is_given_first() -> None:
    reader = Reader("B")
    events = reader.feed(body(b"one", closing=b"--B\r\n\r\nhal"))
    assert told(events) == [("part", {"content-type": "application/dicom"}), b"one", "end", ("part", {}), b"hal"]
    with pytest.raises(RemoteProtocolError, match="breaks off inside a part"):
        reader.end()


@pytest.mark.parametrize("front", [b"", b"\r\n", b"This is a preamble --B\r\n", b"\n", b"x\r\n--Bx\r\n"])
def test_a_preamble_is_passed_over(front: bytes) -> None:
    assert parts_of(read(front + body(b"one"))) == [b"one"]


def test_a_body_without_parts_is_one() -> None:
    assert read(b"--B--") == ["closed"]


def test_a_part_may_be_empty_and_have_no_headers() -> None:
    assert read(b"--B\r\n\r\n\r\n--B--") == [("part", {}), "end", "closed"]


def test_lines_may_end_in_a_line_feed_alone_if_the_first_does() -> None:
    assert parts_of(read(b"--B\nContent-Type: a/b\n\n1\r\n\x002\n--B\n\n3\n--B--\n")) == [b"1\r\n\x002", b"3"]
    assert parts_of(read(b"--B\r\n\r\n1\n--B\n2\n\n--B--\n3\r\n--B--\r\n")) == [b"1\n--B\n2\n\n--B--\n3"]


@pytest.mark.parametrize("encoding", ["base64", "Quoted-Printable", "x-uuencode"])
def test_a_part_in_disguise_is_refused(encoding: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not as the octets that it is"):
        read(body(b"one", headers=f"Content-Transfer-Encoding: {encoding}\r\n".encode()))


def test_headers_are_read_whatever_their_case_and_folds() -> None:
    folded = b"content-TYPE:  application/dicom;\r\n\ttransfer-syntax=1.2\r\nX\r\nContent-Type: b\r\n"
    said = read(body(b"", headers=folded))
    assert said[0] == ("part", {"content-type": "application/dicom; transfer-syntax=1.2"})
    assert Begun({"content-type": "Application/DICOM; a=b"}).media_type == "application/dicom"


def test_headers_without_end_are_refused() -> None:
    lines = [b"X-Y: z\r\n"] * (MOST_HEADER_OCTETS // 8 + 2)
    assert "headers of a part" in str(verdict(b"--B\r\n", *lines))


def test_a_preamble_without_end_is_refused() -> None:
    pieces = [b"<html>" + b"x" * 94] * (MOST_PREAMBLE_OCTETS // 100 + 1)
    assert "does not begin with its boundary" in str(verdict(*pieces))


def test_what_is_kept_stays_small_while_data_pass() -> None:
    reader = Reader("B")
    reader.feed(b"--B\r\n\r\n")
    for _ in range(64):
        reader.feed(b"z\r\n--Bx\r\n--B y" * 2000 + b"\r\n--B")
        assert len(reader._kept) < 400


@pytest.mark.slow
@pytest.mark.parametrize("piece", [b"\r\n--" + b"b" * 68, b"\r\n--", b"\r", b"\r\n--" + b"b" * 69 + b"-"])
def test_ten_megabytes_of_what_begins_like_the_boundary_take_no_longer_than_linear(piece: bytes) -> None:
    boundary = "b" * 69
    whole = b"--" + boundary.encode() + b"\r\n\r\n" + piece * (10_000_000 // len(piece)) + b"\r\n--"
    whole += boundary.encode() + b"--"
    reader, size = Reader(boundary), 0
    begun = time.process_time()
    for at in range(0, len(whole), 1000):
        size += sum(len(event.data) for event in reader.feed(whole[at : at + 1000]) if isinstance(event, Content))
    reader.end()
    assert time.process_time() - begun < 3  # 0.1 s on the slowest machine that was tried
    assert size > 9_999_000


def test_what_aiohttp_writes_is_read() -> None:
    class Kept(bytearray):
        async def write(self, octets: bytes) -> None:
            self.extend(octets)

    data = [b"\r\n--x\r\n\x00\xff" * 50, b"", b"two\r\n"]

    async def write() -> tuple[str, bytes]:
        with aiohttp.MultipartWriter("related", boundary="uuid:1?2") as writer:
            for each in data:
                writer.append(each, {"Content-Type": "application/dicom"})
        kept = Kept()
        await writer.write(kept)  # type: ignore[arg-type]
        return writer.headers["Content-Type"], bytes(kept)

    content_type, octets = asyncio.run(write())
    assert parts_of(read(octets, boundary=boundary_of(content_type))) == data


def test_what_the_standard_library_writes_is_read() -> None:
    message = email.mime.multipart.MIMEMultipart("related", boundary="----=_Part_1_99.164", type="application/dicom")
    for text in (b"one\r\n\r\nline", b"two"):
        part = email.mime.application.MIMEApplication(text, "dicom", lambda message: None)
        part["Content-Transfer-Encoding"] = "8bit"
        part["Content-ID"] = "<1@b>"
        message.attach(part)
    file = io.BytesIO()
    email.generator.BytesGenerator(file, policy=email.policy.HTTP).flatten(message)
    octets = file.getvalue().partition(b"\r\n\r\n")[2]
    content_type = message["Content-Type"]
    assert parts_of(read(octets, boundary=boundary_of(content_type))) == [b"one\r\n\r\nline", b"two"]


def test_what_we_write_aiohttp_reads() -> None:
    data = [b"\x00DICM\r\n" * 40, b"--", b"\r\n"]
    writer = Writer("f" * 32)
    octets = b"".join(writer.head + each + writer.TAIL for each in data) + writer.closing

    async def back() -> list[bytes]:
        stream = aiohttp.StreamReader(aiohttp.base_protocol.BaseProtocol(asyncio.get_running_loop()), 1 << 16)
        stream.feed_data(octets)
        stream.feed_eof()
        reader = aiohttp.MultipartReader({"Content-Type": writer.media_type}, stream)
        found = []
        while (part := await reader.next()) is not None:
            assert isinstance(part, aiohttp.BodyPartReader)
            assert part.headers["Content-Type"] == "application/dicom"
            found.append(bytes(await part.read()))
        return found

    assert asyncio.run(back()) == data


@pytest.mark.parametrize("text, expected", [
    ("multipart/related; type=\"application/dicom\"; boundary=abc", "abc"),
    ("Multipart/Related;BOUNDARY=\"uuid:a/b=?c\"; start=\"<r>\"", "uuid:a/b=?c"),
    ("multipart/related; boundary = \"a\\\"b\" ;type=x", "a\"b"),
    ("multipart/related; type=\"application/octet-stream; transfer-syntax=1.2\"; boundary=----=_Part_1_99.164",
     "----=_Part_1_99.164"),
    ("multipart/related; flag; boundary=AbC; boundary=other", "AbC"),
    ("multipart/mixed; boundary=\"open", "open"),
])  # fmt: skip
def test_the_boundary_is_found_however_it_is_written(text: str, expected: str) -> None:
    assert boundary_of(text) == expected


@pytest.mark.parametrize("text", [
    "", "text/html", "multipart/related", "multipart/related; boundary=", f"multipart/related; boundary={'x' * 201}",
    "application/dicom; boundary=a", "multipart/related; boundary=\"a\r\nb\"",
])  # fmt: skip
def test_a_type_without_a_boundary_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        boundary_of(text)


def test_parameters_keep_the_case_of_their_values() -> None:
    assert parameters("Application/Dicom+JSON;CharSet=UTF-8; a=\"b;c=d\";e") == (
        "application/dicom+json", {"charset": "UTF-8", "a": "b;c=d"})
