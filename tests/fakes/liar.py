"""A DICOM node that tells the truth, in the hands of whoever wants it to lie: each way to lie replaces one method.

    class Drops(Liar):
        def keep(self, instance): ...

    with Liar(files).serve() as server: server.port

It answers C-FIND by Study Root from what it `lists`, gives by C-GET and C-MOVE what is wanted of that, keeps what is
stored, and commits itself to keep it. `has` is the truth: SOP Instance UID -> the data set that it would give back.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dcmsync.wire import dataset
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import commitment, operations
from dcmsync.wire.dimse.command import Command
from tests import samples
from tests.fakes.scripted import EXPLICIT, PENDING, SUCCESS, Scripted, Talk, answer, message
from tests.nodes import Caller
from tests.trees import data_set

CT = samples.CT_IMAGE_STORAGE
Row = dict[str, object]
_DEPTHS = {"STUDY": 1, "SERIES": 2, "IMAGE": 3}


class Instance(NamedTuple):
    """One instance, as it is named in a command and listed, and its data set."""

    study_uid: str
    series_uid: str
    uid: str
    octets: bytes
    kind: str = CT


class Liar:
    """An honest node. `mailbox` is where C-MOVE sends to."""

    def __init__(self, made: Iterable[samples.Sample] = (), *, mailbox: int = 0) -> None:
        self.has = {each.sop_uid: instance_of(each) for each in made}
        self.mailbox = mailbox
        self.lock = threading.Lock()
        self.stored: list[str] = []

    def serve(self) -> Scripted:
        """A server that behaves like this."""
        return Scripted(self.script)

    def script(self, talk: Talk) -> None:
        """One association."""
        talk.accept()
        what = {commands.C_FIND_RQ: self.find, commands.C_GET_RQ: self.get, commands.C_MOVE_RQ: self.move,
                commands.C_STORE_RQ: self.store, commands.N_ACTION_RQ: self.act}  # fmt: skip
        while True:
            context_id, request, octets = talk.read_message()
            if request.field in what:  # what is left are answers to its reports
                what[request.field](talk, context_id, request, octets)

    # C-FIND

    def lists(self) -> Sequence[Instance]:
        """What it says that it has."""
        return list(self.has.values())

    def count(self, instances: Sequence[Instance]) -> object:
        """How many instances it says a series has."""
        return len(instances)

    def matches(self, keys: Mapping[str, object], one: Instance) -> bool:
        """Whether an instance is asked for."""
        homes = (("StudyInstanceUID", one.study_uid), ("SeriesInstanceUID", one.series_uid),
                 ("SOPInstanceUID", one.uid))  # fmt: skip
        return all(not keys.get(key) or uid in uids_in(keys[key]) for key, uid in homes)

    def rows(self, level: str, keys: Mapping[str, object]) -> list[Row]:
        """What it answers to a question."""
        found: dict[tuple[str, ...], list[Instance]] = {}
        for one in self.lists():
            if self.matches(keys, one):
                found.setdefault((one.study_uid, one.series_uid, one.uid)[: _DEPTHS[level]], []).append(one)
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        rows: list[Row] = [dict(zip(names, uids, strict=False)) for uids in found]
        for row, instances in zip(rows, found.values(), strict=True):
            row |= {"SERIES": {"NumberOfSeriesRelatedInstances": self.count(instances), "Modality": "CT"},
                    "IMAGE": {"SOPClassUID": instances[0].kind}}.get(level, {})  # fmt: skip
        return rows

    def find(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        """Answers a C-FIND."""
        keys = dataset.decode_identifier(octets, EXPLICIT)
        level = str(keys["QueryRetrieveLevel"])
        for row in self.rows(level, keys):
            talk.send(answer(context_id, request, PENDING, dataset.encode_values(row, level, EXPLICIT)))
        talk.send(self.found(context_id, request))

    def found(self, context_id: int, request: Command) -> bytes:
        """The end of a list."""
        return answer(context_id, request, SUCCESS)

    # C-GET and C-MOVE

    def wanted(self, octets: bytes) -> list[Instance]:
        """What it has of what a retrieval asks for."""
        keys = dataset.decode_identifier(octets, EXPLICIT)
        return [one for one in self.has.values() if self.matches(keys, one)]

    def sends(self, wanted: Sequence[Instance]) -> Sequence[Instance]:
        """What it sends."""
        return wanted

    def retrieved(self, context_id: int, request: Command, wanted: Sequence[Instance]) -> bytes:
        """The final answer to a retrieval."""
        return answer(context_id, request, SUCCESS, completed=len(wanted), failed=0, warnings=0)

    def get(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        """Answers a C-GET."""
        wanted = self.wanted(octets)
        for number, one in enumerate(self.sends(wanted), 1):
            talk.send(message(storage_context(talk, one.kind), operations.store(number, one.kind, one.uid).request,
                              one.octets))  # fmt: skip
            talk.read_message()
        talk.send(self.retrieved(context_id, request, wanted))

    def move(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        """Answers a C-MOVE to the mailbox."""
        wanted = self.wanted(octets)
        self.deliver(self.sends(wanted), request)
        talk.send(self.retrieved(context_id, request, wanted))

    def deliver(self, sent: Sequence[Instance], request: Command) -> None:
        """Stores instances in the mailbox."""
        with Caller(self.mailbox) as caller:
            caller.associate([(CT, (EXPLICIT,))], called=request.move_destination or "")
            for number, one in enumerate(sent, 1):
                originator = operations.Originator("DCMSYNC", request.message_id or 0)
                caller.say(1, operations.store(number, one.kind, one.uid, originator).request, one.octets)
                caller.hear()

    # C-STORE

    def store(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        """Takes an instance."""
        uid = request.sop_instance_uid or ""
        keys = dataset.decode_identifier(octets, EXPLICIT)
        with self.lock:
            self.stored.append(uid)
            self.keep(Instance(str(keys["StudyInstanceUID"]), str(keys["SeriesInstanceUID"]), uid, octets))
        talk.send(self.taken(context_id, request))

    def keep(self, instance: Instance) -> None:
        """Keeps what was stored."""
        self.has[instance.uid] = instance

    def taken(self, context_id: int, request: Command) -> bytes:
        """The answer to a C-STORE."""
        return answer(context_id, request, SUCCESS)

    # Storage commitment

    def act(self, talk: Talk, context_id: int, request: Command, octets: bytes) -> None:
        """Takes a request for commitment, and reports on the same association."""
        asked = commitment.decode_request(octets, EXPLICIT)
        talk.send(answer(context_id, request, SUCCESS))
        report = commitment.Report(transaction_uid=asked.transaction_uid, kept=tuple(self.commits(asked.instances)))
        talk.send(message(context_id, commitment.event_report(77, report).request,
                          commitment.encode_report(report, EXPLICIT)))  # fmt: skip

    def commits(self, asked: Sequence[commitment.Reference]) -> Sequence[commitment.Reference]:
        """What it promises to keep."""
        return [one for one in asked if one.sop_instance_uid in self.has]


def uids_in(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else str(value).split("\\")


def instance_of(sample: samples.Sample) -> Instance:
    return Instance(sample.study_uid, sample.series_uid, sample.sop_uid, data_set(Path(sample.path)))


def storage_context(talk: Talk, kind: str) -> int:
    """The context on which an instance of a class travels in Explicit VR Little Endian."""
    assert talk.request is not None
    return next(context.context_id for context in talk.request.contexts
                if context.abstract_syntax == kind and EXPLICIT in context.transfer_syntaxes)  # fmt: skip
