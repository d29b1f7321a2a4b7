"""The write side of an archive: from arriving octets to members, and from members to an archive under its name.

Owns the verdict on each instance, and that either all that landed is there, whole and durable, or nothing of it is.
Refuses to decode values, to overwrite other content unless told, and to touch the archive that is there until `commit`.

Theory of operation. Sinks take octets; `land_many` judges a batch of them, deflates in as many threads as there are
processors, and appends them one by one to a draft beside the archive: an archive has one end, so what landed counts
only once `commit` has written the directory behind it, synced the file, opened it as any reader would, and renamed it.
The draft is begun with the first instance that must be written, so that a run with nothing new copies nothing.

What is uncompressed is deflated; what is encapsulated is stored as it came, since it would not shrink.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from threading import Lock
from typing import Self

from msgspec import msgpack, structs

from dcmsync.contract import Arrival, Expected, Holding, Landed, LandedAs, Stamp
from dcmsync.endpoints.zip.arrivals import Job, Settings, Sink
from dcmsync.endpoints.zip.draft import Draft, sweep
from dcmsync.endpoints.zip.held import Held, Verdict
from dcmsync.endpoints.zip.preparing import Prepared, prepare
from dcmsync.endpoints.zip.reader import Reader
from dcmsync.endpoints.zip.stock import ignore, take_stock_of
from dcmsync.errors import LocalTrouble, is_of_the_machine, local_trouble
from dcmsync.locator import names_for
from dcmsync.wire import kept
from dcmsync.wire.arrived import SERIES_INSTANCE_UID, SOP_CLASS_UID, STUDY_INSTANCE_UID
from dcmsync.wire.digests import Digests

MAX_UID_OCTETS = 64  # PS3.5 §9.1; longer ones from a peer are refused at the door
CANNOT_UNDERSTAND = 0xC000  # PS3.4 Table B.2-1

_SAID: dict[Verdict, tuple[str, str]] = {
    "content": ("content", "the instance is there with other content"),
    "syntax": ("content", "the instance is there in another transfer syntax"),
    "taken": ("taken", "another instance has the name"),
    "broken": ("broken", "a member that is no whole instance has the name"),
    "blocked": ("blocked", "a member that is refused has the name"),
}
_REPLACED: dict[Verdict, str] = {
    "truncated": "replaced a truncated member of the same instance",
    "rotten": "replaced a member that was damaged",
}
_FORCED = frozenset({"content", "syntax", "broken"})


class Packing:
    """One archive being written (contract.Destination). `land_many` may run in any thread, one at a time."""

    def __init__(self, path: str, settings: Settings) -> None:
        """Opens what is there, takes stock of it, and clears what dead processes left. Raises LocalTrouble."""
        self._settings = settings
        self._lock = Lock()
        self._draft: Draft | None = None
        self._old: Reader | None = None
        self._landed: list[bytes] = []  # what is to be remembered, encoded: a tenth of the memory
        folder, self._name = os.path.split(os.path.realpath(path))
        self._path = path
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="deflate")
        self._folder_fd = -1
        try:
            self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            sweep(self._folder_fd)
            try:
                self._old = Reader(os.path.join(folder, self._name))
            except FileNotFoundError:
                settings.catalogue.forget([known for known, _ in settings.catalogue.stamps()])
            else:
                take_stock_of(self._old, path, settings.catalogue, skipped=ignore, digests=_digests(settings))
        except FileNotFoundError:
            self.close()
            words = f"{path}: there is no folder to put the archive in"
            raise LocalTrouble(words, advice="Make it first, with mkdir -p") from None
        except OSError as trouble:
            self.close()
            raise local_trouble(trouble) from trouble
        except BaseException:
            self.close()
            raise
        self._held = Held(self._old, settings.catalogue)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes what was not committed. Idempotent. No sink or job may be used afterwards."""
        self._threads.shutdown()
        if self._draft is not None:
            self._draft.close()
            self._draft = None
        if self._old is not None:
            self._old.close()
            self._old = None
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1

    @property
    def is_made_at_once(self) -> bool:
        """No verdict counts before `commit`."""
        return True

    def receive(self, arrival: Arrival, expected: Expected = Expected()) -> "Sink | int":  # noqa: B008 - frozen
        """A sink for an instance, or the status to refuse it with when its UIDs are beyond what a file can say."""
        uids = arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid
        if not all(uids) or max(map(len, uids)) > MAX_UID_OCTETS:
            return CANNOT_UNDERSTAND
        return Sink(arrival, expected, self._folder_fd, self._settings)

    def land_many(self, jobs: Sequence[Job]) -> list[Landed]:
        """Lands a batch; the verdicts are in the order of the jobs, and durable once `commit` has returned."""
        with self._lock:
            landed = []
            try:
                for job, prepared in zip(jobs, self._threads.map(partial(prepare, self._settings), jobs), strict=True):
                    landed.append(self._land(job, prepared))
            finally:
                for job in jobs:
                    self.abandon(job)
            return landed

    def abandon(self, job: Job) -> None:
        """Lets go of a job that is not to land, or that has."""
        if job.descriptor >= 0:
            os.close(job.descriptor)

    def commit(self) -> None:
        """Gives the archive its name, all members durable, and remembers them. Raises LocalTrouble: it then stays as
        it was, unless the words say that it is in doubt.
        """
        draft = self._draft
        if draft is None:
            return
        try:
            count = draft.finish()
            with Reader(self._path, descriptor=os.dup(draft.descriptor)) as written:
                if len(written.entries) != count:
                    raise LocalTrouble(f"{self._path}: what was written is not what is read back")
                draft.publish(self._name, self._old.stamp if self._old is not None else None)
                with suppress(LocalTrouble):  # a catalogue that fails now costs the next run some time
                    self._settings.catalogue.remember(self._restamped(written))
        except OSError as trouble:
            raise local_trouble(trouble) from trouble
        finally:
            draft.close()
            self._draft = None

    def _land(self, job: Job, prepared: Prepared | OSError) -> Landed:
        """The verdict on one job; written, if it is to be."""
        if isinstance(prepared, OSError):
            return _failed(job, prepared)
        if prepared.judged.reason:
            return _verdict(job, prepared, "failed", "", prepared.judged.reason, prepared.judged.message)
        try:
            return self._place(job, prepared)
        except OSError as trouble:
            return _failed(job, trouble)
        except LocalTrouble as trouble:
            return _failed(job, trouble)

    def _place(self, job: Job, prepared: Prepared) -> Landed:
        """Looks at what is there of the instance, or under its name; writes it if it may. Raises what Draft does."""
        uid = job.arrival.sop_instance_uid
        standing = self._held.path_of(uid)
        if standing is not None:
            return self._settle(job, prepared, standing, self._held.judge(standing, job))
        folder, slash, name = prepared.path.rpartition("/")
        for candidate in names_for(name, uid):
            path = f"{folder}{slash}{candidate}"
            if path not in self._held:
                return self._write(job, prepared, path, message=prepared.judged.message)
            found = self._held.judge(path, job)
            if found != "taken":
                break
        return self._settle(job, prepared, path, found)

    def _settle(self, job: Job, prepared: Prepared, standing: str, found: Verdict) -> Landed:
        """Lets what stands there be, or replaces it."""
        if found == "same":
            return _verdict(job, prepared, "present", standing, message=prepared.judged.message)
        if found in _REPLACED:
            return self._write(job, prepared, standing, reason="replaced", message=_REPLACED[found])
        if found in _FORCED and self._settings.force:
            words = "replaced other content, as asked"
            return self._write(job, prepared, standing, reason="replaced", message=words)
        reason, message = _SAID[found]
        return _verdict(job, prepared, "conflict", standing, reason, message)

    def _write(self, job: Job, prepared: Prepared, path: str, *, reason: str = "", message: str = "") -> Landed:
        """Writes the member, in place of what has its name."""
        if self._draft is None:
            self._draft = Draft(self._folder_fd, self._old)
        replaced = self._held.place(path) if path in self._held else None
        entry = self._draft.add(
            path, job.source, packed=prepared.packed, crc=prepared.crc, is_deflated=prepared.is_deflated
        )
        if replaced is not None:
            self._draft.drop(replaced.entry, replaced.begin, is_old=self._held.is_old(path))
        self._held.add(job.arrival.sop_instance_uid, entry, self._draft)
        landed = _verdict(job, prepared, "stored", path, reason, message)
        self._landed += _encoded(_holding(job, prepared, landed))
        return landed

    def _restamped(self, written: Reader) -> Iterator[Holding]:
        """What was there, as it is now, and what came."""
        catalogue = self._settings.catalogue
        for holding in chain(catalogue.holdings(), catalogue.others()):
            was = self._old.members.get(holding.path) if self._old is not None else None
            if was is not None and was.stamp == holding.stamp and self._held.is_old(holding.path):
                yield structs.replace(holding, stamp=written.members[holding.path].stamp)
        for octets in self._landed:
            holding = msgpack.decode(octets, type=Holding)
            yield structs.replace(holding, stamp=written.members[holding.path].stamp)


