"""`pull --metadata`: the wiring of records on standard input with what sources say of instances."""

from __future__ import annotations

from argparse import Namespace

import anyio

from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.errors import ExitStatus, UsageError
from dcmsync.net.patience import Watch
from dcmsync.records.stream import Reader
from dcmsync.transfer.describing import Describing
from dcmsync.transfer.feed import Feed
from dcmsync.transfer.works import works

_OF_FILES = ("layout", "link", "symlink", "move", "itemize", "force", "dry_run", "format", "via")


def describe(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Writes a line of DICOM JSON for each instance that standard input names. Raises UsageError, InputError."""
    for name in _OF_FILES:
        if getattr(arguments, name):
            raise UsageError(f"--{name.replace('_', '-')} is of no use with --metadata: no instance is brought")
    if arguments.dest not in (None, "-"):
        raise UsageError("with --metadata there is no DEST: lines go to standard output",
                         advice="Write: dcmsync pull --metadata > FILE")
    with Watch() as watch:
        places = Places(arguments, watch, streams)
        reader = Reader(streams.stdin, require_end=arguments.require_end)

        def write(line: bytes) -> None:
            streams.stdout.write(line + b"\n")

        async def run() -> ExitStatus:
            describing = Describing(places.open, write=write, say=streams.say, warn=streams.warn)
            return await describing.run(Feed(works(reader)))

        status = anyio.run(run)
    if reader.trouble:
        streams.say(f"the input is not complete: {reader.trouble}")
        return max(status, ExitStatus.INCOMPLETE)
    return status
