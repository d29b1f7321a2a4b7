"""What an archive holds while it is written: the members that were there, and those that came since.

Owns finding a member by its name or its instance, and comparing one with what arrived. Refuses to write.
"""

from typing import Literal

from msgspec import Struct

from dcmsync.contract import Catalogue
from dcmsync.endpoints.zip.arrivals import Job
from dcmsync.endpoints.zip.draft import Draft, part
from dcmsync.endpoints.zip.reader import Reader
from dcmsync.wire.archive import Damaged, Entry
from dcmsync.wire.arrived import SOP_INSTANCE_UID
from dcmsync.wire.part10 import text, walk_file
from dcmsync.wire.source import Distant
from dcmsync.wire.unpacking import Unpacked

COMPARE_OCTETS = 1 << 20

Verdict = Literal["same", "content", "syntax", "taken", "truncated", "rotten", "broken", "blocked"]
"""What stands there: the very instance; with other content; in another transfer syntax; another instance; less of this
one; what this one was before it was damaged; something else; or what cannot be taken out without harm to others."""


class Place(Struct, frozen=True):
    """A member, and where its data begins in `source`."""

    entry: Entry
    source: Distant
    begin: int


class Held:
    """The members of one archive. `catalogue` is up to date with `old`."""

    def __init__(self, old: Reader | None, catalogue: Catalogue) -> None:
        self._old = old
        self._catalogue = catalogue
        self._new: dict[str, Place] = {}  # by path
        self._new_by_uid: dict[str, str] = {}
        self._overlapping: set[str] | None = None

    def add(self, sop_instance_uid: str, entry: Entry, draft: Draft) -> None:
        """A member came, in place of what had its name."""
        begin = draft.source.size - entry.packed
        self._new[entry.path] = Place(entry, Distant(draft.source.read_at, begin + entry.packed), begin)
        self._new_by_uid[sop_instance_uid] = entry.path

    def path_of(self, sop_instance_uid: str) -> str | None:
        """Where a whole instance stands, the first of them by path."""
        found = self._new_by_uid.get(sop_instance_uid)
        if found is not None or self._old is None:
            return found
        for holding in self._catalogue.holdings(sop_instance_uid=sop_instance_uid):
            if self.is_old(holding.path):
                return holding.path
        return None

    def __contains__(self, path: str) -> bool:
        return path in self._new or self.is_old(path)

    def is_old(self, path: str) -> bool:
        """Whether it was there before, and still is."""
        return self._old is not None and path in self._old.members and path not in self._new

    def place(self, path: str) -> Place:
        """A member that is there. Raises Damaged, OSError."""
        if path in self._new:
            return self._new[path]
        assert self._old is not None
        entry = self._old.members[path].entry
        return Place(entry, self._old.source, self._old.data_offset(entry))

    def judge(self, path: str, job: Job) -> Verdict:
        """What a member is to the instance that arrived. Raises OSError."""
        uid = job.arrival.sop_instance_uid
        try:
            if path not in self._new and self._is_tangled(path):
                return "blocked"
            place = self.place(path)
            member = Unpacked(place.source, place.entry, place.begin).distant()
            head, found = walk_file(member, wanted=frozenset({SOP_INSTANCE_UID}))
            holder = text(found.values.get(SOP_INSTANCE_UID, ("", b""))[1])
            if holder and holder != uid:
                return "taken"
            if found.is_cut and uid in (holder, head.sop_instance_uid):
                return "truncated"
            if not found.is_whole or not holder:
                return "broken"
            if head.transfer_syntax_uid != job.arrival.transfer_syntax_uid:
                return "syntax"
            return "same" if _is_same(member, head.data_set_offset, job) else "content"
        except Damaged:
            known = self._catalogue.at(path)
            return "rotten" if known and known.state == "rotten" and known.sop_instance_uid == uid else "broken"

    def _is_tangled(self, path: str) -> bool:
        """Whether an old member shares its name or octets with another, or is of a kind that is never read."""
        assert self._old is not None
        if self._overlapping is None:
            self._overlapping = self._old.overlaps()
        try:
            self.place(path)
        except Damaged:
            return True
        return bool(self._old.members[path].fault) or path in self._overlapping


def _is_same(member: Distant, offset: int, job: Job) -> bool:
    """Whether the data set of a member is, octet by octet, the one that arrived. Raises Damaged at its last octet."""
    if member.size - offset != job.size:
        return False
    ours = job.source
    return all(
        member.read_at(offset + at, COMPARE_OCTETS) == part(ours, job.offset + at, COMPARE_OCTETS)
        for at in range(0, job.size, COMPARE_OCTETS)
    )
