"""`dcmsync sync`: query, compare and bring in one go."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dcmsync.commands.options import BRINGING, EDITING, TRUST, VERIFY, Command, Option, Streams, positive
from dcmsync.errors import ExitStatus, Refused

if TYPE_CHECKING:
    from dcmsync.commands.places import Places
    from dcmsync.commands.routing import Routing
    from dcmsync.contract import Source
    from dcmsync.plan.levels import Query
    from dcmsync.plan.window import Judge

COMMAND = Command(
    name="sync",
    summary="make a place have what others have: query, compare and bring in one go",
    description=(
        "Asks each SOURCE for what matches KEY=VALUE and --where, compares it with what DEST holds, and brings what is "
        "lacking; writes outcomes as pull does. The last place is the destination; more are given with --to, and what "
        "several of them lack is fetched once. Run again, it moves nothing.\n\n"
        "--trust says by what an instance that DEST holds counts as the same: uids (the default), as many instances as "
        "SOURCE says there are (counts, which spares SOURCE the question), or content: then every file of DEST is read "
        "again, files that have rotted are replaced, and what is not known to have the same content is fetched and "
        "compared octet by octet. Other content is never replaced without --force: it is a conflict.\n\n"
        "With --route there is no DEST: each study or series goes where the rules of [routes.NAME] of the "
        "configuration say (see dcmsync-edits(7)). What they need to know and a query does not tell is read from "
        "one instance of the series, fetched into memory.\n\n"
        "Nothing is ever deleted unless --delete and --max-delete say so, and then only after everything was brought "
        "and proven, SOURCE was asked again, and its list was not cut short."
    ),
    options=(
        Option(flags=("word",), metavar="SOURCE... DEST [KEY=VALUE]", nargs="+", completion="endpoint",
               help="whom to ask, where to bring it, and what must match"),
        Option(flags=("--route",), metavar="NAME",
               help="in place of DEST: each study or series goes where the route of the configuration says"),
        Option(flags=("--to",), metavar="DEST", repeat=True, completion="directory", help="another destination"),
        Option(flags=("--where",), metavar="EXPR", repeat=True, completion="keyword",
               help="only what this filter expression is true of (see dcmsync filter)"),
        Option(flags=("--since",), metavar="WHEN", help="studies from then on: 12h, 2d, 20240131, 2024-01-31T12:00"),
        Option(flags=("--until",), metavar="WHEN", help="studies up to then, inclusive"),
        Option(flags=("--all",), help="allow to ask a remote source for everything"),
        TRUST,
        VERIFY,
        Option(flags=("--delete",), help="remove from DEST, at the end, what matches there and SOURCE does not have"),
        Option(flags=("--max-delete",), metavar="N", parse=positive,
               help="with --delete: when more than N instances would go, none goes"),
        *BRINGING,
        *EDITING,
    ),
    examples=(
        ("dcmsync sync pacs ./archive StudyDate=20240101- --where Modality=CT", "the CT series since New Year"),
        ("dcmsync sync pacs ./archive --since 1d --to /backup", "two copies, fetched once"),
        ("dcmsync sync pacs --route research --since 1d", "to where the rules say"),
        ("dcmsync sync ./incoming ./archive --move", "file what has come in"),
        ("dcmsync sync pacs ./mirror --all --delete --max-delete 100", "a mirror"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Syncs once."""
    import anyio

    from dcmsync.commands.bringing import Bringing
    from dcmsync.commands.places import Places
    from dcmsync.commands.routing import Routing
    from dcmsync.commands.syncing import asked, sorted_words
    from dcmsync.commands.unsound import tell_unsound_of
    from dcmsync.net.patience import Watch
    from dcmsync.transfer.listing import Listing

    sources, destinations, words = sorted_words(arguments)
    with Watch() as watch:
        places = Places(arguments, watch, streams)
        routing = Routing(arguments.route, places) if arguments.route else None
        query, keep = asked(arguments, places, sources, words, routing.route.keys if routing is not None else ())
        opened = [(word, places.open(word)) for word in sources]
        if routing is not None:
            return _sync_routed(arguments, streams, places, routing, opened, query, keep)
        bringing = Bringing(arguments, streams, places, destinations, trust=arguments.trust, sources=dict(opened))
        listing = Listing(opened, query, keep, warn=streams.warn)

        async def sync() -> ExitStatus:
            await listing.run()
            status = tell_unsound_of(sources, places, query, write=bringing.tell, streams=streams)
            status = max(status, await bringing.run(listing.works), listing.status)
            if arguments.delete and status is ExitStatus.DONE:
                _refuse_nothing(listing.things)
                status = await bringing.delete(opened[0], query, keep, most=arguments.max_delete)
            return status

        return bringing.end(anyio.run(sync), truncated=listing.trouble)


def _sync_routed(
    arguments: Namespace, streams: Streams, places: Places, routing: Routing, opened: Sequence[tuple[str, Source]],
    query: Query, keep: Judge,
) -> ExitStatus:  # fmt: skip
    """Syncs once, to where the route leads."""
    import anyio

    from dcmsync.commands.routed import Routed
    from dcmsync.commands.unsound import tell_unsound_of
    from dcmsync.transfer.listing import Listing

    routed = Routed(arguments, streams, places, routing, dict(opened))
    listing = Listing(opened, query, keep, warn=streams.warn)

    async def sync() -> ExitStatus:
        await listing.run()
        sources = [word for word, _ in opened]
        status = tell_unsound_of(sources, places, query, write=routed.printer.write, streams=streams)
        return max(status, await routed.run(listing.works()), listing.status)

    return routed.end(anyio.run(places.receiving, sync), truncated=listing.trouble)


def _refuse_nothing(things: int) -> None:
    """Refuses to take a source at its word that it has nothing at all. Raises Refused."""
    if not things:
        raise Refused("the source says that it has nothing that matches: nothing is deleted", status=0)
