"""A client of `endpoints.dimse` against peers that hang, lie, flood and leave: each ends in time, with its own name.

Every case also holds that nothing stays behind: no thread, no descriptor. Deadlines are a second here, and a case must
end within three of them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.contract import Ask, Attributes, Ending, Level, Want
from dcmsync.endpoints.dimse.place import DimseNode
from dcmsync.errors import Disconnected, PeerError, Refused, Rejected, RemoteProtocolError, Stalled, Unreachable
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.wire import dataset
from dcmsync.wire.dimse import operations
from dcmsync.wire.upperlayer import codec
from tests.fakes import scripted
from tests.fakes.scripted import PENDING, SUCCESS, Scripted, Talk, answer, fragment, instance, message
from tests.fakes.taker import Taker

DEADLINE_S = 1.0
dataset.tag_of("PatientID")  # loads the dictionary, which no deadline should have to wait for
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = scripted.EXPLICIT
WANTED = {f"1.2.3.{n}": CT for n in range(10)}
WANT = Want(study_uid="1.2", series_uid="1.2.3", instances=WANTED)
ASK = Ask(level=Level.STUDY, keys={"StudyInstanceUID": ""})
GET, FIND = operations.STUDY_ROOT_GET, operations.STUDY_ROOT_FIND
Script = Callable[[Talk], None]

pytestmark = pytest.mark.slow


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@contextmanager
def in_time_and_leaving_nothing(deadlines: float = 3) -> Iterator[None]:
    threads, open_before, begun = set(threading.enumerate()), descriptors(), time.monotonic()
    try:
        yield
    finally:
        assert time.monotonic() - begun < deadlines * DEADLINE_S
        assert set(threading.enumerate()) <= threads
        assert len(descriptors()) <= len(open_before)


def node_of(server: Scripted, watch: Watch, **limits: Any) -> DimseNode:
    return DimseNode(server.peer, limits=Limits(**{"timeout_s": DEADLINE_S, **limits}), watch=watch)


def client(server: Scripted, operation: Callable[[Any], Any], **limits: Any) -> Any:
    """Runs one operation in a session, in an event loop of its own."""

    async def main() -> Any:
        with Watch() as watch:
            async with node_of(server, watch, **limits).session() as session:
                return await operation(session)

    return anyio.run(main)


async def find_all(session: Any, ask: Ask = ASK) -> list[Attributes | Ending]:
    return [answer async for answer in session.find(ask)]


def fetch_into(taker: Taker, want: Want = WANT) -> Callable[[Any], Any]:
    async def fetch(session: Any) -> Ending:
        ending: Ending = await session.fetch(want, taker)
        return ending

    return fetch


def run(script: Script, operation: Callable[[Any], Any], *, deadlines: float = 3, **limits: Any) -> Any:
    """What the operation gives against a peer with that script; in time, and leaving nothing behind."""
    with in_time_and_leaving_nothing(deadlines), Scripted(script) as server:
        return client(server, operation, **limits)


def fails(
    script: Script, operation: Callable[[Any], Any], kind: type[PeerError], words: str, **limits: Any
) -> PeerError:
    with pytest.raises(kind, match=words) as caught:
        run(script, operation, **limits)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("SCRIPTED@127.0.0.1:"), "a message names its place"
    return caught.value


def study(uid: str, syntax: str = EXPLICIT) -> bytes:
    return dataset.encode_values({"StudyInstanceUID": uid, "PatientID": "P"}, "STUDY", syntax)


# Scripts: each begins at the connection; those after the association take what was asked


def asked(then: Callable[[Talk, int, operations.Command], None]) -> Script:
    """A script that accepts, reads one request, and goes on with `then`."""

    def script(talk: Talk) -> None:
        talk.accept()
        context_id, request, _ = talk.read_message()
        then(talk, context_id, request)

    return script


def replying(talk: Talk) -> None:
    """Takes the client's reply to a sub-operation."""
    talk.read_message()


