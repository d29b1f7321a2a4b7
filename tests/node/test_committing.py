"""Storage commitment: what is said to be kept was read just then, and the requestor hears it wherever it is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from dcmsync.net.association import Peer
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.node import committing
from dcmsync.node.archive import Archive
from dcmsync.node.moving import Destination, Route
from dcmsync.transfer.lander import Lander
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import commitment, operations
from dcmsync.wire.dimse.commitment import Reference, Request
from dcmsync.wire.upperlayer import codec
from tests import nodes, peers, samples
from tests.samples import CT_IMAGE_STORAGE, EXPLICIT_LITTLE

pytestmark = pytest.mark.slow

CONTEXTS = [(commitment.PUSH_MODEL, (EXPLICIT_LITTLE,)), (operations.VERIFICATION, (EXPLICIT_LITTLE,))]


@pytest.fixture
def made(tmp_path: Path) -> list[samples.Sample]:
    return list(samples.make_series(tmp_path / "served", instances=5, rows=2, columns=2))


def asking(*uids: str, sop_class_uid: str = CT_IMAGE_STORAGE) -> Request:
    return Request(transaction_uid="2.25.7", instances=tuple(Reference(sop_class_uid, uid) for uid in uids))


def ask(caller: nodes.Caller, request: Request, **changes: Any) -> commands.Command:
    """The answer to N-ACTION."""
    action = commitment.action(3).request
    values = {name: changes.get(name, getattr(action, name)) for name in action.__struct_fields__}
    caller.say(1, commands.Command(**values), commitment.encode_request(request, EXPLICIT_LITTLE))
    answer, _ = caller.hear()
    assert (answer.field, answer.responding_to) == (0x8130, 3)
    return answer


def hear(caller: nodes.Caller, code: int = 0) -> commitment.Report:
    """The result, which is then answered."""
    event, octets = caller.hear()
    assert (event.field, event.sop_class_uid, event.sop_instance_uid) == (
        0x0100, commitment.PUSH_MODEL, commitment.PUSH_MODEL_INSTANCE,
    )  # fmt: skip
    caller.say(1, operations.respond(event, code))
    report = commitment.decode_report(octets, EXPLICIT_LITTLE)
    assert event.event_type_id == report.event_type_id
    return report


def test_what_is_kept_is_told_on_the_same_association(made: list[samples.Sample], tmp_path: Path) -> None:
    with nodes.serving(tmp_path / "served") as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        request = asking(*(sample.sop_uid for sample in made))
        assert ask(caller, request).status == 0
        report = hear(caller)
        assert (report.transaction_uid, report.kept, report.failed) == ("2.25.7", request.instances, ())
        assert node.wait_for_event(type="commitment") == {
            "type": "commitment", "event": "told", "calling": "CALLER", "kept": 5, "failed": 0,
        }  # fmt: skip


def test_what_is_not_there_whole_is_not_kept(made: list[samples.Sample], tmp_path: Path) -> None:
    with nodes.serving(tmp_path / "served") as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        made[0].path.unlink()
        made[1].path.write_bytes(made[1].path.read_bytes()[:-1])
        made[2].path.write_bytes(made[3].path.read_bytes())
        uids = [sample.sop_uid for sample in made]
        assert ask(caller, asking(*uids, "1.2.3")).status == 0
        report = hear(caller)
        assert [(one.sop_instance_uid, one.reason) for one in report.failed] == [
            (uid, 0x0112) for uid in (*uids[:3], "1.2.3")
        ]
        assert [one.sop_instance_uid for one in report.kept] == uids[3:]
        assert ask(caller, asking(uids[4], sop_class_uid="1.2.840.10008.5.1.4.1.1.4")).status == 0
        assert [one.reason for one in hear(caller).failed] == [0x0119]


@pytest.mark.parametrize(
    "changes, code",
    [({"action_type_id": 2}, 0x0123), ({"action_type_id": None}, 0x0123),
     ({"requested_sop_instance_uid": "1.2.3"}, 0x0112)],
)  # fmt: skip
def test_what_is_no_request_for_commitment_is_refused(tmp_path: Path, changes: dict[str, Any], code: int) -> None:
    (tmp_path / "served").mkdir()
    with nodes.serving(tmp_path / "served") as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        assert ask(caller, asking("1.2.3"), **changes).status == code
        caller.say(1, commitment.action(3).request, b"\x08\0\x95\x11UI\xff\xff")
        assert caller.hear()[0].status == 0x0115
        assert ask(caller, asking("1.2.3")).status == 0
        assert len(hear(caller).failed) == 1


def test_an_answer_that_comes_between_is_heard(made: list[samples.Sample], tmp_path: Path) -> None:
    with nodes.serving(tmp_path / "served") as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        assert ask(caller, asking(made[0].sop_uid)).status == 0
        event, _ = caller.hear()
        caller.say(3, operations.echo(9).request)
        assert caller.hear()[0].field == commands.C_ECHO_RSP
        caller.say(1, operations.respond(event, 0))
        assert node.wait_for_event(type="commitment")["event"] == "told"
        caller.say(1, operations.respond(event, 0))
        assert caller.is_closed()
        assert node.wait_for_event(event="closed")["reason"] == "protocol"


class Requestor:
    """pynetdicom, waiting to be told. `statuses` are its answers, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.told: list[Any] = []
        self.come = threading.Event()
        self._statuses = list(statuses)

    def hear(self, event: evt.Event) -> tuple[int, None]:
        self.told.append(event.event_information)
        self.come.set()
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0], None


