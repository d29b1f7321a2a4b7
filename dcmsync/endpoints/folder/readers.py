"""Processes that examine files for one that takes stock, so that many files use all cores.

Owns starting, feeding and ending them. Refuses to depend on them: what one does not answer is examined here.

Theory of operation. A reader is this interpreter, started afresh: a copy by fork(2) would share locks, threads and the
connection of the cache. It knows this process's import path and nothing else of it, has no standard streams but two
pipes, and a session of its own, so that no key pressed on the terminal reaches it. It ends when its input does, also
when the parent was killed. A lot of paths goes in, what is known of each comes out; a thread a reader waits for it.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from struct import Struct as Layout
from typing import IO

import msgspec
from msgspec.structs import replace

from dcmsync.contract import Holding
from dcmsync.endpoints.folder.examination import examine

FILES_AT_ONCE = 100
MAX_READERS = 8

_LENGTH = Layout("<I")
_MAIN = "import sys; sys.path[:] = {path!r}; from dcmsync.endpoints.folder.readers import answer_all; answer_all()"

Answer = tuple[str, Holding | None, str]
"""A path, what is to be remembered of it (nothing where no regular file is), and why it cannot be read."""

Examine = Callable[[str, str], Holding | None]


class _Said(msgspec.Struct, array_like=True):
    """One answer on the pipe, where paths are octets: they may be no UTF-8."""

    holding: Holding | None
    why: str


_encode = msgspec.msgpack.Encoder().encode
_decode_answers = msgspec.msgpack.Decoder(list[_Said]).decode
_decode_question = msgspec.msgpack.Decoder(list[bytes]).decode


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def examine_here(root: str, paths: Iterable[str], examine: Examine) -> Iterator[Answer]:
    """What is known of each file, examined in this process."""
    for path in paths:
        try:
            yield path, examine(root, path), ""
        except OSError as trouble:
            yield path, None, (trouble.strerror or "unreadable").lower()


def examine_there(root: str, paths: Iterable[str], *, readers: int) -> Iterator[Answer]:
    """The same by its headers, in order, by that many processes."""
    left = iter(paths)
    idle: SimpleQueue[_Reader] = SimpleQueue()
    all_readers = [_Reader(root) for _ in range(min(readers, MAX_READERS))]
    for reader in all_readers:
        idle.put(reader)

    def ask(lot: list[str]) -> list[Answer]:
        reader = idle.get()
        try:
            return reader.ask(lot) or list(examine_here(root, lot, examine))
        finally:
            idle.put(reader)

    pending: deque[Future[list[Answer]]] = deque()
    threads = ThreadPoolExecutor(len(all_readers))
    try:
        while lot := list(islice(left, FILES_AT_ONCE)):
            pending.append(threads.submit(ask, lot))
            if len(pending) > 3 * len(all_readers):
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        threads.shutdown()
        for reader in all_readers:
            reader.close()


class _Reader:
    """One process. For one thread at a time."""

    def __init__(self, root: str) -> None:
        self._root = root
        path = [each for each in sys.path if each]
        line = [sys.executable, "-I", "-S", "-c", _MAIN.format(path=path)]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError:
            pass

    def ask(self, paths: list[str]) -> list[Answer]:
        """The answers; none when the process is out of order."""
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            return []
        try:
            _write(self._process.stdin, _encode([os.fsencode(self._root), *map(os.fsencode, paths)]))
            octets = _read(self._process.stdout)
            said = _decode_answers(octets) if octets else []
        except (OSError, msgspec.MsgspecError):
            said = []
        if len(said) != len(paths):
            self.close()
            return []
        return [
            (path, each.holding and replace(each.holding, path=path), each.why)
            for path, each in zip(paths, said, strict=True)
        ]

    def close(self) -> None:
        """Ends the process. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # it holds nothing that could be lost
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass
        process.wait()


def answer_all() -> None:
    """Answers what comes on standard input, to its end: the whole of a reader."""
    source, sink = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    while octets := _read(source):
        root, *paths = map(os.fsdecode, _decode_question(octets))
        answers = examine_here(root, paths, examine)
        said = [_Said(holding and replace(holding, path=""), why) for _, holding, why in answers]
        _write(sink, _encode(said))


def _write(sink: IO[bytes], octets: bytes) -> None:
    sink.write(_LENGTH.pack(len(octets)))
    sink.write(octets)
    sink.flush()


def _read(source: IO[bytes]) -> bytes:
    """The next lot; nothing at the end."""
    head = source.read(_LENGTH.size)
    return source.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
