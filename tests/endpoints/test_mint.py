"""MINT search against a fake that refuses what it does not know, and against ones that misbehave."""

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.contract import Ask, Ending, Level, Want
from dcmsync.endpoints.mint.place import MintPlace
from dcmsync.endpoints.mint.results import Results
from dcmsync.errors import Disconnected, PeerError, Refused, Rejected, RemoteProtocolError
from dcmsync.net import login
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from dcmsync.plan.levels import Query
from dcmsync.transfer.inventory import Inventory
from tests import samples
from tests.fakes.mint import LOGIN, PAGE, Mint
from tests.fakes.web import Reply, Script, Web
from tests.samples import Sample

XML = {"Content-Type": "text/xml"}
HEAD = b'<studySearchResults xmlns="http://medical.nema.org/mint">'


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.net.trials.FIRST_WAIT_S", 0.0)


@pytest.fixture
def held(tmp_path: Path) -> list[Sample]:
    return samples.make_series(tmp_path, studies=3, series=2, instances=2)


def paths(held: Sequence[Sample]) -> list[Path]:
    return [each.path for each in held]


def of_study(*keys: tuple[str, str], wanted: tuple[str, ...] = ()) -> Ask:
    return Ask(level=Level.STUDY, keys={"StudyInstanceUID": "", **dict(keys)}, wanted=wanted)


class Asked:
    """One question: what was found, how it ended, or what went wrong; and what the server saw."""

    def __init__(self, script: Script, ask: Ask, *, spelling: Any = "camel") -> None:
        self.found: list[dict[str, object]] = []
        self.ending: Ending | None = None
        self.error: PeerError | None = None
        with Web(script) as web:
            anyio.run(self._run, web.url, ask, spelling)
            self.seen = web.seen

    async def _run(self, url: str, ask: Ask, spelling: Any) -> None:
        place = MintPlace(Door(url, name="MINT", limits=Limits(timeout_s=5), warn=print), spelling)
        with anyio.fail_after(30):
            async with place.session() as session:
                try:
                    async for answer in session.find(ask):
                        if isinstance(answer, Ending):
                            self.ending = answer
                        else:
                            self.found.append(dict(answer))
                except PeerError as error:
                    self.error = error

    @property
    def query(self) -> dict[str, str]:
        return dict(self.seen[0].query)


def walked(script: Script, query: Query) -> tuple[list[dict[str, object]], Inventory, list[str]]:
    """A whole query, as `dcmsync query` does it."""
    warned: list[str] = []

    async def main(url: str) -> tuple[list[dict[str, object]], Inventory]:
        place = MintPlace(Door(url, name="MINT", limits=Limits(timeout_s=5), warn=print))
        async with place.session() as session:
            inventory = Inventory(session, name="mint", warn=warned.append)
            return [found async for found in inventory.walk(query)], inventory

    with Web(script) as web:
        return *anyio.run(main, web.url), warned


def test_studies_come_with_what_was_wanted(held: list[Sample]) -> None:
    wanted = ("PatientID", "StudyDate", "ModalitiesInStudy", "NumberOfStudyRelatedInstances", "IssuerOfPatientID")
    asked = Asked(Mint(paths(held)), of_study(wanted=wanted))
    assert asked.ending == Ending()
    assert asked.found[0] == {
        "StudyInstanceUID": held[0].study_uid, "PatientID": held[0].patient_id, "StudyDate": "20240202",
        "ModalitiesInStudy": ["CT"], "NumberOfStudyRelatedInstances": 4,
    }  # fmt: skip  # what is empty is not there
    assert len(asked.found) == 3 and len(asked.seen) == 1
    assert set(asked.query["IncludeFields"].split(",")) == {"StudyInstanceUID", *wanted}


