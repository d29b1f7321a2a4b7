"""A DICOMweb server that takes instances, and falls short in the ways that it is told to (PS3.18 §10.5).

    stow = Stow(reasons={"1.2.3": 0xA900})
    with Web(stow) as web:
        ... web.url ... stow.stored ...

Bodies are split at their boundary and the parts read by pydicom. QIDO-RS answers list what is stored.
"""

import json
import re
from collections.abc import Callable, Mapping
from io import BytesIO

from pydicom import dcmread

from tests.fakes.web import Reply, Seen

JSON = {"Content-Type": "application/dicom+json"}


class Stow:
    """What a server holds, and how it takes more. `stored`: SOP Instance UID -> the file.

    `reasons`: SOP Instance UID -> failure reason, `warnings` likewise; `silent`: stored by none, listed nowhere.
    `spoils` has the UIDs of instances that make a whole request fail with `spoilt` and no list. `most_octets` of a body
    before 413. `before` may give another reply to the n-th storing request (from 1). `keeps`: what is listed is there.
    """

    def __init__(
        self,
        *,
        reasons: Mapping[str, int] | None = None,
        warnings: Mapping[str, int] | None = None,
        silent: frozenset[str] = frozenset(),
        spoils: frozenset[str] = frozenset(),
        spoilt: int = 400,
        most_octets: int = 1 << 40,
        before: Callable[[int], Reply | None] = lambda nth: None,
        keeps: bool = True,
    ) -> None:
        self.stored: dict[str, bytes] = {}
        self.homes: dict[str, tuple[str, str]] = {}
        self.requests: list[list[str]] = []
        self.heads: list[bytes] = []
        self.reasons, self.warnings = reasons or {}, warnings or {}
        self.silent, self.spoils, self.spoilt = silent, spoils, spoilt
        self.most_octets, self.before, self.keeps = most_octets, before, keeps

    def __call__(self, seen: Seen) -> Reply:
        """One request."""
        if seen.method == "GET":
            return Reply(200, JSON, json.dumps(self._found(seen)).encode())
        files = {_uid(part): part for part in self._parts(seen)}
        self.requests.append(list(files))
        other = self.before(len(self.requests))
        if other is not None:
            return other
        if len(seen.body) > self.most_octets:
            return Reply(413, body=b"<html>too large</html>")
        if self.spoils & set(files):
            return Reply(self.spoilt, body=b"a part cannot be understood")
        return self._take(files)

    def _take(self, files: Mapping[str, bytes]) -> Reply:
        kept, failed = [], []
        for uid, octets in files.items():
            item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
            if uid in self.reasons:
                failed.append({**item, "00081197": {"vr": "US", "Value": [self.reasons[uid]]}})
            elif uid not in self.silent:
                if uid in self.warnings:
                    item["00081196"] = {"vr": "US", "Value": [self.warnings[uid]]}
                kept.append(item)
                if self.keeps:
                    found = dcmread(BytesIO(octets), stop_before_pixels=True)
                    self.stored[uid] = octets
                    self.homes[uid] = str(found.StudyInstanceUID), str(found.SeriesInstanceUID)
        said = {"00081199": {"vr": "SQ", "Value": kept}, "00081198": {"vr": "SQ", "Value": failed}}
        status = 200 if not failed else 202 if kept else 409
        return Reply(status, JSON, json.dumps(said).encode())

    def _parts(self, seen: Seen) -> list[bytes]:
        kind = seen.headers["content-type"]
        found = re.fullmatch(r'multipart/related; type="application/dicom"; boundary=([0-9a-f]+)', kind)
        assert found is not None, kind
        assert "content-encoding" not in seen.headers
        assert len(seen.body) == int(seen.headers["content-length"])
        first, *parts, last = (b"\r\n" + seen.body).split(b"\r\n--" + found[1].encode())
        assert first == b"" and last == b"--\r\n"
        files = []
        for part in parts:
            head, _, octets = part.partition(b"\r\n\r\n")
            self.heads.append(head)
            files.append(octets)
        return files

    def _found(self, seen: Seen) -> list[dict[str, object]]:
        words = seen.path.strip("/").split("/")
        above = dict(zip(words[::2], words[1::2], strict=False))
        keys = dict(seen.query)
        answers: dict[str, dict[str, object]] = {}
        for uid, (study, series) in self.homes.items():
            mine = {"0020000D": study, "0020000E": series, "00080018": uid}
            asked = {
                "0020000D": above.get("studies") or keys.get("StudyInstanceUID"),
                "0020000E": above.get("series") or keys.get("SeriesInstanceUID"),
                "00080018": keys.get("SOPInstanceUID"),
            }
            if any(value and mine[tag] not in re.split(r"[,\\]", value) for tag, value in asked.items()):
                continue
            tag = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}[words[-1]]
            answers[mine[tag]] = {each: {"vr": "UI", "Value": [value]} for each, value in mine.items()}
        begin = int(keys.get("offset", 0))
        return list(answers.values())[begin : begin + int(keys.get("limit", 1 << 30))]


def _uid(part: bytes) -> str:
    return str(dcmread(BytesIO(part), stop_before_pixels=True).SOPInstanceUID)
