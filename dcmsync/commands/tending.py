"""What `cache` does with what is remembered of one place: the same words for a folder and for an archive.

Owns which of them a path is. Refuses to choose what is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from dcmsync.cache.digest import read_whole
from dcmsync.cache.store import Store
from dcmsync.commands.places import digests
from dcmsync.contract import Holding
from dcmsync.endpoints.folder import stock as folder_stock
from dcmsync.endpoints.folder import tree
from dcmsync.endpoints.folder.examination import read_again
from dcmsync.endpoints.zip import stock as zip_stock
from dcmsync.endpoints.zip import upkeep
from dcmsync.endpoints.zip.reader import Reader
from dcmsync.errors import LocalTrouble
from dcmsync.locator import Archive, parse

Skip = Callable[[str, str], None]
ReadAgain = Callable[[Holding], Holding | None]


def differences(root: str, store: Store) -> Mapping[str, int]:
    """How much of what is remembered stands. Reads no files, and no members. Raises LocalTrouble."""
    return upkeep.differences(root, store) if _is_archive(root) else tree.differences(root, store)


def forget_gone(root: str, store: Store) -> None:
    """Forgets what is no more. Raises LocalTrouble."""
    if _is_archive(root):
        upkeep.forget_gone(root, store)
    else:
        tree.forget_gone(root, store)


def rebuild(root: str, store: Store, skipped: Skip) -> None:
    """Believes nothing, and reads all of it. Raises LocalTrouble."""
    if _is_archive(root):
        zip_stock.take_stock(root, store, skipped=skipped, anew=True, digests=digests())
    else:
        folder_stock.take_stock(root, store, skipped=skipped, anew=True)


@contextmanager
def rereading(root: str, store: Store) -> Iterator[tuple[ReadAgain, Callable[[], object]]]:
    """How one file or member is read again, every octet of it, and what brings the rest up to date.

    Raises LocalTrouble.
    """
    if not _is_archive(root):
        yield lambda known: read_again(root, known.path, known, read_whole), partial(
            folder_stock.take_stock, root, store
        )
        return
    try:
        reader = Reader(root)
    except OSError as trouble:
        raise LocalTrouble(f"{root} cannot be read: {trouble.strerror}") from trouble
    with reader:
        overlapping = frozenset(reader.overlaps())
        yield (
            lambda known: zip_stock.read_again(reader, known, digests(), overlapping),
            partial(zip_stock.take_stock, root, store, digests=digests()),
        )


def _is_archive(root: str) -> bool:
    return isinstance(parse(root), Archive) and not os.path.isdir(root)
