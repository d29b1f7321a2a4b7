"""`dcmsync query`, as people run it, against Orthanc and DCMTK's dcmqrscp."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pydicom
import pytest

from tests import peers, samples
from tests.workdir import Done, Workdir

SEED = 41
CHARSET_FILES = Path(pydicom.__file__).parent / "data" / "charset_files"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """3 studies of 2 series of 3 instances; the studies are of 2 February, 3 March and 4 April 2024, 10:15."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, studies=3, series=2, instances=3, seed=SEED, patient_name="Canary^Bird")


@pytest.fixture(scope="module")
def archive(start_for_module, made: list[samples.Sample]) -> peers.Peer:
    """Orthanc with what was made; no test changes it."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in made)
    return peer


def uids(done: Done, keyword: str) -> list[str]:
    """The values of one UID, in the order of the records."""
    return [record[keyword] for record in done.records if keyword in record]


def study_uids(*numbers: int) -> set[str]:
    return {samples.uid(SEED, number) for number in numbers}


# Records


def test_a_study_record_says_what_the_node_says(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "PatientID=S41P0001")
    assert (done.status, done.stderr) == (0, ""), done
    study, end = done.records
    assert study == {
        "type": "study",
        "source": archive.locator,
        "PatientID": "S41P0001",
        "PatientName": "Canary^Bird",
        "PatientBirthDate": "19600101",
        "PatientSex": "O",
        "StudyInstanceUID": samples.uid(SEED, 1),
        "StudyDate": "20240202",
        "StudyTime": "101500",
        "StudyDescription": "Generated study 1",
        "StudyID": "1",
        "AccessionNumber": "A000001",
        "ModalitiesInStudy": ["CT"],
        "NumberOfStudyRelatedSeries": 2,
        "NumberOfStudyRelatedInstances": 6,
    }
    assert end == {"type": "end", "format": 1, "complete": True, "records": 1}


def test_a_series_record_repeats_its_study_and_patient(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "PatientID=S41P0002", "SeriesNumber=2")
    assert done.status == 0, done
    series, end = done.records
    assert series.items() >= {
        "type": "series",
        "PatientID": "S41P0002",
        "StudyInstanceUID": samples.uid(SEED, 2),
        "StudyDate": "20240303",
        "SeriesInstanceUID": samples.uid(SEED, 2, 2),
        "Modality": "CT",
        "SeriesNumber": 2,
        "SeriesDescription": "Generated series 2",
        "NumberOfSeriesRelatedInstances": 3,
    }.items()
    assert end["records"] == 1


def test_an_instance_record_has_its_class_and_number(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run(
        "query", archive.locator, f"SOPInstanceUID={samples.uid(SEED, 3, 1, 2)}", "PatientID=S41P0003"
    )
    assert done.status == 0, done
    instance = done.records[0]
    assert instance.items() >= {
        "type": "instance",
        "PatientName": "Canary^Bird",
        "SeriesInstanceUID": samples.uid(SEED, 3, 1),
        "SOPInstanceUID": samples.uid(SEED, 3, 1, 2),
        "SOPClassUID": samples.CT_IMAGE_STORAGE,
        "InstanceNumber": 2,
    }.items()


def test_keys_are_of_dicom_or_in_lower_case(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "--all", "--level", "instance")
    for record in done.records:
        for key in record:
            assert key in ("type", "source", "format", "complete", "records") or key[0].isupper(), key


@pytest.mark.parametrize("words, kind, count", [
    (("PatientID=S41P0001",), "study", 1),
    (("PatientID=S41P0001", "Modality=CT"), "series", 2),
    (("PatientID=S41P0001", "Modality=MR"), "series", 0),
    (("PatientID=S41P0001", "InstanceNumber=1"), "instance", 2),
    (("PatientID=S41P0001", "Rows"), "instance", 6),
    (("PatientID=S41P0001", "--level", "series"), "series", 2),
    (("PatientID=S41P0001", "--level", "instance"), "instance", 6),
    (("PatientID=S41P000?",), "study", 3),
    (("PatientID=S41*", "StudyDate=20240303"), "study", 1),
    (("StudyDate=20240303-",), "study", 2),
    (("StudyDate=-20240303",), "study", 2),
    (("StudyDate=20240203-20240303",), "study", 1),
    (("PatientName=Canary*",), "study", 3),
    (("PatientName=*ird", "ModalitiesInStudy=CT"), "study", 3),
    (("AccessionNumber=A000003", "--level", "instance"), "instance", 6),
    (("PatientID=nobody",), "study", 0),
    (("--all",), "study", 3),
    (("--all", "--level", "series"), "series", 6),
    (("--all", "--level", "instance"), "instance", 18),
])  # fmt: skip
def test_keys_choose_and_name_the_level(
    words: tuple[str, ...], kind: str, count: int, workdir: Workdir, archive: peers.Peer
) -> None:
    done = workdir.run("query", archive.locator, *words)
    assert (done.status, done.stderr) == (0, ""), done
    assert [record["type"] for record in done.records] == [kind] * count + ["end"]
    deepest = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}[kind]
    assert len(set(uids(done, deepest))) == count
    assert done.records[-1] == {"type": "end", "format": 1, "complete": True, "records": count}


def test_a_list_of_uids_is_asked_for_one_by_one(workdir: Workdir, archive: peers.Peer) -> None:
    wanted = [samples.uid(SEED, 3), samples.uid(SEED, 1)]
    done = workdir.run("query", archive.locator, f"StudyInstanceUID={','.join(wanted)}")
    assert uids(done, "StudyInstanceUID") == wanted, done


def test_a_bare_key_and_return_bring_more_attributes(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run(
        "query", archive.locator, "PatientID=S41P0001", "ReferringPhysicianName", "--level", "instance",
        "--return", "SliceThickness,ImagePositionPatient", "--return", "Rows",
    )  # fmt: skip
    assert done.status == 0, done
    first = done.records[0]
    assert first["ReferringPhysicianName"] == "Referring^Doctor"
    assert first["SliceThickness"] == 1.0
    assert first["ImagePositionPatient"] == [0.0, 0.0, float(first["InstanceNumber"])]
    assert first["Rows"] == 64


@pytest.mark.parametrize("words, numbers", [
    (("--since", "20240303"), {2, 3}),
    (("--since", "2024-03-03"), {2, 3}),
    (("--since", "2024-03-03T10:00"), {2, 3}),
    (("--since", "2024-03-03T12:00"), {3}),
    (("--until", "20240303"), {1, 2}),
    (("--until", "2024-03-03T10:14"), {1}),
    (("--since", "202403", "--until", "202403"), {2}),
    (("--since", "12h"), set()),
])  # fmt: skip
def test_since_and_until_choose_studies_to_the_minute(
    words: tuple[str, ...], numbers: set[int], workdir: Workdir, archive: peers.Peer
) -> None:
    done = workdir.run("query", archive.locator, *words)
    assert done.status == 0, done
    assert set(uids(done, "StudyInstanceUID")) == study_uids(*numbers)


def test_hours_count_back_from_now(workdir: Workdir, archive: peers.Peer) -> None:
    hours = int((datetime.now() - datetime(2024, 3, 20)) / timedelta(hours=1))
    done = workdir.run("query", archive.locator, "--since", f"{hours}h")
    assert set(uids(done, "StudyInstanceUID")) == study_uids(3), done


# Expanding records


def test_records_are_expanded_at_their_own_source(workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer,
                                                  tmp_path: Path) -> None:
    other = samples.make_series(tmp_path / "other", series=1, instances=2, seed=42)
    peers.storescu(dcmqrscp, [tmp_path / "other"])
    lines = workdir.run("query", dcmqrscp.locator, "--all").stdout
    lines += workdir.run("query", archive.locator, "PatientID=S41P0001").stdout
    done = workdir.run("query", "-", "--level", "series", stdin=lines)
    assert done.status == 0, done
    assert [(record["type"], record.get("source")) for record in done.records] == [
        ("series", dcmqrscp.locator),
        ("series", archive.locator),
        ("series", archive.locator),
        ("end", None),
    ]
    assert uids(done, "SeriesInstanceUID")[0] == other[0].series_uid
    assert set(uids(done, "SeriesInstanceUID")[1:]) == {samples.uid(SEED, 1, 1), samples.uid(SEED, 1, 2)}
    assert done.records[1]["PatientName"] == "Canary^Bird"
    assert done.records[1]["NumberOfStudyRelatedSeries"] == 2


def test_records_that_are_deep_enough_or_unknown_pass_as_they_are(workdir: Workdir, archive: peers.Peer) -> None:
    series = workdir.run("query", archive.locator, "PatientID=S41P0001", "SeriesNumber=1").lines[0]
    odd = b'{ "type":"series" , "SeriesInstanceUID":"1.2.3","StudyInstanceUID":"1.2","mine":1}'
    unknown = b'{"type":"weather","rain":true}'
    done = workdir.run("query", "-", "--level", "series", stdin=b"\n".join([series, odd, unknown, b""]))
    assert done.status == 0, done
    assert done.lines[:3] == [series, odd, unknown]
    assert done.records[3]["records"] == 3


def test_an_incomplete_input_makes_an_incomplete_output(workdir: Workdir, archive: peers.Peer) -> None:
    study = workdir.run("query", archive.locator, "PatientID=S41P0001").lines[0]
    end = b'{"type":"end","format":1,"complete":false,"records":1}'
    done = workdir.run("query", "-", "--level", "series", stdin=study + b"\n" + end + b"\n")
    assert done.status == 6, done
    assert len(done.of_type("series")) == 2
    assert done.records[-1]["complete"] is False


def test_a_bad_line_comes_after_what_was_before_it_and_is_named(workdir: Workdir, archive: peers.Peer) -> None:
    study = workdir.run("query", archive.locator, "PatientID=S41P0001").lines[0]
    done = workdir.run("query", "-", "--level", "series", stdin=study + b"\nnonsense\n" + study + b"\n")
    assert done.status == 6, done
    assert "line 2" in done.stderr
    assert len(done.of_type("series")) == 2
    assert done.records[-1] == {"type": "end", "format": 1, "complete": False, "records": 2, "reason": "input"}


def test_a_source_that_is_no_place_is_named_with_its_line(workdir: Workdir, archive: peers.Peer) -> None:
    study = workdir.run("query", archive.locator, "PatientID=S41P0001").records[0]
    done = workdir.run("query", "-", "--level", "series", stdin=[study, {**study, "source": "nowhere"}])
    assert done.status == 6, done
    assert "line 2" in done.stderr and "'nowhere'" in done.stderr
    assert [record["type"] for record in done.records] == ["series", "series", "end"]


def test_an_unreachable_source_does_not_keep_the_others_from_being_asked(workdir: Workdir, archive: peers.Peer) -> None:
    study = workdir.run("query", archive.locator, "PatientID=S41P0001").records[0]
    gone = {**study, "source": f"GONE@127.0.0.1:{peers.free_port()}"}
    done = workdir.run("query", "-", "--level", "series", stdin=[gone, study])
    assert done.status >= 5, done
    assert len(done.of_type("series")) == 2
    assert done.records[-1]["complete"] is False
    assert "cannot connect" in done.stderr


def test_expanding_needs_a_pipe(workdir: Workdir) -> None:
    done = workdir.run("query", "-", "--level", "series")
    assert done.status == 2, done


# Words that are wrong


@pytest.mark.parametrize("words, said", [
    (("X@127.0.0.1:104",), "--all"),
    (("X@127.0.0.1:104", "PatientsName=A"), "Did you mean PatientName?"),
    (("X@127.0.0.1:104", "--return", "Pixels", "--all"), "'Pixels' is no DICOM keyword"),
    (("X@127.0.0.1:104", "Modality=CT", "--level", "study"), "ModalitiesInStudy"),
    (("X@127.0.0.1:104", "=CT"), "is no key"),
    (("X@127.0.0.1:104", "PatientID=A", "PatientID=B"), "twice"),
    (("X@127.0.0.1:104", "StudyDate=20240101", "--since", "2d"), "--since"),
    (("X@127.0.0.1:104", "--since", "yesterday"), "yesterday"),
    (("pacs", "PatientID=A"), "No names are configured"),
    (("gopher://pacs/wado", "PatientID=A"), "gopher://"),
    (("X@127.0.0.1:70000", "PatientID=A"), "70000"),
    ((), "ENDPOINT"),
])  # fmt: skip
def test_wrong_words_are_named_before_anything_is_done(words: tuple[str, ...], said: str, workdir: Workdir) -> None:
    done = workdir.run("query", *words)
    assert done.status == 2, done
    assert said in done.stderr
    assert done.stdout == b""


def test_the_configured_names_are_listed(workdir: Workdir, archive: peers.Peer) -> None:
    (workdir.path / "c.toml").write_text(f'[endpoints.mypacs]\nlocator = "{archive.locator}"\n')
    done = workdir.run("query", "mypac", "PatientID=A", "--config", "c.toml")
    assert done.status == 2 and "Did you mean mypacs?" in done.stderr, done
    done = workdir.run("query", "mypacs", "PatientID=S41P0001", env={"DCMSYNC_CONFIG": "c.toml"})
    assert done.status == 0, done
    assert done.records[0]["source"] == "mypacs"


# Nodes that cannot be asked


def test_an_unreachable_node_is_named(workdir: Workdir) -> None:
    locator = f"GONE@127.0.0.1:{peers.free_port()}"
    done = workdir.run("query", locator, "PatientID=A")
    assert done.status == 5, done
    assert "cannot connect: connection refused" in done.stderr and "Check the host, the port" in done.stderr
    assert done.records == [{"type": "end", "format": 1, "complete": False, "records": 0, "reason": "unreachable"}]


def test_a_host_that_does_not_exist_is_named(workdir: Workdir) -> None:
    done = workdir.run("query", "GONE@no-such-host.invalid:104", "PatientID=A")
    assert done.status == 5, done
    assert "no-such-host.invalid" in done.stderr


def test_a_port_that_speaks_something_else_is_named(workdir: Workdir, archive: peers.Peer) -> None:
    port = archive.http.rpartition(":")[2]
    done = workdir.run("query", f"ORTHANC@127.0.0.1:{port}", "PatientID=A", "--timeout", "5")
    assert done.status in (4, 5), done
    assert f"127.0.0.1:{port}" in done.stderr
    assert done.records[-1]["complete"] is False


def test_a_wrong_called_title_is_said_to_be_wrong(workdir: Workdir, start) -> None:
    peer = start(peers.orthanc, settings={"DicomCheckCalledAet": True})
    done = workdir.run("query", f"OTHER@{peer.host}:{peer.port}", "PatientID=A")
    assert done.status == 5, done
    assert "called AE title" in done.stderr
    assert done.records[-1].items() >= {"complete": False, "reason": "rejected"}.items()


def test_a_calling_title_that_is_not_registered_is_named(workdir: Workdir, start) -> None:
    peer = start(peers.orthanc, settings={"DicomAlwaysAllowFind": False, "DicomAlwaysAllowEcho": False,
                                          "DicomAlwaysAllowStore": False, "DicomAlwaysAllowGet": False,
                                          "DicomAlwaysAllowMove": False, "DicomAlwaysAllowFindWorklist": False,
                                          "DicomModalities": {"known": ["KNOWN", peers.HOST, 1]}})
    done = workdir.run("query", peer.locator, "PatientID=A", "--calling", "STRANGER")
    assert done.status == 5, done
    assert "STRANGER" in done.stderr
    done = workdir.run("query", peer.locator, "PatientID=A", "--calling", "KNOWN")
    assert done.status == 0, done


def test_a_node_that_refuses_every_association(workdir: Workdir, start) -> None:
    peer = start(peers.storescp, "--refuse")
    done = workdir.run("query", peer.locator, "PatientID=A")
    assert done.status == 5, done
    assert "rejected" in done.stderr


def test_a_node_that_has_no_queries(workdir: Workdir, storescp: peers.Peer) -> None:
    done = workdir.run("query", storescp.locator, "PatientID=A")
    assert done.status == 5, done
    assert done.records[-1]["complete"] is False


# Formats


def test_the_tree_is_sorted_and_counted(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "PatientID=S41P000?", "--level", "series", "--format", "tree")
    assert done.status == 0, done
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "3 patients | 3 studies | 6 series | 18 instances"
    assert lines[1:5] == [
        "├── ID: S41P0001 | Name: Canary^Bird | 1 study | 2 series | 6 instances",
        "│   └── Date: 20240202 | Time: 101500 | Generated study 1 | 2 series | 6 instances",
        "│       ├── 001 | Generated series 1 | CT | 3 instances",
        "│       └── 002 | Generated series 2 | CT | 3 instances",
    ]


def test_the_table_has_the_keywords_on_top(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "PatientID=S41P0001", "--format", "table")
    head, row = done.stdout.decode().splitlines()
    assert head.split()[:3] == ["source", "PatientID", "PatientName"]
    assert row.split()[:3] == [archive.locator, "S41P0001", "Canary^Bird"]


def test_csv_has_a_head_and_a_line_for_each_record(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "--all", "--level", "series", "--format", "csv")
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("type,source,PatientID,PatientName,")
    assert len(lines) == 7 and len({line.count(",") for line in lines}) == 1


def test_uids_are_those_of_the_level(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "PatientID=S41P0001", "--level", "series", "--format", "uids")
    assert set(done.stdout.decode().split()) == {samples.uid(SEED, 1, 1), samples.uid(SEED, 1, 2)}


def test_a_cut_list_is_no_secret_in_the_other_formats(workdir: Workdir) -> None:
    done = workdir.run("query", f"GONE@127.0.0.1:{peers.free_port()}", "PatientID=A", "--format", "uids")
    assert done.status == 5, done
    assert "this is not all" in done.stderr


# Readers that go away


def test_a_reader_that_leaves_ends_the_query_quietly_and_the_association_in_order(
    workdir: Workdir, dcmqrscp: peers.Peer, tmp_path: Path
) -> None:
    samples.make_series(tmp_path / "many", studies=60, instances=1, rows=1, columns=1, seed=43)
    peers.storescu(dcmqrscp, [tmp_path / "many"])
    so_far = dcmqrscp.log.count("Association Release") + dcmqrscp.log.count("Association Abort")
    process = workdir.start("query", dcmqrscp.locator, "--all", "--level", "instance")
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    process.stdout.close()
    status = process.wait(20)
    assert json.loads(first)["type"] == "instance"
    assert (status, process.stderr.read()) == (141, b"")
    process.stderr.close()
    peers.wait_for(
        lambda: dcmqrscp.log.count("Association Release") + dcmqrscp.log.count("Association Abort") > so_far,
        what="the end of the association",
    )


# Character sets


def charset_files() -> list[Path]:
    """pydicom's, without the two that have no UIDs, which no archive takes."""
    return sorted(path for path in CHARSET_FILES.glob("*.dcm") if not path.name.startswith("chrSQ"))


