"""WADO-RS and WADO-URI as a client meets them: the files, octet for octet, and nothing that is not whole."""

import os
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests import nodes, samples, webclient

pytestmark = pytest.mark.slow

DICOM = 'multipart/related; type="application/dicom"'
JPEG = "1.2.840.10008.1.2.4.50"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    folder = tmp_path_factory.mktemp("served") / "a"
    small = samples.make_series(folder / "small", series=2, instances=30, seed=1)  # more than one gathered write
    return small + samples.make_series(folder / "large", instances=2, rows=512, columns=512, seed=2)


@pytest.fixture(scope="module")
def node(made: list[samples.Sample]) -> Iterator[nodes.Serving]:
    with nodes.serving(made[0].path.parents[3], "--http", "0") as node:
        yield node


@pytest.fixture
def wire(node: nodes.Serving) -> Iterator[HTTPConnection]:
    connection = webclient.connect(node.http)
    yield connection
    connection.close()


def path_of(sample: samples.Sample) -> str:
    return f"/studies/{sample.study_uid}/series/{sample.series_uid}/instances/{sample.sop_uid}"


def wado(sample: samples.Sample, **more: str) -> str:
    given = {"requestType": "WADO", "studyUID": sample.study_uid, "seriesUID": sample.series_uid,
             "objectUID": sample.sop_uid, "contentType": "application/dicom", **more}  # fmt: skip
    return "/wado?" + "&".join(f"{name}={value}" for name, value in given.items() if value)


@pytest.mark.parametrize("accept", ["", "*/*", DICOM, f"{DICOM}; transfer-syntax=*",
                                    f"{DICOM}; transfer-syntax={samples.EXPLICIT_LITTLE}"])  # fmt: skip
def test_a_study_comes_as_its_files(wire: HTTPConnection, made: list[samples.Sample], accept: str) -> None:
    for few in (made[:60], made[60:]):
        reply = webclient.ask(wire, f"/studies/{few[0].study_uid}", accept=accept)
        assert reply.status == 200 and "warning" not in reply.headers
        assert sorted(reply.parts) == sorted(sample.path.read_bytes() for sample in few)


def test_a_series_and_an_instance_come_as_their_files(wire: HTTPConnection, made: list[samples.Sample]) -> None:
    series = path_of(made[0]).partition("/instances")[0]
    assert sorted(webclient.ask(wire, series).parts) == sorted(sample.path.read_bytes() for sample in made[:30])
    for sample in (made[0], made[-1]):
        assert webclient.ask(wire, path_of(sample)).parts == [sample.path.read_bytes()]


def test_one_instance_comes_by_itself_where_that_is_asked_for(wire: HTTPConnection, made: list[samples.Sample]) -> None:
    for sample in (made[0], made[-1]):
        reply = webclient.ask(wire, path_of(sample), accept="application/dicom")
        assert reply.headers["content-type"] == "application/dicom" and reply.body == sample.path.read_bytes()


@pytest.mark.parametrize("accept", [f"{DICOM}; transfer-syntax={JPEG}", "image/jpeg", "application/dicom+json"])
def test_nothing_is_transcoded(wire: HTTPConnection, made: list[samples.Sample], accept: str) -> None:
    assert webclient.ask(wire, path_of(made[0]), accept=accept).status == 406
    assert webclient.ask(wire, f"/studies/{made[0].study_uid}", accept="application/dicom").status == 406


def test_what_is_not_there_is_not_found(wire: HTTPConnection, made: list[samples.Sample]) -> None:
    one, other = made[0], made[-1]
    for path in ("/studies/1.2", f"/studies/{one.study_uid}/series/1.2", f"/studies/{one.study_uid}/metadata/x",
                 f"/studies/{other.study_uid}/series/{one.series_uid}",
                 path_of(one).replace(one.sop_uid, other.sop_uid), "/studies/../../etc/passwd", "/studies/..",
                 "/studies/%2e%2e/series/%2e%2e", "/studies/%00", f"/studies/{'1' * 65}"):  # fmt: skip
        assert webclient.ask(wire, path).status == 404, path


def test_head_tells_the_length(wire: HTTPConnection, made: list[samples.Sample]) -> None:
    head = webclient.ask(wire, f"/studies/{made[0].study_uid}", "HEAD")
    assert (head.status, head.body) == (200, b"")
    whole = webclient.ask(wire, f"/studies/{made[0].study_uid}")
    assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.body))


def test_wado_uri_gives_the_file(wire: HTTPConnection, made: list[samples.Sample]) -> None:
    for sample in (made[0], made[-1]):
        for more in ({}, {"transferSyntax": samples.EXPLICIT_LITTLE}, {"contentType": "application%2Fdicom"}):
            reply = webclient.ask(wire, wado(sample, **more))
            assert (reply.status, reply.headers["content-type"]) == (200, "application/dicom")
            assert reply.body == sample.path.read_bytes()


