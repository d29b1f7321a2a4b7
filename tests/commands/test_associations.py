"""As many associations as a node grants: it allows 1, 2 or 3, says no for good, or grants fewer in mid-run."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import evt

from tests import nodes, samples
from tests.fakes.promiser import Promiser
from tests.trees import check_whole
from tests.workdir import Workdir


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """8 series of 15 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), series=8, instances=15, seed=17)


def folder_of(made: list[samples.Sample]) -> Path:
    return Path(made[0].path).parents[1]


class Limited(Promiser):
    """A node that counts what it grants and rejects; `drops_to`: what it grants once it has 20 instances."""

    def __init__(self, most: int, drops_to: int = 0) -> None:
        super().__init__(("127.0.0.1", 1), most=most)
        self.highest = self.rejected = 0
        self._open: set[int] = set()
        self._drops_to = drops_to
        self._lock = threading.Lock()
        assert self._server is not None
        self._server.bind(evt.EVT_ACCEPTED, self._accepted)
        self._server.bind(evt.EVT_REJECTED, self._refused)
        self._server.bind(evt.EVT_RELEASED, self._over)
        self._server.bind(evt.EVT_ABORTED, self._over)

    def _store(self, event: evt.Event) -> int:
        code = super()._store(event)
        if self._drops_to and len(self.stored) == 20:
            self._server.ae.maximum_associations = self._drops_to  # type: ignore[union-attr]
        if self._drops_to and len(self.stored) == 30:
            event.assoc.abort()  # who opens it again is one too many
        return code

    def _accepted(self, event: evt.Event) -> None:
        with self._lock:
            self._open.add(id(event.assoc))
            self.highest = max(self.highest, len(self._open))

    def _refused(self, _: evt.Event) -> None:
        self.rejected += 1

    def _over(self, event: evt.Event) -> None:
        with self._lock:
            self._open.discard(id(event.assoc))


@pytest.mark.slow
@pytest.mark.parametrize("granted", [1, 2, 3])
def test_a_push_uses_what_is_granted(workdir: Workdir, made: list[samples.Sample], granted: int) -> None:
    with Limited(granted) as node:
        done = workdir.run("push", node.locator, folder_of(made), "--verify", "none", "--no-cache")
    assert done.status == 0, done
    assert sorted(node.stored) == sorted(sample.sop_uid for sample in made)
    assert node.highest <= granted
    assert node.rejected <= 12, "it is not asked again and again for what it does not grant"


@pytest.mark.slow
def test_a_limit_that_drops_in_mid_push_loses_nothing(workdir: Workdir, made: list[samples.Sample]) -> None:
    with Limited(3, drops_to=1) as node:
        done = workdir.run("push", node.locator, folder_of(made), "--verify", "none", "--no-cache")
    assert done.status == 0, done
    assert set(node.stored) == {sample.sop_uid for sample in made}
    assert len(node.stored) == len(made) + 1, "what was aborted came again"
    assert node.rejected, "it was told of the new limit"


@pytest.fixture(params=[1, 2, 3])
def narrow(request: pytest.FixtureRequest, tmp_path: Path, made: list[samples.Sample]) -> Iterator[nodes.Serving]:
    """Our own node, which grants so many associations."""
    kept = tmp_path / "kept"
    kept.mkdir()
    for sample in made:
        (kept / f"{sample.sop_uid}.dcm").write_bytes(Path(sample.path).read_bytes())
    with nodes.serving(kept, "--max-associations", str(request.param)) as node:
        yield node


@pytest.mark.slow
def test_a_pull_uses_what_is_granted(workdir: Workdir, made: list[samples.Sample], narrow: nodes.Serving) -> None:
    series = dict.fromkeys((sample.study_uid, sample.series_uid) for sample in made)
    records = [
        {"type": "series", "source": narrow.locator, "StudyInstanceUID": study, "SeriesInstanceUID": uid}
        for study, uid in series
    ]
    done = workdir.run("pull", "./a", stdin=records)
    assert (done.status, done.stderr) == (0, ""), done
    check_whole(workdir.path / "a", made)
    refused = [event for event in narrow.events if event.get("event") == "refused"]
    assert len(refused) <= 10, "backs off"


@pytest.mark.slow
def test_a_rejection_for_good_fails_in_one_try(workdir: Workdir, made: list[samples.Sample], tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with nodes.serving(tmp_path / "kept", "--allow", "OTHER") as node:
        done = workdir.run("push", node.locator, folder_of(made), "--verify", "none", "--no-cache", "--force")
        refused = [event for event in node.events if event.get("event") == "refused"]
    assert done.status == 5, done
    assert 1 <= len(refused) <= 4, "one for each association that is opened at the beginning"
