"""What is remembered of a place: given back as it was said, asked as a PACS is, and never believed of another place."""

import json
import os
import shutil
from base64 import b64decode
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dcmsync.cache.store import Store, open_store
from dcmsync.contract import Ask, Holding, Level, Stamp
from dcmsync.errors import LocalTrouble
from tests.cache.made_up import CT, bring_up_to_date, everything, holding, many, opened, sides


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to remember."""
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where its cache is to be."""
    return tmp_path / "cache"


@pytest.fixture(params=["file", "private"])
def store(request: pytest.FixtureRequest, place: Path, path: Path) -> Iterator[Store]:
    """A store in a file, and one in tables of its own."""
    made = opened(place, path if request.param == "file" else None)
    yield made
    made.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Holding]]:
    """A place, a cache that knows 240 files of it, and what it knows. To be copied, never used."""
    folder = tmp_path_factory.mktemp("filled")
    (place := folder / "place").mkdir()
    truth = many(studies=4, series=3, instances=20)
    made = opened(place, folder / "cache")
    made.remember(truth)
    made.close()
    return place, folder / "cache", truth


def answers(store: Store, level: Level, *wanted: str, **keys: str) -> list[dict[str, object]]:
    return [dict(answer) for answer in store.find(Ask(level=level, keys=keys, wanted=wanted))]


def in_a_fresh_one(place: Path, truth: list[Holding]) -> list[object]:
    fresh = opened(place, None)
    fresh.remember(truth)
    try:
        return [everything(fresh), list(fresh.holdings()), list(fresh.others()), list(fresh.stamps())]
    finally:
        fresh.close()


def assert_same_as_fresh(store: Store, place: Path, truth: list[Holding]) -> None:
    """Brought up to date, it answers as one that never knew anything else."""
    bring_up_to_date(store, truth)
    found = [everything(store), list(store.holdings()), list(store.others()), list(store.stamps())]
    assert found == in_a_fresh_one(place, truth)


def test_what_was_said_is_given_back_as_it_was(store: Store) -> None:
    said = [
        holding(content="0123456789abcdef0123456789abcdef", read_ns=5),
        holding(instance=2, digest="", attributes={"PatientName": "É^é", "Rows": 3, "OtherPatientIDs": ["a", "b"]}),
        holding(instance=3, state="truncated", reason="ends early", series_uid="", study_uid=""),
        holding(instance=4, state="not dicom", study_uid="", series_uid="", sop_instance_uid="", attributes={}),
        holding(instance=5, path="\udcff\udc80.dcm", modality=["CT", "MR"]),
        holding(instance=6, state="rotten", reason="changed"),
        holding(instance=7, stamp=Stamp(size=0, mtime_ns=-1, device=2**64 - 1, inode=2**63 + 5)),
        holding(instance=8, sop_instance_uid="1.2\0.3", attributes={"PatientID": "a\nb\0c"}),
    ]
    store.remember(said)
    given = sorted([*store.holdings(), *store.others()], key=lambda each: each.path)
    assert given == sorted(said, key=lambda each: each.path)
    assert dict(store.stamps()) == {each.path: each.stamp for each in said}
    assert [each.path for each in store.others()] == ["1/1/3.dcm", "1/1/4.dcm", "1/1/6.dcm"]
    assert store.at("1/1/2.dcm") == said[1]
    assert store.at("1/1/9.dcm") is None


def test_what_stays_is_there_for_the_next_run(place: Path, path: Path) -> None:
    first = opened(place, path)
    first.remember(many())
    first.close()
    second = opened(place, path)
    assert list(second.holdings()) == sorted(many(), key=lambda each: each.sop_instance_uid)
    second.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_cache_of_the_users_folder_is_private(place: Path, tmp_path: Path) -> None:
    store = open_store(str(place), named=None, folder=tmp_path / "some" / "where", warn=pytest.fail)
    store.remember(many())
    modes = {each.stat().st_mode & 0o777 for each in sides(Path(store.path))}
    assert modes == {0o600}
    assert (tmp_path / "some" / "where").stat().st_mode & 0o777 == 0o700
    store.close()


