"""The archive that is being written: hidden beside the one it will be, and locked while its process lives.

Owns its octets, from carrying over what was there to the end record, and putting it in place. Refuses to judge members,
and to touch the archive that is there: it stays as it is until the new one has its name, whole and durable.

Members that were there keep their octets and their places, so that what the directory says of them is copied as it
stands. One that is replaced loses its entry, and its octets become zeros: nothing of it stays.
"""

import errno
import fcntl
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress

from dcmsync.contract import Stamp
from dcmsync.endpoints.zip.arrivals import OWN_PREFIX, own_name, put
from dcmsync.endpoints.zip.faults import MAX_RATIO
from dcmsync.endpoints.zip.reader import Reader, stamp_from
from dcmsync.errors import LocalTrouble
from dcmsync.wire.archive import (
    DEFLATED,
    LOCAL_MARK,
    MAX_MEMBERS,
    SMALL,
    STORED,
    Directory,
    Entry,
    end,
    local_header,
    record,
)
from dcmsync.wire.source import Distant, Source

LEVEL = 1
"""Of deflate. CT and MR of pydicom's data, one core: level 1 leaves 31 and 47 % at 132 and 88 MB/s, level 6 leaves 29
and 45 % at 36 and 18 MB/s (CPython 3.11, zlib 1.2.13, 2026-11)."""

PIECE_OCTETS = 1 << 20

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SWEEP = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CLONE = 0x40049409  # FICLONE of Linux, ioctl_ficlonerange(2)
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF})
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Draft:
    """One archive being written in the folder `folder_fd`, after what `old` holds. For one thread."""

    def __init__(self, folder_fd: int, old: Reader | None) -> None:
        """Raises OSError, LocalTrouble: then nothing of it stays."""
        self._folder_fd = folder_fd
        self._old = old
        self._records: dict[str, bytes] = {}  # of new members, by path
        self._dropped: list[Entry] = []  # of old ones
        self._end = 0
        if old is not None and not _is_locked(old.descriptor):
            raise LocalTrouble("another run is writing the archive", advice="Run the same command when it is done")
        self._name, self.descriptor = _create(folder_fd)
        try:
            if old is not None:
                os.fchmod(self.descriptor, stat.S_IMODE(os.fstat(old.descriptor).st_mode))
                self._end = old.directory.offset
                _carry_over(old.descriptor, self.descriptor, self._end)
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> Distant:
        """All octets so far."""
        return Distant(lambda offset, length: os.pread(self.descriptor, length, offset), self._end)

    def add(self, path: str, source: Source, *, packed: bytes | bytearray | None, crc: int, is_deflated: bool) -> Entry:
        """Writes one member; `packed` is its data where that is in memory.

        Raises OSError, or LocalTrouble when no more members fit: then it is not there.
        """
        if len(self._records) + (self._old.directory.count if self._old is not None else 0) >= MAX_MEMBERS:
            raise LocalTrouble(f"the archive has {MAX_MEMBERS:,} members", advice="Bring the rest to another one")
        name = path.encode()
        size = source.size if isinstance(source, Distant) else len(source)
        at = self._end
        is_large = size + (size >> 10) + 1024 >= SMALL  # deflate adds 5 octets to 16 kB at worst
        method = DEFLATED if is_deflated else STORED
        empty = local_header(name, method=method, crc=0, packed=0, size=0, is_large=is_large)
        begin = at + len(empty)
        if packed is not None:
            put(self.descriptor, packed, begin)
            count = len(packed)
        else:
            count, crc = self._pour(source, size, begin, is_deflated=is_deflated)
            if size > MAX_RATIO * count:
                count, crc = self._pour(source, size, begin, is_deflated=False)
                method = STORED
        header = local_header(name, method=method, crc=crc, packed=count, size=size, is_large=is_large)
        put(self.descriptor, header, at)
        said = record(name, method=method, crc=crc, packed=count, size=size, header=at, is_large=is_large)
        self._records[path] = said
        self._end = begin + count
        return Entry(
            name=name, flags=0, method=method, crc=crc, packed=count, size=size, header=at, mode=0, record=0,
            record_octets=0,
        )  # fmt: skip

    def drop(self, entry: Entry, begin: int, *, is_old: bool) -> None:
        """Takes out a member in whose place another was added; its data begins at `begin`. Raises OSError."""
        if is_old:
            self._dropped.append(entry)
        first = max(entry.header, len(LOCAL_MARK))  # by its first octets a file is known as an archive
        for at in range(first, begin + entry.packed, PIECE_OCTETS):
            put(self.descriptor, bytes(min(PIECE_OCTETS, begin + entry.packed - at)), at)

    def finish(self) -> int:
        """Writes the directory and the end, and makes all of it durable; gives how many members there are.

        Raises OSError. Nothing may be added afterwards.
        """
        comment, count, at = b"", 0, self._end
        if self._old is not None:
            comment, count = self._old.directory.comment, self._old.directory.count - len(self._dropped)
        for piece in self._directory():
            put(self.descriptor, piece, at)
            at += len(piece)
        count += len(self._records)
        directory = Directory(offset=self._end, size=at - self._end, count=count, comment=comment)
        closing = end(directory)
        put(self.descriptor, closing, at)
        os.ftruncate(self.descriptor, at + len(closing))
        os.fsync(self.descriptor)
        return count

    def publish(self, name: str, replaced: Stamp | None) -> None:
        """Gives it its name, durably: in place of the archive with the stamp `replaced`, or of nothing.

        Raises OSError, and LocalTrouble when another archive, or none, has the name by now.
        """
        if replaced is None:
            self._publish_new(name)
        else:
            try:
                present = stamp_from(os.stat(name, dir_fd=self._folder_fd, follow_symlinks=False))
            except FileNotFoundError:
                present = None
            if present != replaced:
                raise LocalTrouble("the archive changed meanwhile, and stays", advice="Run the same command again")
            os.rename(self._name, name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
            self._name = ""
        os.fsync(self._folder_fd)

    def close(self) -> None:
        """Removes what has no name, and lets go of the lock. Idempotent."""
        if self._name:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder_fd)
            self._name = ""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _publish_new(self, name: str) -> None:
        try:
            os.link(
                self._name, name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd, follow_symlinks=False
            )
        except FileExistsError:
            raise _appeared() from None
        except OSError as trouble:
            if trouble.errno not in _NO_LINKS:
                raise
            with suppress(FileNotFoundError):
                os.stat(name, dir_fd=self._folder_fd, follow_symlinks=False)
                raise _appeared() from None
            os.rename(self._name, name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
            self._name = ""

    def _directory(self) -> Iterator[bytes]:
        """What the directory says: of old members as it stood, but for those that were dropped; then of new ones."""
        if self._old is not None:
            at = self._old.directory.offset
            for entry in sorted(self._dropped, key=lambda entry: entry.record):
                yield from self._stretch(at, entry.record)
                at = entry.record + entry.record_octets
            yield from self._stretch(at, self._old.directory.offset + self._old.directory.size)
        some, octets = [], 0
        for said in self._records.values():
            some.append(said)
            octets += len(said)
            if octets > PIECE_OCTETS:
                yield b"".join(some)
                some, octets = [], 0
        yield b"".join(some)

    def _stretch(self, at: int, until: int) -> Iterator[bytes]:
        assert self._old is not None
        while at < until:
            piece = self._old.source.read_at(at, min(PIECE_OCTETS, until - at))
            if not piece:
                raise OSError(errno.EIO, "the archive became shorter")
            yield piece
            at += len(piece)

    def _pour(self, source: Source, size: int, begin: int, *, is_deflated: bool) -> tuple[int, int]:
        """Writes the data of a large member; gives its packed size and its CRC. Raises OSError."""
        deflating = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS) if is_deflated else None
        at, crc = begin, 0
        for offset in range(0, size, PIECE_OCTETS):
            piece = part(source, offset, PIECE_OCTETS)
            crc = zlib.crc32(piece, crc)
            packed = deflating.compress(piece) if deflating is not None else piece
            put(self.descriptor, packed, at)
            at += len(packed)
        if deflating is not None:
            packed = deflating.flush()
            put(self.descriptor, packed, at)
            at += len(packed)
        return at - begin, crc


