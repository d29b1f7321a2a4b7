"""The file of a cache: its tables, its format, how it is opened, and when it is believed.

Owns what is ours on the disk. Refuses to touch a file that another program made, to run what somebody planted in the
schema, and to believe a file that is not sound in every page.

Theory of operation. Whose a file is stands in the header of its first page and is read without SQLite, which would
write beside it. A file of ours is opened, its schema compared word by word with what this version makes, and every
page checked (integrity_check: indexes agree with tables); what the rows say is the business of their checksums. What
fails is removed and made anew: a cache can be lost at any time, at the price of reading the files again. For the same
reason synchronous=NORMAL is enough: after a power cut the last rows may lack, and what was torn is noticed.
"""

import os
import sqlite3
import stat
import time
from contextlib import closing
from functools import lru_cache
from typing import Literal

from dcmsync.cache.seal import SEAL

APPLICATION_ID = 0x64636D73  # "dcms" (sqlite.org/fileformat2.html, octets 68 to 71)
FORMAT = 1  # octets 60 to 63
MOUNTS = "/proc/self/mounts"
BUSY_S = 5.0  # how long another process may hold the cache

_MAGIC = b"SQLite format 3\0"
_HEADER_OCTETS = 100
_SIDES = ("-wal", "-shm", "-journal", SEAL)
_WAIT_S = 0.02

# WAL needs memory shared by all who have the file open (sqlite.org/wal.html): not across machines.
_DISTANT = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs",
    "fuse.sshfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb2", "smb3", "smbfs", "vboxsf",
    "virtiofs",
})  # fmt: skip

# What says nothing against the file (sqlite.org/rescode.html).
_PASSING = frozenset({
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH,
})  # fmt: skip

TABLES = (
    # Whose cache it is: one row.
    "CREATE TABLE place (path BLOB NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL)",
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        study_uid TEXT NOT NULL,
        series_uid TEXT NOT NULL,
        sum INTEGER NOT NULL,
        UNIQUE (study_uid, series_uid))""",
    # What the instances of a series repeat; several rows for a series where they differ.
    """CREATE TABLE kind (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        series_id INTEGER NOT NULL,
        sop_class_uid TEXT NOT NULL,
        transfer_syntax_uid TEXT NOT NULL,
        modality TEXT NOT NULL,
        attributes TEXT NOT NULL,
        sum INTEGER NOT NULL)""",
    "CREATE INDEX kind_by_series ON kind (series_id, sum)",
    """CREATE TABLE file (
        id INTEGER PRIMARY KEY,
        path BLOB NOT NULL UNIQUE CHECK (typeof(path) = 'blob'),
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        device INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        is_instance INTEGER NOT NULL,
        series_id INTEGER NOT NULL,
        kind_id INTEGER NOT NULL,
        sop_instance_uid TEXT NOT NULL,
        data_set_offset INTEGER NOT NULL,
        attributes TEXT NOT NULL,
        digest BLOB,
        content BLOB,
        read_ns INTEGER NOT NULL,
        sum INTEGER NOT NULL)""",
    "CREATE INDEX file_by_series ON file (series_id, sop_instance_uid) WHERE is_instance = 1",
    "CREATE INDEX file_by_kind ON file (kind_id) WHERE is_instance = 1",
    "CREATE INDEX file_by_instance ON file (sop_instance_uid) WHERE is_instance = 1",
)

Kind = Literal["absent", "empty", "ours", "newer", "foreign"]


class Broken(Exception):
    """A file of ours that cannot be believed; `str` says why."""


def look(path: str) -> Kind:
    """What stands at `path`, by its first octets. A link, a folder or a FIFO is "foreign". Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return "absent"
    except OSError:
        if os.path.islink(path) or not os.path.isfile(path):
            return "foreign"
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "foreign"
        header = os.pread(descriptor, _HEADER_OCTETS, 0)
    finally:
        os.close(descriptor)
    if not header:
        return "empty"
    is_ours = header.startswith(_MAGIC) and header[68:72] == APPLICATION_ID.to_bytes(4, "big")
    if not is_ours:
        return "foreign"
    return "newer" if int.from_bytes(header[60:64], "big") > FORMAT else "ours"