def names_by_uid() -> dict[str, str]:
    """SOP Instance UID -> the patient's name as pydicom decodes it."""
    data_sets = [pydicom.dcmread(path) for path in charset_files()]
    return {str(each.SOPInstanceUID): str(each.PatientName) for each in data_sets}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_names_in_every_character_set_come_as_utf_8(workdir: Workdir, dcmqrscp: peers.Peer) -> None:
    peers.dcmtk("dcmsend", "-aec", dcmqrscp.ae, dcmqrscp.host, str(dcmqrscp.port), *charset_files())
    done = workdir.run("query", dcmqrscp.locator, "--all", "--level", "instance")
    assert done.status == 0, done
    assert {each["SOPInstanceUID"]: each["PatientName"] for each in done.of_type("instance")} == names_by_uid()
    assert "やまだ^たろう".encode() in done.stdout


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_names_come_from_an_orthanc_that_answers_in_utf_8(workdir: Workdir, start) -> None:
    """Orthanc 1.10 answers in the one character set of its configuration, and cannot read two of its files' own."""
    peer = start(peers.orthanc, settings={"DefaultEncoding": "Utf8"})
    peer.store(charset_files())
    done = workdir.run("query", peer.locator, "--all", "--level", "instance")
    assert done.status == 0, done
    names = names_by_uid()
    found = {each["SOPInstanceUID"]: each["PatientName"] for each in done.of_type("instance")}
    assert found.keys() == names.keys()
    lost_in_orthanc = {uid for uid, name in names.items() if name.startswith(("ﾔﾏﾀﾞ", "やまだ"))}
    assert {uid for uid in names if found[uid] != names[uid]} <= lost_in_orthanc


