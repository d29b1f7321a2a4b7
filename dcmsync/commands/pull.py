"""`dcmsync pull`: help, options, and the wiring of records, sources, the destination folder and the engine."""

from __future__ import annotations

import signal
from argparse import Namespace
from typing import TYPE_CHECKING

from dcmsync.commands.options import (
    CALLING,
    DRY_RUN,
    FORMAT,
    JOBS,
    REQUIRE_END,
    TIMEOUT,
    Command,
    Option,
    Streams,
)
from dcmsync.errors import ExitStatus, LocalTrouble, UsageError

if TYPE_CHECKING:
    from anyio import CancelScope

    from dcmsync.contract import Arrival
    from dcmsync.endpoints.folder.arrivals import Job
    from dcmsync.endpoints.folder.arrivals import Settings as LandingSettings
    from dcmsync.net.patience import Watch
    from dcmsync.transfer.engine import Held, Pull
    from dcmsync.wire.source import Values

COMMAND = Command(
    name="pull",
    summary="bring what the records name into a local folder; writes outcomes",
    description=(
        "Reads study, series and instance records (and failed outcomes) from standard input, retrieves what they name "
        "by C-GET from their own source, and writes one outcome record a series, and one for each instance that is not "
        "fine.\n\n"
        "The inventory of each series is asked for at instance level. What the folder holds already, whole, is not "
        "fetched; what does not come is asked for again; an instance stands under its name only when it is whole, "
        "checked and durable. Exit status 0 means that every instance of the inventory is there, proven.\n\n"
        "Ctrl-C once finishes the series in flight, twice aborts. Run the same command again and it goes on from there."
    ),
    options=(
        Option(flags=("dest",), metavar="DIR", completion="directory", help="the folder to bring things into"),
        Option(flags=("--layout",), metavar="TEMPLATE",
               help="where an instance goes below DIR; default "
                    "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"),
        Option(flags=("--itemize", "-i"), help="one outcome for each instance, not only for those that are not fine"),
        Option(flags=("--force", "-f"), help="fetch what is there already, and replace what differs"),
        DRY_RUN,
        JOBS,
        FORMAT,
        TIMEOUT,
        CALLING,
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync query pacs StudyDate=20240101- | dcmsync filter ModalitiesInStudy=CT | dcmsync pull ./archive",
         "the CT studies since New Year"),
        ("dcmsync pull ./archive --layout '{PatientID}/{SeriesNumber:03}/{InstanceNumber:05}.dcm' < records.ndjson",
         "names of one's own"),
        ("dcmsync filter outcome=failed retry=true < log.ndjson | dcmsync pull ./archive", "try again what may work"),
    ),
)

def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Pulls what standard input names."""
    if not streams.stdin_is_pipe:
        raise UsageError("pull reads records from standard input, and there is none",
                         advice="Write: dcmsync query ENDPOINT KEY=VALUE | dcmsync pull DIR")
    import anyio

    from dcmsync.net.patience import Watch

    with Watch() as watch:
        return anyio.run(_Pulling(arguments, streams, watch).run)


class _Pulling:
    """One run of the verb."""

    def __init__(self, arguments: Namespace, streams: Streams, watch: Watch) -> None:
        from dcmsync.commands.places import Places, folder
        from dcmsync.commands.printer import Printer
        from dcmsync.plan import layout
        from dcmsync.wire.dataset import tag_of

        self._arguments = arguments
        self._streams = streams
        self._folder = folder(arguments.dest)
        self._places = Places(arguments, watch, streams)
        self._layout = layout.compile(arguments.layout or layout.DEFAULT)
        self._wanted = frozenset(tag_of(keyword) for keyword in self._layout.keywords)
        self._printer = Printer(streams, arguments.format, shown="table")
        self._signal = 0

    async def run(self) -> ExitStatus:
        """Runs the engine under the eye of the signals; writes the end."""
        import anyio

        from dcmsync.endpoints.folder.landing import Landing
        from dcmsync.records.stream import Reader
        from dcmsync.transfer.engine import Pull, Settings
        from dcmsync.transfer.feed import Feed
        from dcmsync.transfer.works import works

        arguments, streams = self._arguments, self._streams
        reader = Reader(streams.stdin, require_end=arguments.require_end)
        held = await anyio.to_thread.run_sync(self._held)
        meter = streams.meter()
        pull: Pull[Job] = Pull(
            Settings(
                destination=arguments.dest,
                jobs=self._places.most_jobs,
                itemize=arguments.itemize,
                dry_run=arguments.dry_run,
                force=arguments.force,
            ),
            open_source=self._places.open,
            held=held,
            write=self._printer.write,
            warn=streams.warn,
            meter=meter,
            jobs_at=self._places.jobs,
        )
        landing = None if arguments.dry_run else Landing(self._folder, self._landing_settings(pull))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._mind_signals, pull, tasks.cancel_scope)
                await pull.run(Feed(works(reader)), landing)
                tasks.cancel_scope.cancel()
        finally:
            if landing is not None:
                landing.close()
            meter.close()
        return self._end(pull, reader.trouble)

    def _held(self) -> dict[str, Held]:
        """What the destination holds, whole; by SOP Instance UID."""
        from dcmsync.endpoints.folder.scan import present
        from dcmsync.transfer.engine import Held

        if self._arguments.force:
            return {}
        try:
            found = present(self._folder, skipped=lambda path, why: self._streams.note(f"passed by: {why}"))
        except OSError as error:
            raise LocalTrouble(f"{self._arguments.dest} cannot be read: {error.strerror}") from error
        return {uid: Held(each.series_uid, each.path, each.size) for uid, each in found.items()}

    def _landing_settings(self, pull: Pull[Job]) -> LandingSettings:
        from dcmsync.cache.digest import hasher
        from dcmsync.endpoints.folder.arrivals import Settings
        from dcmsync.wire.dataset import decode_values

        def place(values: Values, arrival: Arrival) -> str:
            known = decode_values(values, arrival.transfer_syntax_uid, wanted=self._wanted)
            return self._layout.path({"SOPInstanceUID": arrival.sop_instance_uid, **known})

        return Settings(
            place=place,
            wanted=self._wanted,
            hasher=hasher,
            completed=pull.completed,
            force=self._arguments.force,
        )

    async def _mind_signals(self, pull: Pull[Job], scope: CancelScope) -> None:
        """The first Ctrl-C (or SIGTERM) stops taking work, the second ends everything."""
        import anyio

        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self._signal:
                    scope.cancel()
                    return
                self._signal = number
                self._streams.say("finishing the series in flight; once more to abort")
                pull.stop()

    def _end(self, pull: Pull[Job], input_trouble: str) -> ExitStatus:
        """The end record, the words about what went wrong, and the exit status."""
        status = pull.status
        reason = ""
        if pull.trouble is not None:
            reason = "local"
            self._streams.say(f"{self._arguments.dest}: {pull.trouble}")
        if pull.input_error is not None or input_trouble:
            reason = reason or "input"
            status = max(status, ExitStatus.INCOMPLETE)
            self._streams.say(str(pull.input_error or f"the input is not complete: {input_trouble}"))
        if self._signal:
            reason = "interrupted"
            status = ExitStatus.TERMINATED if self._signal == signal.SIGTERM else ExitStatus.INTERRUPTED
        elif status is ExitStatus.INCOMPLETE and not reason:
            reason = "truncated"
        self._printer.end(complete=not reason, reason=reason)
        return status
