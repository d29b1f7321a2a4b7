"""Framing: dialogues fed whole, byte by byte and with trailing bytes; what is packed is what is framed; every cap."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.upperlayer import codec, framing
from dcmsync.wire.upperlayer.framing import IS_COMMAND, IS_LAST, Fragment, Framer, OtherPdu, pack

MAX_PDU, MAX_OTHER = 4096, 1024


def pdu(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(body)) + body


def pdv(context_id: int, control: int, octets: bytes) -> bytes:
    return struct.pack(">IBB", len(octets) + 2, context_id, control) + octets


def framer(max_pdu_octets: int = MAX_PDU) -> Framer:
    return Framer(max_pdu_octets=max_pdu_octets, max_other_octets=MAX_OTHER)


def drain(framer: Framer, octets: bytes, step: int) -> tuple[list[tuple[int, int, bytes] | OtherPdu], bytes]:
    """Feeds `step` octets at a time: (everything framed, what is left unconsumed)."""
    out: list[tuple[int, int, bytes] | OtherPdu] = []
    buffer = b""
    for at in range(0, len(octets), step):
        buffer += octets[at : at + step]
        while buffer:
            consumed, found = framer.feed(memoryview(buffer))
            out += [(piece[0], piece[1], bytes(piece[2])) if len(piece) == 3 else piece for piece in found]
            buffer = buffer[consumed:]
            if not consumed:
                break
    return out, buffer


def joined(pieces: list[tuple[int, int, bytes] | OtherPdu]) -> list[tuple[int, int, bytes] | OtherPdu]:
    """The pieces with those of one fragment put together again."""
    out: list[tuple[int, int, bytes] | OtherPdu] = []
    for piece in pieces:
        last = out[-1] if out else (0, b"")
        is_data = len(last) == 3 and len(piece) == 3
        if is_data and last[0] == piece[0] and not last[1] & IS_LAST and not (last[1] ^ piece[1]) & IS_COMMAND:
            out[-1] = (last[0], piece[1], last[2] + piece[2])
        else:
            out.append(piece)
    return out


DIALOGUES = {
    "one fragment": (pdu(pdv(1, 3, b"command!")), [(1, 3, b"command!")]),
    "two fragments in one pdu": (pdu(pdv(1, 3, b"co"), pdv(1, 2, b"data")), [(1, 3, b"co"), (1, 2, b"data")]),
    "a data set over two pdus": (pdu(pdv(5, 0, b"da")) + pdu(pdv(5, 2, b"ta")), [(5, 2, b"data")]),
    "an empty last fragment": (pdu(pdv(5, 0, b"data")) + pdu(pdv(5, 2, b"")), [(5, 2, b"data")]),
    "release": (codec.RELEASE_RQ, [(5, codec.RELEASE_RQ)]),
    "data, then release": (pdu(pdv(1, 3, b"co")) + codec.RELEASE_RP, [(1, 3, b"co"), (6, codec.RELEASE_RP)]),
    "abort between data": (
        pdu(pdv(1, 3, b"co")) + codec.encode_abort(codec.Abort(2, 6)) + pdu(pdv(3, 2, b"da")),
        [(1, 3, b"co"), (7, codec.encode_abort(codec.Abort(2, 6))), (3, 2, b"da")],
    ),
}


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20], ids=lambda step: f"by {step}")
@pytest.mark.parametrize("name", DIALOGUES)
def test_a_dialogue_means_the_same_however_it_is_cut(name: str, step: int) -> None:
    octets, expected = DIALOGUES[name]
    machine = framer()
    found, left = drain(machine, octets, step)
    assert joined(found) == expected
    assert not left


@pytest.mark.parametrize("name", DIALOGUES)
def test_trailing_octets_wait_for_their_company(name: str) -> None:
    octets, expected = DIALOGUES[name]
    trailing = codec.RELEASE_RQ[:-1]
    found, left = drain(framer(), octets + trailing, 1 << 20)
    assert joined(found) == expected
    assert left == trailing


def test_nothing_is_copied() -> None:
    octets = bytearray(pdu(pdv(1, 2, b"data")))
    _, found = framer().feed(memoryview(octets))
    fragment: Fragment = found[0]  # type: ignore[assignment]  # the only one is data
    octets[-4:] = b"DATA"
    assert bytes(fragment[2]) == b"DATA"


def test_a_fragment_longer_than_what_is_at_hand_is_last_only_at_its_end() -> None:
    octets = pdu(pdv(1, 2, b"0123456789"))
    machine = framer()
    consumed, found = machine.feed(memoryview(octets[:15]))
    assert (consumed, [piece[1] for piece in found]) == (15, [0])
    _, found = machine.feed(memoryview(octets[15:]))
    assert [piece[1] for piece in found] == [2]


def test_after_another_pdu_it_stops_since_the_state_may_change() -> None:
    consumed, found = framer().feed(memoryview(codec.RELEASE_RQ + codec.RELEASE_RP))
    assert (consumed, found) == (10, [(5, codec.RELEASE_RQ)])


HOSTILE = {
    "no DICOM at all": b"HTTP/1.1 400 Bad Request\r\n",
    "type 0": b"\0\0\0\0\0\4\0\0\0\0",
    "type 8": b"\x08\0\0\0\0\4\0\0\0\0",
    "P-DATA-TF of 2 GiB": b"\4\0\x7f\xff\xff\xff",
    "P-DATA-TF of 4 GiB": b"\4\0\xff\xff\xff\xff",
    "P-DATA-TF one octet over the cap": struct.pack(">BxI", 4, MAX_PDU + 1),
    "P-DATA-TF without a PDV": b"\4\0\0\0\0\0",
    "P-DATA-TF shorter than a PDV header": b"\4\0\0\0\0\5",
    "an association PDU over the cap": struct.pack(">BxI", 2, MAX_OTHER + 1),
    "an abort of 4 GiB": b"\7\0\xff\xff\xff\xff",
    "a PDV longer than its PDU": b"\4\0\0\0\0\x08" + struct.pack(">IBB", 5, 1, 3) + b"xx",
    "a PDV of 4 GiB": b"\4\0\0\0\0\x08" + struct.pack(">IBB", 0xFFFFFFFF, 1, 3) + b"xx",
    "a PDV of length 0": b"\4\0\0\0\0\x08" + struct.pack(">IBB", 0, 1, 3) + b"xx",
    "a PDV of length 1": b"\4\0\0\0\0\x08" + struct.pack(">IBB", 1, 1, 3) + b"xx",
    "octets that belong to no PDV": b"\4\0\0\0\0\x0b" + struct.pack(">IBB", 4, 1, 3) + b"xx" + b"zzz",
}


@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_is_refused(name: str, step: int) -> None:
    with pytest.raises(RemoteProtocolError):
        drain(framer(), HOSTILE[name], step)


def test_tiny_fragments_come_a_thousand_at_a_time() -> None:
    octets = pdu(pdv(1, 0, b"ab")) * 1500 + pdu(pdv(1, 0, b"ab") * 400)
    machine, sizes, view = framer(), [], memoryview(octets)
    while len(view):
        consumed, found = machine.feed(view)
        assert consumed
        sizes.append(len(found))
        view = view[consumed:]
    assert sizes == [1024, 876]


def test_a_claim_is_refused_before_its_octets_come() -> None:
    with pytest.raises(RemoteProtocolError, match=r"2,147,483,647 octets; the limit is 4,096"):
        framer().feed(memoryview(b"\4\0\x7f\xff\xff\xff"))


def test_caps_are_inclusive() -> None:
    body = pdv(1, 2, bytes(MAX_PDU - 6))
    found, left = drain(framer(), pdu(body), 1 << 20)
    assert len(found) == 1 and not left
    whole = struct.pack(">BxI", 2, MAX_OTHER) + bytes(MAX_OTHER)
    assert drain(framer(), whole, 1 << 20) == ([(2, whole)], b"")


@settings(max_examples=150, deadline=None)
@given(
    payload=some.binary(max_size=3000),
    max_pdu_octets=some.one_of(some.just(0), some.integers(8, 64), some.integers(65, 5000)),
    context_id=some.integers(0, 127).map(lambda n: 2 * n + 1),
    is_command=some.booleans(),
    step=some.sampled_from([1, 5, 13, 4096, 1 << 20]),
)
def test_what_is_packed_is_what_is_framed(
    payload: bytes, max_pdu_octets: int, context_id: int, is_command: bool, step: int
) -> None:
    pieces = list(
        pack(context_id, memoryview(payload), is_command=is_command, is_last=True, max_pdu_octets=max_pdu_octets)
    )
    octets = b"".join(pieces)
    limit = max_pdu_octets or framing.DEFAULT_SEND_OCTETS
    found, left = drain(framer(limit), octets, step)
    assert not left
    assert b"".join(piece[2] for piece in found if len(piece) == 3) == payload
    assert {piece[0] for piece in found} == {context_id}
    assert {bool(piece[1] & IS_COMMAND) for piece in found} == {is_command}  # type: ignore[operator]
    assert [bool(piece[1] & IS_LAST) for piece in found] == [False] * (len(found) - 1) + [True]  # type: ignore[operator]


@given(payload=some.binary(max_size=300), max_pdu_octets=some.integers(8, 200))
def test_every_pdu_respects_the_peers_limit_and_is_even(payload: bytes, max_pdu_octets: int) -> None:
    pieces = list(pack(1, memoryview(payload), is_command=False, is_last=False, max_pdu_octets=max_pdu_octets))
    lengths = [struct.unpack_from(">I", piece, 2)[0] for piece in pieces if isinstance(piece, bytes)]
    assert all(length <= max_pdu_octets for length in lengths)
    assert all(length % 2 == 0 for length in lengths[:-1])


def test_the_payload_is_sliced_not_copied() -> None:
    payload = bytearray(b"0123456789")
    pieces = list(pack(1, memoryview(payload), is_command=False, is_last=True, max_pdu_octets=10))
    payload[:] = b"ABCDEFGHIJ"
    assert b"".join(bytes(piece) for piece in pieces if isinstance(piece, memoryview)) == b"ABCDEFGHIJ"


def test_an_empty_payload_is_one_empty_fragment_when_it_is_last() -> None:
    empty = memoryview(b"")
    assert list(pack(1, empty, is_command=False, is_last=False, max_pdu_octets=0)) == []
    (only,) = pack(1, empty, is_command=False, is_last=True, max_pdu_octets=0)
    assert drain(framer(), bytes(only), 1)[0] == [(1, IS_LAST, b"")]


# The short ways of C-STORE


@given(some.binary(max_size=300), some.booleans(), some.booleans(), some.sampled_from([0, 9, 30, 4096, 1 << 20]))
def test_what_is_packed_at_once_is_what_is_packed(octets: bytes, command: bool, last: bool, limit: int) -> None:
    one_by_one = pack(3, memoryview(octets), is_command=command, is_last=last, max_pdu_octets=limit)
    at_once = framing.packed(3, octets, is_command=command, is_last=last, max_pdu_octets=limit)
    assert b"".join(at_once) == b"".join(one_by_one)


def test_a_whole_command_is_taken_in_one_go() -> None:
    assert framer().whole_command(memoryview(pdu(pdv(5, 3, b"command!")))) == (5, b"command!")


@pytest.mark.parametrize("octets", range(1, 20))
def test_the_front_of_a_command_is_waited_for(octets: int) -> None:
    assert framer().whole_command(memoryview(pdu(pdv(5, 3, b"command!"))[:octets])) == (0, b"")


NO_WHOLE_COMMANDS = {
    "nothing": b"",
    "the front of another pdu": codec.RELEASE_RQ[:5],
    "the front of a data set": pdu(pdv(5, 2, b"data"))[:-1],
    "one and more": pdu(pdv(5, 3, b"command!")) + b"\0",
    "two": pdu(pdv(5, 3, b"command!")) * 2,
    "two fragments in one pdu": pdu(pdv(5, 1, b"comm"), pdv(5, 3, b"and!")),
    "a command that goes on": pdu(pdv(5, 1, b"command!")),
    "a data set": pdu(pdv(5, 2, b"data")),
    "another pdu": codec.RELEASE_RQ + b"\0\0\0\3",
    "a fragment that lies about its length": struct.pack(">BxI", 4, 14) + struct.pack(">IBB", 9, 5, 3) + b"command!",
    "a command that claims more than a command may have": pdu(pdv(5, 3, bytes(5000)))[:20],
}


@pytest.mark.parametrize("octets", NO_WHOLE_COMMANDS.values(), ids=NO_WHOLE_COMMANDS)
def test_anything_else_is_left_to_feed(octets: bytes) -> None:
    assert framer().whole_command(memoryview(octets)) is None


def test_a_command_in_the_middle_of_a_pdu_is_left_to_feed() -> None:
    one = framer()
    one.feed(memoryview(pdu(pdv(5, 2, bytes(40)))[:30]))
    assert one.whole_command(memoryview(pdu(pdv(5, 3, b"command!")))) is None
