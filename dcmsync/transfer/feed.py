"""Records from a blocking stream, for an event loop: read in a thread of their own, a bounded number ahead.

The thread is a daemon: a producer that never ends must not keep the process from ending. An error of the stream is
kept and raised in its turn, after the records that came before it.
"""

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

_AHEAD = 64

Item = TypeVar("Item")


class Feed(Generic[Item]):
    """An asynchronous iterator over a blocking iterable. Made and used in the event loop."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items
        self._ready: deque[Item] = deque()
        self._error: Exception | None = None
        self._ended = False
        self._slots = threading.Semaphore(_AHEAD)
        self._come = anyio.Event()
        self._token = anyio.lowlevel.current_token()
        threading.Thread(target=self._read, name="dcmsync-feed", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[Item]:
        while True:
            while self._ready:
                self._slots.release()
                yield self._ready.popleft()
            if self._ended:
                if self._error is not None:
                    raise self._error
                return
            self._come = anyio.Event()
            if not self._ready and not self._ended:
                await self._come.wait()

    def _read(self) -> None:
        try:
            for item in self._items:
                self._slots.acquire()
                self._tell(item)
        except Exception as error:  # noqa: BLE001  # handed to the loop, which raises it
            self._error = error
        self._tell(None)

    def _tell(self, item: Item | None) -> None:
        try:
            anyio.from_thread.run_sync(self._put, item, token=self._token)
        except RuntimeError:
            return  # the loop has ended: nobody waits for more

    def _put(self, item: Item | None) -> None:
        if item is None:
            self._ended = True
        else:
            self._ready.append(item)
        self._come.set()
