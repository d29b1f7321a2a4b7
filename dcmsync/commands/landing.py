"""Destinations of `pull` and `sync` on this machine: what they hold, how things land there, and what is remembered.

Owns the wiring of folders and archives with catalogue, layout and digests. Refuses to know where the work comes from.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from dcmsync.cache.digest import ahead, content_of, hasher, read_whole
from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places, digests
from dcmsync.contract import Arrival, Catalogue, Destination, Holding, Origin
from dcmsync.errors import UsageError
from dcmsync.locator import Archive, Folder
from dcmsync.plan import layout
from dcmsync.transfer.consignment import Proof
from dcmsync.transfer.expansion import Trust
from dcmsync.transfer.target import Catalogued, Nothing, Target
from dcmsync.wire.dataset import decode_values, tag_of
from dcmsync.wire.source import Values

if TYPE_CHECKING:
    from dcmsync.endpoints.folder.arrivals import Transfer

KEPT_AT_ONCE = 1000  # files of which rows are held back at most


class Landings:
    """The local destinations of one run. `arguments` has layout, force, link, symlink and move.

    Raises UsageError for options that contradict each other.
    """

    def __init__(self, arguments: Namespace, streams: Streams, places: Places, trust: Trust) -> None:
        self._arguments = arguments
        self._streams = streams
        self._places = places
        self._trust = trust
        self._layout = layout.compile(arguments.layout or layout.DEFAULT)
        self._wanted = frozenset(tag_of(keyword) for keyword in self._layout.keywords)
        self._transfer = _transfer(arguments)
        self._memories: list[_Memory] = []
        self._landings: list[Any] = []

    def target(self, word: str, place: Folder | Archive) -> Target[Any]:
        """A destination, and what it holds. Blocks. Raises LocalTrouble."""
        if self._arguments.force or self._arguments.move:
            return Target(word, Nothing())
        catalogue = self._places.catalogue(place.path)
        if isinstance(place, Folder):
            from dcmsync.endpoints.folder.stock import take_stock

            reader = read_whole if self._trust == "content" else None
            take_stock(place.path, catalogue, skipped=self._places.skipped, read_whole=reader)
        else:
            from dcmsync.endpoints.zip.stock import take_stock as take_stock_of_archive

            take_stock_of_archive(
                place.path, catalogue, skipped=self._places.skipped, anew=self._trust == "content", digests=digests()
            )
        return Target(word, Catalogued(catalogue))

    def open(self, target: Target[Any], place: Folder | Archive) -> None:
        """From now on things may land there. Raises LocalTrouble."""
        landing = self._landing(target, place)
        self._landings.append(landing)
        target.destination = landing

    def close(self) -> None:
        """Nothing lands any more; what has is remembered. Idempotent."""
        for landing in self._landings:
            landing.close()
        self._landings.clear()
        self.keep()

    def keep(self) -> None:
        """What has landed is in its catalogue when this returns."""
        for memory in self._memories:
            memory.keep()

    def release(self, origin: Origin, proofs: Sequence[Proof], places: Mapping[str, object]) -> None:
        """Removes a file that an instance was moved from, unless one of `places` is that file. Raises LocalTrouble."""
        from dcmsync.endpoints.folder.departure import is_entry, remove

        for word, path in proofs:
            place = places[word]
            if isinstance(place, Folder) and is_entry(origin, place.path, path):
                self._streams.note("a file that is its own destination stays where it is")
                return
        remove(origin)

    def _landing(self, target: Target[Any], place: Folder | Archive) -> Destination[Any]:
        catalogue = self._places.catalogue(place.path)
        memory = _Memory(catalogue)
        self._memories.append(memory)
        if isinstance(place, Folder):
            from dcmsync.endpoints.folder.arrivals import Settings as FolderSettings
            from dcmsync.endpoints.folder.landing import Landing
            from dcmsync.endpoints.folder.stock import has_rotted

            return Landing(place.path, FolderSettings(
                place=self._path, wanted=self._wanted, hasher=hasher, content=content_of, completed=target.completed,
                force=self._arguments.force, transfer=self._transfer, remember=memory.add, ahead=ahead,
                may_replace=has_rotted(place.path, catalogue),
            ))  # fmt: skip
        from dcmsync.endpoints.zip.arrivals import Settings as ArchiveSettings
        from dcmsync.endpoints.zip.landing import Packing

        return Packing(place.path, ArchiveSettings(
            place=self._path, wanted=self._wanted, hasher=hasher, content=content_of, completed=target.completed,
            force=self._arguments.force, catalogue=catalogue,
        ))  # fmt: skip

    def _path(self, values: Values, arrival: Arrival) -> str:
        known = decode_values(values, arrival.transfer_syntax_uid, wanted=self._wanted)
        return self._layout.path({"SOPInstanceUID": arrival.sop_instance_uid, **known})


class _Memory:
    """What has landed and is not yet in its catalogue. Many rows at a time cost a third of what each costs alone."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = Lock()
        self._waiting: list[Holding] = []

    def add(self, holdings: Iterable[Holding]) -> None:
        """Takes them in, from any thread; they are kept soon."""
        with self._lock:
            self._waiting += holdings
            if len(self._waiting) < KEPT_AT_ONCE:
                return
        self.keep()

    def keep(self) -> None:
        """What was taken in is in the catalogue when this returns."""
        if self._waiting:
            with self._lock:
                waiting, self._waiting = self._waiting, []
                self._catalogue.remember(waiting)


def _transfer(arguments: Namespace) -> Transfer:
    """How files of this machine are taken. Raises UsageError when two ways are asked for."""
    ways = [way for way in ("link", "symlink", "move") if getattr(arguments, way)]
    if len(ways) > 1:
        raise UsageError(f"--{ways[0]} and --{ways[1]} ask for two things", advice="Give one of them")
    if arguments.symlink:
        return "symlink"
    return "link" if ways else "copy"  # a moved file keeps its octets where they are, when it can
