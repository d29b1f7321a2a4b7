"""One association without its socket: octets in, events out; intents in, octets out (PS3.8 §9).

Rules of the file: no I/O and no clock; `receive` and `receive_eof` never raise for what the peer did, they abort in
protocol terms and give a `PeerFault` event; intents that the state forbids raise LocalProtocolError, for those are
our bug. What must be sent waits in `data_to_send`.

Theory of operation: every happening goes through `_fire`, which looks it up in table 9-10 (`state.py`) and performs
the action found. While data flow (Sta6), P-DATA fragments pass straight through and the table is asked once a batch.
"""

from __future__ import annotations

from msgspec import Struct

from dcmsync.errors import LocalProtocolError, RemoteProtocolError
from dcmsync.wire.upperlayer import codec, framing
from dcmsync.wire.upperlayer.state import NEXT_STATE, TABLE, Action, Event, State, after_collision

_OTHER_PDU_OCTETS = 1 << 20  # 128 contexts with 30 transfer syntaxes each are some 270 kB
_PDU_SLACK_OCTETS = 1024  # peers count headers in or out of their limit differently
_LONGEST_PDU_OCTETS = 0xFFFFFFFF  # by its header; data pass through in pieces, however long a PDU is


class Requested(Struct, frozen=True):
    """A-ASSOCIATE indication: the peer asks for an association."""

    request: codec.AssociateRequest


class Accepted(Struct, frozen=True):
    """A-ASSOCIATE confirmation: the peer accepted."""

    accept: codec.AssociateAccept


class Rejected(Struct, frozen=True):
    """A-ASSOCIATE confirmation: the peer rejected. The transport is to be closed."""

    reject: codec.AssociateReject


class Data(Struct, frozen=True):
    """P-DATA indication: fragments in order; their octets are valid until the buffer is used again."""

    fragments: list[framing.Fragment]


class ReleaseRequested(Struct, frozen=True):
    """A-RELEASE indication: answer with `release_reply`."""


class Released(Struct, frozen=True):
    """A-RELEASE confirmation. The transport is to be closed."""


class Aborted(Struct, frozen=True):
    """A-ABORT or A-P-ABORT indication by the peer. The transport is to be closed."""

    abort: codec.Abort


class Closed(Struct, frozen=True):
    """The transport ended. `expected` tells whether the association was over by then."""

    expected: bool


class PeerFault(Struct, frozen=True):
    """The peer broke the protocol; an A-ABORT waits to be sent, then the transport is to be closed."""

    error: RemoteProtocolError


WireEvent = Requested | Accepted | Rejected | Data | ReleaseRequested | Released | Aborted | Closed | PeerFault

_PDU_EVENTS = {
    1: Event.REQUEST_RECEIVED,
    2: Event.ACCEPT_RECEIVED,
    3: Event.REJECT_RECEIVED,
    5: Event.RELEASE_RECEIVED,
    6: Event.RELEASE_REPLY_RECEIVED,
    7: Event.ABORT_RECEIVED,
}


