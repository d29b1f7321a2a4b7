"""`dcmsync filter`, as people run it."""

import io
import json
import sys
from argparse import Namespace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmsync.cli.parse import parse
from dcmsync.commands import filter as command
from dcmsync.commands.options import Silent, Streams
from dcmsync.errors import ExitStatus, InputError, UsageError
from tests.workdir import Workdir


def series(number: int, **more: object) -> bytes:
    study = f"1.{number // 3}"
    record = {"type": "series", "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.{number}",
              "PatientID": f"P{number // 6}", "PatientName": "DOE^JANE", "Modality": ("CT", "MR")[number % 2],
              "NumberOfSeriesRelatedInstances": number * 10, "StudyDate": "20240131", **more}
    return json.dumps({key: value for key, value in record.items() if value is not None}).encode() + b"\n"


def end(records: int) -> bytes:
    return b'{"type":"end","format":1,"complete":true,"records":%d}\n' % records


TEN = b"".join(series(number) for number in range(10)) + end(10)


def run(*words: str, stdin: bytes = TEN, stdin_is_pipe: bool = True) -> tuple[bytes, list[str], ExitStatus]:
    said: list[str] = []
    stdout = io.BytesIO()
    streams = Streams(stdin=io.BytesIO(stdin), stdout=stdout, say=said.append, note=said.append,
                      stdin_is_pipe=stdin_is_pipe, is_terminal=False, stderr_is_terminal=False, meter=Silent)
    arguments: Namespace = parse(command.COMMAND, list(words), {})
    status = command.run(arguments, streams)
    return stdout.getvalue(), said, status


def kept(*words: str, stdin: bytes = TEN) -> list[int]:
    """The numbers of the series that stay."""
    records = [json.loads(line) for line in run(*words, stdin=stdin)[0].splitlines()]
    assert [record["records"] for record in records if record["type"] == "end"] == [len(records) - 1]
    return [int(record["SeriesInstanceUID"].rpartition(".")[2]) for record in records if record["type"] != "end"]


@pytest.mark.parametrize("words, numbers", [
    ((), range(10)),
    (("Modality=CT",), [0, 2, 4, 6, 8]),
    (("Modality=CT", "NumberOfSeriesRelatedInstances>40"), [6, 8]),
    (("--any", "Modality=CT", "NumberOfSeriesRelatedInstances>60"), [0, 2, 4, 6, 7, 8, 9]),
    (("--not", "Modality=CT", "NumberOfSeriesRelatedInstances>40"), [0, 1, 2, 3, 4, 5, 7, 9]),
    (("--not", "--any", "Modality=CT", "NumberOfSeriesRelatedInstances>60"), [1, 3, 5]),
    (("--not",), range(10)),
    (("--max-images", "30"), [0, 1, 2, 3]),
    (("--largest", "1", "--per", "study"), [2, 5, 8, 9]),
    (("Modality=CT", "--smallest", "1", "--per", "patient"), [0, 6]),
    (("Modality=CT", "--largest", "2"), [6, 8]),
    (("--until", "2023"), []),
    (("--since", "20240131", "--until", "20240131"), range(10)),
])  # fmt: skip
def test_what_stays(words: tuple[str, ...], numbers: list[int]) -> None:
    assert kept(*words) == list(numbers)


def test_lines_leave_octet_for_octet() -> None:
    strange = b'{ "Modality" : "CT","x":[1.0,1e2,"\\u00e9\xc3\xa9"] , "type":"series"}\r\n'
    unknown = b'{"type":"volume",  "x":1}\n'
    assert run("Modality=CT", stdin=strange + unknown + b"\n" + strange)[0] == strange + unknown + strange


@given(keep=st.lists(st.booleans(), max_size=40))
def test_what_stays_is_a_subsequence_of_the_very_lines(keep: list[bool]) -> None:
    lines = [series(number, Modality="CT" if stays else "MR") for number, stays in enumerate(keep)]
    assert run("Modality=CT", stdin=b"".join(lines))[0] == b"".join(
        line for line, stays in zip(lines, keep, strict=True) if stays)


