"""`dcmsync diff`: help, options, and what is no question."""

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

    from dcmsync.commands.differing import Differing
    from dcmsync.net.patience import Watch

    if arguments.source == "-" and not streams.stdin_is_pipe:
        raise UsageError("there are no records on standard input", advice="Pipe some in: dcmsync query ... |")
    if arguments.source == "-" and (arguments.key or arguments.since or arguments.until):
        raise UsageError("records are not asked for again", advice="Choose among them: dcmsync filter KEY=VALUE |")
    with Watch() as watch:
        diff = Differing(arguments, streams, watch)
        return anyio.run(diff.sides.places.receiving, diff.run)
