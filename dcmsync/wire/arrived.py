"""Whether octets that arrived are the instance that was announced.

Owns the verdict, on the whole and while they still come. Refuses to know where they go.
"""

from msgspec import Struct
from msgspec.structs import replace

from dcmsync.wire.codings import DEFLATED
from dcmsync.wire.elements import walk
from dcmsync.wire.part10 import text
from dcmsync.wire.source import Source, Values

SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
IDENTITY = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID})


class Judged(Struct, frozen=True, kw_only=True):
    """What arrived. `reason` is a word for programs, "" when it is as announced; `message` is for people, and may say
    what is odd though nothing is wrong. `encoding` is the transfer syntax UID whose element encoding was met.
    """

    values: Values
    encoding: str
    reason: str = ""
    message: str = ""

    def uid(self, tag: int) -> str:
        """A UID of the data set, "" where it has none."""
        return text(self.values[tag][1]) if tag in self.values else ""


def judge(
    source: Source,
    transfer_syntax_uid: str,
    *,
    offset: int = 0,
    sop_instance_uid: str,
    study_uid: str,
    series_uid: str,
    wanted: frozenset[int] = frozenset(),
) -> Judged:
    """The verdict on a data set from `offset` to the end of the source; study and series are "" where not known."""
    found = walk(source, transfer_syntax_uid, offset=offset, wanted=wanted | IDENTITY)
    note = f"its elements are written as in {found.encoding}, not as declared" if found.encoding else ""
    judged = Judged(values=found.values, encoding=found.encoding or transfer_syntax_uid, message=note)
    if not found.is_whole:
        words = f"the data set is not whole: at octet {found.offset - offset}: {found.reason}"
        return replace(judged, reason=found.state, message=words)
    for tag, name, expected, said in (
        (SOP_INSTANCE_UID, "SOP", sop_instance_uid, "was announced"),
        (STUDY_INSTANCE_UID, "Study", study_uid, "was asked for"),
        (SERIES_INSTANCE_UID, "Series", series_uid, "was asked for"),
    ):
        if expected and judged.uid(tag) != expected:
            words = f"the data set has another {name} Instance UID than {said}"
            return replace(judged, reason="mismatch", message=words)
    return judged


def flaw(so_far: Source, transfer_syntax_uid: str, *, offset: int = 0) -> str:
    """Why octets that still arrive can no longer become a data set however many follow, or ""."""
    if transfer_syntax_uid in DEFLATED:
        return ""
    found = walk(so_far, transfer_syntax_uid, offset=offset, ascending=True)
    return "" if found.is_whole or found.is_cut else f"at {found.offset - offset:,}: {found.reason}"
