"""The state machine, row by row against pynetdicom's."""

from pynetdicom import fsm

from dcmsync.wire.upperlayer.state import NEXT_STATE, TABLE, Action, Event, State, after_collision


def test_the_table_is_pynetdicoms() -> None:
    ours = {
        (f"Evt{event.value}", f"Sta{state.value}"): action.name.replace("_", "-")
        for (event, state), action in TABLE.items()
    }
    assert ours == dict(fsm.TRANSITION_TABLE)


def test_every_action_leads_where_pynetdicoms_leads() -> None:
    for action in Action:
        next_state = fsm.ACTIONS[action.name.replace("_", "-")][2]
        if action is Action.AR_8:
            assert NEXT_STATE[action] is None
            continue
        if action is Action.AE_6:  # Sta13 is of a request that the provider itself refuses; our user does that, by AE-8
            next_state = next_state[0]
        assert next_state == f"Sta{NEXT_STATE[action]}", action


def test_a_collision_leads_each_side_to_its_own_state() -> None:
    assert fsm.ACTIONS["AR-8"][2] == ("Sta9", "Sta10")
    assert after_collision(is_requestor=True) is State.COLLISION_REQUESTOR_LOCAL
    assert after_collision(is_requestor=False) is State.COLLISION_ACCEPTOR_REPLY


def test_the_standards_numbers_are_the_values() -> None:
    assert [event.value for event in Event] == list(range(1, 20))
    assert [state.value for state in State] == list(range(1, 14))


def test_from_every_state_with_a_transport_the_end_of_it_is_foreseen() -> None:
    for state in State:
        if state is not State.IDLE:
            assert (Event.TRANSPORT_CLOSED, state) in TABLE
