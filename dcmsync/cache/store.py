"""What is known of the files of one local place, in SQLite: a cache on the disk, or tables that end with the run.

Owns that what it gives was once said of a file with that stamp, and that losing everything costs time and nothing
else. Refuses to read files, and to believe rows of another place.

Theory of operation. One connection, one lock. Whatever is long is read in pages, each beginning after the last key of
the one before, so that memory is flat and nobody waits for a reader. Every page and every write is a transaction that
first looks whether another process has committed meanwhile: if so, numbers of rows are looked up anew, and if the file
now belongs to another place it is left to it. Rows whose checksum does not fit are deleted before anything is asked,
unless the seal on the file tells that there are none.

What goes wrong with the file is said once; then the run goes on with tables of its own, which are empty: `has_lost`
tells those who relied on what was there.
"""

import os
import sqlite3
import stat
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from dcmsync.cache import rows, schema
from dcmsync.cache.answers import answers
from dcmsync.cache.digest import checksum as checksum_of
from dcmsync.cache.seal import Seal, seal_of
from dcmsync.cache.shelves import PAGE_ROWS, Row, Shelves
from dcmsync.contract import Ask, Attributes, Holding, Stamp
from dcmsync.errors import LocalTrouble, UsageError

BATCH_ROWS = 1000
_MAX_KNOWN = 10_000  # numbers of rows that are kept in mind
_MAX_FREE = 0.1  # how much of a file may be empty
_LOSSES = 3  # of the file, of tables in a file without a name, of tables in memory

T = TypeVar("T")

_INSERT = (
    f"INSERT OR REPLACE INTO file ({', '.join(rows.FILE_COLUMNS)}, sum) "
    f"VALUES ({', '.join('?' * (len(rows.FILE_COLUMNS) + 1))})"
)
_PATHS = (
    "SELECT path, size, mtime_ns, device, inode{} "
    f"FROM file WHERE path > ? ORDER BY path LIMIT {PAGE_ROWS}"
)
_STAMPS = _PATHS.format("")
_STAMPS_AND_SUMS = _PATHS.format(f", sum, {rows.FILE_OCTETS}")


class Identity(NamedTuple):
    """Which folder or archive a cache belongs to."""

    path: bytes
    device: int
    inode: int


class Status(NamedTuple):
    """What there is in a cache. `journal` and `octets` are those of its file; `states` counts files by their state."""

    path: str
    root: str
    format: int
    journal: str
    octets: int
    states: Mapping[str, int]
    studies: int
    series: int
    instances: int
    hashed: int


class _Taken(Exception):
    """Another process uses the file for another place."""


def open_store(root: str, *, named: str | None, folder: Path | None, warn: Callable[[str], None]) -> "Store":
    """What is remembered of the place at `root`: in the file `named`, else in one of `folder`, else in no file.

    Raises UsageError when `named` is something that is not ours; it is not touched.
    """
    if named:
        return Store(root, refuse_others(named), warn=warn)
    return Store(root, path_in(folder, root) if folder else "", warn=warn)


def path_in(folder: Path, root: str) -> str:
    """Where in `folder` the cache of the place at `root` is."""
    name = blake2b(os.fsencode(os.path.realpath(root)), digest_size=16).hexdigest()
    return str(folder / f"{name}.sqlite")


def caches_in(folder: Path) -> list[str]:
    """The caches of a folder, by name."""
    return sorted(str(path) for path in folder.glob("*.sqlite"))


def root_of(path: str) -> str:
    """Where the place is that a cache of ours belongs to; "" when it cannot be told."""
    try:
        if schema.look(path) != "ours":
            return ""
        with closing(schema.open_file(path)) as connection:
            owner = _identity(connection)
    except (sqlite3.Error, schema.Broken, OSError):
        return ""
    return os.fsdecode(owner.path) if owner else ""


def refuse_others(named: str) -> str:
    """The path of a cache that the user named. Raises UsageError when something else has the name."""
    path = os.path.abspath(named)
    try:
        kind = schema.look(path)
    except OSError as trouble:
        raise UsageError(f"{named}: the cache cannot be read: {_words(trouble)}") from None
    if kind == "foreign":
        raise UsageError(f"{named} is no cache of dcmsync", advice="Name another file: this one is left as it is")
    if kind == "newer":
        advice = "Name another file, or use the newer dcmsync"
        raise UsageError(f"{named} is the cache of a newer dcmsync", advice=advice)
    if kind == "absent" and not os.path.isdir(os.path.dirname(path)):
        raise UsageError(f"{named}: there is no folder to put the cache in", advice="Make it first, with mkdir -p")
    return path


