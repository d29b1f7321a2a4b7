"""What a project of XNAT lists: sessions in its pre-archive and its archive, their scans, and how many files they have.

Owns the shapes of those answers, and that each is what it should be: a login page with status 200 is none. A session is
a study: its `tag` in the pre-archive, its UID in the archive, is the Study Instance UID; a scan is a series. Refuses to
know instances: nothing of XNAT names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from dcmsync.errors import Refused, Rejected, RemoteProtocolError
from dcmsync.net.http import Door, Query
from dcmsync.wire.markup import Markup

JSON: Query = (("format", "json"),)
ANSWER_OCTETS = 64 << 20
_ARCHIVED: Query = (
    ("format", "json"),
    ("xsiType", "xnat:imageSessionData"),
    ("columns", "ID,label,date,xnat:imageSessionData/UID"),
)


class _Table(Struct, rename={"result": "Result"}):
    result: list[dict[str, str | int | float | bool | None]]


class _Answer(Struct, rename={"result_set": "ResultSet"}):
    result_set: _Table


_decode = msgspec.json.Decoder(_Answer).decode
_MODALITY = re.compile(r"xnat:([a-z]{2})ScanData")
_UNSETTLED = frozenset(
    ("RECEIVING", "RECEIVING_INTERRUPT", "BUILDING", "ARCHIVING", "DELETING", "MOVING", "SEPARATING")
)


class Kept(Struct, frozen=True, kw_only=True):
    """A session. `path` is below `/data`; `status` is the word of the pre-archive, "" for what is archived."""

    place: Literal["prearchive", "archive"]
    study_uid: str
    path: str
    label: str
    subject: str = ""
    status: str = ""
    date: str = ""
    time: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being done with it now."""
        word = self.status.upper()
        return not (word.startswith(("_", "QUEUED")) or word in _UNSETTLED)


class Scan(Struct, frozen=True, kw_only=True):
    """A series of a session. `uid` is "" where it is not told."""

    session: Kept
    id: str
    uid: str
    description: str = ""
    modality: str = ""

    @property
    def files(self) -> str:
        """Where its files are listed, below the base."""
        return f"data{self.session.path}/scans/{quote(self.id, safe='')}/resources/DICOM/files"


class Lister:
    """Asks one project."""

    def __init__(self, door: Door, project: str) -> None:
        self.name = door.name
        self.project = quote(project, safe="")
        self._door = door

    async def prearchive(self) -> list[Kept]:
        """The sessions in the pre-archive, the newest last. Raises PeerError."""
        rows = await self._rows(f"data/prearchive/projects/{self.project}", JSON)
        return [_prearchived(row) for row in sorted(rows, key=lambda row: row.get("timestamp", "")) if row.get("url")]

    async def archive(self) -> list[Kept]:
        """The sessions in the archive. Raises PeerError."""
        rows = await self._rows(f"data/projects/{self.project}/experiments", _ARCHIVED)
        return [_archived(row) for row in rows if row.get("id")]

    async def session(self, path: str) -> Kept | None:
        """One session of the pre-archive, as it is now; None when it is not there. Raises PeerError."""
        try:
            rows = await self._rows(f"data{path}", JSON)
        except Refused as error:
            if error.status != 404:
                raise
            return None
        return next((_prearchived(row) for row in rows if row.get("url")), None)

    async def of_study(self, study_uid: str) -> list[Kept]:
        """The sessions that are this study, those of the pre-archive first. Raises PeerError."""
        both = [*await self.prearchive(), *await self.archive()]
        return [kept for kept in both if kept.study_uid == study_uid]

    async def scans(self, session: Kept) -> list[Scan]:
        """The scans of a session. Where the list does not tell their UIDs, its document may. Raises PeerError."""
        rows = await self._rows(f"data{session.path}/scans", JSON)
        uids: Mapping[str, str] = {}
        if session.place == "prearchive" and not all(row.get("uid") for row in rows):
            uids = await self._uids(session)
        return [_scan(session, row, uids) for row in rows if row.get("id")]

    async def count(self, scan: Scan) -> int:
        """How many files a scan has. Raises PeerError."""
        return len(await self._rows(scan.files, JSON))

    async def instances(self, session: Kept) -> int:
        """How many files a session has, in all scans. Raises PeerError."""
        return sum([await self.count(scan) for scan in await self.scans(session)])

    async def answers(self) -> None:
        """Asks for something small. Raises PeerError."""
        await self._rows("data/projects", JSON)

    async def _rows(self, path: str, query: Query) -> list[dict[str, str]]:
        """The rows of a list; names in lower case, values as text. Raises PeerError."""
        async with self._door.exchange("GET", path, query=query, headers={"Accept": "application/json"}) as answer:
            octets = await answer.read(ANSWER_OCTETS)
        try:
            rows = _decode(octets).result_set.result
            return [{name.lower(): _text(value) for name, value in row.items()} for row in rows]
        except (ValueError, RecursionError):
            if octets.lstrip()[:1] == b"<":
                words = f"{self.name}: answers with a page for people: we are not logged in"
                raise Rejected(words, advice="Check user and password") from None
            raise RemoteProtocolError(f"{self.name}: what it lists cannot be understood") from None

    async def _uids(self, session: Kept) -> Mapping[str, str]:
        """Scan ID -> Series Instance UID, by the document of a session, where there is one. Raises PeerError."""
        found: dict[str, str] = {}

        def opened(name: str, attributes: dict[str, str]) -> None:
            if name == "scan" and attributes.get("ID"):
                found[attributes["ID"]] = attributes.get("UID", "")

        markup = Markup(opened=opened, closed=lambda name: None)
        try:
            async with self._door.exchange("GET", f"data{session.path}", query=(("format", "xml"),)) as answer:
                markup.feed(await answer.read(ANSWER_OCTETS))
            markup.close()
        except (Refused, RemoteProtocolError):
            return {}
        return found


