"""What changed in the folder behind the node's back: files that came, went, or are others now.

Owns the comparison, by size and time of each file, and what is known of files that are not served, so that they are
read once only. Refuses to write. Files are walked and read in worker threads; the index is touched in the event loop.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import anyio.to_thread
from msgspec import Struct

from dcmsync.endpoints.folder.scan import Found, examine, walk_tree
from dcmsync.node.index import ANOTHER_FILE, WANTED, Image, Index

_FILES_AT_ONCE = 500  # between two looks at whether the run is to end

Mark = tuple[int, int]
"""Size and modification time of a file, in octets and ns."""


class Changes(Struct, frozen=True):
    """How many instances came to be served, and how many are not served any more."""

    added: int = 0
    removed: int = 0

    @property
    def is_any(self) -> bool:
        """Whether anything changed."""
        return bool(self.added or self.removed)


class Renewal:
    """Brings one index up to date with one folder, as often as it is asked."""

    def __init__(self, root: str, index: Index) -> None:
        self._root = root
        self._index = index
        self._others: dict[str, Mark] = {}  # files that are not served, as they were when they were read
        self._doubles: set[str] = set()  # those of them whose instance another file has

    def pass_by(self, found: Found, why: str) -> None:
        """A file is not served."""
        self._others[found.path] = found.size, found.mtime_ns
        if why == ANOTHER_FILE:
            self._doubles.add(found.path)

    async def renew(self) -> Changes:
        """Takes in what changed. Raises OSError when the folder cannot be read: then nothing was removed."""
        served = {image.path: image for image in self._index.images.values()}
        known = {path: (image.size, image.mtime_ns) for path, image in served.items()} | self._others
        met: set[str] = set()
        walk = _looked_at(self._root, known, met)
        added = removed = 0
        while batch := await anyio.to_thread.run_sync(lambda: list(islice(walk, _FILES_AT_ONCE))):
            for path, found, is_changed in batch:
                if not is_changed:
                    continue
                before = served.get(path)
                if before is not None and (found is None or _is_other(found, before)):
                    self._index.remove(before)
                    removed += 1
                if found is not None:
                    added += self._take(found)
        removed += self._let_go(known.keys() - met, served)
        if not (removed and self._doubles):
            return Changes(added, removed)
        for path in self._doubles:  # one of them may have what is gone, such as a file under its new name
            self._others.pop(path, None)
        self._doubles.clear()
        again = await self.renew()
        return Changes(added + again.added, removed + again.removed)

    def _take(self, found: Found) -> bool:
        """Takes a file in, if it is to be served; whether its instance was not."""
        is_new = found.sop_instance_uid not in self._index.images
        why = self._index.add(found)
        if why:
            self.pass_by(found, why)
            return False
        self._others.pop(found.path, None)
        return is_new

    def _let_go(self, paths: Iterable[str], served: Mapping[str, Image]) -> int:
        """Forgets files that were not met, unless they are there all the same; how many of them were served."""
        removed = 0
        for path in paths:
            self._others.pop(path, None)
            if path in served and not os.path.lexists(os.path.join(self._root, path)):
                self._index.remove(served[path])
                removed += 1
        return removed


def _is_other(found: Found, before: Image) -> bool:
    """Whether a file has become another instance, or none."""
    return not found.is_instance or found.sop_instance_uid != before.uid


def _looked_at(root: str, known: dict[str, Mark], met: set[str]) -> Iterator[tuple[str, Found | None, bool]]:
    """Every file, and whether it is not as it is known; read then, None where that cannot be done. All are `met`."""
    for path in walk_tree(root):
        met.add(path)
        try:
            status = os.lstat(os.path.join(root, path))
            if known.get(path) == (status.st_size, status.st_mtime_ns):
                yield path, None, False
                continue
            found = examine(root, path, wanted=WANTED)
        except OSError:
            found = None
        yield path, found, True