def test_series_and_instances_name_what_they_are_in(held: list[Sample]) -> None:
    keys = {"StudyInstanceUID": held[0].study_uid, "SeriesInstanceUID": ""}
    series = Asked(Mint(paths(held)), Ask(level=Level.SERIES, keys=keys, wanted=("Modality", "SeriesNumber")))
    assert series.found == [
        {"StudyInstanceUID": held[0].study_uid, "SeriesInstanceUID": held[at].series_uid, "Modality": "CT",
         "SeriesNumber": number}
        for number, at in ((1, 0), (2, 2))
    ]  # fmt: skip
    keys = {**keys, "SeriesInstanceUID": held[2].series_uid, "SOPInstanceUID": ""}
    ask = Ask(level=Level.INSTANCE, keys=keys, wanted=("SOPClassUID", "Rows", "TransferSyntaxUID"))
    instances = Asked(Mint(paths(held)), ask)
    assert instances.found == [
        {"StudyInstanceUID": held[0].study_uid, "SeriesInstanceUID": held[2].series_uid,
         "SOPInstanceUID": held[at].sop_uid, "SOPClassUID": samples.CT_IMAGE_STORAGE, "Rows": 64,
         "TransferSyntaxUID": samples.EXPLICIT_LITTLE}
        for at in (2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "date, ends",
    [
        ("20240202", ("20240202", "20240202")),
        ("20240101-20240301", ("20240101", "20240301")),
        ("20240301-", ("20240301", "99991231")),
        ("-20240301", ("00010101", "20240301")),
    ],
)
def test_dates_have_two_ends_always(held: list[Sample], date: str, ends: tuple[str, str]) -> None:
    asked = Asked(Mint(paths(held)), of_study(("StudyDate", date)))
    assert (asked.query["minStudyDate"], asked.query["maxStudyDate"]) == ends and "StudyDate" not in asked.query
    assert all(ends[0] <= str(found["StudyDate"]) <= ends[1] for found in asked.found) and len(asked.found) in (1, 2)


def test_the_other_spelling_of_dates_is_an_option(held: list[Sample]) -> None:
    script = Mint(paths(held), dates=("min_study_date", "max_study_date"))
    assert isinstance(Asked(script, of_study(("StudyDate", "20240202"))).error, Refused)
    asked = Asked(script, of_study(("StudyDate", "20240202")), spelling="snake")
    assert len(asked.found) == 1 and asked.query["min_study_date"] == "20240202"


def test_a_server_that_ignores_a_key_is_not_believed(held: list[Sample]) -> None:
    script = Mint(paths(held), ignores=("minStudyDate", "maxStudyDate", "PatientID"))
    for keys in ({"StudyDate": "20240202"}, {"PatientID": held[0].patient_id}):
        found, inventory, warned = walked(script, Query(level=Level.STUDY, keys=keys))
        assert [each["StudyInstanceUID"] for each in found] == [held[0].study_uid] and inventory.is_complete
        assert warned == [f"mint: answers that do not match the {next(iter(keys))} asked for were dropped"]


def test_what_it_has_no_words_for_is_matched_here(held: list[Sample]) -> None:
    keys = {"StudyTime": "101500", "PatientName": "S?mple*", "ModalitiesInStudy": "CT\\MR"}
    script = Mint(paths(held))
    found, inventory, _ = walked(script, Query(level=Level.STUDY, keys=keys))
    assert len(found) == 3 and inventory.is_complete
    assert not walked(script, Query(level=Level.STUDY, keys={**keys, "StudyTime": "11"}))[0]
    asked = Asked(script, of_study(*keys.items()))
    assert asked.query["PatientName"] == "S*mple*"
    assert "StudyTime" not in asked.query and "ModalitiesInStudy" not in asked.query


def test_what_is_matched_here_and_empty_there_does_not_match(held: list[Sample]) -> None:
    keys = {"IssuerOfPatientID": "HOSPITAL"}
    assert walked(Mint(paths(held)), Query(level=Level.STUDY, keys=keys))[0] == []


def test_what_it_neither_chooses_by_nor_tells_makes_the_list_incomplete(held: list[Sample]) -> None:
    found, inventory, _ = walked(Mint(paths(held)), Query(level=Level.INSTANCE, keys={"SliceThickness": "1"}))
    assert not found and not inventory.is_complete and "SliceThickness" in inventory.trouble


def test_a_walk_asks_for_instances_within_one_series(held: list[Sample]) -> None:
    found, inventory, warned = walked(Mint(paths(held)), Query(level=Level.INSTANCE, keys={}))
    assert [each["SOPInstanceUID"] for each in found] == [each.sop_uid for each in held]
    assert inventory.is_complete and not warned


def test_patients_are_not_listed(held: list[Sample]) -> None:
    asked = Asked(Mint(paths(held)), Ask(level=Level.PATIENT, keys={"PatientID": ""}))
    assert isinstance(asked.error, Rejected) and "--level study" in str(asked.error)


def test_an_encoding_that_nobody_knows_does_not_matter(held: list[Sample]) -> None:
    assert len(Asked(Mint(paths(held), encoding="UTF-3"), of_study()).found) == 3


def test_new_elements_and_strange_places_are_passed_by() -> None:
    octets = HEAD + (
        b'<attr tag="0020000d" vr="UI" val="9"/><new><study><attr tag="0020000d" vr="UI" val="8"/></study></new>'
        b'<series><attr tag="0020000e" vr="UI" val="7"/></series><study new="1"><instance/><study/>'
        b'<new><attr tag="0020000D" vr="UI" val="6"/></new><attr/><attr tag="xyz" val="5"/>'
        b'<attr tag="0020000D" vr="UI" val="1.2"><deeper/></attr><attr tag="00080061" val="CT\\MR"/>'
        b'<attr tag="00100010" vr="PN" val="D\xc3\xb6e^J"/></study></studySearchResults>'
    )
    results = Results(Level.STUDY, frozenset(("ModalitiesInStudy", "PatientName")))
    assert results.feed(octets) == [
        {"StudyInstanceUID": "1.2", "ModalitiesInStudy": ["CT", "MR"], "PatientName": "D\u00f6e^J"}
    ]


def test_no_study_is_no_error() -> None:
    asked = Asked(Reply(200, XML, b"<studySearchResults/>"), of_study())
    assert asked.ending == Ending() and asked.found == []


@pytest.mark.parametrize(
    "reply, kind, words",
    [
        (Reply(401, {"Content-Type": "text/html"}, PAGE), Rejected, "401"),
        (Reply(500, {"Content-Type": "text/html"}, b"<html>it broke"), PeerError, "500"),
        (Reply(200, {"Content-Type": "text/html"}, b"<html>please log in"), RemoteProtocolError, "page for people"),
        (Reply(200, XML, b"<html>please log in</html>"), RemoteProtocolError, "no search result"),
        (Reply(200, XML, PAGE), RemoteProtocolError, "document type"),
        (Reply(200, XML, HEAD + b"<study>"), RemoteProtocolError, "not well-formed"),
        (Reply(200, XML, HEAD + b"</studySearchResults>", cut=9), Disconnected, "MINT"),
        (Reply(200, XML, b""), RemoteProtocolError, "no element found"),
    ],
)
def test_what_is_no_answer_is_an_error_in_words(reply: Reply, kind: type[PeerError], words: str) -> None:
    asked = Asked(reply, of_study())
    assert isinstance(asked.error, kind) and words in str(asked.error) and asked.ending is None
    assert str(asked.error).startswith("MINT: ") and not str(asked.error).startswith("MINT: MINT")


def test_an_attack_by_entities_is_not_read() -> None:
    entities = b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12))
    bomb = b'<!DOCTYPE a [<!ENTITY a "ha">' + entities + b"]>" + HEAD + b"&m;</studySearchResults>"
    asked = Asked(Reply(200, XML, bomb), of_study())
    assert isinstance(asked.error, RemoteProtocolError) and "document type" in str(asked.error)


