"""multipart/related bodies (RFC 2046 §5.1, RFC 2387; PS3.18 §8.6.1.2), read as they arrive, and written.

Owns delimiters, the headers of parts, and parameters of media types. Refuses a body without its closing delimiter,
which is the only proof that nothing is missing where the answer has no length, and parts that are not sent as the
octets that they are.

Theory of operation: `Reader.feed` takes octets, however they are cut, and gives events whose data are slices of them.
Kept between two calls is only what may turn out to be a delimiter: the longest end of the octets that begins one, so
that a search never looks at an octet twice. A delimiter is a whole line: what merely begins like one is data. The
Content-Length of a part is a claim: it decides only where the data hold what looks like a delimiter, and a delimiter
follows where it says that the part ends; otherwise the search counts.
"""

from collections.abc import Iterable, Mapping
from enum import Enum, auto

from msgspec import Struct

from dcmsync.errors import RemoteProtocolError

MOST_PREAMBLE_OCTETS = 1 << 16
MOST_HEADER_OCTETS = 1 << 14
_MOST_BOUNDARY = 200  # RFC 2046 §5.1.1 says 70
_MOST_PADDING = 256  # spaces and tabs behind a delimiter
_LOOK_AHEAD_OCTETS = 1 << 20  # how far a claimed length is checked before what looks like a delimiter is taken for one
_PLAIN = ("", "binary", "8bit", "7bit")


class Begun(Struct, frozen=True):
    """A part begins. Names of headers are in lower case; of two with one name the first counts."""

    headers: Mapping[str, str]

    @property
    def media_type(self) -> str:
        """What it says of itself, without parameters, in lower case; "" where it says nothing."""
        return parameters(self.headers.get("content-type", ""))[0]


class Content(Struct, frozen=True):
    """The next octets of the part: a view of what was fed, good as long as that is."""

    data: memoryview


class Ended(Struct, frozen=True):
    """The part is complete: a delimiter follows it."""


class Closed(Struct, frozen=True):
    """The body is complete. What follows it is of no interest."""


Event = Begun | Content | Ended | Closed


def parameters(text: str) -> tuple[str, dict[str, str]]:
    """A media type in lower case, and its parameters: names in lower case, values as they are, without quotes.

    Reads what is sent: blanks around `=`, values with characters that ask for quotes, a missing end of quotes. Of two
    with one name the first counts.
    """
    media_type, _, rest = text.partition(";")
    found: dict[str, str] = {}
    while rest:
        name, equals, rest = _before(rest, "=;")
        if equals != "=":
            continue
        rest = rest.lstrip(" \t")
        if rest.startswith('"'):
            value, rest = _unquoted(rest)
            rest = rest.partition(";")[2]
        else:
            value, _, rest = rest.partition(";")
            value = value.strip()
        found.setdefault(name.strip().lower(), value)
    return media_type.strip().lower(), found


def boundary_of(content_type: str) -> str:
    """The boundary that a Content-Type names. Raises RemoteProtocolError where it is not multipart, or names none."""
    media_type, named = parameters(content_type)
    if not media_type.startswith("multipart/"):
        raise RemoteProtocolError(f"the answer is {media_type[:80] or 'of no type'}, not multipart/related")
    boundary = named.get("boundary", "")
    if not 0 < len(boundary) <= _MOST_BOUNDARY or "\r" in boundary or "\n" in boundary:
        raise RemoteProtocolError("the multipart body names no boundary that there can be")
    return boundary


class _Line(Enum):
    """What stands behind the octets of a delimiter."""

    UNKNOWN = auto()  # more octets are needed
    DATA = auto()  # it only looks like one
    NEXT = auto()
    LAST = auto()


