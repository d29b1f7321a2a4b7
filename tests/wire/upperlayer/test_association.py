"""The engine of an association: two of them over a fake link, and one against every PDU in every state."""

import random
from collections.abc import Callable

import pytest

from dcmsync.errors import LocalProtocolError
from dcmsync.wire.upperlayer import codec, framing
from dcmsync.wire.upperlayer.association import (
    Aborted,
    Accepted,
    Association,
    Closed,
    Data,
    PeerFault,
    Rejected,
    Released,
    ReleaseRequested,
    Requested,
    WireEvent,
)
from dcmsync.wire.upperlayer.state import TABLE, Action, Event, State

SEED = 20260102
EXPLICIT = "1.2.840.10008.1.2.1"
REQUEST = codec.AssociateRequest(
    called_ae="PEER",
    calling_ae="DCMSYNC",
    contexts=(codec.ProposedContext(1, "1.2.840.10008.1.1", (EXPLICIT,)),),
    max_pdu_octets=4096,
)
ACCEPT = codec.AssociateAccept(
    called_ae="PEER", calling_ae="DCMSYNC", results=(codec.ContextResult(1, 0, EXPLICIT),), max_pdu_octets=8192
)
ABORT_BY_USER = codec.encode_abort(codec.Abort(0, 0))
ABORT_UNEXPECTED = codec.encode_abort(codec.Abort(2, 2))
ABORT_INVALID = codec.encode_abort(codec.Abort(2, 6))
GARBAGE = b"HTTP/1.1 400 Bad Request\r\n"


def message(octets: bytes = b"payload!") -> bytes:
    return b"".join(framing.pack(1, memoryview(octets), is_command=True, is_last=True, max_pdu_octets=4096))


class Link:
    """A requestor and an acceptor, and what each of them heard."""

    def __init__(self) -> None:
        self.requestor = Association(is_requestor=True, max_pdu_octets=4096)
        self.acceptor = Association(is_requestor=False, max_pdu_octets=4096)

    def to_acceptor(self) -> list[WireEvent]:
        return feed(self.acceptor, b"".join(self.requestor.data_to_send()))

    def to_requestor(self) -> list[WireEvent]:
        return feed(self.requestor, b"".join(self.acceptor.data_to_send()))


def feed(machine: Association, octets: bytes) -> list[WireEvent]:
    events: list[WireEvent] = []
    view = memoryview(octets)
    while len(view):
        consumed, found = machine.receive(view)
        events += found
        view = view[consumed:]
        if not consumed:
            break
    return events


def requested() -> Link:
    link = Link()
    link.requestor.request(REQUEST)
    link.requestor.transport_opened()
    link.acceptor.transport_opened()
    (event,) = link.to_acceptor()
    assert isinstance(event, Requested)
    return link


def established() -> Link:
    link = requested()
    link.acceptor.accept(ACCEPT, peer_max_pdu_octets=4096)
    (event,) = link.to_requestor()
    assert isinstance(event, Accepted)
    return link


def test_a_request_is_accepted() -> None:
    link = requested()
    assert link.acceptor.state is State.AWAITING_LOCAL_ACCEPT
    assert link.requestor.state is State.AWAITING_ACCEPT
    link.acceptor.accept(ACCEPT, peer_max_pdu_octets=4096)
    (event,) = link.to_requestor()
    assert isinstance(event, Accepted) and event.accept.results == ACCEPT.results
    assert link.requestor.state is link.acceptor.state is State.READY
    assert (link.requestor.peer_max_pdu_octets, link.acceptor.peer_max_pdu_octets) == (8192, 4096)


def test_a_request_is_rejected_and_the_requestor_closes() -> None:
    link = requested()
    link.acceptor.reject(codec.AssociateReject(2, 3, 2))
    assert link.to_requestor() == [Rejected(codec.AssociateReject(2, 3, 2))]
    assert link.requestor.state is State.IDLE
    assert link.acceptor.state is State.AWAITING_CLOSE
    assert link.acceptor.receive_eof() == [Closed(expected=True)]
    assert link.acceptor.state is State.IDLE


