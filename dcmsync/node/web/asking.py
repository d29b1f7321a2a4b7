"""What the address of a search asks (PS3.18 §8.3.4, §10.6.1): what must match, what is wanted back, and how much of it.

Owns the query string: it is decoded here, once. Refuses to look anything up, and to guess: what it does not know is an
error in words, what is known and not kept is not matched, and a warning says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from msgspec import Struct

from dcmsync.errors import UsageError
from dcmsync.node.index import DEPTH_OF, UNIQUE, Depth
from dcmsync.node.question import Question, relational
from dcmsync.node.web import model
from dcmsync.node.web.refusing import Refusal
from dcmsync.wire import dataset

MAX_FIELDS = 256
_MOST_DIGITS = 15

NOT_FUZZY = "The fuzzymatching parameter is not supported. Only literal matching has been performed."

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*|[0-9A-Fa-f]{8}")
_WITH_COMMAS = frozenset(("UI", "CS"))  # a comma is no character of these (PS3.5 §6.2), so it stands between values

# PS3.18 tables 10.6.3-3 to 10.6.3-5, as far as they are kept; without a value they are there, empty.
STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName", "StudyDescription",
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
)  # fmt: skip
SERIES = (
    "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "NumberOfSeriesRelatedInstances",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
)  # fmt: skip
IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "AvailableTransferSyntaxUID", "InstanceNumber", "Rows", "Columns",
    "NumberOfFrames",
)  # fmt: skip
_BY_DEPTH = {Depth.STUDY: STUDY, Depth.SERIES: SERIES, Depth.IMAGE: IMAGE}


class Search(Struct, frozen=True, kw_only=True):
    """A search: `columns` are given back of each thing; those of `optional` only where they have a value."""

    question: Question
    columns: tuple[str, ...]
    optional: frozenset[str]
    offset: int
    limit: int | None
    warnings: tuple[str, ...]


def parameters(query: str) -> list[tuple[str, str]]:
    """Names and values of a query string, in order. Raises Refusal."""
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise Refusal(400, "the query is no UTF-8") from None
    except ValueError:
        raise Refusal(400, f"the query has more than {MAX_FIELDS} parameters") from None


def search(given: Sequence[tuple[str, str]], depth: Depth, above: Mapping[Depth, str]) -> Search:
    """The search that parameters ask, below the UIDs that the path names. Raises Refusal."""
    patterns: dict[str, str] = {}
    numbers: dict[str, int] = {}
    fields: list[str] = []
    warnings: list[str] = []
    for name, value in given:
        match name:
            case "limit" | "offset":
                if name in numbers:
                    raise Refusal(400, f"{name} is given twice")
                numbers[name] = _number(name, value)
            case "includefield":
                fields += [part.strip() for part in value.split(",") if part.strip()]
            case "fuzzymatching" | "emptyvaluematching" | "multiplevaluematching":
                if _is_true(name, value):
                    warnings.append(NOT_FUZZY if name == "fuzzymatching" else f"The {name} parameter is not supported.")
            case _:
                keyword = _keyword(name)
                if keyword in patterns:
                    raise Refusal(400, f"{name} is given twice: write several UIDs with commas between them")
                patterns[keyword] = _pattern(keyword, value)
    for level, uid in above.items():
        if patterns.get(UNIQUE[level], uid) not in ("", uid):
            raise Refusal(400, f"{UNIQUE[level]} is not that of the path")
        patterns[UNIQUE[level]] = uid
    question = relational(patterns, depth)
    if not question.knows_all:
        names = ", ".join(name for name in question.unknown if patterns[name])
        warnings.append(f"These are not kept at this level and were not matched: {names}")
    usual, optional = _columns(depth, above), _optional([*fields, *patterns], depth)
    return Search(
        question=question,
        columns=tuple(sorted({*usual, *optional}, key=model.tag)),
        optional=optional - frozenset(usual),
        offset=numbers.get("offset", 0),
        limit=numbers.get("limit"),
        warnings=tuple(warnings),
    )


def _columns(depth: Depth, above: Mapping[Depth, str]) -> tuple[str, ...]:
    """What is always given back: what is of this level, and of those above it that the path does not name."""
    usual = [keyword for level in _BY_DEPTH if level <= depth and level not in above for keyword in _BY_DEPTH[level]]
    return (*usual, *(UNIQUE[level] for level in above))


def _optional(fields: Sequence[str], depth: Depth) -> frozenset[str]:
    """What else is wanted and may be had at this level. Raises Refusal."""
    kept = frozenset(keyword for keyword, of in DEPTH_OF.items() if of <= depth)
    if "all" in fields:
        return kept
    return kept & {_keyword(name) for name in fields}


def _keyword(name: str) -> str:
    """The keyword of an attribute named by keyword or tag; of a path into a sequence, the path. Raises Refusal."""
    parts = name.split(".")
    found = []
    for part in parts:
        if not _NAME.fullmatch(part):
            raise Refusal(400, f"{_shown(name)} is no parameter, no keyword and no tag")
        try:
            found.append(dataset.entry(dataset.tag_of(part)).keyword)
        except UsageError as error:
            words = f"{_shown(name)} is no parameter and no DICOM keyword. {error.advice or ''}"
            raise Refusal(400, words.strip()) from None
    return ".".join(found)


def _pattern(keyword: str, value: str) -> str:
    """The value in DICOM matching syntax."""
    if "." not in keyword and model.vr(keyword) in _WITH_COMMAS:
        return "\\".join(part.strip() for part in value.split(","))
    return value.strip()


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
        raise Refusal(400, f"{name} is no number from 0 on")
    return int(value)


def _is_true(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise Refusal(400, f"{name} is neither true nor false")
    return value == "true"


def _shown(name: str) -> str:
    return repr(name[:64])
