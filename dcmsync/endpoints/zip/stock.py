"""What an archive holds: each member that may be read, inflated to its last octet, proven and walked.

Owns bringing a catalogue up to date, and saying of each member what it is. Refuses to read what did not change, to put
what it inflates anywhere but in memory, to enter an archive within the archive, and to pass anything by in silence.

Theory of operation. A member's stamp follows from the archive's, so an archive that is as it was costs the reading of
its directory. Else every member is read: up to a limit inflated at once, beyond it twice, first to its end for the CRC,
then as far as the walk looks; its digests are told of what is read anyway, where they are asked for. A member that is
refused may be an instance: whoever asks is told that the list may lack something. One that is no whole data set is
known for what it is, as in a folder.
"""

import os
import time
from collections.abc import Callable

from msgspec.structs import replace

from dcmsync.contract import Catalogue, Holding
from dcmsync.endpoints.zip.reader import Member, Reader, stamp_from
from dcmsync.errors import LocalTrouble
from dcmsync.wire import kept
from dcmsync.wire.archive import LOCAL_MARK, Damaged
from dcmsync.wire.arrived import IDENTITY, SERIES_INSTANCE_UID, SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from dcmsync.wire.digests import Digests, Hasher
from dcmsync.wire.elements import Walk
from dcmsync.wire.part10 import Head, text, walk_file
from dcmsync.wire.source import Source
from dcmsync.wire.unpacking import Unpacked, Unpacking

REFUSED = "refused"  # the state of a member that was not read, or lied
NESTED = "it is an archive within the archive, which is not entered"
MEMORY_OCTETS = 16 << 20  # a member up to this size is inflated once, into memory

_WANTED = kept.TAGS | IDENTITY
_NESTED = (LOCAL_MARK, b"PK\5\6")
_MAX_ROUNDS = 4  # a catalogue can lose what it has twice

Skip = Callable[[str, str], None]
"""Told the path and why, for what is refused though it may be meant to be read."""


def ignore(path: str, why: str) -> None:
    """Does nothing about what is refused."""


def take_stock(
    path: str, catalogue: Catalogue, *, skipped: Skip = ignore, anew: bool = False, digests: Digests | None = None
) -> int:
    """Brings the catalogue of an archive up to date; gives how many members are refused, of which `skipped` hears.

    An archive that is not there holds nothing. With `anew` every member is read: one that was whole, and is not though
    nothing else says so, has rotted. With `digests` those of what is read are remembered. Raises LocalTrouble when it
    is no archive that can be read.
    """
    try:
        with Reader(path) as reader:
            return take_stock_of(reader, path, catalogue, skipped=skipped, anew=anew, digests=digests)
    except FileNotFoundError:
        catalogue.forget([known for known, _ in catalogue.stamps()])
        return 0
    except OSError as trouble:
        raise LocalTrouble(f"{path} cannot be read: {trouble.strerror}") from trouble


def take_stock_of(
    reader: Reader,
    path: str,
    catalogue: Catalogue,
    *,
    skipped: Skip,
    anew: bool = False,
    digests: Digests | None = None,
) -> int:
    """The same of an archive that is open. Raises LocalTrouble, OSError."""
    for _ in range(_MAX_ROUNDS):
        _bring_up_to_date(reader, path, catalogue, digests, anew=anew)
        if not catalogue.has_lost:
            return _tell(catalogue, skipped)
    raise LocalTrouble(f"what {path} holds cannot be remembered, not even for this run")


def read_again(
    reader: Reader, known: Holding, digests: Digests | None, overlapping: frozenset[str] = frozenset()
) -> Holding | None:
    """One member, with every octet of it read; None when it is gone. One that was whole, and is not though nothing else
    says so, has rotted: its digests are then those that were known. Raises OSError.
    """
    member = reader.members.get(known.path)
    return None if member is None else _examined(reader, member, known, digests, overlapping)


def _bring_up_to_date(
    reader: Reader, path: str, catalogue: Catalogue, digests: Digests | None, *, anew: bool
) -> None:
    known = dict(catalogue.stamps())
    catalogue.forget([name for name in known if name not in reader.members])
    changed = [name for name, member in reader.members.items() if anew or known.get(name) != member.stamp]
    if not changed:
        return
    overlapping = frozenset(reader.overlaps())
    catalogue.remember(
        _examined(reader, reader.members[name], catalogue.at(name), digests, overlapping) for name in changed
    )
    if stamp_from(os.fstat(reader.descriptor)) != reader.stamp:
        catalogue.forget(changed)
        raise LocalTrouble(f"{path} changed while it was read", advice="Run the same command again")


def _tell(catalogue: Catalogue, skipped: Skip) -> int:
    """Says what is passed by; gives how many members are refused."""
    refused = 0
    for holding in catalogue.others():
        refused += holding.state == REFUSED
        if holding.state == REFUSED or holding.reason == NESTED:
            skipped(holding.path, holding.reason)
    return refused


def _examined(
    reader: Reader, member: Member, known: Holding | None, digests: Digests | None, overlapping: frozenset[str]
) -> Holding:
    """What one member is, held against what is `known` of it. Raises OSError."""
    fault = member.fault or ("it shares octets with another member" if member.entry.path in overlapping else "")
    holding = _refused(member, fault) if fault else _examine(reader, member, digests)
    is_known = known is not None and known.stamp == holding.stamp and known.state in ("whole", "rotten")
    if known is not None and is_known and holding.state == REFUSED:
        return replace(known, state="rotten", reason=holding.reason)
    return holding


def _refused(member: Member, why: str) -> Holding:
    """A member that is not to be read, or not to be believed."""
    return Holding(path=member.entry.path, stamp=member.stamp, state=REFUSED, reason=why)


def _examine(reader: Reader, member: Member, digests: Digests | None) -> Holding:
    """What one member is, by reading it. Raises OSError."""
    entry = member.entry
    try:
        begin = reader.data_offset(entry)
        stream = Unpacking(reader.source, entry, begin)
        running = digests.hasher() if digests is not None else None
        source: Source
        if entry.size <= MEMORY_OCTETS:
            source = stream.read_all()
            start = source[:4]
            if running is not None:
                running.update(source)
        else:
            start = _pass(stream, running)[:4]
            source = Unpacked(reader.source, entry, begin).distant()
        head, walk = walk_file(source, wanted=_WANTED)
        content = ""
        if digests is not None and walk.is_whole and start not in _NESTED:
            content = digests.content(source, head.transfer_syntax_uid, head.data_set_offset)
    except Damaged as damage:
        return _refused(member, str(damage))
    if start in _NESTED:
        return Holding(path=entry.path, stamp=member.stamp, state="not dicom", reason=NESTED, read_ns=time.time_ns())
    holding = _holding(member, head, walk)
    return holding if running is None else replace(holding, digest=running.hexdigest(), content=content)


def _pass(stream: Unpacking, running: Hasher | None) -> bytes:
    """Reads a member to its end: its first octets. Raises Damaged."""
    first = piece = stream.read()
    while piece:
        if running is not None:
            running.update(piece)
        piece = stream.read()
    return first


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
        study_uid=uid(STUDY_INSTANCE_UID),
        series_uid=uid(SERIES_INSTANCE_UID),
        sop_instance_uid=uid(SOP_INSTANCE_UID),
        sop_class_uid=uid(SOP_CLASS_UID),
        transfer_syntax_uid=syntax,
        data_set_offset=head.data_set_offset,
        attributes=kept.plain_values(walk.values, walk.encoding or head.transfer_syntax_uid) if walk.values else {},
        read_ns=time.time_ns(),
    )