def test_data_pass_straight_through() -> None:
    link = established()
    for machine in (link.acceptor, link.requestor):
        (event,) = feed(machine, message())
        assert isinstance(event, Data)
        assert [(piece[0], bytes(piece[2])) for piece in event.fragments] == [(1, b"payload!")]


def test_data_to_send_is_given_once() -> None:
    link = established()
    link.requestor.release()
    assert link.requestor.data_to_send() == [codec.RELEASE_RQ]
    assert link.requestor.data_to_send() == []


def test_a_release_is_asked_and_answered() -> None:
    link = established()
    link.requestor.release()
    assert link.to_acceptor() == [ReleaseRequested()]
    link.acceptor.release_reply()
    assert link.to_requestor() == [Released()]
    assert link.requestor.state is State.IDLE
    assert link.acceptor.state is State.AWAITING_CLOSE
    assert link.acceptor.receive_eof() == [Closed(expected=True)]


def test_data_on_the_way_when_release_was_asked_still_arrive() -> None:
    link = established()
    link.requestor.release()
    (event,) = feed(link.requestor, message())
    assert isinstance(event, Data)
    assert link.requestor.state is State.AWAITING_RELEASE_REPLY


def test_data_may_be_sent_before_a_release_is_answered() -> None:
    link = established()
    link.requestor.release()
    link.to_acceptor()
    link.acceptor.may_send_data()
    assert link.acceptor.state is State.AWAITING_LOCAL_RELEASE


def test_a_release_collision_ends_on_both_sides() -> None:
    link = established()
    link.requestor.release()
    link.acceptor.release()
    from_acceptor = b"".join(link.acceptor.data_to_send())
    assert link.to_acceptor() == [ReleaseRequested()]
    assert link.acceptor.state is State.COLLISION_ACCEPTOR_REPLY
    assert feed(link.requestor, from_acceptor) == [ReleaseRequested()]
    assert link.requestor.state is State.COLLISION_REQUESTOR_LOCAL
    with pytest.raises(LocalProtocolError):
        link.acceptor.release_reply()  # the requestor replies first
    link.requestor.release_reply()
    assert link.to_acceptor() == [Released()]
    assert link.acceptor.state is State.COLLISION_ACCEPTOR_LOCAL
    link.acceptor.release_reply()
    assert link.to_requestor() == [Released()]
    assert link.requestor.state is State.IDLE
    assert link.acceptor.receive_eof() == [Closed(expected=True)]


def test_an_abort_reaches_the_other_side() -> None:
    link = established()
    link.acceptor.abort()
    assert link.to_requestor() == [Aborted(codec.Abort(0, 0))]
    assert link.requestor.state is State.IDLE


def test_what_follows_an_abort_is_not_heard() -> None:
    link = established()
    assert feed(link.requestor, ABORT_BY_USER + message() + GARBAGE) == [Aborted(codec.Abort(0, 0))]


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_pdu_that_ends_early_is_waited_for(cut: int) -> None:
    link = established()
    assert feed(link.acceptor, codec.RELEASE_RQ[:cut]) == []
    assert link.acceptor.receive_eof() == [Closed(expected=False)]


def test_a_limit_of_nothing_is_no_limit() -> None:
    machine = Association(is_requestor=False, max_pdu_octets=0)
    machine.transport_opened()
    assert [type(event) for event in feed(machine, codec.encode_request(REQUEST))] == [Requested]
    machine.accept(ACCEPT, peer_max_pdu_octets=4096)
    (data,) = feed(machine, bytes.fromhex("04 00 ffffffff fffffffb 01 02") + b"the front of 4 GiB")
    assert isinstance(data, Data) and bytes(data.fragments[0][2]) == b"the front of 4 GiB"


# Every state against everything that may happen in it


def awaiting_accept() -> Association:
    return requested().requestor


def transport_open() -> Association:
    machine = Association(is_requestor=False, max_pdu_octets=4096)
    machine.transport_opened()
    return machine


def releasing() -> Association:
    machine = established().requestor
    machine.release()
    return machine


def asked_to_release() -> Association:
    machine = established().acceptor
    feed(machine, codec.RELEASE_RQ)
    return machine


