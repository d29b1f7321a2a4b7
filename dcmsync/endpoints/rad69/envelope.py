"""The request of RAD-69, Retrieve Imaging Document Set: a SOAP 1.2 envelope, plain or as the root of an MTOM message.

Owns its XML and both forms of its body. Refuses to send anything, and to make up identifiers: they are handed in.

Source: IHE RAD TF-2 §4.69.4.1; SOAP 1.2 part 2 §7; MTOM §3.2. No white space stands where strict servers refuse text:
between the elements of the body there is none at all.
"""

from collections.abc import Iterable
from html import escape

from msgspec import Struct

from dcmsync.net.http import Octets
from dcmsync.wire.upperlayer.contexts import ALL_SYNTAXES

ACTION = "urn:ihe:rad:2009:RetrieveImagingDocumentSet"
_SOAP = "http://www.w3.org/2003/05/soap-envelope"
_ADDRESSING = "http://www.w3.org/2005/08/addressing"
_ANONYMOUS = f"{_ADDRESSING}/anonymous"
_ROOT = "root@dcmsync"
_OID = "urn:oid:"


class Repository(Struct, frozen=True, kw_only=True):
    """Where documents are kept: its OID, and that of the community behind a gateway; "" where nobody asks for it."""

    unique_id: str = ""
    home_community: str = ""


def envelope(
    study_uid: str,
    series_uid: str,
    instances: Iterable[str],
    *,
    repository: Repository,
    address: str,
    message_id: str,
) -> bytes:
    """A request for some instances of one series, in any transfer syntax that we can keep.

    `address` is where it goes, `message_id` a UUID. Without instances no study is named either.
    """
    documents = "".join(_document(uid, repository) for uid in instances)
    series = f'<iherad:SeriesRequest seriesInstanceUID="{escape(series_uid)}">{documents}</iherad:SeriesRequest>'
    study = f'<iherad:StudyRequest studyInstanceUID="{escape(study_uid)}">{series}</iherad:StudyRequest>'
    syntaxes = "".join(f"<iherad:TransferSyntaxUID>{uid}</iherad:TransferSyntaxUID>" for uid in ALL_SYNTAXES)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<s:Envelope xmlns:s="{_SOAP}" xmlns:a="{_ADDRESSING}"><s:Header>'
        f'<a:Action s:mustUnderstand="1">{ACTION}</a:Action>'
        f"<a:MessageID>urn:uuid:{message_id}</a:MessageID>"
        f'<a:ReplyTo s:mustUnderstand="1"><a:Address>{_ANONYMOUS}</a:Address></a:ReplyTo>'
        f'<a:To s:mustUnderstand="1">{escape(address)}</a:To>'
        "</s:Header><s:Body>"
        '<iherad:RetrieveImagingDocumentSetRequest xmlns:iherad="urn:ihe:rad:xdsi-b:2009" '
        'xmlns:ihe="urn:ihe:iti:xds-b:2007">'
        f"{study if documents else ''}"
        f"<iherad:TransferSyntaxUIDList>{syntaxes}</iherad:TransferSyntaxUIDList>"
        "</iherad:RetrieveImagingDocumentSetRequest></s:Body></s:Envelope>"
    ).encode()


def plain(xml: bytes) -> Octets:
    """The envelope by itself."""
    return Octets(f'application/soap+xml; charset=UTF-8; action="{ACTION}"', xml)


def mtom(xml: bytes, boundary: str) -> Octets:
    """The envelope as the only part of an MTOM message. `boundary`: letters and digits that are not in it."""
    media_type = (
        f'multipart/related; type="application/xop+xml"; start="<{_ROOT}>"; start-info="application/soap+xml"; '
        f'action="{ACTION}"; boundary={boundary}'
    )
    head = (
        f'--{boundary}\r\nContent-Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"\r\n'
        f"Content-Transfer-Encoding: binary\r\nContent-ID: <{_ROOT}>\r\n\r\n"
    )
    return Octets(media_type, head.encode() + xml + f"\r\n--{boundary}--\r\n".encode())


def _document(uid: str, repository: Repository) -> str:
    """One DocumentRequest; the order of what is in it is fixed."""
    home = repository.home_community
    home = f"{'' if home.startswith(_OID) else _OID}{home}" if home else ""
    return (
        "<ihe:DocumentRequest>"
        + (f"<ihe:HomeCommunityId>{escape(home)}</ihe:HomeCommunityId>" if home else "")
        + f"<ihe:RepositoryUniqueId>{escape(repository.unique_id)}</ihe:RepositoryUniqueId>"
        + f"<ihe:DocumentUniqueId>{escape(uid)}</ihe:DocumentUniqueId></ihe:DocumentRequest>"
    )
