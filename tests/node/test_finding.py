"""Every attribute that is kept can be asked for, and asked to match, at its level and below."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dcmsync.endpoints.folder.scan import scan
from dcmsync.node import finding
from dcmsync.node.index import DEPTH_OF, UNIQUE, WANTED, Depth, Index
from dcmsync.node.question import read
from dcmsync.wire import dataset, keywords
from tests.samples import CT_IMAGE_STORAGE, EXPLICIT_LITTLE

VALUES = {"DA": "20240131", "TM": "101112", "PN": "Doe^Jane", "CS": "WORD", "IS": 7, "US": 7, "DS": 1.5, "AS": "042Y",
          "UI": "1.2.3.4", "LO": "long text", "SH": "short", "LT": "text"}  # fmt: skip
UIDS = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.2", "SOPInstanceUID": "1.2.3"}
KEPT = {
    Depth.PATIENT: keywords.PATIENT, Depth.STUDY: keywords.STUDY, Depth.SERIES: keywords.SERIES,
    Depth.IMAGE: keywords.IMAGE,
}  # fmt: skip
EVERY = [(depth, keyword) for depth, names in KEPT.items() for keyword in names]


def value_of(keyword: str) -> object:
    return UIDS.get(keyword) or VALUES[dataset.entry(dataset.tag_of(keyword)).vr]


def write(path: Path, *, uid: str, filled: bool) -> None:
    """A file that has every attribute that is kept, or none of them."""
    made = Dataset()
    for keyword in (*UIDS, *(keyword for _, keyword in EVERY if filled)):
        setattr(made, keyword, value_of(keyword) if filled else f"9.{UIDS[keyword]}")
    made.SOPClassUID = CT_IMAGE_STORAGE
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = CT_IMAGE_STORAGE, uid
    made.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("finding")
    write(folder / "all.dcm", uid="1.2.3", filled=True)
    write(folder / "none.dcm", uid="9.1.2.3", filled=False)
    index = Index()
    for found in scan(str(folder), wanted=WANTED):
        assert index.add(found) == ""
    assert len(index.images) == 2
    return index


def ask(index: Index, depth: Depth, keys: dict[str, str]) -> list[dict[str, object]]:
    """The answers of the patient's root, below the one that has every attribute."""
    above = {"PatientID": str(value_of("PatientID")), **UIDS}
    needed = {UNIQUE[level]: above[UNIQUE[level]] for level in Depth if level < depth}
    octets = dataset.encode_identifier({**keys, **needed}, depth.name, EXPLICIT_LITTLE)
    question = read(octets, EXPLICIT_LITTLE, top=Depth.PATIENT, is_retrieval=False)
    assert question.knows_all
    things = [thing for thing in finding.search(index, question) if thing is not None]
    return [dataset.decode_identifier(finding.answer(index, thing, question, "US", EXPLICIT_LITTLE), EXPLICIT_LITTLE)
            for thing in things]  # fmt: skip


@pytest.mark.parametrize("lower", range(4))
@pytest.mark.parametrize("depth, keyword", EVERY, ids=[keyword for _, keyword in EVERY])
def test_what_is_kept_is_returned_and_matched(index: Index, depth: Depth, keyword: str, lower: int) -> None:
    at = max(depth, Depth(lower))
    plain = value_of(keyword)
    (answer,) = ask(index, at, {keyword: str(plain)})
    assert answer[keyword] in (plain, [plain])
    other = "8" if isinstance(plain, int | float) else "19990101" if plain == VALUES["DA"] else "000000"
    if keyword not in UNIQUE.values() or at == depth:
        assert ask(index, at, {keyword: other}) == []


def test_every_level_has_its_counts(index: Index) -> None:
    counts = [keyword for keyword in DEPTH_OF if keyword.startswith("NumberOf") and keyword != "NumberOfFrames"]
    for keyword in counts:
        (answer,) = ask(index, DEPTH_OF[keyword], {"PatientID": "long*", keyword: ""})
        assert answer[keyword] == 1
