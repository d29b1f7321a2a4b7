"""Generated data sets: CT images that are the same on every machine, valid for dcmdump and dciodvfy, and fast to make.

Every byte follows from the seed. UIDs are of the 2.25 kind, so two seeds never meet. A 512 x 512 instance has about
525 kB, a 64 x 64 one about 9 kB. The encoder is our own (Explicit VR Little Endian, PS3.5 §7.1.2), so that what is
tested is never what made the test.
"""

import random
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

_NAMESPACE = uuid.UUID("6f1d2a5e-4b1c-5e0a-9f63-64636d73796e")
_LONG_FORM = {b"OB", b"OW", b"SQ", b"UN", b"UT"}


@dataclass(frozen=True)
class Sample:
    """One generated file, and what is in it."""

    path: Path
    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    size: int


def make_series(
    folder: Path,
    *,
    studies: int = 1,
    series: int = 1,
    instances: int = 3,
    rows: int = 64,
    columns: int = 64,
    seed: int = 1,
    modality: str = "CT",
    patient_name: str = "Sample^Patient",
) -> list[Sample]:
    """Writes studies x series x instances files below `folder`, as STUDY/SERIES/INSTANCE.dcm. Returns them in order."""
    return list(each(**{**locals(), "folder": Path(folder)}))


def each(
    folder: Path,
    studies: int,
    series: int,
    instances: int,
    rows: int,
    columns: int,
    seed: int,
    modality: str,
    patient_name: str,
) -> Iterator[Sample]:
    """`make_series`, one at a time."""
    noise = _pixels(seed, rows * columns * 2)
    for study_number in range(1, studies + 1):
        for series_number in range(1, series + 1):
            place = folder / f"study{study_number:04d}" / f"series{series_number:04d}"
            place.mkdir(parents=True, exist_ok=True)
            for instance_number in range(1, instances + 1):
                shift = 2 * ((instance_number * 7919 + series_number * 104729 + study_number) % (len(noise) // 4))
                sample = Sample(
                    path=place / f"image{instance_number:06d}.dcm",
                    patient_id=f"S{seed}P{study_number:04d}",
                    study_uid=uid(seed, study_number),
                    series_uid=uid(seed, study_number, series_number),
                    sop_uid=uid(seed, study_number, series_number, instance_number),
                    size=0,
                )
                pixels = memoryview(noise)[shift : shift + rows * columns * 2]
                numbers = (study_number, series_number, instance_number)
                head = _head(sample, numbers, rows, columns, modality, patient_name, len(pixels))
                with sample.path.open("wb") as file:
                    file.write(head)
                    file.write(pixels)
                yield Sample(**{**sample.__dict__, "size": len(head) + len(pixels)})


def uid(*numbers: int) -> str:
    """The UID of a thing, from the seed and its place: (seed, study), (seed, study, series), …"""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '.'.join(map(str, numbers))).int}"


def element(tag: int, vr: bytes, value: bytes | str | int) -> bytes:
    """One element, padded to even length (PS3.5 §6.2)."""
    match value:
        case int():
            octets = struct.pack("<H", value)
        case str():
            octets = value.encode("utf-8")
        case _:
            octets = bytes(value)
    octets += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(octets) % 2)
    group, number = tag >> 16, tag & 0xFFFF
    if vr in _LONG_FORM:
        return struct.pack("<HH2sHL", group, number, vr, 0, len(octets)) + octets
    return struct.pack("<HH2sH", group, number, vr, len(octets)) + octets


def part10(data_set: bytes, *, sop_class_uid: str, sop_uid: str, transfer_syntax_uid: str = EXPLICIT_LITTLE) -> bytes:
    """Preamble, group 0002 and the data set (PS3.10 §7.1)."""
    meta = b"".join(
        (
            element(0x00020001, b"OB", b"\0\1"),
            element(0x00020002, b"UI", sop_class_uid),
            element(0x00020003, b"UI", sop_uid),
            element(0x00020010, b"UI", transfer_syntax_uid),
            element(0x00020012, b"UI", uid(0)),
            element(0x00020013, b"SH", "SAMPLES_1"),
        )
    )
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<L", len(meta))) + meta + data_set


def _head(
    sample: Sample,
    numbers: tuple[int, int, int],
    rows: int,
    columns: int,
    modality: str,
    patient_name: str,
    pixel_octets: int,
) -> bytes:
    study_number, series_number, instance_number = numbers
    date = f"2024{1 + study_number % 12:02d}{1 + study_number % 28:02d}"
    data_set = b"".join(
        element(tag, vr, value)
        for tag, vr, value in (
            (0x00080005, b"CS", "ISO_IR 192"),
            (0x00080008, b"CS", "ORIGINAL\\PRIMARY\\AXIAL"),
            (0x00080016, b"UI", CT_IMAGE_STORAGE),
            (0x00080018, b"UI", sample.sop_uid),
            (0x00080020, b"DA", date),
            (0x00080021, b"DA", date),
            (0x00080022, b"DA", date),
            (0x00080023, b"DA", date),
            (0x00080030, b"TM", "101500"),
            (0x00080031, b"TM", f"10{series_number % 60:02d}00"),
            (0x00080032, b"TM", "102000"),
            (0x00080033, b"TM", "102000"),
            (0x00080050, b"SH", f"A{study_number:06d}"),
            (0x00080060, b"CS", modality),
            (0x00080070, b"LO", "Samples"),
            (0x00080090, b"PN", "Referring^Doctor"),
            (0x00081030, b"LO", f"Generated study {study_number}"),
            (0x0008103E, b"LO", f"Generated series {series_number}"),
            (0x00100010, b"PN", patient_name),
            (0x00100020, b"LO", sample.patient_id),
            (0x00100030, b"DA", "19600101"),
            (0x00100040, b"CS", "O"),
            (0x00180050, b"DS", "1.0"),
            (0x00180060, b"DS", "120"),
            (0x00185100, b"CS", "HFS"),
            (0x0020000D, b"UI", sample.study_uid),
            (0x0020000E, b"UI", sample.series_uid),
            (0x00200010, b"SH", str(study_number)),
            (0x00200011, b"IS", str(series_number)),
            (0x00200012, b"IS", "1"),
            (0x00200013, b"IS", str(instance_number)),
            (0x00200032, b"DS", f"0\\0\\{instance_number}"),
            (0x00200037, b"DS", "1\\0\\0\\0\\1\\0"),
            (0x00200052, b"UI", f"{sample.study_uid}.1"[:64]),
            (0x00201040, b"LO", ""),
            (0x00280002, b"US", 1),
            (0x00280004, b"CS", "MONOCHROME2"),
            (0x00280010, b"US", rows),
            (0x00280011, b"US", columns),
            (0x00280030, b"DS", "0.5\\0.5"),
            (0x00280100, b"US", 16),
            (0x00280101, b"US", 12),
            (0x00280102, b"US", 11),
            (0x00280103, b"US", 0),
            (0x00281052, b"DS", "-1024"),
            (0x00281053, b"DS", "1"),
        )
    )
    pixel_header = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, pixel_octets)
    return part10(data_set, sop_class_uid=CT_IMAGE_STORAGE, sop_uid=sample.sop_uid) + pixel_header


def _pixels(seed: int, octets: int) -> bytes:
    """Twice as many octets as an image needs, of 12-bit noise: each image takes its own stretch."""
    noise = random.Random(seed).randbytes(2 * octets)
    mask = int.from_bytes(b"\xff\x0f" * octets, "little")
    return (int.from_bytes(noise, "little") & mask).to_bytes(2 * octets, "little")
