"""`doctor` at places that speak HTTP: what it sees by what every place promises, how little it takes, what it says."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import anyio
import pytest

from dcmsync import config, locator
from dcmsync.commands.diagnosing import KINDS
from dcmsync.commands.entrance import Entrance
from dcmsync.commands.examining_http import HttpExamination
from dcmsync.contract import Want
from dcmsync.endpoints import Setting, WebAccess
from dcmsync.net.http import Request
from dcmsync.net.patience import Watch
from dcmsync.net.tls import Terms
from dcmsync.plan.diagnosis import Finding, Findings
from tests import certs, peers, samples
from tests.conftest import Start
from tests.fakes.mint import Mint
from tests.fakes.rad69 import Rad69
from tests.fakes.web import Reply, Seen, Web
from tests.fakes.xnat import Session, Xnat
from tests.samples import Sample
from tests.workdir import Workdir

TODAY = date(2024, 2, 20)  # the samples are of days before
MONTH = {"StudyDate": "20240101-"}


class Password:
    """An authority whose word does not count."""

    async def headers(self, request: Request) -> dict[str, str]:
        return {"Authorization": "Basic eDp5"}

    async def renew(self) -> bool:
        return False


@pytest.fixture
def held(tmp_path: Path) -> list[Sample]:
    return samples.make_series(tmp_path / "held", studies=2, instances=2)


def look(
    place: str, *, sample: dict[str, str] | None = None, deep: bool = False, give: Want | None = None,
    access: WebAccess | None = None,
) -> tuple[bool, dict[str, Finding], Findings]:
    """What is found at a place: whether it was reached, and the last finding of each check. `give`: only that."""
    told: list[Finding] = []
    found = Findings(told.append)

    async def main(watch: Watch) -> bool:
        there = locator.parse(place)
        assert isinstance(there, locator.Http)
        setting = Setting(
            calling_ae="ME", timeout_s=5, watch=watch, catalogue=lambda path: pytest.fail(path),
            skipped=lambda path, why: None, warn=lambda words: None, web=access or WebAccess(),
        )  # fmt: skip
        examination = HttpExamination(Entrance(there, setting, found), KINDS[type(there)], found)
        if give is not None:
            return await examination.give(give, today=TODAY, deep=deep)
        return await examination.run(sample or {}, today=TODAY, deep=deep, gives=True)

    with Watch() as watch:
        is_reached = anyio.run(main, watch)
    return is_reached, {each.check: each for each in told}, found


def paths(held: Sequence[Sample]) -> list[Path]:
    return [each.path for each in held]


def project(held: Sequence[Sample], *, archived: bool = True) -> Xnat:
    """A project that has these."""
    xnat = Xnat("P", tells=("scans",))
    files = {each.sop_uid: each.path.read_bytes() for each in held[:2]}
    scans = {"1": (held[0].series_uid, files)}
    xnat.sessions = [Session("20240102_100000000", "A1", "S1", held[0].study_uid, scans=scans)]
    if archived:
        xnat.archive()
    return xnat


# What is seen


def test_the_studies_of_the_last_month_are_looked_at_and_nothing_is_sent(held: list[Sample]) -> None:
    with Web(Mint(paths(held))) as web:
        is_reached, seen, _ = look(f"mint+{web.url}")
        dates = [(dict(each.query).get("minStudyDate"), dict(each.query).get("maxStudyDate")) for each in web.seen]
        assert all(each.method == "GET" and not each.body for each in web.seen)
    assert is_reached and seen["find study"].ok and seen["find series"].ok and seen["find instance"].ok
    assert [each for each in dates if each[0]] == [
        ("20240220", "20240220"), ("20240213", "20240220"), ("20240121", "20240220"),
    ]  # fmt: skip
    assert "StudyDate" in seen["search"].words and seen["get"].ok is False and "retrieve" in seen["get"].advice


def test_a_place_without_such_studies_says_how_to_name_some(held: list[Sample]) -> None:
    with Web(Mint(paths(held))) as web:
        _, seen, found = look(f"mint+{web.url}", sample={"PatientID": "NOBODY"})
    assert seen["find study"].ok and "no study was found" in seen["find study"].words and seen["find study"].advice
    assert "find series" not in seen and not found.can_pull


def test_a_place_that_ignores_the_uid_is_found_out(held: list[Sample]) -> None:
    with Web(Mint(paths(held), ignores=["StudyInstanceUID"])) as web:
        _, seen, found = look(f"mint+{web.url}", sample=MONTH)
    assert seen["find study"].ok is False and "ignores StudyInstanceUID" in seen["find study"].advice
    assert not found.can_pull and "find series" not in seen


def test_nothing_is_listed_in_whole(tmp_path: Path) -> None:
    many = samples.make_series(tmp_path / "many", studies=1, series=1, instances=30, rows=2, columns=2)
    with Web(Mint(paths(many))) as web:
        _, seen, _ = look(f"mint+{web.url}", sample=MONTH)
    assert seen["find instance"].words == "answered with 20 and more"


@pytest.mark.parametrize("kind", ["wado-uri", "rad69"])
def test_who_cannot_be_asked_is_told_what_to_pair_it_with(kind: str, held: list[Sample]) -> None:
    with Web(Rad69(paths(held)) if kind == "rad69" else Reply(400)) as web:
        is_reached, seen, found = look(f"{kind}+{web.url}")
    assert is_reached and seen["echo"].ok and seen["find study"].ok is None and "get" not in seen
    assert 'Set retrieve = "NAME"' in seen["find study"].advice and "a DIMSE node" in seen["find study"].advice
    assert not found.can_pull and "# it cannot be asked" in found.section("x", {"locator": "x"})


# How little is taken


def giving(held: list[Sample], go_on: threading.Event) -> Callable[[Seen], Reply]:
    """A WADO-URI service that gives the first octets of an instance, and then waits."""
    body = held[0].path.read_bytes()

    def script(seen: Seen) -> Reply:
        if "objectUID" not in dict(seen.query):
            return Reply(400)
        return Reply(headers={"Content-Type": "application/dicom"}, body=body, piece=2048, go_on=go_on)

    return script


def wanted(sample: Sample) -> Want:
    return Want(study_uid=sample.study_uid, series_uid=sample.series_uid, instances={sample.sop_uid: ""}, whole=False)


def test_of_an_instance_only_the_beginning_is_read(held: list[Sample]) -> None:
    go_on = threading.Event()
    with Web(giving(held, go_on)) as web:
        try:
            is_reached, seen, _ = look(f"wado-uri+{web.url}", give=wanted(held[0]))
            assert not go_on.is_set() and len(web.seen) == 2
        finally:
            go_on.set()
    assert is_reached and seen["get"].ok and "began to come, and was let go" in seen["get"].words


def test_deep_is_all_of_it(held: list[Sample]) -> None:
    go_on = threading.Event()
    go_on.set()
    with Web(giving(held, go_on)) as web:
        _, seen, _ = look(f"wado-uri+{web.url}", give=wanted(held[0]), deep=True)
    octets = held[0].size - 144 - int.from_bytes(held[0].path.read_bytes()[140:144], "little")
    assert seen["get"].ok and seen["get"].words == f"one instance came, {octets:,} octets; it was not kept"


def test_what_does_not_come_is_no_way_to_pull(held: list[Sample]) -> None:
    with Web(Rad69(paths(held), missing=[held[0].sop_uid])) as web:
        _, seen, found = look(f"rad69+{web.url}", give=wanted(held[0]))
    assert seen["get"].ok is False and "XDSMissingDocument" in seen["get"].words and not found.can_pull


def test_of_a_scan_of_xnat_only_the_beginning_is_fetched(held: list[Sample]) -> None:
    with Web(project(held)) as web:
        _, seen, found = look(f"xnat+{web.url}/P", sample={"StudyInstanceUID": held[0].study_uid})
        fetched = [each for each in web.seen if ("format", "zip") in each.query]
        assert len(fetched) == 1 and not any(each.method == "POST" for each in web.seen)
    assert seen["find instance"].ok is None and "--deep" in seen["find instance"].advice
    assert seen["get"].ok and "began to come" in seen["get"].words and found.can_pull
    with Web(project(held)) as web:
        _, seen, found = look(f"xnat+{web.url}/P", sample={"StudyInstanceUID": held[0].study_uid}, deep=True)
    assert seen["find instance"].words == "answered with 2" and seen["get"].words.startswith("one instance came")
    assert found.can_pull


def test_what_is_not_archived_cannot_be_fetched_and_that_is_said(held: list[Sample]) -> None:
    with Web(project(held, archived=False)) as web:
        _, seen, found = look(f"xnat+{web.url}/P", sample={"StudyInstanceUID": held[0].study_uid})
    assert seen["get"].ok is False and "Archive its session first" in seen["get"].advice and not found.can_pull


def test_of_two_studies_the_archived_one_is_looked_at(held: list[Sample]) -> None:
    xnat = project(held)
    files = {each.sop_uid: each.path.read_bytes() for each in held[2:]}
    scans = {"1": (held[2].series_uid, files)}
    xnat.sessions = [Session("20240103_100000000", "A2", "S2", held[2].study_uid, scans=scans)]
    with Web(xnat) as web:
        _, seen, found = look(f"xnat+{web.url}/P", sample={"StudyDate": "20200101-"})
    assert seen["find study"].words == "answered with 2" and seen["get"].ok and found.can_pull


# The way in


def test_nobody_there_and_nobody_let_in() -> None:
    is_reached, seen, _ = look("mint+http://127.0.0.1:1")
    assert not is_reached and seen["echo"].ok is False and "cannot connect" in seen["echo"].words
    with Web(Reply(401)) as web:
        is_reached, seen, _ = look(f"mint+{web.url}")
        assert not is_reached and seen["login"].ok is False and "Set user" in seen["login"].advice
        is_reached, seen, _ = look(f"mint+{web.url}", access=WebAccess(authority=Password()))
        assert not is_reached and "Check user and password" in seen["login"].advice


def test_what_lets_us_in_is_told(held: list[Sample]) -> None:
    with Web(Mint(paths(held))) as web:
        _, seen, _ = look(f"mint+{web.url}", access=WebAccess(authority=Password()))
        assert seen["login"].words == "what is set lets us in"
        assert "none was asked for" in look(f"mint+{web.url}")[1]["login"].words


def test_what_is_something_else_is_told(held: list[Sample]) -> None:
    with Web(Reply(404)) as web:
        is_reached, seen, found = look(f"wado-uri+{web.url}")
    assert is_reached and seen["echo"].ok is False and "Check host and path" in seen["echo"].advice
    assert "find study" not in seen and not found.can_pull


def test_the_end_of_the_certificate_is_told(held: list[Sample], tmp_path: Path, require: Callable[[str], str]) -> None:
    require("openssl")
    authority = certs.Authority(tmp_path / "ca")
    own = authority.issue("127.0.0.1")
    ends = subprocess.run(["openssl", "x509", "-enddate", "-dateopt", "iso_8601", "-noout", "-in", own.certificate],
                          check=True, capture_output=True, text=True).stdout[9:19]  # fmt: skip
    with Web(Mint(paths(held)), tls=own) as web:
        terms = Terms(ca=str(authority.path))
        _, seen, found = look(f"mint+{web.url}", access=WebAccess(terms=terms))
        tls = seen["tls"]
        assert (tls.facts["version"], tls.facts["certificate_ends"]) == ("TLSv1.3", ends) and ends in tls.words
        assert f"# its certificate ends on {ends}\n" in found.section("x", {"locator": "x"})
        is_reached, seen, _ = look(f"mint+{web.url}")
        assert not is_reached and seen["echo"].ok is False and "tls" not in seen
    with Web(Reply(401), tls=own) as web:
        is_reached, seen, _ = look(f"mint+{web.url}", access=WebAccess(terms=terms))
        assert not is_reached and seen["login"].ok is False and ends in seen["tls"].words


# As people run it


def configure(workdir: Workdir, **endpoints: dict[str, object]) -> None:
    lines = [f"[endpoints.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
             for name, keys in endpoints.items()]  # fmt: skip
    (workdir.path / "c.toml").write_text("\n".join(lines))


def pair(workdir: Workdir, mint: str, rids: str) -> None:
    """One that is asked, vna, and one that gives, rids."""
    configure(workdir, vna={"locator": f"mint+{mint}", "retrieve": "rids"}, rids={"locator": f"rad69+{rids}"})


@pytest.mark.slow
def test_both_of_a_pair_are_looked_at(workdir: Workdir, held: list[Sample]) -> None:
    with Web(Mint(paths(held))) as mint, Web(Rad69(paths(held))) as rids:
        pair(workdir, mint.url, rids.url)
        done = workdir.run("doctor", "vna", "StudyDate=20240101-", "--config", "c.toml", "--write", "copy")
        assert done.status == 0, done
        told = done.of_type("check")
        assert [each["check"] for each in told if each.get("endpoint") == "rids"] == ["tls", "echo", "login", "get"]
        assert all(each["message"].startswith("rids: ") for each in told if "endpoint" in each)
        written = config.load(str(workdir.path / "c.toml"), {}).endpoints
        assert (written["copy"].locator, written["copy"].retrieve) == (f"mint+{mint.url}", "rids")
        pair(workdir, mint.url, "http://127.0.0.1:1")
        lost = workdir.run("doctor", "vna", "StudyDate=20240101-", "--config", "c.toml")
        assert lost.status == 5 and lost.records[-1]["complete"] is False, lost


@pytest.mark.parametrize("asked, giver", [("{locator}", "wado-uri+{http}/wado"), ("{http}/dicom-web", "{locator}")])
def test_a_node_may_be_either_of_a_pair(
    workdir: Workdir, start: Start, held: list[Sample], asked: str, giver: str
) -> None:
    peer = start(peers.orthanc, dicomweb=True)
    peer.store(paths(held))
    told = {"locator": peer.locator, "http": peer.http}
    configure(workdir, one={"locator": asked.format(**told), "retrieve": "two"}, two={"locator": giver.format(**told)})
    for deep in ((), ("--deep",)):
        done = workdir.run("doctor", "one", "StudyDate=20240101-", "--config", "c.toml", *deep)
        assert done.status == 0, done
        assert all(each["ok"] is not False for each in done.of_type("check") if each["check"] != "move instance"), done
        assert [each["ae_title"] for each in done.of_type("registration")] == ["DCMSYNC"]
        came = [each["check"] for each in done.of_type("check") if each["check"].endswith("get instance")]
        assert came == (["get instance"] if deep and giver == "{locator}" else [])
    assert peer.instances() == len(held)


@pytest.mark.slow
def test_a_pair_whose_giver_lacks_things_cannot_be_pulled_from(workdir: Workdir, held: list[Sample]) -> None:
    lacking = [each.sop_uid for each in held]
    with Web(Mint(paths(held))) as mint, Web(Rad69(paths(held), missing=lacking)) as rids:
        pair(workdir, mint.url, rids.url)
        done = workdir.run("doctor", "vna", "StudyDate=20240101-", "--config", "c.toml")
    assert done.status == 1 and done.of_type("settings")[0]["can_pull"] is False, done


def test_the_registration_says_that_tls_is_spoken(workdir: Workdir, storescp: peers.Peer, tmp_path: Path) -> None:
    own = certs.Authority(tmp_path / "ca").issue("localhost")
    (workdir.path / "c.toml").write_text(
        f'[local]\ntls = true\ncertificate = "{own.certificate}"\nkey = "{own.key}"\nport = 2762\n'
    )
    done = workdir.run("doctor", storescp.locator, "--config", "c.toml")
    (told,) = done.of_type("registration")
    assert told["tls"] is True and "port     2762, with TLS\n" in told["message"], done
    (plain,) = workdir.run("doctor", storescp.locator).of_type("registration")
    assert "TLS" not in plain["message"] and "tls" not in plain
