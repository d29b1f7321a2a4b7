"""The configuration as people and programs read it: the effective settings, where each is from, and the template.

Owns what `config show`, `config check` and the template say. Refuses to know any key by name but those that other keys
or options decide about: what is set in a Struct of `config.py` is shown by itself.
"""

import re
from collections.abc import Iterator, Mapping
from os import environ
from typing import Any

import msgspec
from msgspec import Struct

from dcmsync import config, locator, quirks, toml
from dcmsync.commands.options import hush
from dcmsync.commands.places import Places
from dcmsync.config import Config, Reading
from dcmsync.errors import LocalTrouble, UsageError
from dcmsync.keys import Key, at, inner, keys, sections

_HIDDEN = "***"
_IN_LOCATOR = re.compile(r"(?<=//)[^/@\s]*:[^/@\s]*(?=@)")  # user:password of a URL
_OF_PROFILE = ("quirks", "ignores_keys", "limit", "charset", "max_associations")

OPENING = """\
# The configuration of dcmsync: dcmsync-locators(7). Every key that there is stands here, with an example.
# Take away the # before a table and its keys to set them; `dcmsync config check` says what is wrong.
# DCMSYNC_ENDPOINT_<NAME>_<KEY> in the environment goes before what stands here.
"""


class Value(Struct, frozen=True, kw_only=True):
    """One effective setting: its path, and where it is from in words."""

    path: toml.Path
    value: object
    origin: str


def template() -> str:
    """A configuration that sets nothing, and has every key there is, each behind a #."""
    lines = [OPENING]
    for section, (kind, is_named) in sections(Config).items():
        lines += _outline(kind, (section, "example") if is_named else (section,))
    return "\n".join(lines[:-1]) + "\n"


def _outline(kind: type[Struct], path: tuple[str, ...], *, is_one_of_many: bool = False) -> list[str]:
    """A table with all its keys, then the tables within it, each behind a #."""
    header = f"[{toml.header(*path)}]" if is_one_of_many else toml.header(*path)
    lines = [f"# {(kind.__doc__ or '').strip().splitlines()[0]}", f"#{header}"]
    within: list[str] = []
    for key in keys(kind):
        table, how = inner(key.annotation)
        if table is None:
            lines += [f"# {key.words}", f"#{key.name} = {toml.written(key.example)}"]
        else:
            below = (*path, key.name, "example") if how == "named" else (*path, key.name)
            within += [f"# {key.words}", *_outline(table, below, is_one_of_many=how == "many")]
    return [*lines, "", *within]


def effective(reading: Reading, given: Mapping[str, tuple[object, str]], defaults: Mapping[str, object]) -> list[Value]:
    """Every setting that has a value, secrets masked. `given`: what goes before the keys of every endpoint, and where
    that is from; `defaults`: what holds for an endpoint that says nothing.
    """
    lines = toml.lines(reading.text or "")
    found: list[Value] = []
    for above, kind, table in _tables(reading.config):
        for key in keys(kind):
            path = (*above, key.name)
            value = getattr(table, key.name)
            origin = reading.variables.get(path, f"{reading.file}:{lines[path]}" if path in lines else "default")
            if above[0] == "endpoints":
                value, origin = _endpoint_value(key, table, origin, given, defaults)
            if value is not None and (value != () or origin != "default"):
                found.append(Value(path=path, value=_masked(key, value), origin=origin))
    return found


def as_toml(values: list[Value], *, with_origin: bool) -> str:
    """The settings as a document."""
    lines: list[str] = []
    above: toml.Path = ()
    for each in values:
        if each.path[:-1] != above:
            above = each.path[:-1]
            lines += [""] * bool(lines) + [toml.header(*map(str, above))]
        comment = f"  # {each.origin}" if with_origin else ""
        lines.append(f"{toml.key(str(each.path[-1]))} = {toml.written(each.value)}{comment}")
    return "\n".join(lines) + "\n" * bool(lines)


def as_json(values: list[Value], reading: Reading, *, with_origin: bool) -> bytes:
    """The settings as one JSON object."""
    tables: dict[str, Any] = {"type": "config", "file": str(reading.file)}
    for each in values:
        table = tables
        for part in each.path[:-1]:
            table = table.setdefault(str(part), {})
        table[str(each.path[-1])] = {"value": each.value, "origin": each.origin} if with_origin else each.value
    return msgspec.json.encode(tables) + b"\n"


