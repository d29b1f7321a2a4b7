"""DICOM attribute matching (PS3.4 §C.2.2.2): does this value match what was asked?

Owns universal, single value, list of UID, wildcard and range matching, and the comparisons `<` `<=` `>` `>=`, over
the plain values that records carry. Used by `filter`, by the embedded node to answer C-FIND, and by the client to
check that an answer matches what was asked. Refuses to know records and expressions.

Beyond the standard, for people's sake: wildcards work on any text; a date or time may be cut short (`2024` is all
of that year); numbers have ranges. Offsets from UTC in date-times are not applied.
"""

import re
from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any

Judge = Callable[[object], bool]

PERSON_NAMES = frozenset({
    "ConsultingPhysicianName", "ContentCreatorName", "DistributionName", "EvaluatorName", "HumanPerformerName",
    "InterpretationAuthor", "InterpretationRecorder", "InterpretationTranscriber", "NameOfPhysiciansReadingStudy",
    "NamesOfIntendedRecipientsOfResults", "OperatorsName", "OrderEnteredBy", "OtherPatientNames", "PatientBirthName",
    "PatientMotherBirthName", "PatientName", "PerformingPhysicianName", "PersonName",
    "PhysicianApprovingInterpretation", "PhysiciansOfRecord", "ROIInterpreter", "ReferringPhysicianName",
    "RequestingPhysician", "ResponsiblePerson", "ReviewerName", "ScheduledPerformingPhysicianName",
    "SecondaryReviewerName", "VerifyingObserverName",
})  # fmt: skip
_UIDS = ("UID", "UIDList", "SOPClassesInStudy", "SOPClassesSupported")
_NUMBERS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_TEMPORAL = frozenset({"DA", "TM", "DT"})
_PADDING = "\0 \t\r\n"

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_NUMBER_RANGE = re.compile(rf"({_NUMBER.pattern})-({_NUMBER.pattern})?")
_OFFSET = re.compile(r"(\d{4,14}(?:\.\d{1,6})?)(?:-(?:0\d|1[0-2])|\+(?:0\d|1[0-4]))[0-5]\d(?!\d)")
"""A date-time and its offset from UTC, -1200 to +1400 (PS3.5 §6.2, DT); what follows a hyphen else is a range."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def matches(value: object, pattern: str, vr: str = "") -> bool:
    """Whether `value` matches `pattern`; `vr` is the value representation (PS3.5 §6.2) where it is known.

    A value of several (a list) matches when any of them does; an absent one (None, "", []) matches only a universal
    pattern. `\\` separates alternatives, as in a list of UIDs.
    """
    return matcher(pattern, vr)(value)


def matcher(pattern: str, vr: str = "") -> Judge:
    """A function that tells whether a value matches `pattern`; for many values of one attribute."""
    alternatives = [word for word in (part.strip(_PADDING) for part in pattern.split("\\")) if word]
    if not alternatives or any(not word.strip("*") for word in alternatives):
        return _everything
    judges = [_one(word, vr) for word in alternatives]
    if len(judges) == 1:
        return of_any(judges[0])
    return of_any(lambda value: any(judge(value) for judge in judges))


def comparer(operator: str, operand: str, vr: str = "") -> Judge:
    """A function that tells whether a value, or any of several, is `<`, `<=`, `>` or `>=` than `operand`.

    Numbers compare as numbers, dates and times as far as the shorter of both goes, other text by code point.
    """
    compare = _OPERATORS[operator]
    number = number_of(operand)

    def judge(value: object) -> bool:
        if not (isinstance(value, str) and vr in _TEMPORAL):  # an EchoTime is a number, whatever its name
            given = number_of(value)
            if number is not None and given is not None:
                return compare(given, number)
        if not isinstance(value, str) or not value:
            return False
        if vr in _TEMPORAL:
            left, right = _cut_alike(_moment(value, vr), _moment(operand, vr))
            return compare(left, right)
        return compare(value.strip(_PADDING), operand)

    return of_any(judge)


def of_any(judge: Judge) -> Judge:
    """`judge` for a value that may be several: true when it is true of any. Never true of an absent value."""

    def judge_any(value: object) -> bool:
        if isinstance(value, list | tuple):
            return any(judge(item) for item in value)
        return value is not None and judge(value)

    return judge_any


def vr_of(keyword: str) -> str:
    """The value representation, as far as the keyword itself tells it: UI, PN, DA, TM, DT, or "" for any other."""
    if keyword.endswith(_UIDS):
        return "UI"
    if keyword in PERSON_NAMES:
        return "PN"
    for suffix, vr in (("DateTime", "DT"), ("Date", "DA"), ("Time", "TM")):
        if keyword.endswith(suffix):
            return vr
    return ""


def number_of(value: object) -> int | float | None:
    """The number that a value is, or that its text says; None for anything else."""
    if isinstance(value, int | float):
        return None if isinstance(value, bool) else value
    if not isinstance(value, str) or not _NUMBER.fullmatch(text := value.strip(_PADDING)):
        return None
    return int(text) if text.lstrip("+-").isdigit() and len(text) < 40 else float(text)


def _everything(_value: object) -> bool:
    return True


def _one(pattern: str, vr: str) -> Judge:
    """The judge of single values for one alternative, which is neither empty nor all stars."""
    of_text = _text(pattern, vr)
    of_number = _number(pattern)

    def judge(value: object) -> bool:
        if isinstance(value, str):
            text = value.strip(_PADDING)
            return bool(text) and of_text(text)
        if isinstance(value, bool):
            return pattern.lower() == ("true" if value else "false")
        return isinstance(value, int | float) and of_number(value)

    return judge


def _text(pattern: str, vr: str) -> Callable[[str], bool]:
    if vr == "PN":
        return _name(pattern)
    if "*" in pattern or "?" in pattern:
        wild = _wildcard(pattern)
        return lambda text: wild.fullmatch(text) is not None
    if vr in _TEMPORAL:
        return _range(pattern, vr) or _same_moment(pattern, vr)
    number = number_of(pattern)
    if vr in _NUMBERS and number is not None:
        return lambda text: number_of(text) == number
    return lambda text: text == pattern


def _number(pattern: str) -> Callable[[int | float], bool]:
    """Single number, wildcard over its digits, or range `a-b`, `a-`; `-5` is a negative number, not a range."""
    number = number_of(pattern)
    if number is not None:
        return lambda value: value == number
    if "*" in pattern or "?" in pattern:
        wild = _wildcard(pattern)
        return lambda value: wild.fullmatch(str(value)) is not None
    ends = _NUMBER_RANGE.fullmatch(pattern)
    if not ends:
        return lambda value: False
    low, high = number_of(ends[1]), number_of(ends[2])
    return lambda value: (low is None or value >= low) and (high is None or value <= high)


def _wildcard(pattern: str) -> re.Pattern[str]:
    """`*` and `?` as a regular expression that never backtracks past a `*`: linear, whoever wrote the pattern."""
    first, *rest = (re.escape(part).replace(r"\?", ".") for part in pattern.split("*"))
    if not rest:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _name(pattern: str) -> Callable[[str], bool]:
    """Person names (PS3.5 §6.2.1): without regard to case and trailing `^`.

    A pattern without `=` may match any of the three groups (alphabetic, ideographic, phonetic).
    """
    wanted = _plain_name(pattern)
    wild = _wildcard(wanted) if "*" in wanted or "?" in wanted else None

    def judge(text: str) -> bool:
        name = _plain_name(text)
        candidates = [name] if "=" in wanted else [name, *name.split("=")]
        if wild is None:
            return wanted in candidates
        return any(wild.fullmatch(form) for candidate in candidates for form in (candidate, _all_components(candidate)))

    return judge


def _plain_name(name: str) -> str:
    groups = ("^".join(part.strip(_PADDING) for part in group.split("^")).rstrip("^") for group in name.split("="))
    return "=".join(groups).rstrip("=").casefold()


def _all_components(name: str) -> str:
    """The name with all five components written, so that `DOE^*` matches DOE."""
    return "=".join(group + "^" * (4 - group.count("^")) for group in name.split("="))


def _range(pattern: str, vr: str) -> Callable[[str], bool] | None:
    """Range matching (PS3.4 §C.2.2.2.5), both ends included; None when `pattern` is no range."""
    if vr == "DT":
        pattern = _OFFSET.sub(r"\1", pattern)
    low, dash, high = pattern.partition("-")
    if not dash:
        return None
    low, high = _moment(low, vr), _moment(high, vr)

    def judge(text: str) -> bool:
        moment = _moment(text, vr)
        return _is_ordered(low, moment) and _is_ordered(moment, high)

    return judge


def _same_moment(pattern: str, vr: str) -> Callable[[str], bool]:
    wanted = _moment(pattern, vr)

    def judge(text: str) -> bool:
        moment = _moment(text, vr)
        return moment.startswith(wanted) or (wanted.startswith(moment) and not wanted[len(moment) :].strip("0."))

    return judge


def _moment(text: str, vr: str) -> str:
    """The digits of a date or time, without the separators of ACR-NEMA (`2024.01.31`, `12:13:14`) and offset."""
    text = text.strip(_PADDING)
    if vr == "DA":
        return text.replace(".", "")
    if vr == "TM":
        return text.replace(":", "")
    return match[1] if (match := _OFFSET.fullmatch(text)) else text


def _is_ordered(earlier: str, later: str) -> bool:
    left, right = _cut_alike(earlier, later)
    return left <= right


def _cut_alike(left: str, right: str) -> tuple[str, str]:
    """Both as precise as the less precise: `2024` and `20240131` are the same as far as one can tell."""
    octets = min(len(left), len(right))
    return left[:octets], right[:octets]
