"""What a message may quote of an answer: short, printable, and nothing that we told the peer."""

from hypothesis import given
from hypothesis import strategies as st

from dcmsync.net.quotation import quoted, secrets_of


@given(st.binary(max_size=2000))
def test_a_quotation_is_short_printable_and_one_line(body: bytes) -> None:
    text = quoted(body, ())
    assert len(text) <= 200 and text.isprintable() and text == text.strip()


def test_markup_styles_and_scripts_are_left_out() -> None:
    page = b"<html><style>a{b}</style><SCRIPT type=x>alert(1)</script><h1>No &lt;study&gt;</h1><br>here</html>"
    assert quoted(page, ()) == "No <study> here"


def test_longer_secrets_are_starred_out_before_those_within_them() -> None:
    assert quoted(b"abcdef abc", ["abc", "abcdef"]) == "*** ***"


def test_what_a_request_told_is_secret_but_for_how_to_answer() -> None:
    url = "http://h/studies?PatientName=M%C3%BCller^*&PatientID=P1234&limit=100&includefield=StudyDate"
    headers = {"Authorization": "Basic YWRhOmh1bnRlcjI=", "cookie": "JSESSION=abcdef", "Accept": "application/json"}
    found = set(secrets_of(url, headers, {"X-Key": "s3cr3t"}))
    assert {"hunter2", "ada:hunter2", "YWRhOmh1bnRlcjI=", "JSESSION=abcdef", "s3cr3t", "Müller^*", "M%C3%BCller^*",
            "P1234"} <= found  # fmt: skip
    assert not {"100", "StudyDate", "application/json"} & found


def test_a_value_that_is_in_every_text_is_no_secret() -> None:
    assert secrets_of("http://h/?PatientSex=F&x", {}, {}) == []
