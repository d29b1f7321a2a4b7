"""`dcmsync route`, and `sync --route`: real senders, real destinations, and processes that are killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dcmsync.wire.dimse.operations import STUDY_ROOT_FIND, VERIFICATION
from dcmsync.wire.upperlayer.identity import Identity, Kind
from tests import nodes, peers, samples, trees
from tests.certs import Authority
from tests.conftest import Start
from tests.workdir import Workdir

pytestmark = pytest.mark.slow

Require = Callable[[str], str]
_ROOT = Path(__file__).resolve().parent.parent.parent
EVERYTHING_TO = '[[routes.r.rules]]\nto = ["{}"]\n'


class Routing(nodes.Serving):
    """A running `dcmsync route`. `said` is what it wrote to standard error."""

    @property
    def said(self) -> str:
        return self.folder.joinpath("route.err").read_text()

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == "outcome"]

    def send(self, *paths: Path, tool: str = "storescu") -> None:
        """Sends files, or all below folders; fails unless each one was taken."""
        recursive = ["+sd", "+r"]
        peers.dcmtk(tool, *recursive, "-aec", self.ae, self.host, str(self.port), *paths)


@contextmanager
def routing(folder: Path, config: str, *options: str, spool: str = "spool") -> Iterator[Routing]:
    """`dcmsync route r` in a folder, on a free port; killed at the end, if it still runs then."""
    folder.joinpath("route.toml").write_text(config)
    with folder.joinpath("route.err").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "dcmsync", "route", "r", "--config", "route.toml", "--spool", spool, "--port", "0",
             *options],
            env={**{k: v for k, v in os.environ.items() if not k.startswith("DCMSYNC_")}, "PYTHONPATH": str(_ROOT)},
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    try:
        yield Routing(process, folder)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def made(tmp_path: Path) -> list[samples.Sample]:
    """Two CT studies of two series with two instances each."""
    return samples.make_series(tmp_path / "made", studies=2, series=2, instances=2)


@pytest.fixture
def folder(workdir: Workdir) -> Path:
    return workdir.path


def read(paths: list[Path]) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in paths]


def test_three_destinations_get_what_their_rules_say(
    folder: Path, made: list[samples.Sample], tmp_path: Path, orthanc: peers.Peer, storescp: peers.Peer
) -> None:
    mr = samples.make_series(tmp_path / "mr", instances=3, modality="MR", seed=2)
    config = f"""
        [endpoints.pacs]
        locator = "{orthanc.locator}"
        [selectors.second]
        all_of = ["Modality=CT"]
        none_of = ["StudyDescription~study 1$"]
        [routes.r]
        match = "all"
        exclude = ["PatientID=S3*"]
        default = ["./rest"]
        [[routes.r.rules]]
        when = ["Modality=CT", "SliceThickness<1.5"]
        to = ["pacs", "./ct.zip"]
        [[routes.r.rules]]
        when = "@second"
        to = ["{storescp.locator}"]
        edits = ["PatientName=Anon^Ümous", "PatientID=X1", "PatientBirthDate-", "uid-remap"]
    """
    excluded = samples.make_series(tmp_path / "excluded", instances=1, seed=3)
    with routing(folder, config, "--verify", "none", "--inactive-timeout", "1") as running:
        running.send(tmp_path / "made")
        running.send(tmp_path / "mr", tmp_path / "excluded", tool="dcmsend")
        assert running.wait() == 0, running.said
    assert orthanc.instances() == len(made)
    trees.check_whole(folder / "rest", mr)
    received = read(trees.files(storescp.folder / "received"))
    originals = {each.sop_uid: each for each in made if each.patient_id == "S1P0002"}
    assert len(received) == len(originals) == 4
    by_new = {event["SOPInstanceUID"]: event["original"] for event in running.outcomes if "original" in event}
    for each in received:
        original = pydicom.dcmread(originals[by_new[each.SOPInstanceUID]].path)
        assert (str(each.PatientName), each.PatientID, "PatientBirthDate" in each) == ("Anon^Ümous", "X1", False)
        assert each.file_meta.MediaStorageSOPInstanceUID == each.SOPInstanceUID != original.SOPInstanceUID
        assert each.PixelData == original.PixelData
    assert len({each.StudyInstanceUID for each in received}) == 1
    skipped = [event for event in running.outcomes if event["outcome"] == "skipped"]
    assert [event["SOPInstanceUID"] for event in skipped] == [excluded[0].sop_uid]
    assert {event["destination"] for event in running.outcomes if event["outcome"] == "stored"} == {
        "pacs", "./ct.zip", "./rest", storescp.locator,
    }  # fmt: skip
    assert running.events[-1] == {"type": "end", "format": 1, "complete": True, "records": len(running.outcomes) + 1}
    assert not os.listdir(folder / "spool" / "waiting")
    assert peers.dcmtk("dcmdump", "-q", *trees.files(storescp.folder / "received")[:1])


def test_a_destination_that_is_down_gets_it_all_when_it_is_up_and_keeps_nobody_waiting(
    folder: Path, made: list[samples.Sample], tmp_path: Path, require: Require
) -> None:
    require("storescp")
    port = peers.free_port()
    config = f"[routes.r]\ndefault = ['LATE@127.0.0.1:{port}', './now']\n"
    with routing(folder, config, "--verify", "none") as running:
        running.send(tmp_path / "made")
        running.wait_for_event(count=len(made), outcome="stored", destination="./now")
        trees.check_nothing_partial(folder / "now", made)
        assert len(trees.files(folder / "now")) == len(trees.files(folder / "spool" / "waiting")) == len(made)
        late = tmp_path / "late"
        late.mkdir()
        scp = subprocess.Popen([require("storescp"), "-aet", "LATE", "-od", late, str(port)])
        try:
            running.wait_for_event(count=len(made), outcome="stored", destination=f"LATE@127.0.0.1:{port}")
        finally:
            scp.kill()
            scp.wait()
        assert running.stop() == 0, running.said
    assert {each.SOPInstanceUID for each in read(trees.files(late))} == {each.sop_uid for each in made}
    assert "trying again in" in running.said
    assert len(running.outcomes) == 2 * len(made)


def test_what_was_taken_survives_sigkill_and_decisions_do(
    folder: Path, made: list[samples.Sample], tmp_path: Path, start: Start
) -> None:
    down = f"DOWN@127.0.0.1:{peers.free_port()}"
    with routing(folder, f"[endpoints.late]\nlocator = '{down}'\n[routes.r]\ndefault = ['late', './now']\n") as running:
        running.send(tmp_path / "made")
        running.wait_for_event(count=len(made), outcome="stored", destination="./now")
        running.process.send_signal(signal.SIGKILL)
        running.wait()
    assert len(trees.files(folder / "spool" / "waiting")) == len(made)
    up = start(peers.storescp)
    rules_of_today = f"[endpoints.late]\nlocator = '{up.locator}'\n[routes.r]\ndefault = ['./elsewhere']\n"
    *_, late = samples.make_series(tmp_path / "late", instances=3)  # of a study whose others wait
    with routing(folder, rules_of_today, "--verify", "none", "--inactive-timeout", "2") as running:
        running.send(late.path)
        assert running.wait() == 0, running.said
    made.append(late)
    received = read(trees.files(up.folder / "received"))
    assert sorted(each.SOPInstanceUID for each in received) == sorted(each.sop_uid for each in made)
    assert not (folder / "elsewhere").exists()
    again = [event for event in running.outcomes if event["destination"] == "./now"]
    assert [event["SOPInstanceUID"] for event in again] == [late.sop_uid]  # not those that were there
    assert not os.listdir(folder / "spool" / "waiting")


@pytest.mark.parametrize("after", [1, 7, 19])
def test_killed_in_the_middle_nothing_is_lost_and_little_is_sent_twice(
    folder: Path, tmp_path: Path, storescp: peers.Peer, after: int
) -> None:
    made = samples.make_series(tmp_path / "many", instances=40)
    config = EVERYTHING_TO.format(storescp.locator)
    told = []
    with routing(folder, config, "--verify", "none") as running:
        running.send(tmp_path / "many")
        running.wait_for_event(count=after, outcome="stored")
        running.process.send_signal(signal.SIGKILL)
        running.wait()
        told += [event["SOPInstanceUID"] for event in running.outcomes]
    with routing(folder, config, "--verify", "none", "--inactive-timeout", "1") as running:
        assert running.wait() == 0, running.said
        told += [event["SOPInstanceUID"] for event in running.outcomes]
    received = read(trees.files(storescp.folder / "received"))
    assert {each.SOPInstanceUID for each in received} == {each.sop_uid for each in made} == set(told)
    assert len(told) <= len(made) + 1  # one outcome at most was written and not yet noted


def test_a_signal_ends_it_and_says_what_still_waits(folder: Path, made: list[samples.Sample], tmp_path: Path) -> None:
    config = f"[routes.r]\ndefault = ['DOWN@127.0.0.1:{peers.free_port()}', './now']\n"
    with routing(folder, config, "--timeout", "20") as running:
        running.send(tmp_path / "made")
        running.wait_for_event(count=len(made), outcome="stored", destination="./now")
        assert running.stop(signal.SIGTERM) == 4
    assert running.events[-1]["complete"] is False and running.events[-1]["reason"] == "waiting"
    assert f"{len(made)} of what it is to get still wait" in running.said
    assert not list((folder / "spool").rglob(".dcmsync-*"))


def test_what_is_refused_for_good_is_kept_in_the_spool(
    folder: Path, made: list[samples.Sample], tmp_path: Path
) -> None:
    there = trees.default_path(folder / "dest", made[0])
    there.parent.mkdir(parents=True)
    octets = bytearray(made[0].path.read_bytes())
    octets[-1] ^= 1
    there.write_bytes(octets)
    with routing(folder, EVERYTHING_TO.format("./dest"), "--inactive-timeout", "1") as running:
        running.send(tmp_path / "made")
        assert running.wait() == 3, running.said
    assert [event["outcome"] for event in running.outcomes].count("conflict") == 1
    (kept,) = trees.files(folder / "spool" / "failed")
    assert trees.data_set(kept) == trees.data_set(made[0].path)
    assert there.read_bytes() == octets


def test_one_study_stays_together_whatever_its_instances_say(folder: Path, tmp_path: Path) -> None:
    made = samples.make_series(tmp_path / "made", series=2, instances=2)
    config = '[[routes.r.rules]]\nwhen = "SeriesNumber=1"\nto = ["./one"]\n[[routes.r.rules]]\nto = ["./two"]\n'
    with routing(folder, config, "--inactive-timeout", "1") as running:
        for sample in made:
            running.send(sample.path)
        assert running.wait() == 0
    trees.check_whole(folder / "one", made)
    with routing(folder, f'[routes.r]\nper = "series"\n{config}', "--inactive-timeout", "1", spool="spool2") as running:
        running.send(*[sample.path for sample in made[2:]])
        assert running.wait() == 0
    trees.check_whole(folder / "two", made[2:])


def test_it_takes_instances_and_answers_nothing_else(folder: Path, made: list[samples.Sample]) -> None:
    cut = folder / "cut.dcm"
    cut.write_bytes(made[0].path.read_bytes()[:-100])
    with routing(folder, EVERYTHING_TO.format("./dest"), "--allow", "FRIEND") as running:
        where = ["-aec", "DCMSYNC", "127.0.0.1", str(running.port)]
        peers.dcmtk("echoscu", "-aet", "FRIEND", *where)
        assert peers.dcmtk("echoscu", "-aet", "STRANGER", *where, check=False).returncode
        assert peers.dcmtk("echoscu", "-aet", "FRIEND", "-aec", "OTHER", *where[2:], check=False).returncode
        find = ["-S", "-k", "QueryRetrieveLevel=STUDY", *where]
        assert peers.dcmtk("findscu", "-aet", "FRIEND", *find, check=False).returncode
        assert peers.dcmtk("storescu", "-aet", "FRIEND", *where, cut, check=False).returncode
        assert running.stop() == 0
    assert not running.outcomes and not (folder / "dest").exists()


def test_a_spool_is_used_by_one(folder: Path) -> None:
    config = EVERYTHING_TO.format("./dest")
    with routing(folder, config), subprocess.Popen(
        [sys.executable, "-m", "dcmsync", "route", "r", "--config", "route.toml", "--spool", "spool", "--port", "0"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as second:  # fmt: skip
        _, said = second.communicate(timeout=20)
    assert second.returncode == 7 and b"in use by another process" in said


@pytest.mark.parametrize("config, options, words", [
    ("", ["--spool", "s"], "there is no route 'r'"),
    ('[routes.r]\ndefault = ["./x"]\n', [], "--spool"),
    ("[routes.r]\n", ["--spool", "s"], "leads nowhere"),
    ('[routes.r]\ndefault = ["nowhere"]\n', ["--spool", "s"], "no place"),
    ('[routes.r]\ndefault = ["./x"]\nexclude = ["Modalty=CT"]\n', ["--spool", "s"], "Modality"),
    ('[routes.r]\ndefault = ["./x"]\nedits = ["StudyInstanceUID=1"]\n', ["--spool", "s"], "not edited"),
    ('[routes.r]\ndefault = ["./x"]\n', ["--spool", "s", "--bind", "0.0.0.0"], "nothing says which may"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_begins(
    workdir: Workdir, config: str, options: list[str], words: str
) -> None:
    workdir.path.joinpath("route.toml").write_text(config)
    done = workdir.run("route", "r", "--config", "route.toml", "--port", "0", *options)
    assert done.status == 2 and words in done.stderr, done
    assert not (workdir.path / "s").exists()


# sync --route


def test_sync_sends_each_series_where_the_rules_say_and_fetches_an_example_where_they_need_it(
    workdir: Workdir, made: list[samples.Sample], tmp_path: Path, orthanc: peers.Peer
) -> None:
    mr = samples.make_series(tmp_path / "mr", instances=2, modality="MR", seed=2)
    orthanc.store(sample.path for sample in (*made, *mr))
    workdir.path.joinpath("c.toml").write_text(f"""
        [endpoints.pacs]
        locator = "{orthanc.locator}"
        [routes.r]
        per = "series"
        exclude = ["Modality=MR"]
        rules = [
            {{when = ["RescaleIntercept=-1024", "SeriesNumber=1"], to = ["./one", "./both"]}},
            {{when = "RescaleIntercept=-1024", to = ["./two"], edits = ["PatientID=Z"]}},
        ]
    """)
    options = ["--route", "r", "--all", "--config", "c.toml"]
    done = workdir.run("sync", "pacs", *options)
    assert done.status == 0, done
    ones = [sample for sample in made if "series0001" in str(sample.path)]
    trees.check_whole(workdir.path / "one", ones)
    trees.check_whole(workdir.path / "both", ones)
    others = read(trees.files(workdir.path / "two"))
    assert {each.PatientID for each in others} == {"Z"} and len(others) == 4
    assert [each["reason"] for each in done.records if each.get("outcome") == "skipped"] == ["route"]
    again = workdir.run("sync", "pacs", *options)
    assert again.status == 0 and {each["outcome"] for each in again.of_type("outcome")} == {"present", "skipped"}


@pytest.mark.parametrize("more", [["--to", "./x"], ["--edit", "PatientID=1"], ["--delete", "--max-delete", "1"]])
def test_a_route_says_itself_what_options_would_say(workdir: Workdir, more: list[str]) -> None:
    workdir.path.joinpath("c.toml").write_text('[routes.r]\ndefault = ["./x"]\n')
    (workdir.path / "src").mkdir()
    done = workdir.run("sync", "./src", "--route", "r", "--config", "c.toml", *more)
    assert done.status == 2 and "ask for two things" in done.stderr, done


# Who may come, as with serve


def storescu(running: Routing, path: Path, *options: str | Path) -> int:
    """How DCMTK's storescu ends, with one instance."""
    line = [*options, "-to", "5", "-ta", "5", "-aec", running.ae, "localhost", str(running.port), path]
    return peers.dcmtk("storescu", *line, check=False).returncode


