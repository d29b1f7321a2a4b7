"""The node as other people's clients see it: DCMTK's tools and pynetdicom."""

import os
import re
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest

from dcmsync.wire.part10 import parse_file
from tests import nodes, peers, samples
from tests.conftest import Start

pytestmark = pytest.mark.slow

SHIPPED = Path(os.path.dirname(pydicom.__file__)) / "data" / "test_files"
COMPRESSED = {
    "JPEG2000.dcm": "-xw",  # JPEG 2000
    "SC_rgb_jpeg_gdcm.dcm": "-xs",  # JPEG lossless
    "MR_small_RLE.dcm": "-xr",
    "SC_rgb_small_odd_jpeg.dcm": "-xy",  # JPEG baseline
    "image_dfl.dcm": "-xd",  # deflated
    "MR_small_bigendian.dcm": "-xb",
    "MR_small_implicit.dcm": "-xi",
    "CT_small.dcm": "-xe",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    folder = tmp_path_factory.mktemp("peers") / "served"
    return samples.make_series(folder, studies=3, series=2, instances=4) + samples.make_series(
        folder / "more", studies=1, series=1, instances=2, seed=2, modality="MR", patient_name="Müller^Änne"
    )


@pytest.fixture(scope="module")
def node(made: list[samples.Sample]) -> Iterator[nodes.Serving]:
    with nodes.serving(made[0].path.parents[2]) as serving:
        yield serving


@pytest.fixture
def dcmtk(require: Callable[[str], str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs one of DCMTK's tools, or skips the test."""

    def run(tool: str, *arguments: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
        require(tool)
        return peers.dcmtk(tool, *arguments, check=check)

    return run


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def find(run: Run, node: nodes.Serving, model: str, level: str, *keys: str) -> list[dict[str, str]]:
    """findscu's answers: keyword -> value."""
    words = [word for key in (f"QueryRetrieveLevel={level}", *keys) for word in ("-k", key)]
    done = run("findscu", "-v", model, "-aec", node.ae, node.host, str(node.port), *words)
    answers = re.split(r"Find Response: \d+ \(Pending", done.stderr + done.stdout)[1:]
    pairs = [re.findall(r"\(\w{4},\w{4}\) \w\w (?:\[(.*?)\s*\]|.*?)\s+#.* (\w+)", answer) for answer in answers]
    return [{keyword: value for value, keyword in pair} for pair in pairs]


def data_set(path: Path) -> bytes:
    """The octets of a file behind group 0002."""
    octets = path.read_bytes()
    head = parse_file(octets)
    return octets[head.data_set_offset :]  # type: ignore[union-attr]  # a Walk would be a file that is none


def test_echo(dcmtk: Run, node: nodes.Serving) -> None:
    dcmtk("echoscu", "-aec", node.ae, node.host, str(node.port), "--repeat", "5")


@pytest.mark.parametrize(
    "keys, found",
    [
        (["StudyDate="], 4), (["StudyDate=20240202"], 2), (["StudyDate=20240203-"], 2),
        (["StudyDate=-20240202"], 2), (["StudyDate=20240303-20240303"], 1), (["PatientName=sample^*"], 3),
        (["PatientName=S?mple*"], 3), (["PatientID=S1P000?"], 3), (["ModalitiesInStudy=MR"], 1),
        (["PatientID=S1P0001", "StudyDate=20240203"], 0), (["AccessionNumber=A000002"], 1),
        (["StudyTime=100000-110000"], 4), (["StudyInstanceUID=" + samples.uid(1, 1) + "\\" + samples.uid(1, 3)], 2),
        (["StudyInstanceUID=1.2.3"], 0),
    ],
)  # fmt: skip
def test_studies_are_found_by_dcmtk(dcmtk: Run, node: nodes.Serving, keys: list[str], found: int) -> None:
    assert len(find(dcmtk, node, "-S", "STUDY", *keys)) == found


def test_every_level_is_found_by_dcmtk(dcmtk: Run, node: nodes.Serving) -> None:
    study, series = "StudyInstanceUID=" + samples.uid(1, 1), "SeriesInstanceUID=" + samples.uid(1, 1, 2)
    found = find(dcmtk, node, "-S", "SERIES", study, "SeriesNumber=2", "NumberOfSeriesRelatedInstances", "Modality")
    assert [(one["SeriesNumber"], one["NumberOfSeriesRelatedInstances"], one["Modality"]) for one in found] == [
        ("2", "4", "CT")
    ]
    found = find(dcmtk, node, "-S", "IMAGE", study, series, "InstanceNumber=2-3", "SOPClassUID", "Rows=64")
    assert [one["InstanceNumber"] for one in found] == ["2", "3"]
    found = find(dcmtk, node, "-P", "PATIENT", "PatientID=S1*", "NumberOfPatientRelatedStudies")
    assert [(one["PatientID"], one["NumberOfPatientRelatedStudies"]) for one in found] == [
        ("S1P0001", "1"), ("S1P0002", "1"), ("S1P0003", "1"),
    ]  # fmt: skip
    found = find(dcmtk, node, "-P", "IMAGE", "PatientID=S1P0001", study, series, "SOPInstanceUID")
    assert sorted(one["SOPInstanceUID"].rstrip("\0") for one in found) == sorted(
        samples.uid(1, 1, 2, number) for number in range(1, 5)
    )


def test_names_come_in_utf_8(dcmtk: Run, node: nodes.Serving) -> None:
    (found,) = find(dcmtk, node, "-S", "STUDY", "PatientID=S2*", "PatientName")
    assert (found["PatientName"], found["SpecificCharacterSet"]) == ("Müller^Änne", "ISO_IR 192")


@pytest.mark.parametrize(
    "model, keys, expected",
    [
        ("-S", ["QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + samples.uid(1, 1)], 8),
        ("-P", ["QueryRetrieveLevel=PATIENT", "PatientID=S1P0002"], 8),
        ("-S", ["QueryRetrieveLevel=SERIES", "StudyInstanceUID=" + samples.uid(1, 1),
                "SeriesInstanceUID=" + samples.uid(1, 1, 1) + "\\" + samples.uid(1, 1, 2)], 8),
        ("-P", ["QueryRetrieveLevel=IMAGE", "PatientID=S1P0001", "StudyInstanceUID=" + samples.uid(1, 1),
                "SeriesInstanceUID=" + samples.uid(1, 1, 1),
                "SOPInstanceUID=" + samples.uid(1, 1, 1, 2) + "\\" + samples.uid(1, 1, 1, 3)], 2),
    ],
)  # fmt: skip
def test_what_getscu_gets_is_what_is_there(
    dcmtk: Run, node: nodes.Serving, made: list[samples.Sample], tmp_path: Path, model: str, keys: list[str],
    expected: int,
) -> None:
    words = [word for key in keys for word in ("-k", key)]
    dcmtk("getscu", model, "+B", "-aec", node.ae, node.host, str(node.port), "-od", tmp_path, *words)
    got = {re.search(r"2\.25\.\d+", path.name)[0]: path for path in tmp_path.iterdir()}  # type: ignore[index]
    assert len(got) == expected
    there = {sample.sop_uid: sample.path for sample in made}
    for uid, path in got.items():
        assert data_set(path) == data_set(there[uid])


def test_several_getscu_at_once(dcmtk: Run, node: nodes.Serving, tmp_path: Path) -> None:
    def get(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        dcmtk("getscu", "-S", "+B", "-aec", node.ae, node.host, str(node.port), "-od", folder,
              "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=" + samples.uid(1, number))
        return len(list(folder.iterdir()))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(get, (1, 2, 3))) == [8, 8, 8]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[nodes.Serving]:
    folder = tmp_path / "stored"
    folder.mkdir()
    with nodes.serving(folder) as serving:
        yield serving


@pytest.mark.parametrize("name, option", COMPRESSED.items())
def test_what_storescu_sends_is_what_is_stored(dcmtk: Run, empty: nodes.Serving, name: str, option: str) -> None:
    dcmtk("storescu", option, "-aec", empty.ae, empty.host, str(empty.port), SHIPPED / name)
    (stored,) = empty.folder.rglob("*.dcm")
    ours, theirs = parse_file(stored.read_bytes()), parse_file((SHIPPED / name).read_bytes())
    assert ours.transfer_syntax_uid == theirs.transfer_syntax_uid  # type: ignore[union-attr]  # as in data_set
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there, sent = (pydicom.dcmread(path, force=True) for path in (stored, SHIPPED / name))
    sent.pop("DataSetTrailingPadding", None)  # storescu leaves it out
    assert there == sent
    assert empty.wait_for_event(event="closed")["stored"] == 1


def test_what_was_stored_is_found_and_got_back(dcmtk: Run, empty: nodes.Serving, tmp_path: Path) -> None:
    place = ("-aec", empty.ae, empty.host, str(empty.port))
    dcmtk("storescu", "-xw", *place, SHIPPED / "JPEG2000.dcm")
    (study,) = find(dcmtk, empty, "-S", "STUDY", "StudyInstanceUID", "NumberOfStudyRelatedInstances")
    assert study["NumberOfStudyRelatedInstances"] == "1"
    (tmp_path / "got").mkdir()
    dcmtk("getscu", "-S", "+B", "+xw", *place, "-od", tmp_path / "got", "-k", "QueryRetrieveLevel=STUDY",
          "-k", "StudyInstanceUID=" + study["StudyInstanceUID"].rstrip("\0"))
    (got,) = (tmp_path / "got").iterdir()
    (stored,) = empty.folder.rglob("*.dcm")
    assert data_set(got) == data_set(stored)


def test_other_content_under_a_known_uid_is_refused(dcmtk: Run, empty: nodes.Serving, tmp_path: Path) -> None:
    (sample,) = samples.make_series(tmp_path / "made", instances=1)
    other = tmp_path / "other.dcm"
    other.write_bytes(sample.path.read_bytes()[:-2] + b"\1\2")
    place = ("-aec", empty.ae, empty.host, str(empty.port))
    dcmtk("storescu", *place, sample.path)
    dcmtk("storescu", *place, sample.path)  # the same again is no trouble
    refused = dcmtk("storescu", "-v", *place, other, check=False)
    assert "0x111" in refused.stderr + refused.stdout
    (stored,) = empty.folder.rglob("*.dcm")
    assert data_set(stored) == data_set(sample.path)


def test_pynetdicom_stores_a_private_class_and_finds_it(empty: nodes.Serving, tmp_path: Path) -> None:
    from pynetdicom import AE
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        StudyRootQueryRetrieveInformationModelFind as Find,
    )

    private = "1.3.12.2.1107.5.9.1"
    (sample,) = samples.make_series(tmp_path / "made", instances=1)
    instance = pydicom.dcmread(sample.path)
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = private
    client = AE("PYNET")
    client.add_requested_context(private, samples.EXPLICIT_LITTLE)
    client.add_requested_context(Find)
    association = client.associate(empty.host, empty.port, ae_title=empty.ae)
    assert association.is_established
    assert association.send_c_store(instance).Status == 0
    association.release()
    association = client.associate(empty.host, empty.port, ae_title=empty.ae)  # pynetdicom may trip over the switch
    question = pydicom.Dataset()
    question.QueryRetrieveLevel = "STUDY"
    question.SOPClassesInStudy = private
    question.StudyInstanceUID = ""
    answers = [answer for status, answer in association.send_c_find(question, Find) if status.Status == 0xFF00]
    assert [str(answer.StudyInstanceUID) for answer in answers] == [sample.study_uid]
    association.release()


def test_pynetdicom_gets_with_a_role(node: nodes.Serving) -> None:
    from pynetdicom import AE, build_role, evt
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        CTImageStorage,
    )
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Get

    got: list[str] = []

    def store(event: evt.Event) -> int:
        got.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    client = AE("PYNET")
    client.add_requested_context(Get)
    client.add_requested_context(CTImageStorage, samples.EXPLICIT_LITTLE)
    association = client.associate(
        node.host, node.port, ae_title=node.ae, ext_neg=[build_role(CTImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )  # fmt: skip
    question = pydicom.Dataset()
    question.QueryRetrieveLevel = "STUDY"
    question.StudyInstanceUID = samples.uid(1, 3)
    statuses = [status.Status for status, _ in association.send_c_get(question, Get)]
    association.release()
    assert statuses[-1] == 0 and len(got) == 8


@pytest.mark.parametrize(
    "model, keys, expected",
    [
        ("-S", ["QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + samples.uid(1, 1)], 8),
        ("-P", ["QueryRetrieveLevel=PATIENT", "PatientID=S1P0002"], 8),
        ("-S", ["QueryRetrieveLevel=IMAGE", "StudyInstanceUID=" + samples.uid(1, 1),
                "SeriesInstanceUID=" + samples.uid(1, 1, 1),
                "SOPInstanceUID=" + samples.uid(1, 1, 1, 2) + "\\" + samples.uid(1, 1, 1, 3)], 2),
    ],
)  # fmt: skip
def test_what_movescu_moves_is_what_is_there(
    dcmtk: Run, made: list[samples.Sample], tmp_path: Path, model: str, keys: list[str], expected: int
) -> None:
    port = peers.free_port()
    words = [word for key in keys for word in ("-k", key)]
    with nodes.serving(made[0].path.parents[2], "--destination", f"MOVESCU@localhost:{port}") as node:
        dcmtk("movescu", model, "-aet", "MOVESCU", "-aec", node.ae, "-aem", "MOVESCU", "--port", str(port),
              "-od", tmp_path, node.host, str(node.port), *words)
        assert node.wait_for_event(type="move")["sent"] == expected
    there = {data_set(sample.path) for sample in made}
    got = [data_set(path) for path in tmp_path.iterdir()]
    assert len(set(got)) == expected and set(got) <= there


def test_movescu_hears_that_nobody_knows_the_destination(dcmtk: Run, node: nodes.Serving) -> None:
    done = dcmtk("movescu", "-v", "-S", "-aec", node.ae, "-aem", "NOWHERE", node.host, str(node.port), "-k",
                 "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=" + samples.uid(1, 1), check=False)
    assert "MoveDestinationUnknown" in done.stderr + done.stdout or "0xa801" in (done.stderr + done.stdout).lower()


def test_orthanc_stores_asks_moves_and_has_it_committed(start: Start, tmp_path: Path) -> None:
    pacs = start(peers.orthanc)
    (tmp_path / "archive").mkdir()
    made = samples.make_series(tmp_path / "made", studies=2, instances=3)
    with nodes.serving(tmp_path / "archive", "--destination", pacs.locator) as node:
        pacs.know(node.ae, node.port)
        pacs.store([sample.path for sample in made])
        for study in pacs.rest("GET", "/studies"):
            pacs.rest("POST", f"/modalities/{node.ae}/store", study)
        assert len(list((tmp_path / "archive").rglob("*.dcm"))) == 6

        listed = [{"SOPClassUID": samples.CT_IMAGE_STORAGE, "SOPInstanceUID": sample.sop_uid} for sample in made]
        lost = {"SOPClassUID": samples.CT_IMAGE_STORAGE, "SOPInstanceUID": "1.2.3"}
        asked = pacs.rest("POST", f"/modalities/{node.ae}/storage-commitment", {"DicomInstances": [*listed, lost]})
        report = f"/storage-commitment/{asked['ID']}"
        peers.wait_for(lambda: pacs.rest("GET", report)["Status"] != "Pending")
        told = pacs.rest("GET", report)
        assert told["Status"] == "Failure" and len(told["Success"]) == 6
        (failure,) = told["Failures"]
        assert failure["SOPInstanceUID"] == "1.2.3" and "not available" in failure["Description"]

        pacs.clear()
        query = pacs.rest("POST", f"/modalities/{node.ae}/query",
                          {"Level": "Study", "Query": {"StudyInstanceUID": made[0].study_uid}})
        found = pacs.rest("GET", f"/queries/{query['ID']}/answers")
        assert len(found) == 1
        pacs.rest("POST", f"/queries/{query['ID']}/retrieve", {"TargetAet": pacs.ae, "Synchronous": True})
        assert pacs.instances() == 3


def test_pynetdicom_has_it_committed_on_one_association(node: nodes.Serving, made: list[samples.Sample]) -> None:
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

    told: list[pydicom.Dataset] = []
    come = threading.Event()

    def hear(event: evt.Event) -> tuple[int, None]:
        told.append(event.event_information)
        come.set()
        return 0, None

    question = pydicom.Dataset()
    question.TransactionUID = "2.25.77"
    question.ReferencedSOPSequence = []
    for sample in made[:3]:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = samples.CT_IMAGE_STORAGE, sample.sop_uid
        question.ReferencedSOPSequence.append(item)
    client = AE("PYNET")
    client.add_requested_context(StorageCommitmentPushModel)
    association = client.associate(
        node.host, node.port, ae_title=node.ae, evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)]
    )
    status, _ = association.send_n_action(question, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    assert status.Status == 0
    assert come.wait(nodes.DEADLINE_S)
    association.release()
    assert told[0].TransactionUID == "2.25.77" and len(told[0].ReferencedSOPSequence) == 3


@pytest.mark.parametrize("octets", [4096, 16382, 65536, 131072])
def test_every_size_of_pdu(dcmtk: Run, empty: nodes.Serving, tmp_path: Path, octets: int) -> None:
    (sample,) = samples.make_series(tmp_path / "made", instances=1, rows=256, columns=256)
    place = ("-aec", empty.ae, "-pdu", str(octets), empty.host, str(empty.port))
    dcmtk("storescu", *place, sample.path)
    (tmp_path / "got").mkdir()
    dcmtk("getscu", "-S", "+B", *place, "-od", tmp_path / "got", "-k", "QueryRetrieveLevel=STUDY",
          "-k", f"StudyInstanceUID={sample.study_uid}")
    (stored,), (got,) = empty.folder.rglob("*.dcm"), (tmp_path / "got").iterdir()
    assert data_set(stored) == data_set(got) == data_set(sample.path)


def test_sixteen_at_once_of_every_kind(dcmtk: Run, tmp_path: Path) -> None:
    served = samples.make_series(tmp_path / "served", studies=2, instances=30, rows=128, columns=128)
    given = [samples.make_series(tmp_path / f"given{n}", instances=30, seed=10 + n) for n in range(4)]
    (tmp_path / "target").mkdir()
    with (
        nodes.serving(tmp_path / "target", "--ae", "TARGET") as target,
        nodes.serving(tmp_path / "served", "--destination", f"TARGET@127.0.0.1:{target.port}") as node,
    ):
        place = ("-aec", node.ae, node.host, str(node.port))
        study = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={served[0].study_uid}")

        def work(number: int) -> None:
            match number % 4:
                case 0:
                    dcmtk("storescu", "+sd", "+r", *place, tmp_path / f"given{number // 4}")
                case 1:
                    dcmtk("findscu", "-S", *place, "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")
                case 2:
                    folder = tmp_path / f"got{number}"
                    folder.mkdir()
                    dcmtk("getscu", "-S", "+B", *place, "-od", folder, *study)
                    assert len(list(folder.iterdir())) == 30
                case _:
                    dcmtk("movescu", "-S", "-aem", "TARGET", *place, *study)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        closed = [node.wait_for_event(number, event="closed") for number in range(1, 17)]
    assert sum(one["stored"] for one in closed) == 120 and sum(one["failed"] for one in closed) == 0
    assert sum(one["sent"] for one in closed) == 8 * 30
    assert {data_set(path) for path in (tmp_path / "target").rglob("*.dcm")} == {
        data_set(sample.path) for sample in served[:30]
    }
    there = {data_set(path) for path in (tmp_path / "served").rglob("*.dcm")}
    assert there >= {data_set(sample.path) for each in given for sample in each}
