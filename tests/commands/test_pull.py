"""`dcmsync pull`, as people run it, against Orthanc."""

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydicom
import pytest
import xxhash

from tests import peers, samples
from tests.trees import check_nothing_partial, check_whole, data_set, default_path, files, leftovers
from tests.workdir import Done, Workdir

SEED = 51
CANARY = "Canary"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 5 instances."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, studies=2, series=2, instances=5, seed=SEED, patient_name=f"{CANARY}^Bird")


@pytest.fixture(scope="module")
def archive(start_for_module, made: list[samples.Sample]) -> peers.Peer:
    """Orthanc with what was made; no test changes it."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in made)
    return peer


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One study of 12 series of 50 instances."""
    return samples.make_series(tmp_path_factory.mktemp("many"), series=12, instances=50, seed=SEED + 1)


@pytest.fixture(scope="module")
def large(start_for_module, many: list[samples.Sample]) -> peers.Peer:
    """Orthanc with enough to be interrupted."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in many)
    return peer


def series_of(source: str, made: Iterable[samples.Sample]) -> list[dict[str, object]]:
    """The series records of samples."""
    pairs = dict.fromkeys((sample.study_uid, sample.series_uid, sample.patient_id) for sample in made)
    return [
        {"type": "series", "source": source, "StudyInstanceUID": study, "SeriesInstanceUID": series,
         "PatientID": patient}
        for study, series, patient in pairs
    ]


def studies_of(source: str, made: Iterable[samples.Sample]) -> list[dict[str, object]]:
    return [
        {"type": "study", "source": source, "StudyInstanceUID": uid}
        for uid in dict.fromkeys(sample.study_uid for sample in made)
    ]


def instances_of(source: str, made: Iterable[samples.Sample]) -> list[dict[str, object]]:
    return [
        {"type": "instance", "source": source, "StudyInstanceUID": sample.study_uid,
         "SeriesInstanceUID": sample.series_uid, "SOPInstanceUID": sample.sop_uid}
        for sample in made
    ]  # fmt: skip


def outcomes(done: Done, level: str = "instance") -> list[dict[str, object]]:
    return [record for record in done.of_type("outcome") if record["level"] == level]


def said(done: Done) -> list[tuple[object, ...]]:
    """What the records say, without what only a real run can know."""
    return [
        tuple(record.get(key) for key in ("type", "level", "outcome", "StudyInstanceUID", "SeriesInstanceUID",
                                          "SOPInstanceUID", "instances", "stored", "present", "complete", "records"))
        for record in done.records
    ]  # fmt: skip


# What is brought, and where to


def test_a_study_lands_whole_under_the_default_layout(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    done = workdir.run("pull", "./a", stdin=workdir.run("query", archive.locator, "--all").stdout)
    assert (done.status, done.stderr) == (0, ""), done
    check_whole(workdir.path / "a", made)
    first, *_, end = done.records
    assert {key: value for key, value in first.items() if not key.endswith("UID")} == {
        "type": "outcome", "level": "series", "outcome": "stored", "PatientID": first["PatientID"],
        "source": archive.locator, "destination": "./a", "instances": 5, "stored": 5,
    }  # fmt: skip
    assert end == {"type": "end", "format": 1, "complete": True, "records": 4}


@pytest.mark.parametrize("of", [studies_of, series_of, instances_of])
def test_records_of_each_level_bring_the_same(
    of, workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    done = workdir.run("pull", "./a", stdin=of(archive.locator, made))
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    assert {(each["outcome"], each["stored"]) for each in outcomes(done, "series")} == {("stored", 5)}


def test_only_the_instances_that_were_named_come(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    wanted = [made[0], made[3], made[12]]
    done = workdir.run("pull", "./a", stdin=instances_of(archive.locator, wanted))
    assert done.status == 0, done
    check_whole(workdir.path / "a", wanted)


def test_a_pipeline_of_query_filter_and_pull(workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]) -> None:
    program = " ".join(workdir.program)
    line = (
        f"{program} query {archive.locator} --all --level series | {program} filter SeriesNumber=2 "
        f"PatientID=S51P0001 | {program} pull ./a"
    )
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], check=False, cwd=workdir.path, env=workdir.environment(),
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done
    check_whole(workdir.path / "a", [each for each in made if each.series_uid == samples.uid(SEED, 1, 2)])


def test_itemize_writes_an_outcome_for_each_instance(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    done = workdir.run("pull", "./a", "-i", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    assert [each["level"] for each in done.of_type("outcome")] == ["instance"] * 5 + ["series"]
    for each in outcomes(done):
        path = workdir.path / "a" / str(each["path"])
        assert each["size"] == path.stat().st_size
        assert each["digest"] == f"xxh3:{xxhash.xxh3_128(path.read_bytes()).hexdigest()}"
        assert each["TransferSyntaxUID"] == samples.EXPLICIT_LITTLE
        assert each["SOPClassUID"] == samples.CT_IMAGE_STORAGE


@pytest.mark.parametrize("template, names", [
    ("{PatientID}/{SeriesNumber:03}/{InstanceNumber:05}.dcm",
     [f"S51P0001/001/{number:05}.dcm" for number in range(1, 6)]),
    ("{SOPInstanceUID}", [samples.uid(SEED, 1, 1, number) for number in range(1, 6)]),
    ("{StudyDate}/{Modality}-{InstanceNumber}.dcm", [f"20240202/CT-{number}.dcm" for number in range(1, 6)]),
    ("{AccessionNumber}/{BodyPartExamined}/{SOPInstanceUID}.dcm",
     [f"A000001/unknown/{samples.uid(SEED, 1, 1, number)}.dcm" for number in range(1, 6)]),
])  # fmt: skip
def test_a_layout_names_the_files(
    template: str, names: list[str], workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    done = workdir.run("pull", "./a", "--layout", template, stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    assert [str(path.relative_to(workdir.path / "a")) for path in files(workdir.path / "a")] == sorted(names)


def test_a_layout_that_gives_one_name_to_many_loses_none(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    done = workdir.run("pull", "./a", "-i", "--layout", "{PatientID}.dcm", stdin=series_of(archive.locator, made[:10]))
    assert done.status == 0, done
    found = files(workdir.path / "a")
    assert {pydicom.dcmread(path).SOPInstanceUID for path in found} == {each.sop_uid for each in made[:10]}
    assert {str(each["path"]) for each in outcomes(done)} == {path.name for path in found}
    again = workdir.run("pull", "./a", "--layout", "{PatientID}.dcm", stdin=series_of(archive.locator, made[:10]))
    assert again.status == 0 and files(workdir.path / "a") == found, again


@pytest.mark.parametrize("jobs", ["1", "2", "8"])
def test_jobs_change_neither_what_comes_nor_the_order_of_records(
    jobs: str, workdir: Workdir, large: peers.Peer, many: list[samples.Sample]
) -> None:
    records = series_of(large.locator, many)
    done = workdir.run("pull", "./a", "--jobs", jobs, stdin=records)
    assert done.status == 0, done
    check_whole(workdir.path / "a", many)
    assert [each["SeriesInstanceUID"] for each in outcomes(done, "series")] == [
        record["SeriesInstanceUID"] for record in records
    ]


def test_files_and_folders_are_for_their_owner_only(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    before = os.umask(0)
    try:
        done = workdir.run("pull", "./a", stdin=series_of(archive.locator, made[:5]))
    finally:
        os.umask(before)
    assert done.status == 0, done
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files(workdir.path / "a")}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (workdir.path / "a").rglob("*") if path.is_dir()}
    assert (modes, folders, stat.S_IMODE((workdir.path / "a").stat().st_mode)) == ({0o600}, {0o700}, 0o700)


# What is there already


def test_what_is_there_is_not_fetched_again(workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]) -> None:
    records = series_of(archive.locator, made)
    workdir.run("pull", "./a", stdin=records)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files(workdir.path / "a")}
    default_path(workdir.path / "a", made[7]).unlink()
    done = workdir.run("pull", "./a", "-i", stdin=records)
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    assert [each["SOPInstanceUID"] for each in outcomes(done) if each["outcome"] == "stored"] == [made[7].sop_uid]
    del before[default_path(workdir.path / "a", made[7])]
    assert all((path.stat().st_ino, path.stat().st_mtime_ns) == known for path, known in before.items())
    again = workdir.run("pull", "./a", stdin=records)
    assert [(each["outcome"], each["present"]) for each in outcomes(again, "series")] == [("present", 5)] * 4


def test_what_is_there_under_another_name_is_found(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    (workdir.path / "a/elsewhere").mkdir(parents=True)
    shutil.copy(made[0].path, workdir.path / "a/elsewhere/IM0")
    done = workdir.run("pull", "./a", "-i", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    assert [each["path"] for each in outcomes(done) if each["outcome"] == "present"] == ["elsewhere/IM0"]
    assert len(files(workdir.path / "a")) == 5


@pytest.mark.parametrize("octets", [5000, -1, -5000])
def test_a_truncated_file_does_not_count_and_is_replaced(
    octets: int, workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    path = default_path(workdir.path / "a", made[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(made[0].path.read_bytes()[:octets])
    done = workdir.run("pull", "./a", "-i", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    check_whole(workdir.path / "a", made[:5])
    first = next(each for each in outcomes(done) if each["SOPInstanceUID"] == made[0].sop_uid)
    assert (first["outcome"], first["reason"]) == ("stored", "replaced")


@pytest.mark.parametrize("octets", [1, 200])
def test_a_file_that_cannot_be_told_is_in_the_way_and_replaced_only_by_force(
    octets: int, workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    path = default_path(workdir.path / "a", made[0])
    path.parent.mkdir(parents=True)
    broken = made[0].path.read_bytes()[:octets]
    path.write_bytes(broken)
    done = workdir.run("pull", "./a", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 3, done
    conflict, series = done.of_type("outcome")
    assert (conflict["outcome"], conflict["reason"], conflict["SOPInstanceUID"]) == (
        "conflict", "broken", made[0].sop_uid,
    )  # fmt: skip
    assert (series["outcome"], series["stored"], series["conflict"]) == ("conflict", 4, 1)
    assert path.read_bytes() == broken
    done = workdir.run("pull", "./a", "--force", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    check_whole(workdir.path / "a", made[:5])


def test_a_truncated_file_of_another_name_is_in_nobodys_way(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    (workdir.path / "a").mkdir()
    (workdir.path / "a/IM0").write_bytes(made[0].path.read_bytes()[:-100])
    done = workdir.run("pull", "./a", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    assert data_set(default_path(workdir.path / "a", made[0])) == data_set(made[0].path)


def test_other_content_under_the_same_uid_is_a_conflict_and_stays(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    path = workdir.path / "a" / f"{made[0].sop_uid}.dcm"
    path.parent.mkdir()
    other = pydicom.dcmread(made[0].path)
    other.SeriesInstanceUID = "1.2.3"
    other.save_as(path)
    before = path.read_bytes()
    layout = ("--layout", "{SOPInstanceUID}.dcm")
    done = workdir.run("pull", "./a", *layout, stdin=series_of(archive.locator, made[:5]))
    assert done.status == 3, done
    assert [(each["outcome"], each["reason"]) for each in outcomes(done)] == [("conflict", "content")]
    assert path.read_bytes() == before
    done = workdir.run("pull", "./a", *layout, "-i", "--force", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    assert data_set(path) == data_set(made[0].path)


def test_what_a_diff_calls_different_is_compared_with_what_comes(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    path = default_path(workdir.path / "a", made[0])
    path.parent.mkdir(parents=True)
    other = pydicom.dcmread(made[0].path)
    other.SeriesDescription = "Changed"
    other.save_as(path)
    before = path.read_bytes()
    differs = [{**record, "change": "differs"} for record in instances_of(archive.locator, made[:2])]
    done = workdir.run("pull", "./a", stdin=differs)
    assert done.status == 3, done
    assert [(each["outcome"], each["reason"]) for each in outcomes(done)] == [("conflict", "content")]
    assert path.read_bytes() == before
    done = workdir.run("pull", "./a", "--force", stdin=differs)
    assert done.status == 0, done
    check_whole(workdir.path / "a", made[:2])


@pytest.mark.parametrize("change, count", [("missing", 5), ("differs", 5), ("extra", 0), ("same", 0)])
def test_records_are_work_by_their_change(
    change: str, count: int, workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    records = [{**record, "change": change} for record in series_of(archive.locator, made[:5])]
    done = workdir.run("pull", "./a", stdin=records)
    assert done.status == 0, done
    assert len(files(workdir.path / "a")) == count


# Dry runs


@pytest.mark.parametrize("of", [studies_of, series_of, instances_of])
def test_a_dry_run_writes_the_same_records_in_the_same_order_and_touches_nothing(
    of, workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    records = of(archive.locator, made)
    dry = workdir.run("pull", "./a", "-n", "-i", stdin=records)
    assert dry.status == 0, dry
    assert not (workdir.path / "a").exists()
    assert all(each["dry_run"] for each in dry.of_type("outcome"))
    assert said(dry) == said(workdir.run("pull", "./a", "-i", stdin=records))
    for sample in made[::3]:
        default_path(workdir.path / "a", sample).unlink()
    before = files(workdir.path / "a")
    dry = workdir.run("pull", "./a", "-n", "-i", stdin=records)
    assert files(workdir.path / "a") == before and leftovers(workdir.path / "a") == []
    assert said(dry) == said(workdir.run("pull", "./a", "-i", stdin=records))


# What is fed in


def test_failed_outcomes_are_work(workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]) -> None:
    gone = peers.free_port()
    config = workdir.path / "c.toml"
    config.write_text(f'[endpoints.pacs]\nlocator = "GONE@127.0.0.1:{gone}"\n')
    records = series_of("pacs", made) + instances_of("pacs", made[:1])
    failed = workdir.run("pull", "./a", "--config", config, stdin=records)
    assert failed.status == 5, failed
    assert {each["outcome"] for each in failed.of_type("outcome")} == {"failed"}
    assert {each["reason"] for each in failed.of_type("outcome")} == {"unreachable"}
    assert all(each["retry"] for each in failed.of_type("outcome"))
    config.write_text(f'[endpoints.pacs]\nlocator = "{archive.locator}"\n')
    done = workdir.run("pull", "./a", "--config", config, stdin=failed.stdout)
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    idle = workdir.run("pull", "./a", "--config", config, stdin=done.stdout)
    assert idle.status == 0 and idle.of_type("outcome") == [], idle


def test_a_bad_line_ends_the_input_after_what_came_before_it(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    first, second = (json.dumps(record).encode() for record in series_of(archive.locator, made[:10]))
    done = workdir.run("pull", "./a", stdin=first + b"\n{nonsense\n" + second + b"\n")
    assert done.status == 6, done
    assert "line 2" in done.stderr
    check_whole(workdir.path / "a", made[:5])
    assert done.records[-1].items() >= {"type": "end", "complete": False, "reason": "input"}.items()


@pytest.mark.parametrize("more", [
    {"source": None}, {"source": ""}, {"StudyInstanceUID": ""}, {"StudyInstanceUID": None}, {"SeriesInstanceUID": None},
    {"source": "nowhere"}, {"source": "gopher://pacs/"},
])  # fmt: skip
def test_a_record_that_names_nothing_to_fetch_is_a_bad_line(
    more: dict[str, object], workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    first, second, *_ = series_of(archive.locator, made)
    bad = {key: value for key, value in {**second, **more}.items() if value is not None}
    done = workdir.run("pull", "./a", stdin=[first, bad])
    assert done.status == 6, done
    assert "line 2" in done.stderr
    check_whole(workdir.path / "a", made[:5])
    assert done.records[-1]["complete"] is False


def test_a_source_folder_that_is_not_there_is_local_trouble(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    first, second, *_ = series_of(archive.locator, made)
    done = workdir.run("pull", "./a", stdin=[first, {**second, "source": "./folder"}])
    assert (done.status, done.records[-1]["complete"]) == (7, True), done
    (failed,) = [each for each in done.of_type("outcome") if each["outcome"] == "failed"]
    assert "./folder is no folder that is there" in failed["message"]
    check_whole(workdir.path / "a", made[:5])


def test_an_input_that_says_it_is_incomplete(workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]) -> None:
    end = {"type": "end", "format": 1, "complete": False, "records": 1}
    done = workdir.run("pull", "./a", stdin=[*series_of(archive.locator, made[:5]), end])
    assert done.status == 6, done
    check_whole(workdir.path / "a", made[:5])
    assert done.records[-1].items() >= {"complete": False, "reason": "input"}.items()


def test_an_end_record_is_needed_only_when_asked_for(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    records = series_of(archive.locator, made[:5])
    assert workdir.run("pull", "./a", stdin=records).status == 0
    done = workdir.run("pull", "./a", "--require-end", stdin=records)
    assert done.status == 6 and "it has no end record" in done.stderr, done
    end = {"type": "end", "format": 1, "complete": True, "records": 1}
    assert workdir.run("pull", "./a", "--require-end", stdin=[*records, end]).status == 0


def test_a_line_that_breaks_off_is_an_incomplete_input(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    first, second = (json.dumps(record).encode() for record in series_of(archive.locator, made[:10]))
    done = workdir.run("pull", "./a", stdin=first + b"\n" + second[:-20])
    assert done.status == 6, done
    check_whole(workdir.path / "a", made[:5])


def test_no_records_are_no_work(workdir: Workdir) -> None:
    done = workdir.run("pull", "./a", stdin=b"")
    assert (done.status, done.records) == (0, [{"type": "end", "format": 1, "complete": True, "records": 0}]), done


@pytest.mark.parametrize("words, said_of_it", [
    (("./a",), "reads records from standard input"),
    ((), "DEST"),
    (("PACS@host:104",), "Name a folder"),
    (("archive",), "is no place"),
    (("./a", "--layout", "../{SOPInstanceUID}"), "layout"),
    (("./a", "--layout", "{sopinstanceuid}"), "layout"),
    (("./a", "--layout", "{PatientIdentity}"), "PatientIdentity"),
    (("./a", "--jobs", "0"), "--jobs"),
    (("./a", "--timeout", "soon"), "--timeout"),
])  # fmt: skip
def test_wrong_words_are_named_before_anything_is_done(
    words: tuple[str, ...], said_of_it: str, workdir: Workdir
) -> None:
    done = workdir.run("pull", *words, stdin=None if words == ("./a",) else b"")
    assert done.status == 2, done
    assert said_of_it in done.stderr
    assert not (workdir.path / "a").exists()


# What fails


def test_a_series_that_the_source_does_not_have(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    gone = {**series_of(archive.locator, made)[0], "SeriesInstanceUID": "1.2.3"}
    study = {**studies_of(archive.locator, made)[0], "StudyInstanceUID": "1.2.3"}
    instance = {**instances_of(archive.locator, made)[0], "SOPInstanceUID": "1.2.3"}
    done = workdir.run("pull", "./a", stdin=[gone, study, instance, *series_of(archive.locator, made[:5])])
    assert done.status in (3, 4), done
    failed = [each for each in done.of_type("outcome") if each["outcome"] == "failed"]
    assert {each["level"] for each in failed} == {"series", "study", "instance"}
    check_whole(workdir.path / "a", made[:5])
    assert done.records[-1]["complete"] is True


def test_an_unreachable_source_does_not_keep_the_others_from_being_pulled(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    gone = f"GONE@127.0.0.1:{peers.free_port()}"
    records = [*series_of(gone, made[:5]), *series_of(archive.locator, made[5:10])]
    done = workdir.run("pull", "./a", stdin=records)
    assert done.status == 5, done
    assert [each["outcome"] for each in outcomes(done, "series")] == ["failed", "stored"]
    check_whole(workdir.path / "a", made[5:10])


@pytest.mark.parametrize("destination", ["./file/below", "./file/", "/sys/dcmsync-test", "/proc/dcmsync-test"])
def test_a_destination_that_cannot_be_written_is_local_trouble(
    destination: str, workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    if not destination.startswith(".") and not Path(destination).parent.is_dir():
        pytest.skip(f"no {Path(destination).parent}")
    (workdir.path / "file").write_bytes(b"")
    done = workdir.run("pull", destination, stdin=series_of(archive.locator, made[:5]))
    assert done.status == 7, done
    assert CANARY not in done.stderr and "bug" not in done.stderr


def test_a_limit_on_the_size_of_files_is_local_trouble(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample], require: Callable[[str], str]
) -> None:
    limited = Workdir(workdir.path, (require("prlimit"), "--fsize=4096", *workdir.program))
    records = studies_of(archive.locator, made)
    done = limited.run("pull", "./a", stdin=records)
    assert done.status == 7, done
    assert files(workdir.path / "a") == [] and leftovers(workdir.path / "a") == []
    assert done.records[-1].items() >= {"complete": False, "reason": "local"}.items()
    assert workdir.run("pull", "./a", stdin=records).status == 0
    check_whole(workdir.path / "a", made)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; `mount -o remount` lets it grow."""
    folder = tmp_path / "disk"
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(line, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_a_full_disk_leaves_nothing_partial_and_the_next_run_completes(
    small_disk: Path, workdir: Workdir, large: peers.Peer, many: list[samples.Sample]
) -> None:
    records = series_of(large.locator, many[:100])
    destination = small_disk / "a"
    done = workdir.run("pull", destination, "-i", stdin=records)
    assert done.status == 7, done
    assert "no space left" in done.stderr
    check_nothing_partial(destination, many)
    assert leftovers(destination) == []
    stored = {str(each["path"]) for each in outcomes(done) if each["outcome"] == "stored"}
    assert stored == {str(path.relative_to(destination)) for path in files(destination)} != set()
    assert done.records[-1].items() >= {"complete": False, "reason": "local"}.items()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True, capture_output=True)
    again = workdir.run("pull", destination, "-i", stdin=records)
    assert again.status == 0, again
    assert not stored & {str(each["path"]) for each in outcomes(again) if each["outcome"] == "stored"}
    check_whole(destination, many[:100])


