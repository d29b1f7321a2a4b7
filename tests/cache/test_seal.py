"""The seal on a cache: set on what was found sound, void as soon as an octet differs."""

import os
import shutil
from pathlib import Path

import pytest

from dcmsync.cache import schema
from dcmsync.cache.digest import hasher
from dcmsync.cache.seal import seal_of
from tests.cache.made_up import holding, many, opened, scribble


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (path := tmp_path / "place").mkdir()
    return path


@pytest.fixture
def path(tmp_path: Path, place: Path) -> Path:
    """A cache that knows a dozen files, and has no seal yet."""
    made = opened(place, tmp_path / "cache")
    made.remember(many())
    made.close()
    return tmp_path / "cache"


def seal(path: Path) -> Path:
    return Path(f"{path}-seal")


def look(place: Path, path: Path) -> int:
    """A run that changes nothing."""
    store = opened(place, path)
    count = len(list(store.stamps()))
    store.close()
    return count


def test_who_writes_sets_none_and_who_checks_does(place: Path, path: Path) -> None:
    assert not seal(path).exists()
    assert look(place, path) == 12
    assert seal(path).read_text() == hasher(path.read_bytes()).hexdigest()
    assert seal(path).stat().st_mode & 0o777 == 0o600
    assert seal_of(str(path)).is_whole


def test_what_is_sealed_is_not_checked_again(place: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(place, path)
    asked: list[str] = []
    connect = schema.sqlite3.connect

    def listening(*words: object, **more: object) -> object:
        connection = connect(*words, **more)  # type: ignore[call-overload]
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(schema.sqlite3, "connect", listening)
    assert look(place, path) == 12
    assert not [words for words in asked if "integrity_check" in words or "ifnull" in words]
    seal(path).unlink()
    assert look(place, path) == 12
    assert [words for words in asked if "integrity_check" in words]
    assert [words for words in asked if "ifnull" in words]


def test_a_change_breaks_it_and_the_next_run_sets_it_anew(place: Path, path: Path) -> None:
    look(place, path)
    store = opened(place, path)
    store.remember([holding(7)])
    store.close()
    assert not seal_of(str(path)).is_whole
    assert look(place, path) == 13
    assert seal_of(str(path)).is_whole


def test_a_single_octet_breaks_it(place: Path, path: Path) -> None:
    look(place, path)
    octets, times = path.read_bytes(), path.stat()
    scribble(path, 5000, bytes([octets[5000] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not seal_of(str(path)).is_whole


def test_what_waits_in_a_journal_is_not_sealed(place: Path, path: Path) -> None:
    first = opened(place, path)
    first.remember([holding(7)])
    second = opened(place, path)
    assert len(list(second.stamps())) == 13
    assert not seal(path).exists()
    first.close()
    second.close()
    look(place, path)
    shutil.copy(path, f"{path}-wal")
    assert not seal_of(str(path)).is_whole


def test_who_writes_while_another_checks_prevents_it(place: Path, path: Path) -> None:
    checking, writing = opened(place, path), opened(place, path)
    stamps = checking.stamps()
    next(stamps)
    writing.remember([holding(7)])
    list(stamps)
    assert not seal(path).exists()
    checking.close()
    writing.close()


def test_rows_that_lied_are_not_sealed(place: Path, path: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE file SET size = size + 1 WHERE id = 3")
        connection.commit()
    assert look(place, path) == 11
    assert not seal_of(str(path)).is_whole


def test_a_link_in_its_place_is_not_followed(place: Path, path: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").write_text(hasher(path.read_bytes()).hexdigest())
    seal(path).symlink_to(elsewhere)
    assert not seal_of(str(path)).is_whole


def test_where_it_cannot_be_written_everything_is_checked(
    place: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", failing)
    assert look(place, path) == 12
    assert not seal(path).exists()


def test_it_goes_with_its_cache(place: Path, path: Path) -> None:
    look(place, path)
    schema.remove(str(path))
    assert not seal(path).exists()
    assert not seal_of(str(path)).is_whole
