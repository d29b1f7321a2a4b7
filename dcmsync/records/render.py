"""Records as people like to see them: tree, table, CSV, bare UIDs. Pure: records in, lines of text out.

Tree and table need all records before the first line; CSV and UIDs are written as they come. Values come from peers,
so control characters are shown as escapes, never sent to a terminal.
"""

import csv
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO

Values = Mapping[str, object]

_UNIQUE = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_OURS = ("type", "source")
_BELOW = (("study", "studies"), ("series", "series"), ("instance", "instances"))
_SYMBOLS = {"same": "=", "missing": "+", "extra": "-", "differs": "!"}


def uid(record: Values) -> str:
    """The deepest UID of a record, "" when it has none."""
    return _safe(next((str(record[key]) for key in _UNIQUE if record.get(key)), ""))


def csv_line(values: Sequence[object]) -> str:
    """One line of CSV (RFC 4180), without its end; several values of one attribute are joined with a backslash."""
    line = StringIO()
    csv.writer(line, lineterminator="").writerow([_safe(_plain(value)) for value in values])
    return line.getvalue()


def columns(record: Values) -> list[str]:
    """The keys that make the columns of a table or CSV: those of the first record."""
    return list(record)


def table(records: Sequence[Values]) -> Iterator[str]:
    """Aligned columns, the keys on top; columns that are empty throughout are left out."""
    used = dict.fromkeys(key for record in records for key, value in record.items() if key != "type" and _plain(value))
    rows = [list(used), *([_safe(_plain(record.get(key, ""))) for key in used] for record in records)]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def tree(records: Iterable[Values]) -> Iterator[str]:
    """Patients, their studies, series and instances, with counts; sorted by ID, date and number.

    Of records with a `change`, each line begins with its symbol; `!` where what is below differs in part.
    """
    patients: dict[str, _Branch] = {}
    for record in records:
        if record.get("type") not in ("patient", "study", "series", "instance"):
            continue
        branch = patients.setdefault(str(record.get("PatientID", "")), _Branch(record))
        for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            if key not in record:
                break
            branch = branch.children.setdefault(str(record[key]), _Branch(record))
            branch.record = record if len(record) > len(branch.record) else branch.record
        branch.symbol = _SYMBOLS.get(str(record.get("change")), "")
    ordered = sorted(patients.values(), key=lambda patient: str(patient.record.get("PatientID", "")))
    yield _total([_counted(len(ordered), "patient", "patients"), *_sums(ordered, 0)])
    for index, patient in enumerate(ordered):
        yield from _draw(patient, 0, "", is_last=index == len(ordered) - 1)


class _Branch:
    """One node of the tree: the record that says most of it, and what is below."""

    def __init__(self, record: Values) -> None:
        self.record = record
        self.children: dict[str, _Branch] = {}
        self.symbol = ""

    def sum_symbols(self) -> str:
        """Its symbol; without one of its own, what those below come to."""
        if not self.symbol:
            below = {child.sum_symbols() for child in self.children.values()} - {""}
            self.symbol = "" if not below else "=" if below == {"="} else "!"
        return self.symbol


def _draw(branch: _Branch, depth: int, indent: str, *, is_last: bool) -> Iterator[str]:
    label = " | ".join(_labels(branch, depth))
    symbol = branch.sum_symbols()
    yield f"{symbol}{' ' if symbol else ''}{indent}{'└── ' if is_last else '├── '}{label}"
    below = sorted(branch.children.values(), key=lambda child: _order(child.record, depth + 1))
    for index, child in enumerate(below):
        yield from _draw(child, depth + 1, indent + ("    " if is_last else "│   "), is_last=index == len(below) - 1)


def _labels(branch: _Branch, depth: int) -> list[str]:
    record = branch.record

    def shown(key: str) -> str:
        return _safe(_plain(record.get(key, ""))) or "NA"

    if depth == 0:
        return [f"ID: {shown('PatientID')}", f"Name: {shown('PatientName')}", *filter(None, _sums([branch], 0))]
    if depth == 1:
        when = [f"Date: {shown('StudyDate')}", f"Time: {shown('StudyTime')}"]
        return [*when, shown("StudyDescription"), *_sums([branch], 1)]
    if depth == 2:
        number = record.get("SeriesNumber")
        name = f"{number:03}" if isinstance(number, int) else "NA"
        return [name, shown("SeriesDescription"), shown("Modality"), *_sums([branch], 2)]
    number = record.get("InstanceNumber")
    return [f"{number:05}" if isinstance(number, int) else "NA", shown("SOPInstanceUID")]


def _sums(branches: Sequence[_Branch], depth: int) -> list[str]:
    """What stands below branches of one depth (0 patient, 1 study, 2 series): counted, or as the records claim."""
    words = []
    if depth == 0 and any(patient.record.get("type") == "patient" for patient in branches):
        claimed = (_claimed(branches, f"NumberOfPatientRelated{many.title()}") for _, many in _BELOW)
        return [_counted(count, one, many) for count, (one, many) in zip(claimed, _BELOW, strict=True)]
    if depth == 0:
        words.append(_counted(sum(len(patient.children) for patient in branches), "study", "studies"))
    studies = [study for patient in branches for study in patient.children.values()] if depth == 0 else branches
    if depth <= 1:
        words.append(_counted(_sum(studies, "NumberOfStudyRelatedSeries"), "series", "series"))
    series = studies if depth <= 1 else branches
    key = "NumberOfStudyRelatedInstances" if depth <= 1 else "NumberOfSeriesRelatedInstances"
    words.append(_counted(_sum(series, key), "instance", "instances"))
    return [word for word in words if word]


def _claimed(branches: Sequence[_Branch], key: str) -> int | None:
    """What the records of all branches claim together; None where one does not say."""
    counts = [branch.record.get(key) for branch in branches]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if len(known) == len(counts) else None


def _sum(branches: Sequence[_Branch], key: str) -> int | None:
    total = 0
    for branch in branches:
        claimed = branch.record.get(key)
        below = branch.children.values()
        if isinstance(claimed, int):
            total += claimed
        elif key == "NumberOfStudyRelatedInstances" and below:
            inner = _sum(list(below), "NumberOfSeriesRelatedInstances")
            if inner is None:
                return None
            total += inner
        elif below:
            total += len(below)
        else:
            return None
    return total


def _counted(count: int | None, one: str, many: str) -> str:
    return "" if count is None else f"{count} {one if count == 1 else many}"


def _total(words: Sequence[str]) -> str:
    return " | ".join(word for word in words if word)


def _order(record: Values, depth: int) -> tuple[object, ...]:
    if depth == 1:
        return (str(record.get("StudyDate", "")), str(record.get("StudyTime", "")), uid(record))
    number = record.get("SeriesNumber" if depth == 2 else "InstanceNumber")
    return (number if isinstance(number, int) else 1 << 31, uid(record))


def _plain(value: object) -> str:
    return "\\".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _width(text: str) -> int:
    """How many columns of a terminal a text takes: ideographs two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def _safe(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
