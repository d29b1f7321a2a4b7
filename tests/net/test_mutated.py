"""Conversations that were real, and then mutated: PDU streams against our client and against our node.

Recorded through a relay: our client with our node, and DCMTK's clients with it. One side is then played again with
something changed: bits, lengths, an end too early, PDUs twice, left out or in another order, octets of no meaning. A
fragmentation that the standard allows is among the changes, too, and must change nothing.

Each ends within its deadline, in one of our errors or in a result, leaves no thread and no descriptor, and memory stays
bounded. A result is held against what the played octets say to a reader of a few lines that knows nothing of ours: what
was taken, answered or called a success must be in there. So a bit that flips within pixels is legal, and one that
flips in a header cannot make a success.

500 a run; DCMSYNC_TEST_PROOFS=10000 does so many. The number of a conversation that fails says all: it is its seed.
"""

import io
import os
import random
import resource
import struct
import subprocess
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.abc
import pydicom
import pytest

from dcmsync.contract import Ask, Level, Parcel, Want
from dcmsync.endpoints.dimse.place import DimseNode
from dcmsync.errors import DcmsyncError
from dcmsync.net.association import Peer
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.wire import dataset
from dcmsync.wire.part10 import walk_file
from tests import nodes, peers, samples
from tests.fakes.relay import Relay, Said, Side
from tests.trees import data_set, files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

COUNT = int(os.environ.get("DCMSYNC_TEST_PROOFS", 500)) // 2  # on either side
SEED = 20261121
AT_ONCE = 16
TIMEOUT_S = 0.5
PATIENCE_S = 20 * TIMEOUT_S  # where nothing is wrong, and the machine may be busy
DEADLINE_S = 10 * TIMEOUT_S  # for one conversation while others go on, on machines that do other things as well
IDLE_S = 0.05  # how long the played side waits for what it heard when it was recorded
STAYS = 0.1  # how many leave the connection open at their end
MEMORY = AT_ONCE * (8 << 20)  # a stream has a buffer of 4 MiB
CT, EXPLICIT = samples.CT_IMAGE_STORAGE, samples.EXPLICIT_LITTLE
P_DATA, STORE_RQ, PENDING, NO_DATA_SET = 4, 0x0001, (0xFF00, 0xFF01), b"\x01\x01"
dataset.tag_of("PatientID")  # loads the dictionary, which no deadline should have to wait for


class Line(NamedTuple):
    """What the played side says next: octets, once it has heard so many."""

    octets: bytes
    heard: int


Lines = list[Line]


def lines_of(conversation: Sequence[Said], side: Side) -> Lines:
    """One side of a conversation."""
    found: Lines = []
    heard = 0
    for said in conversation:
        if said.side == side:
            found.append(Line(said.pdu, heard))
        else:
            heard += len(said.pdu)
    return found


# Mutations


def bits(lines: Lines, dice: random.Random) -> Lines:
    """Some bits flip, most of them near the front of a PDU."""
    out = list(lines)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(out))
        octets = bytearray(out[at].octets)
        near = min(len(octets), 40) if dice.random() < 0.8 else len(octets)
        octets[dice.randrange(near)] ^= 1 << dice.randrange(8)
        out[at] = Line(bytes(octets), out[at].heard)
    return out


def length(lines: Lines, dice: random.Random) -> Lines:
    """A length lies: of a PDU, of a PDV, or of an item."""
    at = dice.randrange(len(lines))
    octets = bytearray(lines[at].octets)
    place, form = dice.choice([(2, ">I"), (6, ">I"), (76, ">H"), (dice.randrange(len(octets)), ">H")])
    if place + struct.calcsize(form) <= len(octets):
        (value,) = struct.unpack_from(form, octets, place)
        lies = (0, 1, 2, 5, 6, value - 1, value + 1, value * 2, 0x7FFFFFFF, 0xFFFFFFFF, dice.getrandbits(32))
        lie = dice.choice(lies)
        struct.pack_into(form, octets, place, lie & (1 << 8 * struct.calcsize(form)) - 1)
    return [*lines[:at], Line(bytes(octets), lines[at].heard), *lines[at + 1 :]]


def end(lines: Lines, dice: random.Random) -> Lines:
    """It ends anywhere."""
    at = dice.randrange(len(lines))
    return [*lines[:at], Line(lines[at].octets[: dice.randrange(len(lines[at].octets))], lines[at].heard)]


def double(lines: Lines, dice: random.Random) -> Lines:
    """A PDU comes twice."""
    at = dice.randrange(len(lines))
    return [*lines[: at + 1], *lines[at:]]


