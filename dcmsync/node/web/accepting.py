"""Which form of an answer a client accepts (PS3.18 §8.3.3, §8.7; RFC 9110 §12.5.1).

Owns media ranges, and the choice among what can be given: what is stored, as it is. Refuses to transcode, and so to
offer anything else.
"""

from __future__ import annotations

import re

from msgspec import Struct

from dcmsync.wire.multipart import parameters

DICOM = "application/dicom"
OCTETS = "application/octet-stream"
JSON = "application/dicom+json"

_RANGE = re.compile(r'(?:[^,"]|"[^"]*"?)+')  # up to a comma that stands in no quotes
_MOST_RANGES = 32


class Range(Struct, frozen=True):
    """One media range. Of multipart/related, `media_type` is what its parts are to be. "" for any transfer syntax."""

    media_type: str
    is_multipart: bool
    transfer_syntax_uid: str
    quality: float


class Form(Struct, frozen=True):
    """The form of an answer. `transfer_syntaxes` are those that may be sent; None for any."""

    is_multipart: bool
    transfer_syntaxes: frozenset[str] | None


def ranges(text: str) -> list[Range]:
    """The ranges of an Accept header, best first; of equals, in their order. Those of quality 0 are left out."""
    found = []
    for part in _RANGE.findall(text)[:_MOST_RANGES]:
        media_type, named = parameters(part)
        if not media_type:
            continue
        is_multipart = media_type == "multipart/related"
        inner = parameters(named["type"]) if "type" in named else ("", {})
        syntax = named.get("transfer-syntax") or inner[1].get("transfer-syntax", "")
        kind = (inner[0] or "*/*") if is_multipart else media_type
        found.append(Range(kind, is_multipart, "" if syntax == "*" else syntax, _quality(named.get("q", "1"))))
    return sorted((one for one in found if one.quality), key=lambda one: -one.quality)


def takes_json(text: str) -> bool:
    """Whether JSON may be sent."""
    return not text.strip() or any(
        not one.is_multipart and _fits(one.media_type, JSON, "application/json") for one in ranges(text)
    )


def form(text: str, media_type: str, *, is_single: bool, prefers_single: bool = False) -> Form | None:
    """How parts of `media_type` may be sent; None when they may not.

    `is_single`: there is but one, so that it may go without multipart. Where nothing is said, `prefers_single` decides.
    """
    wanted = ranges(text)
    if not text.strip():
        wanted = [Range("*/*", False, "", 1)]
    chosen: Form | None = None
    for one in wanted:
        if not _fits(one.media_type, media_type):
            continue
        is_open = one.media_type == "*/*" and not one.is_multipart
        is_multipart = one.is_multipart or (is_open and not (is_single and prefers_single))
        if not is_multipart and not is_single:
            continue
        if chosen is None:
            chosen = Form(is_multipart, frozenset())
        if chosen.is_multipart == is_multipart and chosen.transfer_syntaxes is not None:
            syntaxes = chosen.transfer_syntaxes | {one.transfer_syntax_uid}
            chosen = Form(is_multipart, None if "" in syntaxes else syntaxes)
    return chosen


def _fits(media_range: str, *media_types: str) -> bool:
    return media_range in ("*/*", "application/*", *media_types)


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0