def silent(talk: Talk) -> None:
    talk.hold()


def silent_after_accept(talk: Talk) -> None:
    talk.accept()
    talk.hold()


def stops_in_a_header(talk: Talk, context_id: int, request: operations.Command) -> None:
    talk.send(b"\4\0\0")
    talk.hold()


def stops_in_a_pdu(talk: Talk, context_id: int, request: operations.Command) -> None:
    talk.send(answer(context_id, request, PENDING, study("1.2"))[:-5])
    talk.hold()


def drips_a_pdu(talk: Talk, context_id: int, request: operations.Command) -> None:
    talk.send(b"\4\0\0\x10\0\0" + b"\0\x0f\0\0" + bytes((context_id, 1)))
    for _ in talk.for_ever(every_s=0.005):
        talk.send(b"\0")


def drips_an_association_pdu(talk: Talk) -> None:
    talk.read_pdu()
    talk.send(b"\2\0\0\x0f\0\0")
    for _ in talk.for_ever(every_s=0.005):
        talk.send(b"\0")


def drips_a_wanted_instance(talk: Talk, context_id: int, request: operations.Command) -> None:
    storage = talk.context_of(CT)
    begun = instance(storage, CT, "1.2.3.0")
    talk.send(begun[: -64 - 12])  # the command, without its data set
    for _ in talk.for_ever(every_s=0.01):  # 200 octets a second, in legal PDUs
        talk.send(fragment(storage, b"ab"))


def the_same_answer_for_ever(talk: Talk, context_id: int, request: operations.Command) -> None:
    octets = answer(context_id, request, PENDING, study("1.2")) * 20
    for _ in talk.for_ever():
        talk.send(octets)


def pending_without_counts_for_ever(talk: Talk, context_id: int, request: operations.Command) -> None:
    for _ in talk.for_ever(every_s=0.005):
        talk.send(answer(context_id, request, PENDING))


def pending_with_zero_counts_for_ever(talk: Talk, context_id: int, request: operations.Command) -> None:
    for _ in talk.for_ever(every_s=0.005):
        talk.send(answer(context_id, request, PENDING, remaining=0, completed=0, failed=0, warnings=0))


def pending_with_rising_counts_for_ever(talk: Talk, context_id: int, request: operations.Command) -> None:
    for turn in talk.for_ever(every_s=0.005):
        talk.send(answer(context_id, request, PENDING, remaining=turn % 0xFFFF, completed=turn % 0xFFFF))


def an_identifier_that_never_ends_and_stalls(talk: Talk, context_id: int, request: operations.Command) -> None:
    talk.send(message(context_id, operations.respond(request, PENDING, has_data_set=True), b"junk", is_last=False))
    talk.hold()


def an_identifier_that_never_ends(talk: Talk, context_id: int, request: operations.Command) -> None:
    talk.send(message(context_id, operations.respond(request, PENDING, has_data_set=True), b"junk", is_last=False))
    for _ in talk.for_ever():
        talk.send(fragment(context_id, bytes(16000)))


def an_instance_that_never_ends(uid: str) -> Script:
    def then(talk: Talk, context_id: int, request: operations.Command) -> None:
        storage = talk.context_of(CT)
        talk.send(message(storage, operations.store(1, CT, uid).request, bytes(1000), is_last=False))
        for _ in talk.for_ever():
            talk.send(fragment(storage, bytes(16000)))

    return asked(then)


def an_instance_that_stalls(talk: Talk, context_id: int, request: operations.Command) -> None:
    talk.send(message(talk.context_of(CT), operations.store(1, CT, "1.2.3.0").request, bytes(1000), is_last=False))
    talk.hold()


def strangers_for_ever(talk: Talk, context_id: int, request: operations.Command) -> None:
    storage = talk.context_of(CT)
    for turn in talk.for_ever():
        talk.send(instance(storage, CT, f"9.9.{turn + 1}", 5000))
        replying(talk)


