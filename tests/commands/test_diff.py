"""`dcmsync diff`, as people run it: between Orthanc, DCMTK's dcmqrscp and folders."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import peers, samples
from tests.workdir import Done, Workdir

SEED = 51
Store = Callable[..., None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """3 studies of 2 series of 3 instances."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, studies=3, series=2, instances=3, seed=SEED)


@pytest.fixture(scope="module")
def archive(start_for_module, made: list[samples.Sample]) -> peers.Peer:
    """Orthanc with what was made; no test changes it."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in made)
    return peer


def copied(made: list[samples.Sample], folder: Path, *, but: Callable[[samples.Sample], bool] | None = None) -> Path:
    """A folder with copies of what was made, but for some."""
    for sample in made:
        if but is None or not but(sample):
            target = folder / sample.path.relative_to(sample.path.parents[2])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(sample.path, target)
    folder.mkdir(exist_ok=True)
    return folder


def told(done: Done) -> list[tuple[str, str, str]]:
    """(type, change, deepest UID) of each record."""
    keys = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    return [
        (record["type"], record["change"], next(record[key] for key in keys if key in record))
        for record in done.records
        if "change" in record
    ]


def uid(*numbers: int) -> str:
    return samples.uid(SEED, *numbers)


# Two nodes


def test_what_one_node_lacks_of_another_is_told_at_the_highest_level(
    workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer, made: list[samples.Sample], tmp_path: Path
) -> None:
    lacking = {(1, 1, 2), (2, 1, 1), (2, 1, 2), (2, 1, 3)} | {(3, n, m) for n in (1, 2) for m in (1, 2, 3)}
    missing = {uid(*numbers) for numbers in lacking}
    peers.storescu(dcmqrscp, [copied(made, tmp_path / "some", but=lambda sample: sample.sop_uid in missing)])
    done = workdir.run("diff", archive.locator, dcmqrscp.locator, "--all")
    assert done.status == 1, done
    assert sorted(told(done)) == sorted([
        ("study", "missing", uid(3)),
        ("series", "missing", uid(2, 1)),
        ("instance", "missing", uid(1, 1, 2)),
    ]), done
    assert {record["source"] for record in done.records[:-1]} == {archive.locator}
    assert done.records[-1] == {"type": "end", "format": 1, "complete": True, "records": 3}
    back = workdir.run("diff", dcmqrscp.locator, archive.locator, "--all")
    assert (back.status, told(back)) == (0, []), back


def test_counts_are_trusted_only_where_both_sides_know_them(
    workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer, made: list[samples.Sample], tmp_path: Path
) -> None:
    peers.storescu(dcmqrscp, [copied(made, tmp_path / "some", but=lambda sample: sample.sop_uid == uid(1, 1, 2))])
    done = workdir.run("diff", archive.locator, dcmqrscp.locator, "--all", "--trust", "counts")
    assert done.status == 1, done
    assert told(done) == [("instance", "missing", uid(1, 1, 2))]


def test_what_is_the_same_and_what_is_more_is_told_when_asked_for(
    workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer, made: list[samples.Sample], tmp_path: Path
) -> None:
    some = copied(made, tmp_path / "some", but=lambda sample: sample.sop_uid == uid(1, 1, 2))
    samples.make_series(some / "other", seed=52)
    peers.storescu(dcmqrscp, [some])
    done = workdir.run("diff", archive.locator, dcmqrscp.locator, "--all", "--show", "missing,differs,extra,same")
    assert done.status == 1, done
    assert sorted(told(done)) == sorted([
        ("study", "same", uid(2)),
        ("study", "same", uid(3)),
        ("series", "same", uid(1, 2)),
        ("instance", "missing", uid(1, 1, 2)),
        ("instance", "same", uid(1, 1, 1)),
        ("instance", "same", uid(1, 1, 3)),
        ("study", "extra", samples.uid(52, 1)),
    ]), done
    assert done.records[-2]["source"] == dcmqrscp.locator


def test_keys_choose_at_the_source(workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer) -> None:
    done = workdir.run("diff", archive.locator, dcmqrscp.locator, f"PatientID=S{SEED}P0002")
    assert (done.status, told(done)) == (1, [("study", "missing", uid(2))]), done
    done = workdir.run("diff", archive.locator, dcmqrscp.locator, f"PatientID=S{SEED}P0002", "SeriesNumber=2")
    assert (done.status, told(done)) == (1, [("series", "missing", uid(2, 2))]), done
    done = workdir.run("diff", archive.locator, dcmqrscp.locator, f"PatientID=S{SEED}P0002", "InstanceNumber=3")
    assert (done.status, sorted(told(done))) == (1, sorted(("instance", "missing", uid(2, n, 3)) for n in (1, 2))), done


# Records


def test_records_are_compared_each_at_its_own_level(
    workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer, made: list[samples.Sample], tmp_path: Path
) -> None:
    peers.storescu(dcmqrscp, [copied(made, tmp_path / "some", but=lambda sample: sample.sop_uid == uid(1, 1, 2))])
    studies = workdir.run("query", archive.locator, "--all").lines[:-1]
    series = workdir.run("query", archive.locator, f"SeriesInstanceUID={uid(1, 1)}", "--all").lines[:-1]
    instances = workdir.run("query", archive.locator, f"SeriesInstanceUID={uid(1, 1)}", "--all", "--level", "instance")
    mine = [{**json.loads(line), "mine": {"kept": [1]}} for line in [*studies, *series, *instances.lines[:-1]]]
    done = workdir.run("diff", "-", dcmqrscp.locator, stdin=mine)
    assert done.status == 1, done
    assert [(kind, change) for kind, change, _ in told(done)] == [("instance", "missing")] * 3, done
    assert {found for _, _, found in told(done)} == {uid(1, 1, 2)}
    assert done.records[2]["mine"] == {"kept": [1]}


def test_records_of_instances_need_no_source(
    workdir: Workdir, dcmqrscp: peers.Peer, made: list[samples.Sample]
) -> None:
    peers.storescu(dcmqrscp, [made[0].path.parent])
    gone = f"GONE@127.0.0.1:{peers.free_port()}"
    lines = [
        {"type": "instance", "source": gone, "StudyInstanceUID": sample.study_uid,
         "SeriesInstanceUID": sample.series_uid, "SOPInstanceUID": sample.sop_uid}
        for sample in made[:6]
    ]  # fmt: skip
    done = workdir.run("diff", "-", dcmqrscp.locator, stdin=lines)
    assert (done.status, [found for *_, found in told(done)]) == (1, [sample.sop_uid for sample in made[3:6]]), done


def test_shuffled_instances_are_compared_like_sorted_ones(
    workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer, made: list[samples.Sample], tmp_path: Path
) -> None:
    lacking = {uid(1, 1, 2), uid(2, 2, 1), uid(3, 1, 3)}
    peers.storescu(dcmqrscp, [copied(made, tmp_path / "some", but=lambda sample: sample.sop_uid in lacking)])
    lines = workdir.run("query", archive.locator, "--all", "--level", "instance").lines[:-1]
    shuffled = [lines[(7 * n) % len(lines)] for n in range(len(lines))]
    assert len({*shuffled}) == len(lines)
    done = workdir.run("diff", "-", dcmqrscp.locator, stdin=b"\n".join([*shuffled, b""]))
    assert (done.status, {found for *_, found in told(done)}) == (1, lacking), done


def test_incomplete_input_is_told_whatever_differs(
    workdir: Workdir, archive: peers.Peer, dcmqrscp: peers.Peer
) -> None:
    study = workdir.run("query", archive.locator, f"PatientID=S{SEED}P0001").lines[0]
    end = b'{"type":"end","format":1,"complete":false,"records":1}'
    done = workdir.run("diff", "-", dcmqrscp.locator, stdin=study + b"\n" + end + b"\n")
    assert done.status == 6, done
    assert told(done) == [("study", "missing", uid(1))]
    assert done.records[-1]["complete"] is False
    done = workdir.run("diff", "-", dcmqrscp.locator, stdin=study + b"\nnonsense\n")
    assert done.status == 6 and "line 2" in done.stderr, done
    assert told(done) == [("study", "missing", uid(1))]


# Lists that are cut


def test_a_list_that_is_cut_short_proves_nothing_by_what_it_lacks(
    workdir: Workdir, archive: peers.Peer, start, made: list[samples.Sample]
) -> None:
    short = start(peers.orthanc, settings={"LimitFindResults": 2, "LimitFindInstances": 2})
    short.store(sample.path for sample in made)
    done = workdir.run("diff", archive.locator, short.locator, "--all", "--show", "missing,differs,extra,same")
    assert {change for _, change, _ in told(done)} <= {"same"}, done
    assert done.status in (0, 6), done
    assert done.records[-1]["complete"] is (done.status == 0)


# Folders


def test_a_folder_is_filled_until_nothing_differs(workdir: Workdir, archive: peers.Peer) -> None:
    done = workdir.run("diff", archive.locator, "./archive", "--all")
    assert (done.status, len(told(done))) == (1, 3), done
    assert "not there yet" in done.stderr
    pulled = workdir.run("pull", "./archive", stdin=done.stdout)
    assert pulled.status == 0, pulled
    done = workdir.run("diff", archive.locator, "./archive", "--all", "--trust", "content")
    assert (done.status, told(done)) == (0, []), done
    victim = next((workdir.path / "archive").rglob(f"{uid(2, 1, 2)}.dcm"))
    victim.unlink()
    done = workdir.run("diff", archive.locator, "./archive", "--all")
    assert (done.status, told(done)) == (1, [("instance", "missing", uid(2, 1, 2))]), done
    assert workdir.run("pull", "./archive", stdin=done.stdout).status == 0
    assert workdir.run("diff", archive.locator, "./archive", "--all").status == 0


def test_two_folders_are_compared_whatever_their_layout(
    workdir: Workdir, made: list[samples.Sample]
) -> None:
    copied(made, workdir.path / "a")
    flat = workdir.path / "b"
    flat.mkdir()
    for number, sample in enumerate(made[:-1]):
        shutil.copy(sample.path, flat / f"{number}.dcm")
    done = workdir.run("diff", "./a", "./b")
    assert (done.status, told(done)) == (1, [("instance", "missing", uid(3, 2, 3))]), done
    assert (workdir.path / "a" / done.records[0]["path"]).is_file()
    assert workdir.run("diff", "./b", "./a").status == 0
    done = workdir.run("diff", "./b", "./a", "--show", "extra")
    assert (done.status, told(done)) == (1, [("instance", "extra", uid(3, 2, 3))]), done


@pytest.mark.parametrize("options", [(), ("--no-cache",), ("--cache", "mine.sqlite")])
def test_flipped_bits_are_found_by_content(
    options: tuple[str, ...], workdir: Workdir, made: list[samples.Sample]
) -> None:
    a, b = copied(made, workdir.path / "a"), copied(made, workdir.path / "b")
    assert workdir.run("diff", "./a", "./b", "--trust", "content", *options).status == 0
    victim = next(b.rglob("*2.dcm"))
    octets = bytearray(victim.read_bytes())
    octets[-1] ^= 1
    victim.write_bytes(octets)
    assert workdir.run("diff", "./a", "./b", *options).status == 0
    done = workdir.run("diff", "./a", "./b", "--trust", "content", *options)
    assert (done.status, [(kind, change) for kind, change, _ in told(done)]) == (1, [("instance", "differs")]), done
    assert {path.name for path in a.rglob("*")} == {path.name for path in b.rglob("*")}


def test_content_is_the_same_whatever_the_encoding(
    workdir: Workdir, made: list[samples.Sample], require: Callable[[str], str]
) -> None:
    a, b = copied(made[:3], workdir.path / "a"), workdir.path / "b"
    b.mkdir()
    require("dcmconv")
    for path in a.rglob("*.dcm"):
        peers.dcmtk("dcmconv", "+ti", path, b / path.name)
    done = workdir.run("diff", "./a", "./b", "--trust", "content")
    assert (done.status, told(done)) == (0, []), done


def test_a_truncated_file_counts_as_missing(workdir: Workdir, made: list[samples.Sample]) -> None:
    copied(made[:3], workdir.path / "a")
    b = copied(made[:3], workdir.path / "b")
    victim = next(b.rglob("*2.dcm"))
    os.truncate(victim, victim.stat().st_size - 10)
    done = workdir.run("diff", "./a", "./b")
    assert (done.status, [(kind, change) for kind, change, _ in told(done)]) == (1, [("instance", "missing")]), done


def test_a_truncated_file_of_the_source_is_said_to_be_left_out(workdir: Workdir, made: list[samples.Sample]) -> None:
    a = copied(made[:3], workdir.path / "a")
    copied(made[:3], workdir.path / "b")
    victim = next(a.rglob("*2.dcm"))
    os.truncate(victim, victim.stat().st_size - 10)
    done = workdir.run("diff", "./a", "./b")
    assert (done.status, told(done)) == (3, []), done
    assert "1 files are truncated" in done.stderr


def test_a_place_that_is_not_read_as_a_whole_makes_it_incomplete(workdir: Workdir, made: list[samples.Sample]) -> None:
    copied(made[:3], workdir.path / "a")
    with zipfile.ZipFile(workdir.path / "b.zip", "w") as archive:
        archive.write(made[0].path, "fine.dcm")
        archive.write(made[1].path, "../strange.dcm")
    done = workdir.run("diff", "./a", "./b.zip")
    assert (done.status, done.records[-1]["complete"]) == (6, False), done
    assert uid(1, 1, 3) in {found for *_, found in told(done)}
    with zipfile.ZipFile(workdir.path / "b.zip", "w") as archive:
        archive.write(made[1].path, "../strange.dcm")
    done = workdir.run("diff", "./a", "./b.zip")
    assert (done.status, done.records[-1]["complete"]) == (6, False), done
    assert told(done) == [("study", "missing", uid(1))], done


# People


def test_people_see_one_symbol_a_line(workdir: Workdir, made: list[samples.Sample]) -> None:
    copied(made, workdir.path / "a")
    lacking = {uid(1, 1, 2), *(uid(2, n, m) for n in (1, 2) for m in (1, 2, 3))}
    b = copied(made, workdir.path / "b", but=lambda sample: sample.sop_uid in lacking)
    samples.make_series(b / "other", seed=52)
    done = workdir.run("diff", "./a", "./b", "--show", "missing,differs,extra,same", "--format", "tree")
    assert done.status == 1, done
    lines = done.stdout.decode().splitlines()
    assert {line[0] for line in lines[1:]} == {"=", "+", "-", "!"}, done
    assert sum(line.startswith("+") for line in lines) == 2, done  # a study, and an instance
    assert sum(line.startswith("-") for line in lines) == 1, done


# Words that are wrong


@pytest.mark.parametrize("words, said", [
    (("X@127.0.0.1:104", "./a"), "--all"),
    (("./a",), "DEST"),
    (("./a", "./b", "--show", "all"), "missing,differs,extra,same"),
    (("./a", "./b", "--trust", "luck"), "luck"),
    (("./a", "pacs"), "'pacs' is no place"),
    (("./a", "./b", "PatientsName=A"), "PatientName"),
    (("-", "./b"), "standard input"),
])  # fmt: skip
def test_wrong_words_are_named_before_anything_is_done(words: tuple[str, ...], said: str, workdir: Workdir) -> None:
    done = workdir.run("diff", *words)
    assert done.status == 2, done
    assert said in done.stderr, done
    assert done.stdout == b""


def test_records_are_chosen_by_filter(workdir: Workdir) -> None:
    done = workdir.run("diff", "-", "./b", "PatientID=A", stdin=b"")
    assert done.status == 2 and "dcmsync filter" in done.stderr, done


def test_a_source_that_is_not_there_is_trouble(workdir: Workdir, tmp_path: Path) -> None:
    done = workdir.run("diff", "./nowhere", "./b")
    assert done.status == 7, done
    done = workdir.run("diff", f"GONE@127.0.0.1:{peers.free_port()}", "./b", "--all")
    assert done.status == 5, done
    assert done.records[-1].items() >= {"complete": False, "reason": "unreachable"}.items()

