"""TLS: only good peers are spoken to, nothing goes out in plain, and what is wrong is said in words.

Judged by DCMTK, Orthanc, pynetdicom and openssl, on either side.
"""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from dcmsync.errors import Disconnected, Insecure, LocalTrouble, PeerError, RemoteProtocolError, Stalled, UsageError
from dcmsync.net import tls
from dcmsync.net.association import Peer, associate
from dcmsync.net.channel import Limits
from dcmsync.net.listener import Listener, Settings, Visit
from dcmsync.net.patience import Watch
from dcmsync.net.stream import Stream
from dcmsync.net.tls import Terms
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from dcmsync.wire.dimse.messages import Begun
from dcmsync.wire.upperlayer import codec, contexts
from dcmsync.wire.upperlayer.codec import ProposedContext
from tests import certs, peers
from tests.certs import Authority, Pem
from tests.conftest import Start

DEADLINE_S = 20.0
LIMITS = Limits(timeout_s=5.0, connect_s=5.0)
ECHO = (ProposedContext(1, operations.VERIFICATION, (contexts.IMPLICIT_LITTLE,)),)
Require = Callable[[str], str]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom both sides trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pem:
    """A certificate of this machine."""
    return authority.issue("localhost", "127.0.0.1")


def terms(authority: Authority, mine: Pem | None = None, **more: object) -> Terms:
    """What a client asks for."""
    given = {"certificate": str(mine.certificate), "key": str(mine.key)} if mine else {}
    return Terms(ca=str(authority.path), **given, **more)  # type: ignore[arg-type]


def echo(
    port: int, how: Terms | None, *, ae: str = "STORESCP", host: str = "localhost", limits: Limits = LIMITS
) -> int:
    """One C-ECHO, as our own client does it."""

    async def ask() -> int:
        secure = tls.client(how) if how else None
        peer = Peer(host=host, port=port, called_ae=ae, calling_ae="DCMSYNC", secure=secure)
        with Watch() as watch:
            async with associate(peer, ECHO, watch=watch, limits=limits) as association:
                return await association.echo()

    return anyio.run(ask)


# Our client, and nodes of others


def dcmtk(pem: Pem, authority: Authority, *more: str) -> list[str]:
    return ["+tls", str(pem.key), str(pem.certificate), "+cf", str(authority.path), *more]


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_is_spoken_to_in_each_of_its_profiles(
    start: Start, authority: Authority, own: Pem, profile: str
) -> None:
    rsa = authority.issue("localhost", rsa=True)  # its extended profile knows RSA alone
    peer = start(peers.storescp, *dcmtk(rsa, authority, profile))
    assert echo(peer.port, terms(authority, own)) == 0


@pytest.mark.parametrize("profile", ["bcp195", "modified"])
def test_both_of_our_profiles_speak_to_dcmtk(start: Start, authority: Authority, own: Pem, profile: str) -> None:
    peer = start(peers.storescp, *dcmtk(own, authority))
    assert echo(peer.port, terms(authority, own, profile=profile)) == 0


def test_orthanc_is_spoken_to_and_wants_our_certificate(start: Start, authority: Authority, own: Pem) -> None:
    peer = start(peers.orthanc, settings={
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(own.certificate), "DicomTlsPrivateKey": str(own.key),
        "DicomTlsTrustedCertificates": str(authority.path), "DicomTlsRemoteCertificateRequired": True,
    })  # fmt: skip
    assert echo(peer.port, terms(authority, own), ae="ORTHANC") == 0
    with pytest.raises(PeerError, match=r"certificate of ours|connection broke") as caught:
        echo(peer.port, terms(authority), ae="ORTHANC")
    assert "certificate" in str(caught.value)  # the alert, or what a reset that was faster may mean


def test_dcmtk_does_not_know_a_client_of_another_authority(
    start: Start, authority: Authority, own: Pem, tmp_path: Path
) -> None:
    peer = start(peers.storescp, *dcmtk(own, authority))
    stranger = Authority(tmp_path / "other").issue("localhost")
    with pytest.raises(PeerError) as caught:
        echo(peer.port, terms(authority, stranger))
    assert isinstance(caught.value, Insecure | Disconnected)


