"""The records of format 1: what may be said on the pipe.

Keys in CamelCase are DICOM keywords (PS3.6); keys in lower case are ours. A record may carry more DICOM keywords
than are named here; readers keep the line, so nothing is lost. Unknown counts are absent, never zero.

An attribute that has one value by PS3.6 is a string, unless its source gave several: then it is an array, as any
attribute of several values. UIDs are always one.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

FORMAT = 1

Change = Literal["missing", "differs", "extra", "same"]
Result = Literal["stored", "present", "failed", "conflict", "skipped", "deleted"]
LevelWord = Literal["study", "series", "instance"]
Text = str | UnsetType
Number = int | UnsetType
Texts = str | list[str] | UnsetType


class Patient(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="patient"):
    """One patient, as a source knows it. Counts are the source's own claim. Names no instances: it is no work."""

    source: Text = UNSET
    PatientID: Texts = UNSET
    IssuerOfPatientID: Texts = UNSET
    PatientName: Texts = UNSET
    PatientBirthDate: Texts = UNSET
    PatientSex: Texts = UNSET
    NumberOfPatientRelatedStudies: Number = UNSET
    NumberOfPatientRelatedSeries: Number = UNSET
    NumberOfPatientRelatedInstances: Number = UNSET


class _Thing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What study, series and instance records share. `source` is the locator of the place that holds the thing."""

    StudyInstanceUID: str
    source: Text = UNSET
    change: Change | UnsetType = UNSET
    PatientID: Texts = UNSET
    PatientName: Texts = UNSET
    PatientBirthDate: Texts = UNSET
    PatientSex: Texts = UNSET
    StudyDate: Texts = UNSET
    StudyTime: Texts = UNSET
    StudyDescription: Texts = UNSET
    StudyID: Texts = UNSET
    AccessionNumber: Texts = UNSET


class Study(_Thing, frozen=True, kw_only=True, omit_defaults=True, tag="study"):
    """One study. Counts are the source's own claim."""

    ModalitiesInStudy: Texts = UNSET
    NumberOfStudyRelatedSeries: Number = UNSET
    NumberOfStudyRelatedInstances: Number = UNSET


class Series(_Thing, frozen=True, kw_only=True, omit_defaults=True, tag="series"):
    """One series, with what is known of its study and patient."""

    SeriesInstanceUID: str
    Modality: Texts = UNSET
    SeriesNumber: Number = UNSET
    SeriesDescription: Texts = UNSET
    SeriesDate: Texts = UNSET
    SeriesTime: Texts = UNSET
    NumberOfSeriesRelatedInstances: Number = UNSET


class Instance(_Thing, frozen=True, kw_only=True, omit_defaults=True, tag="instance"):
    """One instance; `path`, `size` (octets), `digest` and `content` where its file is known."""

    SeriesInstanceUID: str
    SOPInstanceUID: str
    Modality: Texts = UNSET
    SeriesNumber: Number = UNSET
    InstanceNumber: Number = UNSET
    SOPClassUID: Text = UNSET
    TransferSyntaxUID: Text = UNSET
    path: Text = UNSET
    size: Number = UNSET
    digest: Text = UNSET
    content: Text = UNSET


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="outcome"):
    """What happened to one thing. Fed back into `pull` or `push`, a failed one is work.

    A series outcome carries counts of its instances by result. `reason` is a word for programs, `message` one for
    people, `status` the DIMSE status as 0xA700 or that of HTTP as 404, `retry` whether trying again may help.
    """

    level: LevelWord
    outcome: Result
    StudyInstanceUID: Text = UNSET
    SeriesInstanceUID: Text = UNSET
    SOPInstanceUID: Text = UNSET
    SOPClassUID: Text = UNSET
    TransferSyntaxUID: Text = UNSET
    PatientID: Texts = UNSET
    source: Text = UNSET
    destination: Text = UNSET
    path: Text = UNSET
    size: Number = UNSET
    digest: Text = UNSET
    content: Text = UNSET
    reason: Text = UNSET
    message: Text = UNSET
    status: Text = UNSET
    retry: bool | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET
    instances: Number = UNSET
    stored: Number = UNSET
    present: Number = UNSET
    failed: Number = UNSET
    conflict: Number = UNSET
    skipped: Number = UNSET
    original: Text = UNSET


class End(Struct, frozen=True, kw_only=True, omit_defaults=False, tag="end"):
    """The last line of every stream. `complete` is false when the producer knows that something is lacking."""

    format: int = FORMAT
    complete: bool = True
    records: int = 0
    reason: Text = UNSET
    splits: Number = UNSET


Record = Patient | Study | Series | Instance | Outcome | End
