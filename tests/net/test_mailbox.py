"""Who may put what into our mailbox. How C-MOVE uses it is in tests/endpoints/test_moving.py."""

import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from dcmsync.errors import LocalTrouble
from dcmsync.net.channel import Limits
from dcmsync.net.mailbox import UNKNOWN_TRANSACTION, Claim, Expectation, Mailbox, Promise, plain_address
from dcmsync.net.patience import Guard, Watch
from dcmsync.net.tls import Secure, Terms, server
from dcmsync.wire.dimse import commitment, operations
from dcmsync.wire.dimse.command import Command
from tests import peers, samples
from tests.certs import Authority
from tests.fakes import scripted
from tests.fakes.taker import Taker
from tests.nodes import Caller

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def expectation(*uids: str, number: int = 1, destination: str = "DCMSYNC", host: str = "127.0.0.1") -> Expectation:
    return Expectation(hosts=frozenset((host,)), destination_ae=destination, message_id=number, instances=uids)


def during(
    expected: list[Expectation],
    caller: Callable[[int], Any],
    takers: list[Taker] | None = None,
    host: str = "",
    secure: Secure | None = None,
) -> tuple[Any, list[Claim], Mailbox]:
    """What a caller gets while these are expected, and what came of the claims."""
    claims: list[Claim] = []

    async def main() -> Any:
        with Watch() as watch:
            pair = socket.socketpair()
            mailbox = Mailbox(host, 0, limits=Limits(timeout_s=5), watch=watch, secure=secure)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mailbox.run)
                opened = []
                for each, taker in zip(expected, takers or [Taker({})] * len(expected), strict=True):
                    claim = mailbox.claim(each, taker, Guard(pair[0], timeout_s=5, whole_s=5))
                    claims.append(claim.__enter__())
                    opened.append(claim)
                try:
                    return await anyio.to_thread.run_sync(caller, mailbox.port), claims, mailbox
                finally:
                    for claim in opened:
                        claim.__exit__(None, None, None)
                    for one in pair:
                        one.close()
                    tasks.cancel_scope.cancel()

    result: tuple[Any, list[Claim], Mailbox] = anyio.run(main)
    return result


def storing(*uids: str, originator: int | None = None) -> Callable[[int], list[int | None]]:
    def call(port: int) -> list[int | None]:
        statuses = []
        with Caller(port) as caller:
            caller.associate([(CT, (EXPLICIT,))])
            for uid in uids:
                plain = operations.store(1, CT, uid).request
                values = {name: getattr(plain, name) for name in plain.__struct_fields__}
                request = type(plain)(**{**values, "originator_message_id": originator})
                caller.say(1, request, bytes(10))
                statuses.append(caller.hear()[0].status)
        return statuses

    return call


def test_it_listens_everywhere_unless_told_otherwise() -> None:
    def both(port: int) -> list[bytes]:
        replies = []
        for host in ("127.0.0.1", "::1"):
            try:
                with Caller(port, host) as caller:
                    replies.append(caller.request([(CT, (EXPLICIT,))])[:1])
            except OSError:  # no IPv6 on this machine
                assert host == "::1"
        return replies

    replies, _, mailbox = during([expectation("1.2")], both)
    assert replies[0] == b"\2", "an IPv4 address that comes by an IPv6 socket is known"
    assert replies[1:] in ([], [b"\3"]) and set(mailbox.strangers) <= {"::1"}


def test_a_port_that_is_taken_is_trouble_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Watch() as watch, pytest.raises(LocalTrouble) as caught:
        Mailbox("127.0.0.1", taken.getsockname()[1], limits=Limits(), watch=watch)
    assert "cannot listen on 127.0.0.1" in str(caught.value)


