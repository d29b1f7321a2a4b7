"""Plain values in the DICOM JSON Model, judged by pydicom's reader of it."""

import json

import msgspec
import pytest
from pydicom.dataset import Dataset

from dcmsync.node.web import model


def read(keyword: str, value: object) -> object:
    octets = msgspec.json.encode({model.tag(keyword): model.attribute(keyword, value)})
    made = Dataset.from_json(octets.decode())
    return made[keyword].value


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", "A"), ("StudyDate", "20240131"), ("SeriesNumber", 7), ("SliceLocation", -1.5), ("Rows", 512),
     ("StudyInstanceUID", "1.2.3"), ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう")],
)  # fmt: skip
def test_one_value_is_read_as_it_was(keyword: str, value: object) -> None:
    assert read(keyword, value) == value


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("ImageType", ["ORIGINAL", "", "AXIAL"]), ("ModalitiesInStudy", ["CT", "SR"]),
     ("OtherPatientNames", ["A^B", "C"])],
)  # fmt: skip
def test_more_values_are_read_as_they_were(keyword: str, values: list[str]) -> None:
    assert [item or "" for item in read(keyword, values)] == values  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["", None, []])
def test_no_value_is_an_empty_attribute(value: object) -> None:
    assert model.attribute("PatientID", value) == {"vr": "LO"}


@pytest.mark.parametrize(
    ("value", "written"), [(float("nan"), "NaN"), (float("-inf"), "-Infinity"), (2**60, str(2**60))]
)
def test_what_json_has_no_number_for_is_text(value: float, written: str) -> None:
    octets = msgspec.json.encode(model.attribute("SliceLocation", value))
    assert json.loads(octets) == {"vr": "DS", "Value": [written]}
