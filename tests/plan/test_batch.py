"""Batches: every instance in one of them, few classes to an association, few UIDs to a retrieval."""

from hypothesis import given
from hypothesis import strategies as some

from dcmsync.plan.batch import CLASSES_PER_ASSOCIATION, UIDS_PER_RETRIEVAL, batches

lackings = some.dictionaries(
    some.integers(1, 10**6).map(lambda n: f"1.{n}"),
    some.integers(0, 9).map(lambda n: f"2.{n}" if n else ""),
    max_size=300,
)


@given(lacking=lackings, whole=some.booleans(), one_by_one=some.booleans())
def test_every_instance_is_in_one_batch_that_fits(lacking: dict[str, str], whole: bool, one_by_one: bool) -> None:
    made = list(batches(lacking, whole=whole, one_by_one=one_by_one))
    together = [uid for batch, _ in made for uid in batch]
    assert sorted(together) == sorted(lacking)
    for batch, as_whole in made:
        assert {uid: lacking[uid] for uid in batch} == batch
        assert len(set(batch.values())) <= CLASSES_PER_ASSOCIATION
        assert as_whole or len(batch) <= (1 if one_by_one else UIDS_PER_RETRIEVAL)
        assert not as_whole or (whole and not one_by_one and len(made) == 1)


def test_a_series_of_which_nothing_is_there_is_asked_for_whole() -> None:
    lacking = {f"1.{n}": "2.1" for n in range(1000)}
    assert list(batches(lacking, whole=True)) == [(lacking, True)]


def test_a_series_of_many_classes_is_not_asked_for_whole() -> None:
    lacking = {f"1.{n}": f"2.{n}" for n in range(CLASSES_PER_ASSOCIATION + 1)}
    assert [as_whole for _, as_whole in batches(lacking, whole=True)] == [False, False]


def test_nothing_lacking_is_no_retrieval() -> None:
    assert list(batches({}, whole=False)) == []