def test_names_may_be_asked_for_in_any_script(workdir: Workdir, start) -> None:
    peer = start(peers.orthanc, settings={"DefaultEncoding": "Utf8"})
    peer.store(charset_files())
    for asked, found in (("Διονυσιος", "Διονυσιος"), ("שרון*", "שרון^דבורה"), ("Buc^Jérôme", "Buc^Jérôme")):
        done = workdir.run("query", peer.locator, f"PatientName={asked}")
        assert done.status == 0, done
        assert {each["PatientName"] for each in done.of_type("study")} == {found}


def test_the_locale_does_not_matter(workdir: Workdir, start) -> None:
    peer = start(peers.orthanc, settings={"DefaultEncoding": "Utf8"})
    peer.store([CHARSET_FILES / "chrGreek.dcm"])
    done = workdir.run("query", peer.locator, "PatientName=Διον*", env={"LC_ALL": "C"})
    assert done.status == 0, done
    assert done.records[0]["PatientName"] == "Διονυσιος"


def test_octets_that_are_no_text_are_not_taken_for_wildcards(workdir: Workdir) -> None:
    """A `?` in place of what could not be read would ask for more than was meant."""
    latin = os.fsdecode("PatientName=Jérôme".encode("latin-1"))
    done = workdir.run("query", "X@127.0.0.1:104", latin)
    assert done.status == 2, done
    assert "PatientName is no UTF-8 text" in done.stderr