@contextmanager
def waiting(requestor: Requestor) -> Iterator[int]:
    """The port where it waits."""
    node = AE("REQUESTOR")
    node.add_supported_context(StorageCommitmentPushModel, EXPLICIT_LITTLE, scu_role=False, scp_role=True)
    server = node.start_server((peers.HOST, 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, requestor.hear)])
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_who_has_left_is_told_on_an_association_of_ours(made: list[samples.Sample], tmp_path: Path) -> None:
    requestor = Requestor(0)
    with waiting(requestor) as port:
        options = ("--destination", f"REQUESTOR@{peers.HOST}:{port}")
        with nodes.serving(tmp_path / "served", *options) as node:
            with nodes.Caller(node.port) as caller:
                caller.associate(CONTEXTS, calling="REQUESTOR")
                assert ask(caller, asking(made[0].sop_uid, "1.2.3")).status == 0
                caller.socket.sendall(codec.RELEASE_RQ)
                assert caller.pdu() == codec.RELEASE_RP
            assert requestor.come.wait(nodes.DEADLINE_S)
            assert node.wait_for_event(type="commitment")["event"] == "told"
    (told,) = requestor.told
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [made[0].sop_uid]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in told.FailedSOPSequence] == [
        ("1.2.3", 0x0112)
    ]


def test_who_is_known_is_not_told_before_it_had_the_time_to_leave(made: list[samples.Sample], tmp_path: Path) -> None:
    with waiting(Requestor(0)) as port:
        options = ("--destination", f"REQUESTOR@{peers.HOST}:{port}")
        with nodes.serving(tmp_path / "served", *options) as node, nodes.Caller(node.port) as caller:
            caller.associate(CONTEXTS, calling="REQUESTOR")
            assert ask(caller, asking(made[0].sop_uid)).status == 0
            caller.socket.settimeout(0.5)
            with pytest.raises(TimeoutError):
                caller.socket.recv(1)
            caller.socket.settimeout(nodes.DEADLINE_S)
            assert len(hear(caller).kept) == 1  # it stayed


def test_who_cannot_be_told_is_named(made: list[samples.Sample], tmp_path: Path) -> None:
    with nodes.serving(tmp_path / "served") as node:
        with nodes.Caller(node.port) as caller:
            caller.associate(CONTEXTS)
            caller.socket.sendall(
                caller.message(1, commitment.action(3).request,
                               commitment.encode_request(asking(made[0].sop_uid), EXPLICIT_LITTLE)) + codec.RELEASE_RQ
            )  # fmt: skip
            assert caller.is_closed()
        event = node.wait_for_event(type="commitment")
        assert (event["event"], event["reason"]) == ("untold", "unreachable")


def pledged(tmp_path: Path, port: int, *, references: int = 1) -> list[dict[str, object]]:
    """The events of a commitment that is to be told at `port`."""
    said: list[dict[str, object]] = []

    async def main() -> None:
        archive = Archive(str(tmp_path), make_queue=Lander, warn=lambda text: None)
        with Watch() as watch:
            peer = Peer(host=peers.HOST, port=port, called_ae="REQUESTOR", calling_ae="DCMSYNC")
            routes = {"REQUESTOR": Route(Destination(peer=peer), watch, Limits(timeout_s=5))}
            commitments = committing.Commitments(archive, routes, lambda event: said.append(dict(event)))
            async with anyio.create_task_group() as tasks:
                commitments.start(tasks)
                pledge = commitments.begin(asking(*["1.2.3"] * references), "REQUESTOR")
                if pledge is None:
                    said.append({"event": "refused"})
                else:
                    commitments.deliver(pledge)
        archive.close()

    anyio.run(main)
    return said


def test_it_is_told_again_until_it_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "_TRIES_AFTER_S", (0.0, 0.01, 0.01, 0.01))
    requestor = Requestor(0x0110, 0x0110, 0)
    with waiting(requestor) as port:
        (said,) = pledged(tmp_path, port)
    assert said["event"] == "told" and len(requestor.told) == 3


def test_it_is_told_a_few_times_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "_TRIES_AFTER_S", (0.0, 0.01, 0.01, 0.01))
    requestor = Requestor(0x0110)
    with waiting(requestor) as port:
        (said,) = pledged(tmp_path, port)
    assert (said["event"], said["reason"]) == ("untold", "rejected") and len(requestor.told) == 4
    (said,) = pledged(tmp_path, port)  # nobody listens there any more
    assert (said["event"], said["reason"]) == ("untold", "unreachable")


def test_no_more_is_pledged_than_can_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "MAX_REFERENCES", 10)
    assert pledged(tmp_path, 1, references=11) == [{"event": "refused"}]