def _digests(settings: Settings) -> Digests | None:
    return None if settings.content is None else Digests(hasher=settings.hasher, content=settings.content)


def _verdict(
    job: Job, prepared: Prepared, outcome: LandedAs, path: str, reason: str = "", message: str = ""
) -> Landed:
    return Landed(
        arrival=job.arrival,
        outcome=outcome,
        path=path,
        size=job.offset + job.size,
        digest=prepared.digest if outcome == "stored" else "",
        content=prepared.content if outcome in ("stored", "present") else "",
        study_uid=prepared.judged.uid(STUDY_INSTANCE_UID),
        series_uid=prepared.judged.uid(SERIES_INSTANCE_UID),
        values=prepared.judged.values,
        reason=reason,
        message=message,
    )


def _failed(job: Job, trouble: OSError | LocalTrouble) -> Landed:
    words = local_trouble(trouble) if isinstance(trouble, OSError) else trouble
    is_final = not isinstance(trouble, OSError) or is_of_the_machine(trouble)
    return Landed(
        arrival=job.arrival,
        outcome="failed",
        reason="local",
        message=words.message,
        trouble=words if is_final else None,
    )


def _holding(job: Job, prepared: Prepared, landed: Landed) -> Holding:
    """What is to be remembered of a member that was written; its stamp is known when the archive is."""
    return Holding(
        path=landed.path,
        stamp=Stamp(size=landed.size, mtime_ns=0, device=0, inode=0),
        state="whole",
        study_uid=landed.study_uid,
        series_uid=landed.series_uid,
        sop_instance_uid=job.arrival.sop_instance_uid,
        sop_class_uid=prepared.judged.uid(SOP_CLASS_UID),
        transfer_syntax_uid=job.arrival.transfer_syntax_uid,
        data_set_offset=job.offset,
        attributes=kept.plain_values(prepared.judged.values, prepared.judged.encoding),
        digest=landed.digest,
        content=landed.content,
        read_ns=time.time_ns(),
    )


def _encoded(holding: Holding) -> list[bytes]:
    """A holding as octets; none where its text has halves of characters: then the next run reads the member."""
    try:
        return [msgpack.encode(holding)]
    except UnicodeEncodeError:
        return []