def test_storage_is_accepted_as_it_is_offered_and_nothing_else() -> None:
    def propose(port: int) -> list[tuple[int, str]]:
        with Caller(port) as caller:
            accept = caller.associate(
                [(CT, (JPEG, EXPLICIT)), (CT, (EXPLICIT,)), ("1.3.6.1.4.1.9", (EXPLICIT,)),
                 (operations.STUDY_ROOT_FIND, (EXPLICIT,)), (operations.VERIFICATION, (EXPLICIT,)),
                 (commitment.PUSH_MODEL, (EXPLICIT,))]
            )  # fmt: skip
        return [(result.result, result.transfer_syntax) for result in accept.results]

    results, _, _ = during([expectation("1.2")], propose)
    assert results == [(0, JPEG), (0, EXPLICIT), (0, EXPLICIT), (3, EXPLICIT), (0, EXPLICIT), (3, EXPLICIT)]


def test_an_instance_goes_to_who_claims_it() -> None:
    takers = [Taker({"1.1": CT}), Taker({"1.2": CT})]
    expected = [expectation("1.1", number=1), expectation("1.2", number=2)]
    statuses, claims, mailbox = during(expected, storing("1.2", "1.1", "1.3"), takers)
    assert statuses == [0, 0, 0xC000] and mailbox.refused == 1
    assert [taker.arrived for taker in takers] == [["1.1"], ["1.2"]]
    assert [claim.came for claim in claims] == [{"1.1"}, {"1.2"}]


def test_what_its_receiver_refuses_is_not_waited_for() -> None:
    statuses, claims, mailbox = during([expectation("1.1")], storing("1.1"), [Taker({})])
    assert statuses == [0xC000] and mailbox.refused == 0
    assert [claim.came for claim in claims] == [{"1.1"}]


@pytest.mark.parametrize(("originator", "first"), [(2, 1), (1, 0), (None, 0), (7, 0)])
def test_of_two_that_claim_the_same_the_message_id_decides_then_who_lacks_it(
    originator: int | None, first: int
) -> None:
    takers = [Taker({"1.1": CT}), Taker({"1.1": CT})]
    expected = [expectation("1.1", number=1), expectation("1.1", number=2)]
    during(expected, storing("1.1", originator=originator), takers)
    assert [len(taker.arrived) for taker in takers] == [first == 0, first == 1]
    takers = [Taker({"1.1": CT}), Taker({"1.1": CT})]
    during(expected, storing("1.1", "1.1"), takers)
    assert [len(taker.arrived) for taker in takers] == [1, 1], "without one, each gets one"


def test_a_title_that_another_move_named_brings_nothing_for_this_one() -> None:
    takers = [Taker({"1.1": CT}), Taker({"1.2": CT})]
    expected = [expectation("1.1", destination="OTHER"), expectation("1.2")]
    statuses, _, _ = during(expected, storing("1.1", "1.2"), takers)
    assert statuses == [0xC000, 0]


def test_a_host_that_another_move_asked_brings_nothing_for_this_one() -> None:
    takers = [Taker({"1.1": CT}), Taker({"1.2": CT})]
    expected = [expectation("1.1", host="192.0.2.1"), expectation("1.2")]
    statuses, _, _ = during(expected, storing("1.1", "1.2"), takers)
    assert statuses == [0xC000, 0]


def test_message_ids_differ_and_stay_in_bounds() -> None:
    with Watch() as watch:
        mailbox = Mailbox("127.0.0.1", 0, limits=Limits(), watch=watch)
        ids = [mailbox.next_id() for _ in range(0xFFFF + 2)]
        mailbox.close()
    assert ids[0] == 1 and ids[0xFFFE:] == [0xFFFF, 1, 2] and len(set(ids)) == 0xFFFF


