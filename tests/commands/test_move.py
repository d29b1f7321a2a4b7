"""`--via move`, as people run it, against real nodes that know us, and against some that do not."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence

import pytest

from tests import peers, samples
from tests.trees import check_nothing_partial, check_whole, files, leftovers
from tests.workdir import Done, Workdir

SEED = 77
KINDS = ["orthanc", "dcmqrscp", "pynetdicom_qrscp"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 5 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), studies=2, series=2, instances=5, seed=SEED)


@pytest.fixture(scope="module")
def port() -> int:
    """Where the peers of this file expect DCMSYNC."""
    return peers.free_port()


@pytest.fixture(scope="module")
def destinations(port: int) -> peers.Destinations:
    """Whom the peers know: us, and a port where nobody listens."""
    return {"DCMSYNC": (peers.HOST, port), "NOBODYTHERE": (peers.HOST, peers.free_port())}


@pytest.fixture(scope="module", params=KINDS)
def node(
    request: pytest.FixtureRequest, start_for_module, made: list[samples.Sample], destinations: peers.Destinations
) -> peers.Peer:
    """One of the nodes, with what was made; no test changes it."""
    peer: peers.Peer = start_for_module(getattr(peers, request.param), destinations=destinations)
    peers.storescu(peer, [each.path for each in made])
    return peer


@pytest.fixture(scope="module")
def pacs(start_for_module, made: list[samples.Sample], destinations: peers.Destinations) -> peers.Peer:
    """Orthanc, with what was made."""
    peer: peers.Peer = start_for_module(peers.orthanc, destinations=destinations)
    peer.store(sample.path for sample in made)
    return peer


def series_of(source: str, made: Sequence[samples.Sample]) -> list[dict[str, object]]:
    pairs = dict.fromkeys((sample.study_uid, sample.series_uid) for sample in made)
    return [
        {"type": "series", "source": source, "StudyInstanceUID": study, "SeriesInstanceUID": series}
        for study, series in pairs
    ]


def instances_of(source: str, made: Sequence[samples.Sample]) -> list[dict[str, object]]:
    return [
        {"type": "instance", "source": source, "StudyInstanceUID": each.study_uid,
         "SeriesInstanceUID": each.series_uid, "SOPInstanceUID": each.sop_uid}
        for each in made
    ]  # fmt: skip


def outcomes(done: Done, level: str = "series") -> list[dict[str, object]]:
    return [record for record in done.of_type("outcome") if record["level"] == level]


def test_series_arrive_by_c_move(workdir: Workdir, node: peers.Peer, made: list[samples.Sample], port: int) -> None:
    done = workdir.run("pull", "./a", "--via", "move", "--port", str(port), stdin=series_of(node.locator, made))
    assert (done.status, done.stderr) == (0, ""), done
    check_whole(workdir.path / "a", made)
    assert [each["stored"] for each in outcomes(done)] == [5, 5, 5, 5]


def test_gaps_are_filled_whether_or_not_the_node_takes_lists(
    workdir: Workdir, node: peers.Peer, made: list[samples.Sample], port: int
) -> None:
    first = workdir.run("pull", "./a", "--via", "move", "--port", str(port), stdin=instances_of(node.locator, made[:6]))
    assert first.status == 0, first
    check_whole(workdir.path / "a", made[:6])
    done = workdir.run("pull", "./a", "--via", "move", "--port", str(port), stdin=series_of(node.locator, made))
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    assert sum(int(str(each.get("stored", 0))) for each in outcomes(done)) == 14


def test_what_is_there_moves_nothing(workdir: Workdir, node: peers.Peer, made: list[samples.Sample], port: int) -> None:
    line = ("sync", node.locator, "./a", "--all", "--via", "move", "--port", str(port))
    assert workdir.run(*line).status == 0
    with socket.create_server((peers.HOST, port)):  # nobody needs the port a second time
        done = workdir.run(*line)
    assert done.status == 0, done
    assert {each["outcome"] for each in outcomes(done)} == {"present"}


def test_a_node_that_does_not_know_us_is_told_what_to_register(
    workdir: Workdir, node: peers.Peer, made: list[samples.Sample], port: int
) -> None:
    done = workdir.run("pull", "./a", "--via", "move", "--port", str(port), "--calling", "WHO",
                       stdin=series_of(node.locator, made))  # fmt: skip
    assert done.status in (4, 5), done
    for each in outcomes(done):
        assert f"register AE title WHO, host 127.0.0.1, port {port}" in str(each["message"])
        assert each["retry"] is True
    assert files(workdir.path / "a") == []


def test_a_node_that_cannot_reach_us_is_told_what_to_register(
    workdir: Workdir, node: peers.Peer, made: list[samples.Sample], port: int
) -> None:
    done = workdir.run("pull", "./a", "--via", "move", "--port", str(port), "--calling", "NOBODYTHERE",
                       stdin=series_of(node.locator, made))  # fmt: skip
    assert done.status in (4, 5), done
    assert f"register AE title NOBODYTHERE, host 127.0.0.1, port {port}" in str(outcomes(done)[0]["message"])


def test_the_configuration_says_how_and_where(
    workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample], port: int
) -> None:
    (workdir.path / "c.toml").write_text(
        f'[local]\nport = {port}\nbind = "127.0.0.1"\n[endpoints.pacs]\nlocator = "{pacs.locator}"\nvia = "move"\n'
    )
    done = workdir.run("sync", "pacs", "./a", "--all", "--config", "c.toml")
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    before = pacs.log.count("C-MOVE") + pacs.log.count("Move SCP")
    done = workdir.run("sync", "pacs", "./b", "--all", "--config", "c.toml", "--via", "get", "--port", "1")
    assert done.status == 0, done  # the command line goes before it, and C-GET needs no port
    assert pacs.log.count("C-MOVE") + pacs.log.count("Move SCP") == before


def test_a_port_that_is_taken_is_trouble_of_this_machine(
    workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample], port: int
) -> None:
    with socket.create_server((peers.HOST, port)):
        (workdir.path / "c.toml").write_text('[local]\nbind = "127.0.0.1"\n')
        done = workdir.run("pull", "./a", "--config", "c.toml", "--via", "move", "--port", str(port),
                           stdin=series_of(pacs.locator, made[:1]))  # fmt: skip
    assert done.status == 7, done
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in str(outcomes(done)[0]["message"])


@pytest.mark.parametrize("word", ["0", "70000", "x", "-1"])
def test_what_is_no_port_is_a_usage_error(workdir: Workdir, word: str) -> None:
    done = workdir.run("pull", "./a", f"--port={word}", stdin=[])
    assert done.status == 2 and "is no port" in done.stderr


def test_diff_by_content_has_the_node_send_what_it_reads(
    workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample], port: int
) -> None:
    (workdir.path / "c.toml").write_text(
        f'[local]\nport = {port}\n[endpoints.pacs]\nlocator = "{pacs.locator}"\nvia = "move"\n'
    )
    assert workdir.run("sync", "pacs", "./a", "--all", "--config", "c.toml").status == 0
    done = workdir.run("diff", "pacs", "./a", "--all", "--trust", "content", "--config", "c.toml")
    assert (done.status, len(done.records)) == (0, 1), done


@pytest.fixture
def no_get(start, made: list[samples.Sample], port: int) -> peers.Peer:
    """Orthanc that does not give to us by C-GET."""
    us = {"AET": "DCMSYNC", "Host": peers.HOST, "Port": port, "AllowGet": False}
    settings = {"DicomAlwaysAllowGet": False, "DicomModalities": {"DCMSYNC": us}}
    peer: peers.Peer = start(peers.orthanc, settings=settings)
    peer.store(sample.path for sample in made)
    return peer


def test_where_c_get_is_refused_c_move_is_tried_and_that_is_said_once(
    workdir: Workdir, no_get: peers.Peer, made: list[samples.Sample], port: int
) -> None:
    done = workdir.run("sync", no_get.locator, "./a", "--all", "--port", str(port))
    assert done.status == 0, done
    check_whole(workdir.path / "a", made)
    assert done.stderr.count("trying C-MOVE") == 1


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One study of 12 series of 50 instances."""
    return samples.make_series(tmp_path_factory.mktemp("many"), series=12, instances=50, seed=SEED + 1)


