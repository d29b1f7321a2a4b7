"""A data store of AWS HealthImaging on the loopback interface, over Part 10 files: the native API and its DICOMweb.

    with DataStore() as store:
        store.add([sample.path, …])          # an image set for each series
        store.add(paths, primary=False)
        ... store.url, STORE_ID, KEY, SECRET ...

It checks what the service checks: every signature, recomputed here by the rules of SigV4 and by nothing of ours; the
clock; the region; what a search may ask; the media type. `before` may answer in place of it, to misbehave. Metadata is
made with pydicom, in the shape that the service has: keywords, numbers as text, padding blanks kept, gzip.
"""

import hashlib
import hmac
import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote

import pydicom
from pydicom.datadict import keyword_for_tag

from tests.fakes import htj2k
from tests.fakes.web import Reply, Seen, Web

STORE_ID = "0123456789abcdef0123456789abcdef"
REGION = "us-east-1"
KEY, SECRET, TOKEN, BEARER = "AKIDEXAMPLE", "wJalrXUtnFEMIsecret/key", "session-token", "a.json.token"
CLOCK_S = 300
_PATH = re.compile(rf"/datastore/{STORE_ID}/(.*)")
_INSTANCE = re.compile(r"studies/([\d.]+)/series/([\d.]+)/instances/([\d.]+)")
_LISTS = re.compile(r"studies(?:/([\d.]+)/series(?:/([\d.]+)/instances)?)?")
_TAGS = {
    "DICOMPatientId": "PatientID", "DICOMPatientName": "PatientName", "DICOMPatientBirthDate": "PatientBirthDate",
    "DICOMPatientSex": "PatientSex", "DICOMStudyInstanceUID": "StudyInstanceUID", "DICOMStudyId": "StudyID",
    "DICOMStudyDate": "StudyDate", "DICOMStudyTime": "StudyTime", "DICOMStudyDescription": "StudyDescription",
    "DICOMAccessionNumber": "AccessionNumber", "DICOMSeriesInstanceUID": "SeriesInstanceUID",
    "DICOMSeriesModality": "Modality", "DICOMSeriesNumber": "SeriesNumber",
}  # fmt: skip
_EQUAL = frozenset((
    "DICOMPatientId", "DICOMAccessionNumber", "DICOMStudyId", "DICOMStudyInstanceUID", "DICOMSeriesInstanceUID",
))  # fmt: skip
_STUDY_LEVEL = frozenset((
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName",
))  # fmt: skip
_SERIES_LEVEL = frozenset(("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SeriesDate", "Modality"))


@dataclass
class ImageSet:
    """One image set: its files by SOP Instance UID, as they were stored."""

    id: str
    files: dict[str, bytes]
    primary: bool = True
    version: int = 1
    tags: dict[str, Any] = field(default_factory=dict)
    document: bytes = b""
    frames: dict[str, bytes] = field(default_factory=dict)


