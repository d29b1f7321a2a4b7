"""The parts of `route` put together: a listener, a spool, the decisions, and the lanes.

Owns their order at the start (what waits is taken up before anybody may connect) and at the end (no more peers, then no
more landings, then no more lanes).
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Self

import anyio
from msgspec import UNSET

from dcmsync.commands.listening import allowed_networks, allowed_titles, security
from dcmsync.commands.options import DEFAULT_TIMEOUT_S, Streams
from dcmsync.commands.outlets import Outlets
from dcmsync.commands.places import Places
from dcmsync.commands.routing import Routing
from dcmsync.contract import Landed
from dcmsync.endpoints.folder.place import FolderPlace
from dcmsync.errors import ExitStatus
from dcmsync.net.patience import Watch
from dcmsync.node.gateway import Gateway, Settings
from dcmsync.node.intake import Intake
from dcmsync.node.spool import Spool, Spooled
from dcmsync.plan.route import Decisions, Delivery
from dcmsync.records.model import Outcome
from dcmsync.records.stream import Writer
from dcmsync.transfer.forwarding import Forwarding, Instance, Keeper, skipped
from dcmsync.transfer.journal import Journal
from dcmsync.transfer.lander import Lander


class Forwards:
    """One run of `route`; a context manager."""

    def __init__(self, arguments: Namespace, streams: Streams, places: Places, watch: Watch) -> None:
        """Takes up what waits in the spool, and binds. Raises UsageError, LocalTrouble."""
        self._streams = streams
        self._writer = Writer(streams.stdout)
        self._routing = Routing(arguments.name, places)
        self._decisions = Decisions(self._routing.route)
        self._spool = Spool(arguments.spool, self._routing.route.keys)
        self._catalogue = places.catalogue(self._spool.waiting)
        self._journal = Journal(self._spool.journal)
        place = places.open(self._spool.waiting)
        assert isinstance(place, FolderPlace)
        self._place = place
        outlets = Outlets(arguments, streams, places, self._routing, place)
        self._forwarding = Forwarding(
            arguments.spool, self._journal, outlets.deliver,
            Keeper(release=self._release, retain=self._retain), write=self._write, warn=streams.warn,
        )  # fmt: skip
        self._take_up()
        self._landing = self._spool.landing(lambda job: self._intake.queue.take(job), self._catalogue)
        queue = partial(Lander, gather_s=0)  # each peer waits for the verdict on what it sent
        self._intake = Intake(self._landing, queue, landed=self._landed, warn=streams.warn)
        self._gateway = Gateway(
            Settings(
                ae_title=arguments.ae,
                host=arguments.bind,
                port=arguments.port,
                calling_aes=allowed_titles(arguments),
                networks=allowed_networks(arguments),
                requires_identity=arguments.require_identity,
                secure=security(arguments, places.local, streams.warn),
                max_associations=arguments.max_associations,
                timeout_s=arguments.timeout or DEFAULT_TIMEOUT_S,
            ),
            self._intake, watch, say=self._writer.write, warn=streams.warn,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gateway.close()
        self._landing.close()
        self._journal.close()
        self._spool.__exit__()

    @property
    def is_stopping(self) -> bool:
        """Whether it accepts no more."""
        return self._gateway.is_stopping

    async def run(self) -> None:
        """Routes until `stop`; returns when what can be forwarded is. Cancel it to abort."""
        await self._place.catalogue()  # before anything can land: it forgets what it does not see
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._forwarding.run)
            await self._gateway.run()
            self._forwarding.stop()

    def stop(self) -> None:
        """Accepts no more. Idempotent."""
        self._gateway.stop()

    async def quiet(self, seconds: float) -> None:
        """Returns when nothing has come, and nothing waited, for so long."""
        await self._forwarding.quiet(seconds)

    def end(self) -> ExitStatus:
        """Says what still waits, and writes the end record."""
        status = self._forwarding.status
        for to, number in self._forwarding.behind().items():
            self._streams.say(f"{to}: {number:,} of what it is to get still wait in the spool: start it again")
            status = max(status, ExitStatus.RETRY)
        waits = bool(self._forwarding.waiting)
        self._writer.end(complete=not waits, reason="waiting" if waits else UNSET)
        return status

    def _take_up(self) -> None:
        left = self._spool.left()
        self._journal.keep([each.name for each in left])
        for each in left:
            if each.name in self._journal.entries:
                self._decisions.recall(each.thing, self._journal.entries[each.name].deliveries)
        for each in left:
            self._add(each)
        if left:
            self._streams.say(f"{len(left):,} instances of an earlier run wait in the spool")

    def _landed(self, landed: Landed) -> None:
        spooled = self._spool.landed(landed)
        if spooled is not None:
            self._add(spooled)

    def _add(self, spooled: Spooled) -> None:
        instance = Instance(
            name=spooled.name, study_uid=spooled.study_uid, series_uid=spooled.series_uid,
            sop_instance_uid=spooled.sop_instance_uid, sop_class_uid=spooled.sop_class_uid,
        )  # fmt: skip
        deliveries = self._decisions.decide(spooled.thing)
        if not deliveries and spooled.name not in self._journal.entries:
            self._writer.write(skipped(instance, self._forwarding.source))
        self._forwarding.add(instance, deliveries)

    def _write(self, delivery: Delivery, outcome: Outcome) -> None:
        editing = self._routing.editing(delivery)
        self._writer.write(outcome if editing is None else editing.outcome(outcome))

    def _release(self, instance: Instance) -> None:
        self._spool.release(instance.name)
        self._catalogue.forget([instance.name])

    def _retain(self, instance: Instance) -> None:
        self._spool.retain(instance.name)
        self._catalogue.forget([instance.name])
        self._streams.warn("an instance that was not taken everywhere is kept in the spool, below failed/")