def drop(lines: Lines, dice: random.Random) -> Lines:
    """A PDU is left out."""
    at = dice.randrange(len(lines))
    return [*lines[:at], *lines[at + 1 :]]


def swap(lines: Lines, dice: random.Random) -> Lines:
    """Two PDUs change places."""
    one, other = sorted(dice.choices(range(len(lines)), k=2))
    out = list(lines)
    out[one], out[other] = Line(out[other].octets, out[one].heard), Line(out[one].octets, out[other].heard)
    return out


def junk(lines: Lines, dice: random.Random) -> Lines:
    """Octets of no meaning, or of the meaning of another protocol, stand somewhere."""
    at = dice.randrange(len(lines) + 1)
    octets = dice.choice([
        dice.randbytes(dice.randint(1, 300)), b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\0\x05abcde",
        b"\x04\0\x7f\xff\xff\xff", b"\x07\0\0\0\0\x04\0\0\0\0", b"\x05\0\0\0\0\x04\0\0\0\0",
    ])  # fmt: skip
    return [*lines[:at], Line(octets, lines[min(at, len(lines) - 1)].heard), *lines[at:]]


def split(lines: Lines, dice: random.Random) -> Lines:
    """The same fragments, cut anew, several in a PDU or one in several; and written in pieces of any size."""
    out = []
    for line in lines:
        octets = line.octets
        if octets[0] == P_DATA and len(octets) == 10 + struct.unpack_from(">I", octets, 6)[0]:
            octets = b"".join(recut(octets[10], octets[11], octets[12:], dice))
        cuts = sorted(dice.choices(range(len(octets) + 1), k=dice.randint(0, 4)))
        pieces = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
        out += [Line(piece, line.heard) for piece in pieces]
    return out


def recut(context_id: int, control: int, payload: bytes, dice: random.Random) -> Iterator[bytes]:
    pdvs, at = [], 0
    while at < len(payload) or not pdvs:
        size = min(dice.choice([2, 8, 64, 1000, len(payload)]), len(payload) - at)
        is_last = control & 2 if at + size == len(payload) else 0
        pdvs.append(struct.pack(">IBB", size + 2, context_id, control & 1 | is_last) + payload[at : at + size])
        at += size
    while pdvs:
        some = [pdvs.pop(0) for _ in range(min(len(pdvs), dice.randint(1, 3)))]
        yield struct.pack(">BxI", P_DATA, sum(map(len, some))) + b"".join(some)


MUTATIONS = (bits, bits, length, length, end, double, drop, swap, junk, split)


def mutated(lines: Lines, number: int) -> tuple[str, Lines]:
    """What was done, and what became of it; several things at a time now and then."""
    dice = random.Random(SEED + number)
    mutation = dice.choice(MUTATIONS)
    out = mutation(lines, dice)
    name = mutation.__name__
    while mutation is not split and out and all(line.octets for line in out) and dice.random() < 0.2:
        mutation = dice.choice(MUTATIONS[:-1])
        out, name = mutation(out, dice), f"{name}+{mutation.__name__}"
    return name, out


# The reader that knows nothing of ours


class Message(NamedTuple):
    """A message that the played octets hold, whole."""

    field: int
    responds_to: int
    status: int
    uid: str
    data: bytes


def messages(octets: bytes) -> list[Message]:
    """Every message in a stream, up to where it makes no sense any more."""
    found: list[Message] = []
    command, data, has_command = bytearray(), bytearray(), False
    at = 0
    while len(octets) - at >= 6:
        kind, size = octets[at], struct.unpack_from(">I", octets, at + 2)[0]
        stop = at + 6 + size
        if kind == P_DATA:
            place = at + 6
            while place + 6 <= min(stop, len(octets)):
                length, _, control = struct.unpack_from(">IBB", octets, place)
                payload = octets[place + 6 : place + 4 + length]
                if length < 2 or len(payload) < length - 2:
                    return found
                place += 4 + length
                if not control & 1 and not has_command:
                    return found
                (command if control & 1 else data).extend(payload)
                if control & 2:
                    has_command = has_command or bool(control & 1)
                    values = command_of(bytes(command)) if has_command else {}
                    if has_command and (not control & 1 or values.get(0x0800, NO_DATA_SET) == NO_DATA_SET):
                        found.append(message_of(values, bytes(data)))
                        command, data, has_command = bytearray(), bytearray(), False
        at = stop
    return found


