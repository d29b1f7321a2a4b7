"""`dcmsync verify`: help and options."""

from __future__ import annotations

from argparse import Namespace

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
from dcmsync.errors import ExitStatus, UsageError

COMMAND = Command(
    name="verify",
    summary="see whether things are there, whole, and the same; writes outcomes",
    description=(
        "Reads records or outcomes from standard input, and looks whether what each names is where it says: records at "
        "their `source`, outcomes at their `destination`, all of them at the place that --at names. Writes an outcome "
        "for each, `present` or `failed`, in the same order; `message` says how far the proof goes. What a digest "
        "cannot be compared with is present by its UID.\n\n"
        "Of a study or series the number of instances is held against what the record claims; with --at, the instances "
        "are compared one by one with those that the record's own source lists. A digest of the data set (`content`) "
        "decides before one of the file (`digest`), which counts only at the place that it was made of.\n\n"
        "Local files are believed while their size and time are as recorded, unless --read-data reads every octet "
        "again; a file whose octets changed without a trace is `rotten`, is remembered as such, and the next sync "
        "replaces it. Of a remote place --read-data fetches the instances, and keeps nothing. --sample chooses the "
        "instances by a hash of their UID; studies and series are counted whole all the same.\n\n"
        "The exit status is 1 when something is not there, or not the same."
    ),
    options=(
        Option(flags=("--at",), metavar="ENDPOINT", completion="endpoint",
               help="look there, wherever the records say the things are"),
        Option(flags=("--read-data",), help="read every octet again: of files, or by fetching them"),
        Option(flags=("--sample",), metavar="P%|N|n/t",
               help="only some of the instances: P percent, N of them, or the n-th of t slices"),
        Option(flags=("--itemize", "-i"), help="one outcome for each instance, not only for those that are not fine"),
        CACHE,
        NO_CACHE,
        FORMAT,
        TIMEOUT,
        CALLING,
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync verify < pulled.ndjson", "is all that was pulled still there?"),
        ("dcmsync query ./archive | dcmsync verify --read-data --sample 3/30", "a thirtieth of the archive, tonight"),
        ("dcmsync query old-pacs StudyDate=2023* | dcmsync verify --at new-pacs", "has the migration lost anything?"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Verifies what standard input names."""
    if not streams.stdin_is_pipe:
        raise UsageError("verify reads records or outcomes from standard input, and there are none",
                         advice="Write: dcmsync query ./archive | dcmsync verify")
    import anyio

    from dcmsync.commands.verifying import Verifying
    from dcmsync.net.patience import Watch

    with Watch() as watch:
        verify = Verifying(arguments, streams, watch)
        return anyio.run(verify.sides.places.receiving, verify.run)
