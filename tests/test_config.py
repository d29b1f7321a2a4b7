"""The configuration."""

from pathlib import Path

import pytest

from dcmsync.config import Config, Endpoint, Local, Selector, default_path, load, parse
from dcmsync.errors import LocalTrouble, UsageError

FULL = """
[local]
ae_title = "ME"

[endpoints.pacs]
locator = "PACS@pacs.example:104"
jobs = 4
calling = "OTHER"
timeout = 30

[selectors.thin]
all_of = ["Modality=CT"]
none_of = ["@scout"]
"""


def test_everything_that_can_be_said() -> None:
    config = parse(FULL)
    assert config.local == Local(ae_title="ME")
    assert config.endpoints == {
        "pacs": Endpoint(locator="PACS@pacs.example:104", jobs=4, calling="OTHER", timeout=30.0)}
    assert config.selectors == {"thin": Selector(all_of=("Modality=CT",), none_of=("@scout",))}
    assert config.selectors["thin"].lists() == {"all_of": ("Modality=CT",), "any_of": (), "none_of": ("@scout",)}


def test_nothing_said_is_the_default() -> None:
    assert parse("") == Config()
    assert Config().local.ae_title == "DCMSYNC"


@pytest.mark.parametrize("text, words", [
    ("[local]\nae_titel = 'X'", "c.toml: unknown key local.ae_titel. Did you mean local.ae_title?"),
    ("[endpoints.a]\nlocator = 'x'\njob = 1", "unknown key endpoints.a.job. Did you mean endpoints.a.jobs?"),
    ("[selectors.a]\nall = []", "unknown key selectors.a.all. Did you mean selectors.a.all_of?"),
    ("[endpoint.a]\nlocator = 'x'", "unknown key endpoint. Did you mean endpoints?"),
    ("zzz = 1", "unknown key zzz. Known here: endpoints, local, selectors"),
    ("[endpoints.a]", "missing required field `locator`"),
    ("[endpoints.a]\nlocator = 'x'\njobs = 'four'", "endpoints.*.jobs"),
    ("[endpoints.a]\nlocator = 'x'\njobs = 0", "endpoints.*.jobs"),
    ("[endpoints.a]\nlocator = 'x'\ntimeout = 0", "endpoints.*.timeout"),
    ("endpoints = 5", "Expected `object`, got `int` - at `endpoints`"),
    ("[endpoints]\na = 'x'", "Expected `object`, got `str`"),
    ("[local", "c.toml: not TOML: "),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, "c.toml")
    assert words in str(caught.value)


def test_the_command_line_goes_before_the_environment(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text("[local]\nae_title = 'ONE'")
    two.write_text("[local]\nae_title = 'TWO'")
    assert load(str(one), {"DCMSYNC_CONFIG": str(two)}).local.ae_title == "ONE"
    assert load(None, {"DCMSYNC_CONFIG": str(two)}).local.ae_title == "TWO"


def test_the_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(None, {}) == Config()
    assert load(None, {"DCMSYNC_CONFIG": ""}) == Config()
    default_path().parent.mkdir(parents=True, exist_ok=True)
    default_path().write_text("[local]\nae_title = 'HOME'")
    assert load(None, {}).local.ae_title == "HOME"


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    with pytest.raises(UsageError, match="there is no such configuration file"):
        load(missing, {})
    with pytest.raises(UsageError, match="there is no such configuration file"):
        load(None, {"DCMSYNC_CONFIG": missing})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LocalTrouble):
        load(str(tmp_path), {})
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# \xe9")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(str(latin), {})
