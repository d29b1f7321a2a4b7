"""From what was typed to what is needed: option rows become an argparse parser, and its complaints become ours.

Precedence of a value: the command line, then the environment (DCMSYNC_TIMEOUT for --timeout), then the row's default.
The environment is read only for what was not typed, so a bad variable never spoils a command that does not use it.
Nothing is abbreviated: `--time` is an unknown option, today and after the next option is added. Options and
positional arguments may be mixed in any order; `--` ends the options.

Nothing here writes or exits: bad usage is a UsageError, and a call for help is HelpAsked.
"""

from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from dcmsync.commands.options import EVERYWHERE, Command, Option
from dcmsync.errors import UsageError

_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")


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


def parse(command: Command, argv: Sequence[str], environ: Mapping[str, str]) -> Namespace:
    """The values of a verb's rows, by `destination`.

    Raises UsageError, HelpAsked.
    """
    mixed, verbatim = _split_at_dashes(list(argv))
    arguments, rest = build_parser(command).parse_known_args(mixed)
    for word in rest:
        if word.startswith("-") and word != "-":
            raise _no_such_option(command, word)
    _place(command, rest + verbatim, arguments)
    for row in optionals(command):
        if not hasattr(arguments, destination(row)):
            setattr(arguments, destination(row), _default(row, environ))
    return arguments


def build_parser(command: Command) -> ArgumentParser:
    """The argparse parser of a verb's options. It holds no defaults: what was not typed is absent from its namespace.

    It knows no positional arguments, so it leaves them over, in order, wherever they stood: argparse itself takes
    `PLACE --level series KEY=VALUE` for one argument too many.
    """
    parser = _Parser(prog=f"dcmsync {command.name}", add_help=False, allow_abbrev=False, argument_default=SUPPRESS)
    for row in optionals(command):
        _add(parser, row)
    parser.add_argument("-h", "--help", action=_Help, nargs=0)
    return parser


class _Parser(ArgumentParser):
    """Complains by exception, in our words."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), advice=f"See {self.prog} --help")


class _Help(Action):
    """Asks for help at once, before anything else on the line can be found wanting."""

    def __call__(self, *_: object) -> NoReturn:
        raise HelpAsked


def _add(parser: ArgumentParser, row: Option) -> None:
    if is_switch(row):
        parser.add_argument(*row.flags, dest=destination(row), action="store_true", default=SUPPRESS)
        return
    action = "store" if not row.repeat else "extend" if row.nargs in ("*", "+") else "append"
    parser.add_argument(*row.flags, dest=destination(row), type=_reader(row), nargs=row.nargs, action=action)


def _split_at_dashes(argv: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in argv:
        return argv, []
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]


def _place(command: Command, words: list[str], arguments: Namespace) -> None:
    """Gives each positional row its words, in order: each takes what it may, and leaves what later ones must have."""
    places = positionals(command)
    required = [row for row in places if _fewest(row)]
    if len(words) < len(required):
        raise UsageError(f"{placeholder(required[len(words)])} is missing", advice=f"Usage: {usage(command)}")
    for number, row in enumerate(places):
        needed_later = sum(_fewest(later) for later in places[number + 1 :])
        spare = len(words) - needed_later
        taken = spare if row.nargs in ("*", "+") else min(1, spare)
        mine, words = words[:taken], words[taken:]
        setattr(arguments, destination(row), _positional_value(row, mine))
    if words:
        raise UsageError(f"one argument too many: {words[0]!r}", advice=f"Usage: {usage(command)}")


def _fewest(row: Option) -> int:
    return 0 if row.nargs in ("?", "*") else 1


def _positional_value(row: Option, words: list[str]) -> object:
    try:
        values = [_reader(row)(word) for word in words]
    except ArgumentTypeError as error:
        raise UsageError(f"{placeholder(row)}: {error}") from None
    if row.nargs in ("*", "+"):
        return values
    return values[0] if values else row.default


def _reader(row: Option) -> Callable[[str], object]:
    """The row's `parse`, whose ValueError argparse would else replace by a phrase of its own."""

    def read(text: str) -> object:
        if row.choices and text not in row.choices:
            raise ArgumentTypeError(f"{text!r} is none of {', '.join(row.choices)}")
        try:
            return row.parse(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

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
        if text.lower() not in _ON + _OFF:
            raise UsageError(f"{name} in the environment: {text!r} is neither 1 nor 0")
        return text.lower() in _ON
    try:
        value = _reader(row)(text)
    except ArgumentTypeError as error:
        raise UsageError(f"{name} in the environment: {error}") from None
    return [value] if row.repeat or row.nargs in ("*", "+") else value


def _no_such_option(command: Command, word: str) -> UsageError:
    from difflib import get_close_matches  # lazy: costs 4 ms, and only a mistake needs it

    flag = word.split("=", 1)[0]
    flags = [name for row in optionals(command) for name in row.flags]
    near = get_close_matches(flag, flags, n=1)
    advice = f"Did you mean {near[0]}?" if near else f"See dcmsync {command.name} --help"
    return UsageError(f"no such option: {flag}", advice=advice)