@contextmanager
def pynetdicom(secure: ssl.SSLContext | None) -> Iterator[int]:
    """pynetdicom's own server, answering C-ECHO: its port."""
    ae = AE("STORESCP")
    ae.add_supported_context(Verification)
    handlers = [(evt.EVT_C_ECHO, lambda event: 0)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=secure)
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


def server_context(pem: Pem) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem.certificate, pem.key)
    return context


@pytest.mark.slow
def test_pynetdicom_is_spoken_to(authority: Authority, own: Pem) -> None:
    with pynetdicom(server_context(own)) as port:
        assert echo(port, terms(authority)) == 0
        assert echo(port, terms(authority), host="127.0.0.1") == 0


@pytest.mark.slow
def test_a_locked_key_is_unlocked(authority: Authority, own: Pem, require: Require, start: Start) -> None:
    require("openssl")
    locked = certs.encrypted(own, "mellon")
    peer = start(peers.storescp, *dcmtk(own, authority))
    assert echo(peer.port, terms(authority, locked, key_password=lambda: b"mellon")) == 0
    with pytest.raises(UsageError, match=r"cannot be used"):
        tls.client(terms(authority, locked, key_password=lambda: b"friend"))
    with pytest.raises(UsageError, match=r"nothing says its password"):
        tls.client(terms(authority, locked))


# Bad servers


@contextmanager
def s_server(require: Require, pem: Pem, *options: str) -> Iterator[int]:
    """openssl as a server that speaks TLS and nothing in it: its port."""
    port = peers.free_port()
    line = [require("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(pem.certificate),
            "-key", str(pem.key), "-cert_chain", str(pem.certificate), "-quiet", "-naccept", "9", *options]  # fmt: skip
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        peers.wait_for(lambda: _answers(port), what="openssl s_server")
        yield port
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@pytest.mark.slow
def test_a_good_server_is_the_measure_of_bad_ones(authority: Authority, own: Pem, require: Require) -> None:
    limits = Limits(timeout_s=0.5, connect_s=5.0)
    with s_server(require, own) as port, pytest.raises(Stalled, match=r"no progress"):
        echo(port, terms(authority), limits=limits)  # the handshake went well, then nobody spoke DICOM


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("expired", "it has expired"),
        ("other host", "it is of another host"),
        ("other authority", "its authority is not known"),
        ("self-signed", "it is self-signed"),
        ("weak", "its key is too short"),
    ],
)
def test_a_bad_certificate_is_not_accepted(
    authority: Authority, require: Require, tmp_path: Path, which: str, words: str
) -> None:
    trusted = authority.path
    options: list[str] = []
    if which == "expired":
        pem = authority.issue("localhost", expired=True)
    elif which == "other host":
        pem = authority.issue("pacs.example.org")
    elif which == "other authority":
        pem = Authority(tmp_path / "other").issue("localhost")
    else:
        require("openssl")
        pem = certs.self_signed(tmp_path, bits=1024 if which == "weak" else 2048)
        options = ["-cipher", "ALL:@SECLEVEL=0"]
        trusted = pem.certificate if which == "weak" else trusted
    with s_server(require, pem, *options) as port, pytest.raises(Insecure, match=words) as caught:
        echo(port, Terms(ca=str(trusted)))
    assert caught.value.reason == "tls" and caught.value.exit_status == 5


@pytest.mark.slow
def test_the_name_that_is_expected_may_be_another_than_the_hosts(authority: Authority, require: Require) -> None:
    limits = Limits(timeout_s=0.5, connect_s=5.0)
    with s_server(require, authority.issue("pacs.example.org")) as port:
        with pytest.raises(Stalled):
            echo(port, terms(authority, server_name="pacs.example.org"), limits=limits)
        with pytest.raises(Insecure, match=r"another host"):
            echo(port, terms(authority, server_name="ris.example.org"))


