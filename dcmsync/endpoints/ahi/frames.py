"""Instances made of the metadata and the frames of an image set, where whole ones are not to be had.

Owns that frames come several at a time and go out in order, and that what was made so is told: once that it is not
octet for octet what was imported, and each time what could not be written. What a file consists of is in `assembly`.

Theory of operation. Of each instance as many frames are on their way as are allowed, and of all instances together no
more: a frame holds its place from before it is asked for until it has gone to the sink. Places are given in the order
in which they are asked for, and each instance asks in the order of its frames; so the first one that is wanted always
has a place, and at most so many frames are in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import anyio

from dcmsync.contract import Receiver
from dcmsync.endpoints.ahi.assembly import Assembly, assemble, fragment
from dcmsync.endpoints.ahi.metadata import Frame
from dcmsync.endpoints.ahi.native import Native
from dcmsync.endpoints.ahi.shelf import Shelf
from dcmsync.endpoints.ahi.summaries import ImageSet
from dcmsync.errors import DcmsyncError, Refused, RemoteProtocolError
from dcmsync.net.instances import Taken, take_in

IN_FLIGHT = 8  # frames on their way or in memory, of all that one fetch makes
NAMED = 5
_NOT_FOUND = 404
_CANNOT_UNDERSTAND = 0xC000  # as a DIMSE status (PS3.7 §C.5.8)


class Maker:
    """Makes instances for all sessions of a place."""

    def __init__(self, name: str, native: Native, shelf: Shelf, warn: Callable[[str], None]) -> None:
        self._name = name
        self._native = native
        self._shelf = shelf
        self._warn = warn
        self._has_told = False

    def batch(self) -> Batch:
        """For the instances of one fetch."""
        if not self._has_told:
            self._has_told = True
            self._warn(
                f"{self._name}: instances are made of metadata and frames: they are not octet for octet what was "
                "imported, and checksums of frames are not checked: set retrieve_by = \"instance\" for whole ones"
            )
        return Batch(self._name, self._native, self._shelf, self._warn)


class Batch:
    """Makes the instances of one fetch; then `tell`."""

    def __init__(self, name: str, native: Native, shelf: Shelf, warn: Callable[[str], None]) -> None:
        self._name = name
        self._native = native
        self._shelf = shelf
        self._warn = warn
        self._places = anyio.Semaphore(IN_FLIGHT)
        self._lacking: Counter[str] = Counter()
        self._incomplete = 0

    async def take(self, image_set: ImageSet | None, series_uid: str, uid: str, receiver: Receiver) -> Taken:
        """Makes one instance of a series, and hands it over. Raises Refused for what cannot be made, PeerError,
        LocalTrouble.
        """
        if image_set is None:
            raise Refused(f"{self._name}: no image set lists the instance", status=_NOT_FOUND)
        document = await self._shelf.document(image_set)
        try:
            assembly = assemble(document, series_uid, uid)
        except RemoteProtocolError as error:
            raise self._refusal(error) from error
        taken = await self._hand_over(assembly, image_set, receiver)
        if assembly.left_out:
            self._incomplete += 1
            self._lacking.update(assembly.left_out)
        return taken

    def tell(self) -> None:
        """Says what the instances lack."""
        if self._lacking:
            names = ", ".join(sorted(self._lacking)[:NAMED])
            more = f" and {len(self._lacking) - NAMED} more" if len(self._lacking) > NAMED else ""
            self._warn(
                f"{self._name}: {self._lacking.total()} elements of {self._incomplete} instances cannot be written as "
                f"they were, and are left out: {names}{more}"
            )

    async def _hand_over(self, assembly: Assembly, image_set: ImageSet, receiver: Receiver) -> Taken:
        slots = [_Slot(frame) for frame in assembly.frames]
        waiting = iter(slots)
        trouble: DcmsyncError | None = None
        async with anyio.create_task_group() as tasks:
            for _ in range(min(IN_FLIGHT, len(slots))):
                tasks.start_soon(self._fill, waiting, image_set)
            try:
                async with aclosing(self._pieces(assembly, slots)) as pieces:
                    taken = await take_in(pieces, receiver)
            except DcmsyncError as error:
                trouble = error
            tasks.cancel_scope.cancel()
        if trouble is not None:
            raise trouble
        return taken

    async def _pieces(self, assembly: Assembly, slots: list[_Slot]) -> AsyncGenerator[bytes, None]:
        """The file, in order. Raises Refused, and what kept a frame from coming."""
        yield assembly.head
        for slot in slots:
            await slot.is_full.wait()
            if slot.trouble is not None:
                raise slot.trouble
            octets, slot.octets = slot.octets, b""
            try:
                pieces = fragment(slot.frame, octets, assembly.transfer_syntax_uid)
            except RemoteProtocolError as error:
                raise self._refusal(error) from error
            for piece in pieces:
                yield piece
            del octets, pieces, piece  # the place is free only when they are
            slot.is_empty.set()
        if assembly.tail:
            yield assembly.tail

    async def _fill(self, waiting: Iterator[_Slot], image_set: ImageSet) -> None:
        for slot in waiting:
            async with self._places:
                try:
                    slot.octets = await self._native.frame(image_set.image_set_id, slot.frame)
                except DcmsyncError as error:
                    slot.trouble = error
                slot.is_full.set()
                await slot.is_empty.wait()

    def _refusal(self, error: RemoteProtocolError) -> Refused:
        return Refused(f"{self._name}: an instance cannot be made: {error.message}", status=_CANNOT_UNDERSTAND)


class _Slot:
    """Where one frame waits for its turn."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.octets = b""
        self.trouble: DcmsyncError | None = None
        self.is_full = anyio.Event()
        self.is_empty = anyio.Event()
