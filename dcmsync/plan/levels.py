"""Which level an attribute belongs to, and what to ask for at each (PS3.4 §C.6).

Owns the words of a query: KEY=VALUE and bare KEY, the level that they imply, the asks of a strictly hierarchical walk.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from dcmsync.contract import PATIENT_KEYWORDS, Attributes, Level
from dcmsync.errors import UsageError

STUDY_KEYS = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyDescription", "StudyID", "AccessionNumber", "ModalitiesInStudy", "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)  # fmt: skip
PATIENT_KEYS = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances",
)  # fmt: skip
SERIES_KEYS = (
    "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime",
    "NumberOfSeriesRelatedInstances",
)  # fmt: skip
INSTANCE_KEYS = ("SOPInstanceUID", "SOPClassUID", "InstanceNumber")
DEFAULT_KEYS = {
    Level.PATIENT: PATIENT_KEYS,
    Level.STUDY: STUDY_KEYS,
    Level.SERIES: SERIES_KEYS,
    Level.INSTANCE: INSTANCE_KEYS,
}

_AT_SERIES = frozenset((
    *SERIES_KEYS, "BodyPartExamined", "ProtocolName", "Laterality", "PatientPosition", "FrameOfReferenceUID",
    "OperatorsName", "PerformingPhysicianName", "StationName", "Manufacturer", "ManufacturerModelName",
    "InstitutionName", "InstitutionalDepartmentName", "PerformedProcedureStepID", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime", "PerformedProcedureStepDescription", "SequenceName", "ContrastBolusAgent",
    "CardiacNumberOfImages", "ImagesInAcquisition", "NumberOfTemporalPositions", "NumberOfSlices",
    "SmallestPixelValueInSeries", "LargestPixelValueInSeries", "SoftwareVersions", "DeviceSerialNumber",
))  # fmt: skip
_AT_INSTANCE = frozenset((
    *INSTANCE_KEYS, "TransferSyntaxUID", "AvailableTransferSyntaxUID", "ImageType", "ContentDate", "ContentTime",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "AcquisitionNumber", "InstanceCreationDate",
    "InstanceCreationTime", "InstanceCreatorUID", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored",
    "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing", "SliceThickness", "SliceLocation",
    "ImagePositionPatient", "ImageOrientationPatient", "ImageComments", "ImageIndex", "TemporalPositionIdentifier",
    "EchoTime", "RepetitionTime", "InversionTime", "EchoNumbers", "FlipAngle", "KVP", "ExposureTime", "WindowCenter",
    "WindowWidth", "ConceptNameCodeSequence", "CompletionFlag", "VerificationFlag", "ContentLabel",
    "ContentDescription", "PresentationCreationDate", "NumberOfReferences",
))  # fmt: skip


class Query(Struct, frozen=True, kw_only=True):
    """What to find: things of `level` that match `keys`; `wanted` comes back besides the usual."""

    level: Level
    keys: Mapping[str, str]
    wanted: tuple[str, ...] = ()
    usual: bool = True


def patient_of(attributes: Attributes) -> str:
    """The PatientID that a thing is known by; "" where that is not one value."""
    patient_id = attributes.get("PatientID")
    return patient_id if isinstance(patient_id, str) else ""


def level_of(keyword: str) -> Level:
    """The level that an attribute belongs to. Patients' and unknown attributes are asked of studies."""
    if keyword in _AT_INSTANCE:
        return Level.INSTANCE
    return Level.SERIES if keyword in _AT_SERIES else Level.STUDY


def is_key(word: str) -> bool:
    """Whether a word of a command line is KEY=VALUE rather than a place."""
    keyword, separator, _ = word.partition("=")
    return bool(separator) and _is_keyword(keyword)


def read_words(words: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """KEY=VALUE -> what must match; bare KEY -> what is wanted back. Raises UsageError."""
    keys: dict[str, str] = {}
    wanted: list[str] = []
    for word in words:
        keyword, separator, value = word.partition("=")
        if not _is_keyword(keyword):
            advice = "Write KEY=VALUE or KEY, with a DICOM keyword such as StudyDate"
            raise UsageError(f"{word!r} is no key", advice=advice)
        if value != value.encode("utf-8", "replace").decode("utf-8"):  # octets of the command line that are no UTF-8
            raise UsageError(f"the value of {keyword} is no UTF-8 text", advice="Set LC_ALL or the terminal to UTF-8")
        if keyword in keys:
            raise UsageError(f"{keyword} is asked for twice", advice="Run two queries, or give UIDs as KEY=A,B")
        if separator and value:
            keys[keyword] = value
        else:
            wanted.append(keyword)
    return keys, wanted


def _is_keyword(word: str) -> bool:
    return word.isidentifier() or (len(word) == 8 and word.isalnum())


def deepest(keywords: Iterable[str]) -> Level:
    """The deepest level that any of the keywords belongs to."""
    return max((level_of(keyword) for keyword in keywords), default=Level.STUDY)


def check(keys: Iterable[str], level: Level) -> None:
    """Refuses keys that belong deeper than the level that is asked for. Raises UsageError."""
    for keyword in keys:
        own = level_of(keyword)
        if level is Level.PATIENT and keyword in PATIENT_KEYWORDS:
            continue
        if own > level:
            instead = ", or for ModalitiesInStudy" if keyword == "Modality" else ""
            raise UsageError(
                f"{keyword} belongs to {own.word} level and cannot choose at {level.word} level",
                advice=f"Ask with --level {own.word}{instead}",
            )


def keys_at(query: Query, level: Level) -> dict[str, str]:
    """The matching keys of a query that belong to one level. Those of patients belong to studies, too."""
    return {keyword: value for keyword, value in query.keys.items() if _is_at(keyword, level)}


def wanted_at(query: Query, level: Level) -> tuple[str, ...]:
    """What to ask back at one level: the usual attributes, and those of `wanted` that belong there."""
    usual: Sequence[str] = DEFAULT_KEYS[level] if query.usual else (level.unique_key,)
    more = (keyword for keyword in query.wanted if _is_at(keyword, level))
    return tuple(dict.fromkeys((*usual, *more)))


def _is_at(keyword: str, level: Level) -> bool:
    return keyword in PATIENT_KEYWORDS if level is Level.PATIENT else level_of(keyword) == level


def uids(value: str) -> list[str]:
    """The UIDs of a list, with `\\` or `,` between them. Many servers take one at a time only, so we ask one by one."""
    return [uid for uid in value.replace(",", "\\").split("\\") if uid]
