"""Records from a stream -> what is compared in one go: one study, one series, or instances of one series.

Owns the grouping. Instances of one series that follow each other make a group. When a series comes back that had
ended, the records are in no order: from there on all instances wait, sorted on disk, until the input ends, so that each
series is asked about once. Studies and series never wait. Refuses to ask anybody.

Memory: at most TOGETHER lines of a group, and eight octets each of SEEN series.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby

import msgspec
from msgspec import UNSET, Struct

from dcmsync.contract import Level
from dcmsync.errors import InputError
from dcmsync.records.model import Instance, Patient, Series, Study
from dcmsync.records.stream import Line
from dcmsync.transfer.spill import Sorter
from dcmsync.transfer.works import EXPAND_PATIENTS

TOGETHER = 500
SEEN = 100_000

_ENCODE = msgspec.json.Encoder().encode
_KEY: msgspec.json.Decoder[tuple[str, str, str, int]] = msgspec.json.Decoder(tuple[str, str, str, int])


class Group(Struct, frozen=True, kw_only=True, gc=False):
    """One study or series, or some instances of one series; `lines` are their records as read.

    `number` is that of the first line. `source` is "" where the records name none.
    """

    level: Level
    source: str
    number: int
    lines: tuple[bytes, ...]

    @property
    def is_of_instances(self) -> bool:
        """Whether these are instances, which can be compared without asking their source."""
        return self.level is Level.INSTANCE


class Gathering:
    """Iterates over the groups of `lines`. Afterwards `passed_by` is how many lines were none of these."""

    def __init__(self, lines: Iterable[Line], *, sorter: Sorter | None = None) -> None:
        self.passed_by = 0
        self._lines = lines
        self._sorter = sorter or Sorter()
        self._is_sorting = False
        self._seen: set[int] = set()
        self._home = ("", "", "")
        self._waiting: list[bytes] = []
        self._first = 0

    def __iter__(self) -> Iterator[Group]:
        failed: InputError | None = None
        with closing(self._sorter):
            try:
                for line in self._lines:
                    yield from self._take(line)
            except InputError as error:  # what came before it is compared first
                failed = error
            yield from self._ended()
            for key, lines in groupby(self._sorter, _key_of):
                source, _, _, number = _KEY.decode(key + b",0]")
                yield from _cut(source, number, lines)
        if failed is not None:
            raise failed

    def _take(self, line: Line) -> Iterator[Group]:
        match line.record:
            case Instance():
                yield from self._take_instance(line, line.record)
            case Study() | Series():
                yield from self._ended()
                level = Level.STUDY if isinstance(line.record, Study) else Level.SERIES
                source = line.record.source
                named = "" if source is UNSET else source
                yield Group(level=level, source=named, number=line.number, lines=(line.raw,))
            case Patient():
                raise InputError("a patient record names no studies", line=line.number, advice=EXPAND_PATIENTS)
            case _:
                self.passed_by += 1

    def _take_instance(self, line: Line, record: Instance) -> Iterator[Group]:
        source = "" if record.source is UNSET else record.source
        home = source, record.StudyInstanceUID, record.SeriesInstanceUID
        if self._is_sorting:
            self._sort(home, line)
            return
        if home != self._home or not self._waiting:
            yield from self._ended()
            if home != self._home and self._has_been(home):
                self._is_sorting = True
                self._sort(home, line)
                return
            self._home = home
        self._first = self._first if self._waiting else line.number
        self._waiting.append(line.raw)
        if len(self._waiting) == TOGETHER:
            yield from self._ended()

    def _ended(self) -> Iterator[Group]:
        """The group that is together, if there is one."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            yield Group(level=Level.INSTANCE, source=self._home[0], number=self._first, lines=tuple(waiting))

    def _has_been(self, home: tuple[str, str, str]) -> bool:
        mark = hash(home)
        if mark in self._seen:
            return True
        if len(self._seen) >= SEEN:
            self._seen.clear()
        self._seen.add(mark)
        return False

    def _sort(self, home: tuple[str, str, str], line: Line) -> None:
        self._sorter.add(_ENCODE(home)[:-1] + b"\t%012d\t" % line.number + line.raw.rstrip(b"\r\n"))


def _key_of(line: bytes) -> bytes:
    return line.partition(b"\t")[0]


def _cut(source: str, number: int, lines: Iterable[bytes]) -> Iterator[Group]:
    """The sorted lines of one series, as groups."""
    held: list[bytes] = []
    for line in lines:
        _, digits, raw = line.split(b"\t", 2)
        number = number if held else int(digits)
        held.append(raw)
        if len(held) == TOGETHER:
            yield Group(level=Level.INSTANCE, source=source, number=number, lines=tuple(held))
            held = []
    if held:
        yield Group(level=Level.INSTANCE, source=source, number=number, lines=tuple(held))
