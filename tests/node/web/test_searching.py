"""QIDO-RS as a client meets it: six resources, matching, paging, and that DIMSE finds the same."""

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import nodes, samples, webclient

pytestmark = pytest.mark.slow

SERIES_A, SERIES_B = 3, 2
PATIENT = "Doe^Jane O'Neil"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[samples.Sample]]:
    folder = tmp_path_factory.mktemp("served") / "a"
    first = samples.make_series(folder / "1", studies=2, series=2, instances=3, seed=1, patient_name=PATIENT)
    return folder, first + samples.make_series(folder / "2", instances=2, seed=2, modality="MR")


@pytest.fixture(scope="module")
def wire(made: tuple[Path, list[samples.Sample]]) -> Iterator[HTTPConnection]:
    with nodes.serving(made[0], "--http", "0") as node:
        connection = webclient.connect(node.http)
        yield connection
        connection.close()


def find(wire: HTTPConnection, path: str) -> list[dict[str, Any]]:
    reply = webclient.ask(wire, path)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/dicom+json"), reply
    return list(reply.json)


def values(found: list[dict[str, Any]], tag: str) -> set[Any]:
    return {one[tag]["Value"][0] for one in found}


def test_all_studies_are_found_with_their_counts(wire: HTTPConnection, made: tuple[Path, list[samples.Sample]]) -> None:
    found = find(wire, "/studies")
    assert values(found, "0020000D") == {sample.study_uid for sample in made[1]} and len(found) == 3
    assert sorted(one["00201208"]["Value"][0] for one in found) == [2, 6, 6]
    assert sorted(one["00201206"]["Value"][0] for one in found) == [1, 2, 2]


def test_six_resources_find_what_lies_below_them(wire: HTTPConnection, made: tuple[Path, list[samples.Sample]]) -> None:
    one = made[1][0]
    study, series = f"/studies/{one.study_uid}", f"/studies/{one.study_uid}/series/{one.series_uid}"
    assert [len(find(wire, path)) for path in ("/studies", "/series", "/instances")] == [3, 5, 14]
    below = (f"{study}/series", f"{study}/instances", f"{series}/instances")
    assert [len(find(wire, path)) for path in below] == [2, 6, 3]
    assert values(find(wire, f"{series}/instances"), "0020000E") == {one.series_uid}


def test_what_is_above_is_told_where_the_path_does_not_name_it(
    wire: HTTPConnection, made: tuple[Path, list[samples.Sample]]
) -> None:
    one = made[1][0]
    relational, below = find(wire, "/instances")[0], find(wire, f"/studies/{one.study_uid}/instances")[0]
    assert {"00100010", "00080020", "00080060", "0020000D", "0020000E"} <= relational.keys()
    assert {"00080060", "0020000D", "0020000E"} <= below.keys() and "00100010" not in below


def test_keys_of_each_level_above_match(wire: HTTPConnection) -> None:
    assert len(find(wire, "/instances?Modality=MR")) == 2
    assert len(find(wire, "/series?PatientName=doe*")) == 4
    assert len(find(wire, "/studies?ModalitiesInStudy=MR,SR")) == 1
    assert len(find(wire, f"/studies?PatientName={quote(PATIENT)}")) == 2
    assert find(wire, "/studies?PatientID=nobody") == []


def test_dates_have_ranges(wire: HTTPConnection) -> None:
    date = find(wire, "/studies")[0]["00080020"]["Value"][0]
    assert find(wire, f"/studies?StudyDate={date}-{date}") == find(wire, f"/studies?00080020={date}")
    assert find(wire, "/studies?StudyDate=-19800101") == []


def test_pages_together_are_the_whole(wire: HTTPConnection) -> None:
    whole = find(wire, "/instances")
    pages = [find(wire, f"/instances?limit=4&offset={offset}") for offset in range(0, 20, 4)]
    assert [len(page) for page in pages] == [4, 4, 4, 2, 0]
    assert [one for page in pages for one in page] == whole
    assert find(wire, "/instances?limit=0") == []


def test_fields_that_are_asked_for_come_back(wire: HTTPConnection) -> None:
    assert "00080016" not in find(wire, "/series?includefield=SOPClassesInStudy")[0]
    assert "00080062" in find(wire, "/series?includefield=SOPClassesInStudy")[0]
    assert "00185100" in find(wire, "/series?includefield=all")[0]


def test_a_retrieve_url_leads_to_the_thing(wire: HTTPConnection, made: tuple[Path, list[samples.Sample]]) -> None:
    for one in find(wire, "/instances?limit=2"):
        (url,) = one["00081190"]["Value"]
        path = url.removeprefix(f"http://{wire.host}:{wire.port}")
        (octets,) = webclient.ask(wire, path).parts
        assert octets in {sample.path.read_bytes() for sample in made[1]}


def test_a_study_that_is_not_there_is_not_found(wire: HTTPConnection) -> None:
    for path in ("/studies/1.2.3/series", "/studies/1.2.3/instances", "/studies/1.2.3/series/1.2/instances"):
        assert webclient.ask(wire, path).status == 404


def test_what_was_not_matched_is_told_in_a_header(wire: HTTPConnection) -> None:
    reply = webclient.ask(wire, "/studies?KVP=120&fuzzymatching=true")
    assert reply.status == 200 and len(reply.json) == 3
    assert reply.headers["warning"].startswith('299 dcmsync "The fuzzymatching parameter is not supported.')
    assert "KVP" in reply.headers["warning"]


def test_bad_keys_are_refused_in_words(wire: HTTPConnection) -> None:
    reply = webclient.ask(wire, "/studies?PatientNmae=Doe")
    assert reply.status == 400 and "Did you mean PatientName?" in reply.words and "Doe" not in reply.words


def test_a_search_is_answered_in_json_or_not_at_all(wire: HTTPConnection) -> None:
    assert webclient.ask(wire, "/studies", accept='multipart/related; type="application/dicom+xml"').status == 406
    assert webclient.ask(wire, "/studies?accept=application/json", accept="text/html").status == 200


def test_head_gives_no_body(wire: HTTPConnection) -> None:
    reply = webclient.ask(wire, "/instances", "HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert len(find(wire, "/studies")) == 3  # on the same connection


def test_many_answers_come_as_one_array(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    samples.make_series(folder, instances=400, rows=2, columns=2)
    with nodes.serving(folder, "--http", "0") as node:
        reply = webclient.ask(node.http, "/instances?includefield=all")
        assert len(reply.json) == 400 and reply.headers["transfer-encoding"] == "chunked"
        assert len(webclient.ask(node.http, "/instances?offset=399").json) == 1
        reply = webclient.ask(node.http, "/instances?includefield=all", "HEAD")
        assert (reply.status, reply.body) == (200, b"")
