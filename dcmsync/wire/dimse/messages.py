"""P-DATA fragments -> DIMSE messages (PS3.7 §6.3.1, PS3.8 Annex E).

Command sets are gathered (they are small, and capped); data sets are not: their pieces pass on as they come, for
whoever asked to gather, write or drop them. Messages of one direction never interleave (§E.1).
"""

from msgspec import Struct

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.upperlayer.framing import IS_COMMAND, IS_LAST, Fragment

_MAX_COMMAND_OCTETS = 1 << 16


class Begun(Struct, frozen=True):
    """A message begins; when `command.has_data_set`, its pieces follow."""

    context_id: int
    command: commands.Command


class Pieces(Struct, frozen=True):
    """Octets of the data set of the message that begun last, in order. `is_last` on the final ones, exactly once."""

    pieces: list[memoryview]
    octets: int
    is_last: bool


MessageEvent = Begun | Pieces


class Assembler:
    """Turns the fragments of one direction into message events."""

    def __init__(self) -> None:
        self._command = bytearray()
        self._context_id = 0
        self._in_data_set = False

    @property
    def is_mid_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._in_data_set or bool(self._command)

    def feed(self, fragments: list[Fragment]) -> list[MessageEvent]:
        """Gives what the fragments complete, in order. Raises RemoteProtocolError."""
        # hot: runs once a received batch, and a turn for each fragment
        events: list[MessageEvent] = []
        pieces: list[memoryview] = []
        octets = 0
        for context_id, control, octets_view in fragments:
            if control & IS_COMMAND:
                if self._in_data_set:
                    raise RemoteProtocolError("sent a command before the data set of the last message had ended")
                if self._command and context_id != self._context_id:
                    raise RemoteProtocolError("sent one command set on two presentation contexts")
                self._context_id = context_id
                self._command += octets_view
                if len(self._command) > _MAX_COMMAND_OCTETS:
                    raise RemoteProtocolError(f"sent a command set of more than {_MAX_COMMAND_OCTETS:,} octets")
                if control & IS_LAST:
                    command = commands.decode(bytes(self._command))
                    self._command.clear()
                    self._in_data_set = command.has_data_set
                    events.append(Begun(context_id, command))
                continue
            if not self._in_data_set:
                raise RemoteProtocolError("sent a data set that no command announced")
            if context_id != self._context_id:
                raise RemoteProtocolError("sent a data set on another presentation context than its command")
            pieces.append(octets_view)
            octets += len(octets_view)
            if control & IS_LAST:
                events.append(Pieces(pieces, octets, is_last=True))
                pieces, octets = [], 0
                self._in_data_set = False
        if pieces:
            events.append(Pieces(pieces, octets, is_last=False))
        return events
