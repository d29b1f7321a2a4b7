"""C-MOVE: what goes to a destination is what is there, and the requestor hears how it went."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dcmsync.wire import dataset
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from dcmsync.wire.dimse.command import Command
from tests import nodes, samples
from tests.samples import CT_IMAGE_STORAGE, EXPLICIT_LITTLE

pytestmark = pytest.mark.slow

MOVE, PATIENT_MOVE = 1, 3
CONTEXTS = [(operations.STUDY_ROOT_MOVE, (EXPLICIT_LITTLE,)), (operations.PATIENT_ROOT_MOVE, (EXPLICIT_LITTLE,))]
STUDY, SERIES = samples.uid(1, 1), samples.uid(1, 1, 1)


@pytest.fixture
def made(tmp_path: Path) -> list[samples.Sample]:
    return list(samples.make_series(tmp_path / "served", studies=2, series=2, instances=3, rows=2, columns=2))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[nodes.Serving]:
    (tmp_path / "target").mkdir()
    with nodes.serving(tmp_path / "target", "--ae", "TARGET", "--timeout", "5") as serving:
        yield serving


def move(caller: nodes.Caller, destination: str, level: str, context: int = MOVE, **keys: str) -> tuple[Command, bytes]:
    """The final response to a C-MOVE, and its identifier."""
    request = operations.move(5, CONTEXTS[context // 2][0], destination).request
    caller.say(context, request, dataset.encode_identifier(keys, level, EXPLICIT_LITTLE))
    while True:
        response, octets = caller.hear()
        assert response.field == commands.C_MOVE_RSP and response.responding_to == 5
        if response.status != 0xFF00:
            return response, octets


def failed(octets: bytes) -> object:
    return dataset.decode_identifier(octets, EXPLICIT_LITTLE)["FailedSOPInstanceUIDList"]


def test_what_is_moved_arrives_as_it_is(made: list[samples.Sample], target: nodes.Serving, tmp_path: Path) -> None:
    options = ("--destination", f"TARGET@127.0.0.1:{target.port}")
    with nodes.serving(tmp_path / "served", *options) as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        final, _ = move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)
        assert (final.status, final.completed, final.failed, final.warnings) == (0, 6, 0, 0)
        final, _ = move(caller, "TARGET", "PATIENT", PATIENT_MOVE, PatientID="S1P0002")
        assert (final.status, final.completed) == (0, 6)
        assert node.wait_for_event(2, type="move") == {
            "type": "move", "calling": "CALLER", "destination": "TARGET", "sent": 6, "failed": 0,
        }  # fmt: skip
    there = {path.read_bytes()[-100:] for path in (tmp_path / "target").rglob("*.dcm")}
    assert there == {sample.path.read_bytes()[-100:] for sample in made}
    assert target.wait_for_event(event="opened")["calling"] == "DCMSYNC"


def test_a_destination_that_nobody_knows_is_refused(made: list[samples.Sample], tmp_path: Path) -> None:
    with nodes.serving(tmp_path / "served") as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        final, _ = move(caller, "NOWHERE", "STUDY", StudyInstanceUID=STUDY)
        assert (final.status, final.error_comment) == (0xA801, "move destination unknown")
        assert node.wait_for_event(type="move")["reason"] == "unknown"
