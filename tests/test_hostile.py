"""Names from outside never become paths: a stock Orthanc serves what is not meant well.

Orthanc 1.10.1 takes and serves SOP Instance UIDs such as `../../../../escaped`. Debian's `getscu +B` (DCMTK 3.6.7)
writes such an instance outside the folder that it was given, and ends with 0: the last test here shows it, caged.
"""

import json
import secrets
import struct
from pathlib import Path

import pytest

from tests import peers, samples
from tests.workdir import Done, Workdir

ABSOLUTE = f"/tmp/dcmsync-escaped-{secrets.token_hex(6)}"

SOP_UIDS = [
    "../../../../escaped", ABSOLUTE, "..", ".", "a/b", "1.2.3\0x", "1.2.3\n", "1.2.3\x1b[2J", "9" * 300,
    "A" * 64, "a" * 64, "con", "%2e%2e/x", "-rf", "~", "C:\\x", "*", "1.2.3",
]  # fmt: skip
PATIENT_IDS = [
    "..", ".", "/etc", "", " ", "x" * 64, "../../up", "a\x1b[31mb", "a/b\\c", "..\\..\\x", "con", "CON", "~root",
    "P\n1", "-rf", "P1.", "P1", "p1", ".dcmsync-1", "\u202egnp.exe", "a\x9bb",
]  # fmt: skip
PARENT_UIDS = [
    ("../../study", "1.2.1"), ("1.2.5", "../series"), ("/abs", "1.2.3"), ("1.9\n", "1.2\x1b]0;title\x07"), ("..", ".."),
    ("8" * 200, "7" * 200),
]  # fmt: skip


def instance(number: int, *, sop: str = "", patient: str = "P", study: str = "", series: str = "") -> bytes:
    """A Part 10 file; each number has a study and series of its own."""
    uid = sop or f"1.2.{number}.1.1"
    data_set = b"".join(
        samples.element(tag, vr, value)
        for tag, vr, value in (
            (0x00080005, b"CS", "ISO_IR 192"),
            (0x00080016, b"UI", samples.CT_IMAGE_STORAGE),
            (0x00080018, b"UI", uid),
            (0x00080060, b"CS", "CT"),
            (0x00081030, b"LO", patient),
            (0x00100010, b"PN", patient),
            (0x00100020, b"LO", patient),
            (0x0020000D, b"UI", study or f"1.2.{number}"),
            (0x0020000E, b"UI", series or f"1.2.{number}.1"),
            (0x00200013, b"IS", str(number)),
            (0x7FE00010, b"OW", struct.pack("<L", number)),
        )
    )
    return samples.part10(data_set, sop_class_uid=samples.CT_IMAGE_STORAGE, sop_uid=uid)


@pytest.fixture(scope="module")
def archive(start_for_module) -> peers.Peer:
    """Orthanc with all of it that it takes, each instance in a series of its own."""
    peer = start_for_module(peers.orthanc)
    made = [
        *(instance(number, sop=uid) for number, uid in enumerate(SOP_UIDS, 1)),
        *(instance(number, patient=patient) for number, patient in enumerate(PATIENT_IDS, 101)),
        *(instance(number, study=study, series=series) for number, (study, series) in enumerate(PARENT_UIDS, 201)),
    ]
    for octets in made:
        try:
            peer.rest("POST", "/instances", octets)
        except RuntimeError:
            assert b"9" * 300 in octets, "Orthanc refuses the long UID and takes all others"
    assert peer.instances() == len(made) - 1
    return peer


