"""STOW-RS as a client meets it: what is judged of each part, what is durable, and bodies that are no good."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from dcmsync.node.archive import Archive
from dcmsync.node.web import storing
from dcmsync.node.web.asked import House
from dcmsync.node.web.refusing import Refusal
from dcmsync.transfer.lander import Lander
from dcmsync.wire.multipart import Reader
from tests import nodes, samples, webclient

pytestmark = pytest.mark.slow

REASON, STORED, FAILED, OTHERS, UID = "00081197", "00081199", "00081198", "0008119A", "00081155"


@pytest.fixture
def made(tmp_path: Path) -> list[samples.Sample]:
    return samples.make_series(tmp_path / "made", studies=2, instances=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "a"
    path.mkdir()
    return path


@pytest.fixture
def node(folder: Path) -> Iterator[nodes.Serving]:
    with nodes.serving(folder, "--http", "0") as node:
        yield node


@pytest.fixture
def wire(node: nodes.Serving) -> Iterator[HTTPConnection]:
    connection = webclient.connect(node.http)
    yield connection
    connection.close()


def uids(reply: webclient.Reply, sequence: str) -> list[str]:
    return [item[UID]["Value"][0] for item in reply.json.get(sequence, {}).get("Value", [])]


def reasons(reply: webclient.Reply, sequence: str) -> list[int]:
    return [item[REASON]["Value"][0] for item in reply.json.get(sequence, {}).get("Value", [])]


def held(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*.dcm"))


def octets(sample: samples.Sample) -> bytes:
    return sample.path.read_bytes()


def test_what_is_sent_stands_there_octet_for_octet(
    wire: HTTPConnection, folder: Path, made: list[samples.Sample]
) -> None:
    reply = webclient.store(wire, *map(octets, made))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/dicom+json")
    assert sorted(uids(reply, STORED)) == sorted(sample.sop_uid for sample in made)
    assert FAILED not in reply.json and held(folder) == sorted(map(octets, made))
    found = webclient.ask(wire, "/instances").json
    assert {one["00080018"]["Value"][0] for one in found} == {sample.sop_uid for sample in made}
    for item in reply.json[STORED]["Value"]:
        path = item["00081190"]["Value"][0].removeprefix(f"http://{wire.host}:{wire.port}")
        assert webclient.ask(wire, path).parts[0] in held(folder)


def test_the_same_again_is_stored_and_other_content_is_a_duplicate(
    wire: HTTPConnection, folder: Path, made: list[samples.Sample]
) -> None:
    one = octets(made[0])
    assert webclient.store(wire, one, one).status == 200
    assert webclient.store(wire, one).status == 200
    reply = webclient.store(wire, one[:-2] + b"\x11\x22")
    assert (reply.status, uids(reply, FAILED), reasons(reply, FAILED)) == (409, [made[0].sop_uid], [0x0111])
    assert held(folder) == [one]


def test_parts_are_judged_one_by_one(wire: HTTPConnection, folder: Path, made: list[samples.Sample]) -> None:
    cut, page = octets(made[1])[:-500], b"<html>no image</html>"
    reply = webclient.store(wire, octets(made[0]), cut, page, b"", octets(made[2]))
    assert reply.status == 202
    assert uids(reply, STORED) == [made[0].sop_uid, made[2].sop_uid]
    assert (uids(reply, FAILED), reasons(reply, FAILED)) == ([made[1].sop_uid], [0xC000])
    assert reasons(reply, OTHERS) == [0xC000, 0xC000]
    assert held(folder) == sorted([octets(made[0]), octets(made[2])])


def test_a_part_of_another_type_is_not_stored(wire: HTTPConnection, folder: Path, made: list[samples.Sample]) -> None:
    body = webclient.multipart(octets(made[0]), media_type="application/octet-stream")
    reply = webclient.ask(wire, "/studies", "POST", body=body, headers={"Content-Type": webclient.STOW})
    assert reply.status == 409 and reasons(reply, OTHERS) == [0xC000] and not held(folder)


def test_instances_of_another_study_than_that_of_the_path_are_refused(
    wire: HTTPConnection, folder: Path, made: list[samples.Sample]
) -> None:
    path = f"/studies/{made[0].study_uid}"
    reply = webclient.store(wire, octets(made[0]), octets(made[3]), path=path)
    assert (reply.status, uids(reply, STORED), uids(reply, FAILED)) == (202, [made[0].sop_uid], [made[3].sop_uid])
    assert held(folder) == [octets(made[0])]
    assert reply.json["00081190"]["Value"][0].endswith(path)
    assert webclient.store(wire, octets(made[3]), path=path).status == 409


def test_a_body_in_chunks_is_taken(wire: HTTPConnection, folder: Path, made: list[samples.Sample]) -> None:
    body = webclient.multipart(*map(octets, made))
    pieces = (body[at : at + 777] for at in range(0, len(body), 777))
    reply = webclient.ask(wire, "/studies", "POST", body=pieces, headers={"Content-Type": webclient.STOW})
    assert reply.status == 200 and len(held(folder)) == 6


def test_a_body_without_its_closing_boundary_is_no_success(
    wire: HTTPConnection, folder: Path, made: list[samples.Sample]
) -> None:
    body = webclient.multipart(octets(made[0]), octets(made[1]), is_closed=False)
    reply = webclient.ask(wire, "/studies", "POST", body=body, headers={"Content-Type": webclient.STOW})
    assert reply.status == 400 and "closing boundary" in reply.headers["warning"]
    assert uids(reply, STORED) == [made[0].sop_uid] and held(folder) == [octets(made[0])]


def test_a_cut_body_stores_what_was_complete_and_nothing_else(
    node: nodes.Serving, folder: Path, made: list[samples.Sample], tmp_path: Path
) -> None:
    (large,) = samples.make_series(tmp_path / "large", instances=1, rows=512, columns=512, seed=9)
    body = webclient.multipart(octets(made[0]), octets(large))
    head = f"POST /studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {webclient.STOW}\r\nContent-Length: {len(body)}"
    with webclient.Wire(node.http) as wire:
        wire.send(head.encode() + b"\r\n\r\n" + body[:-3000])
        with closing(webclient.connect(node.http)) as other:
            while len(webclient.ask(other, "/instances").json) < 1:
                pass  # what is complete lands while the rest is awaited
        wire.socket.shutdown(socket.SHUT_WR)
        assert b"200 OK" not in wire.rest()
    closed = [node.wait_for_event(count, type="connection", event="closed") for count in (1, 2)]
    assert [event["stored"] for event in closed] == [0, 0]  # nobody was told
    assert held(folder) == [octets(made[0])]
    (staging,) = folder.glob(".dcmsync-*")
    assert [path.name for path in staging.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/dicom"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({}, 415),
        ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=x'}, 415),
        ({"Content-Type": 'multipart/related; type="application/dicom"'}, 400),
        ({"Content-Type": webclient.STOW, "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": webclient.STOW, "Accept": "text/html"}, 406),
        ({"Content-Type": webclient.STOW, "Expect": "a miracle"}, 417),
    ],
)
def test_what_cannot_be_taken_is_refused_before_it_is_read(
    node: nodes.Serving, folder: Path, made: list[samples.Sample], headers: dict[str, str], status: int
) -> None:
    body = webclient.multipart(octets(made[0]))
    reply = webclient.ask(node.http, "/studies", "POST", body=body, headers=headers)
    assert reply.status == status and reply.words and not held(folder)


@pytest.mark.parametrize("body", [b"", b"--other\r\n\r\n\r\n--other--", f"--{webclient.BOUNDARY}--\r\n".encode()])
def test_a_body_without_a_part_is_refused(node: nodes.Serving, body: bytes) -> None:
    reply = webclient.ask(node.http, "/studies", "POST", body=body, headers={"Content-Type": webclient.STOW})
    assert reply.status == 400 and reply.headers["warning"] and reply.json == {}


def test_too_many_parts_are_refused(node: nodes.Serving) -> None:
    body = b"--%s\r\n\r\n\r\n" % webclient.BOUNDARY.encode() * (storing.MAX_PARTS + 1)
    reply = webclient.ask(node.http, "/studies", "POST", body=body, headers={"Content-Type": webclient.STOW})
    assert reply.status == 413 and len(reasons(reply, OTHERS)) == storing.MAX_PARTS


def test_a_part_has_a_most_and_room_is_awaited(folder: Path, made: list[samples.Sample]) -> None:
    rooms: list[int] = []

    class Counting(Lander[Any]):
        async def room(self) -> None:
            rooms.append(1)
            await super().room()

    async def store() -> list[storing.Outcome]:
        archive = Archive(str(folder), make_queue=Counting, warn=str)
        house = House(archive=archive, authority="", timeout_s=1, max_instance_octets=made[0].size)
        asked: Any = SimpleNamespace(archive=archive, uids={}, house=house)
        parts, reader = storing._Store(asked), Reader(webclient.BOUNDARY)
        async with anyio.create_task_group() as tasks:
            archive.start(tasks)
            parts.hear(reader.feed(webclient.multipart(octets(made[0]), is_closed=False)))
            body = webclient.multipart(octets(made[1]) + b"more")
            parts.hear(reader.feed(body[:5000]))
            with pytest.raises(Refusal, match="more than 9,388 octets"):
                parts.hear(reader.feed(body[5000:]))
            await parts.settle(0)
            archive.stop()
        parts.close()
        archive.close()
        return parts.outcomes

    found = {outcome.sop_instance_uid: outcome.code for outcome in anyio.run(store)}
    assert found == {made[0].sop_uid: 0, made[1].sop_uid: 0xA700} and len(rooms) == 1
    assert held(folder) == [octets(made[0])]


def test_who_waits_to_be_let_send_is_told_to_go_on(
    node: nodes.Serving, folder: Path, made: list[samples.Sample]
) -> None:
    body = webclient.multipart(octets(made[0]))
    with webclient.Wire(node.http) as wire:
        wire.send(
            b"POST /studies HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            + f"Content-Type: {webclient.STOW}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        assert wire.reply() == (100, b"")
        wire.send(body)
        status, answer = wire.reply()
        assert status == 200 and made[0].sop_uid in json.dumps(json.loads(answer))


def test_what_came_by_http_is_found_by_dimse_and_the_other_way(
    node: nodes.Serving, made: list[samples.Sample], require: Any
) -> None:
    import subprocess

    store, find = require("storescu"), require("findscu")
    at = [node.host, str(node.port), "-aec", node.ae]
    assert webclient.store(node.http, octets(made[0])).status == 200
    query = [find, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", *at]
    done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    assert made[0].study_uid in done.stdout + done.stderr
    subprocess.run([store, *at, str(made[3].path)], check=True, timeout=30)
    found = webclient.ask(node.http, f"/studies?StudyInstanceUID={made[3].study_uid}").json
    assert [one["00201208"]["Value"] for one in found] == [[1]]


def test_a_disk_that_takes_no_more_is_told(node: nodes.Serving, folder: Path, made: list[samples.Sample]) -> None:
    assert webclient.store(node.http, octets(made[0])).status == 200
    (study,) = [path for path in folder.iterdir() if not path.name.startswith(".")]
    study.rename(folder.with_name("elsewhere"))
    study.symlink_to(folder.with_name("elsewhere"))  # nothing is written through a link
    reply = webclient.store(node.http, octets(made[1]), octets(made[3]))
    assert (reply.status, uids(reply, STORED), uids(reply, FAILED)) == (202, [made[3].sop_uid], [made[1].sop_uid])
    assert reasons(reply, FAILED) == [0xA700]