class Reader:
    """Reads one body. Feed it all octets in order, then `end` it."""

    def __init__(self, boundary: str) -> None:
        self._dashed = b"--" + boundary.encode("utf-8", "surrogateescape")
        self._newline = b"\r\n"
        self._delimiter = b"\r\n" + self._dashed
        self._step = self._preamble
        self._kept = b""
        self._searched = 0  # octets of what is kept that need not be searched again
        self._due: int | None = None  # octets that the part still has by its own word
        self._has_part = False
        self._is_last = False
        self.is_closed = False

    def feed(self, octets: bytes | memoryview) -> list[Event]:
        """What the next octets mean. Raises RemoteProtocolError."""
        events: list[Event] = []
        if self.is_closed:
            return events
        held = b"".join((self._kept, octets)) if self._kept or isinstance(octets, memoryview) else octets
        at = 0
        while not self.is_closed:
            then = self._step(held, at, events)
            if then is None:
                break
            at, self._searched = then, 0
        self._kept = b"" if self.is_closed else held[at:]
        return events

    def end(self) -> list[Event]:
        """What the end itself means: nothing more comes. Raises RemoteProtocolError unless the body is complete."""
        self._is_last = True
        events = self.feed(b"")
        if not self.is_closed:
            where = "inside a part" if self._has_part else "before a part begins"
            raise RemoteProtocolError(f"the multipart body breaks off {where}: its closing boundary is missing")
        return events

    def _preamble(self, held: bytes, at: int, events: list[Event]) -> int | None:
        """Looks for the first delimiter, which stands at the beginning of a line and says how lines end."""
        found = held.find(self._dashed)
        while found >= 0:
            if not found or held[found - 1] == 0x0A:
                kind, end = self._line(held, found + len(self._dashed), may_be_lf=True)
                if kind is _Line.UNKNOWN:
                    break
                if kind is not _Line.DATA:
                    if kind is _Line.NEXT and held[end - 2] != 0x0D:
                        self._newline, self._delimiter = b"\n", b"\n" + self._dashed
                    return self._enter(kind, end, events)
            found = held.find(self._dashed, found + 1)
        if len(held) > MOST_PREAMBLE_OCTETS:
            raise RemoteProtocolError("the multipart body does not begin with its boundary")
        return None

    def _headers(self, held: bytes, at: int, events: list[Event]) -> int | None:
        """Takes the headers of a part, which an empty line ends."""
        newline = self._newline
        if held.startswith(newline, at):
            end, size = at, len(newline)
        else:
            end, size = held.find(newline * 2, at + self._searched), 2 * len(newline)
        if (end if end >= 0 else len(held)) - at > MOST_HEADER_OCTETS:
            raise RemoteProtocolError(f"the headers of a part are longer than {MOST_HEADER_OCTETS:,} octets")
        if end < 0:
            self._searched = max(0, len(held) - at - size)
            return None
        headers = _fields(held[at:end])
        encoding = headers.get("content-transfer-encoding", "").strip().lower()
        if encoding not in _PLAIN:
            raise RemoteProtocolError(f"a part is sent as {encoding[:40]!r}, not as the octets that it is")
        claim = headers.get("content-length", "").strip()
        self._due = int(claim) if claim.isascii() and claim.isdecimal() and len(claim) < 20 else None
        self._has_part = True
        self._step = self._data
        events.append(Begun(headers))
        return end + size

    def _data(self, held: bytes, at: int, events: list[Event]) -> int | None:
        """Gives what is certain to be data, up to the next delimiter."""
        found = held.find(self._delimiter, at)
        while found >= 0:
            kind, end = self._line(held, found + len(self._delimiter))
            if kind is _Line.DATA:
                found = held.find(self._delimiter, found + 1)
                continue
            if kind is not _Line.UNKNOWN and self._due is not None:
                claimed = at + self._due
                if found < claimed <= found + _LOOK_AHEAD_OCTETS:
                    there, behind = self._delimiter_at(held, claimed)
                    if there is not _Line.DATA:
                        found, kind, end = (claimed, there, behind) if there is not _Line.UNKNOWN else (found, there, 0)
            if kind is _Line.UNKNOWN:
                return self._give(held, at, found, events)
            self._give(held, at, found, events)
            events.append(Ended())
            return self._enter(kind, end, events)
        begins = held.rfind(self._delimiter[:1], max(at, len(held) - len(self._delimiter) + 1))
        is_open = begins >= 0 and self._delimiter.startswith(held[begins:]) and not self._is_last
        return self._give(held, at, begins if is_open else len(held), events)

    def _give(self, held: bytes, at: int, end: int, events: list[Event]) -> int | None:
        """Gives the data from `at` to `end`: that end, or None where there are none."""
        if end <= at:
            return None
        events.append(Content(memoryview(held)[at:end]))
        if self._due is not None:
            self._due = max(0, self._due - (end - at))
        return end

    def _enter(self, kind: _Line, end: int, events: list[Event]) -> int:
        """Goes on behind a delimiter."""
        if kind is _Line.LAST:
            self.is_closed = True
            events.append(Closed())
        self._step = self._headers
        return end

    def _delimiter_at(self, held: bytes, at: int) -> tuple[_Line, int]:
        """Whether a delimiter stands at `at`, and where its line ends."""
        there = held[at : at + len(self._delimiter)]
        if there == self._delimiter:
            return self._line(held, at + len(there))
        is_open = self._delimiter.startswith(there) and not self._is_last
        return (_Line.UNKNOWN if is_open else _Line.DATA), at

    def _line(self, held: bytes, at: int, *, may_be_lf: bool = False) -> tuple[_Line, int]:
        """What the rest of a line says that begins like a delimiter, and where it ends."""
        is_closing = held.startswith(b"--", at)
        kind = _Line.LAST if is_closing else _Line.NEXT
        unknown = (kind if is_closing else _Line.DATA) if self._is_last else _Line.UNKNOWN
        if len(held) - at < 2 and held[at:] in (b"", b"-"):
            return unknown, len(held)
        behind = at + 2 * is_closing
        rest = held[behind : behind + _MOST_PADDING + 2]
        text = rest.lstrip(b" \t")
        end = behind + len(rest) - len(text)
        if text.startswith(b"\r\n"):
            return kind, end + 2
        if text.startswith(b"\n") and (is_closing or may_be_lf or self._newline == b"\n"):
            return kind, end + 1
        if text in (b"", b"\r") and len(rest) <= _MOST_PADDING + 1:
            return unknown, len(held)
        return _Line.DATA, at