def test_a_path_has_one_file(store: Store) -> None:
    store.remember([holding(), holding(instance=2, path="1/1/1.dcm")])
    store.remember([holding(instance=3, path="1/1/1.dcm")])
    assert [each.sop_instance_uid for each in store.holdings()] == ["1.1.1.3"]


def test_what_is_forgotten_is_gone(store: Store) -> None:
    store.remember(many())
    store.forget(["1/1/1.dcm", "never/there.dcm"])
    store.forget(each.path for each in many() if each.study_uid == "1.2")
    assert [each.path for each in store.holdings()] == [f"1/{s}/{i}.dcm" for s in (1, 2) for i in (1, 2, 3)][1:]
    assert len(answers(store, Level.STUDY)) == 1


def test_stamps_come_by_the_octets_of_paths(store: Store) -> None:
    paths = ["a", "a-b/x", "a/b", "a0", "é", "\udcff", "\U0001f600", "\udc80", "Z"]
    store.remember([holding(instance=number, path=each) for number, each in enumerate(paths)])
    assert [each for each, _ in store.stamps()] == sorted(paths, key=os.fsencode)


def test_studies_are_counted_and_described(store: Store) -> None:
    store.remember(many())
    store.remember([holding(2, 9, 1, modality="SR", sop_class_uid="1.2.3")])
    asked = ("PatientID", "ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedSeries",
             "NumberOfStudyRelatedInstances", "Modality", "InstanceNumber", "NoSuchThing")  # fmt: skip
    assert answers(store, Level.STUDY, *asked) == [
        {"StudyInstanceUID": "1.1", "PatientID": "P1", "ModalitiesInStudy": ["CT"], "SOPClassesInStudy": [CT],
         "NumberOfStudyRelatedSeries": 2, "NumberOfStudyRelatedInstances": 6},
        {"StudyInstanceUID": "1.2", "PatientID": "P2", "ModalitiesInStudy": ["CT", "SR"],
         "SOPClassesInStudy": ["1.2.3", CT], "NumberOfStudyRelatedSeries": 3, "NumberOfStudyRelatedInstances": 7},
    ]  # fmt: skip


def test_an_instance_carries_its_file(store: Store) -> None:
    store.remember([holding(content="0" * 31 + "1"), holding(instance=2, digest="")])
    keys = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    assert answers(store, Level.INSTANCE, "SOPClassUID", **keys) == [
        {**keys, "SOPInstanceUID": "1.1.1.1", "SOPClassUID": CT, "TransferSyntaxUID": "1.2.840.10008.1.2.1",
         "path": "1/1/1.dcm", "size": 1001, "digest": f"xxh3:{1:032x}", "content": f"xxh3:{1:032x}"},
        {**keys, "SOPInstanceUID": "1.1.1.2", "SOPClassUID": CT, "TransferSyntaxUID": "1.2.840.10008.1.2.1",
         "path": "1/1/2.dcm", "size": 1002},
    ]  # fmt: skip


