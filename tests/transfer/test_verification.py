"""Claims held against places in memory that lie, are cut short, or cannot be asked."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from dcmsync.contract import Ask, Attributes, Ending, Want
from dcmsync.errors import ExitStatus, InputError, Stalled
from dcmsync.plan.proof import Claim, Lowest, claim_of
from dcmsync.transfer import verification
from dcmsync.transfer.contents import Contents
from dcmsync.transfer.side import Side
from dcmsync.transfer.verification import Settings, Spot, Verification, chosen, together
from tests.fakes.archive import Archive, Row, instances, series, studies

HELD = [*studies(2), *series(1, 2), *series(2, 1), *instances(1, 1, 3), *instances(1, 2, 3), *instances(2, 1, 20)]
STUDY = {"type": "study", "source": "A", "StudyInstanceUID": "1.1"}
SERIES = {**STUDY, "type": "series", "SeriesInstanceUID": "1.1.1"}


def digest_of(read_at: Callable[[int, int], bytes], size: int, syntax: str) -> str:
    return read_at(0, size).decode().split(" ")[0]  # the content that the fake was told to give


class Verified:
    """What came of verifying records at the places A and B."""

    def __init__(
        self, records: Sequence[Row], a: Archive, b: Archive | None = None, *, at: str | None = None,
        lowest: int = 0, **more: Any,
    ) -> None:  # fmt: skip
        self.outcomes: list[dict[str, Any]] = []
        self.sides = {name: Side(name, place, warn=lambda words: None) for name, place in (("A", a), ("B", b)) if place}
        ranking = Lowest(lowest)
        held = ranking.is_chosen if lowest else (lambda uid: True)
        self.verification = Verification(
            Settings(**{"holds": held, **more}),
            spot=self._spot,
            contents=Contents(digest_of),
            write=lambda outcome: self.outcomes.append(dict(outcome)),
        )
        claims = [claim for n, one in enumerate(records, 1) if (claim := claim_of(one, n, at))]
        anyio.run(self._run, claims, ranking if lowest else None)

    async def _spot(self, word: str) -> Spot:
        return Spot(side=self.sides[word])

    async def _run(self, claims: list[Claim], lowest: Lowest | None) -> None:
        async def groups() -> AsyncGenerator[list[Claim], None]:
            for group in together(claims):
                yield group

        found = groups() if lowest is None else chosen(groups(), lowest, self.verification)
        async for group in found:
            await self.verification.run(group)

    @property
    def status(self) -> ExitStatus:
        return self.verification.status

    @property
    def found(self) -> list[tuple[str, str, str]]:
        return [(each["level"], each["outcome"], each.get("reason", "")) for each in self.outcomes]


def each(*numbers: int, **more: object) -> list[Row]:
    """Instance records of the third series."""
    return [{"type": "instance", "source": "A", **instances(2, 1, 30)[n - 1], **more} for n in numbers]


@pytest.mark.parametrize("count, reason", [(6, ""), (7, "missing"), (5, "differs"), (None, "")])
def test_a_study_is_counted(count: int | None, reason: str) -> None:
    record = STUDY if count is None else {**STUDY, "NumberOfStudyRelatedInstances": count}
    done = Verified([record], Archive(HELD))
    assert done.found == [("study", "failed" if reason else "present", reason)]
    assert done.outcomes[0]["present"] == 6 and done.outcomes[0].get("failed", 0) == (1 if count == 7 else 0)


def test_a_series_is_read_one_by_one_and_summed_up() -> None:
    held = [{**row, "content": f"c{row['InstanceNumber']} "} if "SOPInstanceUID" in row else row for row in HELD]
    done = Verified([SERIES], Archive(held), itemize=True, read_data=True)
    assert done.found == [("instance", "present", "")] * 3 + [("series", "present", "")]
    assert [each.get("content") for each in done.outcomes] == ["xxh3:c1", "xxh3:c2", "xxh3:c3", None]


def test_what_does_not_come_when_it_is_read_is_missing() -> None:
    def lame(archive: Archive, want: Want) -> Iterator[Row | Ending | Exception]:
        yield from archive.wanted(want)[1:]

    done = Verified([SERIES], Archive(HELD, fetcher=lame), read_data=True)
    assert done.found == [("instance", "failed", "missing"), ("series", "failed", "missing")]
    assert done.outcomes[1].items() >= {"instances": 3, "present": 2, "failed": 1}.items()
    assert done.status is ExitStatus.NO
    done = Verified([SERIES], Archive(HELD, fetcher=lame))
    assert done.status is ExitStatus.DONE


def test_instances_that_follow_each_other_are_asked_about_once() -> None:
    archive = Archive(HELD)
    done = Verified(each(*range(1, 21)), archive)
    assert done.found == [("instance", "present", "")] * 20
    assert len(archive.asks) == 1
    done = Verified(each(3, 25, 4), archive)
    assert [outcome for _, outcome, _ in done.found] == ["present", "failed", "present"]


@pytest.mark.parametrize("count", [1, 20])
def test_what_a_cut_list_lacks_is_asked_for_by_its_uid(count: int) -> None:
    done = Verified(each(*range(1, count + 1), 25), Archive(HELD, limit=2, cut_status=0xA700))
    assert [reason for *_, reason in done.found] == [""] * count + ["missing"]


def test_a_cut_list_proves_no_count() -> None:
    record = {**SERIES, "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1", "NumberOfSeriesRelatedInstances": 20}
    archive = Archive(HELD, limit=2, cut_status=0xA700, cannot_match=("InstanceNumber",))
    done = Verified([record], archive)
    assert done.found == [("series", "failed", "unknown")] and done.status is ExitStatus.INCOMPLETE


def test_with_at_both_sides_are_listed_and_the_counts_do_not_matter() -> None:
    more = [*HELD, *instances(1, 3, 2), {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.3"}]
    record = {**STUDY, "NumberOfStudyRelatedInstances": 99}
    done = Verified([record], Archive(HELD), Archive(more), at="B")
    assert done.found == [("study", "present", "")] and "each of the 6" in done.outcomes[0]["message"]
    less = [row for row in HELD if row.get("SOPInstanceUID") != "1.1.2.2"]
    done = Verified([record], Archive(HELD), Archive(less), at="B")
    assert done.found == [("instance", "failed", "missing"), ("study", "failed", "missing")]
    assert done.outcomes[0].items() >= {"SOPInstanceUID": "1.1.2.2", "source": "A", "destination": "B"}.items()


def test_with_at_both_sides_work_at_the_same_time() -> None:
    there: set[str] = set()

    class Meeting(Archive):
        async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
            there.add(self.name)
            with anyio.fail_after(5):
                while len(there) < 2:
                    await anyio.lowlevel.checkpoint()
            async with aclosing(super().find(ask)) as answers:
                async for answer in answers:
                    yield answer

    done = Verified([STUDY], Meeting(HELD, name="A"), Meeting(HELD, name="B"), at="B")
    assert done.found == [("study", "present", "")] and there == {"A", "B"}


def test_a_source_that_lists_nothing_proves_nothing() -> None:
    done = Verified([STUDY], Archive([]), Archive(HELD), at="B")
    assert done.found == [("study", "failed", "unknown")] and done.status is ExitStatus.INCOMPLETE


def test_an_outcome_is_not_held_against_its_source() -> None:
    outcome = {**SERIES, "type": "outcome", "level": "series", "outcome": "stored", "source": "gone",
               "destination": "A", "instances": 3}  # fmt: skip
    assert Verified([outcome], Archive(HELD)).found == [("series", "present", "")]
    assert Verified([{**outcome, "instances": 4}], Archive(HELD)).found == [("series", "failed", "missing")]


def test_who_cannot_be_asked_fails_what_it_should_hold() -> None:
    class Silent(Archive):
        async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
            raise Stalled("no answer")
            yield Ending()

    done = Verified([STUDY, *each(1, 2), STUDY], Silent(HELD))
    assert done.found == [("study", "failed", "stalled"), *[("instance", "failed", "stalled")] * 2,
                          ("study", "failed", "stalled")]  # fmt: skip
    assert all(outcome["retry"] for outcome in done.outcomes) and done.status is ExitStatus.RETRY
    assert len(Verified([STUDY, STUDY], Silent(HELD), lowest=3).found) == 2


@pytest.mark.parametrize("records", [[STUDY], each(*range(1, 21)), [STUDY, *each(1, 2, 3)]])
def test_a_number_of_instances_is_chosen_among_all(records: list[Row]) -> None:
    done = Verified(records, Archive(HELD), lowest=4, itemize=True)
    assert len([one for one in done.outcomes if one["level"] == "instance"]) == 4


def test_what_came_before_a_bad_line_is_verified() -> None:
    def broken() -> Iterator[Claim]:
        for n, record in enumerate(each(1, 2), 1):
            claim = claim_of(json.loads(json.dumps(record)), n, None)
            assert claim is not None
            yield claim
        raise InputError("no record", line=3)

    groups: list[list[Claim]] = []
    with pytest.raises(InputError):
        groups.extend(together(broken()))
    assert [len(group) for group in groups] == [2]


def test_a_group_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "TOGETHER", 4)
    claims = [claim for record in each(*range(1, 11)) if (claim := claim_of(record, 1, None))]
    assert [len(group) for group in together(claims)] == [4, 4, 2]
