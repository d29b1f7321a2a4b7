"""Every place that speaks HTTP against servers that answer anything: each question ends soon, with an error that is
named or an honest answer, and nothing that did not come whole is ever given for whole.
"""

from __future__ import annotations

import gzip
import json
import random
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import anyio
import pydicom
import pytest
from msgspec.structs import replace

from dcmsync.contract import Ask, Ending, Level, Want
from dcmsync.endpoints import AwsAccess, Setting, open_place
from dcmsync.errors import ExitStatus, PeerError
from dcmsync.locator import parse
from dcmsync.net.aws import SigV4
from dcmsync.net.patience import Watch
from dcmsync.wire.sigv4 import Credentials
from tests import samples
from tests.fakes import ahi
from tests.fakes.ahi import DataStore
from tests.fakes.keeper import Keeper
from tests.fakes.mint import Mint
from tests.fakes.rad69 import Rad69
from tests.fakes.web import Reply, Seen, Web
from tests.fakes.xnat import Session, Xnat
from tests.samples import Sample

pytestmark = pytest.mark.slow
KINDS = ("dicomweb", "wado", "mint", "rad69", "xnat", "ahi")
SEEDS = 200
TIMEOUT_S = 2.0
BOUNDARY = "9f3e"
Script = Callable[[Seen], Reply]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """One series of 3 small instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), instances=3, rows=8, columns=8)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further tries come at once."""
    monkeypatch.setattr("dcmsync.net.trials.FIRST_WAIT_S", 0.0)


def locator(kind: str, url: str) -> str:
    return {
        "dicomweb": f"{url}/dicom-web", "wado": f"wado-uri+{url}/wado", "mint": f"mint+{url}",
        "rad69": f"rad69+{url}/soap", "xnat": f"xnat+{url}/P1", "ahi": f"ahi://{ahi.STORE_ID}",
    }[kind]  # fmt: skip


def place(kind: str, url: str, watch: Watch) -> Any:
    """The place, as every verb opens it."""
    setting = Setting(
        calling_ae="US", timeout_s=TIMEOUT_S, watch=watch, catalogue=_none, skipped=_none, warn=lambda words: None
    )
    if kind == "ahi":
        known = Credentials(access_key_id=ahi.KEY, secret_access_key=ahi.SECRET)
        setting = replace(
            setting,
            aws=AwsAccess(region=ahi.REGION, signer=SigV4(lambda: known, ahi.REGION), endpoint_url=url,
                          image_sets="all"),
        )  # fmt: skip
    return open_place(parse(locator(kind, url)), setting)


def _none(*arguments: object) -> Any:
    raise AssertionError("a place that speaks HTTP needs no catalogue, and passes nothing by")


class Visit:
    """Everything that can be asked of a place, asked once: what it answered, gave, and which errors were met."""

    def __init__(self, kind: str, url: str, made: list[Sample]) -> None:
        self.answers: list[Any] = []
        self.errors: list[PeerError] = []
        self.keeper = Keeper()
        uids = {sample.sop_uid: samples.CT_IMAGE_STORAGE for sample in made}
        self._want = Want(study_uid=made[0].study_uid, series_uid=made[0].series_uid, instances=uids)
        anyio.run(self._run, kind, url)
        for error in self.errors:
            assert error.message and error.exit_status is not ExitStatus.BUG
        assert not self.keeper.open

    async def _run(self, kind: str, url: str) -> None:
        keys = {"StudyInstanceUID": self._want.study_uid, "SeriesInstanceUID": self._want.series_uid}
        asks = (
            Ask(level=Level.STUDY, keys={"StudyInstanceUID": "", "PatientName": "*"}, wanted=("PatientID",)),
            Ask(level=Level.SERIES, keys={**keys, "SeriesInstanceUID": ""}, wanted=("Modality",)),
            Ask(level=Level.INSTANCE, keys={**keys, "SOPInstanceUID": ""}, wanted=("SOPClassUID",)),
        )
        with Watch() as watch, anyio.fail_after(20):
            async with place(kind, url, watch).session() as session:
                for ask in asks:
                    await self._try(self._ask(session, ask))
                await self._try(session.fetch(self._want, self.keeper))

    async def _ask(self, session: Any, ask: Ask) -> None:
        answers = [answer async for answer in session.find(ask)]
        assert isinstance(answers[-1], Ending)
        self.answers += answers[:-1]

    async def _try(self, deed: Any) -> None:
        try:
            await deed
        except PeerError as error:
            self.errors.append(error)


