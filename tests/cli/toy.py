"""A verb that ends in whatever way its first argument says: for tests of the front door. `python toy.py toy WORD`."""

import sys
import time
from argparse import Namespace

from dcmsync.cli import main
from dcmsync.commands.options import DRY_RUN, JOBS, TIMEOUT, Command, Option, Streams
from dcmsync.errors import ExitStatus, Refused, Unreachable

COMMAND = Command(
    name="toy",
    summary="play",
    description="Plays.\n\nAt 100% of what is there:\n\n    as it stands",
    options=(
        Option(flags=("ending",), help="how to end", completion="endpoint"),
        Option(flags=("keys",), metavar="KEY=VALUE", nargs="*", help="what it's [about]: all", completion="keyword"),
        TIMEOUT,
        JOBS,
        DRY_RUN,
        Option(flags=("--level",), metavar="LEVEL", choices=("study", "series"), help="how deep"),
        Option(flags=("--return",), metavar="KEYWORD", repeat=True, help="what else"),
        Option(flags=("--into",), metavar="FOLDER", completion="directory", help="where to"),
    ),
    examples=(("dcmsync toy well", "play well"),),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Ends."""
    match arguments.ending:
        case "bug":
            raise KeyError("Doe^Jane")
        case "refused":
            raise Unreachable("pacs: connection refused", advice="Check the port")
        case "group":
            raise ExceptionGroup("both", [Refused("one", status=0xA700), ExceptionGroup("in", [Unreachable("two")])])
        case "full":
            raise OSError(28, "No space left on device", "/data/Doe^Jane")
        case "talk":
            streams.say("hello\x1b]0;title\x07")
            streams.warn("beware")
            streams.note("more")
        case "yes":
            while True:
                streams.stdout.write(b"y\n")
                streams.stdout.flush()
        case "sleep":
            streams.say("asleep")
            time.sleep(60)
        case "bar":
            meter = streams.meter()
            meter.total(1, False)
            streams.stdout.write(b"a record\n")
            streams.stdout.flush()
            streams.say("a word")
            meter.close()
        case "stdin":
            streams.stdout.write(f"{streams.stdin_is_pipe}\n".encode())
            if streams.stdin_is_pipe:
                streams.stdout.write(streams.stdin.read())
        case "warn":
            import warnings

            warnings.warn("value of Doe^Jane", stacklevel=1)
        case _:
            streams.stdout.write(f"{sorted(vars(arguments).items())}\n".encode())
    return ExitStatus.DONE


if __name__ == "__main__":
    main.VERBS = {**main.VERBS, "toy": main.Row("toy", "play")}
    sys.exit(main.main())
