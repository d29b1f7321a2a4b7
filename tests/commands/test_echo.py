"""`dcmsync echo`, as people run it."""

import socket
import struct
import threading
from pathlib import Path

import pytest

from tests import peers
from tests.workdir import Workdir


@pytest.mark.parametrize("name", ["orthanc", "dcmqrscp", "storescp", "pynetdicom_qrscp"])
def test_a_node_that_answers(name: str, workdir: Workdir, request: pytest.FixtureRequest) -> None:
    peer = request.getfixturevalue(name)
    done = workdir.run("echo", peer.locator)
    assert (done.status, done.stderr) == (0, ""), done
    (record,) = done.records
    assert record.items() >= {"type": "echo", "endpoint": peer.locator, "status": "0x0000"}.items()
    assert 0 < record["seconds"] < 20


def test_every_form_of_a_locator(workdir: Workdir, orthanc: peers.Peer) -> None:
    (workdir.path / "c.toml").write_text(f'[endpoints.mypacs]\nlocator = "{orthanc.locator}"\n')
    for word in (
        orthanc.locator,
        f"{orthanc.host}:{orthanc.ae}:{orthanc.port}",
        f"dicom://{orthanc.locator}",
        f"dicom://ME:{orthanc.locator}",
        f"{orthanc.ae}@localhost:{orthanc.port}",
        "mypacs",
    ):
        done = workdir.run("echo", word, "--config", "c.toml")
        assert done.status == 0, done


def test_who_we_are_is_said_to_the_node(workdir: Workdir, dcmqrscp: peers.Peer) -> None:
    workdir.run("echo", dcmqrscp.locator)
    assert "DCMSYNC" in dcmqrscp.log
    workdir.run("echo", dcmqrscp.locator, "--calling", "SOMEBODY")
    assert "SOMEBODY" in dcmqrscp.log


def test_the_association_is_released(workdir: Workdir, dcmqrscp: peers.Peer) -> None:
    assert workdir.run("echo", dcmqrscp.locator).status == 0
    peers.wait_for(lambda: "Association Release" in dcmqrscp.log, what="the release")
    assert "Association Abort" not in dcmqrscp.log


def test_nobody_listens(workdir: Workdir) -> None:
    done = workdir.run("echo", f"GONE@127.0.0.1:{peers.free_port()}")
    assert done.status == 5, done
    assert "connection refused" in done.stderr and done.stdout == b""


def test_a_node_that_rejects_us(workdir: Workdir, start) -> None:
    peer = start(peers.storescp, "--refuse")
    done = workdir.run("echo", peer.locator)
    assert done.status == 5, done
    assert "rejected" in done.stderr


def test_a_wrong_called_title(workdir: Workdir, start) -> None:
    peer = start(peers.orthanc, settings={"DicomCheckCalledAet": True})
    done = workdir.run("echo", f"WRONG@{peer.host}:{peer.port}")
    assert done.status == 5, done
    assert "called AE title" in done.stderr


def test_a_web_server_is_no_node(workdir: Workdir, orthanc: peers.Peer) -> None:
    port = orthanc.http.rpartition(":")[2]
    done = workdir.run("echo", f"ORTHANC@127.0.0.1:{port}", "--timeout", "5")
    assert done.status in (4, 5), done
    assert port in done.stderr


@pytest.mark.slow
def test_a_node_that_says_nothing_is_given_up(workdir: Workdir) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = workdir.run("echo", f"MUTE@127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5", timeout=20)
    assert done.status == 4, done
    assert "no progress for 0.5 s" in done.stderr


@pytest.mark.slow
def test_a_node_that_announces_two_gigabytes_is_given_up(workdir: Workdir) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        def promise() -> None:
            connected, _ = server.accept()
            with connected:
                connected.sendall(struct.pack(">BxL", 2, 1 << 31))
                while connected.recv(4096):
                    pass

        thread = threading.Thread(target=promise)
        thread.start()
        done = workdir.run("echo", f"LIAR@127.0.0.1:{server.getsockname()[1]}", "--timeout", "2", timeout=20)
        thread.join()
    assert done.status in (4, 5), done


@pytest.mark.parametrize("words", [(), ("pacs",), ("./folder",), ("gopher://host/",), ("A@h:1", "B@h:1"), ("A@h:0",)])
def test_wrong_words(words: tuple[str, ...], workdir: Workdir) -> None:
    done = workdir.run("echo", *words)
    assert done.status == 2, done
    assert done.stdout == b""


def test_the_verdict_is_written_nowhere_else(workdir: Workdir, orthanc: peers.Peer) -> None:
    assert workdir.run("echo", orthanc.locator).status == 0
    assert [path for path in Path(workdir.path).rglob("*") if path.is_file()] == []
