"""XML from a peer, as it arrives: elements open, text comes, elements close.

Owns what is refused: document types and with them every entity but the five of XML, tags and comments longer than a
mebibyte, and nesting without end. Refuses to hold a document, and to know what it means.

Theory of operation. Expat is fed at most 64 KiB at a time; what it keeps is one token that is not finished, and that is
bounded by where it stands in the document. Names come without their prefix: real servers use the right names in
the wrong namespace. An encoding that nobody knows (`UTF-3` has been seen) is taken for UTF-8.
"""

import codecs
import re
from collections.abc import Callable
from xml.parsers import expat

from dcmsync.errors import RemoteProtocolError

MAX_TOKEN_OCTETS = 1 << 20  # of one tag, with all its attributes
MAX_DEPTH = 64
_SLICE_OCTETS = 1 << 16
_DECLARATION_OCTETS = 256
_ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")

Opened = Callable[[str, dict[str, str]], None]
Closed = Callable[[str], None]
Text = Callable[[str], None]


class Markup:
    """Reads one document. The handlers are called in the order of the document; text comes in pieces."""

    def __init__(self, *, opened: Opened, closed: Closed, text: Text | None = None) -> None:
        self._opened = opened
        self._closed = closed
        self._text = text
        self._begin = b""  # until it is known how the document is encoded
        self._parser: expat.XMLParserType | None = None
        self._fed = 0
        self._depth = 0

    def feed(self, octets: bytes | memoryview) -> None:
        """Takes the next octets. Raises RemoteProtocolError, and what the handlers raise."""
        if self._parser is None:
            self._begin += octets
            is_known = b"?>" in self._begin or not b"<?xml".startswith(self._begin.lstrip(b"\xef\xbb\xbf")[:5])
            if not is_known and len(self._begin) < _DECLARATION_OCTETS:
                return
            octets, self._begin = self._begin, b""
            self._parser = self._started(octets)
        view = memoryview(octets)
        for at in range(0, len(view), _SLICE_OCTETS):
            self._parse(self._parser, view[at : at + _SLICE_OCTETS])

    def close(self) -> None:
        """The document ends here. Raises RemoteProtocolError when that is too early."""
        if self._parser is None:
            self._parser = self._started(self._begin)
            self._parse(self._parser, memoryview(self._begin))
        self._parse(self._parser, memoryview(b""), is_last=True)

    def _started(self, begin: bytes) -> expat.XMLParserType:
        named = _ENCODING.search(begin[:_DECLARATION_OCTETS])
        parser = expat.ParserCreate("UTF-8" if named and not _is_encoding(named[1].decode()) else None)
        parser.StartElementHandler = self._open
        parser.EndElementHandler = self._close
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = _refuse_document_type
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        return parser

    def _parse(self, parser: expat.XMLParserType, octets: memoryview, *, is_last: bool = False) -> None:
        try:
            parser.Parse(bytes(octets), is_last)
        except expat.ExpatError as error:
            words = expat.ErrorString(error.code)
            raise RemoteProtocolError(f"sent XML that is not well-formed: line {error.lineno}: {words}") from None
        self._fed += len(octets)
        if self._fed - max(parser.CurrentByteIndex, 0) > MAX_TOKEN_OCTETS:
            raise RemoteProtocolError(f"sent XML with a tag of more than {MAX_TOKEN_OCTETS >> 20} MiB")

    def _open(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RemoteProtocolError("sent XML that is nested too deeply")
        self._opened(name.rpartition(":")[2], attributes)

    def _close(self, name: str) -> None:
        self._depth -= 1
        self._closed(name.rpartition(":")[2])


def _refuse_document_type(name: str, system_id: str | None, public_id: str | None, has_subset: bool) -> None:
    raise RemoteProtocolError(f"sent XML with a document type ({name[:20]}), which may hide anything: it is not read")


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True
