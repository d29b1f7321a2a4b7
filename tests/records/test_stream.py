"""Lines <-> records."""

import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import InputError, LocalTrouble
from dcmsync.records.model import End, Outcome, Series, Study
from dcmsync.records.stream import Line, Reader, Unknown, Writer, read_record

SERIES = b'{"type":"series","StudyInstanceUID":"1.2","SeriesInstanceUID":"1.2.3","Modality":"CT","00091001":"x"}'
STUDY = b'{"type":"study","StudyInstanceUID":"1.2","ModalitiesInStudy":["CT","SR"]}'
END = b'{"type":"end","format":1,"complete":true,"records":1}'
PATIENT = "DOE^JANE"


def read(text: bytes, *, require_end: bool = False) -> tuple[list[Line], Reader]:
    reader = Reader(io.BytesIO(text), require_end=require_end)
    return list(reader), reader


def test_records_come_with_their_number_and_their_line() -> None:
    lines, reader = read(b"\n" + SERIES + b"\r\n  \n" + STUDY + b"\n" + END + b"\n")
    assert lines == [
        (2, SERIES + b"\r\n", Series(StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3", Modality="CT")),
        (4, STUDY + b"\n", Study(StudyInstanceUID="1.2", ModalitiesInStudy=["CT", "SR"])),
    ]
    assert reader.complete
    assert reader.has_ended


def test_an_unknown_type_is_handed_on() -> None:
    lines, _ = read(b'{"type":"volume","shape":{"a":[1,2]}}\n')
    assert [line.record for line in lines] == [Unknown("volume")]


def test_a_source_that_gives_several_values_where_one_is_allowed_ends_nothing() -> None:
    lines, _ = read(STUDY[:-1] + b',"PatientID":["A","B"],"StudyDescription":["","C"]}\n')
    record = lines[0].record
    assert isinstance(record, Study)
    assert (record.PatientID, record.StudyDescription) == (["A", "B"], ["", "C"])


@pytest.mark.parametrize("line, words", [
    (b"{", "Input data was truncated"),
    (b"[1]", "Expected `object`, got `array`"),
    (b"{}", "a record needs a `type`"),
    (b'{"type":null}', "a record needs a `type`"),
    (b'{"type":5}', "a record needs a `type`"),
    (SERIES + SERIES, "trailing characters"),
    (b'{"type":"series","StudyInstanceUID":"1"}', "missing required field `SeriesInstanceUID`"),
    (SERIES[:-1] + b',"SeriesNumber":"5"}', "Expected `int`, got `str`: key `SeriesNumber`"),
    (SERIES[:-1] + b',"change":"gone"}', "key `change`"),
    (SERIES[:-1] + b',"EchoTime":1e400}', "Number out of range"),
    (SERIES[:-1] + b',"EchoTime":NaN}', "malformed"),
    (SERIES[:-1] + b',"Modality":"MR"}', "the key 'Modality' occurs twice"),
    (SERIES[:-1] + b',"x":"\\u0000"}', "NUL"),
    (SERIES[:-1] + b',"x":"\x00"}', "malformed"),
    (SERIES[:-1] + b',"x":"\xff"}', "not UTF-8"),
    (SERIES[:-1] + b',"x":"\\ud800"}', "not a record"),
    (SERIES[:-1] + b',"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested deeper than 512"),
    (b'{"x":' + b"[" * 10_000, "nested deeper than 512"),
    (b'{"type":"end","format":2,"complete":true,"records":0}', "format 2"),
])
def test_a_bad_line_ends_the_stream_with_its_number(line: bytes, words: str) -> None:
    reader = Reader(io.BytesIO(STUDY + b"\n\n" + line + b"\n" + STUDY + b"\n"))
    records = iter(reader)
    assert next(records).number == 1
    with pytest.raises(InputError) as caught:
        next(records)
    assert caught.value.line == 3
    assert str(caught.value).startswith("line 3: ")
    assert words in str(caught.value)


def test_an_error_names_no_value() -> None:
    with pytest.raises(InputError) as caught:
        read_record(json.dumps({"type": "study", "StudyInstanceUID": [PATIENT], "PatientName": PATIENT}).encode(), 1)
    assert PATIENT not in str(caught.value)


def test_a_stream_without_end_is_complete_unless_an_end_is_required() -> None:
    assert read(STUDY + b"\n")[1].complete
    assert not read(STUDY + b"\n", require_end=True)[1].complete
    assert not read(b"", require_end=True)[1].complete
    assert read(STUDY + b"\n" + END + b"\n", require_end=True)[1].complete


def test_records_behind_the_last_end_are_not_covered_by_it() -> None:
    assert not read(END + b"\n" + STUDY + b"\n", require_end=True)[1].complete


def test_of_joined_streams_all_must_be_complete() -> None:
    bad = END.replace(b"true", b"false")
    assert read(END + b"\n" + END + b"\n")[1].complete
    _, reader = read(bad + b"\n" + STUDY + b"\n" + END + b"\n")
    assert not reader.complete
    assert reader.trouble == "its end record says that it is not complete"


def test_the_reason_of_an_incomplete_end_is_told() -> None:
    _, reader = read(b'{"type":"end","complete":false,"reason":"truncated"}\n')
    assert reader.trouble.endswith("(truncated)")


def test_a_producer_that_breaks_off_leaves_what_it_said() -> None:
    lines, reader = read(STUDY + b"\n" + SERIES[:-5])
    assert [line.number for line in lines] == [1]
    assert not reader.complete
    assert reader.trouble == "it breaks off within a line"


def test_a_last_line_without_newline_counts_when_it_is_whole() -> None:
    lines, reader = read(STUDY + b"\n" + SERIES)
    assert [line.raw for line in lines] == [STUDY + b"\n", SERIES]
    assert reader.complete


@given(st.binary(max_size=60))
def test_any_octets_are_records_or_an_input_error(text: bytes) -> None:
    try:
        read(text)
    except InputError as error:
        assert error.line is not None


class Target(io.RawIOBase):
    """Takes at most `bite` octets at a time, and remembers what was flushed."""

    def __init__(self, bite: int = 1000) -> None:
        self.bite = bite
        self.taken = b""
        self.flushed = b""

    def write(self, octets: memoryview) -> int:  # type: ignore[override]
        self.taken += bytes(octets[: self.bite])
        return min(self.bite, len(octets))

    def flush(self) -> None:
        self.flushed = self.taken


def test_each_record_is_flushed_and_counted() -> None:
    target = Target()
    writer = Writer(target)  # type: ignore[arg-type]
    writer.write(Series(StudyInstanceUID="1", SeriesInstanceUID="2"))
    assert target.flushed == b'{"type":"series","StudyInstanceUID":"1","SeriesInstanceUID":"2"}\n'
    writer.write({"type": "study", "StudyInstanceUID": "1", "00091001": [1, 2]})
    assert target.flushed.endswith(b'"00091001":[1,2]}\n')
    writer.write_line(SERIES + b"\r\n")
    assert target.flushed.endswith(b"\n" + SERIES + b"\r\n")
    writer.write_line(SERIES)
    assert target.flushed.endswith(b"\n" + SERIES + b"\n")
    writer.end(complete=False, reason="truncated")
    assert msgspec.json.decode(target.flushed.splitlines()[-1]) == {
        "type": "end", "format": 1, "complete": False, "records": 4, "reason": "truncated"}


def test_a_target_that_takes_a_few_octets_at_a_time_gets_them_all() -> None:
    target = Target(bite=3)
    Writer(target).write_line(SERIES)  # type: ignore[arg-type]
    assert target.flushed == SERIES + b"\n"


@pytest.mark.parametrize("error, kind", [(BrokenPipeError(32, "Broken pipe"), BrokenPipeError),
                                         (OSError(28, "No space left on device"), LocalTrouble)])
def test_trouble_with_the_target(error: OSError, kind: type[Exception]) -> None:
    class Bad(Target):
        def flush(self) -> None:
            raise error

    with pytest.raises(kind):
        Writer(Bad()).write(End())  # type: ignore[arg-type]


def test_what_is_no_text_is_replaced() -> None:
    target = Target()
    Writer(target).write(Outcome(level="instance", outcome="failed", path="/a/\udcff.dcm"))  # type: ignore[arg-type]
    assert json.loads(target.flushed)["path"] == "/a/\ufffd.dcm"


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.builds(Study, StudyInstanceUID=PLAIN, PatientName=PLAIN, ModalitiesInStudy=st.lists(PLAIN)))
def test_what_is_written_is_read_back(record: Study) -> None:
    target = io.BytesIO()
    writer = Writer(target)
    writer.write(record)
    writer.end()
    lines, reader = read(target.getvalue(), require_end=True)
    assert [line.record for line in lines] == [record]
    assert reader.complete
