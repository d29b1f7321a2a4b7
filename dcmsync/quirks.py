"""What a node does otherwise than the standard says, as data: the names that may be set, and what is known of servers.

Owns the words, the profiles and their sources. Refuses to know how a quirk is lived with: `transfer/inventory.py` asks
less and matches more, `transfer/retrieval.py` asks one by one, `endpoints/dimse` encodes and decodes.

A quirk is always a restriction on us: with a quirk that the node does not have, the result is the same, only slower.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from dcmsync.errors import UsageError

COUNTS = "NumberOf"  # how the keywords begin that ask for counts of related things
_UNIQUE = frozenset(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))


class Quirks(Struct, frozen=True, kw_only=True):
    """What is to be heeded of one node. The flags are the names of `FLAGS`.

    `ignores_keys`: keywords that it does not match by. `limit`: it lists no more things than this, whatever it says.
    `charset`: the defined term (PS3.3 §C.12.1.1.2) where it names none, or one that its octets contradict.
    """

    no_counts: bool = False
    no_uid_lists: bool = False
    no_cget: bool = False
    no_cancel: bool = False
    upper_uids: bool = False
    wrong_charset: bool = False
    ignores_keys: tuple[str, ...] = ()
    limit: int | None = None
    charset: str = ""
    max_associations: int | None = None


FLAGS: Mapping[str, str] = {
    "no-counts": "its counts of related series and instances are wrong, slow or refused: never ask for them",
    "no-uid-lists": "it takes no list of UIDs: ask for one instance at a time",
    "no-cget": "its C-GET is missing or broken: retrieve by C-MOVE",
    "no-cancel": "it does not bear C-CANCEL: abort instead",
    "upper-uids": "it needs the UIDs of all levels above, whatever it agrees to: never ask relationally",
    "wrong-charset": "the character set that it names is wrong: always take the one of `charset`",
}
"""The quirks that are there or not, by their name in the configuration."""


class Profile(Struct, frozen=True, kw_only=True):
    """What is known of one kind of server. `source` says how; `is_verified` with a version that was tried."""

    server: str
    source: str
    is_verified: bool = False
    quirks: Quirks = Quirks()


PROFILES: Mapping[str, Profile] = {
    "orthanc": Profile(
        server="Orthanc", is_verified=True,
        source="tried: 1.10.1. A list that LimitFindResults or LimitFindInstances cuts ends with 0xFE00, which is seen",
    ),
    "dcmtk": Profile(
        server="DCMTK dcmqrscp", is_verified=True,
        quirks=Quirks(no_counts=True, ignores_keys=("ModalitiesInStudy",)),
        source="tried: 3.6.7. Counts are empty; ModalitiesInStudy neither matches nor comes back",
    ),
    "pynetdicom": Profile(
        server="pynetdicom qrscp", is_verified=True,
        quirks=Quirks(
            no_counts=True, no_uid_lists=True, ignores_keys=("ModalitiesInStudy", "StudyDescription")
        ),
        source="tried: 3.0.4. No counts; a list of UIDs is refused (0xC320); what it does not know neither matches nor "
               "comes back",
    ),
    "conquest": Profile(
        server="Conquest", quirks=Quirks(no_cget=True),
        source="reported: github.com/pydicom/pynetdicom/issues/559, 278 (1.5.0: roles not answered, group 0002 sent)",
    ),
    "dicoogle": Profile(
        server="Dicoogle", quirks=Quirks(no_cget=True),
        source="reported: github.com/fo-dicom/fo-dicom/issues/891 (C-FIND and C-MOVE only)",
    ),
    "ge": Profile(
        server="GE archives", quirks=Quirks(no_cancel=True),
        source="reported: github.com/openradx/adit, KNOWLEDGE.md (aborts some 20 s after a C-CANCEL)",
    ),
    "dcm4chee": Profile(
        server="dcm4chee-arc-light",
        source="reported: github.com/dcm4che/dcm4chee-arc-light/issues/828 (refuses what would exceed its limit)",
    ),
}
"""Kinds of servers by their name in the configuration. Wherever the source is a report, it was not tried by us."""


@runtime_checkable
class Quirky(Protocol):
    """A session that knows the quirks of its place."""

    @property
    def quirks(self) -> Quirks: ...


def quirks_of(session: object) -> Quirks:
    """What is to be heeded of the place that a session speaks with."""
    return session.quirks if isinstance(session, Quirky) else Quirks()


class Said(Protocol):
    """What the configuration says of an endpoint."""

    @property
    def profile(self) -> str | None: ...
    @property
    def quirks(self) -> tuple[str, ...]: ...
    @property
    def ignores_keys(self) -> tuple[str, ...]: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def charset(self) -> str | None: ...
    @property
    def max_associations(self) -> int | None: ...


def read(said: Said) -> Quirks:
    """What the keys of an endpoint mean: the quirks of its profile, and over them what is set besides.

    Raises UsageError, with the nearest name.
    """
    base = Quirks()
    if said.profile is not None:
        if said.profile not in PROFILES:
            raise _unknown("profile", said.profile, PROFILES)
        base = PROFILES[said.profile].quirks
    for flag in said.quirks:
        if flag not in FLAGS:
            raise _unknown("quirk", flag, FLAGS)
    keys = tuple(dict.fromkeys((*base.ignores_keys, *said.ignores_keys)))
    for key in sorted(_UNIQUE.intersection(keys)):
        raise UsageError(f"{key} cannot be left out of a query", advice="Leave it out of ignores_keys")
    found = msgspec.structs.replace(
        base,
        ignores_keys=keys,
        limit=said.limit or base.limit,
        charset=said.charset or base.charset,
        max_associations=said.max_associations or base.max_associations,
        **{field_of(flag): True for flag in said.quirks},
    )
    if found.wrong_charset and not found.charset:
        raise UsageError("the quirk wrong-charset says nothing without charset", advice="Set the right one as charset")
    return found


def field_of(flag: str) -> str:
    """The field of `Quirks` that a flag sets."""
    return flag.replace("-", "_")


def _unknown(kind: str, name: str, known: Mapping[str, object]) -> UsageError:
    from difflib import get_close_matches  # lazy: only a mistake needs it

    near = get_close_matches(name, known, n=1)
    advice = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}"
    return UsageError(f"no such {kind}: {name}", advice=advice)
