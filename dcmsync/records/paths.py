"""Names of files in records: JSON is text, and the name of a file is octets.

Owns the keys `path` and `path_octets`, both ways. Paths are as Python has them: what is no UTF-8 is a surrogate
(PEP 383).
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping


def path_keys(path: str) -> dict[str, object]:
    """The keys that say a path. One that is no UTF-8 has U+FFFD where it is not, and its octets in base64 besides."""
    octets = path.encode("utf-8", "surrogateescape")
    said = octets.decode("utf-8", "replace")
    if said == path:
        return {"path": said}
    return {"path": said, "path_octets": b64encode(octets).decode("ascii")}


def path_in(record: Mapping[str, object]) -> str:
    """The path that a record says, or "". Raises ValueError when its octets are no base64."""
    octets, path = record.get("path_octets"), record.get("path")
    if isinstance(octets, str):
        return b64decode(octets, validate=True).decode("utf-8", "surrogateescape")
    return path if isinstance(path, str) else ""