# Lists that are cut


@pytest.mark.parametrize("limit, studies", [(1, 7), (2, 12), (100, 130)])
def test_a_list_that_the_server_cuts_is_found_whole_in_parts(
    limit: int, studies: int, workdir: Workdir, start, tmp_path: Path
) -> None:
    peer = start(peers.orthanc, settings={"LimitFindResults": limit, "LimitFindInstances": limit})
    made = samples.make_series(tmp_path / "made", studies=studies, instances=1, rows=1, columns=1, seed=44)
    peer.store(sample.path for sample in made)
    done = workdir.run("query", peer.locator, "--all")
    assert done.status == 0, done
    assert sorted(uids(done, "StudyInstanceUID")) == sorted(sample.study_uid for sample in made)
    assert done.records[-1]["complete"] is True and done.records[-1]["splits"] > 0


def test_cut_lists_of_series_and_instances_are_found_whole(workdir: Workdir, start, tmp_path: Path) -> None:
    peer = start(peers.orthanc, settings={"LimitFindResults": 4, "LimitFindInstances": 4})
    made = samples.make_series(tmp_path / "made", studies=2, series=6, instances=13, rows=1, columns=1, seed=45)
    peer.store(sample.path for sample in made)
    done = workdir.run("query", peer.locator, "--all", "--level", "instance")
    assert done.status == 0, done
    assert sorted(uids(done, "SOPInstanceUID")) == sorted(sample.sop_uid for sample in made)
    assert done.records[-1]["splits"] > 0