def test_a_name_that_is_no_utf_8_is_told_by_its_octets(store: Store) -> None:
    store.remember([holding(path="a/\udcff.dcm"), holding(instance=2, path="a/é\ufffd.dcm")])
    odd, plain = answers(store, Level.INSTANCE, StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1")
    assert odd["path"] == "a/\ufffd.dcm"
    assert b64decode(str(odd["path_octets"])) == b"a/\xff.dcm"
    assert json.loads(json.dumps(odd, ensure_ascii=False).encode()) == odd
    assert plain["path"] == "a/é\ufffd.dcm"
    assert "path_octets" not in plain


@pytest.mark.parametrize(
    "keys, uids",
    [
        ({}, ["1.1", "1.2", "1.3"]),
        ({"StudyInstanceUID": ""}, ["1.1", "1.2", "1.3"]),
        ({"StudyInstanceUID": "1.3\\1.1\\1.9"}, ["1.1", "1.3"]),
        ({"StudyInstanceUID": "1.2"}, ["1.2"]),
        ({"StudyInstanceUID": "*.2"}, ["1.2"]),
        ({"PatientID": "P?"}, ["1.1", "1.2", "1.3"]),
        ({"PatientID": "p1"}, []),
        ({"StudyDate": "20240102-"}, ["1.2", "1.3"]),
        ({"StudyDate": "20240101-20240102", "PatientID": "P2"}, ["1.2"]),
        ({"ModalitiesInStudy": "CT"}, ["1.1", "1.2", "1.3"]),
        ({"ModalitiesInStudy": "MR\\SR"}, []),
        ({"AccessionNumber": "*"}, ["1.1", "1.2", "1.3"]),
        ({"AccessionNumber": "A1"}, []),
    ],
)
def test_matching_is_that_of_dicom(store: Store, keys: dict[str, str], uids: list[str]) -> None:
    store.remember(many(studies=3))
    assert [answer["StudyInstanceUID"] for answer in answers(store, Level.STUDY, **keys)] == uids


def test_lower_levels_match_below_what_is_above(store: Store) -> None:
    store.remember(many())
    assert [each["SeriesInstanceUID"] for each in answers(store, Level.SERIES, StudyInstanceUID="1.2")] == [
        "1.2.1", "1.2.2",
    ]  # fmt: skip
    assert answers(store, Level.SERIES, "PatientID", StudyInstanceUID="1.2", SeriesNumber="2") == [
        {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.2", "PatientID": "P2", "SeriesNumber": 2}
    ]
    assert answers(store, Level.SERIES, StudyInstanceUID="1.2", Modality="MR") == []
    keys = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1"}
    found = answers(store, Level.INSTANCE, **keys, InstanceNumber="2-")
    assert [each["InstanceNumber"] for each in found] == [2, 3]
    assert answers(store, Level.INSTANCE, **{**keys, "SeriesInstanceUID": "1.1.1"}) == []


def test_an_instance_in_two_files_is_one_answer_and_two_holdings(store: Store) -> None:
    store.remember([holding(path="b.dcm"), holding(path="a.dcm", digest=""), holding(instance=2)])
    (study,) = answers(store, Level.STUDY, "NumberOfStudyRelatedInstances")
    assert study["NumberOfStudyRelatedInstances"] == 2
    found = answers(store, Level.INSTANCE, StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1")
    assert [each["path"] for each in found] == ["a.dcm", "1/1/2.dcm"]
    assert [each.path for each in store.holdings(sop_instance_uid="1.1.1.1")] == ["a.dcm", "b.dcm"]
    assert [each.path for each in store.holdings(study_uid="1.1")] == ["a.dcm", "b.dcm", "1/1/2.dcm"]


def test_holdings_come_by_uid(store: Store) -> None:
    store.remember(reversed(many()))
    assert list(store.holdings()) == many()
    assert list(store.holdings(study_uid="1.2", series_uid="1.2.2")) == many()[9:]
    assert list(store.holdings(series_uid="1.2.2", sop_instance_uid="1.2.2.3")) == many()[11:]
    assert list(store.holdings(study_uid="1.1", sop_instance_uid="1.2.2.3")) == []


def test_what_is_no_whole_instance_is_not_found(store: Store) -> None:
    store.remember([holding(state=state) for state in ("truncated", "rotten", "not dicom")])
    store.remember([holding(instance=2, study_uid="")])
    assert answers(store, Level.STUDY) == []
    assert list(store.holdings()) == []
    assert len(list(store.others())) == 2


@given(order=some.permutations(range(6)))
def test_answers_do_not_depend_on_the_order_in_which_files_came(order: list[int]) -> None:
    said = [
        holding(instance=1, attributes={"PatientID": "B", "SeriesDescription": "x"}),
        holding(instance=2, attributes={"PatientID": "A"}),
        holding(instance=3, attributes={"PatientID": "A", "StudyID": "7"}, sop_class_uid="1.2"),
        holding(instance=3, path="twin", attributes={"PatientID": "C"}),
        holding(1, 2, 4, attributes={"PatientSex": "F", "Modality": "MR"}),
        holding(1, 2, 5, attributes={}),
    ]
    first, second = opened(Path("/"), None), opened(Path("/"), None)
    first.remember(said)
    second.remember(said[number] for number in order)
    assert everything(first) == everything(second)
    first.close()
    second.close()


def test_one_may_remember_while_another_reads(store: Store) -> None:
    store.remember([holding(instance=number) for number in range(1, 2500)])
    keys = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    found = store.find(Ask(level=Level.INSTANCE, keys=keys))
    begun = list(islice(found, 5))
    store.remember([holding(2, 1, 1)])
    store.forget(["1/1/2499.dcm"])
    assert len(begun) + len(list(found)) == 2498


def test_pages_lose_nothing_and_repeat_nothing(store: Store) -> None:
    said = [holding(study, 1, number) for study in (1, 2) for number in range(1, 1001)]
    said += [holding(3, number, 1) for number in range(1, 1002)]
    store.remember(said)
    assert len(list(store.stamps())) == 3001
    assert len({each.sop_instance_uid for each in store.holdings()}) == 3001
    assert len(everything(store)) == 3 + 1003 + 3001


def test_memory_is_flat(place: Path, path: Path) -> None:
    import tracemalloc

    store = opened(place, path)
    store.remember(holding(1, 1, number) for number in range(1, 20_001))
    keys = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    tracemalloc.start()
    try:
        for given in (store.stamps(), store.find(Ask(level=Level.INSTANCE, keys=keys)), store.holdings()):
            assert sum(1 for _ in given) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
        store.close()


def test_a_place_that_is_another_one_is_forgotten(place: Path, path: Path, tmp_path: Path) -> None:
    first = opened(place, path)
    first.remember(many())
    first.close()
    place.rename(tmp_path / "old")
    place.mkdir()
    second = opened(place, path)
    assert list(second.stamps()) == []
    assert everything(second) == []
    second.close()


def test_the_cache_of_another_place_is_not_believed(filled: tuple[Path, Path, list[Holding]], tmp_path: Path) -> None:
    _, cache, _ = filled
    (other := tmp_path / "other").mkdir()
    swapped = tmp_path / "swapped"
    shutil.copy(cache, swapped)
    store = opened(other, swapped)
    assert everything(store) == []
    assert list(store.stamps()) == []
    assert_same_as_fresh(store, other, many())
    store.close()


def test_who_loses_the_file_to_another_place_says_so(place: Path, path: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (other := tmp_path / "other").mkdir()
    first = opened(place, path, said.append)
    first.remember(many())
    list(first.stamps())
    second = opened(other, path)
    second.remember([holding(7)])
    list(second.stamps())
    with pytest.raises(LocalTrouble, match="lost in the middle"):
        everything(first)
    assert first.has_lost
    assert_same_as_fresh(first, place, many())
    assert not first.has_lost
    assert [each.study_uid for each in second.holdings()] == ["1.7"]
    (words,) = said
    assert "another place" in words
    first.close()
    second.close()


def test_two_runs_of_one_place_share_what_they_know(place: Path, path: Path) -> None:
    first, second = opened(place, path), opened(place, path)
    first.remember([holding(1)])
    second.remember([holding(2)])
    first.remember([holding(2, 1, 2)])
    assert len(list(first.holdings())) == len(list(second.holdings())) == 3
    assert everything(first) == everything(second)
    first.close()
    second.close()


def test_what_another_run_cleared_up_is_written_anew(place: Path, path: Path) -> None:
    first, second = opened(place, path), opened(place, path)
    first.remember(many())
    second.forget([each.path for each in many()])
    second.shrink()
    first.remember(many())
    assert list(first.holdings()) == list(second.holdings()) == many()
    first.close()
    second.close()
    third = opened(place, path)
    assert len(list(third.stamps())) == 12
    third.close()


def test_clearing_up_gives_space_back(place: Path, path: Path) -> None:
    store = opened(place, path)
    store.remember(many(studies=5, instances=100))
    store.close()
    before = path.stat().st_size
    store = opened(place, path)
    store.forget([each.path for each in many(studies=5, instances=100)][10:])
    store.shrink()
    assert path.stat().st_size < before / 4
    assert len(list(store.holdings())) == 10
    store.close()
