"""The sub-operations of one C-GET or C-MOVE: what became of each, and the responses that say so (PS3.4 §C.4.2, §C.4.3).

Owns the counts, when a pending response is due, and the final status with its list of what failed. Refuses to send an
instance.
"""

from __future__ import annotations

import anyio
from msgspec import structs

from dcmsync.errors import RemoteProtocolError
from dcmsync.net.channel import Channel
from dcmsync.wire import dataset
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.command import Command

_PENDING_EVERY = 50  # sub-operations
_PENDING_EVERY_S = 1.0
_NONE_DONE = 0xA702  # PS3.4 tables C.4-2, C.4-3: out of resources, unable to perform sub-operations
_MAX_LIST_OCTETS = 0xFFFE  # of a UI value in explicit VR
_MAX_COUNT = 0xFFFF  # counts are US
MAX_COMMENT = 64  # Error Comment is an LO


class SubOperations:
    """The counts of one retrieval of so many instances."""

    def __init__(self, channel: Channel, context_id: int, request: Command, count: int) -> None:
        self.remaining = count
        self.completed = 0
        self.warnings = 0
        self.failed: list[str] = []
        self._channel = channel
        self._context_id = context_id
        self._request = request
        self._said_at = anyio.current_time()
        self._said_of = 0

    @property
    def taken(self) -> int:
        """How many instances the destination has taken."""
        return self.completed + self.warnings

    @property
    def is_due(self) -> bool:
        """Whether the peer should hear of it by now."""
        done = self.taken + len(self.failed)
        return done - self._said_of >= _PENDING_EVERY or anyio.current_time() - self._said_at >= _PENDING_EVERY_S

    def count(self, sop_instance_uid: str, code: int) -> None:
        """One has ended, with the status of its C-STORE. Raises RemoteProtocolError for one that can end nothing."""
        if code == status.SUCCESS:
            self.completed += 1
        elif status.is_warning(code):
            self.warnings += 1
        elif status.is_failure(code):
            self.failed.append(sop_instance_uid)
        else:
            raise RemoteProtocolError(f"answered C-STORE with status 0x{code:04X}")
        self.remaining -= 1

    def pending(self) -> Command:
        """A pending response; the next one is due later."""
        self._said_at, self._said_of = anyio.current_time(), self.taken + len(self.failed)
        return self._response(status.PENDING[0])

    async def end(self, *, is_cancelled: bool, comment: str = "") -> None:
        """Sends the final response, with an Error Comment where there is one. Raises Stalled, Disconnected."""
        if is_cancelled and self.remaining:
            code = status.CANCELLED
        elif not self.failed and not self.warnings:
            code = status.SUCCESS
        elif self.taken:
            code = status.WARNING_SUBOPERATIONS
        else:
            code = _NONE_DONE
        response = structs.replace(
            self._response(code), has_data_set=bool(self.failed), error_comment=comment[:MAX_COMMENT] or None
        )
        if code == status.CANCELLED:
            response = structs.replace(response, remaining=min(self.remaining, _MAX_COUNT))
        await self._channel.say(self._context_id, response, [self._failed_list()] if self.failed else [])

    def _response(self, code: int) -> Command:
        return structs.replace(
            operations.respond(self._request, code),
            remaining=min(self.remaining, _MAX_COUNT) if code in status.PENDING else None,
            completed=min(self.completed, _MAX_COUNT),
            failed=min(len(self.failed), _MAX_COUNT),
            warnings=min(self.warnings, _MAX_COUNT),
        )

    def _failed_list(self) -> bytes:
        """The Failed SOP Instance UID List (0008,0058), as far as an element can hold it."""
        uids = "\\".join(self.failed)
        if len(uids) > _MAX_LIST_OCTETS:
            uids = uids[:_MAX_LIST_OCTETS].rpartition("\\")[0]
        syntax = self._channel.contexts[self._context_id].transfer_syntax
        return dataset.encode_identifier({"FailedSOPInstanceUIDList": uids}, "", syntax)
