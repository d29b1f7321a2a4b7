"""TLS: who may be spoken to, how strongly, and the octets between a socket and a `Stream`. The one door to ssl.

Owns contexts, the handshake, and the words for what went wrong in it. Refuses to fall back: no older version, no
weaker suite, no plain DICOM, and no certificate unchecked unless the configuration says so in as many words.

Theory of operation: the engine of ssl is given octets and gives octets (memory BIOs); the socket stays a plain one,
so that guards shut it down and readiness is awaited as ever, and the first octets of a peer are seen before TLS sees
them: a peer that speaks plain DICOM is recognised by its PDU. `Secured` has the two calls of a socket that a `Stream`
makes, so a stream without TLS is exactly what it was.

hot: a gigabyte costs 0.67 s of CPU to send and 0.62 s to receive (0.19 and 0.15 in plain); measured 2026-11-21 on 2
cores of a shared x86-64 machine, TLS 1.3 with AES-256-GCM. A record holds 16 KiB and ssl opens one a call, so both
directions work through 256 KiB between two calls of the kernel.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from socket import socket

import anyio
from msgspec import Struct

from dcmsync.errors import Disconnected, Insecure, LocalTrouble, Stalled, UsageError

# PS3.15 §B.12, BCP 195 (RFC 9325 §3.1, §4.2): nothing below TLS 1.2, and with it ephemeral keys and AEAD alone.
_SUITES_256 = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
_SUITES_128 = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256")
# RFC 9325 §4.5: keys of 112 bits of strength (RSA 2048), signatures better than SHA-1: what OpenSSL calls level 2.
_STRENGTH = "@SECLEVEL=2"
PROFILES = {
    "bcp195": 128,  # PS3.15 §B.12
    "modified": 256,  # PS3.15 §B.13: as §B.12, and keys of 256 bits
}
"""By name: the bits that a cipher must have. Neither profile ever begins in plain, or goes down to an older version."""

_RECORD_OCTETS = 1 << 14  # RFC 8446 §5.1
_RECORDS_OCTETS = 1 << 18  # of plain text for one write, and of cipher text for one read
_TLS_RECORDS = range(0x14, 0x18)  # RFC 8446 §5.1: change_cipher_spec, alert, handshake, application_data
_PDUS = range(0x01, 0x08)  # PS3.8 §9.3


class Terms(Struct, frozen=True, kw_only=True):
    """On what terms to speak TLS. Files are PEM; without `ca` the system's authorities count.

    `server_name` is whom the certificate must be of, where that is not the host. `key_password` is asked when needed.
    """

    profile: str = "bcp195"
    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: Callable[[], bytes] | None = None
    server_name: str = ""
    verify: bool = True


class Spoken(Struct, frozen=True, kw_only=True):
    """What a handshake came to. `ends`: when the peer's certificate does; None where it was not verified, or has none.
    """

    version: str
    cipher: str
    ends: datetime | None


class Secure:
    """How the connections with one peer, or on one port, are secured."""

    def __init__(self, context: ssl.SSLContext, terms: Terms) -> None:
        self.context = context
        self.profile = terms.profile
        self.server_name = terms.server_name
        self.least_bits = PROFILES[terms.profile]


def spoken_by(engine: ssl.SSLObject) -> Spoken:
    """What the handshake of a connection came to, once it is done."""
    certificate = engine.getpeercert() or {}
    ends = certificate.get("notAfter")
    cipher = engine.cipher()
    return Spoken(
        version=engine.version() or "",
        cipher=cipher[0] if cipher else "",
        ends=datetime.fromtimestamp(ssl.cert_time_to_seconds(str(ends)), UTC) if ends else None,
    )


def client(terms: Terms) -> Secure:
    """What a requestor needs. Raises UsageError, LocalTrouble for files that are missing or wrong."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, terms)
    if not terms.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif terms.ca:
        _trust(context, terms.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return Secure(context, terms)


def server(terms: Terms) -> Secure:
    """What an acceptor needs: its certificate, and with `ca` that of each peer. Raises as `client` does."""
    if not terms.certificate:
        raise UsageError("a TLS port needs a certificate", advice="Name the PEM files of certificate and key")
    context = _context(ssl.PROTOCOL_TLS_SERVER, terms)
    if terms.ca:
        _trust(context, terms.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return Secure(context, terms)


def _context(protocol: int, terms: Terms) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    suites = _SUITES_256 if PROFILES[terms.profile] == 256 else _SUITES_256 + _SUITES_128
    context.set_ciphers(":".join((*suites, _STRENGTH)))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION  # RFC 9325 §3.3, §3.5
    if terms.certificate:
        password = terms.key_password or _no_password
        try:
            context.load_cert_chain(terms.certificate, terms.key or None, password)
        except ssl.SSLError as error:
            words = (error.reason or "no PEM").lower().replace("_", " ")
            advice = "Check that the key belongs to the certificate, that both are PEM, and the password"
            what = f"{terms.certificate}: certificate and key cannot be used"
            raise UsageError(f"{what}: {words}", advice=advice) from None
        except OSError as error:
            raise LocalTrouble(f"{terms.certificate}, {terms.key}: cannot be read: {error.strerror}") from None
    return context


def _no_password() -> bytes:
    raise UsageError("the key is encrypted, and nothing says its password",
                     advice="Set key_password_file or key_password_command")  # fmt: skip


def _trust(context: ssl.SSLContext, ca: str) -> None:
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError:
        raise UsageError(f"{ca}: no certificates in PEM") from None
    except OSError as error:
        raise LocalTrouble(f"{ca}: cannot be read: {error.strerror}") from None


async def handshake(
    plain: socket, secure: Secure, *, host: str | None, name: str, timeout_s: float
) -> Secured:
    """A secured connection over `plain`, once the handshake is done; `host` is None on the acceptor's side.

    Raises Insecure, Stalled, Disconnected.
    """
    secured = Secured(plain, secure, host=host, name=name)
    with anyio.move_on_after(timeout_s):
        while not secured.shake():
            await (anyio.wait_writable if secured.has_unsent else anyio.wait_readable)(plain)
        return secured
    raise Stalled(f"{name}: the TLS handshake was not done within {timeout_s:g} s",
                  advice="Does the peer expect plain DICOM? Then write dicom://" if host else None)  # fmt: skip


class Secured:
    """A connection with TLS on it, for a `Stream`: the calls of a non-blocking socket that it makes."""

    def __init__(self, plain: socket, secure: Secure, *, host: str | None, name: str) -> None:
        self._socket = plain
        self._name = name
        self._is_client = host is not None
        self._least_bits = secure.least_bits
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine = secure.context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None,
            server_hostname=(secure.server_name or host) if host is not None else None,
        )  # fmt: skip
        self._arrived = memoryview(bytearray(_RECORDS_OCTETS))
        self._leaving = memoryview(bytearray(_RECORDS_OCTETS))
        self._unsent = memoryview(b"")
        self._owed = 0  # octets of plain text that `sendmsg` has taken, and whose cipher text is not sent to its end
        self._has_heard = False
        self._ahead = memoryview(b"")  # what was read to see whether something has arrived

    @property
    def spoken(self) -> Spoken:
        """What the handshake came to, once it is done."""
        return spoken_by(self._engine)

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until the socket takes more."""
        return bool(self._unsent or self._outgoing.pending)

    @property
    def has_arrived(self) -> bool:
        """Whether `recv_into` would give something now, if only the end. What is TLS's own business is nothing."""
        if not self._ahead:
            buffer = memoryview(bytearray(_RECORD_OCTETS))
            try:
                self._ahead = buffer[: self.recv_into(buffer)]
            except BlockingIOError:
                return False
            except (OSError, Insecure):
                return True  # the next read will say so again
        return True

    def shake(self) -> bool:
        """Goes on with the handshake as far as it can without waiting: whether it is done.

        Raises Insecure, Disconnected.
        """
        while True:
            try:
                self._engine.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                is_done = False
            except ssl.SSLError as error:
                self._farewell()
                raise self._refused(error) from error
            try:
                self._flush()
                if is_done:
                    self._check_strength()
                    return True
                if not self._fetch():
                    raise Disconnected(f"{self._name}: the peer closed the connection during the TLS handshake",
                                       advice="Does it speak TLS on this port?")  # fmt: skip
            except BlockingIOError:
                return False
            except OSError as error:
                words = f"{self._name}: the connection broke during the TLS handshake: {error.strerror}"
                raise Disconnected(words, advice="Does the peer speak TLS on this port?") from error

    def recv_into(self, view: memoryview) -> int:
        """As of a socket: how many octets came, 0 at the end. An end without close_notify is an end, too: the upper
        layer knows whether more was due. Raises BlockingIOError, OSError, Insecure.
        """
        filled = min(len(self._ahead), len(view))
        if filled:
            view[:filled], self._ahead = self._ahead[:filled], self._ahead[filled:]
            return filled
        while filled < len(view):
            try:
                count: int = self._engine.read(len(view) - filled, view[filled:])  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                if filled or not self._fetch():
                    break
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            except ssl.SSLError as error:
                raise self._refused(error) from error
            if not count:
                break
            filled += count
        return filled

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """As of a socket: how many octets of the pieces were taken. What was not is due next, also after an error.

        Raises BlockingIOError, OSError, Insecure.
        """
        if not self._owed:
            self._owed = self._encrypt(pieces)
        while True:
            sent = self._send()
            is_all = not self.has_unsent
            taken = self._owed if is_all else min(sent, self._owed - 1)  # so that they come back until all is sent
            self._owed -= taken
            if taken or is_all:
                return taken

    def close_notify(self) -> None:
        """Tells the peer that nothing more comes, as far as the kernel takes it now."""
        try:
            self._engine.unwrap()
        except ssl.SSLError:
            pass  # the peer's own has not come, or never will
        self._farewell()

    def _encrypt(self, pieces: Sequence[bytes | memoryview]) -> int:
        # Gathered, since each write makes a record of its own; in one buffer, since new pages cost more than the copy.
        size = 0
        for piece in pieces:
            end = min(size + len(piece), _RECORDS_OCTETS)
            self._leaving[size:end] = piece[: end - size]
            size = end
            if size == _RECORDS_OCTETS:
                break
        position = 0
        while position < size:
            try:
                position += self._engine.write(self._leaving[position:size])
            except ssl.SSLError as error:
                raise self._refused(error) from error
        return size

    def _flush(self) -> None:
        """Sends what ssl has to say. Raises BlockingIOError, with the rest kept."""
        while self.has_unsent:
            self._send()

    def _send(self) -> int:
        if not self._unsent:
            self._unsent = memoryview(self._outgoing.read())
        sent = self._socket.send(self._unsent)
        self._unsent = self._unsent[sent:]
        return sent

    def _farewell(self) -> None:
        try:
            self._flush()
        except OSError:
            pass

    def _fetch(self) -> int:
        """Takes octets from the socket: how many. Raises BlockingIOError, OSError, Insecure."""
        if self.has_unsent:  # such as the answer to a change of keys
            self._farewell()
        count = self._socket.recv_into(self._arrived)
        if not self._has_heard and count:
            self._has_heard = True
            self._recognise(self._arrived[0])
        if count:
            self._incoming.write(self._arrived[:count])
        else:
            self._incoming.write_eof()
        return count

    def _recognise(self, first: int) -> None:
        """Names a peer that does not speak TLS. Raises Insecure."""
        if first in _TLS_RECORDS:
            return
        if first in _PDUS:
            raise Insecure(f"{self._name}: the peer speaks plain DICOM on this port, not TLS",
                           advice="Have it speak TLS, or write dicom:// if that is what you want"
                           if self._is_client else "Have it speak TLS")  # fmt: skip
        raise Insecure(f"{self._name}: the peer speaks neither TLS nor DICOM on this port",
                       advice="Check the port")  # fmt: skip

    def _check_strength(self) -> None:
        cipher = self._engine.cipher()
        if cipher is None or cipher[2] < self._least_bits:  # TLS 1.3 suites are not in the list of ours
            chosen = cipher[0] if cipher else "no cipher"
            raise Insecure(f"{self._name}: the peer chose {chosen}; at least {self._least_bits} bits are asked for",
                           advice='Set tls_profile = "bcp195" if that will do')  # fmt: skip

    def _refused(self, error: ssl.SSLError) -> Insecure:
        return Insecure(f"{self._name}: {_words(error)}", advice=_advice(error))


def refusal(name: str, error: BaseException) -> Insecure:
    """What an error of ssl means that another library met: `error`, or whatever it comes from."""
    met: BaseException | None = error
    while met is not None and not (isinstance(met, ssl.SSLError) and hasattr(met, "reason")):
        met = met.__cause__ or met.__context__
    if not isinstance(met, ssl.SSLError):
        return Insecure(f"{name}: TLS failed")
    if met.reason in _NO_TLS:
        return Insecure(f"{name}: the peer does not speak TLS on this port",
                        advice="Check the port, or write http:// if plain text is what you want")  # fmt: skip
    return Insecure(f"{name}: {_words(met)}", advice=_advice(met))


def _words(error: ssl.SSLError) -> str:
    """What an error of ssl says, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _CERTIFICATE_FAULTS.get(error.verify_code)
        return f"the peer's certificate is not accepted: {known[0] if known else error.verify_message}"
    reason = error.reason or "unknown"
    if reason in _REASONS:
        return _REASONS[reason]
    return f"TLS failed: {reason.lower().replace('_', ' ')}"


def _advice(error: ssl.SSLError) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _CERTIFICATE_FAULTS.get(error.verify_code)
        return known[1] if known else None
    return "Set certificate and key" if error.reason in _WANTS_CERTIFICATE else None


_NAME_AUTHORITY = "Name its authority: ca = \"FILE\""
_CERTIFICATE_FAULTS = {  # X509_V_ERR_* of OpenSSL, doc/man3/X509_STORE_CTX_get_error
    9: ("it is not valid yet", "Check the clocks"),
    10: ("it has expired", "Ask the administrator of the peer for a new one"),
    18: ("it is self-signed", _NAME_AUTHORITY),
    19: ("its authority is not known here", _NAME_AUTHORITY),
    20: ("its authority is not known here", _NAME_AUTHORITY),
    21: ("its authority is not known here", _NAME_AUTHORITY),
    23: ("it has been revoked", "Ask the administrator of the peer"),
    26: ("it is not made for this purpose", "Ask the administrator of the peer"),
    62: ("it is of another host", "Check the host, or name whom to expect: server_name = \"NAME\""),
    64: ("it is of another address", "Write the host by its name, or name whom to expect: server_name = \"NAME\""),
    66: ("its key is too short", "Ask the administrator of the peer for a stronger one"),
    67: ("the key of its authority is too short", "Ask the administrator of the peer for a stronger one"),
    68: ("it is signed with an algorithm that is too weak", "Ask the administrator of the peer for a stronger one"),
}  # fmt: skip
_OLD = "the peer and we have no version of TLS in common: 1.2 or 1.3 is asked for"
_NO_SUITE = "the peer and we have no cipher suite in common: ephemeral keys with AEAD are asked for"
_WANTED = "the peer wants a certificate of ours"
_REASONS = {
    "UNSUPPORTED_PROTOCOL": _OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "WRONG_SSL_VERSION": _OLD,
    "WRONG_VERSION_NUMBER": _OLD,
    "NO_PROTOCOLS_AVAILABLE": _OLD,
    "NO_SHARED_CIPHER": _NO_SUITE,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": f"the peer refused the handshake: {_NO_SUITE}, or it wants a certificate of ours",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _NO_SUITE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTED,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer shows no certificate, and one is asked for",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know the authority of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer does not accept our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the peer does not accept our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "the peer denies access to our certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": "the peer could not check what we signed",
    "TLSV1_UNRECOGNIZED_NAME": "the peer does not know the host name that we ask for",
}
_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "RECORD_LAYER_FAILURE",
                     "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_MESSAGE", "BAD_RECORD_TYPE"))  # fmt: skip
_WANTS_CERTIFICATE = frozenset(("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"))
