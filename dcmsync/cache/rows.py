"""One file of a place <-> its row: which columns there are, and the checksum over them.

Owns what is written of a Holding, and the proof that a row is as it was written. Refuses to know where rows are kept.

A page of a torn file may parse and yet be nonsense, so each row carries XXH3-64 over all that it says. SQLite itself
joins the columns to one blob (`*_OCTETS` below), so that checking a row costs one hash and no decoding.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from dcmsync.cache.digest import checksum
from dcmsync.contract import Attributes, Holding, Stamp
from dcmsync.wire import keywords

OWN = frozenset(keywords.IMAGE)
"""The attributes that differ from instance to instance; all others are kept once for those that share them."""

SERIES_OCTETS = "CAST(study_uid || char(10) || series_uid AS BLOB)"
KIND_COLUMNS = ("series_id", "sop_class_uid", "transfer_syntax_uid", "modality", "attributes")
KIND_OCTETS = f"CAST({' || char(10) || '.join(KIND_COLUMNS)} AS BLOB)"
FILE_COLUMNS = (
    "path", "size", "mtime_ns", "device", "inode", "state", "reason", "is_instance", "series_id", "kind_id",
    "sop_instance_uid", "data_set_offset", "attributes", "digest", "content", "read_ns",
)  # fmt: skip
_MAY_LACK = ("digest", "content")
FILE_OCTETS = "CAST({} AS BLOB)".format(
    " || char(10) || ".join(f"ifnull({name}, '')" if name in _MAY_LACK else name for name in FILE_COLUMNS)
)

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(dict[str, object]).decode
_SIGNED, _UNSIGNED = 1 << 63, 1 << 64


class Kind(NamedTuple):
    """What the instances of a series repeat. `attributes` is JSON."""

    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    attributes: str


def kind_of(holding: Holding) -> Kind:
    """What a file shares with others of its series."""
    shared = {keyword: value for keyword, value in holding.attributes.items() if keyword not in OWN}
    modality = shared.get("Modality")
    return Kind(
        holding.sop_class_uid,
        holding.transfer_syntax_uid,
        modality if isinstance(modality, str) else "",
        _json(shared),
    )


def file_row(holding: Holding, series_id: int, kind_id: int) -> tuple[object, ...]:
    """The values of FILE_COLUMNS, and the checksum."""
    stamp, path = holding.stamp, os.fsencode(holding.path)
    digest, content = bytes.fromhex(holding.digest), bytes.fromhex(holding.content)
    middle = (
        stamp.size,
        signed(stamp.mtime_ns),
        signed(stamp.device),
        signed(stamp.inode),
        holding.state,
        holding.reason,
        int(holding.is_instance),
        series_id,
        kind_id,
        holding.sop_instance_uid,
        holding.data_set_offset,
        _json({keyword: value for keyword, value in holding.attributes.items() if keyword in OWN}),
    )
    octets = b"%b\n%b\n%b\n%b\n%d" % (path, _said(middle), digest, content, holding.read_ns)
    return path, *middle, digest or None, content or None, holding.read_ns, checksum(octets)


def series_sum(study_uid: str, series_uid: str) -> int:
    """The checksum of a series' row."""
    return checksum(_said((study_uid, series_uid)))


def kind_sum(series_id: int, kind: Kind) -> int:
    """The checksum of a kind's row."""
    return checksum(_said((series_id, *kind)))


def stamp_of(size: int, mtime_ns: int, device: int, inode: int) -> Stamp:
    """The stamp of a row."""
    return Stamp(size=size, mtime_ns=mtime_ns, device=device % _UNSIGNED, inode=inode % _UNSIGNED)


def holding_of(row: tuple[object, ...]) -> Holding:
    """A file as it was remembered; the row has FILE_COLUMNS, the study and series UID, and the columns of its Kind."""
    (path, size, mtime_ns, device, inode, state, reason, _, _, _, instance, offset, own, digest, content, read_ns,
     study, series, sop_class, transfer_syntax, _, shared) = row  # fmt: skip
    return msgspec.convert(
        {
            "path": os.fsdecode(path),  # type: ignore[arg-type]  # a blob, as the schema checks
            "stamp": stamp_of(size, mtime_ns, device, inode),  # type: ignore[arg-type]  # integers: the sum was right
            "state": state,
            "reason": reason,
            "study_uid": study,
            "series_uid": series,
            "sop_instance_uid": instance,
            "sop_class_uid": sop_class,
            "transfer_syntax_uid": transfer_syntax,
            "data_set_offset": offset,
            "attributes": {**attributes_of(str(shared)), **_decode(str(own))},
            "digest": digest.hex() if isinstance(digest, bytes) else "",
            "content": content.hex() if isinstance(content, bytes) else "",
            "read_ns": read_ns,
        },
        Holding,
    )


def signed(number: int) -> int:
    """A number of 64 bits as SQLite can hold it."""
    return number if -_SIGNED <= number < _SIGNED else (number + _SIGNED) % _UNSIGNED - _SIGNED


@lru_cache(maxsize=256)
def attributes_of(text: str) -> Attributes:
    """The attributes that a row says, not to be changed."""
    return _decode(text)


def _json(values: Mapping[str, object]) -> str:
    try:
        return _encode(values).decode()
    except UnicodeEncodeError:  # half a surrogate pair, which no character set should give
        return _encode({keyword: _sound(value) for keyword, value in values.items()}).decode()


def _sound(value: object) -> object:
    if isinstance(value, list):
        return [_sound(item) for item in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _said(values: tuple[object, ...]) -> bytes:
    """What SQLite makes of `*_OCTETS`."""
    return "\n".join(map(str, values)).encode()
