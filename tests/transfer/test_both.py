"""Two things done at the same time: both come, or the worse of what went wrong."""

import anyio
import pytest

from dcmsync.errors import LocalTrouble, Stalled
from dcmsync.transfer.both import both


async def give(word: str) -> str:
    await anyio.lowlevel.checkpoint()
    return word


def test_both_are_given_in_their_order() -> None:
    assert anyio.run(both, lambda: give("a"), lambda: give("b")) == ("a", "b")


def test_each_works_while_the_other_does() -> None:
    async def main() -> tuple[str, str]:
        begun = [anyio.Event(), anyio.Event()]

        async def meet(mine: int) -> str:
            begun[mine].set()
            await begun[1 - mine].wait()
            return str(mine)

        with anyio.fail_after(5):
            return await both(lambda: meet(0), lambda: meet(1))

    assert anyio.run(main) == ("0", "1")


@pytest.mark.parametrize("is_turned", [False, True])
def test_the_worse_trouble_comes_out_alone(is_turned: bool) -> None:
    async def main() -> None:
        failed = anyio.Event()

        async def stall() -> None:
            failed.set()
            raise Stalled("late")

        async def fill() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise LocalTrouble("full")

        await (both(fill, stall) if is_turned else both(stall, fill))

    with pytest.raises(LocalTrouble):
        anyio.run(main)


def test_where_one_fails_the_other_is_cancelled() -> None:
    cancelled: list[bool] = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise Stalled("late")

    with pytest.raises(Stalled):
        anyio.run(both, wait, fail)
    assert cancelled == [True]
