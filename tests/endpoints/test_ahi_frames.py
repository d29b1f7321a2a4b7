"""Instances that `endpoints.ahi` makes of metadata and frames: read back by pydicom; and what is taken for none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.uid import MPEG4HP41

from dcmsync.contract import Ending, Want
from dcmsync.endpoints.ahi import assembly, attributes, frames, metadata, native
from dcmsync.errors import Disconnected, LocalTrouble, Rejected, RemoteProtocolError
from dcmsync.wire import dataset
from dcmsync.wire.part10 import walk_file
from tests import samples
from tests.endpoints.test_ahi import fetching, place, talk, wanting
from tests.fakes import ahi, htj2k
from tests.fakes.ahi import DataStore
from tests.fakes.keeper import Keeper
from tests.fakes.web import Reply, Seen

MULTI, SINGLE = 12, 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """A series of 3 images: of 12 frames, of one, of one."""
    return htj2k.make_images(tmp_path_factory.mktemp("made"), (MULTI, SINGLE, SINGLE))


@pytest.fixture
def store(made: list[samples.Sample]) -> Iterator[DataStore]:
    with DataStore() as one:
        one.add(sample.path for sample in made)
        yield one


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further tries come at once."""
    monkeypatch.setattr("dcmsync.net.trials.FIRST_WAIT_S", 0.001)


def read(octets: bytes) -> pydicom.FileDataset:
    return pydicom.dcmread(DicomBytesIO(octets))


def same(octets: bytes, path: Path) -> None:
    """What was made has the attributes of what was imported, and its frames octet for octet."""
    back, source = read(octets), pydicom.dcmread(path)
    assert back.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    assert back.file_meta.MediaStorageSOPInstanceUID == source.SOPInstanceUID
    assert back.file_meta.MediaStorageSOPClassUID == source.SOPClassUID
    assert htj2k.streams(back) == htj2k.streams(source)
    del back.PixelData, source.PixelData
    assert list(back) == list(source)


def fetched(store: DataStore, made: list[samples.Sample], keeper: Keeper, warned: list[str] | None = None) -> Ending:
    ending = talk(place(store, by_frames=True, warned=warned), fetching(wanting(made), keeper))
    assert isinstance(ending, Ending)
    return ending


def change(store: DataStore, sample: samples.Sample, deed: Callable[[dict[str, Any]], Any]) -> None:
    """Changes what the metadata says of an instance."""
    for each in store.image_sets:
        document = json.loads(each.document)
        for series in document["Study"]["Series"].values():
            if sample.sop_uid in series["Instances"]:
                deed(series["Instances"][sample.sop_uid])
        each.document = json.dumps(document).encode()


def answering(store: DataStore, reply: Callable[[bytes], Reply]) -> None:
    """Frames are answered with what `reply` makes of them."""

    def instead(operation: str, seen: Seen) -> Reply | None:
        if operation != "getImageFrame":
            return None
        return reply(store.image_sets[0].frames[json.loads(seen.body)["imageFrameId"]])

    store.before = instead


def refused(store: DataStore, made: list[samples.Sample]) -> str:
    """Why the image of 12 frames does not come; the others do."""
    keeper = Keeper()
    ending = fetched(store, made, keeper)
    assert ending.status and set(keeper.files) == {sample.sop_uid for sample in made[1:]}
    assert keeper.open == 0
    return ending.why


def test_images_of_one_and_of_many_frames_are_made_whole(store: DataStore, made: list[samples.Sample]) -> None:
    keeper, warned = Keeper(), list[str]()
    assert fetched(store, made, keeper, warned) == Ending()
    assert len(keeper.files) == 3
    for sample in made:
        same(keeper.files[sample.sop_uid], sample.path)
    assert store.calls.count("getImageFrame") == MULTI + 2 * SINGLE and "GetDICOMInstance" not in store.calls
    assert len(warned) == 1 and "not octet for octet what was imported" in warned[0]


