"""The account of one series: the verdict follows the instances, and the exit status the worst of them."""

import pytest
from msgspec import UNSET

from dcmsync.contract import Arrival, Ending, Landed
from dcmsync.errors import Disconnected, ExitStatus, LocalTrouble, Refused, Rejected, Stalled, Unreachable
from dcmsync.records.model import Outcome
from dcmsync.transfer.ledger import Ledger


def ledger(count: int = 3, **more: object) -> Ledger:
    return Ledger(
        source="PACS@here:104",
        destination="folder",
        attributes={"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "PatientID": "P", **more},
        wanted={f"1.1.1.{n}": "1.2" for n in range(1, count + 1)},
    )


def landed(number: int, outcome: str = "stored", **more: object) -> Landed:
    arrival = Arrival(sop_class_uid="1.2", sop_instance_uid=f"1.1.1.{number}", transfer_syntax_uid="1.2.1")
    return Landed(arrival=arrival, outcome=outcome, **more)  # type: ignore[arg-type]  # names are fields


def told(made: Ledger, *, itemize: bool = False) -> list[Outcome]:
    return list(made.outcomes(itemize=itemize))


def test_all_stored_is_stored() -> None:
    made = ledger()
    for n in (1, 2, 3):
        made.landed(landed(n, path=f"{n}.dcm", size=9, digest="d" * 32))
    (series,) = told(made)
    assert (series.level, series.outcome, series.stored, series.instances) == ("series", "stored", 3, 3)
    assert (series.StudyInstanceUID, series.SeriesInstanceUID, series.PatientID) == ("1.1", "1.1.1", "P")
    assert (series.source, series.destination) == ("PACS@here:104", "folder")
    assert made.status is ExitStatus.DONE
    assert not made.lacking


def test_each_instance_is_told_when_itemizing() -> None:
    made = ledger(2)
    made.landed(landed(1, path="1.dcm", size=9, digest="ab", content="cd"))
    made.present("1.1.1.2", "2.dcm", 8)
    first, second, series = told(made, itemize=True)
    assert (first.outcome, first.path, first.size, first.digest) == ("stored", "1.dcm", 9, "xxh3:ab")
    assert (first.SOPClassUID, first.TransferSyntaxUID, first.content) == ("1.2", "1.2.1", "xxh3:cd")
    assert (second.outcome, second.path, second.size) == ("present", "2.dcm", 8)
    assert (series.outcome, series.stored, series.present) == ("stored", 1, 1)


def test_all_present_is_present() -> None:
    made = ledger(1)
    made.present("1.1.1.1", "1.dcm", 8)
    assert told(made)[-1].outcome == "present"


@pytest.mark.parametrize(
    ("verdict", "status", "word"),
    [
        (landed(1, "conflict", reason="content", message="differs"), ExitStatus.FAILED, "conflict"),
        (landed(1, "failed", reason="corrupt", message="cut"), ExitStatus.FAILED, "failed"),
        (landed(1, "failed", reason="local", message="full", trouble=LocalTrouble("full")), ExitStatus.LOCAL, "failed"),
    ],
)
def test_one_bad_instance_makes_the_series_bad(verdict: Landed, status: ExitStatus, word: str) -> None:
    made = ledger(2)
    made.landed(verdict)
    made.landed(landed(2))
    instance, series = told(made)
    assert (instance.outcome, instance.reason, instance.message) == (word, verdict.reason, verdict.message)
    assert (series.outcome, series.stored) == (word, 1)
    assert made.status is status


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Stalled("late"), ExitStatus.RETRY, True),
        (Disconnected("gone"), ExitStatus.RETRY, True),
        (Unreachable("nobody"), ExitStatus.UNREACHABLE, True),
        (Rejected("no"), ExitStatus.UNREACHABLE, True),
        (LocalTrouble("full"), ExitStatus.LOCAL, True),
        (Refused("no", status=0xA900), ExitStatus.FAILED, False),
    ],
)
def test_what_lacks_fails_with_the_error(error: Exception, status: ExitStatus, retry: bool) -> None:
    made = ledger()
    made.landed(landed(1))
    made.fail_rest(error)  # type: ignore[arg-type]  # all are DcmsyncErrors
    *instances, series = told(made)
    assert [outcome.SOPInstanceUID for outcome in instances] == ["1.1.1.2", "1.1.1.3"]
    assert {(o.reason, o.message, o.retry) for o in (*instances, series)} == {(error.reason, str(error), retry)}  # type: ignore[attr-defined]
    assert (series.stored, series.failed) == (1, 2)
    assert made.status is status


