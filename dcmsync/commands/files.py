"""From arguments and records to files on this machine, and members of archives, for verbs that read them.

Owns finding and opening them, and a word for each that cannot be read. Refuses to look into them.
"""

import os
import stat
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from dcmsync import config, locator
from dcmsync.commands.options import Streams
from dcmsync.errors import InputError, LocalTrouble, UsageError

if TYPE_CHECKING:
    from dcmsync.endpoints.zip.reader import Reader
    from dcmsync.records.stream import Thing
    from dcmsync.wire.source import Source

Complain = Callable[[str, str], None]
"""Told a path and what is wrong with it."""

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not stop us


class Member(Struct, frozen=True, kw_only=True):
    """A member of an archive, which is open, and stays so as long as the member may be read; `path` is its own."""

    archive: "Reader"
    path: str
    name: str

    def __str__(self) -> str:
        """As people are told: below the archive, as if that were a folder."""
        return f"{self.path}/{self.name}"


File = str | Member
"""The path of a file, or a member of an archive."""


def below(paths: Iterable[str], complain: Complain) -> Iterator[File]:
    """The files that `paths` name; a folder names all regular files below it, an archive all its members, in the order
    of names.
    """
    from dcmsync.endpoints.folder.scan import walk_tree

    for path in paths:
        try:
            if os.path.isdir(path):
                for name in walk_tree(path, skipped=lambda name, why, root=path: complain(f"{root}/{name}", why)):  # type: ignore[misc]
                    yield os.path.join(path, name)
            elif isinstance(locator.parse(os.path.abspath(path)), locator.Archive):
                with _archive(path) as reader:
                    for name in sorted(reader.members):
                        yield Member(archive=reader, path=path, name=name)
            else:
                yield path
        except OSError as trouble:
            complain(path, trouble.strerror or "unreadable")


@contextmanager
def opened(path: File) -> Iterator["Source"]:
    """The octets of a regular file, or of a member. Raises OSError."""
    from dcmsync.endpoints.folder.scan import source_of

    if isinstance(path, Member):
        yield _unpacked(path)
        return
    descriptor = os.open(path, _OPEN)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "no regular file")
        yield source_of(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _archive(path: str) -> "Reader":
    """An archive, open. Raises OSError."""
    from dcmsync.endpoints.zip.reader import Reader

    try:
        return Reader(path)
    except LocalTrouble as trouble:
        raise OSError(0, trouble.message.removeprefix(f"{path} ")) from trouble


def _unpacked(member: Member) -> "Source":
    """The octets of a member, proven; of a large one as they are inflated. Raises OSError."""
    from dcmsync.endpoints.zip.stock import MEMORY_OCTETS
    from dcmsync.wire.archive import Damaged
    from dcmsync.wire.unpacking import Unpacked, Unpacking

    archive = member.archive
    found = archive.members.get(member.name)
    if found is None:
        raise FileNotFoundError(0, "the archive has no such member")
    if found.fault:
        raise OSError(0, found.fault)
    try:
        begin = archive.data_offset(found.entry)
        stream = Unpacking(archive.source, found.entry, begin)
        if found.entry.size <= MEMORY_OCTETS:
            return stream.read_all()
        while stream.read():
            pass
    except Damaged as damage:
        raise OSError(0, str(damage)) from damage
    return Unpacked(archive.source, found.entry, begin).distant()


class RecordedFiles:
    """Iterates over the files that the records on standard input name; `trouble` then says whether these were all.

    `path` is below `source` in an instance record, below `destination` in an outcome. An archive is open until a record
    names another place. Raises InputError, and UsageError for instances that are on another machine.
    """

    def __init__(self, arguments: Namespace, streams: Streams, complain: Complain) -> None:
        self._arguments = arguments
        self._streams = streams
        self._complain = complain
        self._roots: dict[str, locator.Folder | locator.Archive] = {}
        self._archive: tuple[str, Reader] | None = None
        self.trouble = ""

    def __iter__(self) -> Iterator[File]:
        from dcmsync.records.stream import Reader, Unknown

        reader = Reader(self._streams.stdin, require_end=self._arguments.require_end)
        try:
            for line in reader:
                path = None if isinstance(line.record, Unknown) else self._path(line.record, line.number)
                if path is not None:
                    yield path
        finally:
            self._close()
        self.trouble = reader.trouble

    def _path(self, record: "Thing", number: int) -> File | None:
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
        if isinstance(place, str) and not isinstance(path, str):
            self._root(place, number)  # where it is of another machine, that is the reason
        if not isinstance(place, str) or not isinstance(path, str):
            self._complain(f"line {number}", "the record names no file; ask for instances of a folder")
            return None
        if os.path.isabs(path) or ".." in path.split("/"):
            self._complain(f"line {number}", "its path leads out of its place")
            return None
        root = self._root(place, number)
        if isinstance(root, locator.Folder):
            return os.path.join(root.path, path)
        try:
            return Member(archive=self._opened(root.path), path=root.path, name=path)
        except OSError as trouble:
            self._complain(os.path.join(root.path, path), f"the archive: {trouble.strerror or 'unreadable'}")
            return None

    def _opened(self, path: str) -> "Reader":
        """The archive at a path; the one before is closed. Raises OSError."""
        if self._archive is None or self._archive[0] != path:
            self._close()
            self._archive = path, _archive(path)
        return self._archive[1]

    def _close(self) -> None:
        if self._archive is not None:
            self._archive[1].close()
            self._archive = None

    def _root(self, place: str, number: int) -> locator.Folder | locator.Archive:
        if place not in self._roots:
            from os import environ

            names = config.load(self._arguments.config, environ).endpoints
            try:
                found = locator.parse(names[place].locator if place in names else place, names=names)
            except UsageError as error:
                raise InputError(error.message, line=number, advice=error.advice) from error
            if not isinstance(found, locator.Folder | locator.Archive):
                raise UsageError(
                    f"line {number}: {place} is no folder and no archive: its instances cannot be opened here",
                    advice="Pull them into one; of a DICOMweb service dcmsync pull --metadata tells their headers",
                )
            self._roots[place] = found
        return self._roots[place]
