"""Which attributes of an instance are remembered, by the level that they belong to, and their plain values.

Owns that list, and the bounds of one value. Refuses to keep pixel data, sequences and long text: what an instance costs
to remember does not depend on what its file says.
"""

from collections.abc import Mapping

from dcmsync.wire import dataset
from dcmsync.wire.source import Values

MAX_TEXT = 256  # characters of one kept value; no VR of the attributes below promises more than 64
MAX_VALUES = 32  # values of one attribute

PATIENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientBirthTime", "IssuerOfPatientID",
    "OtherPatientIDs", "OtherPatientNames", "EthnicGroup",
)  # fmt: skip
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription", "PatientAge",
    "PatientSize", "PatientWeight",
)  # fmt: skip
SERIES = (
    "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime",
    "BodyPartExamined", "ProtocolName", "Laterality", "PatientPosition", "FrameOfReferenceUID", "OperatorsName",
    "PerformingPhysicianName", "StationName", "Manufacturer", "ManufacturerModelName", "InstitutionName",
    "InstitutionalDepartmentName", "PerformedProcedureStepID", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime", "PerformedProcedureStepDescription", "SequenceName", "SoftwareVersions",
    "DeviceSerialNumber",
)  # fmt: skip
IMAGE = (
    "InstanceNumber", "ImageType", "ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime",
    "AcquisitionNumber", "Rows", "Columns", "NumberOfFrames", "SliceLocation",
)  # fmt: skip

KEYWORDS = frozenset((*PATIENT, *STUDY, *SERIES, *IMAGE)) - {"StudyInstanceUID", "SeriesInstanceUID"}
"""The attributes; UIDs are kept for themselves."""

TAGS = frozenset(dataset.tag_of(keyword) for keyword in KEYWORDS) | {
    dataset.SPECIFIC_CHARACTER_SET
}
"""What a walk must bring for `plain_values`."""


def plain_values(values: Values, transfer_syntax_uid: str) -> Mapping[str, object]:
    """Keyword -> plain value of what is short enough to keep, and of the kind that PS3.6 promises."""
    decoded = dataset.decode_values(values, transfer_syntax_uid)
    return {keyword: value for keyword, value in decoded.items() if keyword in KEYWORDS and _is_fit(keyword, value)}


def _is_fit(keyword: str, value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_VALUES and all(_is_fit(keyword, item) for item in value)
    if isinstance(value, str):
        return len(value) <= MAX_TEXT and keyword not in ("Rows", "Columns")
    return isinstance(value, int | float)
