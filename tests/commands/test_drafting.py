"""A file of settings is at every moment the old one or the new one."""

import errno
import os
from pathlib import Path

import pytest

from dcmsync.commands import drafting
from dcmsync.errors import LocalTrouble, UsageError


@pytest.mark.parametrize("step", ["fsync", "rename", "fchmod"])
def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "c.toml"
    file.write_text("old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(LocalTrouble, match="cannot be written"):
        drafting.replace(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_the_file_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("old")
    with file.open() as reader:
        drafting.replace(file, "new")
        assert reader.read() == "old"
    assert file.read_text() == "new"


def test_what_cannot_be_read_afterwards_is_not_added(tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise UsageError(f"{len(text)}")

    file = tmp_path / "c.toml"
    file.write_text("old")
    with pytest.raises(UsageError, match="8"):
        drafting.add(file, "new", check=refuse)
    assert file.read_text() == "old"