def open_file(path: str, *, is_proven: bool = False) -> sqlite3.Connection:
    """The cache at `path`, sound; made if there is none. `is_proven`: its pages need not be checked.

    Raises Broken when it cannot be believed, sqlite3.Error or OSError when it cannot be used for now.
    """
    for side in _SIDES:
        if look(path + side) == "foreign" and not _is_file(path + side):
            raise Broken(f"something that is no file has the name of its {side[1:]}")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _harden(connection)
        _prepare(connection, is_distant=_is_distant(path), deadline=time.monotonic() + BUSY_S)
        _check(connection, is_proven=is_proven)
    except BaseException as error:
        connection.close()
        if is_torn(error):
            raise Broken("SQLite cannot make sense of it") from error
        raise
    return connection


def open_private(*, in_memory: bool = False) -> sqlite3.Connection:
    """Tables that end with the connection: in a file without a name, as far as they are large."""
    connection = sqlite3.connect(":memory:" if in_memory else "", isolation_level=None, check_same_thread=False)
    _harden(connection)
    _create(connection)
    return connection


def is_torn(error: BaseException) -> bool:
    """Whether an error says that the file is damaged, rather than locked, full or out of reach.

    SQLite quotes what it cannot parse, and its words may then be no UTF-8.
    """
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _PASSING
    return isinstance(error, UnicodeDecodeError)


def octets(path: str) -> int:
    """How much of the disk a cache takes, with what is written and not yet in its place."""
    total = 0
    for name in (path, path + "-wal"):
        try:
            total += os.stat(name).st_size
        except OSError:
            pass
    return total


def remove(path: str) -> None:
    """Removes a cache of ours with what SQLite keeps beside it. Raises OSError."""
    for name in (path, *(path + side for side in _SIDES)):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass


def put_away(path: str) -> str:
    """Renames a cache of a newer version, out of our way. Gives the new name. Raises OSError."""
    aside = f"{path}.newer"
    for side in ("", *_SIDES):
        try:
            os.replace(path + side, aside + side)
        except FileNotFoundError:
            pass
    return aside


def _harden(connection: sqlite3.Connection) -> None:
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "temp_store = MEMORY",
                   "synchronous = NORMAL", "cache_size = -16000", "wal_autocheckpoint = 8000"):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")


def _prepare(connection: sqlite3.Connection, *, is_distant: bool, deadline: float) -> None:
    """Makes the tables where there are none, and sets the journal. Raises Broken, sqlite3.Error."""
    version = _number(connection, "user_version")
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _number(connection, "user_version") == 0:  # else another process was faster
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                    raise Broken("its format is not said")
                _create(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    elif version != FORMAT or _number(connection, "application_id") != APPLICATION_ID:
        raise Broken("it is of another format")
    wanted = "delete" if is_distant else "wal"
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
            return
        except sqlite3.OperationalError:  # another process has it open at this moment; SQLite does not wait for that
            if time.monotonic() > deadline:
                raise
            time.sleep(_WAIT_S)


def _create(connection: sqlite3.Connection) -> None:
    for statement in TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _check(connection: sqlite3.Connection, *, is_proven: bool) -> None:
    """Raises Broken unless the schema is ours to the letter and every page is sound."""
    if _schema(connection) != _own_schema():
        raise Broken("its tables are not those that dcmsync makes")
    if is_proven:
        return
    # hot: 33 ms for 20,000 files, 11 MB (2 shared cores, SQLite 3.40, 2026-11)
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise Broken("its pages do not fit together")


def _schema(connection: sqlite3.Connection) -> frozenset[tuple[object, ...]]:
    return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


@lru_cache(maxsize=1)
def _own_schema() -> frozenset[tuple[object, ...]]:
    with closing(open_private(in_memory=True)) as connection:
        return _schema(connection)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _is_distant(path: str) -> bool:
    """Whether the file system may be that of another machine (Linux: by proc_mounts(5))."""
    try:
        with open(MOUNTS, "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return False
    real = os.fsencode(os.path.realpath(path))
    kinds = {}
    for _, mount, kind, *_ in lines:
        mount = mount.replace(rb"\040", b" ")
        if real.startswith(mount.rstrip(b"/") + b"/"):
            kinds[len(mount)] = kind.decode("ascii", "replace")
    return bool(kinds) and kinds[max(kinds)] in _DISTANT
