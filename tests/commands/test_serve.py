"""`dcmsync serve`: what it says, whom it lets in, and how it ends."""

import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from dcmsync.wire.dimse import operations
from dcmsync.wire.upperlayer import codec
from dcmsync.wire.upperlayer.identity import Identity, Kind
from tests import certs, nodes, peers, samples
from tests.workdir import Workdir

pytestmark = pytest.mark.slow

Require = Callable[[str], str]

PLAIN = (samples.EXPLICIT_LITTLE,)
ECHO = [(operations.VERIFICATION, PLAIN)]
CT = [(samples.CT_IMAGE_STORAGE, PLAIN)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "served"
    path.mkdir()
    return path


def greet(caller: nodes.Caller) -> None:
    caller.associate(ECHO)
    caller.say(1, operations.echo(7).request)
    assert caller.hear()[0].status == 0


def half(caller: nodes.Caller) -> bytes:
    """A C-STORE request whose data set does not come."""
    return caller.message(1, operations.store(5, samples.CT_IMAGE_STORAGE, "1.2").request, b"")[:-12]


def test_it_says_where_it_listens_and_who_came(folder: Path) -> None:
    samples.make_series(folder, instances=3)
    with nodes.serving(folder, "--ae", "ARCHIVE") as node:
        assert node.wait_for_event(type="listening") == {
            "type": "listening", "ae": "ARCHIVE", "host": "127.0.0.1", "port": node.port, "folder": str(folder),
            "instances": 3,
        }  # fmt: skip
        with nodes.Caller(node.port) as caller:
            caller.associate(ECHO, called="ARCHIVE", calling="VISITOR")
            caller.socket.sendall(codec.RELEASE_RQ)
            assert caller.pdu() == codec.RELEASE_RP
        closed = node.wait_for_event(event="closed")
        assert closed["peer"].startswith("127.0.0.1:") and {**closed, "peer": ""} == {
            "type": "association", "event": "closed", "calling": "VISITOR", "peer": "", "found": 0, "sent": 0,
            "stored": 0, "failed": 0,
        }  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(folder: Path, how: signal.Signals) -> None:
    with nodes.serving(folder) as node, nodes.Caller(node.port) as caller:
        greet(caller)
        assert node.stop(how) == 0
        assert caller.is_closed()
    assert not os.listdir(folder)  # its staging folder is gone as well


def test_what_is_in_flight_at_a_signal_is_finished(folder: Path, tmp_path: Path) -> None:
    (sample,) = samples.make_series(tmp_path / "made", instances=1)
    octets = sample.path.read_bytes()
    request = operations.store(5, samples.CT_IMAGE_STORAGE, sample.sop_uid).request
    with nodes.serving(folder) as node, nodes.Caller(node.port) as caller, nodes.Caller(node.port) as idle:
        caller.associate(CT)
        greet(idle)
        message = caller.message(1, request, octets[octets.index(b"\x08\0\x05\0CS") :])
        caller.socket.sendall(message[:-1000])
        node.wait_for_event(2, event="opened")
        idle.say(1, operations.echo(8).request)  # its answer tells that what was sent before has been read
        assert idle.hear()[0].status == 0
        node.process.send_signal(signal.SIGTERM)
        assert idle.is_closed()  # so the signal has been seen
        caller.socket.sendall(message[-1000:])
        assert caller.hear()[0].status == 0
        assert node.wait() == 0
    assert len(list(folder.rglob("*.dcm"))) == 1


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    with nodes.serving(folder) as node, nodes.Caller(node.port) as caller, nodes.Caller(node.port) as idle:
        caller.associate(CT)
        greet(idle)
        caller.socket.sendall(half(caller))
        idle.say(1, operations.echo(8).request)
        assert idle.hear()[0].status == 0
        node.process.send_signal(signal.SIGTERM)
        assert idle.is_closed()
        assert node.process.poll() is None  # it waits for the instance
        assert node.stop() == 0


def test_what_does_not_finish_in_time_is_given_up(folder: Path) -> None:
    with nodes.serving(folder, "--timeout", "0.5") as node, nodes.Caller(node.port) as caller:
        caller.associate(CT)
        pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 1 << 31) + bytes(1 << 16)
        caller.socket.sendall(caller.message(1, operations.store(5, samples.CT_IMAGE_STORAGE, "1.2").request))
        fragment = b"\x04\0" + struct.pack(">IIBB", len(pixels) + 6, len(pixels) + 2, 1, 0)
        caller.socket.sendall(fragment + pixels)
        node.process.send_signal(signal.SIGTERM)
        caller.socket.settimeout(0.01)
        for _ in range(1000):  # it comes on and on, and never to an end
            try:
                caller.socket.sendall(fragment + bytes(len(pixels)))
                if not caller.socket.recv(100):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("it was waited for")
        assert node.wait() == 0


