"""Two places as one: who is asked, who gives, and when the second is called at all."""

from collections.abc import AsyncGenerator

import anyio
import pytest

from dcmsync.contract import Ask, Describes, Description, Ending, Level, Manner, Want
from dcmsync.endpoints.paired.place import Paired
from dcmsync.errors import Refused, UsageError
from dcmsync.quirks import Quirks, quirks_of
from tests.fakes.archive import CT, Archive, Row, instances, series, studies
from tests.fakes.keeper import Keeper

ROWS = [*studies(1), *series(1, 1), *instances(1, 1, 3)]
WANT = Want(study_uid="1.1", series_uid="1.1.1", instances={"1.1.1.1": CT, "1.1.1.2": CT}, whole=False)


class Giver(Archive):
    """An archive that must not be asked, and counts how often it was opened."""

    opened = 0

    async def find(self, ask: Ask) -> AsyncGenerator[Row | Ending, None]:
        raise AssertionError("the giver was asked")
        yield

    def open(self) -> Archive:
        self.opened += 1
        return self


def test_the_one_is_asked_and_the_other_gives() -> None:
    asked, giver, keeper = Archive(ROWS, name="asked"), Giver(ROWS, name="giver"), Keeper()
    place = Paired(asked, giver.open)

    async def main() -> None:
        async with place.session() as session:
            found = [answer async for answer in session.find(Ask(level=Level.STUDY, keys={"StudyInstanceUID": ""}))]
            assert found == [{"StudyInstanceUID": "1.1"}, Ending()]
            assert giver.opened == 0  # a question does not pay for it
            assert await session.fetch(WANT, keeper) == await session.fetch(WANT, keeper) == Ending()
            await session.rest()

    anyio.run(main)
    assert place.name == "asked" and giver.opened == 1
    assert giver.wants == [WANT, WANT] and not asked.wants
    assert set(keeper.files) == set(WANT.instances)


def test_instances_are_asked_for_where_none_are_named() -> None:
    asked, giver = Archive(ROWS), Giver(ROWS)

    async def main() -> None:
        async with Paired(asked, giver.open).session() as session:
            await session.fetch(Want(study_uid="1.1", series_uid="1.1.1", instances={}), Keeper())

    anyio.run(main)
    assert [dict(want.instances) for want in giver.wants] == [{f"1.1.1.{n}": CT for n in (1, 2, 3)}]
    assert giver.wants[0].whole


def test_questions_heed_the_quirks_of_the_one_and_lists_those_of_the_other() -> None:
    asked = Archive(ROWS, quirks=Quirks(no_counts=True, no_uid_lists=True))

    async def quirks(of_giver: Quirks) -> Quirks:
        async with Paired(asked, Giver(ROWS).open, of_giver).session() as session:
            return quirks_of(session)

    assert anyio.run(quirks, Quirks(no_cget=True)) == Quirks(no_counts=True)
    assert anyio.run(quirks, Quirks(no_uid_lists=True)) == Quirks(no_counts=True, no_uid_lists=True)


def test_it_is_asked_in_the_manner_of_the_one_that_is_asked() -> None:
    class Relational(Archive):
        async def manner(self, level: Level) -> Manner:
            return Manner(relational=True)

    async def manner(asked: Archive) -> Manner:
        async with Paired(asked, Giver(ROWS).open).session() as session:
            return await session.manner(Level.SERIES)

    assert anyio.run(manner, Relational(ROWS)) == Manner(relational=True)
    assert anyio.run(manner, Archive(ROWS)) == Manner()


class Describing(Archive):
    """An archive that describes what it is asked to, and says who it is."""

    async def describe(self, want: Want) -> AsyncGenerator[Description, None]:
        for uid in want.instances:
            yield Description(sop_instance_uid=uid, json=self.name.encode())


@pytest.mark.parametrize("asked, giver, told", [
    (Describing, Giver, b"asked"), (Archive, Describing, b"giver"), (Describing, Describing, b"asked"),
])  # fmt: skip
def test_whichever_describes_is_asked_to(asked: type[Archive], giver: type[Archive], told: bytes) -> None:
    async def main() -> list[bytes]:
        async with Paired(asked(ROWS, name="asked"), lambda: giver(ROWS, name="giver")).session() as session:
            assert isinstance(session, Describes)
            return [description.json async for description in session.describe(WANT)]

    assert anyio.run(main) == [told, told]


def test_who_describes_itself_needs_no_giver() -> None:
    giver = Giver(ROWS)

    async def main() -> None:
        async with Paired(Describing(ROWS), giver.open).session() as session:
            assert [description async for description in session.describe(WANT)]

    anyio.run(main)
    assert giver.opened == 0


def test_where_neither_describes_that_is_said() -> None:
    async def main() -> None:
        async with Paired(Archive(ROWS, name="asked"), lambda: Archive(ROWS)).session() as session:
            with pytest.raises(UsageError, match="asked does not tell metadata, and who gives"):
                await anext(session.describe(WANT))

    anyio.run(main)


def test_what_the_giver_raises_comes_through_and_it_is_tried_again() -> None:
    giver = Giver(ROWS, fetcher=lambda archive, want: iter([Refused("no", status=404)]))

    async def main() -> None:
        async with Paired(Archive(ROWS), giver.open).session() as session:
            for _ in range(2):
                with pytest.raises(Refused):
                    await session.fetch(WANT, Keeper())

    anyio.run(main)
    assert giver.opened == 1 and len(giver.wants) == 2


@pytest.mark.parametrize("statuses, told", [((0, 0), 0), ((0, 404), 404), ((7, 0), 7)])
def test_echo_tells_what_either_says(statuses: tuple[int, int], told: int) -> None:
    class Echoing(Archive):
        async def echo(self) -> int:
            return statuses[self.name == "giver"]

    place = Paired(Echoing(ROWS, name="asked"), lambda: Echoing(ROWS, name="giver"))
    assert anyio.run(place.echo) == told
    assert anyio.run(Paired(Archive(ROWS), lambda: Archive(ROWS)).echo) == 0
