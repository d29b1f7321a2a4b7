"""C-MOVE: what goes to a destination is what is there, and the requestor hears how it went."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt

from dcmsync.wire import dataset
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.upperlayer import codec
from tests import nodes, peers, samples
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


class Destination:
    """pynetdicom, taking what comes. `answer` gives the status of each instance, counted from 0."""

    def __init__(self, answer: Callable[[int, evt.Event], int]) -> None:
        self.come: list[Any] = []
        self.associations = 0
        self.port = 0
        self.has_come = threading.Event()
        self.may_go_on = threading.Event()
        self._answer = answer

    def opened(self, event: evt.Event) -> None:
        self.associations += 1

    def take(self, event: evt.Event) -> int:
        self.come.append(event.request)
        self.has_come.set()
        return self._answer(len(self.come) - 1, event)

    @property
    def option(self) -> tuple[str, str]:
        return "--destination", f"TARGET@{peers.HOST}:{self.port}"


@contextmanager
def taking(answer: Callable[[int, evt.Event], int], syntax: str = EXPLICIT_LITTLE) -> Iterator[Destination]:
    """A destination that listens."""
    destination = Destination(answer)
    node = AE("TARGET")
    node.add_supported_context(CT_IMAGE_STORAGE, syntax)
    handlers = [(evt.EVT_C_STORE, destination.take), (evt.EVT_ACCEPTED, destination.opened)]
    server = node.start_server((peers.HOST, 0), block=False, evt_handlers=handlers)
    destination.port = server.server_address[1]
    try:
        yield destination
    finally:
        destination.may_go_on.set()
        server.shutdown()


def test_the_destination_hears_who_asked(made: list[samples.Sample], tmp_path: Path) -> None:
    with taking(lambda number, event: 0) as destination:
        options = (*destination.option, "--ae", "ARCHIVE")
        with nodes.serving(tmp_path / "served", *options) as node, nodes.Caller(node.port) as caller:
            caller.associate(CONTEXTS, called="ARCHIVE", calling="MOVER")
            assert move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)[0].status == 0
    assert {(one.MoveOriginatorApplicationEntityTitle, one.MoveOriginatorMessageID) for one in destination.come} == {
        ("MOVER", 5)
    }
    assert destination.associations == 1


def test_what_the_destination_refuses_is_listed(made: list[samples.Sample], tmp_path: Path) -> None:
    codes = [0, 0xA700, 0xB000, 0xC123, 0, 0xB007]
    with (
        taking(lambda number, event: codes[number]) as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
    ):
        caller.associate(CONTEXTS)
        final, octets = move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)
        assert (final.status, final.completed, final.failed, final.warnings) == (0xB000, 2, 2, 2)
        assert failed(octets) == [destination.come[number].AffectedSOPInstanceUID for number in (1, 3)]


def test_what_nobody_takes_is_a_failure(made: list[samples.Sample], tmp_path: Path) -> None:
    with (
        taking(lambda number, event: 0, "1.2.840.10008.1.2") as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
    ):
        caller.associate(CONTEXTS)
        final, octets = move(caller, "TARGET", "SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES)
        assert (final.status, final.completed, final.failed) == (0xA702, 0, 3)
        uids = failed(octets)
        assert isinstance(uids, list) and sorted(uids) == sorted(samples.uid(1, 1, 1, n) for n in (1, 2, 3))


def test_a_destination_that_is_down_is_a_failure_with_a_word(made: list[samples.Sample], tmp_path: Path) -> None:
    port = peers.free_port()
    options = ("--destination", f"TARGET@{peers.HOST}:{port}")
    with nodes.serving(tmp_path / "served", *options) as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        final, octets = move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)
        assert (final.status, final.failed, final.error_comment) == (0xA702, 6, "TARGET: unreachable")
        assert len(failed(octets)) == 6  # type: ignore[arg-type]  # a list, when there are several
        event = node.wait_for_event(type="move")
        assert (event["sent"], event["failed"], event["reason"]) == (0, 6, "unreachable")


def test_a_destination_that_hangs_is_given_up(made: list[samples.Sample], tmp_path: Path) -> None:
    def answer(number: int, event: evt.Event) -> int:
        if number == 2:
            destination.may_go_on.wait(nodes.DEADLINE_S)
        return 0

    with (
        taking(answer) as destination,
        nodes.serving(tmp_path / "served", *destination.option, "--timeout", "1.5") as node,
        nodes.Caller(node.port) as caller,
    ):
        caller.associate(CONTEXTS)
        pending: list[Command] = []
        request = operations.move(5, operations.STUDY_ROOT_MOVE, "TARGET").request
        caller.say(1, request, dataset.encode_identifier({"StudyInstanceUID": STUDY}, "STUDY", EXPLICIT_LITTLE))
        while not pending or pending[-1].status == 0xFF00:
            pending.append(caller.hear()[0])
        assert (pending[-1].status, pending[-1].completed, pending[-1].failed) == (0xB000, 2, 4)
        assert pending[-1].error_comment == "TARGET: stalled"
        told = [(one.remaining, one.completed) for one in pending[:-1]]
        assert told and set(told) == {(4, 2)}  # meanwhile it was told that things take time


def test_a_destination_that_breaks_off_is_tried_again(made: list[samples.Sample], tmp_path: Path) -> None:
    def answer(number: int, event: evt.Event) -> int:
        if number == 2:
            event.assoc.abort()
        return 0

    with (
        taking(answer) as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
    ):
        caller.associate(CONTEXTS)
        final, octets = move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)
        assert (final.status, final.completed, final.failed) == (0xB000, 5, 1)
        assert failed(octets) == [destination.come[2].AffectedSOPInstanceUID]
        assert destination.associations == 2


def test_a_destination_that_always_breaks_off_is_not_tried_for_ever(made: list[samples.Sample], tmp_path: Path) -> None:
    def answer(number: int, event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    with (
        taking(answer) as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
    ):
        caller.associate(CONTEXTS)
        final, _ = move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)
        assert (final.status, final.failed, destination.associations) == (0xA702, 6, 1)


def test_a_move_that_is_cancelled_ends_after_what_it_is_doing(made: list[samples.Sample], tmp_path: Path) -> None:
    def answer(number: int, event: evt.Event) -> int:
        if number == 1:
            destination.may_go_on.wait(nodes.DEADLINE_S)
        return 0

    with (
        taking(answer) as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
        nodes.Caller(node.port) as witness,
    ):
        caller.associate(CONTEXTS)
        witness.associate([(operations.VERIFICATION, (EXPLICIT_LITTLE,))])
        conversation = operations.move(5, operations.STUDY_ROOT_MOVE, "TARGET")
        keys = dataset.encode_identifier({"StudyInstanceUID": STUDY}, "STUDY", EXPLICIT_LITTLE)
        caller.say(1, conversation.request, keys)
        assert caller.hear()[0].status == 0xFF00
        caller.say(1, conversation.cancel())
        witness.say(1, operations.echo(1).request)
        assert witness.hear()[0].status == 0  # what was sent before has been read
        destination.may_go_on.set()
        final = caller.hear()[0]
        while final.status == 0xFF00:
            final = caller.hear()[0]
        assert (final.status, final.completed, final.remaining) == (0xFE00, 2, 4)


# pynetdicom 3.0.4 forgets to close a socket that the other side has reset before.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("farewell", [codec.RELEASE_RQ, codec.encode_abort(codec.Abort(0, 0)), b""])
def test_a_requestor_that_leaves_ends_the_move(made: list[samples.Sample], tmp_path: Path, farewell: bytes) -> None:
    def answer(number: int, event: evt.Event) -> int:
        destination.may_go_on.wait(nodes.DEADLINE_S)
        return 0

    with (
        taking(answer) as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
    ):
        caller.associate(CONTEXTS)
        request = operations.move(5, operations.STUDY_ROOT_MOVE, "TARGET").request
        caller.say(1, request, dataset.encode_identifier({"StudyInstanceUID": STUDY}, "STUDY", EXPLICIT_LITTLE))
        assert destination.has_come.wait(nodes.DEADLINE_S)
        caller.socket.sendall(farewell)
        caller.socket.close()
        node.wait_for_event(event="closed")
        event = node.wait_for_event(type="move")
        assert (event["sent"], event["failed"]) == (0, 6)
        destination.may_go_on.set()
    assert len(destination.come) == 1


def test_a_message_while_a_move_runs_is_aborted(made: list[samples.Sample], tmp_path: Path) -> None:
    with (
        taking(lambda number, event: int(not destination.may_go_on.wait(nodes.DEADLINE_S))) as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
    ):
        caller.associate(CONTEXTS)
        request = operations.move(5, operations.STUDY_ROOT_MOVE, "TARGET").request
        keys = dataset.encode_identifier({"StudyInstanceUID": STUDY}, "STUDY", EXPLICIT_LITTLE)
        caller.socket.sendall(caller.message(1, request, keys) + caller.message(1, request, keys))
        assert caller.is_closed()
        assert node.wait_for_event(event="closed")["reason"] == "protocol"


def test_more_kinds_of_instances_than_an_association_can_carry(target: nodes.Serving, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    for number in range(130):
        sop_class_uid, sop_uid = f"2.25.1{number:03d}", samples.uid(9, number)
        pairs = ((0x00080016, sop_class_uid), (0x00080018, sop_uid), (0x0020000D, "2.25.5"), (0x0020000E, "2.25.6"))
        data_set = b"".join(samples.element(tag, b"UI", value) for tag, value in pairs)
        octets = samples.part10(data_set, sop_class_uid=sop_class_uid, sop_uid=sop_uid)
        (tmp_path / "served" / f"{number}.dcm").write_bytes(octets)
    options = ("--destination", f"TARGET@127.0.0.1:{target.port}")
    with nodes.serving(tmp_path / "served", *options) as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        final, _ = move(caller, "TARGET", "STUDY", StudyInstanceUID="2.25.5")
        assert (final.status, final.completed) == (0, 130)
    assert [target.wait_for_event(number, event="closed")["stored"] for number in (1, 2)] == [128, 2]


def test_what_is_gone_has_failed_and_the_rest_arrives(made: list[samples.Sample], tmp_path: Path) -> None:
    with (
        taking(lambda number, event: 0) as destination,
        nodes.serving(tmp_path / "served", *destination.option) as node,
        nodes.Caller(node.port) as caller,
    ):
        made[1].path.unlink()
        caller.associate(CONTEXTS)
        final, octets = move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)
        assert (final.status, final.completed, failed(octets)) == (0xB000, 5, [made[1].sop_uid])


def test_nothing_is_moved_without_an_association(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    options = ("--destination", f"TARGET@{peers.HOST}:{peers.free_port()}")
    with nodes.serving(tmp_path / "served", *options) as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        final, _ = move(caller, "TARGET", "STUDY", StudyInstanceUID="1.2.3")
        assert (final.status, final.completed, final.failed) == (0, 0, 0)


def test_destinations_of_the_configuration_are_known_by_their_title(
    made: list[samples.Sample], target: nodes.Serving, tmp_path: Path
) -> None:
    configuration = tmp_path / "config.toml"
    configuration.write_text(f"""[endpoints.broken]
