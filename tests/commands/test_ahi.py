"""The verbs, as people run them, with a data store of HealthImaging as their source."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests import samples
from tests.fakes import ahi, htj2k
from tests.fakes.ahi import DataStore
from tests.fakes.web import Reply, Seen
from tests.trees import check_whole, leftovers
from tests.workdir import Done, Workdir

pytestmark = pytest.mark.slow
WHO = {"AWS_ACCESS_KEY_ID": ahi.KEY, "AWS_SECRET_ACCESS_KEY": ahi.SECRET}
CANARY = "Canary"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 3 instances."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, studies=2, series=2, instances=3, patient_name=f"{CANARY}^Bird")


@pytest.fixture
def store(made: list[samples.Sample]) -> Iterator[DataStore]:
    with DataStore() as one:
        one.add(sample.path for sample in made)
        yield one


def configure(workdir: Workdir, store: DataStore, *lines: str, locator: str = "") -> None:
    path = workdir.path / ".xdg" / "config" / "dcmsync" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    locator = locator or f"ahi://{ahi.STORE_ID}?region={ahi.REGION}"
    url = () if locator.startswith("http") else (f'endpoint_url = "{store.url}"',)
    path.write_text("\n".join(("[endpoints.store]", f'locator = "{locator}"', *url, *lines)))


def run(workdir: Workdir, *arguments: str, stdin: bytes | None = None, **env: str) -> Done:
    done = workdir.run(*arguments, stdin=stdin, env={**WHO, **env})
    assert CANARY not in done.stderr and ahi.SECRET not in done.stderr and done.status != 70, done
    return done


def test_a_query_is_pulled_synced_compared_and_verified(
    workdir: Workdir, store: DataStore, made: list[samples.Sample]
) -> None:
    configure(workdir, store)
    queried = run(workdir, "query", "store", "PatientID=S1P0001")
    assert queried.status == 0 and [each["source"] for each in queried.of_type("study")] == ["store"], queried
    pulled = run(workdir, "pull", "./archive", stdin=queried.stdout)
    assert pulled.status == 0 and sum(each["stored"] for each in pulled.of_type("outcome")) == 6, pulled
    check_whole(workdir.path / "archive", made[:6])
    differing = run(workdir, "diff", "store", "./archive", "--all")
    assert differing.status == 1 and {each["change"] for each in differing.records[:-1]} == {"missing"}, differing
    synced = run(workdir, "sync", "store", "./archive", "--all")
    assert synced.status == 0, synced
    assert [each["outcome"] for each in synced.of_type("outcome")] == ["present", "present", "stored", "stored"]
    check_whole(workdir.path / "archive", made)
    assert run(workdir, "diff", "store", "./archive", "--all").status == 0
    there = run(workdir, "query", "./archive", "--level", "instance")
    assert run(workdir, "verify", "--at", "store", stdin=there.stdout).status == 0
    listed = run(workdir, "query", "store", "--all", "--level", "instance")
    assert listed.status == 0 and len(listed.of_type("instance")) == 12, listed
    assert run(workdir, "verify", "--at", "./archive", stdin=listed.stdout).status == 0


def test_keys_that_the_store_cannot_match_by_are_matched_here(workdir: Workdir, store: DataStore) -> None:
    configure(workdir, store)
    for keys, count in (
        (("PatientName=canary*",), 2),
        (("StudyDescription=*2",), 1),
        (("ReferringPhysicianName=Ref*",), 2),
        (("ReferringPhysicianName=Other*",), 0),
        (("ModalitiesInStudy=MR",), 0),
        (("StudyDate=20240301-",), 1),
        (("StudyDate=20240202", "AccessionNumber=A000001"), 1),
        (("SeriesNumber=2",), 2),
        (("InstanceNumber=3",), 4),
    ):
        done = run(workdir, "query", "store", *keys)
        assert (done.status, len(done.records) - 1) == (0, count), (keys, done)


def test_a_store_is_named_by_its_locator_alone(workdir: Workdir, store: DataStore) -> None:
    done = run(workdir, "query", f"ahi://{ahi.STORE_ID}", "--all")
    assert done.status == 2 and "no AWS region is known" in done.stderr, done
    done = workdir.run("query", f"ahi://{ahi.STORE_ID}?region=us-east-1", "--all", env={"PATH": ""})
    assert done.status == 2 and "no AWS credentials" in done.stderr, done


def test_who_is_not_let_in_is_told_why(workdir: Workdir, store: DataStore) -> None:
    configure(workdir, store)
    done = run(workdir, "query", "store", "--all", AWS_SECRET_ACCESS_KEY="other")
    assert done.status == 5 and "Check the secret key, and the clock" in done.stderr, done


def test_image_sets_apart_make_a_list_incomplete_until_somebody_decides(
    workdir: Workdir, store: DataStore, made: list[samples.Sample], tmp_path: Path
) -> None:
    other = samples.make_series(tmp_path / "other", seed=9, instances=2)
    store.add([sample.path for sample in other], primary=False)
    configure(workdir, store)
    done = run(workdir, "sync", "store", "./archive", "--all")
    assert done.status == 6 and "1 image sets are not primary" in done.stderr, done
    configure(workdir, store, 'image_sets = "primary"')
    assert run(workdir, "sync", "store", "./archive", "--all").status == 0
    configure(workdir, store, 'image_sets = "all"')
    done = run(workdir, "sync", "store", "./archive", "--all")
    assert done.status == 0, done
    check_whole(workdir.path / "archive", [*made, *other])


@pytest.mark.parametrize(
    "how",
    [
        {"body": b"<html>Sign in</html>"},
        {"body": b""},
        {"status": 404, "body": b"{}"},
        {"status": 406, "body": b'{"message":"no"}'},
        {"cut": 100},
        {"framing": "close"},
        {"reset": "after head"},
    ],
)
def test_an_instance_that_does_not_come_whole_is_never_stored(
    workdir: Workdir, store: DataStore, made: list[samples.Sample], how: dict[str, Any]
) -> None:
    configure(workdir, store)
    bad = made[1]
    reply = Reply(**{"body": bad.path.read_bytes(), **how})
    store.before = lambda operation, seen: reply if bad.sop_uid in seen.target else None
    done = run(workdir, "sync", "store", "./archive", "--all")
    assert done.status in (3, 4), done
    failed = [each for each in done.of_type("outcome") if each["level"] == "instance"]
    assert [(each["SOPInstanceUID"], each["outcome"]) for each in failed] == [(bad.sop_uid, "failed")], done
    check_whole(workdir.path / "archive", [sample for sample in made if sample != bad])
    assert not leftovers(workdir.path / "archive")


def test_where_no_whole_instances_are_given_they_are_made_of_frames_if_that_is_allowed(
    workdir: Workdir, tmp_path: Path
) -> None:
    images = htj2k.make_images(tmp_path, (12, 1))
    with DataStore() as store:
        store.add(sample.path for sample in images)
        store.before = lambda operation, seen: (
            ahi._error(501, "", "no such action") if operation == "GetDICOMInstance" else None
        )
        configure(workdir, store)
        done = run(workdir, "sync", "store", "./archive", "--all")
        assert done.status == 3 and 'set retrieve_by = "frames"' in done.records[0]["message"], done
        assert not list((workdir.path / "archive").rglob("*.dcm"))
        configure(workdir, store, 'retrieve_by = "frames"')
        queried = run(workdir, "query", "store", "--all")
        done = run(workdir, "pull", "./archive", "--jobs", "2", stdin=queried.stdout)
        assert done.status == 0 and sum(each["stored"] for each in done.of_type("outcome")) == 2, done
        assert done.stderr.count("not octet for octet what was imported") == 1, done
        files = [pydicom.dcmread(path) for path in (workdir.path / "archive").rglob("*.dcm")]
        back = {each.SOPInstanceUID: each for each in files}
        for sample in images:
            source = pydicom.dcmread(sample.path)
            made = back.pop(sample.sop_uid)
            assert htj2k.streams(made) == htj2k.streams(source)
            del made.PixelData, source.PixelData
            assert list(made) == list(source)
        assert not back and not leftovers(workdir.path / "archive")
        assert run(workdir, "diff", "store", "./archive", "--all").status == 0


def test_a_token_is_shown_to_dicomweb_and_a_signature_to_the_rest(workdir: Workdir, made: list[samples.Sample]) -> None:
    (workdir.path / "token").write_text(ahi.BEARER)
    (workdir.path / "token").chmod(0o600)
    with DataStore(bearer=True) as store:
        store.add(sample.path for sample in made)
        configure(workdir, store, f'token_file = "{workdir.path / "token"}"')
        done = run(workdir, "sync", "store", "./archive", "--all")
        assert done.status == 0, done
        check_whole(workdir.path / "archive", made)
        (workdir.path / "token").write_text("old")
        done = run(workdir, "sync", "store", "./other", "--all")
        assert done.status == 5 and "Invalid or Expired Token" in done.records[0]["message"], done


@pytest.mark.parametrize("lines", [("aws_profile = \"imaging\"",), ()])
def test_its_dicomweb_is_a_place_too_signed_or_with_a_token(
    workdir: Workdir, made: list[samples.Sample], lines: tuple[str, ...]
) -> None:
    (workdir.path / ".aws").mkdir()
    (workdir.path / ".aws" / "credentials").write_text(
        f"[imaging]\naws_access_key_id = {ahi.KEY}\naws_secret_access_key = {ahi.SECRET}\nregion = {ahi.REGION}\n"
    )
    (workdir.path / "token").write_text(ahi.BEARER)
    (workdir.path / "token").chmod(0o600)
    with DataStore(bearer=not lines) as store:
        store.add(sample.path for sample in made)
        lines = lines or (f'token_file = "{workdir.path / "token"}"',)
        configure(workdir, store, *lines, locator=f"{store.url}/datastore/{ahi.STORE_ID}")
        done = workdir.run("query", "store", "PatientName=Canary*", "PatientID=S1P0001")
        assert done.status == 0 and len(done.of_type("study")) == 1, done
        if "aws_profile" in lines[0]:  # that it gives no series as a whole is known by that, or by the host of AWS
            done = workdir.run("sync", "store", "./archive", "--all")
            assert done.status == 0, done
            check_whole(workdir.path / "archive", made)


def test_its_dicomweb_takes_what_is_pushed_signed_over_every_octet(
    workdir: Workdir, made: list[samples.Sample], tmp_path: Path
) -> None:
    with DataStore() as store:
        configure(workdir, store, f'region = "{ahi.REGION}"', locator=f"{store.url}/datastore/{ahi.STORE_ID}")
        names = itertools.count()

        def take(operation: str, seen: Seen) -> Reply | None:
            if seen.method != "POST":
                return None
            boundary = seen.headers["content-type"].partition("boundary=")[2].encode()
            parts = [part.partition(b"\r\n\r\n")[2][:-2] for part in seen.body.split(b"--" + boundary)[1:-1]]
            paths = [tmp_path / f"{next(names)}.dcm" for _ in parts]  # several requests come at a time
            for path, part in zip(paths, parts, strict=True):
                path.write_bytes(part)
            stored = [uid for image_set in store.add(paths) for uid in image_set.files]
            items = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]
            told = json.dumps({"00081199": {"vr": "SQ", "Value": items}}).encode()
            return Reply(200, {"Content-Type": "application/dicom+json"}, told)

        store.before = take
        done = run(workdir, "push", "store", *(str(sample.path) for sample in made))
        assert done.status == 0, done
        held = {uid: octets for each in store.image_sets for uid, octets in each.files.items()}
        assert held == {sample.sop_uid: sample.path.read_bytes() for sample in made}


def test_nothing_can_be_pushed_there_and_the_reason_is_told(
    workdir: Workdir, store: DataStore, made: list[samples.Sample]
) -> None:
    configure(workdir, store)
    done = run(workdir, "push", "store", str(made[0].path))
    assert done.status in (2, 5) and "takes nothing" in done.stderr and "DICOMweb" in done.stderr, done
    assert not store.seen


def test_an_echo_is_answered(workdir: Workdir, store: DataStore) -> None:
    configure(workdir, store)
    done = run(workdir, "echo", "store")
    assert done.status == 0 and json.loads(done.lines[0])["status"] == "0x0000", done
