"""Commands against a DICOMweb service: Orthanc's plugin, and servers that misbehave."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import peers, samples
from tests.fakes.web import Reply, Seen, Web
from tests.trees import check_whole, files, leftovers
from tests.workdir import Done, Workdir

SEED = 77
LIST = {"Content-Type": "application/dicom+json"}
PARTS = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=bb'}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 5 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), studies=2, series=2, instances=5, seed=SEED)


@pytest.fixture(scope="module")
def orthanc_url(start_for_module, made: list[samples.Sample]) -> str:  # type: ignore[no-untyped-def]
    """Orthanc's DICOMweb with what was made; no test changes it."""
    peer = start_for_module(peers.orthanc, dicomweb=True)
    peer.store(sample.path for sample in made)
    return f"{peer.http}/dicom-web"


def check_all_there(folder: Path, made: list[samples.Sample]) -> None:
    """Every file, octet by octet."""
    check_whole(folder, made)
    held = {path.name.removesuffix(".dcm"): path.read_bytes() for path in files(folder)}
    assert held == {sample.sop_uid: sample.path.read_bytes() for sample in made}


def test_query_pull_and_sync_bring_what_is_stored(
    workdir: Workdir, orthanc_url: str, made: list[samples.Sample]
) -> None:
    listed = workdir.run("query", orthanc_url, "PatientID=S77P0001")
    assert [record["NumberOfStudyRelatedInstances"] for record in listed.of_type("study")] == [10]
    pulled = workdir.run("pull", "./there", stdin=listed.stdout)
    assert pulled.status == 0
    check_all_there(workdir.path / "there", made[:10])
    synced = workdir.run("sync", orthanc_url, "./there", "--all")
    assert synced.status == 0
    check_all_there(workdir.path / "there", made)
    assert [record["outcome"] for record in synced.of_type("outcome")].count("present") == 2
    assert workdir.run("diff", orthanc_url, "./there", "--all").status == 0


def test_what_lacks_is_fetched_alone(workdir: Workdir, orthanc_url: str, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", orthanc_url, "./there", "--all").status == 0
    gone = files(workdir.path / "there")[::3]
    for path in gone:
        path.unlink()
    compared = workdir.run("diff", orthanc_url, "./there", "--all")
    assert compared.status == 1
    assert {record["SOPInstanceUID"] for record in compared.of_type("instance")} == {
        path.name.removesuffix(".dcm") for path in gone
    }
    assert workdir.run("pull", "./there", stdin=compared.stdout).status == 0
    check_all_there(workdir.path / "there", made)


@pytest.mark.parametrize("level", ["patient", "study", "series", "instance"])
def test_each_level_is_listed(
    workdir: Workdir, orthanc_url: str, made: list[samples.Sample], level: str
) -> None:
    attribute = {"patient": "patient_id", "study": "study_uid", "series": "series_uid", "instance": "sop_uid"}[level]
    done = workdir.run("query", orthanc_url, "--all", "--level", level)
    keyword = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}.get(level)
    expected = sorted({getattr(sample, attribute) for sample in made})
    assert sorted(record[keyword or "SOPInstanceUID"] for record in done.of_type(level)) == expected
    across = workdir.run("query", orthanc_url, "--all", "--level", level, "--relational")
    assert across.status == 0
    assert sorted(record[keyword or "SOPInstanceUID"] for record in across.of_type(level)) == expected


@pytest.mark.parametrize("format_", ["tree", "table", "csv"])
def test_lists_are_shown_in_every_format(workdir: Workdir, orthanc_url: str, format_: str) -> None:
    done = workdir.run("query", orthanc_url, "--all", "--level", "series", "--format", format_)
    assert done.status == 0
    assert b"S77P0002" in done.stdout


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("PatientName=Sample^Patient", 2),
        ("PatientName=sample*", 2),
        ("PatientName=Sämple*", 0),
        ("PatientName=S?mple^Patient", 2),
        ("StudyDescription=Generated study 2", 1),
        ("StudyDescription=Generated study, 2", 0),
        ("StudyDate=20240202", 1),
        ("StudyDate=20240203-", 1),
        ("StudyDate=2024", 2),
        ("StudyDate=-20240101", 0),
        ("ModalitiesInStudy=CT", 2),
        ("ModalitiesInStudy=MR", 0),
        ("AccessionNumber=A000001", 1),
    ],
)
def test_keys_choose_as_they_do_everywhere(workdir: Workdir, orthanc_url: str, key: str, found: int) -> None:
    done = workdir.run("query", orthanc_url, key)
    assert (done.status, len(done.of_type("study"))) == (0, found)


