"""A receiver that keeps what it takes, octet by octet, for tests of places (contract.Receiver)."""

from collections.abc import Collection, Sequence

from dcmsync.contract import Arrival

NOT_ASKED_FOR = 0xC000


class Keeper:
    """`files`: what arrived whole, by SOP Instance UID, as a file. Takes only what is `wanted`, where that is said."""

    def __init__(self, wanted: Collection[str] | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.discarded: list[str] = []
        self.refused: list[str] = []
        self.open = 0
        self.most_open = 0
        self.rooms = 0
        self._wanted = wanted

    def receive(self, arrival: Arrival) -> "Kept | int":
        """A sink for what is wanted."""
        if self._wanted is not None and arrival.sop_instance_uid not in self._wanted:
            self.refused.append(arrival.sop_instance_uid)
            return NOT_ASKED_FOR
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        return Kept(self, arrival)

    async def room(self) -> None:
        """There is always some."""
        self.rooms += 1


class Kept:
    """The sink of one instance."""

    def __init__(self, keeper: Keeper, arrival: Arrival) -> None:
        self._keeper = keeper
        self._uid = arrival.sop_instance_uid
        self._octets = bytearray(arrival.head)
        self._is_over = False

    def adopt(self) -> bool:
        """Nothing here has an origin."""
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Takes the next octets."""
        assert not self._is_over
        for piece in pieces:
            self._octets += piece

    def finish(self) -> int:
        """It is whole."""
        assert not self._is_over
        self._is_over = True
        self._keeper.open -= 1
        self._keeper.files[self._uid] = bytes(self._octets)
        return 0

    def discard(self, why: str) -> None:
        """It is not."""
        if not self._is_over:
            self._is_over = True
            self._keeper.open -= 1
            self._keeper.discarded.append(why)
