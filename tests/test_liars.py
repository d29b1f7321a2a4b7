"""Peers that lie, against whole commands: `pull` by C-GET and by C-MOVE, and `push`, never call done what is not.

Each lie is a node that tells the truth but for one method (`fakes/liar.py`). Whatever it says: what has the outcome
`stored` or `present` stands at the destination, whole and with the content that it was given; nothing else stands
there; true instances are kept; and the exit status is 0 only if everything that the node lists arrived.

What a lie leads to stands beside it. Some cannot be noticed by what was asked for, and are said so:

    whoever leaves out of every list what he has, and counts accordingly     pull: nothing else ever names it
    lists what he has dropped, or keeps other content, with true UIDs        push --verify uids; content finds it
    lists what he never had                                                  push --trust uids; --trust content finds it
    counts as many as there should be                                        push --trust counts; uids finds it
    promises to keep what he lacks                                           push --verify commit: his word is the proof
    anything                                                                 push --verify none
"""

import shutil
import sys
from collections.abc import Mapping, Sequence

import pytest

from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import commitment
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.upperlayer import framing
from tests import peers, samples
from tests.fakes.liar import CT, Instance, Liar, Row
from tests.fakes.scripted import PENDING, SUCCESS, Talk, answer, message
from tests.trees import data_set, files
from tests.workdir import Done, Workdir

pytestmark = pytest.mark.slow

SEED = 47
IMPATIENT = (sys.executable, "-c", "import sys; from dcmsync.transfer.remote import Witness; "
             "Witness.__init__.__kwdefaults__['late_s'] = (0.1,); "
             "from dcmsync.cli.main import main; sys.exit(main())")  # fmt: skip
"""dcmsync, but that it does not wait for what a place lists late: 4 s that change nothing where it never does."""

