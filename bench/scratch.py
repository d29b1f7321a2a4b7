"""Folders to measure in, and when they are thrown away.

Every run gets a fresh folder. On a tmpfs it is thrown away right after the run; on a disk only at the very end, because
ext4 takes thousands of freed inodes into use again slowly, and the next run would pay for it.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

MEMORY = Path("/dev/shm")


class Scratch:
    """A folder on the disk and, where there is one with room, a folder on a tmpfs. Use it in a `with`."""

    def __init__(self) -> None:
        self.disk = Path(tempfile.mkdtemp(prefix="dcmsync-bench-"))
        self._memory: Path | None = None
        self._count = 0

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        for folder in (self.disk, self._memory):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def fast(self, octets: int) -> tuple[Path, str]:
        """A folder to keep `octets` in, and where it is: "tmpfs", or "disk" where the machine has no tmpfs with room.

        Twice as much must be free, both there and in memory: a tmpfs is memory.
        """
        if 2 * octets > min(room(MEMORY), _free_memory()):
            return self.disk, "disk"
        if self._memory is None:
            self._memory = Path(tempfile.mkdtemp(prefix="dcmsync-bench-", dir=MEMORY))
        return self._memory, "tmpfs"

    def fresh(self, place: Path) -> Path:
        """A new empty folder below `place`."""
        self._count += 1
        folder = place / f"run{self._count:03d}"
        folder.mkdir(parents=True)
        return folder

    def release(self, folder: Path) -> None:
        """The run in `folder` is over."""
        if self._memory is not None and self._memory in folder.parents:
            shutil.rmtree(folder)


def room(folder: Path) -> int:
    """How many octets are free there; 0 where there is no such folder."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return 0


def count_files(folder: Path) -> int:
    """How many files lie below `folder`; what is hidden is somebody's work in progress."""
    count = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += len(files)
    return count


def _free_memory() -> int:
    with suppress(OSError, KeyError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(dict(line.split(":", 1) for line in lines)["MemAvailable"].split()[0]) * 1024
    return 0
