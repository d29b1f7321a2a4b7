"""A zip archive as a source and as a destination, judged by zipfile, unzip and zip, and by what kills do to it."""

import errno
import fcntl
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import anyio
import pydicom
import pytest
from xxhash import xxh3_128

from dcmsync.cache.digest import content_of
from dcmsync.cache.store import open_store
from dcmsync.contract import Arrival, Ask, Catalogue, Ending, Expected, Holding, Landed, Level, Want
from dcmsync.contract import Sink as AnySink
from dcmsync.endpoints import Setting, open_place
from dcmsync.endpoints.zip import draft, held
from dcmsync.endpoints.zip import place as zip_place
from dcmsync.endpoints.zip import stock as zip_stock
from dcmsync.endpoints.zip.arrivals import Job, Settings, Sink
from dcmsync.endpoints.zip.landing import CANNOT_UNDERSTAND, Packing
from dcmsync.endpoints.zip.place import ZipPlace
from dcmsync.endpoints.zip.stock import take_stock
from dcmsync.errors import LocalTrouble, RemoteProtocolError
from dcmsync.locator import Archive
from dcmsync.net.patience import Watch
from dcmsync.wire.part10 import file_meta, walk_file
from tests.endpoints.landing_run import EXPLICIT, SECONDARY, arrival, data_set, element, place
from tests.endpoints.packing_run import remembering

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "tests.endpoints.packing_run"]
JPEG = "1.2.840.10008.1.2.4.50"


def file_of(uid: str, **given: object) -> bytes:
    return file_meta(SECONDARY, uid, EXPLICIT) + data_set(uid, **given)  # type: ignore[arg-type]


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, octets in members.items():
            archive.writestr(name, octets)
    return path


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert len(set(archive.namelist())) == len(archive.namelist())
        return {name: archive.read(name) for name in archive.namelist()}


