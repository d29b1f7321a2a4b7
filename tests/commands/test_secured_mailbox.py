"""What nodes send to us over TLS, as people run it: C-MOVE to ourselves, and reports of storage commitment.

Judged by Orthanc, which is told by its own settings whether to come with TLS.
"""

from pathlib import Path

import pytest

from tests import nodes, peers, samples
from tests.certs import Authority, Pem
from tests.conftest import Start
from tests.trees import check_whole, files
from tests.workdir import Done, Workdir

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pem:
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One study of 2 series of 4 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), series=2, instances=4, seed=37)


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """Where Orthanc expects us: with TLS, and in plain."""
    return peers.free_ports(2)


@pytest.fixture(scope="module")
def pacs(start_for_module: Start, authority: Authority, own: Pem, made: list[samples.Sample], ports: list[int]):
    """Orthanc with TLS. It sends to DCMSYNC with TLS, and to PLAIN without; no test changes it."""
    secured, plain = ports
    peer = start_for_module(peers.orthanc, settings={
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(own.certificate), "DicomTlsPrivateKey": str(own.key),
        "DicomTlsTrustedCertificates": str(authority.path), "DicomTlsRemoteCertificateRequired": False,
        "DicomModalities": {
            "DCMSYNC": {"AET": "DCMSYNC", "Host": "localhost", "Port": secured, "UseDicomTls": True},
            "PLAIN": {"AET": "PLAIN", "Host": "localhost", "Port": plain, "UseDicomTls": False},
        },
    })  # fmt: skip
    peer.store(sample.path for sample in made)
    return peer


def configured(workdir: Workdir, pacs: peers.Peer, authority: Authority, port: int, **local: object) -> None:
    said = {"port": port, "bind": '"127.0.0.1"', **local}
    lines = "".join(f"{key} = {value}\n" for key, value in said.items())
    (workdir.path / "c.toml").write_text(
        f"[local]\n{lines}[endpoints.pacs]\nlocator = \"dicoms://{pacs.ae}@localhost:{pacs.port}\"\n"
        f'via = "move"\nca = "{authority.path}"\n'
    )


def mine(pem: Pem) -> dict[str, object]:
    return {"tls": "true", "certificate": f'"{pem.certificate}"', "key": f'"{pem.key}"'}


def pull(workdir: Workdir, *more: str) -> Done:
    return workdir.run("sync", "pacs", "./a", "--all", "--config", "c.toml", "--timeout", "5", *more)


def test_what_c_move_brings_comes_over_tls(
    workdir: Workdir, pacs: peers.Peer, authority: Authority, own: Pem, made: list[samples.Sample], ports: list[int]
) -> None:
    configured(workdir, pacs, authority, ports[0], **mine(own))
    done = pull(workdir)
    assert (done.status, done.stderr) == (0, ""), done
    check_whole(workdir.path / "a", made)


def test_who_sends_must_show_a_certificate_that_we_know(
    workdir: Workdir, pacs: peers.Peer, authority: Authority, own: Pem, made: list[samples.Sample], ports: list[int],
    tmp_path: Path,
) -> None:  # fmt: skip
    configured(workdir, pacs, authority, ports[0], **mine(own), ca=f'"{authority.path}"')
    assert pull(workdir).status == 0
    check_whole(workdir.path / "a", made)
    stranger = Authority(tmp_path / "other")
    configured(workdir, pacs, authority, ports[0], **mine(own), ca=f'"{stranger.path}"')
    done = workdir.run("sync", "pacs", "./b", "--all", "--config", "c.toml", "--timeout", "5")
    assert done.status in (4, 5) and files(workdir.path / "b") == [], done
    assert "its authority is not known here" in done.stdout.decode(), done


