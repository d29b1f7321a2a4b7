"""Edits on the way through: pydicom edits the same and must agree, dcmdump must read it, and nothing else may move."""

import hashlib
import random
import subprocess
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import data_store
import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from dcmsync.errors import Uneditable
from dcmsync.wire import editing
from dcmsync.wire.content import write_normal_form
from dcmsync.wire.editing import Editor, Provenance, Rules
from dcmsync.wire.elements import walk
from dcmsync.wire.nesting import MAX_DEPTH
from dcmsync.wire.part10 import Head, file_meta, parse_file

Require = Callable[[str], str]

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"
CLOSE_SEQUENCE, CLOSE_ITEM, OPEN_ITEM = (
    bytes.fromhex(octets) for octets in ["feffdde000000000", "feff0de000000000", "feff00e0ffffffff"]
)
NAME, PATIENT_ID, BIRTH_DATE, CHARACTER_SET = 0x00100010, 0x00100020, 0x00100030, 0x00080005
KEPT = {
    "SOPClassUID", "ReferencedSOPClassUID", "CodingSchemeUID", "ContextUID", "MappingResourceUID", "InstanceCreatorUID",
    "ContextGroupExtensionCreatorUID", "ReferencedSOPClassUIDInFile", "ReferencedTransferSyntaxUIDInFile",
    "DeviceUID", "TemplateExtensionOrganizationUID", "TemplateExtensionCreatorUID", "CreatorVersionUID",
}


def remap(uid: str) -> str:
    return "2.25." + str(int.from_bytes(hashlib.md5(uid.encode()).digest()))


def element(tag: int, vr: str, value: bytes, order: str = "little") -> bytes:
    head = b"".join(half.to_bytes(2, order) for half in (tag >> 16, tag & 0xFFFF))  # type: ignore[arg-type]
    if vr in {"OB", "OW", "SQ", "UN", "UT"}:
        return head + vr.encode() + b"\0\0" + len(value).to_bytes(4, order) + value  # type: ignore[arg-type]
    return head + vr.encode() + len(value).to_bytes(2, order) + value  # type: ignore[arg-type]


def implicit(tag: int, value: bytes) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    return head + len(value).to_bytes(4, "little") + value


def item(inside: bytes) -> bytes:
    return bytes.fromhex("feff00e0") + len(inside).to_bytes(4, "little") + inside


def opened(tag: int, vr: str = "SQ") -> bytes:
    return element(tag, vr, b"")[:-4] + b"\xff\xff\xff\xff"


def edit(rules: Rules, octets: bytes, syntax: str = EXPLICIT, *, pieces: Iterator[int] | None = None) -> bytes:
    """The edited data set; `pieces` are the sizes of what is fed, all of it at once without."""
    editor, out, at = Editor(rules, syntax), bytearray(), 0
    while at < len(octets):
        size = next(pieces) if pieces else len(octets)
        for piece in editor.feed([memoryview(octets)[at : at + size]]):
            out += piece
        at += size
    for piece in editor.end():
        out += piece
    return bytes(out)


def content(octets: bytes, syntax: str) -> bytes:
    taken = bytearray()
    assert write_normal_form(octets, syntax, taken.extend)
    return bytes(taken)


def read(octets: bytes, syntax: str = EXPLICIT) -> Dataset:
    head = file_meta("1.2.840.10008.5.1.4.1.1.7", "1.2", syntax)
    return pydicom.dcmread(BytesIO(head + octets), force=True)


@cache
def whole_files() -> list[tuple[str, bytes, str]]:
    """Name, data set and transfer syntax of what pydicom ships that is whole."""
    found = []
    for root in (Path(pydicom.data.__file__).parent, Path(data_store.__file__).parent):
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix not in {".py", ".pyc"} and path.stat().st_size < 3_000_000:
                octets = path.read_bytes()
                head = parse_file(octets)
                if isinstance(head, Head) and not head.is_guessed:
                    data, syntax = octets[head.data_set_offset :], head.transfer_syntax_uid
                    found_whole = walk(data, syntax)
                    if found_whole.is_whole and not found_whole.encoding:
                        found.append((path.name, data, syntax))
    return found