class Store:
    """What is remembered of one place (contract.Catalogue). Safe to use from several threads."""

    def __init__(self, root: str, path: str, *, warn: Callable[[str], None]) -> None:
        self.path = path  # "" when nothing stays
        self.has_lost = False
        self._root = root
        self._warn = warn
        self._lock = threading.RLock()
        self._losses = 0
        self._is_sound = False
        self._seal = Seal(path="")
        self._take(self._open() if path else schema.open_private())

    def close(self) -> None:
        """Lets go of the file. Idempotent; nothing may be asked afterwards."""
        with self._lock:
            self._finalizer()

    def stamps(self) -> Iterator[tuple[str, Stamp]]:
        """Every file remembered, with its stamp, by the octets of its path."""
        self.has_lost = False
        losses = self._losses
        self._attempt(self._settle)
        is_proven, after = self._is_sound, b""
        if not is_proven:
            self._attempt(self._drop_unsound_groups)
        while True:
            page = self._rows(_STAMPS if is_proven else _STAMPS_AND_SUMS, after)
            sound = page if is_proven else [row for row in page if checksum_of(row[-1]) == row[-2]]
            if len(sound) < len(page):
                self._delete([row[:1] for row in page if row not in sound])
            for path, size, mtime_ns, device, inode, *_ in sound:
                yield os.fsdecode(path), rows.stamp_of(size, mtime_ns, device, inode)
            if len(page) < PAGE_ROWS:
                break
            after = page[-1][0]
        if losses == self._losses:
            self._is_sound = True
            self._seal.set()

    def at(self, path: str) -> Holding | None:
        """What is known of one file."""
        return next(Shelves(self._rows).at(os.fsencode(path)), None)

    def remember(self, holdings: Iterable[Holding]) -> None:
        """Takes them in; kept when this returns."""
        left = iter(holdings)
        while batch := list(islice(left, BATCH_ROWS)):
            self._attempt(partial(self._insert, batch))

    def forget(self, paths: Iterable[str]) -> None:
        """Lets go of files that are no more."""
        left = iter(paths)
        while batch := [(os.fsencode(path),) for path in islice(left, BATCH_ROWS)]:
            self._delete(batch)

    def find(self, ask: Ask) -> Iterator[Attributes]:
        """The answers to one ask (contract.Catalogue). Raises LocalTrouble when what was there is lost."""
        return answers(ask, self._shelves())

    def holdings(
        self, *, study_uid: str = "", series_uid: str = "", sop_instance_uid: str = ""
    ) -> Iterator[Holding]:
        """The whole instances with these UIDs ("": any). Raises LocalTrouble when what was there is lost."""
        return self._shelves().holdings(study_uid, series_uid, sop_instance_uid)

    def others(self) -> Iterator[Holding]:
        """The files that are no whole instance, by path. Raises LocalTrouble when what was there is lost."""
        return self._shelves().others()

    def status(self) -> Status:
        """What there is, after every row was looked at. Raises LocalTrouble when what was there is lost."""
        page = self._shelves().page
        ((journal,),) = page("SELECT journal_mode FROM pragma_journal_mode")
        states = page("SELECT state, count(*), count(digest) FROM file GROUP BY state ORDER BY state")
        ((studies, series, instances),) = page(
            "SELECT count(DISTINCT s.study_uid), count(*), total(f.instances) FROM series s JOIN "
            "(SELECT series_id, count(*) AS instances FROM file WHERE is_instance = 1 GROUP BY series_id) f "
            "ON s.id = f.series_id"
        )
        return Status(
            path=self.path,
            root=os.path.realpath(self._root),
            format=schema.FORMAT,
            journal=journal,
            octets=schema.octets(self.path) if self.path else 0,
            states={state: files for state, files, _ in states},
            studies=studies,
            series=series,
            instances=int(instances),
            hashed=sum(hashed for *_, hashed in states),
        )

    def shrink(self) -> None:
        """Lets go of series and kinds without files, and of pages that nothing is in, once they are many."""
        self._attempt(self._drop_empty_groups)
        self._attempt(self._vacuum)

    def _shelves(self) -> Shelves:
        """What can be asked, as long as nothing is lost. Raises LocalTrouble."""
        if not self._is_sound and not self.has_lost:
            for _ in self.stamps():
                pass
        losses = self._losses

        def page(question: str, *parameters: object) -> list[Row]:
            found = self._rows(question, *parameters)
            if self.has_lost or losses != self._losses:
                words = f"what was known of {self._root} is lost in the middle of the run"
                raise LocalTrouble(words, advice="run the same command again: it reads the files anew")
            return found

        if self.has_lost:
            page("SELECT 1")
        return Shelves(page)

    def _open(self) -> sqlite3.Connection:
        """The file, made anew if it cannot be believed; tables of our own if it cannot be had."""
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            kind = schema.look(self.path)
            if kind == "newer":
                aside = schema.put_away(self.path)
                self._warn(f"the cache {self.path} is of a newer dcmsync: it is kept as {aside}, and a new one is made")
            try:
                if kind == "foreign":
                    raise schema.Broken("it is no cache")
                self._seal = seal_of(self.path)
                return schema.open_file(self.path, is_proven=self._seal.is_whole)
            except schema.Broken as broken:
                self._warn(f"the cache {self.path} cannot be believed: {broken}: it is made anew")
                self._seal = Seal(path="")
                schema.remove(self.path)
                return schema.open_file(self.path)
        except (sqlite3.Error, schema.Broken, OSError) as trouble:
            self._warn(f"the cache {self.path} cannot be used: {_words(trouble)}: this run goes on without one")
            self.path, self._seal = "", Seal(path="")
            return schema.open_private()

    def _take(self, connection: sqlite3.Connection) -> None:
        """Works with these tables from now on."""
        self._connection = connection
        self._finalizer = weakref.finalize(self, connection.close)
        self._version = -1
        self._identity: Identity | None = None
        self._series: dict[tuple[str, str], int] = {}
        self._kinds: dict[tuple[int, rows.Kind], int] = {}
        self._is_sound = not self.path or self._seal.is_whole

    def _lose(self, trouble: Exception) -> None:
        """Goes on with empty tables of our own; what was torn is removed."""
        self._finalizer()
        if self.path:
            self._warn(f"the cache {self.path} is lost: {_words(trouble)}: this run goes on without one")
            if schema.is_torn(trouble):
                try:
                    schema.remove(self.path)
                except OSError:
                    pass
        self._losses += 1
        self._take(schema.open_private(in_memory=not self.path))
        self.path, self._seal = "", Seal(path="")
        self._is_sound = True
        self.has_lost = True

    def _attempt(self, work: Callable[[], T]) -> T:
        """What `work` gives, in other tables if those at hand fail. Raises LocalTrouble when none work."""
        with self._lock:
            for _ in range(_LOSSES):
                try:
                    return work()
                except (sqlite3.Error, UnicodeDecodeError, _Taken) as trouble:
                    self._lose(trouble)
        raise LocalTrouble("there is no room to remember the files of this run in")

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[sqlite3.Connection]:
        """One transaction, begun by looking at what others did meanwhile. Raises sqlite3.Error, _Taken."""
        connection = self._connection
        connection.execute(f"BEGIN {kind}")
        try:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                self._series.clear()
                self._kinds.clear()
                if self._identity not in (None, _identity(connection)):
                    raise _Taken("another run uses it for another place")
                self._version = version
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            self._series.clear()
            self._kinds.clear()
            self._identity = None
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _rows(self, question: str, *parameters: object) -> list[Row]:
        def fetch() -> list[Row]:
            with self._transaction("DEFERRED") as connection:
                return connection.execute(question, parameters).fetchall()

        return self._attempt(fetch)

    def _delete(self, paths: list[tuple[bytes]]) -> None:
        def delete() -> None:
            with self._transaction("IMMEDIATE") as connection:
                connection.executemany("DELETE FROM file WHERE path = ?", paths)

        self._attempt(delete)

    def _settle(self) -> None:
        """Drops what is said of another place, or of one that stood here before."""
        present = self._present_identity()
        if present is None:
            return
        with self._transaction("DEFERRED") as connection:
            held = _identity(connection)
        if held == present:
            self._identity = present
            return
        with self._transaction("IMMEDIATE") as connection:
            self._own(connection)

    def _own(self, connection: sqlite3.Connection) -> None:
        """Makes the tables those of the place as it is now."""
        present = self._present_identity()
        if present is None or present == self._identity:
            return
        if _identity(connection) != present:
            for table in ("file", "kind", "series", "place"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute("INSERT INTO place VALUES (?, ?, ?)", present)
            self._series.clear()
            self._kinds.clear()
        self._identity = present

    def _present_identity(self) -> Identity | None:
        """The place as it is now; None when there is nothing."""
        try:
            status = os.stat(self._root)
        except OSError:
            return None
        real = os.fsencode(os.path.realpath(self._root))
        # Each change of an archive makes another file of it; which members that concerns, their stamps say.
        inode = status.st_ino if stat.S_ISDIR(status.st_mode) else 0
        return Identity(real, rows.signed(status.st_dev), rows.signed(inode))

    def _drop_unsound_groups(self) -> None:
        """Deletes rows of series and kinds whose checksum does not fit, and files that belong to none."""
        lost = "FROM file WHERE series_id NOT IN (SELECT id FROM series) OR kind_id NOT IN (SELECT id FROM kind)"
        with self._transaction("DEFERRED") as connection:
            unsound = {
                table: [
                    (number,)
                    for number, checksum, octets in connection.execute(f"SELECT id, sum, {said} FROM {table}")
                    if checksum_of(octets) != checksum
                ]
                for table, said in (("series", rows.SERIES_OCTETS), ("kind", rows.KIND_OCTETS))
            }
            has_lost = connection.execute(f"SELECT 1 {lost} LIMIT 1").fetchone() is not None
        if not (unsound["series"] or unsound["kind"] or has_lost):
            return
        with self._transaction("IMMEDIATE") as connection:
            for table, numbers in unsound.items():
                connection.executemany(f"DELETE FROM {table} WHERE id = ?", numbers)
            connection.execute(f"DELETE {lost}")

    def _drop_empty_groups(self) -> None:
        with self._transaction("IMMEDIATE") as connection:
            connection.execute("DELETE FROM kind WHERE id NOT IN (SELECT kind_id FROM file)")
            connection.execute("DELETE FROM series WHERE id NOT IN (SELECT series_id FROM file)")
            self._series.clear()
            self._kinds.clear()

    def _vacuum(self) -> None:
        pragma = "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count"
        ((free, pages),) = self._connection.execute(pragma).fetchall()
        if free > pages * _MAX_FREE:
            self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _insert(self, batch: Sequence[Holding]) -> None:
        with self._transaction("IMMEDIATE") as connection:
            self._own(connection)
            connection.executemany(_INSERT, [self._row(connection, holding) for holding in batch])

    def _row(self, connection: sqlite3.Connection, holding: Holding) -> Row:
        """The row of a file; its series and kind are written if they are new."""
        if len(self._kinds) > _MAX_KNOWN:
            self._series.clear()
            self._kinds.clear()
        uids = holding.study_uid, holding.series_uid
        series = self._series.get(uids)
        if series is None:
            where = "SELECT id FROM series WHERE study_uid = ? AND series_uid = ?"
            insert = "INSERT INTO series (study_uid, series_uid, sum) VALUES (?, ?, ?)"
            series = self._series[uids] = _number(connection, where, uids, insert, (*uids, rows.series_sum(*uids)))
        kind = rows.kind_of(holding)
        number = self._kinds.get((series, kind))
        if number is None:
            values = (series, *kind, rows.kind_sum(series, kind))
            where = f"SELECT id FROM kind WHERE {' AND '.join(f'{name} = ?' for name in rows.KIND_COLUMNS)} AND sum = ?"
            insert = f"INSERT INTO kind ({', '.join(rows.KIND_COLUMNS)}, sum) VALUES (?, ?, ?, ?, ?, ?)"
            number = self._kinds[series, kind] = _number(connection, where, values, insert, values)
        return rows.file_row(holding, series, number)


def _number(connection: sqlite3.Connection, where: str, key: Row, insert: str, values: Row) -> int:
    """The number of a row that is there, or is put there."""
    found = connection.execute(where, key).fetchone()
    if found is not None:
        return int(found[0])
    number = connection.execute(insert, values).lastrowid
    assert number is not None  # an INSERT has one
    return number


def _identity(connection: sqlite3.Connection) -> Identity | None:
    """Whose tables they are; None when nobody's."""
    found = connection.execute("SELECT path, device, inode FROM place").fetchall()
    return Identity._make(found[0]) if len(found) == 1 else None


def _words(trouble: Exception) -> str:
    """What went wrong, without a path."""
    if isinstance(trouble, OSError):
        return (trouble.strerror or "unknown error").lower()
    return "it is damaged" if schema.is_torn(trouble) else str(trouble).lower()
