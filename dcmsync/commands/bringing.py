"""What `pull`, `push` and `sync` share: destinations, the engine between them and the sources, and the end.

Owns how a destination on this machine is set up (its stock, its landing, its layout; `delivering` does the remote ones)
and what a run says when it is over. Refuses to know where the work comes from.
"""

from __future__ import annotations

import signal
from argparse import Namespace
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from threading import Lock
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from msgspec import UNSET

from dcmsync.commands.editing import Editing, asked
from dcmsync.commands.options import Meter, Streams
from dcmsync.commands.places import Places
from dcmsync.commands.printer import Printer
from dcmsync.contract import Arrival, Catalogue, Destination, Holding, Origin, Source
from dcmsync.errors import ExitStatus, UsageError
from dcmsync.locator import Archive, Folder, Node
from dcmsync.plan import layout
from dcmsync.plan.levels import Query
from dcmsync.plan.window import Judge
from dcmsync.records.model import Outcome
from dcmsync.transfer.consignment import Proof
from dcmsync.transfer.edited import edit
from dcmsync.transfer.engine import Pull, Settings
from dcmsync.transfer.expansion import Trust
from dcmsync.transfer.surplus import Surplus
from dcmsync.transfer.target import Catalogued, Nothing, Target
from dcmsync.transfer.works import Work
from dcmsync.wire.dataset import decode_values, tag_of
from dcmsync.wire.source import Values

if TYPE_CHECKING:
    from dcmsync.endpoints.folder.arrivals import Transfer


KEPT_AT_ONCE = 1000  # files of which rows are held back at most
_LOCAL_ONLY = {"layout": None, "link": False, "symlink": False, "move": False, "verify": None}  # or of remote ones only