locator = "dicoms://BROKEN@127.0.0.1:11112"
ca = "{tmp_path}/missing.pem"
[endpoints.folder]
locator = "./folder"
[endpoints.elsewhere]
locator = "TARGET@127.0.0.1:{target.port}"
calling = "SOMEBODY"
""")
    options = ("--config", str(configuration))
    with nodes.serving(tmp_path / "served", *options) as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        assert move(caller, "TARGET", "STUDY", StudyInstanceUID=STUDY)[0].status == 0
        assert move(caller, "BROKEN", "STUDY", StudyInstanceUID=STUDY)[0].status == 0xA801
    assert target.wait_for_event(event="opened")["calling"] == "SOMEBODY"
    assert "nothing can be sent to broken" in (tmp_path / "served.err").read_text()


# Few associations at a time


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[tuple[Destination, list[str]]]:
    """A destination that grants one association, and holds on to the first instance until it may go on."""

    def answer(number: int, event: evt.Event) -> int:
        destination.may_go_on.wait(nodes.DEADLINE_S)
        return 0

    with taking(answer) as destination:
        configuration = tmp_path / "config.toml"
        configuration.write_text(f"[endpoints.target]\nlocator = 'TARGET@{peers.HOST}:{destination.port}'\n"
                                 "max_associations = 1\n")  # fmt: skip
        yield destination, ["--config", str(configuration)]


def beginning(caller: nodes.Caller) -> "operations.Conversation":
    """A C-MOVE that has begun, and of which nothing is done yet."""
    caller.associate(CONTEXTS)
    conversation = operations.move(5, operations.STUDY_ROOT_MOVE, "TARGET")
    keys = dataset.encode_identifier({"StudyInstanceUID": STUDY}, "STUDY", EXPLICIT_LITTLE)
    caller.say(1, conversation.request, keys)
    assert caller.hear()[0].status == 0xFF00
    return conversation


def ending(caller: nodes.Caller) -> Command:
    final = caller.hear()[0]
    while final.status == 0xFF00:
        final = caller.hear()[0]
    return final


@pytest.mark.slow
def test_no_more_associations_are_opened_than_the_destination_grants(
    made: list[samples.Sample], tmp_path: Path, narrow: tuple[Destination, list[str]]
) -> None:
    destination, options = narrow
    with (
        nodes.serving(tmp_path / "served", *options) as node,
        nodes.Caller(node.port) as first,
        nodes.Caller(node.port) as second,
    ):
        beginning(first)
        beginning(second)
        assert second.hear()[0].completed == 0, "who waits for its turn hears of it"
        assert destination.associations == 1
        destination.may_go_on.set()
        assert [(each.status, each.completed) for each in (ending(first), ending(second))] == [(0, 6), (0, 6)]
        assert destination.associations == 2


@pytest.mark.slow
def test_a_move_that_waits_for_its_turn_can_be_cancelled(
    made: list[samples.Sample], tmp_path: Path, narrow: tuple[Destination, list[str]]
) -> None:
    destination, options = narrow
    with (
        nodes.serving(tmp_path / "served", *options) as node,
        nodes.Caller(node.port) as first,
        nodes.Caller(node.port) as second,
    ):
        beginning(first)
        destination.has_come.wait(nodes.DEADLINE_S)
        second.say(1, beginning(second).cancel())
        final = ending(second)
        assert (final.status, final.completed, final.remaining) == (0xFE00, 0, 6)
        destination.may_go_on.set()
        assert ending(first).completed == 6
        assert destination.associations == 1
