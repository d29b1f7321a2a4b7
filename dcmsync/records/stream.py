"""Lines <-> records: the reader and the writer of every record stream.

Owns what a stream of format 1 is: one JSON object a line, `end` last, and when it counts as complete. The reader
keeps the line beside the record, so that what passes through leaves as it came. Refuses to open files and to choose
among records: it works on the file objects it is handed.

Errors name the line and the key, never a value.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from dcmsync.errors import InputError, LocalTrouble
from dcmsync.records.lines import MAX_LINE_OCTETS, Blocks
from dcmsync.records.model import FORMAT, End, Instance, Outcome, Patient, Record, Series, Study
from dcmsync.records.soundness import check_meaning, check_octets

THINGS: tuple[str, ...] = ("patient", "study", "series", "instance", "outcome")
"""The types that say something of DICOM things; the only other one of format 1 is `end`."""

Thing = Patient | Study | Series | Instance | Outcome
Decoded = TypeVar("Decoded")


class Unknown(Struct, frozen=True):
    """A record of a type that this version does not know. It passes through untouched."""

    type: str


class Line(NamedTuple):
    """One record, and the line that says it: `raw` is every octet of it as read, with its newline if it had one."""

    number: int
    raw: bytes
    record: Thing | Unknown


class Endings:
    """Keeps count of how a stream ended. Streams can be joined (`cat a b`): then each part brings its own `end`."""

    def __init__(self) -> None:
        self.has_ended = False
        self.is_open = True
        self._why = ""

    def record(self) -> None:
        """A record came that is no `end`."""
        self.is_open = True

    def end(self, end: End) -> None:
        """An `end` came."""
        self.has_ended = True
        self.is_open = False
        if not end.complete and not self._why:
            self._why = "its end record says that it is not complete"
            self._why += f" ({end.reason})" if isinstance(end.reason, str) else ""

    def broke_off(self) -> None:
        """The producer went away within a line."""
        self.is_open = True
        self._why = self._why or "it breaks off within a line"

    def trouble(self, *, require_end: bool) -> str:
        """Why the stream is not complete, in words; empty when nothing says so."""
        if require_end and self.is_open and not self._why:
            return "it has no end record"
        return self._why


class Reader:
    """Iterates over the records of `source` as they arrive; `end` records are kept, not given.

    Afterwards `complete` tells whether the producer finished, and `trouble` why not: the consumer does what it got,
    and exits 6. A stream without an `end` is complete unless `require_end`. Raises InputError at the first line
    that is not a record, with its number; nothing is read after that.
    """

    def __init__(self, source: BinaryIO, *, require_end: bool = False,
                 max_line_octets: int = MAX_LINE_OCTETS) -> None:
        self._blocks = Blocks(source, max_line_octets=max_line_octets)
        self._require_end = require_end
        self._endings = Endings()

    @property
    def trouble(self) -> str:
        """Why the stream is not complete; empty when it is, as far as can be told."""
        return self._endings.trouble(require_end=self._require_end)

    @property
    def complete(self) -> bool:
        """Whether nothing says that records are lacking. Asked after the last record."""
        return not self.trouble

    @property
    def has_ended(self) -> bool:
        """Whether an `end` record was seen."""
        return self._endings.has_ended

    def __iter__(self) -> Iterator[Line]:
        for block in self._blocks:
            for number, line in enumerate(block.lines, block.first):
                if line.strip():
                    yield from self._take(number, line, b"\n")
        tail = self._blocks.tail
        if tail.strip():
            try:
                yield from self._take(self._blocks.next_line, tail, b"")
            except InputError:
                self._endings.broke_off()

    def _take(self, number: int, line: bytes, newline: bytes) -> Iterator[Line]:
        record = read_record(line, number)
        if isinstance(record, End):
            self._endings.end(record)
            return
        self._endings.record()
        yield Line(number, line + newline, record)


class Writer:
    """Writes records to `target`, one a line, each flushed before the call returns.

    Raises BrokenPipeError when the reader went away, LocalTrouble when the octets cannot be written.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self.records = 0

    def write(self, record: Record | Mapping[str, object]) -> None:
        """Writes one record, given as a struct or as keys and values (`type` among them)."""
        self.write_lines((encode(record),))

    def write_line(self, line: bytes) -> None:
        """Writes one line as it was read; a newline is added only where there is none."""
        self.write_lines((line.removesuffix(b"\n"),))

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """Writes lines, given without their newlines, in one go."""
        if lines:
            self.records += len(lines)
            self._put(b"\n".join((*lines, b"")))

    def end(self, *, complete: bool = True, reason: str | UnsetType = UNSET, splits: int | UnsetType = UNSET) -> None:
        """Writes the `end` record over everything written so far. Called once, last."""
        self.write_end(encode(End(complete=complete, records=self.records, reason=reason, splits=splits)))

    def write_end(self, line: bytes) -> None:
        """Writes the line of an `end` record, which does not count as a record."""
        self._put(line.removesuffix(b"\n") + b"\n")

    def _put(self, octets: bytes) -> None:
        """Writes and flushes all of `octets`; an unbuffered target may take them piecemeal."""
        try:
            rest = memoryview(octets)
            while rest:
                written: int | None = self._target.write(rest)
                if written is None:
                    raise LocalTrouble("the records cannot be written: standard output is non-blocking, and full")
                rest = rest[written:]
            self._target.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise LocalTrouble(f"the records cannot be written: {error.strerror}") from error


def read_record(line: bytes, number: int) -> Record | Unknown:
    """The record that `line` says, checked in full.

    Raises InputError, naming line `number`, when it is not a JSON object with a `type`, or not sound.
    """
    check_octets(line, number)
    values = _decode(_OBJECT, line, number)
    kind = values.get("type")
    if not isinstance(kind, str):
        raise InputError("a record needs a `type`, a string", line=number,
                         advice="Is this a record stream of dcmsync?")
    if kind not in THINGS and kind != "end":
        return Unknown(kind)
    check_meaning(line, values, number)
    record = _decode(_RECORD, line, number)
    if isinstance(record, End) and record.format != FORMAT:
        raise InputError(f"the stream is of format {record.format}; this program reads format {FORMAT}", line=number)
    return record


def encode(record: Record | Mapping[str, object]) -> bytes:
    """The line of a record, without its newline. What is no text (half of a surrogate pair) becomes U+FFFD."""
    try:
        return _ENCODER.encode(record)
    except UnicodeEncodeError:
        return _ENCODER.encode(_as_text(msgspec.to_builtins(record)))


def decode_failure(error: Exception, number: int) -> InputError:
    """The InputError for what the JSON decoder raised at line `number`."""
    if isinstance(error, RecursionError):
        return InputError("nested too deeply", line=number)
    words = str(error).replace(" - at `$.", ": key `").replace(" - at `$`", "")
    return InputError(f"not a record: {words}", line=number)


def _decode(decoder: msgspec.json.Decoder[Decoded], line: bytes, number: int) -> Decoded:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise decode_failure(error, number) from None


def _as_text(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    return value


_ENCODER = msgspec.json.Encoder()
_OBJECT = msgspec.json.Decoder(dict[str, object])
_RECORD: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
