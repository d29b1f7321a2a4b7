"""`dcmsync verify`: help, options, and the wiring of claims on standard input with the places that they name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from dcmsync.commands.options import (
    CACHE,
    CALLING,
    FORMAT,
    NO_CACHE,
    REQUIRE_END,
    TIMEOUT,
    Command,
    Option,
    Streams,
)
from dcmsync.errors import DcmsyncError, ExitStatus, InputError, UsageError

if TYPE_CHECKING:
    from dcmsync.net.patience import Watch
    from dcmsync.plan.proof import Claim
    from dcmsync.records.stream import Reader
    from dcmsync.transfer.verification import Spot, Verification

COMMAND = Command(
    name="verify",
    summary="see whether things are there, whole, and the same; writes outcomes",
    description=(
        "Reads records or outcomes from standard input, and looks whether what each names is where it says: records at "
        "their `source`, outcomes at their `destination`, all of them at the place that --at names. Writes an outcome "
        "for each, `present` or `failed`, in the same order; `message` says how far the proof goes. What a digest "
        "cannot be compared with is present by its UID.\n\n"
        "Of a study or series the number of instances is held against what the record claims; with --at, the instances "
        "are compared one by one with those that the record's own source lists. A digest of the data set (`content`) "
        "decides before one of the file (`digest`), which counts only at the place that it was made of.\n\n"
        "Local files are believed while their size and time are as recorded, unless --read-data reads every octet "
        "again; a file whose octets changed without a trace is `rotten`, is remembered as such, and the next sync "
        "replaces it. Of a remote place --read-data fetches the instances, and keeps nothing. --sample chooses the "
        "instances by a hash of their UID; studies and series are counted whole all the same.\n\n"
        "The exit status is 1 when something is not there, or not the same."
    ),
    options=(
        Option(flags=("--at",), metavar="ENDPOINT", completion="endpoint",
               help="look there, wherever the records say the things are"),
        Option(flags=("--read-data",), help="read every octet again: of files, or by fetching them"),
        Option(flags=("--sample",), metavar="P%|N|n/t",
               help="only some of the instances: P percent, N of them, or the n-th of t slices"),
        Option(flags=("--itemize", "-i"), help="one outcome for each instance, not only for those that are not fine"),
        CACHE,
        NO_CACHE,
        FORMAT,
        TIMEOUT,
        CALLING,
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync verify < pulled.ndjson", "is all that was pulled still there?"),
        ("dcmsync query ./archive | dcmsync verify --read-data --sample 3/30", "a thirtieth of the archive, tonight"),
        ("dcmsync query old-pacs StudyDate=2023* | dcmsync verify --at new-pacs", "has the migration lost anything?"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Verifies what standard input names."""
    if not streams.stdin_is_pipe:
        raise UsageError("verify reads records or outcomes from standard input, and there are none",
                         advice="Write: dcmsync query ./archive | dcmsync verify")
    import anyio

    from dcmsync.net.patience import Watch

    with Watch() as watch:
        verify = _Verify(arguments, streams, watch)
        return anyio.run(verify.sides.places.receiving, verify.run)


class _Verify:
    """One run of the verb."""

    def __init__(self, arguments: Namespace, streams: Streams, watch: Watch) -> None:
        from dcmsync.commands.printer import Printer
        from dcmsync.commands.sides import Sides
        from dcmsync.plan.proof import portion

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
        from dcmsync.records.stream import Reader

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
        from dcmsync.plan.proof import Lowest
        from dcmsync.transfer.feed import Feed
        from dcmsync.transfer.verification import Settings, Verification, chosen, together

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
        import msgspec

        from dcmsync.plan.proof import claim_of

        decode = msgspec.json.Decoder(dict[str, object]).decode
        for line in reader:
            claim = claim_of(decode(line.raw), line.number, self._arguments.at)
            if claim is None:
                self._passed_by += 1
            else:
                yield claim

    async def _spot(self, word: str) -> Spot:
        """The place called `word`."""
        from dcmsync.transfer.verification import Spot

        side = await self.sides.enter(word, self._stack, is_dest=True)
        return Spot(side=side, read_again=self.sides.read_again(word))
