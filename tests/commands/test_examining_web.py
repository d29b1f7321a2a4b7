"""`doctor` at DICOMweb services: Orthanc, and servers that leave things out."""

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from dcmsync.commands.examining_web import WebExamination
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from dcmsync.plan.diagnosis import Finding, Findings
from dcmsync.wire.multipart import Writer
from tests import peers, samples
from tests.conftest import Start
from tests.fakes.web import Reply, Seen, Web
from tests.workdir import Workdir

STUDY = "1.2.3"
FILE = bytes(128) + b"DICM" + b"x" * 100
UIDS = {"studies": ("0020000D", ("1.2.3", "1.2.4")), "series": ("0020000E", ("1.2.3.1",)),
        "instances": ("00080018", ("1.2.3.1.1",))}  # fmt: skip


def listed(seen: Seen) -> Reply:
    """What a service answers that does all as the standard says."""
    kind = seen.path.rpartition("/")[2]
    if kind in UIDS:
        tag, uids = UIDS[kind]
        query = dict(seen.query)
        start = int(query.get("offset", "0"))
        found = [{tag: {"vr": "UI", "Value": [uid]}} for uid in uids[start : start + int(query.get("limit", "9"))]]
        return Reply(headers={"Content-Type": "application/dicom+json"}, body=json.dumps(found).encode())
    if kind == "metadata":
        return Reply(headers={"Content-Type": "application/dicom+json"}, body=b"[{}]")
    writer = Writer("f" * 32)
    if seen.headers["accept"] == "application/dicom":
        return Reply(headers={"Content-Type": "application/dicom"}, body=FILE)
    return Reply(headers={"Content-Type": writer.media_type}, body=writer.head + FILE + writer.TAIL + writer.closing)


def look(script: Callable[[Seen], Reply], *, deep: bool = False) -> tuple[dict[str, Finding], Findings, list[Seen]]:
    """What is found at a server, by check, the last of a kind."""
    told: list[Finding] = []
    found = Findings(told.append)
    with Web(script) as web:
        door = Door(web.url, name="web", limits=Limits(timeout_s=5, connect_s=2), warn=lambda words: None)

        async def run() -> bool:
            return await WebExamination(door, found).run({}, deep=deep)

        anyio.run(run)
        return {each.check: each for each in told}, found, web.seen


def test_a_service_that_does_everything_is_told_so_and_sent_nothing() -> None:
    def script(seen: Seen) -> Reply:
        return Reply(headers={"Allow": "GET, POST"}) if seen.method == "OPTIONS" else listed(seen)

    by_check, found, seen = look(script)
    assert all(each.ok for each in by_check.values()) and found.can_pull
    assert set(by_check) == {"find study", "offset", "find series", "find instance", "all series", "all instances",
                             "metadata", "get", "single part", "store"}  # fmt: skip
    assert {each.method for each in seen} == {"GET", "OPTIONS"} and not any(each.body for each in seen)


@pytest.mark.parametrize("check, breaks, can_pull", [
    ("find study", lambda seen: seen.path == "/studies", False),
    ("find series", lambda seen: seen.path == f"/studies/{STUDY}/series", False),
    ("find instance", lambda seen: seen.path.endswith("1.2.3.1/instances"), False),
    ("all series", lambda seen: seen.path == "/series", True),
    ("metadata", lambda seen: seen.path.endswith("/metadata"), True),
    ("single part", lambda seen: seen.headers["accept"] == "application/dicom", True),
    ("get", lambda seen: "multipart" in seen.headers["accept"], False),
])  # fmt: skip
def test_what_is_missing_is_told(check: str, breaks: Callable[[Seen], bool], can_pull: bool) -> None:
    by_check, found, _ = look(lambda seen: Reply(400) if breaks(seen) else listed(seen))
    assert not by_check[check].ok and found.can_pull == can_pull


def test_a_service_that_gives_nothing_as_it_is_stored_is_remarked_on() -> None:
    _, found, _ = look(lambda seen: Reply(406) if "=*" in seen.headers["accept"] else listed(seen))
    assert found.can_pull and "Explicit VR Little Endian" in found.section("web", {"locator": "https://x"})


def test_pages_that_are_ignored_are_told() -> None:
    many = json.dumps([{"0020000D": {"vr": "UI", "Value": [f"1.{index}"]}} for index in range(9)]).encode()
    by_check, _, _ = look(lambda seen: Reply(body=many) if seen.path == "/studies" else listed(seen))
    assert by_check["limit"].ok is False and by_check["offset"].ok is False


@pytest.mark.parametrize("reply", [Reply(body=b"<html>"), Reply(body=b'{"a": 1}'), Reply(body=b"[1]")])
def test_what_is_no_dicom_json_is_told(reply: Reply) -> None:
    by_check, found, _ = look(lambda seen: reply)
    assert by_check["find study"].ok is False and "base URL" in by_check["find study"].advice
    assert not found.can_pull


@pytest.mark.parametrize("body, kind", [
    (b"<html>no</html>", "text/html"), (FILE[:100], "application/dicom"),
    (b"--B\r\n\r\n" + FILE[:140], "multipart/related; boundary=B"),
])  # fmt: skip
def test_what_is_no_whole_dicom_file_is_no_way_to_pull(body: bytes, kind: str) -> None:
    def script(seen: Seen) -> Reply:
        is_list = seen.path.rpartition("/")[2] in (*UIDS, "metadata")
        return listed(seen) if is_list else Reply(headers={"Content-Type": kind}, body=body)

    by_check, found, _ = look(script, deep=True)
    assert by_check["get"].ok is False and not found.can_pull


def test_doctor_at_orthanc(workdir: Workdir, start: Start, tmp_path: Path) -> None:
    peer = start(peers.orthanc, dicomweb=True)
    base = f"{peer.http}/dicom-web"
    empty = workdir.run("doctor", base)
    assert empty.status == 1, empty
    peer.store(sample.path for sample in samples.make_series(tmp_path / "made", studies=2, instances=2))
    (workdir.path / "config.toml").touch()
    done = workdir.run("doctor", base, "--deep", "--write", "web", "--config", "config.toml", "--format", "ndjson")
    assert done.status == 0, done
    verdicts = {record["check"]: record["ok"] for record in done.records if record["type"] == "check"}
    assert verdicts["get"] and verdicts["offset"] and verdicts["all instances"] and verdicts["single part"] is None
    assert f'locator = "{base}"' in (workdir.path / "config.toml").read_text()
    assert "registration" not in [record["type"] for record in done.records]
    assert workdir.run("echo", "web", "--config", "config.toml").status == 0
