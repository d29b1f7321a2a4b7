"""Tests of transfer/describing.py: each instance described once, and what lacks is told."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from dcmsync.contract import Ask, Attributes, Description, Ending, Level, Receiver, Want
from dcmsync.errors import Disconnected, ExitStatus, PeerError, UsageError
from dcmsync.transfer.describing import Describing
from dcmsync.transfer.works import Work

SERIES = {"1.1.1": ["1.2.0", "1.2.1"], "1.1.2": ["1.2.2"]}


class Teller:
    """A place of one study; `lacking` are not described, `broken` as long as they are asked for as a whole."""

    name = "teller"

    def __init__(self, *, lacking: Sequence[str] = (), broken: Exception | None = None, is_empty: bool = False) -> None:
        self.wants: list[Want] = []
        self._lacking = lacking
        self._broken = broken
        self._is_empty = is_empty

    @asynccontextmanager
    async def session(self) -> AsyncIterator["Teller"]:
        yield self

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        series = ask.keys.get("SeriesInstanceUID", "")
        level = ask.level
        found = list(SERIES) if level is Level.SERIES else SERIES[series] if level is Level.INSTANCE else ["1.1"]
        for uid in [] if self._is_empty else found:
            yield {level.unique_key: uid}
        yield Ending(is_last_word=True)

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        raise AssertionError("nothing is to be fetched")

    async def rest(self) -> None:
        return

    async def describe(self, want: Want) -> AsyncGenerator[Description, None]:
        self.wants.append(want)
        for uid in (*SERIES[want.series_uid], "1.9.9") if want.whole else want.instances:
            if uid in self._lacking:
                continue
            yield Description(sop_instance_uid=uid, json=json.dumps(uid).encode())
            if self._broken is not None and want.whole:
                raise self._broken


class Silent(Teller):
    """One that describes nothing."""

    describe = None  # type: ignore[assignment]


def described(teller: Teller, *groups: list[Work]) -> tuple[list[str], list[str], ExitStatus]:
    lines: list[str] = []
    said: list[str] = []

    async def works() -> AsyncIterator[list[Work]]:
        for group in groups or ([STUDY],):
            yield group

    async def run() -> ExitStatus:
        describing = Describing(
            lambda _: teller, write=lambda line: lines.append(json.loads(line)), say=said.append, warn=said.append
        )
        return await describing.run(works())

    return lines, said, anyio.run(run)


STUDY = Work(level=Level.STUDY, source="teller", attributes={"StudyInstanceUID": "1.1"})


def instance(uid: str) -> Work:
    above = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    return Work(level=Level.INSTANCE, source="teller", attributes={**above, "SOPInstanceUID": uid})


def test_each_instance_of_a_study_is_described_once_and_no_other() -> None:
    lines, said, status = described(Teller())
    assert (lines, said, status) == (["1.2.0", "1.2.1", "1.2.2"], [], ExitStatus.DONE)


def test_only_the_instances_that_were_named_are_described() -> None:
    teller = Teller()
    lines, _, status = described(teller, [instance("1.2.1")])
    assert (lines, status) == (["1.2.1"], ExitStatus.DONE)
    assert [want.whole for want in teller.wants] == [False]


def test_what_broke_off_is_asked_for_again_and_said_once() -> None:
    lines, said, status = described(Teller(broken=Disconnected("gone")))
    assert (sorted(lines), said, status) == (["1.2.0", "1.2.1", "1.2.2"], [], ExitStatus.DONE)


def test_what_is_not_described_is_a_failure() -> None:
    lines, said, status = described(Teller(lacking=["1.2.1"]))
    assert (lines, status) == (["1.2.0", "1.2.2"], ExitStatus.FAILED)
    assert said == ["teller: tells no metadata of 1 instances of a series"]


def test_what_never_comes_whole_is_the_error_that_it_is() -> None:
    lines, said, status = described(Teller(lacking=["1.2.1"], broken=Disconnected("gone")))
    assert (lines, said, status) == (["1.2.0", "1.2.2"], ["gone"], ExitStatus.RETRY)


def test_a_study_that_is_gone_is_a_failure() -> None:
    lines, said, status = described(Teller(is_empty=True))
    assert (lines, status) == ([], ExitStatus.FAILED)
    assert "not there" in said[0]


def test_a_place_that_cannot_say_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="does not tell metadata"):
        described(Silent())


def test_a_peer_error_ends_one_record_alone() -> None:
    class Flaky(Teller):
        async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
            if ask.keys.get("StudyInstanceUID") == "1.5":
                raise PeerError("busy")
            async for answer in super().find(ask):
                yield answer

    other = Work(level=Level.STUDY, source="teller", attributes={"StudyInstanceUID": "1.5"})
    lines, said, status = described(Flaky(), [other], [STUDY])
    assert (len(lines), said, status) == (3, ["busy"], ExitStatus.RETRY)