def test_a_sender_comes_by_tls_and_nobody_comes_in_plain(
    folder: Path, made: list[samples.Sample], tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path / "authority"), Authority(tmp_path / "other")
    own, guest = authority.issue("localhost", "127.0.0.1"), other.issue("guest")
    config = f"[local]\ncertificate = '{own.certificate}'\nkey = '{own.key}'\n" + EVERYTHING_TO.format("./out")
    known = ("+tls", guest.key, guest.certificate, "+cf", authority.path)
    with routing(folder, config, "--tls", "--ca", str(other.path)) as running:
        assert running.wait_for_event(type="listening")["tls"] is True
        assert storescu(running, made[0].path, *known) == 0
        running.wait_for_event(outcome="stored")
        assert storescu(running, made[1].path) != 0
        peers.wait_for(lambda: "speaks plain DICOM on this port, not TLS" in running.said)
        assert storescu(running, made[1].path, "+tla", "+cf", authority.path) != 0
        peers.wait_for(lambda: "the peer shows no certificate" in running.said)
        assert running.stop() == 0
    assert [each.name for each in trees.files(folder / "out")] == [f"{made[0].sop_uid}.dcm"]


def test_only_addresses_on_the_list_may_send(folder: Path) -> None:
    with routing(folder, EVERYTHING_TO.format("./out"), "--allow-from", "127.0.0.2") as running:
        for source, kind in (("127.0.0.1", b"\3"), ("127.0.0.2", b"\2")):
            with nodes.Caller(running.port, source=source) as caller:
                assert caller.request([(samples.CT_IMAGE_STORAGE, (samples.EXPLICIT_LITTLE,))])[:1] == kind


