"""A session of `endpoints.ahi` against a data store that checks signatures, and misbehaves when it is told to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.contract import Ask, Attributes, Ending, Level, Want
from dcmsync.endpoints.ahi import metadata, native, shelf
from dcmsync.endpoints.ahi.criteria import criteria
from dcmsync.endpoints.ahi.native import Native
from dcmsync.endpoints.ahi.place import AhiPlace
from dcmsync.endpoints.ahi.session import ImageSets, Session
from dcmsync.errors import Disconnected, OutOfResources, Refused, Rejected, RemoteProtocolError
from dcmsync.net.aws import SigV4
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from dcmsync.quirks import Quirks
from dcmsync.wire.sigv4 import Credentials
from tests import samples
from tests.fakes import ahi
from tests.fakes.ahi import DataStore
from tests.fakes.keeper import Keeper
from tests.fakes.web import Reply, Seen

Deed = Callable[[Session], Awaitable[Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 3 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), studies=2, series=2, instances=3, rows=8, columns=8)


@pytest.fixture
def store(made: list[samples.Sample]) -> Iterator[DataStore]:
    with DataStore() as one:
        one.add(sample.path for sample in made)
        yield one


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further tries come at once."""
    monkeypatch.setattr("dcmsync.net.trials.FIRST_WAIT_S", 0.001)


def place(
    store: DataStore,
    *,
    image_sets: ImageSets = "",
    credentials: Callable[[], Credentials] | None = None,
    warned: list[str] | None = None,
    region: str = ahi.REGION,
    by_frames: bool = False,
) -> AhiPlace:
    known = Credentials(access_key_id=ahi.KEY, secret_access_key=ahi.SECRET)
    authority = SigV4(credentials or (lambda: known), region)
    limits, warn = Limits(timeout_s=5.0), (warned if warned is not None else []).append
    calls = Door(store.url, name="ahi", limits=limits, authority=authority, strict=True, warn=warn)
    base = f"{store.url}/datastore/{ahi.STORE_ID}"
    files = Door(base, name="ahi", limits=limits, authority=authority, strict=True, warn=warn)
    api = Native(calls, ahi.STORE_ID, authority=authority, most_answers=1000)
    return AhiPlace(calls, api, files, image_sets=image_sets, by_frames=by_frames, quirks=Quirks(), warn=warn)


def talk(at: AhiPlace, deed: Deed) -> Any:
    async def main() -> Any:
        with anyio.fail_after(20):
            async with at.session() as session:
                return await deed(session)

    return anyio.run(main)


def asking(level: Level, wanted: tuple[str, ...] = (), **keys: str) -> Deed:
    async def deed(session: Session) -> list[Attributes | Ending]:
        return [answer async for answer in session.find(Ask(level=level, keys=keys, wanted=wanted))]

    return deed


def found(at: AhiPlace, level: Level, wanted: tuple[str, ...] = (), **keys: str) -> list[dict[str, Any]]:
    """The answers; the ending says that these are all."""
    *answers, ending = talk(at, asking(level, wanted, **keys))
    assert ending == Ending()
    return [dict(answer) for answer in answers]


def wanting(made: Sequence[samples.Sample], **more: Any) -> Want:
    first = made[0]
    uids = {each.sop_uid: "" for each in made if each.series_uid == first.series_uid}
    return Want(study_uid=first.study_uid, series_uid=first.series_uid, instances={**uids, **more})


def fetching(want: Want, keeper: Keeper) -> Deed:
    return lambda session: session.fetch(want, keeper)


def test_studies_are_what_image_sets_add_up_to(store: DataStore, made: list[samples.Sample]) -> None:
    wanted = ("StudyInstanceUID", "StudyDate", "ModalitiesInStudy", "NumberOfStudyRelatedInstances")
    answers = found(place(store), Level.STUDY, wanted)
    assert [answer["StudyInstanceUID"] for answer in answers] == list(dict.fromkeys(s.study_uid for s in made))
    assert answers[0]["PatientID"] == "S1P0001" and answers[0]["PatientName"] == "Sample^Patient"
    assert answers[0]["ModalitiesInStudy"] == ["CT"] and answers[0]["StudyDate"] == "20240202"
    assert answers[0]["NumberOfStudyRelatedSeries"] == 2 and answers[0]["NumberOfStudyRelatedInstances"] == 6
    assert store.calls == ["searchImageSets"]


