"""What a place promises: small protocols, and the values that pass between a place and those who use it.

An endpoint satisfies the protocols that it can. Nothing here does anything.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import IntEnum
from typing import Literal, Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from dcmsync.errors import DcmsyncError, LocalTrouble

Attributes = Mapping[str, object]
"""Keyword (PS3.6) -> plain value: str, int, float, list of these. What a record carries besides our own keys."""


class Level(IntEnum):
    """Query/Retrieve level (PS3.4 §C.6), by depth. Things of a level have the UIDs of those above, from study down."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    INSTANCE = 3

    @property
    def word(self) -> str:
        """The word of our records and options: patient, study, series, instance."""
        return self.name.lower()

    @property
    def unique_key(self) -> str:
        """The keyword of the attribute that identifies one thing of this level."""
        return UNIQUE_KEYS[self]


UNIQUE_KEYS = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.INSTANCE: "SOPInstanceUID",
}


WITH_UID = (Level.STUDY, Level.SERIES, Level.INSTANCE)
"""The levels whose things a UID identifies."""
PATIENT_KEYWORDS = frozenset((
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientBirthTime", "PatientSex",
    "OtherPatientIDs", "OtherPatientNames", "OtherPatientIDsSequence", "EthnicGroup", "PatientComments",
    "ReferencedPatientSequence", "PatientSpeciesDescription", "PatientBreedDescription", "ResponsiblePerson",
    "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances",
))  # fmt: skip
"""What is known of a patient (PS3.4 table C.6-1). Where the study is the root, it is asked of studies."""


class Ask(Struct, frozen=True, kw_only=True):
    """One query of one level: what must match, and what else is wanted back.

    `keys`: keyword -> value in DICOM matching syntax (PS3.4 §C.2.2.2), `\\` between values of a UID list.
    Every level above `level`, from study down, has exactly one unique key in `keys`, without wildcard, unless the
    place agreed to relational queries.
    """

    level: Level
    keys: Mapping[str, str]
    wanted: tuple[str, ...] = ()


class Ending(Struct, frozen=True, kw_only=True):
    """How an operation ended. `status` is the DIMSE status, `why` says it in words.

    `is_warning`: it was done all the same. `truncated`: the list of answers may be cut short. `may_pass`: trying again
    may help. `is_last_word`: the place gave all it can, so that asking in parts would bring nothing more.
    """

    status: int = 0
    is_warning: bool = False
    truncated: bool = False
    is_last_word: bool = False
    may_pass: bool = False
    why: str = ""


class Want(Struct, frozen=True, kw_only=True):
    """What to retrieve in one go: one series, or some instances of it.

    `instances` is the inventory: SOP Instance UID -> SOP Class UID ("" where unknown). With `whole` the series is
    asked for by its own UID, else instance by instance. `classes` may come too: be ready for them. `patient_id` is ""
    where it is not known.
    """

    study_uid: str
    series_uid: str
    instances: Mapping[str, str]
    whole: bool = True
    classes: tuple[str, ...] = ()
    transfer_syntaxes: Mapping[str, str] = {}
    patient_id: str = ""


class Stamp(Struct, frozen=True, kw_only=True):
    """What a file system says of a file without reading it, by which to tell later whether it is still that file.

    Of a member of an archive: its own size, the archive's device and inode, and as `mtime_ns` a number that changes
    with the archive or with the member.
    """

    size: int
    mtime_ns: int
    device: int
    inode: int


class Origin(Struct, frozen=True, kw_only=True):
    """The file of this machine that an instance comes from. `path` is absolute; `head` is all before the data set.

    `descriptor` is open for reading as long as the sink is not finished; `stamp` is what it said when it was opened.
    """

    path: str
    descriptor: int
    stamp: Stamp
    head: bytes


