"""How a node is asked: by which model, for whose studies, as which user, and for what beyond the baseline.

The peer is pynetdicom's network under a model of our own that holds every question to the standard.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from typing import Any

import anyio
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientStudyOnlyQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from dcmsync.contract import Arrival, Ask, Attributes, Ending, Level, Sink, Want
from dcmsync.endpoints import Access, Setting
from dcmsync.endpoints.dimse.place import DimseNode, open_node
from dcmsync.errors import Refused, Rejected
from dcmsync.locator import Node
from dcmsync.net.patience import Watch
from dcmsync.plan.levels import Query
from dcmsync.transfer.inventory import Inventory
from dcmsync.wire.upperlayer.extension import Wishes
from dcmsync.wire.upperlayer.identity import Identity, Kind

pytestmark = pytest.mark.slow

_LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
_UNIQUE = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
PATIENT_FIND = str(PatientRootQueryRetrieveInformationModelFind)
STUDY_FIND = str(StudyRootQueryRetrieveInformationModelFind)
ROWS = [
    {
        "PatientID": f"P{patient}",
        "PatientName": name,
        "StudyInstanceUID": f"1.{patient}.{study}",
        "StudyDate": f"2024010{study}",
        "SeriesInstanceUID": f"1.{patient}.{study}.1",
        "SOPInstanceUID": f"1.{patient}.{study}.1.1",
        "SOPClassUID": str(CTImageStorage),
    }
    for patient, name in ((1, "Ada"), (2, "Adda"), (3, "Bert"))
    for study in (1, 2)
]


class Pacs:
    """A node that refuses what the baseline forbids; `grants` are the octets it agrees to, by class."""

    def __init__(
        self, *, grants: dict[str, bytes] | None = None, accepts_user: bool = True, limit: int = 0,
        response: bytes | None = b"", rows: Sequence[dict[str, str]] = ROWS,
    ) -> None:  # fmt: skip
        self._rows = rows
        self.asked: list[dict[str, str]] = []
        self.retrieved: list[dict[str, str]] = []
        self.extensions: list[dict[str, bytes]] = []
        self.users: list[tuple[int, bytes, bytes | None, bool]] = []
        self.faults: list[str] = []
        self.port = 0
        self._grants = grants or {}
        self._accepts_user = accepts_user
        self._response = response
        self._limit = limit

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        keys = {element.keyword: str(element.value or "") for element in event.identifier}
        self.asked.append(dict(keys))
        kind = str(event.request.AffectedSOPClassUID)
        is_relational = self._grants.get(kind, b"\0")[:1] == b"\1"
        level = _LEVELS.index(keys.pop("QueryRetrieveLevel"))
        keys.pop("SpecificCharacterSet", None)
        keys.pop("TimezoneOffsetFromUTC", None)
        first = 1 if kind == STUDY_FIND else 0
        above = () if is_relational else _UNIQUE[first:level]
        if level < first or any(not keys.get(key) or set(keys[key]) & set("*?\\") for key in above):
            self.faults.append(f"{kind} {_LEVELS[level]} {keys}")
            yield 0xA900, None
            return
        shown = set()
        for row in self._rows:
            if all(not value or _fits(value, row.get(key, "")) for key, value in keys.items()):
                mark = row[_UNIQUE[level]], row.get("IssuerOfPatientID") if level == 0 else None
                if mark in shown:
                    continue
                if self._limit and len(shown) == self._limit:
                    yield 0xA700, None
                    return
                shown.add(mark)
                answer = Dataset()
                answer.QueryRetrieveLevel = _LEVELS[level]
                for key in keys:
                    if key in row:
                        setattr(answer, key, row[key])
                yield 0xFF00, answer

    def get(self, event: Any) -> Iterator[Any]:
        keys = {element.keyword: str(element.value or "") for element in event.identifier}
        self.retrieved.append(keys)
        found = [row for row in ROWS if row["SeriesInstanceUID"] == keys["SeriesInstanceUID"]]
        yield len(found)
        for row in found:
            sent = Dataset()
            sent.file_meta = Dataset()  # type: ignore[assignment]
            sent.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            for key, value in row.items():
                setattr(sent, key, value)
            yield 0xFF00, sent

    def extended(self, event: Any) -> dict[str, bytes]:
        self.extensions.append(dict(event.app_info))
        return self._grants

    @staticmethod
    def _wants_response(event: Any) -> bool:
        return bool(event.assoc.requestor.user_identity.positive_response_requested)

    def user(self, event: Any) -> tuple[bool, bytes | None]:
        kind, primary, secondary = event.user_id_type, event.primary_field, event.secondary_field
        self.users.append((kind, primary, secondary, self._wants_response(event)))
        return self._accepts_user, self._response


def _fits(pattern: str, value: str) -> bool:
    first, is_range, last = pattern.partition("-")
    if is_range:
        return first <= value <= (last or "~")
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


@pytest.fixture
def run() -> Iterator[Callable[[Pacs], Pacs]]:
    """Starts nodes, and stops them after the test."""
    with ExitStack() as stack:
        yield lambda pacs: stack.enter_context(running(pacs))


@contextmanager
def running(pacs: Pacs) -> Iterator[Pacs]:
    ae = AE("PACS")
    for kind in (
        PatientRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelFind,
        PatientStudyOnlyQueryRetrieveInformationModelFind,
        PatientRootQueryRetrieveInformationModelGet,
    ):
        ae.add_supported_context(kind)
    ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, pacs.find), (evt.EVT_C_GET, pacs.get), (evt.EVT_SOP_EXTENDED, pacs.extended),
                (evt.EVT_USER_ID, pacs.user)]  # fmt: skip
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    pacs.port = server.socket.getsockname()[1]
    try:
        yield pacs
    finally:
        server.shutdown()


class Asked:
    """One run of our side, and what it heard."""

    def __init__(self, pacs: Pacs, **setting: Any) -> None:
        self.warnings: list[str] = []
        self._pacs = pacs
        self._setting = setting

    def do(self, work: Callable[[DimseNode], Any]) -> Any:
        async def inside() -> Any:
            with Watch() as watch:
                setting = Setting(
                    calling_ae="DCMSYNC", timeout_s=10.0, watch=watch, catalogue=_none, skipped=lambda path, why: None,
                    warn=self.warnings.append, **self._setting,
                )  # fmt: skip
                return await work(open_node(Node(host="127.0.0.1", port=self._pacs.port, ae="PACS"), setting))

        return anyio.run(inside)

    def walk(self, query: Query, known: Attributes | None = None) -> tuple[list[Attributes], Inventory]:
        async def work(node: DimseNode) -> tuple[list[Attributes], Inventory]:
            async with node.session() as session:
                inventory = Inventory(session, name="pacs", warn=self.warnings.append)
                return [thing async for thing in inventory.walk(query, known)], inventory

        return self.do(work)  # type: ignore[no-any-return]

    def find(self, *asks: Ask) -> list[list[Attributes | Ending]]:
        async def work(node: DimseNode) -> list[list[Attributes | Ending]]:
            found = []
            async with node.session() as session:
                for ask in asks:
                    async with aclosing(session.find(ask)) as answers:
                        found.append([answer async for answer in answers])
            return found

        return self.do(work)  # type: ignore[no-any-return]

    def fetch(self, want: Want) -> list[str]:
        taken = _Taken()

        async def work(node: DimseNode) -> None:
            async with node.session() as session:
                await session.fetch(want, taken)

        self.do(work)
        return taken.uids


def _none(path: str) -> Any:
    raise AssertionError("a node has no catalogue")


class _Taken:
    """Takes what comes, and forgets its octets."""

    def __init__(self) -> None:
        self.uids: list[str] = []

    def receive(self, arrival: Arrival) -> Sink | int:
        self.uids.append(arrival.sop_instance_uid)
        return _Drain()

    async def room(self) -> None:
        await anyio.lowlevel.checkpoint()


class _Drain:
    def adopt(self) -> bool:
        return False

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Lets them go."""

    def finish(self) -> int:
        return 0

    def discard(self, why: str) -> None:
        """Nothing stays."""