def test_only_those_on_the_list_may_connect(folder: Path) -> None:
    with nodes.serving(folder, "--allow", "FRIEND", "--allow", "OTHER") as node:
        with nodes.Caller(node.port) as caller:
            assert caller.request(ECHO, calling="STRANGER") == codec.encode_reject(codec.AssociateReject(1, 1, 3))
        with nodes.Caller(node.port) as caller:
            caller.associate(ECHO, calling="OTHER")
        assert node.wait_for_event(event="refused")["reason"] == "rejected"


def test_only_addresses_on_the_list_may_connect(folder: Path) -> None:
    with nodes.serving(folder, "--allow-from", "127.0.0.2", "--allow-from", "192.0.2.0/24", "--allow", "ME") as node:
        for source, calling, answer in (("127.0.0.1", "ME", (1, 1, 1)), ("127.0.0.2", "YOU", (1, 1, 3))):
            with nodes.Caller(node.port, source=source) as caller:
                reject = codec.encode_reject(codec.AssociateReject(*answer))
                assert caller.request(ECHO, calling=calling) == reject
        with nodes.Caller(node.port, source="127.0.0.2") as caller:
            caller.associate(ECHO, calling="ME")
        refused = node.wait_for_event(event="refused")
        assert refused["peer"].startswith("127.0.0.1:") and refused["reason"] == "rejected"
    with nodes.serving(folder, "--allow-from", "127.0.0.2", "--allow-any") as node, nodes.Caller(node.port) as caller:
        greet(caller)


def test_who_says_nobody_is_sent_away_where_an_identity_is_required(folder: Path) -> None:
    ada = Identity(kind=Kind.USER_NAME, primary=b"ada", wants_response=True)
    with nodes.serving(folder, "--require-identity") as node:
        with nodes.Caller(node.port) as caller:
            assert caller.request(ECHO) == codec.encode_reject(codec.AssociateReject(1, 1, 1))
        with nodes.Caller(node.port) as caller:
            assert caller.associate(ECHO, identity=ada).identity_response == b""
    with nodes.serving(folder) as node, nodes.Caller(node.port) as caller:
        assert caller.associate(ECHO, identity=structs.replace(ada, wants_response=False)).identity_response is None


def echo_by_tls(node: nodes.Serving, *options: str | Path) -> int:
    """How DCMTK's echoscu ends."""
    return peers.dcmtk("echoscu", *options, "-aec", node.ae, "localhost", str(node.port), check=False).returncode


def test_dcmtk_comes_by_tls_and_nobody_comes_in_plain(folder: Path, tmp_path: Path, require: Require) -> None:
    require("echoscu")
    authority = certs.Authority(tmp_path / "pki")
    own, guest = authority.issue("localhost", rsa=True), authority.issue("guest", rsa=True)
    known = ("+tls", guest.key, guest.certificate, "+cf", authority.path)
    options = ("--tls", "--certificate", str(own.certificate), "--key", str(own.key))
    with nodes.serving(folder, *options) as node:
        assert node.wait_for_event(type="listening")["tls"] is True
        assert echo_by_tls(node, "+tla", "+cf", authority.path) == 0
        assert echo_by_tls(node) != 0
        assert node.wait_for_event(event="refused")["reason"] == "tls"
    with nodes.serving(folder, *options, "--ca", str(authority.path)) as node:
        assert echo_by_tls(node, *known) == 0
        assert echo_by_tls(node, "+tla", "+cf", authority.path) != 0
        assert node.wait_for_event(event="refused")["reason"] == "tls"


