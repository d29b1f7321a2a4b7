"""`dcmsync config`, as people run it, with editors that are shell scripts."""

import json
import os
import re
import stat
import tomllib
from pathlib import Path

import pytest
from msgspec import Struct

from dcmsync import config
from dcmsync.commands import settings
from dcmsync.keys import inner, keys, sections
from tests.workdir import Workdir

ROOT = Path(__file__).resolve().parents[2]

GIVEN = """\
[local]
ae_title = "ME"

[endpoints.pacs]
locator = "ARCHIVE@pacs.example.org:104"
timeout = 30
profile = "conquest"
quirks = ["no-counts"]

[selectors.thin]
all_of = ["Modality=CT", "SliceThickness<1.5"]

[routes.night]
default = ["./rest"]

[[routes.night.rules]]
when = "@thin"
to = ["pacs"]
"""


@pytest.fixture
def file(workdir: Workdir) -> Path:
    path = Path(workdir.environment()["XDG_CONFIG_HOME"]) / "dcmsync" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(GIVEN)
    return path


def editor(workdir: Workdir, script: str) -> dict[str, str]:
    """An editor that does what the script says to "$1"."""
    path = workdir.path / "editor"
    path.write_text(f"#!/bin/sh\nset -e\n{script}\n")
    path.chmod(0o700)
    return {"VISUAL": f"{path}"}


def kinds(kind: type[Struct]) -> list[type[Struct]]:
    """Every kind of table below."""
    inside = [table for key in keys(kind) if (table := inner(key.annotation)[0]) is not None]
    return inside + [each for table in inside for each in kinds(table)]


def keys_in(table: object) -> set[str]:
    """The keys of a document, at any depth."""
    if isinstance(table, list):
        return {key for each in table for key in keys_in(each)}
    members = table.items() if isinstance(table, dict) else ()
    return {name for key, value in members for name in (key, *keys_in(value))}


def test_what_holds_is_shown_as_a_document_that_says_the_same(workdir: Workdir, file: Path) -> None:
    done = workdir.run("config", "show")
    assert (done.status, done.stderr) == (0, ""), done
    shown, given = tomllib.loads(done.stdout.decode()), tomllib.loads(GIVEN)
    assert shown["selectors"] == given["selectors"]
    assert shown["routes"]["night"].items() >= given["routes"]["night"].items()
    assert shown["local"].items() >= given["local"].items()
    assert shown["endpoints"]["pacs"].items() >= {"calling": "ME", "timeout": 30, "jobs": 16}.items()
    assert shown["endpoints"]["pacs"]["quirks"] == ["no-counts", "no-cget"]


def test_where_each_setting_is_from(workdir: Workdir, file: Path) -> None:
    env = {"DCMSYNC_ENDPOINT_PACS_JOBS": "9", "DCMSYNC_CALLING": "DAY"}
    done = workdir.run("config", "show", "pacs", "--show-origin", "--timeout", "5", "--format", "json", env=env)
    assert done.status == 0, done
    (shown,) = done.records
    assert (shown["type"], shown["file"], set(shown["endpoints"])) == ("config", str(file), {"pacs"})
    assert "selectors" not in shown and "local" not in shown
    pacs = {key: (each["value"], each["origin"]) for key, each in shown["endpoints"]["pacs"].items()}
    assert pacs["locator"] == ("ARCHIVE@pacs.example.org:104", f"{file}:5")
    assert pacs["timeout"] == (5, "--timeout")
    assert pacs["jobs"] == (9, "DCMSYNC_ENDPOINT_PACS_JOBS")
    assert pacs["calling"] == ("DAY", "DCMSYNC_CALLING in the environment")
    assert pacs["quirks"] == (["no-counts", "no-cget"], f"{file}:8 and profile conquest")


def test_the_origin_is_a_comment_of_the_document(workdir: Workdir, file: Path) -> None:
    done = workdir.run("config", "show", "--show-origin")
    assert f'ae_title = "ME"  # {file}:2'.encode() in done.lines
    assert b"jobs = 16  # default" in done.lines
    tomllib.loads(done.stdout.decode())


def test_secrets_are_never_shown(workdir: Workdir, file: Path) -> None:
    file.write_text('[endpoints.web]\nlocator = "/x/https://jane:hunter2@host/dicom-web"\n')
    done = workdir.run("config", "show", "--show-origin")
    assert done.status == 0 and b"hunter2" not in done.stdout and b"//***@host" in done.stdout, done


