"""An arrived instance, judged and packed, before its turn to be written comes.

Owns what can be done to many at once: the walk, the digests, deflating. Refuses to write, and to know what is there.
"""

import zlib

from msgspec import Struct
from msgspec.structs import replace

from dcmsync.endpoints.zip.arrivals import Job, Settings
from dcmsync.endpoints.zip.draft import PIECE_OCTETS, deflate, part
from dcmsync.endpoints.zip.faults import name_fault
from dcmsync.locator import is_below
from dcmsync.wire import kept
from dcmsync.wire.archive import MAX_NAME_OCTETS
from dcmsync.wire.arrived import Judged, judge
from dcmsync.wire.codings import CODINGS


class Prepared(Struct, frozen=True, kw_only=True):
    """A job that was judged; all but `judged` is empty when that is a refusal.

    `packed`: its data as it will stand in the archive, with the CRC of its octets, where they were in memory.
    """

    judged: Judged
    path: str = ""
    digest: str = ""
    content: str = ""
    packed: bytes | bytearray | None = None
    crc: int = 0
    is_deflated: bool = False


def prepare(settings: Settings, job: Job) -> Prepared | OSError:
    """Judges and packs one job. Gives what went wrong with the disk, rather than raising it across threads."""
    try:
        return _prepare(settings, job)
    except OSError as trouble:
        return trouble


def _prepare(settings: Settings, job: Job) -> Prepared:
    syntax = job.arrival.transfer_syntax_uid
    judged = judge(
        job.source,
        syntax,
        offset=job.offset,
        sop_instance_uid=job.arrival.sop_instance_uid,
        study_uid=job.expected.study_uid,
        series_uid=job.expected.series_uid,
        wanted=settings.wanted | kept.TAGS,
    )
    if judged.reason:
        return Prepared(judged=judged)
    path = settings.place(judged.values, job.arrival)
    if not _may_be_called(path):
        words = "the layout gives no path below the destination"
        return Prepared(judged=replace(judged, reason="path", message=words))
    file_hash = settings.hasher()
    for at in range(0, job.offset + job.size, PIECE_OCTETS):
        file_hash.update(part(job.source, at, PIECE_OCTETS))
    content = settings.content(job.source, syntax, job.offset) if settings.content is not None else ""
    is_deflated = syntax in CODINGS  # what is encapsulated, or deflated itself, would not shrink
    packed = deflate(job.memory) if is_deflated and job.memory is not None else None
    return Prepared(
        judged=judged,
        path=path,
        digest=file_hash.hexdigest(),
        content=content,
        packed=packed or job.memory,
        crc=zlib.crc32(job.memory) if job.memory is not None else 0,
        is_deflated=packed is not None or (is_deflated and job.memory is None),
    )


def _may_be_called(path: str) -> bool:
    """Whether a member may be called so, and would be read again under that name."""
    try:
        name = path.encode()
    except UnicodeEncodeError:
        return False
    return is_below(path) and len(name) <= MAX_NAME_OCTETS and not name_fault(name)