def test_one_study_without_end_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.endpoints.mint.results.MAX_STUDY_OCTETS", 100_000)
    body = HEAD + b"<study>" + b"<series/>" * 2000
    ask = Ask(level=Level.SERIES, keys={"StudyInstanceUID": "1", "SeriesInstanceUID": ""})
    asked = Asked(Reply(200, XML, body), ask)
    assert isinstance(asked.error, RemoteProtocolError) and "memory" in str(asked.error)


def test_many_studies_are_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.endpoints.mint.results.MAX_STUDY_OCTETS", 10_000)
    study = b'<study><attr tag="0020000d" vr="UI" val="1.2"/></study>'
    asked = Asked(Reply(200, XML, HEAD + study * 500 + b"</studySearchResults>"), of_study())
    assert len(asked.found) == 500


@pytest.mark.slow
def test_a_long_answer_needs_no_memory() -> None:
    study = b'<study>%s<attr tag="0020000d" vr="UI" val="1.2.%d"/></study>'
    padding = b'<attr tag="00081030" vr="LO" val="%s"/>' % (b"x" * 4000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = Results(Level.STUDY, frozenset())
    results.feed(HEAD)
    found = 0
    for at in range(10_000):  # 40 MB
        found += len(results.feed(study % (padding, at)))
    results.feed(b"</studySearchResults>")
    results.close()
    assert found == 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10  # KiB


def test_it_gives_nothing_and_says_what_can() -> None:
    async def fetch() -> None:
        place = MintPlace(Door("http://127.0.0.1:1", name="MINT", limits=Limits(), warn=print))
        async with place.session() as session:
            await session.fetch(Want(study_uid="1", series_uid="2", instances={"3": ""}), None)  # type: ignore[arg-type]

    with pytest.raises(Rejected, match=r'gives no instances.* Set retrieve = "NAME"'):
        anyio.run(fetch)


def test_a_login_is_made_once_and_again_when_the_cookie_is_no_longer_good(held: list[Sample]) -> None:
    script = Mint(paths(held), login=("ada", "lovelace"))

    async def ask(place: MintPlace) -> int:
        async with place.session() as session:
            return sum(not isinstance(answer, Ending) for answer in [each async for each in session.find(of_study())])

    async def main(url: str) -> None:
        limits = Limits(timeout_s=5)
        aside = Door(f"{url}{LOGIN}", name="MINT: login_url", limits=limits, warn=print)
        authority = login.vitrea(aside, lambda: (b"ada", b"lovelace"))
        place = MintPlace(Door(url, name="MINT", limits=limits, authority=authority, warn=print))
        counts: list[int] = []
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(_note, counts, ask(place))
        assert counts == [3] * 4 and script.logins == 1
        script.forget()
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(_note, counts, ask(place))
        assert counts == [3] * 8 and script.logins == 2
        assert await place.echo() == 0

    with Web(script) as web:
        anyio.run(main, web.url)


async def _note(counts: list[int], count: Any) -> None:
    counts.append(await count)
