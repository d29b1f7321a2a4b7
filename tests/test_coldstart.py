"""What a command does not need, it does not import: `filter`, `schema` and every --help start in a blink."""

import subprocess
import sys

import pytest

from dcmsync.cli.main import VERBS
from tests.workdir import Workdir

DEAR = {"pydicom", "pynetdicom", "anyio", "asyncio", "sqlite3", "ssl", "rich", "sqlalchemy", "logging"}

RUN = """
import sys
from dcmsync.cli.main import main
status = main(sys.argv[1:])
sys.stderr.write(" ".join(sorted(name for name in sys.modules if "." not in name)))
sys.exit(status)
"""


@pytest.mark.parametrize(
    "line", [("--help",), ("--version",), ("schema",), ("filter", "Modality=CT"), *((verb, "--help") for verb in VERBS)]
)
def test_nothing_dear_is_imported(workdir: Workdir, line: tuple[str, ...]) -> None:
    record = b'{"type":"series","StudyInstanceUID":"1.2","SeriesInstanceUID":"1.2.3","Modality":"CT"}\n'
    done = subprocess.run(
        [sys.executable, "-c", RUN, *line], input=record, capture_output=True, env=workdir.environment(), check=False
    )
    assert done.returncode == 0, done
    assert not DEAR & set(done.stderr.decode().split())


def test_who_speaks_dimse_does_not_pay_for_http(workdir: Workdir) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "query", "X@127.0.0.1:1", "PatientID=A"], capture_output=True,
        env=workdir.environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 5, done
    assert not {"aiohttp", "yarl", "multidict"} & set(done.stderr.decode().split())


def test_the_table_of_verbs_imports_no_verb() -> None:
    script = "import sys, dcmsync.cli.main; print([m for m in sys.modules if m.startswith('dcmsync.commands.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['dcmsync.commands.options']"


def test_importing_dcmsync_imports_nothing_of_it() -> None:
    script = "import sys, dcmsync; print([m for m in sys.modules if m.startswith('dcmsync')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['dcmsync']"