@pytest.mark.parametrize(
    "script",
    [
        silent,
        silent_after_accept,
        drips_an_association_pdu,
        asked(stops_in_a_header),
        asked(stops_in_a_pdu),
        asked(drips_a_pdu),
        asked(the_same_answer_for_ever),
        asked(an_identifier_that_never_ends_and_stalls),
    ],
    ids=lambda script: getattr(script, "__name__", ""),
)
def test_a_query_that_gets_nowhere_ends_at_its_deadline(script: Script) -> None:
    fails(script, find_all, Stalled, "no progress for 1 s")


@pytest.mark.parametrize(
    "then",
    [
        stops_in_a_pdu,
        drips_a_wanted_instance,
        pending_without_counts_for_ever,
        pending_with_zero_counts_for_ever,
        pending_with_rising_counts_for_ever,
        an_instance_that_stalls,
        strangers_for_ever,
    ],
    ids=lambda then: then.__name__,
)
def test_a_retrieval_that_gets_nowhere_ends_at_its_deadline(then: Callable[..., None]) -> None:
    taker = Taker(WANTED)
    fails(asked(then), fetch_into(taker), Stalled, "no progress for 1 s")
    assert taker.arrived == []


def test_a_stranger_that_never_ends_is_no_progress() -> None:
    fails(an_instance_that_never_ends("9.9.9"), fetch_into(Taker(WANTED)), Stalled, "no progress")


def test_an_instance_that_never_ends_is_refused_at_the_cap_and_discarded() -> None:
    taker = Taker(WANTED)
    script = an_instance_that_never_ends("1.2.3.0")
    fails(script, fetch_into(taker), RemoteProtocolError, "more than 1,048,576 octets", max_instance_octets=1 << 20)
    assert (taker.arrived, taker.discarded) == ([], 1)


def test_an_identifier_that_never_ends_is_refused_at_the_cap() -> None:
    script = asked(an_identifier_that_never_ends)
    fails(script, find_all, RemoteProtocolError, "identifier of more than 65,536 octets", max_identifier_octets=1 << 16)


def test_new_answers_without_end_are_refused_at_the_cap() -> None:
    def many(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(b"".join(answer(context_id, request, PENDING, study(f"1.2.{turn}")) for turn in range(20)))
        silent(talk)

    fails(asked(many), find_all, RemoteProtocolError, "gave more than 10 answers", max_answers=10)


def test_a_peer_that_progresses_for_ever_ends_with_the_association() -> None:
    def new_answers_for_ever(talk: Talk, context_id: int, request: operations.Command) -> None:
        for turn in talk.for_ever(every_s=0.02):
            talk.send(answer(context_id, request, PENDING, study(f"1.2.{turn + 1}")))

    fails(asked(new_answers_for_ever), find_all, Stalled, "longer than allowed", association_s=2 * DEADLINE_S)


def test_announcing_2_gib_is_refused_at_once() -> None:
    def announces(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(b"\4\0\x80\0\0\0")
        for _ in talk.for_ever(every_s=0.005):
            talk.send(b"\0")

    begun = time.monotonic()
    fails(asked(announces), find_all, RemoteProtocolError, "2,147,483,648 octets")
    assert time.monotonic() - begun < DEADLINE_S


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"responding_to": 77}, "answered message 77 when asked"),
        ({"field": 0x8030}, "answered C-FIND with command 0x8030"),
        ({"status": None}, "without a status"),
    ],
)
def test_an_answer_to_something_else_ends_the_association(changes: dict[str, object], words: str) -> None:
    aborts: list[int] = []

    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, SUCCESS, **changes))
        aborts.append(talk.read_pdu()[0])

    fails(asked(script), find_all, RemoteProtocolError, words)
    assert aborts == [7]


def test_answers_after_the_final_one_are_refused() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, SUCCESS), answer(context_id, request, PENDING, study("1.2")))
        talk.hold()

    fails(asked(script), find_all, RemoteProtocolError, "again after its final answer")


