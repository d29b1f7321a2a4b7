"""What a source sends straight to a destination, and what goes through us after all."""

from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dcmsync.contract import Ending, Want
from dcmsync.errors import PeerError, Rejected, Stalled
from dcmsync.transfer.consignment import Consignment
from dcmsync.transfer.ledger import Ledger
from dcmsync.transfer.relaying import Relay
from dcmsync.transfer.target import Findings, Nothing, Target

WANTED = {"1.1": "CT", "1.2": "CT"}


class Mover:
    """A session that can move: says what it is told to."""

    def __init__(self, ending: Ending | PeerError = Ending()) -> None:  # noqa: B008  # frozen
        self.asked: list[tuple[Want, str]] = []
        self._ending = ending

    async def move(self, want: Want, destination_ae: str) -> Ending:
        self.asked.append((want, destination_ae))
        if isinstance(self._ending, PeerError):
            raise self._ending
        return self._ending


class Lister:
    """A prover that finds what is there."""

    def __init__(self, *there: str) -> None:
        self._there = there

    async def prove(self, ledger: Ledger) -> Findings:
        return Findings(missing={uid: "it is not there" for uid in ledger.unproven if uid not in self._there})


def relay(
    session: Any, *there: str, runs: int = 1, held: tuple[str, ...] = (), edited: Any = None, proves: bool = True
) -> tuple[list[Mapping[str, str]], list[str], Consignment]:
    """What lacks after each run, what was warned of, and the last consignment."""
    target: Target[Any] = Target("NEW@there:104", Nothing())
    target.relay_ae, target.edited = "NEW", edited
    target.prover = Lister(*there) if proves else None
    warnings: list[str] = []
    relaying = Relay([target], warn=warnings.append)
    lacking = []
    for _ in range(runs):
        attributes = {"PatientID": "P1", "StudyInstanceUID": "1", "SeriesInstanceUID": "2"}
        consignment = Consignment(source="old", destinations=[target.name], attributes=attributes)
        consignment.wanted.update(WANTED)
        for uid in held:
            consignment.ledgers[0].present(uid, "", 0)
        anyio.run(relaying.run, consignment, session)
        lacking.append(consignment.lacking)
    return lacking, warnings, consignment


def test_what_arrived_is_stored_and_lacks_no_more() -> None:
    session = Mover()
    lacking, warnings, consignment = relay(session, "1.1", "1.2")
    assert (lacking, warnings) == ([{}], [])
    want, title = session.asked[0]
    assert (title, want.whole, dict(want.instances)) == ("NEW", True, WANTED)
    assert want.patient_id == "P1"
    (outcome,) = consignment.ledgers[0].outcomes(itemize=False)
    assert (outcome.outcome, outcome.stored) == ("stored", 2)


def test_what_did_not_arrive_lacks_again_whatever_was_said() -> None:
    assert relay(Mover(), "1.1")[0] == [{"1.2": "CT"}]


def test_only_what_lacks_is_sent() -> None:
    session = Mover()
    relay(session, "1.1", "1.2", held=("1.1",))
    assert (session.asked[0][0].whole, dict(session.asked[0][0].instances)) == (False, {"1.2": "CT"})


@pytest.mark.parametrize("ending", [
    Rejected("old: C-MOVE to NEW: unknown"), Stalled("old: no progress"), Ending(status=0xA702, why="0xA702"),
], ids=str)  # fmt: skip
def test_a_pair_that_does_not_work_is_said_and_asked_once(ending: Ending | PeerError) -> None:
    session = Mover(ending)
    lacking, warnings, _ = relay(session, runs=3)
    assert lacking == [WANTED] * 3 and len(session.asked) == 1
    (warning,) = warnings
    assert warning.startswith("old: ") and warning.endswith("; what comes from there goes through us")


def test_a_pair_that_fails_for_several_at_once_is_said_once() -> None:
    class Slow(Mover):
        async def move(self, want: Want, destination_ae: str) -> Ending:
            await anyio.lowlevel.checkpoint()
            return await super().move(want, destination_ae)

    target: Target[Any] = Target("NEW@there:104", Nothing())
    target.relay_ae = "NEW"
    warnings: list[str] = []
    relaying = Relay([target], warn=warnings.append)

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            for number in "12":
                attributes = {"StudyInstanceUID": "1", "SeriesInstanceUID": number}
                consignment = Consignment(source="old", destinations=[target.name], attributes=attributes)
                consignment.wanted.update(WANTED)
                tasks.start_soon(relaying.run, consignment, Slow(Rejected("old: unknown")))

    anyio.run(both)
    assert len(warnings) == 1


def test_what_arrived_before_a_failure_is_not_sent_again() -> None:
    assert relay(Mover(Ending(status=0xA702, why="0xA702")), "1.1")[0] == [{"1.2": "CT"}]


@pytest.mark.parametrize(("ending", "left"), [(Ending(), {}), (Ending(status=0xB000, why="0xB000"), WANTED)], ids=str)
def test_without_proof_only_plain_success_counts(ending: Ending, left: Mapping[str, str]) -> None:
    assert relay(Mover(ending), proves=False)[0] == [left]


def test_a_place_on_this_machine_cannot_and_nothing_is_said() -> None:
    assert relay(object())[:2] == ([WANTED], [])


def test_what_is_edited_goes_through_us() -> None:
    session = Mover()
    lacking, warnings, _ = relay(session, edited=object(), runs=2)
    assert (lacking, session.asked) == ([WANTED] * 2, [])
    assert warnings == ["old: what is to be edited goes through us"]
