"""WADO-RS and WADO-URI, answered (PS3.18 §10.4, §9.4): instances as the files that they are.

Owns what is promised before the first octet: which instances come, and how many octets these are. Refuses to transcode,
to render and to anonymise.

Theory of operation. Every file is opened once to see that it is there, and as long as it is said to be; so the answer
has a length, and what is missing makes it a 206. Each is opened again when its turn comes. One that changed in between
ends the connection before the closing boundary: no client can take that for whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from secrets import token_hex

import anyio.lowlevel
from aiohttp import web
from msgspec import Struct

from dcmsync.node.archive import Opened
from dcmsync.node.index import Depth, Image
from dcmsync.node.web import accepting
from dcmsync.node.web.asked import Asked
from dcmsync.node.web.refusing import Refusal, not_acceptable
from dcmsync.wire.multipart import Writer
from dcmsync.wire.part10 import PREAMBLE_OCTETS, file_meta

GONE = "some instances were here, and their files are gone, or changed"
_BREATH = 50  # files looked at before others get their turn
_UIDS = {"studyUID": Depth.STUDY, "seriesUID": Depth.SERIES, "objectUID": Depth.IMAGE}


class File(Struct, frozen=True):
    """What is sent of one instance: `head`, then `octets` of its file from `start` on."""

    image: Image
    head: bytes
    start: int
    octets: int

    @property
    def size(self) -> int:
        """In octets."""
        return len(self.head) + self.octets


async def answer(asked: Asked) -> web.StreamResponse:
    """The instances of a study, of a series, or one. Raises Refusal, ConnectionError."""
    is_single = Depth.IMAGE in asked.uids
    form = accepting.form(asked.accept, accepting.DICOM, is_single=is_single)
    if form is None:
        raise not_acceptable(f'instances are sent as multipart/related; type="{accepting.DICOM}", one also by itself')
    return await _answer(asked, asked.images(), form)


async def answer_uri(asked: Asked) -> web.StreamResponse:
    """One instance, by the parameters of WADO-URI. Raises Refusal, ConnectionError."""
    given = dict(asked.parameters)
    if given.get("requestType") != "WADO":
        raise Refusal(400, "requestType=WADO is needed")
    lacking = [name for name in _UIDS if not given.get(name)]
    if lacking:
        raise Refusal(400, f"{lacking[0]} is needed")
    if accepting.form(given.get("contentType", "image/jpeg"), accepting.DICOM, is_single=True) is None:
        raise not_acceptable("nothing is rendered here: ask for contentType=application/dicom")
    if "anonymize" in given:
        raise not_acceptable("nothing is anonymised here")
    image = asked.archive.index.images.get(given["objectUID"])
    if image is None or (image.study_uid, image.series_uid) != (given["studyUID"], given["seriesUID"]):
        raise Refusal(404, "no such instance here")
    syntax = given.get("transferSyntax", "*")
    form = accepting.Form(False, None if syntax == "*" else frozenset((syntax,)))
    return await _answer(asked, [image], form)


async def _answer(asked: Asked, images: Sequence[Image], form: accepting.Form) -> web.StreamResponse:
    files = await survey(asked, images)
    warnings = [GONE] if len(files) < len(images) else []
    if form.transfer_syntaxes is not None:
        fitting = [file for file in files if file.image.transfer_syntax_uid in form.transfer_syntaxes]
        if not fitting:
            raise not_acceptable("nothing is transcoded here: ask for transfer-syntax=*")
        if len(fitting) < len(files):
            warnings.append("instances in other transfer syntaxes were left out: ask for transfer-syntax=*")
        files = fitting
    writer = Writer(token_hex(24))
    multipart = form.is_multipart
    outbox = asked.outbox(
        media_type=writer.media_type if multipart else accepting.DICOM,
        length=writer.length(file.size for file in files) if multipart else files[0].size,
        status=206 if warnings else 200,
        warnings=warnings,
    )
    if not await outbox.begin():
        return outbox.response
    for file in files:
        with asked.archive.opened(file.image) as opened:
            if opened is None or _file(file.image, opened) != file:
                outbox.abort()
            await outbox.put(writer.head + file.head if multipart else file.head)
            await outbox.file(opened.descriptor, file.start, file.octets)
            if not _is_as_it_was(opened):
                outbox.abort()
        if multipart:
            await outbox.put(writer.TAIL)
        asked.tally.sent += 1
    if multipart:
        await outbox.put(writer.closing)
    return await outbox.end()


async def survey(asked: Asked, images: Sequence[Image]) -> list[File]:
    """What there is to send, as of now. Raises Refusal when nothing is."""
    files = []
    for number, image in enumerate(images, 1):
        with asked.archive.opened(image) as opened:
            if opened is not None:
                files.append(_file(asked.archive.index.images[image.uid], opened))
        if not number % _BREATH:
            await anyio.lowlevel.checkpoint()
    if not files:
        raise Refusal(410, "it was here, and its files are gone, or changed")
    return files


def _file(image: Image, opened: Opened) -> File:
    """A file that has a head goes as it is; before one that has none comes what PS3.10 §7.1 demands."""
    whole = opened.offset + opened.octets
    if opened.offset >= PREAMBLE_OCTETS + 4 and os.pread(opened.descriptor, 4, PREAMBLE_OCTETS) == b"DICM":
        return File(image, b"", 0, whole)
    head = file_meta(image.sop_class_uid, image.uid, image.transfer_syntax_uid)
    return File(image, head, opened.offset, opened.octets)


def _is_as_it_was(opened: Opened) -> bool:
    status = os.fstat(opened.descriptor)
    return (status.st_size, status.st_mtime_ns) == (opened.stamp.size, opened.stamp.mtime_ns)