class Writer:
    """Writes one body, whose parts all have one media type. The boundary must be one that no part holds: random."""

    TAIL = b"\r\n"
    """What follows the octets of each part."""

    def __init__(self, boundary: str, part_type: str = "application/dicom") -> None:
        self.media_type = f'multipart/related; type="{part_type}"; boundary={boundary}'
        self.head = f"--{boundary}\r\nContent-Type: {part_type}\r\n\r\n".encode()
        self.closing = f"--{boundary}--\r\n".encode()

    def length(self, sizes: Iterable[int]) -> int:
        """The octets of a body whose parts have these sizes."""
        return sum(len(self.head) + size + len(self.TAIL) for size in sizes) + len(self.closing)


def _fields(block: bytes) -> dict[str, str]:
    """The headers of a part. A line that begins with a blank goes on with the one before it."""
    found: dict[str, str] = {}
    last = ""
    for line in block.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if line[:1] in (" ", "\t") and last:
            found[last] += f" {line.strip()}"
            continue
        name, colon, value = line.partition(":")
        last = name.strip().lower() if colon else ""
        if last in found:
            last = ""
        if last:
            found[last] = value.strip()
    return found


def _before(text: str, marks: str) -> tuple[str, str, str]:
    """What stands before the first of the marks, that mark, and what follows it."""
    for index, character in enumerate(text):
        if character in marks:
            return text[:index], character, text[index + 1 :]
    return text, "", ""


def _unquoted(text: str) -> tuple[str, str]:
    """A quoted string (RFC 9110 §5.6.4) without its quotes, and what follows it."""
    found: list[str] = []
    characters = iter(text[1:])
    for character in characters:
        if character == '"':
            break
        found.append(next(characters, "") if character == "\\" else character)
    return "".join(found), "".join(characters)
