"""Same, missing, extra or otherwise: what is said of a thing that two places were asked about.

Owns the judgement: which counts prove that two things are the same, what two digests say, and what the things below a
study or series make of it. What is not known is never equal to anything. Refuses to ask; values in, changes out.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, Literal, TypeVar

from dcmsync.contract import Attributes, Level
from dcmsync.errors import UsageError
from dcmsync.records.model import Change

Trust = Literal["counts", "uids", "content"]
CHANGES: tuple[Change, ...] = ("missing", "differs", "extra", "same")

INSTANCES = {Level.STUDY: "NumberOfStudyRelatedInstances", Level.SERIES: "NumberOfSeriesRelatedInstances"}
"""The keyword that says how many instances a thing has."""
COUNTS = {
    Level.STUDY: ("NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries"),
    Level.SERIES: ("NumberOfSeriesRelatedInstances",),
}

Held = TypeVar("Held")


def shown(text: str) -> frozenset[Change]:
    """The changes of a list such as `missing,extra`. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    strange = next((word for word in words if word not in CHANGES), None)
    if strange is not None:
        raise UsageError(f"--show {text}: {strange!r} is no change", advice=f"Write some of {','.join(CHANGES)}")
    return frozenset(change for change in CHANGES if change in words)


def is_same_by_counts(level: Level, mine: Attributes, theirs: Attributes) -> bool:
    """Whether both say how many instances a study or series has, and nothing that they both say differs."""
    pairs = [(count(mine, keyword), count(theirs, keyword)) for keyword in COUNTS[level]]
    if None in pairs[0]:
        return False
    return all(one == other for one, other in pairs if one is not None and other is not None)


def count(attributes: Attributes, keyword: str) -> int | None:
    """A number that is known; a negative one is not."""
    value = attributes.get(keyword)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def by_content(mine: object, theirs: object) -> Change | None:
    """What two digests say; None while one of them is not known."""
    if not (isinstance(mine, str) and isinstance(theirs, str) and mine and theirs):
        return None
    return "same" if mine == theirs else "differs"


def is_all_the_same(changes: Iterable[Change | None]) -> bool:
    """Whether the things below a parent make it the same: there are some, and each is the same as a whole."""
    found = list(changes)
    return bool(found) and set(found) == {"same"}


class Match(Generic[Held]):
    """What one side lists below one parent, to be met by what the other side lists, one UID at a time.

    Each UID counts once. What was not met in the end is left over.
    """

    def __init__(self, theirs: Iterable[tuple[str, Held]]) -> None:
        self._theirs = dict(theirs)
        self._met: set[str] = set()

    def __len__(self) -> int:
        return len(self._theirs)

    def meet(self, uid: str) -> Held | None:
        """What they hold under this UID; None when they list none. Met before or not."""
        held = self._theirs.get(uid)
        if held is not None:
            self._met.add(uid)
        return held

    def left_over(self) -> Iterator[tuple[str, Held]]:
        """What nothing has met, in the order listed."""
        return ((uid, held) for uid, held in self._theirs.items() if uid not in self._met)
