"""Looking at a DICOMweb service step by step: what it lists, at which levels, in pages, and in which shapes it gives.

Owns what is asked, in which order. It asks for two studies, goes down from one, and opens one instance without taking
it, unless it may; it never stores. Refuses to know what the findings mean together: `plan/diagnosis.py` does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from dcmsync.contract import Want
from dcmsync.errors import Insecure, PeerError, Refused, Rejected, RemoteProtocolError, Unreachable
from dcmsync.plan.diagnosis import Finding, Findings
from dcmsync.wire.multipart import Content, Reader, boundary_of

if TYPE_CHECKING:
    from dcmsync.net.http import Answer, Door

_JSON = {"Accept": "application/dicom+json"}
_ANY = range(200, 600)
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MOST_OCTETS = 16 << 20
_MULTIPART = 'multipart/related; type="application/dicom"'
_DICM = slice(128, 132)  # PS3.10 §7.1


class WebExamination:
    """Looks at one service. Verdicts go to `found` as they come; afterwards `want` is an instance that it lists."""

    def __init__(self, door: Door, found: Findings) -> None:
        self.want: Want | None = None
        self._door = door
        self._found = found

    async def run(self, sample: Mapping[str, str], *, deep: bool) -> bool:
        """Whether it could be reached and let us in. `deep`: one instance may be taken, to its end."""
        async with self._door:
            try:
                studies = await self._studies(list(sample.items()))
            except (Unreachable, Rejected, Insecure) as error:
                self._note("find study", False, error.message, error.advice or "")
                return False
            except PeerError as error:
                self._note("find study", False, error.message, error.advice or "")
                return True
            await self._paging(studies, list(sample.items()))
            path = await self._walk(studies)
            for level in ("series", "instances"):
                await self._relational(level)
            if path:
                self.want = _want(path)
                await self._retrieve(path, deep=deep)
            await self._storing()
        return True

    async def _studies(self, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
        begun = time.monotonic()
        studies, media_type = await self._list("studies", [*query, ("limit", "2")])
        words = f"QIDO-RS answers within {time.monotonic() - begun:.2f} s, as {media_type or 'nothing'}"
        advice = "" if studies else "Nothing to look at: choose a study by KEY=VALUE"
        self._note("find study", True, words, advice, media_type=media_type)
        return studies

    async def _paging(self, studies: list[dict[str, Any]], query: list[tuple[str, str]]) -> None:
        if len(studies) > 2:
            self._note("limit", False, f"limit is ignored: {len(studies)} came where 2 were asked for",
                       "Whole lists are read at once")  # fmt: skip
        if len(studies) < 2:
            self._note("offset", None, "there are too few studies to see pages")
            return
        second, _ = await self._list("studies", [*query, ("limit", "1"), ("offset", "1")])
        is_other = bool(second) and _uid(second[0], _STUDY) != _uid(studies[0], _STUDY)
        self._note("offset", is_other, "pages by limit and offset" if is_other else "offset is ignored",
                   "" if is_other else "Lists are read as one page")  # fmt: skip

    async def _walk(self, studies: list[dict[str, Any]]) -> str:
        """The path of one instance; "" where none is found."""
        path, things = "studies", studies
        for check, below, tag in (("find series", "series", _STUDY), ("find instance", "instances", _SERIES)):
            if not things or not _uid(things[0], tag):
                return ""
            path = f"{path}/{_uid(things[0], tag)}/{below}"
            try:
                things, _ = await self._list(path, [("limit", "1")])
            except PeerError as error:
                self._note(check, False, error.message)
                return ""
            self._note(check, bool(things), f"{below} are listed" if things else f"no {below} are listed")
        return f"{path}/{_uid(things[0], _INSTANCE)}" if things and _uid(things[0], _INSTANCE) else ""

    async def _relational(self, level: str) -> None:
        try:
            things, _ = await self._list(level, [("limit", "1")])
        except PeerError as error:
            self._note(f"all {level}", None, f"not offered without a study: {_status(error)}")
        else:
            self._note(f"all {level}", True, f"lists {level} of all studies" if things else "answers, with none")

    async def _retrieve(self, path: str, *, deep: bool) -> None:
        await self._shape("metadata", f"{path}/metadata", "application/dicom+json")
        is_given = await self._shape("get", path, f"{_MULTIPART}; transfer-syntax=*", deep=deep)
        if not is_given:
            is_given = await self._shape("get", path, _MULTIPART, deep=deep)
            if is_given:
                self._found.learnt.remarks.append("it gives instances in Explicit VR Little Endian alone")
        await self._shape("single part", path, "application/dicom", is_needed=False)

    async def _shape(self, check: str, path: str, accept: str, *, deep: bool = False, is_needed: bool = True) -> bool:
        """Whether something is given in a shape."""
        try:
            async with self._door.exchange("GET", path, headers={"Accept": accept}, expected=_ANY) as answer:
                if answer.status >= 300:
                    words = f"does not give {accept}: {answer.status}"
                    self._note(check, False if is_needed else None, words)
                    return False
                words = await _read(answer, deep=deep)
        except PeerError as error:
            self._note(check, False if is_needed else None, error.message)
            return False
        self._note(check, True, words)
        return True

    async def _storing(self) -> None:
        """What it says that it takes. Nothing is sent."""
        try:
            async with self._door.exchange("OPTIONS", "studies", expected=_ANY) as answer:
                allowed = answer.headers.get("Allow", answer.headers.get("Access-Control-Allow-Methods", ""))
        except PeerError:
            allowed = ""
        if "POST" in allowed.upper():
            self._note("store", True, "says that it takes instances by STOW-RS; that was not tried")
        else:
            self._note("store", None, "does not say whether it takes instances by STOW-RS; that was not tried")

    async def _list(self, path: str, query: list[tuple[str, str]]) -> tuple[list[dict[str, Any]], str]:
        exchange = self._door.exchange("GET", path, query=query, headers=_JSON, expected=(200, 204, 206))
        async with exchange as answer:
            octets = await answer.read(_MOST_OCTETS)
        try:
            things = json.loads(octets) if octets.strip() else []
        except ValueError:
            things = None
        if not isinstance(things, list) or not all(isinstance(thing, dict) for thing in things):
            raise RemoteProtocolError(f"{path.rpartition('/')[2]} are answered by what is no DICOM JSON",
                                      advice="Check the base URL")  # fmt: skip
        return things, answer.media_type

    def _note(self, check: str, ok: bool | None, words: str, advice: str = "", **facts: object) -> None:
        self._found.add(Finding(check=check, ok=ok, words=words, advice=advice, facts=facts))


async def _read(answer: Answer, *, deep: bool) -> str:
    """What came, in words: its shape, whole if `deep`, else as far as needed. Raises PeerError when it is not that."""
    if answer.media_type.endswith("json"):
        await answer.read(_MOST_OCTETS)
        return f"as {answer.media_type}"
    is_multipart = answer.media_type.startswith("multipart/")
    reader = Reader(boundary_of(answer.headers["Content-Type"])) if is_multipart else None
    front, size = b"", 0
    async with aclosing(answer.pieces()) as pieces:
        async for octets in pieces:
            for event in reader.feed(octets) if reader is not None else (Content(memoryview(octets)),):
                if isinstance(event, Content):
                    size += len(event.data)
                    front += bytes(event.data[: _DICM.stop - len(front)])
            if len(front) == _DICM.stop and not deep:
                break
        else:
            if reader is not None:
                reader.end()
    if front[_DICM] != b"DICM":
        raise RemoteProtocolError(f"gives {answer.media_type}, which holds no DICOM file")
    return f"as {answer.media_type}" + (f", {size:,} octets" if deep else "")


def _want(path: str) -> Want:
    """The instance at the end of a path."""
    _, study_uid, _, series_uid, _, uid = path.split("/")
    return Want(study_uid=study_uid, series_uid=series_uid, instances={uid: ""}, whole=False)


def _uid(thing: Mapping[str, Any], tag: str) -> str:
    """The UID that an answer has; "" for none."""
    element = thing.get(tag) or thing.get(tag.lower())
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _status(error: PeerError) -> str:
    return str(error.status) if isinstance(error, Refused) else error.reason