def dicomweb(made: list[Sample]) -> Script:
    """A DICOMweb service of one series."""
    headers = [pydicom.dcmread(sample.path, stop_before_pixels=True).to_json_dict() for sample in made]
    parts = [b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (BOUNDARY.encode(), sample.path.read_bytes())
             for sample in made]  # fmt: skip
    multipart = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}

    def serve(seen: Seen) -> Reply:
        depth = seen.path.removeprefix("/dicom-web/").count("/")
        if "offset" in dict(seen.query):
            return Reply(204)
        if seen.path.endswith(("studies", "series", "instances")):
            told = headers if depth == 4 else headers[:1]
            return Reply(200, {"Content-Type": "application/dicom+json"}, json.dumps(told).encode())
        given = [part for part, sample in zip(parts, made, strict=True) if depth == 3 or sample.sop_uid in seen.path]
        return Reply(200, multipart, b"".join(given) + b"--%b--\r\n" % BOUNDARY.encode())

    return serve


def wado(made: list[Sample]) -> Script:
    files = {sample.sop_uid: sample.path.read_bytes() for sample in made}
    return lambda seen: Reply(200, {"Content-Type": "application/dicom"}, files[dict(seen.query)["objectUID"]])


def xnat(made: list[Sample]) -> Script:
    """An XNAT server whose project has archived what was made."""
    server = Xnat("P1")
    files = {sample.sop_uid: sample.path.read_bytes() for sample in made}
    server.sessions = [
        Session("20240101", "S1", "subject", made[0].study_uid, scans={"1": (made[0].series_uid, files)})
    ]
    server.archive()
    return server


def good(kind: str, made: list[Sample]) -> Script:
    """A server that does all as it should."""
    paths = [sample.path for sample in made]
    if kind == "ahi":
        store = DataStore()
        store.add(paths)
        return store.answer
    return {
        "dicomweb": lambda: dicomweb(made), "wado": lambda: wado(made), "mint": lambda: Mint(paths),
        "rad69": lambda: Rad69(paths), "xnat": lambda: xnat(made),
    }[kind]()  # fmt: skip


class Damaging:
    """A server that does as it should, but for some request, whose answer is damaged each time that it is asked."""

    def __init__(self, script: Script) -> None:
        self.targets: list[tuple[str, bytes]] = []
        self.damage: Callable[[Reply], Reply] | None = None
        self.victim = -1
        self._script = script

    def __call__(self, seen: Seen) -> Reply:
        mark = (seen.target, b"" if "soap" in seen.target else seen.body)
        if mark not in self.targets:
            self.targets.append(mark)
        reply = self._script(seen)
        if self.damage is not None and self.targets.index(mark) == self.victim:
            return self.damage(reply)
        return reply


def cut(reply: Reply, dice: random.Random) -> Reply:
    """Ends the connection within the answer, whatever its framing."""
    body = gzip.compress(reply.body, mtime=0) if reply.gzipped else reply.body
    framing = dice.choice(("length", "chunked", "close"))
    size = len(body) + (len(f"{len(body):x}") + 9 if framing == "chunked" and body else 0)
    return Reply(**{**reply.__dict__, "framing": framing, "cut": dice.randrange(max(size - 1, 1)), "piece": 1 << 30})


def garbled(reply: Reply, dice: random.Random) -> Reply:
    """Other octets, another length, or another type."""
    body = bytearray(reply.body)
    for _ in range(dice.choice((1, 1, 3, 30))):
        place = dice.randrange(len(body) + 1)
        how = dice.randrange(4)
        if how == 0 and body:
            body[place - 1] = dice.randrange(256)
        elif how == 1:
            body[place:place] = dice.randbytes(dice.choice((1, 5, 300)))
        elif how == 2:
            del body[place : place + dice.choice((1, 5, 300))]
        else:
            body[place:place] = dice.choice((b"\0", b"\"", b"{", b"[", b"<", b"]]>", b"&x;", b"\r\n--" + b"9f3e"))
    headers = dict(reply.headers)
    if not dice.randrange(5):
        headers["Content-Type"] = dice.choice(("text/html", "multipart/related", "image/jpeg; a=\"", "", "é/é"))
    if not dice.randrange(8):
        headers["Content-Encoding"] = dice.choice(("gzip", "deflate", "br", "gzip, gzip", "nonsense"))
    status = dice.choice((200, 200, 200, 200, 206, 204, 304, 400, 404, 406, 409, 413, 418, 500, 503))
    return Reply(**{**reply.__dict__, "body": bytes(body), "headers": headers, "status": status})


