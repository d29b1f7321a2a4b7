"""`dcmsync route`: help, options, and the wiring of the listener, the spool and the lanes out of it."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING

from dcmsync.commands.listening import LISTENING, check_openness, run_until_told
from dcmsync.commands.options import (
    CALLING,
    DEFAULT_TIMEOUT_S,
    JOBS,
    TIMEOUT,
    VERIFY,
    Command,
    Option,
    Streams,
    duration,
)
from dcmsync.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from dcmsync.commands.forwards import Forwards

COMMAND = Command(
    name="route",
    summary="listen, and forward what arrives by rules; writes outcomes",
    description=(
        "Listens as a DICOM node that takes instances (C-STORE, C-ECHO), and forwards each to the places that the "
        "rules of [routes.NAME] of the configuration choose (see dcmsync-edits(7)): other nodes, folders, zip "
        "archives, each with its own edits on the way.\n\n"
        "The sender is told of success when an instance is durable in SPOOL, and not before. It leaves SPOOL when "
        "every place that it goes to has it: on disk, or proven as with push. A place that is down keeps nobody else "
        "waiting; what is for it stays in SPOOL and is tried again, ever more rarely, for as long as it takes. What a "
        "place refuses for good is named in an outcome, and kept in SPOOL/failed.\n\n"
        "Whatever ends the run, the next one with the same SPOOL goes on from there; what was in flight may be sent "
        "twice.\n\n"
        "The first record on standard output is listening (with the port, once peers may connect); then follows one "
        "outcome for each instance and place. SIGINT or SIGTERM stops it: it accepts no more, and forwards what it "
        "can; a second one ends it at once. The exit status is 4 when something still waits then."
    ),
    options=(
        Option(flags=("name",), metavar="NAME", help="the route of the configuration"),
        Option(flags=("--spool",), metavar="SPOOL", completion="directory",
               help="the folder where instances wait; it is made, and belongs to this one run"),
        *LISTENING,
        Option(flags=("--inactive-timeout",), metavar="SECONDS", parse=duration,
               help="end when nothing has come, and nothing waited, for this long; default never"),
        Option(flags=("--layout",), metavar="TEMPLATE",
               help="where an instance goes below a folder or in an archive; default as for pull"),
        VERIFY,
        JOBS,
        TIMEOUT,
        CALLING,
    ),
    examples=(
        ("dcmsync route ward --spool /var/spool/dcmsync --bind 0.0.0.0 --allow CT1 --allow MR1",
         "forward what two modalities send"),
        ("dcmsync route research --spool ./spool --inactive-timeout 10m", "until nothing has come for ten minutes"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Routes until a signal comes, or nothing else."""
    if not arguments.spool:
        raise UsageError("route needs a folder where instances wait", advice="Name it: --spool SPOOL")
    check_openness(arguments)
    import anyio

    from dcmsync.commands.forwards import Forwards
    from dcmsync.commands.places import Places
    from dcmsync.net.patience import Watch

    arguments.spool = os.path.abspath(arguments.spool)
    with Watch() as watch:
        places = Places(arguments, watch, streams)
        with Forwards(arguments, streams, places, watch) as forwards:
            anyio.run(places.receiving, lambda: _route(forwards, arguments, streams))
            return forwards.end()


async def _route(forwards: Forwards, arguments: Namespace, streams: Streams) -> None:
    """Runs it under the eye of the signals, and of the clock."""
    import anyio

    async with anyio.create_task_group() as tasks:

        async def mind_the_clock() -> None:
            await forwards.quiet(arguments.inactive_timeout)
            forwards.stop()

        if arguments.inactive_timeout:
            tasks.start_soon(mind_the_clock)
        await run_until_told(forwards, arguments.timeout or DEFAULT_TIMEOUT_S, streams)
        tasks.cancel_scope.cancel()
