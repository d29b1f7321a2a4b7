"""SOP Class Extended Negotiation: what else two nodes agree on for a service (PS3.7 §D.3.3.5, PS3.4 §C.5).

Owns the body of the sub-item 56H, and what its octets mean to the Query/Retrieve services. An octet that the acceptor
does not send is 0: it keeps to the baseline.
"""

from struct import Struct as Layout

from msgspec import Struct

from dcmsync.errors import LocalProtocolError, RemoteProtocolError

_LENGTH = Layout(">H")


class Extension(Struct, frozen=True):
    """What is asked for, or agreed to, of one SOP class: `octets` are the service class application information."""

    sop_class_uid: str
    octets: bytes


class Wishes(Struct, frozen=True, kw_only=True):
    """What a query may do beyond the baseline (table C.5-1). False where nobody asked, or it was not agreed to."""

    relational: bool = False  # 1 relational queries; of C-GET and C-MOVE too (table C.5-2)
    fuzzy: bool = False  # 3 fuzzy semantic matching of person names
    timezone: bool = False  # 4 timezone query adjustment

    @property
    def is_any(self) -> bool:
        """Whether anything is asked for."""
        return self.relational or self.fuzzy or self.timezone


def of_find(sop_class_uid: str, wishes: Wishes) -> Extension:
    """What is proposed for C-FIND (table C.5-1). Octet 2, combined date and time matching, is left at the baseline."""
    return Extension(sop_class_uid, bytes((wishes.relational, 0, wishes.fuzzy, wishes.timezone)))


def agreed(octets: bytes) -> Wishes:
    """What the octets of a C-FIND class grant."""
    relational, _, fuzzy, timezone = (octet == 1 for octet in octets[:4].ljust(4, b"\0"))
    return Wishes(relational=relational, fuzzy=fuzzy, timezone=timezone)


def encode(extension: Extension) -> bytes:
    """The body of the sub-item 56H (table D.3-11): 5-6 SOP-class-uid-length, SOP-class-uid, information."""
    uid = extension.sop_class_uid.encode("ascii", "replace")
    if len(uid) > 64:
        raise LocalProtocolError(f"{extension.sop_class_uid!r} is no UID")
    return _LENGTH.pack(len(uid)) + uid + extension.octets


def decode(body: bytes) -> Extension:
    """Reads the body of a sub-item 56H. Raises RemoteProtocolError."""
    length = _LENGTH.unpack_from(body)[0] if len(body) >= _LENGTH.size else len(body)
    end = _LENGTH.size + length
    if end > len(body):
        raise RemoteProtocolError("sent an extended negotiation that is cut short")
    return Extension(body[_LENGTH.size : end].decode("ascii", "replace").strip(" \0"), body[end:])