def _lines(records: Iterable[dict[str, object]]) -> Iterator[bytes]:
    return (json.dumps(record).encode() + b"\n" for record in records)


def test_a_source_that_dies_in_the_middle_costs_only_what_was_in_flight(
    workdir: Workdir, tmp_path: Path, many: list[samples.Sample], require
) -> None:
    require("Orthanc")
    config = workdir.path / "c.toml"
    destination = workdir.path / "a"
    records = b"".join(_lines(series_of("pacs", many)))
    with peers.orthanc(tmp_path / "orthanc") as peer:
        peer.store(sample.path for sample in many)
        config.write_text(f'[endpoints.pacs]\nlocator = "{peer.locator}"\n')
        process = workdir.start("pull", "./a", "--config", config, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(records)
        process.stdin.flush()
        peers.wait_for(lambda: len(files(destination)) > 0, what="a first file")
        peer.stop(signal.SIGKILL)
        done = ended(process)
    assert done.status in (4, 5), done
    check_nothing_partial(destination, many)
    assert leftovers(destination) == []
    first_files = files(destination)
    assert 0 < len(first_files) < len(many)
    series = outcomes(done, "series")
    assert [each["SeriesInstanceUID"] for each in series] == [each["SeriesInstanceUID"] for each in series_of("", many)]
    assert sum(int(str(each.get("stored", 0))) for each in series) == len(first_files)
    failed = [each for each in done.of_type("outcome") if each["outcome"] == "failed"]
    assert {each["reason"] for each in failed} <= {"disconnected", "unreachable", "rejected"}
    assert all(each["retry"] for each in failed)
    with peers.orthanc(tmp_path / "orthanc") as peer:
        config.write_text(f'[endpoints.pacs]\nlocator = "{peer.locator}"\n')
        again = workdir.run("pull", "./a", "-i", "--config", config, stdin=done.stdout)
    assert again.status == 0, again
    check_whole(destination, many)
    assert len([each for each in outcomes(again) if each["outcome"] == "stored"]) == len(many) - len(first_files)


# Signals


def ended(process: subprocess.Popen[bytes], timeout: float = 30) -> Done:
    """How a started run ended."""
    stdout, stderr = process.communicate(timeout=timeout)
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Done(("pull", "…"), status, stdout, stderr.decode())


def started(workdir: Workdir, records: Iterable[dict[str, object]], *words: str) -> subprocess.Popen[bytes]:
    """A run that has brought a first file, and whose input is still open."""
    process = workdir.start("pull", "./a", *words, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"".join(_lines(records)))
    process.stdin.flush()
    peers.wait_for(lambda: len(files(workdir.path / "a")) > 0, what="a first file")
    return process


@pytest.mark.parametrize("how, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_finishes_the_series_in_flight(
    how: signal.Signals, status: int, workdir: Workdir, large: peers.Peer, many: list[samples.Sample]
) -> None:
    records = series_of(large.locator, many)
    process = started(workdir, records, "--jobs", "1")
    process.send_signal(how)
    done = ended(process)
    assert done.status == status, done
    series = outcomes(done, "series")
    assert 0 < len(series) < 12
    assert {(each["outcome"], each["stored"]) for each in series} == {("stored", 50)}
    check_whole(workdir.path / "a", many[: 50 * len(series)])
    assert done.records[-1] == {
        "type": "end", "format": 1, "complete": False, "records": len(series), "reason": "interrupted",
    }  # fmt: skip
    assert "once more to abort" in done.stderr and CANARY not in done.stderr
    assert workdir.run("pull", "./a", stdin=records).status == 0
    check_whole(workdir.path / "a", many)


def test_a_signal_ends_a_run_that_waits_for_records(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    process = started(workdir, series_of(archive.locator, made[:5]))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["outcome"] == "stored"
    process.send_signal(signal.SIGINT)
    done = ended(process, 10)
    assert done.status == 130, done
    check_whole(workdir.path / "a", made[:5])


def test_two_signals_abort(workdir: Workdir, large: peers.Peer, many: list[samples.Sample]) -> None:
    records = series_of(large.locator, many)
    process = started(workdir, records, "--jobs", "2")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"once more to abort" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = ended(process, 10)
    assert done.status == 130, done
    assert "Traceback" not in done.stderr
    check_nothing_partial(workdir.path / "a", many)
    assert leftovers(workdir.path / "a") == []
    assert all(json.loads(line) for line in done.lines)
    assert workdir.run("pull", "./a", stdin=records).status == 0
    check_whole(workdir.path / "a", many)


@pytest.mark.timeout(120)
def test_a_kill_at_any_moment_leaves_nothing_partial_and_the_next_run_completes(
    workdir: Workdir, large: peers.Peer, many: list[samples.Sample]
) -> None:
    """Twenty kills, after a file count each; every other run after a kill is killed, too. The input stays open."""
    records = b"".join(_lines(series_of(large.locator, many)))
    for number in range(10):
        destination = workdir.path / f"a{number}"
        for count in (60 * number, 60 * number + 30):
            process = workdir.start("pull", destination, stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(records)
            process.stdin.flush()
            peers.wait_for(lambda: destination.exists() and len(files(destination)) >= count, what="enough files")  # noqa: B023
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            check_nothing_partial(destination, many)
        done = workdir.run("pull", destination, stdin=records)
        assert done.status == 0, done
        check_whole(destination, many)
        shutil.rmtree(destination)


def test_a_reader_that_leaves_ends_the_run_quietly(
    workdir: Workdir, large: peers.Peer, many: list[samples.Sample]
) -> None:
    records = series_of(large.locator, many)
    process = workdir.start("pull", "./a", "--jobs", "1", stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(b"".join(_lines(records)))
    process.stdin.close()
    assert json.loads(process.stdout.readline())["outcome"] == "stored"
    process.stdout.close()
    status = process.wait(20)
    assert (status, process.stderr.read()) == (141, b"")
    process.stderr.close()
    check_nothing_partial(workdir.path / "a", many)
    assert leftovers(workdir.path / "a") == []


# What is said to people


def test_nothing_of_a_patient_is_said_on_stderr(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    path = default_path(workdir.path / "a", made[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"broken")
    os.symlink("nowhere", path.parent / "link")
    records = [*series_of(archive.locator, made), {**series_of(archive.locator, made)[0], "SeriesInstanceUID": "1.2"}]
    end = {"type": "end", "format": 1, "complete": False, "records": 1}
    done = workdir.run("pull", "./a", "-v", stdin=[*records, end])
    assert done.status == 6, done
    assert CANARY not in done.stderr and "S51P" not in done.stderr


def test_outcomes_as_a_table(workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]) -> None:
    done = workdir.run("pull", "./a", "--format", "table", stdin=series_of(archive.locator, made[:5]))
    assert done.status == 0, done
    head, row = done.stdout.decode().splitlines()
    assert "outcome" in head.split() and "stored" in row.split()
