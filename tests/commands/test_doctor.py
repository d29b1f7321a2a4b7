"""`dcmsync doctor`, as people run it: against real nodes, our own, and peers that are none or of bad manners."""

import os
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dcmsync import config
from dcmsync.wire import dataset
from dcmsync.wire.dimse import models, operations
from tests import nodes, peers
from tests.fakes.scripted import EXPLICIT, PENDING, SUCCESS, Scripted, Talk, answer
from tests.workdir import Done, Workdir

FILES = [Path(pydicom.__file__).parent / "data" / "test_files" / name for name in ("CT_small.dcm", "MR_small.dcm")]
THEN = "StudyDate=-20301231"  # the files are of 2004


def verdicts(done: Done) -> dict[str, bool | None]:
    return {record["check"]: record["ok"] for record in done.of_type("check")}


def of(done: Done, check: str) -> dict[str, Any]:
    return next(record for record in done.of_type("check") if record["check"] == check)


def section(done: Done) -> config.Endpoint:
    (settings,) = done.of_type("settings")
    (endpoint,) = config.parse(settings["toml"]).endpoints.values()
    return endpoint


def filled(peer: peers.Peer) -> peers.Peer:
    storescu = peers.find_program("storescu")
    environment = {**os.environ, "TCP_NODELAY": "1"}
    subprocess.run([storescu, "-aec", peer.ae, peer.host, str(peer.port), *FILES], check=True, env=environment)
    return peer


# Real nodes


def test_orthanc_has_no_quirks(workdir: Workdir, orthanc: peers.Peer) -> None:
    done = workdir.run("doctor", filled(orthanc).locator, THEN)
    assert done.status == 0, done
    assert all(ok is True for ok in verdicts(done).values()), done
    assert section(done) == config.Endpoint(locator=orthanc.locator)
    assert of(done, "implementation")["implementation"].startswith("OFFIS_DCMTK")
    assert of(done, "max pdu")["octets"] == 16384
    assert of(done, "matching")["message"].endswith("PatientName, StudyDate, StudyTime, StudyID, ModalitiesInStudy")
    assert done.records[-1]["type"] == "end" and done.records[-1]["complete"] is True
    assert orthanc.instances() == 2


def test_dcmqrscp_has_those_of_its_profile(workdir: Workdir, dcmqrscp: peers.Peer) -> None:
    done = workdir.run("doctor", filled(dcmqrscp).locator, THEN)
    assert done.status == 0, done
    assert section(done).quirks == ("no-counts",)
    assert section(done).ignores_keys == ("ModalitiesInStudy",)
    assert [check for check, ok in verdicts(done).items() if not ok] == ["matching"]


def test_pynetdicom_has_those_of_its_profile(workdir: Workdir, pynetdicom_qrscp: peers.Peer) -> None:
    done = workdir.run("doctor", filled(pynetdicom_qrscp).locator, THEN)
    assert done.status == 0, done
    said = section(done)
    assert (said.profile, said.quirks, said.ignores_keys) == ("pynetdicom", (), ())
    assert [check for check, ok in verdicts(done).items() if not ok] == ["uid lists", "matching"]


def test_storescp_answers_no_query(workdir: Workdir, storescp: peers.Peer) -> None:
    done = workdir.run("doctor", storescp.locator)
    assert done.status == 1, done
    assert verdicts(done) == {
        "tcp": True, "association": True, "tls": True, "implementation": True, "max pdu": True, "echo": True,
        "find": False, "get": False, "move": False, "store": True,
    }  # fmt: skip