def sweep(folder_fd: int) -> int:
    """Removes the drafts in a folder that no living process holds. Gives how many. Raises OSError."""
    removed = 0
    for name in os.listdir(folder_fd):
        if name.startswith(OWN_PREFIX) and name.endswith(".zip"):
            removed += _remove_if_dead(name, folder_fd)
    return removed


def deflate(octets: bytes | bytearray) -> bytes | None:
    """The octets of a member, deflated; None when they are better stored: grown, or so small that it is a bomb."""
    deflating = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflating.compress(octets) + deflating.flush()
    return packed if len(packed) < len(octets) <= MAX_RATIO * len(packed) else None


def part(source: Source, offset: int, length: int) -> bytes | memoryview:
    """At most `length` octets of a source."""
    if isinstance(source, Distant):
        return source.read_at(offset, length)
    return memoryview(source)[offset : offset + length]


def _create(folder_fd: int) -> tuple[str, int]:
    """A new file, held. Raises OSError."""
    while True:
        name = own_name()
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder_fd)
        try:
            _is_locked(descriptor)
            if os.fstat(descriptor).st_nlink:  # else another process took it for a leftover before it was locked
                return name, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Takes the lock of a file, where the file system has locks; false when another process has it. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as trouble:
        if trouble.errno not in _NO_LOCKS:
            raise
    return True


def _remove_if_dead(name: str, folder_fd: int) -> bool:
    try:
        descriptor = os.open(name, _SWEEP, dir_fd=folder_fd)
    except OSError:  # gone, or a link: not ours
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder_fd)
        return True
    except OSError:  # held by a living process, or on a file system without locks
        return False
    finally:
        os.close(descriptor)


def _carry_over(old: int, new: int, octets: int) -> None:
    """Makes the first octets of one file those of another: shared where the file system can. Raises OSError."""
    try:
        fcntl.ioctl(new, _CLONE, old)
        os.ftruncate(new, octets)
        return
    except OSError:  # ENOTTY, EOPNOTSUPP, EXDEV, EINVAL ...: whatever it is, copying meets it too if it is serious
        pass
    at = 0
    while at < octets:
        count = _copied(old, new, at, octets - at)
        if not count:
            raise OSError(errno.EIO, "the archive became shorter")
        at += count


def _copied(old: int, new: int, at: int, octets: int) -> int:
    """Copies some octets to the same place of another file, in the kernel where it can. Raises OSError."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(old, new, min(octets, 1 << 30), at, at)
        except OSError as trouble:
            if trouble.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    piece = os.pread(old, min(octets, PIECE_OCTETS), at)
    put(new, piece, at)
    return len(piece)


def _appeared() -> LocalTrouble:
    return LocalTrouble("an archive of that name appeared meanwhile, and stays", advice="Run the same command again")
