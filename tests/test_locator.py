"""What locators of places that speak HTTP mean, how they are written back, and what is refused of them."""

import pytest

from dcmsync.errors import UsageError
from dcmsync.locator import Ahi, Locator, Mint, Rad69, WadoUri, Web, Xnat, parse, shown

STORE = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("text, meant, canonical", [
    ("https://host/dicom-web", Web("https://host/dicom-web"), None),
    ("HTTPS://Host.Example:443/dicom-web//", Web("https://host.example/dicom-web"), "https://host.example/dicom-web"),
    ("http://localhost:8042/Dicom-Web/", Web("http://localhost:8042/Dicom-Web"), "http://localhost:8042/Dicom-Web"),
    ("http://host:80", Web("http://host"), "http://host"),
    ("https://[2001:DB8::1]:8443/x", Web("https://[2001:db8::1]:8443/x"), "https://[2001:db8::1]:8443/x"),
    ("wado-uri+http://h:8042/wado", WadoUri("http://h:8042/wado"), None),
    ("mint+https://h/rest/api/vault/mint/", Mint("https://h/rest/api/vault/mint"),
     "mint+https://h/rest/api/vault/mint"),
    ("rad69+https://h/services/xds", Rad69("https://h/services/xds"), None),
    ("xnat+https://h/prefix/PROJECT/", Xnat("https://h/prefix", "PROJECT"), "xnat+https://h/prefix/PROJECT"),
    ("xnat+https://h/P", Xnat("https://h", "P"), None),
    (f"ahi://{STORE}?region=us-east-1", Ahi(STORE, "us-east-1"), None),
    (f"ahi://{STORE}/", Ahi(STORE), f"ahi://{STORE}"),
])  # fmt: skip
def test_a_url_means_a_place_and_is_written_in_one_way(text: str, meant: Locator, canonical: str | None) -> None:
    assert parse(text) == meant
    assert str(meant) == (canonical or text)
    assert parse(str(meant)) == meant


@pytest.mark.parametrize("text", [
    "https://", "https:///x", "https://host/a?b=c", "https://host/a#b", "https://host:0/", "https://host:70000/",
    "https://host/a b", "https://host/ä", "https://ho st/", "https://host:x/", "xnat+https://host/", "xnat+https://host",
    "ahi://short?region=x", "ahi://?region=us-east-1", f"ahi://{STORE}?zone=a", "ftp+https://host/", "gopher://host/",
    "mint+dicom://host/", "+https://host/\n",
])  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize("text", [
    "https://ada:hunter2@host/x", "https://ada@host/x", "xnat+https://ada:hunter2@host/P", "https://hunter2:@host/",
    "https://ada:hun@ter2@host/", "https://ada:hun/ter2@host/",
    "gopher://ada:hunter2@host/", "mint+http://:hunter2@h/",
])  # fmt: skip
def test_a_password_in_a_locator_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    assert "ter2" not in str(raised.value) and "ada" not in str(raised.value)


def test_who_one_is_is_not_shown() -> None:
    assert shown("see https://ada:hunter2@host/a@b") == "see https://***@host/a@b"
    assert shown("https://host/a@b") == "https://host/a@b"
