"""The fixtures themselves: real peers answer DCMTK's echoscu, take what is sent, and stop when they are told to."""

from pathlib import Path

import pytest

from tests import peers, samples


def echo(peer: peers.Peer) -> None:
    peers.dcmtk("echoscu", "-aec", peer.ae, peer.host, str(peer.port))


def test_orthanc_answers_and_holds_what_was_posted(orthanc: peers.Peer, tmp_path: Path) -> None:
    made = samples.make_series(tmp_path / "data", instances=5)
    orthanc.store(sample.path for sample in made)
    echo(orthanc)
    assert orthanc.instances() == 5


def test_orthanc_is_empty_again_for_the_next_test(orthanc: peers.Peer) -> None:
    assert orthanc.instances() == 0


def test_orthanc_serves_dicomweb_when_asked(start) -> None:
    peer = start(peers.orthanc, dicomweb=True)
    assert peer.rest("GET", "/dicom-web/studies") == []


def test_orthanc_sends_to_a_node_that_it_learned_of(orthanc: peers.Peer, storescp: peers.Peer, tmp_path: Path) -> None:
    made = samples.make_series(tmp_path / "data", instances=2)
    orthanc.store(sample.path for sample in made)
    orthanc.know(storescp.ae, storescp.port)
    peers.dcmtk(
        "movescu", "-aec", orthanc.ae, "-aem", storescp.ae, "-S", "-k", "0008,0052=STUDY",
        "-k", f"0020,000D={made[0].study_uid}", orthanc.host, str(orthanc.port),
    )  # fmt: skip
    assert len(list((storescp.folder / "received").iterdir())) == 2


@pytest.mark.parametrize("name", ["dcmqrscp", "pynetdicom_qrscp"])
def test_query_retrieve_nodes_answer_store_and_find(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    peer = request.getfixturevalue(name)
    made = samples.make_series(tmp_path / "data", instances=2)
    echo(peer)
    peers.storescu(peer, [tmp_path / "data"])
    found = peers.dcmtk(
        "findscu", "-S", "-k", "0008,0052=STUDY", "-k", "0020,000D", "-aec", peer.ae, peer.host, str(peer.port)
    )
    assert made[0].study_uid in found.stdout + found.stderr


def test_storescp_misbehaves_on_demand(start, tmp_path: Path) -> None:
    peer = start(peers.storescp, "--refuse")
    with pytest.raises(RuntimeError, match="Rejected"):
        echo(peer)


def test_a_stopped_peer_answers_no_more(start) -> None:
    peer = start(peers.storescp)
    peer.stop()
    with pytest.raises(RuntimeError, match="echoscu"):
        echo(peer)


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(peers.PeerMissing, match="Debian package dcmtk"):
        peers.find_program("no-such-program")
