"""Places with quirks: not knowing of it, the list is wrong, or right late and by luck; knowing of it, it is right."""

from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest

from dcmsync.contract import Ask, Ending, Level, Want
from dcmsync.plan.levels import Query
from dcmsync.quirks import Quirks
from dcmsync.transfer import retry
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.target import Held
from tests.fakes.archive import Archive, Row, everything, instances, series, studies
from tests.transfer.test_engine import Pulled, work

SERIES: Row = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}


class Walked:
    """What an inventory gave, and said."""

    def __init__(self, archive: Archive, level: Level = Level.STUDY, known: Row | None = None, **keys: str) -> None:
        self.warnings: list[str] = []
        self.inventory = Inventory(archive, name="PLACE", warn=self.warnings.append)
        self.found: list[dict[str, object]] = anyio.run(self._all, Query(level=level, keys=keys), known)

    async def _all(self, query: Query, known: Row | None) -> list[dict[str, object]]:
        return [thing async for thing in self.inventory.walk(query, known)]

    @property
    def is_complete(self) -> bool:
        return self.inventory.is_complete


def counting(count: int, **archive: Any) -> Archive:
    """A series of 130 instances in a place that tells of this many, and lists no more than 100, silently."""
    number = {"NumberOfSeriesRelatedInstances": count}

    def alter(ask: Ask, found: list[Row]) -> Sequence[Row]:
        return [{**row, **number} for row in found] if ask.level is Level.SERIES else found

    rows = [*studies(1), *series(1, 1), *instances(1, 1, 130)]
    return Archive(rows, limit=100, alter=alter, **archive)


def test_a_count_that_is_cut_like_the_list_is_not_asked_for() -> None:
    fooled = Walked(counting(100), Level.INSTANCE, SERIES)
    assert len(fooled.found) == 100 and fooled.is_complete, "the count agrees with the list that was cut"
    archive = counting(100, quirks=Quirks(no_counts=True))
    walked = Walked(archive, Level.INSTANCE, SERIES)
    assert len(walked.found) > 100 and not walked.is_complete, "nobody knows how many there are: said, not guessed"
    walked = Walked(archive, Level.INSTANCE, {**SERIES, "NumberOfSeriesRelatedInstances": 100})
    assert len(walked.found) > 100 and not walked.is_complete, "nor is one believed that a record brings along"
    Walked(archive, Level.SERIES)
    assert not [key for ask in archive.asks for key in ask.wanted if key.startswith("NumberOf")]


def test_a_key_that_the_place_ignores_is_matched_here() -> None:
    rows = studies(6, StudyDescription=lambda n: "Thorax" if n % 2 else "Abdomen")
    fooled = Walked(Archive(rows, cannot_match=["StudyDescription"]), StudyDescription="Thorax")
    assert fooled.found == [] and fooled.is_complete, "it finds nothing by that key"
    archive = Archive(rows, cannot_match=["StudyDescription"], quirks=Quirks(ignores_keys=("StudyDescription",)))
    walked = Walked(archive, StudyDescription="Thorax")
    assert [thing["StudyInstanceUID"] for thing in walked.found] == ["1.1", "1.3", "1.5"]
    assert walked.is_complete and not walked.warnings, "what does not match was to be expected"
    assert archive.asks[0].keys["StudyDescription"] == ""


def test_a_key_that_is_ignored_and_not_told_either_is_no_answer() -> None:
    fooled = Walked(Archive(studies(3), alter=lambda ask, found: studies(3)), StudyDescription="Thorax")
    assert len(fooled.found) == 3 and fooled.is_complete, "all of it, as if all matched"
    archive = Archive(studies(3), quirks=Quirks(ignores_keys=("StudyDescription",)))
    walked = Walked(archive, StudyDescription="Thorax")
    assert walked.found == [] and not walked.is_complete
    assert "the peer ignores StudyDescription, and does not tell it either" in walked.inventory.trouble


def test_a_list_as_long_as_the_limit_is_cut() -> None:
    fooled = Walked(Archive(studies(60), limit=37), PatientID="*")
    assert len(fooled.found) == 37 and fooled.is_complete, "37 is no round number"
    walked = Walked(Archive(studies(60), limit=37, quirks=Quirks(limit=37)), PatientID="*")
    assert len(walked.found) == 60 and walked.is_complete


def test_what_is_dropped_here_counts_for_the_limit() -> None:
    rows = studies(60, StudyDescription=lambda n: "rare" if n % 20 == 0 else "usual")
    quirks = Quirks(limit=37, ignores_keys=("StudyDescription",))
    walked = Walked(Archive(rows, limit=37, quirks=quirks), StudyDescription="rare")
    assert len(walked.found) == 3 and walked.is_complete


def test_a_list_is_not_cut_by_a_key_that_is_ignored() -> None:
    everywhere = ("StudyDate", "StudyTime")

    def alter(ask: Ask, found: list[Row]) -> Sequence[Row]:
        initial = ask.keys.get("PatientID", "").strip("*")
        return [row for row in studies(60) if str(row["PatientID"]).startswith(initial)][:37]

    quirks = Quirks(limit=37, ignores_keys=everywhere)
    walked = Walked(Archive(studies(60), alter=alter, quirks=quirks))
    assert len(walked.found) == 60 and walked.is_complete
    assert walked.inventory.splits == 1, "by initials at once: dates would bring the same list again and again"
    stuck = Walked(Archive(studies(60), alter=alter, quirks=Quirks(limit=37, ignores_keys=(*everywhere, "PatientID"))))
    assert not stuck.is_complete


def one_at_a_time(archive: Archive, want: Want) -> Iterator[Row | Ending | Exception]:
    """Gives nothing for a list of UIDs, and says that all is well."""
    if want.whole or len(want.instances) == 1:
        yield from everything(archive, want)


@pytest.mark.parametrize("quirks, retrievals", [
    (Quirks(), [5, 5, 1, 1, 1, 1, 1]),
    (Quirks(no_uid_lists=True), [1] * 5),
])  # fmt: skip
def test_a_place_that_takes_no_lists_of_uids(
    quirks: Quirks, retrievals: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "delay_s", lambda attempt, dice: 0.0)
    rows = [*studies(1), *series(1, 1), *instances(1, 1, 9)]
    some = [each for row in instances(1, 1, 5) for each in work(row, Level.INSTANCE)]
    pulled = Pulled(Archive(rows, fetcher=one_at_a_time, quirks=quirks), some)
    assert len(pulled.shelf.stored) == 5
    assert [len(want.instances) for want in pulled.archive.wants] == retrievals


@pytest.mark.parametrize("quirks, stored", [(Quirks(), 0), (Quirks(no_counts=True), 1)])
def test_counts_of_a_place_that_counts_wrong_prove_nothing(quirks: Quirks, stored: int) -> None:
    rows = [*studies(1), *series(1, 1), *instances(1, 1, 3)]
    held = {"1.1.1": {f"1.1.1.{n}": Held(path=f"{n}", size=1) for n in (1, 2)}}
    told = work({**SERIES, "NumberOfSeriesRelatedInstances": 2})
    pulled = Pulled(Archive(rows, quirks=quirks), told, held=held, trust="counts")
    assert len(pulled.shelf.stored) == stored
