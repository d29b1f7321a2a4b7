"""`dcmsync dump`, as people run it."""

import io
import json
import os
import struct
import subprocess
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pydicom.data
import pytest

from dcmsync.cli.parse import parse
from dcmsync.commands import dump as command
from dcmsync.commands.options import Silent, Streams
from dcmsync.errors import ExitStatus, UsageError
from tests.samples import Sample, make_series
from tests.workdir import Workdir

TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"
RTPLAN, TRUNCATED = TEST_FILES / "rtplan.dcm", TEST_FILES / "rtplan_truncated.dcm"


def run(*words: object, stdin: bytes | None = None, is_terminal: bool = False) -> tuple[str, list[str], ExitStatus]:
    said: list[str] = []
    stdout = io.BytesIO()
    streams = Streams(stdin=io.BytesIO(stdin or b""), stdout=stdout, say=said.append, note=said.append,
                      stdin_is_pipe=stdin is not None, is_terminal=is_terminal, stderr_is_terminal=False,
                      meter=Silent, warn=said.append)
    arguments: Namespace = parse(command.COMMAND, [str(word) for word in words], {})
    status = command.run(arguments, streams)
    return stdout.getvalue().decode(), said, status


def objects(text: str) -> list[dict[str, dict[str, object]]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return make_series(tmp_path / "files", instances=3)


def test_one_object_a_line_for_each_file_of_a_folder(samples: list[Sample], tmp_path: Path) -> None:
    text, said, status = run(tmp_path / "files")
    assert [each["00080018"]["Value"] for each in objects(text)] == [[sample.sop_uid] for sample in samples]
    assert (said, status) == ([], ExitStatus.DONE)
    assert not any(tag.startswith("0002") for tag in objects(text)[0])


def test_lines_on_a_terminal_with_the_file_and_group_0002(samples: list[Sample]) -> None:
    lines = run(samples[0].path, is_terminal=True)[0].splitlines()
    assert lines[0] == f"# {samples[0].path}" and lines[1].startswith("(0002,0000) UL ")
    assert lines[-1].startswith("(7fe0,0010) OW ")
    assert run(samples[0].path, "--format", "text")[0].splitlines() == lines
    assert objects(run(samples[0].path, "--format", "json", is_terminal=True)[0])


def test_what_is_included_and_excluded() -> None:
    text, _, _ = run(RTPLAN, "--include", "Patient*,300a,0002", "--exclude", "PatientName",
                     "--exclude", "BeamSequence,0010,0030,0018")
    found = objects(text)[0]
    assert set(found) == {"00100020", "00100040", "300A0002", "300A0180"}
    assert found["300A0180"] == {"vr": "SQ", "Value": [  # PatientSetupSequence, with all but what is excluded
        {"300A0182": {"vr": "IS", "Value": [1]}, "300A01B2": {"vr": "ST"}}]}


def test_a_wanted_element_is_found_in_its_sequence() -> None:
    found = objects(run(RTPLAN, "--include", "BeamDose")[0])[0]
    assert list(found) == ["300A0070"] and "300A0084" in json.dumps(found)


def test_bulk_data_are_where_the_uri_says(samples: list[Sample]) -> None:
    uri = urlsplit(str(objects(run(samples[0].path)[0])[0]["7FE00010"]["BulkDataURI"]))
    asked = {word: int(values[0]) for word, values in parse_qs(uri.query).items()}
    octets = Path(unquote(uri.path)).read_bytes()[asked["offset"] :][: asked["length"]]
    assert octets == samples[0].path.read_bytes()[-8192:]


def test_the_path_is_there_when_asked_for(samples: list[Sample]) -> None:
    found = objects(run(samples[0].path, "--with-path", "--include", "0008,0018")[0])
    assert found == [{"path": str(samples[0].path), "00080018": {"vr": "UI", "Value": [samples[0].sop_uid]}}]
    assert objects(run(samples[0].path, "--with-path", "--include", "private")[0]) == [{"path": str(samples[0].path)}]


def test_a_truncated_file_is_dumped_as_far_as_it_goes_and_named() -> None:
    text, said, status = run(TRUNCATED)
    assert objects(text)[0]["300A00B0"]["vr"] == "SQ"
    assert said == [f"{TRUNCATED}: not whole: (300A,012C) claims 50 octets, 29 are left (at octet 2092)"]
    assert status is ExitStatus.FAILED


def test_what_is_no_dicom_is_only_named(tmp_path: Path, samples: list[Sample]) -> None:
    (tmp_path / "files" / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "fifo")
    text, said, status = run(tmp_path / "files", tmp_path / "fifo", tmp_path / "none")
    assert len(objects(text)) == 3 and status is ExitStatus.FAILED
    assert [line.rpartition("/")[2] for line in said] == [
        "notes.txt: no DICOM: no prefix DICM, no element at the start", "fifo: no regular file",
        "none: No such file or directory"]
    assert run(tmp_path / "files" / "notes.txt", "--format", "text")[0] == ""


def test_names_of_files_cannot_move_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2Jb").write_text("hello")
    assert run(tmp_path)[1][0].startswith(f"{tmp_path}/a\\x1b[2Jb: ")


def record(sample: Sample, **more: object) -> bytes:
    values = {"type": "instance", "StudyInstanceUID": sample.study_uid, "SeriesInstanceUID": sample.series_uid,
              "SOPInstanceUID": sample.sop_uid, **more}
    return json.dumps(values).encode() + b"\n"


@pytest.mark.parametrize("words", [(), ("-",)])
def test_records_name_files(samples: list[Sample], tmp_path: Path, words: tuple[str, ...]) -> None:
    root, path = str(tmp_path / "files"), str(samples[1].path.relative_to(tmp_path / "files"))
    outcome = {"type": "outcome", "level": "instance", "outcome": "stored", "destination": root, "path": path}
    summary = {"type": "outcome", "level": "series", "outcome": "stored", "destination": root}
    lines = record(samples[1], source=root, path=path) + f"{json.dumps(outcome)}\n{json.dumps(summary)}\n".encode()
    text, said, status = run(*words, stdin=lines)
    assert [each["00080018"]["Value"] for each in objects(text)] == [[samples[1].sop_uid]] * 2
    assert (said, status) == ([], ExitStatus.DONE)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "a/../../b"])
