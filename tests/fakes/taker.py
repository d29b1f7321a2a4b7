"""A receiver that takes what is wanted into memory, and refuses the rest (contract.Receiver)."""

from collections.abc import Mapping, Sequence

from dcmsync.contract import Arrival


class Taker:
    """Notes what came."""

    def __init__(self, wanted: Mapping[str, str]) -> None:
        self.wanted = wanted
        self.arrived: list[str] = []
        self.octets = 0
        self.discarded = 0
        self.asked = 0

    def receive(self, arrival: Arrival) -> "TakerSink | int":
        self.asked += 1
        return TakerSink(self, arrival.sop_instance_uid) if arrival.sop_instance_uid in self.wanted else 0xC000

    async def room(self) -> None:
        return

    def write(self, octets: int) -> None:
        self.octets += octets


class TakerSink:
    """Counts octets."""

    def __init__(self, taker: Taker, uid: str) -> None:
        self._taker, self._uid = taker, uid

    def adopt(self) -> bool:
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        self._taker.write(sum(map(len, pieces)))

    def finish(self) -> int:
        self._taker.arrived.append(self._uid)
        return 0

    def discard(self, why: str) -> None:
        self._taker.discarded += 1
