"""What `diff` does: the wiring of two places, or of records and a place, with their comparison.

Owns the order of things, and what makes the answer incomplete. Refuses to compare.
"""

from __future__ import annotations

from argparse import Namespace
from contextlib import AsyncExitStack

from dcmsync.commands.options import Streams
from dcmsync.commands.printer import Printer
from dcmsync.commands.question import question
from dcmsync.commands.sides import Sides
from dcmsync.commands.unsound import tell_unsound
from dcmsync.contract import Level
from dcmsync.errors import DcmsyncError, ExitStatus, InputError, UsageError
from dcmsync.net.patience import Watch
from dcmsync.plan.compare import shown
from dcmsync.plan.levels import Query
from dcmsync.records.stream import Reader
from dcmsync.transfer.comparison import Comparison, Settings
from dcmsync.transfer.feed import Feed
from dcmsync.transfer.gathering import Gathering
from dcmsync.transfer.side import Side
from dcmsync.transfer.survey import Settings as SurveySettings
from dcmsync.transfer.survey import Survey, Tolerance


class Differing:
    """One run of `diff`."""

    def __init__(self, arguments: Namespace, streams: Streams, watch: Watch) -> None:
        self._arguments, self._streams = arguments, streams
        self._is_piped = arguments.source == "-"
        self.sides = Sides(arguments, streams, watch)
        places = self.sides.places
        is_open = self._is_piped or places.is_local(arguments.source)
        query, self._is_inside = question(arguments, arguments.key, needs_key=not is_open)
        self._settings = Settings(trust=arguments.trust, shown=shown(arguments.show), query=query)
        places.parse(arguments.dest)
        self._printer = Printer(streams, arguments.format)

    async def run(self) -> ExitStatus:
        """Writes what differs, and the end."""
        tolerance = Tolerance(self._streams.say)
        try:
            async with AsyncExitStack() as stack:
                dest = await self.sides.enter(self._arguments.dest, stack, is_dest=True)
                comparison = Comparison(self._settings, dest, contents=self.sides.contents, write=self._printer.write)
                compare = self._compare_records if self._is_piped else self._compare_places
                trouble = await compare(comparison, stack, tolerance)
        except DcmsyncError as error:
            self._printer.end(complete=False, reason=error.reason, splits=self.sides.splits)
            raise
        trouble = trouble or tolerance.trouble or comparison.trouble or self.sides.trouble
        self._printer.end(complete=not trouble, reason=trouble, splits=self.sides.splits)
        status = ExitStatus.NO if comparison.is_different else ExitStatus.DONE
        return max(status, tolerance.status, ExitStatus.INCOMPLETE if trouble else status)

    async def _compare_places(self, comparison: Comparison, stack: AsyncExitStack, tolerance: Tolerance) -> str:
        source: Side = await self.sides.enter(self._arguments.source, stack)
        is_far = not self.sides.places.is_local(self._arguments.dest)
        settings = SurveySettings(query=self._settings.query, is_inside=self._is_inside, is_far=is_far)
        await Survey(settings, comparison, source, tolerance).run()
        if self._is_any_unsound(source):
            tolerance.status = max(tolerance.status, ExitStatus.FAILED)
        return ""

    def _is_any_unsound(self, source: Side) -> bool:
        """Whether SOURCE has files that cannot be compared; people are told how many."""
        if source.catalogue is None:
            return False
        query = Query(level=Level.STUDY, keys=self._settings.query.keys)
        streams, write = self._streams, self._printer.write
        return tell_unsound(source.catalogue, source.name, query, write=write, warn=streams.warn, note=streams.note)

    async def _compare_records(self, comparison: Comparison, stack: AsyncExitStack, tolerance: Tolerance) -> str:
        """Compares what standard input names. Gives why that is not complete, in words."""
        reader = Reader(self._streams.stdin, require_end=self._arguments.require_end)
        gathering = Gathering(reader)
        async for group in Feed(gathering):
            if not (group.source or group.is_of_instances):
                raise InputError("the record has no `source`, so there is nowhere to ask", line=group.number)
            source: Side | None = None
            if not group.is_of_instances or (group.source and self._settings.trust == "content"):
                try:
                    source = await self.sides.enter(group.source, stack)
                except UsageError as error:
                    raise InputError(error.message, line=group.number, advice=error.advice) from error
            await tolerance.of(comparison.group(source, group))
        if gathering.passed_by:
            self._streams.warn(f"records that are no study, series or instance were passed by: {gathering.passed_by}")
        return reader.trouble
