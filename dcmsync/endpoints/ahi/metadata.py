"""The metadata of an image set: what it says of its series and instances, as plain values by keyword.

Theory of operation. The document may have 50 MB. What is said of each instance stays as it came, and is decoded when
something is wanted of it, so that a document costs little more than its octets; that it can be is tried when it comes.
Values are JSON: numbers for binary VRs, text for others, with the padding that DICOM gave it; null where there is none.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Raw, Struct

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire import dataset

MOST_OCTETS = 128 << 20
_GZIP = b"\x1f\x8b"
_NONE = Raw(b"{}")
_NO_FRAMES = Raw(b"[]")
_BULK_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN", "SQ"))
_NUMBERS = frozenset(("IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"))


class Frame(Struct, frozen=True, rename={"id": "ID", "size": "FrameSizeInBytes"}):
    """What is said of one frame; `size` in octets, as it is stored."""

    id: str
    size: int | None = None


class Level(Struct, frozen=True, rename={"attributes": "DICOM", "vrs": "DICOMVRs"}):
    """What is said of something. `vrs` are those of private attributes."""

    attributes: Raw = _NONE
    vrs: dict[str, str] = {}


class Instance(Level, frozen=True, rename={"syntax": "StoredTransferSyntaxUID", "frames": "ImageFrames"}):
    """What is said of one instance. `frames` holds a list of `Frame`."""

    syntax: str = ""
    frames: Raw = _NO_FRAMES


class Series(Level, frozen=True, rename={"instances": "Instances"}):
    """What is said of one series, or of the part of it that the image set has."""

    instances: dict[str, Instance] = {}


class _Study(Level, frozen=True, rename={"series": "Series"}):
    series: dict[str, Series] = {}


class Document(Struct, frozen=True, rename={"patient": "Patient", "study": "Study"}):
    """The metadata of one image set."""

    patient: Level = Level()
    study: _Study = _Study()

    @property
    def series(self) -> Mapping[str, Series]:
        """Its series by UID; one, as a rule."""
        return self.study.series

    def parts(self) -> Iterator[Raw]:
        """Every object of attributes in it."""
        yield from (self.patient.attributes, self.study.attributes)
        for series in self.series.values():
            yield series.attributes
            for instance in series.instances.values():
                yield instance.attributes

    def of_study(self, wanted: Iterable[str]) -> dict[str, object]:
        """What it says of its patient and its study."""
        return {**values(self.patient.attributes, wanted), **values(self.study.attributes, wanted)}

    def of_series(self, uid: str, wanted: Iterable[str]) -> dict[str, object]:
        """What it says of a series, and of what that is part of."""
        return {**self.of_study(wanted), **values(self.series[uid].attributes, wanted), "SeriesInstanceUID": uid}

    def instances(self, series_uid: str, wanted: Iterable[str]) -> Iterator[dict[str, object]]:
        """What it says of each instance of a series, in its order."""
        wanted = tuple(wanted)
        above = self.of_series(series_uid, wanted)
        for uid, instance in self.series[series_uid].instances.items():
            told = {**above, **values(instance.attributes, wanted, instance.vrs), "SOPInstanceUID": uid}
            if instance.syntax:
                told["TransferSyntaxUID"] = instance.syntax
            yield told


_DOCUMENT = msgspec.json.Decoder(Document)
_OBJECT = msgspec.json.Decoder(dict[str, object])


def read(octets: bytes) -> Document:
    """The document in octets. Raises RemoteProtocolError."""
    try:
        document = _DOCUMENT.decode(octets)
        for each in document.parts():
            _OBJECT.decode(each)
        return document
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"metadata that cannot be read: {_why(error)}") from error


def unpacked(octets: bytes) -> bytes:
    """The octets of a document that may still be packed (gzip). Raises RemoteProtocolError."""
    if octets[: len(_GZIP)] != _GZIP:
        return octets
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(octets, MOST_OCTETS + 1)
    except zlib.error as error:
        raise RemoteProtocolError("metadata whose gzip is broken") from error
    if len(found) > MOST_OCTETS:
        raise RemoteProtocolError(f"metadata of more than {MOST_OCTETS:,} octets")
    if not unpacker.eof:
        raise RemoteProtocolError("metadata whose gzip is cut short")
    return found


def values(attributes: Raw, wanted: Iterable[str], vrs: Mapping[str, str] = {}) -> dict[str, object]:
    """What an object of the document tells of the attributes that are wanted."""
    told = _OBJECT.decode(attributes)
    found = {}
    for keyword in wanted:
        value = plain(keyword, told.get(keyword), vrs.get(keyword, ""))
        if value is not None:
            found[keyword] = value
    return found


def plain(keyword: str, given: object, told_vr: str = "") -> object | None:
    """A value as records have it: a list where PS3.6 allows more than one; None for none, sequences and bulk data.

    `told_vr` is for attributes that PS3.6 does not know.
    """
    entry = dataset.entry(dataset.tag_of(keyword))
    vr = told_vr or entry.vr
    found = [_scalar(vr, each) for each in (given if isinstance(given, list) else [given])]
    if vr in _BULK_VRS or all(each in (None, "") for each in found):
        return None
    found = ["" if each is None else each for each in found]
    return found if entry.is_multi or len(found) > 1 else found[0]


def _scalar(vr: str, value: object) -> object | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str):
        return value if vr in _NUMBERS else str(value)
    text = value.strip(" \0")
    if vr not in ("IS", "DS") or "_" in text:  # Python would read 1_0 as 10
        return text
    try:
        number = int(text) if vr == "IS" else float(text)
    except ValueError:
        return text
    return number if abs(number) < 2**63 else text  # and neither infinity nor NaN is


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "its text is no UTF-8"
    return str(error)
