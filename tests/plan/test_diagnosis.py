"""What is deduced from what was seen of a node."""

import tomllib
from collections.abc import Mapping
from datetime import date

import pytest

from dcmsync import config
from dcmsync.plan import diagnosis
from dcmsync.plan.diagnosis import Finding, Findings, Learnt, Text


def seen(**verdicts: bool | None) -> Findings:
    found = Findings(lambda finding: None)
    for check, ok in verdicts.items():
        found.add(Finding(check=check.replace("_", " "), ok=ok, words=""))
    return found


@pytest.mark.parametrize("verdicts, can_pull", [
    ({"find_study": True, "get": True}, True),
    ({"find_study": True, "get": False, "move": True}, True),
    ({"find_study": True, "find_series": True, "find_instance": True, "get": True}, True),
    ({"find_study": True, "find_series": False, "get": True}, False),
    ({"find_study": True, "find_instance": False, "get": True}, False),
    ({"find_study": False, "get": True}, False),
    ({"get": True, "move": True}, False),
    ({"find_study": True, "get": False, "move": False, "echo": True, "store": True}, False),
    ({"find_study": True, "get": True, "get_instance": False, "move": False}, False),  # what was tried counts
    ({"find_study": True, "get": True, "get_instance": False, "move": True}, True),
    ({"find_study": True, "get": True, "get_instance": False, "move": True, "move_instance": False}, False),
    ({"find_study": True, "get": True, "echo": False, "matching": False, "counts": False}, True),
])  # fmt: skip
def test_what_a_pull_needs(verdicts: Mapping[str, bool | None], can_pull: bool) -> None:
    assert seen(**verdicts).can_pull is can_pull


@pytest.mark.parametrize("asked, giver, can_pull", [
    ({"find_study": True}, {"get": True}, True),
    ({"find_study": True, "get": False, "move": False}, {"move": True}, True),
    ({"find_study": True, "get": True, "move": True}, {"get": False}, False),  # who is asked does not give
    ({"find_study": True, "get": True}, {}, False),
    ({"find_study": None}, {"find_study": True, "get": True}, False),
])  # fmt: skip
def test_what_a_pull_from_a_pair_needs(
    asked: Mapping[str, bool | None], giver: Mapping[str, bool | None], can_pull: bool
) -> None:
    found = seen(**asked)
    found.giver = seen(**giver)
    assert found.can_pull is can_pull


def test_the_registration_says_on_which_port_and_how() -> None:
    assert "  port     11112\n" in diagnosis.registration("ME", "10.0.0.1", 11112, with_tls=False)
    assert "  port     2762, with TLS\n" in diagnosis.registration("ME", "10.0.0.1", 2762, with_tls=True)


def test_counts() -> None:
    def judged(said: object, real: int) -> tuple[bool | None, list[str]]:
        learnt = Learnt()
        claims = [("NumberOfStudyRelatedSeries", {"NumberOfStudyRelatedSeries": said}, real)]
        return diagnosis.counts_finding(claims, learnt).ok, learnt.flags

    assert judged(3, 3) == (True, [])
    assert judged(2, 3) == (False, ["no-counts"])
    assert judged("", 3) == (True, ["no-counts"])
    assert judged(0, 3) == (False, ["no-counts"])
    assert judged("many", 3) == (False, ["no-counts"])


def test_lists_of_uids() -> None:
    learnt = Learnt()
    assert diagnosis.lists_finding(2, learnt).ok and not learnt.flags
    assert not diagnosis.lists_finding(1, learnt).ok and learnt.flags == ["no-uid-lists"]


def test_limits() -> None:
    learnt = Learnt()
    assert diagnosis.limit_finding([3, 7], [], learnt).ok and learnt.limit is None
    assert diagnosis.limit_finding([3, 100], [], learnt).ok is None and learnt.limit is None
    assert diagnosis.limit_finding([3], [50, 20], learnt).ok is False and learnt.limit == 50