def test_which_file_counts(workdir: Workdir, file: Path) -> None:
    assert workdir.run("config", "path").stdout.decode() == f"{file}\n"
    assert workdir.run("config", "path", env={"DCMSYNC_CONFIG": "/etc/one"}).stdout == b"/etc/one\n"
    done = workdir.run("config", "path", "--config", "two", env={"DCMSYNC_CONFIG": "/etc/one"})
    assert (done.status, done.stdout) == (0, b"two\n")


def test_what_is_right_is_not_spoken_of(workdir: Workdir, file: Path) -> None:
    done = workdir.run("config", "check")
    assert (done.status, done.stdout, done.stderr) == (0, b"", ""), done


@pytest.mark.parametrize("text, words", [
    ("[endpoints.a]\nlocator = 'A@h:1'\nquirk = []", ":3: unknown key endpoints.a.quirk. Did you mean"),
    ("[endpoints.a]\nlocator = 'nowhere'", ":1: [endpoints.a]: 'nowhere' is no place"),
    ("[endpoints.a]\nlocator = 'A@h:1'\nquirks = ['no-count']", "no such quirk: no-count. Did you mean no-counts?"),
    ("[endpoints.a]\nlocator = 'A@h:1'\nprofile = 'orthank'", "no such profile: orthank. Did you mean orthanc?"),
    ("[endpoints.a]\nlocator = 'A@h:1'\nignores_keys = ['Modalty']", "Did you mean Modality?"),
    ("[endpoints.a]\nlocator = 'A@h:1'\nignores_keys = ['StudyInstanceUID']", "cannot be left out of a query"),
    ("[endpoints.a]\nlocator = 'A@h:1'\ncharset = 'latin1'", "'latin1' is no character set of DICOM"),
    ("[endpoints.a]\nlocator = 'A@h:1'\nquirks = ['wrong-charset']", "says nothing without charset"),
    ("[selectors.a]\nall_of = ['Modality~(']", "[selectors.a]"),
    ("[selectors.a]\nall_of = ['@b']", ":1: [selectors.a]: there is no selector 'b'"),
    ("[selectors.a]\nall_of = ['@a']", "[selectors.a]"),
    ("[routes.a]\n[[routes.a.rules]]\nwhen = 'Modality~('\nto = ['./x']", ":1: [routes.a]"),
    ("[routes.a]\n[[routes.a.rules]]\nto = ['nowhere']", "'nowhere' is no place"),
    ("[routes.a]\n[[routes.a.rules]]\nto = ['./x']\n[[routes.a.rules]]", ":4: routes.a.rules[1].to is missing"),
    ("[routes.a]\n[[routes.a.rules]]\nto = ['./x']\nedit = []", ":4: unknown key routes.a.rules[0].edit. Did you"),
    ("[endpoints.a]\nlocator = 'A@h:1'\nca = '/x'", "the locator is one without TLS"),
    ("[local", "not TOML"),
])  # fmt: skip
def test_what_is_wrong_is_named(workdir: Workdir, text: str, words: str) -> None:
    (workdir.path / "c.toml").write_text(text)
    done = workdir.run("config", "check", "--config", "c.toml")
    assert (done.status, done.stdout) == (2, b""), done
    assert "c.toml" in done.stderr and words in done.stderr, done


def test_all_that_is_wrong_is_named_at_once(workdir: Workdir) -> None:
    (workdir.path / "c.toml").write_text("[lokal]\n[endpoints.a]\njob = 1\n[endpoints.b]\nlocator = 1\n")
    done = workdir.run("config", "check", "--config", "c.toml")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "c.toml:1", "c.toml:3", "c.toml:2", "c.toml:5"], done


def test_one_name_may_be_checked_alone(workdir: Workdir, file: Path) -> None:
    file.write_text(GIVEN + "[endpoints.bad]\nlocator = 'x'\n")
    assert workdir.run("config", "check", "pacs").status == 0
    assert workdir.run("config", "check", "thin").status == 0
    assert workdir.run("config", "check", "bad").status == 2
    done = workdir.run("config", "check", "pasc")
    assert done.status == 2 and "Did you mean pacs?" in done.stderr, done
    assert workdir.run("config", "show", "pasc").status == 2


