"""Which proxy leads to a URL, as the variables of the environment say it."""

import pytest

from dcmsync.errors import UsageError
from dcmsync.net.proxies import checked, of_environment


@pytest.mark.parametrize("url, environ, proxy", [
    ("https://h/x", {}, ""),
    ("https://h/x", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
    ("https://h/x", {"https_proxy": "p:1", "HTTPS_PROXY": "http://q:1"}, "http://p:1"),
    ("http://h/x", {"HTTPS_PROXY": "http://p:1"}, ""),
    ("http://h/x", {"ALL_PROXY": "http://u:s@p:1"}, "http://u:s@p:1"),
    ("http://h/x", {"http_proxy": "http://p:1", "NO_PROXY": "*"}, ""),
    ("http://a.example/x", {"http_proxy": "http://p:1", "no_proxy": "b, .example"}, ""),
    ("http://a.example/x", {"http_proxy": "http://p:1", "no_proxy": "ample"}, "http://p:1"),
    ("http://a.example:81/x", {"http_proxy": "http://p:1", "no_proxy": "a.example:80"}, "http://p:1"),
    ("http://a.example/x", {"http_proxy": "http://p:1", "no_proxy": "a.example:80"}, ""),
    ("http://[::1]:8/x", {"http_proxy": "http://p:1", "no_proxy": "::1"}, ""),
    ("http://127.0.0.1/x", {"http_proxy": "http://p:1", "no_proxy": "localhost,127.0.0.1"}, ""),
])  # fmt: skip
def test_the_proxy_is_the_one_of_the_environment(url: str, environ: dict[str, str], proxy: str) -> None:
    assert of_environment(url, environ) == proxy


@pytest.mark.parametrize("text", ["socks5://h:1", "http://", "http://h:x", "ftp://h", "http://h:0"])
def test_what_is_no_http_proxy_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no HTTP proxy"):
        checked(text, "PROXY")
