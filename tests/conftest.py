"""What every test may use.

Tests lie in folders named for the rooms they test (tests/wire/…), in files named for the file they test; the folders
are no packages, and pytest imports by path (`--import-mode=importlib`), so two rooms may have a test_model.py each.
The root of the repository is on the path: `from tests import peers, samples, workdir`.

A test that needs a peer is marked `slow` by its fixtures. Where the peer is not installed it is skipped with a word,
or fails if DCMSYNC_REQUIRE_PEERS=1.

    workdir                   Workdir: runs the executable in a fresh folder
    orthanc                   Orthanc as shipped, empty; one process per session
    dcmqrscp                  DCMTK's node, empty; knows DCMSYNC at `dcmqrscp_destination`
    storescp                  DCMTK's storage node
    pynetdicom_qrscp          pynetdicom's node, empty
    require                   require("zsh"): a program's path, or the test is skipped
    start                     starts any peer with options: start(peers.storescp, "--abort-during")
    start_for_module          the same, for a peer that the tests of one file share and none of them changes
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest

from tests import peers
from tests.workdir import Workdir

StartsPeer = Callable[..., AbstractContextManager[peers.Peer]]

_PEER_FIXTURES = {"orthanc", "dcmqrscp", "storescp", "pynetdicom_qrscp", "start", "start_for_module"}


class Start(Protocol):
    """Starts a peer that lives as long as the test."""

    def __call__(self, kind: StartsPeer, *options: str, **more: Any) -> peers.Peer: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow whatever uses a peer."""
    for item in items:
        if _PEER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A fresh folder to run dcmsync in."""
    path = tmp_path / "work"
    path.mkdir()
    return Workdir(path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts peers, and stops them after the test."""
    with _starting(tmp_path) as start_one:
        yield start_one


@pytest.fixture(scope="module")
def start_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts peers, and stops them after the last test of the file."""
    with _starting(tmp_path_factory.mktemp("peers")) as start_one:
        yield start_one


@pytest.fixture(scope="session")
def _orthanc_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Peer]:
    with _or_skip(peers.orthanc, tmp_path_factory.mktemp("orthanc")) as peer:
        yield peer


@pytest.fixture
def orthanc(_orthanc_of_session: peers.Peer) -> peers.Peer:
    """Orthanc as shipped, emptied. A test that stops it or needs other settings uses `start`."""
    _orthanc_of_session.clear()
    return _orthanc_of_session


@pytest.fixture
def dcmqrscp_destination() -> int:
    """The port on which the `dcmqrscp` and `pynetdicom_qrscp` of this test expect the AE DCMSYNC."""
    return peers.free_port()


@pytest.fixture
def dcmqrscp(start: Start, dcmqrscp_destination: int) -> peers.Peer:
    """DCMTK's query/retrieve node, empty."""
    return start(peers.dcmqrscp, destinations={"DCMSYNC": (peers.HOST, dcmqrscp_destination)})


@pytest.fixture
def storescp(start: Start) -> peers.Peer:
    """DCMTK's storage node."""
    return start(peers.storescp)


@pytest.fixture
def pynetdicom_qrscp(start: Start, dcmqrscp_destination: int) -> peers.Peer:
    """pynetdicom's query/retrieve node, empty."""
    return start(peers.pynetdicom_qrscp, destinations={"DCMSYNC": (peers.HOST, dcmqrscp_destination)})


@pytest.fixture
def require() -> Callable[[str], str]:
    """A function that gives a program's path; where it is missing, it skips the test or fails it, as is asked."""

    def find(program: str) -> str:
        try:
            return peers.find_program(program)
        except peers.PeerMissing as error:
            _give_up(error)

    return find


@contextmanager
def _starting(folder: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        count = 0

        def start_one(kind: StartsPeer, *options: str, **more: Any) -> peers.Peer:
            nonlocal count
            count += 1
            return stack.enter_context(_or_skip(kind, folder / f"peer{count}", *options, **more))

        yield start_one


@contextmanager
def _or_skip(kind: StartsPeer, *options: Any, **more: Any) -> Iterator[peers.Peer]:
    with ExitStack() as stack:
        try:
            peer = stack.enter_context(kind(*options, **more))
        except peers.PeerMissing as error:
            _give_up(error)
        yield peer


def _give_up(error: peers.PeerMissing) -> NoReturn:
    if os.environ.get("DCMSYNC_REQUIRE_PEERS") == "1":
        pytest.fail(f"{error}, and DCMSYNC_REQUIRE_PEERS=1")
    pytest.skip(str(error))
