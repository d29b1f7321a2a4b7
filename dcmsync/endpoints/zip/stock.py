"""What an archive holds: each member that may be read, inflated to its last octet, proven and walked.

Owns bringing a catalogue up to date, and saying of each member what it is. Refuses to read what did not change, to put
what it inflates anywhere but in memory, to enter an archive within the archive, and to pass anything by in silence.

Theory of operation. A member's stamp follows from the archive's, so an archive that is as it was costs the reading of
its directory. Else every member is read: up to a limit inflated at once, beyond it twice, first to its end for the CRC,
then as far as the walk looks. A member that is refused may be an instance: whoever asks is told that the list may lack
something. One that is no whole data set is known for what it is, as in a folder.
"""

import os
import time
from collections.abc import Callable

from dcmsync.contract import Catalogue, Holding
from dcmsync.endpoints.zip.reader import Member, Reader, stamp_from
from dcmsync.errors import LocalTrouble
from dcmsync.wire import kept
from dcmsync.wire.archive import Damaged
from dcmsync.wire.elements import Walk
from dcmsync.wire.part10 import Head, text, walk_file
from dcmsync.wire.source import Source
from dcmsync.wire.unpacking import Unpacked, Unpacking

REFUSED = "refused"  # the state of a member that was not read, or lied
MEMORY_OCTETS = 16 << 20  # a member up to this size is inflated once, into memory

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_WANTED = kept.TAGS | {_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID}
_NESTED = (b"PK\3\4", b"PK\5\6")
_AT_ONCE = 256  # holdings remembered together

Skip = Callable[[str, str], None]
"""Told the path and why, for what is refused though it may be meant to be read."""


def take_stock(path: str, catalogue: Catalogue, *, skipped: Skip = lambda path, why: None) -> int:
    """Brings the catalogue of an archive up to date; gives how many members are refused, of which `skipped` hears.

    An archive that is not there holds nothing. Raises LocalTrouble when it is none that can be read.
    """
    try:
        with Reader(path) as reader:
            return take_stock_of(reader, path, catalogue, skipped=skipped)
    except FileNotFoundError:
        catalogue.forget([known for known, _ in catalogue.stamps()])
        return 0
    except OSError as trouble:
        raise LocalTrouble(f"{path} cannot be read: {trouble.strerror}") from trouble


def take_stock_of(reader: Reader, path: str, catalogue: Catalogue, *, skipped: Skip) -> int:
    """The same of an archive that is open. Raises LocalTrouble, OSError."""
    known = dict(catalogue.stamps())
    catalogue.forget([name for name in known if name not in reader.members])
    anew = [name for name, member in reader.members.items() if known.get(name) != member.stamp]
    if anew:
        _read(reader, anew, catalogue)
        if stamp_from(os.fstat(reader.descriptor)) != reader.stamp:
            catalogue.forget(anew)
            raise LocalTrouble(f"{path} changed while it was read", advice="Run the same command again")
    refused = 0
    for holding in catalogue.others():
        if holding.state == REFUSED:
            refused += 1
            skipped(holding.path, holding.reason)
        elif holding.reason == NESTED:
            skipped(holding.path, holding.reason)
    return refused


NESTED = "it is an archive within the archive, which is not entered"


def _read(reader: Reader, names: list[str], catalogue: Catalogue) -> None:
    overlapping = reader.overlaps()
    some: list[Holding] = []
    for name in names:
        member = reader.members[name]
        fault = member.fault or ("it shares octets with another member" if name in overlapping else "")
        some.append(refused(member, fault) if fault else examine(reader, member))
        if len(some) == _AT_ONCE:
            catalogue.remember(some)
            some = []
    catalogue.remember(some)


def refused(member: Member, why: str) -> Holding:
    """A member that is not to be read, or not to be believed."""
    return Holding(path=member.entry.path, stamp=member.stamp, state=REFUSED, reason=why)


def examine(reader: Reader, member: Member) -> Holding:
    """What one member is. Raises OSError."""
    entry = member.entry
    try:
        begin = reader.data_offset(entry)
        stream = Unpacking(reader.source, entry, begin)
        source: Source
        if entry.size <= MEMORY_OCTETS:
            source = stream.read_all()
            start = source[:4]
        else:
            start = stream.read()[:4]
            while stream.read():
                pass
            source = Unpacked(reader.source, entry, begin).distant()
        head, walk = walk_file(source, wanted=_WANTED)
    except Damaged as damage:
        return refused(member, str(damage))
    if start in _NESTED:
        return Holding(path=entry.path, stamp=member.stamp, state="not dicom", reason=NESTED, read_ns=time.time_ns())
    return _holding(member, head, walk)


def _holding(member: Member, head: Head, walk: Walk) -> Holding:
    def uid(tag: int) -> str:
        return text(walk.values[tag][1]) if tag in walk.values else ""

    # Without a prefix nothing says how it is written but the elements themselves.
    syntax = head.transfer_syntax_uid if head.has_prefix else walk.encoding or head.transfer_syntax_uid
    return Holding(
        path=member.entry.path,
        stamp=member.stamp,
        state=walk.state,
        reason=walk.reason,
        study_uid=uid(_STUDY_INSTANCE_UID),
        series_uid=uid(_SERIES_INSTANCE_UID),
        sop_instance_uid=uid(_SOP_INSTANCE_UID),
        sop_class_uid=uid(_SOP_CLASS_UID),
        transfer_syntax_uid=syntax,
        data_set_offset=head.data_set_offset,
        attributes=kept.plain_values(walk.values, walk.encoding or head.transfer_syntax_uid) if walk.values else {},
        read_ns=time.time_ns(),
    )
