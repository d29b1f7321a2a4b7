"""Which attributes of an instance are remembered, by the level that they belong to (PS3.4 §C.6). Nothing else."""

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
