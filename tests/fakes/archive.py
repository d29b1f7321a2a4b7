"""A place in memory that satisfies the contract of a source: it can be asked, and gives instances; and can be told how
to fall short. It holds every Ask to the hierarchy.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

from dcmsync.contract import Arrival, Ask, Attributes, Ending, Level, Origin, Receiver, Stamp, Want
from dcmsync.plan import levels
from dcmsync.plan.match import matches, vr_of
from dcmsync.quirks import Quirks

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
Row = dict[str, object]


def hierarchical(ask: Ask) -> None:
    """Asserts that an ask names one thing of each level above its own, and nothing else that is not of its level."""
    for depth in range(1, ask.level):
        uid = ask.keys.get(Level(depth).unique_key, "")
        assert uid and not set(uid) & set("*?\\,"), f"{ask.level.name} asked with {Level(depth).unique_key}={uid!r}"
    above = {Level(depth).unique_key for depth in range(1, ask.level)}
    for keyword in (*ask.keys, *ask.wanted):
        assert keyword in above or levels.level_of(keyword) == ask.level, f"{ask.level.name} asked for {keyword}"


def studies(count: int, **more: Callable[[int], object]) -> list[Row]:
    """Study rows, over three years, some on one day; `more` makes further attributes from the number."""
    return [
        {
            "StudyInstanceUID": f"1.{n}",
            "StudyDate": f"20{20 + n % 3}{1 + n % 12:02}{1 + n % 28:02}" if n % 5 else "20210101",
            "StudyTime": f"{n % 24:02}{n % 60:02}00",
            "PatientID": f"{'PQRS'[n % 4]}{n}",
            **{key: make(n) for key, make in more.items()},
        }
        for n in range(1, count + 1)
    ]


def series(study: int, count: int) -> list[Row]:
    """Series rows of one study."""
    return [
        {"StudyInstanceUID": f"1.{study}", "SeriesInstanceUID": f"1.{study}.{n}", "SeriesNumber": n, "Modality": "CT"}
        for n in range(1, count + 1)
    ]


def instances(study: int, series: int, count: int, kind: str = CT) -> list[Row]:
    """Instance rows of one series."""
    above = {"StudyInstanceUID": f"1.{study}", "SeriesInstanceUID": f"1.{study}.{series}"}
    return [
        {**above, "SOPInstanceUID": f"1.{study}.{series}.{n}", "SOPClassUID": kind, "InstanceNumber": n}
        for n in range(1, count + 1)
    ]


class Archive:
    """What is there, and how it is told.

    `limit` cuts every list, ending with `cut_status` (0: silently). `alter` changes the answers to an ask.
    `cannot_match` are keywords whose patterns find nothing. `fetcher` replaces how instances are given. `quirks` are
    what is known of it: it does not behave by them.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        name: str = "ARCHIVE@here:104",
        limit: int | None = None,
        cut_status: int = 0,
        alter: Callable[[Ask, list[Row]], Sequence[Row]] | None = None,
        cannot_match: Sequence[str] = (),
        fetcher: "Callable[[Archive, Want], Iterator[Row | Ending | Exception]] | None" = None,
        quirks: Quirks = Quirks(),  # noqa: B008  # a frozen value
    ) -> None:
        self.quirks = quirks
        self.name = name
        self.rows = {level: [row for row in rows if depth_of(row) is level] for level in Level}
        self.asks: list[Ask] = []
        self.wants: list[Want] = []
        self.refusals: list[int] = []
        self._limit = limit
        self._cut_status = cut_status
        self._alter = alter
        self._cannot_match = cannot_match
        self._fetcher = fetcher or everything

    @asynccontextmanager
    async def session(self) -> "AsyncIterator[Archive]":
        """Itself: it keeps no state between calls."""
        yield self

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """Answers, then the ending (contract.Finds)."""
        hierarchical(ask)
        self.asks.append(ask)
        found = [
            row
            for row in self.rows[ask.level]
            if all(
                matches(row.get(key), value, vr_of(key)) and not (value and key in self._cannot_match)
                for key, value in ask.keys.items()
            )
        ]
        is_cut = self._limit is not None and len(found) > self._limit
        for row in (self._alter or same)(ask, found[: self._limit]):
            yield {key: row[key] for key in row if key in ask.keys or key in ask.wanted or key[0].islower()}
        if is_cut and self._cut_status:
            yield Ending(status=self._cut_status, truncated=True, why=f"the peer ended with 0x{self._cut_status:04X}")
        else:
            yield Ending()

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Gives instances (contract.Fetches), as the fetcher says."""
        self.wants.append(want)
        for given in self._fetcher(self, want):
            if isinstance(given, Ending):
                return given
            if isinstance(given, Exception):
                raise given
            arrival = Arrival(
                sop_class_uid=str(given["SOPClassUID"]),
                sop_instance_uid=str(given["SOPInstanceUID"]),
                transfer_syntax_uid=EXPLICIT,
                origin=origin_of(given),
            )
            sink = receiver.receive(arrival)
            if isinstance(sink, int):
                self.refusals.append(sink)
            else:
                content = str(given.get("content", "data set of "))
                sink.write([memoryview(content.encode()), memoryview(arrival.sop_instance_uid.encode())])
                sink.finish()
            await receiver.room()
        return Ending()

    async def rest(self) -> None:
        """Holds nothing to let go of."""

    def wanted(self, want: Want) -> list[Row]:
        """The rows that a want names."""
        return [
            row
            for row in self.rows[Level.INSTANCE]
            if row["SeriesInstanceUID"] == want.series_uid and (want.whole or row["SOPInstanceUID"] in want.instances)
        ]


def origin_of(row: Row) -> Origin | None:
    """The file that an instance comes from, where its row has a path."""
    if "path" not in row:
        return None
    stamp = Stamp(size=1, mtime_ns=1, device=1, inode=1)
    return Origin(path=str(row["path"]), descriptor=-1, stamp=stamp, head=b"")


def everything(archive: Archive, want: Want) -> "Iterator[Row | Ending | Exception]":
    """Gives all that is wanted."""
    yield from archive.wanted(want)


def same(ask: Ask, found: list[Row]) -> list[Row]:
    """Alters nothing."""
    return found


def depth_of(row: Row) -> Level:
    """The level of a row: the deepest unique key that it has."""
    return max(level for level in Level if level.unique_key in row)
