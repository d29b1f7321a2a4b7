"""Every service against every kind of node, in every encoding, with every size of PDU that we may ask for.

    {echo, find at each level, get, move, store} x {dcmqrscp, Orthanc, pynetdicom's qrscp, our serve}
    x {implicit, explicit, JPEG 2000, JPEG lossless, RLE, deflated, a private SOP class} x {4096, 16384, 131072, none}

What is driven is `endpoints.dimse` in this process, one association a cell, with our maximum PDU set by `Limits` (the
peers keep theirs: dcmqrscp 131072, Orthanc 16384, qrscp none, serve 1 MiB). An echo carries no data set, so it has a
cell for each peer and PDU alone. A node is started once for this file, and filled by somebody else than us: Orthanc by
its REST interface, dcmqrscp and qrscp by pynetdicom, our own node by finding the files in its folder.

What comes, or stands at the peer afterwards, is compared with what was sent: by the digest of its content, and element
by element as pydicom reads it. Where a peer cannot do a cell, `CANNOT` says why and what happens instead.
"""

import io
import warnings
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import anyio
import pydicom
import pytest
from msgspec.structs import replace

from dcmsync.cache.digest import content_of
from dcmsync.contract import Arrival, Ask, Ending, Level, Parcel, Want
from dcmsync.endpoints.dimse.moving import Mover
from dcmsync.endpoints.dimse.place import DimseNode
from dcmsync.errors import Refused
from dcmsync.net.association import Peer
from dcmsync.net.channel import Limits
from dcmsync.net.mailbox import Mailbox
from dcmsync.net.patience import Watch
from dcmsync.wire.part10 import Head, parse_file
from tests import nodes, peers, samples
from tests.wire.test_elements import corpus

pytestmark = pytest.mark.slow

SEED = 93
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
ENCODINGS = ("implicit", "explicit", "JPEG 2000", "JPEG lossless", "RLE", "deflated", "private")
PDUS = (4096, 16384, 131072, 0)
LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE)
FROM_CORPUS = {
    "JPEG 2000": "MR2_J2KR.dcm",  # 589 kB
    "JPEG lossless": "JPGLosslessP14SV1_1s_1f_8b.dcm",  # 215 kB
    "RLE": "OBXXXX1A_rle_2frame.dcm",  # 92 kB
}
KINDS = ("dcmqrscp", "orthanc", "pynetdicom", "serve")
TIMEOUT_S = 20.0

UNKNOWN_CLASS = 0x0122  # PS3.7 §C.5.6, refused: SOP class not supported


class Lack(NamedTuple):
    """What a peer cannot take: it answers C-STORE with `status`, or 0: it accepts no context. So it never has it."""

    status: int
    why: str


CANNOT: Mapping[tuple[str, str], Lack] = {
    ("dcmqrscp", "private"): Lack(UNKNOWN_CLASS, "accepts the context as it is configured to, and stores no class that "
                                                 "DCMTK does not know"),
    ("pynetdicom", "private"): Lack(0, "qrscp supports the classes of the standard alone, and has no option for more"),
}
"""(peer, encoding) -> why not."""

COMPRESSED = ("JPEG 2000", "JPEG lossless", "RLE")
TRANSCODED = {("dcmqrscp", "get", "implicit"), ("dcmqrscp", "get", "deflated"), ("dcmqrscp", "move", "implicit"),
              ("dcmqrscp", "move", "deflated")}  # fmt: skip
"""(peer, service, encoding): what comes in Explicit VR Little Endian. dcmqrscp sends all instances of a class on the
first context that was accepted for it, and converts what it has; its getscu gets the same."""


class Specimen(NamedTuple):
    """One instance, as a file of the corpora or made for this."""

    octets: bytes
    head: Head
    study_uid: str
    series_uid: str
    sop_uid: str
    patient_id: str

    @property
    def data_set(self) -> bytes:
        return self.octets[self.head.data_set_offset :]

    @property
    def arrival(self) -> Arrival:
        head = self.head
        return Arrival(sop_class_uid=head.sop_class_uid, sop_instance_uid=self.sop_uid,
                       transfer_syntax_uid=head.transfer_syntax_uid)  # fmt: skip

    def renamed(self, number: int) -> "Specimen":
        """Another instance of the same series: the same octets, but for its UID."""
        uid = samples.uid(SEED, number, zlib.crc32(self.sop_uid.encode()))[: len(self.sop_uid)]
        uid += "1" * (len(self.sop_uid) - len(uid))
        old, new = self.sop_uid.encode(), uid.encode()
        front, data_set = self.octets[: self.head.data_set_offset], self.data_set
        if self.head.transfer_syntax_uid == DEFLATED:
            data_set = deflated(zlib.decompress(data_set, -15).replace(old, new))
        else:
            data_set = data_set.replace(old, new)
        return specimen_of(front.replace(old, new) + data_set)