def test_an_instance_in_answer_to_a_query_is_refused() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(instance(context_id, CT, "1.2.3.0"))
        talk.hold()

    fails(asked(script), find_all, RemoteProtocolError, "answered C-FIND with command 0x0001")


@pytest.mark.parametrize("uid", ["1.2\\1.3", "", "1.2\0x"])
def test_an_odd_uid_in_an_answer_is_an_answer(uid: str) -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, PENDING, study(uid)), answer(context_id, request, SUCCESS))
        talk.release()

    *answers, ending = run(asked(script), find_all)
    assert len(answers) == 1 and ending == Ending()


def test_an_identifier_that_is_no_data_set_is_refused() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, PENDING, b"\xff" * 40))
        talk.hold()

    fails(asked(script), find_all, RemoteProtocolError, "no data set")


@pytest.mark.parametrize("only", [[1, 3], [1]], ids=["storage refused", "C-GET refused"])
def test_an_instance_on_a_context_that_was_not_accepted_is_refused(only: list[int]) -> None:
    def script(talk: Talk) -> None:
        talk.accept(only=only)
        context_id, _, _ = talk.read_message()
        assert context_id == 3
        talk.send(instance(talk.context_of(CT), CT, "1.2.3.0"))
        talk.hold()

    if only == [1]:
        says = "accepts no presentation context for 1.2.840.10008.5.1.4.1.2.2.3"
        fails(script, fetch_into(Taker(WANTED)), Rejected, says)
    else:
        fails(script, fetch_into(Taker(WANTED)), RemoteProtocolError, "a presentation context that was not accepted")


def test_an_instance_of_another_class_than_its_context_is_refused() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(instance(talk.context_of(CT), MR, "1.2.3.0"))
        talk.hold()

    fails(asked(script), fetch_into(Taker(WANTED)), RemoteProtocolError, "another SOP class")


def test_success_with_nothing_sent_is_only_the_peers_word() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, SUCCESS, completed=10, failed=0, warnings=0))
        talk.release()

    taker = Taker(WANTED)
    assert run(asked(script), fetch_into(taker)) == Ending()
    assert taker.arrived == []


@pytest.mark.parametrize("status", [0xFE00, 0xA702, 0xB000, 0xC001])
def test_a_retrieval_that_failed_says_its_status(status: int) -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, status))
        talk.release()

    ending = run(asked(script), fetch_into(Taker(WANTED)))
    assert ending.status == status
    assert ending.why.startswith(f"0x{status:04X}")


@pytest.mark.parametrize("status", [0xFE00, 0xA700])
def test_a_query_that_was_cut_short_says_so(status: int) -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, PENDING, study("1.2")), answer(context_id, request, status))
        talk.release()

    first, ending = run(asked(script), find_all)
    assert first["StudyInstanceUID"] == "1.2"
    assert (ending.status, ending.truncated) == (status, True)


def test_a_query_that_was_refused_says_its_status() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, 0xA900))
        talk.release()

    error = fails(asked(script), find_all, Refused, "the query was refused: 0xA900")
    assert isinstance(error, Refused) and error.status == 0xA900


# Leaving

ABORT = codec.encode_abort(codec.Abort(2, 0))


def leaves(how: str, talk: Talk, before: bytes = b"") -> None:
    if how == "abort":
        talk.send(before, ABORT)
        talk.hold()
    elif how == "release":
        talk.send(before, codec.RELEASE_RQ)
        talk.hold()
    elif how == "reset":
        talk.send(before)
        talk.reset()
    else:
        talk.send(before)


@pytest.mark.parametrize("how", ["abort", "reset", "close"])
def test_leaving_instead_of_accepting(how: str) -> None:
    def script(talk: Talk) -> None:
        talk.read_pdu()
        leaves(how, talk)

    kind, words = (Rejected, "aborted") if how == "abort" else (Disconnected, "connection")
    fails(script, find_all, kind, words)