def test_our_own_node(workdir: Workdir, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    for file in FILES:
        (folder / file.name).write_bytes(file.read_bytes())
    with nodes.serving(folder) as node:
        done = workdir.run("doctor", node.locator, THEN, "--deep")
        log = [event for event in node.events if event["type"] == "association"]
    assert done.status == 0, done
    found = verdicts(done)
    assert found["get instance"] is True and found["counts"] is True and found["uid lists"] is True
    assert all(event.get("stored", 0) == 0 for event in log)


@pytest.mark.parametrize("service", ["get", "move"])
def test_one_instance_comes_when_that_is_asked_for(
    service: str, workdir: Workdir, dcmqrscp: peers.Peer, dcmqrscp_destination: int
) -> None:
    done = workdir.run("doctor", filled(dcmqrscp).locator, THEN, "--deep", "--port", str(dcmqrscp_destination))
    assert of(done, f"{service} instance")["ok"] is True, done
    assert "it was not kept" in of(done, f"{service} instance")["message"]
    assert [path for path in workdir.path.rglob("*") if path.is_file()] == []


def test_what_has_to_be_registered_is_said(workdir: Workdir, orthanc: peers.Peer) -> None:
    done = workdir.run("doctor", filled(orthanc).locator, THEN, "--deep", "--calling", "NOBODY", "--port", "11999")
    assert of(done, "move instance")["ok"] is False, done
    (registration,) = done.of_type("registration")
    assert registration.items() >= {"ae_title": "NOBODY", "host": "127.0.0.1", "port": 11999}.items()
    for words in ("NOBODY", "127.0.0.1", "11999"):
        assert words in registration["message"]


def test_a_limit_that_is_met_is_learnt(workdir: Workdir, start: Any) -> None:
    orthanc = start(peers.orthanc, settings={"LimitFindResults": 1})
    orthanc.store(FILES)
    done = workdir.run("doctor", orthanc.locator, THEN)
    assert of(done, "limit").items() >= {"ok": False, "limit": 1}.items(), done
    assert section(done).limit == 1


def test_who_is_not_known_is_told_so(workdir: Workdir, start: Any) -> None:
    orthanc = start(peers.orthanc, settings={"DicomCheckCalledAet": True})
    done = workdir.run("doctor", f"WRONG@{orthanc.host}:{orthanc.port}")
    assert done.status == 5, done
    assert "called AE title" in of(done, "association")["message"]
    assert "it goes by another one" in of(done, "association")["advice"]
    assert done.records[-1]["complete"] is False


def test_people_get_lines_and_words(workdir: Workdir, orthanc: peers.Peer) -> None:
    done = workdir.run("doctor", filled(orthanc).locator, THEN, "--format", "text")
    text = done.stdout.decode()
    assert done.status == 0 and "ok   echo           answered\n" in text, done
    assert "pull will work" in text and "[endpoints.orthanc]" in text and "AE title DCMSYNC" in text


# What is written down


def test_the_section_is_added_and_the_rest_stays(workdir: Workdir, orthanc: peers.Peer) -> None:
    file = workdir.path / "c.toml"
    file.write_text("# mine\n[local]  # this side\nae_title = 'ME'")
    file.chmod(0o640)
    done = workdir.run("doctor", orthanc.locator, "--write", "new-pacs", "--config", file)
    assert done.status == 0 and "new-pacs added" in done.stderr, done
    assert file.read_text().startswith("# mine\n[local]  # this side\nae_title = 'ME'\n\n[endpoints.new-pacs]\n")
    assert config.load(str(file), {}).endpoints["new-pacs"].locator == orthanc.locator
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert workdir.run("echo", "new-pacs", "--config", file).status == 0
    again = workdir.run("doctor", "new-pacs", "--write", "new-pacs", "--config", file)
    assert again.status == 2 and "is in the configuration already" in again.stderr, again


def test_a_file_is_made_where_there_is_none(workdir: Workdir, orthanc: peers.Peer) -> None:
    assert workdir.run("doctor", orthanc.locator, "--write", "pacs").status == 0
    file = Path(workdir.run("config", "path").stdout.decode().strip())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert workdir.run("config", "check").status == 0
    assert workdir.run("echo", "pacs").status == 0


@pytest.mark.parametrize("words", [(), ("./folder",), ("A@h:1", "Modality=CT"), ("A@h:1", "StudyDate"), ("nowhere",)])
def test_wrong_words(words: Sequence[str], workdir: Workdir) -> None:
    done = workdir.run("doctor", *words)
    assert (done.status, done.stdout) == (2, b""), done


# What is no node


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where `serve` has each connection, in a thread."""
    threads: list[threading.Thread] = []

    def run(connected: socket.socket) -> None:
        with connected, suppress(OSError):
            serve(connected)

    with socket.create_server(("127.0.0.1", 0)) as server:
        def accept() -> None:
            with suppress(OSError):
                while True:
                    connected, _ = server.accept()
                    threads.append(threading.Thread(target=run, args=(connected,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join(5)
        for thread in threads:
            thread.join(5)


def web(connected: socket.socket) -> None:
    connected.recv(4096)
    connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def silent(connected: socket.socket) -> None:
    while connected.recv(4096):
        pass


def rude(connected: socket.socket) -> None:
    connected.recv(1)


@pytest.mark.slow
@pytest.mark.parametrize("serve, words", [
    (web, "A web server (HTTP) is there"), (silent, ""), (rude, "Does it want TLS?"),
])  # fmt: skip
def test_a_port_that_is_no_node(serve: Callable[[socket.socket], None], words: str, workdir: Workdir) -> None:
    with listening(serve) as port:
        done = workdir.run("doctor", f"X@127.0.0.1:{port}", "--timeout", "0.5", timeout=20)
    assert done.status == 5, done
    assert verdicts(done) == {"tcp": True, "association": False}
    assert words in of(done, "association").get("advice", "")


def test_nobody_listens(workdir: Workdir) -> None:
    done = workdir.run("doctor", f"X@127.0.0.1:{peers.free_port()}")
    assert done.status == 5, done
    assert verdicts(done) == {"tcp": False} and "connection refused" in of(done, "tcp")["message"]


@pytest.fixture
def pem(tmp_path: Path, require: Callable[[str], str]) -> tuple[Path, Path]:
    """A key, and a certificate of this machine for it."""
    names = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, "-keyout", names[0], "-out", names[1]], check=True, capture_output=True)
    return names


def test_a_node_with_tls(workdir: Workdir, start: Any, pem: tuple[Path, Path]) -> None:
    peer = start(peers.storescp, "+tls", *map(str, pem), "-ic")
    file = workdir.path / "c.toml"
    file.write_text(f'[endpoints.safe]\nlocator = "dicoms://X@localhost:{peer.port}"\nca = "{pem[1]}"\n')
    done = workdir.run("doctor", "safe", "--config", file)
    tls = of(done, "tls")
    ends = subprocess.run(["openssl", "x509", "-enddate", "-dateopt", "iso_8601", "-noout", "-in", pem[1]],
                          check=True, capture_output=True, text=True).stdout[9:19]  # fmt: skip
    assert tls.items() >= {"ok": None, "profile": "bcp195", "certificate_ends": ends}.items(), done
    assert tls["version"] == "TLSv1.3" and "ask its administrator for a new one" in tls["advice"]
    assert section(done).ca == str(pem[1]), "what was set already is not lost"
    (settings,) = done.of_type("settings")
    assert f"# its certificate ends on {ends}\n" in settings["toml"] and 'tls_profile = "bcp195"\n' in settings["toml"]
    file.write_text(f'[endpoints.safe]\nlocator = "dicoms://X@localhost:{peer.port}"\n')
    done = workdir.run("doctor", "safe", "--config", file)
    assert done.status == 5 and verdicts(done) == {"tcp": True, "association": False}, done


@pytest.mark.slow
def test_a_port_that_speaks_tls(workdir: Workdir, pem: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem[1], pem[0])

    def serve(connected: socket.socket) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(connected, server_side=True) as secured:
            secured.recv(4096)

    with listening(serve) as port:
        done = workdir.run("doctor", f"X@127.0.0.1:{port}", "--timeout", "2", timeout=20)
    assert done.status == 5, done
    assert of(done, "association")["advice"] == f"It speaks TLS there: write dicoms://X@127.0.0.1:{port}"


# Nodes of bad manners

Study = Mapping[str, str]
STUDIES: Sequence[Study] = tuple(
    {"StudyInstanceUID": f"1.{n}", "StudyDate": "20040101", "PatientID": f"P{n}", "StudyID": f"{n}"} for n in (1, 2)
)


def answering(choose: Callable[[Mapping[str, str]], Sequence[Study] | int]) -> Callable[[Talk], None]:
    """A node that offers C-FIND alone, and answers each with what `choose` gives for its keys, or with a status."""

    def script(talk: Talk) -> None:
        talk.accept(refuse=(operations.STUDY_ROOT_GET, operations.STUDY_ROOT_MOVE))
        while talk.socket.recv(1, socket.MSG_PEEK) == b"\x04":
            context_id, command, identifier = talk.read_message()
            if not identifier:
                talk.send(answer(context_id, command, SUCCESS))
                continue
            keys = dataset.decode_identifier(identifier, EXPLICIT)
            found = choose({key: str(value) for key, value in keys.items() if key != "QueryRetrieveLevel"})
            for study in [] if isinstance(found, int) else found:
                talk.send(answer(context_id, command, PENDING, dataset.encode_identifier(study, "STUDY", EXPLICIT)))
            talk.send(answer(context_id, command, found if isinstance(found, int) else SUCCESS))
        talk.release()

    return script


def examined(workdir: Workdir, choose: Callable[[Mapping[str, str]], Sequence[Study] | int], *more: str) -> Done:
    with Scripted(answering(choose)) as node:
        return workdir.run("doctor", f"X@127.0.0.1:{node.port}", "--timeout", "5", *more)


def fits(study: Study, keys: Mapping[str, str], *ignored: str) -> bool:
    return all(study.get(key) == value for key, value in keys.items() if key not in ignored)


@pytest.mark.slow
def test_a_node_that_ignores_the_uid_is_not_asked_further(workdir: Workdir) -> None:
    done = examined(workdir, lambda keys: STUDIES)
    assert done.status == 1, done
    assert of(done, "find study")["ok"] is False
    assert "ignores StudyInstanceUID" in of(done, "find study")["advice"]
    assert "matching" not in verdicts(done)


@pytest.mark.slow
def test_keys_that_are_ignored_or_refused_are_learnt(workdir: Workdir) -> None:
    def choose(keys: Mapping[str, str]) -> Sequence[Study] | int:
        if "PatientID" in keys:
            return 0xA900
        return [study for study in STUDIES if fits(study, keys, "StudyID", "StudyDate")]

    done = examined(workdir, choose)
    assert set(section(done).ignores_keys) == {"PatientID", "StudyID", "StudyDate"}, done
    assert section(done).quirks[0] == "no-uid-lists"


@pytest.mark.slow
def test_a_node_that_refuses_everything_ends_no_run(workdir: Workdir) -> None:
    done = examined(workdir, lambda keys: 0xC001)
    assert done.status == 1, done
    assert "0xC001" in of(done, "find study")["message"]
    assert verdicts(done)["store"] is True and done.records[-1]["complete"] is True


PATIENT_ROOT = {  # by level: what is answered, by whose PatientID
    "PATIENT": [{"PatientID": "P1"}, {"PatientID": "P2"}],
    "STUDY": [{"PatientID": "P2", "StudyInstanceUID": "1.2", "StudyDate": "20040101"}],
    "SERIES": [{"PatientID": "P2", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1"}],
    "IMAGE": [{"PatientID": "P2", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1", "SOPInstanceUID": "1.2.3"}],
}


def patient_root(asked: list[Mapping[str, str]]) -> Callable[[Talk], None]:
    """A node that knows Patient Root alone, and refuses what names no patient."""

    def script(talk: Talk) -> None:
        talk.accept(refuse=(*OF_STUDY_ROOT, models.PATIENT_STUDY_ONLY.find))
        while talk.socket.recv(1, socket.MSG_PEEK) == b"\x04":
            context_id, command, identifier = talk.read_message()
            if not identifier:
                talk.send(answer(context_id, command, SUCCESS))
                continue
            keys = {key: str(value) for key, value in dataset.decode_identifier(identifier, EXPLICIT).items()}
            level = keys.pop("QueryRetrieveLevel")
            asked.append(keys)
            if level != "PATIENT" and (len(keys.get("PatientID", "")) < 2 or "PatientName" in keys):
                talk.send(answer(context_id, command, 0xA900))
                continue
            for found in (each for each in PATIENT_ROOT[level] if fits(each, keys)):
                talk.send(answer(context_id, command, PENDING, dataset.encode_identifier(found, level, EXPLICIT)))
            talk.send(answer(context_id, command, SUCCESS))
        talk.release()

    return script


OF_STUDY_ROOT = (operations.STUDY_ROOT_FIND, operations.STUDY_ROOT_GET, operations.STUDY_ROOT_MOVE)


@pytest.mark.slow
def test_a_node_that_knows_patient_root_alone_is_asked_by_that(workdir: Workdir) -> None:
    asked: list[Mapping[str, str]] = []
    with Scripted(patient_root(asked)) as node:
        done = workdir.run("doctor", f"X@127.0.0.1:{node.port}", "--timeout", "5")
    assert of(done, "model").items() >= {"ok": False, "models": ["patient"]}.items(), done
    found = verdicts(done)
    assert (found["find study"], found["find series"], found["find instance"], found["get"]) == (True,) * 4, done
    assert section(done).model == "patient"
    assert {"PatientID": "P2", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1"} in asked


def test_patient_root_is_examined_where_it_is_set(workdir: Workdir, dcmqrscp: peers.Peer) -> None:
    file = workdir.path / "c.toml"
    file.write_text(f'[endpoints.pacs]\nlocator = "{filled(dcmqrscp).locator}"\nmodel = "patient"\n')
    done = workdir.run("doctor", "pacs", "--config", file, "--deep")
    assert of(done, "model").items() >= {"ok": True, "models": ["study", "patient", "patient-study"]}.items(), done
    wanted = ("find study", "find series", "find instance", "get instance")
    assert [verdicts(done)[check] for check in wanted] == [True] * 4, done
    assert section(done).model == "patient"


@pytest.mark.slow
def test_no_more_is_listed_than_is_needed(workdir: Workdir) -> None:
    asked: list[Mapping[str, str]] = []

    def choose(keys: Mapping[str, str]) -> Sequence[Study] | int:
        asked.append(keys)
        return [{"StudyInstanceUID": f"1.{n}"} for n in range(2000)] if "StudyDate" in keys else []

    done = examined(workdir, choose)
    assert "answered with 500 and more" in of(done, "find study")["message"], done
    assert all("StudyInstanceUID" in keys or "StudyDate" in keys for keys in asked), "nothing is asked for in whole"


@pytest.mark.slow
def test_nothing_of_a_patient_is_said(workdir: Workdir) -> None:
    canary = {"PatientName": "Canary^Yellow", "PatientID": "CANARY1", "StudyDescription": "CANARY"}
    studies = [{**study, **canary} for study in STUDIES]
    done = examined(workdir, lambda keys: [study for study in studies if fits(study, keys)], "StudyDate=20040101")
    assert of(done, "matching")["ok"] is True, done
    assert b"canary" not in done.stdout.lower() and "canary" not in done.stderr.lower()


@pytest.mark.parametrize(
    "kind, profile", [(peers.orthanc, "orthanc"), (peers.dcmqrscp, "dcmtk"), (peers.pynetdicom_qrscp, "pynetdicom")]
)
def test_a_profile_that_is_called_tried_works(kind: Any, profile: str, workdir: Workdir, start: Any) -> None:
    peer = filled(start(kind))
    (workdir.path / "c.toml").write_text(f'[endpoints.pacs]\nlocator = "{peer.locator}"\nprofile = "{profile}"\n')
    queried = workdir.run("query", "pacs", "StudyDate=-20301231", "--level", "instance", "--config", "c.toml")
    assert queried.status == 0 and len(queried.of_type("instance")) == 2, queried
    pulled = workdir.run("pull", "./here", "--config", "c.toml", stdin=queried.stdout)
    assert pulled.status == 0, pulled
    assert len(list((workdir.path / "here").rglob("*.dcm"))) == 2
