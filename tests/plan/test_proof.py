"""What a record claims, what bears it out, and which instances a sample holds."""

import subprocess
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dcmsync.contract import Level
from dcmsync.errors import InputError, UsageError
from dcmsync.plan import proof
from dcmsync.plan.proof import Claim, Lowest
from dcmsync.plan.select import uid_hash

A, B = "xxh3:" + "a" * 32, "xxh3:" + "b" * 32
RECORD = {
    "type": "instance", "source": "/data", "StudyInstanceUID": "1", "SeriesInstanceUID": "1.2",
    "SOPInstanceUID": "1.2.3", "PatientID": "P",
}  # fmt: skip


def claim(at: str | None = None, **more: object) -> Claim:
    made = proof.claim_of({**RECORD, **more}, 7, at)
    assert made is not None
    return made


def test_a_record_claims_of_its_source_and_an_outcome_of_its_destination() -> None:
    assert (claim().place, claim().is_own, claim().number) == ("/data", True, 7)
    assert (claim(at="there").place, claim(at="there").is_own) == ("there", False)
    outcome = claim(type="outcome", level="series", outcome="stored", destination="/here", instances=9)
    assert (outcome.place, outcome.level, outcome.count, outcome.is_own) == ("/here", Level.SERIES, 9, True)
    assert outcome.uids == {"StudyInstanceUID": "1", "SeriesInstanceUID": "1.2"}
    assert claim(type="study", NumberOfStudyRelatedInstances=5).count == 5
    assert claim(type="series", NumberOfStudyRelatedInstances=5).count is None


@pytest.mark.parametrize("values", [
    {"type": "weather"}, {"type": "end"}, {}, {"type": "outcome", "level": "series", "outcome": "skipped"},
    {"type": "outcome", "level": "instance", "outcome": "deleted"}, {"type": "outcome", "level": 1},
])  # fmt: skip
def test_what_claims_nothing_is_none(values: dict[str, object]) -> None:
    assert proof.claim_of({**RECORD, "type": "x", **values}, 1, None) is None


@pytest.mark.parametrize("more", [
    {"source": ""}, {"source": None}, {"source": 7}, {"SOPInstanceUID": ""}, {"SeriesInstanceUID": None},
    {"type": "outcome", "level": "instance", "outcome": "stored"},
])  # fmt: skip
def test_a_claim_of_nowhere_or_of_nothing_names_its_line(more: dict[str, object]) -> None:
    with pytest.raises(InputError, match="line 7"):
        claim(**more)


@pytest.mark.parametrize("claimed, found, at, reason", [
    ({}, {}, None, None),
    ({"content": A}, {"content": A}, None, None),
    ({"content": A}, {"content": B}, None, "differs"),
    ({"content": A}, {"content": B}, "there", "differs"),
    ({"content": A, "digest": A}, {"content": A, "digest": B}, None, None),
    ({"digest": A}, {"digest": A}, None, None),
    ({"digest": A}, {"digest": B}, None, "differs"),
    ({"digest": A}, {"digest": B}, "there", None),
    ({"digest": A, "size": 4}, {"size": 4}, None, None),
    ({"digest": A, "size": 4}, {"size": 5}, None, "differs"),
    ({"size": 4}, {"size": 5}, "there", None),
    ({"digest": A, "size": 4}, {"digest": A, "size": 5}, None, None),
])  # fmt: skip
def test_content_goes_before_digests_and_these_before_sizes(
    claimed: dict[str, object], found: dict[str, object], at: str | None, reason: str | None
) -> None:
    assert proof.judge(claim(at=at, **claimed), found, was_read=False).reason == reason


def test_words_say_how_far_the_proof_goes() -> None:
    def words(claimed: Mapping[str, object], found: Mapping[str, object], *, was_read: bool = False) -> str:
        return proof.judge(claim(**claimed), found, was_read=was_read).words

    assert words({"content": A}, {"content": A}) == "there; the same content"
    assert words({"digest": A}, {"digest": A}, was_read=True) == "read whole; the same digest"
    assert "no digest to compare" in words({"digest": A}, {})
    assert "recorded" in words({}, {"digest": A, "recorded": True}, was_read=True)


@pytest.mark.parametrize("claimed, found, is_complete, reason", [
    (4, 4, True, None), (4, 3, True, "missing"), (4, 5, True, "differs"), (4, 0, True, "missing"),
    (None, 3, True, None), (None, 0, True, "missing"), (4, 3, False, "unknown"), (4, 4, False, None),
    (4, 0, False, "unknown"),
])  # fmt: skip
def test_counts_are_held_against_the_claim(
    claimed: int | None, found: int, is_complete: bool, reason: str | None
) -> None:
    more = {} if claimed is None else {"NumberOfSeriesRelatedInstances": claimed}
    assert proof.judge_count(claim(type="series", **more), found, is_complete=is_complete).reason == reason


# Samples

UIDS = [f"1.2.{n}" for n in range(400)]


@given(some.integers(1, 9))
def test_slices_are_a_partition(slices: int) -> None:
    parts = [proof.portion(f"{n}/{slices}") for n in range(1, slices + 1)]
    for uid in UIDS[:50]:
        assert sum(part(uid) for part in parts if not isinstance(part, Lowest)) == 1


def test_a_slice_is_what_b2sum_says() -> None:
    done = subprocess.run(["b2sum", "-l", "64"], input=b"1.2.3", capture_output=True, check=True)
    number = int(done.stdout.split()[0], 16)
    part = proof.portion(f"{number % 7 + 1}/7")
    assert not isinstance(part, Lowest) and part("1.2.3")


def test_the_lowest_are_those_of_all_that_came() -> None:
    lowest = proof.portion("5")
    assert isinstance(lowest, Lowest)
    many = [f"1.3.{n}" for n in range(10_000)]
    for uid in many:
        lowest.offer(uid)
        lowest.offer(uid)
    assert {uid for uid in many if lowest.is_chosen(uid)} == set(sorted(many, key=lambda uid: uid_hash(uid) or 0)[:5])


def test_a_percentage_is_about_that_many_and_grows_with_it() -> None:
    few, more = proof.portion("10%"), proof.portion("50%")
    assert not isinstance(few, Lowest) and not isinstance(more, Lowest)
    chosen = {uid for uid in UIDS if few(uid)}
    assert 20 < len(chosen) < 65 and all(more(uid) for uid in chosen)


def test_without_a_sample_everything_is_held() -> None:
    held = proof.portion(None)
    assert not isinstance(held, Lowest) and all(map(held, UIDS))


@pytest.mark.parametrize("text", ["", "0", "x", "0/3", "4/3", "0%", "101%", "-1", "1/0", "½%", "1.5"])
def test_what_is_no_sample_is_said(text: str) -> None:
    with pytest.raises(UsageError):
        proof.portion(text)