ALL_INSTANCES = Query(level=Level.INSTANCE, keys={})
INSTANCE_UIDS = [row["SOPInstanceUID"] for row in ROWS]


def uids(things: Sequence[Attributes], key: str = "SOPInstanceUID") -> list[object]:
    return [thing[key] for thing in things]


# Information models


def test_each_request_below_a_patient_names_it(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs())
    found, inventory = Asked(pacs, model="patient").walk(ALL_INSTANCES)
    assert uids(found) == INSTANCE_UIDS and {thing["PatientName"] for thing in found} == {"Ada", "Adda", "Bert"}
    assert not pacs.faults and inventory.is_complete
    below = [keys for keys in pacs.asked if "StudyInstanceUID" in keys]
    assert below and all(keys["PatientID"] for keys in below)
    assert not any("PatientName" in keys for keys in below)  # what is known of a patient belongs to its own level


def test_the_baseline_is_kept_with_study_root(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs())
    found, _ = Asked(pacs).walk(ALL_INSTANCES)
    assert uids(found) == INSTANCE_UIDS and not pacs.faults and pacs.extensions == [{}]


def test_patients_are_listed_whatever_the_model(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs())
    for model in ("study", "patient", "patient-study"):
        found, _ = Asked(pacs, model=model).walk(Query(level=Level.PATIENT, keys={"PatientName": "Ad*"}))
        assert uids(found, "PatientID") == ["P1", "P2"]
    assert not pacs.faults


