"""Tests of endpoints/dicomweb/listing.py and session.py, asking: pages to an end that is known to be one."""

import json
from collections.abc import Callable, Mapping, Sequence

import anyio
import pytest

from dcmsync.contract import Ask, Attributes, Ending, Level
from dcmsync.endpoints.dicomweb import listing
from dcmsync.endpoints.dicomweb.place import DicomwebPlace
from dcmsync.errors import PeerError, Refused, RemoteProtocolError
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from dcmsync.quirks import Quirks
from dcmsync.wire.jsonvalues import objects
from dcmsync.wire.upperlayer.extension import Wishes
from tests.fakes.web import Reply, Script, Seen, Web

JSON = {"Content-Type": "application/dicom+json"}
PLAIN = Quirks()
STUDIES = Ask(level=Level.STUDY, keys={"StudyInstanceUID": ""})


def study(number: int, **more: object) -> dict[str, object]:
    return {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}, **more}


def answer(things: Sequence[object], status: int = 200, headers: Mapping[str, str] = JSON) -> Reply:
    return Reply(status=status, headers=headers, body=json.dumps(things).encode())


def pager(
    count: int, *, cap: int = 10_000, heeds: Sequence[str] = ("limit", "offset"), headers: Mapping[str, str] = JSON
) -> Callable[[Seen], Reply]:
    """A server with so many studies, that gives `cap` in one page, and heeds some parameters."""

    def serve(seen: Seen) -> Reply:
        query = {name: int(value) for name, value in seen.query if name in heeds}
        begin = query.get("offset", 0)
        end = min(begin + min(query.get("limit", count), cap), count)
        return answer([study(number) for number in range(begin, end)], headers=headers)

    return serve


def ask(
    *scripts: Script, asks: Sequence[Ask] = (STUDIES,), quirks: Quirks = PLAIN
) -> tuple[list[Attributes], Ending, list[Seen], list[str]]:
    """What the last of some asks gives: answers, ending, requests of all of them, and warnings."""
    warnings: list[str] = []
    answers: list[Attributes] = []
    endings: list[Ending] = []

    async def run(url: str) -> None:
        door = Door(url, name="web", limits=Limits(timeout_s=5), warn=warnings.append)
        async with DicomwebPlace(door, warn=warnings.append, quirks=quirks).session() as session:
            for one in asks:
                answers.clear()
                async for given in session.find(one):
                    if isinstance(given, Ending):
                        endings.append(given)
                    else:
                        answers.append(given)

    with Web(*scripts) as web:
        anyio.run(run, web.url)
    assert len(endings) == len(asks)
    return answers, endings[-1], web.seen, warnings


@pytest.fixture
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGES", (10, 4))


@pytest.mark.usefixtures("short_pages")
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35, 40])
@pytest.mark.parametrize("cap", [3, 10_000])
def test_all_pages_of_a_list_come_and_its_end_is_known(count: int, cap: int) -> None:
    answers, ending, _, warnings = ask(pager(count, cap=cap))
    assert [given["StudyInstanceUID"] for given in answers] == [f"1.2.{number}" for number in range(count)]
    assert (ending, warnings) == (Ending(), [])


@pytest.mark.usefixtures("short_pages")
def test_a_page_shorter_than_one_before_is_the_last() -> None:
    _, _, seen, _ = ask(pager(17))
    assert [dict(one.query).get("offset") for one in seen] == [None, "10"]


