"""The keys that may stand in a table of settings, read off the Struct that the table becomes, and what is wrong in one.

Owns the generic half of the configuration: a field added to a Struct is known here by itself, with its description,
its example and its type. Refuses to know any key by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from dcmsync import toml
from dcmsync.errors import UsageError


class Key(Struct, frozen=True, kw_only=True):
    """One key: its words, what may stand there, an example, and its default, None where it has none.

    `is_secret`: its value is shown to nobody.
    """

    name: str
    words: str
    annotation: Any
    example: object
    default: object
    is_required: bool
    is_secret: bool


def sections(kind: type[Struct]) -> Mapping[str, tuple[type[Struct], bool]]:
    """The tables of a document by name: what stands in each, and whether in tables with names of their own."""
    hints = get_type_hints(kind)
    found = {name: inner(hints[name]) for name in kind.__struct_fields__}
    return {name: (table, how == "named") for name, (table, how) in found.items() if table is not None}


def keys(kind: type[Struct]) -> list[Key]:
    """What may stand in a table, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return [_key(field, hints[field.name]) for field in msgspec.structs.fields(kind)]


def inner(annotation: Any) -> tuple[Any, str]:
    """The kind of table that may stand at a key, and how: "one", "named" or "many"; (None, "") where none may."""
    if get_origin(annotation) is Annotated:
        return inner(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation, "one"
    kind = next((table for table, _ in map(inner, get_args(annotation)) if table is not None), None)
    if kind is None:
        return None, ""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return kind, "named"
    return kind, "many" if isinstance(origin, type) and issubclass(origin, Sequence) else "one"


def faults(kind: type[Struct], tables: Mapping[str, Any], place: str, text: str) -> Iterator[UsageError]:
    """What is wrong with a document: unknown keys, missing ones, values that cannot stand there. `place` names it."""
    for path, words, advice in _faults(kind, tables, ()):
        yield UsageError(f"{at(place, text, path)}: {words}", advice=advice or None)


def at(place: str, text: str, path: toml.Path) -> str:
    """`place:line` of a path in a document, or of the table that it is missing in."""
    found = toml.lines(text)
    while path and path not in found:
        path = path[:-1]
    return f"{place}:{found[path]}" if path in found else place


def dotted(path: toml.Path) -> str:
    """A path as people read it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def complaint(error: msgspec.ValidationError) -> str:
    """What msgspec says of one value, without its path."""
    words = str(error).partition(" - at ")[0].replace("`", "").replace(" | null", "")
    return words[:1].lower() + words[1:]


def _key(field: msgspec.structs.FieldInfo, annotation: Any) -> Key:
    meta = list(_metas(annotation))
    default = None if field.required else field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return Key(
        name=field.encode_name,
        words=next((each.description for each in meta if each.description), ""),
        annotation=annotation,
        example=next((each.examples[0] for each in meta if each.examples), default),
        default=default,
        is_required=field.required,
        is_secret=any((each.extra or {}).get("secret") for each in meta),
    )


def _metas(annotation: Any) -> Iterator[Meta]:
    for part in get_args(annotation):
        if isinstance(part, Meta):
            yield part
        else:
            yield from _metas(part)


def _faults(kind: type[Struct], table: Mapping[str, Any], above: toml.Path) -> Iterator[tuple[toml.Path, str, str]]:
    """(path, words, advice) of each fault."""
    known = {key.name: key for key in keys(kind)}
    for name, value in table.items():
        if name in known:
            yield from _value_faults(known[name].annotation, value, (*above, name))
        else:
            yield (*above, name), f"unknown key {dotted((*above, name))}", _nearest(name, known, above)
    for key in known.values():
        if key.is_required and key.name not in table:
            yield above, f"{dotted((*above, key.name))} is missing", f"It says {key.words}"


def _value_faults(annotation: Any, value: Any, path: toml.Path) -> Iterator[tuple[toml.Path, str, str]]:
    kind, how = inner(annotation)
    inside: list[tuple[toml.Path, Any]] = []
    if how == "one" and isinstance(value, Mapping):
        inside = [(path, value)]
    elif how == "named" and isinstance(value, Mapping):
        inside = [((*path, name), each) for name, each in value.items()]
    elif how == "many" and isinstance(value, list):
        inside = [((*path, number), each) for number, each in enumerate(value)]
    for where, each in inside:
        if isinstance(each, Mapping):
            yield from _faults(kind, each, where)
        elif how == "named":
            yield where, f"{dotted(where)}: expected a table", f"Write {toml.header(*map(str, where))} above its keys"
    if not inside or (how == "many" and not all(isinstance(each, Mapping) for _, each in inside)):
        try:
            msgspec.convert(value, annotation)
        except msgspec.ValidationError as error:
            yield path, f"{dotted(path)}: {complaint(error)}", ""


def _nearest(name: str, known: Mapping[str, Key], above: toml.Path) -> str:
    from difflib import get_close_matches  # lazy: only a mistake needs it

    near = get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {dotted((*above, near[0]))}?"
    return f"Known here: {', '.join(sorted(known))}"
