"""Records -> work: which of them `pull` acts on, and what they name.

Study and series records, and instance records of one series that follow each other, become one piece of work each.
Records with a `change` other than `missing` or `differs`, outcomes that did not fail, and unknown types are none.
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import UNSET, Struct

from dcmsync.contract import Attributes, Level
from dcmsync.errors import InputError
from dcmsync.records.model import Instance, Outcome, Patient, Series, Study
from dcmsync.records.stream import Line, Thing, Unknown

EXPAND_PATIENTS = "List their studies first: dcmsync query - --level study"
_TOGETHER = 10_000  # instance records gathered at most, so that memory stays bounded
_LEVELS = {"study": Level.STUDY, "series": Level.SERIES, "instance": Level.INSTANCE}


class Work(Struct, frozen=True, kw_only=True):
    """One thing to pull: its level, its source and what its record said of it, on line `line` of the input.

    `differs`: what the destination holds of it is known to have other content, and does not count. `content`: the
    digest of an instance's data set, as records write it, "" where unknown.
    """

    level: Level
    source: str
    attributes: Attributes
    line: int = 0
    differs: bool = False
    content: str = ""


def work_of(record: Thing | Unknown, number: int) -> Work | None:
    """The work that one record is; None for none.

    Raises InputError when it lacks its source or a UID, or is of a patient.
    """
    match record:
        case Study():
            level = Level.STUDY
        case Series():
            level = Level.SERIES
        case Instance():
            level = Level.INSTANCE
        case Patient():
            raise InputError("a patient record names no studies", line=number, advice=EXPAND_PATIENTS)
        case Outcome() if record.outcome in ("failed", "conflict"):
            level = _LEVELS[record.level]
        case _:
            return None
    if not isinstance(record, Outcome) and record.change not in (UNSET, "missing", "differs"):
        return None
    if not record.source:
        raise InputError("the record has no `source`, so there is nowhere to fetch it from", line=number,
                         advice="Records of `dcmsync query` have one")
    values = msgspec.structs.asdict(record)
    attributes = {key: value for key, value in values.items() if key[0].isupper() and value is not UNSET}
    for depth in range(1, level + 1):
        if not attributes.get(Level(depth).unique_key):
            if isinstance(record, Outcome) and record.path:
                return None  # a file that does not say which instance it is, as `query` names them: nobody can fetch it
            raise InputError(f"the {level.word} record has no {Level(depth).unique_key}", line=number)
    differs = not isinstance(record, Outcome) and record.change == "differs"
    content = "" if isinstance(record, Study | Series) or record.content is UNSET else str(record.content)
    return Work(
        level=level, source=str(record.source), attributes=attributes, line=number, differs=differs, content=content
    )


def works(lines: Iterable[Line]) -> Iterator[list[Work]]:
    """Pieces of work, each a list: one record, or the instances of one series."""
    waiting: list[Work] = []
    failed: InputError | None = None
    iterator = iter(lines)
    while True:
        try:
            line = next(iterator)
            work = work_of(line.record, line.number)
        except StopIteration:
            break
        except InputError as error:
            failed = error
            break
        if work is None:
            continue
        if waiting and (work.level is not Level.INSTANCE or _home(work) != _home(waiting[0]) or _is_full(waiting)):
            yield waiting
            waiting = []
        if work.level is Level.INSTANCE:
            waiting.append(work)
        else:
            yield [work]
    if waiting:
        yield waiting
    if failed is not None:
        raise failed


def _is_full(waiting: list[Work]) -> bool:
    return len(waiting) >= _TOGETHER


def _home(work: Work) -> tuple[str, object]:
    return work.source, work.attributes["SeriesInstanceUID"]
