"""Man pages in roff (man(7)), made from the rows of the verbs.

Only the most portable macros are used, so that groff, mandoc and the converters of the web all read them. The text
depends on nothing but the rows: no date, no terminal, no locale.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from dcmsync.cli.help import HELP, help_words, paragraphs
from dcmsync.cli.parse import is_positional, is_switch, optionals, placeholder, positionals, variable
from dcmsync.commands.options import EVERYWHERE, Command, Option
from dcmsync.config import Config
from dcmsync.errors import EXIT_MEANINGS
from dcmsync.keys import Key, inner, keys, sections
from dcmsync.quirks import FLAGS, PROFILES
from dcmsync.toml import written

SETTINGS_BEGIN, SETTINGS_END = (rf'.\" {word}: made by `make pages`' for word in ("settings", "end of settings"))
_EDITS = "dcmsync-edits(7)"
_PIPELINE = "dcmsync query pacs StudyDate=20240101- | dcmsync filter Modality=CT | dcmsync pull ./archive"

OVERVIEW = """\
dcmsync moves medical images between places, the way rsync moves files: ask what is there, see what is missing, move \
just that, prove it arrived. Its verbs read and write records, one JSON object a line, so that jq, grep, split, make \
and parallel work in the middle. The records are described in dcmsync-records(5), the names of places in \
dcmsync-locators(7).

Standard output holds records and nothing else. Messages, progress and questions go to standard error. Standard input \
is read only by verbs that take records, and only when it is a pipe or a file, or `-` is given.