def command_of(octets: bytes) -> dict[int, bytes]:
    values, at = {}, 0
    while at + 8 <= len(octets):
        _, element, size = struct.unpack_from("<HHI", octets, at)
        values[element] = octets[at + 8 : at + 8 + size]
        at += 8 + size
    return values


def message_of(values: dict[int, bytes], data: bytes) -> Message:
    numbers = [int.from_bytes(values.get(element, b"\xff\xff\xff"), "little") for element in (0x0100, 0x0120, 0x0900)]
    return Message(*numbers, values.get(0x1000, b"").rstrip(b"\0 ").decode("ascii", "backslashreplace"), data)


# Playing


class Played(NamedTuple):
    """What came back, and whether the other side ended it in time."""

    heard: bytes
    is_over: bool


async def play(stream: anyio.abc.SocketStream, lines: Lines, *, number: int, how: str) -> Played:
    """Says the lines, each when so much has been heard, or when nothing comes any more; waits for the end."""
    idle_s = PATIENCE_S if how == "split" else IDLE_S
    stays = how != "split" and random.Random(-number).random() < STAYS
    heard = bytearray()
    come = anyio.Event()
    is_over = False

    async def hear() -> None:
        nonlocal come, is_over
        try:
            while True:
                heard.extend(await stream.receive())
                come.set()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            is_over = True
            come.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hear)
        is_waiting = True
        try:
            for line in lines:
                while is_waiting and len(heard) < line.heard and not is_over:
                    come = anyio.Event()
                    with anyio.move_on_after(idle_s) as patience:
                        await come.wait()
                    is_waiting = not patience.cancelled_caught
                await stream.send(line.octets)
            if not stays:
                await stream.send_eof()
        except (anyio.BrokenResourceError, OSError):
            pass
        with anyio.move_on_after(DEADLINE_S):
            while not is_over:
                come = anyio.Event()
                await come.wait()
        tasks.cancel_scope.cancel()
    return Played(bytes(heard), is_over)


async def in_groups(numbers: Sequence[int], one: Callable[[int], Awaitable[None]]) -> None:
    for first in range(0, len(numbers), AT_ONCE):
        async with anyio.create_task_group() as tasks:
            for number in numbers[first : first + AT_ONCE]:
                tasks.start_soon(one, number)


# Recording


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One series in the node, and one to be stored."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, series=2, instances=2, rows=48, columns=48, seed=SEED)


@pytest.fixture
def node(made: list[samples.Sample], tmp_path: Path) -> Iterator[nodes.Serving]:
    """Our node, with the first series."""
    folder = tmp_path / "node"
    folder.mkdir()
    for number, sample in enumerate(made[:2]):
        (folder / f"{number}.dcm").write_bytes(sample.path.read_bytes())
    with nodes.serving(folder, "--timeout", str(TIMEOUT_S)) as serving:
        yield serving


class Taking:
    """Takes whatever it is offered (contract.Receiver)."""

    def __init__(self) -> None:
        self.came: list[tuple[str, bytes]] = []

    def receive(self, arrival: Any) -> "Taken":
        return Taken(self, arrival.sop_instance_uid)

    async def room(self) -> None:
        return


