"""Metadata as pydicom would write them, and the bulk data that they point to."""

import json
import os
from collections.abc import Iterator
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pydicom
import pytest

from tests import nodes, samples, webclient

pytestmark = pytest.mark.slow

PARTS = 'multipart/related; type="application/octet-stream"'
SAMPLES = Path(os.path.dirname(pydicom.__file__)) / "data" / "test_files"
ODD = ("MR_small_bigendian.dcm", "JPEG2000.dcm", "image_dfl.dcm", "MR_small_implicit.dcm", "reportsi.dcm")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("served") / "a"
    (one,) = samples.make_series(folder, instances=1)
    for name in ODD:
        (folder / name).write_bytes((SAMPLES / name).read_bytes())
    return [one.path, *(folder / name for name in ODD)]


@pytest.fixture(scope="module")
def wire(made: list[Path]) -> Iterator[HTTPConnection]:
    with nodes.serving(made[0].parents[2], "--http", "0") as node:
        connection = webclient.connect(node.http)
        yield connection
        connection.close()


def path_of(file: Path) -> str:
    read = pydicom.dcmread(file, stop_before_pixels=True)
    return f"/studies/{read.StudyInstanceUID}/series/{read.SeriesInstanceUID}/instances/{read.SOPInstanceUID}"


def bulk_path(wire: HTTPConnection, file: Path, tag: str = "7FE00010") -> str:
    (found,) = webclient.ask(wire, f"{path_of(file)}/metadata").json
    return urlsplit(found[tag]["BulkDataURI"]).path


def plain(read: pydicom.Dataset) -> dict[str, object]:
    """What pydicom's own writer makes of it, without what may be cut, and what says how text was written."""
    found = json.loads(read.to_json(suppress_invalid_tags=True))
    return {tag: value for tag, value in found.items() if "InlineBinary" not in value and tag != "00080005"}


@pytest.mark.parametrize("number", range(1 + len(ODD)))
def test_metadata_are_what_pydicom_reads_in_the_file(wire: HTTPConnection, made: list[Path], number: int) -> None:
    reply = webclient.ask(wire, f"{path_of(made[number])}/metadata")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/dicom+json")
    (found,) = reply.json
    assert not any(tag.startswith("0002") for tag in found) and list(found) == sorted(found)
    ours = pydicom.Dataset.from_json(found, bulk_data_uri_handler=lambda tag, vr, uri: b"")
    theirs = plain(pydicom.dcmread(made[number]))
    assert {tag: value for tag, value in plain(ours).items() if tag in theirs} == theirs


def test_metadata_of_a_study_and_a_series_have_all_instances(tmp_path: Path) -> None:
    made = samples.make_series(tmp_path / "a", series=2, instances=20)
    with nodes.serving(tmp_path / "a", "--http", "0") as node:
        study = f"/studies/{made[0].study_uid}"
        for path, count in ((study, 40), (f"{study}/series/{made[0].series_uid}", 20)):
            found = webclient.ask(node.http, f"{path}/metadata").json
            assert {one["00080018"]["Value"][0] for one in found} == {sample.sop_uid for sample in made[:count]}
        assert webclient.ask(node.http, "/studies/1.2/metadata").status == 404
        assert webclient.ask(node.http, f"{study}/metadata", accept="application/dicom+xml").status == 406
        assert webclient.ask(node.http, f"{study}/metadata", "HEAD").body == b""
        made[-1].path.unlink()
        reply = webclient.ask(node.http, f"{study}/metadata")
        assert (reply.status, len(reply.json)) == (206, 39) and reply.headers["warning"]


def test_a_file_that_goes_on_the_way_breaks_metadata_off(tmp_path: Path) -> None:
    made = samples.make_series(tmp_path / "a", instances=3000, rows=2, columns=2)
    path = f"/studies/{made[0].study_uid}/metadata"
    with nodes.serving(tmp_path / "a", "--http", "0") as node, webclient.breaking_off(node.http, path):
        made[-1].path.unlink()  # of 7 MB, most cannot have been sent


@pytest.mark.parametrize("name", ["image000001.dcm", "image_dfl.dcm", "MR_small_implicit.dcm"])
def test_bulk_data_are_the_octets_of_the_value(wire: HTTPConnection, made: list[Path], name: str) -> None:
    (file,) = [file for file in made if file.name == name]
    pixels = pydicom.dcmread(file).PixelData
    path = bulk_path(wire, file)
    for accept in ("", "*/*", "application/octet-stream"):
        reply = webclient.ask(wire, path, accept=accept)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
        assert reply.body == pixels
    assert webclient.ask(wire, path, accept=PARTS).parts == [pixels]
    assert int(webclient.ask(wire, path, "HEAD").headers["content-length"]) == len(pixels)
    assert webclient.ask(wire, path, accept="image/jpeg").status == 406


def test_numbers_leave_in_little_endian(wire: HTTPConnection, made: list[Path]) -> None:
    big, little = pydicom.dcmread(made[1]), pydicom.dcmread(SAMPLES / "MR_small.dcm")
    assert big.PixelData != little.PixelData
    assert webclient.ask(wire, bulk_path(wire, made[1])).body == little.PixelData


def test_fragments_leave_as_they_are_in_the_file(wire: HTTPConnection, made: list[Path]) -> None:
    octets = webclient.ask(wire, bulk_path(wire, made[2])).body
    assert octets[:4] == b"\xfe\xff\x00\xe0" and made[2].read_bytes().count(octets) == 1
    frames = pydicom.encaps.generate_frames(octets, number_of_frames=1)
    assert next(frames) == next(pydicom.encaps.generate_frames(pydicom.dcmread(made[2]).PixelData, number_of_frames=1))


def test_no_other_part_of_a_file_can_be_asked_for(wire: HTTPConnection, made: list[Path]) -> None:
    path = bulk_path(wire, made[0])
    base, _, place = path.rpartition("/")
    start, length = map(int, place.split("-"))
    for wrong in (f"{start - 1}-{length}", f"{start}-{length - 1}", f"0-{length}", f"{start}-{10**14}", "-1-5", "1-"):
        assert webclient.ask(wire, f"{base}/{wrong}").status == 404, wrong
    assert pydicom.dcmread(BytesIO(made[0].read_bytes())).PixelData  # it is there
