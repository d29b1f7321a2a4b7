"""C-MOVE against peers that lie, hang, and send what was not asked, from where they should not, or when it is over.

The peer is a script: it takes the C-MOVE on one connection, and calls our mailbox on others. Deadlines are a second;
whatever it does, the client ends within three of them, by name, and takes nothing foreign.
"""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio
import pytest

from dcmsync.contract import Arrival, Ending, Want
from dcmsync.endpoints.dimse import moving as moving_module
from dcmsync.endpoints.dimse.moving import Mover, Via
from dcmsync.endpoints.dimse.place import DimseNode
from dcmsync.errors import Disconnected, LocalTrouble, PeerError, Rejected, Stalled, Unreachable
from dcmsync.net.channel import Limits
from dcmsync.net.mailbox import Mailbox
from dcmsync.net.patience import Watch
from dcmsync.wire import dataset
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.command import Command
from tests.fakes import scripted
from tests.fakes.scripted import PENDING, SUCCESS, Scripted, Talk, answer
from tests.fakes.taker import Taker
from tests.nodes import Caller

DEADLINE_S = 1.0
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = scripted.EXPLICIT
GET, MOVE = operations.STUDY_ROOT_GET, operations.STUDY_ROOT_MOVE
UIDS = tuple(f"1.2.3.{number}" for number in range(5))
WANTED = dict.fromkeys(UIDS, CT)
WANT = Want(study_uid="1.2", series_uid="1.2.3", instances=WANTED)
GAPS = Want(study_uid="1.2", series_uid="1.2.3", instances=WANTED, whole=False)
status.words(0xA801, "C-MOVE")  # loads the tables, which no deadline should have to wait for
dataset.tag_of("PatientID")

pytestmark = pytest.mark.slow


class House:
    """A node and our mailbox, as a script sees them, and what came of the client's operation."""

    def __init__(self) -> None:
        self.port = 0
        self.refused = 0
        self.strangers: Mapping[str, int] = {}
        self.warnings: list[str] = []
        self.asked: list[list[str]] = []  # the SOP Instance UIDs of each C-MOVE
        self.destinations: list[str | None] = []

    def call(self, *, called: str = "DCMSYNC", source: str = "127.0.0.1") -> Caller:
        """An association with the mailbox, for CT."""
        caller = Caller(self.port, source=source)
        caller.associate([(CT, (EXPLICIT,))], called=called)
        return caller

    def send(self, *uids: str, request: Command | None = None, **how: Any) -> list[int | None]:
        """Stores instances on an association of its own: the statuses."""
        with self.call(**how) as caller:
            return [store(caller, uid, request) for uid in uids]


def store(caller: Caller, uid: str, request: Command | None = None, octets: int = 64) -> int | None:
    """Stores one instance: the status. `request` is the C-MOVE that it belongs to."""
    caller.say(1, store_request(uid, request), bytes(octets))
    return caller.hear()[0].status


def store_request(uid: str, request: Command | None = None) -> Command:
    plain = operations.store(1, CT, uid).request
    if request is None:
        return plain
    values = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return Command(**{**values, "originator_ae": "DCMSYNC", "originator_message_id": request.message_id})


Then = Callable[[House, Talk, int, Command, list[str]], None]


def serving(house: House, then: Then, *, refuse: Sequence[str] = ()) -> Callable[[Talk], None]:
    """A script that takes C-MOVEs one after another, and does `then` for each: of what UIDs, where they are named."""

    def script(talk: Talk) -> None:
        talk.accept(refuse=refuse)
        while True:
            context_id, request, identifier = talk.read_message()
            keys = dataset.decode_identifier(identifier, EXPLICIT)
            uids = keys.get("SOPInstanceUID", list(UIDS))
            house.asked.append([str(uid) for uid in (uids if isinstance(uids, list) else str(uids).split("\\"))])
            house.destinations.append(request.move_destination)
            then(house, talk, context_id, request, house.asked[-1])

    return script


