"""Tests of endpoints/dicomweb/describing.py: metadata, one line an instance."""

import json

import anyio
import pytest
from msgspec import structs

from dcmsync.contract import Describes, Description, Want
from dcmsync.endpoints.dicomweb.place import DicomwebPlace
from dcmsync.errors import Refused, RemoteProtocolError
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from tests.fakes.web import Reply, Script, Seen, Web

WANT = Want(study_uid="1.1", series_uid="1.1.1", instances={"1.2.0": "", "1.2.1": ""})


def described(*scripts: Script, want: Want = WANT) -> tuple[list[Description], list[Seen]]:
    found: list[Description] = []

    async def run(url: str) -> None:
        door = Door(url, name="web", limits=Limits(timeout_s=5), warn=print)
        async with DicomwebPlace(door, warn=print).session() as session:
            assert isinstance(session, Describes)
            found.extend([description async for description in session.describe(want)])

    with Web(*scripts) as web:
        anyio.run(run, web.url)
    return found, web.seen


def thing(number: int) -> str:
    return json.dumps({"00080018": {"vr": "UI", "Value": [f"1.2.{number}"]}}, indent=2)


def test_each_object_becomes_a_line_with_its_numbers_as_they_were_written() -> None:
    odd = '{\n "00080018": {"vr": "UI", "Value": ["1.2.0"]},\n "00180050": {"vr": "DS", "Value": [1.50]}}'
    [found, other], seen = described(Reply(body=f"[{odd}, {thing(1)}]".encode()))
    assert found.sop_instance_uid == "1.2.0"
    assert found.json == b'{"00080018":{"vr":"UI","Value":["1.2.0"]},"00180050":{"vr":"DS","Value":[1.50]}}'
    assert other.sop_instance_uid == "1.2.1"
    assert seen[0].target == "/studies/1.1/series/1.1.1/metadata"
    assert seen[0].headers["accept"] == "application/dicom+json"


@pytest.mark.parametrize("status", [404, 406, 501])
def test_who_describes_no_series_is_asked_instance_by_instance(status: int) -> None:
    def serve(seen: Seen) -> Reply:
        if "instances" not in seen.path:
            return Reply(status=status)
        return Reply(body=f"[{thing(int(seen.path.split('/')[-2][-1]))}]".encode())

    found, _ = described(serve)
    assert [each.sop_instance_uid for each in found] == ["1.2.0", "1.2.1"]


def test_some_instances_are_asked_for_alone() -> None:
    one = structs.replace(WANT, instances={"1.2.1": ""}, whole=False)
    found, seen = described(Reply(body=f"[{thing(1)}]".encode()), want=one)
    assert len(found) == 1
    assert seen[0].target == "/studies/1.1/series/1.1.1/instances/1.2.1/metadata"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[{}]", b"[1]", b"[" * 100_000, b'[{"00080018":{"Value":[]}}]']
)
def test_what_is_no_metadata_is_an_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no DICOM JSON"):
        described(Reply(body=body))


def test_what_is_nowhere_is_refused() -> None:
    with pytest.raises(Refused, match="404"):
        described(Reply(status=404))
