"""The DICOM upper layer state machine (PS3.8 §9.2, tables 9-6 to 9-10), as data.

Theory of operation: something happens (`Event`) while the association is in a `State`; `TABLE` names the `Action`;
the action says what to do and what state comes next. A pair that the table lacks cannot happen: the engine treats
it as an error of whoever caused it. Nothing here performs anything.
"""

from enum import IntEnum


class State(IntEnum):
    """Table 9-6 to 9-9. The comment is the standard's own sentence, shortened."""

    IDLE = 1  # Sta1: idle
    TRANSPORT_OPEN = 2  # Sta2: transport connection open, awaiting A-ASSOCIATE-RQ PDU
    AWAITING_LOCAL_ACCEPT = 3  # Sta3: awaiting local A-ASSOCIATE response primitive
    AWAITING_TRANSPORT = 4  # Sta4: awaiting transport connection opening to complete
    AWAITING_ACCEPT = 5  # Sta5: awaiting A-ASSOCIATE-AC or A-ASSOCIATE-RJ PDU
    READY = 6  # Sta6: association established and ready for data transfer
    AWAITING_RELEASE_REPLY = 7  # Sta7: awaiting A-RELEASE-RP PDU
    AWAITING_LOCAL_RELEASE = 8  # Sta8: awaiting local A-RELEASE response primitive
    COLLISION_REQUESTOR_LOCAL = 9  # Sta9: release collision, requestor side, awaiting local response
    COLLISION_ACCEPTOR_REPLY = 10  # Sta10: release collision, acceptor side, awaiting A-RELEASE-RP PDU
    COLLISION_REQUESTOR_REPLY = 11  # Sta11: release collision, requestor side, awaiting A-RELEASE-RP PDU
    COLLISION_ACCEPTOR_LOCAL = 12  # Sta12: release collision, acceptor side, awaiting local response
    AWAITING_CLOSE = 13  # Sta13: awaiting transport connection close indication


class Event(IntEnum):
    """Table 9-10, rows."""

    ASSOCIATE_REQUEST = 1  # A-ASSOCIATE request (local user)
    TRANSPORT_CONFIRMED = 2  # transport connection confirm
    ACCEPT_RECEIVED = 3  # A-ASSOCIATE-AC PDU received
    REJECT_RECEIVED = 4  # A-ASSOCIATE-RJ PDU received
    TRANSPORT_INDICATED = 5  # transport connection indication (open)
    REQUEST_RECEIVED = 6  # A-ASSOCIATE-RQ PDU received
    ACCEPT = 7  # A-ASSOCIATE response primitive (accept)
    REJECT = 8  # A-ASSOCIATE response primitive (reject)
    DATA_REQUEST = 9  # P-DATA request primitive
    DATA_RECEIVED = 10  # P-DATA-TF PDU received
    RELEASE_REQUEST = 11  # A-RELEASE request primitive
    RELEASE_RECEIVED = 12  # A-RELEASE-RQ PDU received
    RELEASE_REPLY_RECEIVED = 13  # A-RELEASE-RP PDU received
    RELEASE_RESPONSE = 14  # A-RELEASE response primitive
    ABORT_REQUEST = 15  # A-ABORT request primitive
    ABORT_RECEIVED = 16  # A-ABORT PDU received
    TRANSPORT_CLOSED = 17  # transport connection closed indication
    ARTIM_EXPIRED = 18  # ARTIM timer expired (association reject/release timer)
    INVALID_PDU = 19  # unrecognized or invalid PDU received


class Action(IntEnum):
    """Tables 9-6 to 9-9. The tens name the family: 1x AE, 2x DT, 3x AR, 4x AA."""

    AE_1 = 11  # issue TRANSPORT CONNECT request
    AE_2 = 12  # send A-ASSOCIATE-RQ PDU
    AE_3 = 13  # issue A-ASSOCIATE confirmation (accept)
    AE_4 = 14  # issue A-ASSOCIATE confirmation (reject) and close the transport
    AE_5 = 15  # issue transport connection response; start ARTIM
    AE_6 = 16  # stop ARTIM; issue A-ASSOCIATE indication
    AE_7 = 17  # send A-ASSOCIATE-AC PDU
    AE_8 = 18  # send A-ASSOCIATE-RJ PDU; start ARTIM
    DT_1 = 21  # send P-DATA-TF PDU
    DT_2 = 22  # issue P-DATA indication
    AR_1 = 31  # send A-RELEASE-RQ PDU
    AR_2 = 32  # issue A-RELEASE indication
    AR_3 = 33  # issue A-RELEASE confirmation and close the transport
    AR_4 = 34  # send A-RELEASE-RP PDU; start ARTIM
    AR_5 = 35  # stop ARTIM
    AR_6 = 36  # issue P-DATA indication, though a release is under way
    AR_7 = 37  # send P-DATA-TF PDU, though a release is under way
    AR_8 = 38  # issue A-RELEASE indication (release collision)
    AR_9 = 39  # send A-RELEASE-RP PDU
    AR_10 = 30  # issue A-RELEASE confirmation
    AA_1 = 41  # send A-ABORT PDU (service-user); start or restart ARTIM
    AA_2 = 42  # stop ARTIM; close the transport
    AA_3 = 43  # issue A-ABORT indication and close the transport
    AA_4 = 44  # issue A-P-ABORT indication
    AA_5 = 45  # stop ARTIM
    AA_6 = 46  # ignore PDU
    AA_7 = 47  # send A-ABORT PDU
    AA_8 = 48  # send A-ABORT PDU (service-provider); issue A-P-ABORT indication; start ARTIM


