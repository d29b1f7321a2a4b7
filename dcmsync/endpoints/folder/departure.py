"""The last step of a move: the file that an instance came from goes, once it is proven elsewhere.

Owns that what goes is the very file that was read. Refuses to know whether the instance is proven: whoever calls knows.
"""

import os

from dcmsync.contract import Origin
from dcmsync.endpoints.folder.adoption import stamp_from
from dcmsync.errors import LocalTrouble


def remove(origin: Origin) -> None:
    """Unlinks the file, durably; one that is gone is as good. Raises LocalTrouble: it changed, or must stay."""
    folder, name = os.path.split(origin.path)
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as trouble:
        raise LocalTrouble((trouble.strerror or "unknown error").lower()) from trouble
    try:
        if stamp_from(os.stat(name, dir_fd=folder_fd, follow_symlinks=False)) != origin.stamp:
            raise LocalTrouble("it changed after it was read, and stays", advice="Run the same command again")
        os.unlink(name, dir_fd=folder_fd)
        os.fsync(folder_fd)
    except FileNotFoundError:
        return
    except OSError as trouble:
        raise LocalTrouble((trouble.strerror or "unknown error").lower()) from trouble
    finally:
        os.close(folder_fd)
