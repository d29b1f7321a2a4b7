"""An instance that is a file of this machine, on its way into a folder without passing through anybody's memory.

Owns the three ways to take it: copied (cloned where the file system can), linked, or pointed to. Refuses to judge the
data set, and to take a file that is no longer the one that was offered.

What is taken is read once, to its last octet, and its stamp is compared before and after: the digest is that of the
octets that the destination now has. A copy that stays small comes as memory; everything else is staged under a name in
the staging folder, from where it gets its final name like any file that arrived.
"""

import errno
import fcntl
import os
from collections.abc import Callable

from msgspec import Struct

from dcmsync.contract import Origin
from dcmsync.endpoints.folder.arrivals import Hasher, Transfer, write_all
from dcmsync.endpoints.folder.staging import Staging
from dcmsync.endpoints.folder.stamp import stamp_of

PIECE_OCTETS = 1 << 20

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CLONE = 0x40049409  # FICLONE of Linux, ioctl_ficlonerange(2)
_NO_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ETXTBSY}
)
_WHY_NO_LINK = {
    errno.EXDEV: "it is on another file system",
    errno.EMLINK: "the file has as many links as the file system allows",
    errno.EPERM: "the system allows no link to it",
    errno.EACCES: "the system allows no link to it",
    errno.EOPNOTSUPP: "the file system has no links",
    errno.ENOSYS: "the file system has no links",
}


class Adopted(Struct, frozen=True, kw_only=True):
    """A file that was taken: in `memory`, all of it, or behind `descriptor`. `digest` is of every octet.

    `staged` is its name in the staging folder. `note` says, in words, when it was taken otherwise than asked.
    """

    digest: str
    memory: bytes | None = None
    descriptor: int = -1
    staged: str = ""
    note: str = ""


def adopt(
    origin: Origin, transfer: Transfer, staging: Staging, hasher: Callable[[], Hasher], *, memory_octets: int
) -> Adopted | None:
    """Takes the file; None when it is gone, or is not what it was. Raises OSError; nothing then stays."""
    descriptor = _open(origin)
    if descriptor < 0:
        return None
    adopted = None
    try:
        adopted = _take(descriptor, origin, transfer, staging, hasher, memory_octets)
        if adopted is not None and stamp_of(descriptor) != origin.stamp:
            _let_go(adopted, descriptor, staging)
            adopted = None
    finally:
        if adopted is None or adopted.descriptor != descriptor:
            os.close(descriptor)
    return adopted


def _open(origin: Origin) -> int:
    try:
        descriptor = os.open(origin.path, _READ)
    except FileNotFoundError:
        return -1
    except OSError as trouble:
        if trouble.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            return -1
        raise
    if stamp_of(descriptor) != origin.stamp:
        os.close(descriptor)
        return -1
    return descriptor


def _take(
    descriptor: int,
    origin: Origin,
    transfer: Transfer,
    staging: Staging,
    hasher: Callable[[], Hasher],
    memory_octets: int,
) -> Adopted | None:
    note = ""
    if transfer != "copy":
        _make_durable(descriptor)
    if transfer == "symlink":
        staged = staging.next_name()
        os.symlink(origin.path, staged, dir_fd=staging.fd)
        return _hashed(descriptor, staged, staging, hasher())
    if transfer == "link":
        staged = staging.next_name()
        try:
            os.link(origin.path, staged, dst_dir_fd=staging.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as trouble:
            if trouble.errno not in _WHY_NO_LINK:
                raise
            note = f"copied, not linked: {_WHY_NO_LINK[trouble.errno]}"
        else:
            linked = os.stat(staged, dir_fd=staging.fd, follow_symlinks=False)
            if (linked.st_dev, linked.st_ino) == (origin.stamp.device, origin.stamp.inode):
                return _hashed(descriptor, staged, staging, hasher())
            staging.remove(staged)  # another file has that path by now
            return None
    if origin.stamp.size <= memory_octets:
        return _read(descriptor, origin.stamp.size, hasher(), note)
    return _copied(descriptor, staging, hasher(), note)


def _make_durable(descriptor: int) -> None:
    """Has the octets of a file written out before it gets one more name. Raises OSError.

    Not afterwards: a new name changes the file itself, and each fsync would wait for the journal by itself.
    """
    try:
        os.fsync(descriptor)
    except OSError as trouble:
        if trouble.errno not in (errno.EINVAL, errno.EROFS):  # where nothing is ever written
            raise


def _read(descriptor: int, size: int, file_hash: Hasher, note: str) -> Adopted | None:
    """A small file as memory; None when it is shorter than it was."""
    octets = os.pread(descriptor, size, 0)
    if len(octets) != size:
        return None
    file_hash.update(octets)
    return Adopted(memory=octets, digest=file_hash.hexdigest(), note=note)


def _hashed(descriptor: int, staged: str, staging: Staging, file_hash: Hasher) -> Adopted:
    """The very file, under another name."""
    try:
        _each_piece(descriptor, file_hash.update)
    except OSError:
        staging.remove(staged)
        raise
    return Adopted(descriptor=descriptor, staged=staged, digest=file_hash.hexdigest())


def _copied(descriptor: int, staging: Staging, file_hash: Hasher, note: str) -> Adopted:
    """A copy that shares its blocks with the file where the file system can do that, else octet by octet.

    copy_file_range(2) was refused: the digest needs every octet here, and then writing them costs no more.
    """
    staged, copy = staging.create()
    try:
        if _is_cloned(descriptor, copy):
            _each_piece(copy, file_hash.update)
        else:

            def append(piece: memoryview) -> None:
                file_hash.update(piece)
                write_all(copy, [piece])

            _each_piece(descriptor, append)
    except OSError:
        os.close(copy)
        staging.remove(staged)
        raise
    return Adopted(descriptor=copy, staged=staged, digest=file_hash.hexdigest(), note=note)


def _is_cloned(descriptor: int, copy: int) -> bool:
    """Whether the file system made `copy` share all blocks of the file. Raises OSError."""
    try:
        fcntl.ioctl(copy, _CLONE, descriptor)
    except OSError as trouble:
        if trouble.errno in _NO_CLONE:
            return False
        raise
    return True


def _each_piece(descriptor: int, take: Callable[[memoryview], None]) -> None:
    """Hands over all octets of an open file, in a buffer that is used again. Raises OSError."""
    buffer = memoryview(bytearray(min(max(os.fstat(descriptor).st_size, 1), PIECE_OCTETS)))
    at = 0
    while count := os.preadv(descriptor, [buffer], at):
        take(buffer[:count])
        at += count


def _let_go(adopted: Adopted, descriptor: int, staging: Staging) -> None:
    if adopted.staged:
        staging.remove(adopted.staged)
    if adopted.descriptor not in (-1, descriptor):
        os.close(adopted.descriptor)