def sizes(seed: int) -> Iterator[int]:
    chance = random.Random(seed)
    while True:
        yield chance.choice([1, 2, 7, 8, 12, 100, 4096, 100_000])


# Against pydicom and DCMTK


def test_without_edits_octets_leave_as_they_came() -> None:
    for number, (name, octets, syntax) in enumerate(whole_files()):
        out = edit(Rules(), octets, syntax, pieces=sizes(number))
        assert (content(out, syntax) == content(octets, syntax)) if syntax == DEFLATED else out == octets, name


def test_pydicom_edits_the_same() -> None:
    rules = Rules(
        values={NAME: ("PN", "New^Name"), 0x00081030: ("LO", "new"), 0x00280009: ("AT", "00540010")},
        deleted=frozenset({BIRTH_DATE, 0x00080020, 0x00081140}), remap=remap,
    )  # fmt: skip
    compared = 0
    for number, (name, octets, syntax) in enumerate(whole_files()):
        try:
            saved = by_pydicom(octets, syntax, lambda data_set: list(data_set.iterall()))
            if saved is None or content(saved, syntax) != content(octets, syntax):
                continue  # pydicom does not keep it as it is: it cannot be the judge
            expected = by_pydicom(octets, syntax, edit_with_pydicom)
        except Exception:  # noqa: BLE001  # pydicom cannot read it, or not write what it read
            continue
        assert expected is not None
        assert content(edit(rules, octets, syntax, pieces=sizes(number)), syntax) == content(expected, syntax), name
        compared += 1
    assert compared > 120


def by_pydicom(octets: bytes, syntax: str, change: Callable[[Dataset], object]) -> bytes | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = read(octets, syntax)
        change(data_set)
        buffer = BytesIO()
        data_set.save_as(buffer, enforce_file_format=True)
        saved = buffer.getvalue()
    head = parse_file(saved)
    return saved[head.data_set_offset :] if isinstance(head, Head) else None


def edit_with_pydicom(data_set: Dataset) -> None:
    for keyword in ("PatientBirthDate", "StudyDate", "ReferencedImageSequence"):
        if keyword in data_set:
            del data_set[keyword]
    replace_uids(data_set)
    data_set.PatientName = "New^Name"
    data_set.StudyDescription = "new"
    data_set.FrameIncrementPointer = 0x00540010


def replace_uids(data_set: Dataset) -> None:
    for each in list(data_set):
        if each.VR == "SQ":
            for inner in each.value:
                replace_uids(inner)
        elif each.VR == "UI" and keyword_for_tag(each.tag) not in KEPT and each.value and each.tag.group != 2:
            one = isinstance(each.value, str)
            old = [each.value] if one else list(each.value)
            new = [uid if uid.startswith("1.2.840.10008.") or not uid else remap(uid) for uid in old]
            if new != old:
                each.value = new[0] if one else new


@pytest.mark.slow
def test_dcmdump_reads_what_was_edited(tmp_path: Path, require: Require) -> None:
    dcmdump = require("dcmdump")
    rules = Rules(values={NAME: ("PN", "New^Name"), 0x00200062: ("CS", "L")}, deleted=frozenset({PATIENT_ID}),
                  remap=remap, provenance=Provenance(system="TEST", moment="20240101120000"))  # fmt: skip
    paths = []
    for number, (_, octets, syntax) in enumerate(whole_files()[::2]):
        head = file_meta("1.2.840.10008.5.1.4.1.1.7", "1.2", syntax)
        before, after = tmp_path / f"{number}.dcm", tmp_path / f"{number}.new.dcm"
        before.write_bytes(head + octets)
        after.write_bytes(head + edit(rules, octets, syntax))
        paths.append((before, after))
    readable = 0
    for before, after in paths:
        if subprocess.run([dcmdump, "-q", "-M", before], capture_output=True, check=False).returncode == 0:
            shown = subprocess.run([dcmdump, "-q", "-M", "+L", after], capture_output=True, check=True).stdout
            assert b"[New^Name]" in shown
            readable += 1
    assert readable > 80


