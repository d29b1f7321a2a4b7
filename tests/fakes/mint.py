"""A MINT study search in the dialect of Vitrea Connection, over files; a script for tests.fakes.web.

    with Web(Mint(samples)) as web:
        ... web.url, web.seen ...

What it does not know it refuses with 400, so that nothing passes by accident: parameters, fields deeper than the level
that is asked for, and instances without a study. With `login` (user, password) everything but the login is 401 until
the cookie that it left is shown; `forget` makes that cookie worthless.
"""

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pydicom

from tests.fakes.web import Reply, Seen

STUDY = (
    "PatientID", "PatientName", "PatientSex", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ModalitiesInStudy", "StudyDescription", "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances", "IssuerOfPatientID",
)  # fmt: skip
SERIES = (
    "SeriesInstanceUID", "Modality", "SeriesDate", "SeriesTime", "SeriesDescription", "SeriesNumber",
    "NumberOfSeriesRelatedInstances", "Manufacturer",
)  # fmt: skip
INSTANCE = ("SOPInstanceUID", "SOPClassUID", "TransferSyntaxUID", "InstanceNumber", "Rows", "Columns")
_PARAMETERS = frozenset((
    "QueryLevel", "IncludeFields", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "PatientID",
    "PatientName", "PatientSex", "PatientBirthDate", "ModalitiesInStudy", "StudyDescription", "SeriesDescription",
    "InstitutionName", "InstitutionalDepartmentName", "limit",
))  # fmt: skip
PAGE = b"<!DOCTYPE html>\n<html><head><title>Error 401 Unauthorized</title></head><body>Jetty says no</body></html>"
LOGIN = "/login"

Row = dict[str, str]


class Mint:
    """The script. `rows`: what each instance says, as text by keyword."""

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        login: tuple[str, str] | None = None,
        dates: tuple[str, str] = ("minStudyDate", "maxStudyDate"),
        encoding: str = "UTF-8",
        ignores: Iterable[str] = (),
    ) -> None:
        """`dates`: how the parameters for dates are written; `ignores`: parameters that it takes and does not heed."""
        self.rows = [_row(path) for path in paths]
        self.logins = 0
        self._login = login
        self._dates = dates
        self._encoding = encoding
        self._ignores = frozenset(ignores)
        self._cookie = ""

    def __call__(self, seen: Seen) -> Reply:
        if self._login is not None and seen.path == LOGIN:
            return self._log_in(seen)
        if self._login is not None and f"JSESSIONID={self._cookie}" not in seen.headers.get("cookie", "").split("; "):
            return Reply(401, {"Content-Type": "text/html;charset=ISO-8859-1"}, PAGE, reason="Unauthorized")
        if seen.path != "/studies":
            return Reply(404, {"Content-Type": "text/html"}, b"<html>no such thing</html>", reason="Not Found")
        asked = dict(seen.query)
        if len(asked) != len(seen.query) or not _PARAMETERS.union(self._dates).issuperset(asked):
            return _bad("unknown or repeated parameter")
        level = ("STUDY", "SERIES", "INSTANCE").index(asked.get("QueryLevel", "STUDY"))
        fields = [field for field in asked.get("IncludeFields", "").split(",") if field]
        known = (*STUDY, *SERIES * (level > 0), *INSTANCE * (level > 1))
        unknown = [field for field in fields if field not in known and field in (*SERIES, *INSTANCE)]
        if unknown or (level == 2 and not asked.get("StudyInstanceUID")):
            return _bad(f"fields {unknown} at level {level}, or no study named")
        body = f"<?xml version='1.0' encoding='{self._encoding}'?>\n{self._found(asked, level, fields)}"
        return Reply(200, {"Content-Type": "text/xml;charset=UTF-8"}, body.encode())

    def forget(self) -> None:
        """The session is over."""
        self._cookie = ""

    def _log_in(self, seen: Seen) -> Reply:
        self.logins += 1
        given = seen.headers.get("x-userid"), seen.headers.get("x-password")
        is_right = given == self._login and seen.headers.get("x-realm") == "DefaultSystemRealm"
        if seen.method != "POST" or seen.body or not is_right:
            return Reply(401, {"Content-Type": "text/html"}, PAGE, reason="Unauthorized")
        self._cookie = f"cookie{self.logins}"
        token = json.dumps({"access_token": "unused", "token_type": "Bearer"}).encode()
        cookie = f"JSESSIONID={self._cookie}; Path=/; HttpOnly; Secure"
        return Reply(200, {"Content-Type": "application/json", "Set-Cookie": cookie}, token)

    def _found(self, asked: Row, level: int, fields: list[str]) -> str:
        rows = [row for row in self.rows if self._matches(row, asked)]
        name = ("STUDY", "SERIES", "INSTANCE")[level]
        lines = [f'<studySearchResults xmlns="http://medical.nema.org/mint" QueryLevel="{name}">']
        studies = _grouped(rows, "StudyInstanceUID")
        for number, study in enumerate(studies[: int(asked.get("limit", "0")) or None]):
            lines.append(f'<study studyUUID="{number}" version="3" lastModified="2022-04-29T03:18:09.191Z">')
            for series in _grouped(study, "SeriesInstanceUID") if level > 0 else []:
                lines.append("<series>")
                for row in series if level > 1 else []:
                    lines += ["<instance>", *_attributes(row, INSTANCE, fields), "</instance>"]
                lines += [*_attributes(series[0], SERIES, fields), "<somethingNew><deeper/></somethingNew></series>"]
            lines += [*_attributes(study[0], STUDY, fields), "</study>"]
        return "\n".join((*lines, "</studySearchResults>"))

    def _matches(self, row: Row, asked: Row) -> bool:
        for name, wanted in asked.items():
            if name in self._ignores:
                continue
            if name in self._dates:
                if row["StudyDate"] < wanted if name == self._dates[0] else row["StudyDate"] > wanted:
                    return False
            elif name not in ("QueryLevel", "IncludeFields", "limit") and not any(
                fnmatchcase(value, wanted) for value in row.get(name, "").split("\\")
            ):
                return False
        return True


def _row(path: Path) -> Row:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    row = {each.keyword: _text(each.value) for each in header if each.keyword and each.VR != "SQ"}
    row["TransferSyntaxUID"] = str(header.file_meta.TransferSyntaxUID)
    row["ModalitiesInStudy"] = row["Modality"]
    return row


def _text(value: object) -> str:
    return "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else str(value or "")


def _grouped(rows: list[Row], keyword: str) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[keyword], []).append(row)
    count = {"StudyInstanceUID": "NumberOfStudyRelatedInstances", "SeriesInstanceUID": "NumberOfSeriesRelatedInstances"}
    return [[{**row, count[keyword]: str(len(group))} for row in group] for group in groups.values()]


def _attributes(row: Row, of_level: tuple[str, ...], fields: list[str]) -> Iterator[str]:
    yield '<attr tag="00091001" vr="LO" val="private, and not asked for"/>'
    for keyword in of_level:
        if keyword in fields or keyword.endswith("InstanceUID"):
            value = f" val={quoteattr(row[keyword])}" if row.get(keyword) else ""
            tag = pydicom.datadict.tag_for_keyword(keyword)
            yield f'<attr tag="{tag:08x}" vr="{pydicom.datadict.dictionary_VR(keyword)}"{value}/>'


def _bad(words: str) -> Reply:
    return Reply(400, {"Content-Type": "text/html"}, f"<html>{words}</html>".encode(), reason="Bad Request")
