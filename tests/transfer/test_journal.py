"""The journal beside a spool: what a restart finds, and what a crash leaves."""

from pathlib import Path

from dcmsync.plan.route import Delivery
from dcmsync.transfer.journal import Journal

A, B = Delivery("a"), Delivery("b/ü", ("PatientName=Ä^B", "uid-remap"))


def test_a_restart_finds_what_was_decided_and_done(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    first = Journal(path)
    first.decided("1.dcm", (A, B))
    first.decided("2.dcm", (B,))
    assert not first.done("1.dcm", A, has_failed=True)
    second = Journal(path)  # nobody closed the first one
    entry = second.entries["1.dcm"]
    assert (entry.deliveries, entry.done, entry.has_failed) == ((A, B), {A}, True)
    assert not second.entries["2.dcm"].done
    assert second.done("1.dcm", B, has_failed=False)
    second.close()
    first.close()


def test_a_torn_line_is_none_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.decided("1.dcm", (A,))
    journal.decided("2.dcm", (A,))
    journal.close()
    path.write_bytes(path.read_bytes()[:-7])
    torn = Journal(str(path))
    assert list(torn.entries) == ["1.dcm"]
    torn.keep(["1.dcm", "2.dcm"])
    torn.decided("2.dcm", (B,))
    torn.close()
    again = Journal(str(path))
    assert again.entries["2.dcm"].deliveries == (B,)
    again.close()


def test_lines_of_what_has_left_or_makes_no_sense_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"name":"1","done":["a"],"failed":false}\n[]\n{"name":"2","to":[[]]}\n{"name":"3","to":[["a"]]}\n')
    journal = Journal(str(path))
    assert list(journal.entries) == ["3"]
    journal.close()


def test_it_ends_empty_and_forgets_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    for name in ("1", "2", "3"):
        journal.decided(name, (A,))
    journal.keep(["2"])
    assert path.read_text().count("\n") == 1
    journal.forget("2")
    assert path.read_bytes() == b""
    journal.decided("4", (A,))
    journal.close()
    assert path.read_text().count("\n") == 1
