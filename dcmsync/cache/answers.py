"""What the remembered files of a place answer to a query, as a PACS would (PS3.4 §C.4.1).

Owns the hierarchy, the matching, and what is said of a study, a series and an instance. Refuses to know where files are
remembered: shelves give them, in the order of UIDs.

Theory of operation. A study says what the first of its series says, in the order of UIDs, and of a series what comes
first in the order of text; what one lacks is taken from the next. So the answer depends on what is there, and not on
the order in which it came. An instance that is there in two files is one answer, the first by path.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from dcmsync.cache.rows import Kind, attributes_of
from dcmsync.contract import PATIENT_KEYWORDS, Ask, Attributes, Level
from dcmsync.plan.match import Judge, matcher, vr_of
from dcmsync.records.paths import path_keys
from dcmsync.wire import keywords

_OF_STUDIES = frozenset((*keywords.PATIENT, *keywords.STUDY))
_COUNTS_OF_STUDIES = frozenset(
    ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "ModalitiesInStudy", "SOPClassesInStudy")
)
_COUNTS_OF_PATIENTS = {
    "NumberOfPatientRelatedStudies": "",
    "NumberOfPatientRelatedSeries": "NumberOfStudyRelatedSeries",
    "NumberOfPatientRelatedInstances": "NumberOfStudyRelatedInstances",
}


class Series(NamedTuple):
    """One series that has instances; `number` is its row."""

    number: int
    uid: str
    instances: int


class File(NamedTuple):
    """One file that is a whole instance. `attributes` is JSON, `kind_id` the row of what it shares with others."""

    path: bytes
    size: int
    sop_instance_uid: str
    attributes: str
    digest: bytes | None
    content: bytes | None
    kind_id: int


class Shelves(Protocol):
    """Where the files are."""

    def studies(self) -> Iterator[str]:
        """The UIDs of all studies, ascending."""

    def series(self, study_uid: str) -> Iterator[Series]:
        """The series of a study that have instances, by UID."""

    def one_series(self, study_uid: str, series_uid: str) -> Series | None:
        """A series, if it has instances."""

    def kinds(self, series: int) -> Iterator[Kind]:
        """What the instances of a series share, in the order of the text."""

    def kind(self, number: int) -> Kind:
        """One of them."""

    def files(self, series: int) -> Iterator[File]:
        """The instances of a series, by UID and path."""


class _Shared:
    """What the instances of one or more series have in common."""

    def __init__(self) -> None:
        self.attributes: dict[str, object] = {}
        self.modalities: set[str] = set()
        self.sop_classes: set[str] = set()

    def add(self, kinds: Iterable[Kind]) -> None:
        """Takes in what comes after all that is there."""
        for kind in kinds:
            for keyword, value in attributes_of(kind.attributes).items():
                self.attributes.setdefault(keyword, value)
            self.modalities.add(kind.modality)
            self.sop_classes.add(kind.sop_class_uid)


class _Asked:
    """What an ask is about, ready to judge and to describe."""

    def __init__(self, ask: Ask) -> None:
        self.names = frozenset((*ask.keys, *ask.wanted))
        self._judges: Mapping[str, Judge] = {
            keyword: matcher(pattern, vr_of(keyword)) for keyword, pattern in ask.keys.items() if pattern
        }

    def describe(self, known: Attributes) -> dict[str, object] | None:
        """What was asked for of what is known; None when that does not match."""
        if all(judge(known.get(keyword)) for keyword, judge in self._judges.items()):
            return {keyword: value for keyword, value in known.items() if keyword in self.names}
        return None


def answers(ask: Ask, shelves: Shelves) -> Iterator[Attributes]:
    """The answers, by UID."""
    asked = _Asked(ask)
    if ask.level is Level.PATIENT:
        yield from _patients(asked, shelves)
        return
    pattern = ask.keys.get("StudyInstanceUID", "")
    for study_uid in _listed(pattern) or filter(matcher(pattern, "UI"), shelves.studies()):
        if ask.level is Level.STUDY:
            known = _study(study_uid, shelves)
            described = known and asked.describe(known)
            if described is not None and known:
                yield {"StudyInstanceUID": study_uid, **described}
        else:
            yield from _below(ask, asked, study_uid, shelves)


def _patients(asked: _Asked, shelves: Shelves) -> Iterator[Attributes]:
    """The patients, by ID and who issued it. Of one that several studies tell of, the first study's word is told."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for study_uid in shelves.studies():
        study = _study(study_uid, shelves)
        if not study:
            continue
        known = {keyword: value for keyword, value in study.items() if keyword in PATIENT_KEYWORDS}
        key = str(known.get("PatientID", "")), str(known.get("IssuerOfPatientID", ""))
        patient = found.setdefault(key, {"PatientID": "", **dict.fromkeys(_COUNTS_OF_PATIENTS, 0)})
        for keyword, value in known.items():
            patient[keyword] = patient.get(keyword) or value
        for keyword, counted in _COUNTS_OF_PATIENTS.items():
            patient[keyword] += study[counted] if counted else 1
    for key in sorted(found):
        described = asked.describe(found[key])
        if described is not None:
            yield {"PatientID": key[0], **described}