@pytest.fixture(scope="module")
def large(start_for_module, many: list[samples.Sample], destinations: peers.Destinations) -> peers.Peer:
    """Orthanc with enough to be interrupted."""
    peer: peers.Peer = start_for_module(peers.orthanc, destinations=destinations)
    peer.store(sample.path for sample in many)
    return peer


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_ended_goes_on_from_there(
    workdir: Workdir, large: peers.Peer, many: list[samples.Sample], port: int, how: signal.Signals
) -> None:
    line = ("sync", large.locator, "./a", "--all", "--via", "move", "--port", str(port), "--jobs", "2")
    with workdir.start(*line) as run:
        assert run.stdout is not None
        assert json.loads(run.stdout.readline())["stored"] == 50
        run.send_signal(how)
        run.communicate(timeout=30)
    check_nothing_partial(workdir.path / "a", many)
    done = workdir.run(*line)
    assert done.status == 0, done
    check_whole(workdir.path / "a", many)
    assert leftovers(workdir.path / "a") == []
    assert sum(int(str(each.get("present", 0))) for each in outcomes(done)) >= 50


def test_the_port_is_free_as_soon_as_the_run_is_over(
    workdir: Workdir, large: peers.Peer, many: list[samples.Sample], port: int
) -> None:
    """Orthanc keeps its association open for some seconds, in case more is to be sent."""
    line = ("pull", "./a", "--via", "move", "--port", str(port))
    for start in (0, 50, 100):
        done = workdir.run(*line, stdin=series_of(large.locator, many[start : start + 1]))
        assert done.status == 0, done
    assert len(files(workdir.path / "a")) == 150