@pytest.mark.slow
def test_an_address_is_checked_like_a_name(authority: Authority, require: Require) -> None:
    with s_server(require, authority.issue("localhost")) as port, pytest.raises(Insecure, match=r"another address"):
        echo(port, terms(authority), host="127.0.0.1")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_an_old_version_is_not_spoken(authority: Authority, own: Pem, require: Require, version: str) -> None:
    weak = ("-cipher", "ALL:@SECLEVEL=0")
    with s_server(require, own, version, *weak) as port, pytest.raises(Insecure, match=r"no version of TLS in common"):
        echo(port, terms(authority))


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["ECDHE-RSA-AES256-SHA384", "AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384"])
def test_a_weak_suite_is_not_spoken(authority: Authority, require: Require, suite: str) -> None:
    pem = authority.issue("localhost", rsa=True)
    with s_server(require, pem, "-tls1_2", "-cipher", suite) as port, pytest.raises(Insecure, match=r"no cipher suite"):
        echo(port, terms(authority))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"),
                ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")],
)  # fmt: skip
def test_the_modified_profile_wants_256_bits(
    authority: Authority, own: Pem, require: Require, options: tuple[str, ...]
) -> None:
    with s_server(require, own, *options) as port:
        with pytest.raises(Insecure, match=r"256 bits|no cipher suite"):
            echo(port, terms(authority, profile="modified"))
        with pytest.raises(Stalled):
            echo(port, terms(authority), limits=Limits(timeout_s=0.5))


@pytest.mark.slow
def test_what_is_not_verified_on_purpose_is_spoken_to(require: Require, tmp_path: Path) -> None:
    require("openssl")
    with s_server(require, certs.self_signed(tmp_path)) as port:
        with pytest.raises(Insecure):
            echo(port, Terms())
        with pytest.raises(Stalled):
            echo(port, Terms(verify=False), limits=Limits(timeout_s=0.5))


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
def test_files_that_are_no_pem_are_named(authority: Authority, own: Pem, tmp_path: Path, which: str) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no PEM")
    files = {"ca": str(authority.path), "certificate": str(own.certificate), "key": str(own.key)}
    with pytest.raises(UsageError):
        tls.client(Terms(**{**files, which: str(wrong)}))
    with pytest.raises(LocalTrouble, match=r"gone.pem"):
        tls.client(Terms(**{**files, which: str(tmp_path / "gone.pem")}))


def test_a_port_needs_a_certificate() -> None:
    with pytest.raises(UsageError, match=r"needs a certificate"):
        tls.server(Terms())


# Scripted servers: what a peer does octet by octet


@contextmanager
def scripted(act: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does `act` with each connection: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE_S)
        is_over = threading.Event()

        def serve() -> None:
            while not is_over.is_set():
                try:
                    connected, _ = listening.accept()
                except OSError:
                    return
                with connected:
                    connected.settimeout(DEADLINE_S)
                    try:
                        act(connected)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            is_over.set()
            with socket.socket() as waking:
                waking.connect(listening.getsockname())
            thread.join(DEADLINE_S)


def exactly(connected: socket.socket, octets: int) -> bytes:
    got = b""
    while len(got) < octets and (part := connected.recv(octets - len(got))):
        got += part
    return got


def pdu(connected: socket.socket) -> bytes:
    head = exactly(connected, 6)
    return head + exactly(connected, int.from_bytes(head[2:6], "big"))


def accept_echo_and_release(connected: socket.socket) -> None:
    """What a node says to a C-ECHO, up to the reply to A-RELEASE."""
    request = codec.decode_request(pdu(connected))
    results = tuple(codec.ContextResult(c.context_id, 0, c.transfer_syntaxes[0]) for c in request.contexts)
    connected.sendall(codec.encode_accept(codec.AssociateAccept(called_ae="A", calling_ae="B", results=results)))
    asked = commands.decode(pdu(connected)[12:])
    answer = commands.encode(operations.respond(asked, 0))
    connected.sendall(b"\4\0" + (len(answer) + 6).to_bytes(4, "big") + (len(answer) + 2).to_bytes(4, "big")
                      + b"\1\3" + answer)  # fmt: skip
    assert pdu(connected) == codec.RELEASE_RQ
    connected.sendall(codec.RELEASE_RP)


def test_an_end_without_close_notify_is_no_error(authority: Authority, own: Pem) -> None:
    def act(plain: socket.socket) -> None:
        secured = server_context(own).wrap_socket(plain, server_side=True)
        accept_echo_and_release(secured)
        socket.close(secured.detach())  # neither close_notify nor anything else

    with scripted(act) as port:
        assert echo(port, terms(authority)) == 0


def test_an_end_in_the_middle_is_one_with_or_without_close_notify(authority: Authority, own: Pem) -> None:
    for says_so in (True, False):
        def act(plain: socket.socket, says_so: bool = says_so) -> None:
            with server_context(own).wrap_socket(plain, server_side=True) as secured:
                pdu(secured)
                if says_so:
                    secured.unwrap()

        with scripted(act) as port, pytest.raises(Disconnected, match=r"closed the connection"):
            echo(port, terms(authority))