@contextmanager
def in_time_and_leaving_no_thread(deadlines: float) -> Iterator[None]:
    threads, begun = set(threading.enumerate()), time.monotonic()
    try:
        yield
    finally:
        assert time.monotonic() - begun < deadlines * DEADLINE_S
        assert set(threading.enumerate()) <= threads


def run(
    then: Then,
    operation: Callable[..., Any],
    *,
    house: House | None = None,
    via: Via | None = "move",
    senders: Sequence[str] = (),
    refuse: Sequence[str] = (),
    deadlines: float = 3,
    script: Callable[[House], Callable[[Talk], None]] | None = None,
    sessions: int = 1,
) -> Any:
    """What an operation of one session or several gives, against a peer that does `then`."""
    house = house or House()
    limits = Limits(timeout_s=DEADLINE_S)

    async def main(server: Scripted) -> Any:
        with Watch() as watch:
            async with anyio.create_task_group() as tasks:
                mailbox = Mailbox("127.0.0.1", 0, limits=limits, watch=watch)
                house.port = mailbox.port
                tasks.start_soon(mailbox.run)
                mover = Mover(
                    server.peer, limits, mailbox=lambda: mailbox, via=via, senders=senders, warn=house.warnings.append
                )
                node = DimseNode(server.peer, limits=limits, watch=watch, mover=mover)
                try:
                    async with AsyncExitStack() as stack:
                        opened = [await stack.enter_async_context(node.session()) for _ in range(sessions)]
                        return await operation(*opened)
                finally:
                    house.refused, house.strangers = mailbox.refused, dict(mailbox.strangers)
                    tasks.cancel_scope.cancel()

    chosen = script(house) if script else serving(house, then, refuse=refuse)
    with in_time_and_leaving_no_thread(deadlines), Scripted(chosen) as server:
        try:
            return anyio.run(main, server)
        except BaseExceptionGroup as group:
            assert len(group.exceptions) == 1, group
            raise group.exceptions[0] from None


def fetching(taker: Taker, want: Want = WANT) -> Callable[[Any], Any]:
    async def fetch(session: Any) -> Ending:
        ending: Ending = await session.fetch(want, taker)
        return ending

    return fetch


def fails(kind: type[PeerError], words: str, then: Then, taker: Taker | None = None, **how: Any) -> PeerError:
    with pytest.raises(kind, match=words) as caught:
        run(then, fetching(taker or Taker(WANTED)), **how)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("SCRIPTED@127.0.0.1:"), "a message names its place"
    return caught.value


def sends_all(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    """As it should be."""
    house.send(*uids, request=request)
    talk.send(answer(context_id, request, SUCCESS, completed=len(uids), failed=0, warnings=0))


# What is asked for comes


def test_what_was_asked_for_arrives() -> None:
    house, taker = House(), Taker(WANTED)
    assert run(sends_all, fetching(taker), house=house) == Ending()
    assert sorted(taker.arrived) == sorted(UIDS)
    assert house.destinations == ["DCMSYNC"] and house.refused == 0


def test_two_series_in_a_row_use_one_association_for_the_asking() -> None:
    house, taker = House(), Taker(WANTED)

    async def twice(session: Any) -> None:
        await session.fetch(WANT, taker)
        await session.fetch(WANT, taker)

    run(sends_all, twice, house=house)
    assert len(house.asked) == 2 and len(taker.arrived) == 10


@pytest.mark.parametrize("counts", [
    {"completed": 5, "failed": 0, "warnings": 0}, {}, {"completed": 99}, {"completed": 0, "failed": 0, "warnings": 0},
    {"completed": 0, "warnings": 5},
], ids=str)  # fmt: skip
def test_what_comes_after_the_final_answer_is_waited_for(counts: dict[str, int]) -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, SUCCESS, **counts))
        with house.call() as caller:
            for uid in uids:
                talk.wait(0.05)
                store(caller, uid)

    taker = Taker(WANTED)
    assert run(then, fetching(taker)) == Ending()
    assert sorted(taker.arrived) == sorted(UIDS)


