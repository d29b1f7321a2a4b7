"""From what was typed to what is needed: option rows become an argparse parser, and its complaints become ours.

Precedence of a value: the command line, then the environment (DCMSYNC_TIMEOUT for --timeout), then the row's default.
The environment is read only for what was not typed, so a bad variable never spoils a command that does not use it.
Nothing is abbreviated: `--time` is an unknown option, today and after the next option is added. Options and
positional arguments may be mixed in any order; `--` ends the options.

Nothing here writes or exits: bad usage is a UsageError, and a call for help is HelpAsked.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from dcmsync.commands.options import EVERYWHERE, Command, Option
from dcmsync.errors import UsageError

_SWITCH_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class HelpAsked(Exception):
    """`-h` or `--help` stands among the arguments."""


def rows(command: Command) -> tuple[Option, ...]:
    """Every row of a verb: its own, then those that all verbs share."""
    return command.options + EVERYWHERE


def positionals(command: Command) -> tuple[Option, ...]:
    """The rows of a verb that are told by their place."""
    return tuple(row for row in rows(command) if is_positional(row))


def optionals(command: Command) -> tuple[Option, ...]:
    """The rows of a verb that are told by their flag."""
    return tuple(row for row in rows(command) if not is_positional(row))


def is_positional(row: Option) -> bool:
    """Whether the row is told by its place, not by a flag."""
    return not row.flags[0].startswith("-")


def is_switch(row: Option) -> bool:
    """Whether the row is a flag that takes no value."""
    return not is_positional(row) and row.metavar is None


def destination(row: Option) -> str:
    """The attribute that holds the row's value: its first long flag with underscores, or the positional's name."""
    longs = [flag for flag in row.flags if flag.startswith("--")]
    return (longs[0][2:] if longs else row.flags[0].lstrip("-")).replace("-", "_")


def variable(row: Option) -> str | None:
    """The environment variable that gives the row its default; None for positionals."""
    return None if is_positional(row) else f"DCMSYNC_{destination(row).upper()}"


def placeholder(row: Option) -> str:
    """How the row's value is called in usage lines."""
    return row.metavar or row.flags[0].upper()


def usage(command: Command) -> str:
    """The one-line usage of a verb."""
    words = [f"dcmsync {command.name}", "[OPTION]..."]
    forms = {None: "{}", "?": "[{}]", "*": "[{}]...", "+": "{}..."}
    words += [forms[row.nargs].format(placeholder(row)) for row in positionals(command)]
    return " ".join(words)


def parse(command: Command, argv: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """The values of a verb's rows, by `destination`.

    Raises UsageError, HelpAsked.
    """
    arguments, surplus = build_parser(command).parse_known_intermixed_args(argv)
    if surplus:
        raise _surplus(command, surplus)
    for row in rows(command):
        if not hasattr(arguments, destination(row)):
            setattr(arguments, destination(row), _default(row, environ))
    return arguments


def build_parser(command: Command) -> argparse.ArgumentParser:
    """The argparse parser of a verb. It holds no defaults: what was not typed is absent from its namespace."""
    parser = _Parser(
        prog=f"dcmsync {command.name}",
        usage=usage(command).replace("%", "%%"),
        description=command.summary,
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for row in positionals(command):
        parser.add_argument(
            row.flags[0],
            metavar=placeholder(row),
            type=_reader(row),
            nargs=row.nargs,
            default=argparse.SUPPRESS,
            help=row.help.replace("%", "%%"),
        )
    for row in optionals(command):
        _add_optional(parser, row)
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help")
    return parser


class _Parser(argparse.ArgumentParser):
    """Complains by exception, in our words."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), advice=f"See {self.prog} --help")


class _Help(argparse.Action):
    """Asks for help at once, before anything else on the line can be found wanting."""

    def __call__(self, *_: object) -> NoReturn:
        raise HelpAsked


def _add_optional(parser: argparse.ArgumentParser, row: Option) -> None:
    words = row.help.replace("%", "%%")
    if is_switch(row):
        parser.add_argument(*row.flags, dest=destination(row), action="store_true", default=argparse.SUPPRESS, help=words)
        return
    parser.add_argument(
        *row.flags,
        dest=destination(row),
        metavar=placeholder(row),
        type=_reader(row),
        nargs=row.nargs,
        action=("extend" if row.nargs in ("*", "+") else "append") if row.repeat else "store",
        help=words,
    )


def _reader(row: Option) -> Callable[[str], object]:
    """The row's `parse`, whose ValueError argparse would else replace by a phrase of its own."""

    def read(text: str) -> object:
        if row.choices and text not in row.choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(row.choices)}")
        try:
            return row.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _default(row: Option, environ: Mapping[str, str]) -> object:
    name = variable(row)
    text = environ.get(name, "") if name else ""
    if name and text:
        return _from_environment(row, name, text)
    if row.default is None and is_switch(row):
        return False
    if row.default is None and (row.repeat or row.nargs in ("*", "+")):
        return []
    return list(row.default) if isinstance(row.default, (list, tuple)) and row.repeat else row.default


def _from_environment(row: Option, name: str, text: str) -> object:
    if is_switch(row):
        if text.lower() not in _SWITCH_WORDS:
            raise UsageError(f"{name} in the environment: {text!r} is neither 1 nor 0")
        return _SWITCH_WORDS[text.lower()]
    try:
        value = _reader(row)(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{name} in the environment: {error}") from None
    return [value] if row.repeat or row.nargs in ("*", "+") else value


def _surplus(command: Command, surplus: Sequence[str]) -> UsageError:
    word = surplus[0]
    if not word.startswith("-") or word == "-":
        return UsageError(f"one argument too many: {word!r}", advice=f"Usage: {usage(command)}")
    from difflib import get_close_matches  # lazy: costs 4 ms, and only a mistake needs it

    flag = word.split("=", 1)[0]
    flags = [name for row in optionals(command) for name in row.flags]
    near = get_close_matches(flag, flags, n=1)
    advice = f"Did you mean {near[0]}?" if near else f"See dcmsync {command.name} --help"
    return UsageError(f"no such option: {flag}", advice=advice)
