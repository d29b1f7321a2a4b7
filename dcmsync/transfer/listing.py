"""What several sources have that matches: listed to the end, put aside, and given out as work.

Owns that each source is asked once, by one session that is then over, and that what came is remembered until it is
wanted. Refuses to fetch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing

import msgspec

from dcmsync.contract import Level, Source
from dcmsync.errors import ExitStatus, PeerError, Unasked
from dcmsync.plan.levels import Query
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.spool import Spool
from dcmsync.transfer.works import Work

Judge = Callable[[Mapping[str, object]], bool]


class Listing:
    """The things of `query.level` that `keep` is true of. `sources` are places and the names they go by.

    Afterwards `trouble` says why the list may not be complete, and `status` what that means.
    """

    def __init__(
        self, sources: Sequence[tuple[str, Source]], query: Query, keep: Judge, *, warn: Callable[[str], None]
    ) -> None:
        self.things = 0
        self.trouble = ""
        self.status = ExitStatus.DONE
        self._sources = sources
        self._query = query
        self._keep = keep
        self._warn = warn
        self._spool = Spool()

    async def run(self) -> None:
        """Asks every source. One in trouble is told, and the next goes on.

        Raises LocalTrouble, Unasked for one that never can be asked.
        """
        for name, source in self._sources:
            inventory: Inventory | None = None
            try:
                async with source.session() as session:
                    inventory = Inventory(session, name=name, warn=self._warn)
                    async with aclosing(inventory.walk(self._query)) as found:
                        async for thing in found:
                            if self._keep(thing):
                                self.things += 1
                                self._spool.add(msgspec.json.encode((name, thing)))
            except Unasked:  # which is so of its kind, and no trouble of today
                raise
            except PeerError as error:
                self._warn(str(error))
                self.trouble = self.trouble or error.reason
                self.status = max(self.status, error.exit_status)
            if inventory is not None and not inventory.is_complete:
                self.trouble = self.trouble or "truncated"
                self.status = max(self.status, ExitStatus.INCOMPLETE)

    async def works(self) -> AsyncIterator[list[Work]]:
        """All of it, once, as work for the engine; instances of one series that follow each other together."""
        waiting: list[Work] = []
        for line in self._spool.take():
            name, thing = msgspec.json.decode(line, type=tuple[str, dict[str, object]])
            work = Work(level=self._query.level, source=name, attributes=thing, content=str(thing.get("content", "")))
            if waiting and not (self._query.level is Level.INSTANCE and _home(work) == _home(waiting[0])):
                yield waiting
                waiting = []
            waiting.append(work)
        if waiting:
            yield waiting


def _home(work: Work) -> tuple[str, object]:
    return work.source, work.attributes.get("SeriesInstanceUID")
