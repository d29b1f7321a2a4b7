"""What a file consists of that is made of an image set's metadata and frames (PS3.10 §7.1, PS3.5 §A.4).

Owns what must be there before one is begun, and what a frame must look like. Refuses to fetch anything.

Theory of operation. Such a file has the attributes and the pixels of what was imported, and is not that file: lengths,
defined or not, group 0002 and perhaps the character set are new. Frames go in as they are stored, one fragment
each, after an empty offset table. That every frame is there is counted, and that each is whole is seen by its size,
where the metadata tells it, and by the marks at its beginning and its end. The checksums in the metadata are of decoded
pixels, which only a decoder could give: they are not checked.
"""

import re

import msgspec
from msgspec import Struct

from dcmsync.endpoints.ahi.attributes import CODING, PIXEL_DATA, Values, elements
from dcmsync.endpoints.ahi.metadata import Document, Frame, Instance
from dcmsync.endpoints.ahi.summaries import is_id
from dcmsync.errors import RemoteProtocolError
from dcmsync.wire import making
from dcmsync.wire.codings import EXPLICIT_LITTLE, UNDEFINED
from dcmsync.wire.part10 import file_meta

_SEQUENCE_END = 0xFFFEE0DD
_J2K, _JPEG = (b"\xff\x4f\xff\x51", b"\xff\xd9"), (b"\xff\xd8", b"\xff\xd9")
_MARKS = {
    **{f"1.2.840.10008.1.2.4.{number}": _JPEG for number in (50, 51, 57, 70, 80, 81)},
    **{f"1.2.840.10008.1.2.4.{number}": _J2K for number in (90, 91, 201, 202, 203)},
    **{f"1.2.840.10008.1.2.4.{number}": (b"", b"") for number in (110, 111, 112)},
}
"""How frames begin and end, of transfer syntaxes in which each is a fragment; that of video is none of them."""
_OF_PIXELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip  # PS3.3 Table C.7-11c, type 1
_OF_IMAGES = ("Rows", "Columns", "NumberOfFrames", "BitsAllocated")
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."
_UID = re.compile(r"[0-9.]{1,64}")
_COUNT = re.compile(r"[0-9]{1,9}")
_OBJECT = msgspec.json.Decoder(dict[str, object])
_FRAMES = msgspec.json.Decoder(list[Frame] | None)


class Assembly(Struct, frozen=True, kw_only=True):
    """A file to be: `head`, a fragment for each of the frames, `tail`. `left_out` names elements that it lacks."""

    head: bytes
    frames: tuple[Frame, ...]
    tail: bytes
    transfer_syntax_uid: str
    left_out: tuple[str, ...]


def assemble(document: Document, series_uid: str, uid: str) -> Assembly:
    """What an instance of an image set is to be made of. Raises RemoteProtocolError for what cannot be."""
    series = document.series[series_uid]
    instance = series.instances[uid]
    levels = (document.patient, document.study, series, instance)
    values: dict[str, object] = {"SeriesInstanceUID": series_uid, "SOPInstanceUID": uid}
    vrs: dict[str, str] = {}
    for level in levels:
        values.update(_OBJECT.decode(level.attributes))
        vrs.update(level.vrs)
    frames = _frames(instance)
    syntax = instance.syntax if frames else EXPLICIT_LITTLE
    _check_identity(values, uid)
    _check_images(values, frames, syntax)
    made = elements(values, vrs)
    lacking = {"SOPClassUID", "SOPInstanceUID", *(_OF_PIXELS if frames else ())} & set(made.left_out)
    if lacking:
        raise RemoteProtocolError(f"its {min(lacking)} is none")
    head = file_meta(_said(values, "SOPClassUID"), uid, syntax) + made.before
    tail = made.after
    if frames:
        head += making.head_of(CODING, PIXEL_DATA, "OB", UNDEFINED) + making.mark(CODING, making.ITEM, 0)
        tail = making.mark(CODING, _SEQUENCE_END, 0) + tail
    return Assembly(head=head, frames=frames, tail=tail, transfer_syntax_uid=syntax, left_out=made.left_out)


def fragment(frame: Frame, octets: bytes, transfer_syntax_uid: str) -> tuple[bytes, bytes, bytes]:
    """A frame as it stands in a file: header, octets, padding. Raises RemoteProtocolError when it is not whole."""
    begin, end = _MARKS[transfer_syntax_uid]
    if not octets:
        raise RemoteProtocolError("a frame has no octets")
    if frame.size is not None and len(octets) != frame.size:
        raise RemoteProtocolError(f"a frame has {len(octets):,} octets, and not {frame.size:,} as the metadata says")
    if not octets.startswith(begin):
        raise RemoteProtocolError(f"a frame is not in the transfer syntax {transfer_syntax_uid}")
    if not octets.endswith((end, end + b"\0")):
        raise RemoteProtocolError("a frame is cut short")
    is_odd = len(octets) & 1
    return making.mark(CODING, making.ITEM, len(octets) + is_odd), octets, b"\0" * is_odd


def _frames(instance: Instance) -> tuple[Frame, ...]:
    """Raises RemoteProtocolError."""
    try:
        frames = tuple(_FRAMES.decode(instance.frames) or ())
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("its list of frames cannot be read") from error
    if not all(is_id(frame.id) for frame in frames):
        raise RemoteProtocolError("a frame of it is called by something that is no id")
    if len({frame.id for frame in frames}) != len(frames):
        raise RemoteProtocolError("a frame is listed twice")
    return frames


def _check_identity(values: Values, uid: str) -> None:
    """Raises RemoteProtocolError for what would become no instance, another one, or a document without contents."""
    sop_class_uid = _said(values, "SOPClassUID")
    if not _UID.fullmatch(sop_class_uid):
        raise RemoteProtocolError("its SOP Class is not told")
    if not _UID.fullmatch(uid) or _said(values, "SOPInstanceUID") != uid:
        raise RemoteProtocolError("it has another SOP Instance UID than it is listed by")
    if sop_class_uid.startswith(_DOCUMENTS) and not values.get("EncapsulatedDocument"):
        raise RemoteProtocolError("the document in it is not told")


def _check_images(values: Values, frames: tuple[Frame, ...], transfer_syntax_uid: str) -> None:
    """Raises RemoteProtocolError for what would be less than the image was."""
    if not frames:
        if any(values.get(keyword) is not None for keyword in _OF_IMAGES):
            raise RemoteProtocolError("it is an image, and no frame of it is listed")
        return
    if transfer_syntax_uid not in _MARKS:
        is_told = _UID.fullmatch(transfer_syntax_uid) is not None
        words = f"in the transfer syntax {transfer_syntax_uid}" if is_told else "in a transfer syntax that is not told"
        raise RemoteProtocolError(f"its frames are {words}, of which no file can be made")
    for keyword in _OF_PIXELS:
        if values.get(keyword) in (None, ""):
            raise RemoteProtocolError(f"its {keyword} is not told")
    said = _said(values, "NumberOfFrames") or "1"
    if said != str(len(frames)):
        said = said if _COUNT.fullmatch(said) else "another number of"
        raise RemoteProtocolError(f"it has {said} frames, and {len(frames)} are listed")


def _said(values: Values, keyword: str) -> str:
    """A single value as text, without padding; "" for none."""
    value = values.get(keyword)
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    return value.strip(" \0") if isinstance(value, str) else f"{value:.0f}" if isinstance(value, int | float) else ""