# How it is fed


MIXED = b"".join((
    element(0x00080000, "UL", b"\x10\0\0\0"),
    element(CHARACTER_SET, "CS", b"ISO_IR 100"),
    element(0x00080018, "UI", b"1.2.3\0"),
    element(0x00081140, "SQ", item(element(0x00081150, "UI", b"1.9.9\0") + element(0x00081155, "UI", b"1.2.4\0"))),
    element(NAME, "PN", "Æ^B ".encode("latin-1")),
    opened(0x00400275), OPEN_ITEM, element(0x00400008, "SQ", b""), element(0x0020000D, "UI", b"1.5\0"), CLOSE_ITEM,
    CLOSE_SEQUENCE,
    element(0x00091010, "UN", item(implicit(0x0020000E, b"1.7\0"))),
    opened(0x7FE00010, "OB"), item(b""), item(bytes(300)), CLOSE_SEQUENCE,
))  # fmt: skip
RULES = Rules(values={NAME: ("PN", "X"), 0x00100040: ("CS", "F")}, deleted=frozenset({0x00400275}), remap=remap,
              provenance=Provenance(system="T", moment="2024"))  # fmt: skip


@given(st.lists(st.integers(1, 40), min_size=1))
@settings(max_examples=60, deadline=None)
def test_it_does_not_matter_how_octets_are_cut(cuts: list[int]) -> None:
    def again() -> Iterator[int]:
        while True:
            yield from cuts

    assert edit(RULES, MIXED, pieces=again()) == edit(RULES, MIXED)


@pytest.mark.parametrize("length", [3, 8, 29, 60, 100, 200, len(MIXED) - 9, len(MIXED) - 1])
def test_what_is_cut_is_never_passed_off_as_whole(length: int) -> None:
    with pytest.raises(Uneditable) as caught:
        edit(RULES, MIXED[:length])
    assert caught.value.reason == "truncated"


def test_a_long_value_passes_without_being_gathered() -> None:
    piece = memoryview(bytes(1 << 20))
    editor = Editor(Rules(values={NAME: ("PN", "X")}, deleted=frozenset({0x7FE00008}), remap=remap), EXPLICIT)
    editor.feed([memoryview(element(0x00080018, "UI", b"1.2.3\0"))])
    passed = 0
    tracemalloc.start()
    for tag, kept in ((0x7FE00008, False), (0x7FE00010, True)):
        head = element(tag, "OW", b"")[:-4] + (400 << 20).to_bytes(4, "little")
        editor.feed([memoryview(head)])
        for _ in range(400):
            out = sum(map(len, editor.feed([piece])))
            assert out == (len(piece) if kept else 0)
            passed += out
    editor.end()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert passed == 400 << 20
    assert peak < 4 << 20


# Elements


def test_an_element_that_lacks_is_written_in_its_place() -> None:
    octets = element(0x00080060, "CS", b"CT") + element(0x00200010, "SH", b"1 ")
    out = edit(Rules(values={NAME: ("PN", "A^B"), 0x00280010: ("US", "7"), 0x00080005: ("CS", "ISO_IR 192")}), octets)
    assert out == b"".join((
        element(0x00080005, "CS", b"ISO_IR 192"), element(0x00080060, "CS", b"CT"), element(NAME, "PN", b"A^B "),
        element(0x00200010, "SH", b"1 "), element(0x00280010, "US", b"\7\0"),
    ))  # fmt: skip


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_numbers_are_written_in_the_order_of_the_data_set(syntax: str) -> None:
    values = {0x00280010: ("US", "258"), 0x00281052: ("DS", "-1024"), 0x00189345: ("FD", "1.5"),
              0x00280009: ("AT", "00181063"), 0x00280106: ("US or SS", "-2")}  # fmt: skip
    first = {IMPLICIT: implicit(0x00080060, b"CT"), EXPLICIT: element(0x00080060, "CS", b"CT"),
             BIG: element(0x00080060, "CS", b"CT", "big")}[syntax]  # fmt: skip
    data_set = read(edit(Rules(values=values), first, syntax), syntax)
    if syntax == IMPLICIT:
        data_set.PixelRepresentation = 1
    assert (data_set.Rows, data_set.RescaleIntercept, data_set.CTDIvol) == (258, -1024, 1.5)
    assert data_set.FrameIncrementPointer == 0x00181063
    assert syntax == IMPLICIT or data_set.SmallestImagePixelValue == -2


