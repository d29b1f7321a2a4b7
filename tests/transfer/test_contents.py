"""Instances that are asked for to be hashed, and kept by nobody."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from dcmsync.contract import Arrival, Ending, Want
from dcmsync.errors import Disconnected, LocalTrouble
from dcmsync.transfer import contents
from dcmsync.transfer.contents import Contents, Found
from tests.fakes.archive import CT, Archive, Row, instances

SERIES = instances(1, 1, 250)


def digest(read_at: Callable[[int, int], bytes], size: int, syntax: str) -> str:
    octets = b"".join(read_at(at, 7) for at in range(0, size, 7))
    assert len(octets) == size and syntax == "1.2.840.10008.1.2.1"
    return hashlib.blake2b(octets, digest_size=16).hexdigest()


def asked(archive: Archive, wanted: int = 3) -> Found:
    kinds = {str(row["SOPInstanceUID"]): CT for row in SERIES[:wanted]}
    return anyio.run(Contents(digest).of, archive, "1.1", "1.1.1", kinds)


@pytest.mark.parametrize("kept", [0, 10, 1 << 20])
def test_each_instance_is_hashed_in_memory_or_on_disk(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "KEPT_OCTETS", kept)
    found = asked(Archive(SERIES), 250)
    assert len(found.digests) == 250
    for uid, value in found.digests.items():
        assert value == "xxh3:" + hashlib.blake2b(f"data set of {uid}".encode(), digest_size=16).hexdigest()


def test_many_are_asked_for_in_lots() -> None:
    archive = Archive(SERIES)
    asked(archive, 250)
    assert [len(want.instances) for want in archive.wants] == [100, 100, 50]
    assert not any(want.whole for want in archive.wants)


def test_what_nobody_asked_for_is_refused_and_what_came_twice_counts_once() -> None:
    def generous(archive: Archive, want: Want) -> Iterator[Row | Ending | Exception]:
        yield from SERIES[:5]
        yield {**SERIES[0], "content": "another "}

    archive = Archive(SERIES, fetcher=generous)
    found = asked(archive, 3)
    assert len(found.digests) == 3 and len(archive.refusals) == 3
    first = str(SERIES[0]["SOPInstanceUID"])
    assert found.digests[first] == asked(Archive(SERIES), 1).digests[first]


def test_what_does_not_come_has_no_digest_and_the_last_word_is_told() -> None:
    def refusing(archive: Archive, want: Want) -> Iterator[Row | Ending | Exception]:
        yield SERIES[1]
        yield Ending(status=0xA701, why="out of resources")

    found = asked(Archive(SERIES, fetcher=refusing))
    assert list(found.digests) == [SERIES[1]["SOPInstanceUID"]] and found.why == "out of resources"


def test_who_hangs_up_is_the_caller_s_trouble() -> None:
    def broken(archive: Archive, want: Want) -> Iterator[Row | Ending | Exception]:
        yield SERIES[0]
        yield Disconnected("the peer hung up")

    with pytest.raises(Disconnected):
        asked(Archive(SERIES, fetcher=broken))


def test_a_disk_that_is_full_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contents, "KEPT_OCTETS", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(LocalTrouble, match="cannot be kept"):
        asked(Archive(SERIES))


def test_an_instance_that_is_discarded_is_nobody_s() -> None:
    class Hesitating(Archive):
        async def fetch(self, want: Want, receiver) -> Ending:  # type: ignore[no-untyped-def]
            uid = next(iter(want.instances))
            sink = receiver.receive(Arrival(sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax_uid="1.2"))
            assert not isinstance(sink, int) and not sink.adopt()
            sink.write([memoryview(b"half")])
            sink.discard("broken off")
            sink.discard("again")
            return Ending()

    assert not asked(Hesitating(SERIES)).digests


def test_the_patient_is_named_in_each_request() -> None:
    def in_no_lists(archive: Archive, want: Want) -> Iterator[Row | Ending | Exception]:
        yield from (row for row in SERIES[:3] if list(want.instances) == [row["SOPInstanceUID"]])

    archive = Archive(SERIES, fetcher=in_no_lists)
    kinds = {str(row["SOPInstanceUID"]): CT for row in SERIES[:3]}
    anyio.run(partial(Contents(digest).of, archive, "1.1", "1.1.1", kinds, patient_id="P1"))
    assert [want.patient_id for want in archive.wants] == ["P1"] * 4
