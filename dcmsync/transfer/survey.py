"""Two whole places, compared study by study.

Owns the order of the questions, so that each side needs one session and no memory. Refuses to compare a study (the
comparison does).

Theory of operation. A session carries one operation at a time, and a node that is not read from gives up; so SOURCE
lists its studies into a queue, while DEST is asked about those that came: what is missing there altogether is told at
once. Studies that both have wait in a second queue until the list has ended; then both sides are asked what is below.
Where counts are trusted and DEST is far away, DEST lists its own studies meanwhile, and only what seems to be missing
or otherwise is asked for. The order of what is told never depends on who was faster.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, closing

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Struct

from dcmsync.contract import Attributes, Level
from dcmsync.errors import DcmsyncError, ExitStatus, PeerError, Rejected, Unreachable
from dcmsync.plan import levels
from dcmsync.plan.compare import COUNTS
from dcmsync.plan.levels import Query
from dcmsync.plan.window import Judge
from dcmsync.transfer.both import worst
from dcmsync.transfer.comparison import Comparison, uids_of
from dcmsync.transfer.side import Side
from dcmsync.transfer.spill import Index, Queue

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(dict[str, object]).decode
_IN_TURN = 32
_FAILURES_IN_A_ROW = 5  # then the place is taken for down


class Tolerance:
    """Lets single things fail, so that a night's work does not end with one of them. `say` hears why.

    `status` is the worst exit status so far. An error that will not pass by itself is raised.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.status = ExitStatus.DONE
        self.trouble = ""
        self._say = say
        self._in_a_row = 0

    async def of(self, work: Awaitable[None]) -> None:
        """Does the work. Raises PeerError when a place is down, LocalTrouble."""
        try:
            await work
            self._in_a_row = 0
        except PeerError as error:
            self._in_a_row += 1
            if isinstance(error, Unreachable | Rejected) or self._in_a_row == _FAILURES_IN_A_ROW:
                raise
            self._say(str(error))
            self.trouble = self.trouble or error.reason
            self.status = max(self.status, error.exit_status)


class Settings(Struct, frozen=True, kw_only=True):
    """What is compared. `is_far`: DEST is asked over a network, so that one list is cheaper than many questions."""

    query: Query
    is_inside: Judge
    is_far: bool = False


class Survey:
    """One comparison of `source` with the destination of `comparison`."""

    def __init__(self, settings: Settings, comparison: Comparison, source: Side, tolerance: Tolerance) -> None:
        self._comparison = comparison
        self._source = source
        self._tolerance = tolerance
        self._is_inside = settings.is_inside
        self._is_indexed = settings.is_far and comparison.settings.trust == "counts" and not comparison.shows_extra
        keys = {key: value for key, value in settings.query.keys.items() if levels.level_of(key) is Level.STUDY}
        self._studies = Query(level=Level.STUDY, keys=keys, wanted=settings.query.wanted)
        self._listed = Queue()
        self._deeper = Queue()
        self._come = anyio.Event()
        self._is_over = False
        self._failure: DcmsyncError | None = None

    async def run(self) -> None:
        """Tells everything. Raises PeerError, LocalTrouble; what was told before stands."""
        with closing(self._listed), closing(self._deeper):
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._list)
                    await self._look_at_all()
            except BaseExceptionGroup as group:
                raise worst(group) from None
            if self._failure is not None:
                raise self._failure
            for line in self._deeper.drain():
                study, theirs = _PAIR.decode(line)
                await self._tolerance.of(self._comparison.below_study(self._source, study, theirs))
            if self._comparison.shows_extra:
                await self._extras()

    async def _list(self) -> None:
        """Puts the studies of SOURCE into the queue."""
        listed = 0
        try:
            async with aclosing(self._source.listing(self._studies).run()) as found:
                async for study in found:
                    if self._is_inside(study):
                        self._listed.put(_ENCODE({"type": "study", "source": self._source.name, **study}))
                        self._come.set()
                    listed += 1
                    if listed % _IN_TURN == 0:  # a quick node never lets anybody else have a turn
                        await anyio.lowlevel.checkpoint()
            await self._source.session.rest()  # DEST may take its time now, and the node would hang up
        except PeerError as error:
            self._failure = error
        finally:
            self._is_over = True
            self._come.set()

    async def _next(self) -> bytes | None:
        """The study that was listed first; None after the last one."""
        await anyio.lowlevel.checkpoint()
        while (line := self._listed.take()) is None and not self._is_over:
            self._come = anyio.Event()
            await self._come.wait()
        return line

    async def _look_at_all(self) -> None:
        with closing(Index(len(COUNTS[Level.STUDY]))) as index:
            if self._is_indexed:
                await self._fill(index)
            while (line := await self._next()) is not None:
                await self._tolerance.of(self._look(line, index))

    async def _fill(self, index: Index) -> None:
        """Notes how many series and instances DEST says each of its studies has."""
        query = Query(level=Level.STUDY, keys=self._studies.keys)
        async with aclosing(self._comparison.dest.listing(query).run()) as found:
            async for study in found:
                numbers = (study.get(keyword) for keyword in COUNTS[Level.STUDY])
                index.add(str(study["StudyInstanceUID"]), *(n if isinstance(n, int) else None for n in numbers))

    async def _look(self, line: bytes, index: Index) -> None:
        """Tells of one study, unless it must be looked into."""
        study = _DECODE(line)
        uids = uids_of(study, Level.STUDY)
        theirs: Attributes | None = None
        numbers = index.find(uids["StudyInstanceUID"]) if self._is_indexed else None
        if numbers is not None:
            pairs = zip(COUNTS[Level.STUDY], numbers, strict=True)
            theirs = {**uids, **{keyword: number for keyword, number in pairs if number is not None}}
        else:
            theirs = await self._comparison.dest.ask(Level.STUDY, uids, usual=self._comparison.shows_extra)
        change = self._comparison.at_once(study, theirs)
        if change is not None:
            self._comparison.tell(study, change)
        else:
            self._deeper.put(_ENCODE([study, theirs]))

    async def _extras(self) -> None:
        """Tells of the studies that only DEST has: each is asked for at SOURCE by its UID."""
        dest = self._comparison.dest
        async with aclosing(dest.listing(self._studies).run()) as found:
            async for study in found:
                if self._is_inside(study):
                    self._listed.put(_ENCODE(study))
        for line in self._listed.drain():
            await self._tolerance.of(self._look_back(_DECODE(line)))

    async def _look_back(self, study: Attributes) -> None:
        level = self._comparison.settings.query.level
        dest = self._comparison.dest
        if await self._source.ask(Level.STUDY, uids_of(study, Level.STUDY)) is not None:
            return
        if level is Level.STUDY:
            self._comparison.tell({"type": level.word, "source": dest.name, **study}, "extra")
            return
        query = Query(level=level, keys=self._comparison.settings.query.keys)
        async with aclosing(dest.listing(query, study).run()) as found:
            async for thing in found:
                self._comparison.tell({"type": level.word, "source": dest.name, **thing}, "extra")


_PAIR: msgspec.json.Decoder[tuple[dict[str, object], dict[str, object] | None]] = msgspec.json.Decoder(
    tuple[dict[str, object], dict[str, object] | None]
)
