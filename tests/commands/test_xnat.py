"""XNAT projects, as people use them: push to the pre-archive, query both, pull what is archived."""

from pathlib import Path

import pytest

from tests import samples
from tests.fakes.web import Reply, Web
from tests.fakes.xnat import Xnat
from tests.trees import data_set
from tests.workdir import Done, Workdir

pytestmark = pytest.mark.slow
SEED = 512


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[samples.Sample]:
    """2 studies of 2 series of 3 instances."""
    folder = tmp_path_factory.mktemp("made")
    return samples.make_series(folder, studies=2, series=2, instances=3, rows=8, columns=8, seed=SEED)


@pytest.fixture
def folder(made: list[samples.Sample]) -> Path:
    return made[0].path.parents[2]


def counts(done: Done) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in done.of_type("outcome"):
        for result in ("stored", "present", "failed", "conflict"):
            if record["level"] != "instance" and result in record:
                found[result] = found.get(result, 0) + record[result]
    return found


def reasons(done: Done) -> set[str]:
    return {record["reason"] for record in done.of_type("outcome") if "reason" in record}


def test_a_folder_is_pushed_and_proven_by_counts(workdir: Workdir, folder: Path, made: list[samples.Sample]) -> None:
    xnat = Xnat("P")
    with Web(xnat) as web:
        done = workdir.run("push", f"xnat+{web.url}/P", folder)
    assert (done.status, counts(done)) == (0, {"stored": 12}), done
    assert len(xnat.sessions) == 2  # one for each study, however many batches
    held = {uid: octets for session in xnat.sessions for uid, octets in session.files.items()}
    assert held == {sample.sop_uid: sample.path.read_bytes() for sample in made}
    assert {session.label for session in xnat.sessions} == {"A000001", "A000002"}
    assert {session.subject for session in xnat.sessions} == {f"S{SEED}P0001", f"S{SEED}P0002"}


@pytest.mark.parametrize("tells", [(), ("scans",)])
def test_what_xnat_does_not_tell_stays_unproven(workdir: Workdir, folder: Path, tells: tuple[str, ...]) -> None:
    xnat = Xnat("P", tells=tells)
    with Web(xnat) as web:
        done = workdir.run("push", f"xnat+{web.url}/P", folder)
    assert done.status == (0 if tells else 3), done
    assert reasons(done) == (set() if tells else {"unproven"})


def test_a_series_that_the_site_filters_away_is_not_called_proven(
    workdir: Workdir, folder: Path, made: list[samples.Sample]
) -> None:
    xnat = Xnat("P", drops=frozenset([made[0].series_uid]))
    with Web(xnat) as web:
        done = workdir.run("push", f"xnat+{web.url}/P", folder)
    assert done.status == 3, done
    odd = [record for record in done.of_type("outcome") if record.get("reason") == "unproven"]
    assert {record["SeriesInstanceUID"] for record in odd} == {made[0].series_uid}


def test_the_pre_archive_and_the_archive_are_listed(
    workdir: Workdir, folder: Path, made: list[samples.Sample]
) -> None:
    xnat = Xnat("P")
    with Web(xnat) as web:
        place = f"xnat+{web.url}/P"
        assert workdir.run("push", place, folder).status == 0
        studies = workdir.run("query", place, "--all")
        assert studies.status == 0, studies
        found = studies.of_type("study")
        assert {record["StudyInstanceUID"] for record in found} == {sample.study_uid for sample in made}
        assert {record["StudyDate"] for record in found} == {"20231231"}
        dated = workdir.run("query", place, "StudyDate=20240101-")
        assert dated.of_type("study") == []
        xnat.archive()
        series = workdir.run("query", place, "--all", "--level", "series")
        assert series.status == 0, series
        assert {record["SeriesInstanceUID"] for record in series.of_type("series")} == {s.series_uid for s in made}
        refused = workdir.run("query", place, "PatientName=A*")
        assert refused.status == 5 and "cannot be asked by PatientName" in refused.stderr, refused


def test_archived_scans_are_pulled_octet_by_octet(workdir: Workdir, folder: Path, made: list[samples.Sample]) -> None:
    xnat = Xnat("P")
    with Web(xnat) as web:
        place = f"xnat+{web.url}/P"
        assert workdir.run("push", place, folder).status == 0
        early = workdir.run("sync", place, "./early", "--all")
        assert early.status != 0, early
        xnat.archive()
        done = workdir.run("sync", place, "./archive", "--all")
        assert (done.status, counts(done)) == (0, {"stored": 12}), done
        again = workdir.run("sync", place, "./archive", "--all")
        assert (again.status, counts(again)) == (0, {"present": 12}), again
    found = {data_set(path) for path in (workdir.path / "archive").rglob("*.dcm")}
    assert found == {data_set(sample.path) for sample in made}


def test_a_study_that_is_archived_is_a_duplicate_and_not_sent(workdir: Workdir, folder: Path) -> None:
    xnat = Xnat("P")
    with Web(xnat) as web:
        place = f"xnat+{web.url}/P"
        assert workdir.run("push", place, folder).status == 0
        xnat.archive()
        uploads = len(xnat.uploads)
        again = workdir.run("push", place, folder)
        assert (again.status, counts(again)) == (0, {"present": 12}), again  # by what the archive gives back
        forced = workdir.run("push", place, folder, "--force")
        assert (forced.status, counts(forced)) == (3, {"failed": 12}), forced
        assert "the archive has the study already" in forced.stdout.decode()
        assert len(xnat.uploads) == uploads


def test_what_is_in_the_pre_archive_is_not_sent_again_where_counts_are_trusted(
    workdir: Workdir, folder: Path
) -> None:
    xnat = Xnat("P")
    with Web(xnat) as web:
        place = f"xnat+{web.url}/P"
        assert workdir.run("push", place, folder).status == 0
        uploads = len(xnat.uploads)
        again = workdir.run("push", place, folder, "--trust", "counts")
        assert (again.status, counts(again), len(xnat.uploads)) == (0, {"present": 12}, uploads), again


def test_one_login_serves_a_run(workdir: Workdir, folder: Path) -> None:
    xnat = Xnat("P", user=("jane", "secret"))
    with Web(xnat) as web:
        (workdir.path / "password").write_text("secret\n")
        (workdir.path / "password").chmod(0o600)
        config = f'[endpoints.x]\nlocator = "xnat+{web.url}/P"\nuser = "jane"\npassword_file = "password"\n'
        (workdir.path / "c.toml").write_text(config)
        done = workdir.run("push", "x", folder, "--config", "c.toml")
        assert (done.status, counts(done)) == (0, {"stored": 12}), done
    assert len(xnat.opened) == 1
    assert "secret" not in done.stderr and "secret" not in done.stdout.decode()


def test_a_login_page_is_no_answer(workdir: Workdir, folder: Path) -> None:
    with Web(Xnat("P", user=("jane", "secret"), page=True)) as web:
        done = workdir.run("query", f"xnat+{web.url}/P", "--all")
    assert done.status == 5 and "not logged in" in done.stderr, done


def test_an_upload_whose_answer_is_lost_is_looked_for_and_not_sent_again(workdir: Workdir, folder: Path) -> None:
    xnat = Xnat("P", after=lambda nth: Reply(reset="before") if nth == 1 else None)
    with Web(xnat) as web:
        done = workdir.run("push", f"xnat+{web.url}/P", folder)
    assert (done.status, counts(done)) == (0, {"stored": 12}), done
    assert len(xnat.sessions) == 2