def test_patient_study_only_ends_at_studies(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs())
    asked = Asked(pacs, model="patient-study")
    assert len(asked.walk(Query(level=Level.STUDY, keys={}))[0]) == 6
    with pytest.raises(Refused, match="has nothing below studies"):
        asked.walk(ALL_INSTANCES)
    with pytest.raises(Refused, match="has nothing below studies"):
        asked.fetch(Want(study_uid="1.1.1", series_uid="1.1.1.1", instances={}))


def test_a_patient_that_is_not_named_is_looked_for_once(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs())
    ask = Ask(level=Level.SERIES, keys={"StudyInstanceUID": "1.2.1"}, wanted=("SeriesInstanceUID",))
    first, again = Asked(pacs, model="patient").find(ask, ask)
    assert [each["SeriesInstanceUID"] for each in first if not isinstance(each, Ending)] == ["1.2.1.1"]
    assert first == again and not pacs.faults
    assert [keys["QueryRetrieveLevel"] for keys in pacs.asked] == ["PATIENT", "SERIES", "SERIES", "SERIES"]


def test_a_study_of_nobody_is_not_there(run: Callable[[Pacs], Pacs]) -> None:
    found = Asked(run(Pacs()), model="patient").find(Ask(level=Level.STUDY, keys={"StudyInstanceUID": "9.9"}))
    assert found == [[Ending()]]


def test_a_list_of_patients_that_is_cut_makes_a_study_doubtful(run: Callable[[Pacs], Pacs]) -> None:
    ask = Ask(level=Level.STUDY, keys={"StudyInstanceUID": "1.3.1"})
    [[ending]] = Asked(run(Pacs(limit=1)), model="patient").find(ask)
    assert isinstance(ending, Ending) and ending.truncated and ending.is_last_word


def test_a_list_of_patients_that_is_cut_is_asked_for_in_parts(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs(limit=2))
    found, inventory = Asked(pacs, model="patient").walk(Query(level=Level.STUDY, keys={}))
    assert uids(found, "StudyInstanceUID") == ["1.1.1", "1.1.2", "1.2.1", "1.2.2"]
    assert not inventory.is_complete  # P1, P2 and P3 begin alike, and no part is short enough