@pytest.mark.parametrize(("host", "plain"), [
    ("127.0.0.1", "127.0.0.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("FE80::1", "fe80::1"),
])  # fmt: skip
def test_addresses_have_one_spelling(host: str, plain: str) -> None:
    assert plain_address(host) == plain


def report_of(transaction_uid: str, called: str = "DCMSYNC") -> Callable[[int], tuple[list[int], int | None]]:
    """Proposes storage commitment and CT, as its SCP, and reports: what was accepted, and the answer."""

    def call(port: int) -> tuple[list[int], int | None]:
        with Caller(port) as caller:
            accept = caller.associate(
                [(commitment.PUSH_MODEL, (EXPLICIT,)), (CT, (EXPLICIT,))],
                called=called, takes=(commitment.PUSH_MODEL,),
            )  # fmt: skip
            assert [(role.sop_class_uid, role.scp) for role in accept.roles] == [(commitment.PUSH_MODEL, True)]
            kept = (commitment.Reference(CT, "1.2"),)
            report = commitment.Report(transaction_uid=transaction_uid, kept=kept)
            octets = commitment.encode_report(report, EXPLICIT)
            caller.say(1, commitment.event_report(7, report).request, octets)
            answer, _ = caller.hear()
            assert answer.responding_to == 7 and answer.event_type_id == commitment.ALL_COMMITTED
            return [result.result for result in accept.results], answer.status

    return call


def awaiting(
    caller: Callable[[int], Any], host: str = "127.0.0.1", others: Sequence[Promise] = ()
) -> tuple[Any, Promise]:
    """What a caller gets while a report of the transaction 2.25.1 is awaited, and the promise of it."""

    async def main() -> Any:
        with Watch() as watch:
            mailbox = Mailbox("127.0.0.1", 0, limits=Limits(timeout_s=5), watch=watch)
            promise = Promise("2.25.1", own_ae="DCMSYNC", hosts=frozenset((host,)))
            mailbox.expect(promise)
            for other in others:
                mailbox.expect(other)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mailbox.run)
                try:
                    return await anyio.to_thread.run_sync(caller, mailbox.port), promise
                finally:
                    tasks.cancel_scope.cancel()

    result: tuple[Any, Promise] = anyio.run(main)
    return result


def test_a_report_goes_to_who_awaits_it_and_instances_do_not_come_with_it() -> None:
    (accepted, code), promise = awaiting(report_of("2.25.1"))
    assert (accepted, code) == ([0, 3], 0)
    assert promise.report is not None and promise.report.kept == (commitment.Reference(CT, "1.2"),)


def test_a_report_of_another_transaction_is_refused() -> None:
    (_, code), promise = awaiting(report_of("2.25.2"))
    assert code == UNKNOWN_TRANSACTION and promise.report is None


def test_a_report_from_another_address_or_to_another_title_is_turned_away() -> None:
    def rejected(port: int) -> bytes:
        with Caller(port) as caller:
            return caller.request([(commitment.PUSH_MODEL, (EXPLICIT,))])[:1]

    pdu, promise = awaiting(rejected, "192.0.2.7")
    assert pdu == b"\3" and promise.report is None

    def misnamed(port: int) -> bytes:
        with Caller(port) as caller:
            return caller.request([(commitment.PUSH_MODEL, (EXPLICIT,))], called="OTHER")[:1]

    pdu, promise = awaiting(misnamed)
    assert pdu == b"\3" and promise.report is None


def test_who_may_report_of_one_transaction_may_not_of_another() -> None:
    other = Promise("2.25.3", own_ae="DCMSYNC", hosts=frozenset(("127.0.0.1",)))
    (_, code), promise = awaiting(report_of("2.25.1"), "192.0.2.7", (other,))
    assert code == UNKNOWN_TRANSACTION and promise.report is None