What was done stays done: after an interruption the same command goes on from there. Exit status 0 means that every \
instance is proven to be at the destination."""

_VARIABLES = (
    ("DCMSYNC_CONFIG", "the configuration file, instead of config.toml below the XDG configuration folder"),
    ("DCMSYNC_DEBUG", "1 shows the traceback of a bug; it may hold values of patients"),
    ("NO_COLOR", "when set and not empty, no colour is sent"),
    ("XDG_CONFIG_HOME, XDG_CACHE_HOME, XDG_STATE_HOME", "where the configuration, the cache and the history lie"),
)


def overview_page(commands: Iterable[Command], summary: str, version: str) -> str:
    """dcmsync(1)."""
    commands = list(commands)
    examples = ((_PIPELINE, "Bring every CT series since 2024 into a folder."),
                ("dcmsync demo", "See all of it work, on this machine alone."))
    return _page(
        _title("DCMSYNC", version),
        _section("NAME", [f"dcmsync \\- {_text(summary)}"]),
        _section("SYNOPSIS", [r"\fBdcmsync\fR \fIVERB\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]..."]),
        _section("EXAMPLES", _examples(examples)),
        _section("DESCRIPTION", _prose(OVERVIEW)),
        _section("VERBS", _verbs(commands)),
        _section("OPTIONS", ["Every verb takes these:", *_options((*EVERYWHERE, HELP))]),
        _exit_status(),
        _section("ENVIRONMENT", _environment(EVERYWHERE)),
        _see_also([f"dcmsync-{each.name}(1)" for each in commands], more=[_EDITS]),
    )


def verb_page(command: Command, version: str) -> str:
    """dcmsync-VERB(1)."""
    name = f"dcmsync-{command.name}"
    return _page(
        _title(name.upper(), version),
        _section("NAME", [f"{_text(name)} \\- {_text(command.summary)}"]),
        _section("SYNOPSIS", [_synopsis(command)]),
        _section("EXAMPLES", _examples(command.examples)) if command.examples else [],
        _section("DESCRIPTION", _prose(command.description)),
        _section("OPTIONS", [*_arguments(positionals(command)), *_options((*optionals(command), HELP))]),
        _exit_status(),
        _section("ENVIRONMENT", _environment(optionals(command))),
        _see_also(["dcmsync(1)"], more=[_EDITS] if _is_about_edits(command) else []),
    )


def with_settings(page: str) -> str:
    """A page written by hand, with what may be set between its two marks."""
    before, mark, rest = page.partition(f"{SETTINGS_BEGIN}\n")
    _, end, after = rest.partition(f"{SETTINGS_END}\n")
    if not (mark and end):
        raise ValueError("the page has no place for the settings")
    return "".join((before, mark, _page(_settings()), end, after))


def _settings() -> list[str]:
    lines: list[str] = []
    for name, (kind, is_named) in sections(Config).items():
        lines += _table(kind, f"{name}.NAME" if is_named else name)
    lines += [".SS Quirks", "In the list", r"\fBquirks\fR", "of an endpoint there may be:"]
    lines += [line for flag, words in FLAGS.items() for line in _item(_bold(flag), words)]
    lines += [".SS Profiles", "The value of", r"\fBprofile\fR", "is one of these. Only what is called tried was tried:"]
    for name, profile in PROFILES.items():
        lines += _item(_bold(name), f"{profile.server}; {profile.source}")
    return lines


def _table(kind: type[Struct], path: str, *, is_one_of_many: bool = False) -> list[str]:
    """What may be set in one table, then in those within it."""
    lines = [f".SS [[{path}]]" if is_one_of_many else f".SS [{path}]", _text((kind.__doc__ or "").splitlines()[0])]
    within: list[str] = []
    for key in keys(kind):
        table, how = inner(key.annotation)
        if table is None:
            lines += _item(_bold(key.name), _said(key))
        else:
            lines += _item(_bold(key.name), f"{key.words}: tables, see below")
            below = f"{path}.{key.name}.NAME" if how == "named" else f"{path}.{key.name}"
            within += _table(table, below, is_one_of_many=how == "many")
    return lines + within


def _said(key: Key) -> str:
    needed = "; it must be there" if key.is_required else ""
    example = f". As in `{key.name} = {written(key.example)}`" if key.example not in (None, "", ()) else ""
    return f"{key.words}{needed}{example}"


def _page(*parts: list[str]) -> str:
    return "\n".join(line for part in parts for line in part) + "\n"


def _title(name: str, version: str) -> list[str]:
    return [
        '.\\" Generated from the option rows by `make pages`; do not edit.',
        f'.TH "{_text(name)}" "1" "" "dcmsync {version}" "dcmsync manual"',
        ".nh",
        ".ad l",
    ]


def _section(name: str, lines: Iterable[str]) -> list[str]:
    return [f".SH {name}", *lines]


def _synopsis(command: Command) -> str:
    forms = {None: "{}", "?": "[{}]", "*": "[{}]...", "+": "{}..."}
    words = [_bold(f"dcmsync {command.name}"), r"[\fIOPTION\fR]..."]
    words += [forms[row.nargs].format(_italic(placeholder(row))) for row in positionals(command)]
    return " ".join(words)


def _examples(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [line for command, meaning in pairs for line in (".PP", _text(_sentence(meaning)), *_verbatim([command]))]


def _verbs(commands: Iterable[Command]) -> list[str]:
    return [line for each in commands for line in _item(_bold(f"dcmsync-{each.name}") + "(1)", each.summary)]


def _prose(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph, is_verbatim in paragraphs(text):
        lines += _verbatim(paragraph.splitlines()) if is_verbatim else [".PP", _text(" ".join(paragraph.split()))]
    return lines


def _verbatim(lines: Iterable[str]) -> list[str]:
    return [".PP", ".RS 4", ".nf", *(_text(line) for line in lines), ".fi", ".RE"]


def _arguments(rows: Iterable[Option]) -> list[str]:
    return [line for row in rows for line in _item(_italic(placeholder(row)), help_words(row))]


def _options(rows: Iterable[Option]) -> list[str]:
    return [line for row in rows for line in _item(_flags(row), help_words(row))]


def _flags(row: Option) -> str:
    flags = ", ".join(_bold(flag) for flag in sorted(row.flags, key=len))
    return flags if is_switch(row) or is_positional(row) else f"{flags} {_italic(placeholder(row))}"


def _exit_status() -> list[str]:
    items = [line for status, words in EXIT_MEANINGS.items() for line in _item(_bold(str(int(status))), words)]
    return _section("EXIT STATUS", [*items, ".PP", "When several apply, the highest number wins."])


def _environment(rows: Iterable[Option]) -> list[str]:
    named: Mapping[str, str] = dict(_VARIABLES)
    lines = ["Each option has a variable that gives its default; the command line wins."]
    for row in rows:
        name = variable(row)
        if name and name not in named:
            lines += _item(_bold(name), f"the same as {max(row.flags, key=len)}{' (1 or 0)' if is_switch(row) else ''}")
    return lines + [line for name, words in _VARIABLES for line in _item(_bold(name), words)]


def _is_about_edits(command: Command) -> bool:
    """Whether a verb edits, by an option or by what it is told of."""
    return _EDITS in command.description or any("--edit" in option.flags for option in command.options)


def _see_also(pages: list[str], more: Sequence[str] = ()) -> list[str]:
    pages = [*pages, "dcmsync-records(5)", "dcmsync-locators(7)", *more]
    return _section("SEE ALSO", [", ".join(_bold(page[:-3]) + page[-3:] for page in pages)])


def _item(left: str, words: str) -> list[str]:
    return [".TP", left, _text(words)]


def _sentence(words: str) -> str:
    words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "?", "!", ":")) else f"{words}."


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _italic(text: str) -> str:
    return rf"\fI{_text(text)}\fR"


def _text(text: str) -> str:
    """Plain text for roff; what stands between backticks becomes bold."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    escaped = escaped.replace("~", "\\(ti").replace("}/{", "}/\\:{")  # a layout may break after a slash
    pieces = escaped.split("`")
    if len(pieces) % 2:
        escaped = "".join(rf"\fB{piece}\fR" if place % 2 else piece for place, piece in enumerate(pieces))
    return rf"\&{escaped}" if escaped.startswith(".") else escaped
