"""The SOAP part of an answer to RAD-69, read as it arrives: how it went, what was not given and why, links to parts.

Owns what a status, an error code and a fault say in words, and documents that stand in the XML itself, in base64: their
octets are handed on as they come. Refuses to judge documents.

Source: IHE ITI TF-3 §4.2.4 (RegistryResponse, error codes); SOAP 1.2 part 1 §5.4; XOP §3.1.
"""

from __future__ import annotations

import binascii
from collections.abc import Collection
from urllib.parse import unquote

from msgspec import Struct

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.markup import Markup

_MOST_TEXT = 4096  # characters of an identifier, or of the reason of a fault
_MOST_NOTES = 100_000  # errors, or links: one for each document
MOST_NAME = 256  # characters of a UID, or of a Content-ID
_MOST_CODES = 8  # of a fault
_QUANTUM = 4  # characters of base64 that are whole octets

_WORDS = {
    "XDSMissingDocument": "it does not have them",
    "XDSDocumentUniqueIdError": "it does not have them",
    "XDSUnknownRepositoryId": "the repository that is asked for is another: see the key repository",
    "XDSRepositoryError": "an error of its own",
    "XDSRepositoryBusy": "it is busy",
    "XDSRepositoryOutOfResources": "it is out of resources",
    "XDSMissingHomeCommunityId": "it wants to be told the community: see the key home_community",
    "XDSUnknownCommunity": "it does not know the community: see the key home_community",
    "XDSUnavailableCommunity": "the community cannot be reached",
    "XDSPartialSuccess": "not all of them could be had",
    "urn:dicom:wado:0006": "it cannot give that transfer syntax",
    "urn:dicom:wado:0007": "it cannot give them in a transfer syntax that was asked for",
    "urn:dicom:wado:0014": "processing failed there",
}
BUSY = frozenset(("XDSRepositoryBusy", "XDSRepositoryOutOfResources", "XDSUnavailableCommunity"))
"""The error codes after which trying again may help."""


class Trouble(Struct, frozen=True, kw_only=True):
    """One RegistryError."""

    code: str
    is_warning: bool = False

    def __str__(self) -> str:
        words = _WORDS.get(self.code)
        return f"{self.code} ({words})" if words else self.code


class Fault(Struct, frozen=True, kw_only=True):
    """A SOAP fault. `codes`: of the sender or of the receiver, and finer ones; without their prefixes."""

    codes: tuple[str, ...]
    reason: str

    @property
    def is_of_form(self) -> bool:
        """Whether it is about how the request was packed."""
        text = self.reason.lower()
        return any(word in text for word in ("media type", "mediatype", "content-type", "content type", "mtom", "xop"))

    @property
    def may_pass(self) -> bool:
        """Whether the receiver takes the blame."""
        return "Receiver" in self.codes

    def __str__(self) -> str:
        shown = "".join(c if c.isprintable() else " " for c in self.reason)
        return f"SOAP fault {'/'.join(self.codes) or 'without code'}: {' '.join(shown.split())[:200]}"


class Reply:
    """Reads one SOAP part. `links`: SOP Instance UID -> Content-ID of its part."""

    def __init__(self) -> None:
        self.status = ""
        self.troubles: list[Trouble] = []
        self.links: dict[str, str] = {}
        self._markup = Markup(opened=self._opened, closed=self._closed, text=self._said)
        self._path: list[str] = []
        self._text = ""
        self._uid = ""
        self._codes: list[str] = []
        self._reason = ""
        self._is_fault = False
        self._base64 = ""
        self._is_inline = False
        self._inline: list[bytes | None] = []

    @property
    def fault(self) -> Fault | None:
        """The fault, where the answer is one."""
        return Fault(codes=tuple(self._codes), reason=self._reason) if self._is_fault else None

    def feed(self, octets: bytes | memoryview) -> None:
        """Takes the next octets. Raises RemoteProtocolError; what was read before that stands."""
        self._markup.feed(octets)

    def inline(self) -> list[bytes | None]:
        """The octets of documents that stand in the XML, as far as they were read; None after the last of each."""
        inline, self._inline = self._inline, []
        return inline

    def close(self) -> None:
        """The part ends here. Raises RemoteProtocolError when that is too early."""
        self._markup.close()

    def counted(self, ignored: Collection[str]) -> list[Trouble]:
        """The errors that count: no warnings, and none whose code is to be ignored."""
        return [each for each in self.troubles if not each.is_warning and each.code not in ignored]

    def _opened(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._text = ""
        match name:
            case "RegistryResponse":
                self.status = attributes.get("status", "").rpartition(":")[2]
            case "RegistryError":
                self._note(attributes)
            case "DocumentResponse":
                self._uid = ""
            case "Document":
                self._base64, self._is_inline = "", False
            case "Include":
                if "Document" in self._path and len(self.links) < _MOST_NOTES:
                    content_id = _content_id(attributes.get("href", ""))
                    self.links[self._uid or f"document {len(self.links)}"] = content_id[:MOST_NAME]
            case "Fault":
                self._is_fault = True

    def _note(self, attributes: dict[str, str]) -> None:
        if len(self.troubles) >= _MOST_NOTES:
            raise RemoteProtocolError(f"reports more than {_MOST_NOTES:,} errors")
        code = attributes.get("errorCode", "").strip()
        shown = "".join(c for c in code if c.isprintable())[:80]
        self.troubles.append(
            Trouble(
                code=shown.rpartition("}")[2] or "an error without code",
                is_warning=attributes.get("severity", "").endswith(":Warning"),
            )
        )

    def _said(self, text: str) -> None:
        if self._path and self._path[-1] == "Document":
            self._decode(text)
        elif len(self._text) < _MOST_TEXT:
            self._text += text

    def _closed(self, name: str) -> None:
        self._path.pop()
        text, self._text = self._text.strip(), ""
        match name:
            case "DocumentUniqueId":
                self._uid = text[:MOST_NAME]
            case "Document":
                self._end_inline()
            case "Value" if self._is_fault and len(self._codes) < _MOST_CODES:
                self._codes.append(text.rpartition(":")[2])
            case "Text" if self._is_fault:
                self._reason = self._reason or text

    def _decode(self, text: str) -> None:
        characters = self._base64 + "".join(text.split())
        whole = len(characters) // _QUANTUM * _QUANTUM
        self._base64 = characters[whole:]
        if not whole:
            return
        self._is_inline = True
        try:
            self._inline.append(binascii.a2b_base64(characters[:whole], strict_mode=True))
        except binascii.Error:
            raise RemoteProtocolError("sent a document that is no base64") from None

    def _end_inline(self) -> None:
        if self._base64:
            raise RemoteProtocolError("sent a document whose base64 breaks off")
        if self._is_inline:
            self._inline.append(None)


def _content_id(reference: str) -> str:
    """The Content-ID that a link means: `cid:`, and percent signs for what a URL cannot have (RFC 2392)."""
    return unquote(reference.removeprefix("cid:")).strip("<>")
