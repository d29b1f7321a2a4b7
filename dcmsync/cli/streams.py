"""Standard input and output: opened here and nowhere else, in binary, and handed to the verb.

Text is UTF-8 whatever the locale says, since nobody here asks the locale. Records are flushed by those who write them.
"""

import os
import stat
import sys
from collections.abc import Callable
from io import BufferedReader, BufferedWriter, FileIO
from typing import TYPE_CHECKING

from dcmsync.cli import terminal
from dcmsync.commands.options import Meter, Streams
from dcmsync.errors import LocalTrouble

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BUFFER_OCTETS = 65536


class ReaderGone(BrokenPipeError):
    """Whoever read our standard output has left."""


def open_stdout() -> BufferedWriter:
    """Standard output, buffered; each of 0, 1 and 2 is a real file descriptor from here on."""
    _fill_closed_descriptors()
    return BufferedWriter(_Stdout(1, "wb", closefd=False), buffer_size=_BUFFER_OCTETS)


def abandon(stdout: BufferedWriter) -> None:
    """Lets go of standard output. What could not be written goes to /dev/null, so that nobody tries again at exit."""
    try:
        stdout.flush()
    except (OSError, LocalTrouble):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def open_streams(stdout: BufferedWriter, messages: terminal.Messages) -> Streams:
    """What a verb is handed."""
    stderr_is_terminal = terminal.is_terminal(sys.stderr)

    def start_meter() -> Meter:
        bar = terminal.Progress(shown=stderr_is_terminal and not messages.quiet and not messages.as_json)
        if os.isatty(1) and isinstance(stdout.raw, _Stdout):
            stdout.raw.before_write = bar.step_aside  # else records would be written into the bar
        return bar

    return Streams(
        stdin=BufferedReader(FileIO(0, "rb", closefd=False), buffer_size=_BUFFER_OCTETS),
        stdout=stdout,
        say=messages.say,
        warn=messages.warn,
        note=messages.note,
        stdin_is_pipe=_is_pipe(0),
        is_terminal=os.isatty(1),
        stderr_is_terminal=stderr_is_terminal,
        meter=start_meter,
    )


class _Stdout(FileIO):
    """File descriptor 1. A reader that left is told from a socket that broke; other trouble is this machine's."""

    before_write: Callable[[], None] | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        """The octets written, all or some; waits where a terminal or pipe was left non-blocking by someone else."""
        if self.before_write:
            self.before_write()
        try:
            while (count := super().write(data)) is None:
                _wait_until_writable(self.fileno())
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise LocalTrouble(f"standard output cannot be written: {error.strerror}") from error
        return count


def _wait_until_writable(descriptor: int) -> None:
    import select  # lazy: hardly ever needed

    select.select([], [descriptor], [])


def _fill_closed_descriptors() -> None:
    """Opens /dev/null, the wrong way round, where 0, 1 or 2 was closed: no socket or file may land on that number.

    Writing to a closed standard output then fails, as it should.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)


def _is_pipe(descriptor: int) -> bool:
    """Whether someone put data there: a pipe, a file or a socket; not a terminal, and not /dev/null."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