def collided(side: str, *, replied: bool) -> Association:
    link = established()
    machine: Association = getattr(link, side)
    machine.release()
    feed(machine, codec.RELEASE_RQ)
    if replied and machine.is_requestor:
        machine.release_reply()
    elif replied:
        feed(machine, codec.RELEASE_RP)
    return machine


def aborted() -> Association:
    machine = established().requestor
    machine.abort()
    return machine


MAKE: dict[State, Callable[[], Association]] = {
    State.IDLE: lambda: Association(is_requestor=True, max_pdu_octets=4096),
    State.TRANSPORT_OPEN: transport_open,
    State.AWAITING_LOCAL_ACCEPT: lambda: requested().acceptor,
    State.AWAITING_ACCEPT: awaiting_accept,
    State.READY: lambda: established().requestor,
    State.AWAITING_RELEASE_REPLY: releasing,
    State.AWAITING_LOCAL_RELEASE: asked_to_release,
    State.COLLISION_REQUESTOR_LOCAL: lambda: collided("requestor", replied=False),
    State.COLLISION_ACCEPTOR_REPLY: lambda: collided("acceptor", replied=False),
    State.COLLISION_REQUESTOR_REPLY: lambda: collided("requestor", replied=True),
    State.COLLISION_ACCEPTOR_LOCAL: lambda: collided("acceptor", replied=True),
    State.AWAITING_CLOSE: aborted,
}
OVER = (State.IDLE, State.AWAITING_CLOSE)
PDUS = {
    Event.REQUEST_RECEIVED: codec.encode_request(REQUEST),
    Event.ACCEPT_RECEIVED: codec.encode_accept(ACCEPT),
    Event.REJECT_RECEIVED: codec.encode_reject(codec.AssociateReject(1, 1, 7)),
    Event.DATA_RECEIVED: message(),
    Event.RELEASE_RECEIVED: codec.RELEASE_RQ,
    Event.RELEASE_REPLY_RECEIVED: codec.RELEASE_RP,
    Event.ABORT_RECEIVED: ABORT_BY_USER,
    Event.INVALID_PDU: GARBAGE,
}
GIVES: dict[Action, type] = {
    Action.AE_3: Accepted,
    Action.AE_4: Rejected,
    Action.AE_6: Requested,
    Action.DT_2: Data,
    Action.AR_2: ReleaseRequested,
    Action.AR_3: Released,
    Action.AR_6: Data,
    Action.AR_8: ReleaseRequested,
    Action.AR_10: Released,
    Action.AA_1: PeerFault,
    Action.AA_2: Aborted,
    Action.AA_3: Aborted,
    Action.AA_8: PeerFault,
}


def made(state: State) -> Association:
    machine = MAKE[state]()
    machine.data_to_send()
    assert machine.state is state
    return machine


@pytest.mark.parametrize("state", MAKE, ids=lambda state: state.name)
@pytest.mark.parametrize("event", PDUS, ids=lambda event: event.name)
def test_every_pdu_in_every_state_does_what_the_table_says(event: Event, state: State) -> None:
    machine = made(state)
    events = feed(machine, PDUS[event])
    sent = b"".join(machine.data_to_send())
    if state in OVER:
        assert (events, sent, machine.state) == ([], b"", state)
        return
    action = TABLE[event, state]
    assert [type(found) for found in events] == [GIVES[action]]
    if action in (Action.AA_1, Action.AA_8):
        assert sent == (ABORT_INVALID if event is Event.INVALID_PDU else ABORT_UNEXPECTED)
        assert machine.state is State.AWAITING_CLOSE
    else:
        assert sent == b""


@pytest.mark.parametrize("state", MAKE, ids=lambda state: state.name)
def test_a_refusal_names_the_state_in_which_it_came(state: State) -> None:
    machine = made(state)
    for event in feed(machine, PDUS[Event.REQUEST_RECEIVED]):
        if isinstance(event, PeerFault):
            assert event.error.message == f"sent REQUEST_RECEIVED in state {state.name}"


@pytest.mark.parametrize("state", MAKE, ids=lambda state: state.name)
def test_abort_may_be_asked_in_every_state(state: State) -> None:
    machine = made(state)
    machine.abort()
    sent = b"".join(machine.data_to_send())
    if (Event.ABORT_REQUEST, state) in TABLE:
        assert (sent, machine.state) == (ABORT_BY_USER, State.AWAITING_CLOSE)
    else:
        assert (sent, machine.state) == (b"", state)