def test_the_vr_that_was_there_decides_between_two() -> None:
    out = edit(Rules(values={0x00280106: ("US or SS", "5")}), element(0x00280106, "SS", b"\1\0"))
    assert out == element(0x00280106, "SS", b"\5\0")


def test_an_element_of_any_kind_can_be_deleted_or_emptied() -> None:
    nested = opened(0x00400275) + OPEN_ITEM + opened(0x00400008) + CLOSE_SEQUENCE + CLOSE_ITEM + CLOSE_SEQUENCE
    pixels = opened(0x7FE00010, "OB") + item(b"") + item(b"1234") + CLOSE_SEQUENCE
    octets = element(0x00080060, "CS", b"CT") + nested + element(0x00500010, "SQ", item(b"")) + pixels
    rules = Rules(values={0x00400275: ("SQ", "")}, deleted=frozenset({0x00500010, 0x7FE00010}))
    assert edit(rules, octets, JPEG) == element(0x00080060, "CS", b"CT") + element(0x00400275, "SQ", b"")


def test_the_length_of_a_group_goes_where_it_may_be_wrong_and_only_there() -> None:
    length = element(0x00080000, "UL", b"\4\0\0\0")
    other = element(0x00100000, "UL", b"\4\0\0\0")
    octets = length + element(0x00080060, "CS", b"CT") + other + element(NAME, "PN", b"AB")
    assert edit(Rules(values={NAME: ("PN", "CD")}), octets) == (
        length + element(0x00080060, "CS", b"CT") + element(NAME, "PN", b"CD")
    )


def test_an_element_that_stands_out_of_order_is_not_written_twice() -> None:
    octets = element(0x00200010, "SH", b"1 ") + element(NAME, "PN", b"AB")
    out = edit(Rules(values={NAME: ("PN", "CD")}), octets)
    assert out == element(NAME, "PN", b"CD") + element(0x00200010, "SH", b"1 ")


# UIDs


def test_uids_are_replaced_at_every_depth_and_kinds_are_not() -> None:
    inner = element(0x00081150, "UI", b"1.3.12.9\0\0") + element(0x00081155, "UI", b"1.2.4\0")
    octets = b"".join((
        element(0x00080016, "UI", b"1.3.12.2\0\0"), element(0x00080018, "UI", b"1.2.3\0"),
        element(0x00080058, "UI", b"1.2.3\\1.2.4"), element(0x00081140, "SQ", item(inner) + item(inner)),
        element(0x00091002, "UI", b"1.7.7\0"), element(0x00181002, "UI", b"1.8.8\0"),
        element(0x0020000D, "UI", b"1.2 "), element(0x00200052, "UI", b"1.2.840.10008.1.4.1.1\0"),
    ))  # fmt: skip
    data_set = read(edit(Rules(remap=remap), octets))
    assert data_set.SOPClassUID == "1.3.12.2"
    assert list(data_set.FailedSOPInstanceUIDList) == [remap("1.2.3"), remap("1.2.4")]
    for each in data_set.ReferencedImageSequence:
        assert (each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID) == ("1.3.12.9", remap("1.2.4"))
    assert data_set[0x00091002].value == remap("1.7.7")
    assert data_set.DeviceUID == "1.8.8"
    assert data_set.StudyInstanceUID == remap("1.2")
    assert data_set.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"
    assert not data_set.is_implicit_VR