def _below(ask: Ask, asked: _Asked, study_uid: str, shelves: Shelves) -> Iterator[Attributes]:
    """The answers at series or instance level that lie in one study."""
    study = _study(study_uid, shelves) if asked.names & _COUNTS_OF_STUDIES else {"StudyInstanceUID": study_uid}
    for series in _series(ask.keys.get("SeriesInstanceUID", ""), study_uid, shelves):
        known = {**study, "SeriesInstanceUID": series.uid, "NumberOfSeriesRelatedInstances": series.instances}
        if ask.level is Level.INSTANCE:
            yield from _instances(asked, known, series, shelves)
            continue
        shared = _Shared()
        shared.add(shelves.kinds(series.number))
        described = asked.describe({**shared.attributes, **known})
        if described is not None:
            yield {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series.uid, **described}


def _study(study_uid: str, shelves: Shelves) -> dict[str, object]:
    """What is known of a study; nothing when it has no instances."""
    shared, series, instances = _Shared(), 0, 0
    for each in shelves.series(study_uid):
        series += 1
        instances += each.instances
        shared.add(shelves.kinds(each.number))
    if not series:
        return {}
    return {
        **{keyword: value for keyword, value in shared.attributes.items() if keyword in _OF_STUDIES},
        "StudyInstanceUID": study_uid,
        "ModalitiesInStudy": sorted(shared.modalities - {""}),
        "SOPClassesInStudy": sorted(shared.sop_classes - {""}),
        "NumberOfStudyRelatedSeries": series,
        "NumberOfStudyRelatedInstances": instances,
    }


def _instances(asked: _Asked, above: Attributes, series: Series, shelves: Shelves) -> Iterator[Attributes]:
    # hot: see tests/cache; one dict of what the kind says is made for all files of that kind
    latest = ""
    number, alike = -1, dict(above)
    for file in shelves.files(series.number):
        if file.sop_instance_uid == latest:
            continue
        latest = file.sop_instance_uid
        if file.kind_id != number:
            number, alike = file.kind_id, _alike(above, shelves.kind(file.kind_id))
        described = asked.describe({**alike, **attributes_of(file.attributes), "SOPInstanceUID": latest})
        if described is not None:
            yield {
                "StudyInstanceUID": above["StudyInstanceUID"],
                "SeriesInstanceUID": above["SeriesInstanceUID"],
                "SOPInstanceUID": latest,
                "TransferSyntaxUID": alike["TransferSyntaxUID"],
                **described,
                **_file(file),
            }


def _alike(above: Attributes, kind: Kind) -> dict[str, object]:
    return {
        **attributes_of(kind.attributes),
        "SOPClassUID": kind.sop_class_uid,
        "TransferSyntaxUID": kind.transfer_syntax_uid,
        "AvailableTransferSyntaxUID": kind.transfer_syntax_uid,
        **above,
    }


def _file(file: File) -> dict[str, object]:
    """The keys of our own."""
    said: dict[str, object] = {**path_keys(os.fsdecode(file.path)), "size": file.size}
    if file.digest is not None:
        said["digest"] = f"xxh3:{file.digest.hex()}"
    if file.content is not None:
        said["content"] = f"xxh3:{file.content.hex()}"
    return said


def _series(pattern: str, study_uid: str, shelves: Shelves) -> Iterator[Series]:
    """The series of a study that a key chooses, by UID."""
    uids = _listed(pattern)
    if uids:
        return (series for uid in uids if (series := shelves.one_series(study_uid, uid)) is not None)
    is_chosen = matcher(pattern, "UI")
    return (series for series in shelves.series(study_uid) if is_chosen(series.uid))


def _listed(pattern: str) -> list[str]:
    """The UIDs that a key lists, ascending; none when it is a wildcard, or nothing."""
    if "*" in pattern or "?" in pattern:
        return []
    return sorted({uid.strip(" \0") for uid in pattern.split("\\")} - {""})
