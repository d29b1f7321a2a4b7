"""`sync --route`: what was listed goes where the rules of a route say, each study, series or instance for itself.

Owns asking an example instance where a query does not tell what the rules need, and the order of things: all decisions
first, then one run of the engine for each set of destinations, so that what goes to several is fetched once.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import msgspec
from msgspec import UNSET

from dcmsync.commands.bringing import Bringing
from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.commands.printer import Printer
from dcmsync.commands.routing import Routing
from dcmsync.contract import Attributes, Session, Source
from dcmsync.errors import ExitStatus, PeerError
from dcmsync.plan.route import Decisions, Delivery
from dcmsync.records.model import Outcome
from dcmsync.transfer.example import example
from dcmsync.transfer.spool import Spool
from dcmsync.transfer.works import Work
from dcmsync.wire.dataset import SPECIFIC_CHARACTER_SET, decode_values, tag_of
from dcmsync.wire.elements import walk


class Routed:
    """One run over `sources`, which are open already, by their words. `printer` takes every record of it."""

    def __init__(
        self, arguments: Namespace, streams: Streams, places: Places, routing: Routing, sources: Mapping[str, Source]
    ) -> None:
        self.printer = Printer(streams, arguments.format, shown="table")
        self._routing = routing
        self._sources = sources
        self._warn = streams.warn
        self._decisions = Decisions(routing.route)
        self._groups: dict[tuple[Delivery, ...], Spool] = {}
        self._trouble = ""
        self._status = ExitStatus.DONE
        self._tags = frozenset(map(tag_of, routing.route.keys)) | {SPECIFIC_CHARACTER_SET}

        def bring(deliveries: Sequence[Delivery]) -> Bringing:
            return Bringing(
                arguments, streams, places, [each.to for each in deliveries], trust=arguments.trust, sources=sources,
                editing=routing.editing(deliveries[0]), printer=self.printer,
            )  # fmt: skip

        self._bring: Callable[[Sequence[Delivery]], Bringing] = bring
        self._runs: list[Bringing] = []
        bring(routing.route.deliveries[:1])  # what it refuses is refused before anything is asked

    async def run(self, works: AsyncIterator[Sequence[Work]]) -> ExitStatus:
        """Decides on all of it, and brings it. The end is not yet."""
        await self._decide_all(works)
        for deliveries, spool in self._groups.items():
            bringing = self._bring(deliveries)
            self._runs.append(bringing)
            self._status = max(self._status, await bringing.run(partial(_works, spool)))
            if bringing.is_interrupted:
                break
        return self._status

    def end(self, status: ExitStatus, *, truncated: str) -> ExitStatus:
        """Writes the end record."""
        truncated = truncated or self._trouble
        for bringing in self._runs:
            if bringing.is_interrupted or (bringing.pull is not None and bringing.pull.troubles):
                return bringing.end(status, truncated=truncated)
        if self._runs:
            return self._runs[-1].end(status, truncated=truncated)
        self.printer.end(complete=not truncated, reason=truncated)
        return max(status, ExitStatus.INCOMPLETE) if truncated else status

    async def _decide_all(self, works: AsyncIterator[Sequence[Work]]) -> None:
        async with AsyncExitStack() as stack:
            sessions: dict[str, Session] = {}
            async for group in works:
                for work in group:
                    if work.source not in sessions:
                        source = self._sources[work.source]
                        sessions[work.source] = await stack.enter_async_context(source.session())
                    try:
                        thing = await self._known(work, sessions[work.source])
                    except PeerError as error:
                        self._warn(f"{work.source}: not routed: {error}")
                        self._trouble = self._trouble or error.reason
                        self._status = max(self._status, error.exit_status)
                        continue
                    self._sort(work, self._decisions.decide(thing))

    async def _known(self, work: Work, session: Session) -> Attributes:
        """What is known of a thing, with what an example tells where the rules need more."""
        lacking = [key for key in self._routing.route.keys if work.attributes.get(key) in (None, "")]
        if not lacking or self._decisions.is_made(work.attributes):
            return work.attributes
        return {**await example(session, work.attributes, self._read), **work.attributes}

    def _read(self, octets: bytes, transfer_syntax_uid: str) -> Attributes:
        found = walk(octets, transfer_syntax_uid, wanted=self._tags)
        return decode_values(found.values, found.encoding or transfer_syntax_uid)

    def _sort(self, work: Work, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            self.printer.write(_skipped(work))
        by_edits: dict[tuple[str, ...], list[Delivery]] = {}
        for delivery in deliveries:
            by_edits.setdefault(delivery.edits, []).append(delivery)
        for some in by_edits.values():
            self._groups.setdefault(tuple(sorted(some)), Spool()).add(msgspec.json.encode(work))


async def _works(spool: Spool) -> AsyncIterator[list[Work]]:
    """What was put aside, as work for the engine; instances of one series that follow each other together."""
    waiting: list[Work] = []
    for line in spool.take():
        work = msgspec.json.decode(line, type=Work)
        if waiting and (work.level, *_home(work)) != (waiting[0].level, *_home(waiting[0])):
            yield waiting
            waiting = []
        waiting.append(work)
    if waiting:
        yield waiting


def _home(work: Work) -> tuple[object, ...]:
    return work.source, work.attributes.get("StudyInstanceUID"), work.attributes.get("SeriesInstanceUID")


def _skipped(work: Work) -> Outcome:
    uids = {key: work.attributes.get(key, UNSET) for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    return Outcome(level=work.level.word, outcome="skipped", source=work.source, reason="route", **uids)  # type: ignore[arg-type]  # keys are fields, and words are levels
