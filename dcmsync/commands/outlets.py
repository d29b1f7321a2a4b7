"""Where `route` forwards to: the engine between the spool and one destination, set up for each round.

Owns the wiring of a destination, remote or on this machine, without asking it what it has: what is there already shows
when it arrives. Refuses to choose what goes there, and to print.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from dcmsync.cache.digest import ahead, content_of, hasher
from dcmsync.commands.delivering import Delivering
from dcmsync.commands.options import Silent, Streams
from dcmsync.commands.places import Places
from dcmsync.commands.routing import Routing
from dcmsync.contract import Arrival, Source
from dcmsync.endpoints.folder.arrivals import Settings as FolderSettings
from dcmsync.endpoints.folder.landing import Landing
from dcmsync.endpoints.zip.arrivals import Settings as ArchiveSettings
from dcmsync.endpoints.zip.landing import Packing
from dcmsync.endpoints.zip.stock import take_stock
from dcmsync.errors import DcmsyncError
from dcmsync.locator import Archive, Folder
from dcmsync.plan import layout
from dcmsync.plan.route import Delivery
from dcmsync.records.model import Outcome
from dcmsync.transfer.edited import edit
from dcmsync.transfer.engine import Pull, Settings
from dcmsync.transfer.target import Nothing, Target
from dcmsync.transfer.works import Work
from dcmsync.wire.dataset import decode_values, tag_of
from dcmsync.wire.source import Values


class Outlets:
    """The destinations of one run. `arguments` has layout and verify; `spool` is where everything comes from."""

    def __init__(
        self, arguments: Namespace, streams: Streams, places: Places, routing: Routing, spool: Source
    ) -> None:
        self._arguments = Namespace(**{**vars(arguments), "force": True, "dry_run": False})
        self._streams = streams
        self._places = places
        self._routing = routing
        self._spool = spool
        self._layout = layout.compile(arguments.layout or layout.DEFAULT)
        self._wanted = frozenset(tag_of(keyword) for keyword in self._layout.keywords)

    async def deliver(
        self, delivery: Delivery, works: AsyncIterator[Sequence[Work]], heard: Callable[[Outcome], None]
    ) -> DcmsyncError | None:
        """One round: delivers what comes of `works`, and tells the outcome of each; gives why it ended early."""
        def hear(outcome: Outcome) -> None:
            if outcome.level == "instance":
                heard(outcome)

        try:
            async with AsyncExitStack() as stack:
                target = await self._target(delivery, stack)
                jobs = self._places.jobs(delivery.to)
                pull = Pull(
                    Settings(jobs=jobs, itemize=True), [target], open_source=lambda name: self._spool,
                    write=hear, warn=self._streams.warn, meter=Silent(),
                )  # fmt: skip
                await pull.run(works)
        except DcmsyncError as error:
            return error
        return target.trouble

    async def _target(self, delivery: Delivery, stack: AsyncExitStack) -> Target[Any]:
        place = self._places.parse(delivery.to)
        if not isinstance(place, Folder | Archive):
            delivering = Delivering(self._arguments, self._streams, self._places, "uids")
            target: Target[Any] = await delivering.enter(delivery.to, stack)
        else:
            target = Target(delivery.to, Nothing())
            landing = self._landing(place.path, target, is_folder=isinstance(place, Folder))
            stack.callback(landing.close)
            target.destination = landing
        editing = self._routing.editing(delivery)
        if editing is not None:
            edit(target, editing)
        return target

    def _landing(self, path: str, target: Target[Any], *, is_folder: bool) -> Any:
        if is_folder:
            return Landing(path, FolderSettings(
                place=self._path, wanted=self._wanted, hasher=hasher, content=content_of, completed=target.completed,
                ahead=ahead,
            ))  # fmt: skip
        catalogue = self._places.catalogue(path)
        take_stock(path, catalogue, skipped=self._places.skipped)
        return Packing(path, ArchiveSettings(
            place=self._path, wanted=self._wanted, hasher=hasher, content=content_of, completed=target.completed,
            force=False, catalogue=catalogue,
        ))  # fmt: skip

    def _path(self, values: Values, arrival: Arrival) -> str:
        known = decode_values(values, arrival.transfer_syntax_uid, wanted=self._wanted)
        return self._layout.path({"SOPInstanceUID": arrival.sop_instance_uid, **known})
