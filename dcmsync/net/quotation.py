"""What the body of an answer says, as far as a message may quote it: short, printable, without what we told it.

Owns which words of a request must not come back out of a server's mouth: credentials, and what was searched for.
"""

import base64
import html
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, urlsplit

MOST_OCTETS = 1 << 16  # of a body, to find the words in
_MOST_CHARACTERS = 200
_LEAST_SECRET = 3  # a shorter value is in every text by chance
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")
_OPEN = frozenset((  # what says how to answer, not what about
    "includefield", "includefields", "limit", "offset", "fuzzymatching", "requesttype", "contenttype", "querylevel",
))  # fmt: skip
_MARKUP = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.I | re.S)


def quoted(body: bytes, secrets: Iterable[str]) -> str:
    """The words of a body, without markup; `secrets` are starred out."""
    text = body.decode("utf-8", "replace")
    if "<" in text:
        text = html.unescape(_MARKUP.sub(" ", text))
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS - 1]}…"


def secrets_of(url: str, headers: Mapping[str, str], shown: Mapping[str, str]) -> list[str]:
    """What a request told that nobody else is to read: credentials, those in `shown` all of them, and what was searched
    for.
    """
    told = [*shown.values(), *(value for name, value in headers.items() if name.lower() in _SECRET_HEADERS)]
    for value in tuple(told):
        word = value.rpartition(" ")[2]
        told += [word, *_of_basic(word)] if value.lower().startswith("basic ") else [word]
    query = urlsplit(url).query
    raw = [(name, value) for name, _, value in (each.partition("=") for each in query.split("&"))]
    told += [value for name, value in (*raw, *parse_qsl(query)) if name.lower() not in _OPEN]
    return [each for each in told if len(each) >= _LEAST_SECRET]


def _of_basic(word: str) -> list[str]:
    try:
        both = base64.b64decode(word, validate=True).decode("utf-8", "replace")
    except ValueError:
        return []
    return [both, both.partition(":")[2]]
