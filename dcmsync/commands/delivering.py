"""Remote destinations of `push` and `sync`: what they hold, how things get there, and how that is proven.

Owns which kinds of places take things, and the wiring of one with the parts of `transfer` that deliver. Refuses to know
where the work comes from.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import cast

from dcmsync import locator
from dcmsync.cache.digest import content_of, hasher
from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.contract import Arrival, Expected, Parcel, Store
from dcmsync.errors import UsageError
from dcmsync.transfer.consigner import Consigner, ReadAt, Settings
from dcmsync.transfer.contents import Contents
from dcmsync.transfer.courier import Courier
from dcmsync.transfer.expansion import Trust
from dcmsync.transfer.fleet import Fleet
from dcmsync.transfer.notary import Notary
from dcmsync.transfer.remote import Asked, RemoteStock, Witness
from dcmsync.transfer.target import Nothing, Target
from dcmsync.wire.arrived import flaw, judge
from dcmsync.wire.source import Distant

TAKERS = (locator.Node, locator.Web, locator.Xnat)
_WHY_NOT: Mapping[type, str] = {
    locator.WadoUri: "WADO-URI only gives instances",
    locator.Mint: "MINT only tells what there is",
    locator.Rad69: "RAD-69 only gives instances",
    locator.Ahi: "what is stored in HealthImaging goes through the DICOMweb of the data store",
    locator.Folder: "it is on this machine",
    locator.Archive: "it is on this machine",
}


class Delivering:
    """The remote destinations of one run. `arguments` has verify and force, and dry_run."""

    def __init__(self, arguments: Namespace, streams: Streams, places: Places, trust: Trust) -> None:
        self._arguments = arguments
        self._streams = streams
        self._places = places
        self._trust = trust
        self._contents = Contents(_content)

    async def enter(self, word: str, stack: AsyncExitStack) -> Target[Parcel]:
        """The destination called `word`, whose sessions end with `stack`. Nobody is called yet."""
        fleet = await stack.enter_async_context(Fleet(self._taker(word), self._places.jobs(word)))
        asked = Asked(fleet, warn=self._streams.warn)
        stock = RemoteStock(asked, self._contents if self._trust == "content" else None)
        target: Target[Parcel] = Target(word, Nothing() if self._arguments.force else stock)
        if self._arguments.dry_run:
            return target
        verify = self._arguments.verify
        consigner = Consigner(
            Settings(
                completed=target.completed, judge=_judge, flaw=_flaw, hasher=hasher, content_of=_content,
                held=stock.content, hashes=verify == "content",
            )
        )  # fmt: skip
        target.deliver(consigner, lambda landed: Courier(fleet, landed))
        if vars(self._arguments).get("straight"):
            target.relay_ae = self._places.node(word).peer.called_ae
        if verify == "commit":
            self._places.mailbox()  # before anything is sent: without it nobody could tell us
            target.prover = Notary(fleet, warn=asked.warn)
        elif verify != "none":
            counts = verify == "uids" and isinstance(self._places.parse(word), locator.Xnat)  # it names no instances
            target.prover = Witness(asked, self._contents if verify == "content" else None, counts=counts)
        return target

    def _taker(self, word: str) -> Store:
        """The place called `word`. Raises UsageError when nothing can be delivered there, or not as is wished."""
        place = self._places.parse(word)
        if not isinstance(place, TAKERS):
            advice = "Name a DICOM node, a DICOMweb service (https://...) or an XNAT project (xnat+https://host/PROJECT)"
            raise UsageError(f"{word} takes nothing: {_WHY_NOT[type(place)]}", advice=advice)
        if isinstance(place, locator.Node):
            return self._places.node(word)
        for is_wished, what in (
            (self._arguments.verify == "commit", "--verify commit asks for storage commitment"),
            (vars(self._arguments).get("straight"), "--via move has a source send to an AE title"),
        ):
            if is_wished:
                advice = "Use --verify uids or content, and leave out --via"
                raise UsageError(f"{word} is no DICOM node: {what}", advice=advice)
        return cast("Store", self._places.alone(word))  # places of these kinds are


def _content(read_at: ReadAt, size: int, syntax: str) -> str:
    return content_of(Distant(read_at, size), syntax, 0)


def _flaw(read_at: ReadAt, size: int, syntax: str) -> str:
    return flaw(Distant(read_at, size), syntax)


def _judge(read_at: ReadAt, size: int, arrival: Arrival, expected: Expected) -> tuple[str, str]:
    judged = judge(
        Distant(read_at, size),
        arrival.transfer_syntax_uid,
        sop_instance_uid=arrival.sop_instance_uid,
        study_uid=expected.study_uid,
        series_uid=expected.series_uid,
    )
    return judged.reason, judged.message
