"""`dcmsync query`: help, options, and the wiring of an inventory with the record stream."""

from __future__ import annotations

from argparse import Namespace
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
from dcmsync.errors import ExitStatus, InputError, LocalTrouble, PeerError, UsageError

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from dcmsync.commands.places import Places
    from dcmsync.commands.unsound import Series
    from dcmsync.contract import Attributes, Session
    from dcmsync.plan.levels import Query
    from dcmsync.plan.window import Judge
    from dcmsync.records.stream import Line


COMMAND = Command(
    name="query",
    summary="ask a place what it holds; writes records",
    description=(
        "Asks ENDPOINT for studies, series or instances and writes one record each, as the answers arrive. "
        "KEY=VALUE must match (DICOM matching: * and ?, 20240101-20240131, UIDs with a comma between them); a bare KEY "
        "is asked back besides the usual attributes. The level is that of the deepest KEY, unless --level says "
        "otherwise.\n\n"
        "Queries are hierarchical: each goes down level by level, with one unique key for each level above. Answers "
        "that came twice are merged, answers that do not match are dropped with a warning, and a list that the server "
        "cut short is asked for again in parts; where that does not help, the end record says `complete: false` and "
        "the exit status is 6.\n\n"
        "A folder or an archive answers as a server would, and without --all, from what is remembered of its files; "
        "those that changed are read again. Instance records carry `path`, `size` and TransferSyntaxUID, and `digest` "
        "and `content` where they are known. A file that is truncated, damaged or does not say which instance it is "
        "counts as nothing: where it may match what was asked for, an outcome record names it at instance level, a "
        "warning counts it at the others, and the exit status is 3. Files that are no DICOM at all are no trouble. "
        "Where a file or folder cannot be read, the list is incomplete. Links are not followed.\n\n"
        "With - as ENDPOINT, records are read from standard input and expanded to --level, each at its own source."
    ),
    options=(
        Option(flags=("endpoint",), metavar="ENDPOINT", completion="endpoint",
               help="whom to ask: AET@host:port, a configured name, a folder (with a / or .), an archive (.zip), or - "
                    "for the sources of the records on stdin"),
        Option(flags=("key",), metavar="KEY[=VALUE]", nargs="*", completion="keyword",
               help="what must match, or what is wanted back"),
        Option(flags=("--level",), metavar="LEVEL", choices=("patient", "study", "series", "instance"),
               help="what to list"),
        Option(flags=("--since",), metavar="WHEN", help="studies from then on: 12h, 2d, 20240131, 2024-01-31T12:00"),
        Option(flags=("--until",), metavar="WHEN", help="studies up to then, inclusive"),
        Option(flags=("--return",), metavar="KEYWORD", repeat=True, completion="keyword",
               help="another attribute to ask back, whatever level is asked for"),
        Option(flags=("--all",), help="allow a query that nothing restricts"),
        Option(flags=("--fuzzy",), help="ask the server for fuzzy matching of person names, if it agrees to that"),
        Option(flags=("--relational",),
               help="ask the server for relational queries: where it agrees, one query takes the place of the walk"),
        FORMAT,
        CACHE,
        NO_CACHE,
        TIMEOUT,
        CALLING,
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync query pacs StudyDate=20240101-20240131 ModalitiesInStudy=CT", "the CT studies of a month"),
        ("dcmsync query PACS@10.0.0.1:104 PatientID=P1 Modality=MR", "the MR series of a patient"),
        ("dcmsync query pacs --since 12h | dcmsync query - --level series", "the series of last night's studies"),
        ("dcmsync query ./archive --level instance | jq -r 'select(.outcome) | .path'", "the damaged files there"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Queries one endpoint, or the sources of the records on standard input."""
    import anyio

    from dcmsync.commands.places import Places
    from dcmsync.commands.question import question
    from dcmsync.net.patience import Watch

    is_expanding = arguments.endpoint == "-"
    if is_expanding and not streams.stdin_is_pipe:
        raise UsageError("there are no records on standard input", advice="Pipe some in: dcmsync query ... |")
    with Watch() as watch:
        places = Places(arguments, watch, streams)
        needs_key = not is_expanding and not places.is_local(arguments.endpoint)
        query, is_inside = question(arguments, arguments.key, needs_key=needs_key)
        asking = _Asking(arguments, streams, places, query, is_inside)
        if is_expanding:
            return anyio.run(asking.expand)
        asking.places.open(arguments.endpoint)  # a word that is no place is an error before anything else
        return anyio.run(asking.ask)


class _Asking:
    """One run of the verb."""

    def __init__(
        self, arguments: Namespace, streams: Streams, places: Places, query: Query, is_inside: Judge
    ) -> None:
        from dcmsync.commands.printer import Printer

        self.places = places
        self._arguments = arguments
        self._streams = streams
        self._query = query
        self._is_inside = is_inside
        self._printer = Printer(streams, arguments.format)
        self._trouble = ""
        self._splits = 0
        self._sessions: dict[str, Session] = {}
        self._expanded: dict[str, set[Series]] = {}  # by source

    async def ask(self) -> ExitStatus:
        """The answers of one endpoint."""
        name = self._arguments.endpoint
        try:
            async with self.places.open(name).session() as session:
                await self._list(session, name, None, self._query, None)
        except (PeerError, LocalTrouble) as error:
            self._printer.end(complete=False, reason=error.reason, splits=self._splits)
            raise
        status = self._tell_unsound(name, None)
        return max(status, self._end())

    async def expand(self) -> ExitStatus:
        """What is below the records on standard input; those that are deep enough pass as they are."""
        from contextlib import AsyncExitStack

        from dcmsync.records.stream import Reader
        from dcmsync.transfer.feed import Feed

        reader = Reader(self._streams.stdin, require_end=self._arguments.require_end)
        status = ExitStatus.DONE
        try:
            async with AsyncExitStack() as stack:
                async for line in Feed(reader):
                    status = max(status, await self._expand(line, stack))
        except InputError as error:
            self._printer.end(complete=False, reason=error.reason, splits=self._splits)
            raise
        for source, series in self._expanded.items():
            status = max(status, self._tell_unsound(source, series))
        self._trouble = self._trouble or reader.trouble
        return max(status, self._end())

    async def _expand(self, line: Line, stack: AsyncExitStack) -> ExitStatus:
        """What is below one record; the line itself where that is nothing to ask for."""
        from dcmsync.commands.expanding import parent_of

        parent = parent_of(line, self._query)
        if parent is None:
            self._printer.write_line(line.raw)
            return ExitStatus.DONE
        try:
            if parent.source not in self._sessions:
                session = self.places.open(parent.source).session()
                self._sessions[parent.source] = await stack.enter_async_context(session)
            among = self._expanded.setdefault(parent.source, set())
            if parent.known:
                among.add(parent.series)
            await self._list(self._sessions[parent.source], parent.source, parent.known, parent.query, among)
        except UsageError as error:
            raise InputError(error.message, line=line.number, advice=error.advice) from error
        except (PeerError, LocalTrouble) as error:
            self._streams.say(str(error))
            self._trouble = self._trouble or error.reason
            return error.exit_status
        return ExitStatus.DONE

    async def _list(
        self, session: Session, source: str, known: Attributes | None, query: Query, among: set[Series] | None
    ) -> None:
        """Writes what a query finds; adds the studies that are in it to `among`, where those are not known before."""
        from contextlib import aclosing

        from dcmsync.transfer.inventory import Inventory

        kind = self._query.level.word
        inventory = Inventory(session, name=source, warn=self._streams.warn)
        async with aclosing(inventory.walk(query, known)) as answers:
            async for answer in answers:
                if among is not None and not known:
                    among.add((str(answer["StudyInstanceUID"]), ""))
                if self._is_inside(answer):
                    self._printer.write({"type": kind, "source": source, **answer})
        self._splits += inventory.splits
        self._trouble = self._trouble or inventory.trouble

    def _tell_unsound(self, source: str, among: set[Series] | None) -> ExitStatus:
        """Names what a local place holds that is no whole instance."""
        from dcmsync.commands.unsound import tell_unsound
        from dcmsync.locator import Archive, Folder

        place = self.places.parse(source)
        if not isinstance(place, Folder | Archive):
            return ExitStatus.DONE
        streams, catalogue = self._streams, self.places.catalogue(place.path)
        is_any = tell_unsound(
            catalogue, source, self._query,
            write=self._printer.write, warn=streams.warn, note=streams.note, among=among,
        )  # fmt: skip
        return ExitStatus.FAILED if is_any else ExitStatus.DONE

    def _end(self) -> ExitStatus:
        self._printer.end(complete=not self._trouble, reason=self._trouble, splits=self._splits)
        return ExitStatus.INCOMPLETE if self._trouble else ExitStatus.DONE