def test_shards_together_are_everything() -> None:
    parts = [kept("--shard", f"{part}/3") for part in (1, 2, 3)]
    assert sorted(number for part in parts for number in part) == list(range(10))


def test_a_sample_is_the_same_every_time() -> None:
    assert kept("--sample", "4") == kept("--sample", "4")
    assert len(kept("--sample", "4")) == 4
    assert set(kept("--sample", "30%")) <= set(kept("--sample", "60%"))


def test_since_an_age_goes_by_the_local_clock() -> None:
    now = datetime.now()
    old, new = now - timedelta(hours=30), now - timedelta(hours=1)
    lines = [series(number, StudyDate=f"{when:%Y%m%d}", StudyTime=f"{when:%H%M%S}")
             for number, when in enumerate((old, new))]
    assert run("--since", "12h", stdin=b"".join(lines))[0] == lines[1]


def test_unknown_counts_and_dates_are_left_out_with_a_word() -> None:
    lines = [series(1, NumberOfSeriesRelatedInstances=None), series(2), series(3, StudyDate=None)]
    out, said, status = run("--smallest", "1", "--until", "20240131", stdin=b"".join(lines))
    assert out == lines[1]
    assert said == ["left out by --until 20240131 for want of a StudyDate: 1",
                    "left out by --smallest 1 for want of a known number of instances: 1"]
    assert status is ExitStatus.DONE


def test_a_key_that_no_record_has_is_told_with_the_nearest() -> None:
    assert run("Modalty=CT")[1] == ["no record has the key Modalty; did you mean Modality?"]
    assert run("Modalty!=CT")[1] == ["no record has the key Modalty; did you mean Modality?"]
    assert run("Xyzzy")[1] == ["no record has the key Xyzzy"]


def test_a_key_that_some_record_has_is_not_told() -> None:
    assert run("SeriesDescription=x", stdin=series(1) + series(2, SeriesDescription=["y"]))[1] == []
    assert run("Modality=PT", "Modalty=CT")[1] == []
    assert run("Modalty=CT", stdin=b"")[1] == []


def test_explain_names_the_line_and_the_expression_and_no_value() -> None:
    _, said, _ = run("--explain", "PatientName=doe*", "Modality=CT", "--max-images", "10",
                     stdin=series(0) + b"\n" + series(1) + series(2))
    assert said == ["line 3: dropped by Modality=CT", "line 4: dropped by --max-images 10"]
    _, said, _ = run("--explain", "-v", "Modality=CT", stdin=series(1))
    assert said == ["line 1: dropped by Modality=CT (Modality is 'MR')"]


def test_explain_tells_of_rankings_and_of_joined_expressions() -> None:
    assert run("--explain", "--smallest", "1", stdin=series(1) + series(2))[1] == ["line 2: dropped by --smallest 1"]
    assert run("--explain", "--any", "Modality=PT", "Modality=SR", stdin=series(1))[1] == [
        "line 1: dropped by --any Modality=PT Modality=SR"]
    assert run("--explain", "--not", "Modality=MR", stdin=series(1))[1] == ["line 1: dropped by --not Modality=MR"]


def test_explain_counts_what_is_unknown_once() -> None:
    _, said, _ = run("--explain", "--max-images", "5", stdin=series(1, NumberOfSeriesRelatedInstances=None))
    assert said[-1] == "left out by --max-images 5 for want of a known number of instances: 1"


def test_explain_keeps_the_same_lines() -> None:
    assert run("--explain", "Modality=CT")[0] == run("Modality=CT")[0]


def test_outcomes_can_be_filtered() -> None:
    failed = b'{"type":"outcome","level":"series","outcome":"failed","retry":true}\n'
    stored = b'{"type":"outcome","level":"series","outcome":"stored","retry":false}\n'
    assert run("outcome=failed", "retry=true", stdin=stored + failed)[0] == failed