@pytest.mark.parametrize("state", MAKE, ids=lambda state: state.name)
def test_the_end_of_the_transport_ends_every_state(state: State) -> None:
    machine = made(state)
    assert machine.receive_eof() == [Closed(expected=state in OVER)]
    assert machine.state is State.IDLE
    assert machine.receive_eof() == [Closed(expected=True)]


INTENTS: dict[Event, Callable[[Association], None]] = {
    Event.ASSOCIATE_REQUEST: lambda machine: machine.request(REQUEST),
    Event.ACCEPT: lambda machine: machine.accept(ACCEPT, peer_max_pdu_octets=0),
    Event.REJECT: lambda machine: machine.reject(codec.AssociateReject(1, 1, 1)),
    Event.DATA_REQUEST: lambda machine: machine.may_send_data(),
    Event.RELEASE_REQUEST: lambda machine: machine.release(),
    Event.RELEASE_RESPONSE: lambda machine: machine.release_reply(),
}


@pytest.mark.parametrize("state", MAKE, ids=lambda state: state.name)
@pytest.mark.parametrize("event", INTENTS, ids=lambda event: event.name)
def test_an_intent_that_the_state_forbids_is_our_fault_and_changes_nothing(event: Event, state: State) -> None:
    machine = made(state)
    if (event, state) in TABLE:
        INTENTS[event](machine)
        return
    with pytest.raises(LocalProtocolError):
        INTENTS[event](machine)
    assert machine.state is state
    assert machine.data_to_send() == []


# Recorded streams, wounded


def to_requestor() -> bytes:
    """What an acceptor sends in a good conversation."""
    accept = codec.encode_accept(ACCEPT)
    return accept + message() + message(bytes(9000)) + message() + codec.RELEASE_RP


def to_acceptor() -> bytes:
    return codec.encode_request(REQUEST) + message() + message(bytes(9000)) + codec.RELEASE_RQ


def wounded(octets: bytes, dice: random.Random) -> bytes:
    out = bytearray(octets)
    for _ in range(dice.randint(1, 5)):
        at = dice.choice((dice.randrange(len(out)), dice.randrange(min(len(out), 300))))
        match dice.randrange(6):
            case 0:
                out[at] ^= 1 << dice.randrange(8)
            case 1:
                out[at : at + 4] = dice.choice((b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"))
            case 2:
                del out[at + 1 :]
            case 3:
                out[at:at] = out[at : at + dice.randrange(100)]
            case 4:
                del out[at : at + dice.randrange(1, 30)]
                out += b"\0"
            case _:
                out[at] = dice.randrange(256)
    return bytes(out)


@pytest.mark.parametrize("side", ["requestor", "acceptor"])
def test_whatever_a_peer_sends_nothing_is_raised(side: str) -> None:
    dice = random.Random(SEED)
    stream = to_requestor() if side == "requestor" else to_acceptor()
    faults = 0
    for _ in range(500):
        machine = awaiting_accept() if side == "requestor" else transport_open()
        octets = wounded(stream, dice)
        buffer = b""
        at = 0
        while at < len(octets):
            step = dice.choice((1, 7, 100, 1 << 20))
            buffer, at = buffer + octets[at : at + step], at + step
            while buffer:
                consumed, events = machine.receive(memoryview(buffer))
                faults += sum(isinstance(event, PeerFault) for event in events)
                buffer = buffer[consumed:]
                for event in events:
                    if isinstance(event, Requested):
                        machine.accept(ACCEPT, peer_max_pdu_octets=event.request.max_pdu_octets)
                    elif isinstance(event, ReleaseRequested) and machine.state in (
                        State.AWAITING_LOCAL_RELEASE,
                        State.COLLISION_REQUESTOR_LOCAL,
                    ):
                        machine.release_reply()
                if not consumed:
                    break
            assert len(buffer) <= (1 << 20) + 6
        machine.receive_eof()
        machine.data_to_send()
        assert machine.state is State.IDLE
    assert faults > 100