class Association:
    """The upper layer of one association, either side.

    `max_pdu_octets` is what we take in one P-DATA-TF PDU; 0 is no limit (PS3.8 table D.1-1).
    """

    def __init__(self, *, is_requestor: bool, max_pdu_octets: int) -> None:
        self.state = State.IDLE
        self.is_requestor = is_requestor
        self.peer_max_pdu_octets = 0
        longest = max_pdu_octets + _PDU_SLACK_OCTETS if max_pdu_octets else _LONGEST_PDU_OCTETS
        self._framer = framing.Framer(max_pdu_octets=longest, max_other_octets=_OTHER_PDU_OCTETS)
        self._out: list[bytes] = []
        self._request: bytes = b""

    # What the transport tells us

    def transport_opened(self) -> None:
        """The connection stands: the acceptor now waits for a request, the requestor's request is sent."""
        if self.is_requestor:
            self._fire(Event.TRANSPORT_CONFIRMED)
            self._out.append(self._request)
        else:
            self._fire(Event.TRANSPORT_INDICATED)

    def receive(self, view: memoryview) -> tuple[int, list[WireEvent]]:
        """Takes octets from the front of `view`: (octets consumed, what happened).

        Call again with what is left while it consumes. Never raises.
        """
        if self.state in (State.IDLE, State.AWAITING_CLOSE):
            return len(view), []
        try:
            consumed, pieces = self._framer.feed(view)
        except RemoteProtocolError as error:
            return len(view), self._invalid(error)
        events: list[WireEvent] = []
        fragments: list[framing.Fragment] = []
        for piece in pieces:
            if len(piece) == 3:
                fragments.append(piece)
            else:
                if fragments:
                    events += self._data(fragments)
                    fragments = []
                events += self._pdu(*piece)
        if fragments:
            events += self._data(fragments)
        return consumed, events

    def receive_command(self, view: memoryview) -> tuple[int, bytes] | None:
        """As `Framer.whole_command`: the short way for who waits for an answer; None where `receive` is needed."""
        return self._framer.whole_command(view) if self.state is State.READY else None

    def receive_eof(self) -> list[WireEvent]:
        """The transport ended from the other side."""
        was = self.state
        if was is State.IDLE:
            return [Closed(expected=True)]
        self._fire(Event.TRANSPORT_CLOSED)
        return [Closed(expected=was is State.AWAITING_CLOSE)]

    def data_to_send(self) -> list[bytes]:
        """Everything to be written now, in order; gives it once."""
        out, self._out = self._out, []
        return out

    # What the user wants

    def request(self, request: codec.AssociateRequest) -> None:
        """Asks for an association; the PDU goes out once `transport_opened`. Raises LocalProtocolError."""
        self._fire(Event.ASSOCIATE_REQUEST)
        self._request = codec.encode_request(request)

    def accept(self, accept: codec.AssociateAccept, *, peer_max_pdu_octets: int) -> None:
        """Accepts the request that came (A-ASSOCIATE response)."""
        octets = codec.encode_accept(accept)
        self._fire(Event.ACCEPT)
        self.peer_max_pdu_octets = peer_max_pdu_octets
        self._out.append(octets)

    def reject(self, reject: codec.AssociateReject) -> None:
        """Rejects the request that came; the requestor closes the transport."""
        self._fire(Event.REJECT)
        self._out.append(codec.encode_reject(reject))

    def may_send_data(self) -> None:
        """Checks that P-DATA may go out now. Raises LocalProtocolError. The caller writes the pieces itself."""
        if self.state is not State.READY:
            self._fire(Event.DATA_REQUEST)

    def release(self) -> None:
        """Asks for an orderly end (A-RELEASE request)."""
        self._fire(Event.RELEASE_REQUEST)
        self._out.append(codec.RELEASE_RQ)

    @property
    def owes_release_reply(self) -> bool:
        """Whether the peer's request to end waits for our reply."""
        return (Event.RELEASE_RESPONSE, self.state) in TABLE

    def release_reply(self) -> None:
        """Agrees to the peer's request to end."""
        self._fire(Event.RELEASE_RESPONSE)
        self._out.append(codec.RELEASE_RP)

    def abort(self) -> None:
        """Ends at once, from our side (A-ABORT, service-user). Does nothing when it is over already."""
        if (Event.ABORT_REQUEST, self.state) in TABLE:
            self._fire(Event.ABORT_REQUEST)
            self._out.append(codec.encode_abort(codec.Abort(source=0, reason=0)))

    # Inside

    def _fire(self, event: Event) -> Action:
        action = TABLE.get((event, self.state))
        if action is None:
            raise LocalProtocolError(f"{event.name} cannot happen in state {self.state.name}")
        if action is Action.AR_8:
            self.state = after_collision(is_requestor=self.is_requestor)
        else:
            self.state = NEXT_STATE[action] or self.state
        return action

    def _data(self, fragments: list[framing.Fragment]) -> list[WireEvent]:
        if self.state is not State.READY:
            action = self._fire(Event.DATA_RECEIVED)
            if action is not Action.AR_6:
                return self._refuse(action, "sent data outside an association")
        return [Data(fragments)]

    def _pdu(self, pdu_type: int, octets: bytes) -> list[WireEvent]:
        event = _PDU_EVENTS[pdu_type]
        try:
            decoded = _DECODERS[event](octets) if event in _DECODERS else None
        except RemoteProtocolError as error:
            return self._invalid(error)
        was = self.state
        action = self._fire(event)
        if action is Action.AE_6 and isinstance(decoded, codec.AssociateRequest):
            return [Requested(decoded)]
        if action is Action.AE_3 and isinstance(decoded, codec.AssociateAccept):
            self.peer_max_pdu_octets = decoded.max_pdu_octets
            return [Accepted(decoded)]
        if action is Action.AE_4 and isinstance(decoded, codec.AssociateReject):
            return [Rejected(decoded)]
        if action in (Action.AR_2, Action.AR_8):
            return [ReleaseRequested()]
        if action in (Action.AR_3, Action.AR_10):
            return [Released()]
        if action in (Action.AA_2, Action.AA_3) and isinstance(decoded, codec.Abort):
            return [Aborted(decoded)]
        return self._refuse(action, f"sent {event.name} in state {was.name}")

    def _invalid(self, error: RemoteProtocolError) -> list[WireEvent]:
        self._fire(Event.INVALID_PDU)
        self._out.append(codec.encode_abort(codec.Abort(source=2, reason=6)))
        return [PeerFault(error)]

    def _refuse(self, action: Action, words: str) -> list[WireEvent]:
        if action is Action.AA_6:
            return []
        self._out.append(codec.encode_abort(codec.Abort(source=2, reason=2)))
        return [PeerFault(RemoteProtocolError(words))]


_DECODERS = {
    Event.REQUEST_RECEIVED: codec.decode_request,
    Event.ACCEPT_RECEIVED: codec.decode_accept,
    Event.REJECT_RECEIVED: codec.decode_reject,
    Event.ABORT_RECEIVED: codec.decode_abort,
}
