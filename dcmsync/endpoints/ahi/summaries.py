"""What a search of image sets tells: their summaries, and the studies and patients that they add up to.

An image set holds one series, or a part of one. The primary ones form the studies of a data store; what contradicts
them (another PatientID in the same study) stands apart, in image sets that are not primary.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

_ID = re.compile(r"[0-9a-z]{32}")
_PATIENT = {
    "PatientID": "DICOMPatientId",
    "PatientName": "DICOMPatientName",
    "PatientBirthDate": "DICOMPatientBirthDate",
    "PatientSex": "DICOMPatientSex",
}
_STUDY = {
    "StudyInstanceUID": "DICOMStudyInstanceUID",
    "StudyDate": "DICOMStudyDate",
    "StudyTime": "DICOMStudyTime",
    "StudyDescription": "DICOMStudyDescription",
    "StudyID": "DICOMStudyId",
    "AccessionNumber": "DICOMAccessionNumber",
}
_COUNTS = {
    "NumberOfStudyRelatedSeries": "DICOMNumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances": "DICOMNumberOfStudyRelatedInstances",
}
TOLD_OF_STUDIES = frozenset((*_PATIENT, *_STUDY, *_COUNTS, "ModalitiesInStudy"))
"""What summaries tell of a study; of anything else, the metadata does."""


class ImageSet(
    Struct, frozen=True, rename={"image_set_id": "imageSetId", "is_primary": "isPrimary", "tags": "DICOMTags"}
):
    """One image set, as a search tells of it. Stores older than the distinction do not tell `is_primary`."""

    image_set_id: str
    version: int = 1
    is_primary: bool | None = None
    tags: dict[str, str | int | float | None] = {}

    @property
    def is_apart(self) -> bool:
        """Whether it contradicts the primary ones, and is no part of their studies."""
        return self.is_primary is False

    @property
    def study_uid(self) -> str:
        """Its Study Instance UID."""
        return self.text("DICOMStudyInstanceUID")

    @property
    def series_uid(self) -> str:
        """Its Series Instance UID; "" where the search does not tell."""
        return self.text("DICOMSeriesInstanceUID")

    def text(self, name: str) -> str:
        """One of its tags, without padding; "" where it has none."""
        value = self.tags.get(name)
        return "" if value is None else str(value).strip(" \0")


class Page(Struct, frozen=True, rename={"image_sets": "imageSetsMetadataSummaries", "next_token": "nextToken"}):
    """One page of a search. The last one has no token."""

    image_sets: list[ImageSet]
    next_token: str | None = None


def is_id(text: str) -> bool:
    """Whether a data store or an image set can be called that."""
    return _ID.fullmatch(text) is not None


def patient(image_set: ImageSet) -> dict[str, object]:
    """What is known of the patient."""
    return _told(image_set, _PATIENT)


class Studies:
    """Studies as their image sets tell of them, one after the other; a few hundred octets a study."""

    def __init__(self) -> None:
        self._studies: dict[str, _Study] = {}

    def add(self, image_set: ImageSet) -> None:
        """Another image set. What a primary one says of its study goes before what others say."""
        if not image_set.study_uid:
            return
        study = self._studies.setdefault(image_set.study_uid, _Study(first=image_set))
        if study.first.is_apart and not image_set.is_apart:
            study.first = image_set
        study.has_apart = study.has_apart or image_set.is_apart
        modality = image_set.text("DICOMSeriesModality")
        if modality and modality not in study.modalities:
            study.modalities = tuple(sorted((*study.modalities, modality)))

    def __iter__(self) -> Iterator[tuple[ImageSet, dict[str, object]]]:
        """Each study with the image set that speaks for it, in the order in which they came."""
        for study in self._studies.values():
            attributes = {**_told(study.first, _PATIENT), **_told(study.first, _STUDY)}
            if study.modalities:
                attributes["ModalitiesInStudy"] = list(study.modalities)
            for keyword, name in _COUNTS.items():
                count = study.first.tags.get(name)
                if isinstance(count, int) and not study.has_apart:  # whether those are counted is not known
                    attributes[keyword] = count
            yield study.first, attributes


class _Study(Struct):
    first: ImageSet
    modalities: tuple[str, ...] = ()
    has_apart: bool = False


def _told(image_set: ImageSet, names: Mapping[str, str]) -> dict[str, object]:
    return {keyword: text for keyword, name in names.items() if (text := image_set.text(name))}
