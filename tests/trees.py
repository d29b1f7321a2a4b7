"""What a destination folder holds after a run, held against the samples that it came from."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from tests import samples


def data_set(path: Path) -> bytes:
    """What stands behind group 0002 of a file whose group 0002 has its length (PS3.10 §7.1)."""
    octets = path.read_bytes()
    assert octets[128:132] == b"DICM", path
    return octets[144 + struct.unpack_from("<L", octets, 140)[0] :]


def default_path(folder: Path, sample: samples.Sample) -> Path:
    return folder / sample.patient_id / sample.study_uid / sample.series_uid / f"{sample.sop_uid}.dcm"


def files(folder: Path) -> list[Path]:
    """Every file below a folder that has its final name. The folder may change meanwhile."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".dcmsync-")]
        found += [Path(place, name) for name in names]
    return sorted(found)


def check_whole(folder: Path, made: Iterable[samples.Sample]) -> None:
    """The folder holds just these, octet by octet, and nothing temporary."""
    expected = {default_path(folder, sample): sample for sample in made}
    assert set(files(folder)) == set(expected)
    for path, sample in expected.items():
        assert data_set(path) == data_set(sample.path), path
    assert leftovers(folder) == []


def check_nothing_partial(folder: Path, made: Iterable[samples.Sample]) -> None:
    """What stands under a final name is whole."""
    by_path = {default_path(folder, sample): sample for sample in made}
    for path in files(folder):
        assert data_set(path) == data_set(by_path[path].path), path


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".dcmsync-*"))
