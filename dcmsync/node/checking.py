"""Whether instances are held: their files read to the end, and on the disk for good (PS3.4 §J.1.1).

Owns the rule of what counts as held: a whole file of that instance and class, fsynced with its folder. Refuses to
remember anything. Runs in worker threads.
"""

import os
from collections.abc import Sequence

from dcmsync.endpoints.folder.scan import examine
from dcmsync.node.index import Image
from dcmsync.wire.dimse.commitment import CLASS_CONFLICT, NO_SUCH_INSTANCE, PROCESSING_FAILURE, Reference

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def check(root: str, references: Sequence[Reference], images: Sequence[Image | None]) -> list[int]:
    """The Failure Reason of each reference, 0 where it is held; `images` is what the index knows of each."""
    folders: set[str] = set()
    return [_reason(root, *pair, folders) for pair in zip(references, images, strict=True)]


def _reason(root: str, reference: Reference, image: Image | None, folders: set[str]) -> int:
    if image is None:
        return NO_SUCH_INSTANCE
    if image.sop_class_uid != reference.sop_class_uid:
        return CLASS_CONFLICT
    path = os.path.join(root, image.path)
    try:
        _synchronise(path, _OPEN)
        found = examine(root, image.path)
        if found is None or not found.is_instance or found.sop_instance_uid != image.uid:
            return NO_SUCH_INSTANCE
        folder = os.path.dirname(path)
        if folder not in folders:
            _synchronise(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            folders.add(folder)
    except FileNotFoundError:
        return NO_SUCH_INSTANCE
    except OSError:
        return PROCESSING_FAILURE
    return 0


def _synchronise(path: str, flags: int) -> None:
    """Has what was written there reach the disk. Raises OSError."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