class DataStore:
    """The service; a context manager. `calls` lists the operations that were let in, in order."""

    def __init__(self, *, bearer: bool = False, page: int = 50) -> None:
        """With `bearer`, its DICOMweb takes tokens instead of signatures. `page`: image sets on one, at most."""
        self.image_sets: list[ImageSet] = []
        self.calls: list[str] = []
        self.before: Callable[[str, Seen], Reply | None] = lambda operation, seen: None
        self.session_token = ""
        self.clock = time.time
        self._bearer = bearer
        self._page = page
        self._web: Web | None = None

    @property
    def url(self) -> str:
        """What to give as endpoint_url."""
        assert self._web is not None
        return self._web.url

    @property
    def seen(self) -> list[Seen]:
        """Every request, as it came."""
        assert self._web is not None
        return self._web.seen

    def __enter__(self) -> Self:
        self._web = Web(self.answer)
        self._web.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._web is not None
        self._web.__exit__(kind, error, at)

    def add(self, paths: Iterable[Path], *, primary: bool = True) -> list[ImageSet]:
        """Imports files: an image set for each series."""
        series: dict[str, dict[str, bytes]] = {}
        for path in paths:
            data_set = pydicom.dcmread(path, stop_before_pixels=True)
            series.setdefault(data_set.SeriesInstanceUID, {})[data_set.SOPInstanceUID] = path.read_bytes()
        made = [self._made(files, primary) for files in series.values()]
        self.image_sets += made
        return made

    def environment(self) -> dict[str, str]:
        """What the environment has to say to get in."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION}

    def _made(self, files: dict[str, bytes], primary: bool) -> ImageSet:
        read = {uid: pydicom.dcmread(pydicom.filebase.DicomBytesIO(octets)) for uid, octets in files.items()}
        first = next(iter(read.values()))
        tags = {name: first[keyword].value for name, keyword in _TAGS.items() if keyword in first}
        tags = {name: int(value) if name == "DICOMSeriesNumber" else str(value) for name, value in tags.items()}
        number = hashlib.sha256(f"{len(self.image_sets)} {first.SeriesInstanceUID}".encode()).hexdigest()[:32]
        made = ImageSet(id=number, files=files, primary=primary, tags=tags)
        made.document = json.dumps(_document(made, read)).encode()
        return made

    def answer(self, seen: Seen) -> Reply:
        """What it answers; a script for tests.fakes.web."""
        match = _PATH.fullmatch(seen.path)
        if match is None:
            return _error(404, "ResourceNotFoundException", "no such data store")
        rest = match[1]
        is_dicomweb = rest.startswith("studies")
        trouble = self._refused_bearer(seen) if is_dicomweb and self._bearer else self._refused(seen)
        if trouble is not None:
            return trouble
        operation = "GetDICOMInstance" if is_dicomweb else rest.rpartition("/")[2]
        instead = self.before(operation, seen)
        if instead is not None:
            return instead
        self.calls.append(operation)
        if operation == "GetDICOMInstance" and (found := _INSTANCE.fullmatch(rest)):
            return self._instance(seen, *found.groups())
        if is_dicomweb and (found := _LISTS.fullmatch(rest)) and seen.method == "GET":
            return self._list(seen, *found.groups())
        if operation == "searchImageSets" and seen.method == "POST":
            return self._search(seen)
        if operation == "getImageSetMetadata" and seen.method == "POST":
            image_set = next((each for each in self.image_sets if rest == f"imageSet/{each.id}/{operation}"), None)
            if image_set is None or dict(seen.query).get("version", str(image_set.version)) != str(image_set.version):
                return _error(404, "ResourceNotFoundException", "no such image set")
            return Reply(body=image_set.document, gzipped=True, headers={"Content-Type": "text/plain"})
        if operation == "getImageFrame" and seen.method == "POST":
            return self._frame(seen, rest)
        return _error(403, "MissingAuthenticationTokenException", "no such call")

    def _search(self, seen: Seen) -> Reply:
        query = dict(seen.query)
        asked = json.loads(seen.body)
        size = int(query.get("maxResults", "50"))
        filters = asked.get("filters", [])
        if seen.headers.get("content-type") != "application/json" or not 1 <= size <= 50 or len(filters) > 2:
            return _error(400, "ValidationException", "the request is not valid")
        found = self.image_sets
        for one in filters:
            judge = _judge(one)
            if judge is None:
                return _error(400, "ValidationException", "a filter is not valid")
            found = [each for each in found if judge(each)]
        start = int(query["nextToken"].removeprefix("page/+=")) if "nextToken" in query else 0
        end = start + min(size, self._page)
        counts = {each.tags["DICOMStudyInstanceUID"]: [0, 0] for each in self.image_sets}
        for each in self.image_sets:
            if each.primary:
                counts[each.tags["DICOMStudyInstanceUID"]][0] += 1
                counts[each.tags["DICOMStudyInstanceUID"]][1] += len(each.files)
        answer: dict[str, object] = {"imageSetsMetadataSummaries": [
            {"imageSetId": each.id, "version": each.version, "createdAt": 1.5, "updatedAt": 1.5,
             "isPrimary": each.primary, "storageTier": "FREQUENT_ACCESS", "DICOMTags": {
                 **each.tags,
                 "DICOMNumberOfStudyRelatedSeries": counts[each.tags["DICOMStudyInstanceUID"]][0],
                 "DICOMNumberOfStudyRelatedInstances": counts[each.tags["DICOMStudyInstanceUID"]][1]}}
            for each in found[start:end]
        ]}  # fmt: skip
        if end < len(found):
            answer["nextToken"] = f"page/+={end}"
        return Reply(body=json.dumps(answer).encode(), headers={"Content-Type": "application/json"})

    def _instance(self, seen: Seen, study: str, series: str, uid: str) -> Reply:
        asked = dict(seen.query).get("imageSetId")
        if "transfer-syntax=*" not in seen.headers.get("accept", ""):
            return _error(406, "NotAcceptableException", "the transfer syntax is not available")
        for each in self.image_sets:
            if (each.id == asked if asked else each.primary) and uid in each.files:
                tags = each.tags
                if tags["DICOMStudyInstanceUID"] == study and tags["DICOMSeriesInstanceUID"] == series:
                    return Reply(body=each.files[uid], headers={"Content-Type": "application/dicom"})
        return _error(404, "ResourceNotFoundException", "no such instance")

    def _frame(self, seen: Seen, rest: str) -> Reply:
        asked = json.loads(seen.body)
        if seen.headers.get("content-type") != "application/json" or list(asked) != ["imageFrameId"]:
            return _error(400, "ValidationException", "the request is not valid")
        for each in self.image_sets:
            if rest == f"imageSet/{each.id}/getImageFrame" and asked["imageFrameId"] in each.frames:
                return Reply(body=each.frames[asked["imageFrameId"]], headers={"Content-Type": "image/jph"})
        return _error(404, "ResourceNotFoundException", "no such frame")

    def _list(self, seen: Seen, study: str | None, series: str | None) -> Reply:
        """QIDO-RS over the primary image sets: matching by wildcards, `limit` of 1,000 at most, `offset`."""
        keyword = "SOPInstanceUID" if series else "SeriesInstanceUID" if study else "StudyInstanceUID"
        things: dict[str, pydicom.Dataset] = {}
        for each in self.image_sets:
            for octets in each.files.values() if each.primary else ():
                read = pydicom.dcmread(pydicom.filebase.DicomBytesIO(octets), stop_before_pixels=True)
                if study in (None, read.StudyInstanceUID) and series in (None, read.SeriesInstanceUID):
                    things.setdefault(read[keyword].value, read)
        query = seen.query
        keys = [(key, value) for key, value in query if key not in ("limit", "offset", "includefield", "fuzzymatching")]
        found = [each for each in things.values() if all(_matches(each, key, value) for key, value in keys)]
        start, size = int(dict(query).get("offset", "0")), min(int(dict(query).get("limit", "1000")), 1000)
        told = [each.to_json_dict() for each in found[start : start + size]]
        return Reply(body=json.dumps(told).encode(), headers={"Content-Type": "application/dicom+json"})

    def _refused_bearer(self, seen: Seen) -> Reply | None:
        if seen.headers.get("authorization") == f"Bearer {BEARER}":
            return None
        return _error(403, "AccessDeniedException", "Invalid or Expired Token")

    def _refused(self, seen: Seen) -> Reply | None:
        """Why a request is not let in, by its signature; None when it is."""
        given = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/medical-imaging/aws4_request, "
            r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})", seen.headers.get("authorization", ""),
        )  # fmt: skip
        if given is None:
            return _error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        key, day, region, names, signature = given.groups()
        stamp = seen.headers.get("x-amz-date", "")
        if key != KEY or seen.headers.get("x-amz-security-token", "") != self.session_token:
            return _error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(at - self.clock()) > CLOCK_S or stamp[:8] != day:
            return _error(403, "InvalidSignatureException", f"Signature expired: {stamp} is now earlier than allowed")
        must = {"host", *(name for name in seen.headers if name.startswith("x-amz-"))}
        digest = hashlib.sha256(seen.body).hexdigest()
        if not must <= set(names.split(";")) or seen.headers.get("x-amz-content-sha256", digest) != digest:
            return _error(403, "InvalidSignatureException", "headers that must be signed are not")
        lines = [
            seen.method,
            quote(seen.path, safe="/-._~"),
            "&".join(f"{name}={value}" for name, value in sorted(
                (_encoded(pair.partition("=")[0]), _encoded(pair.partition("=")[2]))
                for pair in seen.target.partition("?")[2].split("&") if pair)),
            *(f"{name}:{' '.join(seen.headers[name].split())}" for name in names.split(";")),
            "", names, digest,
        ]  # fmt: skip
        scope = f"{day}/{region}/medical-imaging/aws4_request"
        hashed = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        secret = b"AWS4" + SECRET.encode()
        for part in (day, REGION, "medical-imaging", "aws4_request", f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"):
            secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
        if region != REGION or secret.hex() != signature:
            words = "The request signature we calculated does not match the signature you provided."
            return _error(403, "InvalidSignatureException", words)
        return None


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="-._~")


def _error(status: int, kind: str, message: str) -> Reply:
    return Reply(
        status, body=json.dumps({"message": message}).encode(),
        headers={"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/coral/", "Content-Type": "application/json"},
    )  # fmt: skip


def _matches(data_set: pydicom.Dataset, key: str, value: str) -> bool:
    name = keyword_for_tag(key) if key.isalnum() and len(key) == 8 else key
    if name == "ModalitiesInStudy":
        name = "Modality"
    return name in data_set and fnmatchcase(str(data_set[name].value), value)


def _judge(one: dict[str, Any]) -> Callable[[ImageSet], bool] | None:
    """What a filter means; None for what the service would not take."""
    values, operator = one["values"], one["operator"]
    names = {name for value in values for name in value}
    if operator == "EQUAL" and len(values) == 1 and len(names) == 1 and names <= _EQUAL:
        (name, wanted), = values[0].items()
        return lambda each: str(each.tags.get(name, "")) == wanted
    if operator == "BETWEEN" and len(values) == 2 and names == {"DICOMStudyDateAndTime"}:
        first, last = (value["DICOMStudyDateAndTime"] for value in values)
        low, high = (pair["DICOMStudyDate"] + pair["DICOMStudyTime"] for pair in (first, last))
        return lambda each: (
            low <= each.tags.get("DICOMStudyDate", "") + each.tags.get("DICOMStudyTime", "000000") <= high
        )
    return None


def _document(image_set: ImageSet, read: dict[str, pydicom.Dataset]) -> dict[str, object]:
    first = next(iter(read.values()))
    patient = {key: value for key, value in _object(first).items() if key.startswith("Patient")}
    study = {key: value for key, value in _object(first).items() if key in _STUDY_LEVEL}
    series = {key: value for key, value in _object(first).items() if key in _SERIES_LEVEL}
    above = {**patient, **study, **series}
    instances = {
        uid: {
            "DICOM": {k: v for k, v in _object(each).items() if k not in above or above[k] != v},
            "DICOMVRs": {f"{e.tag:08X}": e.VR for e in each.iterall() if not keyword_for_tag(e.tag)},
            "StoredTransferSyntaxUID": each.file_meta.TransferSyntaxUID,
            "ChecksumType": "DECOMPRESSED",
            "ImageFrames": _frames(image_set, uid, each),
        }
        for uid, each in read.items()
    }
    return {
        "SchemaVersion": "1.1", "DatastoreID": STORE_ID, "ImageSetID": image_set.id,
        "Patient": {"DICOM": patient},
        "Study": {"DICOM": study, "Series": {first.SeriesInstanceUID: {"DICOM": series, "Instances": instances}}},
    }  # fmt: skip


def _frames(image_set: ImageSet, uid: str, data_set: pydicom.Dataset) -> list[dict[str, object]]:
    """What is said of the frames of an image, which the image set has from then on; nothing of native ones."""
    if not data_set.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in data_set:
        return []
    streams = {
        hashlib.sha256(f"{image_set.id} {uid} {number}".encode()).hexdigest()[:32]: octets
        for number, octets in enumerate(htj2k.streams(data_set))
    }
    image_set.frames.update(streams)
    return [
        {"ID": name, "FrameSizeInBytes": len(octets), "MinPixelValue": 0, "MaxPixelValue": 127,
         "PixelDataChecksumFromBaseToFullResolution": [{"Width": 8, "Height": 8, "Checksum": 2510355201}]}
        for name, octets in streams.items()
    ]  # fmt: skip


def _object(data_set: pydicom.Dataset) -> dict[str, Any]:
    found = {}
    for element in data_set:
        if element.tag != 0x7FE00010:
            is_repeated = element.tag.group >> 8 in (0x50, 0x60)  # whose keywords do not tell the group
            name = "" if is_repeated else keyword_for_tag(element.tag)
            found[name or f"{element.tag:08X}"] = _value(element)
    return found


def _value(element: pydicom.DataElement) -> Any:
    if element.VR == "SQ":
        return [_object(item) for item in element.value]
    if element.is_empty:
        return None
    if isinstance(element.value, bytes):
        return b64encode(element.value).decode()
    several = list(element.value) if element.VM > 1 else [element.value]
    if element.VR not in ("US", "SS", "UL", "SL", "FL", "FD"):
        several = [str(each) for each in several]
        several[-1] += " " * (len("\\".join(several)) % 2)
    return several if element.VM > 1 else several[0]
