"""`sync --delete`: what a destination has and its source does not, removed at the end, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable

import anyio.to_thread
from msgspec import UNSET

from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.contract import Holding, Source
from dcmsync.endpoints.folder.departure import remove_holding
from dcmsync.errors import ExitStatus
from dcmsync.plan.levels import Query
from dcmsync.plan.window import Judge
from dcmsync.records.model import Outcome
from dcmsync.transfer.surplus import Surplus


class Mirroring:
    """Deletes from folders, and writes an outcome for each file. Unless it is a dry run."""

    def __init__(
        self, places: Places, streams: Streams, write: Callable[[Outcome], None], *, is_dry: bool
    ) -> None:
        self._places = places
        self._streams = streams
        self._write = write
        self._is_dry = is_dry

    async def run(
        self, word: str, root: str, source: tuple[str, Source], query: Query, keep: Judge, *, most: int
    ) -> ExitStatus:
        """Deletes from the folder `root`, called `word`, what the source does not have; none if it is more than `most`.

        Raises PeerError when the source cannot be asked again, or its list may be cut short; LocalTrouble.
        """
        name, opened = source
        catalogue = self._places.catalogue(root)
        async with opened.session() as asked, self._places.open(word).session() as held:
            surplus = Surplus(asked, held, catalogue, name=name, warn=self._streams.warn)
            extra = [holding async for holding in surplus.run(query, keep)]
        if len(extra) > most:
            words = f"{word}: {len(extra):,} instances would go, and --max-delete is {most:,}: none was deleted"
            self._streams.say(words)
            return ExitStatus.FAILED
        for holding in extra:
            if not self._is_dry:
                await anyio.to_thread.run_sync(remove_holding, root, holding)
                catalogue.forget([holding.path])
            self._write(_deleted(holding, name, word, is_dry=self._is_dry))
        return ExitStatus.DONE


def _deleted(holding: Holding, source: str, destination: str, *, is_dry: bool) -> Outcome:
    return Outcome(
        level="instance",
        outcome="deleted",
        StudyInstanceUID=holding.study_uid,
        SeriesInstanceUID=holding.series_uid,
        SOPInstanceUID=holding.sop_instance_uid,
        source=source,
        destination=destination,
        path=holding.path,
        dry_run=True if is_dry else UNSET,
    )