def test_an_instance_that_is_arriving_is_waited_for_whatever_the_answer_says() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            whole = caller.message(1, store_request(uids[0]), bytes(5000))
            caller.socket.sendall(whole[:-2000])
            talk.wait(0.2)
            talk.send(answer(context_id, request, 0xB000, completed=0, failed=5, warnings=0))
            talk.wait(0.2)
            caller.socket.sendall(whole[-2000:])
            caller.hear()

    taker = Taker(WANTED)
    ending = run(then, fetching(taker))
    assert (ending.status, taker.arrived) == (0xB000, [UIDS[0]])


def test_counts_that_say_less_than_was_wanted_are_not_waited_beyond() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        house.send(*uids[:3])
        talk.send(answer(context_id, request, 0xB000, completed=3, failed=2, warnings=0))

    taker = Taker(WANTED)
    ending = run(then, fetching(taker), deadlines=0.9)
    assert (ending.status, len(taker.arrived)) == (0xB000, 3)


def test_waits_in_vain_become_shorter() -> None:
    """A peer that counts what never comes costs one deadline, not one for each C-MOVE."""

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        if len(house.asked) == 1:
            house.send(*uids)
        talk.send(answer(context_id, request, SUCCESS, completed=5, failed=0, warnings=0))

    async def often(session: Any) -> None:
        for _ in range(10):
            await session.fetch(WANT, Taker(WANTED))

    run(then, often, deadlines=2.5)


def test_instances_on_their_way_are_progress_for_an_association_that_says_nothing() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            for uid in uids:
                talk.wait(0.5)
                store(caller, uid)
        talk.send(answer(context_id, request, SUCCESS))

    taker = Taker(WANTED)
    assert run(then, fetching(taker), deadlines=5) == Ending()
    assert len(taker.arrived) == 5


def test_one_instance_that_takes_long_is_progress_as_long_as_it_flows() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            whole = caller.message(1, store_request(uids[0]), bytes(400_000))
            for at in range(0, len(whole), 10_000):  # 200 kB a second, for two seconds
                talk.wait(0.05)
                caller.socket.sendall(whole[at : at + 10_000])
            caller.hear()
        talk.send(answer(context_id, request, SUCCESS, completed=1))

    taker = Taker(WANTED)
    run(then, fetching(taker), deadlines=5)
    assert taker.arrived == [UIDS[0]]


def test_our_own_slow_disk_is_nobodys_fault() -> None:
    class Slow(Taker):
        async def room(self) -> None:
            await anyio.sleep(1.5 * DEADLINE_S)

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            begun = time.monotonic()
            assert store(caller, uids[0]) == SUCCESS
            assert time.monotonic() - begun > DEADLINE_S, "the reply waits for room"
        talk.send(answer(context_id, request, SUCCESS, completed=1))

    taker = Slow(WANTED)
    run(then, fetching(taker), deadlines=4)
    assert taker.arrived == [UIDS[0]]


def test_a_slow_disk_after_the_final_answer_holds_nothing_to_a_deadline_that_is_over() -> None:
    class Slow(Taker):
        async def room(self) -> None:
            await anyio.sleep(0.6 * DEADLINE_S)

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            caller.say(1, store_request(uids[0]), bytes(64))
            talk.wait(0.1)  # its reply waits
            talk.send(answer(context_id, request, SUCCESS, completed=1))
            caller.hear()

    async def fetch_then_idle(session: Any) -> Ending:
        ending: Ending = await session.fetch(WANT, Slow(WANTED))
        await anyio.sleep(2.5 * DEADLINE_S)  # an idle association owes nothing
        await session.fetch(WANT, Taker(WANTED))
        return ending

    house = House()
    run(then, fetch_then_idle, house=house, deadlines=6)
    assert len(house.asked) == 2


# What was not asked for


def test_what_nobody_asked_for_is_refused_and_counted() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        assert house.send("9.9.9", *uids, "9.9.8", request=request) == [0xC000, 0, 0, 0, 0, 0, 0xC000]
        talk.send(answer(context_id, request, SUCCESS, completed=7))

    house, taker = House(), Taker({**WANTED, "9.9.9": CT, "9.9.8": CT})
    run(then, fetching(taker), house=house)
    assert sorted(taker.arrived) == sorted(UIDS) and house.refused == 2