@pytest.mark.parametrize("patient_id", ["P2", ""])
def test_a_retrieval_names_its_patient(run: Callable[[Pacs], Pacs], patient_id: str) -> None:
    pacs = run(Pacs())
    want = Want(study_uid="1.2.1", series_uid="1.2.1.1", instances={"1.2.1.1.1": str(CTImageStorage)},
                patient_id=patient_id)  # fmt: skip
    assert Asked(pacs, model="patient").fetch(want) == ["1.2.1.1.1"]
    assert pacs.retrieved[0]["PatientID"] == "P2"
    assert bool(pacs.asked) == (not patient_id) and not pacs.faults


def test_a_retrieval_of_a_study_of_nobody_is_refused(run: Callable[[Pacs], Pacs]) -> None:
    with pytest.raises(Refused, match="no patient there has the study"):
        Asked(run(Pacs()), model="patient").fetch(Want(study_uid="9.9", series_uid="9.9.1", instances={}))


def test_a_patient_without_an_id_makes_the_list_incomplete(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs(rows=[*ROWS, {**ROWS[0], "PatientID": "", "StudyInstanceUID": "1.9"}]))
    asked = Asked(pacs, model="patient")
    found, inventory = asked.walk(Query(level=Level.STUDY, keys={}))
    assert len(found) == 6 and not inventory.is_complete and "without PatientID" in inventory.trouble
    assert len(asked.walk(Query(level=Level.PATIENT, keys={}))[0]) == 4  # as a patient it is told all the same


def test_two_patients_of_one_id_are_gone_into_once(run: Callable[[Pacs], Pacs]) -> None:
    rows = [{**row, "IssuerOfPatientID": "ABCDEF"[number]} for number, row in enumerate(ROWS)]
    pacs = run(Pacs(rows=rows))
    asked = Asked(pacs, model="patient")
    assert len(asked.walk(Query(level=Level.PATIENT, keys={}))[0]) == 6
    found, inventory = asked.walk(Query(level=Level.STUDY, keys={}))
    assert sorted(map(str, uids(found, "StudyInstanceUID"))) == sorted(row["StudyInstanceUID"] for row in ROWS)
    assert inventory.is_complete


# Extended negotiation


def test_relational_queries_take_the_place_of_the_walk(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs(grants={STUDY_FIND: b"\1\0\0\0"}))
    asked = Asked(pacs, wishes=Wishes(relational=True))
    found, _ = asked.walk(ALL_INSTANCES)
    assert pacs.extensions == [{STUDY_FIND: b"\1\0\0\0"}] and not pacs.faults and not asked.warnings
    assert uids(found) == INSTANCE_UIDS and uids(found, "PatientID")[0] == "P1"
    assert [keys["QueryRetrieveLevel"] for keys in pacs.asked] == ["IMAGE"]


def test_relational_queries_of_patient_root_need_no_patient(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs(grants={PATIENT_FIND: b"\1"}))
    found, _ = Asked(pacs, model="patient", wishes=Wishes(relational=True)).walk(ALL_INSTANCES)
    assert uids(found) == INSTANCE_UIDS and len(pacs.asked) == 1 and not pacs.faults


def test_a_relational_list_that_is_cut_is_walked_after_all(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs(grants={STUDY_FIND: b"\1"}, limit=3))
    found, inventory = Asked(pacs, wishes=Wishes(relational=True)).walk(Query(level=Level.SERIES, keys={}))
    assert sorted(map(str, uids(found, "SeriesInstanceUID"))) == sorted({row["SeriesInstanceUID"] for row in ROWS})
    assert inventory.is_complete and pacs.asked[0]["QueryRetrieveLevel"] == "SERIES"