def test_a_list_that_cannot_be_asked_for_in_parts_is_called_incomplete(
    workdir: Workdir, start, tmp_path: Path
) -> None:
    peer = start(peers.orthanc, settings={"LimitFindResults": 2, "LimitFindInstances": 2})
    same = samples.make_series(tmp_path / "made", studies=1, series=1, instances=3, rows=1, columns=1, seed=46)
    for number, sample in enumerate(same):  # three studies of one patient at one moment
        data_set = pydicom.dcmread(sample.path)
        data_set.StudyInstanceUID, data_set.SeriesInstanceUID = f"1.2.{number + 1}", f"1.2.{number + 1}.1"
        data_set.save_as(sample.path)
    peer.store(sample.path for sample in same)
    done = workdir.run("query", peer.locator, "--all")
    assert done.status == 6, done
    assert len(done.of_type("study")) == 2
    assert done.records[-1].items() >= {"type": "end", "complete": False, "records": 2}.items()
    assert "cut short" in done.stderr


# Folders and archives


def stripped(record: dict[str, object]) -> dict[str, object]:
    """A record without what only a place of this machine tells, and without where it is from."""
    ours = {"TransferSyntaxUID"} if record["type"] == "instance" else set()
    return {key: value for key, value in record.items() if (key[0].isupper() or key == "type") and key not in ours}


