"""`dcmsync demo`, as a newcomer runs it."""

import os
from pathlib import Path

import pytest

from dcmsync.node.samples import count_same, make_archive
from dcmsync.node.stage import Stage
from tests import workdir as running
from tests.workdir import Workdir

pytestmark = pytest.mark.slow


def test_it_proves_what_it_shows_and_leaves_nothing_behind(workdir: Workdir, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = workdir.run("demo", env={"TMPDIR": str(scratch), "DCMSYNC_FORMAT": "csv", "DCMSYNC_CALLING": "ELSE"})
    text = done.stdout.decode()
    assert done.status == 0, done
    assert done.stderr == ""
    assert "Done, and all of it proven" in text
    assert "NOT" not in text
    assert list(scratch.iterdir()) == []
    assert [path.name for path in workdir.path.iterdir() if path.name != ".xdg"] == []


def test_the_commands_can_be_typed(workdir: Workdir) -> None:
    text = workdir.run("demo").stdout.decode()
    assert "    | dcmsync filter Modality=CT --largest 1 --per study \\\n    | dcmsync pull ./pulled\n" in text
    assert "--format tree\n2 patients | 2 studies | 5 series | 47 instances\n" in text
    assert '"present":20' in text


def test_keep_keeps_it(workdir: Workdir) -> None:
    done = workdir.run("demo", "--keep", "here")
    assert done.status == 0, done
    assert {path.name for path in (workdir.path / "here").iterdir()} == {"archive", "pulled", "everything"}
    assert "dcmsync serve here/archive" in done.stdout.decode()
    assert len(list((workdir.path / "here" / "pulled").rglob("*.dcm"))) == 32


def test_keep_touches_no_folder_that_is_in_use(workdir: Workdir) -> None:
    (workdir.path / "here").mkdir()
    (workdir.path / "here" / "mine").write_text("mine")
    done = workdir.run("demo", "--keep", "here")
    assert done.status == 2, done
    assert "not empty" in done.stderr
    assert [path.name for path in (workdir.path / "here").iterdir()] == ["mine"]


def test_keep_where_one_may_not_write(workdir: Workdir) -> None:
    (workdir.path / "file").write_text("")
    done = workdir.run("demo", "--keep", "file/here")
    assert done.status == 7, done


def test_an_interrupt_leaves_nothing_behind(workdir: Workdir, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = workdir.start("demo", env={"TMPDIR": str(scratch)})
    assert process.stdout is not None
    for line in process.stdout:
        if b'"listening"' in line:
            break
    running.interrupt(process)
    process.communicate(timeout=30)
    assert process.returncode in (130, -2)
    assert list(scratch.iterdir()) == []


def test_the_archive_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        made = make_archive(str(folder))
        assert (made.copied > 30, made.made) == (True, 47)
        assert len(os.listdir(folder)) == made.copied + made.made
    assert count_same(str(folders[0]), str(folders[1])) == made.copied + made.made


def test_another_octet_is_noticed(tmp_path: Path) -> None:
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    for folder in (archive, copy):
        folder.mkdir()
        make_archive(str(folder))
    path = copy / "DEMO-1_001_00001.dcm"
    octets = path.read_bytes()
    path.write_bytes(octets[:-1] + bytes([octets[-1] ^ 1]))
    assert count_same(str(copy), str(archive)) is None


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as stdout:
        stage = Stage(str(tmp_path), stdout)
        assert stage.pipe("dcmsync schema", "dcmsync filter =") == []
        assert not stage.is_proven
        stdout.seek(0)
        assert b"NOT: every command ends with status 0" in stdout.read()