@pytest.mark.slow
@pytest.mark.parametrize(("speaks", "wants"), [(True, True), (True, False), (False, True), (False, False)])
def test_with_tls_nobody_is_heard_in_plain_and_without_it_nobody_with(
    tmp_path: Path, *, speaks: bool, wants: bool
) -> None:
    authority = Authority(tmp_path / "authority")
    own = authority.issue("localhost", "127.0.0.1")
    sample = samples.make_series(tmp_path / "made", instances=1, seed=5)[0]
    terms = Terms(certificate=str(own.certificate), key=str(own.key), ca=str(authority.path))
    options = ["+tls", str(own.key), str(own.certificate), "+cf", str(authority.path)] if speaks else []

    def storescu(port: int) -> "subprocess.CompletedProcess[str]":
        return peers.dcmtk("storescu", *options, "-to", "5", "-ta", "5", "-aec", "DCMSYNC", "localhost", str(port),
                           sample.path, check=False)  # fmt: skip

    taker = Taker({sample.sop_uid: CT})
    expected = [expectation(sample.sop_uid)]
    done, _, mailbox = during(expected, storescu, [taker], "127.0.0.1", server(terms) if wants else None)
    assert mailbox.is_secured is wants
    if speaks is wants:
        assert done.returncode == 0 and taker.arrived == [sample.sop_uid] and not mailbox.misfits, done
    else:
        assert done.returncode != 0 and not taker.asked
        words = "speaks plain DICOM on this port, not TLS" if wants else "speaks TLS where plain DICOM was expected"
        assert [words in each and each.startswith("127.0.0.1: ") for each in mailbox.misfits] == [True]


# Later than anybody waits


def step_by_step(
    expected: Expectation | Promise, steps: Sequence[Callable[[Caller], Any]], taker: Taker | None = None
) -> tuple[list[Any], Mailbox, bytes]:
    """What each step of one caller gives; nothing is expected any more from the second step on. Then the answer to an
    association that another caller asks for.
    """

    async def main() -> tuple[list[Any], Mailbox, bytes]:
        with Watch() as watch, ExitStack() as stack:
            mailbox = Mailbox("127.0.0.1", 0, limits=Limits(timeout_s=5), watch=watch)
            if isinstance(expected, Promise):
                mailbox.expect(expected)
                stack.callback(mailbox.forget, expected)
            else:
                pair = socket.socketpair()
                for one in pair:
                    stack.push(one)
                guard = Guard(pair[0], timeout_s=5, whole_s=5)
                stack.enter_context(mailbox.claim(expected, taker or Taker({}), guard))
            found = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mailbox.run)
                with await anyio.to_thread.run_sync(Caller, mailbox.port) as caller:
                    for step in steps:
                        found.append(await anyio.to_thread.run_sync(step, caller))
                        stack.close()
                with await anyio.to_thread.run_sync(Caller, mailbox.port) as late:
                    answer = await anyio.to_thread.run_sync(late.request, [(CT, (EXPLICIT,))])
                tasks.cancel_scope.cancel()
        return found, mailbox, answer

    return anyio.run(main)


def test_a_report_that_comes_when_nobody_waits_any_more_is_refused() -> None:
    promise = Promise("2.25.1", own_ae="DCMSYNC", hosts=frozenset(("127.0.0.1",)))
    report = commitment.Report(transaction_uid="2.25.1", kept=(commitment.Reference(CT, "1.2"),))

    def tell(caller: Caller) -> int | None:
        octets = commitment.encode_report(report, EXPLICIT)
        caller.say(1, commitment.event_report(7, report).request, octets)
        return caller.hear()[0].status

    def open_up(caller: Caller) -> None:
        caller.associate([(commitment.PUSH_MODEL, (EXPLICIT,))], takes=(commitment.PUSH_MODEL,))

    (_, code, again), mailbox, answer = step_by_step(promise, [open_up, tell, tell])
    assert (code, again, promise.report) == (UNKNOWN_TRANSACTION, UNKNOWN_TRANSACTION, None)
    assert answer[:1] == b"\3" and mailbox.strangers == {"127.0.0.1": 1}, "and nobody may come to say it"


def test_a_report_that_comes_again_is_answered_and_says_nothing_new() -> None:
    promise = Promise("2.25.1", own_ae="DCMSYNC", hosts=frozenset(("127.0.0.1",)))
    promise.keep(commitment.Report(transaction_uid="2.25.1", kept=(commitment.Reference(CT, "1.1"),)))
    first = promise.report
    promise.keep(commitment.Report(transaction_uid="2.25.1"))
    assert promise.report is first


