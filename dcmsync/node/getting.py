"""C-GET, carried out (PS3.4 §C.4.3): one C-STORE sub-operation for each instance, and the counts of what became of it.

Owns the counts and the final status. Refuses to transcode: an instance goes out on a context with its own transfer
syntax, or has failed. A pending response rides in the same write as the next C-STORE request.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import anyio
import anyio.lowlevel
from msgspec import structs

from dcmsync.errors import RemoteProtocolError
from dcmsync.net.channel import Octets
from dcmsync.net.departures import send_file
from dcmsync.net.listener import Visit
from dcmsync.node.archive import Archive
from dcmsync.node.inbox import Inbox
from dcmsync.node.index import Image
from dcmsync.wire import dataset
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.command import Command

_PENDING_EVERY = 50  # sub-operations
_PENDING_EVERY_S = 1.0
_NONE_DONE = 0xA702  # PS3.4 table C.4-3: out of resources, unable to perform sub-operations
_MAX_LIST_OCTETS = 0xFFFE  # of a UI value in explicit VR
_MAX_COUNT = 0xFFFF  # counts are US


class Retrieval:
    """One C-GET being carried out."""

    def __init__(self, visit: Visit, inbox: Inbox, archive: Archive, context_id: int, request: Command) -> None:
        assert request.message_id is not None
        self._channel = visit.channel
        self._inbox = inbox
        self._archive = archive
        self._context_id = context_id
        self._request = request
        self._message_id = request.message_id
        self._destinations = destinations(visit)
        self._sub_id = 0
        self._remaining = 0
        self._completed = 0
        self._warnings = 0
        self._failed: list[str] = []
        self._said_at = anyio.current_time()
        self._said_of = 0

    async def run(self, images: Sequence[Image]) -> int:
        """Sends the instances and the final response. Gives how many the peer took."""
        self._remaining = len(images)
        is_cancelled = False
        for image in images:
            if is_cancelled:
                break
            is_cancelled = await self._send(image)
            self._remaining -= 1
        await self._end(is_cancelled=is_cancelled)
        return self._completed + self._warnings

    async def _send(self, image: Image) -> bool:
        """One sub-operation. Gives whether the peer has cancelled."""
        context_id = self._destinations.get((image.sop_class_uid, image.transfer_syntax_uid))
        code, is_cancelled = status.PROCESSING_FAILURE, False
        with self._archive.opened(image) if context_id is not None else nullcontext() as opened:
            if context_id is None or opened is None:
                await anyio.lowlevel.checkpoint()
                is_cancelled = await self._inbox.is_cancelled(self._message_id)
            else:
                self._sub_id = self._sub_id % 0xFFFF + 1
                conversation = operations.store(self._sub_id, image.sop_class_uid, image.uid)
                await send_file(
                    self._channel, context_id, conversation.request,
                    opened.descriptor, opened.offset, opened.octets, before=self._pending(),
                )  # fmt: skip
                code, is_cancelled = await self._inbox.reply(conversation, self._message_id)
            self._channel.stream.guard.progress()
        if code == status.SUCCESS:
            self._completed += 1
        elif status.is_warning(code):
            self._warnings += 1
        elif status.is_failure(code):
            self._failed.append(image.uid)
        else:
            raise RemoteProtocolError(f"answered C-STORE with status 0x{code:04X}")
        return is_cancelled

    def _pending(self) -> list[Octets]:
        """A pending response when one is due."""
        done = self._completed + self._warnings + len(self._failed)
        now = anyio.current_time()
        if done - self._said_of < _PENDING_EVERY and now - self._said_at < _PENDING_EVERY_S:
            return []
        self._said_at, self._said_of = now, done
        return self._channel.pieces(self._context_id, self._response(status.PENDING[0]))

    async def _end(self, *, is_cancelled: bool) -> None:
        if is_cancelled and self._remaining:
            code = status.CANCELLED
        elif not self._failed and not self._warnings:
            code = status.SUCCESS
        elif self._completed or self._warnings:
            code = status.WARNING_SUBOPERATIONS
        else:
            code = _NONE_DONE
        response = structs.replace(self._response(code), has_data_set=bool(self._failed))
        if code == status.CANCELLED:
            response = structs.replace(response, remaining=min(self._remaining, _MAX_COUNT))
        await self._channel.say(self._context_id, response, [self._failed_list()] if self._failed else [])

    def _response(self, code: int) -> Command:
        return structs.replace(
            operations.respond(self._request, code),
            remaining=min(self._remaining, _MAX_COUNT) if code in status.PENDING else None,
            completed=min(self._completed, _MAX_COUNT),
            failed=min(len(self._failed), _MAX_COUNT),
            warnings=min(self._warnings, _MAX_COUNT),
        )

    def _failed_list(self) -> bytes:
        """The Failed SOP Instance UID List (0008,0058), as far as an element can hold it."""
        uids = "\\".join(self._failed)
        if len(uids) > _MAX_LIST_OCTETS:
            uids = uids[:_MAX_LIST_OCTETS].rpartition("\\")[0]
        syntax = self._channel.contexts[self._context_id].transfer_syntax
        return dataset.encode_identifier({"FailedSOPInstanceUIDList": uids}, "", syntax)


def destinations(visit: Visit) -> dict[tuple[str, str], int]:
    """(SOP class, transfer syntax) -> the context on which the peer takes such instances: where it is the SCP."""
    takes = {role.sop_class_uid for role in visit.roles if role.scp}
    found: dict[tuple[str, str], int] = {}
    for context in visit.channel.contexts.values():
        if context.abstract_syntax in takes:
            found.setdefault((context.abstract_syntax, context.transfer_syntax), context.context_id)
    return found


