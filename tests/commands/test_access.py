"""How a run gets into a node: `dicoms://`, certificates and users by the configuration, as people see it."""

from pathlib import Path

import pytest

from tests import certs, peers, samples
from tests.certs import Authority, Pem
from tests.conftest import Start
from tests.workdir import Done, Workdir

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pem:
    return authority.issue("localhost", "127.0.0.1")


def configured(workdir: Workdir, locator: str, **keys: object) -> None:
    path = workdir.path / ".xdg/config/dcmsync/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {key: str(value).lower() if isinstance(value, bool) else f'"{value}"' for key, value in keys.items()}
    lines = [f"{key} = {value}" for key, value in said.items()]
    path.write_text("\n".join(["[endpoints.pacs]", f'locator = "{locator}"', *lines, ""]))


@pytest.fixture
def storescp(start: Start, authority: Authority, own: Pem) -> peers.Peer:
    """DCMTK's storage node, with TLS; it wants a certificate of the authority's."""
    return start(peers.storescp, "+tls", str(own.key), str(own.certificate), "+cf", str(authority.path))


def echo(workdir: Workdir, peer: peers.Peer, **keys: object) -> Done:
    configured(workdir, f"dicoms://{peer.ae}@{peer.host}:{peer.port}", **keys)
    return workdir.run("echo", "pacs")


def mine(pem: Pem) -> dict[str, object]:
    return {"certificate": pem.certificate, "key": pem.key}


def test_a_node_answers_over_tls(workdir: Workdir, storescp: peers.Peer, authority: Authority, own: Pem) -> None:
    done = echo(workdir, storescp, ca=authority.path, **mine(own))
    assert (done.status, done.stderr) == (0, ""), done
    assert done.records[0]["endpoint"] == f"dicoms://STORESCP@127.0.0.1:{storescp.port}"


def test_a_key_is_unlocked_by_a_command(
    workdir: Workdir, storescp: peers.Peer, authority: Authority, own: Pem
) -> None:
    locked = certs.encrypted(own, "mellon")
    done = echo(workdir, storescp, ca=authority.path, key_password_command="echo mellon", **mine(locked))
    assert (done.status, done.stderr) == (0, ""), done
    done = echo(workdir, storescp, ca=authority.path, key_password_command="echo friend", **mine(locked))
    assert done.status == 2 and "friend" not in done.stderr, done


def test_who_is_not_known_is_not_spoken_to(workdir: Workdir, storescp: peers.Peer, own: Pem) -> None:
    done = echo(workdir, storescp, **mine(own))  # the system does not know the authority
    assert done.status == 5 and "its authority is not known here" in done.stderr, done
    assert 'ca = "FILE"' in done.stderr


def test_not_to_verify_is_warned_of_on_each_run(workdir: Workdir, storescp: peers.Peer, own: Pem) -> None:
    for _ in range(2):
        done = echo(workdir, storescp, verify=False, **mine(own))
        assert done.status == 0 and "anybody may pass for it" in done.stderr, done


def test_a_node_that_does_not_know_us_is_left_with_a_word(
    workdir: Workdir, storescp: peers.Peer, authority: Authority
) -> None:
    done = echo(workdir, storescp, ca=authority.path)
    assert done.status in (4, 5) and ("certificate" in done.stderr or "TLS" in done.stderr), done


def test_plain_and_tls_that_meet_are_told_apart(
    workdir: Workdir, start: Start, storescp: peers.Peer, authority: Authority
) -> None:
    plain = start(peers.storescp)
    done = echo(workdir, plain, ca=authority.path)
    assert done.status in (4, 5) and "TLS" in done.stderr, done
    done = workdir.run("echo", storescp.locator)
    assert done.status in (4, 5) and "dicoms://" in done.stderr, done


def test_what_comes_through_tls_is_what_was_there(
    workdir: Workdir, start: Start, authority: Authority, own: Pem, tmp_path: Path
) -> None:
    made = samples.make_series(tmp_path / "made", studies=2, instances=30, seed=3)
    pacs = start(peers.orthanc, settings={
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(own.certificate), "DicomTlsPrivateKey": str(own.key),
        "DicomTlsTrustedCertificates": str(authority.path), "DicomTlsRemoteCertificateRequired": False,
    })  # fmt: skip
    pacs.store([sample.path for sample in made])
    configured(workdir, f"dicoms://{pacs.ae}@localhost:{pacs.port}", ca=authority.path)
    studies = workdir.run("query", "pacs", "--all")
    done = workdir.run("pull", "./out", stdin=studies.stdout)
    assert done.status == 0, done
    assert sum(outcome["stored"] for outcome in done.of_type("outcome")) == 60
    assert workdir.run("diff", tmp_path / "made", "./out", "--trust", "content").status == 0


def test_a_command_never_reads_the_records_that_are_meant_for_us(
    workdir: Workdir, start: Start, tmp_path: Path
) -> None:
    peer = start(peers.storescp)
    configured(workdir, peer.locator, user="ada", password_command=f"cat > {tmp_path}/eaten; echo sesame")
    assert workdir.run("echo", "pacs", stdin=b"a record\n").status == 0
    assert (tmp_path / "eaten").read_bytes() == b""


def test_the_password_is_shown_to_nobody(workdir: Workdir, start: Start, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    peer = start(peers.storescp, "-d")
    configured(workdir, peer.locator, user="ada", password_file=secret)
    done = workdir.run("echo", "pacs", "-v")
    assert done.status == 0 and "plain text" in done.stderr and "sesame" not in done.stderr + done.stdout.decode(), done
    peers.wait_for(lambda: "ada" in peer.log)  # DCMTK logs who came
    show = workdir.run("config", "show")
    assert show.status == 0 and "sesame" not in show.stdout.decode() + show.stderr, show