@pytest.fixture
def whole(made: list[Sample]) -> dict[str, bytes]:
    return {sample.sop_uid: sample.path.read_bytes() for sample in made}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(120)
def test_answers_that_are_cut_anywhere_give_nothing_that_is_not_whole(
    kind: str, made: list[Sample], whole: dict[str, bytes]
) -> None:
    damaging = Damaging(good(kind, made))
    with Web(damaging) as web:
        begun = Visit(kind, web.url, made)
        assert begun.answers or begun.keeper.files == whole, begun.errors
        assert kind == "mint" or begun.keeper.files == whole, begun.errors
        count = len(damaging.targets)
        for seed in range(SEEDS):
            dice = random.Random(seed)
            damaging.victim = dice.randrange(count)
            damaging.damage = lambda reply, dice=dice: cut(reply, dice)  # type: ignore[misc]
            visit = Visit(kind, web.url, made)
            assert visit.keeper.files.items() <= whole.items(), seed
            is_all = visit.keeper.files == whole or kind == "mint"
            assert len(visit.errors) > len(begun.errors) or not is_all or len(visit.answers) == len(begun.answers), seed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(120)
def test_answers_that_are_garbled_anywhere_end_in_words(kind: str, made: list[Sample]) -> None:
    damaging = Damaging(good(kind, made))
    with Web(damaging) as web:
        Visit(kind, web.url, made)
        count = len(damaging.targets)
        for seed in range(SEEDS):
            dice = random.Random(seed)
            damaging.victim = dice.randrange(count)
            damaging.damage = lambda reply, dice=dice: garbled(reply, dice)  # type: ignore[misc]
            Visit(kind, web.url, made)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BODIES: dict[str, tuple[str, bytes]] = {
    "nothing": ("", b""),
    "an HTML page": ("text/html", b"<!DOCTYPE html><html><body>Sign in</body></html>"),
    "JSON that is nested deeply": ("application/dicom+json", b"[" * 100_000 + b"]" * 100_000),
    "an object that is nested deeply": ("application/json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a list of nested things": ("application/dicom+json", b'[{"00080060":' + b'{"Value":[' * 50_000),
    "a number of a million digits": ("application/dicom+json", b"[" + b"9" * 1_000_000 + b"]"),
    "an entity bomb": ("text/xml", f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]><x>&l9;</x>'.encode()),
    "an external entity": (
        "text/xml", b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'),
    "XML that is nested deeply": ("text/xml", b"<a>" * 100_000 + b"</a>" * 100_000),
    "one tag of a million attributes": ("text/xml", b"<a " + b"".join(b'a%d="" ' % n for n in range(200_000)) + b"/>"),
    "multipart without a boundary": ("multipart/related", b"--x\r\n\r\nabc\r\n--x--"),
    "multipart that never begins": ("multipart/related; boundary=x", b"\r\n--y" * 100_000),
    "multipart of headers alone": ("multipart/related; boundary=x", b"--x\r\n" + b"A: b\r\n" * 200_000),
    "parts without end": ("multipart/related; boundary=x", b"--x\r\n\r\n\r\n" * 100_000 + b"--x--"),
    "octets that are no text": ("application/dicom+json", bytes(range(256)) * 100),
    "UTF-16": ("application/json", '[{"a":1}]'.encode("utf-16")),
    "a head without a data set": ("application/dicom", bytes(128) + b"DICM"),
    "a group 0002 that claims 4 GB": (
        "application/dicom", bytes(128) + b"DICM\2\0\2\0UI\0\0\2\0\1\0OB\0\0\xff\xff\xff\xff"),
}  # fmt: skip


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_answer_ends_in_words(kind: str, what: str, made: list[Sample]) -> None:
    media_type, body = BODIES[what]
    with Web(Reply(200, {"Content-Type": media_type}, body)) as web:
        visit = Visit(kind, web.url, made)
    assert not visit.keeper.files
    assert "root:" not in str(visit.answers) + str(visit.errors)


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_of_ten_million_octets_ends_in_words(kind: str, made: list[Sample]) -> None:
    with Web(Reply(200, {"X-Long": "a" * 10_000_000}, b"[]")) as web:
        visit = Visit(kind, web.url, made)
    assert visit.errors and not visit.answers


@pytest.mark.parametrize("kind", KINDS)
def test_a_million_headers_end_in_words(kind: str, made: list[Sample]) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(300_000)) + b"\r\n"
    with Web(Reply(raw=raw)) as web:
        visit = Visit(kind, web.url, made)
    assert visit.errors and not visit.answers


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n",
                                 b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                                 b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
                                 b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                                 b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc",
                                 b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", b"\0" * 1000])  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_http_ends_in_words(kind: str, raw: bytes, made: list[Sample]) -> None:
    with Web(Reply(raw=raw)) as web:
        visit = Visit(kind, web.url, made)
    assert visit.errors and not visit.keeper.files


@pytest.mark.parametrize("media_type", ["application/dicom+json", "text/xml", "multipart/related; boundary=x"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_unpacks_to_a_gigabyte_ends_in_words(kind: str, media_type: str, made: list[Sample]) -> None:
    begin = {"t": b"<a>", "a": b"[", "m": b"--x\r\nA: "}[media_type[0]]
    headers = {"Content-Type": media_type, "Content-Encoding": "gzip"}
    with Web(Reply(200, headers, _bomb(begin))) as web:
        visit = Visit(kind, web.url, made)
    assert visit.errors and not visit.keeper.files


def _bomb(begin: bytes) -> bytes:
    """Gzip of `begin` and a gigabyte of blanks, from members that are each a stream of its own."""
    return gzip.compress(begin, mtime=0) + gzip.compress(b" " * (1 << 24), mtime=0) * 64


class Endless:
    """A server whose every answer begins as it is told, and goes on for ever. `sent`: octets of bodies."""

    def __init__(self, media_type: str, begin: bytes, again: bytes) -> None:
        self.sent = 0
        self._head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n\r\n".encode() + begin
        self._again = again * ((1 << 20) // len(again))
        self._web = Web(Reply(404))
        self._web._one = self._one  # type: ignore[method-assign]

    @property
    def url(self) -> str:
        return self._web.url

    def __enter__(self) -> Self:
        self._web.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._web.__exit__(kind, error, at)

    def _one(self, link: socket.socket, stream: Any, number: int) -> bool:
        length = 0
        while (line := stream.readline(1 << 16)).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        stream.read(length)
        link.sendall(self._head)
        while True:
            link.sendall(self._again)
            self.sent += len(self._again)


ENDLESS = {
    "a list": ("application/dicom+json", b"[", b'{"0020000D":{"vr":"UI","Value":["1.2"]}},'),
    "one text": ("application/json", b'{"a":"', b"a"),
    "XML": ("text/xml", b"<a>", b"<b>c</b>"),
    "a search result": ("text/xml", b"<studySearchResults>", b"<b>c</b>"),
    "a SOAP part": ('multipart/related; boundary=x; type="application/xop+xml"',
                    b"--x\r\nContent-Type: application/xop+xml\r\n\r\n<a>", b"<b>c</b>"),
    "a broken SOAP part": ('multipart/related; boundary=x; type="application/xop+xml"',
                           b"--x\r\nContent-Type: application/xop+xml\r\n\r\n</a>", b"<b>c</b>"),
    "a tag": ("text/xml", b"<a ", b"a"),
    "blanks": ("text/html", b"", b" "),
    "multipart without a part": ("multipart/related; boundary=x", b"", b"preamble "),
    "the headers of a part": ("multipart/related; boundary=x", b"--x\r\n", b"A: b\r\n"),
    "parts": ("multipart/related; boundary=x", b"", b"--x\r\n\r\n\r\n"),
    "a file that is none": ("application/dicom", b"", b"junk"),
    "group 0002": ("application/dicom", bytes(128) + b"DICM", b"\2\0\x12\0SH\x02\0AB"),
}


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_without_end_is_ended(
    kind: str, what: str, made: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rad69.session.MOST_SOAP_OCTETS", "mint.results.MAX_IDLE_OCTETS", "xnat.listing.ANSWER_OCTETS"):
        monkeypatch.setattr(f"dcmsync.endpoints.{name}", 4 << 20)  # what these read goes by slowly
    monkeypatch.setattr("dcmsync.net.instances.MAX_USELESS_OCTETS", 64 << 20)
    with Endless(*ENDLESS[what]) as endless:
        visit = Visit(kind, endless.url, made)
    assert visit.errors and not visit.keeper.files
    assert endless.sent < 2 << 30


def test_every_kind_of_place_that_speaks_http_is_visited() -> None:
    from dcmsync import locator as locators

    assert len(KINDS) == len(locators.Http.__args__)
