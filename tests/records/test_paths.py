"""Names of files in records: every name there and back, and JSON that anybody can read."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dcmsync.records.paths import path_in, path_keys


@given(some.binary(min_size=1).filter(lambda octets: b"\0" not in octets))
def test_every_name_comes_back(octets: bytes) -> None:
    path = os.fsdecode(octets)
    keys = json.loads(json.dumps(path_keys(path), ensure_ascii=False).encode())
    assert path_in(keys) == path
    assert ("path_octets" in keys) == (octets.decode(errors="ignore").encode() != octets)


def test_a_plain_name_is_said_plainly() -> None:
    assert path_keys("P1/é.dcm") == {"path": "P1/é.dcm"}
    assert path_keys("a\udcff") == {"path": "a\ufffd", "path_octets": "Yf8="}


def test_a_record_without_a_path_says_none() -> None:
    assert path_in({"type": "series"}) == ""
    assert path_in({"path": 7}) == ""
    with pytest.raises(ValueError, match=r"base64|padding"):
        path_in({"path": "x", "path_octets": "?"})