def test_pages_are_turned_until_the_last(made: list[samples.Sample]) -> None:
    with DataStore(page=1) as store:
        store.add(sample.path for sample in made)
        assert len(found(place(store), Level.STUDY)) == 2
        assert store.calls == ["searchImageSets"] * 4


@pytest.mark.parametrize(
    "keys, filters",
    [
        ({}, []),
        ({"PatientName": "DOE*"}, []),
        ({"PatientID": "P1"}, [("DICOMPatientId", "P1")]),
        ({"PatientID": "P*"}, []),
        ({"PatientID": "P1\\P2"}, []),
        ({"PatientID": "P1", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"},
         [("DICOMSeriesInstanceUID", "1.3"), ("DICOMStudyInstanceUID", "1.2")]),
        ({"StudyDate": "20240101-20240131"}, ["20240101", "20240131"]),
        ({"StudyDate": "20240101"}, ["20240101", "20240101"]),
        ({"StudyDate": "20240101-"}, ["20240101", "99991231"]),
        ({"StudyDate": "-20240101"}, ["18500101", "20240101"]),
        ({"StudyDate": "-"}, []),
        ({"StudyDate": "2024*"}, []),
        ({"StudyDate": "20240101", "AccessionNumber": "A"}, [("DICOMAccessionNumber", "A"), "20240101", "20240101"]),
    ],
)  # fmt: skip
def test_a_search_is_narrowed_by_what_it_can_be(keys: Mapping[str, str], filters: list[Any]) -> None:
    told: list[Any] = []
    for one in criteria(keys).get("filters", []):  # type: ignore[attr-defined]
        days = [v["DICOMStudyDateAndTime"]["DICOMStudyDate"] for v in one["values"] if "DICOMStudyDateAndTime" in v]
        assert one["operator"] == ("BETWEEN" if days else "EQUAL")
        told += days or [next(iter(one["values"][0].items()))]
    assert told == filters


@pytest.mark.parametrize(
    "keys", [{"PatientID": "S1P0001"}, {"AccessionNumber": "A000001"}, {"StudyDate": "20240201-20240202"}]
)
def test_the_store_narrows_what_it_can(store: DataStore, made: list[samples.Sample], keys: dict[str, str]) -> None:
    assert [each["StudyInstanceUID"] for each in found(place(store), Level.STUDY, **keys)] == [made[0].study_uid]


def test_what_summaries_do_not_tell_is_taken_from_metadata(store: DataStore) -> None:
    answers = found(place(store), Level.STUDY, ReferringPhysicianName="Nobody", Occupation="x")
    assert [each["ReferringPhysicianName"] for each in answers] == ["Referring^Doctor"] * 2
    assert [each["Occupation"] for each in answers] == ["", ""]  # asked for and empty: for the judge
    assert store.calls.count("getImageSetMetadata") == 2


def test_patients_are_each_told_once(store: DataStore) -> None:
    assert [each["PatientID"] for each in found(place(store), Level.PATIENT)] == ["S1P0001", "S1P0002"]


def test_series_are_told_from_metadata_with_their_counts(store: DataStore, made: list[samples.Sample]) -> None:
    wanted = ("Modality", "SeriesNumber", "SeriesDescription", "NumberOfSeriesRelatedInstances")
    answers = found(place(store), Level.SERIES, wanted, StudyInstanceUID=made[0].study_uid)
    assert [each["SeriesInstanceUID"] for each in answers] == list(dict.fromkeys(s.series_uid for s in made[:6]))
    assert answers[1]["SeriesNumber"] == 2 and answers[1]["SeriesDescription"] == "Generated series 2"
    assert {each["NumberOfSeriesRelatedInstances"] for each in answers} == {3}


def test_instances_are_told_as_other_places_tell_them(store: DataStore, made: list[samples.Sample]) -> None:
    wanted = ("SOPClassUID", "InstanceNumber", "Rows", "PixelSpacing", "ImageType", "SliceThickness", "Laterality")
    uids = {"StudyInstanceUID": made[0].study_uid, "SeriesInstanceUID": made[0].series_uid}
    answers = found(place(store), Level.INSTANCE, wanted, **uids)
    assert [each["SOPInstanceUID"] for each in answers] == [sample.sop_uid for sample in made[:3]]
    assert answers[0] == {
        **uids, "SOPInstanceUID": made[0].sop_uid, "SOPClassUID": samples.CT_IMAGE_STORAGE, "InstanceNumber": 1,
        "Rows": 8, "PixelSpacing": [0.5, 0.5], "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SliceThickness": 1.0,
        "TransferSyntaxUID": samples.EXPLICIT_LITTLE,
    }  # fmt: skip
    one = found(place(store), Level.INSTANCE, **uids, SOPInstanceUID=made[1].sop_uid)
    assert [each["SOPInstanceUID"] for each in one] == [made[1].sop_uid]


def test_metadata_is_read_once_for_a_version(
    store: DataStore, made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place(store)
    uids = {"StudyInstanceUID": made[0].study_uid}
    found(at, Level.SERIES, **uids)
    found(at, Level.INSTANCE, **uids, SeriesInstanceUID=made[0].series_uid)
    assert store.calls.count("getImageSetMetadata") == 2
    store.image_sets[0].version = 2
    monkeypatch.setattr(shelf, "FRESH_S", 0.0)
    found(at, Level.INSTANCE, **uids, SeriesInstanceUID=made[0].series_uid)
    assert store.calls.count("getImageSetMetadata") == 3


def test_which_image_sets_a_study_has_is_asked_once_in_a_while(
    store: DataStore, made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = {"StudyInstanceUID": made[0].study_uid}

    async def deed(session: Session) -> None:
        for series in (made[0].series_uid, made[3].series_uid):
            for _ in range(2):
                keys = {**uids, "SeriesInstanceUID": series}
                answers = [each async for each in session.find(Ask(level=Level.INSTANCE, keys=keys))]
                assert len(answers) == 4 and answers[0]["SeriesInstanceUID"] == series  # type: ignore[index]

    talk(place(store), deed)
    assert store.calls.count("searchImageSets") == 2  # one for each series
    store.calls.clear()
    at = place(store)
    talk(at, asking(Level.SERIES, **uids))
    talk(at, deed)
    assert store.calls.count("searchImageSets") == 1  # the study's serves its series
    monkeypatch.setattr(shelf, "FRESH_S", 0.0)
    talk(at, deed)
    assert store.calls.count("searchImageSets") == 5


def test_searches_are_forgotten_before_they_are_too_many(
    store: DataStore, made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "SEARCHES", 1)
    at = place(store)
    for study_uid in (made[0].study_uid, made[6].study_uid, made[0].study_uid):
        found(at, Level.SERIES, StudyInstanceUID=study_uid)
    assert store.calls.count("searchImageSets") == 3


def test_metadata_is_forgotten_before_it_is_too_much(
    store: DataStore, made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcmsync.endpoints.ahi.shelf.REMEMBERED_OCTETS", 10)
    at = place(store)
    for _ in range(2):
        found(at, Level.SERIES, StudyInstanceUID=made[0].study_uid)
    assert store.calls.count("getImageSetMetadata") == 4


def test_instances_come_as_they_are_stored(store: DataStore, made: list[samples.Sample]) -> None:
    keeper = Keeper()
    assert talk(place(store), fetching(wanting(made), keeper)) == Ending()
    assert keeper.files == {sample.sop_uid: sample.path.read_bytes() for sample in made[:3]}
    assert store.calls == ["GetDICOMInstance"] * 3


def test_a_series_whose_instances_are_not_known_is_fetched_too(store: DataStore, made: list[samples.Sample]) -> None:
    keeper = Keeper()
    want = Want(study_uid=made[0].study_uid, series_uid=made[0].series_uid, instances={})
    assert talk(place(store), fetching(want, keeper)) == Ending()
    assert set(keeper.files) == {sample.sop_uid for sample in made[:3]}


def test_several_instances_are_on_their_way_at_a_time(tmp_path: Path) -> None:
    made = samples.make_series(tmp_path, instances=20, rows=8, columns=8)
    with DataStore() as store:
        store.add(sample.path for sample in made)
        keeper = Keeper()
        assert talk(place(store), fetching(wanting(made), keeper)) == Ending()
        assert len(keeper.files) == 20
        assert len({seen.connection for seen in store.seen}) > 1


def test_what_is_not_there_is_said_and_stops_nothing_else(store: DataStore, made: list[samples.Sample]) -> None:
    keeper = Keeper()
    ending = talk(place(store), fetching(wanting(made, **{"1.2.3": ""}), keeper))
    assert ending.status == 404 and "404: ResourceNotFound: no such instance" in ending.why
    assert len(keeper.files) == 3


def test_what_cannot_be_had_as_it_is_stored_is_said(store: DataStore, made: list[samples.Sample]) -> None:
    store.before = lambda operation, seen: (
        ahi._error(406, "NotAcceptableException", "not available") if operation == "GetDICOMInstance" else None
    )
    ending = talk(place(store), fetching(wanting(made), Keeper()))
    assert ending.status == 406 and "406: NotAcceptable: not available (and 2 more)" in ending.why


def test_a_body_that_is_cut_is_no_instance(store: DataStore, made: list[samples.Sample]) -> None:
    def cut(operation: str, seen: Seen) -> Reply | None:
        whole = made[0].path.read_bytes()
        return Reply(body=whole, cut=len(whole) - 10) if operation == "GetDICOMInstance" else None

    store.before = cut
    keeper = Keeper()
    with pytest.raises(Disconnected):
        talk(place(store), fetching(wanting(made[:1]), keeper))
    assert not keeper.files and keeper.discarded


def test_an_answer_that_does_not_say_where_it_ends_is_not_believed(
    store: DataStore, made: list[samples.Sample]
) -> None:
    store.before = lambda operation, seen: (
        Reply(body=made[0].path.read_bytes(), framing="close") if operation == "GetDICOMInstance" else None
    )
    keeper = Keeper()
    with pytest.raises(RemoteProtocolError, match="where it ends"):
        talk(place(store), fetching(wanting(made[:1]), keeper))
    assert not keeper.files


def test_what_is_no_dicom_file_is_named(store: DataStore, made: list[samples.Sample]) -> None:
    store.before = lambda operation, seen: (
        Reply(body=b"<html>Sign in</html>", headers={"Content-Type": "text/html"})
        if operation == "GetDICOMInstance" else None
    )  # fmt: skip
    ending = talk(place(store), fetching(wanting(made[:1]), Keeper()))
    assert "an HTML page" in ending.why and ending.status


def test_image_sets_apart_are_left_out_and_make_the_list_incomplete(
    store: DataStore, made: list[samples.Sample], tmp_path: Path
) -> None:
    other = samples.make_series(tmp_path, seed=9, instances=2, rows=8, columns=8)
    store.add([sample.path for sample in other], primary=False)
    *answers, ending = talk(place(store), asking(Level.STUDY))
    assert len(answers) == 2
    assert ending.truncated and ending.is_last_word and "1 image sets are not primary" in ending.why
    assert len(found(place(store, image_sets="primary"), Level.STUDY)) == 2
    everything = found(place(store, image_sets="all"), Level.STUDY)
    assert len(everything) == 3 and "NumberOfStudyRelatedInstances" not in everything[2]


def test_instances_of_image_sets_apart_are_fetched_from_there(
    store: DataStore, made: list[samples.Sample], tmp_path: Path
) -> None:
    other = samples.make_series(tmp_path, seed=9, instances=2, rows=8, columns=8)
    (apart,) = store.add([sample.path for sample in other], primary=False)
    keeper = Keeper()
    assert talk(place(store, image_sets="all"), fetching(wanting(other), keeper)) == Ending()
    assert keeper.files == {sample.sop_uid: sample.path.read_bytes() for sample in other}
    assert all(f"imageSetId={apart.id}" in seen.target for seen in store.seen if seen.method == "GET")


def test_of_an_instance_in_several_image_sets_the_primary_one_is_given(
    store: DataStore, made: list[samples.Sample], tmp_path: Path
) -> None:
    octets = made[0].path.read_bytes()
    (tmp_path / "other.dcm").write_bytes(octets.replace(b"S1P0001 ", b"S1P0009 "))
    store.add([tmp_path / "other.dcm"], primary=False)
    store.image_sets.insert(0, store.image_sets.pop())  # it is listed first
    warned: list[str] = []
    at = place(store, image_sets="all", warned=warned)
    uids = {"StudyInstanceUID": made[0].study_uid, "SeriesInstanceUID": made[0].series_uid}
    assert [each["PatientID"] for each in found(at, Level.INSTANCE, ("PatientID",), **uids)] == ["S1P0001"] * 3
    assert "instances are in several image sets" in warned[0]
    keeper = Keeper()
    talk(at, fetching(wanting(made), keeper))
    assert keeper.files[made[0].sop_uid] == octets


def test_pages_that_repeat_end_the_search_as_incomplete(store: DataStore) -> None:
    def loop(operation: str, seen: Seen) -> Reply | None:
        sets = [{"imageSetId": "a" * 32, "DICOMTags": {"DICOMStudyInstanceUID": "1.2"}}]
        return Reply(body=json.dumps({"imageSetsMetadataSummaries": sets, "nextToken": "again"}).encode())

    store.before = loop
    *answers, ending = talk(place(store), asking(Level.STUDY))
    assert len(answers) == 1 and ending.truncated and "repeat" in ending.why
    assert len(store.seen) == 2


def test_pages_without_end_that_bring_nothing_end_the_search(
    store: DataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "MOST_IDLE_PAGES", 5)
    count = iter(range(1000))
    store.before = lambda operation, seen: Reply(
        body=json.dumps({"imageSetsMetadataSummaries": [], "nextToken": str(next(count))}).encode()
    )
    *_, ending = talk(place(store), asking(Level.STUDY))
    assert ending.truncated and next(count) == 5


def test_a_search_that_goes_on_and_on_with_new_image_sets_ends(store: DataStore) -> None:
    count = iter(range(1000))

    def more(operation: str, seen: Seen) -> Reply | None:
        number = next(count)
        sets = [{"imageSetId": f"{number:030}{each:02}", "DICOMTags": {}} for each in range(50)]
        return Reply(body=json.dumps({"imageSetsMetadataSummaries": sets, "nextToken": str(number)}).encode())

    store.before = more
    with pytest.raises(RemoteProtocolError, match="gave more than 1,000 image sets"):
        talk(place(store), asking(Level.STUDY))


@pytest.mark.parametrize(
    "body",
    [
        b'{"other":' + b"[" * 100_000,
        b"", b"[]", b"{}", b"null", b"<html>", b'{"imageSetsMetadataSummaries":1}', b"\xff\xfe", b"[" * 100_000,
        b'{"imageSetsMetadataSummaries":[{"imageSetId":"../../x"}]}',
        b'{"imageSetsMetadataSummaries":[{"imageSetId":"a?b"}]}',
        b'{"imageSetsMetadataSummaries":[],"nextToken":7}',
        b'{"imageSetsMetadataSummaries":[{"imageSetId":"' + b"a" * 32 + b'","DICOMTags":{"x":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_search_that_is_answered_with_something_else_is_an_error(store: DataStore, body: bytes) -> None:
    store.before = lambda operation, seen: Reply(body=body)
    with pytest.raises(RemoteProtocolError, match=r"^ahi: "):
        talk(place(store), asking(Level.STUDY))


@pytest.mark.parametrize(
    "body, words",
    [
        (b"<html>", "cannot be read"),
        (b'{"Study":{"Series":[]}}', "cannot be read"),
        (b'{"Study":{"Series":{"1.2":{"Instances":{"1.3":7}}}}}', "cannot be read"),
        (b'{"Patient":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "cannot be read"),
        (b'{"Study":{"DICOM":{"StudyDate":"\xff"}}}', "cannot be read"),
        (b'{"Study":{"Series":{"1.2":{"Instances":{"1.3":{"DICOM":[]}}}}}}', "cannot be read"),
        (b'{"Study":{"Series":{"1.2":{"DICOM":{"a":' + b"[" * 100_000, "cannot be read"),
        (gzip.compress(b'{"Study":{}}', mtime=0)[:-9], "cut short"),
        (b"\x1f\x8b" + b"junk" * 9, "broken"),
    ],
)
def test_metadata_that_is_something_else_is_an_error(
    store: DataStore, made: list[samples.Sample], body: bytes, words: str
) -> None:
    store.before = lambda operation, seen: Reply(body=body) if operation == "getImageSetMetadata" else None
    with pytest.raises(RemoteProtocolError, match=f"^ahi: metadata.*{words}"):
        talk(place(store), asking(Level.SERIES, StudyInstanceUID=made[0].study_uid))


def test_metadata_that_unpacks_to_too_much_is_an_error(
    store: DataStore, made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "MOST_OCTETS", 1 << 20)
    bomb = gzip.compress(bytes(2 << 20))
    store.before = lambda operation, seen: Reply(body=bomb) if operation == "getImageSetMetadata" else None
    with pytest.raises(RemoteProtocolError, match="more than 1,048,576 octets"):
        talk(place(store), asking(Level.SERIES, StudyInstanceUID=made[0].study_uid))


@pytest.mark.parametrize(
    "keyword, given, plain",
    [
        ("RescaleSlope", "1 ", 1.0),
        ("SeriesNumber", "12", 12),
        ("SeriesNumber", "1_0", "1_0"),
        ("SeriesNumber", "9" * 30, "9" * 30),
        ("PatientName", "Doe^Jane ", "Doe^Jane"),
        ("PixelSpacing", ["0.5", "0.75 "], [0.5, 0.75]),
        ("ImageType", "ORIGINAL", ["ORIGINAL"]),
        ("ImageType", ["ORIGINAL", None], ["ORIGINAL", ""]),
        ("Rows", 512, 512),
        ("SliceThickness", "inf", "inf"),
        ("SliceThickness", "nan", "nan"),
        ("StudyDate", None, None),
        ("StudyDate", " ", None),
        ("StudyDate", 20240101, "20240101"),
        ("SourceImageSequence", [{"ReferencedSOPInstanceUID": "1.2"}], None),
        ("PixelData", "QUJD", None),
        ("00091001", "QUJD", None),
        ("SeriesNumber", {"a": 1}, None),
        ("SeriesNumber", True, None),
    ],
)
def test_values_are_plain_as_in_other_records(keyword: str, given: object, plain: object) -> None:
    assert metadata.plain(keyword, given) == plain


def test_private_text_is_told_by_the_vr_that_the_document_names() -> None:
    assert metadata.plain("00091001", "mm ", "LO") == "mm"
    assert metadata.plain("00091001", "QUJD", "OB") is None


@pytest.mark.parametrize("operation", ["searchImageSets", "getImageSetMetadata", "GetDICOMInstance"])
def test_a_throttled_call_is_made_again_and_signed_anew(
    store: DataStore, made: list[samples.Sample], operation: str
) -> None:
    waits = iter(range(2))
    store.before = lambda asked, seen: (
        ahi._error(429, "ThrottlingException", "Rate exceeded") if asked == operation and next(waits, None) is not None
        else None
    )  # fmt: skip
    ticks = iter(range(1000))
    begun = store.clock()
    store.clock = lambda: begun  # the same to it, within 300 s

    async def deed(session: Session) -> None:
        ask = Ask(level=Level.SERIES, keys={"StudyInstanceUID": made[0].study_uid})
        assert len([each async for each in session.find(ask)]) == 3
        assert await session.fetch(wanting(made), Keeper()) == Ending()

    known = Credentials(access_key_id=ahi.KEY, secret_access_key=ahi.SECRET)
    at = place(store)
    at._native._authority = at._calls._authority = at._files._authority = SigV4(
        lambda: known, ahi.REGION, clock=lambda: begun + next(ticks) % 200
    )
    talk(at, deed)
    assert len({seen.headers["x-amz-date"] for seen in store.seen}) == len(store.seen)


def test_a_store_that_throttles_for_ever_is_out_of_means(store: DataStore, made: list[samples.Sample]) -> None:
    store.before = lambda operation, seen: ahi._error(429, "ThrottlingException", "Rate exceeded")
    for deed in (asking(Level.STUDY), fetching(wanting(made), Keeper())):
        with pytest.raises(OutOfResources, match="Rate exceeded"):
            talk(place(store), deed)


@pytest.mark.parametrize(
    "status, kind, message, error, words",
    [
        (403, "AccessDeniedException", "no", Rejected, "403: AccessDenied: no. Ask for a policy"),
        (403, "InvalidSignatureException", "Signature expired", Rejected, "and the clock of this machine"),
        (400, "ExpiredTokenException", "old", Rejected, "400: ExpiredToken: old. Get new credentials"),
        (400, "ValidationException", "bad", Refused, "400: Validation: bad$"),
        (402, "ServiceQuotaExceededException", "much", Refused, "Use fewer --jobs"),
        (404, "ResourceNotFoundException", "none", Refused, "Check the data store and the region"),
        (409, "ConflictException", "it is locked", Refused, "409: Conflict: it is locked"),
        (424, "", "Authorizer Misconfiguration", Refused, "424: Authorizer Misconfiguration"),
    ],
)
def test_an_error_is_told_in_words(
    store: DataStore, status: int, kind: str, message: str, error: type[Exception], words: str
) -> None:
    store.before = lambda operation, seen: ahi._error(status, kind, message)
    with pytest.raises(error, match=words):
        talk(place(store), asking(Level.STUDY))


def test_a_wrong_secret_a_wrong_region_and_a_wrong_clock_are_rejected(store: DataStore) -> None:
    wrong = Credentials(access_key_id=ahi.KEY, secret_access_key="wrong")
    with pytest.raises(Rejected, match="does not match") as rejected:
        talk(place(store, credentials=lambda: wrong), asking(Level.STUDY))
    assert "wrong" not in str(rejected.value)
    with pytest.raises(Rejected, match="does not match"):
        talk(place(store, region="eu-west-1"), asking(Level.STUDY))
    begun = store.clock()
    store.clock = lambda: begun + 1000
    with pytest.raises(Rejected, match=r"Signature expired.*clock"):
        talk(place(store), asking(Level.STUDY))


def test_credentials_that_expire_meanwhile_are_asked_for_again(store: DataStore) -> None:
    tokens = iter(["old", "new", "new"])
    store.session_token = "new"
    asked: list[str] = []

    def renewed() -> Credentials:
        asked.append(next(tokens))
        return Credentials(access_key_id=ahi.KEY, secret_access_key=ahi.SECRET, session_token=asked[-1])

    assert len(found(place(store, credentials=renewed), Level.STUDY)) == 2
    assert asked == ["old", "new"]


def test_an_echo_is_a_search_that_is_answered(store: DataStore) -> None:
    assert anyio.run(place(store).echo) == 0
    assert store.calls == ["searchImageSets"]