def test_what_is_no_uid_does_no_harm() -> None:
    octets = element(0x00081155, "UI", b"1.2.840.10008.\xff\\1.2") + element(0x0020000D, "UI", b"\xe4\xb6 x")
    out = edit(Rules(remap=remap), octets)
    assert b"1.2.840.10008.\xff\\" + remap("1.2").encode() in out
    assert remap("\xe4\xb6 x").encode() in out


def test_uids_are_found_in_sequences_without_a_vr() -> None:
    inner = implicit(0x00081155, b"1.2.4\0") + implicit(0x00081140, item(implicit(0x00081155, b"1.2.5\0")))
    for octets, syntax in (
        (implicit(0x00080060, b"CT") + implicit(0x00091010, item(inner)), IMPLICIT),
        (element(0x00080060, "CS", b"CT") + element(0x00091010, "UN", item(inner)), EXPLICIT),
        (element(0x00080060, "CS", b"CT", "big") + element(0x00091010, "UN", item(inner), "big"), BIG),
    ):
        out = edit(Rules(remap=remap), octets, syntax)
        assert b"1.2.4\0" not in out and b"1.2.5\0" not in out
        assert remap("1.2.4").encode() in out and remap("1.2.5").encode() in out
        assert walk(out, syntax).is_whole


def test_octets_that_only_begin_like_items_stay() -> None:
    octets = element(0x00080060, "CS", b"CT") + element(0x00091010, "UN", bytes.fromhex("feff00e0") + b"\x09\0\0\0abcd")
    assert edit(Rules(remap=remap), octets) == octets


def test_what_no_uid_stands_in_keeps_its_content() -> None:
    octets = element(0x00081140, "SQ", item(element(0x00081160, "IS", b"1 "))) + element(NAME, "PN", b"AB")
    out = edit(Rules(remap=remap), octets)
    assert content(out, EXPLICIT) == content(octets, EXPLICIT)


def test_depth_is_bounded() -> None:
    octets = opened(0x00081140) + (OPEN_ITEM + opened(0x00081140)) * MAX_DEPTH
    with pytest.raises(Uneditable, match="nested deeper"):
        edit(Rules(remap=remap), octets)


@pytest.mark.parametrize("inside, words", [
    (item(element(0x00081155, "UI", b"1.2.4\0"))[:4] + b"\x80\0\0\0" + element(0x00081155, "UI", b"1.2.4\0"), "claims"),
    (item(element(0x00081155, "UI", b"1.2.4\0")[:-2]), "beyond what holds it"),
    (element(0x00081155, "UI", b"1.2.4\0"), "where an item should begin"),
    (item(element(0x00081155, "UI", b"1.2.4\0") + CLOSE_ITEM + element(NAME, "PN", b"AB")), "before its length"),
])  # fmt: skip
def test_a_sequence_that_does_not_hold_together_is_no_whole_data_set(inside: bytes, words: str) -> None:
    octets = element(0x00081140, "SQ", inside) + element(NAME, "PN", b"AB")
    with pytest.raises(Uneditable, match=words) as caught:
        edit(Rules(remap=remap), octets)
    assert caught.value.reason == "truncated"


# Character sets


@pytest.mark.parametrize("declared, name", [
    (b"ISO_IR 100", "Müller^Ä"), (b"ISO_IR 144 ", "Люкce"), (b"ISO_IR 192", "山田^太郎"), (b"GB18030 ", "王^小东"),
    (b"\\ISO 2022 IR 87 ", "Yamada^Tarou=山田^太郎"), (b"", "Plain^Ascii"),
])  # fmt: skip
def test_new_text_is_in_the_character_set_of_the_data_set(declared: bytes, name: str) -> None:
    octets = element(CHARACTER_SET, "CS", declared) + element(0x00080060, "CS", b"CT")
    data_set = read(edit(Rules(values={NAME: ("PN", name)}), octets))
    assert str(data_set.PatientName) == name