COUNT = 3
GHOST = samples.uid(SEED, 9, 9, 9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """One series."""
    return samples.make_series(tmp_path_factory.mktemp("made"), instances=COUNT, rows=16, columns=16, seed=SEED)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """Another series of the same patient."""
    return samples.make_series(tmp_path_factory.mktemp("made"), series=2, instances=COUNT, rows=16, columns=16,
                               seed=SEED)[COUNT:]  # fmt: skip


# pull: what a source may say and not do


class SendsNothing(Liar):
    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return []


class SendsNothingAndCountsNothing(SendsNothing):
    def retrieved(self, context_id: int, request: Command, wanted: Sequence[Instance]) -> bytes:
        return answer(context_id, request, SUCCESS)


class SendsOne(Liar):
    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return [one for one in wanted if one.uid == min(self.has)]


class ListsMore(Liar):
    def lists(self) -> Sequence[Instance]:
        first = next(iter(self.has.values()))
        return [*self.has.values(), first._replace(uid=GHOST)]


class SendsOthers(Liar):
    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return [one._replace(uid=one.uid[:-1] + "77") for one in wanted]


class SendsOthersToo(Liar):
    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return [*wanted, *(one._replace(uid=GHOST) for one in wanted)]


class SendsAnotherUnderTheName(Liar):
    """The command names one instance, the data set another."""

    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        wrong = max(self.has.values(), key=lambda one: one.uid)
        return [one._replace(octets=wrong.octets) if one.uid == min(self.has) else one for one in wanted]


class SendsOfAnotherSeries(Liar):
    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return [moved(one) if one.uid == min(self.has) else one for one in wanted]


class SendsHalves(Liar):
    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return [cut(one) if one.uid == min(self.has) else one for one in wanted]


class SendsNoDataSet(Liar):
    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return [one._replace(octets=b"HTTP/1.1 200 OK\r\n\r\n") if one.uid == min(self.has) else one for one in wanted]


class SendsTwoOfOneName(Liar):
    """The second time with other pixels."""

    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return [*wanted, *(altered(one) for one in wanted)]


class FailsWhatItSent(Liar):
    def retrieved(self, context_id: int, request: Command, wanted: Sequence[Instance]) -> bytes:
        return answer(context_id, request, 0xA702, completed=0, failed=len(wanted), warnings=0)


class WarnsOfAll(Liar):
    def retrieved(self, context_id: int, request: Command, wanted: Sequence[Instance]) -> bytes:
        return answer(context_id, request, 0xB000, completed=0, failed=len(wanted), warnings=0)


class CountsAbsurdly(Liar):
    def retrieved(self, context_id: int, request: Command, wanted: Sequence[Instance]) -> bytes:
        return answer(context_id, request, SUCCESS, completed=0xFFFF, failed=0xFFFF, warnings=0xFFFF, remaining=0xFFFF)


class SendsOneAndCountsAbsurdly(CountsAbsurdly, SendsOne):
    pass


class AnswersBeforeItSends(Liar):
    """The final answer comes first, with counts that say that all is done; by C-GET, nothing can follow it."""

    def get(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        talk.send(self.retrieved(context_id, request, self.wanted(octets)))

    def move(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        talk.send(self.retrieved(context_id, request, self.wanted(octets)))


class AnswersAnotherMessage(Liar):
    def retrieved(self, context_id: int, request: Command, wanted: Sequence[Instance]) -> bytes:
        return answer(context_id, request, SUCCESS, responding_to=999)


class SendsNothingAndAnswersAnotherMessage(AnswersAnotherMessage, SendsNothing):
    pass


class AnswersAsIfFound(SendsNothing):
    """By C-FIND-RSP."""

    def retrieved(self, context_id: int, request: Command, wanted: Sequence[Instance]) -> bytes:
        return answer(context_id, request, SUCCESS, field=0x8020)


class CountsTooMany(Liar):
    def count(self, instances: Sequence[Instance]) -> object:
        return len(instances) + 40


class ListsFewerThanItCounts(Liar):
    def rows(self, level: str, keys: Mapping[str, object]) -> list[Row]:
        rows = super().rows(level, keys)
        return [row for row in rows if row.get("SOPInstanceUID") != max(self.has)]


class ListsNothingOfASeries(Liar):
    def rows(self, level: str, keys: Mapping[str, object]) -> list[Row]:
        return [] if level == "IMAGE" else super().rows(level, keys)


class FindsForAnotherMessage(Liar):
    def found(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, SUCCESS, responding_to=999)


class CutsTheList(Liar):
    def rows(self, level: str, keys: Mapping[str, object]) -> list[Row]:
        return super().rows(level, keys)[:1]

    def found(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, 0xFE00)


class IgnoresKeys(Liar):
    """Whatever is asked for, it lists everything."""

    def rows(self, level: str, keys: Mapping[str, object]) -> list[Row]:
        return super().rows(level, {})


def altered(one: Instance) -> Instance:
    """The same with another pixel."""
    return one._replace(octets=one.octets[:-1] + bytes([one.octets[-1] ^ 1]))


def cut(one: Instance) -> Instance:
    return one._replace(octets=one.octets[:-100])


def moved(one: Instance) -> Instance:
    """The same, of another series by what its data set says."""
    new = one.series_uid[:-1] + str((int(one.series_uid[-1]) + 1) % 10)
    return one._replace(octets=one.octets.replace(one.series_uid.encode(), new.encode()), series_uid=new)


NONE, ONE, TWO, ALL = 0, 1, 2, 3
PULLS: list[tuple[type[Liar], int, set[int], str]] = [
    # the lie, how many arrive all the same, exit statuses, reasons of the others
    (Liar, ALL, {0}, ""),
    (SendsNothing, NONE, {3, 4}, "missing stalled"),  # stalled: by C-MOVE it may be that it cannot reach us
    (SendsNothingAndCountsNothing, NONE, {3, 4}, "missing stalled"),
    (SendsOne, ONE, {3}, "missing"),
    (ListsMore, ALL, {3}, "missing"),
    (SendsOthers, NONE, {3, 4}, "missing stalled"),
    (SendsOthersToo, ALL, {0}, ""),
    (SendsAnotherUnderTheName, TWO, {3}, "mismatch"),
    (SendsOfAnotherSeries, TWO, {3}, "mismatch"),
    (SendsHalves, TWO, {3}, "truncated"),
    (SendsNoDataSet, TWO, {3, 4}, "corrupt truncated protocol"),
    (SendsTwoOfOneName, ALL, {3}, "conflict"),
    (FailsWhatItSent, ALL, {0}, ""),
    (WarnsOfAll, ALL, {0}, ""),
    (CountsAbsurdly, ALL, {0}, ""),
    (SendsOneAndCountsAbsurdly, ONE, {3}, "missing"),
    (AnswersBeforeItSends, NONE, {3, 4}, "missing stalled"),
    (AnswersAnotherMessage, ALL, {0}, ""),
    (SendsNothingAndAnswersAnotherMessage, NONE, {4}, "protocol"),
    (AnswersAsIfFound, NONE, {4}, "protocol"),
    (CountsTooMany, ALL, {0}, "warned"),  # counts are hints: the list decides
    (ListsFewerThanItCounts, TWO, {0}, "warned"),
    (ListsNothingOfASeries, NONE, {3, 6}, ""),
    (FindsForAnotherMessage, NONE, {6}, ""),
    (CutsTheList, ONE, {6}, ""),
    (IgnoresKeys, ALL, {0}, ""),
]


def of_instances(done: Done) -> list[dict[str, object]]:
    return [record for record in done.of_type("outcome") if record["level"] == "instance"]  # type: ignore[misc]


@pytest.mark.parametrize("via", ["get", "move"])
@pytest.mark.parametrize(("lie", "arrive", "statuses", "reasons"), PULLS, ids=[each[0].__name__ for each in PULLS])
def test_pull(
    workdir: Workdir, made: list[samples.Sample], lie: type[Liar], arrive: int, statuses: set[int], reasons: str,
    via: str,
) -> None:  # fmt: skip
    node = lie(made, mailbox=peers.free_port())
    truth = {one.uid: one.octets for one in node.has.values()}
    with node.serve() as server:
        source = f"LIAR@{peers.HOST}:{server.port}"
        done = workdir.run("sync", source, "./a", f"StudyInstanceUID={made[0].study_uid}", "--itemize", "--via", via,
                           "--port", str(node.mailbox), "--timeout", "1")  # fmt: skip
    there = {path.stem: data_set(path) for path in files(workdir.path / "a")} if (workdir.path / "a").exists() else {}
    assert there.items() <= truth.items(), done
    said = {str(each["SOPInstanceUID"]) for each in of_instances(done) if each["outcome"] in ("stored", "present")}
    assert said <= there.keys(), done
    assert (len(there), done.status) in {(arrive, status) for status in statuses}, done
    failed = [each for each in of_instances(done) if each["outcome"] not in ("stored", "present")]
    assert all(each.get("reason") in reasons.split() or each["outcome"] in reasons.split() for each in failed), done
    if reasons == "warned":
        assert "a parent claims more things at instance level than were listed" in done.stderr, done


# push: what a destination may say and not do


class Drops(Liar):
    """Says success, and keeps nothing."""

    def keep(self, instance: Instance) -> None:
        return


class DropsOne(Liar):
    def keep(self, instance: Instance) -> None:
        if self.stored[0] != instance.uid:
            super().keep(instance)


class DropsTheFirstTime(Liar):
    def keep(self, instance: Instance) -> None:
        if self.stored.count(instance.uid) > 1:
            super().keep(instance)


class DropsAndLists(Liar):
    """Lists what was stored, and gives nothing back."""

    def __init__(self, made: Sequence[samples.Sample] = (), *, mailbox: int = 0) -> None:
        super().__init__(made, mailbox=mailbox)
        self.listed: list[Instance] = []

    def keep(self, instance: Instance) -> None:
        self.listed.append(instance)

    def lists(self) -> Sequence[Instance]:
        return self.listed


class KeepsOther(Liar):
    """Under the same UIDs, with another pixel."""

    def keep(self, instance: Instance) -> None:
        super().keep(altered(instance))


class KeepsHalves(Liar):
    def keep(self, instance: Instance) -> None:
        super().keep(cut(instance))


class Renames(Liar):
    def keep(self, instance: Instance) -> None:
        super().keep(instance._replace(uid=instance.uid[:-1] + "77"))


class MovesToAnotherSeries(Liar):
    def keep(self, instance: Instance) -> None:
        super().keep(moved(instance))


class AnswersBeforeItReceives(Drops):
    """Success as soon as the command has come."""

    def script(self, talk: Talk) -> None:
        talk.accept()
        while (pdu := talk.read_pdu()[1])[0] == framing.P_DATA_TF:
            context_id, request, octets = pdu[10], commands.decode(pdu[12:]), b""
            if request.field == commands.C_STORE_RQ:
                talk.send(self.taken(context_id, request))
            while pdu[11] != framing.IS_LAST:  # the last of the data set
                pdu = talk.read_pdu()[1]
                octets += pdu[12:]
            if request.field == commands.C_FIND_RQ:
                self.find(talk, context_id, request, octets)


class StoresForAnotherMessage(Drops):
    def taken(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, SUCCESS, responding_to=999)


class StoresAnotherInstance(Drops):
    def taken(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, SUCCESS, sop_instance_uid=GHOST)


class StoresAsIfFound(Drops):
    """By C-FIND-RSP."""

    def taken(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, SUCCESS, field=0x8020)


class StoresForEver(Drops):
    def taken(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, PENDING)


class WarnsAndDrops(Drops):
    def taken(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, 0xB000)


class RefusesAndKeeps(Liar):
    """0xC000, which is final, and it is there."""

    def taken(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, 0xC000)


class ListsNothingIt(Liar):
    """Keeps all, and lists nothing."""

    def lists(self) -> Sequence[Instance]:
        return []


class ListsAllAlready(Drops):
    """Lists, from the start, what it was never given."""

    already: Sequence[Instance] = ()

    def lists(self) -> Sequence[Instance]:
        return self.already


class DropsAndIgnoresKeys(Drops):
    """Lists something for each question, whatever is asked for."""

    def rows(self, level: str, keys: Mapping[str, object]) -> list[Row]:
        row: Row = {"StudyInstanceUID": GHOST, "SeriesInstanceUID": GHOST + ".1", "SOPInstanceUID": GHOST + ".1.1"}
        return [row]


class DropsAndRepeatsTheQuestion(Drops):
    """Lists what it is asked for, since it is asked for, in a study of another name."""

    def rows(self, level: str, keys: Mapping[str, object]) -> list[Row]:
        return [{"StudyInstanceUID": GHOST, "SOPInstanceUID": self.stored[-1] if self.stored else GHOST}]


class DropsAndFindsForAnotherMessage(Drops):
    def found(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, SUCCESS, responding_to=999)


class DropsAndCutsTheList(Drops):
    def found(self, context_id: int, request: Command) -> bytes:
        return answer(context_id, request, 0xFE00)


class DropsAndCommits(Drops):
    """Promises to keep whatever it is asked to keep."""

    def commits(self, asked: Sequence[commitment.Reference]) -> Sequence[commitment.Reference]:
        return asked


class CommitsToOthers(Liar):
    def commits(self, asked: Sequence[commitment.Reference]) -> Sequence[commitment.Reference]:
        return [commitment.Reference(CT, GHOST)]


class CommitsInAnotherTransaction(Drops):
    def act(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        asked = commitment.decode_request(octets, samples.EXPLICIT_LITTLE)
        talk.send(answer(context_id, request, SUCCESS))
        report = commitment.Report(transaction_uid=GHOST, kept=asked.instances)
        talk.send(message(context_id, commitment.event_report(77, report).request,
                          commitment.encode_report(report, samples.EXPLICIT_LITTLE)))  # fmt: skip


UIDS: Sequence[str] = ()  # the default of --verify and of --trust
CONTENT, COMMIT = ("--verify=content",), ("--verify=commit",)
TRUSTING, COUNTING = ("--trust=content",), ("--trust=counts",)
PUSHES: list[tuple[type[Liar], Sequence[str], int, set[int], str]] = [
    # the lie, options, how many are said to be there, exit statuses, reasons of the others
    (Liar, UIDS, ALL, {0}, ""),
    (Liar, CONTENT, ALL, {0}, ""),
    (Liar, COMMIT, ALL, {0}, ""),
    (Drops, UIDS, NONE, {3}, "missing"),
    (Drops, CONTENT, NONE, {3}, "missing"),
    (Drops, COMMIT, NONE, {3}, "missing unproven"),
    (DropsOne, UIDS, TWO, {3}, "missing"),
    (DropsTheFirstTime, UIDS, ALL, {0}, ""),
    (DropsAndLists, CONTENT, NONE, {3}, "unproven"),
    (KeepsOther, CONTENT, NONE, {3}, "differs"),
    (KeepsHalves, CONTENT, NONE, {3}, "unproven"),
    (Renames, UIDS, NONE, {3}, "missing"),
    (MovesToAnotherSeries, UIDS, NONE, {3}, "missing"),
    (AnswersBeforeItReceives, UIDS, NONE, {3}, "missing"),
    (StoresForAnotherMessage, UIDS, NONE, {4}, "protocol"),
    (StoresAnotherInstance, UIDS, NONE, {4}, "protocol"),
    (StoresAsIfFound, UIDS, NONE, {4}, "protocol"),
    (StoresForEver, UIDS, NONE, {4}, "protocol"),
    (WarnsAndDrops, UIDS, NONE, {3}, "missing"),
    (RefusesAndKeeps, UIDS, NONE, {3}, "refused"),
    (ListsNothingIt, UIDS, NONE, {3}, "missing"),
    (ListsAllAlready, TRUSTING, NONE, {3}, "differs"),
    (DropsAndIgnoresKeys, UIDS, NONE, {3}, "missing"),
    (DropsAndRepeatsTheQuestion, UIDS, NONE, {3}, "missing"),
    (DropsAndFindsForAnotherMessage, UIDS, NONE, {3, 5}, "unproven protocol"),
    (DropsAndCutsTheList, UIDS, NONE, {3}, "unproven missing"),
    (CommitsToOthers, COMMIT, NONE, {3}, "unproven"),
    (CommitsInAnotherTransaction, COMMIT, NONE, {3}, "unproven"),
]


def pushed(workdir: Workdir, node: Liar, made: Sequence[samples.Sample], *options: str) -> Done:
    folder = workdir.path / "in"
    folder.mkdir()
    for number, sample in enumerate(made):
        shutil.copy(sample.path, folder / f"{number}.dcm")
    with node.serve() as server:
        return Workdir(workdir.path, IMPATIENT).run(
            "push", f"LIAR@{peers.HOST}:{server.port}", "./in", "--itemize", "--timeout", "1",
            "--port", str(peers.free_port()), *options,
        )  # fmt: skip


def claimed(done: Done) -> set[str]:
    """What is said to be there, and proven."""
    return {str(each["SOPInstanceUID"]) for each in of_instances(done)
            if each["outcome"] in ("stored", "present") and each.get("reason") != "unproven"}  # fmt: skip


@pytest.mark.parametrize(("lie", "options", "said", "statuses", "reasons"), PUSHES,
                         ids=["-".join((each[0].__name__, *each[1])) for each in PUSHES])  # fmt: skip
def test_push(
    workdir: Workdir, made: list[samples.Sample], lie: type[Liar], options: Sequence[str], said: int,
    statuses: set[int], reasons: str,
) -> None:  # fmt: skip
    truth, home = {sample.sop_uid: data_set(sample.path) for sample in made}, made[0].series_uid
    node = lie()
    if isinstance(node, ListsAllAlready):
        node.already = list(Liar(made).has.values())
    done = pushed(workdir, node, made, *options)
    there = {one.uid for one in node.has.values() if (truth.get(one.uid), one.series_uid) == (one.octets, home)}
    assert claimed(done) <= there, done
    assert (len(claimed(done)), done.status) in {(said, status) for status in statuses}, done
    failed = [each for each in of_instances(done) if each["SOPInstanceUID"] not in claimed(done)]
    assert len(failed) == len(made) - said and {str(each["reason"]) for each in failed} <= set(reasons.split()), done


UNNOTICED: list[tuple[type[Liar], Sequence[str]]] = [
    (DropsAndLists, UIDS),
    (KeepsOther, UIDS),
    (KeepsHalves, UIDS),
    (ListsAllAlready, UIDS),
    (ListsAllAlready, COUNTING),
    (DropsAndCommits, COMMIT),
    (Drops, ("--verify=none",)),
]
"""What nobody can tell who does not ask for more; each is noticed above, or by who asks for UIDs."""


@pytest.mark.parametrize(("lie", "options"), UNNOTICED,
                         ids=["-".join((each[0].__name__, *each[1])) for each in UNNOTICED])  # fmt: skip
def test_what_a_weaker_question_cannot_notice(
    workdir: Workdir, made: list[samples.Sample], lie: type[Liar], options: Sequence[str]
) -> None:
    node = lie()
    if isinstance(node, ListsAllAlready):
        node.already = list(Liar(made).has.values())
    done = pushed(workdir, node, made, *options)
    assert done.status == 0, done


# push --via move: a source that says that it sent


class SaysItSent(Liar):
    def move(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        talk.send(self.retrieved(context_id, request, self.wanted(octets)))

    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        return []


@pytest.mark.parametrize("lie", [SaysItSent, SendsOthers])
def test_a_source_that_says_that_it_sent_straight_there_is_not_believed(
    workdir: Workdir, made: list[samples.Sample], lie: type[Liar]
) -> None:
    destination = Liar()
    with destination.serve() as there:
        source = lie(made, mailbox=there.port)
        with source.serve() as server:
            record = {"type": "series", "source": f"LIAR@{peers.HOST}:{server.port}",
                      "StudyInstanceUID": made[0].study_uid, "SeriesInstanceUID": made[0].series_uid}  # fmt: skip
            done = workdir.run("push", f"NEW@{peers.HOST}:{there.port}", "--via", "move", "--itemize", "--timeout", "1",
                               stdin=[record])  # fmt: skip
    assert not claimed(done), done
    assert done.status in (3, 4), done
