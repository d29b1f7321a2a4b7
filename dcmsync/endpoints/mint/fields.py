"""What MINT can be asked for: which attributes each level tells, and by which it chooses. A table.

Source: the search of Vitrea Connection 8.2 and 9.2; what stands at a level is told at the deeper ones, too.
"""

from dcmsync.contract import Level

_STUDY = (
    "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientName", "PatientSex",
    "PatientBirthDate", "PatientBirthTime", "StudyInstanceUID", "AccessionNumber", "IssuerOfAccessionNumberSequence",
    "StudyID", "StudyDate", "StudyTime", "ModalitiesInStudy", "ReferringPhysicianName", "RequestedProcedureID",
    "StudyDescription", "InstanceAvailability", "InstitutionName", "StudyStatusID", "ConfidentialityCode",
    "ProcedureCodeSequence", "ReasonForPerformedProcedureCodeSequence", "OtherPatientIDsSequence",
    "InstitutionalDepartmentName", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "SOPClassesInStudy",
    "CurrentPatientLocation", "SourceApplicationEntityTitle",
)  # fmt: skip
_SERIES = (
    "SeriesInstanceUID", "Modality", "SeriesDate", "SeriesTime", "SeriesDescription", "Laterality",
    "AnatomicRegionSequence", "BodyPartExamined", "FrameOfReferenceUID", "PerformedProcedureStepDescription",
    "ProtocolName", "PerformingPhysicianName", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
    "OperatorsName", "PerformedProcedureStepStatus", "PresentationIntentType", "SeriesNumber", "SeriesType",
    "SmallestPixelValueInSeries", "SpatialResolution", "NumberOfSeriesRelatedInstances", "Manufacturer",
    "ManufacturerModelName", "CorrectedImage", "DeviceSerialNumber", "InstitutionAddress", "SoftwareVersions",
    "StationName", "DateOfLastCalibration", "TimeOfLastCalibration",
)  # fmt: skip
_INSTANCE = (
    "SOPInstanceUID", "SOPClassUID", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "ContentDate", "ContentTime",
    "ObservationDateTime", "ConceptNameCodeSequence", "ContentLabel", "ContentDescription", "PresentationCreationDate",
    "PresentationCreationTime", "ContentCreatorName", "RetrieveURI", "TransferSyntaxUID", "InstanceNumber",
    "PixelPaddingValue",
)  # fmt: skip

TOLD = {
    Level.STUDY: frozenset(_STUDY),
    Level.SERIES: frozenset((*_STUDY, *_SERIES)),
    Level.INSTANCE: frozenset((*_STUDY, *_SERIES, *_INSTANCE)),
}
"""The values of IncludeFields, by level."""
CHOOSING = frozenset((
    "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "PatientID", "PatientName", "PatientSex",
    "PatientBirthDate", "ModalitiesInStudy", "StudyDescription", "SeriesDescription", "InstitutionName",
    "InstitutionalDepartmentName",
))  # fmt: skip
"""The parameters that choose, one value each, with `*` in it; and for StudyDate there are two."""