def test_nothing_is_left_open_to_the_network_by_c_get(
    workdir: Workdir, pacs: peers.Peer, require: Callable[[str], str]
) -> None:
    """A run that needs no mailbox listens nowhere."""
    trace = workdir.path / "trace"
    tracing = [require("strace"), "-f", "-qq", "-e", "trace=listen", "-o", str(trace)]
    line = [*tracing, *workdir.program, "sync", pacs.locator, "./a", "--all"]
    subprocess.run(line, cwd=workdir.path, env=workdir.environment(), check=True, capture_output=True, timeout=60)
    assert "listen(" not in trace.read_text()


# Straight to a third node


@pytest.fixture
def new(start) -> peers.Peer:
    """Orthanc, empty."""
    peer: peers.Peer = start(peers.orthanc, ae="NEW")
    return peer


def test_a_node_sends_straight_to_another_one(
    workdir: Workdir, start, new: peers.Peer, made: list[samples.Sample]
) -> None:
    old: peers.Peer = start(peers.orthanc, ae="OLD", destinations={"NEW": (new.host, new.port)})
    old.store(sample.path for sample in made)
    done = workdir.run("push", new.locator, "--via", "move", stdin=series_of(old.locator, made))
    assert (done.status, done.stderr) == (0, ""), done
    assert [each["stored"] for each in outcomes(done)] == [5, 5, 5, 5]
    assert new.instances() == 20
    stored = [new.rest("GET", f"/instances/{each}/metadata?expand") for each in new.rest("GET", "/instances")]
    origins = {each["RemoteAET"] for each in stored}
    assert origins == {"OLD"}, "none of it came from us"


@pytest.mark.parametrize("destinations", [{}, {"NEW": (peers.HOST, 9)}], ids=["unknown", "elsewhere"])
def test_what_cannot_go_straight_goes_through_us_and_that_is_said_once(
    workdir: Workdir, start, new: peers.Peer, made: list[samples.Sample], destinations: peers.Destinations
) -> None:
    old: peers.Peer = start(peers.orthanc, ae="OLD", destinations=destinations)
    old.store(sample.path for sample in made)
    done = workdir.run("push", new.locator, "--via", "move", stdin=series_of(old.locator, made))
    assert done.status == 0, done
    assert new.instances() == 20
    assert done.stderr.count("what comes from there goes through us") == 1 and "C-MOVE to NEW" in done.stderr


def test_content_that_does_not_pass_through_us_is_not_compared(workdir: Workdir) -> None:
    done = workdir.run("push", "NEW@localhost:1", "--via", "move", "--verify", "content", stdin=[])
    assert done.status == 2 and "--verify content" in done.stderr
