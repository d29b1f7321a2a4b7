"""Two places as one: one that is asked what there is, and another that gives it.

Owns nothing but that: both are places by themselves, of any kind. The one that gives is opened when something is to be
fetched, so that a question pays for the one that is asked alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Protocol, runtime_checkable

from msgspec.structs import replace

from dcmsync import contract
from dcmsync.contract import (
    Ask,
    Attributes,
    Describes,
    Description,
    Ending,
    Level,
    Manner,
    Mannered,
    Receiver,
    Source,
    Want,
)
from dcmsync.errors import UsageError
from dcmsync.quirks import Quirks, quirks_of


@runtime_checkable
class Echoes(Protocol):
    """A place that says whether it answers."""

    async def echo(self) -> int:
        """0 when it does. Raises PeerError."""


class Paired:
    """A place that has the name of the one that is asked. `giver` opens the other, whose `quirks` are known before."""

    def __init__(self, asked: Source, giver: Callable[[], Source], quirks: Quirks = Quirks()) -> None:  # noqa: B008
        self.name = asked.name
        self._asked = asked
        self._giver = giver
        self._quirks = quirks

    async def echo(self) -> int:
        """0 when both answer, as far as they can be asked to; else what one of them says. Raises PeerError."""
        for place in (self._asked, self._giver()):
            status = await place.echo() if isinstance(place, Echoes) else 0
            if status:
                return status
        return 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session with both."""
        async with AsyncExitStack() as stack:
            asked = await stack.enter_async_context(self._asked.session())
            yield Session(self.name, asked, self._giver, self._quirks, stack)


class Session:
    """Satisfies contract.Session, and contract.Describes where one of the two does. The session with the giver ends
    with `stack`. The quirks are those of the place that is asked; whether lists of UIDs may be fetched is the other's
    to say.
    """

    def __init__(
        self, name: str, asked: contract.Session, giver: Callable[[], Source], quirks: Quirks, stack: AsyncExitStack
    ) -> None:
        self.quirks = replace(quirks_of(asked), no_uid_lists=quirks.no_uid_lists)
        self._name = name
        self._asked = asked
        self._giver = giver
        self._stack = stack
        self._giving: contract.Session | None = None

    def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """What the place that is asked says."""
        return self._asked.find(ask)

    async def manner(self, level: Level) -> Manner:
        """As the place that is asked has it."""
        return await self._asked.manner(level) if isinstance(self._asked, Mannered) else Manner()

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """What the other gives; its instances are asked for first, where none are named."""
        if not want.instances:
            want = replace(want, instances=await self._instances(want))
        return await (await self._given()).fetch(want, receiver)

    async def describe(self, want: Want) -> AsyncGenerator[Description, None]:
        """What the place that is asked says, else the other. Raises UsageError where neither describes anything."""
        describing = self._asked if isinstance(self._asked, Describes) else await self._given()
        if not isinstance(describing, Describes):
            raise UsageError(
                f"{self._name} does not tell metadata, and who gives its instances does not either",
                advice="DICOMweb services do; of others, pull the instances, and use dcmsync dump",
            )
        async with aclosing(describing.describe(want)) as descriptions:
            async for description in descriptions:
                yield description

    async def rest(self) -> None:
        """Both let go of what they give to one at a time."""
        await self._asked.rest()
        if self._giving is not None:
            await self._giving.rest()

    async def _given(self) -> contract.Session:
        """The session with the giver."""
        if self._giving is None:
            self._giving = await self._stack.enter_async_context(self._giver().session())
        return self._giving

    async def _instances(self, want: Want) -> dict[str, str]:
        """SOP Instance UID -> SOP Class UID of a series, as the place that is asked tells them."""
        keys = {"StudyInstanceUID": want.study_uid, "SeriesInstanceUID": want.series_uid, "SOPInstanceUID": ""}
        found: dict[str, str] = {}
        async with aclosing(self._asked.find(Ask(level=Level.INSTANCE, keys=keys, wanted=("SOPClassUID",)))) as answers:
            async for answer in answers:
                if not isinstance(answer, Ending) and answer.get("SOPInstanceUID"):
                    found[str(answer["SOPInstanceUID"])] = str(answer.get("SOPClassUID", ""))
        return found
