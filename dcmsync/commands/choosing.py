"""The PATHs of `push`, as places to bring things from: folders, archives, and single files, any number of each.

Owns what a path on a command line means, and saying which of the named files are not sent, and why. A path that is
below another one is that one's. Files that were named one by one make a place of their own, at the folder that they
have in common; of what is remembered of that folder nothing is used or changed. Links that are named are followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping

from dcmsync.cache.store import open_store
from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.commands.unsound import tell_unsound
from dcmsync.contract import Catalogue, Level, Source
from dcmsync.endpoints import Setting
from dcmsync.endpoints.folder.chosen import open_files
from dcmsync.errors import ExitStatus
from dcmsync.net.patience import Watch
from dcmsync.plan.levels import Query
from dcmsync.records.paths import path_keys

EVERYTHING = Query(level=Level.SERIES, keys={}, wanted=("Modality",))


class Choice:
    """What the paths name. `sources` are places by their words."""

    def __init__(self, paths: Iterable[str], places: Places, streams: Streams, watch: Watch) -> None:
        """Looks at nothing but the kind of each path. Raises UsageError."""
        self.sources: dict[str, Source] = {}
        self._streams = streams
        self._watch = watch
        self._skipped = places.skipped
        self._catalogues: dict[str, Callable[[], Catalogue]] = {}
        self._named: set[str] = set()  # the words of places whose files were named one by one
        self._lost: list[tuple[str, str]] = []
        folders, archives, files = self._sorted(paths)
        for word, path in {**folders, **archives}.items():
            self.sources[word] = places.open(word)
            self._catalogues[word] = lambda path=path: places.catalogue(path)  # type: ignore[misc]
        above = tuple(os.path.join(os.path.realpath(path), "") for path in folders.values())
        for root, chosen in _by_root([path for path in files if not path.startswith(above)]).items():
            self._add_files(root, chosen)

    def tell_unsound(self, write: Callable[[Mapping[str, object]], None]) -> ExitStatus:
        """Names the files that are not sent, once stock was taken of all places."""
        streams = self._streams
        status = ExitStatus.DONE
        for path, why in self._lost:
            folder, name = os.path.split(path)
            write({"type": "outcome", "level": "instance", "outcome": "failed", "source": folder or ".",
                   **path_keys(name), "reason": "unreadable", "message": why, "retry": False})  # fmt: skip
            status = ExitStatus.FAILED
        for word, catalogue in self._catalogues.items():
            if tell_unsound(
                catalogue(), word, Query(level=Level.INSTANCE, keys={}), are_named=word in self._named,
                write=write, warn=streams.warn, note=streams.note,
            ):  # fmt: skip
                status = ExitStatus.FAILED
        return status

    def _sorted(self, paths: Iterable[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """Folders and archives by their words, and the true paths of single files."""
        folders: dict[str, str] = {}
        archives: dict[str, str] = {}
        files: list[str] = []
        for path in dict.fromkeys(paths):
            try:
                kind = os.stat(path).st_mode
            except OSError as trouble:
                self._lost.append((path, (trouble.strerror or "unreadable").lower()))
                continue
            word = path if "/" in path or path.startswith(".") else f"./{path}"
            if stat.S_ISDIR(kind):
                folders[word] = path
            elif path.lower().endswith(".zip"):
                archives[word] = path
            elif not stat.S_ISREG(kind):
                self._lost.append((path, "no regular file"))
            elif not os.access(path, os.R_OK):
                self._lost.append((path, "permission denied"))
            else:
                files.append(os.path.realpath(path))
        return _outermost(folders), archives, files

    def _add_files(self, root: str, paths: list[str]) -> None:
        store = open_store(root, named=None, folder=None, warn=self._streams.warn)
        setting = Setting(
            calling_ae="", timeout_s=1.0, watch=self._watch, catalogue=lambda path: store,
            skipped=self._skipped, warn=self._streams.warn,
        )  # fmt: skip
        self.sources[root] = open_files(root, [os.path.relpath(path, root) for path in paths], setting)
        self._catalogues[root] = lambda: store
        self._named.add(root)


def _outermost(folders: Mapping[str, str]) -> dict[str, str]:
    """Those that are not below another one."""
    kept: dict[str, str] = {}
    last = ""
    for true, word in sorted((os.path.join(os.path.realpath(path), ""), word) for word, path in folders.items()):
        if not last or not true.startswith(last):
            kept[word] = folders[word]
            last = true
    return kept


def _by_root(paths: list[str]) -> dict[str, list[str]]:
    """The files by the folder that they have in common; by those below `/` where that is all they have in common."""
    if not paths:
        return {}
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    if common != "/":
        return {common: paths}
    found: dict[str, list[str]] = {}
    for path in paths:
        top = path.split("/", 2)[1]
        found.setdefault(f"/{top}" if path.count("/") > 1 else "/", []).append(path)
    return found
