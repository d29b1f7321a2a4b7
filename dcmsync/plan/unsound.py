"""What a local place holds that is no whole instance, and what is said of it.

Owns which of it may belong to a question, and the outcome record of each. Refuses to count it as anything: it is there,
and nobody can rely on it. A file that is no DICOM at all is no trouble; every tree has some.
"""

from collections.abc import Mapping

from dcmsync.contract import Holding
from dcmsync.plan.match import matcher, vr_of
from dcmsync.records.paths import path_keys

_UIDS = {"StudyInstanceUID": "study_uid", "SeriesInstanceUID": "series_uid", "SOPInstanceUID": "sop_instance_uid"}
_UNIDENTIFIED = "the data set does not say which instance it is"


def is_trouble(holding: Holding) -> bool:
    """Whether somebody should look at that file."""
    return holding.state != "not dicom" and not holding.is_instance


def may_be_meant(holding: Holding, keys: Mapping[str, str]) -> bool:
    """Whether nothing that is known of the file says that it does not match `keys`; little may be known."""
    for keyword, pattern in keys.items():
        if keyword in _UIDS:
            value: object = getattr(holding, _UIDS[keyword])
        else:
            value = holding.attributes.get("Modality" if keyword == "ModalitiesInStudy" else keyword)
        if pattern and value and not matcher(pattern.replace(",", "\\") if keyword in _UIDS else pattern,
                                             vr_of(keyword))(value):
            return False
    return True


def outcome(holding: Holding, source: str) -> dict[str, object]:
    """The record of a file that is trouble. UIDs are there as far as they are known."""
    uids = {keyword: value for keyword, name in _UIDS.items() if (value := getattr(holding, name))}
    is_whole = holding.state == "whole"
    return {
        "type": "outcome",
        "level": "instance",
        "outcome": "failed",
        **uids,
        "source": source,
        **path_keys(holding.path),
        "size": holding.stamp.size,
        "reason": "unidentified" if is_whole else holding.state,
        "message": holding.reason or _UNIDENTIFIED if is_whole else holding.reason or holding.state,
        "retry": False,
    }
