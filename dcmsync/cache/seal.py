"""The seal on a cache: the digest of its file when every page and every row of it was found sound.

Owns when a seal may be set and when it holds. Refuses to look into the file.

Theory of operation. Checking a cache takes longer than all that a run does with it when nothing changed. So whoever has
checked one writes its digest beside it, and who finds the file with that digest need not check it again: it is, octet
by octet, what was sound. The digest is taken before the check, and written only if nothing was written meanwhile and
nothing waits in a journal. A seal that lacks or does not fit says nothing; then everything is checked.
"""

import os
import secrets

from msgspec import Struct

from dcmsync.cache.digest import hasher

SEAL = "-seal"

_CHUNK_OCTETS = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Seal(Struct, frozen=True, kw_only=True):
    """What a file was at one moment. `is_whole`: its seal holds. `digest` is "" where there is nothing to seal."""

    path: str
    digest: str = ""
    mark: tuple[int, ...] = ()
    is_whole: bool = False

    def set(self) -> None:
        """Seals the file, if it still is what it was."""
        if not self.digest or self.is_whole or _mark(self.path) != self.mark:
            return
        name = f"{self.path}{SEAL}.{secrets.token_hex(4)}"
        try:
            descriptor = os.open(name, _WRITE, 0o600)
            try:
                os.write(descriptor, self.digest.encode())
            finally:
                os.close(descriptor)
            os.replace(name, self.path + SEAL)
        except OSError:  # then the next run checks, too
            pass


def seal_of(path: str) -> Seal:
    """The file as it is now. Must be asked before SQLite has it open: closing a file lets go of all its locks."""
    mark = _mark(path)
    if not mark:
        return Seal(path=path)
    try:
        digest = _digest(path)
        said = _said(path + SEAL)
    except OSError:
        return Seal(path=path)
    return Seal(path=path, digest=digest, mark=mark, is_whole=said == digest.encode() and _mark(path) == mark)


def _mark(path: str) -> tuple[int, ...]:
    """What tells whether somebody wrote; nothing when something waits in a journal, or there is no file."""
    try:
        status = os.stat(path)
        if any(os.path.exists(path + side) and os.stat(path + side).st_size for side in ("-wal", "-journal")):
            return ()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: str) -> str:
    digest = hasher()
    descriptor = os.open(path, _READ)
    try:
        while octets := os.read(descriptor, _CHUNK_OCTETS):
            digest.update(octets)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _said(path: str) -> bytes:
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, 64)
    finally:
        os.close(descriptor)