def attributes_of(kept: Kept) -> Iterator[tuple[str, object]]:
    """What a session says of its study, by keyword; its labels under names of our own."""
    said = {
        "StudyInstanceUID": kept.study_uid, "StudyDate": kept.date, "StudyTime": kept.time, "label": kept.label,
        "subject": kept.subject, "state": kept.status or "archived",
    }  # fmt: skip
    return ((name, value) for name, value in said.items() if value)


def newest(sessions: Sequence[Kept]) -> Kept | None:
    """The last session of the pre-archive, if there is one."""
    return next((kept for kept in reversed(sessions) if kept.place == "prearchive"), None)


def path_of(url: str) -> str:
    """Where a session is, below `/data`; each part as it goes into a URL."""
    return "/" + "/".join(quote(part, safe="") for part in url.removeprefix("/data").strip("/").split("/"))


def _prearchived(row: Mapping[str, str]) -> Kept:
    return Kept(
        place="prearchive", study_uid=row.get("tag", ""), path=path_of(row["url"]), label=row.get("name", ""),
        subject=row.get("subject", ""), status=row.get("status", ""), date=_date(row.get("scan_date", "")),
        time=_time(row.get("scan_time", "")),
    )  # fmt: skip


def _archived(row: Mapping[str, str]) -> Kept:
    uid = next((value for name, value in row.items() if name.endswith("/uid") or name == "uid"), "")
    return Kept(
        place="archive", study_uid=uid, path=f"/experiments/{quote(row['id'], safe='')}", label=row.get("label", ""),
        date=_date(row.get("date", "")),
    )  # fmt: skip


def _scan(session: Kept, row: Mapping[str, str], uids: Mapping[str, str]) -> Scan:
    match = _MODALITY.fullmatch(row.get("xsitype", ""))
    return Scan(
        session=session, id=row["id"], uid=row.get("uid") or uids.get(row["id"], ""),
        description=row.get("series_description", ""), modality=match[1].upper() if match else "",
    )  # fmt: skip


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _date(text: str) -> str:
    """DICOM's way to write a date (PS3.5 §6.2), "" for none."""
    digits = text[:10].replace("-", "")
    return digits if len(digits) == 8 and digits.isdecimal() else ""


def _time(text: str) -> str:
    digits = text[:8].replace(":", "")
    return digits if len(digits) == 6 and digits.isdecimal() else ""