class Arrival(Struct, frozen=True, kw_only=True):
    """What is known of an instance before its first octet of data (C-STORE-RQ, PS3.7 §9.1.1).

    `head` is the preamble, prefix and group 0002 of the file that it was, where there is one: they are kept. `origin`
    is that file, where it can be linked instead of copied. `original` is the SOP Instance UID that it had at its
    source, where it was edited on the way.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    head: bytes = b""
    origin: Origin | None = None
    original: str = ""


class Sink(Protocol):
    """Takes the data set of one instance. Exactly one of `finish` and `discard` is called, last."""

    def adopt(self) -> bool:
        """Takes the instance from its origin, so that nothing needs to be written; false when its octets are needed.

        Called at most once, before anything else, and only by who gave an origin. Raises LocalTrouble.
        """

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets, in order. The buffers are the caller's again when this returns.

        Raises LocalTrouble, or RemoteProtocolError for what cannot become a data set; the caller then discards.
        """

    def finish(self) -> int:
        """All octets have come. Returns the DIMSE status for the peer (0 when it was taken)."""

    def discard(self, why: str) -> None:
        """The instance ends here, incomplete; nothing of it stays. Idempotent."""


class Receiver(Protocol):
    """Who takes the instances of one retrieval."""

    def receive(self, arrival: Arrival) -> Sink | int:
        """Asked once per arriving instance: a sink to take it, or the DIMSE status to refuse it with."""

    async def room(self) -> None:
        """Returns when more instances may come. Awaited before the peer is told that it may go on.

        Raises LocalTrouble or DestinationLost when nobody takes any.
        """


class Finds(Protocol):
    """A place that can be asked what it holds."""

    def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """Gives each answer as it arrives; exactly one Ending, last.

        Raises PeerError when the query could not be carried out.
        """