@pytest.mark.parametrize("declared", [b"", b"ISO_IR 100"])
def test_text_that_the_character_set_cannot_say_is_refused(declared: bytes) -> None:
    octets = element(CHARACTER_SET, "CS", declared) + element(0x00080060, "CS", b"CT")
    with pytest.raises(Uneditable, match="ISO_IR 192") as caught:
        edit(Rules(values={NAME: ("PN", "山田")}), octets)
    assert caught.value.reason == "edit" and "山" not in str(caught.value)


def test_all_text_is_written_anew_in_utf_8() -> None:
    korean = b"\x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf"
    inner = element(CHARACTER_SET, "CS", b"ISO_IR 144 ") + element(0x00081080, "LO", "Люк".encode("iso8859-5") + b" ")
    octets = b"".join((
        element(CHARACTER_SET, "CS", b"\\ISO 2022 IR 149"), element(0x00081080, "LO", korean + b" "),
        element(0x00081140, "SQ", item(inner) + item(element(0x00081080, "LO", korean + b" "))),
        element(NAME, "PN", b"Kim^Hee "),
    ))  # fmt: skip
    data_set = read(edit(Rules(values={CHARACTER_SET: ("CS", "ISO_IR 192"), NAME: ("PN", "山田")}), octets))
    assert data_set.SpecificCharacterSet == "ISO_IR 192"
    assert data_set.AdmittingDiagnosesDescription == "김희중"
    first, second = data_set.ReferencedImageSequence
    assert (first.SpecificCharacterSet, first.AdmittingDiagnosesDescription) == ("ISO_IR 192", "Люк")
    assert second.AdmittingDiagnosesDescription == "김희중"
    assert str(data_set.PatientName) == "山田"


def test_text_that_is_not_in_its_character_set_is_refused_rather_than_lost() -> None:
    octets = element(CHARACTER_SET, "CS", b"GB18030 ") + element(0x00081080, "LO", b"\xff\xff")
    with pytest.raises(Uneditable, match=r"\(0008,1080\)"):
        edit(Rules(values={CHARACTER_SET: ("CS", "ISO_IR 192")}), octets)


def test_a_value_that_the_short_form_cannot_say_is_refused() -> None:
    with pytest.raises(Uneditable, match="too long"):
        edit(Rules(values={NAME: ("PN", "x" * 70_000)}), element(0x00080060, "CS", b"CT"))


# Originals


def test_what_was_replaced_is_kept() -> None:
    octets = b"".join((
        element(0x00080018, "UI", b"1.2.3\0"), element(0x00080060, "CS", b"CT"),
        element(0x00081140, "SQ", item(element(0x00081155, "UI", b"1.2.4\0"))),
        element(0x00081250, "SQ", item(element(0x00081160, "IS", b"1 "))),
        element(NAME, "PN", b"Old "), element(PATIENT_ID, "LO", b"1 "), element(0x7FE00010, "OW", b"12"),
    ))  # fmt: skip
    rules = Rules(values={NAME: ("PN", "New"), 0x00100040: ("CS", "F"), PATIENT_ID: ("LO", "1")},
                  deleted=frozenset({0x00080060}), remap=remap,
                  provenance=Provenance(system="dcmsync", moment="20240101120000+0100"))  # fmt: skip
    data_set = read(edit(rules, octets))
    (kept,) = data_set.OriginalAttributesSequence
    assert kept.ModifyingSystem == "dcmsync"
    assert kept.AttributeModificationDateTime == "20240101120000+0100"
    assert kept.ReasonForTheAttributeModification == "COERCE"
    assert kept.SourceOfPreviousValues in ("", None)
    (original,) = kept.ModifiedAttributesSequence
    keywords = ["SOPInstanceUID", "Modality", "ReferencedImageSequence", "PatientName"]
    assert [each.keyword for each in original] == keywords
    assert original.SOPInstanceUID == "1.2.3"
    assert original.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.4"
    assert str(original.PatientName) == "Old"
    assert [each.tag for each in data_set] == sorted(each.tag for each in data_set)


