"""Reading again what is remembered: each file once, in whatever state it is found."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from dcmsync.cache.store import Store
from dcmsync.contract import Holding
from dcmsync.errors import ExitStatus
from dcmsync.plan.proof import portion
from dcmsync.transfer import rereading
from dcmsync.transfer.rereading import Rereading, Settings
from tests.cache.made_up import holding, many, opened


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Twelve files, remembered at once."""
    monkeypatch.setattr(rereading, "BATCH_FILES", 0)
    store = opened(tmp_path, None)
    store.remember(many())
    yield store
    store.close()


class Disk:
    """Files by path, as they are now; those that are not named are as they are known, and have been read."""

    def __init__(self, **now: Holding | OSError | None) -> None:
        self.now = {path.replace("_", "/") + ".dcm": state for path, state in now.items()}
        self.read: list[str] = []

    def read_again(self, known: Holding) -> Holding | None:
        self.read.append(known.path)
        found = self.now.get(known.path, replace(known, read_ns=9, state="whole", digest=known.digest or "0" * 32))
        if isinstance(found, OSError):
            raise found
        return found


def run(catalogue: Store, disk: Disk, sample: str | None = None, new: list[Holding] | None = None,
        ) -> tuple[ExitStatus, list[Mapping[str, object]]]:  # fmt: skip
    said: list[Mapping[str, object]] = []
    again = Rereading(
        catalogue,
        Settings(place="./x", portion=portion(sample), itemize=True),
        read_again=disk.read_again,
        take_stock=lambda: catalogue.remember(new or []),
        write=said.append,
    )
    return again.run(), said


def test_each_file_is_read_once(catalogue: Store) -> None:
    disk = Disk()
    status, said = run(catalogue, disk)
    assert status is ExitStatus.DONE
    assert sorted(disk.read) == sorted(each.path for each in many())
    assert {each["outcome"] for each in said} == {"present"}


def test_what_is_found_rotten_is_not_met_again(catalogue: Store) -> None:
    disk = Disk(**{"1_1_1": replace(holding(), state="rotten")})
    status, said = run(catalogue, disk)
    assert status is ExitStatus.NO
    assert len(disk.read) == len(said) == 12
    assert [each.path for each in catalogue.others()] == ["1/1/1.dcm"]


def test_what_was_rotten_may_be_sound_again(catalogue: Store) -> None:
    catalogue.remember([replace(holding(), state="rotten")])
    disk = Disk()
    status, said = run(catalogue, disk)
    assert (status, len(said)) == (ExitStatus.DONE, 12)
    assert list(catalogue.others()) == []


@pytest.mark.parametrize(
    "now, reason",
    [
        (None, "missing"),
        (PermissionError(13, "Permission denied"), "unreadable"),
        (replace(holding(), state="truncated", reason="ends early"), "truncated"),
        (replace(holding(), digest="f" * 32), "changed"),
        (replace(holding(), state="rotten"), "rotten"),
    ],
)
def test_every_trouble_has_its_word(catalogue: Store, now: Holding | OSError | None, reason: str) -> None:
    status, said = run(catalogue, Disk(**{"1_1_1": now}))
    (outcome,) = (each for each in said if each["outcome"] == "failed")
    assert (status, outcome["reason"], outcome["path"]) == (ExitStatus.NO, reason, "1/1/1.dcm")
    assert outcome["SOPInstanceUID"] == "1.1.1.1"


def test_what_is_new_is_read_afterwards(catalogue: Store) -> None:
    disk = Disk()
    status, _ = run(catalogue, disk, new=[holding(9, digest="")])
    assert status is ExitStatus.DONE
    assert disk.read[-1] == "9/1/1.dcm"
    assert len(disk.read) == 13


@pytest.mark.parametrize("sample", ["5", "50%", "1/2"])
def test_a_sample_is_the_same_every_time(catalogue: Store, sample: str) -> None:
    first, second = Disk(), Disk()
    run(catalogue, first, sample)
    run(catalogue, second, sample)
    assert first.read == second.read
    assert 0 < len(first.read) < 12
