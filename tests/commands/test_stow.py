"""`dcmsync push` and `sync` to DICOMweb services, as people run them: Orthanc, and a server that misbehaves."""

import json
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests import peers, samples
from tests.conftest import Start
from tests.fakes.stow import Stow
from tests.fakes.web import Reply, Seen, Web
from tests.trees import data_set
from tests.workdir import Done, Workdir

pytestmark = pytest.mark.slow
SEED = 511


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 5 instances."""
    return samples.make_series(tmp_path_factory.mktemp("made"), studies=2, series=2, instances=5, seed=SEED)


@pytest.fixture
def folder(made: list[samples.Sample]) -> Path:
    return made[0].path.parents[2]


@pytest.fixture(scope="module")
def _web(start_for_module: Start) -> peers.Peer:
    return start_for_module(peers.orthanc, dicomweb=True)


@pytest.fixture
def pacs(_web: peers.Peer) -> peers.Peer:
    """Orthanc with its plugin, empty."""
    _web.clear()
    return _web


def base(pacs: peers.Peer) -> str:
    return f"{pacs.http}/dicom-web"


def counts(done: Done) -> dict[str, int]:
    """Outcome -> number of instances, over all series outcomes."""
    found: dict[str, int] = {}
    for record in done.of_type("outcome"):
        for result in ("stored", "present", "failed", "conflict"):
            if record["level"] != "instance" and result in record:
                found[result] = found.get(result, 0) + record[result]
    return found


def failures(done: Done) -> dict[str, tuple[str, str | None]]:
    """SOP Instance UID -> reason and status, of what failed."""
    return {
        record["SOPInstanceUID"]: (record["reason"], record.get("status"))
        for record in done.of_type("outcome")
        if record["level"] == "instance" and record["outcome"] == "failed"
    }


def held(pacs: peers.Peer) -> dict[str, bytes]:
    """SOP Instance UID -> the file that Orthanc holds."""
    found = {}
    for one in pacs.rest("GET", "/instances?expand"):
        with urlopen(f"{pacs.http}/instances/{one['ID']}/file") as answer:
            found[one["MainDicomTags"]["SOPInstanceUID"]] = answer.read()
    return found


# Orthanc


def test_a_folder_arrives_octet_by_octet_and_the_second_time_nothing(
    workdir: Workdir, pacs: peers.Peer, folder: Path, made: list[samples.Sample]
) -> None:
    dry = workdir.run("push", base(pacs), folder, "--dry-run")
    assert (dry.status, counts(dry), pacs.instances()) == (0, {"stored": 20}, 0), dry
    done = workdir.run("push", base(pacs), folder)
    assert (done.status, counts(done), done.stderr) == (0, {"stored": 20}, ""), done
    assert held(pacs) == {sample.sop_uid: sample.path.read_bytes() for sample in made}
    again = workdir.run("push", base(pacs), folder)
    assert (again.status, counts(again)) == (0, {"present": 20}), again
    counted = workdir.run("push", base(pacs), folder, "--trust", "counts")
    assert (counted.status, counts(counted)) == (0, {"present": 20}), counted


@pytest.mark.parametrize("verify", ["none", "uids", "content"])
def test_each_way_to_prove(workdir: Workdir, pacs: peers.Peer, folder: Path, verify: str) -> None:
    done = workdir.run("push", base(pacs), folder, "--verify", verify)
    assert (done.status, counts(done)) == (0, {"stored": 20}), done


def test_what_is_no_whole_instance_is_named_and_not_sent(
    workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample]
) -> None:
    ours = workdir.path / "in"
    shutil.copytree(made[0].path.parent, ours)
    (ours / "cut.dcm").write_bytes(made[7].path.read_bytes()[:-100])
    done = workdir.run("push", base(pacs), "./in")
    assert (done.status, pacs.instances(), counts(done)) == (3, 5, {"stored": 5}), done


def test_other_content_is_a_conflict_and_force_replaces_it(
    workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample]
) -> None:
    ours = workdir.path / "in"
    shutil.copytree(made[0].path.parent, ours)
    assert workdir.run("push", base(pacs), "./in").status == 0
    changed = ours / made[1].path.name
    octets = bytearray(changed.read_bytes())
    octets[-2] ^= 1
    changed.write_bytes(octets)
    looked = workdir.run("push", base(pacs), "./in", "--trust", "content", "--itemize")
    assert (looked.status, counts(looked)) == (3, {"present": 4, "conflict": 1}), looked
    assert held(pacs)[made[1].sop_uid] == made[1].path.read_bytes()
    forced = workdir.run("push", base(pacs), "./in", "--force", "--verify", "content")
    assert (forced.status, counts(forced)) == (0, {"stored": 5}), forced
    assert held(pacs)[made[1].sop_uid] == bytes(octets)


def test_members_of_an_archive_and_records_are_sent(
    workdir: Workdir, pacs: peers.Peer, folder: Path, made: list[samples.Sample]
) -> None:
    with zipfile.ZipFile(workdir.path / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, sample in enumerate(made[:10]):
            archive.write(sample.path, f"{number}.dcm")
    zipped = workdir.run("push", base(pacs), "some.zip")
    assert (zipped.status, counts(zipped)) == (0, {"stored": 10}), zipped
    missing = workdir.run("diff", folder, base(pacs))
    assert missing.status == 1, missing
    rest = workdir.run("push", base(pacs), stdin=missing.stdout)
    assert (rest.status, counts(rest)) == (0, {"stored": 10}), rest
    assert {uid: octets[-1000:] for uid, octets in held(pacs).items()} == {
        sample.sop_uid: sample.path.read_bytes()[-1000:] for sample in made
    }


def test_sync_from_a_folder_and_between_dimse_and_dicomweb_both_ways(
    workdir: Workdir, pacs: peers.Peer, orthanc: peers.Peer, folder: Path, made: list[samples.Sample]
) -> None:
    up = workdir.run("sync", folder, base(pacs))
    assert (up.status, counts(up)) == (0, {"stored": 20}), up
    over = workdir.run("sync", base(pacs), orthanc.locator, "--all")
    assert (over.status, counts(over)) == (0, {"stored": 20}), over
    pacs.clear()
    back = workdir.run("sync", orthanc.locator, base(pacs), "--all", "--verify", "content")
    assert (back.status, counts(back)) == (0, {"stored": 20}), back
    found = workdir.run("diff", folder, base(pacs))
    assert (found.status, found.of_type("instance")) == (0, []), found
    here = {sample.sop_uid: data_set(sample.path) for sample in made}
    there = {uid: octets[144 + int.from_bytes(octets[140:144], "little") :] for uid, octets in held(pacs).items()}
    assert there == here


def test_what_orthanc_filters_away_fails_alone(
    workdir: Workdir, start: Start, folder: Path, made: list[samples.Sample]
) -> None:
    script = workdir.path / "filter.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin) return dicom['InstanceNumber'] ~= '3' end")
    pacs = start(peers.orthanc, dicomweb=True, settings={"LuaScripts": [str(script)]})
    done = workdir.run("push", base(pacs), folder)
    assert (done.status, pacs.instances(), counts(done)) == (3, 16, {"stored": 16, "failed": 4}), done
    assert set(failures(done)) == {made[at].sop_uid for at in (2, 7, 12, 17)}


# A server that misbehaves


def test_what_a_server_says_of_each_instance_is_the_outcome(
    workdir: Workdir, folder: Path, made: list[samples.Sample]
) -> None:
    uids = [sample.sop_uid for sample in made]
    stow = Stow(
        reasons={uids[0]: 0xA900, uids[1]: 0x0122}, warnings={uids[2]: 0xB000}, silent=frozenset([uids[3]]),
        spoils=frozenset([uids[4]]),
    )  # fmt: skip
    with Web(stow) as web:
        done = workdir.run("push", web.url, folder)
    assert (done.status, counts(done)) == (3, {"stored": 16, "failed": 4}), done
    assert failures(done) == {
        uids[0]: ("refused", "0xA900"), uids[1]: ("refused", "0x0122"), uids[3]: ("refused", "0x0110"),
        uids[4]: ("refused", "400"),
    }  # fmt: skip
    odd = [record for record in done.of_type("outcome") if record.get("reason") == "warning"]
    assert [(record["SOPInstanceUID"], record["status"]) for record in odd if record["level"] == "instance"] == [
        (uids[2], "0xB000")
    ]


def test_a_server_that_lists_what_it_does_not_keep_is_found_out(workdir: Workdir, folder: Path) -> None:
    with Web(Stow(keeps=False)) as web:
        done = workdir.run("push", web.url, folder)
    assert (done.status, counts(done)) == (3, {"failed": 20}), done
    assert {reason for reason, _ in failures(done).values()} == {"missing"}


def test_a_server_with_room_for_little_gets_all(workdir: Workdir, folder: Path) -> None:
    stow = Stow(most_octets=20_000)
    with Web(stow) as web:
        done = workdir.run("push", web.url, folder)
    assert (done.status, counts(done)) == (0, {"stored": 20}), done


def test_a_server_that_is_busy_at_first_gets_all(workdir: Workdir, folder: Path) -> None:
    stow = Stow(before=lambda nth: Reply(503, {"Retry-After": "0"}) if nth < 3 else None)
    with Web(stow) as web:
        done = workdir.run("push", web.url, folder)
    assert (done.status, counts(done)) == (0, {"stored": 20}), done


def test_a_server_that_breaks_requests_gets_all(workdir: Workdir, folder: Path) -> None:
    stow = Stow(before=lambda nth: Reply(reset="before") if nth < 3 else None)
    with Web(stow) as web:
        done = workdir.run("push", web.url, folder)
    assert (done.status, counts(done)) == (0, {"stored": 20}), done


def test_a_server_that_has_them_already_is_asked_for_the_proof(
    workdir: Workdir, folder: Path, made: list[samples.Sample]
) -> None:
    stow = Stow()
    with Web(stow) as web:
        assert workdir.run("push", web.url, folder).status == 0
        stow.reasons = dict.fromkeys((sample.sop_uid for sample in made), 0x0111)
        done = workdir.run("push", web.url, folder, "--force")
        assert (done.status, counts(done)) == (0, {"stored": 20}), done
        stow.homes.clear()
        lied = workdir.run("push", web.url, folder)
    assert (lied.status, counts(lied)) == (3, {"failed": 20}), lied


def test_a_url_that_is_none_of_dicomweb_is_said_to_be(workdir: Workdir, folder: Path) -> None:
    with Web(Reply(404, body=b"nothing here")) as web:
        done = workdir.run("push", web.url, folder)
    assert done.status == 5 and "takes nothing by STOW-RS" in done.stderr, done


def test_places_that_take_nothing_and_wishes_that_cannot_be(workdir: Workdir, folder: Path) -> None:
    for place in ("wado-uri+http://127.0.0.1:1/wado", "mint+http://127.0.0.1:1/mint"):
        done = workdir.run("push", place, folder)
        assert done.status == 2 and "takes nothing" in done.stderr, done
    committed = workdir.run("push", "http://127.0.0.1:1/x", folder, "--verify", "commit")
    assert committed.status == 2 and "storage commitment" in committed.stderr, committed


def test_edits_are_made_on_the_way(workdir: Workdir, folder: Path, made: list[samples.Sample]) -> None:
    stow = Stow()
    with Web(stow) as web:
        done = workdir.run("push", web.url, folder, "--edit", "PatientName=Anon^Ymous")
    assert (done.status, counts(done)) == (0, {"stored": 20}), done
    assert all(b"Anon^Ymous" in octets and b"Sample^Patient" not in octets for octets in stow.stored.values())


def test_a_route_leads_to_web_servers_and_folders_at_once(
    workdir: Workdir, folder: Path, made: list[samples.Sample]
) -> None:
    stow = Stow()
    with Web(stow) as web:
        config = f'[endpoints.web]\nlocator = "{web.url}"\n[[routes.r.rules]]\nto = ["web", "./here"]\n'
        (workdir.path / "c.toml").write_text(config)
        done = workdir.run("sync", folder, "--route", "r", "--config", "c.toml")
    assert (done.status, counts(done)) == (0, {"stored": 40}), done
    assert len(stow.stored) == len(list((workdir.path / "here").rglob("*.dcm"))) == 20


def test_what_arrives_by_dimse_is_forwarded_by_stow(
    workdir: Workdir, made: list[samples.Sample], require: Callable[[str], str]
) -> None:
    require("storescu")
    stow = Stow()
    with Web(stow) as web:
        (workdir.path / "c.toml").write_text(f'[[routes.r.rules]]\nto = ["{web.url}"]\n')
        port = peers.free_port()
        options = ("--config", "c.toml", "--port", str(port), "--spool", "spool")
        process = workdir.start("route", "r", *options)
        try:
            peers.wait_for(lambda: _listens(port), what="route")
            node = peers.Peer(ae="DCMSYNC", port=port, folder=workdir.path, process=process)
            peers.storescu(node, [sample.path for sample in made])
            peers.wait_for(lambda: len(stow.stored) == 20, what="forwarding")
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert set(stow.stored) == {sample.sop_uid for sample in made}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((peers.HOST, port)) == 0


def test_an_instance_without_a_head_gets_one(workdir: Workdir, pacs: peers.Peer, made: list[samples.Sample]) -> None:
    bare = data_set(made[0].path)
    (workdir.path / "bare").write_bytes(bare)
    done = workdir.run("push", base(pacs), "./bare")
    assert (done.status, counts(done)) == (0, {"stored": 1}), done
    [octets] = held(pacs).values()
    assert octets.endswith(bare) and octets[128:132] == b"DICM"


def test_a_large_instance_is_sent_with_bounded_memory(workdir: Workdir) -> None:
    octets = 300_000_000
    data = b"".join(
        samples.element(tag, b"UI", value)
        for tag, value in (
            (0x00080016, samples.CT_IMAGE_STORAGE), (0x00080018, "2.25.9"), (0x0020000D, "2.25.7"),
            (0x0020000E, "2.25.8"),
        )
    )  # fmt: skip
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, octets)
    whole = samples.part10(data + pixels, sop_class_uid=samples.CT_IMAGE_STORAGE, sop_uid="2.25.9")
    with (workdir.path / "large.dcm").open("wb") as file:
        file.write(whole)
        file.truncate(len(whole) + octets)
    peaks: list[int] = []

    def take(request: Seen) -> Reply:
        assert len(request.body) > octets
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
        said = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["2.25.9"]}}]}}
        return Reply(200, {}, json.dumps(said).encode())

    with Web(take) as web:
        process = workdir.start("push", web.url, "large.dcm", "--verify", "none", "--force")
        stdout, stderr = process.communicate(timeout=50)
    assert process.returncode == 0, (stdout, stderr)
    assert peaks[0] < 120_000  # kB
