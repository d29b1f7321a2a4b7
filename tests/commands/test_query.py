"""`dcmsync query`, as people run it, against Orthanc and DCMTK's dcmqrscp."""

import json
import os
import subprocess
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
    (("https://pacs/wado", "PatientID=A"), "https://"),
    (("X@127.0.0.1:70000", "PatientID=A"), "70000"),
    (("./folder", "PatientID=A"), "folder"),
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