def test_nobody_is_heard_in_plain_where_tls_is_set(
    workdir: Workdir, pacs: peers.Peer, authority: Authority, own: Pem, ports: list[int]
) -> None:
    configured(workdir, pacs, authority, ports[1], **mine(own))
    done = pull(workdir, "--calling", "PLAIN")
    assert done.status in (4, 5) and files(workdir.path / "a") == [], done
    message = str(done.of_type("outcome")[0]["message"])
    assert f"register AE title PLAIN, host 127.0.0.1, port {ports[1]} with TLS" in message
    assert "the peer speaks plain DICOM on this port, not TLS" in message


def test_a_node_that_sends_with_tls_to_a_plain_port_is_named(
    workdir: Workdir, pacs: peers.Peer, authority: Authority, ports: list[int]
) -> None:
    configured(workdir, pacs, authority, ports[0])
    done = pull(workdir)
    assert done.status in (4, 5) and files(workdir.path / "a") == [], done
    message = str(done.of_type("outcome")[0]["message"])
    assert "speaks TLS where plain DICOM was expected" in message and "tls of [local]" in message, message


def test_what_a_secured_node_sends_in_plain_is_warned_of_once(
    workdir: Workdir, pacs: peers.Peer, authority: Authority, made: list[samples.Sample], ports: list[int]
) -> None:
    configured(workdir, pacs, authority, ports[1])
    done = pull(workdir, "--calling", "PLAIN")
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    assert done.stderr.count("plain text") == 1 and "tls of [local]" in done.stderr, done


def test_a_port_that_is_to_speak_tls_needs_a_certificate(
    workdir: Workdir, pacs: peers.Peer, authority: Authority, ports: list[int]
) -> None:
    configured(workdir, pacs, authority, ports[0], tls="true")
    done = pull(workdir)
    assert done.status == 2 and "certificate" in done.stderr + done.stdout.decode(), done


@pytest.mark.parametrize("knows", [True, False])
def test_a_report_of_storage_commitment_comes_over_tls(
    workdir: Workdir, authority: Authority, own: Pem, made: list[samples.Sample], tmp_path: Path, start: Start,
    *, knows: bool,
) -> None:  # fmt: skip
    port = peers.free_port()
    pacs = start(peers.orthanc, settings={
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(own.certificate), "DicomTlsPrivateKey": str(own.key),
        "DicomTlsTrustedCertificates": str(authority.path), "DicomTlsRemoteCertificateRequired": False,
        "DicomModalities": {
            "DCMSYNC": {"AET": "DCMSYNC", "Host": "localhost", "Port": port, "UseDicomTls": knows},
        },
    })  # fmt: skip
    configured(workdir, pacs, authority, port, **mine(own))
    folder = Path(made[0].path).parent
    done = workdir.run("push", "pacs", str(folder), "--verify", "commit", "--config", "c.toml", "--timeout", "4",
                       "--no-cache")  # fmt: skip
    series = next(record for record in done.of_type("outcome") if record["level"] == "series")
    if knows:
        assert done.status == 0 and series["stored"] == 4 and "reason" not in series, done
        assert pacs.instances() == 4
    else:
        assert done.status == 3 and series["reason"] == "unproven", done
        assert "the peer speaks plain DICOM on this port, not TLS" in str(series["message"])


def test_our_own_node_sends_over_tls(
    workdir: Workdir, authority: Authority, own: Pem, made: list[samples.Sample], tmp_path: Path
) -> None:
    folder = Path(made[0].path).parent.parent
    port = peers.free_port()
    settings = tmp_path / "serve.toml"
    settings.write_text(
        f'[local]\ncertificate = "{own.certificate}"\nkey = "{own.key}"\n'
        f'[endpoints.us]\nlocator = "dicoms://DCMSYNC@localhost:{port}"\nca = "{authority.path}"\n'
    )
    with nodes.serving(folder, "--tls", "--ae", "ARCHIVE", "--config", str(settings)) as node:
        node.ae = "ARCHIVE"
        configured(workdir, node, authority, port, **mine(own))  # type: ignore[arg-type]  # it has ae and port
        done = pull(workdir)
    assert (done.status, done.stderr) == (0, ""), done
    check_whole(workdir.path / "a", made)