@pytest.mark.parametrize("stdin, require_end, status", [
    (series(1), False, ExitStatus.DONE),
    (series(1), True, ExitStatus.INCOMPLETE),
    (series(1) + end(1), True, ExitStatus.DONE),
    (series(1) + end(1).replace(b"true", b"false"), False, ExitStatus.INCOMPLETE),
    (series(1) + series(2)[:30], False, ExitStatus.INCOMPLETE),
])  # fmt: skip
def test_incomplete_input_is_6(stdin: bytes, require_end: bool, status: ExitStatus) -> None:
    assert run(*["--require-end"] * require_end, "Modality=MR", stdin=stdin)[2] is status


def test_a_bad_line_is_an_input_error() -> None:
    with pytest.raises(InputError, match="line 2"):
        run("Modality=CT", stdin=series(1) + b"{}\n")


@pytest.mark.parametrize("option", ["--since", "--until", "--shard", "--sample"])
def test_an_empty_value_is_no_missing_option(option: str) -> None:
    with pytest.raises(UsageError):
        run(option, "")


def test_nothing_is_read_from_a_terminal() -> None:
    with pytest.raises(UsageError, match="standard input"):
        run("Modality=CT", stdin_is_pipe=False)


def test_selectors_come_from_the_configuration(workdir: Workdir) -> None:
    config = workdir.path / "config.toml"
    config.write_text('[selectors.thin]\nall_of = ["Modality=CT"]\nnone_of = ["SeriesNumber>5"]\n')
    done = workdir.run("filter", "--config", config, "@thin", stdin=TEN)
    assert done.status == 0, done
    assert len(done.of_type("series")) == 5
    done = workdir.run("filter", "!@thin", stdin=TEN, env={"DCMSYNC_CONFIG": str(config)})
    assert len(done.of_type("series")) == 5, done
    done = workdir.run("filter", "@thick", stdin=TEN, env={"DCMSYNC_CONFIG": str(config)})
    assert done.status == 2, done
    assert "thin" in done.stderr


def test_the_configuration_is_read_only_for_a_selector(workdir: Workdir) -> None:
    assert workdir.run("filter", "--config", "missing.toml", "Modality=CT", stdin=TEN).status == 0
    assert workdir.run("filter", "--config", "missing.toml", "@thin", stdin=TEN).status == 2


def test_the_executable_filters(workdir: Workdir) -> None:
    done = workdir.run("filter", "Modality=CT", stdin=TEN)
    assert (done.status, done.stderr) == (0, ""), done
    assert done.stdout == b"".join(series(number) for number in range(0, 10, 2)) + end(5)


def test_an_incomplete_stream_ends_with_6_and_says_why(workdir: Workdir) -> None:
    done = workdir.run("filter", "Modality=CT", stdin=TEN[:-10])
    assert done.status == 6, done
    assert done.stderr == "dcmsync filter: the input is not complete: it breaks off within a line\n"
    assert done.records[-1] == {"type": "end", "format": 1, "complete": False, "records": 5, "reason": "input"}


def test_a_bad_line_ends_with_6_and_its_number(workdir: Workdir) -> None:
    done = workdir.run("filter", "Modality=CT", stdin=series(0) + b'{"type":"series"\n')
    assert done.status == 6, done
    assert "line 2: " in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    script = tmp_path / "modules.py"
    script.write_text(
        "import sys\nfrom dcmsync.cli.main import main\nstatus = main(['filter', 'Modality=CT', '--sample', '5%'])\n"
        "heavy = {'pydicom', 'pynetdicom', 'asyncio', 'anyio', 'rich', 'sqlite3', 'ssl', 'tomllib', 'difflib'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)\n")
    done = Workdir(tmp_path, program=(sys.executable, str(script))).run(stdin=TEN)
    assert done.stderr == "[]\n", done