def test_matching() -> None:
    learnt = Learnt()
    tried = {"PatientID": True, "StudyID": False, "StudyTime": False}
    finding = diagnosis.matching_finding(tried, {"StudyID": "1"}, learnt)
    assert finding.ok is False and learnt.ignored == ["StudyID", "StudyTime"]
    assert "does not match by StudyID, StudyTime" in finding.words and "by StudyTime" in finding.advice
    assert diagnosis.matching_finding({}, {}, Learnt()).ok is None


def test_character_sets() -> None:
    text, learnt = Text(), Learnt()
    text.take("", ["plain"])
    text.take(["ISO_IR 100", "ISO_IR 144"], ["Müller"])
    assert diagnosis.text_finding(text, learnt).ok and not learnt.charset
    text.take("", ["Müller"])
    assert diagnosis.text_finding(text, learnt).ok is False and learnt.charset


def test_the_section_says_what_was_learnt_and_can_be_read() -> None:
    found = seen()
    found.learnt.flags += ["no-counts", "no-uid-lists", "no-counts"]
    found.learnt.ignored += ["StudyID"]
    found.learnt.limit, found.learnt.charset, found.learnt.via = 50, "ISO_IR 100", "move"
    section = found.section("my pacs", {"locator": 'A"B@h:104', "calling": "ME"})
    assert config.parse(section).endpoints["my pacs"] == config.Endpoint(
        locator='A"B@h:104', calling="ME", via="move", quirks=("no-counts", "no-uid-lists"), ignores_keys=("StudyID",),
        limit=50, charset="ISO_IR 100",
    )  # fmt: skip


def test_the_section_does_not_repeat_what_a_profile_says() -> None:
    found = seen()
    found.learnt.implementation = "PYNETDICOM_304"
    found.learnt.flags += ["no-counts", "no-cget"]
    table = tomllib.loads(found.section("x", {"locator": "A@h:1"}))["endpoints"]["x"]
    assert (table["profile"], table["quirks"]) == ("pynetdicom", ["no-cget"])


def test_the_study_that_is_looked_at_is_the_smallest() -> None:
    things = [{"n": "1"}, {"n": 12}, {"n": 3}, {"n": 0}]
    assert diagnosis.smallest(things, "n") == {"n": 3}
    assert diagnosis.smallest([{"a": 1}, {"b": 2}], "n") == {"a": 1}


def test_what_was_set_already_stays_set() -> None:
    found = seen()
    found.learnt.flags += ["no-counts"]
    found.learnt.limit = 50
    said = {"locator": "dicoms://A@h:1", "ca": "/x.pem", "quirks": ("no-cancel",), "limit": 20, "verify": False}
    endpoint = config.parse(found.section("x", said)).endpoints["x"]
    assert endpoint == config.Endpoint(
        locator="dicoms://A@h:1", ca="/x.pem", verify=False, quirks=("no-cancel", "no-counts"), limit=20)


@pytest.mark.parametrize(("ends", "ok"), [(date(2026, 3, 4), True), (date(2026, 3, 3), None), (date(2026, 2, 1), None)])
def test_a_certificate_that_ends_soon_is_told_of(ends: date, ok: bool | None) -> None:
    learnt, today = Learnt(), date(2026, 2, 1)
    finding = diagnosis.tls_finding("TLSv1.3", "X", profile="modified", ends=ends, today=today, learnt=learnt)
    assert finding.ok is ok and bool(finding.advice) is (ok is None)
    assert learnt.tls_profile == "modified" and learnt.remarks == [f"its certificate ends on {ends.isoformat()}"]


def test_a_certificate_that_nobody_verified_has_no_end() -> None:
    learnt = Learnt()
    finding = diagnosis.tls_finding("TLSv1.3", "X", profile="bcp195", ends=None, today=date(2026, 2, 1), learnt=learnt)
    assert finding.ok is True and "not verified" in finding.words and learnt.remarks == []
