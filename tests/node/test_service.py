"""The services, spoken to octet by octet: statuses, cancelling, and what a peer may not do."""

import struct
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

PLAIN = (EXPLICIT_LITTLE,)
FIND, PATIENT_FIND, GET, CT, ECHO = 1, 3, 5, 7, 9
CONTEXTS = [
    (operations.STUDY_ROOT_FIND, PLAIN), (operations.PATIENT_ROOT_FIND, PLAIN), (operations.STUDY_ROOT_GET, PLAIN),
    (CT_IMAGE_STORAGE, PLAIN), (operations.VERIFICATION, PLAIN),
]  # fmt: skip
STUDY, SERIES = samples.uid(1, 1), samples.uid(1, 1, 1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nodes.Serving]:
    folder = tmp_path_factory.mktemp("node") / "served"
    samples.make_series(folder, studies=2, series=2, instances=150, rows=2, columns=2)
    with nodes.serving(folder) as serving:
        yield serving


@pytest.fixture
def caller(node: nodes.Serving) -> Iterator[nodes.Caller]:
    with nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS, takes=(CT_IMAGE_STORAGE,))
        yield caller


def identifier(level: str, **keys: str) -> bytes:
    return dataset.encode_identifier(keys, level, EXPLICIT_LITTLE)


def find(caller: nodes.Caller, level: str, context: int = FIND, **keys: str) -> tuple[list[dict[str, object]], Command]:
    model = operations.STUDY_ROOT_FIND if context == FIND else operations.PATIENT_ROOT_FIND
    caller.say(context, operations.find(5, model).request, identifier(level, **keys))
    answers = []
    while True:
        response, octets = caller.hear()
        if response.status not in (0xFF00, 0xFF01):
            return answers, response
        answers.append({**dataset.decode_identifier(octets, EXPLICIT_LITTLE), "status": response.status})


def test_an_answer_says_what_was_asked_and_where_it_is(caller: nodes.Caller) -> None:
    answers, final = find(caller, "STUDY", StudyDate="20240202", PatientName="sample*", NumberOfStudyRelatedSeries="")
    assert final.status == 0
    assert answers == [{
        "SpecificCharacterSet": ["ISO_IR 192"], "QueryRetrieveLevel": "STUDY", "RetrieveAETitle": ["DCMSYNC"],
        "InstanceAvailability": "ONLINE", "StudyDate": "20240202", "PatientName": "Sample^Patient",
        "NumberOfStudyRelatedSeries": 2, "status": 0xFF00,
    }]  # fmt: skip


def test_a_key_that_nobody_keeps_is_ignored_and_said_so(caller: nodes.Caller) -> None:
    answers, final = find(caller, "STUDY", PatientComments="tall", StudyInstanceUID=STUDY)
    assert [answer["status"] for answer in answers] == [0xFF01] and final.status == 0


def test_patients_are_found_by_the_patient_root(caller: nodes.Caller) -> None:
    answers, _ = find(caller, "PATIENT", PATIENT_FIND, PatientID="S1*", NumberOfPatientRelatedInstances="")
    assert [(a["PatientID"], a["NumberOfPatientRelatedInstances"]) for a in answers] == [
        ("S1P0001", 300), ("S1P0002", 300),
    ]  # fmt: skip
    answers, _ = find(caller, "STUDY", PATIENT_FIND, PatientID="S1P0002", StudyInstanceUID="")
    assert [answer["StudyInstanceUID"] for answer in answers] == [samples.uid(1, 2)]


def test_what_the_hierarchy_forbids_is_refused_with_words(caller: nodes.Caller) -> None:
    answers, final = find(caller, "SERIES", Modality="CT")
    assert (answers, final.status, final.error_comment) == ([], 0xA900, "needs one StudyInstanceUID")