_STAYS: State | None = None

NEXT_STATE: dict[Action, State | None] = {
    Action.AE_1: State.AWAITING_TRANSPORT,
    Action.AE_2: State.AWAITING_ACCEPT,
    Action.AE_3: State.READY,
    Action.AE_4: State.IDLE,
    Action.AE_5: State.TRANSPORT_OPEN,
    Action.AE_6: State.AWAITING_LOCAL_ACCEPT,
    Action.AE_7: State.READY,
    Action.AE_8: State.AWAITING_CLOSE,
    Action.DT_1: State.READY,
    Action.DT_2: State.READY,
    Action.AR_1: State.AWAITING_RELEASE_REPLY,
    Action.AR_2: State.AWAITING_LOCAL_RELEASE,
    Action.AR_3: State.IDLE,
    Action.AR_4: State.AWAITING_CLOSE,
    Action.AR_5: State.IDLE,
    Action.AR_6: State.AWAITING_RELEASE_REPLY,
    Action.AR_7: State.AWAITING_LOCAL_RELEASE,
    Action.AR_8: _STAYS,  # depends on the role: `after_collision`
    Action.AR_9: State.COLLISION_REQUESTOR_REPLY,
    Action.AR_10: State.COLLISION_ACCEPTOR_LOCAL,
    Action.AA_1: State.AWAITING_CLOSE,
    Action.AA_2: State.IDLE,
    Action.AA_3: State.IDLE,
    Action.AA_4: State.IDLE,
    Action.AA_5: State.IDLE,
    Action.AA_6: State.AWAITING_CLOSE,
    Action.AA_7: State.AWAITING_CLOSE,
    Action.AA_8: State.AWAITING_CLOSE,
}


def after_collision(*, is_requestor: bool) -> State:
    """The state after AR-8, which alone depends on who asked for the association."""
    return State.COLLISION_REQUESTOR_LOCAL if is_requestor else State.COLLISION_ACCEPTOR_REPLY


def _rows() -> dict[tuple[Event, State], Action]:
    """Table 9-10, a row per event: "state action", states as numbers."""
    rows = {
        1: "1 AE_1",
        2: "4 AE_2",
        3: "2 AA_1, 3 AA_8, 5 AE_3, 6-12 AA_8, 13 AA_6",
        4: "2 AA_1, 3 AA_8, 5 AE_4, 6-12 AA_8, 13 AA_6",
        5: "1 AE_5",
        6: "2 AE_6, 3 AA_8, 5-12 AA_8, 13 AA_7",
        7: "3 AE_7",
        8: "3 AE_8",
        9: "6 DT_1, 8 AR_7",
        10: "2 AA_1, 3 AA_8, 5 AA_8, 6 DT_2, 7 AR_6, 8-12 AA_8, 13 AA_6",
        11: "6 AR_1",
        12: "2 AA_1, 3 AA_8, 5 AA_8, 6 AR_2, 7 AR_8, 8-12 AA_8, 13 AA_6",
        13: "2 AA_1, 3 AA_8, 5-6 AA_8, 7 AR_3, 8-9 AA_8, 10 AR_10, 11 AR_3, 12 AA_8, 13 AA_6",
        14: "8 AR_4, 9 AR_9, 12 AR_4",
        15: "3 AA_1, 4 AA_2, 5-12 AA_1",
        16: "2 AA_2, 3 AA_3, 5-12 AA_3, 13 AA_2",
        17: "2 AA_5, 3-12 AA_4, 13 AR_5",
        18: "2 AA_2, 13 AA_2",
        19: "2 AA_1, 3 AA_8, 5-12 AA_8, 13 AA_7",
    }
    table: dict[tuple[Event, State], Action] = {}
    for event, row in rows.items():
        for cell in row.split(", "):
            states, action = cell.split(" ")
            first, _, last = states.partition("-")
            for state in range(int(first), int(last or first) + 1):
                table[Event(event), State(state)] = Action[action]
    return table


TABLE: dict[tuple[Event, State], Action] = _rows()
