"""Plain values of an object of the DICOM JSON model (PS3.18 Annex F): the reader, for answers to queries.

Owns what servers write instead of what the standard says: tags in lower case, person names as plain strings, numbers as
strings and strings as numbers, null and {} for empty values. Refuses bulk data and sequences, and to read more than was
asked for. The writer is `dicomjson`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dataset import Entry, entry

Attributes = dict[str, object]
Object = Mapping[str, object]

_BULK_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ"))
_INTEGERS = frozenset(("IS", "SL", "SS", "SV", "UL", "US", "UV"))
_DECIMALS = frozenset(("DS", "FD", "FL"))
_SINGLE_VRS = frozenset(("LT", "ST", "UT", "UR"))  # in which a backslash is text (PS3.5 Table 6.2-1)
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_listed = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = msgspec.json.Decoder(dict[str, object]).decode


class Things:
    """The objects of an answer, each decoded when it is come to: together they need thirty times their octets."""

    def __init__(self, raw: Sequence[msgspec.Raw] = ()) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw)

    def __iter__(self) -> Iterator[dict[str, object]]:
        return map(_decode, self._raw)


def objects(octets: bytes) -> Things:
    """The objects of an answer. Raises RemoteProtocolError when it is no array of objects."""
    try:
        raw = _listed(octets)
        for each in raw:
            _decode(each)
        return Things(raw)
    except (ValueError, RecursionError) as error:  # octets that are no UTF-8 are a ValueError too
        raise RemoteProtocolError("sent what is no DICOM JSON") from error


def reader(wanted: Iterable[int]) -> Callable[[Object], Attributes]:
    """A function that gives keyword -> plain value of the wanted tags that have a value, as records carry them."""
    columns = tuple((f"{tag:08X}", entry(tag)) for tag in dict.fromkeys(wanted))

    def read(thing: Object) -> Attributes:
        found: Attributes = {}
        if not all(map(str.isupper, filter(_has_letters, thing))):
            thing = {name.upper(): member for name, member in thing.items()}
        for name, known in columns:
            member = thing.get(name)
            if isinstance(member, dict) and (value := _value(member, known)) is not None:
                found[known.keyword] = value
        return found

    return read


@lru_cache(maxsize=4096)
def _has_letters(name: str) -> bool:
    return name.upper() != name.lower()


def _value(member: Mapping[str, object], known: Entry) -> object | None:
    said = member.get("vr")
    vr = said if isinstance(said, str) and said != "UN" else known.vr
    given = member.get("Value")
    if vr in _BULK_VRS or given is None:
        return None
    parts = given if isinstance(given, list) else [given]  # one value without its array: some servers do
    values = [value for part in parts for value in _plain(vr, part, known)]
    if all(value == "" for value in values):
        return None
    return values if known.is_multi or len(values) > 1 else values[0]


def _plain(vr: str, part: object, known: Entry) -> list[object]:
    """The plain values that one entry of an array says: nearly always one. "" stands for an empty one."""
    if isinstance(part, dict):
        part = _name(part) if vr == "PN" else ""
    if isinstance(part, str):
        texts = part.split("\\") if known.is_multi and vr not in _SINGLE_VRS else [part]
        return [_number_or_text(vr, text.rstrip(" \0") if vr in _SINGLE_VRS else text.strip(" \0")) for text in texts]
    if isinstance(part, bool) or not isinstance(part, int | float):
        return [""]
    if vr in _DECIMALS:
        return [float(part) if abs(part) < 1 << 53 else part]
    if vr in _INTEGERS:
        return [int(part) if part == int(part) else part]
    return [str(part)]  # a PatientID that a server took for a number


def _number_or_text(vr: str, text: str) -> object:
    if (vr not in _INTEGERS and vr not in _DECIMALS) or not text or "_" in text:  # Python would read 1_0 as 10
        return text
    try:
        if vr in _DECIMALS:
            number = float(text)
            return number if number - number == 0 else text
        whole = int(text)
        return whole if -(2**63) <= whole < 2**63 else text
    except ValueError:
        return text


def _name(groups: Mapping[str, object]) -> str:
    """A person name with its groups as `=` joins them (PS3.5 §6.2.1)."""
    said = (groups.get(name) for name in _GROUPS)
    return "=".join(group.strip(" \0") if isinstance(group, str) else "" for group in said).rstrip("=")
