"""What is remembered of an archive, held against its directory: how much of it stands, and what is no more.

Refuses to read members, and to bring anything up to date (`stock` does).
"""

from collections.abc import Mapping

from dcmsync.contract import Catalogue
from dcmsync.endpoints.zip.reader import Reader
from dcmsync.errors import LocalTrouble


def differences(path: str, catalogue: Catalogue) -> Mapping[str, int]:
    """How many members are the same as they are remembered, changed, new and gone. Raises LocalTrouble.

    An archive that was written anew has changed altogether, whatever its members hold.
    """
    counts = {"same": 0, "changed": 0, "new": 0, "gone": 0}
    left = dict(catalogue.stamps())
    for name, stamp in _members(path).items():
        held = left.pop(name, None)
        counts["new" if held is None else "same" if held == stamp else "changed"] += 1
    return {**counts, "gone": len(left)}


def forget_gone(path: str, catalogue: Catalogue) -> None:
    """Forgets the members that are no more. What is no archive, or none at this moment, is left alone."""
    try:
        members = _members(path)
    except LocalTrouble:
        return
    catalogue.forget([name for name, _ in catalogue.stamps() if name not in members])


def _members(path: str) -> Mapping[str, object]:
    """The stamps of all members, by path."""
    try:
        with Reader(path) as reader:
            return {name: member.stamp for name, member in reader.members.items()}
    except OSError as trouble:
        raise LocalTrouble(f"{path} cannot be read: {trouble.strerror}") from trouble