def test_our_farewell_is_a_close_notify(authority: Authority, own: Pem) -> None:
    ends: list[bytes] = []

    def act(plain: socket.socket) -> None:
        context = server_context(own)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        with context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as secured:
            accept_echo_and_release(secured)
            ends.append(secured.recv(1))  # an SSLEOFError if there was none

    with scripted(act) as port:
        assert echo(port, terms(authority)) == 0
        peers.wait_for(lambda: bool(ends))
    assert ends == [b""]


def test_a_plain_node_is_recognised_by_its_abort(authority: Authority) -> None:
    def act(connected: socket.socket) -> None:
        connected.recv(1)
        connected.sendall(codec.encode_abort(codec.Abort(2, 1)))
        connected.recv(65536)

    with scripted(act) as port, pytest.raises(Insecure, match=r"plain DICOM on this port, not TLS"):
        echo(port, terms(authority))


def test_what_is_neither_tls_nor_dicom_is_named(authority: Authority) -> None:
    def act(connected: socket.socket) -> None:
        connected.sendall(b"SSH-2.0-x\r\n")

    with scripted(act) as port, pytest.raises(Insecure, match=r"neither TLS nor DICOM"):
        echo(port, terms(authority))


def test_a_plain_dcmtk_node_is_not_spoken_to_with_tls(start: Start, authority: Authority) -> None:
    peer = start(peers.storescp)
    with pytest.raises(PeerError, match=r"plain DICOM|during the TLS handshake"):
        echo(peer.port, terms(authority))


def test_nothing_but_a_handshake_ever_reaches_a_plain_node(authority: Authority) -> None:
    heard: list[bytes] = []

    def act(connected: socket.socket) -> None:
        heard.append(connected.recv(65536))
        connected.sendall(codec.encode_abort(codec.Abort(2, 1)))
        connected.shutdown(socket.SHUT_WR)
        while more := connected.recv(65536):
            heard.append(more)

    with scripted(act) as port:
        with pytest.raises(Insecure):
            echo(port, terms(authority))
        peers.wait_for(lambda: bool(heard))
    assert b"".join(heard)[:2] == b"\x16\x03"
    assert b"DCMSYNC" not in b"".join(heard)


@pytest.mark.slow
def test_a_stalled_handshake_ends_in_time(authority: Authority) -> None:
    is_over = threading.Event()
    with scripted(lambda connected: bool(is_over.wait(DEADLINE_S)) and None) as port:
        began = anyio.run(_now)
        with pytest.raises(Stalled, match=r"TLS handshake was not done within 0.3 s"):
            echo(port, terms(authority), limits=Limits(timeout_s=0.3))
        assert anyio.run(_now) - began < 2.0
        is_over.set()


async def _now() -> float:
    return anyio.current_time()


@pytest.mark.slow
def test_a_handshake_that_drips_ends_in_time(authority: Authority) -> None:
    is_over = threading.Event()

    def act(connected: socket.socket) -> None:
        connected.sendall(b"\x16\x03\x03\x40\x00")
        while not is_over.wait(0.02):
            connected.sendall(b"\0")

    with scripted(act) as port:
        with pytest.raises(Stalled, match=r"TLS handshake"):
            echo(port, terms(authority), limits=Limits(timeout_s=0.4))
        is_over.set()


def test_a_plain_client_is_told_that_the_port_speaks_tls() -> None:
    def act(connected: socket.socket) -> None:
        connected.recv(65536)
        connected.sendall(bytes.fromhex("15030300020246"))  # alert: fatal, protocol_version

    with scripted(act) as port, pytest.raises(RemoteProtocolError, match=r"speaks TLS") as caught:
        echo(port, None)
    assert "dicoms://" in str(caught.value)


def test_a_plain_client_that_is_hung_up_on_is_told_of_tls(start: Start, authority: Authority, own: Pem) -> None:
    peer = start(peers.storescp, *dcmtk(own, authority))
    with pytest.raises(PeerError, match=r"TLS"):
        echo(peer.port, None)


# Our node, and clients of others


