"""What a file system says of a file, and how far that can be believed.

Owns stamps of files. Refuses to read files.

A clock ticks: what changes a file within the tick in which it was read leaves its time as it was (git calls such files
racy). A file that young is remembered with a time that no file has, so that the next run reads it once more.
"""

import os

from msgspec.structs import replace

from dcmsync.contract import Holding, Stamp

TICK_NS = 20_000_000  # no kernel's clock for files ticks slower than 100 times a second
COARSE_TICK_NS = 2_000_000_000  # FAT; a file system that counts seconds shows it by times without a fraction
NO_TIME_NS = -(1 << 63)


def stamp_of(descriptor: int) -> Stamp:
    """What the file system says of an open file. Raises OSError."""
    return stamp_from(os.fstat(descriptor))


def stamp_from(status: os.stat_result) -> Stamp:
    """The stamp in what stat(2) gave."""
    return Stamp(size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino)


def believable(holding: Holding, read_at_ns: int) -> Holding:
    """What may be remembered of a file that was opened at that moment (ns since 1970)."""
    modified_ns = holding.stamp.mtime_ns
    tick_ns = COARSE_TICK_NS if modified_ns % 1_000_000_000 == 0 else TICK_NS
    if modified_ns < read_at_ns - tick_ns:
        return holding
    return replace(holding, stamp=replace(holding.stamp, mtime_ns=NO_TIME_NS))