def test_what_is_made_is_as_the_standard_wants_it(store: DataStore, made: list[samples.Sample]) -> None:
    keeper = Keeper()
    fetched(store, made, keeper)
    octets = keeper.files[made[0].sop_uid]
    at = octets.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12
    assert octets[at : at + 8] == b"\xfe\xff\x00\xe0\0\0\0\0"  # the offset table, empty
    lengths, at = [], at + 8
    while octets[at : at + 4] == b"\xfe\xff\x00\xe0":
        lengths.append(int.from_bytes(octets[at + 4 : at + 8], "little"))
        at += 8 + lengths[-1]
    assert octets[at:] == b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert lengths == [len(each) + len(each) % 2 for each in htj2k.streams(pydicom.dcmread(made[0].path))]
    assert any(len(each) % 2 for each in htj2k.STREAMS)
    raw = read(octets).get_item(0x00080016).value
    assert raw == samples.CT_IMAGE_STORAGE.encode() + b"\0"  # the metadata pads it with a blank (PS3.5 §9.1)


def test_a_series_whose_instances_are_not_known_is_made_too(store: DataStore, made: list[samples.Sample]) -> None:
    keeper = Keeper()
    want = Want(study_uid=made[0].study_uid, series_uid=made[0].series_uid, instances={})
    assert talk(place(store, by_frames=True), fetching(want, keeper)) == Ending()
    assert set(keeper.files) == {sample.sop_uid for sample in made}


def test_of_image_sets_apart_frames_are_asked_there(
    store: DataStore, made: list[samples.Sample], tmp_path: Path
) -> None:
    other = htj2k.make_images(tmp_path, (2,), seed=22)
    (apart,) = store.add([other[0].path], primary=False)
    keeper = Keeper()
    at = place(store, by_frames=True, image_sets="all")
    assert talk(at, fetching(wanting(other), keeper)) == Ending()
    same(keeper.files[other[0].sop_uid], other[0].path)
    assert sum(f"{apart.id}/getImageFrame" in seen.target for seen in store.seen) == 2


