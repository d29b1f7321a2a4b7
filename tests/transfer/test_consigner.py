"""Parcels: files go as they are, octets are judged as a whole, twins are compared and never sent."""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from dcmsync.contract import Arrival, Expected, Landed, Origin, Parcel, Sink, Stamp
from dcmsync.errors import LocalTrouble, RemoteProtocolError
from dcmsync.transfer import consigner
from dcmsync.transfer.consigner import Consigner, Settings

HEAD = b"head, 12 oct"
FIRST, SECOND = Expected(), Expected(is_second=True)
ReadAt = Callable[[int, int], bytes]


def content_of(read_at: ReadAt, size: int, syntax: str) -> str:
    return "content of " + read_at(0, size).decode()


def judge(read_at: ReadAt, size: int, arrival: Arrival, expected: Expected) -> tuple[str, str]:
    return ("truncated", "it is cut") if read_at(size - 1, 1) == b"!" else ("", "")


class Taken:
    """A consigner, and the parcels that it made."""

    def __init__(self, **more: Any) -> None:
        self.parcels: list[Parcel] = []
        settings: dict[str, Any] = {
            "completed": self.parcels.append, "judge": judge, "flaw": lambda read_at, size, syntax: "",
            "hasher": blake2b, "content_of": content_of, **more,
        }  # fmt: skip
        self.consigner = Consigner(Settings(**settings))

    def sink(self, arrival: Arrival, expected: Expected = FIRST) -> Sink:
        sink = self.consigner.receive(arrival, expected)
        assert not isinstance(sink, int)
        return sink

    def file(self, path: Path, expected: Expected = FIRST) -> Landed | None:
        """Takes a file, and looks at it."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            sink = self.sink(of_file(path, descriptor), expected)
            assert sink.adopt()
            assert sink.finish() == 0
        finally:
            os.close(descriptor)
        return looked_at(self.parcels[-1])

    def octets(self, *pieces: bytes, expected: Expected = FIRST) -> Landed | None:
        """Takes octets, and looks at them."""
        sink = self.sink(arrival(), expected)
        assert not sink.adopt()
        for piece in pieces:
            sink.write([memoryview(piece)])
        assert sink.finish() == 0
        return looked_at(self.parcels[-1])


def looked_at(parcel: Parcel) -> Landed | None:
    return parcel.check() if parcel.check is not None else None


def arrival(**more: Any) -> Arrival:
    given = {"sop_class_uid": "1.2", "sop_instance_uid": "1.1", "transfer_syntax_uid": "1.2.840.10008.1.2"}
    return Arrival(**{**given, **more})


def of_file(path: Path, descriptor: int) -> Arrival:
    status = path.stat()
    stamp = Stamp(size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino)
    return arrival(origin=Origin(path=str(path), descriptor=descriptor, stamp=stamp, head=HEAD))


def made(path: Path, octets: bytes) -> Path:
    path.write_bytes(HEAD + octets)
    return path


def test_a_file_is_handed_on_unread(tmp_path: Path) -> None:
    taken = Taken()
    assert taken.file(made(tmp_path / "a", b"data set")) is None
    parcel = taken.parcels[0]
    assert (parcel.memory, parcel.offset, parcel.size) == (None, 12, 8)
    assert parcel.stamp is not None and parcel.stamp.size == 20
    assert os.pread(parcel.descriptor, parcel.size, parcel.offset) == b"data set"  # the source has closed its own
    os.close(parcel.descriptor)


def test_few_octets_stay_in_memory_and_many_go_to_a_file_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(consigner, "KEPT_OCTETS", 10)
    taken = Taken()
    taken.octets(b"few", b"")
    taken.octets(b"many octet", b"s, and ", b"more")
    few, many = taken.parcels
    assert (few.memory, few.descriptor, few.size) == (b"few", -1, 3)
    assert (many.memory, many.size) == (None, 21)
    assert os.pread(many.descriptor, 100, many.offset) == b"many octets, and more"
    assert not list(tmp_path.iterdir())
    os.close(many.descriptor)


def test_what_came_from_elsewhere_is_judged_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for kept in (10, 1000):
        monkeypatch.setattr(consigner, "KEPT_OCTETS", kept)
        verdict = Taken().octets(b"much too long, and cut!")
        assert verdict is not None
        assert (verdict.outcome, verdict.reason, verdict.message) == ("failed", "truncated", "it is cut")
        fine = Taken().octets(b"much too long, and not")
        assert fine is not None and fine.outcome == "stored"


def test_what_cannot_become_a_data_set_is_refused_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consigner, "FIRST_LOOK_OCTETS", 10)
    looks: list[int] = []

    def flaw(read_at: ReadAt, size: int, syntax: str) -> str:
        looks.append(size)
        return "no" if b"garbage" in read_at(0, size) else ""

    sink = Taken(flaw=flaw).sink(arrival())
    for _ in range(9):
        sink.write([memoryview(b"fine " * 4)])
    assert looks == [20, 80]
    sink.write([memoryview(b"garbage " * 10)])
    with pytest.raises(RemoteProtocolError):
        sink.write([memoryview(b"garbage " * 10)])
    sink.discard("it is garbage")
    sink.discard("twice")


def test_a_disk_that_is_full_is_trouble_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(consigner, "KEPT_OCTETS", 10)
    monkeypatch.setattr(consigner, "TemporaryFile", full)
    with pytest.raises(LocalTrouble):
        Taken().sink(arrival()).write([memoryview(b"more than ten octets")])


def test_what_is_discarded_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consigner, "KEPT_OCTETS", 10)
    before = len(os.listdir("/proc/self/fd"))
    taken = Taken()
    sink = taken.sink(arrival())
    sink.write([memoryview(b"more than ten octets")])
    sink.discard("the association ended")
    assert len(os.listdir("/proc/self/fd")) == before
    assert not taken.parcels


@pytest.mark.parametrize("lacking", ["sop_class_uid", "sop_instance_uid", "transfer_syntax_uid"])
def test_an_instance_that_does_not_say_what_it_is_is_refused(lacking: str) -> None:
    assert Taken().consigner.receive(arrival(**{lacking: ""})) == 0xC000


# Twins


def twins(taken: Taken, tmp_path: Path, first: bytes, second: bytes) -> str:
    taken.file(made(tmp_path / "a", first))
    verdict = taken.file(made(tmp_path / "b", second), SECOND)
    assert verdict is not None
    for parcel in taken.parcels:
        os.close(parcel.descriptor)
    return verdict.outcome


def test_a_second_file_of_an_instance_is_the_same_or_a_conflict(tmp_path: Path) -> None:
    assert twins(Taken(), tmp_path, b"data set", b"data set") == "present"
    assert twins(Taken(), tmp_path, b"data set", b"data Set") == "conflict"


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"short")], ids=["gone", "another"])
def test_a_first_file_that_cannot_be_compared_any_more_leaves_a_conflict(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    taken = Taken()
    taken.file(made(tmp_path / "a", b"data set"))
    change(tmp_path / "a")
    verdict = taken.file(made(tmp_path / "b", b"data set"), SECOND)
    assert verdict is not None and verdict.outcome == "conflict"
    for parcel in taken.parcels:
        os.close(parcel.descriptor)


def test_octets_that_come_twice_are_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken()
    taken.octets(b"data ", b"set")
    same, other = taken.octets(b"data set", expected=SECOND), taken.octets(b"another", expected=SECOND)
    assert same is not None and same.outcome == "present"
    assert other is not None and other.outcome == "conflict"
    monkeypatch.setattr(consigner, "FIRSTS", 0)
    forgetful = Taken()
    forgetful.octets(b"data set")
    unknown = forgetful.octets(b"data set", expected=SECOND)
    assert unknown is not None and unknown.outcome == "conflict"


# Digests


def test_the_content_is_hashed_when_that_is_wanted(tmp_path: Path) -> None:
    taken = Taken(hashes=True)
    of_octets, of_a_file = taken.octets(b"data set"), taken.file(made(tmp_path / "a", b"data set"))
    assert of_octets is not None and of_octets.content == "content of data set"
    assert of_a_file is not None and (of_a_file.outcome, of_a_file.content) == ("stored", "content of data set")
    os.close(taken.parcels[-1].descriptor)


@pytest.mark.parametrize(("held", "outcome"), [("content of data set", "present"), ("something else", "conflict")])
def test_what_the_destination_has_is_not_sent(held: str, outcome: str, tmp_path: Path) -> None:
    taken = Taken(held=lambda uid: held)
    for verdict in (taken.octets(b"data set"), taken.file(made(tmp_path / "a", b"data set"))):
        assert verdict is not None and verdict.outcome == outcome
    os.close(taken.parcels[-1].descriptor)
