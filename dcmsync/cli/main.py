"""The front door: finds the verb, hands it the standard streams, and turns every ending into an exit status.

Verbs are named by string and imported when they are called, so that the table costs nothing. What escapes a verb
ends here:

    DcmsyncError           one line, and the status that the exception carries
    OSError of this disk   one line, 7
    KeyboardInterrupt      130; a verb that uses the network answers the first Ctrl-C itself
    SIGTERM                143
    stdout's reader left   141, without a word
    anything else          70: one line without the exception's text, which may hold patient data; the traceback
                           comes with -v or DCMSYNC_DEBUG=1
"""

import errno
import gc
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from io import BufferedWriter
from types import FrameType
from typing import NamedTuple, Protocol, cast

import dcmsync
from dcmsync.cli import terminal
from dcmsync.cli.parse import HelpAsked, parse
from dcmsync.cli.streams import ReaderGone, abandon, open_stdout, open_streams
from dcmsync.commands.options import Command, Streams
from dcmsync.errors import DcmsyncError, ExitStatus, UsageError


class Row(NamedTuple):
    """Where a verb lives, and its line in `dcmsync --help`."""

    module: str
    summary: str


VERBS: Mapping[str, Row] = {
    "query": Row("dcmsync.commands.query", "ask a place what it holds; writes records"),
    "filter": Row("dcmsync.commands.filter", "keep the records that match; writes the very lines it read"),
    "diff": Row("dcmsync.commands.diff", "tell what DEST lacks of SOURCE, or has otherwise; writes records"),
    "pull": Row("dcmsync.commands.pull", "bring what the records name to this machine; writes outcomes"),
    "push": Row("dcmsync.commands.push", "deliver files, or what records name, to another machine; writes outcomes"),
    "sync": Row("dcmsync.commands.sync", "make a place have what others have: query, compare and bring in one go"),
    "verify": Row("dcmsync.commands.verify", "see whether things are there, whole, and the same; writes outcomes"),
    "dump": Row("dcmsync.commands.dump", "show what is in files: DICOM JSON in a pipe, lines on a terminal"),
    "echo": Row("dcmsync.commands.echo", "see whether a node answers"),
    "doctor": Row(
        "dcmsync.commands.doctor", "see what works with a node, what to set, and what must be registered there"),
    "serve": Row("dcmsync.commands.serve", "be a small DICOM node over a folder"),
    "route": Row("dcmsync.commands.route", "listen, and forward what arrives by rules; writes outcomes"),
    "cache": Row("dcmsync.commands.cache", "see, prove and clear up what is remembered of folders and archives"),
    "config": Row(
        "dcmsync.commands.config", "show where each setting comes from; edit and check the configuration"),
    "demo": Row("dcmsync.commands.demo", "show query, filter and pull at work, on this machine alone"),
    "schema": Row("dcmsync.commands.schema", "print the JSON Schema of the records"),
}

# Records and commands are many and hold no cycles: collecting after every 700 of them costs 4 % of a pull.
_OBJECTS_PER_COLLECTION = 50_000

SUMMARY = "ask what is there, see what is missing, move just that, prove it arrived"

# What this machine says when it is at fault: then an escaped OSError is the user's trouble, not our bug.
_LOCAL_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
)


class Verb(Protocol):
    """What a file of `commands/` offers."""

    COMMAND: Command

    def run(self, arguments: object, streams: Streams) -> ExitStatus:
        """Does the work. Raises DcmsyncError when the run cannot go on."""


class Terminated(BaseException):
    """SIGTERM came. Not an Exception, so that nothing on the way takes it for a failure of one thing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (default: this process's). Returns the exit status; never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    terminal.prepare()
    _silence_warnings()
    messages = _first_messages(words)
    stdout = open_stdout()
    before = _catch_sigterm()
    try:
        status = _dispatch(words, messages, stdout)
        stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the verdict, not a rescue: nothing goes on after this
        status = _verdict(error, messages)
    finally:
        _restore_sigterm(before)
        abandon(stdout)
    return int(status)


def load(name: str) -> Verb:
    """The verb's module. Raises UsageError for a word that is no verb."""
    if name not in VERBS:
        raise _unknown(name)
    return cast(Verb, import_module(VERBS[name].module))  # a module satisfies the protocol; mypy cannot see which


