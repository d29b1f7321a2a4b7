"""An XNAT server with one project, as far as its pre-archive, archive and import service go (XNAT 1.7 to 1.9).

    xnat = Xnat("P")
    with Web(xnat) as web:
        ... xnat+{web.url}/P ... xnat.sessions ...

Uploads are really opened, by zipfile, and read, by pydicom. Archives are written for who downloads.
"""

import base64
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from urllib.parse import parse_qsl, unquote

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from tests.fakes.web import Reply, Seen

JSON = {"Content-Type": "application/json"}
UID_COLUMN = "xnat:imagesessiondata/uid"  # in lower case, however it was asked for
PAGE = b"<html><body><form action='login'>XNAT login</form></body></html>"


@dataclass
class Session:
    """One session. `scans`: scan ID -> (Series Instance UID, SOP Instance UID -> file). `polls` until it is ready."""

    timestamp: str
    label: str
    subject: str
    study_uid: str
    status: str = "READY"
    polls: int = 0
    id: str = ""
    scans: dict[str, tuple[str, dict[str, bytes]]] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """All files, by SOP Instance UID."""
        return {uid: octets for _, files in self.scans.values() for uid, octets in files.items()}


class Xnat:
    """A server. `sessions` are in the pre-archive, `archived` in the archive; `uploads` are the queries of imports.

    `polls`: a new session is RECEIVING for so many looks. `tells`: where the UIDs of scans are told. `drops`: series
    that the site filters away. `before` and `after` may give the reply to the n-th import (from 1) in place of it, or
    instead of its own answer. `user`: who must log in; `page`: who has not gets a page instead of 401.
    """

    def __init__(
        self,
        project: str = "P",
        *,
        polls: int = 0,
        tells: tuple[str, ...] = ("document",),
        drops: frozenset[str] = frozenset(),
        before: Callable[[int], Reply | None] = lambda nth: None,
        after: Callable[[int], Reply | None] = lambda nth: None,
        user: tuple[str, str] | None = None,
        page: bool = False,
    ) -> None:
        self.project, self.polls, self.tells, self.drops = project, polls, tells, drops
        self.before, self.after, self.user, self.page = before, after, user, page
        self.sessions: list[Session] = []
        self.archived: list[Session] = []
        self.uploads: list[dict[str, str]] = []
        self.opened: list[str] = []  # sessions of users

    def archive(self) -> None:
        """Everything moves to the archive."""
        for session in self.sessions:
            session.id = f"XNAT_E{len(self.archived) + 1:05d}"
            self.archived.append(session)
        self.sessions = []

    def __call__(self, seen: Seen) -> Reply:
        """One request."""
        if (refusal := self._refusal(seen)) is not None:
            return refusal
        words = [unquote(word) for word in seen.path.strip("/").split("/")]
        query = dict(parse_qsl(seen.target.partition("?")[2], keep_blank_values=True))
        match words:
            case ["data", "JSESSION"]:
                return Reply(200, {"Content-Type": "text/plain"}, self.opened[-1].encode())
            case ["data", "projects"]:
                return _rows([{"ID": self.project, "name": "A project"}])
            case ["data", "services", "import"] if seen.method == "POST":
                return self._import(seen, query)
            case ["data", "prearchive", "projects", self.project, *rest]:
                return self._prearchive(rest, query)
            case ["data", "projects", self.project, "experiments"]:
                return _rows([
                    {"ID": each.id, "label": each.label, "date": "2024-02-02", UID_COLUMN: each.study_uid}
                    for each in self.archived
                ])  # fmt: skip
            case ["data", "experiments", name, *rest]:
                found = [each for each in self.archived if each.id == name]
                return self._inside(found[0], rest, query, ("scans",)) if found else Reply(404)
        return Reply(403 if "prearchive" in words else 404, body=b"<h3>no such thing</h3>")

    def _refusal(self, seen: Seen) -> Reply | None:
        """What who has not logged in gets. Each request with a password and no cookie opens a session."""
        if self.user is None:
            if seen.path.endswith("JSESSION"):
                self.opened.append("0" * 32)
            return None
        cookie = dict(parse_qsl(seen.headers.get("cookie", "").replace("; ", "&")))
        if cookie.get("JSESSIONID") in self.opened:
            return None
        basic = base64.b64encode(":".join(self.user).encode()).decode()
        if seen.headers.get("authorization") == f"Basic {basic}":
            self.opened.append(f"{len(self.opened) + 1:032X}")
            return None
        return Reply(200, {"Content-Type": "text/html"}, PAGE) if self.page else Reply(401, {}, b"<h3>who are you</h3>")

    # Imports

    def _import(self, seen: Seen, query: dict[str, str]) -> Reply:
        assert seen.headers["content-type"] == "application/zip"
        assert (query["import-handler"], query["inbody"]) == ("DICOM-zip", "true")
        self.uploads.append(query)
        nth = len(self.uploads)
        if (other := self.before(nth)) is not None:
            return other
        dest = query["dest"].strip("/").split("/")
        assert dest[:3] == ["prearchive", "projects", self.project], dest
        touched: list[Session] = []
        with zipfile.ZipFile(BytesIO(seen.body)) as archive:
            assert archive.testzip() is None
            for member in archive.infolist():
                assert member.compress_type == zipfile.ZIP_STORED
                assert not member.flag_bits & 8  # what reads forward needs sizes in front
                try:
                    found = dcmread(BytesIO(archive.read(member)), stop_before_pixels=True)
                except InvalidDicomError:
                    return Reply(400, {"Content-Type": "text/html"}, b"<html><h3>unable to read a member</h3></html>")
                session = self._session(found, dest, query)
                if session is None:
                    return Reply(400, body=b"<h3>bad dest</h3>")
                touched += [session] if session not in touched else []
                if str(found.SeriesInstanceUID) not in self.drops:
                    number = str(found.get("SeriesNumber", len(session.scans) + 1))
                    _, files = session.scans.setdefault(number, (str(found.SeriesInstanceUID), {}))
                    files[str(found.SOPInstanceUID)] = archive.read(member)
        if (other := self.after(nth)) is not None:
            return other
        lines = "".join(f"/data/{'/'.join(self._path(session))}\r\n" for session in touched)
        return Reply(200, {"Content-Type": "text/plain"}, lines.encode())

    def _session(self, found, dest: list[str], query: Mapping[str, str]) -> Session | None:  # type: ignore[no-untyped-def]
        if len(dest) == 5:
            return next((each for each in self.sessions if [each.timestamp, each.label] == dest[3:]), None)
        label = query.get("session") or re.sub(r"[^\w-]", "_", str(found.StudyID))
        subject = query.get("subject") or re.sub(r"[^\w-]", "_", str(found.PatientID))
        assert re.fullmatch(r"[A-Za-z0-9_-]+", label) and re.fullmatch(r"[A-Za-z0-9_-]+", subject), (label, subject)
        study = str(found.StudyInstanceUID)
        timestamp = f"20240102_{100000000 + 1000 * len(self.uploads):09d}"
        for each in self.sessions:
            if (each.timestamp, each.label) == (timestamp, label):
                return each
        status = "CONFLICT" if any(each.label == label for each in self.archived) else "READY"
        session = Session(timestamp, label, subject, study, status, polls=self.polls)
        self.sessions.append(session)
        return session

    # Lists

    def _path(self, session: Session) -> list[str]:
        return ["prearchive", "projects", self.project, session.timestamp, session.label]

    def _prearchive(self, rest: list[str], query: Mapping[str, str]) -> Reply:
        if not rest:
            return _rows([self._row(session) for session in self.sessions])
        found = [each for each in self.sessions if [each.timestamp, each.label] == rest[:2]]
        if not found:
            return Reply(404, body=b"<h3>no such session</h3>")
        if len(rest) == 2 and query.get("format") == "xml":
            return self._document(found[0])
        return self._inside(found[0], rest[2:], query, self.tells) if rest[2:] else _rows([self._row(found[0])])

    def _row(self, session: Session) -> dict[str, str]:
        status = session.status
        if session.polls:
            session.polls -= 1
            status = "RECEIVING"
        return {
            "project": self.project, "timestamp": session.timestamp, "folderName": session.label,
            "name": session.label, "subject": session.subject, "status": status, "lastmod": "2024-01-02 10:12:01.0",
            "uploaded": "2024-01-02 10:11:12.123", "scan_date": "2023-12-31 00:00:00.0", "scan_time": "10:00:00",
            "tag": session.study_uid, "url": "/" + "/".join(self._path(session)), "autoarchive": "Manual",
        }  # fmt: skip

    def _inside(self, session: Session, rest: list[str], query: Mapping[str, str], tells: tuple[str, ...]) -> Reply:
        match rest:
            case ["scans"]:
                return _rows([
                    {"ID": number, "xsiType": "xnat:ctScanData", "series_description": f"scan {number}",
                     **({"UID": uid} if "scans" in tells else {})}
                    for number, (uid, _) in session.scans.items()
                ])  # fmt: skip
            case ["scans", number, "resources", "DICOM", "files"] if number in session.scans:
                _, files = session.scans[number]
                if query.get("format") == "zip":
                    return Reply(200, {"Content-Type": "application/zip"}, _zipped(session.label, number, files))
                return _rows([{"Name": f"{n}.dcm", "Size": str(len(f))} for n, f in enumerate(files.values())])
        return Reply(404)

    def _document(self, session: Session) -> Reply:
        if "document" not in self.tells:
            return Reply(404)
        scans = "".join(f'<xnat:scan ID="{number}" UID="{uid}"/>' for number, (uid, _) in session.scans.items())
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><xnat:CTSession xmlns:xnat="http://nrg.wustl.edu/xnat" '
            f'UID="{session.study_uid}"><xnat:scans>{scans}</xnat:scans></xnat:CTSession>'
        )
        return Reply(200, {"Content-Type": "text/xml"}, text.encode())


def _rows(rows: list[dict[str, str]]) -> Reply:
    return Reply(200, JSON, json.dumps({"ResultSet": {"Result": rows, "totalRecords": str(len(rows))}}).encode())


def _zipped(label: str, scan: str, files: Mapping[str, bytes]) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, octets in enumerate(files.values()):
            archive.writestr(f"{label}/scans/{scan}/resources/DICOM/files/{number}.dcm", octets)
        archive.writestr(f"{label}/scans/{scan}/resources/DICOM/scan_{scan}_catalog.xml", "<catalog/>")
    return made.getvalue()
