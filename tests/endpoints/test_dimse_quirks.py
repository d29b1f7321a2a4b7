"""Nodes with quirks of their own making: what they say in the wrong character set, and what they do not bear."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE, evt

from dcmsync.contract import Ask, Attributes, Ending, Level, Want
from dcmsync.endpoints import Setting, open_place
from dcmsync.endpoints.dimse.place import DimseNode
from dcmsync.errors import Rejected
from dcmsync.locator import Node
from dcmsync.net.patience import Watch
from dcmsync.plan.levels import Query
from dcmsync.quirks import Quirks
from dcmsync.transfer.inventory import Inventory
from dcmsync.wire import dataset
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations
from dcmsync.wire.upperlayer import codec
from dcmsync.wire.upperlayer.extension import Extension, Wishes
from tests.fakes import scripted
from tests.fakes.scripted import PENDING, SUCCESS, Scripted, Talk, answer
from tests.fakes.taker import Taker

CYRILLIC, NAME = "ISO_IR 144", "Йод"
GET, MOVE = operations.STUDY_ROOT_GET, operations.STUDY_ROOT_MOVE
ASK = Ask(level=Level.STUDY, keys={"PatientID": "P1"}, wanted=("StudyInstanceUID", "PatientName"))


def unused(path: str) -> object:
    raise AssertionError(path)


def node_at(port: int, quirks: Quirks, watch: Watch, wishes: Wishes = Wishes()) -> DimseNode:  # noqa: B008  # frozen
    setting = Setting(
        calling_ae="DCMSYNC", timeout_s=5, watch=watch, catalogue=unused, skipped=lambda path, why: None,
        warn=lambda text: None, quirks=quirks, wishes=wishes,
    )  # fmt: skip
    opened = open_place(Node(host=scripted.HOST, port=port, ae="SCRIPTED"), setting)
    assert isinstance(opened, DimseNode)
    return opened


def found(script: Callable[[Talk], None], quirks: Quirks, ask: Ask = ASK) -> list[Attributes]:
    """What a query of a scripted node gives."""

    async def run(port: int, watch: Watch) -> list[Attributes | Ending]:
        async with node_at(port, quirks, watch).session() as session:
            return [each async for each in session.find(ask)]

    with Scripted(script) as node, Watch() as watch:
        return [each for each in anyio.run(run, node.port, watch) if not isinstance(each, Ending)]


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return tag.to_bytes(4, "little")[2:] + tag.to_bytes(4, "little")[:2] + vr + len(value).to_bytes(2, "little") + value


def telling(name: bytes, character_set: bytes | None) -> Callable[[Talk], None]:
    """A node that has one study, of a patient of this name, in this character set or without saying."""

    def script(talk: Talk) -> None:
        talk.accept()
        context_id, command, _ = talk.read_message()
        named = b"" if character_set is None else element(0x00080005, b"CS", character_set)
        study = named + element(0x00100010, b"PN", name) + element(0x0020000D, b"UI", b"1.23")
        talk.send(answer(context_id, command, PENDING, study), answer(context_id, command, SUCCESS))
        talk.release()

    return script


@pytest.mark.parametrize("declared, quirks, is_right", [
    (None, Quirks(), False),
    (None, Quirks(charset=CYRILLIC), True),
    (b"", Quirks(charset=CYRILLIC), True),
    (b"ISO_IR 192", Quirks(), False),
    (b"ISO_IR 192", Quirks(charset=CYRILLIC), True),  # its octets are no UTF-8
    (b"ISO_IR 6", Quirks(charset=CYRILLIC), True),
    (b"ISO_IR 100", Quirks(charset=CYRILLIC), False),  # nothing in the octets says that this is wrong
    (b"ISO_IR 100", Quirks(charset=CYRILLIC, wrong_charset=True), True),
    (b"ISO_IR 144", Quirks(charset="ISO_IR 100"), True),  # what can be right is believed
])  # fmt: skip
def test_text_in_another_character_set_than_is_said(declared: bytes | None, quirks: Quirks, is_right: bool) -> None:
    (study,) = found(telling(NAME.encode("iso8859-5"), declared), quirks)
    assert (study["PatientName"] == NAME) is is_right


@pytest.mark.parametrize("quirks, comes", [(Quirks(), False), (Quirks(charset=CYRILLIC), True)])
def test_a_key_is_asked_for_in_the_character_set_of_the_node(quirks: Quirks, comes: bool) -> None:
    def script(talk: Talk) -> None:
        talk.accept()
        context_id, command, identifier = talk.read_message()
        if NAME.encode("iso8859-5") in identifier:
            assert b"ISO_IR 144" in identifier
            study = element(0x00080005, b"CS", b"ISO_IR 144") + element(0x0020000D, b"UI", b"1.23")
            talk.send(answer(context_id, command, PENDING, study))
        talk.send(answer(context_id, command, SUCCESS))
        talk.release()

    ask = Ask(level=Level.STUDY, keys={"PatientName": NAME}, wanted=("StudyInstanceUID",))
    assert bool(found(script, quirks, ask)) is comes


@pytest.mark.slow
@pytest.mark.parametrize("quirks, heard", [(Quirks(), "C-CANCEL"), (Quirks(no_cancel=True), "A-ABORT")])
def test_a_list_is_left_without_a_cancel_where_that_is_not_borne(quirks: Quirks, heard: str) -> None:
    said: list[str] = []
    is_over = threading.Event()

    def script(talk: Talk) -> None:
        talk.accept()
        context_id, command, _ = talk.read_message()
        study = element(0x0020000D, b"UI", b"1.23")
        talk.send(answer(context_id, command, PENDING, study))
        kind, octets = talk.read_pdu()
        said.append("A-ABORT" if kind == 7 else "C-CANCEL" if commands.decode(octets[12:]).field == 0x0FFF else "?")
        is_over.set()
        talk.hold()

    async def first(port: int, watch: Watch) -> float:
        async with node_at(port, quirks, watch).session() as session:
            async with aclosing(session.find(ASK)) as answers:
                async for _ in answers:
                    break
                begun = time.monotonic()
            return time.monotonic() - begun

    with Scripted(script) as node, Watch() as watch:
        seconds = anyio.run(first, node.port, watch)
        assert is_over.wait(5)
    assert said == [heard]
    assert (seconds < 1) is quirks.no_cancel, "a node that does not answer to a C-CANCEL is waited for"


@pytest.mark.parametrize("quirks, asked_by", [(Quirks(), GET), (Quirks(no_cget=True), MOVE)])
def test_a_node_whose_c_get_is_broken_is_asked_by_c_move_at_once(quirks: Quirks, asked_by: str) -> None:
    proposed: set[str] = set()

    def script(talk: Talk) -> None:
        talk.accept(refuse=(GET, MOVE))
        assert talk.request is not None
        proposed.update(context.abstract_syntax for context in talk.request.contexts)
        talk.release()

    async def fetch(port: int, watch: Watch) -> None:
        want = Want(study_uid="1.2", series_uid="1.2.3", instances={"1.2.3.4": "1.2.840.10008.5.1.4.1.1.2"})
        async with node_at(port, quirks, watch).session() as session:
            with pytest.raises(Rejected):
                await session.fetch(want, Taker({}))

    with Scripted(script) as node, Watch() as watch:
        anyio.run(fetch, node.port, watch)
    assert {GET, MOVE} & proposed == {asked_by}


@pytest.mark.parametrize("quirks, is_found", [(Quirks(), False), (Quirks(upper_uids=True), True)])
def test_a_node_that_agrees_to_more_than_it_can(quirks: Quirks, is_found: bool) -> None:
    rows = {
        "STUDY": {"StudyInstanceUID": "1.2"},
        "SERIES": {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "Modality": "CT"},
    }

    def script(talk: Talk) -> None:
        """Agrees to relational queries, and finds no series without the UID of its study."""
        request = codec.decode_request(talk.read_pdu()[1])
        results = [codec.ContextResult(each.context_id, 0, each.transfer_syntaxes[0]) for each in request.contexts]
        granted = [Extension(each.sop_class_uid, b"\1") for each in request.extensions]
        talk.send(codec.encode_accept(codec.AssociateAccept(
            called_ae="SCRIPTED", calling_ae="DCMSYNC", results=tuple(results), extensions=tuple(granted),
            max_pdu_octets=16382,
        )))  # fmt: skip
        while talk.socket.recv(1, socket.MSG_PEEK) == b"\x04":
            context_id, command, identifier = talk.read_message()
            keys = dataset.decode_identifier(identifier, scripted.EXPLICIT)
            level = str(keys["QueryRetrieveLevel"])
            if level == "STUDY" or keys.get("StudyInstanceUID") == "1.2":
                encoded = dataset.encode_identifier(rows[level], level, scripted.EXPLICIT)
                talk.send(answer(context_id, command, PENDING, encoded))
            talk.send(answer(context_id, command, SUCCESS))
        talk.release()

    async def walk(port: int, watch: Watch) -> list[object]:
        async with node_at(port, quirks, watch, Wishes(relational=True)).session() as session:
            inventory = Inventory(session, name="X", warn=lambda text: None)
            query = Query(level=Level.SERIES, keys={"Modality": "CT"})
            return [thing["SeriesInstanceUID"] async for thing in inventory.walk(query)]

    with Scripted(script) as node, Watch() as watch:
        assert anyio.run(walk, node.port, watch) == (["1.2.3"] if is_found else [])


# What is stored in one transfer syntax, and given in no other

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"]


def associations_to_get(gives: str, times: int) -> tuple[list[Ending], int]:
    """How C-GETs end at a node that gives by the first context alone, and only where that is for one syntax; and how
    many associations they took."""
    opened = 0

    def accepted(_: evt.Event) -> None:
        nonlocal opened
        opened += 1

    def get(event: evt.Event) -> Iterator[Any]:
        first = next(each for each in event.assoc.accepted_contexts if each.abstract_syntax == CT)
        if first.transfer_syntax[0] != gives:
            yield 1
            yield 0xA702, None
            return
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID = UID(CT), UID("1.2.3.1")
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = UID(gives)
        yield 1
        yield 0xFF00, made

    entity = AE("PACS")
    entity.add_supported_context(GET)
    entity.add_supported_context(CT, SYNTAXES, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[
        (evt.EVT_ACCEPTED, accepted), (evt.EVT_C_GET, get),
    ])  # fmt: skip
    want = Want(study_uid="1.2", series_uid="1.2.3", instances={"1.2.3.1": CT})

    async def run(port: int, watch: Watch) -> list[Ending]:
        async with node_at(port, Quirks(), watch).session() as session:
            return [await session.fetch(want, Taker(want.instances)) for _ in range(times)]

    try:
        with Watch() as watch:
            return anyio.run(run, server.socket.getsockname()[1], watch), opened
    finally:
        server.shutdown()


def test_what_comes_in_no_syntax_of_the_nodes_choice_is_asked_for_in_each() -> None:
    endings, opened = associations_to_get(SYNTAXES[3], 3)
    assert endings == [Ending()] * 3
    assert opened == 1 + 3 + 2 * 2, "the one that it gave in is tried first from then on"


def test_a_node_that_gives_nothing_is_not_asked_so_for_ever() -> None:
    endings, opened = associations_to_get("1.2.840.10008.1.2.5", 15)
    assert [ending.status for ending in endings] == [0xA702] * 15
    assert opened == 30 + 11, "ten rounds of three guesses, then none"
