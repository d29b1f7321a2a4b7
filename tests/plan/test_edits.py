"""Edits: what may be asked for, what is refused, and the mapping of UIDs."""

import hashlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.errors import UsageError
from dcmsync.plan.edits import Edit, Edits, lines, parse, remapper
from dcmsync.wire.dataset import described, tag_of


def understood(*words: str, keeps_originals: bool = False) -> Edits:
    return parse(words, tag_of=tag_of, vr_of=lambda tag: described(tag)[0], keeps_originals=keeps_originals)


def test_the_three_kinds_of_edits_and_the_fourth() -> None:
    edits = understood("PatientName=A^B=C", "PatientID=", "OtherPatientIDs-", "00101000-", "uid-remap")
    assert edits.values == {0x00100010: Edit("PN", "A^B=C"), 0x00100020: Edit("LO", "")}
    assert edits.deleted == {0x00101000}
    assert edits.remaps


def test_of_two_edits_the_later_counts() -> None:
    assert understood("PatientID=1", "PatientID-").deleted == {0x00100020}
    edits = understood("PatientID-", "PatientID=1")
    assert (edits.deleted, edits.values[0x00100020].text) == (frozenset(), "1")


@pytest.mark.parametrize(
    "word", ["PatientName", "=x", "-", "Patient Name=x", "PatientName+=x", "remap", "PatientName--"]
)
def test_a_word_that_is_no_edit_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="is no edit"):
        understood(word)


def test_a_mistyped_key_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="PatientName"):
        understood("PatientNam=x")


@pytest.mark.parametrize("key", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "00080018"])
@pytest.mark.parametrize("rest", ["=1.2.3", "=", "-"])
def test_identity_is_not_edited(key: str, rest: str) -> None:
    with pytest.raises(UsageError, match="not edited"):
        understood(key + rest)


@pytest.mark.parametrize("word", ["TransferSyntaxUID=1.2", "00020010-", "FFFEE000-", "00000002=1.2", "00100000=4"])
def test_what_no_data_set_has_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="no element that a data set has"):
        understood(word)


@pytest.mark.parametrize("word", [
    "PatientBirthDate=2024-01-31", "PatientAge=7", "Modality=ct", "Rows=70000", "Rows=-1", "Rows=x", "SeriesNumber=1.5",
    "PatientID=" + 65 * "x", "AccessionNumber=" + 17 * "x", "SliceThickness=thin", "FrameOfReferenceUID=1.2.a",
    "PatientName=a\nb", "Modality=Ä", "StudyTime=9", "FrameIncrementPointer=xyz", "PatientSize=" + 17 * "1",
    "SmallestImagePixelValue=100000", "AcquisitionDateTime=24",
])  # fmt: skip
def test_a_value_that_the_element_cannot_have_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"PS3\.5"):
        understood(word)


@pytest.mark.parametrize("word", [
    "PatientBirthDate=20240131", "PatientAge=007Y", "ImageType=ORIGINAL\\PRIMARY", "Rows=65535", "SeriesNumber=-1",
    "SliceThickness=1.5e-3", "FrameOfReferenceUID=1.2", "PatientName=Müller^Ä", "ImageComments=a\nb\\c",
    "StudyTime=0915", "SmallestImagePixelValue=-1", "FrameIncrementPointer=00181063", "OtherPatientIDs=A\\\\B",
    "AcquisitionDateTime=20240131120000+0100",
])  # fmt: skip
def test_a_value_that_the_element_can_have_is_taken(word: str) -> None:
    assert len(understood(word).values) == 1


@pytest.mark.parametrize("word", ["PixelData=x", "ReferencedImageSequence=x", "00091001=x"])
def test_what_holds_no_text_can_be_emptied_or_deleted_alone(word: str) -> None:
    with pytest.raises(UsageError, match="no value can be given"):
        understood(word)
    assert understood(word.replace("=x", "-")).deleted


def test_private_elements_are_not_emptied_either_since_their_vr_is_not_known() -> None:
    with pytest.raises(UsageError, match=r"not in PS3\.6"):
        understood("00091001=")


@pytest.mark.parametrize("word", ["SpecificCharacterSet=ISO_IR 100", "SpecificCharacterSet=", "SpecificCharacterSet-"])
def test_the_character_set_can_only_become_utf_8(word: str) -> None:
    with pytest.raises(UsageError, match="ISO_IR 192"):
        understood(word)
    assert understood("SpecificCharacterSet=ISO_IR 192").values


@pytest.mark.parametrize("word", ["PixelData-", "00091001-", "OriginalAttributesSequence-", "ContentSequence=x"])
def test_an_original_that_cannot_be_kept_is_refused_beforehand(word: str) -> None:
    with pytest.raises(UsageError):
        understood(word, keeps_originals=True)
    assert understood("PatientName-", keeps_originals=True).deleted


def test_a_file_of_edits_has_one_a_line() -> None:
    assert lines("# who\r\nPatientName=A B \n\n  # and\nPatientID-\n", "f") == ["PatientName=A B ", "PatientID-"]
    with pytest.raises(UsageError, match="f: there is no edit"):
        lines("# nothing\n", "f")


# The mapping


def test_the_mapping_is_the_one_of_the_manual() -> None:
    assert remapper(b"")("1.2.3") == "2.25.102296366487532999682516192779854654763"
    assert remapper(b"pepper")("1.2.3") == "2.25.91741180349551217731752836464079218509"


@given(st.binary(max_size=200), st.text("0123456789.", min_size=1, max_size=64))
def test_a_new_uid_is_a_uuid_and_depends_on_salt_and_uid_alone(salt: bytes, uid: str) -> None:
    new = remapper(salt)(uid)
    assert new == remapper(salt)(uid)
    assert new.startswith("2.25.") and len(new) <= 64
    made = uuid.UUID(int=int(new.removeprefix("2.25.")))
    assert made.variant == uuid.RFC_4122 and made.version == 8
    assert new != remapper(salt + b"x")(uid)
    assert new != remapper(salt)(uid + "1")


def test_a_long_salt_is_hashed_as_the_manual_says() -> None:
    salt = 65 * b"s"
    assert remapper(salt)("1.2") == remapper(hashlib.blake2b(salt).digest())("1.2")
