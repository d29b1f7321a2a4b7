"""Writes the man pages and the completions, or says which are stale: `python -m dcmsync.cli.pages [--check]`.

They are checked in, so that a package can be built without running anything, and a test keeps them current.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import dcmsync
from dcmsync.cli import completion, manual
from dcmsync.cli.main import SUMMARY, VERBS, load

ROOT = Path(__file__).resolve().parents[2]


LOCATORS = "man/dcmsync-locators.7"  # written by hand, but for what may be set


def pages() -> Mapping[str, str]:
    """Every generated page: its path below the root of the repository, and its text."""
    commands = [load(name).COMMAND for name in VERBS]
    manuals = {f"man/dcmsync-{each.name}.1": manual.verb_page(each, dcmsync.__version__) for each in commands}
    return {
        "man/dcmsync.1": manual.overview_page(commands, SUMMARY, dcmsync.__version__),
        **manuals,
        LOCATORS: manual.with_settings((ROOT / LOCATORS).read_text(encoding="utf-8")),
        "completions/dcmsync.bash": completion.bash(commands),
        "completions/_dcmsync": completion.zsh(commands),
        "completions/dcmsync.fish": completion.fish(commands),
    }


def stale(wanted: Mapping[str, str], root: Path) -> list[str]:
    """The pages that are missing or differ, and man pages of verbs that are no more."""
    differing = [name for name, text in wanted.items() if _read(root / name) != text]
    left_over = [f"man/{path.name}" for path in (root / "man").glob("dcmsync*.1") if f"man/{path.name}" not in wanted]
    return sorted(differing + left_over)


def main(argv: Sequence[str]) -> int:
    """Writes, or with --check compares. Returns 1 when a page is stale."""
    wanted = pages()
    if list(argv) == ["--check"]:
        names = stale(wanted, ROOT)
        for name in names:
            sys.stdout.write(f"{name} is stale: run `make pages`\n")
        return 1 if names else 0
    for name, text in wanted.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