@contextmanager
def listening(secure: tls.Secure | None, *, connect_s: float = 5.0) -> Iterator[tuple[int, list[Exception]]]:
    """Our own listener, answering C-ECHO, in a thread: its port, and why it turned away whom it did."""
    refused: list[Exception] = []
    ready = threading.Event()
    found: list[Listener] = []

    def decide(request: codec.AssociateRequest) -> codec.AssociateAccept:
        results, _ = contexts.answer(request, {operations.VERIFICATION: contexts.UNCOMPRESSED})
        return codec.AssociateAccept(called_ae="A", calling_ae="B", results=results)

    async def serve(visit: Visit) -> None:
        while True:
            for event in await visit.channel.messages():
                if isinstance(event, Begun):
                    await visit.channel.say(event.context_id, operations.respond(event.command, 0))

    async def run() -> None:
        settings = Settings(host="127.0.0.1", port=0, decide=decide, serve=serve, secure=secure,
                            turned_away=lambda name, why: refused.append(why))  # fmt: skip
        with Watch() as watch:
            found.append(Listener(settings, Limits(timeout_s=5.0, connect_s=connect_s), watch))
            stopping = anyio.Event()
            stop.append(lambda: anyio.from_thread.run_sync(stopping.set, token=token))
            token = anyio.lowlevel.current_token()
            ready.set()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(found[0].run)
                await stopping.wait()
                found[0].stop()

    stop: list[Callable[[], None]] = []
    thread = threading.Thread(target=lambda: anyio.run(run))
    thread.start()
    assert ready.wait(DEADLINE_S)
    try:
        yield found[0].port, refused
    finally:
        stop[0]()
        thread.join(DEADLINE_S)


def port_terms(authority: Authority | None, pem: Pem) -> Terms:
    return Terms(ca=str(authority.path) if authority else "", certificate=str(pem.certificate), key=str(pem.key))


def test_our_node_answers_our_client(authority: Authority, own: Pem) -> None:
    with listening(tls.server(port_terms(authority, own))) as (port, refused):
        assert echo(port, terms(authority, own)) == 0
    assert refused == []


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_asks_our_node(authority: Authority, require: Require, profile: str) -> None:
    require("echoscu")
    own = authority.issue("localhost", rsa=True)
    with listening(tls.server(port_terms(authority, own))) as (port, refused):
        done = peers.dcmtk("echoscu", *dcmtk(own, authority, profile), "localhost", str(port), check=False)
        assert done.returncode == 0, done
    assert refused == []


@pytest.mark.slow
def test_who_shows_no_certificate_is_turned_away(authority: Authority, own: Pem, require: Require) -> None:
    require("echoscu")
    with listening(tls.server(port_terms(authority, own))) as (port, refused):
        with pytest.raises(Insecure, match=r"wants a certificate of ours"):
            echo(port, terms(authority))
        done = peers.dcmtk("echoscu", "+tla", "-ic", "localhost", str(port), check=False)
        assert done.returncode != 0
    assert [type(why) for why in refused] == [Insecure, Insecure]
    assert "shows no certificate" in str(refused[0])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"])
def test_openssl_asks_our_node_in_each_version(
    authority: Authority, own: Pem, require: Require, version: str
) -> None:
    with listening(tls.server(port_terms(None, own))) as (port, _):
        line = [require("openssl"), "s_client", "-connect", f"localhost:{port}", "-CAfile", str(authority.path),
                "-verify_return_error", "-cipher", "ALL:@SECLEVEL=0", version]  # fmt: skip
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False)
    is_spoken = b"Verify return code: 0" in done.stdout and b"Cipher is (NONE)" not in done.stdout
    assert is_spoken == (version in ("-tls1_2", "-tls1_3")), done


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "DHE-RSA-AES256-GCM-SHA384"])
def test_our_node_takes_no_weak_suite(authority: Authority, own: Pem, require: Require, suite: str) -> None:
    with listening(tls.server(port_terms(None, own))) as (port, refused):
        line = [require("openssl"), "s_client", "-connect", f"localhost:{port}", "-tls1_2", "-cipher", suite]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False)
        peers.wait_for(lambda: bool(refused))
    assert done.returncode != 0 and "no cipher suite" in str(refused[0])


def test_a_plain_client_is_turned_away_by_its_name(authority: Authority, own: Pem) -> None:
    with listening(tls.server(port_terms(None, own))) as (port, refused):
        with pytest.raises(PeerError, match=r"TLS"):
            echo(port, None)
        peers.wait_for(lambda: bool(refused))
    assert "plain DICOM" in str(refused[0])


