"""`dcmsync cache`: help, options, and the wiring of what is remembered with the folders that it is remembered of."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dcmsync.commands.options import CACHE, FORMAT, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from dcmsync.commands.printer import Printer

COMMAND = Command(
    name="cache",
    summary="see, prove and clear up what is remembered of folders",
    description=(
        "What dcmsync knows of the files of a folder is remembered in one file for each folder, in the user's cache "
        "folder or where --cache says, so that only what changed is read again. Such a file may be deleted, torn or "
        "out of date at any time: the result is the same, only slower. Without DIR all of them are meant, or the one "
        "that --cache names.\n\n"
        "`status` writes a record for each cache: its folder, its size, how many files it knows and in which state "
        "they are; of DIR also how many are the `same` by size, time and inode, `changed`, `new` or `gone`, without "
        "reading any. `verify` reads every octet of the files of DIR again, or of a --sample, and writes an outcome "
        "for each that is not what it was: `rotten` when its octets changed though its size and time did not, "
        "`changed`, `missing`; the next sync replaces what is rotten. `rebuild` believes nothing, and reads all "
        "headers of DIR again. `prune` forgets files that are gone, removes the caches of folders that are gone, and "
        "gives space back.\n\n"
        "The exit status is 1 when verify finds a file that is not what it was."
    ),
    options=(
        Option(flags=("action",), metavar="ACTION", choices=("status", "verify", "rebuild", "prune"),
               help="what to do with what is remembered"),
        Option(flags=("folder",), metavar="DIR", nargs="?", completion="directory", help="the folder"),
        Option(flags=("--sample",), metavar="P%|N|n/t",
               help="verify only some of the instances: P percent, N of them, or the n-th of t slices"),
        Option(flags=("--itemize", "-i"), help="verify writes an outcome for each instance, also when it is fine"),
        CACHE,
        FORMAT,
    ),
    examples=(
        ("dcmsync cache status", "what is remembered, and of which folders"),
        ("dcmsync cache verify ./archive --sample 3/30", "read a thirtieth of the archive, tonight"),
        ("dcmsync cache prune", "clear up"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Does what the action says, cache by cache."""
    from dcmsync.commands.printer import Printer

    if arguments.action != "verify" and (arguments.sample or arguments.itemize):
        raise UsageError("--sample and --itemize go with verify")
    printer = Printer(streams, arguments.format, shown="table")
    caches = _caches(arguments)
    if arguments.action == "verify":
        status = _verify(arguments, streams, printer, *caches[0])
    else:
        status = ExitStatus.DONE
        for root, path in caches:
            printer.write(_tend(arguments, root, path, streams))
    printer.end(complete=True)
    return status


def _caches(arguments: Namespace) -> list[tuple[str, str]]:
    """The folders, with the files of their caches; a folder is "" where the file does not say it. Raises UsageError."""
    from dcmsync import config
    from dcmsync.cache.store import caches_in, path_in, refuse_others, root_of
    from dcmsync.commands.places import folder

    root = os.path.realpath(folder(arguments.folder)) if arguments.folder else ""
    if arguments.cache:
        path = refuse_others(arguments.cache)
        root = root or root_of(path)
        if not root:
            raise UsageError(f"{arguments.cache} does not say which folder it remembers", advice="Name the folder, too")
        return [(root, path)]
    if root:
        return [(root, path_in(config.cache_folder(), root))]
    if arguments.action in ("verify", "rebuild"):
        raise UsageError(f"{arguments.action} needs a folder", advice=f"Write: dcmsync cache {arguments.action} DIR")
    return [(root_of(path), path) for path in caches_in(config.cache_folder())]


def _tend(arguments: Namespace, root: str, path: str, streams: Streams) -> Mapping[str, object]:
    """Looks at one cache, makes it anew or clears it up. Gives the record of what it is then."""
    from dcmsync.cache import upkeep
    from dcmsync.cache.store import Store
    from dcmsync.endpoints.folder.tree import differences, forget_gone

    if arguments.action == "prune" and not os.path.lexists(root):
        return upkeep.remove(root, path)
    if arguments.action != "rebuild" and not (root and os.path.exists(path)):
        return upkeep.describe(root, path)
    store = Store(root, path, warn=streams.warn)
    if arguments.action == "status":
        is_asked_for = arguments.folder is not None and os.path.isdir(root)
        return upkeep.describe(root, path, store, differences(root, store) if is_asked_for else None)
    if arguments.action == "prune":
        forget_gone(root, store)
    else:
        from dcmsync.endpoints.folder.stock import take_stock

        take_stock(root, store, skipped=lambda path, why: streams.note(f"passed by: {why}"), anew=True)
    store.shrink()
    return upkeep.describe(root, path, store)


def _verify(arguments: Namespace, streams: Streams, printer: Printer, root: str, path: str) -> ExitStatus:
    """Reads what is remembered of one folder again."""
    from functools import partial

    from dcmsync.cache.digest import read_whole
    from dcmsync.cache.store import Store
    from dcmsync.endpoints.folder.examination import read_again
    from dcmsync.endpoints.folder.stock import take_stock
    from dcmsync.plan.proof import portion
    from dcmsync.transfer.rereading import Rereading, Settings

    settings = Settings(place=arguments.folder or root, portion=portion(arguments.sample), itemize=arguments.itemize)
    store = Store(root, path, warn=streams.warn)
    rereading = Rereading(
        store,
        settings,
        read_again=lambda known: read_again(root, known.path, known, read_whole),
        take_stock=partial(take_stock, root, store),
        write=printer.write,
    )
    status = rereading.run()
    streams.note(f"files read to their end: {rereading.read:,}; not what they were: {rereading.bad:,}")
    return status
