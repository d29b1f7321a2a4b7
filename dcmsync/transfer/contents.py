"""The content digests of instances that a place gives, without keeping any of them.

Owns the receiver that gathers each instance (in memory up to KEPT_OCTETS, else in a file without a name) and has it
hashed: how, it is told by who made it. Refuses to judge. What does not come, or does not come whole, has no digest.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import IO

import anyio.to_thread
from msgspec.structs import replace

from dcmsync.contract import Arrival, Ending, Session, Sink, Want
from dcmsync.errors import LocalTrouble

ContentOf = Callable[[Callable[[int, int], bytes], int, str], str]
"""(octets at an offset, at most so many; how many there are; transfer syntax) -> the digest of a data set, "" if it is
not whole."""

KEPT_OCTETS = 1 << 20
AT_ONCE = 100  # instances asked for in one go
_NOT_ASKED_FOR = 0xC000


class Contents:
    """Asks places for instances, to hash them. `content_of` computes the digest of one data set."""

    def __init__(self, content_of: ContentOf) -> None:
        self._content_of = content_of

    async def of(
        self, session: Session, study_uid: str, series_uid: str, instances: Mapping[str, str], *, patient_id: str = ""
    ) -> "Found":
        """The digests of some instances of one series: SOP Instance UID -> SOP Class UID, "" where unknown.

        `patient_id` is that by which the place knows their patient, "" where nobody has said. Raises PeerError,
        LocalTrouble.
        """
        want = Want(study_uid=study_uid, series_uid=series_uid, instances={}, whole=False, patient_id=patient_id)
        uids = list(instances)
        ending = Ending()
        with closing(_Hashing(self._content_of, instances)) as receiver:
            for at in range(0, len(uids), AT_ONCE):
                lot = {uid: instances[uid] for uid in uids[at : at + AT_ONCE]}
                ending = await self._ask(session, replace(want, instances=lot), receiver)
                if not lot.keys() & receiver.digests.keys() and len(lot) > 1:  # some nodes take no lists of UIDs
                    for uid in lot:
                        ending = await self._ask(session, replace(want, instances={uid: lot[uid]}), receiver)
                        if uid not in receiver.digests:
                            break
            return Found(receiver.digests, ending.why)

    async def _ask(self, session: Session, want: Want, receiver: "_Hashing") -> Ending:
        ending = await session.fetch(want, receiver)
        await receiver.room()
        return ending


class Found:
    """SOP Instance UID -> digest (`xxh3:` and 32 hexadecimal digits). `why`: the place's last word, if it was bad."""

    def __init__(self, digests: Mapping[str, str], why: str) -> None:
        self.digests = digests
        self.why = why


class _Hashing:
    """The receiver (contract.Receiver): takes each instance that is wanted, once."""

    def __init__(self, content_of: ContentOf, wanted: Mapping[str, str]) -> None:
        self.digests: dict[str, str] = {}
        self._content_of = content_of
        self._wanted = wanted
        self._waiting: list[_Gathered] = []
        self._arriving: _Gathered | None = None

    def receive(self, arrival: Arrival) -> Sink | int:
        """A sink for what is wanted and has not come."""
        if arrival.sop_instance_uid not in self._wanted or arrival.sop_instance_uid in self.digests:
            return _NOT_ASKED_FOR
        self._arriving = _Gathered(arrival, self._waiting.append)  # one at a time
        return self._arriving

    async def room(self) -> None:
        """Returns when what came is hashed."""
        while self._waiting:
            gathered = self._waiting.pop()
            try:
                digest = await anyio.to_thread.run_sync(gathered.hash, self._content_of)
            finally:
                gathered.close()
            if digest:
                self.digests[gathered.uid] = f"xxh3:{digest}"

    def close(self) -> None:
        """Lets go of what is not hashed."""
        for gathered in (*self._waiting, *((self._arriving,) if self._arriving else ())):
            gathered.close()


class _Gathered:
    """One instance as it comes (contract.Sink)."""

    def __init__(self, arrival: Arrival, whole: "Callable[[_Gathered], None]") -> None:
        self.uid = arrival.sop_instance_uid
        self._syntax = arrival.transfer_syntax_uid
        self._whole = whole
        self._size = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=KEPT_OCTETS)  # noqa: SIM115  # `close` ends it

    def adopt(self) -> bool:
        """Its octets are what is wanted."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets. Raises LocalTrouble."""
        try:
            for piece in pieces:
                self._size += self._file.write(piece)
        except OSError as error:
            raise LocalTrouble(f"{tempfile.gettempdir()}: an instance cannot be kept: {error.strerror}") from error

    def finish(self) -> int:
        """Hands it over to be hashed."""
        self._whole(self)
        return 0

    def discard(self, why: str) -> None:
        """Lets go of it."""
        self.close()

    def close(self) -> None:
        """Lets go of its octets. Idempotent."""
        self._file.close()

    def hash(self, content_of: ContentOf) -> str:
        """Its digest; in a worker thread."""
        return content_of(self._read_at, self._size, self._syntax)

    def _read_at(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)
