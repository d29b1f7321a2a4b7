"""Instances from a DICOMweb server by WADO-RS (PS3.18 §10.4): a series in one answer, or instance by instance.

Owns what is asked for, and what the server was found not to give; parts go to the receiver where they lie. Refuses to
judge instances, and to count them: who asked does. The octets as they are stored are asked for first: without
`transfer-syntax=*` a server has to decompress.

Theory of operation. A part that no delimiter follows is not whole, and an answer without its closing delimiter is not
complete, whatever its status; what was complete before stays. One instance of several that is not there, or is
something else, does not end the others: it is asked for again, alone, and then its fault is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from dcmsync.contract import Ending, Receiver, Want
from dcmsync.endpoints.dicomweb.asking import uid_in_path
from dcmsync.errors import Disconnected, Refused, RemoteProtocolError
from dcmsync.net.http import Answer, Door
from dcmsync.net.instances import Intake, Taken, is_framed, take_in
from dcmsync.wire import multipart

ACCEPTS = (
    'multipart/related; type="application/dicom"; transfer-syntax=*',
    'multipart/related; type="application/dicom"',
    "application/dicom; transfer-syntax=*",
    "application/dicom",
)
"""What is asked for, the best first. One range at a time: not every server reads a list."""
_PLAIN = frozenset((1, 3))  # those by which a server may decompress
_OK, _PARTIAL, _BAD, _NOT_ACCEPTABLE = 200, 206, 400, 406
_EXPECTED = (_OK, _PARTIAL, _BAD, _NOT_ACCEPTABLE)
_NOT_OFFERED = frozenset((_BAD, 405, _NOT_ACCEPTABLE, 501))
_LACKING = frozenset((204, 404, 410))
_IS_PARTIAL = "it gives a part of what it was asked for, by its own word (206)"
_UNASKED = 100  # parts beyond those that were asked for


class Retriever:
    """WADO-RS for all sessions of one place. `warn` hears once of what the server does not give."""

    def __init__(self, door: Door, warn: Callable[[str], None], *, gives_series: bool = True) -> None:
        self._door = door
        self._warn = warn
        self._accept = 0
        self._is_known = False  # whether that has worked
        self._gives_series = gives_series
        self._has_given = False

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Retrieves `want`; see `contract.Fetches`."""
        series = f"studies/{uid_in_path(want.study_uid)}/series/{uid_in_path(want.series_uid)}"
        if want.whole and self._gives_series:
            try:
                fault = await self._get(series, want, receiver)
                self._has_given = True
                return Ending(why=fault)
            except Refused as refusal:
                if refusal.status not in _NOT_OFFERED or self._has_given:
                    raise
                self._gives_series = False
                self._warn(f"{self._door.name}: gives no series as a whole: {refusal.message}")
        faults: list[str] = []
        for uid in want.instances:
            try:
                fault = await self._get(f"{series}/instances/{uid_in_path(uid)}", want, receiver)
                if fault and len(want.instances) == 1:
                    raise RemoteProtocolError(f"{self._door.name}: {fault}")
                faults += [fault] if fault else []
            except (Refused, RemoteProtocolError) as error:
                if len(want.instances) == 1 or (isinstance(error, Refused) and error.status not in _LACKING):
                    raise
                faults.append(error.message)
        return Ending(why=faults[0] if faults else "")

    async def _get(self, path: str, want: Want, receiver: Receiver) -> str:
        """Takes what one resource gives. Gives what is wrong with it, in words, or ""."""
        choices = [self._accept] if self._is_known else list(range(self._accept, len(ACCEPTS)))
        words, status = "", 0
        for choice in choices:
            await receiver.room()
            headers = {"Accept": ACCEPTS[choice]}
            async with self._door.exchange("GET", path, headers=headers, expected=_EXPECTED) as answer:
                if answer.status in (_OK, _PARTIAL):
                    self._agree(choice)
                    fault = await self._take(answer, want, receiver)
                    return fault or (_IS_PARTIAL if answer.status == _PARTIAL else "")
                words, status = await answer.words(), answer.status
        raise Refused(f"{self._door.name}: the retrieval was refused: {words}", status=status)

    def _agree(self, choice: int) -> None:
        if choice in _PLAIN and not self._is_known:
            self._warn(f"{self._door.name}: does not give instances as they are stored: it may decompress them")
        self._accept, self._is_known = choice, True

    async def _take(self, answer: Answer, want: Want, receiver: Receiver) -> str:
        if answer.media_type.startswith("multipart/"):
            return await self._take_parts(answer, want, receiver)
        if not is_framed(answer.headers):
            raise Disconnected(f"{self._door.name}: gives a file without saying where it ends: it may be cut")
        async with aclosing(answer.pieces()) as pieces:
            taken = await take_in(pieces, receiver)
        if want.whole and len(want.instances) > 1 and _fault(taken):
            raise RemoteProtocolError(f"{self._door.name}: {_fault(taken)}")
        return _fault(taken)

    async def _take_parts(self, answer: Answer, want: Want, receiver: Receiver) -> str:
        """Takes the parts of an answer. Raises Disconnected when it is not complete."""
        reader = multipart.Reader(multipart.boundary_of(answer.headers["Content-Type"]))
        parts = _Parts(receiver, most=len(want.instances) + _UNASKED)
        try:
            async with aclosing(answer.pieces()) as pieces:
                async for octets in pieces:
                    if parts.take(reader.feed(octets)):
                        await receiver.room()
            try:
                rest = reader.end()
            except RemoteProtocolError as error:  # a line that was cut looks like this, and may not be the next time
                raise Disconnected(f"{self._door.name}: {error.message}") from error
            parts.take(rest)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{self._door.name}: {error.message}") from error
        finally:
            parts.drop()
        return parts.fault


class _Parts:
    """The parts of one answer. `fault`: what is wrong with the first of them that is no instance."""

    def __init__(self, receiver: Receiver, *, most: int) -> None:
        self.fault = ""
        self._receiver = receiver
        self._most = most
        self._count = 0
        self._intake: Intake | None = None

    def take(self, events: list[multipart.Event]) -> bool:
        """Hands on what came; whether an instance ended. Raises LocalTrouble, RemoteProtocolError."""
        has_ended = False
        for event in events:
            if isinstance(event, multipart.Content):
                assert self._intake is not None
                self._intake.write(event.data)
            elif isinstance(event, multipart.Begun):
                self._count += 1
                if self._count > self._most:
                    raise RemoteProtocolError("goes on and on with what was not asked for")
                self._intake = Intake(self._receiver)
            elif isinstance(event, multipart.Ended) and self._intake is not None:
                intake, self._intake = self._intake, None
                fault = _fault(intake.end())
                self.fault = self.fault or fault
                has_ended = True
        return has_ended

    def drop(self) -> None:
        """Discards the part that did not end."""
        if self._intake is not None:
            self._intake.drop("the answer ended within it")
            self._intake = None


def _fault(taken: Taken) -> str:
    """What is wrong with what came; "" for what was taken, or was not wanted."""
    return "" if taken.status or not taken.why else f"what came is {taken.why}"