def test_a_stranger_is_turned_away_and_named() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with Caller(house.port, source="127.0.0.2") as stranger:
            assert stranger.request([(CT, (EXPLICIT,))])[0] == 3
        talk.send(answer(context_id, request, 0xA702, completed=0, failed=5))

    house, taker = House(), Taker(WANTED)
    ending = run(then, fetching(taker), house=house)
    assert (taker.asked, house.strangers) == (0, {"127.0.0.2": 1})
    assert ending.status == 0xA702 and "Turned away meanwhile: 127.0.0.2; if it sends from there, set" in ending.why


def test_a_peer_may_send_from_another_host_where_that_is_configured() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        house.send(*uids, source="127.0.0.2")
        talk.send(answer(context_id, request, SUCCESS, completed=5))

    taker = Taker(WANTED)
    run(then, fetching(taker), senders=["127.0.0.2"])
    assert len(taker.arrived) == 5


def test_a_sender_that_is_no_host_is_named() -> None:
    with pytest.raises(Unreachable, match=r"nowhere\.invalid: no such host"):
        run(sends_all, fetching(Taker(WANTED)), senders=["nowhere.invalid"])


def test_nobody_is_admitted_when_it_is_over() -> None:
    refusals: list[int] = []

    async def fetch_then_intrude(session: Any) -> None:
        await session.fetch(WANT, Taker(WANTED))

        def intrude() -> None:
            with Caller(house.port) as caller:
                refusals.append(caller.request([(CT, (EXPLICIT,))])[0])

        await anyio.to_thread.run_sync(intrude)

    house = House()
    run(sends_all, fetch_then_intrude, house=house)
    assert refusals == [3]


def test_an_association_that_stays_open_brings_nothing_more_when_it_is_over() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            for uid in uids:
                store(caller, uid)
            talk.send(answer(context_id, request, SUCCESS, completed=5))
            late.wait(5)
            statuses.append(store(caller, uids[0]))
            done.set()

    late, done = threading.Event(), threading.Event()
    statuses: list[int | None] = []

    async def fetch_then_wait(session: Any) -> None:
        await session.fetch(WANT, taker)
        late.set()
        await anyio.to_thread.run_sync(done.wait, 5)

    taker = Taker(WANTED)
    run(then, fetch_then_wait)
    assert statuses == [0xC000] and taker.asked == 5


def test_another_called_title_is_rejected() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with Caller(house.port) as caller:
            assert caller.request([(CT, (EXPLICIT,))], called="OTHER")[7:10] == bytes((1, 1, 7))
        talk.send(answer(context_id, request, 0xA702, completed=0, failed=5))

    assert run(then, fetching(Taker(WANTED))).status == 0xA702


def test_two_that_wait_for_the_same_are_told_apart_by_the_message_id() -> None:
    both_asked = threading.Barrier(2)

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        both_asked.wait(5)
        with house.call() as caller:
            for uid in uids:
                store(caller, uid, request, octets=100 * (request.message_id or 0))
        talk.send(answer(context_id, request, SUCCESS, completed=5))

    takers = [Taker(WANTED), Taker(WANTED)]

    async def both(session: Any, other: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.fetch, WANT, takers[0])
            tasks.start_soon(other.fetch, WANT, takers[1])

    run(then, both, sessions=2)
    assert [sorted(taker.arrived) for taker in takers] == [sorted(UIDS)] * 2
    assert sorted(taker.octets for taker in takers) == [500, 1000], "each took what its own C-MOVE brought"


# Nothing comes, or not all


@pytest.mark.parametrize("counts", [{}, {"completed": 5, "failed": 0, "warnings": 0}], ids=str)
def test_success_and_nothing_sent_says_what_to_register(counts: dict[str, int]) -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, SUCCESS, **counts))

    house = House()
    error = fails(Stalled, "nothing arrived", then, house=house)
    words = f"register AE title DCMSYNC, host 127.0.0.1, port {house.port}"
    assert error.advice is not None and words in error.advice


