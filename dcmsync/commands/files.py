"""From arguments and records to files on this machine, for verbs that read them.

Owns finding and opening them, and a word for each that cannot be read. Refuses to look into them.
"""

import os
import stat
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dcmsync import config, locator
from dcmsync.commands.options import Streams
from dcmsync.errors import InputError, UsageError

if TYPE_CHECKING:
    from dcmsync.records.stream import Thing
    from dcmsync.wire.source import Source

Complain = Callable[[str, str], None]
"""Told a path and what is wrong with it."""

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not stop us


def below(paths: Iterable[str], complain: Complain) -> Iterator[str]:
    """The files that `paths` name; a folder names all regular files below it, in the order of names."""
    from dcmsync.endpoints.folder.scan import walk_tree

    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        try:
            for name in walk_tree(path, skipped=lambda name, why, root=path: complain(f"{root}/{name}", why)):  # type: ignore[misc]
                yield os.path.join(path, name)
        except OSError as trouble:
            complain(path, trouble.strerror or "unreadable")


@contextmanager
def opened(path: str) -> Iterator["Source"]:
    """The octets of a regular file. Raises OSError."""
    from dcmsync.endpoints.folder.scan import source_of

    descriptor = os.open(path, _OPEN)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "no regular file")
        yield source_of(descriptor, status.st_size)
    finally:
        os.close(descriptor)


class RecordedFiles:
    """Iterates over the files that the records on standard input name; `trouble` then says whether these were all.

    `path` is below `source` in an instance record, below `destination` in an outcome. Raises InputError.
    """

    def __init__(self, arguments: Namespace, streams: Streams, complain: Complain) -> None:
        self._arguments = arguments
        self._streams = streams
        self._complain = complain
        self._roots: dict[str, str] = {}
        self.trouble = ""

    def __iter__(self) -> Iterator[str]:
        from dcmsync.records.stream import Reader, Unknown

        reader = Reader(self._streams.stdin, require_end=self._arguments.require_end)
        for line in reader:
            path = None if isinstance(line.record, Unknown) else self._path(line.record, line.number)
            if path is not None:
                yield path
        self.trouble = reader.trouble

    def _path(self, record: "Thing", number: int) -> str | None:
        from msgspec import UNSET

        from dcmsync.records.model import Instance, Outcome

        if isinstance(record, Outcome):
            if record.level != "instance" or record.outcome not in ("stored", "present"):
                return None  # a summary, or nothing that lies anywhere
            place, path = record.destination, record.path
        elif isinstance(record, Instance):
            place, path = record.source, record.path
        else:
            place, path = record.source, UNSET
        if not isinstance(place, str) or not isinstance(path, str):
            self._complain(f"line {number}", "the record names no file; ask for instances of a folder")
            return None
        if os.path.isabs(path) or ".." in path.split("/"):
            self._complain(f"line {number}", "its path leads out of its place")
            return None
        return os.path.join(self._root(place, number), path)

    def _root(self, place: str, number: int) -> str:
        if place not in self._roots:
            from os import environ

            names = config.load(self._arguments.config, environ).endpoints
            try:
                found = locator.parse(names[place].locator if place in names else place, names=names)
            except UsageError as error:
                raise InputError(error.message, line=number, advice=error.advice) from error
            if not isinstance(found, locator.Folder):
                raise InputError(f"{place} is no folder: its files cannot be opened here", line=number,
                                 advice="Pull them into one")
            self._roots[place] = found.path
        return self._roots[place]
