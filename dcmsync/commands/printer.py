"""Records on standard output, in the format asked for: the one place where verbs choose between machines and people."""

from collections.abc import Mapping
from typing import Any

import msgspec

from dcmsync.commands.options import Streams
from dcmsync.records import render
from dcmsync.records.stream import Writer


class Printer:
    """Writes records as they come (NDJSON, CSV, UIDs), or all at the end (tree, table).

    `shown` is the format on a terminal when none was asked for; in a pipe it is NDJSON.
    """

    def __init__(self, streams: Streams, form: str | None, *, shown: str = "tree") -> None:
        self._form = form or (shown if streams.is_terminal else "ndjson")
        self._streams = streams
        self._writer = Writer(streams.stdout)
        self._columns: list[str] = []
        self._kept: list[dict[str, Any]] = []

    def write(self, record: Mapping[str, object] | msgspec.Struct) -> None:
        """Writes or keeps one record."""
        values: dict[str, Any] = dict(record) if isinstance(record, Mapping) else msgspec.to_builtins(record)
        if self._form == "ndjson":
            self._writer.write(values)
        elif self._form in ("tree", "table"):
            self._kept.append(values)
        elif self._form == "uids":
            self._line(render.uid(values))
        else:
            if not self._columns:
                self._columns = render.columns(values)
                self._line(render.csv_line(self._columns))
            self._line(render.csv_line([values.get(key, "") for key in self._columns]))

    def write_line(self, line: bytes) -> None:
        """Hands on a line as it was read; the other formats show it like any record."""
        if self._form == "ndjson":
            self._writer.write_line(line)
        else:
            self.write(msgspec.json.decode(line))

    def end(self, *, complete: bool, reason: str = "", splits: int = 0) -> None:
        """Ends the output: the `end` record, or what was kept for it."""
        if self._form == "ndjson":
            self._writer.end(complete=complete, reason=reason or msgspec.UNSET, splits=splits or msgspec.UNSET)
            return
        if self._form in ("tree", "table"):
            for line in (render.tree if self._form == "tree" else render.table)(self._kept):
                self._line(line)
        if not complete:
            self._streams.warn(f"this is not all: {reason}" if reason else "this is not all")

    def _line(self, text: str) -> None:
        self._streams.stdout.write(text.encode("utf-8", "replace") + b"\n")
        self._streams.stdout.flush()