def test_names_that_no_query_can_carry_are_found(workdir: Workdir, start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = samples.make_series(tmp_path / "made", instances=1, seed=SEED + 3, patient_name="Müller^Jürgen=山田^太郎")
    peer = start(peers.orthanc, dicomweb=True, settings={"DefaultEncoding": "Utf8"})  # else it answers in Latin-1
    peer.store(sample.path for sample in made)
    for name, found in (
        ("Müller^Jürgen", 1),
        ("müller*", 1),
        ("M?ller^J*", 1),
        ("山田*", 1),
        ("Möller*", 0),
        ("Müller^Jürgen=山田^太郎", 1),
    ):
        done = workdir.run("query", f"{peer.http}/dicom-web", f"PatientName={name}")
        assert (done.status, len(done.of_type("study"))) == (0, found), name
    assert done.of_type("study")[0]["PatientName"] == "Müller^Jürgen=山田^太郎"


def test_limits_upon_whole_lists_are_found_out(workdir: Workdir, start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    many = samples.make_series(tmp_path / "many", studies=120, instances=1, seed=SEED + 1, rows=8, columns=8)
    long = samples.make_series(tmp_path / "long", instances=12, seed=SEED + 2, rows=8, columns=8)
    peer = start(peers.orthanc, dicomweb=True, settings={"LimitFindResults": 100, "LimitFindInstances": 5})
    peer.store(sample.path for sample in (*many, *long))
    studies = workdir.run("query", f"{peer.http}/dicom-web", "PatientID=S78*")
    assert (studies.status, len(studies.of_type("study"))) == (0, 120)
    instances = workdir.run("query", f"{peer.http}/dicom-web", "PatientID=S79*", "--level", "instance")
    assert (instances.status, len(instances.of_type("instance"))) == (0, 12)


def test_verify_finds_a_migration_there(workdir: Workdir, orthanc_url: str, made: list[samples.Sample]) -> None:
    assert workdir.run("sync", orthanc_url, "./there", "--all").status == 0
    local = workdir.run("query", "./there", "--level", "series")
    assert workdir.run("verify", "--at", orthanc_url, stdin=local.stdout).status == 0
    assert workdir.run("verify", "--at", orthanc_url, "--read-data", stdin=local.stdout).status == 0
    lacking = {"type": "instance", "source": "./there", "StudyInstanceUID": made[0].study_uid,
               "SeriesInstanceUID": made[0].series_uid, "SOPInstanceUID": "1.2.3.4"}  # fmt: skip
    assert workdir.run("verify", "--at", orthanc_url, stdin=json.dumps(lacking).encode()).status == 1


def test_metadata_come_without_pixels(workdir: Workdir, orthanc_url: str, made: list[samples.Sample]) -> None:
    listed = workdir.run("query", orthanc_url, "--all")
    told = workdir.run("pull", "--metadata", stdin=listed.stdout)
    assert told.status == 0
    things = [json.loads(line) for line in told.stdout.splitlines()]
    assert {thing["00080018"]["Value"][0] for thing in things} == {sample.sop_uid for sample in made}
    assert not any("7FE00010" in thing and "Value" in thing["7FE00010"] for thing in things)


def test_places_without_metadata_say_so(workdir: Workdir, made: list[samples.Sample]) -> None:
    record = {"type": "study", "source": "./there", "StudyInstanceUID": made[0].study_uid}
    (workdir.path / "there").mkdir()
    done = workdir.run("pull", "--metadata", stdin=json.dumps(record).encode())
    assert done.status == 2
    assert "dump" in done.stderr


# Servers that misbehave, on the whole way: never a false `stored`, and the exit status says it.

_UIDS = [f"1.2.3.{number}" for number in range(3)]


def instance(number: int) -> bytes:
    data_set = samples.element(0x00080016, b"UI", samples.CT_IMAGE_STORAGE)
    data_set += samples.element(0x00080018, b"UI", _UIDS[number])
    data_set += samples.element(0x0020000D, b"UI", "1.1") + samples.element(0x0020000E, b"UI", "1.1.1")
    data_set += samples.element(0x7FE00010, b"OW", struct.pack("<L", number) * 100)
    return samples.part10(data_set, sop_class_uid=samples.CT_IMAGE_STORAGE, sop_uid=_UIDS[number])


def parts(*octets: bytes) -> bytes:
    return b"".join(b"--bb\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % each for each in octets) + b"--bb--\r\n"


def server(retrieve: Callable[[list[int]], Reply]) -> Callable[[Seen], Reply]:
    """A service with one series of three; `retrieve` is told which instances are asked for."""

    def serve(seen: Seen) -> Reply:
        *_, last = seen.path.split("/")
        if last in ("studies", "series", "instances"):
            if "offset" in dict(seen.query):
                return Reply(headers=LIST, body=b"[]")
            named = {"studies": ["1.1"], "series": ["1.1.1"], "instances": _UIDS}[last]
            tag = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}[last]
            wanted = dict(seen.query).get("SOPInstanceUID")
            things = [{tag: {"vr": "UI", "Value": [uid]}} for uid in named if wanted in (None, uid)]
            return Reply(headers=LIST, body=json.dumps(things).encode())
        return retrieve([_UIDS.index(last)] if last in _UIDS else [0, 1, 2])

    return serve


def pull(workdir: Workdir, retrieve: Callable[[list[int]], Reply]) -> Done:
    with Web(server(retrieve)) as web:
        record = {"type": "series", "source": web.url, "StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
        return workdir.run("pull", "./there", "--itemize", "--timeout", "5", stdin=json.dumps(record).encode())


def stored(done: Done) -> set[object]:
    return {record["SOPInstanceUID"] for record in done.of_type("outcome")
            if record["outcome"] == "stored" and record["level"] == "instance"}  # fmt: skip


def test_a_good_server_is_believed(workdir: Workdir) -> None:
    done = pull(workdir, lambda numbers: Reply(headers=PARTS, body=parts(*map(instance, numbers))))
    assert done.status == 0
    assert stored(done) == set(_UIDS)


def test_what_one_answer_lacks_is_asked_for_again(workdir: Workdir) -> None:
    def retrieve(numbers: list[int]) -> Reply:
        body = parts(*map(instance, numbers))
        return Reply(headers=PARTS, body=body, cut=len(body) - 100 if len(numbers) > 1 else None)

    done = pull(workdir, retrieve)
    assert done.status == 0
    assert stored(done) == set(_UIDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Type": "text/html"}, body=b"<html>Sign in</html>"),
        Reply(headers=PARTS, body=parts()),
        Reply(headers=PARTS, body=parts(b"<html>")),
        Reply(headers=PARTS, body=parts(instance(0)[:-50])),
        Reply(headers=PARTS, body=parts(instance(0))[:-8]),
        Reply(headers=PARTS, body=parts(instance(0))[:-8], framing="close"),
        Reply(headers=PARTS, body=parts(instance(0).replace(b"1.2.3.0", b"1.2.3.9"))),
        Reply(headers=PARTS, body=parts(instance(0).replace(b"1.1.1", b"1.1.2"))),
        Reply(headers={"Content-Type": "application/dicom"}, body=instance(0)[:-20]),
        Reply(status=204),
        Reply(status=404),
        Reply(status=206, headers=PARTS, body=parts()),
    ],
)
def test_what_is_not_whole_or_not_asked_for_is_never_stored(workdir: Workdir, reply: Reply) -> None:
    done = pull(workdir, lambda numbers: reply)
    assert done.status in (3, 4)
    assert not stored(done)
    named = {record["SOPInstanceUID"] for record in done.of_type("outcome") if record["level"] == "instance"}
    assert named == set(_UIDS)
    assert not (workdir.path / "there").exists() or not leftovers(workdir.path / "there")
    assert not list(workdir.path.rglob("*.dcm"))


@pytest.mark.slow
def test_two_instances_of_one_uid_are_a_conflict_unless_they_are_the_same(workdir: Workdir) -> None:
    other = instance(0)[:-4] + b"\7\7\7\7"

    def retrieve(numbers: list[int]) -> Reply:
        body = parts(*map(instance, numbers), *([other] if 0 in numbers else []))
        return Reply(headers=PARTS, body=body)

    done = pull(workdir, retrieve)
    assert done.status != 0
    assert {record["outcome"] for record in done.of_type("outcome") if record.get("SOPInstanceUID") == _UIDS[0]} == {
        "conflict"
    }


def test_a_list_that_the_server_cuts_is_told(workdir: Workdir) -> None:
    page = [{"0020000D": {"vr": "UI", "Value": [f"1.9.{number}"]}} for number in range(1000)]
    narrow = ("StudyDate=20240101", "StudyTime=1200-1200", "PatientID=P")  # which cannot be asked for in parts
    with Web(Reply(headers=LIST, body=json.dumps(page).encode())) as web:
        done = workdir.run("query", web.url, *narrow, "--timeout", "5")
    assert (done.status, len(done.of_type("study"))) == (6, 1000)
    assert done.of_type("end")[0]["complete"] is False


def test_a_key_that_can_neither_be_asked_by_nor_is_told_makes_a_list_incomplete(workdir: Workdir) -> None:
    page = [{"0020000D": {"vr": "UI", "Value": ["1.9.1"]}}]
    with Web(Reply(headers=LIST, body=json.dumps(page).encode())) as web:
        done = workdir.run("query", web.url, "StudyDescription=Thorax nativ", "--timeout", "5")
    assert (done.status, done.of_type("study")) == (6, [])
