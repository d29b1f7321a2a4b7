"""STOW-RS by `Storer`, against servers that refuse, list little, want less, and go away in the middle."""

import os
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import anyio
import pytest
from pydicom import dcmread

from dcmsync.contract import Arrival, Ending, Parcel, Stamp
from dcmsync.endpoints.dicomweb.storing import LEAST_OCTETS, MOST_OCTETS, Answer, Storer, said_by
from dcmsync.errors import Disconnected, LocalTrouble, PeerError, Rejected, Unreachable
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from dcmsync.wire.part10 import parse_file
from tests import samples
from tests.fakes.stow import Stow
from tests.fakes.web import Reply, Web

LIMITS = Limits(timeout_s=5)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.net.trials.FIRST_WAIT_S", 0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    return samples.make_series(tmp_path_factory.mktemp("made"), instances=10, rows=8, columns=8, seed=501)


@pytest.fixture
def parcels(made: list[samples.Sample]) -> Iterator[list[Parcel]]:
    """Each other one in memory, each other one in its file."""
    found = [parcel(sample, in_memory=number % 2 == 0) for number, sample in enumerate(made)]
    yield found
    for each in found:
        if each.descriptor >= 0:
            os.close(each.descriptor)


def parcel(sample: samples.Sample, *, in_memory: bool) -> Parcel:
    octets = sample.path.read_bytes()
    head = parse_file(octets)
    offset = head.data_set_offset  # type: ignore[union-attr]
    arrival = Arrival(
        sop_class_uid=samples.CT_IMAGE_STORAGE, sop_instance_uid=sample.sop_uid,
        transfer_syntax_uid=samples.EXPLICIT_LITTLE, head=b"" if in_memory else octets[:offset],
    )  # fmt: skip
    if in_memory:
        return Parcel(arrival=arrival, size=len(octets) - offset, memory=octets[offset:])
    descriptor = os.open(sample.path, os.O_RDONLY)
    status = os.fstat(descriptor)
    stamp = Stamp(size=status.st_size, mtime_ns=status.st_mtime_ns, device=status.st_dev, inode=status.st_ino)
    return Parcel(arrival=arrival, size=len(octets) - offset, descriptor=descriptor, offset=offset, stamp=stamp)


def store(
    url: str, *given: Sequence[Parcel], then: Callable[[Storer], object] = lambda storer: None
) -> list[Sequence[Answer]]:
    """What a server says to each delivery."""
    found: list[Sequence[Answer]] = []

    async def main() -> None:
        door = Door(url, name="WEB", limits=LIMITS, warn=print)
        async with door:
            storer = Storer(door)
            try:
                found.extend([await storer.store_together(each) for each in given])
            finally:
                then(storer)

    anyio.run(main)
    return found


def told(answers: Sequence[Answer]) -> list[int | str]:
    return [answer.status if isinstance(answer, Ending) else answer.reason for answer in answers]


def test_instances_arrive_as_they_are_with_their_own_head_or_a_new_one(
    parcels: list[Parcel], made: list[samples.Sample]
) -> None:
    stow = Stow()
    with Web(stow) as web:
        [answers] = store(web.url, parcels)
    assert told(answers) == [0] * 10
    assert stow.requests == [[sample.sop_uid for sample in made]]
    assert set(stow.heads) == {b"\r\nContent-Type: application/dicom"}
    for sample, one in zip(made, parcels, strict=True):
        sent = stow.stored[sample.sop_uid]
        if one.memory is None:
            assert sent == sample.path.read_bytes()
        found = dcmread(BytesIO(sent))
        assert found.file_meta.TransferSyntaxUID == samples.EXPLICIT_LITTLE
        assert sent.endswith(sample.path.read_bytes()[-one.size :])


def test_what_the_answer_says_of_each_is_told_in_dimse_words(parcels: list[Parcel]) -> None:
    uids = [one.arrival.sop_instance_uid for one in parcels]
    stow = Stow(
        reasons={uids[1]: 0xA900, uids[2]: 0xA701, uids[3]: 0x0111, uids[4]: 0x0122, uids[5]: 0},
        warnings={uids[6]: 0xB000, uids[7]: 0},
    )
    with Web(stow) as web:
        [answers] = store(web.url, parcels)
    endings = [answer for answer in answers if isinstance(answer, Ending)]
    assert told(answers) == [0, 0xA900, 0xA701, 0x0111, 0x0122, 0x0110, 0xB000, 0, 0, 0]
    assert [ending.may_pass for ending in endings] == [False, False, True, *[False] * 7]
    assert [ending.is_warning for ending in endings] == [*[False] * 3, True, *[False] * 2, True, *[False] * 3]
    assert "WEB: answered 0xA900" in endings[1].why
    assert "already" in endings[3].why