class Fetches(Protocol):
    """A place that gives instances."""

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Retrieves `want`, offering each instance that arrives to `receiver`.

        The ending is the peer's word, not a proof: count what arrived. Raises PeerError, LocalTrouble.
        """


class Description(Struct, frozen=True, kw_only=True):
    """All of an instance but its bulk data: an object of the DICOM JSON model (PS3.18 Annex F), as one line."""

    sop_instance_uid: str
    json: bytes


@runtime_checkable
class Describes(Protocol):
    """A place that describes instances without giving them."""

    def describe(self, want: Want) -> AsyncGenerator[Description, None]:
        """Gives what the place says of the instances of `want`, in any order; perhaps of others, too.

        What does not come is not known to lack: ask again. Raises PeerError.
        """


class Parcel(Struct, frozen=True, kw_only=True):
    """An instance on its way to a remote place: a data set of `size` octets, exactly as it is to arrive.

    It is in `memory`, or stands at `offset` of an open file, which is the carrier's to close. With a `stamp` that file
    is one of the user's, and must not have changed when the last octet goes out. `check`, called once, in any thread,
    before anything is sent, gives the verdict that holds if the place takes it, or another when it is not to be sent.
    `is_second`: one of the same UID has gone before, and this one's verdict comes after that one's.
    """

    arrival: Arrival
    size: int
    memory: bytes | bytearray | None = None
    descriptor: int = -1
    offset: int = 0
    stamp: Stamp | None = None
    check: "Callable[[], Landed] | None" = None
    is_second: bool = False


class Stores(Protocol):
    """A place that takes instances."""

    def is_ready_for(self, arrival: Arrival) -> bool:
        """Whether `store` could begin at once, as far as is known."""

    async def prepare(self, arrivals: Sequence[Arrival]) -> None:
        """Makes ready for instances like these; where that is not possible for all, the first ones matter most.

        Raises PeerError.
        """

    async def store(self, parcel: Parcel) -> Ending:
        """Delivers one instance: the place's word on it. `may_pass` says whether trying again may help.

        Raises Refused when the place does not take such instances, PeerError, LocalTrouble when the file cannot be
        read or has changed.
        """


class Together(Struct, frozen=True, kw_only=True):
    """The most that one delivery may hold; an instance that has more octets by itself goes alone."""

    parcels: int
    octets: int


@runtime_checkable
class StoresTogether(Stores, Protocol):
    """A place that takes several instances in one delivery."""

    @property
    def together(self) -> Together:
        """The most to hand over at once; it may become less."""

    async def store_together(self, parcels: Sequence[Parcel]) -> Sequence[Ending | LocalTrouble]:
        """Delivers several: of each, in order, the place's word on it, or why its file could not be sent.

        One that cannot be sent, or that the place does not take, spoils no other. Raises Rejected when the place takes
        nothing, PeerError when nobody knows what has arrived.
        """


class Commitment(Struct, frozen=True, kw_only=True):
    """What a place says of instances that it was asked to keep: what it keeps, by SOP Instance UID, what it does not
    have, and what it does not keep although it does; in words why. `why`: why nothing is said of the others.
    """

    kept: frozenset[str] = frozenset()
    missing: Mapping[str, str] = {}
    refused: Mapping[str, str] = {}
    why: str = ""


class Commits(Protocol):
    """A place that can be asked to keep what it was given, and to say that it does."""

    async def commit(self, instances: Mapping[str, str]) -> Callable[[], Awaitable[Commitment]]:
        """Asks it to keep instances (UID -> SOP class). Gives what is to be awaited for its word, once: that may take
        its time, and needs no session.

        Raises Rejected when the place does not offer that, Refused when it does not do it, PeerError, LocalTrouble.
        """


class Session(Finds, Fetches, Protocol):
    """One conversation with a place; for one task, one call at a time."""

    async def rest(self) -> None:
        """Lets go of what the place gives to one at a time; the next call takes it again."""


class Holds(Session, Stores, Commits, Protocol):
    """One conversation with a place that can be asked, and gives, takes and keeps instances."""


class Store(Protocol):
    """A remote place to deliver things to. `name` is how messages and records call it."""

    @property
    def name(self) -> str: ...

    def session(self) -> AbstractAsyncContextManager[Holds]:
        """A conversation, ended in an orderly way. Several may be open at once."""


class Manner(Struct, frozen=True, kw_only=True):
    """How a place is asked: `root` is where a walk begins. With `relational` no level above is needed in a question,
    with `fuzzy` the place matches names by a likeness of its own.
    """

    root: Level = Level.STUDY
    relational: bool = False
    fuzzy: bool = False


@runtime_checkable
class Mannered(Protocol):
    """A session with a place that may be asked in a manner of its own."""

    async def manner(self, level: Level) -> Manner:
        """How things of a level are asked for there. Raises PeerError."""


class Source(Protocol):
    """A place to bring things from. `name` is how messages and records call it."""

    @property
    def name(self) -> str: ...

    def session(self) -> AbstractAsyncContextManager[Session]:
        """A conversation, ended in an orderly way. Several may be open at once."""


class Holding(Struct, frozen=True, kw_only=True):
    """One file of a local place, as it was when it was read last.

    `path` is relative to the place; names that are no UTF-8 carry surrogates (PEP 383). `state` is "whole",
    "truncated", "not dicom", "refused": a member of an archive that is not read, or that lied; or "rotten": whole once,
    and changed since without a trace in its stamp; `reason` says more. UIDs are those of the data set, "" where it has
    none. `attributes` are plain values by keyword. `digest` is of every octet of the file, `content` of the data set,
    both as 32 hexadecimal digits, or "" where nobody has computed them. `read_ns`: when every octet was read last, in
    ns since 1970, 0 for never.
    """

    path: str
    stamp: Stamp
    state: str
    reason: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    data_set_offset: int = 0
    attributes: Attributes = {}
    digest: str = ""
    content: str = ""
    read_ns: int = 0

    @property
    def is_instance(self) -> bool:
        """Whether it is a whole data set that says which instance it is."""
        return self.state == "whole" and bool(self.sop_instance_uid and self.series_uid and self.study_uid)


class Catalogue(Protocol):
    """What is known of the files of one local place: the cache, or a table that ends with the run.

    It is believed only as far as stamps go: whoever uses it compares them first. Safe to use from several threads.
    Nothing is raised for a catalogue that is torn, locked or full: it forgets, says so once, and `has_lost` until
    `stamps` is asked again; meanwhile `find`, `holdings` and `others` raise LocalTrouble, since nothing would be a lie.
    """

    @property
    def has_lost(self) -> bool:
        """Whether what was there is gone since `stamps` was asked last: take stock again."""

    def stamps(self) -> Iterator[tuple[str, Stamp]]:
        """Every file remembered, with its stamp, by path."""

    def at(self, path: str) -> Holding | None:
        """What is known of one file."""

    def remember(self, holdings: Iterable[Holding]) -> None:
        """Takes them in, each in place of what was known of its path; kept when this returns."""

    def forget(self, paths: Iterable[str]) -> None:
        """Lets go of files that are no more."""

    def find(self, ask: Ask) -> Iterator[Attributes]:
        """The answers to one ask, as a PACS would give them, by UID. Instances carry more than was asked for:

        TransferSyntaxUID, and in lower case `path`, `size`, and `digest` and `content` (`xxh3:` and 32 hexadecimal
        digits) where they are known.
        """

    def holdings(
        self, *, study_uid: str = "", series_uid: str = "", sop_instance_uid: str = ""
    ) -> Iterator[Holding]:
        """The whole instances with these UIDs ("": any), by study, series and instance UID, then by path."""

    def others(self) -> Iterator[Holding]:
        """The files that are no whole instance, by path."""


class Expected(Struct, frozen=True, kw_only=True):
    """What an instance must turn out to be; "" where that is not known. `is_second`: its UID has come before."""

    study_uid: str = ""
    series_uid: str = ""
    is_second: bool = False


LandedAs = Literal["stored", "present", "conflict", "failed"]


class Landed(Struct, frozen=True, kw_only=True):
    """What became of an instance. "stored" and "present" are durable.

    `path` is relative to the destination. `arrival` has lost its origin where that file is the one that stands there,
    so that it must stay. `reason` is a word for programs, `message` one for people, without patient data.
    `trouble` is set when the destination takes no more. `digest` is of the whole file as written; that of a file that
    was present is not known. `content` is of the data set, which is the same for both. `status` is what a remote place
    answered, where it was not plain success; `may_pass`: trying again may help.
    """

    arrival: Arrival
    outcome: LandedAs
    path: str = ""
    size: int = 0
    digest: str = ""
    content: str = ""
    study_uid: str = ""
    series_uid: str = ""
    values: Mapping[int, tuple[str, bytes]] = {}
    device: int = 0
    inode: int = 0
    mtime_ns: int = 0
    reason: str = ""
    message: str = ""
    status: int = 0
    may_pass: bool = False
    trouble: DcmsyncError | None = None


class Job(Protocol):
    """An instance that has arrived completely and waits to land; `size` in octets."""

    @property
    def size(self) -> int: ...

    @property
    def arrival(self) -> Arrival: ...


JobT = TypeVar("JobT", bound=Job)
JobT_contra = TypeVar("JobT_contra", bound=Job, contravariant=True)


class Takes(Protocol):
    """What instances are handed to. What `receive` gives hands its job to whoever set this up.

    Verdicts hold as soon as they are given, unless the place `is_made_at_once`: then only `commit` makes them so, all
    together.
    """

    @property
    def is_made_at_once(self) -> bool: ...

    def receive(self, arrival: Arrival, expected: Expected = ...) -> Sink | int:
        """A sink for an instance, or the status to refuse it with."""

    def commit(self) -> None:
        """Makes everything that landed durable, in a worker thread; called once, last, if all may stay.

        Raises LocalTrouble: then nothing of it is there. A place that is not made at once has nothing left to do.
        """


class Destination(Takes, Protocol[JobT_contra]):
    """A place on this machine where instances land, durably."""

    def land_many(self, jobs: Sequence[JobT_contra]) -> list[Landed]:
        """Lands jobs, in a worker thread; gives the verdicts, in order, when every one of them is durable."""

    def abandon(self, job: JobT_contra) -> None:
        """Lets go of a job that is not to land."""
