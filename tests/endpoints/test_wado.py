"""WADO-URI against a real Orthanc, and against servers that misbehave."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcmsync.contract import Ask, Ending, Level, Want
from dcmsync.endpoints.wado.place import WadoPlace
from dcmsync.endpoints.wado.session import GETS
from dcmsync.errors import Disconnected, LocalTrouble, PeerError, Refused, Rejected, RemoteProtocolError
from dcmsync.net.channel import Limits
from dcmsync.net.http import Door
from tests import peers, samples
from tests.conftest import Start
from tests.fakes.keeper import Keeper
from tests.fakes.web import Reply, Script, Seen, Web
from tests.samples import Sample

DICOM = {"Content-Type": "application/dicom"}
PAGE = Reply(200, {"Content-Type": "text/html"}, b"<html><title>Log in</title>" + b" " * 400)


@pytest.fixture
def series(tmp_path: Path) -> list[Sample]:
    return samples.make_series(tmp_path, instances=12)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmsync.net.trials.FIRST_WAIT_S", 0.0)


def want_of(series: list[Sample]) -> Want:
    instances = {each.sop_uid: samples.CT_IMAGE_STORAGE for each in series}
    return Want(study_uid=series[0].study_uid, series_uid=series[0].series_uid, instances=instances)


def serving(series: list[Sample], others: Callable[[Seen], Reply | None] = lambda seen: None) -> Script:
    """A server that has the series, unless `others` answers."""
    files = {each.sop_uid: each.path.read_bytes() for each in series}

    def serve(seen: Seen) -> Reply:
        uid = dict(seen.query)["objectUID"]
        return others(seen) or (Reply(200, DICOM, files[uid]) if uid in files else Reply(404))

    return serve


class Fetched:
    """One want, fetched: the ending or the error, what was kept, what the server saw."""

    def __init__(self, script: Script, want: Want, *, keeper: Keeper | None = None, times: int = 1) -> None:
        self.keeper = keeper or Keeper()
        self.ending = Ending(why="nothing happened")
        self.error: Exception | None = None
        with Web(script) as web:
            anyio.run(self._run, web.url, want, times)
            self.seen = web.seen

    async def _run(self, url: str, want: Want, times: int) -> None:
        place = WadoPlace(Door(f"{url}/wado", name="WADO", limits=Limits(timeout_s=60), warn=lambda words: None))
        with anyio.fail_after(20):
            async with place.session() as session:
                try:
                    for _ in range(times):
                        self.ending = await session.fetch(want, self.keeper)
                except (PeerError, LocalTrouble) as error:
                    self.error = error

    def is_all_of(self, series: list[Sample]) -> bool:
        return self.keeper.files == {each.sop_uid: each.path.read_bytes() for each in series}


def uid_of(seen: Seen) -> str:
    return dict(seen.query)["objectUID"]


def test_orthanc_gives_what_it_holds_octet_by_octet(start: Start, series: list[Sample]) -> None:
    orthanc = start(peers.orthanc, dicomweb=True)
    orthanc.store([each.path for each in series])
    keeper = Keeper()

    async def main() -> tuple[Ending, int]:
        place = WadoPlace(Door(f"{orthanc.http}/wado", name="WADO", limits=Limits(timeout_s=10), warn=print))
        async with place.session() as session:
            return await session.fetch(want_of(series), keeper), await place.echo()

    assert anyio.run(main) == (Ending(), 0)
    assert keeper.files == {each.sop_uid: each.path.read_bytes() for each in series}


def test_orthanc_without_the_service_is_told_by_echo(start: Start) -> None:
    orthanc = start(peers.orthanc)

    async def main() -> int:
        return await WadoPlace(Door(f"{orthanc.http}/wado", name="WADO", limits=Limits(), warn=print)).echo()

    assert anyio.run(main) == 404


def test_a_request_names_all_three_uids_and_leaves_the_slash_as_it_is(series: list[Sample]) -> None:
    fetched = Fetched(serving(series), want_of(series[:1]))
    (seen,) = fetched.seen
    assert dict(seen.query) == {
        "requestType": "WADO", "studyUID": series[0].study_uid, "seriesUID": series[0].series_uid,
        "objectUID": series[0].sop_uid, "contentType": "application/dicom", "transferSyntax": "*",
    }  # fmt: skip
    assert "contentType=application/dicom&" in seen.target and "%" not in seen.target
    assert seen.path == "/wado" and seen.headers["accept"] == "application/dicom"


def test_a_server_that_finds_an_instance_by_its_own_uid_is_told_no_more(series: list[Sample]) -> None:
    fetched = Fetched(serving(series), want_of(series), times=2)
    assert fetched.ending == Ending() and fetched.is_all_of(series)
    is_full = ["seriesUID" in dict(seen.query) for seen in fetched.seen]
    assert 1 <= sum(is_full) <= GETS and not any(is_full[len(series) :])


@pytest.mark.parametrize("says", [Reply(400), Reply(404), Reply(500), PAGE])
def test_a_server_that_wants_all_three_uids_gets_them(series: list[Sample], says: Reply) -> None:
    def strict(seen: Seen) -> Reply | None:
        return None if "seriesUID" in dict(seen.query) else says

    fetched = Fetched(serving(series, strict), want_of(series), times=2)
    assert fetched.ending == Ending() and fetched.is_all_of(series)
    assert all("seriesUID" in dict(seen.query) for seen in fetched.seen[-len(series) :])


def test_a_server_that_gives_another_instance_when_one_is_named_alone_is_seen_through(series: list[Sample]) -> None:
    def confused(seen: Seen) -> Reply | None:
        other = Reply(200, DICOM, series[0].path.read_bytes())
        return None if "seriesUID" in dict(seen.query) else other

    fetched = Fetched(serving(series, confused), want_of(series), times=2)
    assert fetched.ending == Ending() and fetched.is_all_of(series)


def test_several_requests_are_on_their_way_at_a_time(series: list[Sample]) -> None:
    at_a_time = 8
    together = threading.Barrier(at_a_time, timeout=10)
    count = iter(range(100))

    def wait_for_each_other(seen: Seen) -> Reply | None:
        if next(count) < at_a_time:
            together.wait()  # passes only when as many requests are here
        return None

    fetched = Fetched(serving(series, wait_for_each_other), want_of(series))
    assert fetched.ending == Ending() and fetched.is_all_of(series)
    assert len({seen.connection for seen in fetched.seen}) <= GETS


def test_a_server_that_dislikes_any_syntax_is_asked_without_one_from_then_on(series: list[Sample]) -> None:
    def dislike(seen: Seen) -> Reply | None:
        return Reply(406) if "transferSyntax" in dict(seen.query) else None

    fetched = Fetched(serving(series, dislike), want_of(series[:2]), times=2)
    assert fetched.error is None and fetched.is_all_of(series[:2])
    asked = ["transferSyntax" in dict(seen.query) for seen in fetched.seen]
    assert asked.count(False) == 4 and asked[-2:] == [False, False]


def test_one_that_is_not_there_does_not_stop_the_others(series: list[Sample]) -> None:
    fetched = Fetched(serving(series[:3] + series[4:]), want_of(series))
    assert fetched.is_all_of(series[:3] + series[4:])
    assert fetched.ending.status == 404 and not fetched.ending.may_pass
    assert fetched.ending.why.startswith("1 of 12 instances were not given; WADO: ")


@pytest.mark.parametrize("reply", [PAGE, Reply(200, DICOM), Reply(200, DICOM, b"\0" * 500)])
def test_what_is_no_dicom_file_is_never_taken(series: list[Sample], reply: Reply) -> None:
    def spoil(seen: Seen) -> Reply | None:
        return reply if uid_of(seen) == series[5].sop_uid else None

    fetched = Fetched(serving(series, spoil), want_of(series))
    assert fetched.is_all_of(series[:5] + series[6:]) and fetched.ending.status


def test_a_server_that_breaks_on_one_instance_gives_the_others(series: list[Sample]) -> None:
    broken = series[5].sop_uid
    fetched = Fetched(serving(series, lambda seen: Reply(500) if uid_of(seen) == broken else None), want_of(series))
    assert fetched.is_all_of(series[:5] + series[6:]) and fetched.ending.status and fetched.ending.may_pass


def test_a_page_is_named_as_such(series: list[Sample]) -> None:
    fetched = Fetched(PAGE, want_of(series[:1]))
    assert isinstance(fetched.error, RemoteProtocolError) and "an HTML page" in str(fetched.error)


def test_of_a_single_instance_what_is_wrong_is_raised(series: list[Sample]) -> None:
    fetched = Fetched(Reply(404, body=b"who?"), want_of(series[:1]))
    assert isinstance(fetched.error, Refused) and fetched.error.status == 404


def test_an_instance_that_was_not_asked_for_is_not_taken(series: list[Sample]) -> None:
    other = series[1].path.read_bytes()
    fetched = Fetched(Reply(200, DICOM, other), want_of(series[:1]), keeper=Keeper([series[0].sop_uid]))
    assert not fetched.keeper.files and fetched.keeper.refused == [series[1].sop_uid]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_answer_that_is_cut_may_be_whole_the_next_time(series: list[Sample], framing: Any) -> None:
    octets = series[0].path.read_bytes()

    def cut(seen: Seen) -> Reply | None:
        return Reply(200, DICOM, octets, framing=framing, cut=4000) if uid_of(seen) == series[0].sop_uid else None

    fetched = Fetched(serving(series, cut), want_of(series))
    assert fetched.is_all_of(series[1:]) and fetched.ending.may_pass and fetched.keeper.open == 0
    alone = Fetched(serving(series, cut), want_of(series[:1]))
    assert isinstance(alone.error, Disconnected) and not alone.keeper.files


def test_an_answer_that_does_not_say_where_it_ends_proves_nothing(series: list[Sample]) -> None:
    fetched = Fetched(Reply(200, DICOM, series[0].path.read_bytes(), framing="close"), want_of(series[:1]))
    assert isinstance(fetched.error, Disconnected) and not fetched.keeper.files


@pytest.mark.parametrize("reply", [Reply(200, DICOM, b"\0" * 900, cut=100), Reply(500), Reply(503)])
def test_a_server_that_always_fails_ends_it(series: list[Sample], reply: Reply) -> None:
    many = Want(study_uid="1.2", series_uid="1.2.3", instances={f"1.2.3.{n}": "" for n in range(200)})
    fetched = Fetched(reply, many)
    assert isinstance(fetched.error, PeerError) and len(fetched.seen) < 5 * 3 * GETS


def test_who_is_not_let_in_asks_no_more(series: list[Sample]) -> None:
    fetched = Fetched(Reply(403, body=b"no"), want_of(series))
    assert isinstance(fetched.error, Rejected) and len(fetched.seen) <= GETS and fetched.keeper.open == 0


def test_requests_that_hang_end_with_the_one_that_was_not_let_in(series: list[Sample]) -> None:
    first = series[0].sop_uid

    def hang(seen: Seen) -> Reply:
        return Reply(403) if uid_of(seen) == first else Reply(200, DICOM, b"", late_s=30)

    assert isinstance(Fetched(hang, want_of(series)).error, Rejected)


def test_trouble_here_ends_it(series: list[Sample]) -> None:
    class Full(Keeper):
        async def room(self) -> None:
            raise LocalTrouble("no space left")

    fetched = Fetched(serving(series), want_of(series), keeper=Full())
    assert isinstance(fetched.error, LocalTrouble) and not fetched.seen


def test_it_cannot_be_asked_and_says_what_can() -> None:
    async def ask() -> None:
        place = WadoPlace(Door("http://127.0.0.1:1", name="WADO", limits=Limits(), warn=print))
        async with place.session() as session:
            session.find(Ask(level=Level.STUDY, keys={}))

    with pytest.raises(Rejected, match=r'cannot be asked.* Set retrieve = "NAME"'):
        anyio.run(ask)


@pytest.mark.parametrize(
    "script, status",
    [
        ((Reply(400),), 0),
        ((PAGE,), 0),
        ((Reply(404), Reply(405)), 0),
        ((Reply(404), Reply(404)), 404),
    ],
)
def test_echo_tells_a_service_from_its_absence(script: tuple[Reply, ...], status: int) -> None:
    async def main(url: str) -> int:
        return await WadoPlace(Door(url, name="WADO", limits=Limits(timeout_s=5), warn=print)).echo()

    with Web(*script) as web:
        assert anyio.run(main, web.url) == status