@pytest.mark.parametrize(
    ("more", "status"),
    [({"requestType": ""}, 400), ({"requestType": "wado"}, 400), ({"studyUID": ""}, 400), ({"seriesUID": ""}, 400),
     ({"objectUID": ""}, 400), ({"studyUID": "1.2"}, 404), ({"seriesUID": "1.2"}, 404), ({"objectUID": "1.2"}, 404),
     ({"contentType": ""}, 406), ({"contentType": "image/jpeg"}, 406), ({"transferSyntax": JPEG}, 406),
     ({"anonymize": "yes"}, 406)],
)  # fmt: skip
def test_wado_uri_refuses_in_words(
    wire: HTTPConnection, made: list[samples.Sample], more: dict[str, str], status: int
) -> None:
    reply = webclient.ask(wire, wado(made[0], **more))
    assert reply.status == status and reply.words


@pytest.mark.parametrize("begin", [b"\x08\0\x05\0CS", b"\x02\0\0\0UL"], ids=["data set", "group 0002"])
def test_a_file_without_a_head_leaves_with_one(tmp_path: Path, begin: bytes) -> None:
    from io import BytesIO

    import pydicom

    (sample,) = samples.make_series(tmp_path / "made", instances=1)
    octets = sample.path.read_bytes()
    bare = octets[octets.index(begin) :]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bare").write_bytes(bare)
    with nodes.serving(tmp_path / "a", "--http", "0") as node:
        (part,) = webclient.ask(node.http, path_of(sample)).parts
        assert part.endswith(octets[octets.index(b"\x08\0\x05\0CS") :]) and part[128:132] == b"DICM"
        read = pydicom.dcmread(BytesIO(part))
        assert read.file_meta.TransferSyntaxUID == samples.EXPLICIT_LITTLE and read.SOPInstanceUID == sample.sop_uid


def test_what_is_left_of_a_study_is_partial_and_what_is_gone_is_gone(tmp_path: Path) -> None:
    made = samples.make_series(tmp_path / "a", instances=3)
    with nodes.serving(tmp_path / "a", "--http", "0") as node:
        made[1].path.unlink()
        reply = webclient.ask(node.http, f"/studies/{made[0].study_uid}")
        assert reply.status == 206 and reply.headers["warning"]
        assert reply.parts == [made[0].path.read_bytes(), made[2].path.read_bytes()]
        assert webclient.ask(node.http, path_of(made[1])).status == 410
        made[0].path.write_bytes(made[2].path.read_bytes())
        assert webclient.ask(node.http, path_of(made[0])).status == 410


def test_syntaxes_that_were_not_asked_for_are_left_out(tmp_path: Path) -> None:
    import pydicom

    made = samples.make_series(tmp_path / "a", instances=2)
    other = pydicom.dcmread(made[1].path)
    other.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    other.save_as(made[1].path, implicit_vr=True, little_endian=True)
    with nodes.serving(tmp_path / "a", "--http", "0") as node:
        path = f"/studies/{made[0].study_uid}"
        assert sorted(webclient.ask(node.http, path).parts) == sorted(one.path.read_bytes() for one in made)
        reply = webclient.ask(node.http, path, accept=f"{DICOM}; transfer-syntax={samples.EXPLICIT_LITTLE}")
        assert reply.status == 206 and reply.parts == [made[0].path.read_bytes()]
        both = f"{DICOM}; transfer-syntax={samples.EXPLICIT_LITTLE}, {DICOM}; transfer-syntax=1.2.840.10008.1.2"
        assert len(webclient.ask(node.http, path, accept=both).parts) == 2


@pytest.mark.parametrize("how", ["shorter", "other", "grown"])
def test_a_file_that_changes_on_the_way_breaks_the_answer_off(tmp_path: Path, how: str) -> None:
    made = samples.make_series(tmp_path / "a", instances=60, rows=512, columns=512)
    path = f"/studies/{made[0].study_uid}"
    with nodes.serving(tmp_path / "a", "--http", "0") as node:
        with webclient.breaking_off(node.http, path):  # 30 MB: most of it cannot have been sent
            if how == "shorter":
                os.truncate(made[-1].path, 1000)
            elif how == "grown":  # still the same instance
                with made[-1].path.open("ab") as file:
                    file.write(b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0abcd")
            else:
                made[-1].path.write_bytes(bytes(made[-1].size))
        assert webclient.ask(node.http, path).status == (200 if how == "grown" else 206)


@pytest.mark.parametrize("how", ["shorter", "other"])
def test_a_file_that_changes_while_it_is_sent_breaks_the_answer_off(tmp_path: Path, how: str) -> None:
    (large,) = samples.make_series(tmp_path / "a", instances=1, rows=4096, columns=4096)
    with nodes.serving(tmp_path / "a", "--http", "0") as node, webclient.breaking_off(node.http, path_of(large)):
        if how == "shorter":  # of 32 MB, most cannot have been sent
            os.truncate(large.path, large.size - 1000)
        else:
            with large.path.open("r+b") as file:
                file.seek(-10, os.SEEK_END)
                file.write(b"otherwise")