def faults(reading: Reading, name: str | None, places: Places) -> Iterator[UsageError]:
    """What is wrong with what the values mean, in all of it or in what is called `name`; `places` are those that it
    names. Raises UsageError when nothing is called so.
    """
    found = 0
    for above, _, table in _tables(reading.config):
        if name is not None and (len(above) < 2 or above[1] != name):
            continue
        found += 1
        try:
            _judge(table, above, places)
        except (UsageError, LocalTrouble) as error:
            where = at(str(reading.file), reading.text or "", above)
            yield UsageError(f"{where}: {toml.header(*map(str, above))}: {error.message}", advice=error.advice)
    if name is not None and not found:
        raise unknown(name, reading.config)


def unknown(name: str, settings: Config) -> UsageError:
    """The complaint about a name that nothing has."""
    from difflib import get_close_matches

    names = [str(above[1]) for above, _, _ in _tables(settings) if len(above) == 2]
    near = get_close_matches(name, names, n=1)
    listed = f"The names are {', '.join(sorted(names))}" if names else "Nothing has a name there"
    return UsageError(f"nothing is called {name} in the configuration",
                      advice=f"Did you mean {near[0]}?" if near else listed)


def _tables(settings: Config) -> Iterator[tuple[toml.Path, type[Struct], Struct]]:
    """Every table of a configuration: where it is, of what kind, and what it says."""
    for section, (kind, is_named) in sections(Config).items():
        held = getattr(settings, section)
        for name, table in held.items() if is_named else ():
            yield (section, name), kind, table
        if not is_named:
            yield (section,), kind, held


def _endpoint_value(
    key: Key,
    endpoint: Struct,
    origin: str,
    given: Mapping[str, tuple[object, str]],
    defaults: Mapping[str, object],
) -> tuple[object, str]:
    """The value of one key of an endpoint that holds, and where it is from."""
    assert isinstance(endpoint, config.Endpoint)
    value = getattr(endpoint, key.name)
    if key.name in given:
        return given[key.name]
    if key.name in _OF_PROFILE and endpoint.profile is not None:
        held = quirks.read(endpoint)
        of_profile: object = getattr(held, key.name, None)
        if key.name == "quirks":
            of_profile = tuple(flag for flag in quirks.FLAGS if getattr(held, quirks.field_of(flag)))
        if of_profile and of_profile != value:
            also = f"{origin} and " if value else ""
            return of_profile, f"{also}profile {endpoint.profile}"
    if value is None and key.name in defaults:
        return defaults[key.name], "default"
    return value, origin


def _masked(key: Key, value: object) -> object:
    """A value as it may be shown, in plain lists and tables."""
    if key.is_secret:
        return _HIDDEN
    if isinstance(value, Struct):
        held = {each.name: _masked(each, getattr(value, each.name)) for each in keys(type(value))}
        return {name: each for name, each in held.items() if each is not None and each != []}
    if isinstance(value, list | tuple):
        return [_masked(key, each) for each in value]
    if isinstance(value, str) and not value.startswith(("dicom://", "dicoms://")):  # there it is who we are
        return _IN_LOCATOR.sub(_HIDDEN, value)
    return value


def _judge(table: Struct, above: toml.Path, places: Places) -> None:
    """Raises UsageError, LocalTrouble for what a table cannot mean."""
    from dcmsync.commands.credentials import access
    from dcmsync.commands.meaning import check
    from dcmsync.commands.routing import Routing
    from dcmsync.plan import expression
    from dcmsync.wire import dataset

    if isinstance(table, config.Endpoint):
        where = locator.parse(table.locator)
        access(where, table, name=str(above[1]), environ=environ, warn=hush)
        check(where, table, str(above[1]))
        places.giver(str(above[1]))
        for keyword in quirks.read(table).ignores_keys:
            dataset.tag_of(keyword)
        if table.charset is not None:
            dataset.check_character_set(table.charset)
    elif isinstance(table, config.Selector):
        expression.parse(f"@{above[1]}", places.selectors)
    elif isinstance(table, config.Route):
        Routing(str(above[1]), places)
