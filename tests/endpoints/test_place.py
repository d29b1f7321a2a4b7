"""A folder as a source: what it answers, what it offers, and what trees, races and media directories do to it."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest

from dcmsync.cache.store import Store, open_store
from dcmsync.contract import Arrival, Ask, Attributes, Ending, Level, Sink, Want
from dcmsync.endpoints import Setting, open_place
from dcmsync.endpoints.folder import place
from dcmsync.endpoints.folder.place import FolderPlace, Session
from dcmsync.errors import LocalTrouble
from dcmsync.locator import Folder
from dcmsync.net.patience import Watch
from dcmsync.wire.part10 import file_meta
from tests import samples
from tests.endpoints.landing_run import EXPLICIT, SECONDARY, data_set

MEDIA = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
CORPUS = Path(pydicom.__file__).parent / "data" / "test_files"


def put(path: Path, octets: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(octets)
    return path


def file_of(uid: str, **given: Any) -> bytes:
    return file_meta(SECONDARY, uid, EXPLICIT) + data_set(uid, **given)


class Asked:
    """A place, and what it said to people."""

    def __init__(self, root: Path | str) -> None:
        self.skipped: list[tuple[str, str]] = []
        self.warned: list[str] = []
        self.stores: list[Store] = []
        setting = Setting(
            calling_ae="X", timeout_s=1, watch=Watch(), catalogue=self._open, warn=self.warned.append,
            skipped=lambda path, why: self.skipped.append((path, why)),
        )  # fmt: skip
        opened = open_place(Folder(str(root)), setting)
        assert isinstance(opened, FolderPlace)
        self.place = opened

    def find(self, level: Level, keys: dict[str, str], *wanted: str) -> tuple[list[Attributes], Ending]:
        async def run() -> list[Attributes | Ending]:
            async with self.place.session() as session, aclosing(
                session.find(Ask(level=level, keys=keys, wanted=wanted))
            ) as answers:
                return [answer async for answer in answers]

        *found, ending = anyio.run(run)
        assert isinstance(ending, Ending)
        return [answer for answer in found if not isinstance(answer, Ending)], ending

    def fetch(self, want: Want, receiver: "Basket") -> Ending:
        async def run() -> Ending:
            async with self.place.session() as session:
                return await session.fetch(want, receiver)

        return anyio.run(run)

    def _open(self, path: str) -> Store:
        self.stores.append(open_store(path, named=None, folder=None, warn=self.warned.append))
        return self.stores[-1]


@pytest.fixture
def ask() -> Iterator[Callable[[Path | str], Asked]]:
    made: list[Asked] = []

    def make(root: Path | str) -> Asked:
        made.append(Asked(root))
        return made[-1]

    yield make
    for asked in made:
        for store in asked.stores:
            store.close()


class Basket:
    """Takes everything; `adopts` without octets. `meanwhile` happens when an instance is offered."""

    def __init__(
        self,
        *,
        adopts: bool = False,
        refused: Sequence[str] = (),
        meanwhile: Callable[[Arrival], None] = lambda arrival: None,
        at_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.taken: list[tuple[Arrival, bytes]] = []
        self.discarded: list[str] = []
        self.descriptors: set[int] = set()
        self.threads: set[int] = set()
        self.adopts = adopts
        self.at_write = at_write
        self._refused = refused
        self._meanwhile = meanwhile

    def receive(self, arrival: Arrival) -> Sink | int:
        assert arrival.origin is not None
        assert os.fstat(arrival.origin.descriptor).st_ino == arrival.origin.stamp.inode
        self.descriptors.add(arrival.origin.descriptor)
        self._meanwhile(arrival)
        return 0xC000 if arrival.sop_instance_uid in self._refused else _Slot(self, arrival)

    async def room(self) -> None:
        await anyio.lowlevel.checkpoint()

    @property
    def files(self) -> list[bytes]:
        """What each file would be."""
        return [arrival.head + octets for arrival, octets in self.taken]

    @property
    def uids(self) -> list[str]:
        """What came, in order."""
        return [arrival.sop_instance_uid for arrival, _ in self.taken]


class _Slot:
    def __init__(self, basket: Basket, arrival: Arrival) -> None:
        self._basket, self._arrival = basket, arrival
        self._octets = b""

    def adopt(self) -> bool:
        return self._basket.adopts

    def write(self, pieces: Sequence[memoryview]) -> None:
        assert max(piece.nbytes for piece in pieces) <= 1 << 20
        self._basket.threads.add(threading.get_ident())
        self._octets += b"".join(pieces)
        self._basket.at_write()

    def finish(self) -> int:
        assert self._arrival.origin is not None
        os.fstat(self._arrival.origin.descriptor)
        self._basket.taken.append((self._arrival, self._octets))
        return 0

    def discard(self, why: str) -> None:
        self._basket.discarded.append(why)


def want(*uids: str, whole: bool = True, study: str = "1.2", series: str = "1.2.3") -> Want:
    return Want(study_uid=study, series_uid=series, instances=dict.fromkeys(uids, SECONDARY), whole=whole)


SERIES = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}


# What it answers


def test_a_folder_answers_at_each_level(ask: Callable[..., Asked], tmp_path: Path) -> None:
    made = samples.make_series(tmp_path, studies=2, series=2, instances=3, seed=71)
    asked = ask(tmp_path)
    studies, ending = asked.find(Level.STUDY, {"PatientID": "S71P0001"}, "NumberOfStudyRelatedInstances")
    assert studies == [{
        "StudyInstanceUID": made[0].study_uid, "PatientID": "S71P0001", "NumberOfStudyRelatedInstances": 6,
    }]  # fmt: skip
    assert ending == Ending(is_last_word=True)
    series, _ = asked.find(Level.SERIES, {"StudyInstanceUID": made[0].study_uid})
    assert {each["SeriesInstanceUID"] for each in series} == {made[0].series_uid, made[3].series_uid}
    keys = {"StudyInstanceUID": made[0].study_uid, "SeriesInstanceUID": made[0].series_uid}
    instances, _ = asked.find(Level.INSTANCE, keys)
    assert sorted(str(each["path"]) for each in instances) == [
        f"study0001/series0001/image00000{number}.dcm" for number in (1, 2, 3)
    ]
    assert {each["size"] for each in instances} == {made[0].path.stat().st_size}


def test_stock_is_taken_once_for_all_sessions(ask: Callable[..., Asked], tmp_path: Path, monkeypatch: Any) -> None:
    put(tmp_path / "a", file_of("1.2.3.1"))
    taken = []
    real = place.take_stock
    monkeypatch.setattr(place, "take_stock", lambda *given, **options: (taken.append(1), real(*given, **options)))
    asked = ask(tmp_path)

    async def find(counts: list[int]) -> None:
        async with asked.place.session() as session:
            counts.append(len([answer async for answer in session.find(Ask(level=Level.STUDY, keys={}))]))

    async def run() -> list[int]:
        counts: list[int] = []
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(find, counts)
        return counts

    assert anyio.run(run) == [2] * 4
    assert (len(taken), len(asked.stores)) == (1, 1)


def test_more_answers_than_come_at_once(ask: Callable[..., Asked], tmp_path: Path) -> None:
    for number in range(2 * place.ANSWERS_AT_ONCE):
        put(tmp_path / str(number), file_of(f"1.2.3.{number}", octets=0))
    found, _ = ask(tmp_path).find(Level.INSTANCE, SERIES)
    assert len({each["SOPInstanceUID"] for each in found}) == len(found) == 2 * place.ANSWERS_AT_ONCE


def test_what_is_not_remembered_is_read_from_the_files(ask: Callable[..., Asked], tmp_path: Path) -> None:
    made = samples.make_series(tmp_path, instances=2, seed=72)
    keys = {"StudyInstanceUID": made[0].study_uid, "SeriesInstanceUID": made[0].series_uid}
    found, _ = ask(tmp_path).find(Level.INSTANCE, {**keys, "KVP": "120"}, "PixelSpacing", "ImagePositionPatient")
    assert [(each["KVP"], each["PixelSpacing"]) for each in found] == [(120.0, [0.5, 0.5])] * 2
    assert sorted(each["ImagePositionPatient"][2] for each in found) == [1.0, 2.0]  # type: ignore[index]
    found, _ = ask(tmp_path).find(Level.INSTANCE, {**keys, "EchoTime": "3"})
    assert {each["EchoTime"] for each in found} == {""}


@pytest.mark.parametrize("make", [lambda path: None, lambda path: put(path, b"a file")])
def test_what_is_no_folder_is_local_trouble(
    ask: Callable[..., Asked], tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "x")
    with pytest.raises(LocalTrouble, match=r"x is no folder"):
        ask(tmp_path / "x").find(Level.STUDY, {})


def test_the_root_may_be_a_link_and_nothing_below_it(ask: Callable[..., Asked], tmp_path: Path) -> None:
    put(tmp_path / "real/in/1", file_of("1.2.3.1"))
    put(tmp_path / "outside/2", file_of("1.2.3.2"))
    (tmp_path / "real/out").symlink_to(tmp_path / "outside")
    (tmp_path / "real/again").symlink_to(tmp_path / "real/in/1")
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "real/fifo")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    asked = ask(tmp_path / "root")
    found, ending = asked.find(Level.INSTANCE, SERIES)
    assert [each["path"] for each in found] == ["in/1"]
    assert {path for path, why in asked.skipped if why == "a symbolic link"} == {"out", "again", "loop"}
    assert not ending.truncated


def test_what_the_system_refuses_makes_the_list_incomplete(
    ask: Callable[..., Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "open/1", file_of("1.2.3.1"))
    put(tmp_path / "closed/2", file_of("1.2.3.2"))
    real = os.open

    def refuse(path: str, *given: Any, **options: Any) -> int:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **options)

    monkeypatch.setattr(os, "open", refuse)
    found, ending = ask(tmp_path).find(Level.INSTANCE, SERIES)
    assert (len(found), ending.truncated) == (1, True)


# What it offers


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("octets", [500, 100_000, 2_500_000])
def test_the_files_that_are_wanted_come_octet_for_octet(
    ask: Callable[..., Asked], tmp_path: Path, whole: bool, octets: int
) -> None:
    made = [put(tmp_path / str(number), file_of(f"1.2.3.{number}", octets=octets)) for number in range(3)]
    basket = Basket()
    assert ask(tmp_path).fetch(want("1.2.3.0", "1.2.3.2", whole=whole), basket) == Ending()
    assert basket.uids == ["1.2.3.0", "1.2.3.2"]
    assert basket.files == [made[0].read_bytes(), made[2].read_bytes()]
    assert basket.threads == {threading.get_ident()}


def test_what_is_adopted_is_not_read(ask: Callable[..., Asked], tmp_path: Path) -> None:
    path = put(tmp_path / "a", file_of("1.2.3.1"))
    basket = Basket(adopts=True)
    ask(tmp_path).fetch(want("1.2.3.1"), basket)
    ((arrival, octets),) = basket.taken
    assert octets == b"" and arrival.origin is not None
    assert arrival.origin.path == str(path)
    assert arrival.head == arrival.origin.head == file_meta(SECONDARY, "1.2.3.1", EXPLICIT)
    assert arrival.origin.stamp.size == path.stat().st_size


def test_the_path_of_an_origin_is_absolute(
    ask: Callable[..., Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "tree/a", file_of("1.2.3.1"))
    monkeypatch.chdir(tmp_path)
    basket = Basket()
    asked = ask("./tree")
    asked.fetch(want("1.2.3.1"), basket)
    origin = basket.taken[0][0].origin
    assert asked.place.name == "./tree"
    assert origin is not None and origin.path == str(tmp_path / "tree/a")


def test_both_files_of_one_uid_are_offered(ask: Callable[..., Asked], tmp_path: Path) -> None:
    put(tmp_path / "a", file_of("1.2.3.1", fill=b"x"))
    put(tmp_path / "b", file_of("1.2.3.1", fill=b"y"))
    for whole in [True, False]:
        basket = Basket()
        ask(tmp_path).fetch(want("1.2.3.1", whole=whole), basket)
        assert basket.files == [(tmp_path / name).read_bytes() for name in "ab"]


def test_what_is_refused_or_unknown_does_not_keep_the_rest(ask: Callable[..., Asked], tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / str(number), file_of(f"1.2.3.{number}"))
    basket = Basket(refused=["1.2.3.0"])
    ask(tmp_path).fetch(want("9.9", "1.2.3.0", "1.2.3.1", "1.2.3.2", whole=False), basket)
    assert basket.uids == ["1.2.3.1", "1.2.3.2"]


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm"])
def test_a_data_set_without_a_head_comes_as_what_it_is(ask: Callable[..., Asked], tmp_path: Path, name: str) -> None:
    shutil.copy(CORPUS / name, tmp_path / "x")
    asked = ask(tmp_path)
    (study,), _ = asked.find(Level.STUDY, {})
    (series,), _ = asked.find(Level.SERIES, {"StudyInstanceUID": str(study["StudyInstanceUID"])})
    keys = {key: str(series[key]) for key in ("StudyInstanceUID", "SeriesInstanceUID")}
    (instance,), _ = asked.find(Level.INSTANCE, keys)
    basket = Basket()
    uid = str(instance["SOPInstanceUID"])
    asked.fetch(want(uid, study=keys["StudyInstanceUID"], series=keys["SeriesInstanceUID"]), basket)
    ((arrival, octets),) = basket.taken
    assert arrival.head == b""
    syntax = EXPLICIT if "LitEnd" in name else "1.2.840.10008.1.2.2"
    assert arrival.transfer_syntax_uid == syntax
    assert (CORPUS / name).read_bytes().endswith(octets)
    meta = file_meta(arrival.sop_class_uid, uid, syntax)
    proper = put(tmp_path / "proper", meta + octets)
    assert pydicom.dcmread(proper).SOPInstanceUID == uid


@pytest.mark.parametrize("begins_at", [128, 132])
@pytest.mark.parametrize("declared", [EXPLICIT, "1.2.840.10008.1.2"])
def test_a_head_that_is_no_proper_one_is_left_behind(
    ask: Callable[..., Asked], tmp_path: Path, begins_at: int, declared: str
) -> None:
    put(tmp_path / "a", (file_meta(SECONDARY, "1.2.3.1", declared) + data_set("1.2.3.1"))[begins_at:])
    basket = Basket()
    ask(tmp_path).fetch(want("1.2.3.1"), basket)
    ((arrival, octets),) = basket.taken
    assert (arrival.head, arrival.transfer_syntax_uid, octets) == (b"", EXPLICIT, data_set("1.2.3.1"))


def test_a_name_that_is_no_utf_8_is_found_and_fetched(ask: Callable[..., Asked], tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller/\xff.dcm")
    put(tmp_path / name, file_of("1.2.3.1"))
    asked = ask(tmp_path)
    found, _ = asked.find(Level.INSTANCE, SERIES)
    assert str(found[0]["path"]).isprintable()
    basket = Basket()
    asked.fetch(want("1.2.3.1"), basket)
    origin = basket.taken[0][0].origin
    assert origin is not None and os.fsencode(origin.path).endswith(b"/M\xfcller/\xff.dcm")


# Races


def take(asked: Asked, basket: Basket, change: Callable[[], object]) -> None:
    """Takes stock, lets the change happen, and fetches."""
    asked.find(Level.STUDY, {})
    change()
    asked.fetch(want("1.2.3.1"), basket)


def to_link(tree: Path) -> None:
    """The folder of the file turns into a link to another that holds the very file."""
    (tree / "sub").rename(tree.parent / "outside")
    (tree / "sub").symlink_to(tree.parent / "outside")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "sub/a").unlink(),
        lambda tree: shutil.rmtree(tree / "sub"),
        lambda tree: os.truncate(tree / "sub/a", 700),
        lambda tree: put(tree / "sub/a", file_of("1.2.3.2")),
        lambda tree: put(tree / "sub/a", file_of("1.2.3.1", series="9")),
        lambda tree: put(tree / "sub/a", b"a note of somebody's"),
        lambda tree: ((tree / "sub/a").unlink(), os.mkfifo(tree / "sub/a")),
        lambda tree: ((tree / "sub/a").unlink(), (tree / "sub/a").mkdir()),
        lambda tree: ((tree / "sub/a").rename(tree / "b"), (tree / "sub/a").symlink_to(tree / "b")),
        to_link,
    ],
)
@pytest.mark.parametrize("adopts", [True, False])
def test_what_is_something_else_by_now_is_not_delivered(
    ask: Callable[..., Asked], tmp_path: Path, change: Callable[[Path], object], adopts: bool
) -> None:
    tree = tmp_path / "tree"
    put(tree / "sub/a", file_of("1.2.3.1"))
    put(tree / "sub/z", file_of("1.2.3.1"))
    basket = Basket(adopts=adopts)
    take(ask(tree), basket, lambda: ((tree / "sub/z").unlink(), change(tree)))
    assert basket.taken == []


def test_the_same_instance_with_other_octets_is_delivered_as_it_is_now(
    ask: Callable[..., Asked], tmp_path: Path
) -> None:
    put(tmp_path / "a", file_of("1.2.3.1"))
    longer = bytes(128) + b"DICM" + file_meta(SECONDARY, "1.2.3.1", EXPLICIT)[132:] + data_set("1.2.3.1", octets=900)
    basket = Basket()
    take(ask(tmp_path), basket, lambda: put(tmp_path / "a", longer))
    assert basket.files == [longer]
    assert basket.taken[0][0].origin is not None
    assert basket.taken[0][0].origin.stamp.size == len(longer)


@pytest.mark.parametrize("octets", [500, 2_500_000])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 100),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.write_bytes(path.read_bytes() + b"more"),
    ],
)
def test_what_changes_while_it_is_read_is_discarded(
    ask: Callable[..., Asked], tmp_path: Path, change: Callable[[Path], object], octets: int
) -> None:
    path = put(tmp_path / "a", file_of("1.2.3.1", octets=octets))
    changes = [change]
    basket = Basket(at_write=lambda: changes.pop()(path) if changes else None)
    ending = ask(tmp_path).fetch(want("1.2.3.1"), basket)
    assert (basket.taken, basket.discarded) == ([], ["the file changed while it was read"])
    assert (ending.status, ending.why) == (0, "its file changed, vanished or cannot be read")


def test_a_sink_in_trouble_ends_the_fetch_and_nothing_stays_open(ask: Callable[..., Asked], tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / str(number), file_of(f"1.2.3.{number}"))

    def trouble() -> None:
        raise LocalTrouble("the disk is full")

    basket = Basket(at_write=trouble)
    asked = ask(tmp_path)
    asked.find(Level.STUDY, {})
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(LocalTrouble, match="full"):
        asked.fetch(want(*(f"1.2.3.{number}" for number in range(5))), basket)
    assert basket.discarded == ["the file could not be taken"]
    assert len(os.listdir("/dev/fd")) == before


def test_descriptors_do_not_pile_up(ask: Callable[..., Asked], tmp_path: Path) -> None:
    uids = [f"1.2.3.{number}" for number in range(3 * place.FILES_AT_ONCE)]
    for uid in uids:
        put(tmp_path / uid, file_of(uid, octets=0))
    asked = ask(tmp_path)
    asked.find(Level.STUDY, {})
    before = len(os.listdir("/dev/fd"))
    most = 0

    def count(arrival: Arrival) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/dev/fd")))

    basket = Basket(meanwhile=count)
    asked.fetch(want(*uids), basket)
    assert sorted(basket.uids) == sorted(uids)
    assert most <= before + place.FILES_AT_ONCE + 4  # three are the event loop's, one is this count's
    assert len(os.listdir("/dev/fd")) == before


# Media directories


def media(tmp_path: Path, name: str = "DICOMDIR") -> Path:
    tree = tmp_path / "media"
    for folder in ("77654033", "98892001", "98892003"):
        shutil.copytree(MEDIA / folder, tree / folder)
    shutil.copy(MEDIA / name, tree / "DICOMDIR")
    return tree


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nooffset",
                                  "DICOMDIR-nopatient", "DICOMDIR-reordered", "DICOMDIR-empty.dcm"])
def test_a_media_directory_is_no_instance_and_no_trouble(
    ask: Callable[..., Asked], tmp_path: Path, name: str
) -> None:
    asked = ask(media(tmp_path, name))
    found, ending = asked.find(Level.STUDY, {}, "NumberOfStudyRelatedInstances")
    assert sum(int(str(each["NumberOfStudyRelatedInstances"])) for each in found) == 31
    assert asked.warned == []
    assert asked.skipped == [("DICOMDIR", "a media directory")]
    assert not ending.truncated


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nooffset",
                                  "DICOMDIR-nopatient", "DICOMDIR-reordered"])
def test_files_that_it_names_and_that_are_not_there_are_named(
    ask: Callable[..., Asked], tmp_path: Path, name: str
) -> None:
    tree = media(tmp_path, name)
    shutil.rmtree(tree / "98892003/MR700")
    (tree / "77654033/CR1/6154").rename(tree / "77654033/CR1/elsewhere")
    asked = ask(tree)
    asked.find(Level.STUDY, {})
    gone = len(list((MEDIA / "98892003/MR700").iterdir())) + 1
    assert asked.warned == [f"{tree}: {gone} files that a media directory names are not there; -v names them"]
    assert ("77654033/CR1/6154", "named by a media directory, and not there: 6154") in asked.skipped
    assert len(asked.skipped) == gone + 1


def test_names_are_compared_as_iso_9660_has_them(ask: Callable[..., Asked], tmp_path: Path) -> None:
    tree = media(tmp_path)
    (tree / "77654033/CR1").rename(tree / "77654033/cr1")
    (tree / "77654033/cr1/6154").rename(tree / "77654033/cr1/6154.;1")
    (tree / "DICOMDIR").rename(tree / "dicomdir;1")
    asked = ask(tree)
    asked.find(Level.STUDY, {})
    assert asked.warned == []
    assert asked.skipped == [("dicomdir;1", "a media directory")]


def record(file_id: str, *, is_delimited: bool) -> bytes:
    inside = samples.element(0x00041430, b"CS", "IMAGE") + samples.element(0x00041500, b"CS", file_id)
    inside += samples.element(0x00041510, b"UI", SECONDARY)
    length = (0xFFFFFFFF if is_delimited else len(inside)).to_bytes(4, "little")
    end = bytes.fromhex("feff0de000000000") if is_delimited else b""
    return bytes.fromhex("feff00e0") + length + inside + end


def directory(*file_ids: str, is_delimited: bool = False) -> bytes:
    """A DICOMDIR that names these."""
    items = b"".join(record(file_id, is_delimited=is_delimited) for file_id in file_ids)
    length = (0xFFFFFFFF if is_delimited else len(items)).to_bytes(4, "little")
    sequence = bytes.fromhex("04002012") + b"SQ\0\0" + length + items
    sequence += bytes.fromhex("feffdde000000000") if is_delimited else b""
    head = samples.element(0x00041130, b"CS", "TEST") + samples.element(0x00041212, b"US", 0)
    return samples.part10(head + sequence, sop_class_uid="1.2.840.10008.1.3.10", sop_uid="1.2.9")


@pytest.mark.parametrize("is_delimited", [True, False])
def test_names_that_lead_out_are_passed_over_and_nothing_is_opened_for_them(
    ask: Callable[..., Asked], tmp_path: Path, is_delimited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "secret", file_of("1.2.3.9"))
    hostile = ["..\\SECRET", "\\ETC\\PASSWD", "A\\..\\..\\SECRET", "A/../../SECRET", "A\0B", ".", "", "A\\\\B"]
    tree = tmp_path / "tree"
    put(tree / "DICOMDIR", directory("IM1", *hostile, "IM2", is_delimited=is_delimited))
    put(tree / "im1", file_of("1.2.3.1"))
    opened = []
    real = os.open

    def spy(path: Any, *given: Any, **options: Any) -> int:
        opened.append(os.fspath(path))
        return real(path, *given, **options)

    monkeypatch.setattr(os, "open", spy)
    asked = ask(tree)
    found, _ = asked.find(Level.INSTANCE, SERIES)
    assert [each["path"] for each in found] == ["im1"]
    assert asked.warned == [
        f"{tree}: 8 names in a media directory lead out of it, or name nothing; they are passed over",
        f"{tree}: 1 files that a media directory names are not there; -v names them",
    ]
    assert not [path for path in opened if "SECRET" in path.upper() or "PASSWD" in path.upper()]


@pytest.mark.parametrize("cut", range(330, 520, 7))
def test_a_media_directory_that_breaks_off_is_read_as_far_as_it_goes(
    ask: Callable[..., Asked], tmp_path: Path, cut: int
) -> None:
    put(tmp_path / "IM1", file_of("1.2.3.1"))
    put(tmp_path / "DICOMDIR", directory("IM1", "IM1", "IM1")[:cut])
    asked = ask(tmp_path)
    found, ending = asked.find(Level.INSTANCE, SERIES)
    assert (len(found), ending.truncated, asked.warned) == (1, False, [])


def test_each_folder_may_have_a_media_directory_of_its_own(ask: Callable[..., Asked], tmp_path: Path) -> None:
    for disc in ["1", "2"]:
        put(tmp_path / disc / "DICOMDIR", directory("A\\B"))
    put(tmp_path / "1/a/b", file_of("1.2.3.1"))
    asked = ask(tmp_path)
    asked.find(Level.STUDY, {})
    assert [path for path, why in asked.skipped if "not there" in why] == ["2/A/B"]


def test_more_names_than_are_compared(
    ask: Callable[..., Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.media, "MAX_NAMES", 3)
    put(tmp_path / "DICOMDIR", directory(*(f"IM{number}" for number in range(9))))
    put(tmp_path / "x", file_of("1.2.3.1"))
    asked = ask(tmp_path)
    asked.find(Level.STUDY, {})
    assert "more than 3 files" in asked.warned[0] and asked.warned[1].startswith(f"{tmp_path}: 3 files")


def test_a_session_is_what_the_contract_says() -> None:
    from dcmsync import contract

    satisfied: type[contract.Session] = Session
    assert satisfied is Session