def test_success_that_counts_nothing_is_only_the_peers_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_module, "_GRACE_S", 0.1)

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, SUCCESS, completed=0, failed=0, warnings=0))

    assert run(then, fetching(Taker(WANTED)), deadlines=0.9) == Ending()


def test_an_unknown_destination_says_what_to_register() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, 0xA801))

    house = House()
    error = fails(Rejected, 'C-MOVE to DCMSYNC: 0xA801 "move destination unknown"', then, house=house, deadlines=1)
    words = f"register AE title DCMSYNC, host 127.0.0.1, port {house.port}"
    assert error.advice is not None and words in error.advice


@pytest.mark.parametrize("code", [0xA702, 0xC000, 0xB000])
def test_a_failure_with_nothing_sent_says_what_to_register(code: int) -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, code, completed=0, failed=5, warnings=0))

    ending = run(then, fetching(Taker(WANTED)), deadlines=1)
    assert ending.status == code and "nothing arrived. Ask its administrator to register" in ending.why


def test_a_peer_that_has_sent_before_is_registered() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        if len(house.asked) == 1:
            sends_all(house, talk, context_id, request, uids)
        else:
            talk.send(answer(context_id, request, 0xA702, completed=0, failed=5, warnings=0))

    async def twice(session: Any) -> Ending:
        await session.fetch(WANT, Taker(WANTED))
        ending: Ending = await session.fetch(WANT, Taker(WANTED))
        return ending

    assert "register" not in run(then, twice).why


