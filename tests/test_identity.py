"""Bytes received are the bytes stored: pydicom's corpus through real archives, bit for bit.

The oracle is a retrieval by pynetdicom, which keeps the octets of each data set as they came over the wire, and offers
the peer just the transfer syntaxes in which things came to us; then the archive's own file by another way (Orthanc's
REST interface), and DCMTK's `getscu +B`. Orthanc's own C-GET drops group lengths and trailing padding, for DCMTK writes
each data set anew: where its REST interface gives other octets than its C-GET, that is all the difference there may be.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import pydicom
import pytest
from pydicom.uid import UID
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet

from tests import peers, samples
from tests.workdir import Done, Workdir

UNKNOWN_CLASS = "1.2.826.0.1.3680043.10.1561.1"
CORPUS = Path(pydicom.__file__).parent / "data" / "test_files"

# What Orthanc 1.10.1 does not take, and why.
REFUSED = {
    # no Part 10 file, or without what names an instance
    "README.txt", "crayons.icc", "dicomdirtests/README.txt", "dicomdirtests/TINY_ALPHA/README", "rtplan.dump",
    "rtstruct.dump", "test1.json", "test_PN.json", "zipMR.gz", "no_meta.dcm", "no_meta_group_length.dcm",
    "meta_missing_tsyntax.dcm", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm",
    # a folder of a medium, not an instance
    "dicomdirtests/DICOMDIR", "dicomdirtests/DICOMDIR-bigEnd", "dicomdirtests/DICOMDIR-empty.dcm",
    "dicomdirtests/DICOMDIR-implicit", "dicomdirtests/DICOMDIR-nooffset", "dicomdirtests/DICOMDIR-nopatient",
    "dicomdirtests/DICOMDIR-reordered", "dicomdirtests/TINY_ALPHA/DICOMDIR",
    # truncated
    "MR_truncated.dcm", "rtplan_truncated.dcm",
    # without a UID of patient, study, series or instance
    "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg.dcm", "UN_sequence.dcm", "empty_charset_LEI.dcm", "nested_priv_SQ.dcm",
    "priv_SQ.dcm",
}  # fmt: skip

Octets = tuple[str, bytes]
"""Transfer syntax and data set."""


@pytest.fixture(scope="module")
def archive(start_for_module) -> peers.Peer:
    """Orthanc with the corpus: by C-STORE what DCMTK can send, the rest by REST."""
    peer = start_for_module(peers.orthanc, overwrite=False, nodelay=True)
    send_corpus(peer, CORPUS)
    taken = set()
    for path in corpus_files():
        try:
            peer.rest("POST", "/instances", path.read_bytes())
            taken.add(str(path.relative_to(CORPUS)))
        except RuntimeError:
            continue
    assert {str(path.relative_to(CORPUS)) for path in corpus_files()} - taken <= REFUSED
    peer.rest("POST", "/instances", of_an_unknown_class())
    return peer


def of_an_unknown_class() -> bytes:
    """An instance of a class that no list knows, with private elements of every kind."""
    uid = samples.uid(71, 1)
    data_set = b"".join(
        samples.element(tag, vr, value)
        for tag, vr, value in (
            (0x00080016, b"UI", UNKNOWN_CLASS),
            (0x00080018, b"UI", uid),
            (0x00090010, b"LO", "SAMPLES"),
            (0x00091001, b"UN", bytes(range(256))),
            (0x00091002, b"OB", b"\0\1\2\3"),
            (0x00091003, b"LO", "private text"),
            (0x00100020, b"LO", "PRIVATE"),
            (0x0020000D, b"UI", samples.uid(71, 2)),
            (0x0020000E, b"UI", samples.uid(71, 3)),
        )
    )
    return samples.part10(data_set, sop_class_uid=UNKNOWN_CLASS, sop_uid=uid)


def corpus_files() -> list[Path]:
    return sorted(path for path in CORPUS.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))


def send_corpus(peer: peers.Peer, *paths: Path) -> None:
    """Sends files as they are, each in its own transfer syntax."""
    options = ("-aec", peer.ae, "-dn", "-nh", "+sd", "+r", peer.host, str(peer.port))
    peers.dcmtk("dcmsend", *options, *paths, check=False)


def split_file(octets: bytes) -> Octets:
    """A Part 10 file with a group length (PS3.10 §7.1) as transfer syntax and data set; "" for a bare data set."""
    if octets[128:132] != b"DICM":
        return "", octets
    end = 144 + struct.unpack_from("<L", octets, 140)[0]
    at, syntax = 144, ""
    while at < end:
        group, element, vr, length = struct.unpack_from("<HH2sH", octets, at)
        at += 8
        if vr in (b"OB", b"UN"):
            length = struct.unpack_from("<L", octets, at)[0]
            at += 4
        if (group, element) == (2, 0x10):
            syntax = octets[at : at + length].rstrip(b"\0 ").decode()
        at += length
    return syntax, octets[end:]


def pull_everything(workdir: Workdir, peer: peers.Peer) -> Done:
    return workdir.run("pull", "./a", "-i", stdin=workdir.run("query", peer.locator, "--all").stdout)


def pulled(workdir: Workdir, done: Done) -> dict[str, Octets]:
    """SOP Instance UID -> what we stored of it, by the outcomes."""
    paths = {
        each["SOPInstanceUID"]: workdir.path / "a" / each["path"]
        for each in done.of_type("outcome")
        if each["level"] == "instance" and each["outcome"] in ("stored", "present")
    }
    assert sorted(paths.values()) == sorted(path for path in (workdir.path / "a").rglob("*") if path.is_file())
    return {uid: split_file(path.read_bytes()) for uid, path in paths.items()}


def sent(peer: peers.Peer, done: Done) -> Mapping[str, list[Octets]]:
    """SOP Instance UID -> what the peer sends of it, as pynetdicom receives it."""
    found: dict[str, list[Octets]] = defaultdict(list)

    def keep(event: evt.Event) -> int:
        request = event.request
        octets = (str(event.context.transfer_syntax), request.DataSet.getvalue())
        found[str(request.AffectedSOPInstanceUID)].append(octets)
        return 0

    series = defaultdict(set)
    for each in done.of_type("outcome"):
        if each["level"] == "instance":
            home = (each["StudyInstanceUID"], each["SeriesInstanceUID"])
            series[home].add((each["SOPClassUID"], each["TransferSyntaxUID"]))
    for (study_uid, series_uid), pairs in series.items():
        node = AE(ae_title="ORACLE")
        node.requested_contexts = [
            build_context(StudyRootQueryRetrieveInformationModelGet),
            *(build_context(kind, syntax) for kind, syntax in sorted(pairs)),
        ]
        roles = [build_role(UID(kind), scp_role=True) for kind in {kind for kind, _ in pairs}]
        association = node.associate(
            peer.host, peer.port, ae_title=peer.ae, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)]
        )
        assert association.is_established
        keys = pydicom.Dataset()
        keys.QueryRetrieveLevel, keys.StudyInstanceUID, keys.SeriesInstanceUID = "SERIES", study_uid, series_uid
        for _ in association.send_c_get(keys, StudyRootQueryRetrieveInformationModelGet):
            pass
        association.release()
    return found


def kept_by_orthanc(peer: peers.Peer) -> dict[str, list[Octets]]:
    """SOP Instance UID -> what Orthanc has of it, by REST."""
    found: dict[str, list[Octets]] = defaultdict(list)
    for each in peer.rest("GET", "/instances?expand"):
        with urlopen(f"{peer.http}/instances/{each['ID']}/file") as answer:
            found[each["MainDicomTags"]["SOPInstanceUID"]].append(split_file(answer.read()))
    return found


def elements(octets: Octets) -> Iterator[tuple[int, bytes]]:
    """Tag and raw value of each element, without group lengths and padding."""
    syntax, data_set = octets
    header = pydicom.FileDataset("", {}, preamble=bytes(128))
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    with pydicom.filebase.DicomBytesIO() as file:
        pydicom.filewriter.dcmwrite(file, header, implicit_vr=UID(syntax).is_implicit_VR, enforce_file_format=False)
        parsed = pydicom.dcmread(pydicom.filebase.DicomBytesIO(file.getvalue() + data_set))
    for element in parsed.iterall():
        if element.tag.element and element.tag != 0xFFFCFFFC and element.VR != "SQ":
            yield int(element.tag), str(element.value).encode("utf-8", "replace")


@pytest.mark.timeout(120)
def test_the_corpus_comes_from_orthanc_bit_for_bit(workdir: Workdir, archive: peers.Peer) -> None:
    done = pull_everything(workdir, archive)
    assert done.status == 0, done
    ours, theirs = pulled(workdir, done), sent(archive, done)
    assert ours.keys() == kept_by_orthanc(archive).keys()
    assert len(ours) > 110
    assert ours.keys() - theirs.keys() == {samples.uid(71, 1)}, "pynetdicom takes no unknown class"
    assert [uid for uid in theirs if ours[uid] not in theirs[uid]] == []
    syntaxes = {syntax for syntax, _ in ours.values()}
    assert {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"} < syntaxes and len(syntaxes) > 9
    classes = {each["SOPClassUID"] for each in done.of_type("outcome") if "SOPClassUID" in each}
    assert UNKNOWN_CLASS in classes and len(classes) > 12


@pytest.mark.filterwarnings("ignore")
def test_what_comes_is_what_orthanc_keeps(workdir: Workdir, archive: peers.Peer) -> None:
    done = pull_everything(workdir, archive)
    ours, kept = pulled(workdir, done), kept_by_orthanc(archive)
    for uid, each in kept.items():
        kept[uid] = [(syntax or ours[uid][0], data_set) for syntax, data_set in each]
    assert [uid for uid in ours if ours[uid][0] not in dict(kept[uid])] == [], "transcoded"
    rewritten = {uid: octets for uid, octets in ours.items() if octets not in kept[uid]}
    assert len(rewritten) < len(ours) / 4
    for uid, octets in rewritten.items():
        assert list(elements(octets)) in [list(elements(each)) for each in kept[uid]], uid


def test_getscu_receives_the_same(workdir: Workdir, archive: peers.Peer, tmp_path: Path) -> None:
    """For what is not compressed: getscu accepts one transfer syntax a class, and Orthanc transcodes for it."""
    done = pull_everything(workdir, archive)
    ours = pulled(workdir, done)
    compared = 0
    for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "rtstruct.dcm", "test-SR.dcm", "waveform_ecg.dcm"):
        original = pydicom.dcmread(CORPUS / name, force=True)
        folder = tmp_path / name
        folder.mkdir()
        keys = ("0008,0052=STUDY", f"0020,000D={original.StudyInstanceUID}")
        native = original.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
        options = ("+B", "+xi" if native.is_implicit_VR else "+xe")
        peers.dcmtk(
            "getscu", "-S", *options, "-aec", archive.ae, "-od", folder, "-k", keys[0], "-k", keys[1],
            archive.host, str(archive.port), check=False,
        )  # fmt: skip
        for path in folder.iterdir():
            syntax, data_set = split_file(path.read_bytes())
            uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            if syntax == ours[uid][0]:
                compared += 1
                assert data_set == ours[uid][1], name
    assert compared >= 4


UNCOMPRESSED = ("CT_small.dcm", "MR_small_bigendian.dcm", "liver_1frame.dcm")
@pytest.mark.parametrize("name, some", [
    ("dcmqrscp", UNCOMPRESSED),
    ("pynetdicom_qrscp", (*UNCOMPRESSED, "image_dfl.dcm")),
    ("dcmqrscp", ("rtplan.dcm",)),
    ("pynetdicom_qrscp", ("rtplan.dcm", "JPEG2000.dcm", "SC_rgb_small_odd_jpeg.dcm")),
])  # fmt: skip
def test_a_handful_comes_from_other_archives_bit_for_bit(
    name: str, some: tuple[str, ...], workdir: Workdir, request: pytest.FixtureRequest
) -> None:
    peer = request.getfixturevalue(name)
    send_corpus(peer, *(CORPUS / one for one in some))
    done = pull_everything(workdir, peer)
    assert done.status == 0, done
    ours = pulled(workdir, done)
    theirs = sent(peer, done)
    assert ours.keys() == theirs.keys()
    assert len(ours) == len(some), sorted(ours)
    assert [uid for uid, octets in ours.items() if octets not in theirs[uid]] == []
