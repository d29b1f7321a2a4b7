"""RAD-69 against a strict Imaging Document Source, in every form that answers take, and against ones that misbehave."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.contract import Ask, Ending, Level, Want
from dcmsync.endpoints.rad69.envelope import Repository
from dcmsync.endpoints.rad69.place import Rad69Place
from dcmsync.endpoints.rad69.reply import Reply as Reply69
from dcmsync.endpoints.rad69.session import Service
from dcmsync.errors import Disconnected, OutOfResources, PeerError, Refused, Rejected, RemoteProtocolError
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from tests import samples
from tests.fakes.keeper import Keeper
from tests.fakes.rad69 import CXF, JAVAMAIL, Fault, Rad69, Style, read
from tests.fakes.web import Reply, Script, Web
from tests.samples import Sample

PLAIN = "application/soap+xml; charset=UTF-8"


@pytest.fixture
def series(tmp_path: Path) -> list[Sample]:
    return samples.make_series(tmp_path, instances=4)


def paths(series: list[Sample]) -> list[Path]:
    return [each.path for each in series]


def want_of(series: list[Sample]) -> Want:
    instances = {each.sop_uid: samples.CT_IMAGE_STORAGE for each in series}
    return Want(study_uid=series[0].study_uid, series_uid=series[0].series_uid, instances=instances)


class Fetched:
    """One want fetched `times` times over one place: the last ending, what was kept, what was warned of."""

    def __init__(self, script: Script, want: Want, *, times: int = 1, wanted: Any = None, **options: Any) -> None:
        self.warned: list[str] = []
        self.keeper = Keeper(wanted)
        self.ending = Ending(why="nothing happened")
        self.error: PeerError | None = None
        self._options = options
        with Web(script) as web:
            anyio.run(self._run, web.url, want, times)
            self.seen = web.seen

    async def _run(self, url: str, want: Want, times: int) -> None:
        door = Door(url, name="RIDS", limits=Limits(timeout_s=5), warn=self.warned.append)
        repository = self._options.pop("repository", Repository(unique_id="1.3.6.1"))
        place = Rad69Place(Service(door, repository, warn=self.warned.append, **self._options))
        with anyio.fail_after(20):
            async with place.session() as session:
                try:
                    for _ in range(times):
                        self.ending = await session.fetch(want, self.keeper)
                except PeerError as error:
                    self.error = error

    def is_all_of(self, series: list[Sample]) -> bool:
        return self.keeper.files == {each.sop_uid: each.path.read_bytes() for each in series}


@pytest.mark.parametrize(
    "style",
    [
        CXF,
        JAVAMAIL,
        Style(is_root_last=True),
        Style(is_reversed=True),
        Style(is_inline=True),
        Style(has_start=False, framing="length"),
        Style(boundary="a b=c?d", has_brackets=False),
    ],
)
def test_documents_arrive_as_they_are_however_they_are_packed(series: list[Sample], style: Style) -> None:
    fetched = Fetched(Rad69(paths(series), style=style), want_of(series))
    assert fetched.error is None and fetched.ending == Ending()
    assert fetched.is_all_of(series)
    assert fetched.warned == []


def test_one_request_names_the_series_and_its_instances(series: list[Sample]) -> None:
    source = Rad69(paths(series))
    Fetched(source, want_of(series))
    (asked,) = source.asked
    assert asked.studies == (series[0].study_uid,) and asked.series == (series[0].series_uid,)
    assert asked.documents == tuple(each.sop_uid for each in series)
    assert set(asked.repositories) == {"1.3.6.1"} and set(asked.communities) == {""}
    assert {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.201"} <= set(asked.syntaxes)


def test_a_community_is_named_as_an_oid(series: list[Sample]) -> None:
    source = Rad69(paths(series))
    Fetched(source, want_of(series), repository=Repository(unique_id="1.3.6.1", home_community="1.3.9"))
    assert set(source.asked[0].communities) == {"urn:oid:1.3.9"}


@pytest.mark.parametrize("refuses_by", ["status", "fault"])
def test_a_server_that_wants_mtom_gets_it_from_then_on(series: list[Sample], refuses_by: str) -> None:
    source = Rad69(paths(series), takes="mtom", refuses_by=refuses_by)
    fetched = Fetched(source, want_of(series), times=2)
    assert fetched.error is None and fetched.is_all_of(series)
    assert [each.headers["content-type"].partition(";")[0] for each in fetched.seen] == [
        "application/soap+xml", "multipart/related", "multipart/related",
    ]  # fmt: skip
    assert all(asked.is_mtom for asked in source.asked)


def test_a_server_that_takes_no_form_is_told_of(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series), takes="neither"), want_of(series))
    assert isinstance(fetched.error, Refused) and "neither form" in str(fetched.error) and len(fetched.seen) == 2


def test_what_is_missing_there_is_told_and_the_rest_taken(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series), missing=[series[2].sop_uid, series[3].sop_uid]), want_of(series))
    assert fetched.is_all_of(series[:2])
    assert fetched.ending.status and not fetched.ending.may_pass
    assert fetched.ending.why == "2 x XDSMissingDocument (it does not have them)"


def test_of_a_single_instance_what_is_wrong_is_raised(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series), missing=[series[0].sop_uid]), want_of(series[:1]))
    assert isinstance(fetched.error, Refused) and not isinstance(fetched.error, OutOfResources)
    assert "XDSMissingDocument" in str(fetched.error)


def test_another_repository_is_told_with_the_key_that_sets_it(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series), repository="1.9.9"), want_of(series))
    assert "see the key repository" in fetched.ending.why and fetched.ending.status and not fetched.keeper.files


def test_codes_that_are_to_be_ignored_are(series: list[Sample]) -> None:
    style = Style(codes=("XDSRepositoryError",))
    assert Fetched(Rad69(paths(series), style=style), want_of(series)).ending.status
    fetched = Fetched(Rad69(paths(series), style=style), want_of(series), ignored=("XDSRepositoryError",))
    assert fetched.ending == Ending() and fetched.is_all_of(series)


def test_a_busy_repository_may_have_time_later(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series), style=Style(codes=("XDSRepositoryBusy",))), want_of(series))
    assert fetched.ending.may_pass and fetched.ending.status >> 8 == 0xA7


def test_documents_count_though_the_soap_part_is_malformed(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series), style=Style(is_malformed=True)), want_of(series))
    assert fetched.ending == Ending() and fetched.is_all_of(series)
    assert len(fetched.warned) == 1 and "not well-formed" in fetched.warned[0]


def test_a_file_says_which_instance_it_is_whatever_the_links_say(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series), style=Style(links_are_crossed=True)), want_of(series))
    assert fetched.ending == Ending() and fetched.is_all_of(series)


@pytest.mark.parametrize("style", [CXF, JAVAMAIL])
def test_an_answer_without_its_closing_boundary_is_not_complete(series: list[Sample], style: Style) -> None:
    cut = Style(boundary=style.boundary, framing=style.framing, is_closed=False)
    fetched = Fetched(Rad69(paths(series), style=cut), want_of(series))
    assert isinstance(fetched.error, Disconnected) and "closing boundary" in str(fetched.error)
    assert fetched.is_all_of(series[:3]) and fetched.keeper.discarded == ["the answer ended within it"]
    assert fetched.keeper.open == 0


def test_a_base64_document_that_breaks_off_is_discarded(series: list[Sample]) -> None:
    source = Rad69(paths(series), style=Style(is_inline=True))

    def cut(seen: Any) -> Reply:
        reply = source(seen)
        end = reply.body.rindex(b"</ns2:Document>")
        body = reply.body[: end - 21] + b"!" + reply.body[end - 20 :]
        return Reply(reply.status, reply.headers, body, framing=reply.framing)

    fetched = Fetched(cut, want_of(series))
    assert fetched.is_all_of(series[:3]) and len(fetched.keeper.discarded) == 1
    assert "no base64" in fetched.warned[0]


def test_a_link_to_a_part_that_is_not_there_is_told(series: list[Sample]) -> None:
    source = Rad69(paths(series))

    def without_one(seen: Any) -> Reply:
        reply = source(seen)
        first, *parts = reply.body.split(b"\r\n--uuid:")
        return Reply(reply.status, reply.headers, b"\r\n--uuid:".join([first, *parts[:2], *parts[3:]]))

    fetched = Fetched(without_one, want_of(series))
    assert fetched.is_all_of([series[0], *series[2:]])
    assert fetched.warned == ["RIDS: an answer has links to parts that are not there"]


@pytest.mark.parametrize("text, words", [("AAA", "breaks off"), ("AA=A", "no base64"), ("!!!!AAAA", "no base64")])
def test_what_is_no_base64_is_not_guessed(text: str, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        Reply69().feed(f"<a><Document>{text}</Document></a>".encode())


def test_base64_may_be_cut_anywhere() -> None:
    reply = Reply69()
    for at in (b"<a><Document>SGV", b"sbG8\r\n gd29y", b"bGQ=", b"</Document></a>"):
        reply.feed(at)
    assert b"".join(piece for piece in reply.inline()[:-1] if piece) == b"Hello world"


def test_warnings_are_no_errors_and_errors_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    error = b'<RegistryError errorCode="X" severity="urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:%s"/>'
    reply = Reply69()
    reply.feed(b"<a>" + error % b"Warning" + error % b"Error")
    assert len(reply.troubles) == 2 and [each.is_warning for each in reply.counted(())] == [False]
    monkeypatch.setattr("dcmsync.endpoints.rad69.reply._MOST_NOTES", 2)
    with pytest.raises(RemoteProtocolError, match="more than 2 errors"):
        reply.feed(error % b"Error")


def test_what_nobody_asked_for_is_not_taken(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series)), want_of(series), wanted=[series[1].sop_uid])
    assert fetched.is_all_of([series[1]]) and len(fetched.keeper.refused) == 3


def test_parts_without_end_that_nobody_asked_for_end_the_answer(series: list[Sample]) -> None:
    def endless(seen: Any) -> Reply:
        part = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + series[0].path.read_bytes()[:600] + b"\r\n"
        return Reply(200, {"Content-Type": "multipart/related; boundary=x; start=r"}, part * 5000 + b"--x--")

    fetched = Fetched(endless, want_of(series), wanted=[])
    assert isinstance(fetched.error, RemoteProtocolError) and len(fetched.keeper.refused) < 200


def test_soap_parts_without_end_are_ended(series: list[Sample]) -> None:
    part = b"--x\r\nContent-Type: application/xop+xml\r\n\r\n<a/>\r\n"
    reply = Reply(200, {"Content-Type": "multipart/related; boundary=x"}, part * 5000 + b"--x--")
    fetched = Fetched(reply, want_of(series))
    assert isinstance(fetched.error, RemoteProtocolError) and "goes on and on" in str(fetched.error)


def test_documents_in_the_xml_without_end_are_ended(series: list[Sample]) -> None:
    body = b"<a>" + b"<Document>AAAA</Document>" * 5000
    fetched = Fetched(Reply(200, {"Content-Type": PLAIN}, body), want_of(series))
    assert isinstance(fetched.error, RemoteProtocolError) and "goes on and on" in str(fetched.error)


@pytest.mark.parametrize("piece", ["an HTML page", "nothing"])
def test_a_document_that_is_no_dicom_file_is_named(series: list[Sample], piece: str) -> None:
    octets = {"an HTML page": b"<html>sorry" * 20, "nothing": b""}[piece]

    def strange(seen: Any) -> Reply:
        body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + octets + b"\r\n--x--"
        return Reply(200, {"Content-Type": "multipart/related; boundary=x; start=r"}, body)

    fetched = Fetched(strange, want_of(series[:1]))
    assert isinstance(fetched.error, RemoteProtocolError) and piece in str(fetched.error) and not fetched.keeper.files


@pytest.mark.parametrize(
    "reply, words",
    [
        (Reply(200, {"Content-Type": "text/html"}, b"<html>log in</html>"), "answers text/html instead of SOAP"),
        (Reply(200, {"Content-Type": PLAIN}, b"<Envelope><Body/></Envelope>"), "nothing of any documents"),
        (Reply(200, {"Content-Type": PLAIN}, b"<Envelope><Body>"), "not well-formed"),
        (Reply(200, {"Content-Type": PLAIN}, b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"), "document type"),
        (Reply(200, {"Content-Type": "multipart/related"}, b"--x--"), "no boundary"),
        (Reply(403, {"Content-Type": "text/html"}, b"<html>forbidden</html>"), "403"),
        (Reply(404, {"Content-Type": "text/html"}, b"<html>what?</html>"), "404"),
    ],
)
def test_what_is_no_answer_is_an_error_in_words(series: list[Sample], reply: Reply, words: str) -> None:
    fetched = Fetched(reply, want_of(series))
    assert fetched.error is not None and words in str(fetched.error) and str(fetched.error).startswith("RIDS: ")


def test_a_fault_of_the_sender_is_for_good_and_one_of_the_receiver_may_pass(series: list[Sample]) -> None:
    def fault(code: str) -> Reply:
        inside = f"<S:Code><S:Value>S:{code}</S:Value></S:Code><S:Reason><S:Text>it hurts\n here</S:Text></S:Reason>"
        envelope = "<S:Envelope xmlns:S='http://www.w3.org/2003/05/soap-envelope'><S:Body><S:Fault>"
        xml = f"{envelope}{inside}</S:Fault></S:Body></S:Envelope>"
        return Reply(500, {"Content-Type": PLAIN}, xml.encode())

    theirs = Fetched(fault("Receiver"), want_of(series))
    assert theirs.ending.may_pass and theirs.ending.why == "SOAP fault Receiver: it hurts here"
    ours = Fetched(fault("Sender"), want_of(series))
    assert isinstance(ours.error, Refused) and ours.error.status == 500


def test_it_cannot_be_asked_and_says_what_can(series: list[Sample]) -> None:
    door = Door("http://127.0.0.1:1", name="RIDS", limits=Limits(), warn=lambda words: None)
    place = Rad69Place(Service(door, Repository(), warn=lambda words: None))

    async def ask() -> None:
        async with place.session() as session:
            session.find(Ask(level=Level.STUDY, keys={}))

    with pytest.raises(Rejected, match=r'cannot be asked.* Set retrieve = "NAME"'):
        anyio.run(ask)


def test_echo_wants_any_answer_in_soap(series: list[Sample]) -> None:
    def echo(script: Script) -> int:
        async def main(url: str) -> int:
            door = Door(url, name="RIDS", limits=Limits(timeout_s=5), warn=lambda words: None)
            return await Rad69Place(Service(door, Repository(), warn=lambda words: None)).echo()

        with Web(script) as web:
            return anyio.run(main, web.url)

    assert echo(Rad69(paths(series))) == 0
    assert echo(Reply(200, {"Content-Type": "text/html"}, b"<html/>")) == 200


def test_the_fake_refuses_what_a_strict_stack_refuses(series: list[Sample]) -> None:
    fetched = Fetched(Rad69(paths(series)), want_of(series))
    xml = fetched.seen[0].body
    request = xml[xml.index(b"<iherad:RetrieveI") : xml.index(b"</s:Body>")]
    for malformed in (
        xml.replace(b"<s:Body>", b"<s:Body>text"),
        xml.replace(request, request * 2),
        xml.replace(b"urn:ihe:rad:2009:R", b"urn:ihe:rad:2009: R"),
        xml[:-5],
    ):
        with pytest.raises(Fault):
            read(PLAIN, malformed)
    assert read(PLAIN, xml).documents == tuple(want_of(series).instances)
