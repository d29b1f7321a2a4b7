"""From the words of a command line to what is asked: KEY=VALUE, --level, --since, --until, --return."""

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime

from dcmsync.contract import Level
from dcmsync.errors import UsageError
from dcmsync.plan import levels, window
from dcmsync.plan.levels import Query
from dcmsync.plan.window import Judge
from dcmsync.wire.dataset import tag_of


def question(
    arguments: Namespace, words: Sequence[str], *, needs_key: bool, least: Level = Level.STUDY
) -> tuple[Query, Judge]:
    """What is asked, and which answers are inside --since and --until.

    `needs_key`: a question without any is refused unless --all allows it. The level is what --level says, else that of
    the deepest key, at least `least`. `arguments` has since and until; and where the verb has them level, all and
    return. Raises UsageError.
    """
    given = vars(arguments)
    keys, wanted = levels.read_words(words)
    named = given.get("level")
    level = Level[named.upper()] if named else max(least, levels.deepest([*keys, *wanted]))
    wanted += [keyword for words in given.get("return") or () for keyword in words.split(",")]
    for keyword in (*keys, *wanted):
        tag_of(keyword)
    levels.check(keys, level)
    if level is Level.PATIENT and (arguments.since or arguments.until):
        raise UsageError("--since and --until choose studies, not patients", advice="Ask with --level study")
    bounds = (arguments.since, arguments.until, datetime.now())  # local time, as StudyTime is
    if arguments.since or arguments.until:
        if "StudyDate" in keys:
            raise UsageError("StudyDate and --since or --until ask for two things", advice="Give one of them")
        keys["StudyDate"] = window.study_date(*bounds)
    if needs_key and not (keys or given.get("all")):
        raise UsageError("this would ask for everything", advice="Give a KEY=VALUE or --since, or allow it with --all")
    return levels.Query(level=level, keys=keys, wanted=tuple(wanted)), window.judge(*bounds)
