"""The folder behind the node: its index, the way in for what arrives, and open files for what leaves.

Owns the promise that a status of success means durable: verdicts are handed to whoever waits for them only when the
landing has given them. Refuses to speak DIMSE beyond status codes. What lands is indexed before its sender is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread
from msgspec import Struct, structs

from dcmsync.cache.digest import hasher
from dcmsync.contract import Arrival, Expected, Landed, Sink, Stamp
from dcmsync.endpoints.folder.arrivals import Job, Settings
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.endpoints.folder.scan import examine, scan
from dcmsync.errors import LocalTrouble
from dcmsync.node.checking import check
from dcmsync.node.index import WANTED, Image, Index
from dcmsync.node.renewal import Changes, Renewal
from dcmsync.plan import layout
from dcmsync.wire import dataset
from dcmsync.wire.dimse import status
from dcmsync.wire.dimse.commitment import Reference
from dcmsync.wire.source import Values

DUPLICATE = 0x0111  # PS3.7 §C.5.8, duplicate SOP instance

_CHECKED_AT_ONCE = 200  # between two looks at whether the run is to end
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FAILURES = {"local": status.OUT_OF_RESOURCES, "mismatch": status.DOES_NOT_MATCH_CLASS}


class Queue(Protocol):
    """Where jobs wait to land (transfer.lander.Lander)."""

    def take(self, job: Job) -> None:
        """A job has arrived whole."""

    async def room(self) -> None:
        """Returns when there is room for more."""

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begins to land."""

    def stop(self) -> None:
        """Ends once nothing waits."""


class Opened(Struct, frozen=True):
    """An open file, where the data set of its instance lies in it, and the size and time that it is to keep."""

    descriptor: int
    offset: int
    octets: int
    stamp: Stamp


class _Verdict:
    """What somebody waits for."""

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival  # keeps its identity ours as long as we are asked for it
        self.landed: Landed | None = None
        self.come = anyio.Event()


