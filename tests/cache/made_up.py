"""What the tests of the cache share: holdings made up from numbers, and what a store says of them."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dcmsync.cache.store import Store, open_store
from dcmsync.contract import Ask, Attributes, Holding, Level, Stamp

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
OF_STUDIES = ("PatientID", "StudyDescription", "ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries",
              "NumberOfStudyRelatedInstances")  # fmt: skip
OF_SERIES = ("PatientID", "Modality", "SeriesNumber", "NumberOfSeriesRelatedInstances")
OF_INSTANCES = ("PatientID", "Modality", "InstanceNumber", "SOPClassUID")


def holding(study: int = 1, series: int = 1, instance: int = 1, **more: object) -> Holding:
    """A CT image; `path`, `modality` and whatever a Holding has may be said otherwise."""
    modality = more.pop("modality", "CT")
    attributes = {
        "PatientID": f"P{study}",
        "StudyDescription": f"study {study}",
        "StudyDate": f"202401{study:02d}",
        "Modality": modality,
        "SeriesNumber": series,
        "InstanceNumber": instance,
        "ImageType": ["ORIGINAL", "PRIMARY"],
    }
    values: dict[str, object] = {
        "path": f"{study}/{series}/{instance}.dcm",
        "stamp": Stamp(size=1000 + instance, mtime_ns=1_700_000_000_000_000_001, device=1, inode=instance),
        "state": "whole",
        "study_uid": f"1.{study}",
        "series_uid": f"1.{study}.{series}",
        "sop_instance_uid": f"1.{study}.{series}.{instance}",
        "sop_class_uid": CT,
        "transfer_syntax_uid": EXPLICIT,
        "data_set_offset": 300,
        "attributes": attributes,
        "digest": f"{instance:032x}",
    }
    return Holding(**{**values, **more})  # type: ignore[arg-type]


def many(studies: int = 2, series: int = 2, instances: int = 3) -> list[Holding]:
    """Some of each."""
    return [
        holding(study, number, instance)
        for study in range(1, studies + 1)
        for number in range(1, series + 1)
        for instance in range(1, instances + 1)
    ]


def opened(root: Path, path: Path | None, warn: Callable[[str], object] = pytest.fail) -> Store:
    """The cache of `root` at `path`, or tables of its own. Nothing is to be warned of, unless the test listens."""
    return open_store(str(root), named=str(path) if path else None, folder=None, warn=warn)


def everything(store: Store) -> list[Attributes]:
    """What a store answers, at every level."""
    studies = list(store.find(Ask(level=Level.STUDY, keys={}, wanted=OF_STUDIES)))
    found = list(studies)
    for study in studies:
        keys = {"StudyInstanceUID": str(study["StudyInstanceUID"])}
        for series in store.find(Ask(level=Level.SERIES, keys=keys, wanted=OF_SERIES)):
            found.append(series)
            deeper = {**keys, "SeriesInstanceUID": str(series["SeriesInstanceUID"])}
            found.extend(store.find(Ask(level=Level.INSTANCE, keys=deeper, wanted=OF_INSTANCES)))
    return found


def bring_up_to_date(store: Store, truth: Iterable[Holding]) -> None:
    """What taking stock does: what is remembered with another stamp, or not at all, is remembered anew."""
    held = dict(store.stamps())
    true = {each.path: each for each in truth}
    store.forget([path for path in held if path not in true])
    store.remember([each for path, each in true.items() if held.get(path) != each.stamp])


def sides(path: Path) -> list[Path]:
    """The file and what SQLite keeps beside it, as far as they are there."""
    return [each for end in ("", "-wal", "-shm", "-journal", "-seal") if (each := Path(f"{path}{end}")).exists()]


def scribble(path: Path, offset: int, octets: bytes) -> None:
    """Overwrites a part of a file in place."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, octets, offset)
    finally:
        os.close(descriptor)
