"""The way of a line through `filter`."""

import io
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import InputError
from dcmsync.records.sieve import Glimpse, Sieve, Skimmer
from dcmsync.records.stream import Writer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
THING = st.fixed_dictionaries(
    {"type": st.sampled_from(["study", "series", "instance", "outcome"])},
    optional={"Modality": st.sampled_from(["CT", "MR", None, 5, ["CT"]]), "x": TEXT, "StudyInstanceUID": TEXT})
OTHER = st.fixed_dictionaries({"type": st.sampled_from(["volume", "endless"])}, optional={"Modality": TEXT})
BAD = st.sampled_from([b"{", b"[]", b'{"type":5}', b'{"Modality":"CT"}', b'{"type":"study"} {"type":"study"}',
                       b'{"type":"study","x":"\xff"}', b'{"type":"study","x":\n1}',
                       b'{"type":"study","x":' + b"[" * 600 + b"]" * 600 + b"}"])
END = st.builds(lambda count, complete: {"type": "end", "format": 1, "complete": complete, "records": count},
                st.integers(0, 3), st.booleans())
LINE = st.one_of(
    st.one_of(THING, THING, OTHER, END).flatmap(lambda record: st.sampled_from(
        [json.dumps(record, ensure_ascii=False).encode(), json.dumps(record, separators=(",", ":")).encode() + b"\r"])),
    st.sampled_from([b"", b"  ", b"\r"]))


