"""Two things done at the same time, for who needs both: the two sides of a comparison work while the other one does.

Owns that the error which counts comes out alone. Refuses to go on with one where the other failed.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from dcmsync.errors import DcmsyncError

First = TypeVar("First")
Second = TypeVar("Second")


async def both(first: Callable[[], Awaitable[First]], second: Callable[[], Awaitable[Second]]) -> tuple[First, Second]:
    """What the two give. Raises the worse of what they raise; the other one is cancelled."""
    found: list[First] = []

    async def do_first() -> None:
        found.append(await first())

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(do_first)
            other = await second()
    except BaseExceptionGroup as group:
        raise worst(group) from None
    return found[0], other


def worst(group: BaseExceptionGroup) -> BaseException:
    """The exception that counts, of those that ended a task group."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        else:
            leaves.append(error)
    return max(leaves, key=lambda leaf: leaf.exit_status if isinstance(leaf, DcmsyncError) else 1 << 8)