def test_the_template_sets_nothing_and_has_every_key(workdir: Workdir) -> None:
    done = workdir.run("config", "template")
    assert done.status == 0, done
    text = done.stdout.decode()
    assert config.parse(text) == config.Config()
    set_all = re.sub(r"^#(?! )", "", text, flags=re.MULTILINE)
    tables = tomllib.loads(set_all)
    assert config.parse(set_all)
    named = {key.name for kind in kinds(config.Config) for key in keys(kind)}
    assert keys_in(tables) == {*named, "example", *sections(config.Config)}


def test_every_key_is_in_the_man_page_with_the_same_words() -> None:
    page = (ROOT / "man" / "dcmsync-locators.7").read_text().replace("\\-", "-").replace("\\(ti", "~")
    plain = re.sub(r"\\f[A-Z]|\\\(..", "", page)
    template = settings.template()
    for kind in kinds(config.Config):
        for key in keys(kind):
            assert f"\\fB{key.name}\\fR\n" in page
            assert f"# {key.words}\n" in template
            assert re.sub("[`']", "", key.words) in re.sub("[`']", "", plain), key.name


def test_an_editor_is_given_the_template_where_there_is_no_file(workdir: Workdir) -> None:
    path = workdir.path / "new" / "c.toml"
    script = 'grep -q "^#\\[endpoints.example\\]" "$1"; echo "local.ae_title = \'X\'" >> "$1"'
    env = editor(workdir, script)
    done = workdir.run("config", "edit", "--config", path, env=env)
    assert (done.status, done.stdout) == (0, b""), done
    assert config.load(str(path), {}).local.ae_title == "X"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_understood_leaves_the_old_file(workdir: Workdir, file: Path) -> None:
    done = workdir.run("config", "edit", env=editor(workdir, 'sed -i s/timeout/timeuot/ "$1"'))
    assert done.status == 2, done
    draft = file.with_name("config.toml.draft")
    assert f"{draft}:6: unknown key endpoints.pacs.timeuot. Did you mean endpoints.pacs.timeout?" in done.stderr
    assert file.read_text() == GIVEN and "timeuot" in draft.read_text()
    again = workdir.run("config", "edit", env=editor(workdir, 'sed -i s/timeuot/timeout/ "$1"; sed -i s/30/31/ "$1"'))
    assert again.status == 0 and "going on from there" in again.stderr, again
    assert file.read_text() == GIVEN.replace("30", "31") and not draft.exists()


def test_an_editor_that_changes_nothing_or_fails_changes_nothing(workdir: Workdir, file: Path) -> None:
    before = file.stat()
    assert workdir.run("config", "edit", env=editor(workdir, "true")).status == 0
    failed = workdir.run("config", "edit", env=editor(workdir, 'echo x >> "$1"; exit 3'))
    assert failed.status == 2 and "ended with status 3" in failed.stderr, failed
    gone = workdir.run("config", "edit", env={"VISUAL": "/no/such/editor"})
    assert gone.status == 2 and "cannot be run" in gone.stderr, gone
    after = file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_file_that_changed_meanwhile_is_not_written_over(workdir: Workdir, file: Path) -> None:
    env = editor(workdir, f'echo "# theirs" >> {file}; echo "# mine" >> "$1"')
    done = workdir.run("config", "edit", env=env)
    assert done.status == 7 and "somebody else has changed it" in done.stderr, done
    assert file.read_text() == GIVEN + "# theirs\n"
    assert file.with_name("config.toml.draft").read_text() == GIVEN + "# mine\n"


def test_a_link_stays_a_link_and_a_mode_stays(workdir: Workdir, file: Path) -> None:
    real = workdir.path / "dotfiles.toml"
    real.write_text(GIVEN)
    real.chmod(0o640)
    file.unlink()
    os.symlink(real, file)
    assert workdir.run("config", "edit", env=editor(workdir, 'echo "# more" >> "$1"')).status == 0
    assert file.is_symlink() and real.read_text().endswith("# more\n")
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


@pytest.mark.parametrize("words", [(), ("sho",), ("path", "pacs"), ("edit", "pacs"), ("show", "a", "b")])
def test_wrong_words(workdir: Workdir, words: tuple[str, ...]) -> None:
    done = workdir.run("config", *words)
    assert (done.status, done.stdout) == (2, b""), done


def test_json_is_one_line(workdir: Workdir, file: Path) -> None:
    (line,) = workdir.run("config", "show", "--format", "json").lines
    assert json.loads(line)["endpoints"]["pacs"]["timeout"] == 30