def test_a_record_leads_nowhere_else(samples: list[Sample], tmp_path: Path, path: str) -> None:
    text, said, status = run(stdin=record(samples[0], source=str(tmp_path / "files"), path=path))
    assert (text, said, status) == ("", ["line 1: its path leads out of its place"], ExitStatus.FAILED)


def test_a_record_without_a_file_is_named(samples: list[Sample]) -> None:
    _, said, status = run(stdin=record(samples[0], source="./files"))
    assert said == ["line 1: the record names no file; ask for instances of a folder"] and status is ExitStatus.FAILED


@pytest.fixture
def archive(samples: list[Sample], tmp_path: Path) -> Path:
    """What was made, deflated; and a member that is no DICOM."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for number, sample in enumerate(samples):
            made.write(sample.path, f"P 1/{number}.dcm")
        made.writestr("notes.txt", "hello")
    return path


def test_the_members_of_an_archive_are_dumped(samples: list[Sample], archive: Path) -> None:
    text, said, status = run(archive, "--with-path")
    assert [each["00080018"]["Value"] for each in objects(text)] == [[sample.sop_uid] for sample in samples]
    assert [each["path"] for each in objects(text)] == [f"{archive}/P 1/{number}.dcm" for number in range(3)]
    assert (said, status) == ([f"{archive}/notes.txt: no DICOM: no prefix DICM, no element at the start"], 3)
    uri = urlsplit(str(objects(text)[1]["7FE00010"]["BulkDataURI"]))
    asked = {word: values[0] for word, values in parse_qs(uri.query).items()}
    with zipfile.ZipFile(unquote(uri.path)) as opened:
        octets = opened.read(asked["member"])
    assert octets[int(asked["offset"]) :][: int(asked["length"])] == samples[1].path.read_bytes()[-8192:]


def test_records_name_members(samples: list[Sample], archive: Path, tmp_path: Path) -> None:
    other = archive.with_name("b.zip")
    other.write_bytes(archive.read_bytes())
    lines = [(samples[2], archive, "P 1/2.dcm"), (samples[0], other, "P 1/0.dcm"), (samples[1], archive, "none")]
    text, said, status = run(stdin=b"".join(record(one, source=str(place), path=path) for one, place, path in lines))
    assert [each["00080018"]["Value"] for each in objects(text)] == [[samples[2].sop_uid], [samples[0].sop_uid]]
    assert (said, status) == ([f"{archive}/none: the archive has no such member"], ExitStatus.FAILED)
    opened = {os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if
              os.path.exists(f"/proc/self/fd/{each}")}  # fmt: skip
    assert not opened & {str(archive), str(other)}


def test_an_archive_or_member_that_is_damaged_is_named(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        at = opened.getinfo("P 1/1.dcm").header_offset + 100
    octets = bytearray(archive.read_bytes())
    octets[at] ^= 0xFF
    archive.write_bytes(octets)
    text, said, status = run(archive)
    assert len(objects(text)) == 2 and status is ExitStatus.FAILED
    assert [line.partition(": ")[0] for line in said] == [f"{archive}/P 1/1.dcm", f"{archive}/notes.txt"]
    archive.write_bytes(b"no archive")
    assert run(archive)[2] is ExitStatus.FAILED


def test_a_place_that_is_no_folder_ends_the_run(samples: list[Sample]) -> None:
    with pytest.raises(UsageError, match="line 1: A@host:104 is no folder"):
        run(stdin=record(samples[0], source="A@host:104", path="x"))


def test_incomplete_input_is_said(samples: list[Sample]) -> None:
    _, said, status = run(stdin=b'{"type":"end","format":1,"complete":false,"records":0}\n')
    assert status is ExitStatus.INCOMPLETE and "not complete" in said[0]


@pytest.mark.parametrize("words", [(), ("-",), ("--diff", "a"), ("--diff", "a", "-"), ("x", "--include", "Patint*")])
def test_what_cannot_be_asked(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        run(*words)


def test_two_files_differ_or_not(samples: list[Sample]) -> None:
    one, other = samples[0].path, samples[1].path
    assert run("--diff", one, one) == ("", [], ExitStatus.DONE)
    text, _, status = run("--diff", one, other, "--include", "SOPInstanceUID,InstanceNumber")
    assert status is ExitStatus.NO
    assert objects(text) == [
        {"tag": "00080018", "keyword": "SOPInstanceUID", "a": {"vr": "UI", "Value": [samples[0].sop_uid]},
         "b": {"vr": "UI", "Value": [samples[1].sop_uid]}},
        {"tag": "00200013", "keyword": "InstanceNumber", "a": {"vr": "IS", "Value": [1]},
         "b": {"vr": "IS", "Value": [2]}},
    ]
    assert run("--diff", one, other, "--include", "0002", "--exclude", "0002")[2] is ExitStatus.DONE
    text = run("--diff", one, other, "--include", "InstanceNumber", "--format", "text")[0]
    assert text == "- 00200013 IS [1] InstanceNumber\n+ 00200013 IS [2] InstanceNumber\n"


def test_group_0002_is_compared_unless_excluded() -> None:
    words = ("--diff", TEST_FILES / "MR_small.dcm", TEST_FILES / "MR_small_bigendian.dcm")
    assert "00020010" in run(*words)[0]
    assert run(*words, "--exclude", "0002") == ("", [], ExitStatus.DONE)


def test_another_character_set_is_shown_as_it_is(tmp_path: Path, samples: list[Sample]) -> None:
    octets = samples[0].path.read_bytes()
    (tmp_path / "other").write_bytes(octets.replace(b"ISO_IR 192", b"ISO_IR 100"))
    found = objects(run("--diff", samples[0].path, tmp_path / "other")[0])
    assert [found[0][side]["Value"] for side in "ab"] == [["ISO_IR 192"], ["ISO_IR 100"]]  # type: ignore[index]


def test_a_sequence_and_fragments_are_counted(tmp_path: Path) -> None:
    one, two = TEST_FILES / "SC_rgb_rle.dcm", TEST_FILES / "SC_rgb_rle_2frame.dcm"
    found = {each["tag"]: each for each in objects(run("--diff", one, two)[0])}  # type: ignore[index]
    assert (found["7FE00010"]["a"], found["7FE00010"]["b"]) == (  # type: ignore[index]
        {"vr": "OB", "fragments": 2}, {"vr": "OB", "fragments": 3})
    assert found["7FE00010[3]"]["b"]["BulkDataURI"].startswith("file:///")  # type: ignore[index]
    text = run("--diff", one, two, "--format", "text")[0]
    assert "- 7FE00010 OB (2 fragments) PixelData\n+ 7FE00010 OB (3 fragments) PixelData\n" in text


def test_comparing_what_is_not_whole_or_not_there(samples: list[Sample]) -> None:
    assert run("--diff", RTPLAN, TRUNCATED)[2] is ExitStatus.FAILED
    assert run("--diff", samples[0].path, "/nowhere")[1:] == (
        ["/nowhere: No such file or directory"], ExitStatus.FAILED)


@pytest.mark.slow
def test_jq_reads_it(require: Callable[[str], str], workdir: Workdir, samples: list[Sample], tmp_path: Path) -> None:
    done = workdir.run("dump", tmp_path / "files", "--include", "PatientID")
    asked = subprocess.check_output([require("jq"), "-r", '."00100020".Value[0]'], input=done.stdout)
    assert asked.decode().split() == [sample.patient_id for sample in samples]


@pytest.mark.slow
def test_a_file_of_4_gb_is_dumped_at_once_in_little_memory(workdir: Workdir, samples: list[Sample]) -> None:
    header = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 8192)
    head = samples[0].path.read_bytes().partition(header)[0]
    big = workdir.path / "big.dcm"
    with big.open("wb") as file:
        file.write(head + header[:-4] + struct.pack("<L", 0xFFFFFFF0))
        file.truncate(len(head) + 12 + 0xFFFFFFF0)
    script = 'ulimit -v 400000; exec "$@"'
    for form in ("json", "text"):
        done = subprocess.run(["bash", "-c", script, "bash", *workdir.program, "dump", "--format", form, str(big)],
                              capture_output=True, env=workdir.environment(), timeout=10, check=False)
        assert (done.returncode, done.stderr) == (0, b""), done
        assert b"4294967280" in done.stdout
