"""The words of `--help`: examples first, then what there is to choose from, then the exit statuses.

Made from the same rows as the parser and the man pages. Everything is text in, text out.
"""

import textwrap
from collections.abc import Iterable, Mapping

from dcmsync.cli.parse import is_positional, is_switch, optionals, placeholder, positionals, usage
from dcmsync.commands.options import Command, Option
from dcmsync.errors import EXIT_MEANINGS

WIDTH = 80
_COLUMN = 26

HELP = Option(flags=("-h", "--help"), help="show this help")


def overview(verbs: Mapping[str, str], summary: str) -> str:
    """The help of `dcmsync` itself: every verb with its line."""
    lines = [
        f"dcmsync: {summary}",
        "",
        "Examples:",
        *_example("dcmsync query pacs StudyDate=20240101- | dcmsync filter Modality=CT | dcmsync pull ./archive",
                  "bring every CT series since 2024 into a folder"),
        *_example("dcmsync demo", "see all of it work, on this machine alone"),
        "",
        "Usage: dcmsync VERB [OPTION]... [ARGUMENT]...",
        "",
        "Verbs:",
        *_table(verbs.items()),
        "",
        "`dcmsync VERB --help` tells more, `dcmsync --version` which one this is.",
    ]
    return "\n".join(lines) + "\n"


def verb_help(command: Command) -> str:
    """The help of one verb."""
    lines = [f"dcmsync {command.name}: {command.summary}", ""]
    if command.examples:
        lines += ["Examples:", *(line for pair in command.examples for line in _example(*pair)), ""]
    lines += [*textwrap.wrap(f"Usage: {usage(command)}", WIDTH, subsequent_indent="       "), ""]
    for paragraph, is_verbatim in paragraphs(command.description):
        lines += [*(paragraph.splitlines() if is_verbatim else _wrap(paragraph)), ""]
    if positionals(command):
        lines += ["Arguments:", *_table((placeholder(row), help_words(row)) for row in positionals(command)), ""]
    options = (*optionals(command), HELP)
    lines += ["Options:", *_table((signature(row), help_words(row)) for row in options), ""]
    lines += ["Exit statuses:", *_table((str(int(status)), words) for status, words in EXIT_MEANINGS.items())]
    return "\n".join(lines) + "\n"


def paragraphs(text: str) -> list[tuple[str, bool]]:
    """Each paragraph, and whether it is indented and so to be left as it is."""
    parts = [part.strip("\n") for part in text.rstrip().split("\n\n")]
    return [(part, part.startswith("  ")) for part in parts if part]


def signature(row: Option) -> str:
    """`-n, --dry-run`, or `--timeout SECONDS`."""
    flags = ", ".join(sorted(row.flags, key=len))
    return flags if is_switch(row) or is_positional(row) else f"{flags} {placeholder(row)}"


def help_words(row: Option) -> str:
    """The row's help, with its choices and that it may be repeated, where it does not say so itself."""
    words = row.help
    if row.choices and not all(choice in words for choice in row.choices):
        words += f" ({', '.join(row.choices)})"
    if row.repeat and "repeat" not in words and "more than once" not in words:
        words += "; may be given more than once"
    return words


def _wrap(paragraph: str) -> list[str]:
    return textwrap.wrap(" ".join(paragraph.split()), WIDTH, break_on_hyphens=False)


def _example(line: str, meaning: str) -> list[str]:
    return [f"  {line}", *textwrap.wrap(meaning, WIDTH, initial_indent="      ", subsequent_indent="      ")]


def _table(pairs: Iterable[tuple[str, str]]) -> list[str]:
    lines = []
    pairs = list(pairs)
    column = min(_COLUMN, 4 + max(len(left) for left, _ in pairs))
    for left, right in pairs:
        wrapped = textwrap.wrap(right, WIDTH - column, break_on_hyphens=False) or [""]
        if len(left) + 4 > column:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left:<{column - 2}}{wrapped.pop(0)}")
        lines += [" " * column + line for line in wrapped]
    return lines
