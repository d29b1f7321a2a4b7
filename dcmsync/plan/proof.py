"""What a record or an outcome claims of a thing, and whether what was found bears it out.

Owns the judgement of `verify`, and which instances a sample holds. What nothing can be compared with is no failure, but
is never called proven either: the words say how far the proof goes. Refuses to look for anything.
"""

import re
from collections.abc import Callable, Mapping
from heapq import nsmallest
from typing import Literal

from msgspec import Struct

from dcmsync.contract import WITH_UID, Attributes, Level
from dcmsync.errors import InputError, UsageError
from dcmsync.plan.compare import INSTANCES, by_content, count
from dcmsync.plan.select import Condition, sample, uid_hash

Holds = Callable[[str], bool]
Reason = Literal["missing", "truncated", "rotten", "differs", "unknown"]

_IDLE = ("skipped", "deleted")  # outcomes that claim of nothing that it is there
_LEVELS = {level.word: level for level in WITH_UID}


class Claim(Struct, frozen=True, kw_only=True):
    """That `place` holds a thing. `count`: of how many instances; digests and `size` are of a file at `path`.

    `source` is where the thing came from, "" where unknown. `is_own`: its file is claimed of this very place.
    """

    level: Level
    uids: Mapping[str, str]
    place: str
    source: str
    number: int
    is_outcome: bool = False
    is_own: bool = True
    count: int | None = None
    digest: str = ""
    content: str = ""
    path: str = ""
    size: int | None = None
    patient_id: object = None


class Verdict(Struct, frozen=True):
    """What was found out of one instance: no reason means that it is there. `words` say what was proven, or why not."""

    reason: Reason | None
    words: str


def claim_of(values: Mapping[str, object], number: int, at: str | None) -> Claim | None:
    """The claim that a record makes, of the place `at` where that is given; None where it makes none.

    Raises InputError for one without a place or a UID.
    """
    kind = values.get("type")
    is_outcome = kind == "outcome"
    level = _LEVELS.get(str(values.get("level") if is_outcome else kind))
    if kind == "patient":
        raise InputError("a patient record names no studies", line=number,
                         advice="List their studies first: dcmsync query - --level study")
    if level is None or (is_outcome and values.get("outcome") in _IDLE):
        return None
    home_key = "destination" if is_outcome else "source"
    home = _text(values, home_key)
    place = at or home
    if not place:
        raise InputError(f"the record has no `{home_key}`, so there is nowhere to look", line=number,
                         advice="Name the place: --at ENDPOINT")
    keys = [Level(depth).unique_key for depth in range(1, level + 1)]
    uids = {key: uid for key in keys if isinstance(uid := values.get(key), str) and uid}
    lacking = next((key for key in keys if key not in uids), "")
    if lacking:
        raise InputError(f"the {level.word} record has no {lacking}", line=number)
    return Claim(
        level=level,
        uids=uids,
        place=place,
        source=_text(values, "source"),
        number=number,
        is_outcome=is_outcome,
        is_own=place == home,
        count=count(values, "instances" if is_outcome else INSTANCES.get(level, "")),
        digest=_text(values, "digest"),
        content=_text(values, "content"),
        path=_text(values, "path"),
        size=count(values, "size"),
        patient_id=values.get("PatientID"),
    )


def judge(claim: Claim, found: Attributes, *, was_read: bool) -> Verdict:
    """Whether an instance that was found is the one that is claimed. `recorded`: as when it was recorded."""
    how = "read whole" if was_read else "there"
    change = by_content(claim.content, found.get("content"))
    if change is not None:
        return Verdict(None, f"{how}; the same content") if change == "same" else _differs("content")
    change = by_content(claim.digest, found.get("digest"))
    if change == "same":
        return Verdict(None, f"{how}; the same digest")
    if change == "differs" and claim.is_own:
        return _differs("digest")
    size = count(found, "size")
    if claim.is_own and change is None and claim.size is not None and size is not None and claim.size != size:
        return _differs("size")
    if found.get("recorded"):
        return Verdict(None, f"{how}; the digest that was recorded of it")
    return Verdict(None, f"{how}; by its UID, there is no digest to compare")


def judge_count(claim: Claim, found: int, *, is_complete: bool) -> Verdict:
    """Whether as many instances were found below a study or series as are claimed."""
    if not found:
        return Verdict("missing" if is_complete else "unknown", "none of its instances is there")
    if claim.count is None:
        return Verdict(None, f"{found} instances; nothing says how many there should be")
    if claim.count == found:
        return Verdict(None, f"{found} instances, as claimed")
    if not is_complete:
        return Verdict("unknown", f"{claim.count} instances are claimed, {found} were listed, and the list was cut")
    reason: Reason = "missing" if found < claim.count else "differs"
    return Verdict(reason, f"{claim.count} instances are claimed, {found} are there")


class Lowest:
    """The instances with the `number` lowest hashes: all are offered first, and asked about afterwards."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._hashes: list[int] = []
        self._chosen: frozenset[int] | None = None

    def afresh(self) -> "Lowest":
        """The same number of instances, to be chosen among others."""
        return Lowest(self._number)

    def offer(self, uid: str) -> None:
        """Takes one UID into account."""
        self._hashes.append(uid_hash(uid) or 0)
        if len(self._hashes) >= 4096 + 2 * self._number:
            self._hashes = nsmallest(self._number, set(self._hashes))

    def is_chosen(self, uid: str) -> bool:
        """Whether an instance is one of them."""
        if self._chosen is None:
            self._chosen = frozenset(nsmallest(self._number, set(self._hashes)))
        return uid_hash(uid) in self._chosen


def portion(text: str | None) -> Holds | Lowest:
    """Which instances a sample holds: `1%`, `500` (which must see all first), or `n/t`, the n-th of t slices.

    Raises UsageError.
    """
    if text is None:
        return lambda uid: True
    slices = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if slices:
        nth, all_of_them = int(slices[1]), int(slices[2])
        if not 0 < nth <= all_of_them:
            raise UsageError(f"--sample {text}: no slice of a whole", advice="Write n/t, with n from 1 to t: 2/7")
        return lambda uid: (uid_hash(uid) or 0) % all_of_them == nth - 1
    if re.fullmatch(r"0*[1-9]\d{0,8}", text):
        return Lowest(int(text))
    if not text.endswith("%"):
        raise UsageError(f"--sample {text}: no sample", advice="Write 1%, 500 or 2/7")
    chosen = sample(text)
    assert isinstance(chosen, Condition)
    verdict: Callable[[str], bool | None] = chosen.verdict(_uid_alone)
    return lambda uid: verdict(uid) is True


def _uid_alone(key: str) -> Callable[[str], object]:
    return lambda uid: uid if key == "SOPInstanceUID" else None


def _differs(what: str) -> Verdict:
    return Verdict("differs", f"there, with another {what}")


def _text(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""