@pytest.mark.parametrize(("said", "quirks", "requests"), [(7, PLAIN, 3), (8, PLAIN, 4), (7, Quirks(no_counts=True), 4)])
def test_a_list_as_long_as_its_parent_said_is_complete(said: int, quirks: Quirks, requests: int) -> None:
    def serve(seen: Seen) -> Reply:
        if "offset" in dict(seen.query):
            return answer([])
        if not seen.path.endswith("series"):
            return answer([study(1, **{"00201206": {"vr": "IS", "Value": [said]}})])
        return answer([{"0020000E": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(7)])

    below = Ask(level=Level.SERIES, keys={"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": ""})
    answers, ending, seen, _ = ask(serve, asks=[STUDIES, below], quirks=quirks)
    assert (len(answers), len(seen), ending.truncated) == (7, requests, said == 8)
    chosen = Ask(level=Level.SERIES, keys={**below.keys, "Modality": "CT"})
    assert len(ask(serve, asks=[STUDIES, chosen])[2]) == 4  # of some of them nothing was said


@pytest.mark.parametrize(
    ("count", "is_cut"),
    [(99, False), (100, False), (101, True), (102, False), (251, True), (1001, True), (1101, False)],
)
def test_a_list_one_longer_than_a_limit_may_be_is_asked_for_in_parts(count: int, is_cut: bool) -> None:
    _, ending, _, _ = ask(pager(count))
    assert (ending.truncated, ending.is_last_word) == (is_cut, False)


def test_a_list_that_is_matched_here_is_not_taken_for_wrong() -> None:
    narrow = Ask(level=Level.STUDY, keys={"StudyInstanceUID": "1.2.*"})
    assert ask(pager(7), asks=[narrow])[1].is_last_word
    assert not ask(pager(100), asks=[narrow])[1].is_last_word


def test_what_parents_said_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_CLAIMS", 3)
    lister = listing.Lister(Door("http://127.0.0.1:1", name="web", limits=Limits(), warn=print), print)
    said = [study(number, **{"00201206": {"vr": "IS", "Value": [7]}}) for number in range(10)]
    lister._learn(Level.STUDY, objects(json.dumps(said).encode()))
    assert 0 < len(lister._claims) <= 3


def test_no_content_is_none() -> None:
    answers, ending, _, _ = ask(Reply(status=204))
    assert (answers, ending) == ([], Ending())


def test_an_unknown_parent_has_nothing_below() -> None:
    below = Ask(level=Level.SERIES, keys={"StudyInstanceUID": "1.2"})
    answers, ending, _, _ = ask(Reply(status=404), asks=[below])
    assert (answers, ending.truncated) == ([], False)


def test_a_service_that_is_not_there_is_no_empty_list() -> None:
    with pytest.raises(Refused, match="404"):
        ask(Reply(status=404, body=b"<html>Not here</html>"))


@pytest.mark.usefixtures("short_pages")
def test_a_server_that_ignores_offsets_is_found_out_and_its_full_page_is_cut() -> None:
    answers, ending, _, _ = ask(pager(30, heeds=("limit",)))
    assert len(answers) == 10
    assert ending.truncated
    assert not ending.is_last_word
    assert "same page again" in ending.why


@pytest.mark.usefixtures("short_pages")
@pytest.mark.parametrize("count", [7, 30])
def test_a_server_that_ignores_limit_and_offset_gives_all_at_once(count: int) -> None:
    answers, ending, seen, _ = ask(pager(count, heeds=()), asks=[STUDIES, STUDIES])
    assert len(answers) == count
    assert ending == Ending()  # what it gives may be cut: whoever asked must look
    assert len(seen) == 3  # it is tried once only


@pytest.mark.usefixtures("short_pages")
def test_endless_pages_of_what_came_before_end() -> None:
    def serve(seen: Seen) -> Reply:
        return answer([study(number) for number in (range(5) if "offset" in dict(seen.query) else range(10))])

    answers, ending, _, _ = ask(serve)
    assert len(answers) == 10
    assert ending.truncated


@pytest.mark.usefixtures("short_pages")
def test_endless_pages_of_new_things_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_THINGS", 50)
    with pytest.raises(RemoteProtocolError, match="more than 50"):
        ask(pager(1_000_000))


@pytest.mark.usefixtures("short_pages")
def test_pages_that_overlap_lose_nothing() -> None:
    def serve(seen: Seen) -> Reply:
        begin = max(int(dict(seen.query).get("offset", 0)) - 2, 0)
        return answer([study(number) for number in range(begin, min(begin + 10, 25))])

    answers, ending, _, _ = ask(serve)
    assert {given["StudyInstanceUID"] for given in answers} == {f"1.2.{number}" for number in range(25)}
    assert not ending.truncated


@pytest.mark.usefixtures("short_pages")
def test_a_warning_that_there_are_more_is_heeded() -> None:
    more = {**JSON, "Warning": "299 web: There are 5 additional results that can be requested"}

    def serve(seen: Seen) -> Reply:
        if "offset" in dict(seen.query):
            return answer([study(number) for number in range(8, 13)])
        return answer([study(number) for number in range(8)], headers=more)

    longer = answer([study(number) for number in range(9)])
    answers, ending, _, _ = ask(longer, answer([]), serve, asks=[STUDIES, STUDIES])  # which would make it the last page
    assert (len(answers), ending.truncated) == (13, False)


@pytest.mark.usefixtures("short_pages")
@pytest.mark.parametrize("again", [[], [study(0)]])
def test_a_server_that_says_there_are_more_and_gives_none_cuts_its_list(again: list[object]) -> None:
    more = {**JSON, "Warning": '299 web "There are 5 additional results that can be requested"'}
    answers, ending, _, _ = ask(answer([study(0)], headers=more), answer(again))
    assert len(answers) == 1
    assert ending.truncated


@pytest.mark.usefixtures("short_pages")
@pytest.mark.parametrize("status", [400, 413])
def test_pages_that_are_too_long_are_asked_for_shorter_and_that_is_remembered(status: int) -> None:
    serve = pager(9)

    def strict(seen: Seen) -> Reply:
        return Reply(status=status) if dict(seen.query)["limit"] == "10" else serve(seen)

    answers, ending, seen, _ = ask(strict, asks=[STUDIES, STUDIES])
    assert (len(answers), ending.truncated) == (9, False)
    assert [dict(one.query)["limit"] for one in seen].count("10") == 1


def test_too_many_answers_at_any_page_length_are_a_list_that_is_cut() -> None:
    _, ending, _, _ = ask(Reply(status=413, body=b"narrow it"))
    assert ending.truncated
    assert "narrow it" in ending.why


def test_a_key_that_is_refused_is_an_error_and_spoils_no_other_question() -> None:
    def serve(seen: Seen) -> Reply:
        return Reply(status=400, body=b"unknown key") if "PatientID" in dict(seen.query) else answer([])

    bad = Ask(level=Level.STUDY, keys={"PatientID": "P"})
    with pytest.raises(Refused, match="unknown key"):
        ask(serve, asks=[bad])


def test_a_server_that_knows_plain_json_only_is_asked_for_it() -> None:
    def serve(seen: Seen) -> Reply:
        return answer([]) if seen.headers["accept"] == "application/json" else Reply(status=406)

    _, ending, seen, _ = ask(serve, asks=[STUDIES, STUDIES])
    assert not ending.truncated
    assert len(seen) == 3


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"", b"{}", b"[1, 2]", b'[{"0020000D":'])
def test_what_is_no_list_is_an_error_that_says_what_came(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="text/html that is no DICOM JSON"):
        ask(Reply(headers={"Content-Type": "text/html"}, body=body))


