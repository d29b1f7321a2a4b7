"""What `sync` is asked to do: whom to ask, where to bring it, and which of the answers count.

Owns what the words of its command line mean together. Refuses to open a place, and to move anything.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from msgspec import structs

from dcmsync.commands.places import Places
from dcmsync.commands.question import question
from dcmsync.contract import Level
from dcmsync.errors import UsageError
from dcmsync.plan.expression import bind, join, parse, questions
from dcmsync.plan.levels import Query, deepest, is_key
from dcmsync.plan.window import Judge

_OF_ROUTES = ("to", "delete", "edit", "edit_file", "remap_uids", "salt_file", "keep_originals")


def sorted_words(arguments: Namespace) -> tuple[list[str], list[str], list[str]]:
    """The sources, the destinations (none with --route), and the words that say what must match. Raises UsageError."""
    places = [word for word in arguments.word if not is_key(word)]
    words = [word for word in arguments.word if is_key(word)]
    if arguments.route:
        return _of_route(arguments, places), [], words
    if len(places) < 2:
        raise UsageError("sync needs a SOURCE and a DEST", advice="Write: dcmsync sync SOURCE DEST [KEY=VALUE]...")
    if "-" in places:
        raise UsageError("sync asks its sources itself", advice="For the records on standard input: dcmsync pull DEST")
    *sources, last = places
    if bool(arguments.delete) != bool(arguments.max_delete):
        raise UsageError("--delete and --max-delete go together", advice="Say how many instances may go at most")
    if arguments.delete and len(sources) > 1:
        raise UsageError("--delete needs exactly one SOURCE", advice="What one lacks, another may have")
    return sources, list(dict.fromkeys([last, *(arguments.to or ())])), words


def asked(
    arguments: Namespace, places: Places, sources: Sequence[str], words: Sequence[str], routed_by: Sequence[str]
) -> tuple[Query, Judge]:
    """What the sources are asked for, and which of their answers count; `routed_by`: what a route needs besides.

    Raises UsageError.
    """
    expressions = [parse(text, places.selectors) for text in arguments.where or ()]
    keys = tuple(dict.fromkeys(asked.key for expression in expressions for asked in questions(expression)))
    are_remote = not all(places.is_local(word) for word in sources)
    least = max(deepest(keys), min(deepest(routed_by), Level.SERIES))
    query, is_inside = question(arguments, words, needs_key=are_remote, least=least)
    if arguments.delete and query.level is Level.INSTANCE:
        raise UsageError("--delete compares whole series", advice="Leave out what chooses single instances")
    judge = join("all", [is_inside, *(bind(each, lambda key: lambda thing: thing.get(key)) for each in expressions)])
    return structs.replace(query, wanted=(*query.wanted, *keys, *routed_by)), judge


def _of_route(arguments: Namespace, places: list[str]) -> list[str]:
    """The sources, where a route says whereto. Raises UsageError."""
    for option in _OF_ROUTES:
        if getattr(arguments, option):
            name = option.replace("_", "-")
            raise UsageError(f"--route and --{name} ask for two things", advice=f"Say in the route what --{name} says")
    if not places or "-" in places:
        raise UsageError("sync --route needs a SOURCE", advice="Write: dcmsync sync SOURCE --route NAME [KEY=VALUE]...")
    return places
