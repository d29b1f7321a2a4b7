"""`push --verify commit`, as people run it: against Orthanc, our own node, and one that behaves as it is told to."""

from pathlib import Path

import pytest

from tests import peers, samples
from tests.fakes.promiser import How, Promiser
from tests.workdir import Done, Workdir


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One series of 4 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), instances=4, seed=91)


@pytest.fixture
def port() -> int:
    """Where the node expects us."""
    return peers.free_port()


def push(workdir: Workdir, locator: str, made: list[samples.Sample], port: int, *options: str) -> Done:
    folder = Path(made[0].path).parent
    return workdir.run("push", locator, str(folder), "--verify", "commit", "--port", str(port), "--timeout", "5",
                       "--no-cache", *options)  # fmt: skip


def series_of(done: Done) -> dict[str, object]:
    return next(record for record in done.of_type("outcome") if record["level"] == "series")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["here", "elsewhere", "wrong"])
def test_what_the_node_promises_to_keep_is_proven(
    workdir: Workdir, made: list[samples.Sample], port: int, how: How
) -> None:
    with Promiser((peers.HOST, port), how=how) as node:
        done = push(workdir, node.locator, made, port)
    assert done.status == 0 and series_of(done)["stored"] == 4 and "reason" not in series_of(done), done
    asked = node.asked[0].ReferencedSOPSequence
    assert {item.ReferencedSOPInstanceUID for item in asked} == {sample.sop_uid for sample in made}
    assert node.answers == ([0x0115, 0] if how == "wrong" else [0]), "a transaction that is not ours is refused"


@pytest.mark.slow
def test_what_it_will_not_keep_has_failed_and_what_it_lacks_is_sent_again(
    workdir: Workdir, made: list[samples.Sample], port: int
) -> None:
    uids = [sample.sop_uid for sample in made]
    with Promiser((peers.HOST, port), fails={uids[0]: 0x0213, uids[1]: 0x0112}, silent=frozenset(uids[2:3])) as node:
        done = push(workdir, node.locator, made, port)
    said = {record["SOPInstanceUID"]: record for record in done.of_type("outcome") if record["level"] == "instance"}
    assert done.status == 3
    assert (said[uids[0]]["outcome"], said[uids[0]]["reason"]) == ("failed", "refused")
    assert "does not commit itself to keep it: 0x0213 \"resource limitation\"" in str(said[uids[0]]["message"])
    assert (said[uids[1]]["outcome"], said[uids[1]]["reason"]) == ("failed", "missing")
    assert (said[uids[2]]["outcome"], said[uids[2]]["reason"]) == ("stored", "unproven")
    assert uids[3] not in said
    assert sorted(node.stored) == sorted([*uids, uids[1]]), "only what it lacks is sent again"


@pytest.mark.slow
def test_a_node_that_never_tells_leaves_things_unproven(
    workdir: Workdir, made: list[samples.Sample], port: int
) -> None:
    with Promiser((peers.HOST, port), how="never") as node:
        done = push(workdir, node.locator, made, port, "--timeout", "0.5")
    message = str(series_of(done)["message"])
    assert done.status == 3 and series_of(done)["reason"] == "unproven", done
    assert "did not say within 0.5 s what it keeps" in message
    assert f"register AE title DCMSYNC, host 127.0.0.1, port {port}" in message


@pytest.mark.slow
@pytest.mark.parametrize(("offers", "status", "words"), [
    (False, 0, "does not offer storage commitment"),
    (True, 0x0110, "does not take the request for storage commitment: 0x0110"),
])  # fmt: skip
def test_a_node_that_does_not_do_it_leaves_things_unproven(
    workdir: Workdir, made: list[samples.Sample], port: int, offers: bool, status: int, words: str
) -> None:
    with Promiser((peers.HOST, port), offers=offers, status=status) as node:
        done = push(workdir, node.locator, made, port)
    assert done.status == 3 and series_of(done)["reason"] == "unproven", done
    assert words in str(series_of(done)["message"])
    assert ("--verify uids asks it instead" in done.stderr) is not offers
    assert len(node.stored) == 4, "nothing is sent again"


@pytest.mark.slow
def test_a_port_that_cannot_be_had_is_said_before_anything_is_sent(
    workdir: Workdir, made: list[samples.Sample], port: int
) -> None:
    import socket

    with socket.create_server((peers.HOST, port)), Promiser((peers.HOST, port)) as node:
        done = push(workdir, node.locator, made, port)
    assert done.status == 7 and "cannot listen" in done.stderr, done
    assert node.stored == []


@pytest.mark.slow
def test_orthanc_commits_itself_to_what_it_has(
    workdir: Workdir, start_for_module, made: list[samples.Sample], port: int  # type: ignore[no-untyped-def]
) -> None:
    pacs: peers.Peer = start_for_module(peers.orthanc, destinations={"DCMSYNC": (peers.HOST, port)})
    done = push(workdir, pacs.locator, made, port)
    assert (done.status, done.stderr) == (0, ""), done
    assert series_of(done)["stored"] == 4 and "reason" not in series_of(done)


@pytest.mark.slow
def test_our_own_node_commits_itself(workdir: Workdir, made: list[samples.Sample], port: int, tmp_path: Path) -> None:
    from tests import nodes

    (tmp_path / "kept").mkdir()
    with nodes.serving(tmp_path / "kept") as node:
        done = push(workdir, node.locator, made, port)
    assert (done.status, done.stderr) == (0, ""), done
    assert series_of(done)["stored"] == 4 and "reason" not in series_of(done)