def same(one: Done, other: Done) -> bool:
    """Whether two runs gave the same records, in whatever order."""
    return sorted(map(str, map(stripped, one.records[:-1]))) == sorted(map(str, map(stripped, other.records[:-1])))


@pytest.fixture
def tree(workdir: Workdir, made: list[samples.Sample]) -> Path:
    """What was made, in the folder that is queried as ./tree."""
    folder = workdir.path / "tree"
    shutil.copytree(made[0].path.parents[2], folder)
    return folder


@pytest.mark.parametrize("words", [
    ("--all",),
    ("--all", "--level", "series"),
    ("--all", "--level", "instance"),
    ("PatientID=S41P0001",),
    ("PatientID=S41P000?", "--level", "instance"),
    ("PatientName=Canary*",),
    ("PatientName=*ird", "ModalitiesInStudy=CT"),
    ("PatientID=nobody",),
    ("StudyDate=20240303-",),
    ("StudyDate=20240203-20240303", "--level", "series"),
    ("Modality=CT", "SeriesNumber=2"),
    ("Modality=MR",),
    ("InstanceNumber=1",),
    ("AccessionNumber=A000003", "--level", "instance"),
    (f"StudyInstanceUID={samples.uid(SEED, 3)},{samples.uid(SEED, 1)}",),
    (f"SOPInstanceUID={samples.uid(SEED, 3, 1, 2)}",),
    ("--since", "2024-03-03T12:00"),
    ("PatientID=S41P0001", "--level", "instance", "--return", "SliceThickness,ImagePositionPatient,Rows"),
    ("PatientID=S41P0001", "ReferringPhysicianName", "--level", "series"),
    ("KVP=120", "PatientID=S41P0002"),
    ("SOPClassUID=1.2.840.10008.5.1.4.1.1.2", "PatientID=S41P0002"),
])  # fmt: skip
def test_a_folder_answers_like_a_server(
    words: tuple[str, ...], workdir: Workdir, archive: peers.Peer, tree: Path
) -> None:
    level = () if words[0] != "KVP=120" else ("--level", "instance")
    asked = workdir.run("query", archive.locator, *words, *level)
    for _ in range(2):  # from the files, then from what is remembered of them
        done = workdir.run("query", "./tree", *words, *level)
        assert (done.status, done.stderr) == (0, ""), done
        assert same(done, asked), (done, asked)
        assert all(record["source"] == "./tree" for record in done.records[:-1])
        assert done.records[-1] == {"type": "end", "format": 1, "complete": True, "records": len(done.records) - 1}


