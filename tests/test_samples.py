"""Generated data: the same each time, of the promised size, and valid in the eyes of others."""

from pathlib import Path

import pydicom
import pytest

from tests import peers, samples


def test_the_same_seed_makes_the_same_octets(tmp_path: Path) -> None:
    one, two, other = (
        samples.make_series(tmp_path / name, studies=2, series=2, instances=2, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert [s.path.read_bytes() for s in one] == [s.path.read_bytes() for s in two]
    assert not {s.sop_uid for s in one} & {s.sop_uid for s in other}
    assert len({s.path.read_bytes()[-8192:] for s in one}) == 8


@pytest.mark.parametrize(("edge", "size"), [(64, 9_300), (512, 525_300)])
def test_sizes_are_as_promised(tmp_path: Path, edge: int, size: int) -> None:
    (sample,) = samples.make_series(tmp_path, instances=1, rows=edge, columns=edge)
    assert sample.size == sample.path.stat().st_size == pytest.approx(size, rel=0.03)


def test_pydicom_reads_what_was_meant(tmp_path: Path) -> None:
    sample = samples.make_series(tmp_path, instances=2, patient_name="Müller^Jörg")[1]
    data_set = pydicom.dcmread(sample.path)
    assert (data_set.SOPInstanceUID, data_set.PatientID) == (sample.sop_uid, sample.patient_id)
    assert (data_set.PatientName, data_set.InstanceNumber) == ("Müller^Jörg", 2)
    assert int(data_set.pixel_array.max()) < 4096 if _has_numpy() else len(data_set.PixelData) == 8192


def test_dcmdump_finds_nothing_to_warn_of(tmp_path: Path, require) -> None:
    require("dcmdump")
    for sample in samples.make_series(tmp_path, instances=2):
        done = peers.dcmtk("dcmdump", "+fo", sample.path)
        assert not done.stderr, done.stderr


def _has_numpy() -> bool:
    try:
        import numpy  # noqa: F401
    except ImportError:
        return False
    return True
