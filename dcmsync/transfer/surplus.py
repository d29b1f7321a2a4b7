"""What a destination holds and its source does not have (any more): the files that a mirror would delete.

Owns the question, and that no answer is believed that may be cut short. Refuses to delete.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from msgspec import structs

from dcmsync.contract import Catalogue, Finds, Holding, Level
from dcmsync.errors import RemoteProtocolError
from dcmsync.plan.levels import Query, level_of
from dcmsync.transfer.inventory import Inventory

Judge = Callable[[Mapping[str, object]], bool]


class Surplus:
    """Compares one destination with one source, series by series, among what matches `query` and `keep`."""

    def __init__(
        self, source: Finds, destination: Finds, catalogue: Catalogue, *, name: str, warn: Callable[[str], None]
    ) -> None:
        self._asked = Inventory(source, name=name, warn=warn)
        self._held = Inventory(destination, name="the destination", warn=warn)
        self._catalogue = catalogue
        self._name = name

    async def run(self, query: Query, keep: Judge) -> AsyncGenerator[Holding, None]:
        """The files of the destination whose instance the source does not have.

        Raises PeerError when the source cannot be asked, or gives a list that may be cut short.
        """
        series = structs.replace(query, level=Level.SERIES, keys=_above_instances(query))
        async with aclosing(self._held.walk(series)) as found:
            async for held in found:
                if not keep(held):
                    continue
                uids = {key: held[key] for key in ("StudyInstanceUID", "SeriesInstanceUID")}
                inventory = Query(level=Level.INSTANCE, keys={}, usual=False)
                has: set[str] = set()
                async with aclosing(self._asked.walk(inventory, uids)) as instances:
                    async for instance in instances:
                        has.add(str(instance["SOPInstanceUID"]))
                if not self._asked.is_complete:
                    raise RemoteProtocolError(f"{self._name}: its list may be cut short: nothing is deleted")
                for holding in self._catalogue.holdings(
                    study_uid=str(uids["StudyInstanceUID"]), series_uid=str(uids["SeriesInstanceUID"])
                ):
                    if holding.sop_instance_uid not in has:
                        yield holding


def _above_instances(query: Query) -> dict[str, str]:
    return {key: value for key, value in query.keys.items() if level_of(key) < Level.INSTANCE}