@pytest.mark.parametrize("reply", [
    Reply(headers=JSON, body=b"[" + b" " * 1000 + b"]", cut=500),
    Reply(headers=JSON, body=b'[{"0020000D":{"vr":"UI","Value":["1.2"]}}', framing="close"),
])  # fmt: skip
def test_a_list_that_is_cut_on_the_way_is_an_error(reply: Reply) -> None:
    with pytest.raises(PeerError):
        ask(reply)


def test_a_list_that_inflates_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_PAGE_OCTETS", 1 << 20)
    with pytest.raises(RemoteProtocolError):
        ask(Reply(headers=JSON, body=b"[" + b" " * (8 << 20) + b"]", gzipped=True))


def test_answers_that_may_not_match_a_weakened_key_are_left_out_and_the_list_says_so() -> None:
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller"}]}}
    narrow = Ask(level=Level.STUDY, keys={"PatientName": "Müller"})
    answers, ending, seen, _ = ask(answer([study(1), study(2)]), answer([]), asks=[narrow])
    assert (answers, ending.truncated, ending.is_last_word) == ([], True, True)
    assert "PatientName" in ending.why
    assert "PatientName=M*ller*" in seen[0].target
    answers, ending, _, _ = ask(answer([study(1, **name), study(2)]), answer([]), asks=[narrow])
    assert (len(answers), ending.truncated) == (1, False)  # the other has no name: this server tells names


def test_the_limit_of_the_configuration_is_the_length_of_a_page() -> None:
    answers, _, seen, _ = ask(pager(7), quirks=Quirks(limit=3))
    assert len(answers) == 7
    assert {dict(one.query)["limit"] for one in seen} == {"3"}


def test_patients_are_gathered_from_studies() -> None:
    def of(number: int, patient: str) -> dict[str, object]:
        return study(number, **{"00100020": {"vr": "LO", "Value": [patient]}})

    patients = Ask(level=Level.PATIENT, keys={"PatientID": "", "NumberOfPatientRelatedStudies": ""})
    answers, _, seen, _ = ask(answer([of(1, "A"), of(2, "B"), of(3, "A")]), answer([]), asks=[patients])
    assert [given["PatientID"] for given in answers] == ["A", "B"]
    assert "Related" not in seen[0].target


@pytest.mark.parametrize(("status", "is_relational"), [(200, True), (404, False), (400, False), (501, False)])
def test_relational_questions_are_tried_before_they_are_relied_on(status: int, is_relational: bool) -> None:
    warnings: list[str] = []

    async def run(url: str) -> None:
        door = Door(url, name="web", limits=Limits(timeout_s=5), warn=warnings.append)
        place = DicomwebPlace(door, warn=warnings.append, wishes=Wishes(relational=True))
        async with place.session() as session:
            for _ in range(2):
                assert (await session.manner(Level.SERIES)).relational is is_relational
            assert not (await session.manner(Level.STUDY)).relational

    with Web(answer([], status=status)) as web:
        anyio.run(run, web.url)
    assert len(web.seen) == 1
    assert len(warnings) == (not is_relational)


def test_echo_asks_for_one_study() -> None:
    async def run(url: str) -> int:
        door = Door(url, name="web", limits=Limits(timeout_s=5), warn=print)
        return await DicomwebPlace(door, warn=print).echo()

    with Web(answer([])) as web:
        assert anyio.run(run, web.url) == 0
    assert web.seen[0].target == "/studies?limit=1"