def test_a_record_of_a_file_says_where_it_is(workdir: Workdir, tree: Path) -> None:
    done = workdir.run("query", "./tree", "--level", "instance", "--no-cache")
    assert done.status == 0, done
    for record in done.of_type("instance"):
        path = tree / record["path"]
        assert pydicom.dcmread(path).SOPInstanceUID == record["SOPInstanceUID"]
        assert record["size"] == path.stat().st_size
        assert record["TransferSyntaxUID"] == samples.EXPLICIT_LITTLE
    assert len(done.of_type("instance")) == 18


def test_what_is_remembered_is_not_read_again_unless_it_changed(
    workdir: Workdir, tree: Path, require: Callable[[str], str]
) -> None:
    for path in tree.rglob("*.dcm"):
        os.utime(path, (1, 1))

    def opened(*words: str) -> int:
        log = workdir.path / "log"
        line = [require("strace"), "-f", "-e", "trace=openat", "-o", str(log), *workdir.program, "query", "./tree"]
        environment = workdir.environment()
        subprocess.run([*line, *words], check=True, cwd=workdir.path, env=environment, stdout=subprocess.DEVNULL)
        return len({line for line in log.read_text().splitlines() if ".dcm" in line})

    assert opened() == 18
    assert opened("--level", "instance") == 0
    changed = next(tree.rglob("*.dcm"))
    changed.write_bytes(changed.read_bytes())
    os.utime(changed, (2, 2))
    assert opened() == 1
    assert opened("--no-cache") == 18
    assert opened("--cache", "named.sqlite") == 18
    assert opened("--cache", "named.sqlite") == 0
    assert (workdir.path / "named.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_file_that_came_left_or_changed_is_seen_by_the_next_query(workdir: Workdir, tree: Path) -> None:
    def numbers() -> int:
        return len(workdir.run("query", "./tree", "--level", "instance").of_type("instance"))

    assert numbers() == 18
    first, second, *_ = sorted(tree.rglob("*.dcm"))
    first.unlink()
    assert numbers() == 17
    os.truncate(second, 9000)
    assert numbers() == 16
    shutil.copy(next(tree.rglob("*.dcm")), tree / "twin")
    assert numbers() == 16


def test_records_of_folders_are_expanded(workdir: Workdir, tree: Path, archive: peers.Peer) -> None:
    lines = workdir.run("query", "./tree", "PatientID=S41P0001").stdout
    lines += workdir.run("query", archive.locator, "PatientID=S41P0002").stdout
    done = workdir.run("query", "-", "--level", "instance", stdin=lines)
    assert done.status == 0, done
    assert [record.get("source") for record in done.records] == ["./tree"] * 6 + [archive.locator] * 6 + [None]
    assert all(("path" in record) == (record.get("source") == "./tree") for record in done.records)


def test_files_that_are_not_whole_are_named_and_never_counted(workdir: Workdir, tree: Path) -> None:
    cut, early, nameless, *_ = sorted(tree.rglob("*.dcm"))
    os.truncate(cut, cut.stat().st_size - 1)
    os.truncate(early, 400)
    data_set = pydicom.dcmread(nameless)
    del data_set.SOPInstanceUID
    data_set.save_as(nameless)
    (tree / "README").write_text("not a picture")
    done = workdir.run("query", "./tree", "--level", "instance")
    assert done.status == 3, done
    assert {record["path"]: record["reason"] for record in done.of_type("outcome")} == {
        str(cut.relative_to(tree)): "truncated",
        str(early.relative_to(tree)): "truncated",
        str(nameless.relative_to(tree)): "unidentified",
    }
    named = {record["path"]: record for record in done.of_type("outcome")}[str(cut.relative_to(tree))]
    assert named.items() >= {
        "level": "instance", "outcome": "failed", "retry": False, "source": "./tree", "size": cut.stat().st_size,
        "StudyInstanceUID": samples.uid(SEED, 1), "SeriesInstanceUID": samples.uid(SEED, 1, 1),
    }.items()  # fmt: skip
    assert len(done.of_type("instance")) == 15
    assert done.records[-1].items() >= {"complete": True, "records": 18}.items()
    assert "3 files are truncated, damaged or nameless" in done.stderr and "README" not in done.stderr
    study = workdir.run("query", "./tree", "PatientID=S41P0001", "-v")
    assert study.status == 3 and study.records[0]["NumberOfStudyRelatedInstances"] == 3, study
    assert "--level instance names them" in study.stderr and "1 files are no DICOM" in study.stderr


def test_a_damaged_file_that_cannot_be_meant_is_no_trouble(workdir: Workdir, tree: Path) -> None:
    cut = sorted(tree.rglob("*.dcm"))[0]
    os.truncate(cut, cut.stat().st_size - 1)
    for words in (("PatientID=S41P0002",), ("StudyDate=20240303-",), ("Modality=MR",), ("ModalitiesInStudy=MR",)):
        assert workdir.run("query", "./tree", *words, "--level", "instance").status == 0
    assert workdir.run("query", "./tree", "PatientID=S41P0001", "--level", "instance").status == 3
    assert workdir.run("query", "./tree", f"StudyInstanceUID=1.2,{samples.uid(SEED, 1)}").status == 3
    for number, status in ((1, 3), (2, 0)):
        study = workdir.run("query", "./tree", f"PatientID=S41P000{number}").records[0]
        done = workdir.run("query", "-", "--level", "instance", stdin=[study])
        assert (done.status, len(done.of_type("outcome"))) == (status, status // 3), done


def test_a_tree_full_of_surprises_is_survived(workdir: Workdir, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "loop").symlink_to(tree)
    (tree / "out").symlink_to("/etc")
    (tree / "dangling").symlink_to("nowhere")
    name = os.fsdecode(b"\xff\xfe\n.dcm")
    next(tree.rglob("*.dcm")).rename(tree / name)
    done = workdir.run("query", "./tree", "--level", "instance", "-v")
    assert done.status == 0, done
    assert len(done.of_type("instance")) == 18
    (odd,) = [record for record in done.of_type("instance") if "path_octets" in record]
    assert base64.b64decode(odd["path_octets"]) == b"\xff\xfe\n.dcm"
    assert done.stderr.count("passed by: a symbolic link") == 3


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_folder_that_is_not_there_is_local_trouble(workdir: Workdir, name: str) -> None:
    (workdir.path / "file").write_text("no folder")
    done = workdir.run("query", f"./{name}")
    assert done.status == 7, done
    assert f"./{name} is no folder that is there" in done.stderr
    assert done.records == [{"type": "end", "format": 1, "complete": False, "records": 0, "reason": "local"}]


def test_a_folder_that_is_not_there_does_not_keep_the_others_from_being_asked(workdir: Workdir, tree: Path) -> None:
    study = workdir.run("query", "./tree", "PatientID=S41P0001").records[0]
    done = workdir.run("query", "-", "--level", "series", stdin=[{**study, "source": "./gone"}, study])
    assert done.status == 7, done
    assert len(done.of_type("series")) == 2
    assert done.records[-1].items() >= {"complete": False, "reason": "local"}.items()


def test_a_hundred_studies_in_a_folder_are_a_hundred(workdir: Workdir) -> None:
    samples.make_series(workdir.path / "tree", studies=100, instances=1, rows=1, columns=1, seed=47)
    done = workdir.run("query", "./tree")
    assert done.records[-1] == {"type": "end", "format": 1, "complete": True, "records": 100}


def test_an_archive_answers_like_the_folder_that_it_was_made_of(
    workdir: Workdir, tree: Path, require: Callable[[str], str]
) -> None:
    subprocess.run([require("zip"), "-q", "-r", "../tree.zip", "."], check=True, cwd=tree)
    for level in ("study", "series", "instance"):
        done = workdir.run("query", "tree.zip", "--level", level)
        assert (done.status, done.stderr) == (0, ""), done
        assert same(done, workdir.run("query", "./tree", "--level", level))


def test_nothing_of_a_patient_in_a_folder_is_said_on_stderr(workdir: Workdir, tree: Path) -> None:
    (tree / "study0001").rename(tree / "Canary^Bird")
    for path in sorted(tree.rglob("*.dcm"))[:2]:
        os.truncate(path, 5000)
    (tree / "Canary link").symlink_to(tree)
    done = workdir.run("query", "./tree", "--level", "instance", "-v")
    assert done.status == 3, done
    assert "Canary" not in done.stderr and "S41P" not in done.stderr


# What is said to people


def test_nothing_of_a_patient_is_said_on_stderr(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("query", archive.locator, "PatientName=Canary*", "--level", "instance", "-v")
    assert done.status == 0, done
    assert "Canary" not in done.stderr and "S41P" not in done.stderr


def test_standard_output_that_is_full_is_local_trouble(workdir: Workdir, archive: peers.Peer) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    line = [*workdir.program, "query", archive.locator, "--all"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            line, check=False, cwd=workdir.path, env=workdir.environment(), stdout=full, stderr=subprocess.PIPE,
            timeout=20,
        )  # fmt: skip
    assert done.returncode == 7, done
    assert b"No space left" in done.stderr