def test_what_is_half_here_when_nobody_waits_any_more_is_discarded_and_the_rest_refused() -> None:
    taker = Taker({"1.1": CT, "1.2": CT})
    request = operations.store(1, CT, "1.1").request

    def begin(caller: Caller) -> None:
        caller.associate([(CT, (EXPLICIT,))])
        caller.socket.sendall(scripted.message(1, request, bytes(100), is_last=False))
        peers.wait_for(lambda: taker.octets == 100)

    def finish(caller: Caller) -> int | None:
        caller.socket.sendall(scripted.fragment(1, bytes(100), is_last=True))
        return caller.hear()[0].status

    def another(caller: Caller) -> int | None:
        caller.say(1, operations.store(2, CT, "1.2").request, bytes(10))
        return caller.hear()[0].status

    (_, half, late), mailbox, answer = step_by_step(expectation("1.1", "1.2"), [begin, finish, another], taker)
    assert (half, late) == (0xC000, 0xC000)
    assert (taker.arrived, taker.discarded, taker.octets, mailbox.refused) == ([], 1, 100, 1)
    assert answer[:1] == b"\3"


def test_who_may_report_to_one_title_may_not_to_another() -> None:
    other = Promise("2.25.3", own_ae="OTHER", hosts=frozenset(("127.0.0.1",)))
    (_, code), promise = awaiting(report_of("2.25.1", called="OTHER"), others=(other,))
    assert code == UNKNOWN_TRANSACTION and promise.report is None


def test_the_asking_association_owes_nothing_while_any_delivery_waits_for_our_disk() -> None:
    class Slow(Taker):
        def __init__(self) -> None:
            super().__init__({})
            self.ends = [anyio.Event(), anyio.Event()]
            self._waiting = iter(self.ends)

        async def room(self) -> None:
            await next(self._waiting).wait()

    async def main() -> list[bool]:
        slow, armed = Slow(), []
        with socket.socket() as ours:
            guard = Guard(ours, timeout_s=5, whole_s=5)
            guard.arm()
            claim = Claim(expectation("1.1"), slow, guard)
            async with anyio.create_task_group() as tasks:
                for _ in slow.ends:
                    tasks.start_soon(claim.room)
                for end in (None, *slow.ends):
                    if end is not None:
                        end.set()
                    await anyio.wait_all_tasks_blocked()
                    armed.append(guard.armed)
        return armed

    assert anyio.run(main) == [False, False, True]


def test_a_delivery_that_is_late_does_not_hold_back_the_next_move_of_the_association() -> None:
    async def main() -> list[bool]:
        armed = []

        class Looks(Taker):
            async def room(self) -> None:
                armed.append(guard.armed)

        with socket.socket() as ours:
            guard = Guard(ours, timeout_s=5, whole_s=5)
            claim = Claim(expectation("1.1"), Looks({}), guard)
            claim.is_answered = True
            guard.arm()  # for what is asked next
            await claim.room()
            return [*armed, guard.armed]

    assert anyio.run(main) == [True, True]


@pytest.mark.parametrize("changes", [{"field": 0x8030}, {"message_id": None}, {"has_data_set": True}], ids=str)
def test_what_is_no_request_ends_the_association(changes: dict[str, Any]) -> None:
    def say(port: int) -> int:
        with Caller(port) as caller:
            caller.associate([(operations.VERIFICATION, (EXPLICIT,))])
            echo = operations.echo(1).request
            values = {name: getattr(echo, name) for name in echo.__struct_fields__}
            caller.say(1, type(echo)(**{**values, **changes}))
            return caller.pdu()[0]

    assert during([expectation("1.1")], say)[0] == 7  # A-ABORT


def test_what_the_mailbox_does_not_do_is_answered_so() -> None:
    def ask(port: int) -> int | None:
        with Caller(port) as caller:
            caller.associate([(operations.VERIFICATION, (EXPLICIT,))])
            caller.say(1, Command(field=0x0110, message_id=1, sop_class_uid=operations.VERIFICATION))  # N-GET
            return caller.hear()[0].status

    assert during([expectation("1.1")], ask)[0] == 0x0211
