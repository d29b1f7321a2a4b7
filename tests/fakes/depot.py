"""A remote destination in memory that satisfies the contract of a Store, and can be told how to fall short.

It keeps what it stores, and lists it by what its instances say; a parcel's octets are `SERIES UID` a line above.
"""

import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio.lowlevel

from dcmsync.contract import Arrival, Ask, Attributes, Ending, Level, Parcel, Receiver, Together, Want
from dcmsync.errors import Disconnected, LocalTrouble, Refused, Rejected

Answer = Ending | Exception
KEEPS = Ending()


class Depot:
    """What is there, and how it takes things.

    `answer` gives what becomes of a parcel, from its UID and how often it has come; `keeps` whether it is really kept.
    `allows`: so many associations at a time. `kinds`: so many kinds of instances fit one association. `cannot`: why it
    cannot be asked. `calls` raises what befalls the n-th association. With `together` it takes several parcels in one
    delivery; `deliveries` has the UIDs of each, and a delivery that holds one which breaks is lost as a whole. One that
    does not `names` its instances still counts them.
    """

    def __init__(
        self,
        *,
        answer: Callable[[str, int], Answer] = lambda uid, nth: KEEPS,
        keeps: Callable[[str, int], bool] = lambda uid, nth: True,
        allows: int = 100,
        kinds: int = 127,
        takes: Callable[[Arrival], bool] = lambda arrival: True,
        cannot: Exception | None = None,
        calls: Callable[[int], Exception | None] = lambda nth: None,
        lists: Callable[[str], bool] = lambda uid: True,
        together: Together | None = None,
        names: bool = True,
    ) -> None:
        self.name = "DEPOT@there:104"
        self.stored: dict[str, bytes] = {}
        self.homes: dict[str, tuple[str, str]] = {}  # SOP Instance UID -> study and series
        self.came: Counter[str] = Counter()
        self.order: list[str] = []
        self.deliveries: list[list[str]] = []
        self.together = together
        self.names = names
        self.opened = 0
        self.open = 0
        self.most_open = 0
        self.asked = 0
        self.answer, self.keeps, self.allows, self.kinds = answer, keeps, allows, kinds
        self.takes, self.cannot, self.calls, self.lists = takes, cannot, calls, lists
        self.home: Callable[[str], tuple[str, str]] = lambda uid: (uid.rsplit(".", 2)[0], uid.rsplit(".", 1)[0])

    @asynccontextmanager
    async def session(self) -> "AsyncIterator[Talk]":
        """A session, without an association yet."""
        talk = Talk(self) if self.together is None else Van(self)
        try:
            yield talk
        finally:
            talk.drop()