def deflated(octets: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(octets) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


def specimen_of(octets: bytes) -> Specimen:
    head = parse_file(octets)
    assert isinstance(head, Head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pydicom.dcmread(io.BytesIO(octets), stop_before_pixels=True)
        uids = str(read.StudyInstanceUID), str(read.SeriesInstanceUID), str(read.SOPInstanceUID)
        return Specimen(octets, head, *uids, str(read.PatientID))


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Specimen]:
    """One instance in each encoding, most of them larger than the largest PDU."""
    made = samples.make_series(tmp_path_factory.mktemp("made"), studies=4, instances=1, rows=384, columns=384,
                               seed=SEED)  # fmt: skip
    plain = [sample.path.read_bytes() for sample in made]
    found = {"explicit": specimen_of(plain[0])}
    found["implicit"] = specimen_of(rewritten(plain[1], implicit=True))
    offset = specimen_of(plain[2]).head.data_set_offset
    found["deflated"] = specimen_of(samples.part10(
        deflated(plain[2][offset:]), sop_class_uid=samples.CT_IMAGE_STORAGE, sop_uid=made[2].sop_uid,
        transfer_syntax_uid=DEFLATED,
    ))  # fmt: skip
    private = samples.element(0x00080016, b"UI", PRIVATE_CLASS)
    public = samples.element(0x00080016, b"UI", samples.CT_IMAGE_STORAGE)
    found["private"] = specimen_of(samples.part10(
        plain[3][offset:].replace(public, private), sop_class_uid=PRIVATE_CLASS, sop_uid=made[3].sop_uid
    ))  # fmt: skip
    files = {path.name: path for path in corpus()}
    found |= {name: specimen_of(rewritten(files[file].read_bytes(), patient_id=f"M{name}"))
              for name, file in FROM_CORPUS.items()}  # fmt: skip
    assert set(found) == set(ENCODINGS)
    return found


def rewritten(octets: bytes, *, patient_id: str = "", implicit: bool = False) -> bytes:
    """An instance with another PatientID, or in Implicit VR Little Endian, as pydicom writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pydicom.dcmread(io.BytesIO(octets))
        read.PatientID = patient_id or read.PatientID
        if implicit:
            read.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        out = io.BytesIO()
        read.save_as(out, enforce_file_format=True)
    return out.getvalue()


class Place:
    """A node that runs, and what it keeps, as can be seen without asking it by DICOM."""

    def __init__(self, kind: str, node: Any, port: int, specimens: Mapping[str, Specimen]) -> None:
        self.kind = kind
        self.specimens = specimens
        self.destination = port
        self._node = node
        self._files: dict[str, Path] = {}
        self._seen: set[Path] = set()

    @property
    def peer(self) -> Peer:
        return Peer(host=self._node.host, port=self._node.port, called_ae=self._node.ae, calling_ae="DCMSYNC")

    def kept(self, uid: str) -> bytes | None:
        """The file that the node made of an instance, if it keeps it."""
        if self.kind == "orthanc":
            found = self._node.rest("POST", "/tools/lookup", uid.encode())
            if not found:
                return None
            with urlopen(f"{self._node.http}/instances/{found[0]['ID']}/file") as answer:
                octets: bytes = answer.read()
                return octets
        for path in self._node.folder.rglob("*"):
            if path.is_file() and path not in self._seen:
                self._seen.add(path)
                head = parse_file(path.read_bytes())
                if isinstance(head, Head) and head.transfer_syntax_uid:
                    self._files[head.sop_instance_uid] = path
        return self._files[uid].read_bytes() if uid in self._files else None


@pytest.fixture(scope="module")
def port() -> int:
    """Where the nodes expect DCMSYNC."""
    return peers.free_port()


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in KINDS])
def place(
    request: pytest.FixtureRequest, start_for_module: Any, tmp_path_factory: pytest.TempPathFactory, port: int,
    specimens: dict[str, Specimen],
) -> Iterator[Place]:  # fmt: skip
    kind, us = request.param, {"DCMSYNC": (peers.HOST, port)}
    folder = tmp_path_factory.mktemp("matrix")
    paths = [folder / f"{number}.dcm" for number in range(len(specimens))]
    for path, specimen in zip(paths, specimens.values(), strict=True):
        path.write_bytes(specimen.octets)
    if kind == "serve":
        with nodes.serving(folder, "--destination", f"DCMSYNC@{peers.HOST}:{port}") as node:
            yield Place(kind, node, port, specimens)
        return
    if kind == "orthanc":
        peer = start_for_module(peers.orthanc, nodelay=True, destinations=us,
                                settings={"DicomAssociationCloseDelay": 0})  # fmt: skip
        peer.store(paths)
    elif kind == "dcmqrscp":
        profile = folder / "associations.cfg"
        profile.write_text(associations([specimen.head for specimen in specimens.values()]))
        peer = start_for_module(peers.dcmqrscp, "-xf", str(profile), "Takes", "Sends", nodelay=True, destinations=us)
        stored_by_pynetdicom(peer, paths, specimens)
    else:
        peer = start_for_module(peers.pynetdicom_qrscp, destinations=us)
        stored_by_pynetdicom(peer, paths, specimens)
    yield Place(kind, peer, port, specimens)


def associations(heads: Sequence[Head]) -> str:
    """What dcmqrscp needs to be told to take more than uncompressed images, and to send each class as it has it."""
    syntaxes = dict.fromkeys([samples.EXPLICIT_LITTLE, "1.2.840.10008.1.2", *(h.transfer_syntax_uid for h in heads)])
    models = [f"1.2.840.10008.5.1.4.1.2.{root}.{service}" for root in (1, 2) for service in (1, 2, 3)]
    classes = dict.fromkeys(head.sop_class_uid for head in heads)
    lines = ["[[TransferSyntaxes]]", "[Any]"]
    lines += [f"TransferSyntax{n} = {uid}" for n, uid in enumerate(syntaxes, 1)]
    lines += ["[Plain]", f"TransferSyntax1 = {samples.EXPLICIT_LITTLE}", "TransferSyntax2 = 1.2.840.10008.1.2"]
    native = dict(reversed([(head.sop_class_uid, head.transfer_syntax_uid) for head in heads]))  # CT: explicit
    for number, uid in enumerate(classes):
        lines += [f"[Native{number}]", f"TransferSyntax1 = {native[uid]}"]
    lines += ["[[PresentationContexts]]", "[In]"]
    named = [(uid, "Plain") for uid in ("1.2.840.10008.1.1", *models)]
    named += [(uid, "Any") for uid in classes]
    lines += [f"PresentationContext{n} = {uid}\\{which}" for n, (uid, which) in enumerate(named, 1)]
    lines += ["[Out]", *(f"PresentationContext{n + 1} = {uid}\\Native{n}" for n, uid in enumerate(classes))]
    lines += ["[[SCPSCURoleSelection]]", "[Both]"]
    lines += [f"Role{n} = {uid}\\BOTH" for n, uid in enumerate(classes, 1)]
    lines += ["[[Profiles]]", "[Takes]", "PresentationContexts = In", "SCPSCURoleSelection = Both"]
    lines += ["[Sends]", "PresentationContexts = Out"]
    return "\n".join(lines) + "\n"


def stored_by_pynetdicom(peer: peers.Peer, paths: Sequence[Path], specimens: Mapping[str, Specimen]) -> None:
    """Stores files as they are, as far as the node takes them."""
    from pynetdicom import AE, _config

    entity = AE("FILLER")
    for specimen in specimens.values():
        entity.add_requested_context(specimen.head.sop_class_uid, specimen.head.transfer_syntax_uid)
    before, _config.STORE_SEND_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET, True
    try:
        association = entity.associate(peer.host, peer.port, ae_title=peer.ae)
        assert association.is_established
        taken = {context.abstract_syntax for context in association.accepted_contexts}
        for path, specimen in zip(paths, specimens.values(), strict=True):
            if specimen.head.sop_class_uid in taken:
                assert association.send_c_store(path).Status in (0, UNKNOWN_CLASS), path
        association.release()
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = before


class Taking:
    """Takes what was asked for into memory (contract.Receiver)."""

    def __init__(self, uid: str) -> None:
        self.came: list[tuple[Arrival, bytes]] = []
        self._uid = uid

    def receive(self, arrival: Arrival) -> "Taken | int":
        return Taken(self, arrival) if arrival.sop_instance_uid == self._uid else 0xC000

    async def room(self) -> None:
        return


class Taken:
    """Gathers one instance."""

    def __init__(self, taking: Taking, arrival: Arrival) -> None:
        self._taking, self._arrival, self._octets = taking, arrival, bytearray()

    def adopt(self) -> bool:
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self._octets += piece

    def finish(self) -> int:
        self._taking.came.append((self._arrival, bytes(self._octets)))
        return 0

    def discard(self, why: str) -> None:
        raise AssertionError(why)


def in_session(
    place: Place, pdu: int, work: Callable[[Any], Awaitable[Any]], *, moves: bool = False, echoes: bool = False
) -> Any:
    """What `work` gives with a session at the place, and our maximum PDU."""
    limits = Limits(timeout_s=TIMEOUT_S, max_pdu_octets=pdu)

    async def main() -> Any:
        with Watch() as watch:
            if echoes:
                return await DimseNode(place.peer, limits=limits, watch=watch).echo()
            if not moves:
                async with DimseNode(place.peer, limits=limits, watch=watch).session() as session:
                    return await work(session)
            async with anyio.create_task_group() as tasks:
                mailbox = Mailbox(peers.HOST, place.destination, limits=limits, watch=watch)
                tasks.start_soon(mailbox.run)
                mover = Mover(place.peer, limits, mailbox=lambda: mailbox, via="move")
                async with DimseNode(place.peer, limits=limits, watch=watch, mover=mover).session() as session:
                    result = await work(session)
                tasks.cancel_scope.cancel()
                return result

    return anyio.run(main)


def check_same(specimen: Specimen, syntax: str, octets: bytes, offset: int = 0) -> None:
    """The data set at `offset` says what the specimen says: by the digest of its content, and as pydicom reads it."""
    expected = content_of(specimen.octets, specimen.head.transfer_syntax_uid, specimen.head.data_set_offset)
    assert expected and content_of(octets, syntax, offset) == expected
    head = octets[:offset] or samples.part10(b"", sop_class_uid=specimen.head.sop_class_uid, sop_uid=specimen.sop_uid,
                                             transfer_syntax_uid=syntax)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = pydicom.dcmread(io.BytesIO(head + octets[offset:])), pydicom.dcmread(io.BytesIO(specimen.octets))
        for read in (theirs, ours):
            read.pop("DataSetTrailingPadding", None)
        assert theirs == ours


@pytest.mark.parametrize("pdu", PDUS)
def test_echo(place: Place, pdu: int) -> None:
    assert in_session(place, pdu, None, echoes=True) == 0  # type: ignore[arg-type]  # nothing to work at


@pytest.mark.parametrize("pdu", PDUS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name.lower())
def test_find(place: Place, level: Level, encoding: str, pdu: int) -> None:
    specimen = place.specimens[encoding]
    known = {"StudyInstanceUID": specimen.study_uid, "SeriesInstanceUID": specimen.series_uid,
             "SOPInstanceUID": specimen.sop_uid}  # fmt: skip
    keys = {key: uid for key, uid in known.items() if key in [Level(depth).unique_key for depth in range(1, level + 1)]}
    ask = Ask(level=level, keys=keys or {"PatientID": specimen.patient_id})

    async def find(session: Any) -> list[Any]:
        return [answer async for answer in session.find(ask)]

    *answers, ending = in_session(place, pdu, find)
    assert ending == Ending()
    if (place.kind, encoding) in CANNOT:
        assert answers == []
    else:
        assert ask.keys.items() <= answers[0].items() and len(answers) == 1, answers


@pytest.mark.parametrize("pdu", PDUS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("via", ["get", "move"])
def test_retrieve(place: Place, via: str, encoding: str, pdu: int) -> None:
    specimen, cell = place.specimens[encoding], (place.kind, via, encoding)
    ending, came = retrieved(place, specimen, pdu, via)
    if (place.kind, encoding) in CANNOT:
        assert not came
        return
    assert ending == Ending()
    ((arrival, octets),) = came
    expected = specimen.arrival
    if cell in TRANSCODED:
        expected = replace(expected, transfer_syntax_uid=samples.EXPLICIT_LITTLE)
    assert arrival == expected
    check_same(specimen, arrival.transfer_syntax_uid, octets)


def retrieved(place: Place, specimen: Specimen, pdu: int, via: str) -> tuple[Ending, list[tuple[Arrival, bytes]]]:
    """The peer's word, and what came."""
    taking = Taking(specimen.sop_uid)
    want = Want(study_uid=specimen.study_uid, series_uid=specimen.series_uid, whole=False,
                instances={specimen.sop_uid: specimen.head.sop_class_uid})  # fmt: skip

    async def fetch(session: Any) -> Ending:
        ending: Ending = await session.fetch(want, taking)
        return ending

    return in_session(place, pdu, fetch, moves=via == "move"), taking.came


@pytest.mark.parametrize("pdu", PDUS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_store(place: Place, encoding: str, pdu: int) -> None:
    specimen = place.specimens[encoding].renamed(pdu)
    parcel = Parcel(arrival=specimen.arrival, size=len(specimen.data_set), memory=specimen.data_set)

    async def store(session: Any) -> Ending:
        ending: Ending = await session.store(parcel)
        return ending

    lack = CANNOT.get((place.kind, encoding))
    if lack is not None and not lack.status:
        with pytest.raises(Refused):
            in_session(place, pdu, store)
    else:
        assert in_session(place, pdu, store).status == (lack.status if lack else 0)
    if lack is not None:
        assert place.kept(specimen.sop_uid) is None
        return
    kept = place.kept(specimen.sop_uid)
    assert kept is not None
    head = parse_file(kept)
    assert isinstance(head, Head) and head.transfer_syntax_uid == specimen.head.transfer_syntax_uid
    check_same(specimen, head.transfer_syntax_uid, kept, head.data_set_offset)