class Bringing:
    """One run. `words` name the destinations; `arguments` has what options.BRINGING gives, or options.DELIVERING.

    `sources` are places that are open already, by their words; `editing`, where there is one, goes before the options.
    """

    def __init__(
        self,
        arguments: Namespace,
        streams: Streams,
        places: Places,
        words: Sequence[str],
        *,
        trust: Trust = "uids",
        sources: Mapping[str, Source] | None = None,
        editing: Editing | None = None,
    ) -> None:
        arguments = Namespace(**{**_LOCAL_ONLY, **vars(arguments)})
        self._arguments = arguments
        self._streams = streams
        self._places = places
        self._trust = trust
        self._sources = sources or {}
        self._editing = editing or asked(arguments)
        self._layout = layout.compile(arguments.layout or layout.DEFAULT)
        self._wanted = frozenset(tag_of(keyword) for keyword in self._layout.keywords)
        self._transfer = _transfer(arguments)
        self._printer = Printer(streams, arguments.format, shown="table")
        self._places_by_word = {word: self._destination(word) for word in words}
        self._memories: list[_Memory] = []
        self._signal = 0
        self._limit = ""  # the limit that was reached
        self.pull: Pull[Any] | None = None

    async def run(self, works: Callable[[], AsyncIterable[Sequence[Work]]]) -> ExitStatus:
        """Brings everything, under the eye of the signals. What was said of each is written; the end is not yet."""
        async def run() -> ExitStatus:
            async with AsyncExitStack() as stack:
                targets = [await self._target(word, stack) for word in self._places_by_word]
                if self._editing is not None:
                    for target in targets:
                        edit(target, self._editing)
                return await self._run(works, targets)

        return await self._places.receiving(run)

    async def _run(
        self, works: Callable[[], AsyncIterable[Sequence[Work]]], targets: Sequence[Target[Any]]
    ) -> ExitStatus:
        arguments, streams = self._arguments, self._streams
        meter = _Limited(streams.meter(), arguments.max_transfer, lambda: self._stop_at_limit("--max-transfer"))
        self.pull = pull = Pull(
            Settings(
                jobs=self._places.most_jobs, itemize=arguments.itemize, dry_run=arguments.dry_run, trust=self._trust
            ),
            targets,
            open_source=lambda name: self._sources.get(name) or self._places.open(name),
            write=self._write,
            warn=streams.warn,
            meter=meter,
            jobs_at=self._places.jobs,
            release=self._release if arguments.move and not arguments.dry_run else None,
        )
        landings: list[Any] = []
        try:
            if not arguments.dry_run:
                for target in targets:
                    if target.takes is not None:  # a remote one
                        continue
                    landing = self._landing(target)
                    landings.append(landing)
                    target.destination = landing
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._mind_signals, pull, tasks.cancel_scope)
                tasks.start_soon(self._mind_duration)
                await pull.run(works())
                tasks.cancel_scope.cancel()
        finally:
            for landing in landings:
                landing.close()
            self._keep_all()
            meter.close()
        for name, trouble in pull.troubles.items():
            streams.say(f"{name}: {trouble}")
        return pull.status

    def tell(self, record: Mapping[str, object]) -> None:
        """Writes a record among the outcomes."""
        self._printer.write(record)

    async def delete(
        self, source: tuple[str, Source], query: Query, keep: Judge, *, most: int
    ) -> ExitStatus:
        """Deletes from each destination what the source does not have, unless that is more than `most` instances."""
        status = ExitStatus.DONE
        for word, place in self._places_by_word.items():
            if isinstance(place, Folder):
                status = max(status, await self._delete_from(word, place, source, query, keep, most))
            else:
                kind = "a node" if isinstance(place, Node) else "an archive"
                self._streams.warn(f"{word}: nothing is ever deleted from {kind}")
        return status

    async def _delete_from(
        self, word: str, place: Folder, source: tuple[str, Source], query: Query, keep: Judge, most: int
    ) -> ExitStatus:
        from dcmsync.endpoints.folder.departure import remove_holding

        name, opened = source
        catalogue = self._places.catalogue(place.path)
        async with opened.session() as asked, self._places.open(word).session() as held:
            surplus = Surplus(asked, held, catalogue, name=name, warn=self._streams.warn)
            extra = [holding async for holding in surplus.run(query, keep)]
        if len(extra) > most:
            words = f"{word}: {len(extra):,} instances would go, and --max-delete is {most:,}: none was deleted"
            self._streams.say(words)
            return ExitStatus.FAILED
        for holding in extra:
            if not self._arguments.dry_run:
                await anyio.to_thread.run_sync(remove_holding, place.path, holding)
                catalogue.forget([holding.path])
            self._printer.write(_deleted(holding, name, word, is_dry=self._arguments.dry_run))
        return ExitStatus.DONE

    def end(self, status: ExitStatus, *, input_trouble: str = "", truncated: str = "") -> ExitStatus:
        """Writes the end record. `input_trouble`: what was wrong with the input, and `truncated` with a list."""
        assert self.pull is not None
        reason = "local" if self.pull.troubles else ""
        if self.pull.input_error is not None or input_trouble:
            reason = reason or "input"
            status = max(status, ExitStatus.INCOMPLETE)
            self._streams.say(str(self.pull.input_error or f"the input is not complete: {input_trouble}"))
        if self._signal:
            reason = "interrupted"
            status = ExitStatus.TERMINATED if self._signal == signal.SIGTERM else ExitStatus.INTERRUPTED
        elif self._limit:
            reason = reason or "limit"
            status = max(status, ExitStatus.RETRY)
        elif truncated or (status is ExitStatus.INCOMPLETE and not reason):
            status = max(status, ExitStatus.INCOMPLETE)
            reason = reason or truncated or "truncated"
        self._printer.end(complete=not reason, reason=reason)
        return status

    def _destination(self, word: str) -> Folder | Archive | Node:
        """Where a destination is. Raises UsageError when it is none for this verb, or for what is asked of it."""
        found, given = self._places.parse(word), self._arguments
        if isinstance(found, Node) and not given.verify:
            advice = "Name a folder or an archive of this machine, as in ./archive or study.zip, or use dcmsync push"
            raise UsageError(f"{word} is no place that things can be brought to", advice=advice)
        if isinstance(found, Archive) and (given.link or given.symlink):
            raise UsageError(f"{word}: an archive holds no links", advice="Leave out --link and --symlink")
        if isinstance(found, Node) and (given.link or given.symlink or given.move):
            advice = "Leave out --link, --symlink and --move"
            raise UsageError(f"{word}: files are neither linked nor moved to a node", advice=advice)
        return found

    async def _target(self, word: str, stack: AsyncExitStack) -> Target[Any]:
        """A destination, and what it holds."""
        if isinstance(self._places_by_word[word], Node):
            from dcmsync.commands.delivering import Delivering

            return await Delivering(self._arguments, self._streams, self._places, self._trust).enter(word, stack)
        return await anyio.to_thread.run_sync(self._local_target, word)

    def _local_target(self, word: str) -> Target[Any]:
        place = self._places_by_word[word]
        assert not isinstance(place, Node)
        if self._arguments.force or self._arguments.move:
            return Target(word, Nothing())
        catalogue = self._places.catalogue(place.path)
        if isinstance(place, Folder):
            from dcmsync.cache.digest import read_whole
            from dcmsync.endpoints.folder.stock import take_stock

            reader = read_whole if self._trust == "content" else None
            take_stock(place.path, catalogue, skipped=self._places.skipped, read_whole=reader)
        else:
            from dcmsync.endpoints.zip.stock import take_stock as take_stock_of_archive

            take_stock_of_archive(place.path, catalogue, skipped=self._places.skipped)
        return Target(word, Catalogued(catalogue))

    def _landing(self, target: Target[Any]) -> Destination[Any]:
        from dcmsync.cache.digest import content_of, hasher

        place = self._places_by_word[target.name]
        assert not isinstance(place, Node)
        catalogue = self._places.catalogue(place.path)
        memory = _Memory(catalogue)
        self._memories.append(memory)
        if isinstance(place, Folder):
            from dcmsync.endpoints.folder.arrivals import Settings as FolderSettings
            from dcmsync.endpoints.folder.landing import Landing
            from dcmsync.endpoints.folder.stock import has_rotted

            return Landing(place.path, FolderSettings(
                place=self._path, wanted=self._wanted, hasher=hasher, content=content_of, completed=target.completed,
                force=self._arguments.force, transfer=self._transfer, remember=memory.add,
                may_replace=has_rotted(place.path, catalogue),
            ))  # fmt: skip
        from dcmsync.endpoints.zip.arrivals import Settings as ArchiveSettings
        from dcmsync.endpoints.zip.landing import Packing

        return Packing(place.path, ArchiveSettings(
            place=self._path, wanted=self._wanted, hasher=hasher, content=content_of, completed=target.completed,
            force=self._arguments.force, catalogue=catalogue,
        ))  # fmt: skip

    def _release(self, origin: Origin, proofs: Sequence[Proof]) -> None:
        """Removes the file that an instance was moved from, unless a destination is that file. Raises LocalTrouble."""
        from dcmsync.endpoints.folder.departure import is_entry, remove

        for word, path in proofs:
            place = self._places_by_word[word]
            if isinstance(place, Folder) and is_entry(origin, place.path, path):
                self._streams.note("a file that is its own destination stays where it is")
                return
        remove(origin)

    def _write(self, outcome: Outcome) -> None:
        """Says what became of a thing, after it was remembered."""
        self._keep_all()
        self._printer.write(outcome if self._editing is None else self._editing.outcome(outcome))

    def _keep_all(self) -> None:
        for memory in self._memories:
            memory.keep()

    def _path(self, values: Values, arrival: Arrival) -> str:
        known = decode_values(values, arrival.transfer_syntax_uid, wanted=self._wanted)
        return self._layout.path({"SOPInstanceUID": arrival.sop_instance_uid, **known})

    async def _mind_duration(self) -> None:
        """Stops taking work when the time is over."""
        if self._arguments.max_duration is not None:
            await anyio.sleep(self._arguments.max_duration)
            self._stop_at_limit("--max-duration")

    def _stop_at_limit(self, option: str) -> None:
        if not self._limit and self.pull is not None:
            self._limit = option
            self._streams.say(f"{option} is reached: finishing the series in flight; run it again to go on")
            self.pull.stop()

    async def _mind_signals(self, pull: Pull[Any], scope: anyio.CancelScope) -> None:
        """The first Ctrl-C (or SIGTERM) stops taking work, the second ends everything."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self._signal:
                    scope.cancel()
                    return
                self._signal = number
                self._streams.say("finishing the series in flight; once more to abort")
                pull.stop()


class _Limited:
    """A meter that tells when as many octets were brought as may be."""

    def __init__(self, meter: Meter, most: int | None, reached: Callable[[], None]) -> None:
        self._meter = meter
        self._left = most
        self._reached = reached
        self.total = meter.total
        self.close = meter.close

    def advance(self, instances: int, octets: int) -> None:
        """Counts, and shows."""
        self._meter.advance(instances, octets)
        if self._left is not None:
            self._left -= octets
            if self._left <= 0:
                self._reached()


class _Memory:
    """What has landed and is not yet in its catalogue. Many rows at a time cost a third of what each costs alone."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = Lock()
        self._waiting: list[Holding] = []

    def add(self, holdings: Iterable[Holding]) -> None:
        """Takes them in, from any thread; they are kept soon."""
        with self._lock:
            self._waiting += holdings
            if len(self._waiting) < KEPT_AT_ONCE:
                return
        self.keep()

    def keep(self) -> None:
        """What was taken in is in the catalogue when this returns."""
        if self._waiting:
            with self._lock:
                waiting, self._waiting = self._waiting, []
                self._catalogue.remember(waiting)


def _transfer(arguments: Namespace) -> Transfer:
    """How files of this machine are taken. Raises UsageError when two ways are asked for."""
    ways = [way for way in ("link", "symlink", "move") if getattr(arguments, way)]
    if len(ways) > 1:
        raise UsageError(f"--{ways[0]} and --{ways[1]} ask for two things", advice="Give one of them")
    if arguments.symlink:
        return "symlink"
    return "link" if ways else "copy"  # a moved file keeps its octets where they are, when it can


def _deleted(holding: Holding, source: str, destination: str, *, is_dry: bool) -> Outcome:
    return Outcome(
        level="instance",
        outcome="deleted",
        StudyInstanceUID=holding.study_uid,
        SeriesInstanceUID=holding.series_uid,
        SOPInstanceUID=holding.sop_instance_uid,
        source=source,
        destination=destination,
        path=holding.path,
        dry_run=True if is_dry else UNSET,
    )
