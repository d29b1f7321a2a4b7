"""Instances -> batches that one association and one retrieval can carry.

Owns the cut by SOP class, so that each class gets a presentation context for every transfer syntax, and the cut by
number, so that a list of UIDs stays short. Pure.
"""

from collections.abc import Iterator, Mapping

CLASSES_PER_ASSOCIATION = 4  # 126 contexts for storage, 30 transfer syntaxes each
UIDS_PER_RETRIEVAL = 100


def batches(
    lacking: Mapping[str, str], *, whole: bool, one_by_one: bool = False, takes_lists: bool = True
) -> Iterator[tuple[dict[str, str], bool]]:
    """(instances, whether to ask for the series as a whole) for each retrieval that brings what lacks.

    `lacking`: SOP Instance UID -> SOP Class UID. `whole`: nothing of the series is there, so that its own UID may be
    asked for. `one_by_one` isolates an instance that makes a peer fail. `takes_lists`: of UIDs.
    """
    classes = sorted(set(lacking.values()))
    groups = [classes[at : at + CLASSES_PER_ASSOCIATION] for at in range(0, len(classes), CLASSES_PER_ASSOCIATION)]
    if whole and not one_by_one and len(groups) == 1:
        yield dict(lacking), True
        return
    size = 1 if one_by_one or not takes_lists else UIDS_PER_RETRIEVAL
    for group in groups:
        uids = [uid for uid, kind in lacking.items() if kind in group]
        for at in range(0, len(uids), size):
            yield {uid: lacking[uid] for uid in uids[at : at + size]}, False
