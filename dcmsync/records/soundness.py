"""What a line must be before anybody believes it: UTF-8, of sane depth, every key once, no NUL.

Owns the checks that the JSON decoder does not make. Refuses to decode records and to know their types. Messages
name keys and numbers, never values.
"""

import re

from dcmsync.errors import InputError

MAX_DEPTH = 512
LONG_LINE_OCTETS = 2 * MAX_DEPTH
"""A shorter line cannot be nested deeper than MAX_DEPTH: every level opens and closes."""

_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def check_octets(line: bytes, number: int) -> None:
    """Raises InputError when `line` is not UTF-8 or is nested deeper than MAX_DEPTH."""
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 (octet {error.start + 1})", line=number) from None
    if len(line) > LONG_LINE_OCTETS and line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_too_deep(line):
        raise InputError(f"nested deeper than {MAX_DEPTH} levels", line=number)


def check_meaning(line: bytes, values: dict[str, object], number: int) -> None:
    """Raises InputError when `line`, which says `values`, names a key twice or holds a NUL character.

    Readers disagree about which of two equal keys counts, and a NUL ends a string for half of the world: a record
    with either is refused rather than guessed at.
    """
    if b"\\u0000" in line and b"\\u0000" in line.replace(b"\\\\", b""):
        raise InputError("a value holds a NUL character", line=number)
    if _may_repeat_a_key(line, values) and (key := _repeated_key(line)) is not None:
        raise InputError(f"the key {key[:64]!r} occurs twice", line=number)


def _is_too_deep(line: bytes) -> bool:
    depth = 0
    for token in _TOKENS.finditer(line):
        octet = line[token.start()]
        if octet in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif octet in b"]}":
            depth -= 1
    return False


def _may_repeat_a_key(line: bytes, values: dict[str, object]) -> bool:
    """False when it is certain that no key is repeated: each key has one colon, and all colons are accounted for."""
    if b"\\u" in line:
        return True
    colons = len(values)
    for key, value in values.items():
        colons += key.count(":")
        if isinstance(value, str):
            colons += value.count(":")
    return line.count(b":") != colons


def _repeated_key(line: bytes) -> str | None:
    import json  # slower, and rarely needed: only here can pairs be seen before they become a dict

    repeated: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            repeated.append(next(key for key in keys if keys.count(key) > 1))

    json.loads(line, object_pairs_hook=look, parse_int=str, parse_float=str)
    return repeated[0] if repeated else None