class Talk:
    """One session with a depot (contract.Holds)."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._kinds: frozenset[tuple[str, str]] | None = None

    def is_ready_for(self, arrival: Arrival) -> bool:
        """Whether its association was asked for such instances."""
        return self._kinds is not None and (arrival.sop_class_uid, arrival.transfer_syntax_uid) in self._kinds

    async def prepare(self, arrivals: Sequence[Arrival]) -> None:
        """Opens another association."""
        kinds = dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in arrivals)
        await self._associate(frozenset(list(kinds)[: self._depot.kinds]))

    async def store(self, parcel: Parcel) -> Ending:
        """As the depot answers."""
        depot, uid = self._depot, parcel.arrival.sop_instance_uid
        assert self.is_ready_for(parcel.arrival)
        await anyio.lowlevel.checkpoint()
        depot.came[uid] += 1
        depot.order.append(uid)
        if not depot.takes(parcel.arrival):
            raise Refused(f"{depot.name}: does not take {parcel.arrival.sop_class_uid}", status=0)
        answer = depot.answer(uid, depot.came[uid])
        if isinstance(answer, Exception):
            if depot.together is None or not isinstance(answer, LocalTrouble):
                self.drop()
            raise answer
        is_done = not answer.status or answer.is_warning
        if is_done and depot.keeps(uid, depot.came[uid]):
            depot.stored[uid] = octets_of(parcel)
        return answer

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """What is there, at instance and series level."""
        depot = self._depot
        depot.asked += 1
        if self._kinds is None:
            await self._associate(frozenset())
        await anyio.lowlevel.checkpoint()
        if depot.cannot is not None:
            raise depot.cannot
        if ask.level is Level.INSTANCE and not depot.names:
            raise Rejected(f"{depot.name}: names no instances")
        listed = [uid for uid in depot.stored if depot.lists(uid) or ask.keys.get("SOPInstanceUID") == uid]
        study, series = ask.keys["StudyInstanceUID"], ask.keys.get("SeriesInstanceUID", "")
        homes = {uid: depot.home(uid) for uid in listed}
        found = [uid for uid in listed if homes[uid] == (study, series) or (homes[uid][0] == study and not series)]
        if ask.level is Level.INSTANCE:
            for uid in found:
                if ask.keys.get("SOPInstanceUID") in (uid, "", None):
                    yield {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": uid}
        elif found:
            yield {"StudyInstanceUID": study, "SeriesInstanceUID": series, "NumberOfSeriesRelatedInstances": len(found)}
        yield Ending()

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """Gives back what is stored."""
        for uid in want.instances:
            if uid not in self._depot.stored:
                continue
            arrival = Arrival(sop_class_uid="1.2.3", sop_instance_uid=uid, transfer_syntax_uid="1.2.840.10008.1.2.1")
            sink = receiver.receive(arrival)
            if not isinstance(sink, int):
                sink.write([memoryview(self._depot.stored[uid])])
                sink.finish()
            await receiver.room()
        return Ending()

    async def rest(self) -> None:
        """Ends the association."""
        self.drop()

    def drop(self) -> None:
        """Ends the association, if there is one."""
        if self._kinds is not None:
            self._depot.open -= 1
            self._kinds = None

    async def _associate(self, kinds: frozenset[tuple[str, str]]) -> None:
        depot = self._depot
        self.drop()
        await anyio.lowlevel.checkpoint()
        depot.opened += 1
        befalls = depot.calls(depot.opened)
        if befalls is not None:
            raise befalls
        if depot.open >= depot.allows:
            raise Rejected(f"{depot.name}: local limit exceeded", transient=True)
        depot.open += 1
        depot.most_open = max(depot.most_open, depot.open)
        self._kinds = kinds


class Van(Talk):
    """A session that takes several parcels in one delivery (contract.StoresTogether)."""

    @property
    def together(self) -> Together:
        """As the depot says."""
        assert self._depot.together is not None
        return self._depot.together

    async def store(self, parcel: Parcel) -> Ending:
        """A delivery of one."""
        self._depot.deliveries.append([parcel.arrival.sop_instance_uid])
        return await super().store(parcel)

    async def store_together(self, parcels: Sequence[Parcel]) -> Sequence[Ending | LocalTrouble]:
        """As the depot answers to each; what it would have kept is lost when one of them breaks the delivery."""
        depot = self._depot
        depot.deliveries.append([parcel.arrival.sop_instance_uid for parcel in parcels])
        answers: list[Ending | LocalTrouble] = []
        before = set(depot.stored)
        try:
            for parcel in parcels:
                try:
                    answers.append(await super().store(parcel))
                except LocalTrouble as trouble:
                    answers.append(trouble)
        except Exception:
            for parcel in parcels:
                if parcel.arrival.sop_instance_uid not in before:
                    depot.stored.pop(parcel.arrival.sop_instance_uid, None)
            raise
        return answers


def octets_of(parcel: Parcel) -> bytes:
    """What a parcel carries."""
    if parcel.memory is not None:
        return bytes(parcel.memory)
    return os.pread(parcel.descriptor, parcel.size, parcel.offset)


def breaks(*uids: str) -> Callable[[str, int], Answer]:
    """A depot whose association breaks whenever one of these comes."""
    return lambda uid, nth: Disconnected("the peer aborted the association") if uid in uids else KEEPS
