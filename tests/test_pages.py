"""Man pages and completions: current, complete, and loaded by the real shells without complaint."""

import os
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from dcmsync.cli import completion, manual, pages
from dcmsync.cli.main import VERBS, load
from dcmsync.cli.parse import optionals, variable
from dcmsync.errors import EXIT_MEANINGS
from tests.cli.toy import COMMAND as TOY

ROOT = Path(__file__).resolve().parent.parent
Require = Callable[[str], str]


def flags_of(verb: str) -> list[str]:
    return [flag for row in optionals(load(verb).COMMAND) for flag in row.flags]


def test_pages_are_current() -> None:
    assert pages.stale(pages.pages(), ROOT) == [], "run `make pages`"


def test_every_page_is_installed_where_its_reader_looks() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    installed = table["shared-data"]
    found = {path.relative_to(ROOT).as_posix() for room in ("man", "completions") for path in (ROOT / room).iterdir()}
    assert set(installed) == found | set(pages.pages())
    for source, target in installed.items():
        if source.startswith("man/"):
            assert target == f"share/man/man{source[-1]}/{source[4:]}"


def test_a_stale_page_is_named(tmp_path: Path) -> None:
    (tmp_path / "man").mkdir()
    (tmp_path / "man" / "dcmsync-gone.1").write_text("")
    (tmp_path / "man" / "dcmsync.1").write_text("old")
    assert pages.stale({"man/dcmsync.1": "new"}, tmp_path) == ["man/dcmsync-gone.1", "man/dcmsync.1"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_and_status_is_in_the_man_page(verb: str) -> None:
    text = (ROOT / "man" / f"dcmsync-{verb}.1").read_text().replace("\\-", "-")
    for row in optionals(load(verb).COMMAND):
        assert all(rf"\fB{flag}\fR" in text for flag in row.flags)
        assert f"{variable(row)}" in text
    for status in EXIT_MEANINGS:
        assert f"\\fB{int(status)}\\fR" in text
    for part in ("NAME", "SYNOPSIS", "EXAMPLES", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "SEE ALSO"):
        assert f".SH {part}\n" in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_of_edits_is_named_where_there_are_some_and_nowhere_else(verb: str) -> None:
    last = (ROOT / "man" / f"dcmsync-{verb}.1").read_text().rpartition(".SH SEE ALSO")[2].replace("\\", "")
    assert ("dcmsync-edits" in last) is (verb in ("pull", "push", "sync", "route"))


def test_every_verb_is_in_the_overview() -> None:
    text = (ROOT / "man" / "dcmsync.1").read_text()
    for verb, row in VERBS.items():
        assert f"dcmsync\\-{verb}" in text
        assert row.summary == load(verb).COMMAND.summary, f"{verb}: the table in main.py and the verb differ"


@pytest.mark.parametrize("name", ["dcmsync.bash", "_dcmsync", "dcmsync.fish"])
def test_every_verb_and_option_is_in_the_completions(name: str) -> None:
    text = (ROOT / "completions" / name).read_text()
    for verb in VERBS:
        assert verb in text
        for flag in flags_of(verb):
            if name == "dcmsync.fish":
                flag = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            assert flag in text, (verb, flag)


@pytest.mark.parametrize("path", sorted((ROOT / "man").glob("*.[0-9]")), ids=lambda path: path.name)
def test_man_reads_it_without_a_warning(path: Path, require: Require) -> None:
    man = require("man")
    env = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}
    done = subprocess.run([man, "--warnings", "-l", path], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout


def test_roff_keeps_what_is_special_in_roff() -> None:
    text = manual.verb_page(TOY, "1")
    assert "what it\\(aqs [about]: all" in text
    assert "\n.nf\n    as it stands\n.fi" in text


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with the completions of `toy`, a configuration with one endpoint, and a folder to complete."""
    (tmp_path / "dcmsync.bash").write_text(completion.bash([TOY]))
    (tmp_path / "_dcmsync").write_text(completion.zsh([TOY]))
    (tmp_path / "dcmsync.fish").write_text(completion.fish([TOY]))
    (tmp_path / "dcmsync").mkdir()
    (tmp_path / "dcmsync" / "config.toml").write_text('[endpoints.mypacs]\nlocator = "A@b:1"\n[selectors.x]\n')
    (tmp_path / "my folder").mkdir()
    (tmp_path / "my file").touch()
    return tmp_path


ASKED = [
    (["to"], ["toy"]),
    (["toy", "--le"], ["--level"]),
    (["toy", "--level", ""], ["series", "study"]),
    (["toy", "here", "Mod"], ["Modality=", "ModalitiesInStudy="]),
    (["toy", "--into", "my"], ["my folder/"]),
    (["toy", "--config", "my f"], ["my file", "my folder/"]),
    (["toy", "my"], ["my folder/", "mypacs"]),
    (["help", ""], ["toy"]),
]


@pytest.mark.parametrize(("words", "answers"), ASKED)
def test_bash_completes(scripts: Path, require: Require, words: list[str], answers: list[str]) -> None:
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dcmsync; printf "%s\\n" "${COMPREPLY[@]}"'
    line = [require("bash"), "--norc", "-uc", f"source dcmsync.bash; {ask}", "bash", "dcmsync", *words]
    env = {"PATH": os.environ["PATH"], "HOME": str(scripts), "XDG_CONFIG_HOME": str(scripts)}
    done = subprocess.run(line, cwd=scripts, env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == sorted(answer.rstrip("/") for answer in answers)


@pytest.mark.parametrize(("words", "answers"), ASKED)
def test_fish_completes(scripts: Path, require: Require, words: list[str], answers: list[str]) -> None:
    line = " ".join(["dcmsync", *(word.replace(" ", "\\ ") for word in words)])
    env = {"PATH": os.environ["PATH"], "HOME": str(scripts), "XDG_CONFIG_HOME": str(scripts)}
    done = subprocess.run(
        [require("fish"), "--no-config", "-c", "source dcmsync.fish; complete -C $argv[1]", line],
        cwd=scripts, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {answer.partition("\t")[0].replace("\\ ", " ") for answer in done.stdout.splitlines()}
    assert done.stderr == ""
    assert set(answers) <= found


def test_zsh_loads_and_answers(scripts: Path, require: Require) -> None:
    """Asks through a pseudo-terminal, as zsh completes nowhere else."""
    script = f"""
        zmodload zsh/zpty
        zpty asked {require("zsh")} -f -i
        zpty -w asked "cd {scripts}; fpath=({scripts} \\$fpath); export XDG_CONFIG_HOME={scripts} TERM=dumb"
        zpty -w asked "autoload -Uz compinit; compinit -D; PS1=; print REA''DY"
        zpty -r asked line '*READY*'
        for words in to 'toy --lev' 'toy --level se' 'toy myp' 'toy x AccessionN'; do
            zpty -w -n asked "dcmsync $words"$'\\t'$'\\C-a'': '$'\\C-e'$'\\n'
        done
        zpty -w asked "print DO''NE"
        zpty -r asked line '*DONE*'
        print -r -- $line
    """
    done = subprocess.run([require("zsh"), "-f", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    for answer in ("dcmsync toy ", "toy --level=", "--level series ", "toy mypacs ", "toy x AccessionNumber="):
        assert answer in done.stdout, done
