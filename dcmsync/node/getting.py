"""C-GET, carried out (PS3.4 §C.4.3): one C-STORE sub-operation for each instance, on the association that asked.

Owns the sending. Refuses to transcode: an instance goes out on a context with its own transfer syntax, or has failed.
A pending response rides in the same write as the next C-STORE request.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import anyio.lowlevel

from dcmsync.errors import LocalTrouble
from dcmsync.net.channel import Channel, Octets
from dcmsync.net.departures import Buffer, send_file
from dcmsync.net.listener import Visit
from dcmsync.node.archive import Archive, Opened
from dcmsync.node.inbox import Inbox
from dcmsync.node.index import Image
from dcmsync.node.suboperations import SubOperations
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.command import Command


class Retrieval:
    """One C-GET being carried out."""

    def __init__(self, visit: Visit, inbox: Inbox, archive: Archive, context_id: int, request: Command) -> None:
        assert request.message_id is not None
        self._channel: Channel = visit.channel
        self._inbox = inbox
        self._archive = archive
        self._context_id = context_id
        self._request = request
        self._message_id = request.message_id
        self._destinations = destinations(visit)
        self._buffer = Buffer()
        self._sub_id = 0

    async def run(self, images: Sequence[Image]) -> int:
        """Sends the instances and the final response. Gives how many the peer took."""
        work = SubOperations(self._channel, self._context_id, self._request, len(images))
        is_cancelled = False
        for image in images:
            if is_cancelled:
                break
            is_cancelled = await self._send(image, work)
        await work.end(is_cancelled=is_cancelled)
        return work.taken

    async def _send(self, image: Image, work: SubOperations) -> bool:
        """One sub-operation. Gives whether the peer has cancelled."""
        context_id = self._destinations.get((image.sop_class_uid, image.transfer_syntax_uid))
        is_sent = False
        with self._archive.opened(image) if context_id is not None else nullcontext() as opened:
            if context_id is not None and opened is not None:
                self._sub_id = self._sub_id % 0xFFFF + 1
                conversation = operations.store(self._sub_id, image.sop_class_uid, image.uid)
                is_sent = await self._say(context_id, conversation.request, opened, work)
        if is_sent:
            code, is_cancelled = await self._inbox.reply(conversation, self._message_id)
        else:
            await anyio.lowlevel.checkpoint()
            code, is_cancelled = status.PROCESSING_FAILURE, await self._inbox.is_cancelled(self._message_id)
        self._channel.stream.guard.progress()
        work.count(image.uid, code)
        return is_cancelled

    async def _say(self, context_id: int, request: Command, opened: Opened, work: SubOperations) -> bool:
        """Sends one instance; false when its file changed before anything went out. Raises LocalTrouble later on."""
        before: list[Octets] = []
        if work.is_due:
            before = self._channel.pieces(self._context_id, work.pending())
        try:
            await send_file(
                self._channel, context_id, request, opened.descriptor, opened.offset, opened.octets,
                before=before, buffer=self._buffer, stamp=opened.stamp,
            )  # fmt: skip
        except LocalTrouble:
            if not self._channel.is_open:
                raise
            return False
        return True


def destinations(visit: Visit) -> dict[tuple[str, str], int]:
    """(SOP class, transfer syntax) -> the context on which the peer takes such instances: where it is the SCP."""
    takes = {role.sop_class_uid for role in visit.roles if role.scp}
    found: dict[tuple[str, str], int] = {}
    for context in visit.channel.contexts.values():
        if context.abstract_syntax in takes:
            found.setdefault((context.abstract_syntax, context.transfer_syntax), context.context_id)
    return found