@pytest.mark.parametrize(
    ("phase", "how"),
    [
        *product(("accepted", "asked", "after an answer"), ("abort", "reset", "close", "release")),
        *product(("with the acceptance",), ("abort", "release")),
        *product(("in an answer",), ("reset", "close")),
    ],
)
def test_leaving_during_a_query(phase: str, how: str) -> None:
    def script(talk: Talk) -> None:
        if phase == "with the acceptance":
            talk.accept(then=ABORT if how == "abort" else codec.RELEASE_RQ)
            talk.hold()
            return
        talk.accept()
        if phase == "accepted":
            leaves(how, talk)
            return
        context_id, request, _ = talk.read_message()
        first = answer(context_id, request, PENDING, study("1.2"))
        leaves(how, talk, {"asked": b"", "after an answer": first, "in an answer": first[:-4]}[phase])

    fails(script, find_all, Disconnected, "peer|connection")


@pytest.mark.parametrize("how", ["abort", "reset", "close", "release"])
@pytest.mark.parametrize("phase", ["asked", "in an instance", "with an instance", "after an instance"])
def test_leaving_during_a_retrieval(how: str, phase: str) -> None:
    def script(talk: Talk) -> None:
        talk.accept()
        talk.read_message()
        storage = talk.context_of(CT)
        whole = instance(storage, CT, "1.2.3.0")
        part = message(storage, operations.store(1, CT, "1.2.3.0").request, bytes(100), is_last=False)
        if phase == "after an instance":
            talk.send(whole)
            replying(talk)
        leaves(how, talk, {"in an instance": part, "with an instance": whole}.get(phase, b""))

    taker = Taker(WANTED)
    fails(script, fetch_into(taker), Disconnected, "peer|connection")
    if how != "reset":  # by RST the kernel may drop what came
        assert taker.arrived == (["1.2.3.0"] if phase in ("with an instance", "after an instance") else [])
        assert taker.discarded == (1 if phase == "in an instance" else 0)


def test_a_peer_that_never_answers_the_release_is_left() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, SUCCESS))
        talk.hold()

    assert run(asked(script), find_all) == [Ending()]


def test_a_release_collision_ends_well() -> None:
    def script(talk: Talk, context_id: int, request: operations.Command) -> None:
        talk.send(answer(context_id, request, SUCCESS))
        assert talk.read_pdu()[0] == 5
        talk.send(codec.RELEASE_RQ)
        assert talk.read_pdu()[0] == 6
        talk.send(codec.RELEASE_RP)
        talk.hold()

    assert run(asked(script), find_all) == [Ending()]


# Not accepting