def silent(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    talk.hold()


def pending_for_ever(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    for _ in talk.for_ever(every_s=0.005):
        talk.send(answer(context_id, request, PENDING, remaining=0, completed=0, failed=0, warnings=0))


def pending_with_rising_counts(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    for turn in talk.for_ever(every_s=0.005):
        talk.send(answer(context_id, request, PENDING, remaining=turn % 0xFFFF, completed=turn % 0xFFFF))


def calls_and_never_asks(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    with socket.create_connection(("127.0.0.1", house.port)):
        talk.hold()


def calls_and_stays_silent(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    with house.call():
        talk.hold()


def strangers_for_ever(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    with house.call() as caller:
        for turn in talk.for_ever():
            store(caller, f"9.9.{turn}", octets=5000)


def drips(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
    with house.call() as caller:
        caller.socket.sendall(caller.message(1, store_request(uids[0]), bytes(60000))[:-30000])
        for _ in talk.for_ever(every_s=0.01):
            caller.socket.sendall(b"\0")


@pytest.mark.parametrize("then", [
    silent, pending_for_ever, pending_with_rising_counts, calls_and_never_asks, calls_and_stays_silent,
    strangers_for_ever, drips,
], ids=lambda then: then.__name__)  # fmt: skip
def test_a_retrieval_that_gets_nowhere_ends_at_its_deadline(then: Then) -> None:
    taker = Taker(WANTED)
    error = fails(Stalled, "no progress for 1 s; none of what C-MOVE asked for arrived", then, taker)
    assert taker.arrived == [] and "register AE title DCMSYNC" in str(error.advice)


def test_a_sender_that_stalls_within_an_instance_ends_at_its_deadline() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            store(caller, uids[0])
            caller.socket.sendall(caller.message(1, store_request(uids[1]), bytes(5000))[:-2000])
            talk.hold()

    taker = Taker(WANTED)
    fails(Stalled, "no progress for 1 s$", then, taker)
    assert (taker.arrived, taker.discarded) == ([UIDS[0]], 1)


def test_a_sender_that_stalls_after_the_final_answer_is_left_at_its_deadline() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            caller.socket.sendall(caller.message(1, store_request(uids[1]), bytes(5000))[:-2000])
            talk.wait(0.2)
            talk.send(answer(context_id, request, 0xA702, completed=0, failed=5))
            talk.hold()

    taker = Taker(WANTED)
    assert run(then, fetching(taker)).status == 0xA702
    assert (taker.arrived, taker.discarded) == ([], 1)


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_sender_that_leaves_within_an_instance_has_not_sent_it(how: str) -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            store(caller, uids[0])
            caller.socket.sendall(caller.message(1, store_request(uids[1]), bytes(5000))[:-2000])
            if how == "abort":
                caller.socket.sendall(bytes.fromhex("07000000000400000000"))
        talk.send(answer(context_id, request, 0xB000, completed=1, failed=4, warnings=0))

    taker = Taker(WANTED)
    run(then, fetching(taker))
    assert (taker.arrived, taker.discarded) == ([UIDS[0]], 1)


def test_an_asker_that_is_left_discards_what_is_arriving() -> None:
    """The C-MOVE's association ends: what comes on the other one is no longer asked for."""

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            caller.socket.sendall(caller.message(1, store_request(uids[0]), bytes(5000))[:-2000])
            talk.wait(0.2)
            talk.reset()
            left.wait(5)

    left = threading.Event()
    taker = Taker(WANTED)

    async def fetch(session: Any) -> None:
        try:
            await session.fetch(WANT, taker)
        finally:
            assert taker.discarded == 1
            left.set()

    with pytest.raises(Disconnected):
        run(then, fetch)


# This machine in trouble


@pytest.mark.parametrize("where", ["write", "room"])
def test_trouble_of_this_machine_ends_the_retrieval_at_once(where: str) -> None:
    class Full(Taker):
        async def room(self) -> None:
            if where == "room":
                raise LocalTrouble("the disk is full")

        def write(self, octets: int) -> None:
            if where == "write":
                raise LocalTrouble("the disk is full")

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with house.call() as caller:
            caller.say(1, store_request(uids[0]), bytes(64))
            talk.hold()

    with pytest.raises(LocalTrouble, match="the disk is full"):
        run(then, fetching(Full(WANTED)), deadlines=0.9)


# Lists of UIDs


def sends_only(count: int) -> Then:
    """Of a list, the first `count`; singles always."""

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        sent = uids if len(uids) == 1 else uids[:count]
        house.send(*sent)
        talk.send(answer(context_id, request, SUCCESS, completed=len(sent), failed=0, warnings=0))

    return then


def test_a_peer_that_takes_a_list_of_two_is_asked_for_longer_ones() -> None:
    house, taker = House(), Taker(WANTED)

    async def twice(session: Any) -> None:
        await session.fetch(GAPS, taker)
        await session.fetch(GAPS, taker)

    run(sends_only(100), twice, house=house)
    assert list(map(len, house.asked)) == [2, 3, 5]
    assert len(taker.arrived) == 10


@pytest.mark.parametrize("count", [0, 1])
def test_a_peer_that_takes_no_lists_is_asked_for_one_at_a_time_from_then_on(count: int) -> None:
    house, taker = House(), Taker(WANTED)

    async def twice(session: Any) -> None:
        await session.fetch(GAPS, taker)
        await session.fetch(GAPS, taker)

    run(sends_only(count), twice, house=house, deadlines=4)
    assert list(map(len, house.asked)) == [2, *[1] * (5 - count), *[1] * 5]
    assert sorted(taker.arrived) == sorted(UIDS * 2)


def test_a_list_that_is_rejected_is_only_a_probe() -> None:
    """pynetdicom's qrscp answers 0xA801 to a list."""

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        if len(uids) > 1:
            talk.send(answer(context_id, request, 0xA801))
        else:
            sends_all(house, talk, context_id, request, uids)

    house, taker = House(), Taker(WANTED)
    run(then, fetching(taker, GAPS), house=house)
    assert list(map(len, house.asked)) == [2, 1, 1, 1, 1, 1]
    assert sorted(taker.arrived) == sorted(UIDS)


def test_what_comes_neither_in_a_list_nor_alone_says_nothing_about_lists() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        sent = [uid for uid in uids if uid not in UIDS[:2]]
        house.send(*sent)
        talk.send(answer(context_id, request, 0xB000, completed=len(sent), failed=len(uids) - len(sent), warnings=0))

    house = House()

    async def again(session: Any) -> None:
        await session.fetch(GAPS, Taker(WANTED))
        rest = dict.fromkeys(UIDS[2:], CT)
        await session.fetch(Want(study_uid="1.2", series_uid="1.2.3", instances=rest, whole=False), Taker(WANTED))

    run(then, again, house=house)
    assert list(map(len, house.asked)) == [2, 1, 1, 1, 1, 1, 2, 1]


# Which service


def refusing_get(code: int) -> Callable[[House], Callable[[Talk], None]]:
    def made(house: House) -> Callable[[Talk], None]:
        def script(talk: Talk) -> None:
            talk.accept()
            assert talk.request is not None
            if any(context.abstract_syntax == GET for context in talk.request.contexts):
                context_id, request, _ = talk.read_message()
                talk.send(answer(context_id, request, code))
                talk.release()
            else:
                context_id, request, _ = talk.read_message()
                house.asked.append([])
                house.send(*UIDS)
                talk.send(answer(context_id, request, SUCCESS, completed=5))
                context_id, request, _ = talk.read_message()
                house.asked.append([])
                house.send(*UIDS)
                talk.send(answer(context_id, request, SUCCESS, completed=5))
                talk.release()

        return script

    return made


@pytest.mark.parametrize("code", [0x0122, 0x0211, 0xA900, 0xA9F1])
def test_where_c_get_is_refused_it_is_c_move_from_then_on_said_once(code: int) -> None:
    house, taker = House(), Taker(WANTED)

    async def twice(session: Any) -> None:
        await session.fetch(WANT, taker)
        await session.fetch(WANT, taker)

    run(sends_all, twice, house=house, via=None, script=refusing_get(code))
    assert len(taker.arrived) == 10 and len(house.asked) == 2
    (warning,) = house.warnings
    assert f"C-GET: the peer answers 0x{code:04X}" in warning and warning.endswith("trying C-MOVE")


def test_a_session_that_is_opening_while_another_turns_to_c_move_turns_too() -> None:
    """It has proposed C-GET by then, and must not look for it on an association made for C-MOVE."""
    order, turned = itertools.count(), threading.Event()

    def made(house: House) -> Callable[[Talk], None]:
        def script(talk: Talk) -> None:
            number = next(order)
            if number == 1:  # the second is accepted only when the first has turned to C-MOVE
                turned.wait(5)
            talk.accept()
            context_id, request, _ = talk.read_message()
            if number < 2:
                talk.send(answer(context_id, request, 0x0122))
                talk.release()
                return
            turned.set()
            sends_all(house, talk, context_id, request, list(UIDS))
            talk.release()

        return script

    house, takers = House(), [Taker(WANTED), Taker(WANTED)]

    async def both(session: Any, other: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.fetch, WANT, takers[0])
            tasks.start_soon(other.fetch, WANT, takers[1])

    run(sends_all, both, house=house, via=None, script=made, sessions=2)
    assert [len(taker.arrived) for taker in takers] == [5, 5] and len(house.warnings) == 1


def test_where_c_get_has_no_context_it_is_c_move() -> None:
    house, taker = House(), Taker(WANTED)
    run(sends_all, fetching(taker), house=house, via=None, refuse=[GET])
    assert len(taker.arrived) == 5
    assert "the peer accepts no presentation context for it; trying C-MOVE" in house.warnings[0]


def test_a_peer_that_aborts_c_get_again_and_again_is_asked_by_c_move() -> None:
    """As Orthanc 1.10 does when it may not give by C-GET."""

    def made(house: House) -> Callable[[Talk], None]:
        def script(talk: Talk) -> None:
            talk.accept()
            assert talk.request is not None
            if any(context.abstract_syntax == GET for context in talk.request.contexts):
                talk.read_message()
                talk.send(scripted.ABORT)
                talk.hold()
                return
            context_id, request, _ = talk.read_message()
            sends_all(house, talk, context_id, request, list(UIDS))
            talk.release()

        return script

    async def twice(session: Any) -> None:
        with pytest.raises(Disconnected):
            await session.fetch(WANT, taker)
        assert house.warnings == [], "once may be an accident"
        await session.fetch(WANT, taker)

    house, taker = House(), Taker(WANTED)
    run(sends_all, twice, house=house, via=None, script=made)
    assert len(taker.arrived) == 5
    assert "C-GET: the peer ends the association instead of answering; trying C-MOVE" in house.warnings[0]


def test_a_failure_of_c_get_that_says_nothing_of_the_service_is_no_reason_for_c_move() -> None:
    house = House()
    ending = run(sends_all, fetching(Taker(WANTED)), house=house, via=None, script=refusing_get(0xA701))
    assert (ending.status, house.asked, house.warnings) == (0xA701, [], [])


def test_where_something_came_by_c_get_it_stays() -> None:
    def made(house: House) -> Callable[[Talk], None]:
        def script(talk: Talk) -> None:
            talk.accept()
            for code in (0xA900, 0xA900):
                context_id, request, _ = talk.read_message()
                house.asked.append([])
                if len(house.asked) == 1:
                    talk.send(scripted.instance(talk.context_of(CT), CT, UIDS[0]))
                    talk.read_message()
                talk.send(answer(context_id, request, code))
            talk.release()

        return script

    async def twice(session: Any) -> Ending:
        await session.fetch(WANT, taker)
        ending: Ending = await session.fetch(WANT, taker)
        return ending

    house, taker = House(), Taker(WANTED)
    assert run(sends_all, twice, house=house, via=None, script=made).status == 0xA900
    assert (taker.arrived, house.warnings) == ([UIDS[0]], [])


@pytest.mark.parametrize("via", [None, "move"])
def test_a_peer_that_offers_neither_is_rejected(via: Via | None) -> None:
    fails(Rejected, "accepts no presentation context for C-MOVE", silent, via=via, refuse=[GET, MOVE], deadlines=1)


def test_c_get_by_choice_never_moves() -> None:
    fails(Rejected, "accepts no presentation context for", silent, via="get", refuse=[GET], deadlines=1)


# To a third node


def moving(destination: str, want: Want = WANT) -> Callable[[Any], Any]:
    async def move(session: Any) -> Ending:
        ending: Ending = await session.move(want, destination)
        return ending

    return move


def test_a_third_node_is_named_as_destination() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, SUCCESS, completed=5))

    house = House()
    assert run(then, moving("THIRD"), house=house) == Ending()
    assert house.destinations == ["THIRD"]


def test_instances_for_a_third_node_are_asked_for_one_by_one_and_the_last_failure_counts() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, 0xA702 if uids == [UIDS[1]] else SUCCESS))

    house = House()
    assert run(then, moving("THIRD", GAPS), house=house).status == 0xA702
    assert house.asked == [[uid] for uid in UIDS]


def test_an_unknown_third_node_is_rejected() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        talk.send(answer(context_id, request, 0xA801))

    with pytest.raises(Rejected, match="C-MOVE to THIRD: 0xA801") as caught:
        run(then, moving("THIRD"))
    assert caught.value.advice == "Ask its administrator to register THIRD"


def test_a_receiver_that_refuses_is_heard() -> None:
    class Picky(Taker):
        def receive(self, arrival: Arrival) -> Any:
            return 0xA700 if arrival.sop_instance_uid == UIDS[0] else super().receive(arrival)

    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        assert house.send(*uids) == [0xA700, 0, 0, 0, 0]
        talk.send(answer(context_id, request, 0xB000, completed=4, failed=1))

    house, taker = House(), Picky(WANTED)
    run(then, fetching(taker), house=house)
    assert len(taker.arrived) == 4 and house.refused == 0


def test_an_echo_at_the_mailbox_is_answered_and_anything_else_is_not() -> None:
    def then(house: House, talk: Talk, context_id: int, request: Command, uids: list[str]) -> None:
        with Caller(house.port) as caller:
            accept = caller.associate([(operations.VERIFICATION, (EXPLICIT,)), (GET, (EXPLICIT,)), (CT, (EXPLICIT,))])
            assert [result.result for result in accept.results] == [0, 3, 0]
            caller.say(1, operations.echo(1).request)
            assert caller.hear()[0].status == 0
            caller.say(3, operations.get(2, GET).request, b"")
            assert caller.is_closed()
        sends_all(house, talk, context_id, request, uids)

    taker = Taker(WANTED)
    run(then, fetching(taker))
    assert len(taker.arrived) == 5
