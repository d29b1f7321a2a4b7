"""User identity negotiation: who the user behind a calling AE title is (PS3.7 §D.3.3.7).

Owns the bodies of the two sub-items. Refuses to judge an identity, and to show a secret: what is printed of one is its
kind and its user name.
"""

from enum import IntEnum
from struct import Struct as Layout

from msgspec import Struct

from dcmsync.errors import LocalProtocolError, RemoteProtocolError

_LENGTH = Layout(">H")
MOST_OCTETS = 0xFF00  # of both fields together: the whole user information item has a length of two octets (§D.1)


class Kind(IntEnum):
    """User-Identity-Type (table D.3-14)."""

    USER_NAME = 1
    PASSWORD = 2  # user name and passcode
    KERBEROS = 3
    SAML = 4
    JWT = 5


class Identity(Struct, frozen=True, kw_only=True):
    """What is said of the user. `primary` is the user name or the token, `secondary` the passcode of kind 2.

    With `wants_response` the acceptor owes an answer: without one, it has not looked at the identity.
    """

    kind: int
    primary: bytes
    secondary: bytes = b""
    wants_response: bool = False

    def __repr__(self) -> str:
        has_name = self.kind in (Kind.USER_NAME, Kind.PASSWORD)
        named = f" {self.primary.decode(errors='replace')!r}" if has_name else ""
        return f"<identity of kind {self.kind}{named}>"


def encode(identity: Identity) -> bytes:
    """The body of the sub-item 58H (table D.3-14). Raises LocalProtocolError when it is too long."""
    if len(identity.primary) + len(identity.secondary) > MOST_OCTETS:
        raise LocalProtocolError("a user identity is too long for an association request")
    return (
        bytes((identity.kind, identity.wants_response))  # 5 user-identity-type, 6 positive-response-requested
        + _LENGTH.pack(len(identity.primary)) + identity.primary  # 7-8 primary-field-length, 9-n primary-field
        + _LENGTH.pack(len(identity.secondary)) + identity.secondary  # the same of the secondary field
    )  # fmt: skip


def decode(body: bytes) -> Identity:
    """Reads the body of a sub-item 58H. Raises RemoteProtocolError."""
    if len(body) < 2:
        raise RemoteProtocolError("sent a user identity that is cut short")
    primary, rest = _field(body[2:])
    # Some leave out the secondary field where its length is zero (table D.3-14 has it always).
    secondary, _ = _field(rest) if rest else (b"", b"")
    return Identity(kind=body[0], wants_response=body[1] == 1, primary=primary, secondary=secondary)


def encode_response(response: bytes) -> bytes:
    """The body of the sub-item 59H (table D.3-15): 5-6 server-response-length, 7-n server-response."""
    return _LENGTH.pack(len(response)) + response


def decode_response(body: bytes) -> bytes:
    """Reads the body of a sub-item 59H. Raises RemoteProtocolError."""
    return _field(body)[0]


def _field(octets: bytes) -> tuple[bytes, bytes]:
    """A field with its length before it, and what follows."""
    length = _LENGTH.unpack_from(octets)[0] if len(octets) >= _LENGTH.size else len(octets)
    end = _LENGTH.size + length
    if end > len(octets):
        raise RemoteProtocolError("sent a user identity that is cut short")
    return octets[_LENGTH.size : end], octets[end:]
