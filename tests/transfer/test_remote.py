"""Remote destinations through the engine: what is there is not sent, and what is not there is never called done."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import anyio
import pytest
from msgspec import UNSET

from dcmsync.contract import Arrival, Ending, Expected, Level, Parcel
from dcmsync.errors import Disconnected, ExitStatus, PeerError, Refused, Rejected, Unreachable
from dcmsync.records.model import Outcome
from dcmsync.transfer import retry
from dcmsync.transfer.consigner import Consigner
from dcmsync.transfer.consigner import Settings as Consigning
from dcmsync.transfer.contents import Contents
from dcmsync.transfer.courier import Courier
from dcmsync.transfer.courier import Settings as Sending
from dcmsync.transfer.engine import Pull, Settings
from dcmsync.transfer.fleet import Fleet
from dcmsync.transfer.remote import Asked, RemoteStock, Witness
from dcmsync.transfer.target import Nothing, Target
from dcmsync.transfer.works import Work
from tests.fakes.archive import Archive, Row, instances, series, studies
from tests.fakes.depot import KEEPS, Answer, Depot, breaks
from tests.transfer.test_engine import SERIES, TEN, Quiet, feed

CANNOT = "cannot be asked"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "delay_s", lambda attempt, dice: 0.0)


def work(row: Row, level: Level = Level.SERIES, **more: Any) -> list[Work]:
    return [Work(level=level, source="ARCHIVE", attributes=row, **more)]


def content_of(read_at: Callable[[int, int], bytes], size: int, syntax: str) -> str:
    return blake2b(read_at(0, size), digest_size=16).hexdigest()


def judge(read_at: Callable[[int, int], bytes], size: int, arrival: Arrival, expected: Expected) -> tuple[str, str]:
    is_fine = read_at(0, size).endswith(arrival.sop_instance_uid.encode())
    return ("", "") if is_fine else ("mismatch", "it is another")


class Pushed:
    """One run, and what came of it."""

    def __init__(
        self,
        depot: Depot,
        *works: Sequence[Work],
        archive: Archive | None = None,
        verify: str = "uids",
        trust: str = "uids",
        force: bool = False,
        jobs: int = 2,
        sending: Sending | None = None,
        counts: bool = False,
        **settings: Any,
    ) -> None:
        self.depot = depot
        self.archive = archive or Archive(TEN)
        self.outcomes: list[Outcome] = []
        self.warnings: list[str] = []
        self.verify, self.trust, self.force, self.jobs = verify, trust, force, jobs
        self.sending = sending or Sending()
        self.counts = counts
        anyio.run(self._run, works or (work(SERIES),), Settings(jobs=jobs, itemize=True, trust=trust, **settings))

    async def _run(self, works: Sequence[Sequence[Work]], settings: Settings) -> None:
        with anyio.fail_after(20):
            async with Fleet(self.depot, self.jobs) as fleet:
                contents = Contents(content_of)
                asked = Asked(fleet, warn=self.warnings.append)
                stock = RemoteStock(asked, contents if self.trust == "content" else None)
                target: Target[Parcel] = Target("DEPOT", Nothing() if self.force else stock)
                if not settings.dry_run:
                    consigning = Consigning(
                        completed=target.completed, judge=judge, flaw=lambda read_at, size, syntax: "",
                        hasher=blake2b, content_of=content_of, held=stock.content, hashes=self.verify == "content",
                    )  # fmt: skip
                    target.deliver(
                        Consigner(consigning), partial(Courier, fleet, settings=self.sending)
                    )
                    if self.verify != "none":
                        target.prover = Witness(
                            asked, contents if self.verify == "content" else None, counts=self.counts,
                            late_s=(0.001, 0.001),
                        )  # fmt: skip
                self.pull: Pull[Parcel] = Pull(
                    settings, [target], open_source=lambda name: self.archive, write=self.outcomes.append,
                    warn=self.warnings.append, meter=Quiet(),
                )  # fmt: skip
                await self.pull.run(feed(works))
        assert self.depot.open == 0

    def never_lies(self) -> "Pushed":
        """Done is said if and only if all of the inventory is there; nothing else is; nothing proven was sent again."""
        said = {o.SOPInstanceUID for o in self.of_instances() if o.outcome in ("stored", "present")}
        doubted = {o.SOPInstanceUID for o in self.of_instances() if o.reason == "unproven"}
        if self.verify != "none":
            assert said - doubted <= set(self.depot.stored)
        asked = {row["SOPInstanceUID"] for row in self.archive.rows[Level.INSTANCE]}
        assert set(self.depot.stored) <= asked
        if self.pull.status is ExitStatus.DONE and self.verify != "none":
            assert asked <= set(self.depot.stored)
        for uid, octets in self.depot.stored.items():
            assert octets == f"data set of {uid}".encode()
        return self

    def of_instances(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.level == "instance"]

    def outcome(self, number: int) -> Outcome:
        uid = f"1.1.1.{number}"
        return next(outcome for outcome in self.of_instances() if outcome.SOPInstanceUID == uid)

    @property
    def last(self) -> Outcome:
        return self.outcomes[-1]


def holding(*numbers: int, octets: Callable[[str], bytes] | None = None, **more: Any) -> Depot:
    depot = Depot(**more)
    for number in numbers:
        uid = f"1.1.1.{number}"
        depot.stored[uid] = octets(uid) if octets else f"data set of {uid}".encode()
    return depot


# What is there already


def test_a_series_is_sent_and_proven() -> None:
    pushed = Pushed(Depot()).never_lies()
    assert len(pushed.depot.stored) == 10
    assert (pushed.last.outcome, pushed.last.stored, pushed.last.reason) == ("stored", 10, UNSET)
    assert pushed.pull.status is ExitStatus.DONE
    assert not pushed.warnings


def test_what_is_there_is_not_sent() -> None:
    pushed = Pushed(holding(1, 2, 3)).never_lies()
    assert set(pushed.depot.came) == {f"1.1.1.{n}" for n in range(4, 11)}
    assert (pushed.last.stored, pushed.last.present) == (7, 3)


def test_force_sends_what_is_there() -> None:
    assert len(Pushed(holding(1, 2, 3), force=True).never_lies().depot.came) == 10


def test_a_dry_run_asks_and_sends_nothing() -> None:
    pushed = Pushed(holding(1, 2, 3), dry_run=True)
    assert not pushed.depot.came
    assert (pushed.last.stored, pushed.last.present, pushed.last.dry_run) == (7, 3, True)


def test_counts_that_agree_are_trusted_when_asked_to_be() -> None:
    record = {**SERIES, "NumberOfSeriesRelatedInstances": 10}
    pushed = Pushed(holding(*range(1, 11)), work(record), trust="counts")
    assert (pushed.last.outcome, pushed.last.reason, pushed.last.instances) == ("present", "counts", 10)
    assert not pushed.archive.asks
    assert len(Pushed(holding(1, 2), work(record), trust="counts").never_lies().depot.came) == 8


def test_content_that_is_trusted_is_compared() -> None:
    depot = holding(1, 2, 3, octets=lambda uid: f"data set of {uid}".encode() if uid[-1] != "2" else b"another")
    pushed = Pushed(depot, trust="content")
    assert "1.1.1.2" not in pushed.depot.came
    assert (pushed.outcome(1).outcome, pushed.outcome(2).outcome, pushed.outcome(4).outcome) == (
        "present", "conflict", "stored"
    )  # fmt: skip
    assert pushed.depot.stored["1.1.1.2"] == b"another"
    assert pushed.pull.status is ExitStatus.FAILED


def test_what_is_known_to_differ_stays_unless_forced() -> None:
    record = {**SERIES, "SOPInstanceUID": "1.1.1.2", "SOPClassUID": "1.2.3"}
    depot = holding(2, octets=lambda uid: b"another")
    pushed = Pushed(depot, work(record, Level.INSTANCE, differs=True))
    assert (pushed.outcome(2).outcome, pushed.depot.stored["1.1.1.2"]) == ("conflict", b"another")
    pushed = Pushed(depot, work(record, Level.INSTANCE, differs=True), force=True)
    assert pushed.depot.stored["1.1.1.2"] == b"data set of 1.1.1.2"


# Who lies


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_destination_that_keeps_nothing_is_found_out(jobs: int) -> None:
    pushed = Pushed(Depot(keeps=lambda uid, nth: False), jobs=jobs).never_lies()
    assert {(o.outcome, o.reason) for o in pushed.of_instances()} == {("failed", "missing")}
    assert set(pushed.depot.came.values()) == {2}
    assert pushed.pull.status is ExitStatus.FAILED


def test_what_a_destination_dropped_is_sent_once_more() -> None:
    pushed = Pushed(Depot(keeps=lambda uid, nth: nth > 1 or int(uid[-1]) % 2 == 0)).never_lies()
    assert len(pushed.depot.stored) == 10
    assert pushed.pull.status is ExitStatus.DONE
    assert {uid: count for uid, count in pushed.depot.came.items() if count == 1}.keys() == {
        f"1.1.1.{n}" for n in (2, 4, 6, 8, 10)
    }


def test_half_that_is_dropped_again_and_again_has_failed() -> None:
    pushed = Pushed(Depot(keeps=lambda uid, nth: int(uid.rsplit(".", 1)[1]) > 5)).never_lies()
    assert (pushed.last.stored, pushed.last.failed, pushed.last.reason) == (5, 5, "missing")
    assert pushed.pull.status is ExitStatus.FAILED


def test_what_is_stored_under_another_uid_is_missing() -> None:
    depot = Depot()
    depot.home = lambda uid: ("9.9", "9.9.9")
    pushed = Pushed(depot)
    assert {(o.outcome, o.reason) for o in pushed.of_instances()} == {("failed", "missing")}


def test_a_list_that_is_cut_short_does_not_make_things_missing() -> None:
    pushed = Pushed(Depot(lists=lambda uid: int(uid.rsplit(".", 1)[1]) <= 6)).never_lies()
    assert pushed.pull.status is ExitStatus.DONE
    assert set(pushed.depot.came.values()) == {1}


def test_what_is_listed_late_is_waited_for() -> None:
    depot = Depot()
    depot.lists = lambda uid: depot.asked > 2
    pushed = Pushed(depot).never_lies()
    assert pushed.pull.status is ExitStatus.DONE
    assert set(depot.came.values()) == {1}


def test_other_content_is_found_out_by_fetching_it_back() -> None:
    pushed = Pushed(Depot(), verify="content").never_lies()
    assert pushed.pull.status is ExitStatus.DONE
    assert all(str(o.content).startswith("xxh3:") for o in pushed.of_instances())

    class Store(dict[str, bytes]):
        def __setitem__(self, uid: str, octets: bytes) -> None:
            super().__setitem__(uid, b"changed" if uid == "1.1.1.4" else octets)

    depot = Depot()
    depot.stored = Store()
    pushed = Pushed(depot, verify="content")
    assert (pushed.outcome(4).outcome, pushed.outcome(4).reason) == ("failed", "differs")
    assert (pushed.last.failed, pushed.last.stored) == (1, 9)
    assert Pushed(depot, force=True).pull.status is ExitStatus.DONE  # by UIDs nobody can see it


# Who cannot be asked


@pytest.mark.parametrize("error", [Rejected(CANNOT), Refused(CANNOT, status=0xC000)], ids=lambda e: type(e).__name__)
def test_a_destination_that_cannot_be_asked_leaves_things_unproven(error: PeerError) -> None:
    pushed = Pushed(Depot(cannot=error)).never_lies()
    assert {(o.outcome, o.reason) for o in pushed.of_instances()} == {("stored", "unproven")}
    assert (pushed.last.outcome, pushed.last.reason) == ("stored", "unproven")
    assert pushed.pull.status is ExitStatus.FAILED
    assert pushed.depot.asked == 1
    assert len(pushed.warnings) == 1


def test_where_no_instance_is_named_as_many_as_there_should_be_are_proof_if_that_is_agreed() -> None:
    doubted = Pushed(Depot(names=False))
    assert (doubted.pull.status, doubted.outcome(3).reason) == (ExitStatus.FAILED, "unproven")
    counted = Pushed(Depot(names=False), counts=True)
    assert (counted.pull.status, counted.outcome(3).outcome) == (ExitStatus.DONE, "stored")
    assert len(counted.warnings) == 1  # that it cannot be asked what it has is said once
    for depot in (Depot(names=False, keeps=lambda uid, nth: uid != "1.1.1.4"), Depot(cannot=Rejected("no"))):
        fewer = Pushed(depot, counts=True)
        assert (fewer.pull.status, fewer.outcome(3).reason) == (ExitStatus.FAILED, "unproven")
    never = Ending(status=0xA900, why="DEPOT: answered 0xA900")
    one_failed = Pushed(Depot(names=False, answer=lambda uid, nth: never if uid == "1.1.1.4" else KEEPS), counts=True)
    assert (one_failed.outcome(3).reason, one_failed.outcome(4).outcome) == (UNSET, "failed")


def test_its_word_is_taken_when_asked_to() -> None:
    pushed = Pushed(Depot(cannot=Rejected(CANNOT)), verify="none")
    assert pushed.pull.status is ExitStatus.DONE
    assert {(o.outcome, o.reason) for o in pushed.of_instances()} == {("stored", UNSET)}


def test_a_question_that_broke_is_asked_again() -> None:
    depot = Depot()
    depot.calls = lambda nth: Disconnected("gone") if nth in (1, 3) else None
    assert Pushed(depot).never_lies().pull.status is ExitStatus.DONE


def test_a_proof_that_cannot_be_had_any_more_leaves_things_unproven() -> None:
    depot = Depot()

    def answer(uid: str, nth: int) -> Answer:
        depot.cannot = Disconnected("gone")
        return KEEPS

    depot.answer = answer
    pushed = Pushed(depot).never_lies()
    assert {o.reason for o in pushed.of_instances()} == {"unproven"}
    assert pushed.pull.status is ExitStatus.FAILED


def test_a_destination_that_is_not_there_ends_the_run() -> None:
    rows = [*studies(1), *series(1, 3), *(row for n in (1, 2, 3) for row in instances(1, n, 10))]
    pushed = Pushed(
        Depot(calls=lambda nth: Unreachable("nobody there")), work(studies(1)[0], Level.STUDY), archive=Archive(rows)
    )
    assert pushed.pull.status is ExitStatus.UNREACHABLE
    assert list(pushed.pull.troubles) == ["DEPOT"]
    assert {(o.outcome, o.reason, o.retry) for o in pushed.outcomes} == {("failed", "unreachable", True)}
    assert len(pushed.outcomes) == 33
    assert not pushed.archive.wants


def test_a_destination_that_goes_is_no_fault_of_the_source() -> None:
    depot = Depot(answer=lambda uid, nth: Disconnected("killed"))
    depot.calls = lambda nth: Unreachable("nobody there") if nth > 2 else None
    pushed = Pushed(depot, sending=Sending(calls=2))
    assert len(pushed.archive.wants) == 1
    assert pushed.pull.status is ExitStatus.UNREACHABLE


def test_statuses_reach_the_records() -> None:
    answers: Mapping[str, Answer] = {
        "1.1.1.2": Ending(status=0xA900, why="answered 0xA900"),
        "1.1.1.3": Ending(status=0xB000, is_warning=True, why="answered 0xB000"),
        "1.1.1.4": Ending(status=0xA700, may_pass=True, why="answered 0xA700"),
    }
    pushed = Pushed(Depot(answer=lambda uid, nth: answers.get(uid, KEEPS))).never_lies()
    said = {n: (o.outcome, o.reason, o.status, o.retry) for n in (1, 2, 3, 4) for o in [pushed.outcome(n)]}
    assert said == {
        1: ("stored", UNSET, UNSET, UNSET),
        2: ("failed", "refused", "0xA900", False),
        3: ("stored", "warning", "0xB000", UNSET),
        4: ("failed", "refused", "0xA700", True),
    }
    assert pushed.pull.status is ExitStatus.RETRY
    assert pushed.last.failed == 2


@pytest.mark.parametrize("jobs", [1, 3])
def test_poison_of_several_series_never_keeps_the_others_from_arriving(jobs: int) -> None:
    rows = [*studies(1), *series(1, 6), *(row for n in range(1, 7) for row in instances(1, n, 5))]
    poison = [f"1.1.{n}.3" for n in range(1, 7)]
    pushed = Pushed(
        Depot(answer=breaks(*poison)), work(studies(1)[0], Level.STUDY), archive=Archive(rows), jobs=jobs
    ).never_lies()
    assert len(pushed.depot.stored) == 24
    assert {o.SOPInstanceUID for o in pushed.of_instances() if o.outcome == "failed"} == set(poison)
    assert pushed.pull.status is ExitStatus.RETRY