def test_a_tls_client_is_recognised_on_a_plain_port(authority: Authority) -> None:
    with listening(None) as (port, refused):
        with pytest.raises(Insecure, match=r"plain DICOM"):
            echo(port, terms(authority))
        peers.wait_for(lambda: bool(refused))
    assert "speaks TLS" in str(refused[0])


@pytest.mark.slow
def test_a_client_that_never_shakes_hands_is_let_go(own: Pem) -> None:
    with listening(tls.server(port_terms(None, own)), connect_s=0.3) as (port, refused):
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connected:
            assert connected.recv(1) == b""
        peers.wait_for(lambda: bool(refused))
    assert "0.3 s" in str(refused[0])


# The stream


def pair(authority: Authority, own: Pem, work: Callable[[Stream, Stream], object]) -> None:
    """Two ends of one secured connection, in one loop."""

    async def run() -> None:
        left, right = socket.socketpair()
        for each in (left, right):
            each.setblocking(False)
        ends: dict[str, tls.Secured] = {}

        async def shake(name: str, plain: socket.socket, secure: tls.Secure, host: str | None) -> None:
            ends[name] = await tls.handshake(plain, secure, host=host, name=name, timeout_s=5.0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shake, "client", left, tls.client(terms(authority)), "localhost")
            tasks.start_soon(shake, "server", right, tls.server(port_terms(None, own)), None)
        with Watch() as watch:
            guards = [watch.guard(each, timeout_s=5.0, whole_s=60.0) for each in (left, right)]
            client = _Unix(left, guards[0], "client", ends["client"])
            server = _Unix(right, guards[1], "server", ends["server"])
            await work(client, server)  # type: ignore[misc]
            client.close()
            server.close()

    anyio.run(run)


class _Unix(Stream):
    """A stream over a socket pair, which knows no TCP options."""

    def __init__(self, connected: socket.socket, *more: object) -> None:
        super().__init__(_NoOptions(connected), *more)  # type: ignore[arg-type]


class _NoOptions:
    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def setsockopt(self, *_: object) -> None:
        """Nothing to set."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._connected, name)


def test_octets_come_as_they_went_whatever_the_pieces(authority: Authority, own: Pem) -> None:
    blob = bytes(range(256)) * 12_000  # 3 MB: more than the kernel holds, and than a batch of records
    sizes = [1, 12, 70_000, 0, 262_144, 262_145, 13, 900_000]

    async def work(client: Stream, server: Stream) -> None:
        pieces: list[bytes | memoryview] = []
        at = 0
        while at < len(blob):
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(memoryview(blob)[at : at + size])
            at += size
        got = bytearray()

        async def take() -> None:
            while len(got) < len(blob):
                await server.receive()
                got.extend(server.pending)
                server.consume(len(server.pending))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await client.send(pieces, is_payload=True)
        assert bytes(got) == blob and client.guard.octets == len(blob)

    pair(authority, own, work)


def test_what_has_arrived_is_told_from_what_is_tls_own_business(authority: Authority, own: Pem) -> None:
    async def work(client: Stream, server: Stream) -> None:
        assert not client.has_arrived  # though tickets have come: they are no data
        await server.send([b"hello"])
        assert client.has_arrived and client.has_arrived
        assert await client.receive() == 5 and bytes(client.pending) == b"hello"
        client.consume(5)
        assert not client.has_arrived
        server.close()
        assert client.has_arrived
        assert await client.receive() == 0

    pair(authority, own, work)


def test_an_end_without_a_word_is_told_as_often_as_it_is_asked_for(authority: Authority, own: Pem) -> None:
    async def work(client: Stream, server: Stream) -> None:
        server.send_now([b"bye"])
        server._socket.shutdown(socket.SHUT_RDWR)
        assert await client.receive() == 3
        assert client.has_arrived
        assert [await client.receive(), await client.receive()] == [0, 0]

    pair(authority, own, work)


def test_progress_is_counted_while_a_slow_peer_takes_it(authority: Authority, own: Pem) -> None:
    async def work(client: Stream, server: Stream) -> None:
        with anyio.move_on_after(0.2):
            await client.send([bytes(8 << 20)], is_payload=True)  # nobody reads: as much as the kernel holds
        assert 0 < client.guard.octets < 8 << 20

    pair(authority, own, work)
