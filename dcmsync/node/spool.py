"""A folder where instances wait to be forwarded: SPOOL/waiting, one file each, and SPOOL/failed for what was refused.

Owns its layout, that one process at a time uses it, and what is known of what is in it. Refuses to forward, and to
delete anything but what it is told to.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Self

from msgspec import Struct

from dcmsync.cache.digest import hasher
from dcmsync.contract import Arrival, Catalogue, Landed
from dcmsync.endpoints.folder.arrivals import Job, Settings
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.endpoints.folder.scan import scan
from dcmsync.errors import LocalTrouble, local_trouble
from dcmsync.plan import layout
from dcmsync.wire import dataset
from dcmsync.wire.source import Values

JOURNAL = "decisions.ndjson"


class Spooled(Struct, frozen=True, kw_only=True):
    """One instance that waits, by the name of its file; `thing` has what was asked to be known of it, and its UIDs."""

    name: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    thing: dict[str, object]


class Spool:
    """The spool at `root`, locked. A context manager. `keys`: what is to be known of each instance."""

    def __init__(self, root: str, keys: tuple[str, ...]) -> None:
        """Makes it if need be. Raises LocalTrouble, also when another process uses it."""
        self.waiting = os.path.join(root, "waiting")
        self.failed = os.path.join(root, "failed")
        self.journal = os.path.join(root, JOURNAL)
        self._layout = layout.compile("{SOPInstanceUID}.dcm")
        self._wanted = frozenset(map(dataset.tag_of, keys)) | {dataset.SPECIFIC_CHARACTER_SET}
        try:
            for folder in (self.waiting, self.failed):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            self._lock = os.open(os.path.join(root, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise LocalTrouble(f"{root} is in use by another process", advice="Give each its own --spool") from None
        except OSError as trouble:
            os.close(self._lock)
            raise local_trouble(trouble) from trouble

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def landing(self, completed: Callable[[Job], None], catalogue: Catalogue) -> Landing:
        """The way in. Raises LocalTrouble."""
        return Landing(self.waiting, Settings(
            place=self._place, wanted=self._wanted, hasher=hasher, completed=completed, remember=catalogue.remember,
        ))  # fmt: skip

    def landed(self, landed: Landed) -> Spooled | None:
        """What has come in; None when it has left already."""
        if landed.outcome == "present" and not os.path.exists(os.path.join(self.waiting, landed.path)):
            return None
        arrival = landed.arrival
        return self._spooled(
            landed.path, arrival.transfer_syntax_uid, dict(landed.values),
            (landed.study_uid, landed.series_uid, arrival.sop_instance_uid, arrival.sop_class_uid),
        )  # fmt: skip

    def left(self) -> list[Spooled]:
        """What an earlier run left, in the order it came. Raises LocalTrouble."""
        try:
            found = sorted(scan(self.waiting, wanted=self._wanted), key=lambda each: each.mtime_ns)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble
        return [
            self._spooled(
                each.path, each.encoding or each.transfer_syntax_uid, each.values,
                (each.study_uid, each.series_uid, each.sop_instance_uid, each.sop_class_uid),
            )
            for each in found
            if each.is_instance
        ]  # fmt: skip

    def release(self, name: str) -> None:
        """An instance goes. Raises LocalTrouble."""
        try:
            os.unlink(os.path.join(self.waiting, name))
        except FileNotFoundError:
            pass
        except OSError as trouble:
            raise local_trouble(trouble) from trouble

    def retain(self, name: str) -> None:
        """An instance goes to those that failed, in place of an earlier one of that name. Raises LocalTrouble."""
        try:
            os.replace(os.path.join(self.waiting, name), os.path.join(self.failed, name))
        except FileNotFoundError:
            pass
        except OSError as trouble:
            raise local_trouble(trouble) from trouble

    def _place(self, values: Values, arrival: Arrival) -> str:
        return self._layout.path({"SOPInstanceUID": arrival.sop_instance_uid})

    def _spooled(
        self, name: str, transfer_syntax_uid: str, values: Values, uids: tuple[str, str, str, str]
    ) -> Spooled:
        study_uid, series_uid, sop_instance_uid, sop_class_uid = uids
        thing = dataset.decode_values(values, transfer_syntax_uid)
        thing |= {
            "StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": sop_instance_uid,
            "SOPClassUID": sop_class_uid, "TransferSyntaxUID": transfer_syntax_uid,
        }  # fmt: skip
        return Spooled(
            name=name, study_uid=study_uid, series_uid=series_uid, sop_instance_uid=sop_instance_uid,
            sop_class_uid=sop_class_uid, thing=thing,
        )  # fmt: skip
