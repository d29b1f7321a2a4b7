"""How a question becomes a QIDO-RS search (PS3.18 §10.6): a path and a query string.

Owns which resource is asked, and which values a server can be asked by. Refuses to ask, and to match.

Theory of operation. Orthanc 1.10 takes a query as it comes, without decoding percent signs, so what would have to be
encoded cannot match there. Each run of such characters becomes `*`, and a value that has no meaning but to us (`2024`
for a year, alternatives) is not sent at all: the answers then are more than was asked for, and whoever asked matches
them. Only what a key that was weakened says must then be told with each answer.
"""

import re
from functools import lru_cache

from msgspec import Struct

from dcmsync.contract import Ask, Level
from dcmsync.errors import Refused
from dcmsync.wire.dataset import entry, tag_of

_NAMES = {Level.STUDY: "studies", Level.SERIES: "series", Level.INSTANCE: "instances"}
_NO_WILDCARDS = frozenset((
    "AS", "AT", "DA", "DS", "DT", "FD", "FL", "IS", "SL", "SS", "SV", "TM", "UI", "UL", "US", "UV",
))  # fmt: skip  # PS3.4 §C.2.2.2.4
_SENT = {
    "DA": re.compile(r"\d{8}|\d{8}-|-\d{8}|\d{8}-\d{8}", re.ASCII),
    "TM": re.compile(r"(?=.*\d)(\d{2,6}(\.\d{1,6})?)?-?(\d{2,6}(\.\d{1,6})?)?", re.ASCII),
}
_ODD = re.compile(r"[^A-Za-z0-9._~^/:@!$'()*-]+|\?", re.ASCII)  # what does not reach every server as it is
_SAFE_UID = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,64}", re.ASCII)  # letters are not allowed in a UID, and met
_UID_LIST = re.compile(r"[A-Za-z0-9._-]+(?:[\\,][A-Za-z0-9._-]+)*", re.ASCII)
_OPEN = frozenset("*?\\,")

ALWAYS = {
    Level.STUDY: frozenset((
        "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName", "PatientName",
        "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    )),
    Level.SERIES: frozenset((
        "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "NumberOfSeriesRelatedInstances",
        "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
    )),
    Level.INSTANCE: frozenset((
        "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    )),
}  # fmt: skip
"""What comes back without being asked for (PS3.18 Tables 10.6.3-3 to -5)."""


class Search(Struct, frozen=True, kw_only=True):
    """A QIDO-RS search but for its paging. `level` is what it lists; `wanted` are the tags to be read from answers.

    `weakened`: keywords of keys that it chooses by less than was asked for. `parent` is the UID of what it is below, ""
    for none; `is_everything` that it chooses nothing there.
    """

    level: Level
    path: str
    query: tuple[tuple[str, str], ...]
    wanted: tuple[int, ...]
    weakened: frozenset[str] = frozenset()
    parent: str = ""
    is_everything: bool = False


def search_of(ask: Ask, *, takes_lists: bool = True, fuzzy: bool = False) -> Search:
    """The search for an ask of studies, series or instances. `takes_lists`: of UIDs. Raises Refused for an odd UID."""
    path, pinned = _resource(ask)
    query: list[tuple[str, str]] = []
    weakened = set()
    for keyword, value in ask.keys.items():
        if not value or keyword in pinned:
            continue
        sent = _sent(keyword, value, takes_lists=takes_lists, fuzzy=fuzzy)
        if sent != _plainly(keyword, value):
            weakened.add(keyword)
        if sent:
            query.append((keyword, sent))
    has_names = any(_vr(keyword) == "PN" for keyword, _ in query)
    given = _given(ask.level, len(pinned)).union(pinned)
    fields = dict.fromkeys((*ask.keys, *ask.wanted))
    query += [("includefield", keyword) for keyword in fields if keyword not in given]
    if fuzzy and has_names:
        query.append(("fuzzymatching", "true"))
    return Search(
        level=ask.level,
        path=path,
        query=tuple(query),
        wanted=tuple(map(tag_of, {ask.level.unique_key: None, **fields})),
        weakened=frozenset(weakened),
        parent=ask.keys[pinned[-1]] if pinned else "",
        is_everything=not any(value for keyword, value in ask.keys.items() if keyword not in pinned),
    )


def uid_in_path(uid: str) -> str:
    """The UID, as it may stand in a path. Raises Refused for what would lead elsewhere."""
    if not _SAFE_UID.fullmatch(uid):
        raise Refused("a UID has characters that cannot stand in a URL", status=400)
    return uid


def _resource(ask: Ask) -> tuple[str, tuple[str, ...]]:
    """The path of the resource, and which keys stand in it."""
    path, pinned = "", []
    for level in (Level.STUDY, Level.SERIES):
        uid = ask.keys.get(level.unique_key, "")
        if level >= ask.level or not uid or _OPEN & set(uid):
            break
        path += f"{_NAMES[level]}/{uid_in_path(uid)}/"
        pinned.append(level.unique_key)
    return path + _NAMES[ask.level], tuple(pinned)


@lru_cache(maxsize=16)
def _given(level: Level, pinned: int) -> frozenset[str]:
    """What comes back without being asked for: of the level, and of those above it that are not in the path."""
    levels = [other for other in ALWAYS if Level.STUDY + pinned <= other <= level]
    return frozenset().union(*(ALWAYS[other] for other in levels))


def _plainly(keyword: str, value: str) -> str:
    return value.replace("\\", ",") if _vr(keyword) == "UI" else value


def _sent(keyword: str, value: str, *, takes_lists: bool, fuzzy: bool) -> str:
    """What a server is asked to match by; "" for nothing. A name may go on with other groups (PS3.5 §6.2.1)."""
    vr = _vr(keyword)
    if vr == "UI":
        is_list = "\\" in value or "," in value
        return _plainly(keyword, value) if _UID_LIST.fullmatch(value) and (takes_lists or not is_list) else ""
    if vr in _SENT:
        return value if _SENT[vr].fullmatch(value) else ""
    if vr in _NO_WILDCARDS:
        return value if not _ODD.search(value) and "*" not in value else ""
    if "\\" in value:
        return ""
    has_one_group = vr == "PN" and "=" not in value and not fuzzy
    weak = re.sub(r"\*+", "*", _ODD.sub("*", value) + "*" * has_one_group)
    return weak if weak.strip("*") else ""


def _vr(keyword: str) -> str:
    return entry(tag_of(keyword)).vr