def test_a_find_that_is_cancelled_ends_early(caller: nodes.Caller) -> None:
    request = operations.find(5, operations.STUDY_ROOT_FIND)
    keys = identifier("IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, InstanceNumber="")
    caller.socket.sendall(
        caller.message(FIND, request.request, keys) + caller.message(FIND, request.cancel())
    )
    statuses = []
    while not statuses or statuses[-1] == 0xFF00:
        statuses.append(caller.hear()[0].status)
    assert statuses[-1] == 0xFE00 and len(statuses) < 150


def test_a_get_that_is_cancelled_ends_early(caller: nodes.Caller) -> None:
    request = operations.get(5, operations.STUDY_ROOT_GET)
    caller.socket.sendall(
        caller.message(GET, request.request, identifier("STUDY", StudyInstanceUID=STUDY))
        + caller.message(GET, request.cancel())
    )
    store, _ = caller.hear()
    assert store.field == commands.C_STORE_RQ
    caller.say(CT, operations.respond(store, 0))
    final, _ = caller.hear()
    assert (final.status, final.completed, final.remaining) == (0xFE00, 1, 299)


def test_what_the_peer_refuses_has_failed_and_is_listed(caller: nodes.Caller) -> None:
    caller.say(GET, operations.get(5, operations.STUDY_ROOT_GET).request,
               identifier("SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES))
    refused, pendings = [], 0
    while True:
        message, octets = caller.hear()
        if message.field == commands.C_STORE_RQ:
            code = 0xA700 if len(refused) < 2 else 0xB000
            if code == 0xA700:
                refused.append(message.sop_instance_uid)
            caller.say(CT, operations.respond(message, code))
        elif message.status == 0xFF00:
            pendings += 1
            assert message.remaining is not None and not octets
        else:
            break
    assert pendings == 2
    assert (message.status, message.completed, message.failed, message.warnings) == (0xB000, 0, 2, 148)
    assert dataset.decode_identifier(octets, EXPLICIT_LITTLE)["FailedSOPInstanceUIDList"] == refused


@pytest.mark.parametrize(
    "contexts, takes",
    [(CONTEXTS, ()), ([*CONTEXTS[:3], (CT_IMAGE_STORAGE, ("1.2.840.10008.1.2",))], (CT_IMAGE_STORAGE,))],
    ids=["no role", "another transfer syntax"],
)
def test_what_the_peer_cannot_take_has_failed(node: nodes.Serving, contexts: list[tuple[str, tuple[str, ...]]],
                                              takes: tuple[str, ...]) -> None:
    with nodes.Caller(node.port) as caller:
        caller.associate(contexts, takes=takes)
        keys = identifier("IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES,
                          SOPInstanceUID=samples.uid(1, 1, 1, 1) + "\\" + samples.uid(1, 1, 1, 2))
        caller.say(GET, operations.get(5, operations.STUDY_ROOT_GET).request, keys)
        final, octets = caller.hear()
    assert (final.field, final.status, final.completed, final.failed) == (commands.C_GET_RSP, 0xA702, 0, 2)
    failed = dataset.decode_identifier(octets, EXPLICIT_LITTLE)["FailedSOPInstanceUIDList"]
    assert failed == [samples.uid(1, 1, 1, 1), samples.uid(1, 1, 1, 2)]


def test_a_get_of_what_is_not_there_is_done_at_once(caller: nodes.Caller) -> None:
    caller.say(GET, operations.get(5, operations.STUDY_ROOT_GET).request, identifier("STUDY", StudyInstanceUID="1.9"))
    final, _ = caller.hear()
    assert (final.status, final.completed, final.failed) == (0, 0, 0)


def test_half_an_instance_is_not_taken(caller: nodes.Caller, node: nodes.Serving) -> None:
    octets = next(node.folder.rglob("*.dcm")).read_bytes()
    data_set = octets[octets.index(b"\x08\0\x05\0CS") : -3]
    caller.say(CT, operations.store(5, CT_IMAGE_STORAGE, samples.uid(1, 1, 1, 1)).request, data_set)
    assert caller.hear()[0].status == 0xC000


def test_an_instance_that_is_another_is_not_taken(caller: nodes.Caller, node: nodes.Serving) -> None:
    octets = next(node.folder.rglob("*.dcm")).read_bytes()
    caller.say(CT, operations.store(5, CT_IMAGE_STORAGE, "1.2.3").request, octets[octets.index(b"\x08\0\x05\0CS") :])
    assert caller.hear()[0].status == 0xA900


def test_a_cancel_of_nothing_is_passed_over(caller: nodes.Caller) -> None:
    caller.say(FIND, commands.cancel(77))
    caller.say(ECHO, operations.echo(5).request)
    assert caller.hear()[0].status == 0


@pytest.mark.parametrize(
    "context, field, status", [(ECHO, 0x0100, 0x0211), (GET, commands.C_MOVE_RQ, 0x0122), (CT, 0x0020, 0x0122)]
)
def test_what_is_not_served_is_refused_and_the_association_goes_on(
    caller: nodes.Caller, context: int, field: int, status: int
) -> None:
    caller.say(context, Command(field=field, message_id=5, has_data_set=True, sop_class_uid="1.2"), b"abcd" * 10_000)
    response, _ = caller.hear()
    assert (response.field, response.responding_to, response.status) == (field | 0x8000, 5, status)
    caller.say(ECHO, operations.echo(6).request)
    assert caller.hear()[0].status == 0


@pytest.mark.parametrize(
    "context, command, data",
    [
        (ECHO, operations.respond(operations.echo(5).request, 0), None),
        (ECHO, Command(field=commands.C_ECHO_RQ), None),
        (99, operations.echo(5).request, None),
        (CT, operations.store(5, operations.VERIFICATION, "1.2").request, b"ab"),
        (ECHO, Command(field=commands.C_STORE_RQ, message_id=5, sop_class_uid=operations.VERIFICATION), None),
    ],
    ids=["a response", "no message id", "no such context", "another class", "no data set"],
)
def test_what_no_peer_may_send_is_aborted(
    caller: nodes.Caller, node: nodes.Serving, context: int, command: Command, data: bytes | None
) -> None:
    caller.say(context, command, data)
    assert caller.pdu()[:1] == b"\x07"
    with nodes.Caller(node.port) as another:
        another.associate(CONTEXTS)
        another.say(ECHO, operations.echo(6).request)
        assert another.hear()[0].status == 0


@pytest.mark.parametrize("octets", [None, b"abcd"])
def test_a_message_within_a_retrieval_is_aborted(caller: nodes.Caller, octets: bytes | None) -> None:
    caller.say(GET, operations.get(5, operations.STUDY_ROOT_GET).request, identifier("STUDY", StudyInstanceUID=STUDY))
    caller.hear()
    caller.say(ECHO, Command(field=0x0030, message_id=6, has_data_set=octets is not None), octets)
    assert caller.pdu()[:1] == b"\x07"


def test_half_an_instance_is_cleared_away_when_its_sender_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    with nodes.serving(folder) as node:
        with nodes.Caller(node.port) as caller:
            caller.associate(CONTEXTS)
            pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 8 << 20) + bytes(4 << 20)
            caller.socket.sendall(
                caller.message(CT, operations.store(5, CT_IMAGE_STORAGE, "1.2").request, pixels)[:-100]
            )
        assert node.wait_for_event(event="closed")["reason"] == "disconnected"
        (staging,) = folder.iterdir()
        assert [path.name for path in staging.iterdir()] == ["lock"]


def test_an_identifier_that_is_too_large_is_aborted(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    with nodes.serving(folder) as node, nodes.Caller(node.port) as caller:
        caller.associate(CONTEXTS)
        try:
            caller.say(FIND, operations.find(5, operations.STUDY_ROOT_FIND).request, bytes(20 << 20))
        except ConnectionError:
            pass
        assert node.wait_for_event(event="closed")["reason"] == "protocol"


def test_three_at_once_are_served_in_turn(node: nodes.Serving) -> None:
    with nodes.Caller(node.port) as first, nodes.Caller(node.port) as second, nodes.Caller(node.port) as third:
        for caller in (first, second, third):
            caller.associate(CONTEXTS, takes=(CT_IMAGE_STORAGE,))
        first.say(GET, operations.get(5, operations.STUDY_ROOT_GET).request,
                  identifier("STUDY", StudyInstanceUID=STUDY))
        held, _ = first.hear()  # a sub-operation that waits for us
        assert len(find(second, "STUDY", StudyInstanceUID="")[0]) == 2
        octets = next(node.folder.rglob("*.dcm")).read_bytes()
        third.say(CT, operations.store(5, CT_IMAGE_STORAGE, samples.uid(1, 1, 1, 1)).request,
                  octets[octets.index(b"\x08\0\x05\0CS") :])
        assert third.hear()[0].status in (0, 0xA900)
        first.say(CT, operations.respond(held, 0))
        assert first.hear()[0].field == commands.C_STORE_RQ