class Archive:
    """One folder being served. Use it in one event loop; close it at the end."""

    def __init__(
        self,
        root: str,
        *,
        make_queue: Callable[[Landing, Callable[[Landed], None]], Queue],
        warn: Callable[[str], None],
    ) -> None:
        """Reads the whole folder. Raises LocalTrouble."""
        self.root = root
        self.index = Index()
        self._renewal = Renewal(root, self.index)
        self._warn = warn
        self._layout = layout.compile(layout.DEFAULT)
        self._verdicts: dict[int, _Verdict] = {}
        needed = frozenset(dataset.tag_of(keyword) for keyword in self._layout.keywords)
        self._landing = Landing(root, Settings(
            place=self._place,
            wanted=needed | {dataset.SPECIFIC_CHARACTER_SET},
            hasher=hasher,
            completed=lambda job: self._queue.take(job),
        ))  # fmt: skip
        self._queue = make_queue(self._landing, self._landed)
        try:
            self._fill()
        except OSError as trouble:
            self.close()
            raise LocalTrouble(f"{root} cannot be read: {trouble.strerror}") from trouble

    def close(self) -> None:
        """Removes what has not landed. Idempotent."""
        self._landing.close()

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begins to land what arrives."""
        self._queue.start(tasks)

    def stop(self) -> None:
        """Lets the tasks end once everything has landed."""
        self._queue.stop()

    async def renew(self) -> Changes:
        """Takes in what changed in the folder without us. Raises OSError when it cannot be read."""
        return await self._renewal.renew()

    @contextmanager
    def opened(self, image: Image) -> Iterator[Opened | None]:
        """The file of an instance, open; None when it is gone, or holds something else by now."""
        descriptor = -1
        try:
            descriptor, current = self._open(image)
            if current is None:
                yield None
            else:
                offset = current.data_set_offset
                stamp = Stamp(size=current.size, mtime_ns=current.mtime_ns, device=0, inode=0)
                yield Opened(descriptor, offset, current.size - offset, stamp)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def receive(self, arrival: Arrival, expected: Expected = Expected()) -> Sink | int:  # noqa: B008 - frozen
        """A sink that lands what arrives here; see `settle` for what became of it (contract.Receiver)."""
        sink = self._landing.receive(arrival, expected)
        if isinstance(sink, int):
            return sink
        self._verdicts[id(arrival)] = _Verdict(arrival)
        return _Guarded(sink, lambda: self._verdicts.pop(id(arrival), None), self._warn)

    async def room(self) -> None:
        """Returns when more instances may come (contract.Receiver)."""
        await self._queue.room()

    async def check(self, references: Sequence[Reference]) -> tuple[list[Reference], list[Reference]]:
        """Those that are held, whole and durable, and the others, with the reason of each: read from the disk now."""
        kept: list[Reference] = []
        failed: list[Reference] = []
        for start in range(0, len(references), _CHECKED_AT_ONCE):
            part = references[start : start + _CHECKED_AT_ONCE]
            images = [self.index.images.get(reference.sop_instance_uid) for reference in part]
            reasons = await anyio.to_thread.run_sync(check, self.root, part, images)
            for reference, reason in zip(part, reasons, strict=True):
                (failed if reason else kept).append(structs.replace(reference, reason=reason))
        return kept, failed

    async def settle(self, arrival: Arrival) -> int:
        """The status of an instance whose sink has taken it all: success only when it is durable."""
        verdict = self._verdicts[id(arrival)]
        try:
            await verdict.come.wait()
        finally:
            del self._verdicts[id(arrival)]
        assert verdict.landed is not None
        return _status(verdict.landed)

    def forget(self, arrival: Arrival) -> None:
        """Nobody awaits what becomes of an instance; it lands all the same."""
        self._verdicts.pop(id(arrival), None)

    def _fill(self) -> None:
        left_out = 0
        for found in scan(self.root, wanted=WANTED, skipped=lambda path, why: None):
            why = self.index.add(found)
            if why:
                self._renewal.pass_by(found, why)
            if found.state == "truncated":
                self._warn(f"{_shown(found.path)}: truncated, not served: at octet {found.offset}: {found.reason}")
            elif why:
                left_out += 1
        if left_out:
            self._warn(f"{left_out} files are no instances that can be asked for, or are there twice; not served")

    def _open(self, image: Image) -> tuple[int, Image | None]:
        path = os.path.join(self.root, image.path)
        try:
            descriptor = os.open(path, _OPEN)
        except OSError:
            return -1, None
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns) == (image.size, image.mtime_ns):
            return descriptor, image
        try:
            found = examine(self.root, image.path, wanted=WANTED)
        except OSError:
            found = None
        is_same = found is not None and (found.size, found.mtime_ns, found.sop_instance_uid) == (
            now.st_size, now.st_mtime_ns, image.uid,
        )  # fmt: skip
        if found is None or not is_same or self.index.add(found):
            return descriptor, None
        return descriptor, self.index.images[image.uid]

    def _place(self, values: Values, arrival: Arrival) -> str:
        """Where an instance goes: where its UID is already, so that the two are compared, else by the layout."""
        held = self.index.images.get(arrival.sop_instance_uid)
        if held is not None:
            return held.path
        known = dataset.decode_values(values, arrival.transfer_syntax_uid)
        return self._layout.path({**known, "SOPInstanceUID": arrival.sop_instance_uid})

    def _landed(self, landed: Landed) -> None:
        if landed.outcome in ("stored", "present"):
            try:
                found = examine(self.root, landed.path, wanted=WANTED)
            except OSError:
                found = None
            if found is not None:
                self.index.add(found)
        elif landed.trouble is not None:
            self._warn(f"an instance could not be stored: {landed.trouble.message}")
        verdict = self._verdicts.get(id(landed.arrival))
        if verdict is not None:
            verdict.landed = landed
            verdict.come.set()


class _Guarded:
    """A sink whose trouble is a status for the peer, and no end of the run."""

    def __init__(self, sink: Sink, forget: Callable[[], object], warn: Callable[[str], None]) -> None:
        self._sink = sink
        self._forget = forget
        self._warn = warn
        self._trouble: LocalTrouble | None = None

    def adopt(self) -> bool:
        """Octets are needed."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes octets; after trouble it drops them."""
        if self._trouble is not None:
            return
        try:
            self._sink.write(pieces)
        except LocalTrouble as trouble:
            self._trouble = trouble
            self.discard(trouble.message)
            self._warn(f"an instance could not be stored: {trouble.message}")

    def finish(self) -> int:
        """Success, or out of resources."""
        return self._sink.finish() if self._trouble is None else status.OUT_OF_RESOURCES

    def discard(self, why: str) -> None:
        """Lets go of everything. Idempotent."""
        self._sink.discard(why)
        self._forget()


def _status(landed: Landed) -> int:
    """The DIMSE status that says what became of an instance (PS3.4 table B.2-1)."""
    match landed.outcome:
        case "stored" | "present":
            return status.SUCCESS
        case "conflict":
            return DUPLICATE
        case _:
            return _FAILURES.get(landed.reason, status.CANNOT_UNDERSTAND)


def _shown(path: str) -> str:
    """A path for messages; names of folders may be those of patients, so only the last part is shown."""
    return os.path.basename(path).encode("utf-8", "replace").decode()
