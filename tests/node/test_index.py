"""The index: what is kept of each level, what is counted, and what is left out."""

from pathlib import Path

import pytest

from dcmsync.endpoints.folder.scan import Found, scan
from dcmsync.node.index import WANTED, Index, Study, Thing
from tests import samples


def indexed(folder: Path) -> Index:
    index = Index()
    for found in scan(str(folder), wanted=WANTED):
        assert index.add(found) == ""
    return index


def found(**changes: object) -> Found:
    fields: dict[str, object] = {
        "path": "a.dcm", "size": 1, "mtime_ns": 1, "device": 1, "inode": 1, "state": "whole", "reason": "", "offset": 1,
        "sop_class_uid": "1.2", "sop_instance_uid": "1.2.3", "series_uid": "1.2.2", "study_uid": "1.2.1",
        "transfer_syntax_uid": samples.EXPLICIT_LITTLE, "data_set_offset": 0, "encoding": "", "values": {},
    }  # fmt: skip
    return Found(**{**fields, **changes})  # type: ignore[arg-type]


def test_counts_follow_what_was_added(tmp_path: Path) -> None:
    made = samples.make_series(tmp_path, studies=2, series=3, instances=4)
    index = indexed(tmp_path)
    study = index.studies[made[0].study_uid]
    series = study.series[made[0].series_uid]
    said = index.describe(Thing(study, series, series.images[made[0].sop_uid]), (
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances",
        "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances",
        "ModalitiesInStudy", "SOPClassesInStudy", "InstanceNumber", "PatientName", "Modality", "Rows",
    ))  # fmt: skip
    assert said == {
        "NumberOfStudyRelatedSeries": 3, "NumberOfStudyRelatedInstances": 12, "NumberOfSeriesRelatedInstances": 4,
        "NumberOfPatientRelatedStudies": 1, "NumberOfPatientRelatedSeries": 3, "NumberOfPatientRelatedInstances": 12,
        "ModalitiesInStudy": ["CT"], "SOPClassesInStudy": [samples.CT_IMAGE_STORAGE], "InstanceNumber": 1,
        "PatientName": "Sample^Patient", "Modality": "CT", "Rows": 64,
    }  # fmt: skip


def test_patients_are_told_apart_by_their_id(tmp_path: Path) -> None:
    samples.make_series(tmp_path, studies=3, instances=1)
    assert sorted(indexed(tmp_path).patients) == ["S1P0001", "S1P0002", "S1P0003"]


def test_a_long_value_is_not_kept() -> None:
    index = Index()
    index.add(found(values={0x00081030: ("LO", b"x" * 257), 0x00080050: ("SH", b"A1")}))
    assert index.studies["1.2.1"].attributes == {"StudyInstanceUID": "1.2.1", "AccessionNumber": "A1"}


def test_more_values_than_anyone_asks_for_are_not_kept() -> None:
    index = Index()
    index.add(found(values={0x00080008: ("CS", b"\\".join([b"A"] * 33))}))
    study = index.studies["1.2.1"]
    series = study.series["1.2.2"]
    assert index.describe(Thing(study, series, series.images["1.2.3"]), ("ImageType",)) == {}


def test_a_number_that_is_text_is_not_kept_where_the_answer_would_be_binary() -> None:
    index = Index()
    index.add(found(values={0x00280010: ("LO", b"many")}))
    series = index.studies["1.2.1"].series["1.2.2"]
    assert index.describe(Thing(Study({}, {}, set()), series, series.images["1.2.3"]), ("Rows",)) == {}


@pytest.mark.parametrize(
    "changes",
    [{"state": "truncated", "reason": "ends"}, {"study_uid": ""}, {"series_uid": ""}, {"study_uid": "1" * 65},
     {"sop_instance_uid": ""}],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_not_kept(changes: dict[str, object]) -> None:
    index = Index()
    assert index.add(found(**changes))
    assert not index.studies and not index.images


def test_a_uid_that_comes_twice_is_kept_as_it_came_first() -> None:
    index = Index()
    assert index.add(found()) == ""
    assert "same SOP Instance UID" in index.add(found(path="b.dcm", series_uid="1.2.9"))
    assert index.images["1.2.3"].path == "a.dcm"
    assert list(index.studies["1.2.1"].series) == ["1.2.2"]


def test_the_same_file_again_replaces_what_was_known() -> None:
    index = Index()
    index.add(found())
    assert index.add(found(size=2)) == ""
    assert index.images["1.2.3"].size == 2


def test_images_of_a_series_share_what_is_alike(tmp_path: Path) -> None:
    made = samples.make_series(tmp_path, instances=2)
    index = indexed(tmp_path)
    first, second = (index.images[sample.sop_uid] for sample in made)
    shared = [one is other for one, other in zip(first.values, second.values, strict=True)]
    assert first.values[0] == 1 and second.values[0] == 2  # InstanceNumber
    assert shared == [False] + [True] * (len(shared) - 1)
    assert first.sop_class_uid is second.sop_class_uid
