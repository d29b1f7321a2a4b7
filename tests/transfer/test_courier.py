"""The courier against a destination that refuses, breaks, allows little and lies: each parcel has one verdict."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.contract import Arrival, Ending, Landed, Parcel, Together
from dcmsync.errors import (
    Disconnected,
    LocalTrouble,
    OutOfResources,
    PeerError,
    Rejected,
    RemoteProtocolError,
    Stalled,
    Unreachable,
)
from dcmsync.transfer import retry
from dcmsync.transfer.courier import Courier, Settings
from dcmsync.transfer.fleet import Fleet
from tests.fakes.depot import KEEPS, Answer, Depot, breaks

EXPLICIT = "1.2.840.10008.1.2.1"
NOT_NOW = Ending(status=0xA700, may_pass=True, why="DEPOT: answered 0xA700")
NEVER = Ending(status=0xA900, why="DEPOT: answered 0xA900")
WARNS = Ending(status=0xB000, is_warning=True, why="DEPOT: answered 0xB000")


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    attempts: list[int] = []

    def no_delay(attempt: int, dice: float) -> float:
        attempts.append(attempt)
        return 0.0001

    monkeypatch.setattr(retry, "delay_s", no_delay)
    return attempts


def parcel(number: int, kind: str = "1.2.3", **more: Any) -> Parcel:
    arrival = Arrival(sop_class_uid=kind, sop_instance_uid=f"1.1.1.{number}", transfer_syntax_uid=EXPLICIT)
    octets = f"data set {number}".encode()
    return Parcel(**{"arrival": arrival, "size": len(octets), "memory": octets, **more})


class Sent:
    """One run: what became of each parcel."""

    def __init__(
        self, depot: Depot, given: Sequence[Parcel], *, jobs: int = 1, **settings: Any
    ) -> None:
        self.depot = depot
        self.verdicts: dict[str, Landed] = {}
        self.most_in_flight = 0
        self._given = given
        anyio.run(self._run, jobs, Settings(**settings))

    async def _run(self, jobs: int, settings: Settings) -> None:
        with anyio.fail_after(20):
            async with Fleet(self.depot, jobs) as fleet, anyio.create_task_group() as tasks:
                self.fleet = fleet
                courier = Courier(fleet, self._landed, settings)
                courier.start(tasks)
                for one in self._given:
                    await courier.room()
                    courier.take(one)
                    self.most_in_flight = max(self.most_in_flight, courier._in_flight_parcels)
                await courier.settle()
                courier.stop()
            assert self.depot.open == 0

    def _landed(self, verdict: Landed) -> None:
        uid = verdict.arrival.sop_instance_uid
        assert uid not in self.verdicts, f"{uid} has two verdicts"
        self.verdicts[uid] = verdict

    def never_lies(self) -> "Sent":
        """What is called stored was, and each parcel has one verdict."""
        stored = {uid for uid, verdict in self.verdicts.items() if verdict.outcome == "stored"}
        assert stored == set(self.depot.stored)
        assert set(self.verdicts) == {one.arrival.sop_instance_uid for one in self._given}
        return self

    def outcomes(self) -> list[str]:
        return [self.verdicts[one.arrival.sop_instance_uid].outcome for one in self._given]


def many(count: int, **more: Any) -> list[Parcel]:
    return [parcel(n, **more) for n in range(1, count + 1)]


def test_parcels_arrive_in_their_order_over_one_association() -> None:
    sent = Sent(Depot(), many(200)).never_lies()
    assert sent.depot.order == [f"1.1.1.{n}" for n in range(1, 201)]
    assert sent.depot.stored["1.1.1.7"] == b"data set 7"
    assert sent.depot.opened == 1
    assert sent.fleet.has_worked


def test_more_senders_begin_when_more_waits() -> None:
    assert Sent(Depot(), many(100), jobs=4).never_lies().depot.most_open > 1
    assert Sent(Depot(), many(2), jobs=4).never_lies().depot.most_open == 1


def test_few_senders_begin() -> None:
    """Who stores one thing at a time is slower with each more."""
    assert Fleet(Depot(), 16).most == 2


@pytest.mark.parametrize("allows", [1, 2, 3])
def test_a_destination_that_allows_few_associations_gets_everything(allows: int) -> None:
    sent = Sent(Depot(allows=allows), many(300), jobs=4).never_lies()
    assert sent.outcomes() == ["stored"] * 300
    assert sent.depot.opened <= allows + 4


def test_no_parcel_waits_for_an_association_that_is_never_let_in() -> None:
    class Serial(Depot):
        """Lets a second association wait for ever, as storescp does without --fork."""

        async def wait(self) -> None:
            await anyio.sleep_forever()

    depot = Serial()
    depot.calls = lambda nth: Stalled("never") if nth > 1 else None  # what the deadline makes of it
    sent = Sent(depot, many(100), jobs=4).never_lies()
    assert sent.outcomes() == ["stored"] * 100


@pytest.mark.parametrize("position", [1, 2, 25, 49, 50])
@pytest.mark.parametrize("jobs", [1, 3])
def test_poison_ends_last_and_alone_and_kills_nothing(position: int, jobs: int) -> None:
    poison = f"1.1.1.{position}"
    sent = Sent(Depot(answer=breaks(poison)), many(50), jobs=jobs).never_lies()
    assert len(sent.depot.stored) == 49
    assert sent.depot.came[poison] == 3
    assert sent.depot.order[-1] == poison
    verdict = sent.verdicts[poison]
    assert (verdict.outcome, verdict.reason, verdict.may_pass) == ("failed", "disconnected", True)
    assert sent.depot.opened <= 3 + jobs
    assert max(count for uid, count in sent.depot.came.items() if uid != poison) == 1  # nothing proven is sent again


def test_an_association_that_breaks_once_costs_one_more() -> None:
    def answer(uid: str, nth: int) -> Answer:
        return Disconnected("gone") if uid == "1.1.1.20" and nth == 1 else KEEPS

    sent = Sent(Depot(answer=answer), many(50)).never_lies()
    assert len(sent.depot.stored) == 50
    assert sent.depot.opened == 2
    assert sent.depot.came.total() == 51


@pytest.mark.parametrize("error", [Disconnected("x"), RemoteProtocolError("x"), Stalled("x")], ids=lambda e: e.reason)
def test_each_way_to_break_is_named(error: PeerError) -> None:
    sent = Sent(Depot(answer=lambda uid, nth: error if uid == "1.1.1.2" else KEEPS), many(4)).never_lies()
    assert sent.verdicts["1.1.1.2"].reason == error.reason
    assert sent.depot.came["1.1.1.2"] == (2 if isinstance(error, Stalled) else 3)  # a deadline is dear


def test_a_destination_that_breaks_at_everything_is_given_up() -> None:
    sent = Sent(Depot(answer=lambda uid, nth: Disconnected("gone")), many(100), jobs=2, breaks=12).never_lies()
    assert set(sent.outcomes()) == {"failed"}
    assert isinstance(sent.verdicts["1.1.1.100"].trouble, Disconnected)
    assert sent.depot.came.total() <= 14


def test_what_is_refused_for_now_is_tried_again_after_a_pause(waited: list[int]) -> None:
    def answer(uid: str, nth: int) -> Answer:
        return NOT_NOW if uid == "1.1.1.3" and nth < 4 else KEEPS

    sent = Sent(Depot(answer=answer), many(6)).never_lies()
    assert len(sent.depot.stored) == 6
    assert waited == [1, 2, 3]
    assert sent.depot.order == [f"1.1.1.{n}" for n in (1, 2, 3, 3, 3, 3, 4, 5, 6)]  # the place pauses, not the instance


def test_what_is_refused_for_now_again_and_again_fails_and_may_pass() -> None:
    sent = Sent(Depot(answer=lambda uid, nth: NOT_NOW if uid == "1.1.1.3" else KEEPS), many(6), tries=5).never_lies()
    verdict = sent.verdicts["1.1.1.3"]
    assert (verdict.reason, verdict.status, verdict.may_pass, verdict.trouble) == ("refused", 0xA700, True, None)
    assert sent.depot.came["1.1.1.3"] == 5
    assert len(sent.depot.stored) == 5


def test_a_destination_without_resources_is_given_up() -> None:
    sent = Sent(Depot(answer=lambda uid, nth: NOT_NOW), many(100), refusals=7).never_lies()
    assert sent.depot.came.total() == 7
    assert {(v.reason, v.status, v.may_pass) for v in sent.verdicts.values()} == {("refused", 0xA700, True)}
    assert isinstance(sent.verdicts["1.1.1.100"].trouble, OutOfResources)


def test_what_is_refused_for_good_is_not_tried_again() -> None:
    sent = Sent(Depot(answer=lambda uid, nth: NEVER if uid == "1.1.1.3" else KEEPS), many(6)).never_lies()
    verdict = sent.verdicts["1.1.1.3"]
    assert (verdict.outcome, verdict.status, verdict.may_pass) == ("failed", 0xA900, False)
    assert sent.depot.came.total() == 6


def test_a_warning_is_told_and_the_instance_is_stored() -> None:
    sent = Sent(Depot(answer=lambda uid, nth: WARNS), many(1)).never_lies()
    verdict = sent.verdicts["1.1.1.1"]
    assert (verdict.outcome, verdict.reason, verdict.status) == ("stored", "warning", 0xB000)


def test_a_kind_that_is_not_taken_fails_alone() -> None:
    parcels = [parcel(1), parcel(2, "1.9"), parcel(3)]
    sent = Sent(Depot(takes=lambda arrival: arrival.sop_class_uid != "1.9"), parcels).never_lies()
    assert sent.outcomes() == ["stored", "failed", "stored"]
    assert sent.verdicts["1.1.1.2"].may_pass is False
    assert sent.depot.opened <= 2


def test_kinds_that_do_not_fit_one_association_get_others() -> None:
    parcels = [parcel(n, f"1.2.{n % 40}") for n in range(400)]
    sent = Sent(Depot(kinds=10), parcels).never_lies()
    assert len(sent.depot.stored) == 400
    assert sent.depot.opened < 60  # what an association can carry goes first


def test_a_parcel_is_not_overtaken_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.transfer.courier._OVERTAKEN", 20)
    parcels = [parcel(1, "1.1"), parcel(2, "1.2"), *(parcel(n, "1.1") for n in range(3, 300))]
    sent = Sent(Depot(kinds=1), parcels, parcels=200).never_lies()
    assert sent.depot.order.index("1.1.1.2") < 100


def test_a_destination_that_was_never_there_is_given_up_at_once(waited: list[int]) -> None:
    sent = Sent(Depot(calls=lambda nth: Unreachable("nobody there")), many(20), jobs=3).never_lies()
    assert isinstance(sent.verdicts["1.1.1.20"].trouble, Unreachable)
    assert sent.depot.opened <= 3
    assert waited == []


def test_a_destination_that_goes_and_comes_back_is_waited_for() -> None:
    def calls(nth: int) -> Exception | None:
        return Unreachable("nobody there") if 1 < nth < 7 else None

    def answer(uid: str, nth: int) -> Answer:
        return Disconnected("killed") if uid == "1.1.1.10" and nth == 1 else KEEPS

    sent = Sent(Depot(calls=calls, answer=answer), many(30)).never_lies()
    assert len(sent.depot.stored) == 30


def test_a_destination_that_goes_for_good_fails_the_rest() -> None:
    def answer(uid: str, nth: int) -> Answer:
        return Disconnected("killed") if uid == "1.1.1.10" else KEEPS

    sent = Sent(Depot(calls=lambda nth: Unreachable("gone") if nth > 1 else None, answer=answer), many(30)).never_lies()
    assert len(sent.depot.stored) == 9
    assert sent.verdicts["1.1.1.30"].reason == "unreachable"
    assert sent.depot.opened == 1 + retry.PATIENCE


def test_who_is_rejected_for_good_is_not_asked_again() -> None:
    sent = Sent(Depot(calls=lambda nth: Rejected("who are you?")), many(20)).never_lies()
    assert sent.depot.opened == 1
    assert {verdict.reason for verdict in sent.verdicts.values()} == {"rejected"}


def test_who_is_rejected_for_now_is_let_in_later() -> None:
    sent = Sent(Depot(calls=lambda nth: Rejected("busy", transient=True) if nth < 4 else None), many(20)).never_lies()
    assert len(sent.depot.stored) == 20


def test_a_file_that_changed_fails_alone_and_may_pass() -> None:
    def answer(uid: str, nth: int) -> Answer:
        return LocalTrouble("a file changed") if uid == "1.1.1.3" else KEEPS

    sent = Sent(Depot(answer=answer), many(6)).never_lies()
    verdict = sent.verdicts["1.1.1.3"]
    assert (verdict.reason, verdict.may_pass, verdict.trouble) == ("local", True, None)


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_what_is_checked_is_sent_only_if_it_is_fine(size: int) -> None:
    def judged(outcome: str) -> Callable[[], Landed]:
        return lambda: Landed(arrival=parcel(2).arrival, outcome=outcome, content="abc")  # type: ignore[arg-type]

    for outcome in ("stored", "present", "conflict", "failed"):
        sent = Sent(Depot(), [parcel(1), parcel(2, check=judged(outcome), size=size), parcel(3)])
        assert ("1.1.1.2" in sent.depot.stored) == (outcome == "stored")
        assert (sent.verdicts["1.1.1.2"].outcome, sent.verdicts["1.1.1.2"].content) == (outcome, "abc")


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_second_of_a_uid_is_looked_at_after_the_first_has_arrived(jobs: int) -> None:
    def check() -> Landed:
        assert depot.stored
        return Landed(arrival=parcel(1).arrival, outcome="present")

    depot, verdicts = Depot(), []
    sent = Sent.__new__(Sent)
    sent.depot, sent.verdicts, sent.most_in_flight = depot, {}, 0
    sent._given = [parcel(1), parcel(1, check=check, is_second=True), *(parcel(n) for n in range(2, 9))]
    sent._landed = verdicts.append  # type: ignore[method-assign]  # two verdicts of one UID are what is wanted
    anyio.run(sent._run, jobs, Settings())
    assert [v.outcome for v in verdicts if v.arrival.sop_instance_uid == "1.1.1.1"] == ["stored", "present"]
    assert len(verdicts) == 9


def test_the_second_of_a_uid_that_was_refused_is_refused_too() -> None:
    sent = Sent.__new__(Sent)
    verdicts: list[Landed] = []
    sent.depot, sent.verdicts, sent.most_in_flight = Depot(answer=lambda uid, nth: NEVER), {}, 0
    sent._given = [parcel(1), parcel(1, check=lambda: pytest.fail("it is not looked at"), is_second=True)]
    sent._landed = verdicts.append  # type: ignore[method-assign]  # as above
    anyio.run(sent._run, 1, Settings())
    assert [verdict.outcome for verdict in verdicts] == ["failed", "failed"]


def test_so_much_is_in_flight_and_no_more() -> None:
    assert Sent(Depot(), many(500), parcels=20).never_lies().most_in_flight <= 22
    assert Sent(Depot(), many(100, size=1000), octets=5000).never_lies().most_in_flight <= 7


def test_descriptors_are_closed_whatever_happens(tmp_path: Path) -> None:
    path = tmp_path / "octets"
    path.write_bytes(b"data set")
    before = len(os.listdir("/proc/self/fd"))

    def of_file(number: int) -> Parcel:
        return parcel(number, memory=None, descriptor=os.open(path, os.O_RDONLY), size=8)

    answers = {"1.1.1.2": Disconnected("x"), "1.1.1.3": NEVER, "1.1.1.4": LocalTrouble("x")}
    Sent(Depot(answer=lambda uid, nth: answers.get(uid, KEEPS)), [of_file(n) for n in range(1, 9)]).never_lies()
    Sent(Depot(calls=lambda nth: Unreachable("x")), [of_file(n) for n in range(1, 9)]).never_lies()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_waits_when_the_run_is_aborted_gets_a_verdict() -> None:
    verdicts: list[Landed] = []
    depot = Depot()

    async def main() -> None:
        async with Fleet(depot, 1) as fleet, anyio.create_task_group() as tasks:
            courier = Courier(fleet, verdicts.append)
            courier.start(tasks)
            for one in many(10):
                courier.take(one)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            courier.abandon()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    assert len(verdicts) == 10
    assert {verdict.reason for verdict in verdicts if verdict.outcome == "failed"} == {"interrupted"}
    assert depot.open == 0


# Several parcels in one delivery

TEN = Together(parcels=10, octets=1000)


def test_what_waits_goes_in_one_delivery_as_far_as_it_fits() -> None:
    sent = Sent(Depot(together=TEN), many(100), parcels=1000).never_lies()
    assert sent.outcomes() == ["stored"] * 100
    assert max(map(len, sent.depot.deliveries)) == 10
    assert sent.depot.order == [f"1.1.1.{n}" for n in range(1, 101)]
    assert len(sent.depot.deliveries) <= 12
    one_at_a_time = Sent(Depot(together=Together(parcels=1, octets=1000)), many(20)).never_lies()
    assert len(one_at_a_time.depot.deliveries) == 20


def test_a_delivery_has_no_more_octets_than_the_place_takes_but_one_parcel_may() -> None:
    given = [parcel(1), parcel(2, size=5000), *(parcel(n, size=300) for n in range(3, 20))]
    sent = Sent(Depot(together=TEN), given, parcels=1000).never_lies()
    sizes = {one.arrival.sop_instance_uid: one.size for one in given}
    assert ["1.1.1.2"] in sent.depot.deliveries
    octets = [sum(sizes[uid] for uid in each) for each in sent.depot.deliveries if each != ["1.1.1.2"]]
    assert max(octets) == 900


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_parcel_of_a_delivery_has_its_own_verdict(jobs: int) -> None:
    answers: dict[str, Answer] = {"1.1.1.3": NEVER, "1.1.1.5": WARNS, "1.1.1.7": LocalTrouble("a file changed")}
    depot = Depot(together=TEN, answer=lambda uid, nth: answers.get(uid, KEEPS))
    sent = Sent(depot, many(30), jobs=jobs).never_lies()
    found = {uid: (verdict.outcome, verdict.reason) for uid, verdict in sent.verdicts.items()}
    assert found.pop("1.1.1.3") == ("failed", "refused")
    assert found.pop("1.1.1.5") == ("stored", "warning")
    assert found.pop("1.1.1.7") == ("failed", "local")
    assert set(found.values()) == {("stored", "")}
    assert sent.depot.came.total() == 30


def test_only_what_is_refused_for_now_is_tried_again() -> None:
    def answer(uid: str, nth: int) -> Answer:
        return NOT_NOW if uid in ("1.1.1.3", "1.1.1.4") and nth < 3 else KEEPS

    sent = Sent(Depot(together=TEN, answer=answer), many(10), parcels=100).never_lies()
    assert len(sent.depot.stored) == 10
    assert sent.depot.came == {f"1.1.1.{n}": 3 if n in (3, 4) else 1 for n in range(1, 11)}


def test_a_delivery_that_is_refused_for_now_is_one_complaint(waited: list[int]) -> None:
    sent = Sent(Depot(together=TEN, answer=lambda uid, nth: NOT_NOW if nth < 4 else KEEPS), many(10)).never_lies()
    assert len(sent.depot.stored) == 10
    assert max(waited) <= 6  # not one for each parcel
    given_up = Sent(Depot(together=TEN, answer=lambda uid, nth: NOT_NOW), many(40), refusals=4).never_lies()
    assert isinstance(given_up.verdicts["1.1.1.40"].trouble, OutOfResources)
    assert len(given_up.depot.deliveries) == 4


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("poison", ["1.1.1.1", "1.1.1.17", "1.1.1.50"])
def test_a_delivery_that_breaks_is_tried_again_parcel_by_parcel(poison: str, jobs: int) -> None:
    sent = Sent(Depot(together=TEN, answer=breaks(poison)), many(50), jobs=jobs).never_lies()
    assert len(sent.depot.stored) == 49
    assert sent.depot.came[poison] == 3  # in company, alone, and last
    assert jobs > 1 or sent.depot.order[-1] == poison
    assert sent.verdicts[poison].reason == "disconnected"
    assert max(count for uid, count in sent.depot.came.items() if uid != poison) <= 2
    company = next(each for each in sent.depot.deliveries if poison in each)
    assert all([uid] in sent.depot.deliveries for uid in company)


def test_what_broke_a_delivery_is_in_no_other_even_behind_one_that_did_not() -> None:
    async def main() -> None:
        async with Fleet(Depot(together=TEN), 1) as fleet:
            courier = Courier(fleet, lambda verdict: None)
            for one in many(4):
                courier.take(one)
            courier._breaks_of["1.1.1.3"] = 1
            first = courier._waiting.popleft()
            fitting = courier._fitting(first, TEN)
            assert [one.arrival.sop_instance_uid for one in fitting] == ["1.1.1.1", "1.1.1.2"]

    anyio.run(main)


def test_a_delivery_that_breaks_once_costs_its_parcels_one_more() -> None:
    def answer(uid: str, nth: int) -> Answer:
        return Disconnected("gone") if uid == "1.1.1.20" and nth == 1 else KEEPS

    sent = Sent(Depot(together=TEN, answer=answer), many(50)).never_lies()
    assert len(sent.depot.stored) == 50


def test_a_place_that_breaks_every_delivery_is_given_up() -> None:
    sent = Sent(Depot(together=TEN, answer=lambda uid, nth: Disconnected("gone")), many(100), breaks=12).never_lies()
    assert set(sent.outcomes()) == {"failed"}
    assert len(sent.depot.deliveries) <= 12


@pytest.mark.parametrize("together", [None, TEN])
def test_a_place_that_lets_us_deliver_nothing_is_given_up_at_once(together: Together | None) -> None:
    rejects = Rejected("who are you?")
    sent = Sent(Depot(together=together, answer=lambda uid, nth: rejects), many(40)).never_lies()
    assert {verdict.reason for verdict in sent.verdicts.values()} == {"rejected"}
    assert len(sent.depot.deliveries or sent.depot.order) == 1


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_of_several_only_what_is_fine_is_sent(size: int) -> None:
    def judged(outcome: str) -> Callable[[], Landed]:
        return lambda: Landed(arrival=parcel(2).arrival, outcome=outcome, content="abc")  # type: ignore[arg-type]

    most = Together(parcels=10, octets=1 << 30)
    for outcome in ("stored", "present", "conflict", "failed"):
        sent = Sent(Depot(together=most), [parcel(1), parcel(2, check=judged(outcome), size=size), parcel(3)])
        assert ("1.1.1.2" in sent.depot.stored) == (outcome == "stored")
        assert (sent.verdicts["1.1.1.2"].outcome, sent.verdicts["1.1.1.2"].content) == (outcome, "abc")
        assert {"1.1.1.1", "1.1.1.3"} <= set(sent.depot.stored)


def test_descriptors_of_a_delivery_are_closed_whatever_happens(tmp_path: Path) -> None:
    path = tmp_path / "octets"
    path.write_bytes(b"data set")
    before = len(os.listdir("/proc/self/fd"))

    def of_file(number: int) -> Parcel:
        return parcel(number, memory=None, descriptor=os.open(path, os.O_RDONLY), size=8)

    answers: dict[str, Answer] = {"1.1.1.2": Disconnected("x"), "1.1.1.3": NEVER, "1.1.1.4": LocalTrouble("x")}
    depot = Depot(together=TEN, answer=lambda uid, nth: answers.get(uid, KEEPS))
    Sent(depot, [of_file(n) for n in range(1, 9)]).never_lies()
    assert len(os.listdir("/proc/self/fd")) == before
