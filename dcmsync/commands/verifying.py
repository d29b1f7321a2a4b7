"""What `verify` does: the wiring of claims on standard input with the places that they name.

Owns the order of things, and what makes the answer incomplete. Refuses to judge.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import msgspec

from dcmsync.commands.options import Streams
from dcmsync.commands.printer import Printer
from dcmsync.commands.sides import Sides
from dcmsync.errors import DcmsyncError, ExitStatus, InputError, UsageError
from dcmsync.net.patience import Watch
from dcmsync.plan.proof import Claim, Lowest, claim_of, portion
from dcmsync.records.stream import Reader
from dcmsync.transfer.feed import Feed
from dcmsync.transfer.verification import Settings, Spot, Verification, chosen, together


class Verifying:
    """One run of `verify`."""

    def __init__(self, arguments: Namespace, streams: Streams, watch: Watch) -> None:
        self._arguments, self._streams = arguments, streams
        self._portion = portion(arguments.sample)
        self.sides = Sides(arguments, streams, watch)
        if arguments.at is not None:
            self.sides.places.parse(arguments.at)
        self._printer = Printer(streams, arguments.format, shown="table")
        self._stack = AsyncExitStack()
        self._passed_by = 0

    async def run(self) -> ExitStatus:
        """Writes the outcomes, and the end."""
        reader = Reader(self._streams.stdin, require_end=self._arguments.require_end)
        try:
            async with self._stack:
                status = await self._verify(reader)
        except DcmsyncError as error:
            self._printer.end(complete=False, reason=error.reason)
            raise
        trouble = reader.trouble or self.sides.trouble
        if self._passed_by:
            self._streams.warn(f"records that claim nothing of any place were passed by: {self._passed_by}")
        self._printer.end(complete=not trouble, reason=trouble)
        return max(status, ExitStatus.INCOMPLETE if trouble else status)

    async def _verify(self, reader: Reader) -> ExitStatus:
        groups: AsyncIterator[list[Claim]] = aiter(Feed(together(self._claims(reader))))
        settings = Settings(
            holds=self._portion if not isinstance(self._portion, Lowest) else self._portion.is_chosen,
            read_data=self._arguments.read_data,
            itemize=self._arguments.itemize,
        )
        verification: Verification = Verification(
            settings, spot=self._spot, contents=self.sides.contents, write=self._printer.write
        )
        if isinstance(self._portion, Lowest):
            groups = chosen(groups, self._portion, verification)
        async for claims in groups:
            try:
                await verification.run(claims)
            except UsageError as error:
                raise InputError(error.message, line=claims[0].number, advice=error.advice) from error
        return verification.status

    def _claims(self, reader: Reader) -> Iterator[Claim]:
        """What the records claim."""
        decode = msgspec.json.Decoder(dict[str, object]).decode
        for line in reader:
            claim = claim_of(decode(line.raw), line.number, self._arguments.at)
            if claim is None:
                self._passed_by += 1
            else:
                yield claim

    async def _spot(self, word: str) -> Spot:
        """The place called `word`."""
        side = await self.sides.enter(word, self._stack, is_dest=True)
        return Spot(side=side, read_again=self.sides.read_again(word))