class Taken:
    """Gathers one instance."""

    def __init__(self, taking: Taking, uid: str) -> None:
        self._taking, self._uid, self._octets = taking, uid, bytearray()

    def write(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self._octets += piece

    def finish(self) -> int:
        self._taking.came.append((self._uid, bytes(self._octets)))
        return 0

    def discard(self, why: str) -> None:
        self._octets.clear()


class Claims(NamedTuple):
    """What our client says of one conversation: whether all is done, and what came of it."""

    is_done: bool
    answers: int
    came: list[tuple[str, bytes]]


class Operations:
    """What our client does in the conversations, on one association each."""

    def __init__(self, made: Sequence[samples.Sample]) -> None:
        self._made = made

    async def echo(self, place: DimseNode) -> Claims:
        return Claims(await place.echo() == 0, 0, [])

    async def find(self, place: DimseNode) -> Claims:
        ask = Ask(level=Level.STUDY, keys={"StudyInstanceUID": ""}, wanted=("PatientName", "StudyDate"))
        async with place.session() as session:
            *answers, ending = [answer async for answer in session.find(ask)]
        return Claims(not ending.status, len(answers), [])  # type: ignore[union-attr]  # an Ending is last

    async def get(self, place: DimseNode) -> Claims:
        taking = Taking()
        first = self._made[0]
        wanted = {sample.sop_uid: CT for sample in self._made[:2]}
        want = Want(study_uid=first.study_uid, series_uid=first.series_uid, instances=wanted)
        is_done = False
        try:
            async with place.session() as session:
                is_done = not (await session.fetch(want, taking)).status
        except DcmsyncError:
            pass
        return Claims(is_done, 0, taking.came)

    async def store(self, place: DimseNode) -> Claims:
        from dcmsync.contract import Arrival

        parcels = [
            Parcel(arrival=Arrival(sop_class_uid=CT, sop_instance_uid=sample.sop_uid, transfer_syntax_uid=EXPLICIT),
                   size=len(octets), memory=octets)
            for sample in self._made[2:] for octets in [data_set(sample.path)]
        ]  # fmt: skip
        stored = []
        try:
            async with place.session() as session:
                for parcel in parcels:
                    ending = await session.store(parcel)
                    stored += [] if ending.status else [(parcel.arrival.sop_instance_uid, b"")]
        except DcmsyncError:
            pass
        return Claims(len(stored) == len(parcels), 0, stored)


ANSWERS = {"echo": 0x8030, "find": 0x8020, "get": 0x8010, "store": 0x8001}


async def with_place(
    port: int, watch: Watch, operation: Callable[[DimseNode], Awaitable[Claims]], timeout_s: float = PATIENCE_S
) -> Claims | None:
    """What an operation claims; None where it ended with an error of ours."""
    peer = Peer(host=peers.HOST, port=port, called_ae="DCMSYNC", calling_ae="DCMSYNC")
    try:
        return await operation(DimseNode(peer, limits=Limits(timeout_s=timeout_s), watch=watch))
    except DcmsyncError:
        return None


def record_ours(node: nodes.Serving, made: Sequence[samples.Sample]) -> dict[str, list[Said]]:
    """Our client's conversations with our node."""
    found = {}
    operations = Operations(made)
    for name in ANSWERS:
        with Relay(node.host, node.port) as relay, Watch() as watch:
            claims = anyio.run(with_place, relay.port, watch, getattr(operations, name))
            assert claims is not None and claims.is_done, name
        (found[name],) = relay.conversations
    return found


def record_dcmtk(node: nodes.Serving, made: Sequence[samples.Sample], folder: Path) -> dict[str, list[Said]]:
    """The conversations of DCMTK's clients with our node."""
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={made[0].study_uid}"]
    runs = {
        "echoscu": [], "findscu": ["-S", *keys], "getscu": ["-S", *keys, "-od", str(folder)],
        "storescu": [str(sample.path) for sample in made[2:]],
    }  # fmt: skip
    found = {}
    for tool, words in runs.items():
        with Relay(node.host, node.port) as relay:
            place = ["-aec", node.ae, peers.HOST, str(relay.port)]
            peers.dcmtk(tool, *(place + words if tool == "storescu" else [*words[:1], *place, *words[1:]]))
        (found[tool],) = relay.conversations
    return found


# Against our client


def test_our_client(node: nodes.Serving, made: list[samples.Sample]) -> None:
    recorded = {name: lines_of(said, "server") for name, said in record_ours(node, made).items()}
    operations = Operations(made)
    threads, open_before = set(threading.enumerate()), descriptors()
    faults: list[str] = []

    async def main() -> None:
        with Watch() as watch:

            async def one(number: int) -> None:
                name = list(ANSWERS)[number % len(ANSWERS)]
                how, lines = mutated(recorded[name], number)
                done: list[Claims | None] = []
                listener = await anyio.create_tcp_listener(local_host=peers.HOST, local_port=0)
                port = listener.extra(anyio.abc.SocketAttribute.local_port)

                async def answer(stream: anyio.abc.SocketStream) -> None:
                    async with stream:
                        await play(stream, lines, number=number, how=how)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(listener.serve, answer)
                    timeout_s = PATIENCE_S if how == "split" else TIMEOUT_S
                    with anyio.move_on_after(10 * timeout_s):
                        done.append(await with_place(port, watch, getattr(operations, name), timeout_s))
                    tasks.cancel_scope.cancel()
                await listener.aclose()
                octets = b"".join(line.octets for line in lines)
                fault = judged(name, how, octets, done[0]) if done else "it does not end"
                if fault:
                    faults.append(f"{number}: {name}, {how}: {fault}")

            await in_groups(range(COUNT), one)

    tracemalloc.start(1)
    try:
        anyio.run(main)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not faults, "\n".join(faults)
    assert peak < MEMORY
    assert set(threading.enumerate()) <= threads
    assert len(descriptors()) <= len(open_before)


def judged(name: str, how: str, octets: bytes, claims: Claims | None) -> str:
    """What is wrong about what our client claims."""
    said = messages(octets)
    if how == "split":
        return "" if claims is not None and claims.is_done else "a legal fragmentation is no error"
    if claims is None:
        return ""
    answers = [one for one in said if one.field == ANSWERS[name]]
    final = [one for one in answers if one.status == 0]
    if claims.is_done and not final:
        return "a success that nobody said"
    if claims.answers > sum(one.status in PENDING for one in answers):
        return "more answers than were given"
    if name == "store":
        return "" if len(claims.came) <= len(final) else "more stored than was answered"
    sent = {(one.uid, one.data) for one in said if one.field == STORE_RQ}
    return "" if sent.issuperset(claims.came) else "an instance came that nobody sent so"


# Against our node


def test_our_node(
    node: nodes.Serving, made: list[samples.Sample], require: Callable[[str], str], tmp_path: Path
) -> None:
    for tool in ("echoscu", "findscu", "getscu", "storescu"):
        require(tool)
    (tmp_path / "got").mkdir()
    recorded = {**record_ours(node, made), **record_dcmtk(node, made, tmp_path / "got")}
    played = {name: lines_of(said, "client") for name, said in recorded.items()}
    for path in files(node.folder):
        if path.parent != node.folder:
            path.unlink()  # what the recording stored
    process = node.process.pid
    memory_before = octets_of(process, "VmRSS")
    resource.prlimit(process, resource.RLIMIT_AS, (1 << 33, 1 << 33))  # for the sake of the machine
    threads, open_before = len(list(Path(f"/proc/{process}/task").iterdir())), len(descriptors(process))
    faults: list[str] = []
    stored: set[tuple[str, bytes]] = {(sample.sop_uid, data_set(sample.path)) for sample in made}

    async def one(number: int) -> None:
        name = list(played)[number % len(played)]
        how, lines = mutated(played[name], number)
        said = messages(b"".join(line.octets for line in lines))
        sent = {(message.uid, message.data) for message in said if message.field == STORE_RQ}
        stored.update(sent)
        async with await anyio.connect_tcp(peers.HOST, node.port) as stream:
            heard, is_over = await play(stream, lines, number=number, how=how)
        answers = [message for message in messages(heard) if message.field == ANSWERS["store"] and message.status == 0]
        if not is_over:
            faults.append(f"{number}: {name}, {how}: it does not end")
        elif name not in ("get", "getscu") and len(answers) > len([m for m in said if m.field == STORE_RQ]):
            faults.append(f"{number}: {name}, {how}: more success than was sent")
        elif how == "split" and len(messages(heard)) != len(messages(whole(recorded[name], "server"))):
            faults.append(f"{number}: {name}, {how}: a legal fragmentation is answered otherwise")

    anyio.run(in_groups, range(COUNT), one)
    assert not faults, "\n".join(faults)
    done = subprocess.run(["echoscu", "-aec", node.ae, node.host, str(node.port)], check=False, timeout=20)
    assert done.returncode == 0, "it does not answer any more"
    reasons = {event["reason"] for event in node.events if "reason" in event}
    assert "bug" not in reasons, [event for event in node.events if event.get("reason") == "bug"]
    peers.wait_for(lambda: len(descriptors(process)) <= open_before + 1)
    assert len(list(Path(f"/proc/{process}/task").iterdir())) <= threads + 4  # the workers of its loop stay
    said = node.folder.with_name("node.err").read_text()
    assert "Traceback" not in said and "bug" not in said
    assert octets_of(process, "VmHWM") - memory_before < MEMORY
    for path in files(node.folder):
        assert walk_file(path.read_bytes())[1].is_whole, path
        read = pydicom.dcmread(io.BytesIO(path.read_bytes()), stop_before_pixels=True)
        assert (str(read.file_meta.MediaStorageSOPInstanceUID), data_set(path)) in stored, path


def whole(conversation: Sequence[Said], side: Side) -> bytes:
    return b"".join(said.pdu for said in conversation if said.side == side)


def octets_of(process: int, which: str) -> int:
    """One of the sizes of a process: VmRSS now, VmHWM at its highest."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(which)]
    return int(line.split()[1]) << 10


def descriptors(process: int | str = "self") -> list[Path]:
    return list(Path(f"/proc/{process}/fd").iterdir())