def test_who_says_nobody_may_not_send_where_an_identity_is_required(folder: Path) -> None:
    storage = [(samples.CT_IMAGE_STORAGE, (samples.EXPLICIT_LITTLE,))]
    ada = Identity(kind=Kind.USER_NAME, primary=b"ada", wants_response=True)
    with routing(folder, EVERYTHING_TO.format("./out"), "--require-identity") as running:
        with nodes.Caller(running.port) as caller:
            assert caller.request(storage)[:1] == b"\3"
        with nodes.Caller(running.port) as caller:
            assert caller.associate(storage, identity=ada).identity_response == b""


def test_storage_and_echo_are_all_that_is_answered(folder: Path) -> None:
    offered = [(uid, (samples.EXPLICIT_LITTLE,)) for uid in (samples.CT_IMAGE_STORAGE, VERIFICATION, STUDY_ROOT_FIND)]
    with routing(folder, EVERYTHING_TO.format("./out")) as running, nodes.Caller(running.port) as caller:
        assert [each.result for each in caller.associate(offered).results] == [0, 0, 3]


@pytest.mark.parametrize("options", [("--bind", "0.0.0.0"), ("--certificate", "a.pem"), ("--tls",)])
def test_an_open_door_that_nobody_asked_for_is_refused(workdir: Workdir, options: tuple[str, ...]) -> None:
    workdir.path.joinpath("c.toml").write_text(EVERYTHING_TO.format("./out"))
    done = workdir.run("route", "r", "--config", "c.toml", "--spool", "spool", "--port", "0", *options)
    assert done.status == 2, done
