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
    summary="see, prove and clear up what is remembered of folders and archives",
    description=(
        "What dcmsync knows of the files of a folder, or the members of a zip archive, is remembered in one file for "
        "each such PLACE, in the user's cache folder or where --cache says, so that only what changed is read again. "
        "Such a file may be deleted, torn or out of date at any time: the result is the same, only slower. Without "
        "PLACE all of them are meant, or the one that --cache names.\n\n"
        "`status` writes a record for each cache: its place, its size, how many files it knows and in which state "
        "they are; of PLACE also how many are the `same` by size, time and inode, `changed`, `new` or `gone`, without "
        "reading any; an archive that was written anew has changed altogether. `verify` reads every octet of the files "
        "of PLACE again, or of a --sample, and writes an outcome for each that is not what it was: `rotten` when its "
        "octets changed though its size and time did not, `changed`, `missing`; the next sync replaces what is rotten. "
        "`rebuild` believes nothing, and reads all headers of PLACE again. `prune` forgets files that are gone, "
        "removes the caches of places that are gone, and gives space back.\n\n"
        "The exit status is 1 when verify finds a file that is not what it was."
    ),
    options=(
        Option(flags=("action",), metavar="ACTION", choices=("status", "verify", "rebuild", "prune"),
               help="what to do with what is remembered"),
        Option(flags=("place",), metavar="PLACE", nargs="?", completion="file", help="the folder, or the zip archive"),
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
    """The places, with the files of their caches; a place is "" where the file does not say it. Raises UsageError."""
    from dcmsync import config
    from dcmsync.cache.store import caches_in, path_in, refuse_others, root_of

    root = os.path.realpath(_path(arguments.place)) if arguments.place else ""
    if arguments.cache:
        path = refuse_others(arguments.cache)
        root = root or root_of(path)
        if not root:
            raise UsageError(f"{arguments.cache} does not say which place it remembers", advice="Name the place, too")
        return [(root, path)]
    if root:
        return [(root, path_in(config.cache_folder(), root))]
    if arguments.action in ("verify", "rebuild"):
        raise UsageError(f"{arguments.action} needs a folder or an archive",
                         advice=f"Write: dcmsync cache {arguments.action} PLACE")  # fmt: skip
    return [(root_of(path), path) for path in caches_in(config.cache_folder())]


def _tend(arguments: Namespace, root: str, path: str, streams: Streams) -> Mapping[str, object]:
    """Looks at one cache, makes it anew or clears it up. Gives the record of what it is then."""
    from dcmsync.cache import upkeep
    from dcmsync.cache.store import Store
    from dcmsync.commands import tending

    if arguments.action == "prune" and not os.path.lexists(root):
        return upkeep.remove(root, path)
    if arguments.action != "rebuild" and not (root and os.path.exists(path)):
        return upkeep.describe(root, path)
    store = Store(root, path, warn=streams.warn)
    if arguments.action == "status":
        is_asked_for = arguments.place is not None and os.path.exists(root)
        return upkeep.describe(root, path, store, tending.differences(root, store) if is_asked_for else None)
    if arguments.action == "prune":
        tending.forget_gone(root, store)
    else:
        tending.rebuild(root, store, lambda path, why: streams.note(f"passed by: {why}"))
    store.shrink()
    return upkeep.describe(root, path, store)


def _verify(arguments: Namespace, streams: Streams, printer: Printer, root: str, path: str) -> ExitStatus:
    """Reads what is remembered of one place again."""
    from dcmsync.cache.store import Store
    from dcmsync.commands import tending
    from dcmsync.plan.proof import portion
    from dcmsync.transfer.rereading import Rereading, Settings

    settings = Settings(place=arguments.place or root, portion=portion(arguments.sample), itemize=arguments.itemize)
    store = Store(root, path, warn=streams.warn)
    with tending.rereading(root, store) as (read_again, take_stock):
        rereading = Rereading(store, settings, read_again=read_again, take_stock=take_stock, write=printer.write)
        status = rereading.run()
    streams.note(f"files read to their end: {rereading.read:,}; not what they were: {rereading.bad:,}")
    return status


def _path(word: str) -> str:
    """The path of a place on this machine. Raises UsageError."""
    from dcmsync import locator

    found = locator.parse(word)
    if not isinstance(found, locator.Folder | locator.Archive):
        raise UsageError(f"{word} is no folder and no archive", advice="Nothing is remembered of other places")
    return found.path
