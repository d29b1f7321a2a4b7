"""Tests of endpoints/dicomweb/asking.py: which resource, and which values reach a server."""

import pytest

from dcmsync.contract import Ask, Level
from dcmsync.endpoints.dicomweb.asking import Search, search_of, uid_in_path
from dcmsync.errors import Refused
from dcmsync.net.http import encode


def studies(*wanted: str, **keys: str) -> Search:
    return search_of(Ask(level=Level.STUDY, keys=keys, wanted=wanted))


def series(level: Level = Level.SERIES, *wanted: str, **keys: str) -> Search:
    return search_of(Ask(level=level, keys=keys, wanted=wanted))


def test_each_level_has_its_resource() -> None:
    assert studies().path == "studies"
    assert series(StudyInstanceUID="1.2").path == "studies/1.2/series"
    deepest = series(Level.INSTANCE, StudyInstanceUID="1.2", SeriesInstanceUID="1.3", SOPInstanceUID="1.4")
    assert deepest.path == "studies/1.2/series/1.3/instances"
    assert deepest.query == (("SOPInstanceUID", "1.4"),)
    assert series(Level.INSTANCE, StudyInstanceUID="1.2").path == "studies/1.2/instances"


def test_without_uids_above_all_of_a_level_are_asked_for() -> None:
    assert series(Modality="CT").path == "series"
    across = series(Level.INSTANCE, SeriesInstanceUID="1.3")
    assert (across.path, across.query) == ("instances", (("SeriesInstanceUID", "1.3"),))


@pytest.mark.parametrize("uid", ["1.2/../../x", "..", "", "1" * 65, "1.2?x", "1.2#x", "%2e%2e", "1.2 3"])
def test_a_uid_that_would_lead_elsewhere_is_refused(uid: str) -> None:
    with pytest.raises(Refused):
        uid_in_path(uid)


@pytest.mark.parametrize(
    ("keyword", "value", "sent"),
    [
        ("PatientName", "M*ller^J", "M*ller^J*"),
        ("PatientName", "Müller^Jürgen", "M*ller^J*rgen*"),
        ("PatientName", "Doe Jane", "Doe*Jane*"),
        ("PatientName", "D?e*", "D*e*"),
        ("PatientName", "ü", None),
        ("PatientName", "Yamada=山田", "Yamada*"),
        ("PatientName", "山田*", None),
        ("StudyDescription", "CHEST, 2 views", "CHEST*2*views"),
        ("StudyDescription", "a&b#c+d%e", "a*b*c*d*e"),
        ("StudyDescription", "CT\\MR", None),
        ("PatientID", "P-1_a", "P-1_a"),
        ("StudyDate", "20240101-", "20240101-"),
        ("StudyDate", "-20240131", "-20240131"),
        ("StudyDate", "20240101-20240131", "20240101-20240131"),
        ("StudyDate", "2024", None),
        ("StudyDate", "2024*", None),
        ("StudyTime", "120000-125959.999999", "120000-125959.999999"),
        ("StudyTime", "12:00", None),
        ("StudyInstanceUID", "1.2\\1.3", "1.2,1.3"),
        ("StudyInstanceUID", "1.2,1.3", "1.2,1.3"),
        ("StudyInstanceUID", "1.2.*", None),
        ("NumberOfStudyRelatedInstances", "4*", None),
        ("NumberOfStudyRelatedInstances", "4", "4"),
        ("ModalitiesInStudy", "*", None),
    ],
)
def test_values_are_sent_as_far_as_servers_can_match_them(keyword: str, value: str, sent: str | None) -> None:
    search = studies(**{keyword: value})
    assert dict(search.query).get(keyword) == sent
    assert (keyword in search.weakened) == (sent != value.replace("\\", ","))
    if sent:
        assert encode([(keyword, sent)]) == f"{keyword}={sent}"


def test_a_list_of_uids_is_not_sent_to_who_takes_none() -> None:
    ask = Ask(level=Level.STUDY, keys={"StudyInstanceUID": "1.2\\1.3"})
    assert search_of(ask, takes_lists=False).query == ()
    assert search_of(ask, takes_lists=False).weakened == {"StudyInstanceUID"}


def test_what_comes_anyway_is_not_asked_for_again() -> None:
    search = studies("StudyDate", "StudyDescription", "00091001", PatientName="", InstitutionName="X")
    fields = [value for name, value in search.query if name == "includefield"]
    assert fields == ["InstitutionName", "StudyDescription", "00091001"]
    below = series(Level.SERIES, "Modality", "StudyDate", StudyInstanceUID="1.2")
    assert below.query == (("includefield", "StudyDate"),)
    assert series(Level.SERIES, "Modality", "StudyDate").query == ()


def test_each_attribute_stands_once_in_a_query() -> None:
    search = studies("StudyDescription", "StudyDescription", StudyDescription="a b")
    assert search.query == (("StudyDescription", "a*b"), ("includefield", "StudyDescription"))


def test_fuzzy_matching_is_asked_for_only_of_names() -> None:
    asks = [Ask(level=Level.STUDY, keys={"PatientName": "Doe"}), Ask(level=Level.STUDY, keys={"PatientID": "P"})]
    assert [("fuzzymatching", "true") in search_of(ask, fuzzy=True).query for ask in asks] == [True, False]
    assert search_of(asks[0], fuzzy=True).query[0] == ("PatientName", "Doe")
