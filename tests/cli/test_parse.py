"""From what was typed to what is needed: values, defaults, and complaints."""

import re

import pytest

from dcmsync.cli.parse import HelpAsked, parse, usage
from dcmsync.commands.options import Command, Option
from dcmsync.errors import UsageError
from tests.cli.toy import COMMAND


def test_usage_names_the_places() -> None:
    assert usage(COMMAND) == "dcmsync toy [OPTION]... ENDING [KEY=VALUE]..."


def test_defaults_fill_what_was_not_typed() -> None:
    given = parse(COMMAND, ["well"], {})
    found = (given.ending, given.keys, given.log_format, given.jobs, given.level)
    assert found == ("well", [], "text", None, None)
    assert (given.dry_run, given.quiet, given.verbose) == (False, False, False)
    assert (given.log_format, given.config) == ("text", None)
    assert getattr(given, "return") == []


@pytest.mark.parametrize(
    "line",
    [
        "well A=1 B=2 -n --level series --return X --return Y",
        "--level series well -n A=1 --return X B=2 --return Y",
        "--level=series -n --return X --return Y -- well A=1 B=2",
    ],
)
def test_options_and_arguments_mix_in_any_order(line: str) -> None:
    given = parse(COMMAND, line.split(), {})
    assert (given.ending, given.keys, given.level, given.dry_run) == ("well", ["A=1", "B=2"], "series", True)
    assert getattr(given, "return") == ["X", "Y"]


def test_after_two_dashes_nothing_is_an_option() -> None:
    given = parse(COMMAND, ["--", "-x", "--level", "--"], {})
    assert (given.ending, given.keys) == ("-x", ["--level", "--"])


def test_one_dash_is_an_argument() -> None:
    assert parse(COMMAND, ["-"], {}).ending == "-"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "ENDING is missing. Usage: dcmsync toy [OPTION]... ENDING [KEY=VALUE]..."),
        ("well --timeou 3", "no such option: --timeou. Did you mean --timeout?"),
        ("well --lev series", "no such option: --lev. Did you mean --level?"),
        ("well --timeout x", "--timeout: 'x' is no duration: write 30, 90s, 10m, 2h or 1d. See dcmsync toy --help"),
        ("well --jobs 0", "--jobs/-j: '0' is not a whole number from 1 up. See dcmsync toy --help"),
        ("well --level patient", "--level: 'patient' is none of study, series. See dcmsync toy --help"),
        ("well --level", "--level: expected one argument. See dcmsync toy --help"),
    ],
)
def test_complaints_say_what_to_do(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(words)}$"):
        parse(COMMAND, line.split(), {})


def row(name: str, nargs: str | None = None) -> Option:
    return Option(flags=(name,), help="", nargs=nargs, parse=int if name == "count" else str)


@pytest.mark.parametrize(
    ("rows", "words", "values"),
    [
        ((row("source", "+"), row("dest")), "a b c", {"source": ["a", "b"], "dest": "c"}),
        ((row("source", "*"), row("dest")), "c", {"source": [], "dest": "c"}),
        ((row("file", "?"),), "", {"file": None}),
        ((row("file", "?"), row("dest")), "a", {"file": None, "dest": "a"}),
        ((row("count"), row("dest")), "1 a", {"count": 1, "dest": "a"}),
        ((row("source", "+"), row("dest")), "a", "DEST is missing"),
        ((row("dest"),), "a b", "one argument too many: 'b'"),
        ((row("count"),), "a", "COUNT: "),
    ],
)
def test_arguments_find_their_places(rows: tuple[Option, ...], words: str, values: dict[str, object] | str) -> None:
    command = Command(name="toy", summary="", description="", options=rows)
    if isinstance(values, str):
        with pytest.raises(UsageError, match=f"^{values}"):
            parse(command, words.split(), {})
    else:
        given = vars(parse(command, words.split(), {}))
        assert {name: given[name] for name in values} == values


def test_help_comes_before_complaints() -> None:
    with pytest.raises(HelpAsked):
        parse(COMMAND, ["-h"], {})
    with pytest.raises(HelpAsked):
        parse(COMMAND, ["--nope", "--help"], {})


def test_environment_gives_defaults_and_the_command_line_wins() -> None:
    environ = {
        "DCMSYNC_TIMEOUT": "2m", "DCMSYNC_DRY_RUN": "1", "DCMSYNC_VERBOSE": "no", "DCMSYNC_RETURN": "Z",
        "DCMSYNC_ENDING": "badly", "DCMSYNC_JOBS": "",
    }  # fmt: skip
    given = parse(COMMAND, ["well"], environ)
    assert (given.timeout, given.dry_run, given.verbose, given.ending, given.jobs) == (120.0, True, False, "well", None)
    assert getattr(given, "return") == ["Z"]
    assert parse(COMMAND, ["well", "--timeout", "5"], environ).timeout == 5.0


@pytest.mark.parametrize(
    ("name", "value"), [("DCMSYNC_TIMEOUT", "soon"), ("DCMSYNC_LEVEL", "patient"), ("DCMSYNC_DRY_RUN", "maybe")]
)
def test_a_bad_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} in the environment: '{value}'"):
        parse(COMMAND, ["well"], {name: value})


def test_a_bad_variable_spoils_nothing_that_was_typed() -> None:
    assert parse(COMMAND, ["well", "--timeout", "5"], {"DCMSYNC_TIMEOUT": "soon"}).timeout == 5.0