def test_no_more_frames_than_allowed_are_on_their_way_or_wait(
    store: DataStore, made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most = 0, 0
    fetch, fragment = native.Native.frame, assembly.fragment
    first = anyio.Event()

    async def counted(self: native.Native, image_set_id: str, frame: Any) -> bytes:
        nonlocal held, most
        held += 1
        most = max(most, held)
        octets = await fetch(self, image_set_id, frame)
        if held >= frames.IN_FLIGHT:
            first.set()
        await first.wait()  # the first one is the last to come
        return octets

    def written(*arguments: Any) -> Any:
        nonlocal held
        held -= 1
        return fragment(*arguments)

    monkeypatch.setattr(native.Native, "frame", counted)
    monkeypatch.setattr(frames, "fragment", written)
    keeper = Keeper()
    assert fetched(store, made, keeper) == Ending()
    assert most == frames.IN_FLIGHT
    same(keeper.files[made[0].sop_uid], made[0].path)


def test_a_warning_comes_once_for_all_sessions_of_a_place(store: DataStore, made: list[samples.Sample]) -> None:
    warned: list[str] = []
    at = place(store, by_frames=True, warned=warned)
    for _ in range(2):
        assert talk(at, fetching(wanting(made), Keeper())) == Ending()
    assert len(warned) == 1


def _strange(data_set: pydicom.Dataset) -> None:
    """Values of every kind, also in items, and private ones."""
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.PatientName = "Müller^Jörg"
    data_set.PixelRepresentation = 1
    data_set.SmallestImagePixelValue = -5
    data_set.RescaleSlope = "1.25"
    data_set.WindowCenter = ["40", "-600.5"]
    data_set.ImageType = ["ORIGINAL", "", "AXIAL"]
    data_set.StudyDescription = ""
    data_set.PatientComments = None
    data_set.ReferencedImageSequence = []
    data_set.AcquisitionDuration = 2.5
    data_set.ExposureIndex = "1"
    data_set.TableTopPitchAngle = 1.5
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID = "1.2.9"
    item.LUTDescriptor = [4, 0, 16]
    item.add_new(0x00283006, "US", [1, 2, 3, 4])
    private = item.private_block(0x0009, "ACME 1", create=True)
    private.add_new(0x02, "FD", [0.1, -2.5])
    inner = pydicom.Dataset()
    inner.CodeMeaning = "Größe"
    item.PurposeOfReferenceCodeSequence = [inner]
    data_set.SourceImageSequence = [item, pydicom.Dataset()]
    block = data_set.private_block(0x0019, "ACME 2", create=True)
    block.add_new(0x01, "OB", b"\x01\x02\x03\x04")
    block.add_new(0x02, "LO", ["a", "b"])
    block.add_new(0x03, "UN", b"\xff\x00")
    block.add_new(0x04, "AT", [0x00280010, 0x00280011])
    block.add_new(0x05, "SL", [-70000, 70000])
    block.add_new(0x06, "SQ", [inner])
    data_set.add_new(0x60003000, "OW", bytes(8))
    data_set.add_new(0x60000010, "US", 8)
    data_set.add_new(0xFFFCFFFC, "OB", bytes(4))


def test_values_of_every_kind_come_back_as_they_were(tmp_path: Path) -> None:
    made = htj2k.make_images(tmp_path, (2,), change=_strange)
    with DataStore() as store:
        store.add([made[0].path])
        keeper, warned = Keeper(), list[str]()
        assert fetched(store, made, keeper, warned) == Ending()
        same(keeper.files[made[0].sop_uid], made[0].path)
        assert len(warned) == 1, warned
        assert keeper.files[made[0].sop_uid].endswith(b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0")
        assert "Müller^Jörg".encode("latin-1") in keeper.files[made[0].sop_uid]


def test_text_that_its_character_set_cannot_say_is_written_in_utf_8(
    store: DataStore, made: list[samples.Sample]
) -> None:
    def rename(instance: dict[str, Any]) -> None:
        item = {"SpecificCharacterSet": "ISO_IR 100", "CodeMeaning": "Größe"}
        instance["DICOM"] |= {"PatientComments": "Ёж", "SpecificCharacterSet": "ISO_IR 100", "PatientName": "Jörg",
                              "AnatomicRegionSequence": [item]}  # fmt: skip

    change(store, made[1], rename)
    keeper = Keeper()
    assert fetched(store, made, keeper) == Ending()
    back = read(keeper.files[made[1].sop_uid])
    assert back.SpecificCharacterSet == "ISO_IR 192"
    assert (back.PatientComments, back.PatientName) == ("Ёж", "Jörg")
    assert back.AnatomicRegionSequence[0].CodeMeaning == "Größe"


def test_what_cannot_be_written_as_it_was_is_named_and_counted(store: DataStore, made: list[samples.Sample]) -> None:
    def add(instance: dict[str, Any]) -> None:
        instance["DICOM"] |= {
            "00091001": "QUJD", "00091002": {"BulkDataURI": "https://x"}, "NoSuchKeyword": "x", "InstanceNumber": {},
            "StudyDate": "2024é", "OverlayRows": 8, "\x1b[31m": 1, "SmallestImagePixelValue": 70000,
            "AcquisitionDuration": True, "EncapsulatedDocument": "not base64", "LargestImagePixelValue": "1_0",
            "SourceImageSequence": [{"ReferencedSOPInstanceUID": "1.2", "00091003": "?"}], "00091004": None,
        }  # fmt: skip
        instance["DICOMVRs"] |= {"00091002": "OB", "00091005": "ZZ"}

    change(store, made[1], add)
    keeper, warned = Keeper(), list[str]()
    assert fetched(store, made, keeper, warned) == Ending()
    back = read(keeper.files[made[1].sop_uid])
    assert back.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2" and back[0x00091004].VR == "UN"
    assert "SmallestImagePixelValue" not in back and 0x00091001 not in back
    assert len(warned) == 2
    assert "12 elements of 1 instances cannot be written as they were, and are left out: " in warned[1]
    assert "00091001, 00091002, 00091003" in warned[1] and warned[1].endswith(" and 7 more")
    assert "\x1b" not in warned[1]


def test_a_text_too_long_for_its_representation_is_written_without_it(
    store: DataStore, made: list[samples.Sample]
) -> None:
    change(store, made[1], lambda instance: instance["DICOM"].update(ImageComments="x" * 70001))
    keeper, warned = Keeper(), list[str]()
    assert fetched(store, made, keeper, warned) == Ending() and len(warned) == 1
    back = read(keeper.files[made[1].sop_uid])
    assert back.get_item(0x00204000).VR == "UN" and back.ImageComments == b"x" * 70001 + b" "


def test_lengths_places_and_pixels_of_the_file_that_was_are_left_to_the_new_one(
    store: DataStore, made: list[samples.Sample]
) -> None:
    old = {"00080000": 4, "00020010": "1.2", "ExtendedOffsetTable": "AAAA", "PixelData": "AAAA"}
    change(store, made[0], lambda instance: instance["DICOM"].update(old))
    keeper, warned = Keeper(), list[str]()
    assert fetched(store, made, keeper, warned) == Ending() and len(warned) == 1
    same(keeper.files[made[0].sop_uid], made[0].path)


def _add(more: dict[str, Any], instance: dict[str, Any]) -> None:
    instance["DICOM"] |= more


def test_what_is_no_image_is_made_of_metadata_alone(tmp_path: Path) -> None:
    made = samples.make_series(tmp_path, instances=1, rows=8, columns=8, seed=23)
    source = pydicom.dcmread(made[0].path)
    for element in [each for each in source if each.tag.group in (0x0028, 0x7FE0)]:
        del source[element.tag]
    source.ContentSequence = [pydicom.Dataset()]
    source.save_as(made[0].path)
    with DataStore() as store:
        store.add([made[0].path])
        keeper = Keeper()
        assert fetched(store, made, keeper) == Ending()
        back = read(keeper.files[made[0].sop_uid])
        assert back.file_meta.TransferSyntaxUID == samples.EXPLICIT_LITTLE and list(back) == list(source)
        for lacking in ("Rows", "NumberOfFrames"):
            change(store, made[0], partial(_add, {lacking: 1}))
            assert "no frame of it is listed" in fetched(store, made, Keeper()).why
        pdf = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "Rows": None, "NumberOfFrames": None}
        change(store, made[0], partial(_add, pdf))
        assert "the document in it is not told" in fetched(store, made, Keeper()).why


@pytest.mark.parametrize(
    "deed, words",
    [
        (lambda instance: instance["ImageFrames"].pop(), "12 frames, and 11 are listed"),
        (lambda instance: instance["ImageFrames"].append({"ID": "a" * 32}), "12 frames, and 13 are listed"),
        (lambda instance: instance["ImageFrames"].append(instance["ImageFrames"][0]), "a frame is listed twice"),
        (lambda instance: instance["DICOM"].update(NumberOfFrames="1_2"), "another number of frames"),
        (lambda instance: instance["DICOM"].pop("NumberOfFrames"), "1 frames, and 12 are listed"),
        (lambda instance: instance["ImageFrames"][3].update(ID="../x"), "something that is no id"),
        (lambda instance: instance.update(ImageFrames=[]), "no frame of it is listed"),
        (lambda instance: instance.update(ImageFrames=None), "no frame of it is listed"),
        (lambda instance: instance.update(ImageFrames={"a": 1}), "list of frames cannot be read"),
        (lambda instance: instance.update(StoredTransferSyntaxUID=MPEG4HP41), "4.102, of which no file can be made"),
        (lambda instance: instance.update(StoredTransferSyntaxUID="1.2.840.10008.1.2.1"), "of which no file"),
        (lambda instance: instance.pop("StoredTransferSyntaxUID"), "in a transfer syntax that is not told"),
        (lambda instance: instance.update(StoredTransferSyntaxUID="1.2.840.10008.1.2.4.50"), "is not in the transfer"),
        (lambda instance: instance["DICOM"].pop("SOPClassUID"), "SOP Class is not told"),
        (lambda instance: instance["DICOM"].update(SOPClassUID="9" * 70000), "SOP Class is not told"),
        (lambda instance: instance["DICOM"].update(SOPInstanceUID="1.2.3"), "another SOP Instance UID"),
        (lambda instance: instance["DICOM"].pop("BitsAllocated"), "BitsAllocated is not told"),
        (lambda instance: instance["DICOM"].update(Rows=70000), "its Rows is none"),
        (lambda instance: instance["DICOM"].update(SourceImageSequence=nested(40)), "nested too deeply"),
        (lambda instance: instance["ImageFrames"][5].update(FrameSizeInBytes=9000), "and not 9,000 as the metadata"),
        (lambda instance: instance["ImageFrames"][5].update(FrameSizeInBytes=9), "more octets than the 9"),
    ],
)
def test_an_image_that_cannot_be_made_whole_is_not_made(
    store: DataStore, made: list[samples.Sample], deed: Callable[[dict[str, Any]], Any], words: str
) -> None:
    change(store, made[0], deed)
    assert words in refused(store, made)


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [{"SourceImageSequence": found}]
    return found


def test_an_instance_that_no_image_set_lists_is_said(store: DataStore, made: list[samples.Sample]) -> None:
    keeper = Keeper()
    ending = talk(place(store, by_frames=True), fetching(wanting(made, **{"1.2.3": ""}), keeper))
    assert ending.status == 404 and "no image set lists the instance" in ending.why and len(keeper.files) == 3


@pytest.mark.parametrize(
    "reply, words",
    [
        (lambda octets: Reply(body=b""), "a frame has no octets"),
        (lambda octets: Reply(body=octets[:-20]), "and not"),
        (lambda octets: Reply(body=octets + b"\0\0"), "more octets than"),
        (lambda octets: Reply(body=b"\0" * len(octets)), "not in the transfer syntax"),
        (lambda octets: ahi._error(404, "ResourceNotFoundException", "no such frame"), "no such frame"),
    ],
)
def test_an_image_with_a_frame_that_is_none_is_not_taken(
    store: DataStore, made: list[samples.Sample], reply: Callable[[bytes], Reply], words: str
) -> None:
    last = json.loads(store.image_sets[0].document)["Study"]["Series"][made[0].series_uid]["Instances"]
    name = last[made[0].sop_uid]["ImageFrames"][-1]["ID"]
    store.before = lambda operation, seen: (
        reply(store.image_sets[0].frames[name]) if operation == "getImageFrame" and name in seen.body.decode() else None
    )
    assert words in refused(store, made)


@pytest.mark.parametrize("cut", [3, 20])
def test_a_frame_that_ends_early_is_seen_where_its_size_is_not_told(
    store: DataStore, made: list[samples.Sample], cut: int
) -> None:
    change(store, made[0], lambda instance: [frame.pop("FrameSizeInBytes") for frame in instance["ImageFrames"]])
    assert fetched(store, made, Keeper()) == Ending()
    answering(store, lambda octets: Reply(body=octets[:-cut]))
    keeper = Keeper()
    assert "a frame is cut short" in fetched(store, made[:1], keeper).why and not keeper.files


def test_a_frame_whose_body_is_cut_or_has_no_end_is_none(store: DataStore, made: list[samples.Sample]) -> None:
    keeper = Keeper()
    answering(store, lambda octets: Reply(body=octets, cut=len(octets) - 10))
    with pytest.raises(Disconnected):
        fetched(store, made, keeper)
    answering(store, lambda octets: Reply(body=octets, framing="close"))
    with pytest.raises(RemoteProtocolError, match="where it ends"):
        fetched(store, made, keeper)
    assert not keeper.files and not keeper.open


def test_a_frame_whose_size_is_not_told_has_an_end_all_the_same(
    store: DataStore, made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_FRAME_OCTETS", 1000)
    change(store, made[0], lambda instance: [frame.pop("FrameSizeInBytes") for frame in instance["ImageFrames"]])
    answering(store, lambda octets: Reply(body=octets + bytes(2000)) if len(octets) == 144 else Reply(body=octets))
    assert "more octets than the 1,000" in refused(store, made)


def test_a_disk_that_is_full_ends_it(store: DataStore, made: list[samples.Sample]) -> None:
    class Full(Keeper):
        def receive(self, arrival: Any) -> Any:
            raise LocalTrouble("no space left")

    with pytest.raises(LocalTrouble, match="no space left"):
        fetched(store, made, Full())


@pytest.mark.parametrize("status", [404, 405, 406, 501])
def test_where_whole_instances_are_refused_the_option_is_named(
    store: DataStore, made: list[samples.Sample], status: int
) -> None:
    store.before = lambda operation, seen: (
        ahi._error(status, "", "not here") if operation == "GetDICOMInstance" else None
    )
    ending = talk(place(store), fetching(wanting(made), Keeper()))
    assert ending.status == status and ending.why.endswith(
        '(and 2 more): where whole instances are not given, set retrieve_by = "frames"'
    )
    assert fetched(store, made, Keeper()) == Ending()


def test_where_another_reason_is_given_the_option_is_not_named(
    store: DataStore, made: list[samples.Sample]
) -> None:
    store.before = lambda operation, seen: (
        ahi._error(409, "ConflictException", "it is locked") if operation == "GetDICOMInstance" else None
    )
    ending = talk(place(store), fetching(wanting(made), Keeper()))
    assert ending.status == 409 and "retrieve_by" not in ending.why


def test_who_may_not_have_whole_instances_is_told_the_option(store: DataStore, made: list[samples.Sample]) -> None:
    store.before = lambda operation, seen: (
        ahi._error(403, "AccessDeniedException", "no") if operation == "GetDICOMInstance" else None
    )
    with pytest.raises(Rejected, match='set retrieve_by = "frames"'):
        talk(place(store), fetching(wanting(made), Keeper()))
    assert fetched(store, made, Keeper()) == Ending()


def test_many_images_of_many_frames_come_at_a_time(tmp_path: Path) -> None:
    made = htj2k.make_images(tmp_path, (9,) * 11)
    with DataStore() as store:
        store.add(sample.path for sample in made)
        keeper = Keeper()
        assert fetched(store, made, keeper) == Ending()
        assert len(keeper.files) == 11 and keeper.most_open > 1


@pytest.mark.parametrize(
    "values, vrs",
    [
        ({"EncapsulatedDocument": "QU JD"}, {}),
        ({"EncapsulatedDocument": ["QUJD", "QUJD"]}, {}),
        ({"FFFEE000": "QUJD"}, {"FFFEE000": "OB"}),
        ({"00010010": "QUJD"}, {"00010010": "OB"}),
        ({"SourceImageSequence": [{"BulkDataURI": "https://x"}]}, {}),
        ({"SourceImageSequence": [{}, 7]}, {}),
        ({"PatientID": True}, {}),
        ({"PatientID": ["a", {}]}, {}),
        ({"FrameTime": [[1]]}, {}),
        ({"Rows": [8, None]}, {}),
        ({"Rows": 8.5}, {}),
        ({"AcquisitionDuration": "1_0"}, {}),
        ({"EventElapsedTimes": 1.5, "RecommendedDisplayFrameRateInFloat": 1e300}, {}),
        ({"FrameIncrementPointer": "0018"}, {}),
        ({"FrameIncrementPointer": 1 << 32}, {}),
        ({"00191001": "x"}, {"00191001": "ZZ"}),
    ],
)
def test_no_value_is_guessed(values: dict[str, Any], vrs: dict[str, str]) -> None:
    kept = {"InstanceNumber": "1"}
    found = attributes.elements({**values, **kept}, vrs)
    whole = attributes.elements(kept, {})
    assert found.left_out and set(found.left_out) <= {*values, "RecommendedDisplayFrameRateInFloat"}
    assert whole.before in found.before and found.before.count(b"QUJD") == 0


def test_of_two_values_for_one_tag_the_first_is_written() -> None:
    found = attributes.elements({"Rows": 8, "00280010": 9}, {})
    assert found.left_out == ("00280010",) and found.before == b"\x28\0\x10\0US\2\0\x08\0"


@pytest.mark.parametrize(
    "name, value, vr, written",
    [
        ("00190010", "ACME", "", b"LO\4\0ACME"),
        ("00191001", "ACME", "LO", b"LO\4\0ACME"),
        ("0019100a", "QUJD", "OB", b"OB\0\0\4\0\0\0ABC\0"),
        ("00191001", [{}], "", b"SQ\0\0\x08\0\0\0\xfe\xff\x00\xe0\0\0\0\0"),
        ("00280010", 8, "LO", b"US\2\0\x08\0"),
        ("LUTData", [1, 2], "", b"US\4\0\1\0\2\0"),
        ("LUTData", "AQACAA==", "", b"OW\0\0\4\0\0\0\1\0\2\0"),
        ("SmallestImagePixelValue", -1, "", b"SS\2\0\xff\xff"),
        ("FrameIncrementPointer", 0x00181063, "", b"AT\4\0\x18\0\x63\x10"),
        ("FrameIncrementPointer", "00181063", "", b"AT\4\0\x18\0\x63\x10"),
        ("InstanceNumber", 7, "", b"IS\2\x007 "),
        ("SliceThickness", [1.5, None], "", b"DS\4\x001.5\\"),
        ("SOPClassUID", "1.2 ", "", b"UI\4\x001.2\0"),
        ("StudyDate", None, "", b"DA\0\0"),
    ],
)
def test_a_value_is_written_as_its_representation_has_it(name: str, value: object, vr: str, written: bytes) -> None:
    found = attributes.elements({name: value}, {name: vr} if vr else {})
    assert not found.left_out and found.before[4:] == written


@pytest.mark.slow
def test_whatever_metadata_says_a_file_is_whole_or_is_not_made(
    store: DataStore, made: list[samples.Sample]
) -> None:
    document = json.loads(store.image_sets[0].document)
    instance = document["Study"]["Series"][made[0].series_uid]["Instances"][made[1].sop_uid]
    dice = random.Random(5)
    parts = [document["Patient"], document["Study"], document["Study"]["Series"][made[0].series_uid], instance]
    values: list[Any] = [
        None, True, 0, -1, 7, 1 << 70, 1.5, 1e308, "", " ", "1", "-5", "1e5", "QUJD", "QQ==", "1.2.3", "20240101",
        "\\", "Ё", "é\\Ё", "\ud800", "x" * 70001, "9" * 5000, [], {}, [None], ["1", None], [1, 2.5], [{}], [[]],
        [1, "x"], [{"PatientName": "Ё"}], {"BulkDataURI": "x"}, [{"BulkDataURI": "x"}], [{"00091001": "QUJD"}],
        [{"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "é"}], [{"SourceImageSequence": [{}]}],
    ]  # fmt: skip
    names = [*dataset.keywords(), *(f"{dice.randrange(1 << 32):08X}" for _ in range(300))]
    vrs = ["OB", "US", "SQ", "UN", "FD", "LO", "AT", "UC", "ZZ", "", "US or SS", "SV", "é"]
    made_whole = 0
    for _ in range(1500):
        some = json.loads(json.dumps(parts))
        for _ in range(dice.choice((1, 2, 12))):
            part = dice.choice(some)
            name = dice.choice((dice.choice(names), dice.choice(list(part["DICOM"]))))
            part["DICOM"][name] = dice.choice(values)
            part.setdefault("DICOMVRs", {})[name] = dice.choice(vrs)
        some[1]["Series"] = {made[0].series_uid: {**some[2], "Instances": {made[1].sop_uid: some[3]}}}
        said = json.dumps({"Patient": some[0], "Study": some[1]}).encode()
        try:
            found = assembly.assemble(metadata.read(said), made[0].series_uid, made[1].sop_uid)
        except RemoteProtocolError:
            continue
        head, walk = walk_file(found.head + found.tail)
        assert walk.is_whole and not head.is_guessed, (walk, some)
        made_whole += 1
    assert made_whole > 500
