"""Single files as a place to bring things from: a folder that consists of them and of nothing else.

Owns what is known of them, for this run only: what is remembered of their folder says nothing of a choice. Refuses to
look at any other file.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from dcmsync.contract import Catalogue, Holding
from dcmsync.endpoints import Setting
from dcmsync.endpoints.folder.examination import examine
from dcmsync.endpoints.folder.place import FolderPlace
from dcmsync.endpoints.folder.readers import cores, examine_here, examine_there
from dcmsync.endpoints.folder.scan import Skip
from dcmsync.endpoints.folder.stock import FEW_FILES
from dcmsync.locator import Folder


def open_files(root: str, paths: Iterable[str], setting: Setting) -> FolderPlace:
    """The files with these paths below `root`, as one place. Looks at nothing yet."""
    chosen = sorted(set(paths), key=os.fsencode)

    def take(path: str, catalogue: Catalogue, skipped: Skip) -> None:
        catalogue.remember(_examined(path, chosen, skipped))

    return FolderPlace(Folder(root), setting, take)


def _examined(root: str, paths: list[str], skipped: Skip) -> Iterator[Holding]:
    """What is known of each file that can be read."""
    left = iter(paths)
    first = list(islice(left, FEW_FILES))
    if len(first) < FEW_FILES or cores() == 1:
        answers = examine_here(root, chain(first, left), examine)
    else:
        answers = examine_there(root, chain(first, left), readers=cores())
    for path, holding, why in answers:
        if why:
            skipped(path, why)
        if holding is not None:
            yield holding
