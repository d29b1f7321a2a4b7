"""What was decided of each instance that waits in a spool, and where it has arrived, so that a restart goes on from it.

Owns one file beside the instances: a line of JSON for each decision and each arrival, appended and never changed; a
line that was torn is none. Refuses to be the truth: an instance that is there without a line is decided anew, and one
that is gone needs none. So nothing here is fsynced: after a power failure something may be sent twice, and no more.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from dcmsync.errors import local_trouble
from dcmsync.plan.route import Delivery

_LONG_OCTETS = 16 << 20  # a journal this long is written anew, if most of it is history


class Entry(Struct):
    """One instance: where it goes, and which of these it does not need to go to any more."""

    deliveries: tuple[Delivery, ...]
    done: set[Delivery]
    has_failed: bool = False


class Journal:
    """The journal at `path`. Close it at the end."""

    def __init__(self, path: str) -> None:
        """Reads it. Raises LocalTrouble."""
        self._path = path
        self._entries: dict[str, Entry] = {}
        try:
            self._read()
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  # `close` ends it
        except OSError as trouble:
            raise local_trouble(trouble) from trouble

    def close(self) -> None:
        """Lets go of the file. Idempotent."""
        self._file.close()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What is known, by the names of instances."""
        return self._entries

    def keep(self, names: Iterable[str]) -> None:
        """Forgets all but these, and writes the journal anew. Raises LocalTrouble."""
        kept = set(names)
        self._entries = {name: entry for name, entry in self._entries.items() if name in kept}
        self._rewrite()

    def decided(self, name: str, deliveries: tuple[Delivery, ...]) -> None:
        """An instance goes there. Raises LocalTrouble."""
        self._entries[name] = Entry(deliveries, set())
        self._append(_decision(name, deliveries))

    def done(self, name: str, delivery: Delivery, *, has_failed: bool) -> bool:
        """An instance need not go there any more; true when that was the last. Raises LocalTrouble."""
        entry = self._entries[name]
        entry.done.add(delivery)
        entry.has_failed = entry.has_failed or has_failed
        self._append(_arrival(name, delivery, has_failed=has_failed))
        return entry.done.issuperset(entry.deliveries)

    def forget(self, name: str) -> None:
        """An instance has left. Raises LocalTrouble."""
        del self._entries[name]
        try:
            octets = self._file.tell()
            if (not self._entries and octets) or (octets > _LONG_OCTETS and octets > 1024 * len(self._entries)):
                self._rewrite()
        except OSError as trouble:
            raise local_trouble(trouble) from trouble

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    self._take(line)
        except FileNotFoundError:
            pass

    def _take(self, line: bytes) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
            name = said["name"]
            if "to" in said:
                self._entries[name] = Entry(tuple(_delivery(each) for each in said["to"]), set())
            else:
                entry = self._entries[name]
                entry.done.add(_delivery(said["done"]))
                entry.has_failed = entry.has_failed or said["failed"]
        except (ValueError, KeyError, TypeError):
            pass  # torn, or of an instance that has left

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
        except OSError as trouble:
            raise local_trouble(trouble) from trouble

    def _rewrite(self) -> None:
        staged = f"{self._path}.new"
        try:
            with open(staged, "wb") as file:
                for name, entry in self._entries.items():
                    file.write(_decision(name, entry.deliveries))
                    for delivery in entry.done:
                        file.write(_arrival(name, delivery, has_failed=entry.has_failed))
                file.flush()
                os.fsync(file.fileno())
            os.rename(staged, self._path)
            self._file.close()
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  # as above
        except OSError as trouble:
            raise local_trouble(trouble) from trouble


def _decision(name: str, deliveries: tuple[Delivery, ...]) -> bytes:
    return _line({"name": name, "to": [[each.to, *each.edits] for each in deliveries]})


def _arrival(name: str, delivery: Delivery, *, has_failed: bool) -> bytes:
    return _line({"name": name, "done": [delivery.to, *delivery.edits], "failed": has_failed})


def _line(said: Mapping[str, object]) -> bytes:
    return json.dumps(said, ensure_ascii=True).encode() + b"\n"


def _delivery(words: Any) -> Delivery:
    to, *edits = words
    return Delivery(str(to), tuple(map(str, edits)))