def test_what_is_listed_nowhere_has_failed_whatever_the_status(parcels: list[Parcel]) -> None:
    uid = parcels[3].arrival.sop_instance_uid
    stow = Stow(silent=frozenset([uid]))
    with Web(stow) as web:
        [answers] = store(web.url, parcels)
    assert told(answers) == [0, 0, 0, 0x0110, *[0] * 6]
    assert "does not list" in answers[3].why  # type: ignore[union-attr]
    assert stow.requests[1:] == [[uid]]  # asked once more, alone


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"{", b'{"00081199":{"vr":"SQ"}}', b'{"00081199":{"Value":[null,{},7]}}',
             b'{"00081199":[1]}', b'{"00081199":{"Value":[{"00081155":{"Value":[null]}}]}}', b"\xff", b"<html>"]
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 202, 409])
def test_an_answer_without_a_list_stores_nothing(parcels: list[Parcel], status: int, body: bytes) -> None:
    with Web(Reply(status, body=body)) as web:
        [answers] = store(web.url, parcels[:2])
    assert told(answers) == [status if status >= 400 else 0x0110] * 2


def test_a_failure_is_believed_before_a_success() -> None:
    item = b'{"00081155":{"Value":["1.2 "]},"00081197":{"Value":[43264]}}'
    said = said_by(200, b'{"00081198":{"Value":[%b]},"00081199":{"Value":[%b]}}' % (item, item))
    assert said.failed == {"1.2": 0xA900}
    storer = Storer(Door("http://x", name="WEB", limits=LIMITS, warn=print))
    ending = storer._ending(said, "1.2")
    assert ending is not None
    assert ending.status == 0xA900


@pytest.mark.parametrize("status", [400, 409, 415, 422, 500])
def test_one_that_spoils_a_request_is_found_and_the_others_are_stored(
    parcels: list[Parcel], status: int
) -> None:
    uid = parcels[4].arrival.sop_instance_uid
    stow = Stow(spoils=frozenset([uid]), spoilt=status)
    with Web(stow) as web:
        [answers] = store(web.url, parcels)
    assert told(answers) == [*[0] * 4, status, *[0] * 5]
    assert len(stow.stored) == 9
    assert f"{status} " in answers[4].why  # type: ignore[union-attr]


def test_some_stored_with_400_are_not_sent_again(parcels: list[Parcel]) -> None:
    """As Orthanc does: it stores and lists the good ones, and answers 400."""
    bad = parcels[2].arrival.sop_instance_uid
    stow = Stow(silent=frozenset([bad]))

    def as_orthanc(seen):  # type: ignore[no-untyped-def]
        reply = stow(seen)
        return Reply(400, {}, reply.body) if bad in stow.requests[-1] else reply

    with Web(as_orthanc) as web:
        [answers] = store(web.url, parcels)
    assert told(answers) == [0, 0, 400, *[0] * 7]
    assert stow.requests[1:] == [[bad]]


def test_a_request_that_is_too_large_is_halved_and_later_ones_are_smaller(parcels: list[Parcel]) -> None:
    most = sum(one.size for one in parcels) // 3
    stow = Stow(most_octets=most)
    limits: list[int] = []
    with Web(stow) as web:
        answers = store(web.url, parcels, then=lambda storer: limits.append(storer.together.octets))
    assert told(answers[0]) == [0] * 10
    assert limits[0] <= most
    assert max(map(len, stow.requests[-4:])) <= 3


def test_a_server_that_says_so_before_it_has_read_everything_is_heard(parcels: list[Parcel]) -> None:
    octets = bytes(30 << 20)
    large = [Parcel(arrival=one.arrival, size=len(octets), memory=octets) for one in parcels[:2]]
    with Web(Reply(413, is_early=True)) as web:
        [answers] = store(web.url, large)
    assert told(answers) == [413, 413]


def test_one_that_is_too_large_by_itself_is_refused_for_good(parcels: list[Parcel]) -> None:
    with Web(Reply(413)) as web:
        [answers] = store(web.url, parcels[:2])
    assert told(answers) == [413, 413]
    assert all("413" in answer.why and not answer.may_pass for answer in answers)  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [429, 503, 507])
def test_a_server_without_room_is_asked_again_by_who_sends(parcels: list[Parcel], status: int) -> None:
    with Web(Reply(status, {"Retry-After": "0"})) as web:
        [answers] = store(web.url, parcels[:3])
        assert len(web.seen) == (1 if status == 507 else 5)
    assert told(answers) == [0xA700] * 3
    assert all(answer.may_pass for answer in answers)  # type: ignore[union-attr]


