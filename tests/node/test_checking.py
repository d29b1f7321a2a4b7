"""What counts as held: whole, of that class, and on the disk with its folder."""

import os
from pathlib import Path

import pytest

from dcmsync.endpoints.folder.scan import scan
from dcmsync.node import checking
from dcmsync.node.index import WANTED, Image, Index
from dcmsync.wire.dimse.commitment import Reference
from tests import samples


def held(folder: Path) -> tuple[list[samples.Sample], list[Reference], list[Image | None]]:
    made = samples.make_series(folder, instances=3)
    index = Index()
    for found in scan(str(folder), wanted=WANTED):
        assert index.add(found) == ""
    references = [Reference(samples.CT_IMAGE_STORAGE, sample.sop_uid) for sample in made]
    return made, references, [index.images.get(sample.sop_uid) for sample in made]


def test_each_file_and_its_folder_are_on_the_disk_before_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, references, images = held(tmp_path)
    synchronised: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synchronised.append(os.fstat(descriptor).st_ino))
    assert checking.check(str(tmp_path), references, images) == [0, 0, 0]
    files = [sample.path.stat().st_ino for sample in made]
    assert sorted(synchronised) == sorted([*files, made[0].path.parent.stat().st_ino])


def test_a_disk_that_does_not_take_it_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, references, images = held(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    assert checking.check(str(tmp_path), references, images) == [0x0110] * 3


def test_a_link_is_not_the_file_that_it_was(tmp_path: Path) -> None:
    made, references, images = held(tmp_path / "served")
    made[0].path.rename(tmp_path / "elsewhere.dcm")
    made[0].path.symlink_to(tmp_path / "elsewhere.dcm")
    assert checking.check(str(tmp_path / "served"), references, images) == [0x0110, 0, 0]
    assert checking.check(str(tmp_path / "served"), references, [None, None, None]) == [0x0112] * 3
