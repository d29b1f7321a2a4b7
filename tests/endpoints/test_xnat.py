"""XNAT's import service and lists, by the sessions of a place: nothing twice, nothing lost, nothing called more."""

import os
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import anyio
import pytest

from dcmsync.contract import Arrival, Ask, Ending, Level, Parcel, Stamp, Want
from dcmsync.endpoints.xnat.importing import cleaned, named_by
from dcmsync.endpoints.xnat.packing import Pack
from dcmsync.endpoints.xnat.place import XnatPlace, login
from dcmsync.endpoints.xnat.session import Session
from dcmsync.errors import Disconnected, LocalTrouble, PeerError, Rejected, RemoteProtocolError
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from dcmsync.wire.part10 import parse_file
from tests import samples
from tests.fakes.web import Reply, Seen, Web
from tests.fakes.xnat import Xnat

LIMITS = Limits(timeout_s=5)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.net.trials.FIRST_WAIT_S", 0.0)
    monkeypatch.setattr("dcmsync.endpoints.xnat.importing._SETTLE_S", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 1 series of 4 instances."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, studies=2, instances=4, rows=8, columns=8, seed=513)


@pytest.fixture
def parcels(made: list[samples.Sample]) -> Iterator[list[Parcel]]:
    found = [parcel(sample.path, sample.sop_uid, in_memory=n % 2 == 0) for n, sample in enumerate(made)]
    yield found
    for each in found:
        if each.descriptor >= 0:
            os.close(each.descriptor)


def parcel(path: Path, uid: str, *, in_memory: bool) -> Parcel:
    octets = path.read_bytes()
    offset = parse_file(octets).data_set_offset  # type: ignore[union-attr]
    arrival = Arrival(
        sop_class_uid=samples.CT_IMAGE_STORAGE, sop_instance_uid=uid, transfer_syntax_uid=samples.EXPLICIT_LITTLE,
        head=octets[:offset],
    )  # fmt: skip
    size = len(octets) - offset
    if in_memory:
        return Parcel(arrival=arrival, size=size, memory=octets[offset:])
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    stamp = Stamp(size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino)
    return Parcel(arrival=arrival, size=size, descriptor=descriptor, offset=offset, stamp=stamp)


def with_session(xnat: Xnat | Callable[[Seen], Reply], work: Callable[[Session], Awaitable[None]]) -> Web:
    """Does something with one session of a place; gives the server as it was left."""

    async def main(url: str) -> None:
        async with XnatPlace(Door(url, name="XNAT", limits=LIMITS, warn=print), "P").session() as session:
            await work(session)

    with Web(xnat) as web:
        anyio.run(main, web.url)
    return web


def store(xnat: Xnat | Callable[[Seen], Reply], *given: Sequence[Parcel]) -> list[list[int | str]]:
    """The status of each parcel, by delivery; the reason where its file was to blame."""
    found: list[list[int | str]] = []

    async def work(session: Session) -> None:
        for each in given:
            answers = await session.store_together(each)
            found.append([a.status if isinstance(a, Ending) else a.reason for a in answers])

    with_session(xnat, work)
    return found


def held(xnat: Xnat) -> dict[str, bytes]:
    return {uid: octets for session in xnat.sessions for uid, octets in session.files.items()}


# Uploads


def test_an_archive_streams_with_its_length_known(parcels: list[Parcel], made: list[samples.Sample]) -> None:
    pack = Pack(parcels)

    async def octets() -> bytes:
        return b"".join([bytes(piece) async for piece in pack.pieces()])

    body = anyio.run(octets)
    assert len(body) == pack.length
    with zipfile.ZipFile(BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == [sample.path.read_bytes() for sample in made]


def test_members_that_are_too_large_for_a_plain_archive_are_said_so(
    parcels: list[Parcel], made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcmsync.endpoints.xnat.packing.SMALL", 1000)  # in place of 4 GiB
    pack = Pack(parcels[:2])

    async def octets() -> bytes:
        return b"".join([bytes(piece) async for piece in pack.pieces()])

    body = anyio.run(octets)
    assert len(body) == pack.length
    with zipfile.ZipFile(BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert all(member.extract_version == 45 for member in archive.infolist())
        assert [archive.read(name) for name in archive.namelist()] == [s.path.read_bytes() for s in made[:2]]


def test_batches_of_a_study_go_to_one_session(parcels: list[Parcel], made: list[samples.Sample]) -> None:
    xnat = Xnat()
    assert store(xnat, parcels[:2], parcels[2:5], parcels[5:]) == [[0] * 2, [0] * 3, [0] * 3]
    assert held(xnat) == {sample.sop_uid: sample.path.read_bytes() for sample in made}
    assert [upload["dest"].count("/") for upload in xnat.uploads] == [3, 5, 3, 5]
    assert len(xnat.sessions) == 2


def test_a_session_of_an_earlier_run_is_added_to(parcels: list[Parcel]) -> None:
    xnat = Xnat()
    store(xnat, parcels[:2])
    store(xnat, parcels[2:4])
    assert len(xnat.sessions) == 1 and len(held(xnat)) == 4


def test_an_upload_that_arrived_though_its_answer_did_not_is_not_repeated(parcels: list[Parcel]) -> None:
    xnat = Xnat(after=lambda nth: Reply(reset="before"))
    assert store(xnat, parcels[:4]) == [[0] * 4]
    assert len(xnat.uploads) == 1


def test_later_batches_do_not_count_what_is_there_again(parcels: list[Parcel]) -> None:
    xnat = Xnat(after=lambda nth: Reply(reset="before") if nth == 3 else None)

    async def work(session: Session) -> None:
        for at in range(4):
            assert not (await session.store(parcels[at])).status

    web = with_session(xnat, work)
    assert len(xnat.uploads) == 4
    assert sum(seen.path.endswith("/files") for seen in web.seen) == 1  # when an answer was lost


def test_an_upload_that_broke_is_told_and_what_follows_goes_to_its_session(parcels: list[Parcel]) -> None:
    xnat = Xnat(before=lambda nth: Reply(reset="before") if nth == 1 else None)

    async def work(session: Session) -> None:
        with pytest.raises(Disconnected):
            await session.store_together(parcels[:4])
        assert not session.is_ready_for(parcels[0].arrival)
        await session.prepare([])
        assert session.is_ready_for(parcels[0].arrival)
        for each in parcels[:4]:
            assert not (await session.store(each)).status

    with_session(xnat, work)
    assert len(xnat.sessions) == 1 and len(held(xnat)) == 4


def test_studies_that_arrived_are_not_sent_again_because_another_broke(parcels: list[Parcel]) -> None:
    xnat = Xnat(before=lambda nth: Reply(reset="before") if nth == 2 else None)
    answers = store(xnat, parcels)
    assert answers == [[0] * 4 + [0xA700] * 4]
    assert len(held(xnat)) == 4


def test_instances_that_arrived_one_by_one_are_not_sent_again(parcels: list[Parcel]) -> None:
    xnat = Xnat(before=lambda nth: {1: Reply(400), 3: Reply(reset="before")}.get(nth))
    assert store(xnat, parcels[:4]) == [[0, *[0xA700] * 3]]
    first = Xnat(before=lambda nth: {1: Reply(400), 2: Reply(reset="before")}.get(nth))
    with pytest.raises(PeerError):
        store(first, parcels[:4])


def test_a_study_that_is_archived_while_more_of_it_waits_gets_no_second_session(parcels: list[Parcel]) -> None:
    xnat = Xnat()
    answers: list[object] = []

    async def work(session: Session) -> None:
        await session.store_together(parcels[:2])
        xnat.archive()
        answers.extend(await session.store_together(parcels[2:4]))

    with_session(xnat, work)
    assert [answer.status for answer in answers if isinstance(answer, Ending)] == [0x0111] * 2
    assert xnat.sessions == []


def test_half_an_upload_is_no_upload(parcels: list[Parcel]) -> None:
    """The server took two of four before the line broke."""
    xnat = Xnat(after=lambda nth: Reply(reset="before") if nth == 1 else None)

    def halved(seen: Seen) -> Reply:
        reply = xnat(seen)
        if seen.method == "POST" and len(xnat.uploads) == 1:
            for _, files in xnat.sessions[0].scans.values():
                for uid in list(files)[2:]:
                    del files[uid]
        return reply

    async def work(session: Session) -> None:
        with pytest.raises(PeerError):
            await session.store_together(parcels[:4])

    with_session(halved, work)


def test_one_that_xnat_cannot_read_fails_alone(parcels: list[Parcel], tmp_path: Path) -> None:
    path = tmp_path / "odd.dcm"
    octets = parcels[0].arrival.head + bytes(parcels[0].memory or b"")
    path.write_bytes(octets)
    odd = parcel(path, "1.2.3", in_memory=True)
    odd = Parcel(arrival=Arrival(**{**_fields(odd.arrival), "head": b"\1" * 132}), size=odd.size, memory=odd.memory)
    xnat = Xnat()
    assert store(xnat, [*parcels[:2], odd, *parcels[2:4]]) == [[0, 0, 400, 0, 0]]
    assert len(held(xnat)) == 4 and len(xnat.sessions) == 1


def _fields(arrival: Arrival) -> dict[str, object]:
    return {name: getattr(arrival, name) for name in arrival.__struct_fields__}


@pytest.mark.parametrize("how", ["cut", "changed", "changes"])
def test_a_file_that_changes_fails_alone(
    parcels: list[Parcel], made: list[samples.Sample], tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "changing.dcm"
    path.write_bytes(made[2].path.read_bytes())
    changing = parcel(path, made[2].sop_uid, in_memory=False)
    if how == "cut":
        os.truncate(path, changing.size)
    elif how == "changed":
        os.utime(path, ns=(1, 1))
    else:  # between the reading for its checksum and the sending
        pieces = Pack.pieces

        def late(self: Pack) -> object:
            os.utime(path, ns=(1, 1))
            return pieces(self)

        monkeypatch.setattr(Pack, "pieces", late)
    xnat = Xnat()
    assert store(xnat, [*parcels[:2], changing, parcels[3]]) == [[0, 0, "local", 0]]
    assert made[2].sop_uid not in held(xnat) and len(held(xnat)) == 3
    os.close(changing.descriptor)


def test_a_session_that_is_busy_is_waited_for_then_told(parcels: list[Parcel]) -> None:
    xnat = Xnat(polls=2)
    assert store(xnat, parcels[:1], parcels[1:2]) == [[0], [0]]
    never = Xnat(polls=1000)
    answers: list[object] = []

    async def work(session: Session) -> None:
        await session.store_together(parcels[:1])
        answers.extend(await session.store_together(parcels[1:2]))

    with_session(never, work)
    [answer] = answers
    assert isinstance(answer, Ending) and answer.may_pass and "RECEIVING" in answer.why
    assert len(never.uploads) == 1


def test_a_study_that_is_archived_is_refused_and_not_sent(parcels: list[Parcel]) -> None:
    xnat = Xnat()
    store(xnat, parcels[:4])
    xnat.archive()
    assert store(xnat, parcels[:4]) == [[0x0111] * 4]
    assert len(xnat.uploads) == 1


def test_a_conflict_with_the_archive_is_told(parcels: list[Parcel], made: list[samples.Sample]) -> None:
    xnat = Xnat()
    store(xnat, parcels[:4])
    xnat.archive()
    xnat.archived[0].study_uid = "1.2.3"  # another study of the same label
    answers: list[object] = []

    async def work(session: Session) -> None:
        answers.extend(await session.store_together(parcels[:1]))

    with_session(xnat, work)
    [answer] = answers
    assert isinstance(answer, Ending) and answer.is_warning and "CONFLICT" in answer.why


@pytest.mark.parametrize(("status", "error"), [(401, Rejected), (403, Rejected), (404, Rejected), (406, Rejected)])
def test_a_project_that_takes_no_uploads_is_given_up(
    parcels: list[Parcel], status: int, error: type[Exception]
) -> None:
    xnat = Xnat(before=lambda nth: Reply(status, body=b"<html><h3>no</h3></html>"))
    with pytest.raises(error):
        store(xnat, parcels[:2])
    assert len(xnat.uploads) == 1


@pytest.mark.parametrize("status", [503, 507])
def test_a_server_without_room_is_asked_again_by_who_sends(parcels: list[Parcel], status: int) -> None:
    xnat = Xnat(before=lambda nth: Reply(status))
    assert store(xnat, parcels[:2]) == [[0xA700] * 2]
    assert len(xnat.uploads) == 1  # nothing is repeated that may have arrived


def test_labels_are_as_xnat_has_them(parcels: list[Parcel]) -> None:
    assert cleaned(" Müller^Jürgen / 7.5 ") == "M_ller_J_rgen___7_5"
    named = named_by(parcels[0])
    assert not isinstance(named, LocalTrouble)
    assert (named.subject, named.label) == ("S513P0001", "A000001")
    plain = {0x0020000D: "1.2.3", 0x00100020: "P 1", 0x00200010: "7"}
    for left_out, label in ((), "P_1_7"), ((0x00200010,), "1_2_3"), ((0x00100020,), "1_2_3"):
        data = b"".join(
            samples.element(tag, b"LO" if tag == 0x00100020 else b"UI", value)
            for tag, value in sorted(plain.items())
            if tag not in left_out
        )
        arrival = Arrival(sop_class_uid="1", sop_instance_uid="2", transfer_syntax_uid=samples.EXPLICIT_LITTLE)
        named = named_by(Parcel(arrival=arrival, size=len(data), memory=data))
        assert not isinstance(named, LocalTrouble)
        assert named.label == label


def test_an_instance_of_no_study_is_not_sent() -> None:
    data = samples.element(0x00080018, b"UI", "1.2")
    arrival = Arrival(sop_class_uid="1", sop_instance_uid="1.2", transfer_syntax_uid=samples.EXPLICIT_LITTLE)
    xnat = Xnat()
    assert store(xnat, [Parcel(arrival=arrival, size=len(data), memory=data)]) == [[0xA900]]
    assert xnat.uploads == []


# Questions


def ask(session_of: Xnat | Callable[[Seen], Reply], level: Level, **keys: str) -> list[object]:
    found: list[object] = []

    async def work(session: Session) -> None:
        question = Ask(level=level, keys=keys, wanted=("NumberOfSeriesRelatedInstances",))
        found.extend([each async for each in session.find(question)])

    with_session(session_of, work)
    return found


def test_instances_that_are_not_archived_are_not_named(parcels: list[Parcel], made: list[samples.Sample]) -> None:
    xnat = Xnat()
    uids = {"StudyInstanceUID": made[0].study_uid, "SeriesInstanceUID": made[0].series_uid}
    assert ask(xnat, Level.INSTANCE, **uids) == [Ending()]  # nothing is there
    store(xnat, parcels[:4])
    with pytest.raises(Rejected, match="names no instances"):
        ask(xnat, Level.INSTANCE, **uids)
    xnat.archive()
    *found, ending = ask(xnat, Level.INSTANCE, **uids)
    assert ending == Ending()
    assert {each["SOPInstanceUID"] for each in found} == {s.sop_uid for s in made[:4]}  # type: ignore[index]


def test_counts_are_of_files_and_series_need_uids(parcels: list[Parcel], made: list[samples.Sample]) -> None:
    xnat = Xnat()
    store(xnat, parcels[:3])
    [series, _] = ask(xnat, Level.SERIES, StudyInstanceUID=made[0].study_uid)
    assert series["NumberOfSeriesRelatedInstances"] == 3  # type: ignore[index]
    assert series["Modality"] == "CT"  # type: ignore[index]
    xnat.tells = ()
    with pytest.raises(Rejected, match="does not tell which series"):
        ask(xnat, Level.SERIES, StudyInstanceUID=made[0].study_uid)


def test_a_study_that_does_not_say_its_date_makes_a_list_by_date_incomplete(parcels: list[Parcel]) -> None:
    xnat = Xnat()
    store(xnat, parcels[:4])

    def undated(seen: Seen) -> Reply:
        reply = xnat(seen)
        return Reply(reply.status, reply.headers, reply.body.replace(b"2023-12-31 00:00:00.0", b""))

    ending = ask(undated, Level.STUDY, StudyDate="20231231")[-1]
    assert isinstance(ending, Ending) and ending.truncated


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"ResultSet":{"Result":[1]}}', b'{"ResultSet":null}', b"\xff"])
def test_a_list_that_is_none_is_an_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ask(lambda seen: Reply(200, {}, body), Level.STUDY)


def test_an_archive_that_was_cut_or_is_a_bomb_gives_nothing(
    parcels: list[Parcel], made: list[samples.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcmsync.endpoints.xnat.download._BOMB_OCTETS", 1 << 20)
    xnat = Xnat()
    store(xnat, parcels[:4])
    xnat.archive()
    want = Want(study_uid=made[0].study_uid, series_uid=made[0].series_uid, instances={made[0].sop_uid: ""})
    bomb = BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.dcm", "w") as member:
        member.write(bytes(2 << 20))

    class Nobody:
        def receive(self, arrival: Arrival) -> int:
            raise AssertionError("nothing of it may be offered")

        async def room(self) -> None:
            pass

    for change in (lambda body: body[:-30], lambda body: bomb.getvalue(), lambda body: b"<html>"):

        def changed(seen: Seen, change: Callable[[bytes], bytes] = change) -> Reply:
            reply = xnat(seen)
            return Reply(200, reply.headers, change(reply.body)) if "format=zip" in seen.target else reply

        async def work(session: Session) -> None:
            with pytest.raises(RemoteProtocolError, match="cannot be read"):
                await session.fetch(want, Nobody())

        with_session(changed, work)


# Logins


@pytest.mark.parametrize("said", [b"", b"<html>who are you</html>", b"a b", b"\xc3\xbc", b"A" * 300])
def test_a_login_that_gives_no_session_is_refused(said: bytes) -> None:
    async def main(url: str) -> None:
        authority = login(Door(url, name="XNAT", limits=LIMITS, warn=print))
        door = Door(url, name="XNAT", limits=LIMITS, authority=authority, warn=print)
        async with XnatPlace(door, "P").session() as session:
            await session._lister.answers()

    with Web(Reply(200, {}, said)) as web, pytest.raises(Rejected, match="gave no session"):
        anyio.run(main, web.url)


def test_a_session_that_ran_out_is_had_anew() -> None:
    xnat = Xnat(user=("jane", "secret"))

    class Basic:
        async def headers(self, request: object) -> dict[str, str]:
            return {"Authorization": "Basic amFuZTpzZWNyZXQ="}

        async def renew(self) -> bool:
            return False

    async def main(url: str) -> None:
        authority = login(Door(url, name="XNAT", limits=LIMITS, authority=Basic(), warn=print))
        door = Door(url, name="XNAT", limits=LIMITS, authority=authority, warn=print)
        async with XnatPlace(door, "P").session() as session:
            await session._lister.answers()
            await session._lister.answers()
            assert len(xnat.opened) == 1
            xnat.opened[:] = ["F" * 32]  # somebody else's
            await session._lister.answers()
            assert len(xnat.opened) == 2

    with Web(xnat) as web:
        anyio.run(main, web.url)