@pytest.mark.parametrize("grants", [{}, {STUDY_FIND: b"\0\0\0\0"}, {STUDY_FIND: b""}, {PATIENT_FIND: b"\1\0\1\1"}])
def test_what_is_not_agreed_to_is_not_assumed(run: Callable[[Pacs], Pacs], grants: dict[str, bytes]) -> None:
    pacs = run(Pacs(grants=grants))
    asked = Asked(pacs, wishes=Wishes(relational=True, fuzzy=True, timezone=True))
    found, _ = asked.walk(ALL_INSTANCES)
    assert uids(found) == INSTANCE_UIDS and not pacs.faults
    assert len(asked.warnings) == 3 and all("does not agree" in words for words in asked.warnings)
    assert not any("TimezoneOffsetFromUTC" in keys for keys in pacs.asked)


def test_a_name_that_is_like_the_one_asked_for_is_kept_with_fuzzy_matching(
    run: Callable[[Pacs], Pacs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}._fits", lambda pattern, value: value[:2] == pattern[:2])
    query = Query(level=Level.STUDY, keys={"PatientName": "Ada"})
    pacs = run(Pacs(grants={STUDY_FIND: b"\0\0\1"}))
    found, _ = Asked(pacs, wishes=Wishes(fuzzy=True)).walk(query)
    assert {thing["PatientName"] for thing in found} == {"Ada", "Adda"}
    strict = Asked(run(Pacs()), wishes=Wishes())
    assert {thing["PatientName"] for thing in strict.walk(query)[0]} == {"Ada"}
    assert any("do not match the PatientName" in words for words in strict.warnings)


def test_our_time_zone_is_told_where_that_is_agreed_to(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs(grants={STUDY_FIND: b"\0\0\0\1"}))
    Asked(pacs, wishes=Wishes(timezone=True)).walk(Query(level=Level.STUDY, keys={}))
    assert all(len(keys["TimezoneOffsetFromUTC"]) == 5 for keys in pacs.asked)


# User identity


def identity(**more: Any) -> Callable[[], Identity]:
    given = {"kind": Kind.PASSWORD, "primary": b"ada", "secondary": b"sesame", "wants_response": True, **more}
    return lambda: Identity(**given)


def test_the_user_is_named(run: Callable[[Pacs], Pacs]) -> None:
    pacs = run(Pacs())
    assert len(Asked(pacs, access=Access(identity=identity())).walk(Query(level=Level.STUDY, keys={}))[0]) == 6
    assert pacs.users == [(2, b"ada", b"sesame", True)]


@pytest.mark.parametrize(("kind", "token"), [(Kind.JWT, b"ey.ey.sig"), (Kind.SAML, b"<Assertion/>" * 500)])
def test_a_token_is_shown_and_confirmed(run: Callable[[Pacs], Pacs], kind: Kind, token: bytes) -> None:
    pacs = run(Pacs(response=b"ticket"))
    access = Access(identity=identity(kind=kind, primary=token, secondary=b""), identity_required=True)
    Asked(pacs, access=access).walk(Query(level=Level.STUDY, keys={}))
    assert [(user[0], user[1]) for user in pacs.users] == [(kind, token)]


def test_a_user_that_is_not_accepted_is_said_so(run: Callable[[Pacs], Pacs]) -> None:
    access = Access(identity=identity(), identity_required=True)
    with pytest.raises(Rejected, match="the association was rejected") as caught:
        Asked(run(Pacs(accepts_user=False)), access=access).walk(Query(level=Level.STUDY, keys={}))
    assert "user identity" in str(caught.value) and "sesame" not in str(caught.value)


def test_an_identity_that_nobody_looked_at_is_not_enough_where_it_is_required(run: Callable[[Pacs], Pacs]) -> None:
    query = Query(level=Level.STUDY, keys={})
    pacs = run(Pacs())
    silent = Access(identity=identity(), identity_required=True)  # pynetdicom 3.0.4 confirms tokens, never passwords
    with pytest.raises(Rejected, match="does not say that it accepts the user identity"):
        Asked(pacs, access=silent).walk(query)
    assert pacs.asked == []  # nothing was asked of it
