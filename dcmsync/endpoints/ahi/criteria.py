"""What a search of image sets is narrowed by: of the keys of a question, the two that leave least.

SearchImageSets takes two filters at most, equality of a few attributes or a range of dates, and no wildcards. What is
not said here is matched by whoever asks, over what the answers tell; so a filter may be too wide, never too narrow.
"""

import re
from collections.abc import Mapping

MOST_FILTERS = 2
_EQUAL = {  # in the order of how little each leaves
    "SeriesInstanceUID": "DICOMSeriesInstanceUID",
    "StudyInstanceUID": "DICOMStudyInstanceUID",
    "AccessionNumber": "DICOMAccessionNumber",
    "PatientID": "DICOMPatientId",
    "StudyID": "DICOMStudyId",
}
_WILD = frozenset("*?\\")
_DAYS = re.compile(r"(\d{8})?(-)?(\d{8})?")
_FIRST_DAY, _LAST_DAY = "18500101", "99991231"
_FIRST_TIME, _LAST_TIME = "000000", "235959.999999"


def criteria(keys: Mapping[str, str]) -> dict[str, object]:
    """The body of a search. Oldest first: what comes in while pages are turned comes at the end."""
    filters = [
        {"values": [{name: keys[keyword]}], "operator": "EQUAL"}
        for keyword, name in _EQUAL.items()
        if keys.get(keyword) and not _WILD & set(keys[keyword])
    ]
    days = _days(keys.get("StudyDate", ""))
    if days is not None:
        first, last = (
            {"DICOMStudyDateAndTime": {"DICOMStudyDate": day, "DICOMStudyTime": time}}
            for day, time in zip(days, (_FIRST_TIME, _LAST_TIME), strict=True)
        )
        filters.append({"values": [first, last], "operator": "BETWEEN"})
    asked: dict[str, object] = {"filters": filters[:MOST_FILTERS]} if filters else {}
    return {**asked, "sort": {"sortField": "createdAt", "sortOrder": "ASC"}}


def _days(asked: str) -> tuple[str, str] | None:
    """The first and the last day of a range or a date; None where nothing narrows it."""
    match = _DAYS.fullmatch(asked)
    if match is None or not (match[1] or match[3]):
        return None
    if not match[2]:
        return (match[1], match[1]) if match[1] and not match[3] else None
    return match[1] or _FIRST_DAY, match[3] or _LAST_DAY