def _dispatch(words: list[str], messages: terminal.Messages, stdout: BufferedWriter) -> ExitStatus:
    if not words:
        messages.block(_help_text(None))
        return ExitStatus.USAGE
    name, rest = words[0], words[1:]
    if name == "--version":
        stdout.write(f"dcmsync {dcmsync.__version__}\n".encode())
        return ExitStatus.DONE
    if name in ("-h", "--help", "help"):
        stdout.write(_help_text(rest[0] if rest and name == "help" else None).encode())
        return ExitStatus.DONE
    if name.startswith("-") and name != "-":
        raise UsageError(f"no verb before {name}", advice="Options come after the verb: dcmsync VERB [OPTION]...")
    verb = load(name)
    messages.verb = name
    try:
        arguments = parse(verb.COMMAND, rest, os.environ)
    except HelpAsked:
        stdout.write(_help_text(name).encode())
        return ExitStatus.DONE
    messages.as_json = arguments.log_format == "json"
    messages.quiet, messages.verbose = arguments.quiet, arguments.verbose
    return verb.run(arguments, open_streams(stdout, messages))


def _help_text(name: str | None) -> str:
    from dcmsync.cli import help as pages  # lazy: only who asks for help pays for it

    if name is None:
        return pages.overview({verb: row.summary for verb, row in VERBS.items()}, SUMMARY)
    return pages.verb_help(load(name).COMMAND)


def _unknown(name: str) -> UsageError:
    from difflib import get_close_matches  # lazy: costs 4 ms, and only a mistake needs it

    near = get_close_matches(name, VERBS, n=1)
    advice = f"Did you mean {near[0]}?" if near else f"The verbs are {', '.join(VERBS)}"
    return UsageError(f"no such verb: {name!r}", advice=advice)


def _first_messages(words: Sequence[str]) -> terminal.Messages:
    """The voice before the options are understood: a wrong option must be reported in the format that was asked for."""
    given = os.environ.get("DCMSYNC_LOG_FORMAT", "")
    for place, word in enumerate(words):
        if word == "--log-format":
            given = words[place + 1] if place + 1 < len(words) else given
        elif word.startswith("--log-format="):
            given = word.partition("=")[2]
    verbose = bool({"-v", "--verbose"} & set(words))
    return terminal.Messages(verb="", as_json=given == "json", quiet=False, verbose=verbose)


def _verdict(error: BaseException, messages: terminal.Messages) -> ExitStatus:
    """The exit status of what escaped, after saying what is to be said. Of a group, the worst trouble counts."""
    worst = max(_leaves(error), key=_status)
    status = _status(worst)
    if status is ExitStatus.BUG and not isinstance(worst, DcmsyncError):
        _report_bug(worst, messages)
    elif isinstance(worst, DcmsyncError):
        messages.error(str(worst))
    elif isinstance(worst, OSError) and status is ExitStatus.LOCAL:
        messages.error(f"this machine says no: {worst.strerror}")
    return status


def _status(error: BaseException) -> ExitStatus:
    match error:
        case DcmsyncError():
            return error.exit_status
        case ReaderGone():
            return ExitStatus.BROKEN_PIPE
        case KeyboardInterrupt():
            return ExitStatus.INTERRUPTED
        case Terminated():
            return ExitStatus.TERMINATED
        case OSError() if error.errno in _LOCAL_ERRNOS:
            return ExitStatus.LOCAL
        case _:
            return ExitStatus.BUG


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            yield from _leaves(child)
    else:
        yield error


def _report_bug(error: BaseException, messages: terminal.Messages) -> None:
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" at {os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place else ""
    wants_traceback = messages.verbose or bool(os.environ.get("DCMSYNC_DEBUG"))
    advice = "" if wants_traceback else ". Run it again with -v to see the traceback, and please report it"
    messages.error(f"this is a bug in dcmsync {dcmsync.__version__}: {type(error).__name__}{where}{advice}")
    if wants_traceback:
        from traceback import format_exception

        messages.block("".join(format_exception(error)))


def _raise_terminated(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _catch_sigterm() -> object:
    try:
        return signal.signal(signal.SIGTERM, _raise_terminated)
    except ValueError:  # not the main thread: somebody else minds the signals
        return None


def _restore_sigterm(before: object) -> None:
    if before is not None:
        signal.signal(signal.SIGTERM, cast(signal.Handlers, before))  # what signal.signal itself returned


def _silence_warnings() -> None:
    """Library warnings may quote values of patients; whoever wants them has -W or PYTHONWARNINGS."""
    if not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")