class Pieces(io.RawIOBase):
    """An input that arrives in these pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read(self, size: int = -1) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def is_ct(skimmer: Skimmer) -> object:
    get = skimmer.getter("Modality")
    return lambda glimpses: [get(glimpse) == "CT" for glimpse in glimpses]


def sieve(pieces: Iterable[bytes], *, require_end: bool = False, **more: object) -> tuple[bytes, str, int | None]:
    """What comes out, what is said about completeness, and the number of the bad line, if there is one."""
    skimmer = Skimmer(["Modality"])
    target = io.BytesIO()
    passing = Sieve(Pieces(pieces), Writer(target), skimmer, is_ct(skimmer), **more)  # type: ignore[arg-type]
    try:
        trouble = passing.run(require_end=require_end)
    except InputError as error:
        return target.getvalue(), str(error), error.line
    return target.getvalue(), trouble, None


@given(lines=st.lists(LINE, max_size=12), bad=st.one_of(st.none(), BAD), tail=st.sampled_from([b"", b'{"type":"st']),
       places=st.lists(st.integers(0, 2000), max_size=6))
def test_how_octets_arrive_never_shows(lines: list[bytes], bad: bytes | None, tail: bytes, places: list[int]) -> None:
    text = b"".join(line + b"\n" for line in (lines if bad is None else [*lines, bad, *lines])) + tail
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    pieces = [text[start:end] for start, end in pairwise(ends)]
    assert sieve(pieces) == sieve([text]) == sieve(text[index : index + 1] for index in range(len(text)))


@given(lines=st.lists(LINE, max_size=12))
def test_what_stays_is_octet_for_octet_what_came(lines: list[bytes]) -> None:
    text = b"".join(line + b"\n" for line in lines)
    out, _, _ = sieve([text])
    expected = []
    for line in lines:
        record = json.loads(line) if line.strip() else {}
        kind = record.get("type")
        if kind in ("volume", "endless") or (kind not in (None, "end") and record.get("Modality") == "CT"):
            expected.append(line)
    assert [line for line in out.split(b"\n")[:-1] if b'"end"' not in line] == expected


def study(number: int, modality: str = "CT") -> bytes:
    return json.dumps({"type": "study", "Modality": modality, "n": number}).encode() + b"\n"


def end(records: int, *, complete: bool = True, **more: object) -> bytes:
    record = {"type": "end", "format": 1, "complete": complete, "records": records, **more}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def test_each_end_says_how_many_records_it_closes() -> None:
    out, trouble, _ = sieve([study(1), study(2, "MR"), end(2, splits=7), study(3), end(1), end(9)])
    assert out == study(1) + end(1, splits=7) + study(3) + end(1) + end(0)
    assert trouble == ""


def test_an_end_that_is_right_leaves_as_it_came() -> None:
    strange = b'{ "type":"end",  "complete":true, "records":1, "format":1 }\r\n'
    assert sieve([study(1) + strange])[0] == study(1) + strange


def test_an_incomplete_end_passes_and_is_told() -> None:
    out, trouble, _ = sieve([study(1) + end(1, complete=False)])
    assert out == study(1) + end(1, complete=False)
    assert trouble


def test_a_producer_that_breaks_off_is_told_to_the_next() -> None:
    out, trouble, _ = sieve([study(1) + study(2)[:-4]])
    assert out == study(1) + end(1, complete=False, reason="input")
    assert trouble == "it breaks off within a line"


def test_a_producer_that_breaks_off_behind_an_end_is_told_to_the_next() -> None:
    assert sieve([study(1) + end(1) + b"{"])[0] == study(1) + end(1) + end(0, complete=False, reason="input")


@pytest.mark.parametrize("company", [b"", b'{"type":"volume"}\n'], ids=["fast way", "line by line"])
@pytest.mark.parametrize("bad, words", [
    (b'{"type":"study","x":' + b"[" * 600 + b"]" * 600 + b"}", "nested deeper than 512 levels"),
    (b'{"type":"study","x":"' + b" " * 2000 + b'\xff"}', "not UTF-8"),
    (b'{"type":"study","Modality":1e400}', "Number out of range"),
    (b'{"type":"study","x":\x01}', "malformed"),
])  # fmt: skip
def test_a_line_that_is_not_sound_is_refused_in_any_company(bad: bytes, words: str, company: bytes) -> None:
    out, trouble, number = sieve([company + study(1) + bad + b"\n" + study(2)])
    assert out == company + study(1) + end(1 + bool(company), complete=False, reason="input")
    assert words in trouble
    assert number == 2 + bool(company)


def test_a_bad_line_is_told_to_the_next_when_what_came_before_has_left() -> None:
    out, trouble, number = sieve([study(1) + b"\n" + study(2) + b"{\n" + study(3)])
    assert out == study(1) + study(2) + end(2, complete=False, reason="input")
    assert number == 4
    assert trouble.startswith("line 4: ")


def test_a_missing_end_matters_only_when_required() -> None:
    assert sieve([study(1)]) == (study(1), "", None)
    assert sieve([study(1)], require_end=True) == (
        study(1) + end(1, complete=False, reason="input"), "it has no end record", None)


def test_a_last_line_without_newline_gets_one() -> None:
    assert sieve([study(1)[:-1]])[0] == study(1)


def test_keys_that_are_not_asked_for_are_not_judged() -> None:
    line = b'{"type":"series","SeriesNumber":"five","Modality":"CT","x":1e400}\n'
    assert sieve([line])[0] == line


def test_each_block_leaves_before_the_next_is_asked_for() -> None:
    target = io.BytesIO()

    class Watched(Pieces):
        def read(self, size: int = -1) -> bytes:
            seen.append(target.getvalue())
            return super().read(size)

    seen: list[bytes] = []
    skimmer = Skimmer(["Modality"])
    Sieve(Watched([study(1), study(2)]), Writer(target), skimmer,  # type: ignore[arg-type]
          is_ct(skimmer)).run(require_end=False)  # type: ignore[arg-type]
    assert seen == [b"", study(1), study(1) + study(2)]


class Last:
    """Holds on to the last `number`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.held: list[tuple[int, bytes]] = []

    def offer(self, values: Sequence[object], payload: tuple[int, bytes]) -> tuple[int, bytes] | None:
        assert list(values) == ["CT"]
        self.held.append(payload)
        return self.held.pop(0) if len(self.held) > self.number else None

    def chosen(self) -> list[tuple[int, bytes]]:
        return self.held


def test_what_is_held_leaves_in_the_order_of_the_input() -> None:
    other = b'{"type":"volume"}\n'
    text = study(1) + other + study(2) + end(2) + study(3) + end(1)
    assert sieve([text], holder=Last(2), holder_keys=["Modality"])[0] == other + study(2) + end(2) + study(3) + end(1)


def test_each_drop_is_told_once_with_its_line() -> None:
    dropped: list[tuple[int, bool]] = []

    def on_drop(number: int, glimpse: Glimpse | None) -> None:
        dropped.append((number, glimpse is not None))

    sieve([b"\n" + study(1) + study(2, "MR") + study(3)], on_drop=on_drop, holder=Last(1), holder_keys=["Modality"])
    assert dropped == [(3, True), (2, False)]


@pytest.mark.parametrize("key", ["00091001", "type", "class", "key0", "_x"])
def test_any_key_can_be_asked_for(key: str) -> None:
    skimmer = Skimmer([key, "key0", "type"])
    glimpse = skimmer.line(json.dumps({"type": "study", key: "study"}).encode(), 1)
    assert isinstance(glimpse, Glimpse)
    assert skimmer.getter(key)(glimpse) == "study"
