"""Accept headers: which form is chosen, and when there is none."""

import time

import pytest

from dcmsync.node.web.accepting import DICOM, OCTETS, Form, form, ranges, takes_json

ANY = Form(True, None)
JPEG = "1.2.840.10008.1.2.4.50"
PLAIN = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", ANY),
        ("*/*", ANY),
        ("multipart/related", ANY),
        ('multipart/related; type="application/dicom"', ANY),
        ("multipart/related;type=application/dicom;transfer-syntax=*", ANY),
        ('multipart/related; type="application/dicom"; transfer-syntax=*, */*;q=0.1', ANY),
        (f'multipart/related; type="application/dicom"; transfer-syntax={JPEG}', Form(True, frozenset([JPEG]))),
        (f'multipart/related; type="application/dicom; transfer-syntax={JPEG}"', Form(True, frozenset([JPEG]))),
        (f'multipart/related; type="{DICOM}"; transfer-syntax={JPEG}, multipart/related; type="{DICOM}"; '
         f"transfer-syntax={PLAIN}", Form(True, frozenset([JPEG, PLAIN]))),
        (f'multipart/related; type="{DICOM}"; transfer-syntax={JPEG}, multipart/related; type="{DICOM}"', ANY),
        ("application/dicom", None),
        ("application/dicom+json", None),
        ('multipart/related; type="image/jpeg"', None),
        ('multipart/related; type="application/dicom"; q=0', None),
        ("text/html", None),
    ],
)  # fmt: skip
def test_many_instances_are_parts(accept: str, chosen: Form | None) -> None:
    assert form(accept, DICOM, is_single=False) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", ANY),
        ("*/*", ANY),
        ("application/dicom", Form(False, None)),
        ("application/*", Form(False, None)),
        (f"application/dicom; transfer-syntax={JPEG}", Form(False, frozenset([JPEG]))),
        ('application/dicom;q=0.5, multipart/related; type="application/dicom"', ANY),
        ('application/dicom, multipart/related; type="application/dicom"', Form(False, None)),
    ],
)
def test_one_instance_may_go_by_itself(accept: str, chosen: Form | None) -> None:
    assert form(accept, DICOM, is_single=True) == chosen


def test_bulk_data_go_by_themselves_unless_parts_are_wanted() -> None:
    assert form("*/*", OCTETS, is_single=True, prefers_single=True) == Form(False, None)
    wanted = 'multipart/related; type="application/octet-stream"'
    assert form(wanted, OCTETS, is_single=True, prefers_single=True) == ANY


@pytest.mark.parametrize(
    ("accept", "does"),
    [("", True), ("*/*", True), ("application/dicom+json", True), ("application/json, text/html", True),
     ("text/html", False), ('multipart/related; type="application/dicom+xml"', False),
     ("application/dicom+json;q=0", False)],
)  # fmt: skip
def test_json_is_taken_where_it_is_named(accept: str, does: bool) -> None:
    assert takes_json(accept) is does


def test_a_header_of_nothing_but_marks_takes_no_time() -> None:
    begun = time.monotonic()
    for mark in (",", ";", '"', ',"', ";;=,", '\\"'):
        assert len(ranges(mark * (8190 // len(mark)))) <= 32
    assert time.monotonic() - begun < 0.2