def test_a_server_that_has_room_again_gets_the_same_octets(parcels: list[Parcel]) -> None:
    stow = Stow(before=lambda nth: Reply(503, {"Retry-After": "0"}) if nth == 1 else None)
    with Web(stow) as web:
        [answers] = store(web.url, parcels)
        assert web.seen[0].body == web.seen[1].body
    assert told(answers) == [0] * 10


@pytest.mark.parametrize("status", [301, 307, 404, 405, 418, 501])
def test_a_url_that_takes_nothing_is_said_to(parcels: list[Parcel], status: int) -> None:
    with Web(Reply(status, {"Location": "/elsewhere"})) as web:
        with pytest.raises(Rejected, match="takes nothing by STOW-RS"):
            store(web.url, parcels)
        assert len(web.seen) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_not_let_in_is_told(parcels: list[Parcel], status: int) -> None:
    with Web(Reply(status)) as web, pytest.raises(Rejected):
        store(web.url, parcels)


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_a_file_that_changes_fails_alone_and_nothing_of_the_request_counts(
    parcels: list[Parcel], made: list[samples.Sample], tmp_path: Path, how: str
) -> None:
    path = tmp_path / "changing.dcm"
    path.write_bytes(made[5].path.read_bytes())
    sample = samples.Sample(**{**made[5].__dict__, "path": path})
    changing = parcel(sample, in_memory=False)
    if how == "cut":
        os.truncate(path, changing.size)
    else:
        os.utime(path, ns=(1, 1))
    stow = Stow()
    with Web(stow) as web:
        [answers] = store(web.url, [*parcels[:5], changing, *parcels[6:]])
    assert told(answers) == [*[0] * 5, "local", *[0] * 4]
    assert sample.sop_uid not in stow.stored
    assert len(stow.stored) == 9
    [alone] = _storing_alone(changing)
    assert isinstance(alone, LocalTrouble)
    os.close(changing.descriptor)


def _storing_alone(one: Parcel) -> Sequence[Answer]:
    with Web(Stow()) as web:
        [answers] = store(web.url, [one])
        assert all(not seen.body.endswith(b"--\r\n") for seen in web.seen)
    return answers


def test_a_request_that_breaks_is_told_and_the_next_ones_are_smaller(parcels: list[Parcel]) -> None:
    limits: list[int] = []
    with Web(Reply(reset="before")) as web, pytest.raises(Disconnected):
        store(web.url, parcels, then=lambda storer: limits.append(storer.together.octets))
    assert limits == [LEAST_OCTETS]


def test_after_a_break_the_server_is_looked_for_before_anything_is_sent(parcels: list[Parcel]) -> None:
    arrival = parcels[0].arrival
    broken = [True]
    stow = Stow()

    async def main(url: str) -> None:
        door = Door(url, name="WEB", limits=LIMITS, warn=print)
        async with door:
            storer = Storer(door)
            assert storer.is_ready_for(arrival)
            await storer.prepare([arrival])
            assert not web.seen  # nothing is asked of who was never away
            with pytest.raises(PeerError):
                await storer.store(parcels[0])
            broken.clear()
            assert not storer.is_ready_for(arrival)
            await storer.prepare([arrival])
            assert storer.is_ready_for(arrival)
            assert web.seen[-1].method == "GET"
            assert not (await storer.store(parcels[0])).status

    with Web(lambda seen: Reply(reset="before") if broken else stow(seen)) as web:
        anyio.run(main, web.url)


def test_a_server_that_is_not_there_is_unreachable(parcels: list[Parcel]) -> None:
    with Web() as web:
        pass
    with pytest.raises(Unreachable):
        store(web.url, parcels)


def test_commitment_is_rejected_with_words() -> None:
    async def main() -> None:
        await Storer(Door("http://x", name="WEB", limits=LIMITS, warn=print)).commit({"1": "2"})

    with pytest.raises(Rejected, match="--verify"):
        anyio.run(main)


def test_requests_grow_again_after_a_break(parcels: list[Parcel]) -> None:
    limits: list[int] = []
    broken = [True]
    stow = Stow()

    async def main(url: str) -> None:
        async with Door(url, name="WEB", limits=LIMITS, warn=print) as door:
            storer = Storer(door)
            with pytest.raises(PeerError):
                await storer.store_together(parcels)
            broken.clear()
            for _ in range(7):
                limits.append(storer.together.octets)
                await storer.store_together(parcels)

    with Web(lambda seen: Reply(reset="before") if broken else stow(seen)) as web:
        anyio.run(main, web.url)
    assert limits == [LEAST_OCTETS << doublings for doublings in range(7)]
    assert limits[-1] == MOST_OCTETS
