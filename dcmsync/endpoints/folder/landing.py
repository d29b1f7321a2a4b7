"""The write side of a folder: from arriving octets to a whole, durable file under its final name.

Owns the path of an instance from its first octet to its verdict. Refuses to choose names (a callable does), to decode
values, to overwrite other content unless told, and to report anything that is not durable.

Theory of operation. Two steps. On the network's side a sink takes octets: up to a limit in memory, beyond it in a
staging file, written where they lie; `finish` hands a job to `completed` and is cheap. On a worker thread `land_many`
does the rest for a batch of jobs: walk the data set, write and fsync staging files, link them to their final names,
fsync each folder once, and only then give the verdicts.

A file gets its name by link(2), which never replaces anything, so no race can overwrite; then its staging name goes.
File systems without hard links (FAT, exFAT, some network ones) get a check and rename(2): no partial file there either,
but another program that creates the very name between the two calls loses it. With `force`, rename(2) replaces.

Deviation from "temporary name in the same folder": the staging folder lies directly below the destination, since the
final folder may depend on what arrives last, and is found again after a crash without searching. It must therefore be
one file system with all that is below the destination.
"""

import os
from collections.abc import Sequence
from typing import Self

from dcmsync.contract import Arrival, Expected, Landed
from dcmsync.endpoints.folder.approach import STEPS, Approach
from dcmsync.endpoints.folder.arrivals import Job, Settings, Sink
from dcmsync.endpoints.folder.below import Durable, Folders
from dcmsync.endpoints.folder.staging import Staging
from dcmsync.errors import local_trouble

MAX_UID_OCTETS = 64  # PS3.5 §9.1; longer ones from a peer are refused at the door
CANNOT_UNDERSTAND = 0xC000  # PS3.4 Table B.2-1


class Landing:
    """One destination folder being written. `land_many` may run in several threads at once; sinks in any one."""

    def __init__(self, root: str, settings: Settings) -> None:
        """Creates `root` if need be and clears what dead processes left. Raises LocalTrouble."""
        self._settings = settings
        self._durable = Durable()
        try:
            _make_root(root, settings.folder_mode)
            self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._staging = Staging(self._root_fd, folder_mode=settings.folder_mode, file_mode=settings.file_mode)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the staging folder and what is in it. Idempotent. No sink or job may be used afterwards."""
        if self._root_fd >= 0:
            self._staging.close()
            os.close(self._root_fd)
            self._root_fd = -1

    def receive(self, arrival: Arrival, expected: Expected = Expected()) -> "Sink | int":  # noqa: B008 - frozen
        """A sink for an instance, or the status to refuse it with when its UIDs are beyond what a file can say."""
        uids = arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid
        if not all(uids) or max(map(len, uids)) > MAX_UID_OCTETS:
            return CANNOT_UNDERSTAND
        return Sink(arrival, expected, self._staging, self._settings)

    def land_many(self, jobs: Sequence[Job]) -> list[Landed]:
        """Lands a batch; the verdicts are in the order of the jobs, given when every one of them is durable."""
        with Folders(self._root_fd, self._durable, folder_mode=self._settings.folder_mode) as folders:
            approaches = [Approach(job, self._staging, self._settings, folders) for job in jobs]
            try:
                for step in STEPS:
                    for approach in approaches:
                        approach.take(step)
                failed = folders.sync()
            finally:
                for approach in approaches:
                    approach.close()
        verdicts = [approach.verdict(failed) for approach in approaches]
        if self._settings.remember is not None:
            self._settings.remember([holding for each in approaches if (holding := each.holding()) is not None])
        return verdicts

    @property
    def is_made_at_once(self) -> bool:
        """Every verdict is durable when it is given."""
        return False

    def commit(self) -> None:
        """Nothing is left to do."""

    def abandon(self, job: Job) -> None:
        """Lets go of a job that is not to land."""
        if job.descriptor >= 0:
            os.close(job.descriptor)
            self._staging.remove(job.staged)


def _make_root(root: str, mode: int) -> None:
    """Creates the destination and its parents, each durable in its parent. Raises OSError."""
    missing = []
    path = os.path.abspath(root)
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for path in reversed(missing):
        os.mkdir(path, mode)
        parent_fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent_fd)
        finally:
            os.close(parent_fd)