@pytest.mark.parametrize(
    ("status", "word"), [(0xA900, "0xA900"), (0x0110, "0x0110"), (0x0211, "0x0211"), (404, "404"), (503, "503")]
)
def test_a_status_of_http_is_told_as_such(status: int, word: str) -> None:
    made = ledger(1)
    made.fail_rest(Refused("no", status=status))
    assert {outcome.status for outcome in told(made)} == {word}


def test_an_error_after_everything_came_changes_nothing() -> None:
    made = ledger(1)
    made.landed(landed(1))
    made.fail_rest(Stalled("late"))
    made.missing_rest("lost")
    assert made.status is ExitStatus.DONE
    assert [outcome.outcome for outcome in told(made)] == ["stored"]


@pytest.mark.parametrize(("series", "level"), [("1.1.1", "series"), ("", "study")])
def test_without_an_inventory_the_thing_itself_failed(series: str, level: str) -> None:
    made = ledger(0, SeriesInstanceUID=series)
    made.fail_rest(Unreachable("nobody"))
    (only,) = told(made)
    assert (only.level, only.outcome, only.reason, only.instances) == (level, "failed", "unreachable", UNSET)
    assert made.status is ExitStatus.UNREACHABLE


@pytest.mark.parametrize("may_pass", [True, False])
def test_a_failure_status_is_told_with_its_number(may_pass: bool) -> None:
    made = ledger(1)
    made.refuse_rest("the retrieval failed", Ending(status=0xA702, may_pass=may_pass))
    outcome = told(made)[0]
    assert (outcome.reason, outcome.status, outcome.retry) == ("refused", "0xA702", may_pass)
    assert made.status is (ExitStatus.RETRY if may_pass else ExitStatus.FAILED)


def test_what_never_came_is_missing() -> None:
    made = ledger(1)
    made.missing_rest("it did not come")
    assert (told(made)[0].reason, made.status) == ("missing", ExitStatus.FAILED)


def test_what_the_run_did_not_reach_may_be_tried_again() -> None:
    made = ledger(1)
    arrival = Arrival(sop_class_uid="1.2", sop_instance_uid=next(iter(made.wanted)), transfer_syntax_uid="1.2.1")
    made.landed(Landed(arrival=arrival, outcome="failed", reason="interrupted", message="the run ended first"))
    assert (told(made)[0].reason, told(made)[0].retry, made.status) == ("interrupted", True, ExitStatus.RETRY)


def test_a_file_that_changed_while_it_was_taken_may_be_tried_again() -> None:
    made = ledger(1)
    made.landed(landed(1, "failed", reason="changed", message="the file changed"))
    assert (told(made)[0].reason, told(made)[0].retry, made.status) == ("changed", True, ExitStatus.RETRY)


def test_what_we_refuse_is_not_worth_another_try() -> None:
    made = ledger(1)
    made.refused("1.1.1.1", "too long")
    assert (told(made)[0].reason, told(made)[0].retry, made.status) == ("refused", False, ExitStatus.FAILED)
    assert not made.lacks("1.1.1.1")


def test_the_worst_status_wins() -> None:
    made = ledger(3)
    made.landed(landed(1, "failed", reason="local", message="full", trouble=LocalTrouble("full")))
    made.refused("1.1.1.2", "too long")
    made.fail_rest(Stalled("late"))
    assert made.status is ExitStatus.LOCAL


def test_only_what_is_wanted_and_has_no_verdict_lacks() -> None:
    made = ledger(2)
    made.landed(landed(1))
    assert made.lacking == {"1.1.1.2": "1.2"}
    assert [made.lacks(f"1.1.1.{n}") for n in (1, 2, 3)] == [False, True, False]


def test_a_dry_run_says_so() -> None:
    made = Ledger(source="A", destination="B", attributes={"StudyInstanceUID": "1.1"}, wanted={}, dry_run=True)
    made.wanted = {"1.1.1.1": ""}
    made.would_store("1.1.1.1")
    assert all(outcome.dry_run is True for outcome in told(made, itemize=True))
