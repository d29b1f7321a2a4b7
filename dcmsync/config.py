"""The configuration: one TOML file, read once, frozen.

Owns where the file is, what may stand in it, and the words about what may not. Refuses to judge what the values mean:
a locator is parsed by `locator.py`, a selector by `plan/expression.py`.

Which file: `--config FILE`, else DCMSYNC_CONFIG, else `config.toml` in the user's configuration folder for dcmsync.
A file that was named must be there; the default one may be missing.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from dcmsync.errors import LocalTrouble, UsageError

DEFAULT_AE_TITLE = "DCMSYNC"


class Local(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This side."""

    ae_title: str = DEFAULT_AE_TITLE


class Endpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named place. `timeout` in seconds; None where the command line or the default decides."""

    locator: str
    jobs: Annotated[int, Meta(ge=1)] | None = None
    calling: str | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None


class Selector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named filter: lists of expressions, all three of which must hold."""

    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()

    def lists(self) -> Mapping[str, tuple[str, ...]]:
        """The lists by name."""
        return {"all_of": self.all_of, "any_of": self.any_of, "none_of": self.none_of}


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the file says."""

    local: Local = Local()
    endpoints: Mapping[str, Endpoint] = {}
    selectors: Mapping[str, Selector] = {}


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """The configuration of the file that counts; `path` is what --config says.

    Raises UsageError when a file that was named is missing or any file is wrong, LocalTrouble when it cannot be read.
    """
    named = path or environ.get("DCMSYNC_CONFIG")
    file = Path(named) if named else default_path()
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        if named:
            raise UsageError(f"{named}: there is no such configuration file") from None
        return Config()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 (octet {error.start + 1})") from None
    except OSError as error:
        raise LocalTrouble(f"{file}: the configuration cannot be read: {error.strerror}") from error
    return parse(text, str(file))


def parse(text: str, place: str = "configuration") -> Config:
    """The configuration that `text` says; `place` names it in errors.

    Raises UsageError, with the nearest name where one is unknown.
    """
    import tomllib  # lazy: a run without a file does not need it

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place}: not TOML: {error}") from None
    _refuse_unknown(tables, place)
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"{place}: {str(error).replace('$.', '').replace('[...]', '.*')}") from None


def default_path() -> Path:
    """Where the file is when nobody says."""
    from platformdirs import user_config_path  # lazy: only who reads the default file pays for it

    return user_config_path("dcmsync", appauthor=False) / "config.toml"


def cache_folder() -> Path:
    """Where caches are kept when nobody says."""
    from platformdirs import user_cache_path  # lazy, as above

    return user_cache_path("dcmsync", appauthor=False)


def _refuse_unknown(tables: Mapping[str, Any], place: str) -> None:
    _refuse_others(tables, _names(Config), place, "")
    kinds: tuple[tuple[str, type[Struct]], ...] = (("endpoints", Endpoint), ("selectors", Selector))
    if isinstance(local := tables.get("local"), dict):
        _refuse_others(local, _names(Local), place, "local.")
    for section, kind in kinds:
        named = tables.get(section)
        for name, table in named.items() if isinstance(named, dict) else ():
            if isinstance(table, dict):
                _refuse_others(table, _names(kind), place, f"{section}.{name}.")


def _refuse_others(table: Mapping[str, Any], names: Collection[str], place: str, prefix: str) -> None:
    for key in table:
        if key not in names:
            from difflib import get_close_matches  # lazy: only a mistake needs it

            near = get_close_matches(key, names, n=1)
            advice = f"Did you mean {prefix}{near[0]}?" if near else f"Known here: {', '.join(sorted(names))}"
            raise UsageError(f"{place}: unknown key {prefix}{key}", advice=advice)


def _names(kind: type[Struct]) -> tuple[str, ...]:
    return kind.__struct_fields__