@pytest.mark.parametrize("is_defined", [False, True])
def test_originals_that_were_there_stay_before_ours(is_defined: bool) -> None:
    earlier = item(element(0x04000563, "LO", b"before"))
    there = element(0x04000561, "SQ", earlier) if is_defined else opened(0x04000561) + earlier + CLOSE_SEQUENCE
    rules = Rules(deleted=frozenset({NAME}), provenance=Provenance(system="after", moment="2024"))
    data_set = read(edit(rules, element(NAME, "PN", b"Old ") + there))
    assert [each.ModifyingSystem for each in data_set.OriginalAttributesSequence] == ["before", "after"]


def test_nothing_replaced_leaves_no_originals() -> None:
    octets = element(NAME, "PN", b"Same") + element(0x7FE00010, "OW", b"12")
    rules = Rules(values={NAME: ("PN", "Same")}, deleted=frozenset({PATIENT_ID}),
                  provenance=Provenance(system="x", moment="2024"))  # fmt: skip
    assert edit(rules, octets) == octets


def test_the_original_character_set_holds_for_original_text() -> None:
    octets = element(CHARACTER_SET, "CS", b"ISO_IR 100") + element(NAME, "PN", "Ä ".encode("latin-1"))
    rules = Rules(values={CHARACTER_SET: ("CS", "ISO_IR 192"), NAME: ("PN", "山田")},
                  provenance=Provenance(system="x", moment="2024"))  # fmt: skip
    (kept,) = read(edit(rules, octets)).OriginalAttributesSequence
    (original,) = kept.ModifiedAttributesSequence
    assert (original.SpecificCharacterSet, str(original.PatientName)) == ("ISO_IR 100", "Ä")


# Deflated data sets


def test_a_deflated_data_set_is_deflated_again() -> None:
    octets = element(0x00080018, "UI", b"1.2.3\0") + element(0x7FE00010, "OW", bytes(100_000))
    deflating = zlib.compressobj(wbits=-15)
    packed = deflating.compress(octets) + deflating.flush()
    out = edit(Rules(remap=remap), packed + bytes(len(packed) % 2), DEFLATED, pieces=sizes(1))
    assert len(out) < 1000 and len(out) % 2 == 0
    assert zlib.decompressobj(-15).decompress(out) == element(0x00080018, "UI", remap("1.2.3").encode() + b"\0" * (
        len(remap("1.2.3")) % 2)) + octets[14:]


@pytest.mark.parametrize("octets", [b"\xff" * 64, zlib.compress(bytes(10_000))[2:20]])
def test_what_is_not_deflated_as_declared_is_said_to_be_so(octets: bytes) -> None:
    with pytest.raises(Uneditable) as caught:
        edit(Rules(remap=remap), octets, DEFLATED)
    assert caught.value.reason == "truncated"


def test_a_data_set_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "MAX_INFLATED_OCTETS", 5_000_000)
    deflating = zlib.compressobj(wbits=-15)
    octets = element(0x7FE00010, "OW", b"")[:-4] + (10_000_000).to_bytes(4, "little") + bytes(10_000_000)
    packed = deflating.compress(octets) + deflating.flush()
    assert len(packed) < 20_000
    with pytest.raises(Uneditable, match="inflates to more"):
        edit(Rules(remap=remap), packed, DEFLATED)


def test_originals_that_are_too_long_to_keep_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "MAX_GATHERED_OCTETS", 1000)
    rules = Rules(deleted=frozenset({0x00104000}), provenance=Provenance(system="x", moment="2024"))
    long = element(0x00104000, "UT", bytes(2000))
    assert edit(Rules(deleted=frozenset({0x00104000})), long) == b""
    with pytest.raises(Uneditable, match="cannot be kept"):
        edit(rules, long)
