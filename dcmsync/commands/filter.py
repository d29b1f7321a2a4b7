"""`dcmsync filter`: help, options, and the wiring of `plan` (what stays) with `records` (how lines pass)."""

from argparse import Namespace
from typing import TYPE_CHECKING

from dcmsync.commands.options import REQUIRE_END, Command, Option, Streams, positive
from dcmsync.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from dcmsync.plan.expression import Selectors
    from dcmsync.plan.select import Condition, Ranking

COMMAND = Command(
    name="filter",
    summary="keep the records that match; writes the very lines it read",
    description=(
        "Reads records from standard input and writes those that every EXPR is true of, "
        "octet for octet as they came.\n\n"
        "EXPR is KEY=VALUE (DICOM matching: * and ?, LOW-HIGH for dates, times and numbers, A,B for alternatives), "
        "KEY!=VALUE, KEY<VALUE, KEY<=VALUE, KEY>VALUE, KEY>=VALUE, KEY~REGEX, KEY (present and not empty), "
        "@NAME (a selector of the configuration), or ! before any of these. Quote < > ! * and ? from the shell. "
        "KEY is a DICOM keyword, or one of our own keys, in lower case. A record without the key matches KEY!=VALUE "
        "and !KEY, and nothing else.\n\n"
        "What is not known is never guessed: records without a count are not chosen by --max-images, --smallest and "
        "--largest, nor those without a date by --since, --until and --newest; how many is said on standard error. "
        "--smallest, --largest, --newest and --sample N write only when the input has ended."
    ),
    options=(
        Option(flags=("expression",), metavar="EXPR", nargs="*", completion="keyword",
               help="what must be true of a record"),
        Option(flags=("--any",), help="keep records that any EXPR is true of, not all"),
        Option(flags=("--not",), help="keep the records that would be dropped by EXPR, and drop the others"),
        Option(flags=("--smallest",), metavar="N", parse=positive, help="of what matches, the N with fewest instances"),
        Option(flags=("--largest",), metavar="N", parse=positive, help="of what matches, the N with most instances"),
        Option(flags=("--newest",), metavar="N", parse=positive, help="of what matches, the N latest by date and time"),
        Option(flags=("--per",), metavar="LEVEL", choices=("patient", "study"),
               help="N of each patient or study, with --smallest, --largest and --newest"),
        Option(flags=("--max-images",), metavar="N", parse=positive, help="drop what has more than N instances"),
        Option(flags=("--since",), metavar="WHEN", help="studies from then on: 12h, 2d, 20240131, 2024-01-31T12:00"),
        Option(flags=("--until",), metavar="WHEN", help="studies up to then, inclusive"),
        Option(flags=("--shard",), metavar="K/N", help="part K of N, split by a hash of StudyInstanceUID"),
        Option(flags=("--sample",), metavar="N|P%",
               help="N records, or P percent; the same ones every time, chosen by a hash of their UID"),
        Option(flags=("--explain",), help="say on stderr which line was dropped by what; with -v, also its value"),
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync query pacs StudyDate=20240101- | dcmsync filter ModalitiesInStudy=CT,MR", "studies with CT or MR"),
        ("dcmsync filter Modality=CT '!SeriesDescription~(?i)scout' --largest 1 --per study < all.ndjson",
         "the largest CT series of each study that is no scout"),
        ("dcmsync filter outcome=failed retry=true < log.ndjson | dcmsync pull ./archive", "try again what may work"),
        ("dcmsync filter --shard 2/4 < all.ndjson", "the second of four parts that together are everything"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Filters standard input to standard output."""
    from dcmsync.plan.sift import Sift
    from dcmsync.records.sieve import Sieve, Skimmer
    from dcmsync.records.stream import Writer

    if not streams.stdin_is_pipe:
        raise UsageError("filter reads records from standard input, and there is none",
                         advice="Write: dcmsync query ENDPOINT | dcmsync filter EXPR")
    conditions, ranking = _choices(arguments)
    sift = Sift(arguments.expression, selectors=_selectors(arguments), joined_by="any" if arguments.any else "all",
                is_negated=vars(arguments)["not"], conditions=conditions, ranking=ranking)
    skimmer = Skimmer(sift.keys)
    blame = sift.blame(skimmer.getter, with_values=arguments.verbose)
    sieve = Sieve(streams.stdin, Writer(streams.stdout), skimmer, sift.bind(skimmer.getter),
                  on_drop=(lambda number, glimpse: streams.say(f"line {number}: {blame(glimpse)}"))
                  if arguments.explain else None,
                  holder=ranking, holder_keys=ranking.keys if ranking else ())
    trouble = sieve.run(require_end=arguments.require_end)
    for warning in sift.warnings(sieve.early_keys()):
        streams.say(warning)
    if trouble:
        streams.say(f"the input is not complete: {trouble}")
    return ExitStatus.INCOMPLETE if trouble else ExitStatus.DONE


def _choices(arguments: Namespace) -> "tuple[list[Condition], Ranking[tuple[int, bytes]] | None]":
    """What is asked beyond expressions. Raises UsageError."""
    options = ("max_images", "since", "until", "shard", "sample", "smallest", "largest", "newest", "per")
    if all(getattr(arguments, option) is None for option in options):
        return [], None
    from dcmsync.plan import select

    return select.choices({option: getattr(arguments, option) for option in options}, _now)


def _now() -> "datetime":
    from datetime import datetime

    return datetime.now()  # local time, as StudyDate and StudyTime are


def _selectors(arguments: Namespace) -> "Selectors":
    """The selectors of the configuration, which is read only when an expression names one. Raises UsageError."""
    if not any(expression.lstrip("!").startswith("@") for expression in arguments.expression):
        return {}
    from os import environ

    from dcmsync.config import load

    return {name: selector.lists() for name, selector in load(arguments.config, environ).selectors.items()}
