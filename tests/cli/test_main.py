"""The front door: every ending of a verb becomes its exit status, and says no more than it should."""

import json
import os
import signal
import subprocess

import pytest

from tests.workdir import Workdir


def test_version(workdir: Workdir) -> None:
    done = workdir.run("--version")
    assert (done.status, done.stdout) == (0, b"dcmsync 0.1.0\n"), done


@pytest.mark.parametrize("line", [("--help",), ("-h",), ("help",)])
def test_help_lists_the_verbs_on_stdout(workdir: Workdir, line: tuple[str, ...]) -> None:
    done = workdir.run(*line)
    assert done.status == 0, done
    assert b"query" in done.stdout
    assert done.stderr == ""


def test_nothing_at_all_shows_help_on_stderr(workdir: Workdir) -> None:
    done = workdir.run()
    assert (done.status, done.stdout) == (2, b""), done
    assert "Usage: dcmsync VERB" in done.stderr


def test_unknown_verb_names_the_nearest(workdir: Workdir) -> None:
    done = workdir.run("qurey")
    assert (done.status, done.stderr) == (2, "dcmsync: no such verb: 'qurey'. Did you mean query?\n")


def test_verbs_are_not_abbreviated(workdir: Workdir) -> None:
    assert workdir.run("sch").status == 2


def test_option_before_the_verb_is_explained(workdir: Workdir) -> None:
    done = workdir.run("-v", "schema")
    assert done.status == 2
    assert "after the verb" in done.stderr


@pytest.mark.parametrize("line", [("help", "toy"), ("toy", "--help"), ("toy", "bug", "--nope", "-h")])
def test_help_of_a_verb_shows_examples_first(toy: Workdir, line: tuple[str, ...]) -> None:
    text = toy.run(*line).stdout.decode()
    parts = [text.index(part) for part in ("Examples:", "Usage:", "Plays.", "Arguments:", "Options:", "Exit statuses:")]
    assert parts == sorted(parts)
    assert "    as it stands\n" in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("ending", "status", "words"),
    [
        ("refused", 5, "dcmsync toy: pacs: connection refused. Check the port\n"),
        ("group", 5, "dcmsync toy: two\n"),
        ("full", 7, "dcmsync toy: this machine says no: No space left on device\n"),
        ("well", 0, ""),
    ],
)
def test_endings_become_statuses(toy: Workdir, ending: str, status: int, words: str) -> None:
    done = toy.run("toy", ending)
    assert (done.status, done.stderr) == (status, words), done


def test_a_bug_shows_no_patient_unless_asked(toy: Workdir) -> None:
    done = toy.run("toy", "bug")
    assert done.status == 70
    assert "KeyError at toy.py:" in done.stderr
    assert "Doe" not in done.stderr
    assert done.stderr.count("\n") == 1
    for more in (toy.run("toy", "bug", "-v"), toy.run("toy", "bug", env={"DCMSYNC_DEBUG": "1"})):
        assert "Traceback" in more.stderr
        assert more.status == 70


def test_messages_as_json_are_one_object_a_line(toy: Workdir) -> None:
    done = toy.run("toy", "bug", "-v", "--log-format", "json")
    messages = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "verb", "message"} == set(messages[0])
    assert (messages[0]["level"], messages[0]["verb"]) == ("error", "toy")
    wrong = toy.run("toy", "--log-format=json", "--nope")
    assert json.loads(wrong.stderr)["message"].startswith("no such option: --nope")


def test_control_characters_are_shown_not_sent(toy: Workdir) -> None:
    done = toy.run("toy", "talk")
    assert done.stderr == "dcmsync toy: hello\\x1b]0;title\\x07\ndcmsync toy: warning: beware\n"
    assert toy.run("toy", "talk", "-q").stderr == ""
    assert toy.run("toy", "talk", "-v").stderr.splitlines()[2] == "dcmsync toy: more"


def test_library_warnings_stay_silent(toy: Workdir) -> None:
    assert toy.run("toy", "warn").stderr == ""


def test_reader_that_goes_away_ends_it_quietly(toy: Workdir) -> None:
    process = toy.start("toy", "yes")
    assert process.stdout
    assert process.stderr
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(10) == 141


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_become_statuses(toy: Workdir, sent: signal.Signals, status: int) -> None:
    process = toy.start("toy", "sleep")
    assert process.stderr
    process.stderr.readline()
    process.send_signal(sent)
    _, rest = process.communicate(timeout=10)
    assert (process.returncode, rest) == (status, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_standard_output_is_local_trouble(toy: Workdir) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*toy.program, "toy", "well"], stdout=full, stderr=subprocess.PIPE, env=toy.environment(), check=False
        )
    assert done.returncode == 7
    assert b"standard output cannot be written: No space left" in done.stderr


@pytest.mark.parametrize(("redirection", "status"), [(">&-", 7), ("2>&-", 0), ("<&-", 0)])
def test_closed_descriptors_are_no_surprise(toy: Workdir, redirection: str, status: int) -> None:
    line = f'"$@" {redirection}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *toy.program, "toy", "well"], capture_output=True, env=toy.environment(), check=False
    )
    assert done.returncode == status, done


def test_stdin_counts_as_input_only_when_someone_put_data_there(toy: Workdir) -> None:
    assert toy.run("toy", "stdin").stdout == b"False\n"
    assert toy.run("toy", "stdin", stdin="a\n").stdout == b"True\na\n"
    path = toy.path / "records"
    path.write_bytes(b"b\n")
    with path.open("rb") as file:
        process = toy.start("toy", "stdin", stdin=file.fileno())
        assert process.communicate(timeout=10)[0] == b"True\nb\n"
