"""C-STORE by a session of `endpoints.dimse`, against peers that answer what they should not, leave, or stop reading."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.contract import Arrival, Ask, Ending, Level, Parcel, Stamp
from dcmsync.endpoints.dimse.place import DimseNode
from dcmsync.endpoints.dimse.session import Session
from dcmsync.errors import Disconnected, LocalTrouble, Refused, Rejected, RemoteProtocolError, Stalled
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.wire.dimse import operations
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.upperlayer import codec, framing
from tests.fakes import scripted
from tests.fakes.scripted import ABORT, Scripted, Talk, answer, message

CT, EXPLICIT, JPEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
OCTETS = bytes(range(256)) * 8
Deed = Callable[[Session], Awaitable[Any]]


def parcel(uid: str = "1.2.3.4", octets: bytes = OCTETS, kind: str = CT, syntax: str = EXPLICIT) -> Parcel:
    arrival = Arrival(sop_class_uid=kind, sop_instance_uid=uid, transfer_syntax_uid=syntax)
    return Parcel(arrival=arrival, size=len(octets), memory=octets)


def of_file(path: Path, octets: bytes, uid: str = "1.2.3.4") -> Parcel:
    """A parcel of a file that begins with `head`; its descriptor is left to the process."""
    path.write_bytes(b"head" + octets)
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    stamp = Stamp(size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino)
    return Parcel(arrival=parcel(uid).arrival, size=len(octets), descriptor=descriptor, offset=4, stamp=stamp)


def talk(script: Callable[[Talk], None], deed: Deed, *, timeout_s: float = 10.0) -> Any:
    """What `deed` gives, over one session with a scripted peer."""

    async def main(peer: Scripted) -> Any:
        with Watch() as watch, anyio.fail_after(20):
            node = DimseNode(peer.peer, limits=Limits(timeout_s=timeout_s), watch=watch)
            async with node.session() as session:
                return await deed(session)

    with Scripted(script) as peer:
        return anyio.run(main, peer)


def one(given: Parcel) -> Deed:
    async def deed(session: Session) -> Ending:
        await session.prepare([given.arrival])
        return await session.store(given)

    return deed


class Taking:
    """A script that takes instances, answers each as it is told, and remembers what came."""

    def __init__(self, *codes: int, then: Callable[[Talk, int, Command], bytes] | None = None) -> None:
        self.came: list[tuple[str, bytes]] = []
        self._codes = list(codes)
        self._then = then

    def __call__(self, talk: Talk) -> None:
        talk.accept()
        while True:
            context_id, request, data = talk.read_message()
            self.came.append((request.sop_instance_uid or "", data))
            if self._then is not None:
                talk.send(self._then(talk, context_id, request))
            else:
                talk.send(answer(context_id, request, self._codes.pop(0) if self._codes else 0))


@pytest.mark.parametrize("octets", [0, 2, 16370, 16376, 16378, 200_000, (1 << 20) - 6, 3 << 20])
def test_octets_arrive_as_they_are(octets: int, tmp_path: Path) -> None:
    data = os.urandom(octets)
    from_memory, from_file = Taking(), Taking()
    assert talk(from_memory, one(parcel(octets=data))) == Ending()
    given = of_file(tmp_path / "a", data)
    assert talk(from_file, one(given)) == Ending()
    os.close(given.descriptor)
    assert from_memory.came == from_file.came == [("1.2.3.4", data)]


def test_an_answer_that_comes_in_parts_is_put_together() -> None:
    def drip(talk: Talk, context_id: int, request: Command) -> bytes:
        octets = answer(context_id, request, 0)
        for at in range(0, len(octets) - 1, 7):
            talk.send(octets[at : at + 7][: len(octets) - 1 - at])
            talk.wait(0.001)
        return octets[-1:]

    assert talk(Taking(then=drip), one(parcel())) == Ending()


@pytest.mark.parametrize(
    ("code", "is_warning", "may_pass"),
    [(0xA700, False, True), (0xA701, False, True), (0x0110, False, True), (0xA900, False, False),
     (0xC000, False, False), (0x0122, False, False), (0x0124, False, False), (0x0111, False, False),
     (0xB000, True, False), (0xB006, True, False), (0xB007, True, False), (0x0107, True, False)],
    ids=hex,
)  # fmt: skip
def test_statuses_are_of_four_kinds(code: int, is_warning: bool, may_pass: bool) -> None:
    ending = talk(Taking(code), one(parcel()))
    assert (ending.status, ending.is_warning, ending.may_pass) == (code, is_warning, may_pass)
    assert f"0x{code:04X}" in ending.why


LIES: dict[str, Callable[[Talk, int, Command], bytes]] = {
    "another message": lambda talk, context_id, request: answer(context_id, request, 0, responding_to=999),
    "another instance": lambda talk, context_id, request: answer(context_id, request, 0, sop_instance_uid="1.2.9"),
    "a pending status": lambda talk, context_id, request: answer(context_id, request, 0xFF00),
    "no status": lambda talk, context_id, request: answer(context_id, request, 0, status=None),
    "a data set": lambda talk, context_id, request: answer(context_id, request, 0, b"data"),
    "two answers": lambda talk, context_id, request: answer(context_id, request, 0) * 2,
    "a request of its own": lambda talk, context_id, request: message(context_id, operations.echo(1).request),
    "no command": lambda talk, context_id, request: scripted.fragment(context_id, b"data", is_last=True),
    "no PDU": lambda talk, context_id, request: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "2 GiB": lambda talk, context_id, request: b"\x04\0\x7f\xff\xff\xff" + bytes(100),
    "a command of 2 GiB": lambda talk, context_id, request: b"\x04\0\x7f\xff\xff\xff\x7f\xff\xff\xfb\x01\x03",
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_breaks_the_rules_is_none(lie: str) -> None:
    with pytest.raises(RemoteProtocolError):
        talk(Taking(then=LIES[lie]), one(parcel()))


LEAVING: dict[str, Callable[[Talk, int, Command], bytes]] = {
    "A-ABORT": lambda talk, context_id, request: ABORT,
    "A-RELEASE": lambda talk, context_id, request: codec.RELEASE_RQ,
    "RST": lambda talk, context_id, request: [talk.reset(), b""][1] or b"",
    "half an answer": lambda talk, context_id, request: [
        talk.send(answer(context_id, request, 0)[:20]), talk.socket.close(), b""
    ][2] or b"",
}  # fmt: skip


@pytest.mark.parametrize("leave", LEAVING)
def test_a_peer_that_leaves_is_named_and_the_next_call_opens_another(leave: str) -> None:
    takings = iter([Taking(then=LEAVING[leave]), Taking()])

    async def deed(session: Session) -> Ending:
        await session.prepare([parcel().arrival])
        with pytest.raises(Disconnected):
            await session.store(parcel())
        assert not session.is_ready_for(parcel().arrival)
        await session.prepare([parcel().arrival])
        return await session.store(parcel())

    assert talk(lambda talk: next(takings)(talk), deed) == Ending()


def test_a_peer_that_leaves_in_the_middle_of_an_instance_is_named() -> None:
    def leave(talk: Talk) -> None:
        talk.accept()
        talk.read(100_000)
        talk.reset()

    with pytest.raises(Disconnected):
        talk(leave, one(parcel(octets=bytes(32 << 20))))


@pytest.mark.slow
@pytest.mark.parametrize("reads", [True, False], ids=["that never answers", "that stops reading"])
def test_a_peer_is_left_at_its_deadline(reads: bool) -> None:
    def stall(talk: Talk) -> None:
        talk.accept()
        if reads:
            talk.hold()
        talk.wait(20)

    with pytest.raises(Stalled):
        talk(stall, one(parcel(octets=bytes(32 << 20))), timeout_s=0.5)


# Contexts


def test_what_is_not_taken_is_refused_by_name_and_the_association_goes_on() -> None:
    def choosy(talk: Talk) -> None:
        talk.accept(refuse=["1.9"])
        while True:
            context_id, request, _ = talk.read_message()
            talk.send(answer(context_id, request, 0))

    async def deed(session: Session) -> Ending:
        strange = parcel(kind="1.9", syntax=JPEG)
        await session.prepare([strange.arrival, parcel().arrival])
        with pytest.raises(Refused, match=f"SOP class 1.9 in transfer syntax {JPEG}"):
            await session.store(strange)
        assert session.is_ready_for(parcel().arrival)
        return await session.store(parcel())

    assert talk(choosy, deed) == Ending()


def test_as_many_kinds_are_proposed_as_fit_the_first_ones_first() -> None:
    proposed: list[tuple[str, tuple[str, ...]]] = []

    def script(talk: Talk) -> None:
        talk.accept()
        assert talk.request is not None
        proposed.extend((each.abstract_syntax, each.transfer_syntaxes) for each in talk.request.contexts)
        talk.release()

    async def deed(session: Session) -> None:
        kinds = [parcel(kind=f"1.{n // 2}", syntax=(EXPLICIT, JPEG)[n % 2]).arrival for n in range(300)]
        await session.prepare([kinds[7], *kinds, *kinds])
        assert session.is_ready_for(kinds[7])
        assert session.is_ready_for(kinds[126])
        assert not session.is_ready_for(kinds[127])

    talk(script, deed)
    assert len(proposed) == 128
    assert proposed[0][0] == operations.STUDY_ROOT_FIND
    assert proposed[1] == ("1.3", (JPEG,))
    assert all(len(syntaxes) == 1 for _, syntaxes in proposed[1:])


def test_a_peer_without_queries_is_said_to_be_one_and_keeps_its_association() -> None:
    def script(talk: Talk) -> None:
        talk.accept(refuse=[operations.STUDY_ROOT_FIND])
        context_id, request, _ = talk.read_message()
        talk.send(answer(context_id, request, 0))
        talk.release()

    async def deed(session: Session) -> Ending:
        await session.prepare([parcel().arrival])
        with pytest.raises(Rejected, match="C-FIND"):
            async for _ in session.find(Ask(level=Level.STUDY, keys={"StudyInstanceUID": "1.2"})):
                pass
        assert session.is_ready_for(parcel().arrival)
        return await session.store(parcel())

    assert talk(script, deed) == Ending()


# Files that change


@pytest.mark.parametrize("octets", [1000, 3 << 20], ids=["a small one", "a large one"])
@pytest.mark.parametrize("change", ["shorter", "younger"])
def test_a_file_that_changes_never_arrives_whole(octets: int, change: str, tmp_path: Path) -> None:
    path, whole = tmp_path / "a", 0

    def script(talk: Talk) -> None:
        nonlocal whole
        talk.accept()
        while True:
            kind, pdu = talk.read_pdu()
            whole += kind == framing.P_DATA_TF and pdu[11] == framing.IS_LAST

    given = of_file(path, bytes(octets))
    if change == "shorter":
        os.truncate(path, octets // 2)
    else:
        os.utime(path, ns=(1, 1))
    with pytest.raises(LocalTrouble):
        talk(script, one(given))
    os.close(given.descriptor)
    assert whole == 0
