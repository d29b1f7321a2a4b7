"""A small archive to try things on: what pydicom ships, and a few series made on the spot.

Owns what is in it. Copied files stay as they are, under their own names; of those with one SOP Instance UID the first
is taken, and none that is cut short or says too little of itself to be asked for. Refuses to fetch anything from
anywhere.
"""

import os
import shutil
import struct
from importlib.util import find_spec
from uuid import UUID, uuid5

from msgspec import Struct

from dcmsync.endpoints.folder.scan import Found, scan
from dcmsync.wire.codings import EXPLICIT_LITTLE
from dcmsync.wire.dataset import encode_identifier
from dcmsync.wire.part10 import file_meta

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_SIDE = 64  # rows and columns
_PIXEL_HEAD = struct.Struct("<HH2sHL")
_NAMESPACE = UUID("0d5c3a52-8f0e-4b53-9c70-1d6fb2a94a11")


class Made(Struct, frozen=True):
    """How many files were copied and how many were made."""

    copied: int
    made: int


class _Series(Struct, frozen=True, kw_only=True):
    """A series to make. `study` tells studies apart, `number` the series of one study."""

    patient_id: str
    patient_name: str
    study: str
    date: str
    study_description: str
    modality: str
    number: int
    description: str
    instances: int


_ANNA = {
    "patient_id": "DEMO-1", "patient_name": "Demo^Anna", "study": "a", "date": "20240131",
    "study_description": "Thorax", "modality": "CT",
}  # fmt: skip
_BERT = {
    "patient_id": "DEMO-2", "patient_name": "Demo^Bert", "study": "b", "date": "20240214",
    "study_description": "Head",
}  # fmt: skip
_SERIES = (
    _Series(**_ANNA, number=1, description="Scout", instances=2),
    _Series(**_ANNA, number=2, description="Thorax 5.0", instances=8),
    _Series(**_ANNA, number=3, description="Thorax 1.0", instances=20),
    _Series(**_BERT, modality="CT", number=1, description="Head 3.0", instances=12),
    _Series(**_BERT, modality="MR", number=2, description="T1 axial", instances=5),
)


def make_archive(folder: str) -> Made:
    """Fills `folder`, which must be there, with whole instances. Raises OSError."""
    return Made(copied=_copy(folder), made=sum(_make(folder, series) for series in _SERIES))


def _copy(folder: str) -> int:
    package = find_spec("pydicom")
    assert package is not None and package.submodule_search_locations  # a dependency of ours
    source = os.path.join(package.submodule_search_locations[0], "data", "test_files")
    if not os.path.isdir(source):  # a distribution may leave them out
        return 0
    taken: set[str] = set()
    for found in scan(source):
        is_askable = found.is_instance and found.study_uid and found.series_uid and found.path.endswith(".dcm")
        if is_askable and found.sop_instance_uid not in taken:
            taken.add(found.sop_instance_uid)
            shutil.copyfile(os.path.join(source, found.path), os.path.join(folder, os.path.basename(found.path)))
    return len(taken)


def _make(folder: str, series: _Series) -> int:
    for number in range(1, series.instances + 1):
        name = f"{series.patient_id}_{series.number:03}_{number:05}.dcm"
        with open(os.path.join(folder, name), "xb") as file:
            file.write(_image(series, number))
    return series.instances


def _image(series: _Series, number: int) -> bytes:
    """A whole file: a round thing, another grey in each image."""
    sop_class = _CT_IMAGE if series.modality == "CT" else _MR_IMAGE
    sop_instance = _uid(series.study, series.number, number)
    attributes = {
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "SOPClassUID": sop_class,
        "SOPInstanceUID": sop_instance,
        "StudyDate": series.date,
        "StudyTime": "101500",
        "SeriesTime": f"10{15 + series.number}00",
        "AccessionNumber": f"DEMO{series.date}",
        "Modality": series.modality,
        "StudyDescription": series.study_description,
        "SeriesDescription": series.description,
        "PatientName": series.patient_name,
        "PatientID": series.patient_id,
        "StudyInstanceUID": _uid(series.study),
        "SeriesInstanceUID": _uid(series.study, series.number),
        "StudyID": series.study.upper(),
        "SeriesNumber": str(series.number),
        "InstanceNumber": str(number),
        "ImagePositionPatient": f"0\\0\\{number}",
        "ImageOrientationPatient": "1\\0\\0\\0\\1\\0",
        "FrameOfReferenceUID": _uid(series.study, 0),
        "SamplesPerPixel": "1",
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": str(_SIDE),
        "Columns": str(_SIDE),
        "PixelSpacing": "1\\1",
        "BitsAllocated": "16",
        "BitsStored": "12",
        "HighBit": "11",
        "PixelRepresentation": "0",
    }
    head = file_meta(sop_class, sop_instance, EXPLICIT_LITTLE) + encode_identifier(attributes, "", EXPLICIT_LITTLE)
    pixels = _pixels(100 * series.number + number)
    return head + _PIXEL_HEAD.pack(0x7FE0, 0x0010, b"OW", 0, len(pixels)) + pixels


def _pixels(grey: int) -> bytes:
    middle = _SIDE // 2
    places = range(-middle, _SIDE - middle)
    values = [grey if across * across + down * down < middle * middle else 0 for down in places for across in places]
    return struct.pack(f"<{len(values)}H", *values)


def _uid(*place: object) -> str:
    """The same for the same place, always (PS3.5 §B.2)."""
    return f"2.25.{uuid5(_NAMESPACE, '/'.join(map(str, place))).int}"


def count_same(folder: str, archive: str) -> int | None:
    """How many instances `folder` holds; None when one of them is not octet for octet the data set in `archive`."""
    originals = {found.sop_instance_uid: found for found in scan(archive) if found.is_instance}
    copies = [found for found in scan(folder) if found.is_instance]
    for copy in copies:
        original = originals.get(copy.sop_instance_uid)
        if original is None or _data_set(folder, copy) != _data_set(archive, original):
            return None
    return len(copies)


def _data_set(root: str, found: Found) -> bytes:
    with open(os.path.join(root, found.path), "rb") as file:
        file.seek(found.data_set_offset)
        return file.read()
