"""Messages from fragments: a command, then its data set, of one direction, never mixed."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.dimse.messages import Assembler, Begun, Pieces
from dcmsync.wire.upperlayer.framing import IS_COMMAND, IS_LAST, Fragment, Framer, pack

ECHO = Command(field=commands.C_ECHO_RQ, message_id=1, sop_class_uid="1.2.840.10008.1.1")
STORE = Command(
    field=commands.C_STORE_RQ, has_data_set=True, message_id=2, sop_class_uid="1.2", sop_instance_uid="1.2.3"
)


def fragment(context_id: int, control: int, octets: bytes) -> Fragment:
    return context_id, control, memoryview(octets)


def whole(command: Command, context_id: int = 1) -> Fragment:
    return fragment(context_id, IS_COMMAND | IS_LAST, commands.encode(command))


def test_a_command_without_data_set_is_one_event() -> None:
    assembler = Assembler()
    assert assembler.feed([whole(ECHO, 5)]) == [Begun(5, ECHO)]
    assert not assembler.is_mid_message


def test_a_command_in_fragments_is_gathered() -> None:
    octets = commands.encode(ECHO)
    assembler = Assembler()
    for at in range(len(octets) - 1):
        assert assembler.feed([fragment(1, IS_COMMAND, octets[at : at + 1])]) == []
        assert assembler.is_mid_message
    assert assembler.feed([fragment(1, IS_COMMAND | IS_LAST, octets[-1:])]) == [Begun(1, ECHO)]


def test_a_data_set_passes_on_in_pieces_the_last_of_which_is_said_once() -> None:
    assembler = Assembler()
    first = assembler.feed([whole(STORE), fragment(1, 0, b"ab"), fragment(1, 0, b"cd")])
    assert first == [Begun(1, STORE), Pieces([memoryview(b"ab"), memoryview(b"cd")], 4, is_last=False)]
    assert assembler.is_mid_message
    assert assembler.feed([fragment(1, 0, b"ef")]) == [Pieces([memoryview(b"ef")], 2, is_last=False)]
    assert assembler.feed([fragment(1, IS_LAST, b""), whole(ECHO)]) == [
        Pieces([memoryview(b"")], 0, is_last=True),
        Begun(1, ECHO),
    ]
    assert not assembler.is_mid_message


@pytest.mark.parametrize(
    ("fragments", "words"),
    [
        ([fragment(1, IS_LAST, b"data")], "no command announced"),
        ([whole(ECHO), fragment(1, IS_LAST, b"data")], "no command announced"),
        ([whole(STORE), whole(ECHO)], "before the data set"),
        ([whole(STORE), fragment(3, 0, b"data")], "another presentation context"),
        ([fragment(1, IS_COMMAND, b"12"), fragment(3, IS_COMMAND | IS_LAST, b"34")], "two presentation contexts"),
        ([fragment(1, IS_COMMAND | IS_LAST, b"junk")], "ends inside an element"),
        ([fragment(1, IS_COMMAND, b"12"), fragment(1, 0, b"34")], "no command announced"),
    ],
)
def test_what_breaks_the_order_is_refused(fragments: list[Fragment], words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        Assembler().feed(fragments)


def test_a_command_that_never_ends_is_refused_at_64_kib() -> None:
    assembler = Assembler()
    for _ in range(64):
        assembler.feed([fragment(1, IS_COMMAND, bytes(1024))])
    with pytest.raises(RemoteProtocolError, match="65,536"):
        assembler.feed([fragment(1, IS_COMMAND, b"x")])


@given(data=some.binary(min_size=1, max_size=400), max_pdu_octets=some.integers(8, 500), step=some.integers(1, 200))
def test_a_message_survives_any_fragmentation_and_any_reads(data: bytes, max_pdu_octets: int, step: int) -> None:
    octets = b"".join(
        piece
        for payload, is_command in ((commands.encode(STORE), True), (data, False))
        for piece in pack(
            1, memoryview(payload), is_command=is_command, is_last=True, max_pdu_octets=max_pdu_octets
        )
    )
    framer, assembler = Framer(max_pdu_octets=1000, max_other_octets=1000), Assembler()
    buffer, begun, got, lasts = b"", [], b"", 0
    for at in range(0, len(octets), step):
        buffer += octets[at : at + step]
        consumed, fragments = framer.feed(memoryview(buffer))
        for event in assembler.feed(fragments):  # type: ignore[arg-type]  # P-DATA only
            if isinstance(event, Begun):
                begun.append(event)
            else:
                got += b"".join(event.pieces)
                lasts += event.is_last
                assert event.octets == sum(map(len, event.pieces))
        buffer = buffer[consumed:]
    assert (begun, got, lasts) == ([Begun(1, STORE)], data, 1)
