"""The files of a folder as they are now, and how they differ from what is remembered of them.

Owns the order in which a folder is gone through. Refuses to follow links, and to open files.

Theory of operation. Files come in the order of the octets of their paths, as a catalogue gives them, so that the two
can be compared without ever holding either as a whole. That is the order of a walk that takes the names of a folder
together, those of folders with a slash behind them.
"""

import os
from collections.abc import Iterator, Mapping
from operator import itemgetter

from dcmsync.contract import Catalogue, Stamp
from dcmsync.endpoints.folder.scan import A_LINK, OWN_PREFIX, Skip
from dcmsync.endpoints.folder.stamp import stamp_from
from dcmsync.errors import LocalTrouble

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def ignore(path: str, why: str) -> None:
    """Does nothing about what is passed by."""


def tree(root: str, skipped: Skip = ignore) -> Iterator[tuple[str, Stamp]]:
    """The regular files below `root` with their stamps, by the octets of their paths. Nothing where `root` is not.

    Raises LocalTrouble when `root` cannot be read.
    """
    try:
        waiting = [iter(_list(root, "", skipped))]
    except FileNotFoundError:
        return
    except OSError as trouble:
        raise LocalTrouble(f"{root} cannot be read: {(trouble.strerror or 'unknown error').lower()}") from trouble
    while waiting:
        for _, path, stamp in waiting[-1]:
            if stamp is None:
                try:
                    waiting.append(iter(_list(root, path, skipped)))
                except FileNotFoundError:
                    continue
                except OSError as trouble:
                    skipped(path, (trouble.strerror or "unreadable").lower())
                    continue
                break
            yield path, stamp
        else:
            waiting.pop()


def compared(
    root: str, catalogue: Catalogue, skipped: Skip = ignore
) -> Iterator[tuple[str, Stamp | None, Stamp | None]]:
    """Each path that is there or is remembered, with the stamp of now and the one that is remembered, where there is.

    What is remembered meanwhile does not come again, and what is forgotten meanwhile may. Raises LocalTrouble.
    """
    known = catalogue.stamps()
    held = next(known, None)
    for path, stamp in tree(root, skipped):
        while held is not None and held[0] != path and os.fsencode(held[0]) < os.fsencode(path):
            yield held[0], None, held[1]
            held = next(known, None)
        if held is None or held[0] != path:
            yield path, stamp, None
        else:
            yield path, stamp, held[1]
            held = next(known, None)
    while held is not None:
        yield held[0], None, held[1]
        held = next(known, None)


def differences(root: str, catalogue: Catalogue) -> Mapping[str, int]:
    """How many files are the same as they are remembered, changed, new and gone. Reads none. Raises LocalTrouble."""
    counts = {"same": 0, "changed": 0, "new": 0, "gone": 0}
    for _, stamp, held in compared(root, catalogue):
        counts["gone" if stamp is None else "new" if held is None else "same" if stamp == held else "changed"] += 1
    return counts


def forget_gone(root: str, catalogue: Catalogue) -> None:
    """Forgets the files that are no more, without reading any. What is no folder is left alone. Raises LocalTrouble."""
    if os.path.isdir(root):
        catalogue.forget(path for path, stamp, _ in compared(root, catalogue) if stamp is None)


def _list(root: str, folder: str, skipped: Skip) -> list[tuple[bytes, str, Stamp | None]]:
    """The files and folders of a folder, in the order of their paths' octets; folders have no stamp. Raises OSError."""
    found: list[tuple[bytes, str, Stamp | None]] = []
    descriptor = os.open(os.path.join(root, folder), _FOLDER | (os.O_NOFOLLOW if folder else 0))
    try:
        with os.scandir(descriptor) as listing:
            for entry in listing:
                if entry.name.startswith(OWN_PREFIX):  # what is being written just now
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_file(follow_symlinks=False):
                    try:
                        found.append((os.fsencode(entry.name), path, stamp_from(entry.stat(follow_symlinks=False))))
                    except FileNotFoundError:
                        pass
                elif entry.is_symlink():
                    skipped(path, A_LINK)
                elif entry.is_dir(follow_symlinks=False):
                    found.append((os.fsencode(entry.name) + b"/", path, None))
    finally:
        os.close(descriptor)
    found.sort(key=itemgetter(0))
    return found
