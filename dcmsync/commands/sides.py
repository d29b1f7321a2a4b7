"""The places of a comparison, each opened once: from the words that name them to sessions that can be asked.

Owns who answers for a word, also for a destination that is not there yet, and how content is hashed. Refuses to ask.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol, runtime_checkable

from dcmsync.cache.digest import content_of, read_whole
from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.contract import Catalogue, Ending, Holding
from dcmsync.endpoints.folder.examination import read_again
from dcmsync.errors import LocalTrouble
from dcmsync.locator import Archive, Folder
from dcmsync.net.patience import Watch
from dcmsync.transfer.contents import Contents
from dcmsync.transfer.side import Nothing, Side
from dcmsync.wire.source import Distant


class Sides:
    """The sides of one run, by the words that name them. `arguments` as for Places."""

    def __init__(self, arguments: Namespace, streams: Streams, watch: Watch) -> None:
        self.places = Places(arguments, watch, streams)
        elsewhere = Namespace(**{**vars(arguments), "cache": None})  # one file remembers one place: the destination
        self._others = Places(elsewhere, watch, streams, mailbox=self.places.mailbox)
        self.contents = Contents(lambda read_at, size, syntax: content_of(Distant(read_at, size), syntax, 0))
        self._streams = streams
        self._sides: dict[tuple[str, bool], Side] = {}

    @property
    def splits(self) -> int:
        """How many queries were asked in parts."""
        return sum(side.splits for side in self._sides.values())

    @property
    def trouble(self) -> str:
        """Why some list may be incomplete."""
        return next((side.trouble for side in self._sides.values() if side.trouble), "")

    async def enter(self, word: str, stack: AsyncExitStack, *, is_dest: bool = False) -> Side:
        """The side called `word`, with a session that ends with `stack`. A destination has one of its own.

        Of a place on this machine stock is taken. Raises UsageError, LocalTrouble.
        """
        key = word, is_dest
        if key not in self._sides:
            self._sides[key] = await self._open(word, stack, is_dest=is_dest)
        return self._sides[key]

    def read_again(self, word: str) -> Callable[[Holding], Holding | None] | None:
        """How a file of a folder is read again, every octet of it; None of what is no folder."""
        locator = self.places.parse(word)
        if not isinstance(locator, Folder):
            return None
        return lambda known: read_again(locator.path, known.path, known, read_whole)

    def _is_absent(self, word: str) -> bool:
        locator = self.places.parse(word)
        return isinstance(locator, Folder | Archive) and not os.path.lexists(locator.path)

    async def _open(self, word: str, stack: AsyncExitStack, *, is_dest: bool) -> Side:
        if self._is_absent(word):
            if not is_dest:
                raise LocalTrouble(f"{word} is not there", advice="Check its name")
            self._streams.warn(f"{word} is not there yet: it lacks everything")
            return Side(word, Nothing(), warn=self._streams.warn)
        places = self.places if is_dest else self._others
        place = places.open(word)
        catalogue = await place.catalogue() if isinstance(place, _Stocked) else None
        session = await stack.enter_async_context(place.session())
        side = Side(word, session, warn=self._streams.warn, catalogue=catalogue)
        if isinstance(place, _Stocked) and place.ending.truncated:
            side.trouble = place.ending.why
            side.warn(f"{word}: what it holds is not known for certain: {place.ending.why}")
        return side


@runtime_checkable
class _Stocked(Protocol):
    """A place on this machine. `ending`: how its lists end, as soon as stock was taken."""

    @property
    def ending(self) -> Ending: ...

    async def catalogue(self) -> Catalogue:
        """What is there, as of this run."""
