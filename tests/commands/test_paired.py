"""Places of which one is asked and another gives: MINT with WADO-URI and RAD-69, QIDO-RS and C-FIND with others."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import peers, samples
from tests.conftest import Start
from tests.fakes.mint import LOGIN, Mint
from tests.fakes.rad69 import Rad69, Style
from tests.fakes.web import Web
from tests.samples import Sample
from tests.workdir import Workdir

pytestmark = pytest.mark.slow  # each test is several runs


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return samples.make_series(tmp_path_factory.mktemp("held"), studies=2, series=2, instances=4)


@pytest.fixture(scope="module")
def orthanc(start_for_module: Start, held: list[Sample]) -> peers.Peer:
    peer = start_for_module(peers.orthanc, dicomweb=True)
    peer.store([each.path for each in held])
    return peer


@pytest.fixture
def mint(held: list[Sample]) -> Iterator[Web]:
    with Web(Mint([each.path for each in held])) as web:
        yield web


@pytest.fixture
def rids(held: list[Sample]) -> Iterator[Web]:
    with Web(Rad69([each.path for each in held], repository="1.2.3")) as web:
        yield web


def configure(workdir: Workdir, **endpoints: dict[str, object]) -> None:
    """Writes the configuration of a run."""
    lines: list[str] = []
    for name, keys in endpoints.items():
        lines += [f"[endpoints.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    folder = workdir.path / ".xdg" / "config" / "dcmsync"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text("\n".join(lines))


def mint_with_rids(workdir: Workdir, mint: Web, rids: Web) -> None:
    configure(
        workdir,
        vitrea={"locator": f"mint+{mint.url}", "retrieve": "rids"},
        rids={"locator": f"rad69+{rids.url}", "repository": "1.2.3"},
    )


def below(folder: Path) -> dict[str, bytes]:
    """The files below a folder that are instances, by name."""
    return {path.stem: path.read_bytes() for path in folder.rglob("*.dcm")}


def files_of(held: list[Sample]) -> dict[str, bytes]:
    return {each.sop_uid: each.path.read_bytes() for each in held}


def data_set(octets: bytes) -> bytes:
    """What follows group 0002, whose length stands at octet 140 (PS3.10 §7.1)."""
    return octets[144 + int.from_bytes(octets[140:144], "little") :]


def test_what_mint_lists_is_filtered_and_pulled_by_rad69(
    workdir: Workdir, mint: Web, rids: Web, held: list[Sample]
) -> None:
    mint_with_rids(workdir, mint, rids)
    listed = workdir.run("query", "vitrea", "StudyDate=20240101-20241231", "--level", "series")
    assert listed.status == 0 and len(listed.of_type("series")) == 4, listed
    assert all(record["source"] == "vitrea" for record in listed.of_type("series"))
    chosen = workdir.run("filter", "SeriesNumber=2", f"PatientID={held[0].patient_id}", stdin=listed.stdout)
    pulled = workdir.run("pull", "./archive", stdin=chosen.stdout)
    assert pulled.status == 0, pulled
    assert [record["outcome"] for record in pulled.of_type("outcome")] == ["stored"]
    wanted = held[4:8]
    assert below(workdir.path / "archive") == files_of(wanted)
    assert len(rids.seen) == 1  # one request for the series


def test_what_mint_lists_is_pulled_by_wado_uri(
    workdir: Workdir, mint: Web, orthanc: peers.Peer, held: list[Sample]
) -> None:
    configure(
        workdir,
        vitrea={"locator": f"mint+{mint.url}", "retrieve": "wado"},
        wado={"locator": f"wado-uri+{orthanc.http}/wado"},
    )
    listed = workdir.run("query", "vitrea", "--all")
    chosen = workdir.run("filter", f"StudyInstanceUID={held[0].study_uid}", stdin=listed.stdout)
    pulled = workdir.run("pull", "./archive", stdin=chosen.stdout)
    assert pulled.status == 0, pulled
    assert below(workdir.path / "archive") == files_of(held[:8])
    again = workdir.run("pull", "./archive", stdin=chosen.stdout)
    assert again.status == 0 and {record["outcome"] for record in again.of_type("outcome")} == {"present"}, again


@pytest.mark.parametrize(
    "asked, giving",
    [
        ("{http}/dicom-web", "wado-uri+{http}/wado"),
        ("{locator}", "{http}/dicom-web"),
        ("{locator}", "wado-uri+{http}/wado"),
        ("{http}/dicom-web", "{locator}"),
    ],
    ids=["QIDO-RS and WADO-URI", "C-FIND and WADO-RS", "C-FIND and WADO-URI", "QIDO-RS and C-GET"],
)
def test_any_two_places_can_be_one(
    workdir: Workdir, orthanc: peers.Peer, held: list[Sample], asked: str, giving: str
) -> None:
    told = {"http": orthanc.http, "locator": orthanc.locator}
    configure(
        workdir,
        pacs={"locator": asked.format(**told), "retrieve": "giver"},
        giver={"locator": giving.format(**told)},
    )
    done = workdir.run("sync", "pacs", "./archive", "--all")
    assert done.status == 0, done
    came = below(workdir.path / "archive")
    assert {uid: data_set(octets) for uid, octets in came.items()} == {
        uid: data_set(octets) for uid, octets in files_of(held).items()  # a DIMSE node tells no group 0002
    }
    assert {record["source"] for record in done.of_type("outcome")} == {"pacs"}


def test_diff_and_verify_ask_the_place_that_can_be_asked(
    workdir: Workdir, mint: Web, rids: Web, held: list[Sample]
) -> None:
    mint_with_rids(workdir, mint, rids)
    synced = workdir.run("sync", "vitrea", "./archive", f"PatientID={held[0].patient_id}")
    assert synced.status == 0, synced
    assert workdir.run("diff", "vitrea", "./archive", f"PatientID={held[0].patient_id}").status == 0
    differing = workdir.run("diff", "vitrea", "./archive", "--all")
    assert differing.status == 1, differing
    assert [record["StudyInstanceUID"] for record in differing.of_type("study")] == [held[8].study_uid]
    verified = workdir.run("verify", "--at", "vitrea", stdin=synced.stdout)
    assert verified.status == 0, verified


def test_echo_asks_both(workdir: Workdir, mint: Web, rids: Web) -> None:
    mint_with_rids(workdir, mint, rids)
    assert workdir.run("echo", "vitrea").status == 0
    assert mint.seen and rids.seen
    nobody = {"locator": "rad69+http://127.0.0.1:1"}
    configure(workdir, vitrea={"locator": f"mint+{mint.url}", "retrieve": "rids"}, rids=nobody)
    assert workdir.run("echo", "vitrea").status == 5


def test_what_the_giver_lacks_is_never_stored(workdir: Workdir, mint: Web, held: list[Sample]) -> None:
    lacking = held[5].sop_uid
    with Web(Rad69([each.path for each in held], missing=[lacking])) as rids:
        mint_with_rids(workdir, mint, rids)
        done = workdir.run("sync", "vitrea", "./archive", "--all", "--itemize")
    assert done.status == 3, done
    failed = [record for record in done.of_type("outcome") if record["outcome"] == "failed"]
    assert [record.get("SOPInstanceUID") for record in failed] == [lacking, None]
    assert "XDSMissingDocument" in failed[0]["message"]
    assert below(workdir.path / "archive") == files_of([each for each in held if each.sop_uid != lacking])


def test_an_answer_that_breaks_off_is_asked_for_again(workdir: Workdir, mint: Web, held: list[Sample]) -> None:
    paths = [each.path for each in held]
    whole, cut = Rad69(paths), Rad69(paths, style=Style(is_closed=False, framing="close"))
    with Web(lambda seen: (cut if len(web.seen) < 2 else whole)(seen)) as web:
        mint_with_rids(workdir, mint, web)
        done = workdir.run("sync", "vitrea", "./archive", "--all", "--jobs", "1")
    assert done.status == 0, done
    assert below(workdir.path / "archive") == files_of(held)


def test_who_cannot_be_asked_says_how_to_pair_it(workdir: Workdir, rids: Web) -> None:
    for kind in ("rad69", "wado-uri"):
        done = workdir.run("query", f"{kind}+{rids.url}", "--all")
        assert done.status == 5 and 'Set retrieve = "NAME"' in done.stderr, done


def test_who_gives_nothing_says_how_to_pair_it(workdir: Workdir, mint: Web) -> None:
    listed = workdir.run("query", f"mint+{mint.url}", "--all", "--level", "instance")
    done = workdir.run("pull", "./archive", stdin=listed.stdout)
    assert done.status == 5, done
    assert all('Set retrieve = "NAME"' in record["message"] for record in done.of_type("outcome")), done


def test_records_of_instances_can_be_pulled_from_who_cannot_be_asked(
    workdir: Workdir, rids: Web, held: list[Sample]
) -> None:
    record = {
        "type": "instance", "source": "rids", "StudyInstanceUID": held[0].study_uid,
        "SeriesInstanceUID": held[0].series_uid, "SOPInstanceUID": held[0].sop_uid,
    }  # fmt: skip
    configure(workdir, rids={"locator": f"rad69+{rids.url}", "repository": "1.2.3"})
    done = workdir.run("pull", "./archive", stdin=[record])
    assert done.status == 0, done
    assert below(workdir.path / "archive") == files_of(held[:1])
    lost = workdir.run("pull", "./archive", stdin=[{**record, "SOPInstanceUID": "1.2.3"}])
    assert lost.status == 3 and "XDSMissingDocument" in lost.stdout.decode(), lost


@pytest.mark.parametrize(
    "given, words",
    [
        ({"a": "b"}, "a: retrieve names b, which is no endpoint of the configuration"),
        ({"a": "a"}, "a: retrieve leads in a circle: a -> a"),
        ({"a": "b", "b": "c", "c": "b"}, "a: retrieve leads in a circle: b -> c -> b"),
    ],
)
def test_names_that_are_not_there_and_circles_are_usage_errors(
    workdir: Workdir, given: dict[str, str], words: str
) -> None:
    configure(workdir, **{name: {"locator": "./folder", "retrieve": giver} for name, giver in given.items()})
    done = workdir.run("query", "a", "--all")
    assert done.status == 2 and words in done.stderr, done
    checked = workdir.run("config", "check")
    assert checked.status == 2 and words in checked.stderr, checked


def test_a_name_that_is_nearly_there_is_suggested(workdir: Workdir) -> None:
    configure(workdir, pacs={"locator": "./a", "retrieve": "wad"}, wado={"locator": "./b"})
    assert "Did you mean wado?" in workdir.run("query", "pacs", "--all").stderr


def test_a_login_is_configured(workdir: Workdir, held: list[Sample]) -> None:
    secret = workdir.path / "secret"
    secret.write_text("lovelace\n")
    secret.chmod(0o600)
    script = Mint([each.path for each in held], login=("ada", "lovelace"))
    with Web(script) as web:
        keys = {"locator": f"mint+{web.url}", "user": "ada", "password_file": str(secret), "login": "vitrea"}
        configure(workdir, vitrea={**keys, "login_url": f"{web.url}{LOGIN}"})
        done = workdir.run("query", "vitrea", "--all", "--level", "instance")
        assert done.status == 0 and len(done.of_type("instance")) == 16, done
        assert script.logins == 1
        secret.write_text("byron\n")
        refused = workdir.run("query", "vitrea", "--all")
        assert refused.status == 5 and "the login answered 401" in refused.stderr, refused
        assert "byron" not in refused.stderr
        configure(workdir, vitrea=keys)
        assert workdir.run("query", "vitrea", "--all").status == 2
