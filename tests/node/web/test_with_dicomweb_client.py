"""dicomweb-client, which we did not write, at work with our server; also many at a time, and beside DIMSE."""

import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from requests import HTTPError

from tests import nodes, samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from dicomweb_client.api import DICOMwebClient

pytestmark = pytest.mark.slow

STAR = (("application/dicom", "*"),)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    folder = tmp_path_factory.mktemp("served") / "a"
    return samples.make_series(folder, studies=3, series=2, instances=4)


@pytest.fixture(scope="module")
def client(made: list[samples.Sample]) -> Iterator[DICOMwebClient]:
    with nodes.serving(made[0].path.parents[2], "--http", "0") as node:
        yield DICOMwebClient(node.http)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[nodes.Serving]:
    folder = tmp_path / "a"
    folder.mkdir()
    with nodes.serving(folder, "--http", "0") as node:
        yield node


def of(sample: samples.Sample) -> tuple[str, str, str]:
    return sample.study_uid, sample.series_uid, sample.sop_uid


def test_it_finds_studies_series_and_instances(client: DICOMwebClient, made: list[samples.Sample]) -> None:
    study, series, _ = of(made[0])
    assert len(client.search_for_studies()) == 3
    (one,) = client.search_for_studies(search_filters={"PatientID": made[0].patient_id}, fields=["PatientAge"])
    assert pydicom.Dataset.from_json(one).StudyInstanceUID == study
    assert len(client.search_for_studies(search_filters={"PatientName": "sample*"}, limit=2, offset=2)) == 1
    assert len(client.search_for_series()) == 6 and len(client.search_for_series(study)) == 2
    assert len(client.search_for_instances()) == 24 and len(client.search_for_instances(study)) == 8
    found = client.search_for_instances(study, series)
    assert {pydicom.Dataset.from_json(one).SOPInstanceUID for one in found} == {sample.sop_uid for sample in made[:4]}
    assert client.search_for_studies(search_filters={"StudyDate": "19000101"}) == []
    assert len(client.search_for_studies(get_remaining=True, limit=1)) == 3


@pytest.mark.parametrize("media_types", [None, STAR])
def test_it_retrieves_studies_series_and_instances(
    client: DICOMwebClient, made: list[samples.Sample], media_types: tuple[tuple[str, str]] | None
) -> None:
    study, series, instance = of(made[0])
    originals = {sample.sop_uid: pydicom.dcmread(sample.path) for sample in made[:8]}
    whole = client.retrieve_study(study, media_types=media_types)
    assert {one.SOPInstanceUID: one for one in whole} == originals
    assert len(client.retrieve_series(study, series, media_types=media_types)) == 4
    assert client.retrieve_instance(study, series, instance, media_types=media_types) == originals[instance]
    assert len(list(client.iter_study(study, media_types=media_types))) == 8


def test_it_reads_metadata_and_the_bulk_data_they_point_to(client: DICOMwebClient, made: list[samples.Sample]) -> None:
    study, series, instance = of(made[0])
    found = client.retrieve_instance_metadata(study, series, instance)
    assert client.retrieve_bulkdata(found["7FE00010"]["BulkDataURI"]) == [pydicom.dcmread(made[0].path).PixelData]
    assert len(client.retrieve_study_metadata(study)) == 8 and len(client.retrieve_series_metadata(study, series)) == 4
    assert pydicom.Dataset.from_json(found, lambda uri: b"").PatientID == made[0].patient_id


def test_it_stores_and_reads_what_became_of_it(empty: nodes.Serving, made: list[samples.Sample]) -> None:
    client = DICOMwebClient(empty.http)
    read = [pydicom.dcmread(sample.path) for sample in made[:3]]
    answer = client.store_instances(read)
    stored = {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence}
    assert stored == {one.SOPInstanceUID for one in read}
    assert client.retrieve_study(made[0].study_uid) == read
    read[0].PatientName = "Other^Name"
    with pytest.raises(HTTPError, match="409"):
        client.store_instances(read[:1])
    with pytest.raises(HTTPError, match="409"):
        client.store_instances(read[1:2], study_instance_uid="1.2.3")
    with pytest.raises(HTTPError, match="404"):
        client.retrieve_study("1.2.3")


def test_sixteen_at_a_time_are_served(client: DICOMwebClient, made: list[samples.Sample]) -> None:
    def fetch(sample: samples.Sample) -> bool:
        own = DICOMwebClient(client.base_url)
        return bool(own.retrieve_instance(*of(sample)) == pydicom.dcmread(sample.path))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(fetch, made * 2))


def test_http_and_dimse_store_and_find_side_by_side(
    empty: nodes.Serving, made: list[samples.Sample], require: Callable[[str], str]
) -> None:
    storescu = require("storescu")
    at = [empty.host, str(empty.port), "-aec", empty.ae]

    def store(number: int) -> None:
        sample = made[number]
        if number % 2:
            DICOMwebClient(empty.http).store_instances([pydicom.dcmread(sample.path)])
        else:
            subprocess.run([storescu, *at, str(sample.path)], check=True, timeout=30)
        assert DICOMwebClient(empty.http).retrieve_instance(*of(sample)) == pydicom.dcmread(sample.path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, range(len(made))))
    assert len(DICOMwebClient(empty.http).search_for_instances()) == len(made)