def test_the_configuration_says_by_which_certificate_tls_is_spoken(
    folder: Path, tmp_path: Path, require: Require
) -> None:
    require("echoscu")
    authority = certs.Authority(tmp_path / "pki")
    own = certs.encrypted(authority.issue("localhost", rsa=True), "secret")
    configuration = tmp_path / "config.toml"
    configuration.write_text(f"""[local]
certificate = "{own.certificate}"
key = "{own.key}"
key_password_command = "echo secret"
""")
    with nodes.serving(folder, "--tls", "--config", str(configuration)) as node:
        assert echo_by_tls(node, "+tla", "+cf", authority.path) == 0


def test_no_more_associations_than_allowed(folder: Path) -> None:
    with (
        nodes.serving(folder, "--max-associations", "1") as node,
        nodes.Caller(node.port) as first,
        nodes.Caller(node.port) as second,
    ):
        greet(first)
        assert second.request(ECHO) == codec.encode_reject(codec.AssociateReject(2, 3, 2))


def test_a_silent_peer_is_let_go_and_the_node_goes_on(folder: Path) -> None:
    with nodes.serving(folder, "--timeout", "0.3") as node:
        with nodes.Caller(node.port) as silent:
            assert silent.is_closed()
        with nodes.Caller(node.port) as caller:
            greet(caller)
            assert caller.is_closed()
        assert node.wait_for_event(event="closed")["reason"] == "stalled"


def test_nothing_of_a_patient_is_said_on_stderr(folder: Path, tmp_path: Path) -> None:
    (sample,) = samples.make_series(tmp_path / "made", instances=1, patient_name="Secret^Name")
    octets = sample.path.read_bytes()
    (folder / "Secret^Name").mkdir()
    (folder / "Secret^Name" / "cut.dcm").write_bytes(octets[:-5])
    with nodes.serving(folder, "-v") as node, nodes.Caller(node.port) as caller:
        caller.associate(CT)
        caller.say(1, operations.store(5, samples.CT_IMAGE_STORAGE, sample.sop_uid).request,
                   octets[octets.index(b"\x08\0\x05\0CS") : -5])
        assert caller.hear()[0].status == 0xC000
        node.stop()
        said = folder.with_name("served.err").read_text() + str(node.events)
    assert "cut.dcm" in said
    assert "Secret" not in said and sample.patient_id not in said


def test_the_reader_of_its_events_may_leave(folder: Path, workdir: Workdir) -> None:
    process = workdir.start("serve", folder, "--port", "0")
    assert process.stdout is not None and process.stderr is not None
    port = int(process.stdout.readline().split(b'"port":')[1].split(b",")[0])
    process.stdout.close()
    with nodes.Caller(port) as caller:
        caller.request(ECHO)
        assert process.wait(20) == 141
    assert process.stderr.read() == b""
    process.stderr.close()
    assert not os.listdir(folder)


def test_a_folder_that_is_not_there_is_not_made(workdir: Workdir) -> None:
    done = workdir.run("serve", "nowhere", "--port", "0")
    assert done.status == 2 and "mkdir" in done.stderr, done
    assert not (workdir.path / "nowhere").exists()


@pytest.mark.parametrize("options", [("--port", "65536"), ("--ae", "A" * 17), ("--ae", ""), ("--max-associations", "0"),
                                     ("--bind", "0.0.0.0"), ("--bind", ""), ("--allow-from", "192.0.2.1/24"),
                                     ("--allow-from", "pacs"), ("--destination", "./folder"), ("--tls",),
                                     ("--destination", "NOBODY"), ("--certificate", "a.pem"),
                                     ("--tls", "--key", "a.pem")])  # fmt: skip
def test_what_cannot_be_meant_is_refused(workdir: Workdir, options: tuple[str, ...]) -> None:
    done = workdir.run("serve", ".", *options)
    assert done.status == 2, done


def test_other_machines_are_let_in_when_it_is_said_which(folder: Path) -> None:
    for options in (("--allow", "CALLER"), ("--allow-from", "127.0.0.0/8"), ("--allow-any",)):
        with nodes.serving(folder, "--bind", "0.0.0.0", *options) as node, nodes.Caller(node.port) as caller:
            greet(caller)


def test_a_port_that_is_taken_is_trouble_of_this_machine(workdir: Workdir) -> None:
    with socket.socket() as taken:
        taken.bind((peers.HOST, 0))
        taken.listen()
        done = workdir.run("serve", ".", "--port", str(taken.getsockname()[1]))
    assert done.status == 7 and "cannot listen" in done.stderr, done
    assert not [name for name in os.listdir(workdir.path) if name.startswith(".dcmsync-")]