def noise(octets: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(octets)


# source


class Taken:
    """A receiver that keeps everything. What was discarded stands in `discarded`."""

    def __init__(self) -> None:
        self.files: list[tuple[Arrival, bytes]] = []
        self.discarded: list[str] = []
        self.refused: set[str] = set()

    def receive(self, arrival: Arrival) -> AnySink | int:
        return 0xC000 if arrival.sop_instance_uid in self.refused else Keeping(self, arrival)

    async def room(self) -> None:
        await anyio.lowlevel.checkpoint()

    def octets(self, uid: str) -> bytes:
        (found,) = [arrival.head + octets for arrival, octets in self.files if arrival.sop_instance_uid == uid]
        return found


class Keeping:
    def __init__(self, taken: Taken, arrival: Arrival) -> None:
        self._taken = taken
        self._arrival = arrival
        self._octets = bytearray()

    def adopt(self) -> bool:
        return False

    def write(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            self._octets += piece

    def finish(self) -> int:
        self._taken.files.append((self._arrival, bytes(self._octets)))
        return 0

    def discard(self, why: str) -> None:
        self._taken.discarded.append(why)


class Source:
    """An archive as a place, with what it said."""

    def __init__(self, path: Path, catalogue: Catalogue | None = None) -> None:
        self.catalogue = catalogue or remembering(str(path))
        self.skipped: list[tuple[str, str]] = []
        setting = Setting(
            calling_ae="TEST", timeout_s=1.0, watch=cast(Watch, None), catalogue=lambda path: self.catalogue,
            skipped=lambda path, why: self.skipped.append((path, why)), warn=lambda words: None,
        )  # fmt: skip
        self.place = cast(ZipPlace, open_place(Archive(str(path)), setting))

    def find(self, level: Level = Level.INSTANCE, **keys: str) -> tuple[list[dict[str, object]], Ending]:
        async def run() -> list[object]:
            async with self.place.session() as session:
                ask = Ask(level=level, keys=keys, wanted=("Modality", "NumberOfSeriesRelatedInstances"))
                return [answer async for answer in session.find(ask)]

        *answers, ending = anyio.run(run)
        assert isinstance(ending, Ending)
        return cast(list[dict[str, object]], answers), ending

    def fetch(self, *uids: str, whole: bool = True, taken: Taken | None = None, why: str = "") -> Taken:
        taken = taken or Taken()

        async def run() -> None:
            async with self.place.session() as session:
                want = Want(study_uid="1.2", series_uid="1.2.3", instances=dict.fromkeys(uids, ""), whole=whole)
                assert await session.fetch(want, taken) == Ending(why=why)
                await session.rest()

        anyio.run(run)
        return taken

    def others(self) -> dict[str, tuple[str, str]]:
        return {holding.path: (holding.state, holding.reason) for holding in self.catalogue.others()}


def keys_of(level: Level) -> dict[str, str]:
    known = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    return {key: known[key] for key in list(known)[: level - 1]}


def test_an_archive_answers_as_a_pacs_would(tmp_path: Path) -> None:
    members = {f"a/{number}.dcm": file_of(f"1.2.3.{number}") for number in range(3)}
    source = Source(zip_of(tmp_path / "a.zip", {**members, "notes/read me.txt": b"hello", "empty": b""}))
    (series,), ending = source.find(Level.SERIES, **keys_of(Level.SERIES))
    assert (series["SeriesInstanceUID"], series["NumberOfSeriesRelatedInstances"]) == ("1.2.3", 3)
    assert ending == Ending(is_last_word=True)
    answers, _ = source.find(**keys_of(Level.INSTANCE))
    assert [answer["path"] for answer in answers] == list(members)
    assert {answer["TransferSyntaxUID"] for answer in answers} == {EXPLICIT}
    assert [answer["size"] for answer in answers] == [len(octets) for octets in members.values()]
    assert source.place.name == str(tmp_path / "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("small", [1 << 20, 1000])
def test_what_is_fetched_is_octet_for_octet_what_was_packed(
    tmp_path: Path, method: int, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_place, "SMALL_OCTETS", small)
    monkeypatch.setattr(zip_stock, "MEMORY_OCTETS", small)
    monkeypatch.setattr(zip_place, "LOT_MEMBERS", 2)
    uids = [f"1.2.3.{number}" for number in range(5)]
    members = {uid: file_of(uid, octets=2000 + 7001 * index) for index, uid in enumerate(uids)}
    source = Source(zip_of(tmp_path / "a.zip", members, method))
    taken = source.fetch(*uids)
    assert {uid: taken.octets(uid) for uid in uids} == members
    assert all(found.origin is None and found.sop_class_uid == SECONDARY for found, _ in taken.files)
    some = source.fetch(uids[3], uids[1], whole=False)
    assert [found.sop_instance_uid for found, _ in some.files] == [uids[3], uids[1]]
    refusing = Taken()
    refusing.refused = {uids[0]}
    assert len(source.fetch(*uids, taken=refusing).files) == 4


def test_an_instance_that_is_there_twice_is_offered_twice(tmp_path: Path) -> None:
    members = {"a": file_of("1.2.3.4"), "b": file_of("1.2.3.4", fill=b"y")}
    taken = Source(zip_of(tmp_path / "a.zip", members)).fetch("1.2.3.4")
    assert [found.head + octets for found, octets in taken.files] == list(members.values())


def test_what_is_no_whole_instance_is_known_for_what_it_is(tmp_path: Path) -> None:
    members = {"cut": file_of("1.2.3.4")[:-1], "text": b"hello", "whole": file_of("1.2.3.5")}
    source = Source(zip_of(tmp_path / "a.zip", members))
    answers, ending = source.find(**keys_of(Level.INSTANCE))
    assert [answer["path"] for answer in answers] == ["whole"]
    assert {path: state for path, (state, _) in source.others().items()} == {"cut": "truncated", "text": "not dicom"}
    assert not ending.truncated


def test_a_file_without_a_head_is_offered_as_its_elements_are_written(tmp_path: Path) -> None:
    source = Source(zip_of(tmp_path / "a.zip", {"a": data_set("1.2.3.4")}))
    taken = source.fetch("1.2.3.4")
    ((found, octets),) = taken.files
    assert (found.head, found.transfer_syntax_uid, octets) == (b"", EXPLICIT, data_set("1.2.3.4"))


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of members that are inflated from now on."""
    read: list[str] = []
    real = zip_stock.Unpacking

    def unpacking(source: object, entry: zip_stock.Member, begin: int) -> object:
        read.append(entry.path)  # type: ignore[attr-defined]
        return real(source, entry, begin)  # type: ignore[arg-type]

    monkeypatch.setattr(zip_stock, "Unpacking", unpacking)
    return read


def test_an_archive_that_did_not_change_is_not_inflated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "a.zip", {"a": file_of("1.2.3.4"), "b": b"text"})
    catalogue = remembering(str(path))
    read = counting(monkeypatch)
    assert take_stock(str(path), catalogue) == 0
    assert read == ["a", "b"]
    assert take_stock(str(path), catalogue) == 0
    assert read == ["a", "b"]
    os.utime(path, ns=(1, 1))
    take_stock(str(path), catalogue)
    assert read == ["a", "b"] * 2
    path.unlink()
    zip_of(path, {"c": file_of("1.2.3.5")})
    take_stock(str(path), catalogue)
    assert [holding.path for holding in catalogue.holdings()] == ["c"]
    path.unlink()
    take_stock(str(path), catalogue)
    assert list(catalogue.stamps()) == []


def test_the_catalogue_outlives_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "a.zip", {"a": file_of("1.2.3.4")})
    for expected in (["a"], []):
        read = counting(monkeypatch)
        store = open_store(str(path), named=None, folder=tmp_path / "cache", warn=pytest.fail)
        answers, _ = Source(path, store).find(**keys_of(Level.INSTANCE))
        store.close()
        assert [answer["path"] for answer in answers] == ["a"]
        assert read == expected
        monkeypatch.undo()


def flip(path: Path, at: int) -> None:
    """Changes one octet, and no stamp."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        (octet,) = file.read(1)
        file.seek(at)
        file.write(bytes([octet ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("small", [1 << 20, 1000])
def test_what_rots_after_stock_was_taken_is_not_delivered(
    tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_place, "SMALL_OCTETS", small)
    members = {"a": file_of("1.2.3.4", octets=5000), "b": file_of("1.2.3.5", octets=5000)}
    path = zip_of(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    source = Source(path)
    source.find(**keys_of(Level.INSTANCE))
    flip(path, path.read_bytes().index(b"xxx") + 3000)
    why = "its member is damaged: its CRC is wrong: it was damaged after it was packed"
    taken = source.fetch("1.2.3.4", "1.2.3.5", why=why)
    assert [found.sop_instance_uid for found, _ in taken.files] == ["1.2.3.5"]
    assert source.skipped == [("a", "its CRC is wrong: it was damaged after it was packed")]
    assert source.others()["a"][0] == "rotten"
    assert len(source.find(**keys_of(Level.INSTANCE))[0]) == 1
    assert take_stock(str(path), source.catalogue, anew=True) == 0
    assert source.others()["a"][0] == "rotten"


def test_reading_anew_finds_what_rotted(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a": file_of("1.2.3.4", octets=5000)}, zipfile.ZIP_STORED)
    catalogue = remembering(str(path))
    take_stock(str(path), catalogue)
    flip(path, path.read_bytes().index(b"xxx") + 3000)
    take_stock(str(path), catalogue)
    assert next(catalogue.holdings()).state == "whole"
    take_stock(str(path), catalogue, anew=True)
    assert [holding.state for holding in catalogue.others()] == ["rotten"]


def test_an_archive_that_changes_meanwhile_ends_the_run(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a": file_of("1.2.3.4")})
    source = Source(path)
    source.find(**keys_of(Level.INSTANCE))
    zip_of(path, {"a": file_of("1.2.3.5")})
    with pytest.raises(LocalTrouble, match="changed while it was read"):
        source.fetch("1.2.3.4")


def test_an_archive_that_changes_while_stock_is_taken_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zip_of(tmp_path / "a.zip", {"a": file_of("1.2.3.4")})
    real = zip_stock.walk_file

    def walk_file(*given: object, **more: object) -> object:
        os.utime(path, ns=(1, 1))
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(zip_stock, "walk_file", walk_file)
    catalogue = remembering(str(path))
    with pytest.raises(LocalTrouble, match="changed while it was read"):
        take_stock(str(path), catalogue)
    assert list(catalogue.stamps()) == []


@pytest.mark.parametrize(
    ("make", "why"), [(Path.mkdir, "is no file"), (os.mkfifo, "is no file"), (None, "cannot be read: No such file")]
)
def test_what_is_no_archive_is_named(tmp_path: Path, make: Callable[[Path], None] | None, why: str) -> None:
    path = tmp_path / "a.zip"
    if make is not None:
        make(path)
    with pytest.raises(LocalTrouble, match=f"{re.escape(str(path))} {why}"):
        Source(path).find(**keys_of(Level.INSTANCE))


def test_names_of_any_octets_are_told_apart(tmp_path: Path) -> None:
    names = ["QQQung.dcm", "日本/1", "spaces and 'quotes'.dcm", "back\\slash.dcm", "./x", "C" * 300]
    path = zip_of(tmp_path / "a.zip", {name: file_of(f"1.2.3.{index}") for index, name in enumerate(names)})
    patched = path.read_bytes().replace(b"QQQung", b"\x81\xfe\xffung").replace(b"CCCC", b"\xe4\xf6\xfc\xdf")
    path.write_bytes(patched)
    source = Source(path)
    answers, ending = source.find(**keys_of(Level.INSTANCE))
    assert len(answers) == 6
    found = {os.fsencode(holding.path) for holding in source.catalogue.holdings()}
    assert found == {
        b"\x81\xfe\xffung.dcm", "日本/1".encode(), b"spaces and 'quotes'.dcm", b"back\\slash.dcm", b"./x",
        b"\xe4\xf6\xfc\xdf" * 75,
    }  # fmt: skip
    assert not ending.truncated
    assert len(source.fetch(*(f"1.2.3.{index}" for index in range(6))).files) == 6


def test_archives_that_zip_makes_are_read(tmp_path: Path, require: Callable[[str], str]) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    for number in range(4):
        (tmp_path / f"in/deep/{number}.dcm").write_bytes(file_of(f"1.2.3.{number}", octets=70_000))
    for number, options in enumerate([["-r"], ["-r", "-0"], ["-r", "-fd"], ["-r", "-fz"], ["-r", "-D", "-9"]]):
        path = tmp_path / f"{number}.zip"
        subprocess.run([require("zip"), "-q", *options, path, "in"], check=True, cwd=tmp_path)
        if number == 2:  # from standard input to standard output: sizes behind the data
            with open(tmp_path / "in/deep/0.dcm", "rb") as stdin, open(path, "wb") as stdout:
                subprocess.run([require("zip"), "-q", "-", "-"], check=True, stdin=stdin, stdout=stdout)
        answers, ending = Source(path).find(**keys_of(Level.INSTANCE))
        assert len(answers) == (1 if number == 2 else 4)
        assert not ending.truncated


# destination


class Shore:
    """An archive being written, with the jobs that came for it."""

    def __init__(self, path: Path, **given: object) -> None:
        self.path = path
        self.jobs: list[Job] = []
        self.catalogue = cast(Catalogue, given.pop("catalogue", None)) or remembering(str(path))
        given = {"place": place, "wanted": frozenset(), "hasher": xxh3_128, "content": content_of, **given}
        settings = Settings(completed=self.jobs.append, catalogue=self.catalogue, **given)  # type: ignore[arg-type]
        self.packing = Packing(str(path), settings)

    def arrive(self, uid: str, octets: bytes, expected: Expected | None = None, **more: object) -> None:
        sink = self.packing.receive(arrival(uid) if not more else arrival_of(uid, **more), expected or Expected())
        assert isinstance(sink, Sink)
        reused = bytearray(1000)
        for start in range(0, len(octets), 1000):
            part = octets[start : start + 1000]
            reused[: len(part)] = part
            sink.write([memoryview(reused)[: len(part) // 3], memoryview(reused)[len(part) // 3 : len(part)]])
        assert sink.finish() == 0

    def land(self) -> list[Landed]:
        jobs, self.jobs[:] = list(self.jobs), []
        return self.packing.land_many(jobs)

    def bring(self, uid: str, octets: bytes, expected: Expected | None = None, **more: object) -> Landed:
        self.arrive(uid, octets, expected, **more)
        (landed,) = self.land()
        return landed

    def end(self) -> None:
        self.packing.commit()
        self.packing.close()


def arrival_of(uid: str, *, syntax: str = EXPLICIT, head: bytes = b"") -> Arrival:
    return Arrival(sop_class_uid=SECONDARY, sop_instance_uid=uid, transfer_syntax_uid=syntax, head=head)


MakeShore = Callable[..., Shore]


@pytest.fixture
def make_shore(tmp_path: Path) -> Iterator[MakeShore]:
    shores: list[Shore] = []
    (tmp_path / "dest").mkdir()

    def make(**given: object) -> Shore:
        shores.append(Shore(tmp_path / "dest/a.zip", **given))
        return shores[-1]

    yield make
    for shore in shores:
        shore.packing.close()
    left = set(os.listdir(tmp_path / "dest"))
    assert left <= {"a.zip"}


@pytest.mark.parametrize("memory_octets", [1 << 20, 10])
def test_an_instance_lands_whole_in_an_archive(
    make_shore: MakeShore, memory_octets: int, require: Callable[[str], str]
) -> None:
    shore = make_shore(memory_octets=memory_octets)
    octets = data_set("1.2.3.4", octets=50_000)
    landed = shore.bring("1.2.3.4", octets, Expected(study_uid="1.2", series_uid="1.2.3"))
    assert shore.packing.is_made_at_once
    assert not shore.path.exists()
    shore.end()
    whole = file_meta(SECONDARY, "1.2.3.4", EXPLICIT) + octets
    assert contents(shore.path) == {"1.2.3/1.2.3.4.dcm": whole}
    assert (landed.outcome, landed.path, landed.size) == ("stored", "1.2.3/1.2.3.4.dcm", len(whole))
    assert landed.digest == xxh3_128(whole).hexdigest()
    assert landed.content == content_of(octets, EXPLICIT, 0)
    assert (landed.study_uid, landed.series_uid) == ("1.2", "1.2.3")
    assert os.listdir(shore.path.parent) == ["a.zip"]
    assert shore.path.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(shore.path) as archive:
        (info,) = archive.infolist()
    assert info.external_attr >> 16 == 0o100600
    assert info.date_time == (1980, 1, 1, 0, 0, 0)
    assert subprocess.run([require("unzip"), "-tq", shore.path], capture_output=True, check=False).returncode == 0


def test_the_head_of_a_file_is_kept(make_shore: MakeShore) -> None:
    head = b"preamble" * 16 + file_meta(SECONDARY, "1.2.3.4", EXPLICIT)[128:]
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4"), syntax=EXPLICIT, head=head)
    shore.end()
    assert contents(shore.path) == {"1.2.3/1.2.3.4.dcm": head + data_set("1.2.3.4")}


def test_a_run_with_nothing_new_makes_nothing(make_shore: MakeShore) -> None:
    make_shore().end()
    shore = make_shore()
    assert not shore.path.exists()
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    shore.end()
    before = shore.path.stat()
    again = make_shore()
    assert again.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "present"
    again.end()
    assert shore.path.stat() == before


def test_members_that_were_there_keep_their_octets_and_their_entries(
    make_shore: MakeShore, require: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "dest/a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("QQQung.txt", b"x" * 1000)
        archive.writestr("other.dcm", file_of("1.2.3.9"))
        archive.comment = b"the user's words"
    path.write_bytes(path.read_bytes().replace(b"QQQung", b"\x81\xfe\xffung"))
    path.chmod(0o640)
    old = path.read_bytes()
    end = old.index(b"PK\1\2")
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4", octets=9000))
    assert path.read_bytes() == old
    shore.end()
    new = path.read_bytes()
    assert new.startswith(old[:end])
    assert old[end : old.index(b"PK\5\6")] in new
    assert new.endswith(b"the user's words")
    assert path.stat().st_mode & 0o777 == 0o640
    found = contents(path)
    assert list(found)[1:] == ["other.dcm", "1.2.3/1.2.3.4.dcm"]
    assert found["1.2.3/1.2.3.4.dcm"] == file_of("1.2.3.4", octets=9000)
    assert subprocess.run([require("unzip"), "-tq", path], capture_output=True, check=False).returncode == 0
    subprocess.run([require("zip"), "-qT", path], check=True)


def test_without_the_kernel_copying_it_is_carried_over_all_the_same(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = zip_of(tmp_path / "dest/a.zip", {"a": noise(3 << 20)}).read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "no")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    shore.end()
    assert shore.path.read_bytes().startswith(old[: old.index(b"PK\1\2")])
    assert set(contents(shore.path)) == {"a", "1.2.3/1.2.3.4.dcm"}


@pytest.mark.parametrize("memory_octets", [1 << 20, 10])
@pytest.mark.parametrize("committed", [True, False])
def test_the_same_is_present_and_other_content_conflicts(
    make_shore: MakeShore, memory_octets: int, committed: bool
) -> None:
    shore = make_shore(memory_octets=memory_octets)
    first = data_set("1.2.3.4", fill=b"x")
    assert shore.bring("1.2.3.4", first).outcome == "stored"
    if committed:
        shore.end()
        shore = make_shore(memory_octets=memory_octets, place=lambda values, arrived: "another/name")
    again = shore.bring("1.2.3.4", first)
    assert (again.outcome, again.path) == ("present", "1.2.3/1.2.3.4.dcm")
    other = shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y"))
    assert (other.outcome, other.reason) == ("conflict", "content")
    longer = shore.bring("1.2.3.4", data_set("1.2.3.4", octets=200))
    assert (longer.outcome, longer.reason) == ("conflict", "content")
    jpeg = shore.bring("1.2.3.4", first, syntax=JPEG)
    assert (jpeg.reason, jpeg.message) == ("content", "the instance is there in another transfer syntax")
    shore.end()
    assert contents(shore.path) == {"1.2.3/1.2.3.4.dcm": file_meta(SECONDARY, "1.2.3.4", EXPLICIT) + first}


def test_the_beginning_of_what_is_there_is_not_the_same(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "COMPARE_OCTETS", len(data_set("1.2.3.4")) // 2)
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4") + element(0xFFFCFFFC, "OB", bytes(8)))
    assert shore.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "conflict"


def test_force_replaces_other_content_and_leaves_nothing_of_it(make_shore: MakeShore) -> None:
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4", fill=noise(50)), syntax=JPEG)
    shore.bring("1.2.3.5", data_set("1.2.3.5", octets=5000))
    shore.end()
    assert noise(50) in shore.path.read_bytes()
    shore = make_shore(force=True)
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y"))
    assert (landed.outcome, landed.reason, landed.path) == ("stored", "replaced", "1.2.3/1.2.3.4.dcm")
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=noise(40, 2)), syntax=JPEG).outcome == "stored"
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"z")).outcome == "stored"
    shore.end()
    assert contents(shore.path) == {
        "1.2.3/1.2.3.4.dcm": file_of("1.2.3.4", fill=b"z"), "1.2.3/1.2.3.5.dcm": file_of("1.2.3.5", octets=5000),
    }  # fmt: skip
    assert shore.path.read_bytes()[:100] == b"PK\3\4" + bytes(96)
    assert noise(50) not in shore.path.read_bytes()
    assert noise(40, 2) not in shore.path.read_bytes()


def test_two_instances_of_one_name_both_stay(make_shore: MakeShore) -> None:
    shore = make_shore(place=lambda values, arrived: "s/0001.dcm")
    for uid in ["1.2.3.4", "1.2.3.5", "1.2.3.6"]:
        shore.arrive(uid, data_set(uid))
    landed = shore.land()
    shore.end()
    assert [item.outcome for item in landed] == ["stored"] * 3
    assert all(re.fullmatch(r"s/0001(~[0-9a-f]{16})?\.dcm", item.path) for item in landed)
    assert set(contents(shore.path)) == {item.path for item in landed}
    again = make_shore(place=lambda values, arrived: "s/0001.dcm")
    assert again.bring("1.2.3.6", data_set("1.2.3.6")).outcome == "present"


def test_a_truncated_member_of_the_same_instance_is_replaced(make_shore: MakeShore, tmp_path: Path) -> None:
    members = {"1.2.3/1.2.3.4.dcm": file_of("1.2.3.4")[:-1], "1.2.3/1.2.3.5.dcm": b"the user's own notes"}
    path = zip_of(tmp_path / "dest/a.zip", members)
    shore = make_shore()
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4"))
    assert (landed.outcome, landed.reason) == ("stored", "replaced")
    assert shore.bring("1.2.3.5", data_set("1.2.3.5")).reason == "broken"
    shore.end()
    assert contents(path)["1.2.3/1.2.3.4.dcm"] == file_of("1.2.3.4")
    assert contents(path)["1.2.3/1.2.3.5.dcm"] == b"the user's own notes"
    shore = make_shore(force=True)
    assert shore.bring("1.2.3.5", data_set("1.2.3.5")).outcome == "stored"
    shore.end()
    assert contents(path)["1.2.3/1.2.3.5.dcm"] == file_of("1.2.3.5")


def test_a_member_that_rotted_is_replaced(make_shore: MakeShore) -> None:
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"xyz"))
    shore.end()
    flip(shore.path, shore.path.read_bytes().index(b"1.2.3/") + 60)
    catalogue = shore.catalogue
    take_stock(str(shore.path), catalogue, anew=True)
    assert [holding.state for holding in catalogue.others()] == ["rotten"]
    shore = make_shore(catalogue=catalogue)
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"xyz"))
    assert (landed.outcome, landed.reason) == ("stored", "replaced")
    shore.end()
    assert list(contents(shore.path).values()) == [file_of("1.2.3.4", fill=b"xyz")]


def test_a_member_damaged_from_the_first_is_a_conflict_unless_forced(make_shore: MakeShore) -> None:
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"xyz"))
    shore.end()
    flip(shore.path, shore.path.read_bytes().index(b"1.2.3/") + 60)
    assert make_shore().bring("1.2.3.4", data_set("1.2.3.4", fill=b"xyz")).reason == "broken"
    shore = make_shore(force=True)
    assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"xyz")).outcome == "stored"
    shore.end()
    assert list(contents(shore.path).values()) == [file_of("1.2.3.4", fill=b"xyz")]


@pytest.mark.parametrize(
    ("octets", "expected", "reason"),
    [
        (data_set("1.2.3.4")[:-1], Expected(), "truncated"),
        (b"", Expected(), "truncated"),
        (bytes(1000), Expected(), "truncated"),
        (data_set("1.2.3.5"), Expected(), "mismatch"),
        (data_set("1.2.3.4"), Expected(study_uid="9"), "mismatch"),
        (data_set("1.2.3.4"), Expected(series_uid="9"), "mismatch"),
    ],
)
def test_what_is_not_as_it_should_be_leaves_nothing(
    make_shore: MakeShore, octets: bytes, expected: Expected, reason: str
) -> None:
    for memory_octets in [1 << 20, 10]:
        shore = make_shore(memory_octets=memory_octets)
        landed = shore.bring("1.2.3.4", octets, expected)
        assert (landed.outcome, landed.reason) == ("failed", reason)
        assert landed.trouble is None
        shore.end()
        assert os.listdir(shore.path.parent) == []


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/../../x", "", ".", "a\0b", "a\nb", "C:x", "\\x", "\udc80"])
def test_a_name_that_would_be_refused_is_not_given(make_shore: MakeShore, path: str) -> None:
    landed = make_shore(place=lambda values, arrived: path).bring("1.2.3.4", data_set("1.2.3.4"))
    assert (landed.outcome, landed.reason) == ("failed", "path")


def test_names_beyond_ascii_are_marked_as_utf_8(make_shore: MakeShore) -> None:
    shore = make_shore(place=lambda values, arrived: "Müller^日本/1.dcm")
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    shore.end()
    assert list(contents(shore.path)) == ["Müller^日本/1.dcm"]
    with zipfile.ZipFile(shore.path) as archive:
        assert archive.infolist()[0].flag_bits == 0x800


def test_uids_beyond_reason_are_refused_at_the_door(make_shore: MakeShore) -> None:
    assert make_shore().packing.receive(arrival("1" * 65)) == CANNOT_UNDERSTAND
    assert make_shore().packing.receive(arrival("")) == CANNOT_UNDERSTAND


def test_what_is_discarded_or_abandoned_leaves_nothing(make_shore: MakeShore) -> None:
    shore = make_shore(memory_octets=10)
    sink = shore.packing.receive(arrival("1.2.3.4"))
    assert isinstance(sink, Sink)
    sink.write([memoryview(bytes(1000))])
    sink.discard("why not")
    sink.discard("again")
    shore.arrive("1.2.3.4", data_set("1.2.3.4"))
    assert os.listdir(shore.path.parent) == []
    shore.packing.abandon(shore.jobs.pop())
    shore.end()


def test_a_large_instance_waits_in_a_file_without_a_name(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shore = make_shore(memory_octets=10)
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    shore.arrive("1.2.3.4", data_set("1.2.3.4", octets=5000))
    assert os.listdir(shore.path.parent) == []
    assert os.fstat(shore.jobs[0].descriptor).st_mode & 0o777 == 0o600
    assert shore.land()[0].outcome == "stored"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(9999)


def test_a_stream_that_cannot_become_a_data_set_is_ended_early(make_shore: MakeShore) -> None:
    for memory_octets in [1 << 20, 10]:
        sink = make_shore(memory_octets=memory_octets).packing.receive(arrival("1.2.3.4"))
        assert isinstance(sink, Sink)
        with pytest.raises(RemoteProtocolError, match="no data set"):
            sink.write([memoryview(b"\xff" * 100_000)])
        sink.discard("over")


def test_what_is_encapsulated_is_stored_and_what_is_not_is_deflated(make_shore: MakeShore) -> None:
    shore = make_shore(place=lambda values, arrived: arrived.transfer_syntax_uid)
    for number, syntax in enumerate([EXPLICIT, JPEG, "1.2.3.4.5"]):
        shore.bring(f"1.2.3.{number}", data_set(f"1.2.3.{number}", octets=9000), syntax=syntax)
    shore.end()
    with zipfile.ZipFile(shore.path) as archive:
        methods = [info.compress_type for info in archive.infolist()]
    assert methods == [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_STORED]
    assert draft.deflate(noise(50_000)) is None


@pytest.mark.parametrize("memory_octets", [4 << 20, 10])
def test_an_image_of_nothing_is_stored_rather_than_made_a_bomb(make_shore: MakeShore, memory_octets: int) -> None:
    shore = make_shore(memory_octets=memory_octets)
    octets = data_set("1.2.3.4", octets=3 << 20, fill=b"\0")
    shore.bring("1.2.3.4", octets)
    shore.end()
    with zipfile.ZipFile(shore.path) as archive:
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
    assert next(iter(contents(shore.path).values())).endswith(octets)


def test_the_same_instances_make_the_same_archive(make_shore: MakeShore) -> None:
    made = set()
    for _ in range(2):
        shore = make_shore()
        for number in range(40):
            shore.arrive(f"1.2.3.{number}", data_set(f"1.2.3.{number}", octets=3000))
        shore.land()
        shore.end()
        made.add(shore.path.read_bytes())
        shore.path.unlink()
    assert len(made) == 1


def test_what_was_packed_is_remembered_and_believed(make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch) -> None:
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    shore.end()
    shore = make_shore(catalogue=shore.catalogue)
    landed = shore.bring("1.2.3.5", data_set("1.2.3.5"))
    shore.end()
    read = counting(monkeypatch)
    assert take_stock(str(shore.path), shore.catalogue) == 0
    assert read == []
    remembered = list(shore.catalogue.holdings())
    fresh = remembering(str(shore.path))
    take_stock(str(shore.path), fresh)
    assert read == ["1.2.3/1.2.3.4.dcm", "1.2.3/1.2.3.5.dcm"]
    assert [bare(holding) for holding in remembered] == [bare(holding) for holding in fresh.holdings()]
    assert (remembered[1].digest, remembered[1].content) == (landed.digest, landed.content)


def test_what_was_replaced_is_never_remembered_under_the_new_stamp(make_shore: MakeShore) -> None:
    shore = make_shore()
    for uid in ["1.2.3.4", "1.2.3.5"]:
        shore.bring(uid, data_set(uid))
    shore.end()
    store = shore.catalogue
    told: list[Holding] = []

    class Listening:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def remember(self, holdings: Iterable[Holding]) -> None:
            told.extend(holdings)

    shore = make_shore(force=True, catalogue=Listening())
    landed = shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y"))
    shore.end()
    assert [holding.sop_instance_uid for holding in told] == ["1.2.3.5", "1.2.3.4"]
    assert told[1].digest == landed.digest


@pytest.mark.slow
def test_an_archive_that_grows_is_not_read_again(
    make_shore: MakeShore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first, count in [(0, 2500), (2500, 1)]:
        store = open_store(str(tmp_path / "dest/a.zip"), named=None, folder=tmp_path / "cache", warn=pytest.fail)
        read = counting(monkeypatch)
        shore = make_shore(catalogue=store)
        for number in range(first, first + count):
            shore.arrive(f"1.2.3.{number}", data_set(f"1.2.3.{number}"))
        assert {landed.outcome for landed in shore.land()} == {"stored"}
        shore.end()
        assert take_stock(str(shore.path), store) == 0
        assert read == []
        assert sum(1 for _ in store.holdings()) == first + count
        store.close()


def bare(holding: Holding) -> tuple[object, ...]:
    return (
        holding.path, holding.stamp, holding.state, holding.study_uid, holding.series_uid, holding.sop_instance_uid,
        holding.sop_class_uid, holding.transfer_syntax_uid, holding.data_set_offset, holding.attributes,
    )  # fmt: skip


def test_an_archive_that_changed_meanwhile_stays(make_shore: MakeShore, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "dest/a.zip", {"a": b"1"})
    for change in [lambda: zip_of(path, {"b": b"2"}), path.unlink]:
        shore = make_shore()
        shore.bring("1.2.3.4", data_set("1.2.3.4"))
        change()
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(LocalTrouble, match="changed meanwhile"):
            shore.packing.commit()
        assert (path.read_bytes() if path.exists() else None) == before
        shore.packing.close()


@pytest.mark.parametrize("has_links", [True, False])
def test_an_archive_that_appeared_meanwhile_stays(
    make_shore: MakeShore, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    before = zip_of(shore.path, {"b": b"2"}).read_bytes()
    with pytest.raises(LocalTrouble, match="appeared meanwhile"):
        shore.packing.commit()
    assert shore.path.read_bytes() == before
    shore.path.unlink()
    other = make_shore()
    other.bring("1.2.3.4", data_set("1.2.3.4"))
    other.end()
    assert len(contents(shore.path)) == 1


def test_two_runs_do_not_write_one_archive(make_shore: MakeShore, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "dest/a.zip", {"a": b"1"})
    first, second = make_shore(), make_shore()
    assert first.bring("1.2.3.4", data_set("1.2.3.4")).outcome == "stored"
    landed = second.bring("1.2.3.5", data_set("1.2.3.5"))
    assert (landed.outcome, landed.message) == ("failed", "another run is writing the archive")
    assert landed.trouble is not None
    first.end()
    assert set(contents(path)) == {"a", "1.2.3/1.2.3.4.dcm"}


def test_an_archive_behind_a_link_is_replaced_where_it_stands(make_shore: MakeShore, tmp_path: Path) -> None:
    zip_of(tmp_path / "real.zip", {"a": b"1"})
    (tmp_path / "dest/a.zip").symlink_to(tmp_path / "real.zip")
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    shore.end()
    assert (tmp_path / "dest/a.zip").is_symlink()
    assert set(contents(tmp_path / "real.zip")) == {"a", "1.2.3/1.2.3.4.dcm"}
    assert sorted(os.listdir(tmp_path)) == ["dest", "real.zip"]


def test_a_missing_folder_and_something_else_of_the_name_are_named(tmp_path: Path) -> None:
    with pytest.raises(LocalTrouble, match="no folder to put the archive in"):
        Shore(tmp_path / "gone/a.zip")
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(LocalTrouble, match="no zip archive"):
        Shore(tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"no archive"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename", "ftruncate", "copy_file_range"])
def test_a_disk_that_says_no_leaves_the_archive_as_it_was(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch, call: str, number: int, tmp_path: Path
) -> None:
    path = zip_of(tmp_path / "dest/a.zip", {"a": b"1"})
    before = path.read_bytes()
    for nth in itertools.count(1):
        real, calls = getattr(os, call), itertools.count(1)

        def broken(*given: object, real=real, calls=calls, nth=nth, **more: object) -> object:  # type: ignore[no-untyped-def]
            if next(calls) == nth:
                raise OSError(number, os.strerror(number))
            return real(*given, **more)

        shore = make_shore()
        for index in range(3):
            shore.arrive(f"1.2.3.{index}", data_set(f"1.2.3.{index}"))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, broken)
            landed = shore.land()
            troubles = [item.trouble for item in landed if item.trouble is not None]
            assert all("1.2" not in item.message for item in landed)
            if not troubles:
                with suppress(LocalTrouble):
                    shore.packing.commit()
                    troubles = []
        shore.packing.close()
        assert os.listdir(path.parent) == ["a.zip"]
        if next(calls) <= nth:
            break
        is_doubtful = call == "fsync" and nth == 2  # of the folder: the new one is there, and may not last
        if not is_doubtful:
            assert path.read_bytes() == before
        path.write_bytes(before)
    assert len(contents(path)) == 4
    assert nth > 1


def test_a_failed_write_does_not_lose_what_was_to_be_replaced(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"x"))
    shore.end()
    shore = make_shore(force=True)
    shore.bring("1.2.3.5", data_set("1.2.3.5"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.EINTR, "odd")))
        assert shore.bring("1.2.3.4", data_set("1.2.3.4", fill=b"y")).outcome == "failed"
    shore.end()
    assert contents(shore.path)["1.2.3/1.2.3.4.dcm"] == file_of("1.2.3.4", fill=b"x")
    assert len(contents(shore.path)) == 2


def test_short_writes_are_continued(make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch) -> None:
    dice, real = random.Random(4), os.pwrite

    def pwrite(descriptor: int, octets: memoryview, offset: int) -> int:
        return real(descriptor, bytes(octets[: dice.randrange(1, 700)]), offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    shore = make_shore(memory_octets=10)
    shore.bring("1.2.3.4", data_set("1.2.3.4", octets=20_000))
    shore.end()
    assert list(contents(shore.path).values()) == [file_of("1.2.3.4", octets=20_000)]


def test_what_is_read_back_must_be_what_was_written(make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = draft.record
    monkeypatch.setattr(draft, "record", lambda name, **said: real(name, **said).replace(b"PK\1\2", b"PK\1\7"))
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    with pytest.raises(LocalTrouble, match="directory is broken"):
        shore.packing.commit()
    assert not shore.path.exists()


def test_a_member_that_is_not_read_back_ends_the_run(make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = draft.Draft.finish
    monkeypatch.setattr(draft.Draft, "finish", lambda self: real(self) + 1)
    shore = make_shore()
    shore.bring("1.2.3.4", data_set("1.2.3.4"))
    with pytest.raises(LocalTrouble, match="what was written is not what is read back"):
        shore.packing.commit()
    assert not shore.path.exists()


# zip64


def test_sizes_beyond_32_bits_are_written_as_zip64(
    make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch, require: Callable[[str], str]
) -> None:
    monkeypatch.setattr(draft, "SMALL", 1000)
    shore = make_shore(memory_octets=10)
    shore.bring("1.2.3.4", data_set("1.2.3.4", octets=5000))
    shore.end()
    assert shore.path.read_bytes()[4:6] == b"\x2d\0"
    assert list(contents(shore.path).values()) == [file_of("1.2.3.4", octets=5000)]
    assert subprocess.run([require("unzip"), "-tq", shore.path], capture_output=True, check=False).returncode == 0
    assert make_shore().bring("1.2.3.4", data_set("1.2.3.4", octets=5000)).outcome == "present"


@pytest.mark.slow
def test_members_behind_4_gb_and_more_than_65535_of_them(
    make_shore: MakeShore, require: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = draft.Draft.__init__

    def far(self: draft.Draft, *given: object) -> None:
        real(self, *given)  # type: ignore[arg-type]
        self._end = max(self._end, 5 << 30)

    monkeypatch.setattr(draft.Draft, "__init__", far)
    shore = make_shore(content=None)
    for number in range(66_000):
        sink = shore.packing.receive(arrival(f"1.2.3.{number}"))
        assert isinstance(sink, Sink)
        sink.write([memoryview(data_set(f"1.2.3.{number}", octets=0))])
        sink.finish()
        if len(shore.jobs) == 500:
            assert {landed.outcome for landed in shore.land()} == {"stored"}
    monkeypatch.undo()
    shore.packing.commit()
    assert shore.path.stat().st_size > 5 << 30
    with zipfile.ZipFile(shore.path) as archive:
        assert len(archive.namelist()) == 66_000
        assert archive.read("1.2.3/1.2.3.65999.dcm") == file_of("1.2.3.65999", octets=0)
    listed = subprocess.run([require("unzip"), "-tq", shore.path, "1.2.3/1.2.3.6599?.dcm"], check=False)
    assert listed.returncode == 0
    assert take_stock(str(shore.path), shore.catalogue) == 0
    assert sum(1 for _ in shore.catalogue.holdings()) == 66_000


# leftovers, kills, order


def test_drafts_of_the_dead_go_and_the_living_keep_theirs(make_shore: MakeShore, tmp_path: Path) -> None:
    living = make_shore()
    living.bring("1.2.3.4", data_set("1.2.3.4"))
    (name,) = os.listdir(tmp_path / "dest")
    dead = tmp_path / "dest/.dcmsync-dead.zip"
    dead.write_bytes(b"partial")
    (tmp_path / "dest/.dcmsync-link.zip").symlink_to(tmp_path)
    (tmp_path / "dest/.dcmsync-folder.zip").mkdir()
    os.mkfifo(tmp_path / "dest/.dcmsync-fifo.zip")
    make_shore()
    left = {name, ".dcmsync-link.zip", ".dcmsync-folder.zip", ".dcmsync-fifo.zip"}
    assert set(os.listdir(tmp_path / "dest")) == left
    (tmp_path / "dest/.dcmsync-link.zip").unlink()
    (tmp_path / "dest/.dcmsync-folder.zip").rmdir()
    (tmp_path / "dest/.dcmsync-fifo.zip").unlink()
    living.end()
    assert len(contents(living.path)) == 1


def test_without_locks_it_is_written_all_the_same(make_shore: MakeShore, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    for uid in ["1.2.3.4", "1.2.3.5"]:
        shore = make_shore()
        assert shore.bring(uid, data_set(uid)).outcome == "stored"
        shore.end()
    assert len(contents(shore.path)) == 2


CALLS = "pwrite64,fsync,fdatasync,link,linkat,rename,renameat,unlink,unlinkat,ftruncate,copy_file_range,write"


def trace(log: Path, *command: str, inject: str = "") -> subprocess.CompletedProcess[str]:
    options = ["-e", f"inject={inject}"] if inject else []
    traced = ["strace", "-y", "-f", "-s", "200", "-o", str(log), "-e", f"trace={CALLS}", *options, *command]
    return subprocess.run(traced, capture_output=True, text=True, check=False, cwd=ROOT)


def calls_of(log: Path) -> list[str]:
    calls = [line.split(None, 1)[1] for line in log.read_text().splitlines()]
    return [call for call in calls if "dcmsync-" in call or "/dest" in call or call.startswith("write(1<")]


@pytest.mark.slow
def test_order_of_system_calls(tmp_path: Path, require: Callable[[str], str]) -> None:
    require("strace")
    (tmp_path / "dest").mkdir()
    path = tmp_path / "dest/a.zip"
    for first in (0, 3):
        done = trace(tmp_path / "log", *RUN, str(path), str(first), "3", "5000", "3000")
        assert done.returncode == 0, done.stderr
        calls = calls_of(tmp_path / "log")

        def at(pattern: str, calls: list[str] = calls) -> int:
            (found,) = [index for index, call in enumerate(calls) if re.search(pattern, call)]
            return found

        written = max(index for index, call in enumerate(calls) if re.search(r"pwrite64\(.*/\.dcmsync-[0-9a-f]+", call))
        synced = at(r"fsync\(.*/\.dcmsync-[0-9a-f]+\.zip>\) += 0")
        named = at(r'(link|rename)(at)?\(.*"\.dcmsync-[0-9a-f]+\.zip".*"a\.zip"')
        folder = at(r"fsync\(.*/dest>\) += 0")
        said = min(index for index, call in enumerate(calls) if call.startswith("write(1<"))
        assert written < synced < named < folder < said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_at_any_call_leaves_the_old_archive_or_the_new(tmp_path: Path, require: Callable[[str], str]) -> None:
    require("strace")
    states: list[dict[str, bytes] | None] = [None]
    (tmp_path / "plain").mkdir()
    killed = 0
    for first, count in ((0, 1), (1, 2)):
        arguments = [str(first), str(count), "5000", "3000"]
        plain = tmp_path / "plain/a.zip"
        trace(tmp_path / "log", *RUN, str(plain), *arguments)
        lines = (tmp_path / "log").read_text().splitlines()
        states.append(contents(plain))
        for call in CALLS.split(",")[:-1]:
            for nth in range(1, 1 + sum(f" {call}(" in line for line in lines)):
                dest = tmp_path / f"{call}-{nth}-{first}"
                dest.mkdir()
                if first:
                    zip_of(dest / "a.zip", states[1] or {})
                inject = f"{call}:signal=SIGKILL:when={nth}"
                done = trace(tmp_path / "log", *RUN, str(dest / "a.zip"), *arguments, inject=inject)
                killed += done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
                found = contents(dest / "a.zip") if (dest / "a.zip").exists() else None
                assert found in states[-2:]
                if "stored" in done.stdout:
                    assert found == states[-1]
                again = subprocess.run(
                    [*RUN, str(dest / "a.zip"), *arguments], capture_output=True, text=True, check=False, cwd=ROOT
                )
                assert again.returncode == 0, again.stdout + again.stderr
                assert contents(dest / "a.zip") == states[-1]
                assert os.listdir(dest) == ["a.zip"]
                shutil.rmtree(dest)
    assert killed > 10


# through and back


def corpus() -> list[Path]:
    """Whole files of pydicom's own data, of several transfer syntaxes."""
    found = []
    for path in sorted((Path(pydicom.__file__).parent / "data/test_files").glob("*.dcm")):
        if path.stat().st_size < 700_000:
            head, walk = walk_file(path.read_bytes(), wanted=frozenset({0x00080018, 0x0020000D, 0x0020000E}))
            if walk.is_whole and head.has_prefix and head.sop_class_uid and len(walk.values) == 3:
                found.append(path)
    return found


@pytest.mark.slow
def test_files_keep_every_octet_through_an_archive(make_shore: MakeShore) -> None:
    shore = make_shore(place=lambda values, arrived: f"{arrived.sop_instance_uid}.dcm")
    wanted: dict[tuple[str, str, str], bytes] = {}
    syntaxes = set()
    for path in corpus():
        octets = path.read_bytes()
        head, walk = walk_file(octets, wanted=frozenset({0x00080018, 0x0020000D, 0x0020000E}))
        study, series, uid = (
            walk.values[tag][1].decode().strip("\0 ") for tag in (0x0020000D, 0x0020000E, 0x00080018)
        )
        offset = head.data_set_offset
        sink = shore.packing.receive(
            Arrival(
                sop_class_uid=head.sop_class_uid, sop_instance_uid=uid, transfer_syntax_uid=head.transfer_syntax_uid,
                head=octets[:offset],
            )
        )
        assert isinstance(sink, Sink)
        sink.write([memoryview(octets)[offset:]])
        sink.finish()
        if shore.land()[0].outcome == "stored":
            wanted[study, series, uid] = octets
            syntaxes.add(head.transfer_syntax_uid)
    shore.end()
    assert len(wanted) > 30
    assert len(syntaxes) > 8
    place = Source(shore.path).place

    async def fetch() -> Taken:
        taken = Taken()
        async with place.session() as session:
            for study, series, uid in wanted:
                await session.fetch(Want(study_uid=study, series_uid=series, instances={uid: ""}), taken)
        return taken

    taken = anyio.run(fetch)
    assert {uid: taken.octets(uid) for _, _, uid in wanted} == {uid: wanted[a, b, uid] for a, b, uid in wanted}


@pytest.mark.slow
def test_a_large_member_is_read_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_stock, "MEMORY_OCTETS", 1 << 20)
    path = zip_of(tmp_path / "a.zip", {"a": file_of("1.2.3.4", octets=12, fill=noise(1 << 20))})
    source = Source(path)
    tracemalloc.start()
    source.find(**keys_of(Level.INSTANCE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert zlib.crc32(source.fetch("1.2.3.4").octets("1.2.3.4")) == zipfile.ZipFile(path).infolist()[0].CRC
