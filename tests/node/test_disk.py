"""A disk that hangs, or is full: who stores waits or is told, and nobody else is kept waiting."""

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from dcmsync.contract import Landed
from dcmsync.endpoints.folder.arrivals import Job
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.net.patience import Watch
from dcmsync.node.node import Node, Settings
from dcmsync.transfer.lander import Lander
from dcmsync.wire.dimse import operations
from tests import nodes, samples
from tests.samples import CT_IMAGE_STORAGE, EXPLICIT_LITTLE

pytestmark = pytest.mark.slow

CONTEXTS = [(CT_IMAGE_STORAGE, (EXPLICIT_LITTLE,)), (operations.VERIFICATION, (EXPLICIT_LITTLE,))]
ROOM = resource.RLIM_INFINITY


def data_set(sample: samples.Sample) -> bytes:
    octets = sample.path.read_bytes()
    return octets[octets.index(b"\x08\0\x05\0CS") :]


def store(caller: nodes.Caller, sample: samples.Sample) -> int | None:
    caller.say(1, operations.store(5, CT_IMAGE_STORAGE, sample.sop_uid).request, data_set(sample))
    return caller.hear()[0].status


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of a running process can be set on Linux only")
def test_what_does_not_fit_is_refused_and_stored_when_there_is_room(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses to write, as it does when that is full."""
    (tmp_path / "served").mkdir()
    large, other = samples.make_series(tmp_path / "made", instances=2, rows=512, columns=512)
    (small,) = samples.make_series(tmp_path / "small", instances=1, seed=2, rows=16, columns=16)
    with nodes.serving(tmp_path / "served", "-v") as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        for limit in (100_000, 300_000):  # before and while it is written beyond memory
            resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (limit, ROOM))
            assert store(caller, large) == 0xA700
        assert store(caller, small) == 0
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (100, ROOM))
        (tiny,) = samples.make_series(tmp_path / "tiny", instances=1, seed=3, rows=16, columns=16)
        assert store(caller, tiny) == 0xA700
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (ROOM, ROOM))
        assert [store(caller, sample) for sample in (large, other, tiny)] == [0, 0, 0]
        staged = [path for path in (tmp_path / "served").glob(".dcmsync-*/*") if path.name != "lock"]
        assert [path for path in staged if path.stat().st_size] == []
        assert node.stop() == 0
    assert len(list((tmp_path / "served").rglob("*.dcm"))) == 4


def test_a_disk_that_hangs_keeps_only_those_waiting_who_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    made = samples.make_series(tmp_path / "made", instances=8)
    hangs, goes_on = threading.Event(), threading.Event()
    land_many = Landing.land_many

    def hang(self: Landing, jobs: list[Job]) -> list[Landed]:
        hangs.set()
        assert goes_on.wait(nodes.DEADLINE_S)
        return land_many(self, jobs)

    monkeypatch.setattr(Landing, "land_many", hang)

    def script(port: int) -> None:
        with ThreadPoolExecutor(8) as pool, nodes.Caller(port) as witness:
            witness.associate(CONTEXTS)
            callers = [nodes.Caller(port) for _ in made]
            for caller in callers:
                caller.associate(CONTEXTS)
            statuses = [pool.submit(store, *pair) for pair in zip(callers, made, strict=True)]
            assert hangs.wait(nodes.DEADLINE_S)
            for _ in range(20):
                witness.say(3, operations.echo(1).request)
                assert witness.hear()[0].status == 0
            assert not any(status.done() for status in statuses)  # no success is said before it is durable
            assert not list((tmp_path / "served").rglob("*.dcm"))
            goes_on.set()
            assert [status.result(nodes.DEADLINE_S) for status in statuses] == [0] * 8
            for caller in callers:
                caller.socket.close()

    async def main() -> None:
        settings = Settings(folder=str(tmp_path / "served"), timeout_s=20.0)
        with Watch() as watch, Node(settings, watch, make_queue=Lander) as node:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(node.run)
                await anyio.to_thread.run_sync(script, node.port)
                node.stop()

    anyio.run(main)
    assert len(list((tmp_path / "served").rglob("*.dcm"))) == 8
