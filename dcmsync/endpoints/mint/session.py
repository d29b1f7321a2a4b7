"""One conversation with a MINT search: studies, series and instances, one request for each question.

Owns what of a question the search can be asked, and what then has to be told back so that the rest can be judged here.
Refuses to judge answers, to be asked for patients, and to give instances.

Theory of operation. A key that is no parameter of the search is asked back instead, and answers are judged by who asks.
A key that is neither makes the list incomplete. Instances are asked for within one series alone: the server may have to
read the study from its disks. Answers stream: a study is given as soon as its element has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Literal

from dcmsync.contract import Ask, Attributes, Ending, Level, Receiver, Want
from dcmsync.endpoints.mint.fields import CHOOSING, TOLD
from dcmsync.endpoints.mint.results import Results
from dcmsync.errors import Rejected, RemoteProtocolError
from dcmsync.net.http import Door, Query

Spelling = Literal["camel", "snake"]
"""How the parameters for dates are written: minStudyDate or min_study_date."""

_DATES: Mapping[Spelling, tuple[str, str]] = {
    "camel": ("minStudyDate", "maxStudyDate"),
    "snake": ("min_study_date", "max_study_date"),
}
_FIRST_DATE, _LAST_DATE = "00010101", "99991231"
_MEDIA_TYPES = "application/xml, text/xml"
_MAX_ANSWERS = 5_000_000


class Session:
    """Satisfies contract.Session, but gives no instances."""

    def __init__(self, door: Door, spelling: Spelling) -> None:
        self._door = door
        self._spelling = spelling

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """One search; see `contract.Finds`."""
        if ask.level is Level.PATIENT:
            raise Rejected(f"{self._door.name}: MINT lists studies, not patients", advice="Ask with --level study")
        keys = {keyword: value for keyword, value in ask.keys.items() if value}
        deaf = sorted(key for key in keys if key not in CHOOSING and key not in TOLD[ask.level])
        if deaf:
            why = f"MINT neither chooses by {deaf[0]} nor tells it"
            yield Ending(truncated=True, is_last_word=True, why=why)
            return
        fields = TOLD[ask.level].intersection((*ask.wanted, *ask.keys, *_above(ask.level)))
        query = _parameters(ask.level, keys, fields, self._spelling)
        results = Results(ask.level, fields)
        count = 0
        async with self._door.exchange("GET", "studies", query=query, headers={"Accept": _MEDIA_TYPES}) as answer:
            if answer.media_type == "text/html":
                raise RemoteProtocolError(f"{self._door.name}: answered with a page for people, not with MINT: "
                                          f"{await answer.words()}")  # fmt: skip
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    for found in self._read(results, piece):
                        count += 1
                        if count > _MAX_ANSWERS:
                            raise RemoteProtocolError(f"{self._door.name}: gave more than {_MAX_ANSWERS:,} answers")
                        yield {key: value for key, value in found.items() if value != "" or key in keys}
            self._read(results, None)
        yield Ending()

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Raises Rejected."""
        raise Rejected(
            f"{self._door.name}: MINT tells what there is, but gives no instances here",
            advice='Set retrieve = "NAME" for it, with the name of a place that gives: RAD-69, WADO-URI, DICOMweb, '
                   "a DIMSE node",
        )  # fmt: skip

    async def rest(self) -> None:
        """Nothing is held that others wait for."""

    def _read(self, results: Results, piece: bytes | None) -> list[dict[str, object]]:
        """The answers that end with a piece; None is the end of all."""
        try:
            if piece is not None:
                return results.feed(piece)
            results.close()
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{self._door.name}: {error.message}") from error
        return []


def _above(level: Level) -> list[str]:
    return [each.unique_key for each in (Level.STUDY, Level.SERIES, Level.INSTANCE) if each <= level]


def _parameters(level: Level, keys: Mapping[str, str], fields: frozenset[str], spelling: Spelling) -> Query:
    """The query string: what chooses as far as the search has words for it, and what is to be told."""
    chosen = [keyword for keyword in sorted(CHOOSING.intersection(keys)) if "\\" not in keys[keyword]]
    query = [("QueryLevel", level.name), *((keyword, keys[keyword].replace("?", "*")) for keyword in chosen)]
    if date := keys.get("StudyDate", ""):
        query += zip(_DATES[spelling], _range(date), strict=False)
    return (*query, ("IncludeFields", ",".join(sorted(fields))))


def _range(date: str) -> tuple[str, str] | tuple[()]:
    """Both ends of a single date or a range; nothing for what is neither, and then chooses nothing."""
    first, is_range, last = date.partition("-")
    first, last = first or _FIRST_DATE, (last or _LAST_DATE) if is_range else first
    is_one = all(len(day) == 8 and day.isdigit() and day.isascii() for day in (first, last))
    return (first, last) if is_one else ()
