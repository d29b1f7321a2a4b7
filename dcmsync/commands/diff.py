"""`dcmsync diff`: help, options, and the wiring of two places, or of records and a place, with their comparison."""

from __future__ import annotations

from argparse import Namespace
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from dcmsync.commands.options import (
    CACHE,
    CALLING,
    FORMAT,
    NO_CACHE,
    REQUIRE_END,
    TIMEOUT,
    Command,
    Option,
    Streams,
)
from dcmsync.errors import DcmsyncError, ExitStatus, InputError, UsageError

if TYPE_CHECKING:
    from dcmsync.net.patience import Watch
    from dcmsync.transfer.comparison import Comparison
    from dcmsync.transfer.side import Side
    from dcmsync.transfer.survey import Tolerance

COMMAND = Command(
    name="diff",
    summary="tell what DEST lacks of SOURCE, or has otherwise; writes records",
    description=(
        "Compares two places of any kind, and writes a record, with its `change`, for each thing that DEST lacks or "
        "has otherwise: a study that is missing altogether is one record, else its series, else their instances. The "
        "records pipe straight into pull or push. With - as SOURCE, the studies, series and instances that records on "
        "standard input name are compared, each at its own source.\n\n"
        "Studies are looked into only as far as needed. --trust says what proves two of them the same: `counts`, as "
        "many instances on both sides; `uids`, the same instance UIDs; `content`, moreover the same data sets, by "
        "digests that are remembered for unchanged files and computed for all else. What is not known, such as a "
        "count, is never equal. A thing is called missing only when DEST, asked by its UID, does not have it.\n\n"
        "The exit status is 1 when they differ (what is only at DEST counts when --show asks for it). When a server "
        "cut its list short, what was found is told, the end record says `complete: false`, and the status is 6. On a "
        "terminal each line begins with = (the same), + (missing), - (only at DEST) or ! (it differs, or parts of it)."
    ),
    options=(
        Option(flags=("source",), metavar="SOURCE", completion="endpoint",
               help="the place that has what is wanted, or - for the records on standard input"),
        Option(flags=("dest",), metavar="DEST", completion="endpoint", help="the place that may lack some of it"),
        Option(flags=("key",), metavar="KEY=VALUE", nargs="*", completion="keyword", help="what must match at SOURCE"),
        Option(flags=("--trust",), metavar="WHAT", choices=("counts", "uids", "content"), default="uids",
               help="what proves two things the same: counts, uids (the default) or content"),
        Option(flags=("--show",), metavar="CHANGES", default="missing,differs",
               help="what to write, of missing,differs,extra,same; default missing,differs"),
        Option(flags=("--since",), metavar="WHEN", help="studies from then on: 12h, 2d, 20240131, 2024-01-31T12:00"),
        Option(flags=("--until",), metavar="WHEN", help="studies up to then, inclusive"),
        Option(flags=("--all",), help="allow to compare all of a remote SOURCE"),
        CACHE, NO_CACHE, FORMAT, TIMEOUT, CALLING, REQUIRE_END,
    ),
    examples=(
        ("dcmsync diff pacs ./archive StudyDate=202401* | dcmsync pull ./archive", "bring what January lacks here"),
        ("dcmsync diff old-pacs new-pacs --all --trust counts", "is the migration done?"),
        ("dcmsync diff - ./archive < list.ndjson", "what of this list is not there"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Compares."""
    import anyio

    from dcmsync.net.patience import Watch

    if arguments.source == "-" and not streams.stdin_is_pipe:
        raise UsageError("there are no records on standard input", advice="Pipe some in: dcmsync query ... |")
    if arguments.source == "-" and (arguments.key or arguments.since or arguments.until):
        raise UsageError("records are not asked for again", advice="Choose among them: dcmsync filter KEY=VALUE |")
    with Watch() as watch:
        diff = _Diff(arguments, streams, watch)
        return anyio.run(diff.sides.places.receiving, diff.run)


class _Diff:
    """One run of the verb."""

    def __init__(self, arguments: Namespace, streams: Streams, watch: Watch) -> None:
        from dcmsync.commands.printer import Printer
        from dcmsync.commands.question import question
        from dcmsync.commands.sides import Sides
        from dcmsync.plan.compare import shown
        from dcmsync.transfer.comparison import Settings

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
        from dcmsync.transfer.comparison import Comparison
        from dcmsync.transfer.survey import Tolerance

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
        from dcmsync.transfer.survey import Settings, Survey

        source: Side = await self.sides.enter(self._arguments.source, stack)
        is_far = not self.sides.places.is_local(self._arguments.dest)
        settings = Settings(query=self._settings.query, is_inside=self._is_inside, is_far=is_far)
        await Survey(settings, comparison, source, tolerance).run()
        if self._is_any_unsound(source):
            tolerance.status = max(tolerance.status, ExitStatus.FAILED)
        return ""

    def _is_any_unsound(self, source: Side) -> bool:
        """Whether SOURCE has files that cannot be compared; people are told how many."""
        from dcmsync.commands.unsound import tell_unsound
        from dcmsync.contract import Level
        from dcmsync.plan.levels import Query

        if source.catalogue is None:
            return False
        query = Query(level=Level.STUDY, keys=self._settings.query.keys)
        streams, write = self._streams, self._printer.write
        return tell_unsound(source.catalogue, source.name, query, write=write, warn=streams.warn, note=streams.note)

    async def _compare_records(self, comparison: Comparison, stack: AsyncExitStack, tolerance: Tolerance) -> str:
        """Compares what standard input names. Gives why that is not complete, in words."""
        from dcmsync.records.stream import Reader
        from dcmsync.transfer.feed import Feed
        from dcmsync.transfer.gathering import Gathering

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
