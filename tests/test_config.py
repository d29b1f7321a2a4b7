"""The configuration."""

from pathlib import Path

import msgspec
import pytest

from dcmsync.config import FILE, Config, Endpoint, Local, Selector, default_path, load, parse, read
from dcmsync.errors import LocalTrouble, UsageError
from dcmsync.keys import keys, sections

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
    ("[local]\nae_titel = 'X'", "c.toml:2: unknown key local.ae_titel. Did you mean local.ae_title?"),
    ("[endpoints.a]\nlocator = 'x'\njob = 1", "c.toml:3: unknown key endpoints.a.job. Did you mean endpoints.a.jobs?"),
    ("[selectors.a]\nall = []", "c.toml:2: unknown key selectors.a.all. Did you mean selectors.a.all_of?"),
    ("[endpoint.a]\nlocator = 'x'", "c.toml:1: unknown key endpoint. Did you mean endpoints?"),
    ("zzz = 1", "c.toml:1: unknown key zzz. Known here: endpoints, local"),
    ("\n[endpoints.a]", "c.toml:2: endpoints.a.locator is missing"),
    ("endpoints.a.jobs = 1", "c.toml:1: endpoints.a.locator is missing"),
    ("[endpoints.a]\nlocator = 'x'\njobs = 'four'", "c.toml:3: endpoints.a.jobs: expected int, got str"),
    ("[endpoints.a]\nlocator = 'x'\njobs = 0", "c.toml:3: endpoints.a.jobs: expected int >= 1"),
    ("[endpoints.a]\nlocator = 'x'\ntimeout = 0", "c.toml:3: endpoints.a.timeout: expected float > 0"),
    ("[selectors.a]\nall_of = [\n  'A=B',\n  2,\n]", "c.toml:2: selectors.a.all_of: expected str, got int"),
    ("endpoints = 5", "c.toml:1: endpoints: expected object, got int"),
    ("[endpoints]\na = 'x'", "c.toml:2: endpoints.a: expected a table. Write [endpoints.a] above its keys"),
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


HERE = "[endpoints.my-pacs]\nlocator = 'A@h:1'\njobs = 2\n[endpoints.other]\nlocator = 'B@h:1'\n"


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(HERE)
    said = {
        "DCMSYNC_ENDPOINT_MY_PACS_JOBS": "7",
        "DCMSYNC_ENDPOINT_MY_PACS_TIMEOUT": "2.5",
        "DCMSYNC_ENDPOINT_MY_PACS_IGNORES_KEYS": "StudyID, Modality",
        "DCMSYNC_LOCAL_AE_TITLE": "ME",
    }
    found = read(str(file), said)
    pacs = found.config.endpoints["my-pacs"]
    assert (pacs.jobs, pacs.timeout, pacs.ignores_keys, pacs.locator) == (7, 2.5, ("StudyID", "Modality"), "A@h:1")
    assert found.config.endpoints["other"] == Endpoint(locator="B@h:1")
    assert found.config.local.ae_title == "ME"
    assert found.variables["endpoints", "my-pacs", "jobs"] == "DCMSYNC_ENDPOINT_MY_PACS_JOBS"
    assert set(found.variables.values()) == set(said)


def test_an_endpoint_may_be_of_the_environment_alone() -> None:
    said = {"DCMSYNC_ENDPOINT_NIGHT_RUN_LOCATOR": "A@h:1", "DCMSYNC_ENDPOINT_NIGHT_RUN_JOBS": "3"}
    found = read(None, {FILE: "", **said})
    assert found.config.endpoints["night_run"] == Endpoint(locator="A@h:1", jobs=3)


@pytest.mark.parametrize("name, value, words", [
    ("DCMSYNC_ENDPOINT_OTHER_JOBS", "many", "expected int, got str"),
    ("DCMSYNC_ENDPOINT_OTHER_JOBS", "0", "expected int >= 1"),
    ("DCMSYNC_ENDPOINT_OTHRE_JOBS", "1", "there is no endpoint othre"),
    ("DCMSYNC_ENDPOINT_OTHER_JUBS", "1", "sets nothing that there is"),
    ("DCMSYNC_LOCAL_AE", "X", "sets nothing that there is"),
])  # fmt: skip
def test_a_variable_that_is_wrong_is_named(name: str, value: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(HERE)
    with pytest.raises(UsageError) as caught:
        load(str(file), {name: value})
    assert name in str(caught.value) and words in str(caught.value)


def test_a_variable_that_may_mean_two_endpoints_means_none(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[endpoints.a-b]\nlocator = 'A@h:1'\n[endpoints.a_b]\nlocator = 'B@h:1'\n")
    with pytest.raises(UsageError, match="may mean a-b or a_b"):
        load(str(file), {"DCMSYNC_ENDPOINT_A_B_JOBS": "1"})


def test_every_field_has_its_words_and_an_example_that_may_stand_there() -> None:
    tables: dict[str, object] = {}
    for name, (kind, is_named) in sections(Config).items():
        for key in keys(kind):
            assert key.words and key.words[0].islower() and not key.words.endswith("."), (name, key.name)
        example = {key.name: key.example for key in keys(kind)}
        tables[name] = {"example": example} if is_named else example
    assert msgspec.convert(tables, Config)
