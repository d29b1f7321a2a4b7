"""Looking at a place that speaks HTTP by what every place promises: what it lists, at each level, and whether it gives.

Owns which requests are made, in which order: studies of today, of the last week or month, the series of one of them,
the instances of one of those, and the beginning of one instance. Nothing is listed in whole, and nothing is ever sent
to be stored. Refuses to know protocols; what is known of a kind beforehand is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import date, timedelta
from typing import Protocol, runtime_checkable
from uuid import uuid4

import anyio
from msgspec import Struct

from dcmsync.commands.entrance import Entrance
from dcmsync.commands.examining_web import WebExamination
from dcmsync.commands.scales import Scales
from dcmsync.contract import Ask, Ending, Level, Session, Want
from dcmsync.errors import LocalTrouble, PeerError, Unasked
from dcmsync.plan import levels
from dcmsync.plan.diagnosis import Finding, Findings, keys_finding
from dcmsync.plan.levels import Query
from dcmsync.transfer.inventory import Inventory

MOST = 20  # things of a list that are looked at
_DAYS = (0, 7, 30)  # how far to look back for a study
_ZIP = b"PK\x03\x04"

Thing = Mapping[str, object]


class Kind(Struct, frozen=True, kw_only=True):
    """What is known of a kind of place before one is looked at. `name`: what it is called where nobody has said;
    `title`: what people call it; `lists`: what it can be asked for, "" for nothing; `chooses` gives the keywords by
    which it does so itself; `stores`: whether it takes anything.
    """

    name: str
    title: str
    lists: str = ""
    chooses: Callable[[], Sequence[str]] = tuple
    stores: str = "takes no instances"


@runtime_checkable
class Peeks(Protocol):
    """A session with a place that gives a whole series as one archive, and names its instances by that alone."""

    async def peek(self, want: Want) -> bytes:
        """The first octets of it; nothing more is fetched. Raises PeerError."""


class HttpExamination:
    """One place. Verdicts go to `found` as they come; afterwards `want` is an instance that it lists, or, of one that
    names none without giving them, the series. `closer` looks in place of this at what a place of its kind lists.
    """

    def __init__(self, entrance: Entrance, kind: Kind, found: Findings, closer: WebExamination | None = None) -> None:
        self.want: Want | None = None
        self._entrance = entrance
        self._place = entrance.place
        self._kind = kind
        self._found = found
        self._closer = closer
        self._is_cut = ""

    async def run(self, sample: Mapping[str, str], *, today: date, deep: bool, gives: bool) -> bool:
        """What it lists, and with `gives` how it gives; false when it cannot be reached, or does not let us in.

        `sample` chooses the studies to look at; `deep`: one instance may be taken, to its end.
        """
        if not await self._entrance.open(today):
            return False
        if not self._entrance.answers:
            return True
        if self._closer is not None:
            is_reached = await self._closer.run(sample, deep=deep and gives)
            self.want = self._closer.want
            return is_reached
        await self._lists(sample, today, deep=deep)
        if gives and (self.want or self._kind.lists):
            await self._gives(self.want, deep=deep)
        self._note("store", None, f"{self._kind.title} {self._kind.stores}")
        return True

    async def give(self, want: Want | None, *, today: date, deep: bool) -> bool:
        """How it gives what another place lists, such as `want`; false as above."""
        if not await self._entrance.open(today):
            return False
        if self._entrance.answers:
            await self._gives(want, deep=deep)
        return True

    async def _lists(self, sample: Mapping[str, str], today: date, *, deep: bool) -> None:
        """What there is, from studies down to one instance; `deep`: it may be made to give for that."""
        chooses = self._kind.chooses()
        if self._kind.lists:
            words = f"lists {self._kind.lists}; chooses by {', '.join(chooses)}"
            self._note("search", True, words, keys=list(chooses))
        try:
            async with self._place.session() as session:
                study = await self._study(session, sample, today)
                if study is not None:
                    await self._below(session, study, deep=deep)
        except Unasked as error:
            self._note("find study", None, error.message, error.advice or "")
            self._found.learnt.remarks.append("it cannot be asked: name it by retrieve at a place that can be")

    async def _gives(self, want: Want | None, *, deep: bool) -> None:
        """Whether it gives an instance: how one begins, or with `deep` all of it."""
        if want is None:
            self._note("get", None, "no instance is known to try it with", "Choose a study by KEY=VALUE that has some")
            return
        try:
            async with self._place.session() as session:
                if isinstance(session, Peeks) and not deep:
                    is_archive = (await session.peek(want)).startswith(_ZIP)
                    self._note("get", is_archive, "gives the series as an archive, which began to come and was let go"
                               if is_archive else "what it gives for a series is no archive")  # fmt: skip
                else:
                    await self._fetch(session, want, deep=deep)
        except (PeerError, LocalTrouble) as error:
            self._failed("get", error)

    async def _fetch(self, session: Session, want: Want, *, deep: bool) -> None:
        """Has one instance begin, and lets go of it, or weighs all of it. Raises PeerError, LocalTrouble."""
        why = ""
        with anyio.CancelScope() as scope:
            scales = Scales(want, enough=None if deep else scope.cancel)
            why = (await session.fetch(want, scales)).why
        if scales.came:
            self._note("get", True, f"one instance came, {scales.octets:,} octets; it was not kept")
        elif scales.begun and not deep:
            self._note("get", True, "gives instances: one began to come, and was let go")
        else:
            self._note("get", False, f"one was asked for, and did not come{': ' if why else ''}{why}")

    async def _study(self, session: Session, sample: Mapping[str, str], today: date) -> Thing | None:
        """A study to look at closer, if one is found."""
        try:
            found: list[Thing] = []
            for days in _DAYS:
                found = await self._list(session, Query(level=Level.STUDY, keys=sample or _since(today, days)), {})
                if found or sample:
                    break
            if await self._answers_nowhere(session):
                self._note("find study", False, "a UID that does not exist was answered with studies",
                           "It ignores StudyInstanceUID, so that nothing can be asked for")  # fmt: skip
                return None
        except Unasked:
            raise
        except PeerError as error:
            self._failed("find study", error)
            return None
        if not found:
            self._note("find study", True, f"answered; no study was found to look at closer{self._cut()}",
                       "Name some: dcmsync doctor NAME StudyDate=20240131")  # fmt: skip
            return None
        more = " and more" if len(found) == MOST else ""
        self._note("find study", True, f"answered with {len(found)}{more}{self._cut()}")
        self._found.add(keys_finding(levels.STUDY_KEYS, found))
        return min(found, key=_unarchived)

    async def _below(self, session: Session, study: Thing, *, deep: bool) -> None:
        """The series of a study, and the instances of one of them."""
        series = await self._checked(session, Level.SERIES, study)
        if not series:
            return
        known = {key: series[0][key] for key in ("StudyInstanceUID", "SeriesInstanceUID")}
        want = Want(study_uid=str(known["StudyInstanceUID"]), series_uid=str(known["SeriesInstanceUID"]), instances={},
                    patient_id=levels.patient_of(study))  # fmt: skip
        if isinstance(session, Peeks) and not deep:
            self._note("find instance", None, "it names instances only by giving their series",
                       "To see them, look with --deep")  # fmt: skip
            self.want = want
            return
        found = await self._checked(session, Level.INSTANCE, known)
        if found:
            uid, kind = str(found[0]["SOPInstanceUID"]), str(found[0].get("SOPClassUID", ""))
            self.want = Want(study_uid=want.study_uid, series_uid=want.series_uid, instances={uid: kind}, whole=False,
                             patient_id=want.patient_id)  # fmt: skip

    async def _checked(self, session: Session, level: Level, known: Thing) -> list[Thing]:
        """The things of a level below what is known, and a finding on them."""
        check = f"find {level.word}"
        try:
            found = await self._list(session, Query(level=level, keys={}), known)
        except (PeerError, LocalTrouble) as error:
            self._failed(check, error)
            return []
        more = " and more" if len(found) == MOST else ""
        self._note(check, bool(found), f"answered with {len(found)}{more}{self._cut()}")
        return found

    async def _list(self, session: Session, query: Query, known: Thing) -> list[Thing]:
        """Some of what matches, as everybody else would be told of it. Raises PeerError, LocalTrouble."""
        inventory = Inventory(session, name=self._place.name, warn=self._warn)
        found: list[Thing] = []
        async with aclosing(inventory.walk(query, known)) as things:
            async for thing in things:
                found.append(thing)
                if len(found) == MOST:
                    break
        self._is_cut = inventory.trouble
        return found

    async def _answers_nowhere(self, session: Session) -> bool:
        """Whether a study that does not exist is found. Raises PeerError."""
        ask = Ask(level=Level.STUDY, keys={"StudyInstanceUID": f"2.25.{uuid4().int}"})
        async with aclosing(session.find(ask)) as answers:
            async for answer in answers:
                return not isinstance(answer, Ending)
        return False

    def _cut(self) -> str:
        return f"; the list may be incomplete: {self._is_cut}" if self._is_cut else ""

    def _warn(self, words: str) -> None:
        self._note("answers", None, words)

    def _failed(self, check: str, error: PeerError | LocalTrouble) -> None:
        self._note(check, False, error.message, error.advice or "")

    def _note(self, check: str, ok: bool | None, words: str, advice: str = "", **facts: object) -> None:
        self._found.add(Finding(check=check, ok=ok, words=words, advice=advice, facts=facts))


def _unarchived(study: Thing) -> bool:
    """Whether a study waits to be archived, and can be seen less of."""
    return study.get("state", "archived") != "archived"


def _since(today: date, days: int) -> dict[str, str]:
    return {"StudyDate": f"{today - timedelta(days=days):%Y%m%d}-{today:%Y%m%d}" if days else f"{today:%Y%m%d}"}
