"""What `pull`, `push` and `sync` share: destinations, the engine between them and the sources, and the end.

Owns one run: which destinations there are (`landing` sets up the local ones, `delivering` the remote ones), signals and
bounds, and what is said when it is over. Refuses to know where the work comes from.
"""

from __future__ import annotations

import signal
from argparse import Namespace
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread

from dcmsync.commands.editing import Editing, asked
from dcmsync.commands.landing import Landings
from dcmsync.commands.options import Streams
from dcmsync.commands.pacing import Bounds
from dcmsync.commands.places import Places
from dcmsync.commands.printer import Printer
from dcmsync.contract import Origin, Source
from dcmsync.errors import ExitStatus, LocalTrouble, UsageError
from dcmsync.locator import Archive, Folder, Locator
from dcmsync.plan.levels import Query
from dcmsync.plan.window import Judge
from dcmsync.records.model import Outcome
from dcmsync.transfer.consignment import Proof
from dcmsync.transfer.edited import edit
from dcmsync.transfer.engine import Pull, Settings
from dcmsync.transfer.expansion import Trust
from dcmsync.transfer.target import Target
from dcmsync.transfer.works import Work

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
        printer: Printer | None = None,
    ) -> None:
        arguments = Namespace(**{**_LOCAL_ONLY, **vars(arguments)})
        self._arguments = arguments
        self._streams = streams
        self._places = places
        self._trust = trust
        self._sources = sources or {}
        self._editing = editing or asked(arguments)
        self._landings = Landings(arguments, streams, places, trust)
        self._bounds = Bounds(arguments, streams, self._stop)
        self._printer = printer or Printer(streams, arguments.format, shown="table")
        self._places_by_word = {word: self._destination(word) for word in words}
        self._signal = 0
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
        meter = self._bounds.watched(streams.meter())
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
        try:
            for target in targets:
                place = self._places_by_word[target.name]
                if not arguments.dry_run and isinstance(place, Folder | Archive):
                    self._landings.open(target, place)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._mind_signals, pull, tasks.cancel_scope)
                tasks.start_soon(self._bounds.mind_duration)
                await pull.run(works())
                tasks.cancel_scope.cancel()
        finally:
            self._landings.close()
            meter.close()
        for name, trouble in pull.troubles.items():
            streams.say(f"{name}: {trouble}")
        return pull.status

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal, or a limit, has ended it."""
        return bool(self._signal or self._bounds.reached)

    def tell(self, record: Mapping[str, object]) -> None:
        """Writes a record among the outcomes."""
        self._printer.write(record)

    async def delete(self, source: tuple[str, Source], query: Query, keep: Judge, *, most: int) -> ExitStatus:
        """Deletes from each folder what the source does not have, unless that is more than `most` instances."""
        from dcmsync.commands.mirroring import Mirroring

        mirroring = Mirroring(self._places, self._streams, self._printer.write, is_dry=self._arguments.dry_run)
        status = ExitStatus.DONE
        for word, place in self._places_by_word.items():
            if isinstance(place, Folder):
                status = max(status, await mirroring.run(word, place.path, source, query, keep, most=most))
            else:
                kind = "an archive" if isinstance(place, Archive) else "another machine"
                self._streams.warn(f"{word}: nothing is ever deleted from {kind}")
        return status

    def end(self, status: ExitStatus, *, input_trouble: str = "", truncated: str = "") -> ExitStatus:
        """Writes the end record. `input_trouble`: what was wrong with the input, and `truncated` with a list."""
        assert self.pull is not None
        reason = "local" if any(isinstance(each, LocalTrouble) for each in self.pull.troubles.values()) else ""
        if self.pull.input_error is not None or input_trouble:
            reason = reason or "input"
            status = max(status, ExitStatus.INCOMPLETE)
            self._streams.say(str(self.pull.input_error or f"the input is not complete: {input_trouble}"))
        if self._signal:
            reason = "interrupted"
            status = ExitStatus.TERMINATED if self._signal == signal.SIGTERM else ExitStatus.INTERRUPTED
        elif self._bounds.reached:
            reason = reason or "limit"
            status = max(status, ExitStatus.RETRY)
        elif truncated or (status is ExitStatus.INCOMPLETE and not reason):
            status = max(status, ExitStatus.INCOMPLETE)
            reason = reason or truncated or "truncated"
        self._printer.end(complete=not reason, reason=reason)
        return status

    def _destination(self, word: str) -> Locator:
        """Where a destination is. Raises UsageError when it is none for this verb, or for what is asked of it."""
        found, given = self._places.parse(word), self._arguments
        is_remote = not isinstance(found, Folder | Archive)
        if is_remote and not given.verify:
            advice = "Name a folder or an archive of this machine, as in ./archive or study.zip, or use dcmsync push"
            raise UsageError(f"{word} is no place that things can be brought to", advice=advice)
        if isinstance(found, Archive) and (given.link or given.symlink):
            raise UsageError(f"{word}: an archive holds no links", advice="Leave out --link and --symlink")
        if is_remote and (given.link or given.symlink or given.move):
            advice = "Leave out --link, --symlink and --move"
            raise UsageError(f"{word}: files are neither linked nor moved to another machine", advice=advice)
        return found

    async def _target(self, word: str, stack: AsyncExitStack) -> Target[Any]:
        """A destination, and what it holds."""
        place = self._places_by_word[word]
        if isinstance(place, Folder | Archive):
            return await anyio.to_thread.run_sync(self._landings.target, word, place)
        from dcmsync.commands.delivering import Delivering

        return await Delivering(self._arguments, self._streams, self._places, self._trust).enter(word, stack)

    def _release(self, origin: Origin, proofs: Sequence[Proof]) -> None:
        self._landings.release(origin, proofs, self._places_by_word)

    def _stop(self) -> None:
        if self.pull is not None:
            self.pull.stop()

    def _write(self, outcome: Outcome) -> None:
        """Says what became of a thing, after it was remembered."""
        self._landings.keep()
        self._printer.write(outcome if self._editing is None else self._editing.outcome(outcome))

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
