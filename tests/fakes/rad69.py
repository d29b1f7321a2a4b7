"""An Imaging Document Source (IHE RAD-69) over files; a script for tests.fakes.web.

    with Web(Rad69(samples)) as web:
        ... web.url, web.seen ...

It reads requests as a strict SOAP stack does, with a parser that we did not write, and refuses by a fault what is
malformed. `style` says how it packs its answers; `takes` which form of request it takes.
"""

import base64
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pydicom

from tests.fakes.web import Reply, Seen

_S = "{http://www.w3.org/2003/05/soap-envelope}"
_A = "{http://www.w3.org/2005/08/addressing}"
_RAD = "{urn:ihe:rad:xdsi-b:2009}"
_IHE = "{urn:ihe:iti:xds-b:2007}"
_STATUS = "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType"
_ACTION = "urn:ihe:rad:2009:RetrieveImagingDocumentSet"


@dataclass(frozen=True)
class Style:
    """How answers are packed. `codes`: errors that are reported for documents that are given all the same."""

    boundary: str = "uuid:8a7c3a4e-0000-4000-8000-000000000001"
    has_brackets: bool = True
    is_root_last: bool = False
    is_reversed: bool = False
    is_inline: bool = False
    is_malformed: bool = False
    is_closed: bool = True
    has_start: bool = True
    links_are_crossed: bool = False
    framing: str = "chunked"
    codes: Collection[str] = field(default_factory=tuple)


CXF = Style()
JAVAMAIL = Style(boundary="----=_Part_1_99.164", has_brackets=False, framing="close")


@dataclass(frozen=True)
class Asked:
    """One request as it was read."""

    studies: tuple[str, ...]
    series: tuple[str, ...]
    documents: tuple[str, ...]
    repositories: tuple[str, ...]
    communities: tuple[str, ...]
    syntaxes: tuple[str, ...]
    is_mtom: bool


class Fault(Exception):
    """The request is malformed."""


class Rad69:
    """The script. `missing`: SOP Instance UIDs that it does not have after all."""

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        style: Style = CXF,
        takes: str = "any",
        refuses_by: str = "status",
        missing: Collection[str] = (),
        repository: str = "",
    ) -> None:
        """`takes`: any, plain or mtom; the other form is refused by status 415, or by a fault."""
        headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in paths}
        self.files = {str(header.SOPInstanceUID): path for path, header in headers.items()}
        self.syntaxes = {str(each.SOPInstanceUID): str(each.file_meta.TransferSyntaxUID) for each in headers.values()}
        self.asked: list[Asked] = []
        self._style = style
        self._takes = takes
        self._refuses_by = refuses_by
        self._missing = missing
        self._repository = repository

    def __call__(self, seen: Seen) -> Reply:
        media_type = seen.headers.get("content-type", "")
        is_mtom = media_type.startswith("multipart/related")
        if self._takes not in ("any", "mtom" if is_mtom else "plain"):
            if self._refuses_by == "status":
                return Reply(415, {"Content-Type": "text/html"}, b"<html>no</html>", reason="Unsupported Media Type")
            return _fault("Sender", "Transport level information does not match with SOAP Message: Content-Type")
        try:
            asked = read(media_type, seen.body)
        except Fault as fault:
            return _fault("Sender", str(fault))
        self.asked.append(asked)
        return self._answer(asked)

    def _answer(self, asked: Asked) -> Reply:
        given, errors = [], [(code, "") for code in self._style.codes]
        for uid in asked.documents:
            if uid in self._missing or uid not in self.files:
                errors.append(("XDSMissingDocument", uid))
            elif self._repository and self._repository not in asked.repositories:
                errors.append(("XDSUnknownRepositoryId", uid))
            elif self.syntaxes[uid] not in asked.syntaxes:
                errors.append(("urn:dicom:wado:0007", uid))
            else:
                given.append(uid)
        status = f"{_STATUS}:Failure" if not given else "urn:ihe:iti:2007:ResponseStatusType:PartialSuccess"
        xml = self._soap(given, errors, status if errors else f"{_STATUS}:Success")
        if not given:
            return Reply(200, {"Content-Type": "application/soap+xml; charset=UTF-8"}, xml)
        return self._packed(xml, given)

    def _soap(self, given: list[str], errors: list[tuple[str, str]], status: str) -> bytes:
        listed = "".join(
            f'<rs:RegistryError errorCode="{code}" codeContext="what the matter is" location="{uid}" '
            'severity="urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:Error"/>'
            for code, uid in errors
        )
        listed = f"<rs:RegistryErrorList>{listed}</rs:RegistryErrorList>" if listed else ""
        linked = given[1:] + given[:1] if self._style.links_are_crossed else given
        documents = "".join(
            f"<ns2:DocumentResponse><ns2:RepositoryUniqueId>1.3</ns2:RepositoryUniqueId>"
            f"<ns2:DocumentUniqueId>{uid}</ns2:DocumentUniqueId><ns2:mimeType>application/dicom</ns2:mimeType>"
            f"<ns2:Document>{self._document(link)}</ns2:Document></ns2:DocumentResponse>"
            for uid, link in zip(given, linked, strict=True)
        )
        end = "" if self._style.is_malformed else "</soap:Envelope>"
        return (
            '<soap:Envelope xmlns:soap="http://www.w3.org/2003/05/soap-envelope"><soap:Header>'
            '<Action xmlns="http://www.w3.org/2005/08/addressing">urn:ihe:iti:2007:RetrieveDocumentSetResponse</Action>'
            '</soap:Header><soap:Body><ns2:RetrieveDocumentSetResponse xmlns:ns2="urn:ihe:iti:xds-b:2007" '
            'xmlns:rs="urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0">'
            f'<rs:RegistryResponse status="{status}">{listed}</rs:RegistryResponse>{documents}'
            f"</ns2:RetrieveDocumentSetResponse></soap:Body>{end}"
        ).encode()

    def _document(self, uid: str) -> str:
        if self._style.is_inline:
            text = base64.encodebytes(self.files[uid].read_bytes()).decode()
            return text.replace("\n", "\r\n")
        include = '<xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="cid:'
        return f'{include}{quote(_content_id(uid), safe="@")}"/>'

    def _packed(self, xml: bytes, given: list[str]) -> Reply:
        style = self._style
        opening, closing = ("<", ">") if style.has_brackets else ("", "")
        root = ('application/xop+xml; charset=UTF-8; type="application/soap+xml"', "root.message@cxf.apache.org", xml)
        parts = [("application/dicom", _content_id(uid), self.files[uid].read_bytes()) for uid in given]
        parts = [] if style.is_inline else parts[::-1] if style.is_reversed else parts
        ordered = [*parts, root] if style.is_root_last else [root, *parts]
        body = b"\r\n" + b"".join(
            f"--{style.boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: binary\r\n"
            f"Content-ID: {opening}{content_id}{closing}\r\n\r\n".encode() + octets + b"\r\n"
            for kind, content_id, octets in ordered
        )
        if style.is_closed:
            body += f"--{style.boundary}--\r\n".encode()
        else:
            body = body[:-4000]
        media_type = f'multipart/related; type="application/xop+xml"; boundary="{style.boundary}"'
        media_type += '; start="<root.message@cxf.apache.org>"' if style.has_start else ""
        media_type += '; start-info="application/soap+xml"'
        return Reply(200, {"Content-Type": media_type}, body, framing=style.framing)  # type: ignore[arg-type]


