"""`toy`: the real front door, with one more verb behind it."""

import sys
from pathlib import Path

import pytest

from tests.workdir import Workdir


@pytest.fixture
def toy(tmp_path: Path) -> Workdir:
    """Runs the front door with the verb `toy`: toy.run("toy", "bug")."""
    return Workdir(tmp_path, program=(sys.executable, str(Path(__file__).with_name("toy.py"))))
