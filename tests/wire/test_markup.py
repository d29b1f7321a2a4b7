"""XML from peers: read however it is cut, and refused where it may hide something or has no end."""

from collections import deque
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.markup import MAX_DEPTH, MAX_TOKEN_OCTETS, Markup

DOCUMENT = """<?xml version='1.0' encoding='UTF-8'?>
<!-- a comment --><m:root xmlns:m="urn:m" xmlns="urn:n" a="1 &lt; 2 &#228;">text &amp; m\u00f6re<![CDATA[<raw>]]>
<one b='"'/><two><m:three c=""/></two></m:root>
""".encode()


def read(*pieces: bytes) -> list[object]:
    """The events of a document; neighbouring text as one."""
    events: list[object] = []

    def said(text: str) -> None:
        if events and isinstance(events[-1], str):
            text = str(events.pop()) + text
        events.append(text)

    markup = Markup(
        opened=lambda name, attributes: events.append((name, {k: v for k, v in attributes.items() if k in "abc"})),
        closed=lambda name: events.append([name]),
        text=said,
    )
    for piece in pieces:
        markup.feed(piece)
    markup.close()
    return events


def as_read_by_others(octets: bytes) -> list[object]:
    """The same events, by the parser of the standard library's tree."""

    def of(element: ElementTree.Element) -> list[object]:
        name = element.tag.rpartition("}")[2]
        found: list[object] = [(name, dict(element.attrib)), element.text]
        for child in element:
            found += [*of(child), child.tail]
        return [event for event in (*found, [name]) if event]

    return of(ElementTree.fromstring(octets))


def test_a_document_is_read_as_others_read_it() -> None:
    assert read(DOCUMENT) == as_read_by_others(DOCUMENT)


@given(st.lists(st.integers(0, len(DOCUMENT)), max_size=12).map(sorted))
def test_it_does_not_matter_how_it_is_cut(cuts: list[int]) -> None:
    ends = [0, *cuts, len(DOCUMENT)]
    pieces = [DOCUMENT[a:b] for a, b in pairwise(ends)]
    assert read(*pieces) == read(DOCUMENT)


def test_octet_by_octet() -> None:
    assert read(*(DOCUMENT[at : at + 1] for at in range(len(DOCUMENT)))) == read(DOCUMENT)


@pytest.mark.parametrize("encoding", ["UTF-3", "utf-99", "nonsense"])
def test_an_encoding_that_nobody_knows_is_utf_8(encoding: str) -> None:
    octets = f"<?xml version='1.0' encoding='{encoding}'?><a>\u00e4</a>".encode()
    assert read(octets) == read(*(octets[at : at + 1] for at in range(len(octets)))) == [("a", {}), "\u00e4", ["a"]]


def test_an_encoding_that_is_known_is_heeded() -> None:
    assert read("<?xml version='1.0' encoding='ISO-8859-1'?><a>\u00e4</a>".encode("latin-1"))[1] == "\u00e4"
    assert read("<?xml version='1.0' encoding='windows-1252'?><a>\u20ac</a>".encode("cp1252"))[1] == "\u20ac"
    assert read(b"\xef\xbb\xbf<a>\xc3\xa4</a>")[1] == "\u00e4"


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12))
    + b"]><lolz>&m;</lolz>"
)


@pytest.mark.parametrize(
    "octets",
    [
        BOMB,
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        b'<!DOCTYPE a [<!ENTITY % b SYSTEM "http://127.0.0.1/">%b;]><a/>',
        b"<!doctype html><html>",
    ],
)
def test_a_document_type_is_refused(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"document type|not well-formed"):
        read(octets)


def test_a_document_type_is_refused_for_itself() -> None:
    with pytest.raises(RemoteProtocolError, match="document type"):
        read(b"<!DOCTYPE a><a/>")


def test_an_entity_that_nobody_declared_is_an_error() -> None:
    with pytest.raises(RemoteProtocolError, match="undefined entity"):
        read(b"<a>&b;</a>")


@pytest.mark.parametrize("begin", [b"<a b='", b"<a ", b"<!--", b"<a><?", b"<"])
def test_a_tag_without_end_is_not_held(begin: bytes) -> None:
    markup = Markup(opened=lambda name, attributes: None, closed=lambda name: None)
    pieces = iter([begin, *[b"x" * 65536] * 100])
    with pytest.raises(RemoteProtocolError, match=r"tag of more than 1 MiB|not well-formed"):
        deque(map(markup.feed, pieces))
    assert 65536 * (100 - len(list(pieces))) <= MAX_TOKEN_OCTETS + 65536


def test_a_long_text_is_no_tag() -> None:
    assert len(str(read(b"<a>", *[b"x" * 65536] * 40, b"</a>")[1])) == 40 * 65536


def test_nesting_has_a_bound() -> None:
    assert read(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH)
    with pytest.raises(RemoteProtocolError, match="too deeply"):
        read(b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("octets", [b"", b"<", b"<a>", b"<a></b>", b"<a/><a/>", b"{}", b"<?xml version='1.0'?>"])
def test_what_is_no_whole_document_is_an_error(octets: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(octets)