def read(media_type: str, body: bytes) -> Asked:
    """A request, read strictly. Raises Fault."""
    is_mtom = media_type.startswith("multipart/related")
    xml = _root_part(media_type, body) if is_mtom else body
    if not is_mtom and not media_type.startswith("application/soap+xml"):
        raise Fault(f"media type {media_type}")
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise Fault(f"not XML: {error}") from None
    if root.tag != f"{_S}Envelope" or [each.tag for each in root] != [f"{_S}Header", f"{_S}Body"]:
        raise Fault("not an envelope of header and body")
    header, inside = root
    if header.findtext(f"{_A}Action") != _ACTION:
        raise Fault("unknown action")
    message_id = header.findtext(f"{_A}MessageID") or ""
    uuid.UUID(message_id.removeprefix("urn:uuid:"))
    if not message_id.startswith("urn:uuid:") or not header.findtext(f"{_A}To"):
        raise Fault("addressing is incomplete")
    if (inside.text or "").strip() or any((each.tail or "").strip() for each in inside):
        raise Fault("text in the body")
    if [each.tag for each in inside] != [f"{_RAD}RetrieveImagingDocumentSetRequest"]:
        raise Fault("not exactly one request")
    return _asked(inside[0], is_mtom)


def _asked(request: ElementTree.Element, is_mtom: bool) -> Asked:
    *studies, last = request
    if last.tag != f"{_RAD}TransferSyntaxUIDList" or not len(last):
        raise Fault("no list of transfer syntaxes at the end")
    series = [each for study in studies for each in study]
    documents = [each for one in series for each in one]
    for document in documents:
        names = [each.tag.removeprefix(_IHE) for each in document]
        if names not in (["RepositoryUniqueId", "DocumentUniqueId"],
                         ["HomeCommunityId", "RepositoryUniqueId", "DocumentUniqueId"]):  # fmt: skip
            raise Fault(f"a document request of {names}")
    if not documents:
        raise Fault("no document is asked for")

    def texts(name: str) -> tuple[str, ...]:
        return tuple(each.findtext(f"{_IHE}{name}") or "" for each in documents)

    return Asked(
        studies=tuple(each.attrib["studyInstanceUID"] for each in studies),
        series=tuple(each.attrib["seriesInstanceUID"] for each in series),
        documents=texts("DocumentUniqueId"),
        repositories=texts("RepositoryUniqueId"),
        communities=texts("HomeCommunityId"),
        syntaxes=tuple(each.text or "" for each in last),
        is_mtom=is_mtom,
    )


def _root_part(media_type: str, body: bytes) -> bytes:
    """The one part of an MTOM request, read by the email package."""
    head = f"Content-Type: {media_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = message_from_bytes(head + body, policy=policy.HTTP)
    parts = list(message.iter_parts())  # type: ignore[attr-defined]
    if len(parts) != 1 or message.get_param("start") != parts[0]["Content-ID"] or message.defects:
        raise Fault("not one part that start names")
    if parts[0].get_content_type() != "application/xop+xml" or message.get_param("type") != "application/xop+xml":
        raise Fault("the root part is no XOP")
    return bytes(parts[0].get_payload(decode=True))


def _content_id(uid: str) -> str:
    return f"doc-{uid[-12:]}@urn:ihe:iti"


def _fault(code: str, reason: str) -> Reply:
    xml = (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault><s:Code>'
        f"<s:Value>s:{code}</s:Value></s:Code><s:Reason><s:Text xml:lang='en'>{reason}</s:Text></s:Reason>"
        "</s:Fault></s:Body></s:Envelope>"
    )
    return Reply(500, {"Content-Type": "application/soap+xml; charset=UTF-8"}, xml.encode(), reason="Server Error")
