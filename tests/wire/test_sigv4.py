"""The signer, against published vectors: those of AWS's own documentation, and two of HealthImaging calls."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest

from dcmsync.wire.sigv4 import (
    EMPTY_SHA256,
    Credentials,
    Scope,
    canonical_request,
    host_of,
    signed,
    signing_key,
    string_to_sign,
)

EXAMPLE = Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
WITH_TOKEN = Credentials(
    access_key_id="AKIDEXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", session_token="TOKEN123"
)
DOCUMENTED = Scope(time="20150830T123600Z", region="us-east-1", service="iam")
VANILLA = Scope(time="20150830T123600Z", region="us-east-1", service="service")
IMAGING = Scope(time="20240102T030405Z", region="us-east-1", service="medical-imaging")
STORE = "datastore/0123456789abcdef0123456789abcdef"
FILTER = b'{"filters":[{"values":[{"DICOMPatientId":"P1"}],"operator":"EQUAL"}]}'

VECTORS = {
    "the example of the documentation": (
        "GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
        {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}, b"", EXAMPLE, DOCUMENTED,
        "content-type;host;x-amz-date", "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    ),
    "get-vanilla of the test suite": (
        "GET", "https://example.amazonaws.com/", {}, b"", EXAMPLE, VANILLA,
        "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "a search with wildcards": (
        "GET",
        f"https://dicom-medical-imaging.us-east-1.amazonaws.com/{STORE}/studies"
        "?PatientName=DOE%5EJ%2A&limit=2&StudyDate=20240101-20240131",
        {"Accept": "application/dicom+json"}, b"", EXAMPLE, IMAGING,
        "accept;host;x-amz-date", "6861c5ac49c357eaeb2077d74f7c57cdf0b3d71ab31ea9944a8a5a30d6e852d2",
    ),
    "a search with a body and a session": (
        "POST", f"https://runtime-medical-imaging.us-east-1.amazonaws.com/{STORE}/searchImageSets?maxResults=50",
        {"Content-Type": "application/json"}, FILTER, WITH_TOKEN, IMAGING,
        "content-type;host;x-amz-date;x-amz-security-token",
        "f56cce67c1fc8ce937af6ed96f52ce19d25f55db56b5468f90b2aae1fcf6b17f",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_a_request_is_signed_as_published(name: str) -> None:
    method, url, headers, body, credentials, scope, names, signature = VECTORS[name]
    added = signed(method, url, headers, sha256(body).hexdigest(), credentials=credentials, scope=scope)
    assert added["Authorization"] == (
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    assert added["x-amz-date"] == scope.time
    assert added.get("x-amz-security-token", "") == credentials.session_token


def test_each_step_is_as_documented() -> None:
    method, url, headers, *_ = VECTORS["the example of the documentation"]
    canonical, _ = canonical_request(method, url, {**headers, "x-amz-date": DOCUMENTED.time}, EMPTY_SHA256)
    assert sha256(canonical.encode()).hexdigest() == "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
    assert string_to_sign(canonical, DOCUMENTED).startswith(
        "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\nf536975d"
    )
    key = signing_key(EXAMPLE.secret_access_key, DOCUMENTED)
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


@pytest.mark.parametrize(
    "sent, canonical",
    [
        ("a=1&b=2", "a=1&b=2"),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1", "a=1&a=2"),
        ("a-b=1&a=1", "a=1&a-b=1"),
        ("PatientName=DOE^J*", "PatientName=DOE%5EJ%2A"),
        ("PatientName=DOE%5eJ%2a", "PatientName=DOE%5EJ%2A"),
        ("uids=1.2,1.3", "uids=1.2%2C1.3"),
        ("name=%C3%A9%20x", "name=%C3%A9%20x"),
        ("plus=1+2", "plus=1%2B2"),
        ("empty", "empty="),
        ("token=a%2Fb%3D%3D", "token=a%2Fb%3D%3D"),
        ("", ""),
    ],
)
def test_a_query_has_one_canonical_form_however_it_is_sent(sent: str, canonical: str) -> None:
    request, _ = canonical_request("GET", f"https://host/x?{sent}", {}, EMPTY_SHA256)
    assert request.splitlines()[2] == canonical


@pytest.mark.parametrize(
    "path, canonical", [("", "/"), ("/a/b", "/a/b"), ("/a%20b", "/a%2520b"), ("/a:b", "/a%3Ab"), ("/é", "/%C3%A9")]
)
def test_a_path_is_encoded_once_more(path: str, canonical: str) -> None:
    assert canonical_request("GET", f"https://host{path}", {}, EMPTY_SHA256)[0].splitlines()[1] == canonical


def test_headers_are_signed_in_lower_case_with_single_blanks_and_in_order() -> None:
    headers = {"X-B": "  two   words ", "Accept": "*/*", "User-Agent": "us", "Content-Length": "3"}
    request, names = canonical_request("GET", "https://host:8443/", headers, EMPTY_SHA256)
    assert names == "accept;host;x-b"
    assert request.splitlines()[3:6] == ["accept:*/*", "host:host:8443", "x-b:two words"]


@pytest.mark.parametrize(
    "url, host",
    [
        ("https://host/", "host"), ("https://host:443/", "host"), ("http://host:80/", "host"),
        ("http://host:443/", "host:443"), ("https://host:8443/", "host:8443"), ("http://[::1]:8080/x", "[::1]:8080"),
    ],
)  # fmt: skip
def test_the_host_is_signed_as_it_is_sent(url: str, host: str) -> None:
    assert host_of(url) == host


def test_another_minute_region_body_or_method_is_another_signature() -> None:
    def signature(method: str = "GET", body: str = EMPTY_SHA256, time: str = IMAGING.time, region: str = "r") -> str:
        scope = Scope(time=time, region=region, service="medical-imaging")
        added = signed(method, "https://host/x", {}, body, credentials=EXAMPLE, scope=scope)
        found = re.search("Signature=([0-9a-f]{64})$", added["Authorization"])
        assert found is not None
        return found[1]

    all_of_them = [
        signature(), signature("POST"), signature(body=sha256(b"x").hexdigest()), signature(time="20240102T030505Z"),
        signature(region="q"),
    ]  # fmt: skip
    assert len(set(all_of_them)) == len(all_of_them)


def test_a_secret_is_not_shown() -> None:
    assert "wJalr" not in repr(WITH_TOKEN) and "TOKEN123" not in repr(WITH_TOKEN)
