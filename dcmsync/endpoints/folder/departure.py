"""The last step of a move or a mirror: a file goes, once its instance is proven elsewhere, or gone from its source.

Owns that what goes is the very file that was read. Refuses to know whether that is so: whoever calls knows.
"""

import os

from dcmsync.contract import Holding, Origin, Stamp
from dcmsync.endpoints.folder.stamp import stamp_from
from dcmsync.errors import LocalTrouble


def remove(origin: Origin) -> None:
    """Unlinks the file, durably; one that is gone is as good. Raises LocalTrouble: it changed, or must stay."""
    _remove(origin.path, origin.stamp)


def remove_holding(root: str, holding: Holding) -> None:
    """Unlinks a file below `root` that a catalogue knows of; as above."""
    _remove(os.path.join(os.path.realpath(root), holding.path), holding.stamp)


def is_entry(origin: Origin, root: str, path: str) -> bool:
    """Whether a path below `root` is the very directory entry that the origin is, under whatever name of its folder."""
    folder, name = os.path.split(os.path.join(root, path))
    own_folder, own_name = os.path.split(origin.path)
    try:
        return name == own_name and os.path.samefile(folder or ".", own_folder)
    except OSError:
        return False


def _remove(path: str, stamp: Stamp) -> None:
    folder, name = os.path.split(path)
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as trouble:
        raise LocalTrouble((trouble.strerror or "unknown error").lower()) from trouble
    try:
        if stamp_from(os.stat(name, dir_fd=folder_fd, follow_symlinks=False)) != stamp:
            raise LocalTrouble("it changed after it was read, and stays", advice="Run the same command again")
        os.unlink(name, dir_fd=folder_fd)
        os.fsync(folder_fd)
    except FileNotFoundError:
        return
    except OSError as trouble:
        raise LocalTrouble((trouble.strerror or "unknown error").lower()) from trouble
    finally:
        os.close(folder_fd)
