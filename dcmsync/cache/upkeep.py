"""Records of caches: what each remembers, and whether it still stands.

Owns the record of type "cache", and which caches may be removed. Refuses to read the places that they remember.
"""

from collections.abc import Mapping

from dcmsync.cache import schema
from dcmsync.cache.store import Store
from dcmsync.errors import LocalTrouble
from dcmsync.records.paths import path_keys


def describe(
    root: str, path: str, store: Store | None = None, differences: Mapping[str, int] | None = None
) -> Mapping[str, object]:
    """The record of a cache; without a store, of a file that remembers nothing or cannot be asked."""
    record: dict[str, object] = {"type": "cache", **_said("file", path), **(_said("source", root) if root else {})}
    if store is None:
        return {**record, "octets": schema.octets(path)}
    status = store.status()
    return {
        **record,
        "format": status.format,
        "journal": status.journal,
        "octets": status.octets,
        "studies": status.studies,
        "series": status.series,
        "instances": status.instances,
        "hashed": status.hashed,
        **{state.replace(" ", "_"): count for state, count in status.states.items()},
        **(differences or {}),
    }


def remove(root: str, path: str) -> Mapping[str, object]:
    """Removes the cache of a place that is gone, or that cannot be told, unless a newer version made it.

    Raises LocalTrouble.
    """
    record = describe(root, path)
    if not root and schema.look(path) not in ("ours", "empty"):
        return record
    try:
        schema.remove(path)
    except OSError as trouble:
        raise LocalTrouble(f"a cache cannot be removed: {(trouble.strerror or 'unknown error').lower()}") from trouble
    return {**record, "removed": True}


def _said(key: str, path: str) -> dict[str, object]:
    return {key: path_keys(path)["path"]}
