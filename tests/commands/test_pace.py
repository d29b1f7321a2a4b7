"""Runs that may not take all they could: --bwlimit, --max-duration, --max-transfer."""

import time

import pytest

from tests import peers, samples
from tests.trees import check_whole, files
from tests.workdir import Done, Workdir


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One study of 10 series of 5 instances of 9 kB."""
    return samples.make_series(tmp_path_factory.mktemp("made"), series=10, instances=5, seed=81)


@pytest.fixture(scope="module")
def archive(start_for_module, made: list[samples.Sample]) -> peers.Peer:
    """Orthanc with what was made."""
    peer = start_for_module(peers.orthanc)
    peer.store(sample.path for sample in made)
    return peer


def stored(done: Done) -> int:
    return sum(int(record.get("stored", 0)) for record in done.of_type("outcome"))


def test_a_limited_rate_takes_its_time_and_loses_nothing(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    begun = time.monotonic()
    assert workdir.run("sync", archive.locator, "./a", "--all").status == 0
    freely = time.monotonic() - begun
    octets = sum(sample.size for sample in made)
    begun = time.monotonic()
    done = workdir.run("sync", archive.locator, "./b", "--all", "--bwlimit", f"{octets // 2 // 1024}k")
    assert done.status == 0, done
    assert time.monotonic() - begun > max(1.5, freely)
    check_whole(workdir.path / "b", made)


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_no_more_series_are_taken_once_enough_was_brought(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample], jobs: str
) -> None:
    done = workdir.run("sync", archive.locator, "./a", "--all", "--max-transfer", "100k", "--jobs", jobs)
    assert done.status == 4, done
    assert 10 <= stored(done) == len(files(workdir.path / "a")) < 50
    assert done.records[-1].items() >= {"complete": False, "reason": "limit"}.items()
    assert "--max-transfer is reached" in done.stderr
    assert workdir.run("sync", archive.locator, "./a", "--all").status == 0
    check_whole(workdir.path / "a", made)


def test_no_more_series_are_taken_once_the_time_is_over(
    workdir: Workdir, archive: peers.Peer, made: list[samples.Sample]
) -> None:
    done = workdir.run("sync", archive.locator, "./a", "--all", "--bwlimit", "64k", "--max-duration", "1",
                       "--jobs", "1")  # fmt: skip
    assert done.status == 4, done
    assert stored(done) == len(files(workdir.path / "a")) < 50
    assert done.records[-1]["reason"] == "limit"
    assert workdir.run("sync", archive.locator, "./a", "--all").status == 0
    check_whole(workdir.path / "a", made)


@pytest.mark.parametrize(
    "words", [("--bwlimit", "fast"), ("--max-transfer", "much"), ("--max-duration", "soon"), ("--bwlimit", "25:00,1M")]
)
def test_what_cannot_be_understood_is_named(workdir: Workdir, words: tuple[str, str]) -> None:
    done = workdir.run("sync", "./a", "./b", *words)
    assert done.status == 2 and words[0] in done.stderr, done
