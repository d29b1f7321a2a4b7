"""What is asked of a cache's tables: in pages, each beginning after the last key of the one before.

Owns the questions in SQL. Refuses to know connections, transactions and what becomes of a file that breaks: whoever
gives the pages does.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any

from dcmsync.cache import rows
from dcmsync.cache.answers import File, Series
from dcmsync.cache.rows import FILE_COLUMNS, Kind
from dcmsync.contract import Holding

PAGE_ROWS = 1000

Row = tuple[Any, ...]  # as SQLite gives it: the schema says which types
Page = Callable[..., list[Row]]
"""Gives the rows of one statement with its parameters. Raises LocalTrouble when what was there is lost."""

_HOLDINGS = (
    f"SELECT {', '.join(f'f.{name}' for name in FILE_COLUMNS)}, s.study_uid, s.series_uid, "
    "k.sop_class_uid, k.transfer_syntax_uid, k.modality, k.attributes "
    "FROM file f JOIN series s ON s.id = f.series_id JOIN kind k ON k.id = f.kind_id WHERE "
)
_SERIES = (
    "SELECT id, series_uid, (SELECT count(DISTINCT sop_instance_uid) FROM file "
    "WHERE series_id = series.id AND is_instance = 1) FROM series WHERE "
)
_PATH, _INSTANCE = FILE_COLUMNS.index("path"), FILE_COLUMNS.index("sop_instance_uid")


class Shelves:
    """The remembered files of one place, to be asked (answers.Shelves)."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.kind = lru_cache(maxsize=256)(self._kind)

    def studies(self) -> Iterator[str]:
        """The UIDs of all studies, ascending."""
        question = "SELECT DISTINCT study_uid FROM series WHERE study_uid > ? ORDER BY study_uid"
        for (uid,) in self._all(question, after=("",), key=itemgetter(slice(1))):
            yield uid

    def series(self, study_uid: str) -> Iterator[Series]:
        """The series of a study that have instances, by UID."""
        question = f"{_SERIES} study_uid = ? AND series_uid > ? ORDER BY series_uid"
        found = self._all(question, study_uid, after=("",), key=itemgetter(slice(1, 2)))
        return (series for series in map(Series._make, found) if series.instances)

    def one_series(self, study_uid: str, series_uid: str) -> Series | None:
        """A series, if it has instances."""
        for row in self.page(f"{_SERIES} study_uid = ? AND series_uid = ?", study_uid, series_uid):
            series = Series._make(row)
            return series if series.instances else None
        return None

    def kinds(self, series: int) -> Iterator[Kind]:
        """What the instances of a series share, in the order of the text."""
        question = (
            f"SELECT {', '.join(Kind._fields)} FROM kind WHERE series_id = ? "
            "AND EXISTS (SELECT 1 FROM file WHERE kind_id = kind.id AND is_instance = 1) "
            "AND (attributes, sop_class_uid, transfer_syntax_uid) > (?, ?, ?) "
            "ORDER BY attributes, sop_class_uid, transfer_syntax_uid"
        )
        return map(Kind._make, self._all(question, series, after=("", "", ""), key=itemgetter(3, 0, 1)))

    def files(self, series: int) -> Iterator[File]:
        """The instances of a series, by UID and path."""
        question = (
            f"SELECT {', '.join(File._fields)} FROM file "
            "WHERE is_instance = 1 AND series_id = ? AND (sop_instance_uid, path) > (?, ?) "
            "ORDER BY sop_instance_uid, path"
        )
        return map(File._make, self._all(question, series, after=("", b""), key=itemgetter(2, 0)))

    def holdings(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> Iterator[Holding]:
        """The whole instances with these UIDs ("": any), by study, series and instance UID, then by path."""
        of_one = (
            f"{_HOLDINGS} f.is_instance = 1 AND f.series_id = ? AND f.sop_instance_uid = ? AND f.path > ? "
            "ORDER BY f.path"
        )
        of_all = (
            f"{_HOLDINGS} f.is_instance = 1 AND f.series_id = ? AND (f.sop_instance_uid, f.path) > (?, ?) "
            "ORDER BY f.sop_instance_uid, f.path"
        )
        for _, _, series in self._series_with(study_uid, series_uid, sop_instance_uid):
            if sop_instance_uid:
                found = self._all(of_one, series, sop_instance_uid, after=(b"",), key=itemgetter(slice(_PATH + 1)))
            else:
                found = self._all(of_all, series, after=("", b""), key=itemgetter(_INSTANCE, _PATH))
            yield from map(rows.holding_of, found)

    def others(self) -> Iterator[Holding]:
        """The files that are no whole instance, by path."""
        question = f"{_HOLDINGS} f.is_instance = 0 AND f.path > ? ORDER BY f.path"
        return map(rows.holding_of, self._all(question, after=(b"",), key=itemgetter(slice(_PATH + 1))))

    def at(self, path: bytes) -> Iterator[Holding]:
        """The file at a path, if there is one."""
        return map(rows.holding_of, self.page(f"{_HOLDINGS} f.path = ?", path))

    def _kind(self, number: int) -> Kind:
        (row,) = self.page(f"SELECT {', '.join(Kind._fields)} FROM kind WHERE id = ?", number)
        return Kind._make(row)

    def _series_with(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> Iterator[Row]:
        """Study UID, series UID and number of the series where such instances are, by UID."""
        chosen = "(?1 = '' OR s.study_uid = ?1) AND (?2 = '' OR s.series_uid = ?2)"
        after = "AND (s.study_uid, s.series_uid) > (?4, ?5) ORDER BY s.study_uid, s.series_uid"
        question = f"SELECT s.study_uid, s.series_uid, s.id FROM series s WHERE {chosen} AND ?3 = '' {after}"
        if sop_instance_uid:
            question = (
                "SELECT DISTINCT s.study_uid, s.series_uid, s.id FROM file f CROSS JOIN series s ON s.id = f.series_id "
                f"WHERE f.is_instance = 1 AND f.sop_instance_uid = ?3 AND {chosen} {after}"
            )
        parameters = (study_uid, series_uid, sop_instance_uid)
        return self._all(question, *parameters, after=("", ""), key=itemgetter(slice(2)))

    def _all(self, question: str, *parameters: object, after: Row, key: Callable[[Row], Row]) -> Iterator[Row]:
        """The rows of a question, page by page; its last parameters are the key that a page begins after."""
        while True:
            page = self.page(f"{question} LIMIT {PAGE_ROWS}", *parameters, *after)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            after = key(page[-1])
