"""TOML as text: how a document is read, on which line each of its keys stands, and how a value is written.

Owns the door to tomllib. Refuses to know what the keys mean.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dcmsync.errors import UsageError

Path = tuple[str | int, ...]
"""From the top of a document to a value: keys, and numbers from 0 within arrays."""

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def read(text: str, place: str) -> dict[str, Any]:
    """The tables of a document; `place` names it. Raises UsageError."""
    import tomllib  # lazy: a run without a file does not need it

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place}: not TOML: {error}") from None


def lines(text: str) -> dict[Path, int]:
    """The line, from 1, on which each key and each table of a valid document begins.

    Statements are read one by one, each grown line by line until it is valid by itself.
    """
    import tomllib

    found: dict[Path, int] = {}
    sizes: dict[Path, int] = {}  # of arrays of tables
    table: Path = ()
    statement, begun = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        statement, begun = f"{statement}{line}\n", begun or number
        try:
            said = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # its value goes on in the next line
        if said and statement.lstrip().startswith("["):
            table = _header(said, sizes)
            for depth in range(len(table)):
                found.setdefault(table[: depth + 1], begun)
        else:
            for path in _paths(said, table):
                found.setdefault(path, begun)
        statement, begun = "", 0
    return found


def _header(said: Mapping[str, Any], sizes: dict[Path, int]) -> Path:
    """The table that a header names; an array of tables grows by it."""
    path: Path = ()
    inner: Any = said
    while isinstance(inner, dict) and inner:
        key, inner = next(iter(inner.items()))
        path = (*path, key)
        if isinstance(inner, list):
            sizes[path] = sizes.get(path, 0) + 1
        if path in sizes:
            path = (*path, sizes[path] - 1)
    return path


def _paths(said: object, above: Path) -> Iterator[Path]:
    members = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for key, value in members:
        yield (*above, key)
        yield from _paths(value, (*above, key))


def key(name: str) -> str:
    """A key as it stands in a document: bare where that is allowed."""
    return name if name and _BARE.issuperset(name) else written(name)


def header(*names: str) -> str:
    """The header of a table."""
    return f"[{'.'.join(map(key, names))}]"


def written(value: object) -> str:
    """A value as it stands in a document: text, numbers, true and false, arrays, inline tables."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key(name)} = {written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)