class Sandbox:
    """A place deep enough that what escapes from it by a few steps is still seen."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "sandbox"
        self.workdir = Workdir(self.top / "1/2/3/4/5/6")
        self.workdir.path.mkdir(parents=True)
        self.destination = self.workdir.path / "a"

    def files(self) -> list[Path]:
        return sorted(path for path in self.destination.rglob("*") if not path.is_dir())

    def check(self) -> None:
        """Nothing but the cache is anywhere but in the destination, and there it is files and folders only."""
        ours = (self.destination, self.workdir.path / ".xdg")
        outside = [
            path for path in self.top.rglob("*")
            if not (any(path.is_relative_to(each) for each in ours) or path in self.destination.parents)
        ]
        assert outside == []
        assert not Path(ABSOLUTE).exists() and not Path("/escaped").exists() and not Path("/abs").exists()
        assert [path for path in self.destination.rglob("*") if path.is_symlink()] == []
        assert list(self.destination.rglob(".dcmsync-*")) == []


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def pull(sandbox: Sandbox, archive: peers.Peer, *words: str) -> Done:
    records = sandbox.workdir.run("query", archive.locator, "--all", "--level", "series").stdout
    return sandbox.workdir.run("pull", "./a", "-i", *words, stdin=records)


def stored(done: Done, outcome: str = "stored") -> list[dict[str, str]]:
    """The instances that were stored, or had another outcome."""
    return [each for each in done.of_type("outcome") if each["level"] == "instance" and each["outcome"] == outcome]


@pytest.mark.parametrize("layout", [
    "", "{SOPInstanceUID}", "{PatientID}/{SOPInstanceUID}.dcm", "{PatientName}/{StudyDescription}/{InstanceNumber}.dcm",
    "{StudyInstanceUID}-{SeriesInstanceUID}/{SOPInstanceUID}.dcm", "{PatientID}.dcm",
])  # fmt: skip
def test_everything_lands_below_the_destination_in_a_file_of_its_own(
    layout: str, sandbox: Sandbox, archive: peers.Peer
) -> None:
    done = pull(sandbox, archive, *(("--layout", layout) if layout else ()))
    assert done.status == 3, done
    sandbox.check()
    outcomes = stored(done)
    assert len(outcomes) >= archive.instances() - 3
    assert sorted(sandbox.destination / each["path"] for each in outcomes) == sandbox.files()
    pixels = [path.read_bytes()[-4:] for path in sandbox.files()]
    assert len(set(pixels)) == len(pixels) == len(outcomes), "two instances in one file, or one in two"


def test_what_does_not_land_is_named(sandbox: Sandbox, archive: peers.Peer) -> None:
    """Orthanc says `1.2.3` of what it then sends as `1.2.3\\0x`, and two values of the UID `C:\\x`."""
    done = pull(sandbox, archive)
    series = [each for each in done.of_type("outcome") if each["level"] == "series"]
    assert len(series) == archive.instances()
    failed = {each["SeriesInstanceUID"]: each["reason"] for each in series if each["outcome"] == "failed"}
    assert failed == {"1.2.6.1": "mismatch", "1.2.16.1": "refused"}
    assert not list(sandbox.destination.rglob("1.2.3*x*"))


def test_a_second_run_finds_all_that_landed(sandbox: Sandbox, archive: peers.Peer) -> None:
    first, before = stored(pull(sandbox, archive)), sandbox.files()
    again = pull(sandbox, archive)
    assert stored(again) == [] and sandbox.files() == before
    assert len(stored(again, "present")) == len(first)


@pytest.mark.parametrize("form", ["ndjson", "tree", "table", "csv", "uids"])
def test_no_value_reaches_the_terminal_as_a_command(form: str, sandbox: Sandbox, archive: peers.Peer) -> None:
    for level in ("study", "series", "instance"):
        done = sandbox.workdir.run("query", archive.locator, "--all", "--level", level, "--format", form)
        for line in (done.stdout.decode() + done.stderr).split("\n"):
            if form == "ndjson":  # JSON escapes what is below a space, and no more
                assert min(line, default=" ") >= " ", line
            else:
                assert line.isprintable(), line
    done = pull(sandbox, archive, "--format", "table", "-v")
    for line in (done.stdout.decode() + done.stderr).split("\n"):
        assert line.isprintable(), line


def test_names_in_the_destination_are_not_followed(sandbox: Sandbox, archive: peers.Peer) -> None:
    outside = sandbox.top / "1/outside"
    outside.mkdir()
    sandbox.destination.mkdir()
    (sandbox.destination / "P").symlink_to(outside)
    done = pull(sandbox, archive)
    assert done.status == 3, done
    assert list(outside.iterdir()) == []
    blocked = [each for each in stored(done, "failed") if each["reason"] == "local"]
    assert blocked and all("symbolic link" in each["message"] for each in blocked)
    assert len(stored(done)) >= len(PATIENT_IDS)


@pytest.mark.parametrize("uid", ["*", "1.2.*", "?", "1.2.1\\1.2.2", "", " ", "\n", "\\"])
@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_a_record_cannot_ask_for_more_than_it_names(
    level: str, uid: str, sandbox: Sandbox, archive: peers.Peer
) -> None:
    """Q/R matching knows wildcards and lists; a record names one thing (PS3.4 §C.2.2.2)."""
    record = {
        "type": level, "source": archive.locator, "StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1",
        "SOPInstanceUID": "1.2.1.1.1",
    }  # fmt: skip
    keyword = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}[level]
    done = sandbox.workdir.run("pull", "./a", stdin=json.dumps({**record, keyword: uid}))
    assert done.status in (3, 4, 6), done
    assert sandbox.files() == []


def test_getscu_escapes_from_its_folder(sandbox: Sandbox, archive: peers.Peer) -> None:
    """What this is all about: DCMTK 3.6.7 as Debian ships it. A later one that does not is welcome."""
    folder = sandbox.workdir.path / "a"
    folder.mkdir()
    done = peers.dcmtk(
        "getscu", "+B", "-S", "-aec", archive.ae, "-od", folder, "-k", "0008,0052=STUDY", "-k", "0020,000D=1.2.1",
        archive.host, str(archive.port), check=False,
    )  # fmt: skip
    if "3.6.7" not in peers.dcmtk("getscu", "--version", check=False).stdout:
        pytest.skip("another version of DCMTK")
    escaped = [path.name for path in sandbox.top.rglob("*") if path.is_file() and folder not in path.parents]
    assert (done.returncode, escaped, list(folder.iterdir())) == (0, ["escaped"], [])