def test_another_protocol_on_the_port_is_recognised() -> None:
    def http(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        talk.hold()

    fails(http, find_all, RemoteProtocolError, "no DICOM PDU .* Is this a DICOM port")


@pytest.mark.parametrize(
    ("reject", "words", "transient"),
    [
        (codec.AssociateReject(1, 1, 7), "rejected for good: called AE title not recognised", False),
        (codec.AssociateReject(1, 1, 3), "calling AE title not recognised. Ask the administrator .* DCMSYNC", False),
        (codec.AssociateReject(2, 3, 2), "rejected for now: local limit exceeded", True),
    ],
)
def test_a_rejection_says_why_and_whether_to_try_again(
    reject: codec.AssociateReject, words: str, transient: bool
) -> None:
    def script(talk: Talk) -> None:
        talk.read_pdu()
        talk.send(codec.encode_reject(reject))
        talk.hold()

    error = fails(script, find_all, Rejected, words)
    assert isinstance(error, Rejected) and error.transient is transient


def test_a_peer_that_accepts_no_context_is_named() -> None:
    def script(talk: Talk) -> None:
        talk.accept(only=())
        talk.release()

    fails(script, find_all, Rejected, "accepts no presentation context")


def test_a_malformed_acceptance_is_refused() -> None:
    def script(talk: Talk) -> None:
        talk.read_pdu()
        talk.send(b"\2\0\0\0\0\x08" + b"\xff" * 8)
        talk.hold()

    fails(script, find_all, RemoteProtocolError, "sent an A-ASSOCIATE-AC")


def test_nobody_on_the_port_is_unreachable() -> None:
    server = Scripted(silent)
    server._listener.close()
    with in_time_and_leaving_nothing(), pytest.raises(Unreachable, match="cannot connect: connection refused"):
        client(server, find_all)


# Time


def test_a_flood_of_new_answers_does_not_keep_a_cancellation_waiting() -> None:
    def flood(talk: Talk, context_id: int, request: operations.Command) -> None:
        octets = b"".join(answer(context_id, request, PENDING, study(f"1.2.{turn}")) for turn in range(3000))
        for _ in talk.for_ever():
            talk.send(octets)

    async def a_moment(session: Any) -> int:
        count = 0
        with anyio.move_on_after(2 * DEADLINE_S):
            async for _ in session.find(ASK):
                count += 1
        return count

    # The peer ignores C-CANCEL, too, and so costs the two seconds' grace.
    assert run(asked(flood), a_moment, deadlines=8, timeout_s=60) > 0


def test_the_end_of_an_unread_query_takes_no_deadline_from_the_next() -> None:
    def script(talk: Talk) -> None:
        talk.accept()
        context_id, request, _ = talk.read_message()
        talk.send(answer(context_id, request, PENDING, study("1.2")))
        assert talk.read_message()[1].field == operations.commands.C_CANCEL_RQ
        talk.send(answer(context_id, request, 0xFE00))
        talk.hold()  # the next query is never answered

    async def twice(session: Any) -> None:
        answers = session.find(ASK)
        async for _ in answers:
            break
        await answers.aclose()
        await find_all(session)

    fails(script, twice, Stalled, "no progress")


# The session afterwards


def good(talk: Talk) -> None:
    """Answers queries well, as long as it is asked."""
    talk.accept()
    while True:
        context_id, request, _ = talk.read_message()
        if request.field == operations.commands.C_CANCEL_RQ:
            continue
        if request.field == operations.commands.C_GET_RQ:
            talk.send(answer(context_id, request, SUCCESS))
            continue
        for number in range(3):
            talk.send(answer(context_id, request, PENDING, study(f"1.2.{number + 1}")))
        talk.send(answer(context_id, request, SUCCESS))


def test_a_session_serves_again_after_a_query_that_nobody_read_to_its_end() -> None:
    async def twice(session: Any) -> int:
        answers = session.find(ASK)
        async for _ in answers:
            break
        await answers.aclose()
        return len(await find_all(session))

    assert run(good, twice) == 4


def test_a_session_serves_again_after_a_peer_that_ignores_c_cancel() -> None:
    def script(talk: Talk, count: list[int]) -> None:
        count.append(1)
        if len(count) > 1:
            good(talk)
            return
        talk.accept()
        context_id, request, _ = talk.read_message()
        octets = answer(context_id, request, PENDING, study("1.2")) * 5000  # faster than they can be read
        for _ in talk.for_ever():
            talk.send(octets)

    async def twice(session: Any) -> int:
        answers = session.find(ASK)
        async for _ in answers:
            break
        await answers.aclose()
        return len(await find_all(session))

    assert run(partial(script, count=[]), twice) == 4


def test_a_session_serves_again_after_a_failure() -> None:
    count: list[int] = []

    def script(talk: Talk) -> None:
        count.append(1)
        if len(count) == 1:
            talk.accept()
            return
        good(talk)

    async def twice(session: Any) -> int:
        with pytest.raises(Disconnected):
            await find_all(session)
        return len(await find_all(session))

    assert run(script, twice) == 4
    assert len(count) == 2


def test_a_session_keeps_one_association_while_it_serves() -> None:
    async def three(session: Any) -> None:
        for _ in range(3):
            await find_all(session)

    server = Scripted(good)
    with server:
        client(server, three)
    assert server.connections == 1
